//! The machine's parts.

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::cluster;
use super::declared::{Endpoint, Over, Section};
use super::dispatch::Call;
use super::traffic::measured;

const SECTION: Section = Section {
    name: "Hardware",
    reads: "ngx.hardware.read",
    view: Right::SystemView,
    manage: Right::SystemManage,
    over: Over::Appliance,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    const OURS: &str = "of later software, the members are ours: what the kernel tells of";
    vec![
        cluster::SECTION
            .get::<Vec<EnclosureShown>>("/status/enclosures", "ngx.status.enclosures", "Enclosures", |call| {
                enclosures(call).boxed()
            })
            .state(OF_ENCLOSURES),
        SECTION
            .get::<Vec<EnclosureShown>>("/hardware/enclosure/list", "ngx.hardware.enclosures", "Enclosures", |call| {
                enclosures(call).boxed()
            })
            .state("as `/status/enclosures`"),
        SECTION
            .get::<Vec<DiskShown>>("/hardware/disk/list", "ngx.hardware.disks", "Disks", |call| {
                disks(call).boxed()
            })
            .state(OURS),
        SECTION
            .get::<Vec<ProcessorShown>>("/hardware/cpu/list", "ngx.hardware.cpus", "Processors", |call| {
                processors(call).boxed()
            })
            .state(OURS),
        SECTION
            .get::<Vec<MemoryShown>>("/hardware/memory/list", "ngx.hardware.memory", "Memory", |call| {
                memory(call).boxed()
            })
            .state("of later software, the members are ours: modules where the memory controller tells of them, else one entry for all"),
        SECTION
            .get::<Vec<FanShown>>("/hardware/fan/list", "ngx.hardware.fans", "Fans", |call| {
                fans(call).boxed()
            })
            .state(OURS),
        SECTION
            .get::<Vec<Supply>>("/hardware/power_supply/list", "ngx.hardware.power_supplies", "Power supplies", |call| {
                power(call).boxed()
            })
            .state(OURS),
    ]
}

const OF_ENCLOSURES: &str = "SCSI enclosures that tell of themselves; disks in none are in that of \
    their controller: `model` is then its driver, `serial` its address on the bus";

/// What disks are in.
#[derive(Debug, Serialize, ToSchema)]
struct EnclosureShown {
    model: String,
    no: u32,
    /// The controller that has it, from 0.
    owner: u8,
    serial: String,
}

/// A disk.
#[derive(Debug, Serialize, ToSchema)]
struct DiskShown {
    name: String,
    /// Where it is.
    #[schema(example = "E1:S18")]
    enclosure: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    lunid: Option<String>,
    /// Its bytes.
    size: Option<String>,
    is_nvme: u8,
    is_flash: Option<bool>,
}

/// A processor.
#[derive(Debug, Serialize, ToSchema)]
struct ProcessorShown {
    no: u32,
    model: Option<String>,
    cores: Option<u32>,
    threads: u32,
}

/// Memory.
#[derive(Debug, Serialize, ToSchema)]
struct MemoryShown {
    name: String,
    /// Its bytes.
    size: String,
}

/// A fan.
#[derive(Debug, Serialize, ToSchema)]
struct FanShown {
    name: String,
    /// Turns in a minute.
    speed: Option<u64>,
}

/// A power supply.
#[derive(Debug, Serialize, ToSchema)]
struct Supply {
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    online: Option<bool>,
}

async fn enclosures(call: Call) -> Answer {
    let (enclosures, _) = call.app().look(|hardware| hardware.disks()).await?;
    let show = |one: strongroom_appliance::hardware::Enclosure| EnclosureShown {
        model: one.model,
        no: one.number,
        owner: 0,
        serial: one.serial,
    };
    found(&enclosures.into_iter().map(show).collect::<Vec<_>>())
}

async fn disks(call: Call) -> Answer {
    let (_, disks) = call.app().look(|hardware| hardware.disks()).await?;
    let show = |disk: strongroom_appliance::hardware::PhysicalDisk| DiskShown {
        enclosure: disk.slot.map(|slot| format!("E{}:S{}", slot.enclosure, slot.number)),
        model: disk.model,
        serial: disk.serial,
        lunid: disk.wwid,
        size: disk.bytes.map(|bytes| bytes.to_string()),
        is_nvme: disk.is_nvme.into(),
        is_flash: disk.rotates.map(|rotates| !rotates),
        name: disk.name,
    };
    found(&disks.into_iter().map(show).collect::<Vec<_>>())
}

async fn processors(call: Call) -> Answer {
    let all = call.app().look(|hardware| hardware.processors()).await?;
    let show = |one: strongroom_appliance::hardware::Processor| ProcessorShown {
        no: one.number,
        model: one.model,
        cores: one.cores,
        threads: one.threads,
    };
    found(&all.into_iter().map(show).collect::<Vec<_>>())
}

async fn memory(call: Call) -> Answer {
    let modules = call.app().look(|hardware| hardware.memory_modules()).await?;
    let mut all: Vec<_> = modules
        .into_iter()
        .map(|module| MemoryShown { name: module.label, size: module.bytes.to_string() })
        .collect();
    if let (true, Some(memory)) = (all.is_empty(), measured(&call).await?.memory) {
        all.push(MemoryShown { name: "memory".into(), size: memory.total.to_string() });
    }
    found(&all)
}

async fn fans(call: Call) -> Answer {
    let all = call.app().look(|hardware| hardware.fans()).await?;
    let show =
        |fan: strongroom_appliance::hardware::Fan| FanShown { name: fan.name, speed: fan.speed };
    found(&all.into_iter().map(show).collect::<Vec<_>>())
}

async fn power(call: Call) -> Answer {
    let all = call.app().look(|hardware| hardware.power()).await?;
    let show = |one: strongroom_appliance::hardware::Battery| Supply {
        name: one.name,
        kind: one.kind,
        online: one.online,
    };
    found(&all.into_iter().map(show).collect::<Vec<_>>())
}
