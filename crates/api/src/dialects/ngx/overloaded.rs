//! Volumes that are nearly full, as they were when it was looked for them last.

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_identity::Right;
use strongroom_storage::volumes::Overloaded;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::cluster;
use super::declared::{Endpoint, Over};
use super::dispatch::Call;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        cluster::SECTION
            .get::<Checked>("/status/overloaded_volumes", "ngx.status.overloaded_volumes", "Volumes that are nearly full", |call| {
                show(call).boxed()
            })
            .needs(Right::VolumeView, Over::Any)
            .state("as the original; with `ngx_api = \"2.4\"` an array. LUNs of which the setting `volumes.overloaded` percent are written (90 when nobody says), looked for once in a minute; `last_check_time` is null before the first time"),
    ]
}

/// A volume that is nearly full.
#[derive(Debug, Serialize, ToSchema)]
struct Full {
    name: String,
    pool: String,
    /// Always `lun`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Bytes that are written.
    used: u64,
    vol_id: String,
    /// Its bytes.
    volsize: u64,
    /// As `vol_id`.
    id: String,
}

/// Volumes that are nearly full.
#[derive(Debug, Serialize, ToSchema)]
struct Checked {
    /// Seconds since 1970.
    last_check_time: Option<String>,
    overloaded_volumes: Vec<Full>,
}

async fn show(call: Call) -> Answer {
    let checked = call.app().storage().overloaded_volumes();
    let full: Vec<Full> = checked
        .volumes
        .into_iter()
        .filter(|one| call.sees(one.volume.organisation_id, Some(one.volume.pool_id)))
        .map(|Overloaded { volume, pool, used }| Full {
            name: volume.name,
            pool,
            kind: "lun",
            used,
            vol_id: volume.public_id.clone(),
            volsize: volume.size,
            id: volume.public_id,
        })
        .collect();
    if call.is_newer() {
        return found(&full);
    }
    let last_check_time = checked.at.map(|at| at.as_second().to_string());
    found(&Checked { last_check_time, overloaded_volumes: full })
}
