//! What a work sees of its job.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use strongroom_catalog::Catalog;
use strongroom_catalog::events::Severity;
use strongroom_catalog::jobs::{self, Job, Progress};
use tokio::runtime::Handle;

use crate::Failure;
use crate::live::{Live, Stop};

/// The largest checkpoint, in bytes of JSON.
const MAX_CHECKPOINT: usize = 1 << 20;

/// A job that runs, as its work sees it.
pub struct Run {
    pub(crate) job: Job,
    pub(crate) checkpoint: Option<Value>,
    pub(crate) live: Arc<Live>,
    pub(crate) catalog: Catalog,
    pub(crate) lease: Duration,
    pub(crate) handle: Handle,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({} {})", self.job.kind, self.job.id)
    }
}

impl Run {
    /// The job, as it was when it was claimed.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The pool that it works on.
    ///
    /// # Errors
    /// [`Failure::Refused`] when none was named.
    pub fn pool_id(&self) -> Result<i64, Failure> {
        let missing = || Failure::Refused("the job names no pool to work on".into());
        self.job.pool_id.ok_or_else(missing)
    }

    /// What to do.
    ///
    /// # Errors
    /// [`Failure::Refused`] when that is not understood.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let wrong = |e| Failure::Refused(format!("the job's parameters are not understood: {e}"));
        T::deserialize(&self.job.parameters).map_err(wrong)
    }

    /// How far somebody came with it before.
    pub fn checkpoint(&self) -> Option<&Value> {
        self.checkpoint.as_ref()
    }

    /// Keeps how far it is, for whoever takes it up again. It is durable when this returns.
    ///
    /// # Errors
    /// [`Failure::Canceled`] when the lease was lost; [`Failure::Failed`] when the catalogue can't
    /// be written.
    pub fn store_checkpoint(&self, value: &Value) -> Result<(), Failure> {
        if value.to_string().len() > MAX_CHECKPOINT {
            return Err(Failure::Refused(format!(
                "a checkpoint has {MAX_CHECKPOINT} bytes at most"
            )));
        }
        let stored = self.wait(jobs::checkpoint(&self.catalog, &self.live.lease, value))?;
        self.held(stored)
    }

    /// Makes sure, right before a step that others can see, that the job is still this one's.
    ///
    /// # Errors
    /// [`Failure::Canceled`] when it was asked to stop or the lease was lost; [`Failure::Failed`]
    /// when the catalogue can't be asked.
    pub fn hold(&self) -> Result<(), Failure> {
        self.go_on()?;
        let held = self.wait(jobs::hold(&self.catalog, &self.live.lease, self.lease))?;
        self.held(held)
    }

    fn held(&self, held: bool) -> Result<(), Failure> {
        if held {
            return Ok(());
        }
        self.live.stop(Stop::Lost);
        Err(Failure::Canceled)
    }

    /// Says how far it is. The engine writes it down when it is time to.
    pub fn progress(&self, progress: Progress) {
        self.live.set_progress(progress);
    }

    /// Lets the engine ask how far it is, a few times a second.
    pub fn sample(&self, sampler: impl Fn() -> Progress + Send + 'static) {
        self.live.sample(Box::new(sampler));
    }

    /// Ends [`Run::sample`]; what it says last stays.
    pub fn end_sampling(&self) {
        self.live.end_sampling();
    }

    /// Writes a line to the job's log.
    pub fn log(&self, level: Severity, text: impl AsRef<str>) {
        self.live.log(level, text.as_ref());
    }

    /// Whether it is to stop at the next safe point.
    pub fn is_canceled(&self) -> bool {
        self.live.why_stop() != Stop::No
    }

    /// Whether it is to stop so that somebody else can go on.
    pub fn is_draining(&self) -> bool {
        self.live.why_stop() == Stop::Draining
    }

    /// Whether somebody else has it now.
    pub fn is_lost(&self) -> bool {
        self.live.why_stop() == Stop::Lost
    }

    /// For `?`: an error when it is to stop.
    ///
    /// # Errors
    /// [`Failure::Canceled`].
    pub fn go_on(&self) -> Result<(), Failure> {
        if self.is_canceled() { Err(Failure::Canceled) } else { Ok(()) }
    }

    /// Calls this once it is to stop; at once if it is already.
    pub fn on_stop(&self, hook: impl FnOnce() + Send + 'static) {
        self.live.on_stop(Box::new(hook));
    }

    /// Waits for something that the services do.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }
}
