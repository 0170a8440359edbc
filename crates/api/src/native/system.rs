//! The appliance itself: whether it lives, what it is, how it fares.

use jiff::Timestamp;
use serde::Serialize;
use strongroom_appliance as known;
use strongroom_identity::Right;
use utoipa::ToSchema;

use crate::access::On;
use crate::call::Call;
use crate::metrics::OpenMetrics;
use crate::problem::{Code, Problem, Result};
use crate::route::{Group, Items, Json, Text, TextKind, get};

pub(super) fn group() -> Group {
    Group::new(
        "System",
        "The appliance itself. What the machine or the builder doesn't tell is null.",
        [
            get("/healthz", "system.health", "Whether the process answers", alive)
                .open("a load balancer must be able to ask"),
            get("/readyz", "system.ready", "Whether it can do its work", ready)
                .open("a load balancer must be able to ask"),
            get("/metrics", "system.metrics", "What is counted, for Prometheus", metrics)
                .needs(Right::StatsView, On::Appliance),
            get("/v1/system/status", "system.status", "How the appliance fares", status)
                .needs(Right::SystemView, On::Appliance),
            get("/v1/system/health", "system.health.show", "Room, memory and load", health)
                .needs(Right::SystemView, On::Appliance),
            get("/v1/system/version", "system.version", "What was built", version)
                .needs(Right::SystemView, On::Appliance),
            get("/v1/system/changelog", "system.changelog", "What is new", changelog)
                .needs(Right::SystemView, On::Appliance),
            get(
                "/v1/system/services",
                "system.services",
                "What this process serves, and services beside",
                services,
            )
            .needs(Right::SystemView, On::Appliance),
        ],
    )
}

async fn alive(_: Call) -> Result<Text> {
    Ok(Text::new("ok\n"))
}

async fn ready(call: Call) -> Result<Text> {
    if let Err(error) = call.app().catalog().answers().await {
        tracing::warn!(%error, "not ready");
        return Err(Problem::new(Code::Unavailable, "the catalogue's database can't be used"));
    }
    Ok(Text::new("ready\n"))
}

async fn metrics(call: Call) -> Result<Text<OpenMetrics>> {
    Ok(Text::new(call.app().metrics().text(call.app()).await))
}

/// How the appliance fares.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    /// The program's version.
    version: String,
    /// When the server began.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Which database holds the catalogue.
    database: &'static str,
}

async fn status(call: Call) -> Result<Json<Status>> {
    let app = call.app();
    let version = app.administration().version();
    Ok(Json(Status { version, started_at: app.started(), database: app.database() }))
}

/// How the machine fares, measured at the request.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// When it was measured.
    at: Timestamp,
    /// The filesystem of the data directory.
    disk: Option<Usage>,
    /// Memory; what could be had at once, like that of caches, is free.
    memory: Option<Usage>,
    /// The processors.
    cpu: Cpu,
    /// The disks of the pools that are open on this machine.
    pool_disks: Vec<DiskHealth>,
    /// The licence. It informs; nothing hangs on it.
    license: LicenseHealth,
}

/// How the licence is.
#[derive(Debug, Serialize, ToSchema)]
struct LicenseHealth {
    /// `none`, `valid`, `expired`, or `invalid`: there is one, and it can't be believed.
    #[schema(example = "valid")]
    state: &'static str,
    /// The last day on which it is good.
    #[schema(format = Date)]
    expires: Option<String>,
}

/// How much there is of something, and how much of that is used.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    /// All that there is.
    total_bytes: u64,
    /// What is used of it, by whatever.
    used_bytes: u64,
    /// What can still be had. A filesystem may keep something back, which is neither.
    free_bytes: u64,
    /// What is used of all that can be had, in percent.
    percent: u32,
}

impl From<known::Usage> for Usage {
    fn from(usage: known::Usage) -> Self {
        let known::Usage { total, used, free } = usage;
        let percent = usage.percent();
        Self { total_bytes: total, used_bytes: used, free_bytes: free, percent }
    }
}

/// What the processors have to do.
#[derive(Debug, Serialize, ToSchema)]
struct Cpu {
    /// How many cores are in use.
    cores: Option<u32>,
    /// How many processes ran or wanted to, on average over the last minute.
    load_1: Option<f64>,
    /// The same over 5 minutes.
    load_5: Option<f64>,
    /// The same over 15 minutes.
    load_15: Option<f64>,
    /// The load of 5 minutes by the cores, in percent; more than 100 when processes have to wait.
    percent: Option<u32>,
}

