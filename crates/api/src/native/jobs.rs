//! Jobs: what is done, how far it is, what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::jobs::{self, Line};
use strongroom_catalog::list::Scope;
use strongroom_identity::Right;
use strongroom_protect::works;
use utoipa::{IntoParams, ToSchema};

use super::paths::{JobPath, Jobs};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Accepted, Events, Group, Items, Json, LastEventId, Listing, Path, Query, Sent, get, post,
};

/// How long one is told of jobs; then one asks again, with what one had last.
const WATCHED: Duration = Duration::from_secs(600);
/// The most lines of a log in one answer.
const MAX_LINES: u32 = 10_000;

pub(super) fn group() -> Group {
    Group::new(
        "Jobs",
        "What takes long: backups, restores, upkeep of pools.",
        [
            get("/v1/jobs", "jobs.list", "Jobs", list).needs(Right::JobView, On::Any).kept(),
            get("/v1/jobs/events", "jobs.watch_all", "All jobs, whenever they change", watch_all)
                .needs(Right::JobView, On::Any)
                .fails([Code::Unavailable]),
            get("/v1/jobs/{job}", "jobs.show", "A job", show).needs(Right::JobView, On::Job("job")),
            get("/v1/jobs/{job}/log", "jobs.log", "What a job wrote", log)
                .needs(Right::JobView, On::Job("job")),
            get("/v1/jobs/{job}/events", "jobs.watch", "A job, whenever it changes", watch)
                .needs(Right::JobView, On::Job("job"))
                .fails([Code::Unavailable]),
            post("/v1/jobs/{job}/cancel", "jobs.cancel", "Ask a job to stop", cancel)
                .needs(Right::JobManage, On::Job("job"))
                .fails([Code::Conflict]),
        ],
    )
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Job {
    /// Its number.
    pub(super) id: i64,
    /// What it does.
    kind: String,
    /// `queued`, `running`, or how it ended: `succeeded`, `warnings`, `failed`, `retried`,
    /// `canceled`, `not_run`.
    state: &'static str,
    /// What it is about.
    object: String,
    /// Higher ones come first.
    priority: i64,
    /// Whose it is.
    organisation_id: i64,
    /// Who asked for it.
    user_name: String,
    /// The pool that it works on.
    pool_id: Option<i64>,
    /// The host that it works on.
    host: String,
    /// When it was asked for.
    queued_at: Timestamp,
    /// It isn't begun before then.
    run_at: Timestamp,
    /// It isn't begun after then.
    run_until: Option<Timestamp>,
    /// When it was begun.
    started_at: Option<Timestamp>,
    /// When it was over.
    ended_at: Option<Timestamp>,
    /// Which try this is, from 1.
    attempt: u32,
    /// How many there are at most.
    attempts: u32,
    /// The job whose work this one does again.
    retry_of: Option<i64>,
    /// The job that does this one's work again.
    retried_as: Option<i64>,
    /// Whether it was asked to stop.
    cancel: bool,
    /// How far it is.
    progress: Progress,
    /// Why it failed.
    error: Option<String>,
    /// What was asked for, but for secrets.
    #[schema(value_type = Object)]
    parameters: serde_json::Value,
    /// What came of it.
    #[schema(value_type = Option<Object>)]
    result: Option<serde_json::Value>,
}

/// How far a job is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Progress {
    /// What it is at.
    phase: String,
    /// Bytes done.
    bytes_done: u64,
    /// Bytes in all, when that is known.
    bytes_total: Option<u64>,
    /// Items done.
    items_done: u64,
    /// Items in all, when that is known.
    items_total: Option<u64>,
    /// How much of it is done, in percent, when that is known.
    percent: Option<f64>,
    /// Bytes a second, on average.
    rate: Option<f64>,
    /// When it will be over if it goes on like that.
    estimated_end: Option<Timestamp>,
}

impl From<jobs::Job> for Job {
    fn from(job: jobs::Job) -> Self {
        let now = Timestamp::now();
        let (percent, rate) = (job.part().map(|part| part * 100.0), job.rate(now));
        let estimated_end = job.estimated_end(now);
        let progress = Progress {
            phase: job.progress.phase,
            bytes_done: job.progress.bytes_done,
            bytes_total: job.progress.bytes_total,
            items_done: job.progress.items_done,
            items_total: job.progress.items_total,
            percent,
            rate,
            estimated_end,
        };
        Self {
            id: job.id,
            kind: job.kind,
            state: job.state.word(),
            object: job.object,
            priority: job.priority,
            organisation_id: job.organisation_id,
            user_name: job.user_name,
            pool_id: job.pool_id,
            host: job.host,
            queued_at: job.queued_at,
            run_at: job.run_at,
            run_until: job.run_until,
            started_at: job.started_at,
            ended_at: job.ended_at,
            attempt: job.attempt,
            attempts: job.attempts,
            retry_of: job.retry_of,
            retried_as: job.retried_as,
            cancel: job.cancel,
            progress,
            error: job.error,
            parameters: works::shown(job.parameters),
            result: job.result,
        }
    }
}

