//! Jobs: rows that workers claim, hold by a lease, and give back.
//!
//! A job is `queued` until a worker claims it ([`claim`]). The worker then holds a [`Lease`]: its
//! name, and the job's *fence*, a number that grows with every claim. It must [`beat`] before the
//! lease ends. Every statement of a worker names all of it and changes nothing when the lease is
//! lost, so a worker that was thought dead, and isn't, has no effect here. A job whose lease ended
//! is queued again by whoever claims next.
//!
//! | state | means | goes to |
//! |---|---|---|
//! | `queued` | waits for its time and for a worker | `running`, `canceled`, `not_run` |
//! | `running` | a worker holds it | `queued` (its worker died or is stopping), the others |
//! | `succeeded`, `warnings`, `failed`, `canceled` | over | |
//! | `retried` | failed, and another job does it again ([`Job::retried_as`]) | |
//! | `not_run` | its time was over before a worker was free; one that began in time goes on | |
//!
//! Leases are counted by the database's clock where it has one, so that nodes need not agree on the
//! time. No safety hangs on it: a lease that ends too early costs work, not truth.

mod claim;
mod held;
mod queue;
mod request;
mod stats;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

pub use self::claim::{Claim, Worker, begin, claim, orphan_all, tidy};
pub use self::held::{Beat, End, Lease, asked_to_stop, beat, checkpoint, finish, hold, release};
pub use self::queue::{
    Cancel, cancel, changed_since, checkpoint_of, find, is_tried, last_change, last_done_by,
    last_lines, log, newest, open_of, purge, submit, submit_in,
};
pub use self::request::Request;
pub use self::stats::{Counted, Tally, ended, last_good, open};

use crate::db::{Tx, clock};
use crate::events::{self, NewEvent, Severity};
use crate::value::{Record, Row};
use crate::{Error, Result, Sql};

/// How many workers may die over a job before it is given up: enough for a machine that is often
/// switched off, few enough for a job that itself ends every process that touches it.
pub const MAX_DEATHS: i64 = 16;

/// How a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits.
    Queued,
    /// A worker is at it.
    Running,
    /// Done.
    Succeeded,
    /// Done, but for parts that are named in its log.
    Warnings,
    /// Not done.
    Failed,
    /// Not done; another job does it again.
    Retried,
    /// Ended because somebody asked for it.
    Canceled,
    /// Never begun: its time was over.
    NotRun,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Warnings,
        Self::Failed,
        Self::Retried,
        Self::Canceled,
        Self::NotRun,
    ];

    /// Their words in the database, in the same order.
    pub const WORDS: &'static [&'static str] =
        &["queued", "running", "succeeded", "warnings", "failed", "retried", "canceled", "not_run"];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// The state with that word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing more happens to the job.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// The kind of event, its severity, and the words for people.
    fn told(self) -> (&'static str, Severity, &'static str) {
        match self {
            Self::Queued => ("job.queued", Severity::Info, "waits"),
            Self::Running => ("job.started", Severity::Info, "began"),
            Self::Succeeded => ("job.succeeded", Severity::Info, "succeeded"),
            Self::Warnings => ("job.warnings", Severity::Warning, "succeeded with warnings"),
            Self::Failed => ("job.failed", Severity::Error, "failed"),
            Self::Retried => ("job.retried", Severity::Warning, "failed and is tried again"),
            Self::Canceled => ("job.canceled", Severity::Info, "was canceled"),
            Self::NotRun => ("job.not_run", Severity::Warning, "was not begun in time"),
        }
    }
}

/// What else may run on a job's pool at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alone {
    /// Anything.
    #[default]
    No,
    /// Nothing that also asks for this: upkeep comes one piece at a time.
    OfItsKind,
    /// Nothing at all: the pool is closed meanwhile.
    Wholly,
    /// Anything, and it counts for no limit: it is the work of somebody else, who only tells of it.
    Beside,
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What it is at, in a word or two.
    pub phase: String,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all, when that is known.
    pub bytes_total: Option<u64>,
    /// Items (files, packs) done.
    pub items_done: u64,
    /// Items in all, when that is known.
    pub items_total: Option<u64>,
}

/// A job to be queued.
#[derive(Clone, Debug, Default)]
pub struct NewJob {
    /// What is to be done: the name that its worker knows it by.
    pub kind: String,
    /// Higher ones come first.
    pub priority: i64,
    /// Whose it is.
    pub organisation_id: i64,
    /// Who asked for it.
    pub user_id: Option<i64>,
    /// That user's name, which outlives the user.
    pub user_name: String,
    /// The pool that it works on.
    pub pool_id: Option<i64>,
    /// The machine that must do it; empty for any.
    pub node: String,
    /// The host that it works on; empty for none.
    pub host: String,
    /// What it is about, for people.
    pub object: String,
    /// What to do, in the form that its worker knows.
    pub parameters: Value,
    /// How often it is tried, at least once.
    pub attempts: u32,
    /// What else may run on its pool.
    pub alone: Alone,
    /// Not before then.
    pub run_at: Option<Timestamp>,
    /// Not begun after then.
    pub run_until: Option<Timestamp>,
    /// The request that asks for it, if that may be sent again.
    pub request: Option<Request>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What it does.
    pub kind: String,
    /// How it is.
    pub state: State,
    /// Higher ones come first.
    pub priority: i64,
    /// Whose it is.
    pub organisation_id: i64,
    /// Who asked for it, as long as that user is there.
    pub user_id: Option<i64>,
    /// That user's name.
    pub user_name: String,
    /// The pool that it works on.
    pub pool_id: Option<i64>,
    /// The machine that must do it; empty for any.
    pub node: String,
    /// The host that it works on; empty for none.
    pub host: String,
    /// What it is about, for people.
    pub object: String,
    /// What to do.
    pub parameters: Value,
    /// What came of it.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// How many there are at most.
    pub attempts: u32,
    /// The job whose work this one does again.
    pub retry_of: Option<i64>,
    /// The job that does this one's work again.
    pub retried_as: Option<i64>,
    /// When it was asked for.
    pub queued_at: Timestamp,
    /// Not begun before then.
    pub run_at: Timestamp,
    /// Not begun after then.
    pub run_until: Option<Timestamp>,
    /// When it was begun, the last time if there were several.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Who is, or was, at it.
    pub worker: Option<String>,
    /// Whether it was asked to stop.
    pub cancel: bool,
    /// How far it is.
    pub progress: Progress,
    /// When any of this changed last.
    pub changed_at: Timestamp,
}

