//! Claiming a job.

use std::time::Duration;

use serde_json::Value;

use super::{Job, Lease, MAX_DEATHS, NewJob, clock, json, micros, queue, tell};
use crate::db::{Catalog, Engine, Tx};
use crate::sql::Sql;
use crate::{Error, Result};

/// What nodes on PostgreSQL hold while they claim, so that limits are counted right.
const TURN: i64 = 0x5352_4a4f_4253;
/// Jobs of dead workers, or whose time is over, that are seen to with one claim.
const SWEEP: i64 = 100;

/// Who wants something to do.
#[derive(Clone, Debug)]
pub struct Worker<'a> {
    /// Its name; no two have the same.
    pub name: &'a str,
    /// The machine that it runs on.
    pub node: &'a str,
    /// The kinds of jobs that it knows.
    pub kinds: &'a [&'a str],
    /// Pools that it can't use, because another process has them.
    pub not_pools: &'a [i64],
    /// How long it is believed to be alive after it was last heard of.
    pub lease: Duration,
    /// How many jobs may run on one pool.
    pub per_pool: u32,
    /// How many jobs may run on one host.
    pub per_host: u32,
}

/// A job that was claimed.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The job.
    pub job: Job,
    /// How far an earlier worker came.
    pub checkpoint: Option<Value>,
    /// What the worker must name from now on.
    pub lease: Lease,
}

/// Claims the next job that this worker may run: by priority, then by age. Queues jobs of dead
/// workers again on the way.
///
/// # Errors
/// Those of the database.
pub async fn claim(catalog: &Catalog, worker: &Worker<'_>) -> Result<Option<Claim>> {
    if !anything(catalog).await? {
        return Ok(None);
    }
    let mut tx = catalog.begin().await?;
    if tx.engine() == Engine::Postgres {
        tx.rows(Sql::new("SELECT 1 FROM pg_advisory_xact_lock(?)").bind(TURN)).await?;
    }
    let now = clock(&mut tx).await?;
    sweep(&mut tx, now).await?;
    let Some(id) = choose(&mut tx, worker, now).await? else {
        tx.commit().await?;
        return Ok(None);
    };
    let claim = take(&mut tx, id, worker.name, worker.lease, now).await?;
    tx.commit().await?;
    Ok(Some(claim))
}

/// Sees to jobs of dead workers and to those that were to begin earlier, for a worker that has no
/// room to claim any.
///
/// # Errors
/// Those of the database.
pub async fn tidy(catalog: &Catalog) -> Result<()> {
    if !anything(catalog).await? {
        return Ok(());
    }
    let mut tx = catalog.begin().await?;
    if tx.engine() == Engine::Postgres {
        tx.rows(Sql::new("SELECT 1 FROM pg_advisory_xact_lock(?)").bind(TURN)).await?;
    }
    let now = clock(&mut tx).await?;
    sweep(&mut tx, now).await?;
    tx.commit().await
}

/// Enters a job that begins at once, for a worker that has begun it already.
///
/// # Errors
/// Those of the database.
pub async fn begin(catalog: &Catalog, new: NewJob, worker: &str, lease: Duration) -> Result<Claim> {
    let mut tx = catalog.begin().await?;
    let job = queue::submit_in(&mut tx, new).await?;
    let now = clock(&mut tx).await?;
    let claim = take(&mut tx, job.id, worker, lease, now).await?;
    tx.commit().await?;
    Ok(claim)
}

/// Gives a queued job to a worker.
async fn take(tx: &mut Tx, id: i64, worker: &str, lease: Duration, now: i64) -> Result<Claim> {
    let until = now.saturating_add(micros(lease));
    let sql = "UPDATE jobs SET state = 'running', worker = ?, lease_until = ?, fence = fence + 1, \
               started_at = ?, changed_at = ?, phase = '', bytes_done = 0, bytes_total = NULL, \
               items_done = 0, items_total = NULL \
               WHERE id = ? AND state = 'queued' RETURNING fence, checkpoint";
    let sql = Sql::new(sql).bind(worker).bind(until).bind(now).bind(now).bind(id);
    let row = tx.rows(sql).await?.into_iter().next();
    let mut row = row.ok_or(Error::Changed { what: "job" })?;
    let fence = row.take()?;
    let checkpoint = row.take::<Option<String>>()?;
    let checkpoint = checkpoint.map(|text| json("checkpoint", text)).transpose()?;
    let job = queue::read(tx, id).await?;
    tell(tx, &job).await?;
    Ok(Claim { job, checkpoint, lease: Lease { job: id, worker: worker.into(), fence } })
}

