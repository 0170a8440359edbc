//! Services: what is served beside this interface.

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Answer, Fault, Number, found};
use super::cluster;
use super::declared::{Endpoint, Section};
use super::dispatch::Call;

const NFS: Section = Section { name: "Services", reads: "ngx.services.read", ..cluster::SECTION };

pub(super) fn endpoints() -> Vec<Endpoint> {
    const ABSENT: &str = "there are no shares in this version: answered with 501 and 9501";
    let refuse = |path, id, summary| {
        NFS.change(Method::POST, path, id, summary, |call| no_nfs(call).boxed()).state(ABSENT)
    };
    vec![
        cluster::SECTION
            .get::<Services>("/status/services", "ngx.status.services", "Services", |call| {
                show(call).boxed()
            })
            .state(
                "`san` is 1 while iSCSI is served; there is no CIFS, NFS and S3 in this version",
            ),
        NFS.get::<ServiceStatus>(
            "/services/nfs/status",
            "ngx.services.nfs_status",
            "Whether NFS is served",
            |call| nfs_status(call).boxed(),
        )
        .state("it isn't, in this version"),
        NFS.get::<ServiceStatus>(
            "/services/nfs/settings",
            "ngx.services.nfs_settings",
            "How NFS is set",
            |call| nfs_status(call).boxed(),
        )
        .state("it isn't served in this version; nothing is set"),
        refuse("/services/nfs/start", "ngx.services.nfs_start", "Serve NFS"),
        refuse("/services/nfs/stop", "ngx.services.nfs_stop", "Serve NFS no longer"),
        refuse("/services/nfs/restart", "ngx.services.nfs_restart", "Serve NFS anew"),
    ]
}

/// 1: it is served.
#[derive(Debug, Serialize, ToSchema)]
struct Services {
    cifs: u8,
    nfs: u8,
    s3: u8,
    san: u8,
}

/// What the process enters its iSCSI servers as.
const ISCSI: &str = "iscsi";

async fn show(call: Call) -> Answer {
    let listed = call.app().services().list();
    let san = listed.iter().any(|one| one.name == ISCSI && one.listening);
    found(&Services { cifs: 0, nfs: 0, s3: 0, san: san.into() })
}

/// Whether a service runs.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceStatus {
    enabled: u8,
    running: u8,
}

async fn nfs_status(_: Call) -> Answer {
    found(&ServiceStatus { enabled: 0, running: 0 })
}

async fn no_nfs(_: Call) -> Answer {
    let text = "this version of the appliance serves no NFS, and has no shares";
    Err(Fault::new(Number::Absent, text))
}
