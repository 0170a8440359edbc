//! Who watches jobs, and what they are told.
//!
//! Changes come from the catalogue, whoever made them: as long as somebody watches, rows that
//! changed are read, at once after a change of this process and a few times a second for those of
//! others. A listener keeps one state a job: one that is slow misses states in between, never the
//! last. One for which too many jobs wait is let go, and told that it missed some.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::jobs::{self, Job};
use strongroom_catalog::{Catalog, Result};
use tokio::sync::Notify;

/// How often others' changes are looked for.
const INTERVAL: Duration = Duration::from_millis(400);
/// How soon after one look comes the next at the earliest.
const GAP: Duration = Duration::from_millis(50);
/// What changed so long before the last change is looked at again: a transaction that began
/// earlier may have ended later.
const OVERLAP: SignedDuration = SignedDuration::from_secs(5);
/// Jobs that are read at once.
const BATCH: u32 = 1000;
/// Jobs that may wait for one listener; one that is slower than that is let go. They are shared.
const WAITING: usize = 1000;
/// Jobs that one who was away is told of anew; when it is more, they were missed.
const REPLAYED: u32 = 1000;

/// Changes of jobs, as they come.
#[derive(Debug)]
pub struct Changes {
    listener: Arc<Listener>,
    over: bool,
    missed: bool,
}

impl Changes {
    /// Whether changes were missed, before the first that is given or because this listener was far
    /// too slow: what there is must be read anew. Asked once, it is forgotten.
    pub fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// The next state of a job that changed. None when there will be no more: the job that was
    /// watched is over, the engine was stopped, or this listener was far too slow.
    pub async fn next(&mut self) -> Option<Job> {
        if self.over {
            return None;
        }
        loop {
            let heard = self.listener.notify.notified();
            match self.listener.take() {
                Some(Some(job)) => {
                    let job = Arc::unwrap_or_clone(job);
                    self.over = self.listener.job.is_some() && job.state.is_over();
                    return Some(job);
                }
                Some(None) => heard.await,
                None => {
                    self.missed |= std::mem::take(&mut lock(&self.listener.waiting).slow);
                    return None;
                }
            }
        }
    }
}

#[derive(Debug)]
struct Listener {
    /// Only this one.
    job: Option<i64>,
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<i64>,
    jobs: HashMap<i64, Arc<Job>>,
    /// What was given last, of one job.
    given: Option<Arc<Job>>,
    closed: bool,
    /// It is closed because too many jobs waited.
    slow: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    /// The next job, if one waits; None when it is closed.
    fn take(&self) -> Option<Option<Arc<Job>>> {
        let mut waiting = lock(&self.waiting);
        match waiting.order.pop_front() {
            Some(id) => {
                let job = waiting.jobs.remove(&id);
                waiting.given.clone_from(&job);
                Some(job)
            }
            None if waiting.closed => None,
            None => Some(None),
        }
    }

    fn tell(&self, job: &Arc<Job>) {
        if self.job.is_some_and(|id| id != job.id) {
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.given.as_ref() == Some(job) {
            return;
        }
        match waiting.jobs.get(&job.id) {
            // What is read late may be older.
            Some(old) if old.changed_at > job.changed_at => return,
            Some(_) => {}
            None if waiting.order.len() >= WAITING => {
                (waiting.closed, waiting.slow) = (true, true);
            }
            None => waiting.order.push_back(job.id),
        }
        if !waiting.closed {
            waiting.jobs.insert(job.id, Arc::clone(job));
        }
        drop(waiting);
        self.notify.notify_one();
    }

    fn close(&self) {
        lock(&self.waiting).closed = true;
        self.notify.notify_one();
    }
}

/// All listeners of an engine.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    listeners: Mutex<Vec<Weak<Listener>>>,
    poke: Notify,
}

impl Hub {
    fn living(&self) -> Vec<Arc<Listener>> {
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.iter().filter_map(Weak::upgrade).collect()
    }

    /// Something changed.
    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }

    /// Watches one job, whose present state comes first.
    pub(crate) async fn listen(&self, catalog: &Catalog, id: i64) -> Result<Changes> {
        let listener = self.listener(Some(id));
        listener.tell(&Arc::new(jobs::find(catalog, id).await?));
        self.poke();
        Ok(Changes { listener, over: false, missed: false })
    }

    /// Watches all jobs, from now on, or for one who was away from that time on.
    pub(crate) async fn listen_all(
        &self,
        catalog: &Catalog,
        since: Option<Timestamp>,
    ) -> Result<Changes> {
        let listener = self.listener(None);
        let mut missed = false;
        if let Some(since) = since {
            let from = since.saturating_sub(OVERLAP).unwrap_or(Timestamp::UNIX_EPOCH);
            let changed = jobs::changed_since(catalog, from, REPLAYED).await?;
            missed = changed.len() >= REPLAYED as usize;
            if !missed {
                changed.into_iter().for_each(|job| listener.tell(&Arc::new(job)));
            }
        }
        self.poke();
        Ok(Changes { listener, over: false, missed })
    }

    fn listener(&self, job: Option<i64>) -> Arc<Listener> {
        let waiting = Mutex::default();
        let listener = Arc::new(Listener { job, waiting, notify: Notify::new() });
        lock(&self.listeners).push(Arc::downgrade(&listener));
        listener
    }

    /// Lets go of all listeners.
    pub(crate) fn close(&self) {
        self.living().iter().for_each(|listener| listener.close());
    }

    /// Reads changes and passes them on, for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>, catalog: Catalog) {
        let mut look = Look { since: None, told: HashMap::new() };
        loop {
            if self.living().is_empty() {
                // Who begins to listen pokes. What changed before then is not told.
                look.since = None;
                self.poke.notified().await;
            } else {
                let _ = tokio::time::timeout(INTERVAL, self.poke.notified()).await;
            }
            if let Err(error) = look.look(&self, &catalog).await {
                tracing::warn!("changes of jobs can't be read: {error}");
            }
            tokio::time::sleep(GAP).await;
        }
    }
}

