//! What the worker that holds a job may say. Nothing of it has any effect once the lease is lost.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{Job, Progress, State, clock, int, micros, queue, tell};
use crate::Result;
use crate::db::{Catalog, Tx};
use crate::events::Severity;
use crate::sql::Sql;

/// That a worker holds a job: what every statement of it must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub job: i64,
    /// Who.
    pub worker: String,
    /// The how manieth claim of the job it was.
    pub fence: i64,
}

/// A sign of life, and what is new.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Of which job.
    pub lease: Lease,
    /// How far it is, if that changed.
    pub progress: Option<Progress>,
    /// Lines for its log.
    pub lines: Vec<(Timestamp, Severity, String)>,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct End {
    /// The state that it comes to.
    pub state: State,
    /// What came of it.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// Try again after so long, as another job; the state is then [`State::Retried`].
    pub retry: Option<Duration>,
}

const HELD: &str = " WHERE id = ? AND worker = ? AND fence = ? AND state = 'running'";

fn held(mut sql: Sql, lease: &Lease) -> Sql {
    sql.push(HELD).value(lease.job).value(&lease.worker).value(lease.fence);
    sql
}

/// Tells that the worker is alive, and writes down what is new of its jobs. Which of them it has
/// lost.
///
/// # Errors
/// Those of the database.
pub async fn beat(catalog: &Catalog, lease: Duration, beats: &[Beat]) -> Result<Vec<i64>> {
    let mut lost = Vec::new();
    let mut tx = catalog.begin().await?;
    let now = clock(&mut tx).await?;
    let until = now.saturating_add(micros(lease));
    for beat in beats {
        let mut sql = Sql::new("UPDATE jobs SET lease_until = ?").bind(until);
        if let Some(progress) = &beat.progress {
            set_progress(&mut sql, progress, now);
        }
        if tx.execute(held(sql, &beat.lease)).await? == 0 {
            lost.push(beat.lease.job);
            continue;
        }
        write_lines(&mut tx, beat).await?;
    }
    tx.commit().await?;
    Ok(lost)
}

fn set_progress(sql: &mut Sql, progress: &Progress, now: i64) {
    sql.push(", phase = ?, bytes_done = ?, bytes_total = ?, items_done = ?, items_total = ?");
    sql.push(", changed_at = ?").value(&progress.phase).value(int(progress.bytes_done));
    sql.value(progress.bytes_total.map(int)).value(int(progress.items_done));
    sql.value(progress.items_total.map(int)).value(now);
}

async fn write_lines(tx: &mut Tx, beat: &Beat) -> Result<()> {
    for (at, level, message) in &beat.lines {
        let sql = "INSERT INTO job_log (job_id, at, level, message) VALUES (?, ?, ?, ?)";
        let sql = Sql::new(sql).bind(beat.lease.job).bind(*at).bind(level.word()).bind(message);
        tx.execute(sql).await?;
    }
    Ok(())
}

/// Which jobs of a worker were asked to stop.
///
/// # Errors
/// Those of the database.
pub async fn asked_to_stop(catalog: &Catalog, worker: &str) -> Result<Vec<i64>> {
    let sql = "SELECT id FROM jobs WHERE state = 'running' AND cancel = 1 AND worker = ?";
    let rows = catalog.rows(Sql::new(sql).bind(worker)).await?;
    rows.into_iter().map(|mut row| row.take()).collect()
}

/// Makes sure that the job is held, and will be for a lease from now: to be asked right before a
/// step that others can see.
///
/// # Errors
/// Those of the database.
pub async fn hold(catalog: &Catalog, lease: &Lease, length: Duration) -> Result<bool> {
    let mut tx = catalog.begin().await?;
    let until = clock(&mut tx).await?.saturating_add(micros(length));
    let sql = Sql::new("UPDATE jobs SET lease_until = ?").bind(until);
    let held = tx.execute(held(sql, lease)).await? > 0;
    tx.commit().await?;
    Ok(held)
}

/// Stores how far the job has come, so that who takes it up again can go on. Whether it was held.
///
/// # Errors
/// Those of the database.
pub async fn checkpoint(catalog: &Catalog, lease: &Lease, value: &Value) -> Result<bool> {
    let sql = Sql::new("UPDATE jobs SET checkpoint = ?").bind(value.to_string());
    Ok(catalog.execute(held(sql, lease)).await? > 0)
}

