//! Stats: pools and jobs in figures. What was not measured is not told.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use strongroom_catalog::jobs::Tally;
use strongroom_catalog::samples as known;
use strongroom_identity::Right;
use strongroom_protect::{PoolFigures, StatsOf};
use strongroom_storage::Ratios;
use utoipa::{IntoParams, ToSchema};

use super::paths::{PoolPath, Samples};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{Group, Items, Json, Listing, Path, Query, get};

/// How far back jobs are counted when nobody says, and at most.
const BACK: SignedDuration = SignedDuration::from_hours(24);
const MOST: SignedDuration = SignedDuration::from_hours(24 * 366);

pub(super) fn group() -> Group {
    Group::new(
        "Stats",
        "Pools and jobs in figures. What was not measured is not told.",
        [
            get("/v1/stats", "stats.show", "Pools as they are, and jobs within a time", show)
                .needs(Right::StatsView, On::Any),
            get("/v1/pools/{pool}/stats", "stats.pool", "A pool in figures", pool)
                .needs(Right::StatsView, On::Pool("pool")),
            get(
                "/v1/stats/samples",
                "stats.samples",
                "How pools were, from hour to hour and from day to day",
                list,
            )
            .needs(Right::StatsView, On::Any),
        ],
    )
}

/// Within which time jobs are counted.
#[derive(Debug, Deserialize, IntoParams)]
struct StatsQuery {
    /// From when; a day before its end when it isn't said, 366 days at most.
    from: Option<Timestamp>,
    /// To before when; now when it isn't said.
    to: Option<Timestamp>,
}

/// Pools as they are, and jobs within a time.
#[derive(Debug, Serialize, ToSchema)]
struct Stats {
    /// From when jobs were counted.
    from: Timestamp,
    /// To before when.
    to: Timestamp,
    /// All pools together, as far as they were measured.
    total: Total,
    /// The pools.
    pools: Vec<PoolStats>,
    /// Jobs that were over within that time, by what they did and how they ended.
    jobs: Vec<EndedJobs>,
    /// Jobs that are not over now.
    open: Vec<OpenJobs>,
}

/// Pools together.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Total {
    /// Pools that were measured.
    pools: u64,
    /// Images in them.
    images: u64,
    /// Bytes of all images, as if each were restored.
    logical_bytes: u64,
    /// Those of them that were new to their pool when they came.
    unique_bytes: u64,
    /// Bytes in packs, before redundancy.
    stored_bytes: u64,
    /// Bytes in packs, with redundancy.
    disk_bytes: u64,
    /// Bytes of all images by those that were new.
    deduplication: Option<f64>,
    /// Bytes that were new by what they take compressed.
    compression: Option<f64>,
    /// Bytes of all images by the bytes that are stored for them.
    reduction: Option<f64>,
}

/// A pool in figures.
#[derive(Debug, Serialize, ToSchema)]
struct PoolStats {
    /// The pool's number.
    pool_id: i64,
    /// Its name.
    name: String,
    /// How it is; none: it was never measured.
    figures: Option<Figures>,
    /// Bytes of all images by those that were new.
    deduplication: Option<f64>,
    /// Bytes that were new by what they take compressed.
    compression: Option<f64>,
    /// Bytes of all images by the bytes that are stored for them.
    reduction: Option<f64>,
    /// Bytes in packs in use that nothing needed after the last collection.
    garbage_bytes: Option<u64>,
    /// When that collection ended.
    garbage_at: Option<Timestamp>,
    /// Bytes in packs a day, with redundancy, as far as it was watched for a day at least, in the
    /// last 30 days; less than 0 when it shrinks.
    growth_bytes_per_day: Option<f64>,
    /// Since when that was watched.
    growth_since: Option<Timestamp>,
    /// In how many days its fullest disk is full if that goes on.
    full_in_days: Option<f64>,
    /// When a backup to it last came to a good end.
    last_backup_at: Option<Timestamp>,
}

/// How a pool was at some time.
#[derive(Debug, Serialize, ToSchema)]
struct Figures {
    /// When it was measured.
    at: Timestamp,
    /// Images.
    images: u64,
    /// Chunks.
    chunks: u64,
    /// Bytes of all images, as if each were restored.
    logical_bytes: u64,
    /// Those of them that were new to the pool when they came.
    unique_bytes: u64,
    /// What those take, compressed.
    unique_stored_bytes: u64,
    /// Bytes in packs, before redundancy.
    stored_bytes: u64,
    /// Bytes in packs, with redundancy.
    disk_bytes: u64,
    /// The room of the filesystems that it lies on; none: one of its disks doesn't say.
    capacity_bytes: Option<u64>,
    /// What is taken of that, by whatever.
    used_bytes: Option<u64>,
    /// What is free of that.
    free_bytes: Option<u64>,
    /// How much more fits into the pool, with redundancy, until its fullest disk is full.
    room_bytes: Option<u64>,
    /// Disks that are missing, outdated or damaged.
    missing_disks: u64,
    /// Copies of chunks that are known to be bad.
    bad_copies: u64,
}

impl From<known::Figures> for Figures {
    fn from(figures: known::Figures) -> Self {
        let known::Figures { at, images, chunks, logical_bytes, unique_bytes, .. } = figures;
        let known::Figures { unique_stored_bytes, stored_bytes, disk_bytes, .. } = figures;
        let known::Figures { capacity_bytes, free_bytes, room_bytes, .. } = figures;
        let known::Figures { missing_disks, bad_copies, .. } = figures;
        let used_bytes = capacity_bytes.zip(free_bytes);
        let used_bytes = used_bytes.map(|(all, free)| all.saturating_sub(free));
        Self {
            at,
            images,
            chunks,
            logical_bytes,
            unique_bytes,
            unique_stored_bytes,
            stored_bytes,
            disk_bytes,
            capacity_bytes,
            used_bytes,
            free_bytes,
            room_bytes,
            missing_disks,
            bad_copies,
        }
    }
}

