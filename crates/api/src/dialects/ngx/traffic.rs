//! What the machine has to do: reads and writes of the pools' disks, processors, and memory.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_appliance::Measured;
use strongroom_appliance::hardware::Traffic;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::cluster;
use super::declared::{Endpoint, Over};
use super::dispatch::Call;
use super::pool::{Physical, Seen, visible};
use crate::problem::Problem;

/// How long the disks are watched.
const WATCHED: Duration = Duration::from_millis(500);

pub(super) fn endpoints() -> Vec<Endpoint> {
    let section = cluster::SECTION;
    vec![
        section
            .get::<Rates>("/status/iops", "ngx.status.iops", "Reads and writes a second", |call| {
                iops(call).boxed()
            })
            .needs(Right::PoolView, Over::Any)
            .state("of later software, the members are ours: what the disks of the key's pools did in the half second after the call, other users of those disks included"),
        section
            .get::<Rates>("/status/bandwidth", "ngx.status.bandwidth", "Bytes a second", |call| {
                bandwidth(call).boxed()
            })
            .needs(Right::PoolView, Over::Any)
            .state("as `/status/iops`, in bytes a second"),
        section
            .get::<Cache>("/status/cache", "ngx.status.cache", "Memory", |call| cache(call).boxed())
            .state("of later software, the members are ours: the machine's memory, in which caches are; there is no flash cache"),
        section
            .get::<Cpu>("/status/cpu", "ngx.status.cpu", "Processors", |call| cpu(call).boxed())
            .state("of later software, the members are ours: cores, and the load of 1, 5 and 15 minutes; null where the system doesn't say"),
    ]
}

/// Reads and writes in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
struct Rate {
    read: u64,
    write: u64,
    total: u64,
}

/// Of all disks, and of each.
#[derive(Debug, Serialize, ToSchema)]
struct Rates {
    read: u64,
    write: u64,
    total: u64,
    /// By what the kernel calls them.
    disks: BTreeMap<String, Rate>,
}

async fn iops(call: Call) -> Answer {
    rates(call, |traffic| (traffic.reads, traffic.writes)).await
}

async fn bandwidth(call: Call) -> Answer {
    rates(call, |traffic| (traffic.read_bytes, traffic.written_bytes)).await
}

async fn rates(call: Call, of: fn(Traffic) -> (u64, u64)) -> Answer {
    let mut paths = Vec::new();
    for known in visible(&call).await? {
        let details = Seen::of(&call, known).await.details;
        paths.extend(details.into_iter().flat_map(|d| d.disks).filter_map(|disk| disk.path));
    }
    let names = call.app().look(move |hardware| Physical::of(hardware, &paths).names()).await?;
    let names: Vec<String> = names.into_iter().collect();
    let before = counted(&call, names.clone()).await?;
    let began = std::time::Instant::now();
    tokio::time::sleep(WATCHED).await;
    let after = counted(&call, names).await?;
    let seconds = began.elapsed().as_secs_f64();
    let mut disks = BTreeMap::new();
    for (name, after) in after {
        let Some(before) = before.get(&name) else { continue };
        let ((read, write), (read_now, write_now)) = (of(*before), of(after));
        let rate = |from: u64, to: u64| (to.saturating_sub(from) as f64 / seconds).round() as u64;
        let (read, write) = (rate(read, read_now), rate(write, write_now));
        disks.insert(name, Rate { read, write, total: read + write });
    }
    let sum = |of: fn(&Rate) -> u64| disks.values().map(of).sum();
    let (read, write) = (sum(|rate| rate.read), sum(|rate| rate.write));
    found(&Rates { read, write, total: read + write, disks })
}

async fn counted(call: &Call, names: Vec<String>) -> Answer<BTreeMap<String, Traffic>> {
    let counted = call.app().look(move |hardware| {
        let one = |name: String| Some((name.clone(), hardware.traffic(&name)?));
        names.into_iter().filter_map(one).collect()
    });
    Ok(counted.await?)
}

pub(super) async fn measured(call: &Call) -> Answer<Measured> {
    let health = call.app().health().clone();
    let measured = tokio::task::spawn_blocking(move || health.measure()).await;
    Ok(measured.map_err(|error| Problem::internal(&error))?)
}

/// Memory, in bytes.
#[derive(Debug, Serialize, ToSchema)]
struct Dram {
    total: Option<u64>,
    used: Option<u64>,
    free: Option<u64>,
}

/// What caches are in.
#[derive(Debug, Serialize, ToSchema)]
struct Cache {
    dram: Dram,
    /// There is none.
    flash: Option<Dram>,
}

async fn cache(call: Call) -> Answer {
    let memory = measured(&call).await?.memory;
    let of = |of: fn(strongroom_appliance::Usage) -> u64| memory.map(of);
    let dram = Dram { total: of(|m| m.total), used: of(|m| m.used), free: of(|m| m.free) };
    found(&Cache { dram, flash: None })
}

/// Processors.
#[derive(Debug, Serialize, ToSchema)]
struct Cpu {
    /// How many there are.
    cores: Option<u32>,
    /// How many processes ran or wanted to, on average over 1, 5 and 15 minutes.
    load: Option<[f64; 3]>,
    /// The load of five minutes by the cores, in percent.
    percent: Option<u32>,
}

async fn cpu(call: Call) -> Answer {
    let cpu = measured(&call).await?.cpu;
    found(&Cpu { cores: cpu.cores, load: cpu.loads, percent: cpu.percent() })
}
