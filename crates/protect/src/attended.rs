//! Jobs that stand for what somebody else does: a client that sends its backup. They have no thread
//! here and count for no limit, but are listed, watched and canceled like all others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use strongroom_catalog::events::Severity;
use strongroom_catalog::jobs::{self, Alone, Job, NewJob, Progress};

use crate::engine::{Inner, lock};
use crate::live::{Live, Stop};
use crate::{Engine, Error, Failure, Outcome, Result, worker};

/// A job whose work is done elsewhere; whoever attends it says how far that is, and its end.
pub struct Attended {
    inner: Arc<Inner>,
    live: Arc<Live>,
    job: Job,
}

impl std::fmt::Debug for Attended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attended({} {})", self.job.kind, self.job.id)
    }
}

impl Engine {
    /// Enters a job that has begun. When this process ends before the job does, its work is called
    /// like that of any other.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn attend(&self, new: NewJob) -> Result<Attended> {
        let inner = Arc::clone(self.inner());
        if inner.draining.load(Ordering::Acquire) {
            return Err(Error::Stopping);
        }
        let new = NewJob { alone: Alone::Beside, ..new };
        let options = &inner.options;
        let claim = jobs::begin(&inner.catalog, new, &options.worker, options.lease).await?;
        let live = Arc::new(Live::new(claim.lease, claim.job.pool_id));
        lock(&inner.attended).insert(claim.job.id, Arc::clone(&live));
        inner.recount();
        if inner.draining.load(Ordering::Acquire) {
            live.stop(Stop::Draining);
        }
        inner.changed();
        Ok(Attended { inner, live, job: claim.job })
    }
}

impl Attended {
    /// The job, as it was when it began.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Lets the engine ask how far it is, a few times a second.
    pub fn sample(&self, sampler: impl Fn() -> Progress + Send + 'static) {
        self.live.sample(Box::new(sampler));
    }

    /// Writes a line to the job's log.
    pub fn log(&self, level: Severity, text: impl AsRef<str>) {
        self.live.log(level, text.as_ref());
    }

    /// Calls this once the job is to stop; at once if it is already.
    pub fn on_stop(&self, hook: impl FnOnce() + Send + 'static) {
        self.live.on_stop(Box::new(hook));
    }

    /// Whether somebody asked for it to stop.
    pub fn is_canceled(&self) -> bool {
        matches!(self.live.why_stop(), Stop::Canceled)
    }

    /// Makes sure, right before a step that others can see, that the job is still this one's and
    /// goes on.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn hold(&self) -> Result<bool> {
        if self.live.why_stop() != Stop::No {
            return Ok(false);
        }
        let lease = self.inner.options.lease;
        let held = jobs::hold(&self.inner.catalog, &self.live.lease, lease).await?;
        if !held {
            self.live.stop(Stop::Lost);
        }
        Ok(held)
    }

    /// Says what came of it.
    pub async fn end(&self, done: Result<Outcome, Failure>) {
        worker::end(&self.inner, &self.live, done, 1, 1).await;
        lock(&self.inner.attended).remove(&self.job.id);
        self.inner.recount();
        self.inner.changed();
    }
}