/// The answer to a request that a job does.
pub(crate) fn accepted(job: jobs::Job) -> Accepted<Job> {
    Accepted { location: format!("/v1/jobs/{}", job.id), job: job.into() }
}

async fn list(call: Call, list: Listing<Jobs>) -> Result<Items<Job>> {
    call.items(&list, |job: jobs::Job| job.into()).await
}

async fn show(call: Call, Path(path): Path<JobPath>) -> Result<Json<Job>> {
    Ok(Json(jobs::find(call.app().catalog(), path.job).await?.into()))
}

/// Which lines of a log.
#[derive(Debug, Deserialize, IntoParams)]
struct LogQuery {
    /// Lines behind this one only.
    after: Option<i64>,
    /// How many at most: 1000 when nobody says, and never more than 10000.
    limit: Option<u64>,
}

/// A line of a job's log.
#[derive(Debug, Serialize, ToSchema)]
struct LogLine {
    /// Its number.
    id: i64,
    /// When it was written.
    at: Timestamp,
    /// `info`, `warning` or `error`.
    level: &'static str,
    /// What it says.
    message: String,
}

async fn log(
    call: Call,
    Path(path): Path<JobPath>,
    Query(query): Query<LogQuery>,
) -> Result<Items<LogLine>> {
    let limit = u32::try_from(query.limit.unwrap_or(1000)).unwrap_or(MAX_LINES).min(MAX_LINES);
    let after = query.after.unwrap_or(0);
    let mut lines = jobs::log(call.app().catalog(), path.job, after, limit + 1).await?;
    let more = lines.len() > limit as usize;
    lines.truncate(limit as usize);
    let line = |line: Line| LogLine {
        id: line.id,
        at: line.at,
        level: line.level.word(),
        message: line.message,
    };
    Ok(Items { items: lines.into_iter().map(line).collect(), more, count: None })
}

async fn watch(
    call: Call,
    Path(path): Path<JobPath>,
) -> Result<Events<Job, impl Stream<Item = (&'static str, Job)>>> {
    let mut changes = call.app().protect().engine().watch(path.job).await?;
    Ok(Events::new(async_stream::stream! {
        while let Some(job) = changes.next().await {
            yield ("job", Job::from(job));
        }
    }))
}

/// A job that changed, or that changes were missed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum JobEvent {
    /// `job`: a job, as it is now.
    Job(Box<Job>),
    /// `resync`: changes were missed; read what there is anew.
    Resync {
        /// Why.
        resync: &'static str,
    },
}

async fn watch_all(
    call: Call,
    LastEventId(last): LastEventId,
) -> Result<Events<JobEvent, impl Stream<Item = Sent<JobEvent>>>> {
    // Microseconds of so few digits are always a time.
    let since = last.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    let scope = call.scope()?;
    let pools = call.principal()?.pools().cloned();
    let is_seen = move |job: &jobs::Job| {
        let is_theirs = match &scope {
            Scope::All => true,
            Scope::Organisations(ids) => ids.contains(&job.organisation_id),
        };
        let is_there = |pools: &BTreeSet<i64>| job.pool_id.is_some_and(|id| pools.contains(&id));
        is_theirs && pools.as_ref().is_none_or(is_there)
    };
    let engine = call.app().protect().engine().clone();
    let mut changes = engine.watch_all(since).await?;
    let mut newest = Timestamp::UNIX_EPOCH;
    // Who may see what is asked again when the client comes again.
    let end = tokio::time::Instant::now() + WATCHED;
    Ok(Events::new(async_stream::stream! {
        let mut missed = changes.take_missed();
        loop {
            if std::mem::take(&mut missed) {
                let content = JobEvent::Resync { resync: "more changed than was kept" };
                yield Sent { name: "resync", id: None, content };
            }
            match tokio::time::timeout_at(end, changes.next()).await {
                Ok(Some(job)) if is_seen(&job) => {
                    newest = newest.max(job.changed_at);
                    let id = Some(newest.as_microsecond().to_string());
                    yield Sent { name: "job", id, content: JobEvent::Job(Box::new(job.into())) };
                }
                Ok(Some(_)) => {}
                Ok(None) if changes.take_missed() => match engine.watch_all(None).await {
                    Ok(again) => (changes, missed) = (again, true),
                    Err(_) => break,
                },
                Ok(None) | Err(_) => break,
            }
        }
    }))
}

async fn cancel(call: Call, Path(path): Path<JobPath>) -> Result<Json<Job>> {
    let engine = call.app().protect().engine();
    match engine.cancel(path.job).await? {
        jobs::Cancel::Asked | jobs::Cancel::Done => Ok(Json(engine.job(path.job).await?.into())),
        jobs::Cancel::Over => Err(Problem::new(Code::Conflict, "the job is over already")),
    }
}
