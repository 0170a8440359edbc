//! What the machine has to do: reads and writes of the pools' disks, processors, and memory.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_appliance::hardware::Traffic;
use strongroom_appliance::{Hardware, Measured};
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::cluster;
use super::declared::{Endpoint, Over};
use super::dispatch::Call;
use super::pool::Physical;
use crate::problem::Problem;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let section = cluster::SECTION;
    vec![
        section
            .get::<Rates>("/status/iops", "ngx.status.iops", "Reads and writes a second", |call| {
                iops(call).boxed()
            })
            .needs(Right::PoolView, Over::Any)
            .state("of later software, the members are ours: what the disks of the key's pools did in a second, on average over the last 1 to 6 seconds, other users of those disks included; pools that aren't open here are left out, and all is null in the first second after a start"),
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
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct Rate {
    read: u64,
    write: u64,
    total: u64,
}

/// Of all disks, and of each; null: not known yet.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Rates {
    read: Option<u64>,
    write: Option<u64>,
    total: Option<u64>,
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
    let scope = call.scope();
    let disks = call.app().storage().disks(&scope, call.only().as_deref()).await?;
    let paths: Vec<String> = disks.into_iter().filter_map(|(_, disk)| disk.path).collect();
    let look = move |hardware: &Hardware| hardware.rates(&Physical::of(hardware, &paths).names());
    let Some(rates) = call.app().look(look).await? else {
        return found(&Rates::default());
    };
    let rate = |(name, traffic): (String, Traffic)| {
        let (read, write) = of(traffic);
        (name, Rate { read, write, total: read.saturating_add(write) })
    };
    let disks: BTreeMap<String, Rate> = rates.into_iter().map(rate).collect();
    let sum = |of: fn(&Rate) -> u64| Some(disks.values().map(of).fold(0, u64::saturating_add));
    let (read, write) = (sum(|rate| rate.read), sum(|rate| rate.write));
    let total = sum(|rate| rate.total);
    found(&Rates { read, write, total, disks })
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
