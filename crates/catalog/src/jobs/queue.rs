//! What those who want something done may say.

use jiff::Timestamp;

use super::{Alone, Job, Line, NewJob, State, clock, tell};
use crate::db::{Catalog, Tx};
use crate::sql::Sql;
use crate::{Error, Result};

/// What came of asking a job to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It had not begun: it is canceled.
    Done,
    /// It runs, and will hear of it.
    Asked,
    /// It was over already.
    Over,
}

/// Queues a job.
///
/// # Errors
/// Those of the database.
pub async fn submit(catalog: &Catalog, new: NewJob) -> Result<Job> {
    let mut tx = catalog.begin().await?;
    let job = submit_in(&mut tx, new).await?;
    tx.commit().await?;
    Ok(job)
}

/// Queues a job as part of a transaction.
///
/// # Errors
/// Those of the database.
pub async fn submit_in(tx: &mut Tx, new: NewJob) -> Result<Job> {
    let now = clock(tx).await?;
    let search = format!("{}\n{}\n{}\n{}", new.kind, new.object, new.user_name, new.host);
    let alone: i64 = match new.alone {
        Alone::No => 0,
        Alone::OfItsKind => 1,
        Alone::Wholly => 2,
        Alone::Beside => -1,
    };
    let run_at = new.run_at.map_or(now, Timestamp::as_microsecond);
    let sql = "INSERT INTO jobs (kind, state, priority, organisation_id, user_id, user_name, \
               pool_id, node, host, object, parameters, attempts, alone, queued_at, run_at, \
               run_until, changed_at, search) \
               VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id";
    let sql = Sql::new(sql).bind(new.kind).bind(new.priority).bind(new.organisation_id);
    let sql = sql.bind(new.user_id).bind(new.user_name).bind(new.pool_id).bind(new.node);
    let sql = sql.bind(new.host);
    let sql = sql.bind(new.object).bind(new.parameters.to_string()).bind(new.attempts.max(1));
    let sql = sql.bind(alone).bind(now).bind(run_at).bind(new.run_until).bind(now);
    let id = tx.insert(sql.bind(search.to_lowercase())).await?;
    if let Some(request) = &new.request {
        request.note(tx, id).await?;
    }
    let job = read(tx, id).await?;
    tell(tx, &job).await?;
    Ok(job)
}

pub(super) async fn read(tx: &mut Tx, id: i64) -> Result<Job> {
    let job = tx.find_one(Sql::new("FROM jobs WHERE id = ?").bind(id)).await?;
    job.ok_or(Error::NotFound { what: "job" })
}

/// A job.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn find(catalog: &Catalog, id: i64) -> Result<Job> {
    let job = catalog.find_one(Sql::new("FROM jobs WHERE id = ?").bind(id)).await?;
    job.ok_or(Error::NotFound { what: "job" })
}

/// Lines of a job's log behind this one, so many at most.
///
/// # Errors
/// Those of the database.
pub async fn log(catalog: &Catalog, job: i64, after: i64, limit: u32) -> Result<Vec<Line>> {
    let sql = "FROM job_log WHERE job_id = ? AND id > ? ORDER BY id LIMIT ?";
    catalog.find(Sql::new(sql).bind(job).bind(after).bind(limit)).await
}

/// The last lines of a job's log, so many at most, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn last_lines(catalog: &Catalog, job: i64, limit: u32) -> Result<Vec<Line>> {
    let sql = "FROM job_log WHERE job_id = ? ORDER BY id DESC LIMIT ?";
    let mut lines: Vec<Line> = catalog.find(Sql::new(sql).bind(job).bind(limit)).await?;
    lines.reverse();
    Ok(lines)
}

/// The latest job of this kind on this pool that this asker, who is no user, had done well.
///
/// # Errors
/// Those of the database.
pub async fn last_done_by(
    catalog: &Catalog,
    kind: &str,
    pool: i64,
    asker: &str,
) -> Result<Option<Job>> {
    let sql = "FROM jobs WHERE kind = ? AND pool_id = ? AND user_name = ? AND user_id IS NULL \
               AND state IN ('succeeded', 'warnings') ORDER BY id DESC LIMIT 1";
    catalog.find_one(Sql::new(sql).bind(kind).bind(pool).bind(asker)).await
}

/// The jobs of this kind that are not over, of those that this machine must do.
///
/// # Errors
/// Those of the database.
pub async fn open_of(catalog: &Catalog, kind: &str, node: &str) -> Result<Vec<Job>> {
    let sql = "FROM jobs WHERE kind = ? AND node = ? AND state IN ('queued', 'running')";
    catalog.find(Sql::new(sql).bind(kind).bind(node)).await
}

