//! What is measured when somebody asks for it: pools, jobs, the catalogue, logins, the process.
//!
//! Labels are names of pools, numbers of disks, and words of this program: as many as there are of
//! those, and no more. What can't be had at the moment is left out; the rest is told all the same.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use strongroom_catalog::list::Scope;
use strongroom_protect::{PoolFigures, State, Stats, StatsOf};
use strongroom_storage::TargetFigures;
use strongroom_storage::volumes::OpenVolume;
use tokio::sync::Semaphore;

use super::fixed::{Declared, Fixed};
use super::process;
use crate::app::App;

/// How old figures of pools may be: they are not measured again for each of many who ask.
const FRESH: Duration = Duration::from_secs(10);

/// What was measured last, and when.
#[derive(Debug)]
pub(super) struct Last {
    measured: Mutex<Option<(Instant, Arc<Stats>)>>,
    /// One at a time measures.
    turn: Semaphore,
}

impl Default for Last {
    fn default() -> Self {
        Self { measured: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Last {
    /// Pools, and jobs that are not over.
    async fn stats(&self, app: &App) -> Option<Arc<Stats>> {
        let _turn = self.turn.acquire().await.ok()?;
        if let Some((_, stats)) = self.measured().as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Some(Arc::clone(stats));
        }
        let now = Timestamp::now();
        let all = StatsOf { scope: Scope::All, pools: None };
        match app.protect().stats(all, now, now).await {
            Ok(stats) => {
                let stats = Arc::new(stats);
                *self.measured() = Some((Instant::now(), Arc::clone(&stats)));
                Some(stats)
            }
            Err(error) => {
                tracing::warn!(%error, "pools and jobs are left out of the metrics");
                None
            }
        }
    }

    fn measured(&self) -> MutexGuard<'_, Option<(Instant, Arc<Stats>)>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Real = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDisk {
    pool: String,
    disk: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfJobs {
    kind: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTargets {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLogins {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBuild {
    /// As `GET /v1/system/version` has them.
    version: String,
    program_version: &'static str,
    database: &'static str,
}

/// Adds a gauge with a value for each of these.
fn gauges<L>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, Option<f64>)>,
) where
    L: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static,
{
    let family = Family::<L, Real>::default();
    for (labels, value) in values {
        if let Some(value) = value {
            family.get_or_create(&labels).set(value);
        }
    }
    registry.register(name, help, Declared(family));
}

/// As [`gauges`], of what only grows.
fn counters<L>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) where
    L: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static,
{
    let family = Family::<L, Counter<f64, AtomicU64>>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, Declared(family));
}

fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

/// All that is measured now.
pub(super) async fn gather(app: &App, last: &Last) -> Vec<Registry> {
    let mut registry = Registry::with_prefix("strongroom");
    let database = app.database();
    let version = app.administration().version();
    let build = OfBuild { version, program_version: env!("CARGO_PKG_VERSION"), database };
    gauges(&mut registry, "build_info", "What runs", [(build, Some(1.0))]);
    if let Some(stats) = last.stats(app).await {
        let here = |pool: &&PoolFigures| app.storage().is_here(&pool.stats.pool);
        let here: Vec<_> = stats.pools.iter().filter(here).collect();
        pools(&mut registry, &here);
        volumes(&mut registry, &here, &app.storage().open_volumes());
        open_jobs(&mut registry, &stats);
    }
    targets(&mut registry, app.storage().target_figures());
    ended_jobs(&mut registry, app);
    logins(&mut registry, app).await;
    let latencies = app.catalog().latencies();
    let help = "How long the catalogue took to read";
    registry.register("catalogue_read_seconds", help, Fixed::of(&latencies.reads));
    let help = "How long transactions that write to the catalogue took, with waiting";
    registry.register("catalogue_write_seconds", help, Fixed::of(&latencies.writes));

    let mut plain = Registry::default();
    process::register(&mut plain);
    vec![registry, plain]
}

fn pools(registry: &mut Registry, pools: &[&PoolFigures]) {
    let mut of_pools = |name: &str, help: &str, value: &dyn Fn(&PoolFigures) -> Option<f64>| {
        let label = |pool: &&PoolFigures| OfPool { pool: pool.stats.pool.name.clone() };
        gauges(registry, name, help, pools.iter().map(|pool| (label(pool), value(pool))));
    };
    macro_rules! figures {
        ($($name:literal $help:literal $figures:ident => $value:expr;)*) => {$(
            of_pools($name, $help, &|pool| {
                let $figures = pool.stats.figures.as_ref()?;
                $value
            });
        )*};
    }
    figures! {
        "pool_measured_timestamp_seconds" "When these figures were measured" f => Some(seconds(f.at));
        "pool_images" "Images" f => Some(f.images as f64);
        "pool_chunks" "Chunks in packs" f => Some(f.chunks as f64);
        "pool_logical_bytes" "Bytes of all images, as if each were restored" f =>
            Some(f.logical_bytes as f64);
        "pool_unique_bytes" "Bytes of images that were new to the pool when they came" f =>
            Some(f.unique_bytes as f64);
        "pool_stored_bytes" "Bytes in packs, before redundancy" f => Some(f.stored_bytes as f64);
        "pool_disk_bytes" "Bytes in packs, with redundancy" f => Some(f.disk_bytes as f64);
        "pool_capacity_bytes" "The room of the filesystems that the pool lies on" f =>
            f.capacity_bytes.map(|bytes| bytes as f64);
        "pool_free_bytes" "What is free of that" f => f.free_bytes.map(|bytes| bytes as f64);
        "pool_room_bytes" "What fits in until the fullest disk is full, with redundancy" f =>
            f.room_bytes.map(|bytes| bytes as f64);
        "pool_damaged_chunks" "Copies of chunks that are known to be bad" f =>
            Some(f.bad_copies as f64);
        "pool_missing_disks" "Disks that are missing, outdated or damaged" f =>
            Some(f.missing_disks as f64);
    }
    of_pools("pool_dedup_ratio", "Bytes of all images by those that were new", &|pool| {
        pool.stats.ratios?.deduplication
    });
    of_pools("pool_compression_ratio", "New bytes by what they take compressed", &|pool| {
        pool.stats.ratios?.compression
    });
    of_pools("pool_reduction_ratio", "Bytes of all images by what is stored", &|pool| {
        pool.stats.ratios?.reduction
    });
    of_pools("pool_growth_bytes_per_day", "How it grows, on disk", &|pool| {
        Some(pool.stats.growth?.bytes_per_day)
    });
    of_pools("pool_full_in_days", "When its fullest disk is full if that goes on", &|pool| {
        pool.stats.growth?.full_in_days
    });
    let help = "What the last collection left of garbage";
    of_pools("pool_garbage_bytes", help, &|pool| Some(pool.garbage?.bytes as f64));
    let help = "Collections of its garbage since the appliance opened it";
    of_pools("pool_collections", help, &|pool| Some(pool.collections?.count as f64));
    let help = "Those of them that writes waited for which found no room";
    of_pools("pool_urgent_collections", help, &|pool| Some(pool.collections?.urgent as f64));
    let help = "Bytes that they freed, before redundancy";
    of_pools("pool_collected_bytes", help, &|pool| Some(pool.collections?.bytes_freed as f64));
    let help = "When a backup to it last came to a good end";
    of_pools("pool_last_backup_timestamp_seconds", help, &|pool| pool.last_backup.map(seconds));
    let help = "When a scrub of it last came to its end";
    of_pools("pool_scrubbed_timestamp_seconds", help, &|pool| {
        pool.stats.details.as_ref()?.scrubbed_at.map(seconds)
    });
    of_pools("pool_open", "Whether the appliance has it open", &|pool| {
        Some(f64::from(u8::from(pool.stats.details.is_some())))
    });

    let disks = |of: fn(&strongroom_storage::Disk) -> Option<u64>| {
        let mut all = Vec::new();
        for pool in pools {
            for disk in pool.stats.details.iter().flat_map(|details| &details.disks) {
                let (name, number) = (pool.stats.pool.name.clone(), disk.number as u64);
                let labels = OfDisk { pool: name, disk: number };
                all.push((labels, of(disk).map(|value| value as f64)));
            }
        }
        all
    };
    gauges(registry, "disk_capacity_bytes", "The room of its filesystem", disks(|disk| disk.total));
    gauges(registry, "disk_free_bytes", "What is free of that", disks(|disk| disk.free));
    let ok = disks(|disk| Some(u64::from(disk.state == "ok")));
    gauges(registry, "disk_ok", "Whether it is there and whole", ok);
}

/// Sums of each pool: volumes are as many as their users like.
fn volumes(registry: &mut Registry, pools: &[&PoolFigures], open: &[OpenVolume]) {
    let mut of_pools = |name: &str, help: &str, value: fn(&OpenVolume) -> u64| {
        let sums = pools.iter().map(|pool| {
            let pool = &pool.stats.pool;
            let sum: u64 = open.iter().filter(|one| one.pool_id == pool.id).map(value).sum();
            (OfPool { pool: pool.name.clone() }, Some(sum as f64))
        });
        gauges(registry, name, help, sums);
    };
    of_pools("pool_volumes_open", "Volumes that are open", |_| 1);
    let help = "Bytes of their logs that are not settled yet";
    of_pools("pool_volume_log_bytes", help, |one| one.log_bytes);
    let help = "Volumes whose logs can't be settled, which is tried again";
    of_pools("pool_volumes_failing", help, |one| u64::from(one.failing));
}

/// Of this machine's targets.
fn targets(registry: &mut Registry, figures: TargetFigures) {
    let TargetFigures { served, waiting, sessions } = figures;
    let of = |state, count: usize| (OfTargets { state }, Some(count as f64));
    let help = "Targets that are enabled: served, or waiting for what is in the way";
    gauges(registry, "targets", help, [of("served", served), of("waiting", waiting)]);
    let help = "Initiators that are logged in to targets";
    gauges(
        registry,
        "target_sessions",
        help,
        [(Vec::<(String, String)>::new(), Some(sessions as f64))],
    );
}

fn open_jobs(registry: &mut Registry, stats: &Stats) {
    let kind = |state| {
        let jobs = stats.open.iter().filter(move |jobs| jobs.state == state);
        jobs.map(|jobs| (OfKind { kind: jobs.kind.clone() }, Some(jobs.count as f64)))
    };
    gauges(registry, "jobs_queued", "Jobs that wait", kind(State::Queued));
    gauges(registry, "jobs_running", "Jobs that run", kind(State::Running));
    let waiting = stats.open.iter().filter(|jobs| jobs.state == State::Queued);
    let oldest = waiting.map(|jobs| jobs.oldest).min();
    let age = oldest.map_or(0.0, |oldest| stats.to.duration_since(oldest).as_secs_f64().max(0.0));
    let gauge = Real::default();
    gauge.set(age);
    registry.register("jobs_oldest_queued_seconds", "How long the oldest job has waited", gauge);
}

fn ended_jobs(registry: &mut Registry, app: &App) {
    let ended = app.protect().engine().ended();
    let label = |(kind, state): (&str, State)| OfJobs { kind: kind.into(), state: state.word() };
    let count = ended.iter().map(|(key, all)| (label(*key), all.count as f64));
    counters(registry, "jobs_ended", "Jobs that were over, of this process", count);
    let time = ended.iter().map(|(key, all)| (label(*key), all.time.as_secs_f64()));
    counters(registry, "jobs_seconds", "How long those took", time);
    let bytes = ended.iter().map(|(key, all)| (label(*key), all.bytes as f64));
    counters(registry, "jobs_bytes", "What those did", bytes);
}

async fn logins(registry: &mut Registry, app: &App) {
    let logins = app.identity().logins();
    let count = |result, count: u64| (OfLogins { result }, count as f64);
    let all = [
        count("passed", logins.passed),
        count("failed", logins.failed),
        count("blocked", logins.blocked),
    ];
    counters(registry, "logins", "Logins with a password, of this process", all);
    match app.identity().open_sessions().await {
        Ok(count) => {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            registry.register("sessions", "Sessions that have not ended", gauge);
        }
        Err(error) => tracing::warn!(%error, "sessions are left out of the metrics"),
    }
}