impl From<known::Cpu> for Cpu {
    fn from(cpu: known::Cpu) -> Self {
        let load = |place: usize| cpu.loads.map(|loads| loads[place]);
        let (cores, percent) = (cpu.cores, cpu.percent());
        Self { cores, load_1: load(0), load_5: load(1), load_15: load(2), percent }
    }
}

/// A disk of a pool.
#[derive(Debug, Serialize, ToSchema)]
struct DiskHealth {
    /// The pool's number.
    pool_id: i64,
    /// The pool's name.
    pool: String,
    /// The disk's number in the pool.
    number: u64,
    /// `ok`, `missing`, `outdated` (it was away when the pool was changed) or `damaged`.
    state: &'static str,
    /// The room of its filesystem.
    total_bytes: Option<u64>,
    /// What can still be had of that.
    free_bytes: Option<u64>,
}

async fn health(call: Call) -> Result<Json<Health>> {
    let health = call.app().health().clone();
    // A filesystem may take its time.
    let measured = tokio::task::spawn_blocking(move || health.measure()).await;
    let measured = measured.map_err(|error| Problem::internal(&error))?;
    let pools = call.principal()?.pools().map(|pools| pools.iter().copied().collect::<Vec<_>>());
    let disks = call.app().storage().disks(&call.scope()?, pools.as_deref()).await?;
    let disks = disks.into_iter().map(|(pool, disk)| DiskHealth {
        pool_id: pool.id,
        pool: pool.name,
        number: disk.number as u64,
        state: disk.state,
        total_bytes: disk.total,
        free_bytes: disk.free,
    });
    // A key's file that can't be read is no reason to tell nothing.
    let licence = call.app().licences(|all| Ok(all.current())).await?;
    let expires = licence.as_ref().ok().and_then(|licence| licence.as_ref()?.expires);
    let state = match &licence {
        Ok(None) => "none",
        Ok(Some(licence)) => licence.state_now().word(),
        Err(_) => "invalid",
    };
    Ok(Json(Health {
        at: measured.at,
        disk: measured.disk.map(Usage::from),
        memory: measured.memory.map(Usage::from),
        cpu: measured.cpu.into(),
        pool_disks: disks.collect(),
        license: LicenseHealth { state, expires: expires.map(|day| day.to_string()) },
    }))
}

/// What was built.
#[derive(Debug, Serialize, ToSchema)]
struct Build {
    /// The version of the release that runs.
    version: String,
    /// The version that the program was built as; it is another one where the vendor numbers releases
    /// otherwise.
    program_version: &'static str,
    /// The commit of its source.
    commit: Option<&'static str>,
    /// When that source was made.
    source_at: Option<Timestamp>,
    /// For which machines it was built.
    target: &'static str,
    /// The compiler.
    rustc: Option<&'static str>,
}

async fn version(call: Call) -> Result<Json<Build>> {
    let known::Build { version: program_version, commit, source_at, target, rustc } =
        known::Build::this();
    let version = call.app().administration().version();
    Ok(Json(Build { version, program_version, commit, source_at, target, rustc }))
}

/// The media type of the changelog (RFC 7763).
#[derive(Debug)]
struct Markdown;

impl TextKind for Markdown {
    const KIND: &'static str = "text/markdown; charset=utf-8";
}

async fn changelog(call: Call) -> Result<Text<Markdown>> {
    Ok(Text::new(call.app().administration().changelog()))
}

/// A server of this process, or a service of the machine.
#[derive(Debug, Serialize, ToSchema)]
struct Service {
    /// What it is: `https`, `http-redirect`, or `control`, the socket for this machine; else a unit of
    /// systemd that the configuration names (`service_units`).
    name: String,
    /// `server` of this process, or `unit` of systemd, where that runs.
    kind: &'static str,
    /// Where it listens.
    address: Option<String>,
    /// `listening`, or `stopped`; of units `running`, `starting`, `stopping`, `stopped`, `failed` or
    /// `not_found`.
    state: &'static str,
    /// Since when.
    state_since: Timestamp,
}

async fn services(call: Call) -> Result<Items<Service>> {
    let show = |service: known::Service| Service {
        name: service.name.to_owned(),
        kind: "server",
        address: service.address,
        state: if service.listening { "listening" } else { "stopped" },
        state_since: service.since,
    };
    let unit = |unit: known::MachineUnit| Service {
        name: unit.name,
        kind: "unit",
        address: None,
        state: unit.state.word(),
        state_since: unit.since,
    };
    let units = call.app().units().await?;
    let all = call.app().services().list().into_iter().map(show);
    let items = all.chain(units.into_iter().map(unit)).collect();
    Ok(Items { items, more: false, count: None })
}
