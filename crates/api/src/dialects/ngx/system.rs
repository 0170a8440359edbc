//! The system: what it is, and how much there is of what.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_appliance::Error;
use strongroom_catalog::identity::USERS;
use strongroom_catalog::list::{List, Resource, Scope};
use strongroom_catalog::resources::{SNAPSHOTS, VOLUMES};
use strongroom_catalog::targets::Lun;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::cluster;
use super::declared::{Endpoint, Section};
use super::dispatch::Call;
use super::integrity::told;
use super::traffic::measured;

pub(super) fn endpoints() -> Vec<Endpoint> {
    const STATE: &str = "as the original; `os_version` is the kernel's, `service_tag` the machine's serial \
        number, else its name, `product` what its maker calls it, else the program's, `dramcachesize` its \
        memory; counts are of the whole appliance; `maxlun` and `maxsnap` are what one target and one LUN may have";
    let info: Section = Section { name: "SystemInfo", reads: "ngx.info.read", ..cluster::SECTION };
    vec![
        cluster::SECTION
            .get::<SystemInfo>(
                "/status/system_info",
                "ngx.status.system_info",
                "The system",
                |call| show(call).boxed(),
            )
            .state(STATE),
        info.get::<SystemInfo>("/info/system", "ngx.info.system", "The system", |call| {
            show(call).boxed()
        })
        .state("of later software; as `/status/system_info`"),
        cluster::SECTION
            .get::<License>("/status/license", "ngx.status.license", "The licence", |call| {
                license(call).boxed()
            })
            .state("of later software, the members are ours"),
    ]
}

/// The system.
#[derive(Debug, Serialize, ToSchema)]
struct SystemInfo {
    app_version: String,
    /// How many controllers there are.
    controller_type: &'static str,
    #[schema(example = "Mon Apr 1 09:48:29 +03 2024")]
    date: String,
    #[schema(example = "258GB")]
    dramcachesize: Option<String>,
    fc_initiators: u64,
    luns: u64,
    maxlun: String,
    maxsnap: String,
    os_version: String,
    product: String,
    /// Initiators that are logged in.
    scsi_initiators: u64,
    service_tag: String,
    shares: u64,
    snapshot_count: String,
    #[schema(example = "33 minutes, 38 seconds")]
    uptime: Option<String>,
    /// LUNs that are mapped to a target.
    used_lun: u64,
    user_count: u64,
}

async fn count(call: &Call, resource: &'static Resource, filters: &[(&str, &str)]) -> Answer<u64> {
    let list = List::parse(resource, filters.iter().copied());
    let list = list.map_err(crate::problem::Problem::from)?;
    Ok(list.count(call.app().catalog(), &Scope::All).await?.count)
}

async fn show(call: Call) -> Answer {
    let (product, uptime) =
        call.app().look(|hardware| (hardware.product(), hardware.uptime())).await?;
    let memory = measured(&call).await?.memory;
    let storage = call.app().storage();
    let mapped: Vec<Lun> = call.app().catalog().find(Lun::all()).await?;
    let mapped: BTreeSet<i64> = mapped.into_iter().map(|lun| lun.volume_id).collect();
    // One may be logged in several times.
    let sessions = storage.all_target_sessions().into_iter();
    let initiators: BTreeSet<String> = sessions.map(|session| session.initiator).collect();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    found(&SystemInfo {
        app_version: call.app().administration().version().to_owned(),
        controller_type: "1",
        date: told(jiff::Timestamp::now()),
        dramcachesize: memory.map(|memory| format!("{}GB", (memory.total >> 20).div_ceil(1 << 10))),
        fc_initiators: 0,
        luns: count(&call, &VOLUMES, &[]).await?,
        maxlun: strongroom_storage::MAX_LUNS.to_string(),
        maxsnap: strongroom_storage::volumes::MAX_SNAPSHOTS.to_string(),
        os_version: kernel,
        product: product.unwrap_or_else(|| "Strongroom".into()),
        scsi_initiators: initiators.len() as u64,
        service_tag: cluster::service_tag(&call).await?,
        shares: 0,
        snapshot_count: count(&call, &SNAPSHOTS, &[]).await?.to_string(),
        uptime: uptime.map(spoken),
        used_lun: mapped.len() as u64,
        user_count: count(&call, &USERS, &[]).await?,
    })
}

/// `33 minutes, 38 seconds`.
fn spoken(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "day"),
        (seconds / 3600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let tell = |(count, unit): &(u64, &str)| {
        format!("{count} {unit}{}", if *count == 1 { "" } else { "s" })
    };
    parts[first..].iter().map(tell).collect::<Vec<_>>().join(", ")
}

/// The licence.
#[derive(Debug, Serialize, ToSchema)]
struct License {
    /// `valid`, `expired`, `invalid` or `none`.
    status: &'static str,
    name: Option<String>,
    product: Option<String>,
    users: Option<u32>,
    /// Its last day.
    expires: Option<String>,
}

async fn license(call: Call) -> Answer {
    let none = |status| License { status, name: None, product: None, users: None, expires: None };
    let shown = call.app().licences(move |all| {
        Ok(match all.current() {
            Ok(Some(licence)) => License {
                status: licence.state_now().word(),
                name: Some(licence.name),
                product: Some(licence.app),
                users: Some(licence.users),
                expires: licence.expires.map(|day| day.to_string()),
            },
            Ok(None) => none("none"),
            Err(Error::LicenceKept(_)) => none("invalid"),
            Err(error) => return Err(error),
        })
    });
    found(&shown.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_spoken_as_the_document_does() {
        for (seconds, text) in [
            (2018, "33 minutes, 38 seconds"),
            (0, "0 seconds"),
            (61, "1 minute, 1 second"),
            (3600, "1 hour, 0 minutes, 0 seconds"),
            (90_061, "1 day, 1 hour, 1 minute, 1 second"),
        ] {
            assert_eq!(spoken(seconds), text);
        }
    }
}