/// Ends the leases of all workers, for one that knows that no other can be alive.
///
/// # Errors
/// Those of the database.
pub async fn orphan_all(catalog: &Catalog) -> Result<u64> {
    catalog.execute(Sql::new("UPDATE jobs SET lease_until = 0 WHERE state = 'running'")).await
}

/// Whether it is worth a transaction; most of the time there is nothing to do. By this machine's
/// clock: being a little late or early does no harm.
async fn anything(catalog: &Catalog) -> Result<bool> {
    let now = jiff::Timestamp::now();
    let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM jobs WHERE state = 'queued' AND run_at <= ?) \
               OR EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until < ?) \
               OR EXISTS (SELECT 1 FROM jobs WHERE state = 'queued' AND run_until < ? \
                 AND started_at IS NULL)";
    let soon = now + jiff::SignedDuration::from_secs(5);
    let by = if catalog.engine() == Engine::Postgres { soon } else { now };
    let sql = Sql::new(sql).bind(by).bind(by).bind(by);
    Ok(!catalog.rows(sql).await?.is_empty())
}

/// Sees to jobs whose worker died, and to those that were to begin earlier.
async fn sweep(tx: &mut Tx, now: i64) -> Result<()> {
    let skip = skip_locked(tx.engine());
    let mut sql = Sql::new(
        "SELECT id, CASE WHEN state = 'queued' THEN 'not_run' WHEN cancel = 1 THEN 'canceled' \
         WHEN deaths + 1 >= ? THEN 'failed' ELSE 'queued' END FROM jobs \
         WHERE (state = 'running' AND lease_until < ?) \
         OR (state = 'queued' AND run_until < ? AND started_at IS NULL) \
         ORDER BY id LIMIT ?",
    );
    sql.push(skip).value(MAX_DEATHS).value(now).value(now).value(SWEEP);
    for mut row in tx.rows(sql).await? {
        let (id, state): (i64, String) = (row.take()?, row.take()?);
        let over = (state != "queued").then_some(now);
        let error = (state == "failed").then(|| {
            format!("{MAX_DEATHS} processes ended while they worked on it; see their logs")
        });
        let sql = "UPDATE jobs SET deaths = deaths + CASE WHEN state = 'running' THEN 1 ELSE 0 END, \
                   state = ?, ended_at = ?, error = ?, lease_until = NULL, worker = NULL, \
                   changed_at = ? WHERE id = ?";
        let sql = Sql::new(sql).bind(state).bind(over).bind(error).bind(now).bind(id);
        tx.execute(sql).await?;
        let job = queue::read(tx, id).await?;
        tell(tx, &job).await?;
    }
    Ok(())
}

async fn choose(tx: &mut Tx, worker: &Worker<'_>, now: i64) -> Result<Option<i64>> {
    let mut sql =
        Sql::new("SELECT id FROM jobs j WHERE state = 'queued' AND run_at <= ?").bind(now);
    // One that began in time and was cut off goes on.
    sql.push(" AND (run_until IS NULL OR run_until >= ? OR started_at IS NOT NULL)").value(now);
    sql.push(" AND node IN ").push_set(["", worker.node]);
    sql.push(" AND kind IN ").push_set(worker.kinds.iter().copied());
    if !worker.not_pools.is_empty() {
        sql.push(" AND (pool_id IS NULL OR pool_id NOT IN ");
        sql.push_set(worker.not_pools.iter().copied()).push(")");
    }
    sql.push(
        " AND (pool_id IS NULL OR (\
         (SELECT COUNT(*) FROM jobs r WHERE r.pool_id = j.pool_id AND r.state = 'running' \
          AND r.alone >= 0) < ? \
         AND NOT EXISTS (SELECT 1 FROM jobs r WHERE r.pool_id = j.pool_id \
           AND r.state = 'running' AND (r.alone = 2 OR j.alone = 2 OR r.alone + j.alone = 2)) \
         AND NOT EXISTS (SELECT 1 FROM jobs q WHERE q.pool_id = j.pool_id \
           AND q.state = 'queued' AND q.alone = 2 AND q.run_at <= ? AND q.id < j.id \
           AND q.priority >= j.priority)))",
    );
    sql.value(worker.per_pool).value(now);
    sql.push(
        " AND (host = '' OR \
         (SELECT COUNT(*) FROM jobs r WHERE r.host = j.host AND r.state = 'running') < ?) \
         ORDER BY priority DESC, run_at, id LIMIT 1",
    );
    sql.value(worker.per_host).push(skip_locked(tx.engine()));
    match tx.rows(sql).await?.into_iter().next() {
        Some(mut row) => row.take().map(Some),
        None => Ok(None),
    }
}

/// Rows that somebody else is changing are left for the next time.
fn skip_locked(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "",
        Engine::Postgres => " FOR UPDATE SKIP LOCKED",
    }
}