/// Ends the job, with the last of what is to be said about it. The job as it is then, and the one
/// that tries again; None when the lease was lost.
///
/// # Errors
/// Those of the database.
pub async fn finish(
    catalog: &Catalog,
    last: &Beat,
    end: End,
) -> Result<Option<(Job, Option<Job>)>> {
    let mut tx = catalog.begin().await?;
    let now = clock(&mut tx).await?;
    let mut sql = Sql::new("UPDATE jobs SET lease_until = NULL, ended_at = ?").bind(now);
    if let Some(progress) = &last.progress {
        set_progress(&mut sql, progress, now);
    }
    let sql = held(sql, &last.lease).and(" RETURNING cancel");
    let Some(mut row) = tx.rows(sql).await?.into_iter().next() else { return Ok(None) };
    let canceled: bool = row.take()?;
    write_lines(&mut tx, last).await?;
    let id = last.lease.job;
    let (state, again) = match end.retry {
        // Who asked it to stop doesn't want it to begin again.
        Some(_) if canceled => (State::Canceled, None),
        // It would be too late to begin.
        Some(after) if too_late(&mut tx, id, now, after).await? => (State::Failed, None),
        Some(after) => (State::Retried, Some(again(&mut tx, id, now, after).await?)),
        None => (end.state, None),
    };
    let sql = "UPDATE jobs SET state = ?, result = ?, error = ?, retried_as = ?, changed_at = ? \
               WHERE id = ?";
    let sql = Sql::new(sql).bind(state.word()).bind(end.result.map(|value| value.to_string()));
    tx.execute(sql.bind(end.error).bind(again).bind(now).bind(id)).await?;
    let job = queue::read(&mut tx, id).await?;
    tell(&mut tx, &job).await?;
    let again = match again {
        Some(id) => Some(queue::read(&mut tx, id).await?),
        None => None,
    };
    if let Some(again) = &again {
        tell(&mut tx, again).await?;
    }
    tx.commit().await?;
    Ok(Some((job, again)))
}

/// Whether a job may not be begun any more after so long.
async fn too_late(tx: &mut Tx, id: i64, now: i64, after: Duration) -> Result<bool> {
    let sql = "SELECT 1 FROM jobs WHERE id = ? AND run_until < ?";
    let at = now.saturating_add(micros(after));
    Ok(!tx.rows(Sql::new(sql).bind(id).bind(at)).await?.is_empty())
}

/// Queues the same job once more.
async fn again(tx: &mut Tx, id: i64, now: i64, after: Duration) -> Result<i64> {
    let sql = "INSERT INTO jobs (kind, state, priority, organisation_id, user_id, user_name, \
               pool_id, node, host, object, parameters, checkpoint, attempt, attempts, retry_of, alone, \
               queued_at, run_at, run_until, changed_at, search) \
               SELECT kind, 'queued', priority, organisation_id, user_id, user_name, pool_id, \
               node, host, object, parameters, checkpoint, attempt + 1, attempts, id, alone, ?, ?, \
               run_until, ?, search FROM jobs WHERE id = ? RETURNING id";
    let at = now.saturating_add(micros(after));
    tx.insert(Sql::new(sql).bind(now).bind(at).bind(now).bind(id)).await
}

/// Gives a job back, to be taken up again by anybody after so long. The job as it is then; None
/// when the lease was lost.
///
/// # Errors
/// Those of the database.
pub async fn release(catalog: &Catalog, last: &Beat, after: Duration) -> Result<Option<Job>> {
    let mut tx = catalog.begin().await?;
    let now = clock(&mut tx).await?;
    let at = now.saturating_add(micros(after));
    let sql = "UPDATE jobs SET lease_until = NULL, worker = NULL, run_at = ?, changed_at = ?, \
               state = CASE WHEN cancel = 1 THEN 'canceled' ELSE 'queued' END, \
               ended_at = CASE WHEN cancel = 1 THEN ? ELSE NULL END";
    let sql = Sql::new(sql).bind(at).bind(now).bind(now);
    if tx.execute(held(sql, &last.lease)).await? == 0 {
        return Ok(None);
    }
    write_lines(&mut tx, last).await?;
    let job = queue::read(&mut tx, last.lease.job).await?;
    tell(&mut tx, &job).await?;
    tx.commit().await?;
    Ok(Some(job))
}
