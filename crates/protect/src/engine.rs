//! The engine, as others see it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use strongroom_catalog::Catalog;
use strongroom_catalog::events::Severity;
use strongroom_catalog::jobs::{self, Cancel, Job, Line, NewJob, State};
use strongroom_catalog::list::{Count, List, Page, Scope};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::live::{Live, Stop};
use crate::watch::{Changes, Hub};
use crate::worker;
use crate::{Error, Result, Work};

/// The largest parameters of a job, in bytes of JSON.
const MAX_PARAMETERS: usize = 256 << 10;
/// The longest text about what a job is about, in bytes.
const MAX_OBJECT: usize = 1024;
/// How often a job may be tried.
const MAX_ATTEMPTS: u32 = 100;

/// How an engine works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, which no other engine on the catalogue has or had.
    pub worker: String,
    /// The machine that it runs on: jobs may ask for one.
    pub node: String,
    /// What it does at most, until something else is said.
    pub limits: Limits,
    /// How long this engine is believed to be alive after it was last heard of.
    pub lease: Duration,
    /// How often it looks for something to do, and writes down how far jobs are.
    pub tick: Duration,
    /// How long a pool that another process has is left to that one; twice as long each further
    /// time, up to 32 times as long, and never longer than the lease.
    pub elsewhere: Duration,
    /// Whether no other engine can be alive when this one starts: then what was running is taken
    /// up at once, and not when its lease ends.
    pub sole: bool,
}

impl Default for Options {
    /// A name that tells machine and process, and that no other has.
    fn default() -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let mut random = [0u8; 4];
        // Without random numbers the process and the time must do.
        let _ = getrandom::fill(&mut random);
        let random = data_encoding::HEXLOWER.encode(&random);
        let since = jiff::Timestamp::now().as_microsecond();
        Self {
            node: host.clone().into_owned(),
            worker: format!("{host}/{}/{since}-{random}", std::process::id()),
            limits: Limits::default(),
            lease: Duration::from_secs(30),
            tick: Duration::from_millis(400),
            elsewhere: Duration::from_secs(10),
            sole: false,
        }
    }
}

/// What an engine does at most. It may change while the engine works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many jobs run at once; with 0 none is begun.
    pub slots: u32,
    /// How many jobs run at once on one pool, of all engines together.
    pub per_pool: u32,
    /// How many jobs run at once on one host, of all engines together.
    pub per_host: u32,
    /// How often a job is tried when its asker doesn't say.
    pub attempts: u32,
    /// How long after a failure a job is tried again; twice as long after each further one.
    pub backoff: Duration,
    /// The longest time between two tries.
    pub max_backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slots: 8,
            per_pool: 4,
            per_host: 4,
            attempts: 3,
            backoff: Duration::from_secs(30),
            max_backoff: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    /// How long to wait after this try, counted from 1.
    pub(crate) fn backoff_after(&self, attempt: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.max_backoff)
    }
}

/// Jobs that were over here and are alike, since the engine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many.
    pub count: u64,
    /// How long they took together.
    pub time: Duration,
    /// What they did, in bytes.
    pub bytes: u64,
}

/// A pool that another process has.
pub(crate) struct Elsewhere {
    /// How often it was found so, one after the other.
    pub(crate) times: u32,
    /// Until when it is left to that one.
    pub(crate) until: Instant,
}

/// What all parts of an engine share.
pub(crate) struct Inner {
    pub(crate) catalog: Catalog,
    pub(crate) options: Options,
    limits: RwLock<Limits>,
    ended: Mutex<BTreeMap<(&'static str, State), Ended>>,
    pub(crate) works: BTreeMap<&'static str, Arc<dyn Work>>,
    pub(crate) running: Mutex<HashMap<i64, Arc<Live>>>,
    /// Jobs that stand for what others do.
    pub(crate) attended: Mutex<HashMap<i64, Arc<Live>>>,
    /// How many jobs run, for those who wait for it to change.
    pub(crate) count: watch::Sender<usize>,
    /// Pools that another process has.
    pub(crate) elsewhere: Mutex<HashMap<i64, Elsewhere>>,
    pub(crate) draining: AtomicBool,
    /// One at a time claims; who has this knows that nobody does.
    pub(crate) claiming: Semaphore,
    /// There may be something to do.
    pub(crate) poke: Notify,
    pub(crate) hub: Arc<Hub>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(crate) fn live(&self) -> Vec<Arc<Live>> {
        let attended = lock(&self.attended).values().cloned().collect::<Vec<_>>();
        lock(&self.running).values().cloned().chain(attended).collect()
    }

    /// Notes how many jobs run.
    pub(crate) fn recount(&self) {
        let count = lock(&self.running).len() + lock(&self.attended).len();
        self.count.send_replace(count);
    }

    pub(crate) fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a job that was over.
    pub(crate) fn tally(&self, job: &Job) {
        // Only what is known here, so that the table is bounded.
        let Some((kind, _)) = self.works.get_key_value(job.kind.as_str()) else { return };
        let time = job.started_at.zip(job.ended_at).map(|(from, to)| to.duration_since(from));
        let time = time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default();
        let mut ended = lock(&self.ended);
        let all = ended.entry((*kind, job.state)).or_default();
        all.count += 1;
        all.time = all.time.saturating_add(time);
        all.bytes = all.bytes.saturating_add(job.progress.bytes_done);
    }

    pub(crate) fn changed(&self) {
        self.hub.poke();
    }
}

/// Runs jobs: see the crate's text. Cheap to clone; when the last clone is dropped without
/// [`Engine::drain`] it falls silent, as if its process had died.
#[derive(Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", self.inner().options.worker)
    }
}