/// The job of this kind that was asked for last, of those that this machine must do.
///
/// # Errors
/// Those of the database.
pub async fn newest(catalog: &Catalog, kind: &str, node: &str) -> Result<Option<Job>> {
    let sql = "FROM jobs WHERE kind = ? AND node = ? ORDER BY id DESC LIMIT 1";
    catalog.find_one(Sql::new(sql).bind(kind).bind(node)).await
}

/// How far somebody came with a job, as its work has kept it.
///
/// # Errors
/// Those of the database.
pub async fn checkpoint_of(catalog: &Catalog, id: i64) -> Result<Option<serde_json::Value>> {
    let rows = catalog.rows(Sql::new("SELECT checkpoint FROM jobs WHERE id = ?").bind(id)).await?;
    let Some(mut row) = rows.into_iter().next() else { return Ok(None) };
    let kept = row.take::<Option<String>>()?;
    kept.map(|text| super::json("checkpoint", text)).transpose()
}

/// Asks a job to stop.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn cancel(catalog: &Catalog, id: i64) -> Result<Cancel> {
    let mut tx = catalog.begin().await?;
    let now = clock(&mut tx).await?;
    let sql = "UPDATE jobs SET cancel = 1, changed_at = ? WHERE id = ? AND state = 'running'";
    if tx.execute(Sql::new(sql).bind(now).bind(id)).await? > 0 {
        tx.commit().await?;
        return Ok(Cancel::Asked);
    }
    let sql = "UPDATE jobs SET state = 'canceled', cancel = 1, ended_at = ?, changed_at = ? \
               WHERE id = ? AND state = 'queued'";
    let done = tx.execute(Sql::new(sql).bind(now).bind(now).bind(id)).await? > 0;
    let job = read(&mut tx, id).await?;
    if done {
        tell(&mut tx, &job).await?;
        tx.commit().await?;
        return Ok(Cancel::Done);
    }
    match job.state {
        // It was claimed between the two statements: the flag comes with the next try.
        State::Running | State::Queued => Err(Error::Changed { what: "job" }),
        _ => Ok(Cancel::Over),
    }
}

/// Whether this asker, who is no user, has a job of this kind on this pool that isn't over, or that
/// didn't come to a good end since the one time, or was over since the other.
///
/// # Errors
/// Those of the database.
pub async fn is_tried(
    catalog: &Catalog,
    kind: &str,
    pool: i64,
    failed_since: Timestamp,
    (asker, done_since): (&str, Timestamp),
) -> Result<bool> {
    // What users ask for with the same name is not its own.
    let sql = "SELECT 1 FROM jobs WHERE pool_id = ? AND kind = ? AND user_name = ? \
               AND user_id IS NULL AND (state IN ('queued', 'running') \
               OR (state IN ('failed', 'canceled', 'not_run') AND ended_at > ?) \
               OR ended_at > ?) LIMIT 1";
    let sql = Sql::new(sql).bind(pool).bind(kind).bind(asker).bind(failed_since).bind(done_since);
    Ok(!catalog.rows(sql).await?.is_empty())
}

/// When a job changed last; None without any job.
///
/// # Errors
/// Those of the database.
pub async fn last_change(catalog: &Catalog) -> Result<Option<Timestamp>> {
    let row = catalog.rows(Sql::new("SELECT MAX(changed_at) FROM jobs")).await?.into_iter().next();
    row.ok_or(Error::NotFound { what: "time" })?.take()
}

/// Jobs that changed at this time or later, in that order, so many at most.
///
/// # Errors
/// Those of the database.
pub async fn changed_since(catalog: &Catalog, since: Timestamp, limit: u32) -> Result<Vec<Job>> {
    let sql = "FROM jobs WHERE changed_at >= ? ORDER BY changed_at, id LIMIT ?";
    catalog.find(Sql::new(sql).bind(since).bind(limit)).await
}

/// Removes jobs that were over before then, with their logs, so many at most; how many there were.
///
/// # Errors
/// Those of the database.
pub async fn purge(catalog: &Catalog, before: Timestamp, limit: u32) -> Result<u64> {
    let sql = "DELETE FROM jobs WHERE id IN \
               (SELECT id FROM jobs WHERE ended_at < ? ORDER BY id LIMIT ?)";
    catalog.execute(Sql::new(sql).bind(before).bind(limit)).await
}
