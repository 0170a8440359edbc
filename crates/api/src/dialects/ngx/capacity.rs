//! The room of pools, and what it is used for.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_catalog::volumes::{self, Volume};
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::cluster;
use super::declared::{Endpoint, Over};
use super::dispatch::Call;
use super::pool::{Seen, visible};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        cluster::SECTION
            .get::<BTreeMap<String, Capacity>>("/status/capacity", "ngx.status.capacity", "The room of pools", |call| {
                show(call).boxed()
            })
            .needs(Right::PoolView, Over::Any)
            .state("as the original, by the names of pools; with `ngx_api = \"2.4\"` an array. `logical_reserved` is what LUNs that are `full` have set aside and not written; an empty pool has ratios of 1; there is no replication in this version, so `replica` is 0, as `shares` is; figures that were never measured are null, `iscsi` until each LUN of the pool was"),
    ]
}

/// The room of a pool. Sizes are bytes.
#[derive(Debug, Serialize, ToSchema)]
struct CapacityInfo {
    allocated_size: Option<String>,
    compress_ratio: Option<String>,
    dedup_ratio: Option<String>,
    free_size: Option<String>,
    logical_avail: Option<String>,
    logical_reserved: Option<String>,
    total_size: Option<String>,
}

/// What the room is used for. Sizes are bytes.
#[derive(Debug, Serialize, ToSchema)]
struct ProtocolUsage {
    iscsi: Option<String>,
    replica: String,
    shares: String,
}

/// What is left and set aside, as later software tells it.
#[derive(Debug, Serialize, ToSchema)]
struct LogicalRoom {
    available: Option<String>,
    reserved: Option<String>,
}

/// The room of a pool, and what it is used for.
#[derive(Debug, Serialize, ToSchema)]
struct Capacity {
    info: CapacityInfo,
    protocol_usage: ProtocolUsage,
    /// The pool.
    name: String,
    logical: LogicalRoom,
}

async fn show(call: Call) -> Answer {
    let mut all = Vec::new();
    for known in visible(&call).await? {
        // What is open tells how it is now.
        let seen = Seen::of(&call, known).await;
        all.push(of(&call, seen).await?);
    }
    match call.is_newer() {
        true => found(&all),
        false => {
            let by_name = all.into_iter().map(|one| (one.name.clone(), one));
            found(&by_name.collect::<BTreeMap<_, _>>())
        }
    }
}

async fn of(call: &Call, seen: Seen) -> Answer<Capacity> {
    let Seen { known, details } = seen;
    let stats = call.app().storage().stats_of(known, details).await?;
    let figures = stats.figures.as_ref();
    // An empty pool saves nothing, and wastes nothing.
    let ratio = |of: fn(&strongroom_storage::Ratios) -> Option<f64>| {
        stats.ratios.as_ref().map(|ratios| format!("{:.2}", of(ratios).unwrap_or(1.0)))
    };
    let volumes = volumes::of_pool(call.app().catalog(), stats.pool.id).await?;
    // Without the figures of each nobody knows the sum.
    let held = |one: &Volume| one.used?.checked_add(one.snapshots_used?);
    let held: Option<u64> = volumes.iter().map(held).sum();
    let full = volumes.iter().filter(|one| !one.thin);
    let reserved: Option<u64> = full.map(|one| Some(one.size.saturating_sub(one.used?))).sum();
    let available =
        stats.details.as_ref().and_then(|details| available(details, figures?.room_bytes?));
    let text = |bytes: u64| bytes.to_string();
    let (available, reserved) = (available.map(text), reserved.map(text));
    Ok(Capacity {
        info: CapacityInfo {
            allocated_size: figures.map(|figures| text(figures.disk_bytes)),
            compress_ratio: ratio(|ratios| ratios.compression),
            dedup_ratio: ratio(|ratios| ratios.deduplication).map(|ratio| ratio + "x"),
            free_size: figures.and_then(|figures| figures.free_bytes).map(text),
            logical_avail: available.clone(),
            logical_reserved: reserved.clone(),
            total_size: figures.and_then(|figures| figures.capacity_bytes).map(text),
        },
        protocol_usage: ProtocolUsage {
            iscsi: held.map(text),
            replica: "0".into(),
            shares: "0".into(),
        },
        name: stats.pool.name.clone(),
        logical: LogicalRoom { available, reserved },
    })
}

/// Bytes that can be stored in so much room, by the disks that hold data and those that don't.
fn available(details: &strongroom_storage::PoolDetails, room: u64) -> Option<u64> {
    let disks = details.disks.len();
    let parity = details.layout.parse::<strongroom_storage::Layout>().ok()?.parity(disks).ok()?;
    let data = disks.checked_sub(usize::from(parity))? as u128;
    u64::try_from(u128::from(room) * data / disks.max(1) as u128).ok()
}