struct Handle {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Handle {
    fn silence(&self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        self.inner.draining.store(true, Ordering::Release);
        self.inner.live().iter().for_each(|live| live.stop(Stop::Lost));
        self.inner.hub.close();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.silence();
    }
}

impl Engine {
    /// Begins to work, within a tokio runtime.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn start(
        catalog: Catalog,
        works: Vec<Arc<dyn Work>>,
        options: Options,
    ) -> Result<Self> {
        if options.sole {
            jobs::orphan_all(&catalog).await?;
        }
        let inner = Arc::new(Inner {
            catalog,
            limits: RwLock::new(options.limits),
            ended: Mutex::default(),
            options,
            works: works.into_iter().map(|work| (work.kind(), work)).collect(),
            running: Mutex::default(),
            attended: Mutex::default(),
            count: watch::Sender::new(0),
            elsewhere: Mutex::default(),
            draining: AtomicBool::new(false),
            claiming: Semaphore::new(1),
            poke: Notify::new(),
            hub: Arc::default(),
        });
        let tasks = vec![
            tokio::spawn(worker::run(Arc::clone(&inner))),
            tokio::spawn(Arc::clone(&inner.hub).run(inner.catalog.clone())),
        ];
        Ok(Self { handle: Arc::new(Handle { inner, tasks: Mutex::new(tasks) }) })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// The catalogue that it works from.
    pub fn catalog(&self) -> &Catalog {
        &self.inner().catalog
    }

    /// What it does at most, from now on. Jobs that run go on.
    pub fn set_limits(&self, limits: Limits) {
        let inner = self.inner();
        *inner.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
        inner.poke.notify_one();
    }

    /// Queues a job. What else may run beside it is what its work says.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Invalid`], [`Error::Stopping`]; those of the database.
    pub async fn submit(&self, new: NewJob) -> Result<Job> {
        let inner = self.inner();
        if inner.draining.load(Ordering::Acquire) {
            return Err(Error::Stopping);
        }
        let Some(work) = inner.works.get(new.kind.as_str()) else {
            let known: Vec<_> = inner.works.keys().copied().collect();
            return Err(Error::Unknown { kind: new.kind, known: known.join(", ") });
        };
        if new.parameters.to_string().len() > MAX_PARAMETERS {
            let text = format!("a job's parameters have {MAX_PARAMETERS} bytes at most");
            return Err(Error::Invalid(text));
        }
        if new.object.len() > MAX_OBJECT {
            let text = format!("what a job is about is told in {MAX_OBJECT} bytes at most");
            return Err(Error::Invalid(text));
        }
        if new.attempts > MAX_ATTEMPTS {
            let text = format!("a job is tried {MAX_ATTEMPTS} times at most");
            return Err(Error::Invalid(text));
        }
        let now = Timestamp::now();
        let begins = new.run_at.map_or(now, |at| at.max(now));
        if let Some(until) = new.run_until.filter(|until| *until <= begins) {
            return Err(Error::Invalid(format!(
                "the job could never begin: not after {until}, and not before {begins}"
            )));
        }
        work.check(&new.parameters).map_err(Error::Invalid)?;
        let attempts = match new.attempts {
            0 => inner.limits().attempts,
            attempts => attempts,
        };
        let new = NewJob { alone: work.alone(), attempts, ..new };
        let job = jobs::submit(&inner.catalog, new).await?;
        inner.poke.notify_one();
        inner.changed();
        Ok(job)
    }

    /// Asks a job to stop. It does so at its next safe point, within about a second.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn cancel(&self, id: i64) -> Result<Cancel> {
        let inner = self.inner();
        let mut canceled = jobs::cancel(&inner.catalog, id).await;
        if let Err(strongroom_catalog::Error::Changed { .. }) = canceled {
            // It was claimed at that very moment.
            canceled = jobs::cancel(&inner.catalog, id).await;
        }
        let canceled = canceled?;
        if canceled == Cancel::Asked {
            let live = inner.live().into_iter().find(|live| live.lease.job == id);
            live.inspect(|live| live.stop(Stop::Canceled));
        }
        inner.changed();
        Ok(canceled)
    }