/// Where the reading of changes is.
struct Look {
    since: Option<Timestamp>,
    /// What was told of late, and of which time.
    told: HashMap<i64, Timestamp>,
}

impl Look {
    async fn look(&mut self, hub: &Hub, catalog: &Catalog) -> Result<()> {
        let since = match self.since {
            Some(since) => since,
            None => {
                // What changed since somebody began to listen is within the overlap.
                self.told.clear();
                let last = jobs::last_change(catalog).await?;
                *self.since.insert(last.unwrap_or(Timestamp::UNIX_EPOCH))
            }
        };
        let mut from = since.saturating_sub(OVERLAP).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut limit = BATCH;
        let begin = from;
        loop {
            let changed = jobs::changed_since(catalog, from, limit).await?;
            let listeners = hub.living();
            let Some(last) = changed.last().map(|job| job.changed_at) else { break };
            let count = changed.len();
            for job in changed {
                if self.told.insert(job.id, job.changed_at) != Some(job.changed_at) {
                    let job = Arc::new(job);
                    listeners.iter().for_each(|listener| listener.tell(&job));
                }
            }
            self.since = self.since.max(Some(last));
            if count < limit as usize {
                break;
            }
            if last == from {
                limit = limit.saturating_mul(2);
            }
            from = last;
        }
        self.told.retain(|_, at| *at >= begin);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use strongroom_catalog::jobs::NewJob;
    use strongroom_catalog::{Sql, testing};

    use super::*;

    fn listener(job: Option<i64>) -> Arc<Listener> {
        let waiting = Mutex::default();
        Arc::new(Listener { job, waiting, notify: Notify::new() })
    }

    async fn a_job(catalog: &Catalog) -> Job {
        let sql = "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)";
        catalog.execute(Sql::new(sql)).await.unwrap();
        let new = NewJob { kind: "x".into(), organisation_id: 1, ..NewJob::default() };
        jobs::submit(catalog, new).await.unwrap()
    }

    #[tokio::test]
    async fn a_slow_listener_misses_states_but_never_the_last() {
        let fresh = testing::Fresh::new(strongroom_catalog::Engine::Sqlite).await;
        let mut job = a_job(&fresh.open().await).await;
        let slow = listener(None);
        let mut changes = Changes { listener: Arc::clone(&slow), over: false, missed: false };
        let begin = job.changed_at;
        for step in 1..=1000 {
            job.progress.bytes_done = step;
            job.changed_at = begin + SignedDuration::from_micros(step as i64);
            slow.tell(&Arc::new(job.clone()));
        }
        // What was read earlier and comes later doesn't count.
        slow.tell(&Arc::new(Job { changed_at: begin, ..job.clone() }));
        let other = Job { id: job.id + 1, ..job.clone() };
        slow.tell(&Arc::new(other.clone()));
        assert_eq!(changes.next().await, Some(job.clone()));
        assert_eq!(changes.next().await, Some(other.clone()));
        // One that is slow beyond measure is let go after what it has, and can ask anew.
        for id in 10..=10 + WAITING as i64 {
            slow.tell(&Arc::new(Job { id, ..job.clone() }));
        }
        for _ in 0..WAITING {
            assert!(changes.next().await.is_some());
        }
        assert!(!changes.take_missed());
        assert_eq!(changes.next().await, None);
        assert!(changes.take_missed() && !changes.take_missed());
        let one = listener(Some(other.id));
        let other = Arc::new(other);
        one.tell(&Arc::new(job));
        one.tell(&other);
        assert_eq!(one.take(), Some(Some(other)));
        assert_eq!(one.take(), Some(None));
        fresh.remove().await;
    }

    #[tokio::test]
    async fn changes_of_others_are_heard_of() {
        testing::each(|catalog| async move {
            let job = a_job(&catalog).await;
            let hub = Arc::new(Hub::default());
            let task = tokio::spawn(Arc::clone(&hub).run(catalog.clone()));
            let mut changes = hub.listen(&catalog, job.id).await.unwrap();
            assert_eq!(changes.next().await, Some(job.clone()));
            // Nobody pokes: as if another node had done it.
            jobs::cancel(&catalog, job.id).await.unwrap();
            let over = tokio::time::timeout(Duration::from_secs(30), changes.next()).await;
            assert!(over.unwrap().unwrap().state.is_over());
            assert_eq!(changes.next().await, None);
            assert!(hub.listen(&catalog, 999).await.is_err());

            // One who was away is told of what changed, or that it is too much.
            let canceled = jobs::find(&catalog, job.id).await.unwrap();
            let since = Some(canceled.changed_at);
            let mut back = hub.listen_all(&catalog, since).await.unwrap();
            assert_eq!((back.take_missed(), back.next().await), (false, Some(canceled)));
            let mut tx = catalog.begin().await.unwrap();
            for _ in 0..REPLAYED {
                let new = NewJob { kind: "x".into(), organisation_id: 1, ..NewJob::default() };
                jobs::submit_in(&mut tx, new).await.unwrap();
            }
            tx.commit().await.unwrap();
            assert!(hub.listen_all(&catalog, since).await.unwrap().take_missed());
            task.abort();
        })
        .await;
    }
}