/// Jobs that were over, and are alike.
#[derive(Debug, Serialize, ToSchema)]
struct EndedJobs {
    /// What they did.
    kind: String,
    /// How they ended.
    state: &'static str,
    /// How many.
    count: u64,
    /// What they did, in bytes.
    bytes: u64,
    /// How long they took together, in seconds.
    seconds: f64,
    /// Bytes a second, on average.
    rate: Option<f64>,
}

/// Jobs that are not over, and are alike.
#[derive(Debug, Serialize, ToSchema)]
struct OpenJobs {
    /// What they do.
    kind: String,
    /// `queued` or `running`.
    state: &'static str,
    /// How many.
    count: u64,
    /// When the first of them was asked for.
    oldest: Timestamp,
}

impl From<PoolFigures> for PoolStats {
    fn from(pool: PoolFigures) -> Self {
        let PoolFigures { stats, garbage, last_backup, .. } = pool;
        let ratio = |of: fn(Ratios) -> Option<f64>| stats.ratios.and_then(of);
        Self {
            pool_id: stats.pool.id,
            deduplication: ratio(|ratios| ratios.deduplication),
            compression: ratio(|ratios| ratios.compression),
            reduction: ratio(|ratios| ratios.reduction),
            name: stats.pool.name,
            figures: stats.figures.map(Figures::from),
            garbage_bytes: garbage.map(|garbage| garbage.bytes),
            garbage_at: garbage.map(|garbage| garbage.at),
            growth_bytes_per_day: stats.growth.map(|growth| growth.bytes_per_day),
            growth_since: stats.growth.map(|growth| growth.since),
            full_in_days: stats.growth.and_then(|growth| growth.full_in_days),
            last_backup_at: last_backup,
        }
    }
}

fn ended(tally: Tally) -> EndedJobs {
    let seconds = tally.micros as f64 / 1e6;
    let rate = (seconds > 0.0 && tally.bytes > 0).then(|| tally.bytes as f64 / seconds);
    let Tally { kind, state, count, bytes, .. } = tally;
    EndedJobs { kind, state: state.word(), count, bytes, seconds, rate }
}

fn open(tally: Tally) -> OpenJobs {
    let Tally { kind, state, count, oldest, .. } = tally;
    OpenJobs { kind, state: state.word(), count, oldest }
}

fn total(pools: &[PoolFigures]) -> Total {
    let (mut total, mut unique_stored) = (Total::default(), 0u64);
    for figures in pools.iter().filter_map(|pool| pool.stats.figures.as_ref()) {
        total.pools += 1;
        total.images = total.images.saturating_add(figures.images);
        total.logical_bytes = total.logical_bytes.saturating_add(figures.logical_bytes);
        total.unique_bytes = total.unique_bytes.saturating_add(figures.unique_bytes);
        total.stored_bytes = total.stored_bytes.saturating_add(figures.stored_bytes);
        total.disk_bytes = total.disk_bytes.saturating_add(figures.disk_bytes);
        unique_stored = unique_stored.saturating_add(figures.unique_stored_bytes);
    }
    let ratios =
        Ratios::of(total.logical_bytes, total.unique_bytes, unique_stored, total.stored_bytes);
    Total {
        deduplication: ratios.deduplication,
        compression: ratios.compression,
        reduction: ratios.reduction,
        ..total
    }
}

async fn show(call: Call, Query(query): Query<StatsQuery>) -> Result<Json<Stats>> {
    let to = query.to.unwrap_or_else(Timestamp::now);
    let from = match query.from {
        Some(from) => from,
        None => to.saturating_sub(BACK).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let length = to.duration_since(from);
    if length.is_negative() || length > MOST {
        let text = "`from` is before `to`, and by 366 days at most";
        return Err(Problem::new(Code::BadRequest, text));
    }
    let pools = call.principal()?.pools().map(|pools| pools.iter().copied().collect());
    let of = StatsOf { scope: call.scope()?, pools };
    let stats = call.app().protect().stats(of, from, to).await?;
    Ok(Json(Stats {
        from,
        to,
        total: total(&stats.pools),
        pools: stats.pools.into_iter().map(PoolStats::from).collect(),
        jobs: stats.ended.into_iter().map(ended).collect(),
        open: stats.open.into_iter().map(open).collect(),
    }))
}

async fn pool(call: Call, Path(path): Path<PoolPath>) -> Result<Json<PoolStats>> {
    Ok(Json(call.app().protect().pool_stats(path.pool).await?.into()))
}

/// How a pool was, in some hour or day.
#[derive(Debug, Serialize, ToSchema)]
struct Sample {
    /// Its number.
    id: i64,
    /// The pool's number.
    pool_id: i64,
    /// `hour`: the newest of an hour, kept for 90 days; `day`: that of a day, kept for five years.
    grain: String,
    /// How it was.
    figures: Figures,
}

async fn list(call: Call, list: Listing<Samples>) -> Result<Items<Sample>> {
    let show = |sample: known::Sample| Sample {
        id: sample.id,
        pool_id: sample.pool_id,
        grain: sample.grain,
        figures: sample.figures.into(),
    };
    call.items(&list, show).await
}