impl Record for Job {
    const COLUMNS: &'static str = "id, kind, state, priority, organisation_id, user_id, \
        user_name, pool_id, node, host, object, parameters, result, error, attempt, attempts, retry_of, \
        retried_as, queued_at, run_at, run_until, started_at, ended_at, worker, cancel, phase, \
        bytes_done, bytes_total, items_done, items_total, changed_at";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            kind: row.take()?,
            state: {
                let word: String = row.take()?;
                let why = || format!("there is none called {word:?}");
                State::of(&word).ok_or_else(|| damaged("state", why()))?
            },
            priority: row.take()?,
            organisation_id: row.take()?,
            user_id: row.take()?,
            user_name: row.take()?,
            pool_id: row.take()?,
            node: row.take()?,
            host: row.take()?,
            object: row.take()?,
            parameters: json("parameters", row.take()?)?,
            result: row.take::<Option<String>>()?.map(|text| json("result", text)).transpose()?,
            error: row.take()?,
            attempt: row.take()?,
            attempts: row.take()?,
            retry_of: row.take()?,
            retried_as: row.take()?,
            queued_at: row.take()?,
            run_at: row.take()?,
            run_until: row.take()?,
            started_at: row.take()?,
            ended_at: row.take()?,
            worker: row.take()?,
            cancel: row.take()?,
            progress: Progress {
                phase: row.take()?,
                bytes_done: row.take()?,
                bytes_total: row.take()?,
                items_done: row.take()?,
                items_total: row.take()?,
            },
            changed_at: row.take()?,
        })
    }
}

impl Job {
    /// Bytes a second since it was begun, on average; None before there is anything to tell.
    pub fn rate(&self, now: Timestamp) -> Option<f64> {
        let until = self.ended_at.unwrap_or(now);
        let seconds = until.duration_since(self.started_at?).as_secs_f64();
        (seconds > 0.0 && self.progress.bytes_done > 0)
            .then(|| self.progress.bytes_done as f64 / seconds)
    }

    /// How much of it is done, 0 to 1, by bytes or failing that by items.
    pub fn part(&self) -> Option<f64> {
        let progress = &self.progress;
        let bytes = progress.bytes_total.map(|total| (progress.bytes_done, total));
        let items = progress.items_total.map(|total| (progress.items_done, total));
        let (done, total) = bytes.or(items).filter(|(_, total)| *total > 0)?;
        Some((done as f64 / total as f64).clamp(0.0, 1.0))
    }

    /// When it will be over if it goes on as it did so far. Only of a running job that knows how
    /// much there is to do.
    pub fn estimated_end(&self, now: Timestamp) -> Option<Timestamp> {
        let part = self.part().filter(|part| *part > 0.0 && self.state == State::Running)?;
        let spent = now.duration_since(self.started_at?).as_secs_f64().max(0.0);
        let left = SignedDuration::try_from_secs_f64(spent * (1.0 / part - 1.0)).ok()?;
        now.checked_add(left).ok()
    }
}

/// A line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number; later ones have higher ones.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Severity,
    /// What is said.
    pub message: String,
}

impl Record for Line {
    const COLUMNS: &'static str = "id, at, level, message";

    fn read(row: &mut Row) -> Result<Self> {
        let (id, at, level): (_, _, String) = (row.take()?, row.take()?, row.take()?);
        let level = Severity::of(&level);
        let level = level.ok_or_else(|| damaged("log", "a line has no level".into()))?;
        Ok(Self { id, at, level, message: row.take()? })
    }
}

fn damaged(what: &str, why: String) -> Error {
    Error::Damaged { what: format!("{what} of a job"), why }
}

fn json(what: &str, text: String) -> Result<Value> {
    serde_json::from_str(&text).map_err(|e| damaged(what, e.to_string()))
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Writes the event that a job came to this state. One that is over keeps no secret: what works needs
/// it.
async fn tell(tx: &mut Tx, job: &Job) -> Result<()> {
    if job.state.is_over() && job.parameters.get("secret").is_some_and(|secret| !secret.is_null()) {
        let mut kept = job.parameters.clone();
        kept["secret"] = Value::Null;
        let sql = Sql::new("UPDATE jobs SET parameters = ? WHERE id = ?");
        tx.execute(sql.bind(kept.to_string()).bind(job.id)).await?;
    }
    let (kind, severity, words) = job.state.told();
    let mut message = match job.object.as_str() {
        "" => format!("{} {words}", job.kind),
        object => format!("{} of {object} {words}", job.kind),
    };
    if let Some(error) = job.error.as_deref().filter(|_| job.state.is_over()) {
        message.push_str(": ");
        message.push_str(error);
    }
    let event = NewEvent {
        severity,
        kind,
        organisation_id: job.organisation_id,
        object: job.object.clone(),
        job_id: Some(job.id),
        message,
    };
    events::write(tx, event).await.map(|_| ())
}