    /// A job.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn job(&self, id: i64) -> Result<Job> {
        Ok(jobs::find(&self.inner().catalog, id).await?)
    }

    /// Jobs, by a list of the resource of jobs.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn jobs(&self, list: &List, scope: &Scope) -> Result<Page<Job>> {
        Ok(list.page(&self.inner().catalog, scope).await?)
    }

    /// How many [`Engine::jobs`] there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_jobs(&self, list: &List, scope: &Scope) -> Result<Count> {
        Ok(list.count(&self.inner().catalog, scope).await?)
    }

    /// Lines of a job's log behind this one, so many at most.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn log(&self, id: i64, after: i64, limit: u32) -> Result<Vec<Line>> {
        Ok(jobs::log(&self.inner().catalog, id, after, limit).await?)
    }

    /// The present state of a job, and each one that it comes to, up to the last.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn watch(&self, id: i64) -> Result<Changes> {
        Ok(self.inner().hub.listen(&self.inner().catalog, id).await?)
    }

    /// What changes of all jobs, from now on; for one who was away, from that time on. What changed
    /// shortly before it may be told again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn watch_all(&self, since: Option<Timestamp>) -> Result<Changes> {
        Ok(self.inner().hub.listen_all(&self.inner().catalog, since).await?)
    }

    /// Waits until a job is over, and gives it. One that is tried again is over when that is; then
    /// it is the last try that is given.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; [`Error::Stopping`]; those of the database.
    pub async fn wait(&self, id: i64) -> Result<Job> {
        let mut id = id;
        loop {
            let mut changes = self.watch(id).await?;
            let over = loop {
                match changes.next().await {
                    Some(job) if job.state.is_over() => break job,
                    Some(_) => {}
                    None => return Err(Error::Stopping),
                }
            };
            match over.retried_as {
                Some(again) => id = again,
                None => return Ok(over),
            }
        }
    }

    /// Jobs that were over here since it began, by what they did and how they ended.
    pub fn ended(&self) -> BTreeMap<(&'static str, State), Ended> {
        lock(&self.inner().ended).clone()
    }

    /// How many jobs run here.
    pub fn running(&self) -> usize {
        *self.inner().count.borrow()
    }

    /// Takes no new jobs, and asks those that run to stop where they can be taken up again; they
    /// go back to the queue. What has not stopped after so long is given back all the same: its
    /// thread may still be at work, but has no effect in the catalogue any more.
    pub async fn drain(&self, within: Duration) {
        let inner = self.inner();
        inner.draining.store(true, Ordering::Release);
        // What is being claimed right now has begun after this.
        let _claiming = inner.claiming.acquire().await;
        inner.live().iter().for_each(|live| live.stop(Stop::Draining));
        let mut count = inner.count.subscribe();
        let all_stopped = count.wait_for(|count| *count == 0);
        if tokio::time::timeout(within, all_stopped).await.is_err() {
            for live in inner.live() {
                live.log(Severity::Warning, "it did not stop in time, and is queued again");
                let last = live.last();
                live.stop(Stop::Lost);
                if let Err(error) = jobs::release(&inner.catalog, &last, Duration::ZERO).await {
                    tracing::warn!("job {} could not be given back: {error}", live.lease.job);
                }
            }
        }
        self.handle.silence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_ever_later_up_to_a_bound() {
        let limits = Limits::default();
        let after: Vec<_> = (1..12).map(|n| limits.backoff_after(n).as_secs()).collect();
        assert_eq!(after[..4], [30, 60, 120, 240]);
        assert_eq!(after[10], 3600);
        assert_eq!(limits.backoff_after(u32::MAX).as_secs(), 3600);
        assert_ne!(Options::default().worker, Options::default().worker);
    }
}
