//! A job that runs here, as its thread and the engine share it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use strongroom_catalog::events::Severity;
use strongroom_catalog::jobs::{Beat, Lease, Progress};

/// Lines of a log that wait to be written; when there are more, the later ones are dropped and
/// counted.
const WAITING: usize = 1000;
/// Lines that one job may log, and the longest, in bytes.
const MAX_LINES: u64 = 10_000;
const MAX_LINE: usize = 4096;

/// Why a job is to stop. The first reason that counts more than what was before wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stop {
    No = 0,
    /// The process ends: the job goes on elsewhere, or later.
    Draining = 1,
    /// Somebody asked for it.
    Canceled = 2,
    /// The lease is lost: nothing of it counts any more.
    Lost = 3,
}

type Sampler = Box<dyn Fn() -> Progress + Send>;
type Hook = Box<dyn FnOnce() + Send>;

/// What the thread of a job and the engine share.
pub(crate) struct Live {
    pub(crate) lease: Lease,
    pub(crate) pool: Option<i64>,
    stop: AtomicU8,
    hooks: Mutex<Vec<Hook>>,
    sampler: Mutex<Option<Sampler>>,
    progress: Mutex<Progress>,
    /// What the catalogue knows.
    written: Mutex<Progress>,
    lines: Mutex<VecDeque<(Timestamp, Severity, String)>>,
    logged: AtomicU64,
    dropped: AtomicU64,
    told_of_drops: AtomicBool,
    /// When the lease was last made longer.
    beaten: Mutex<Instant>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Live({}, {:?})", self.lease.job, self.why_stop())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    pub(crate) fn new(lease: Lease, pool: Option<i64>) -> Self {
        Self {
            lease,
            pool,
            stop: AtomicU8::new(Stop::No as u8),
            hooks: Mutex::default(),
            sampler: Mutex::default(),
            progress: Mutex::default(),
            written: Mutex::default(),
            lines: Mutex::default(),
            logged: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            told_of_drops: AtomicBool::new(false),
            beaten: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn why_stop(&self) -> Stop {
        match self.stop.load(Ordering::Acquire) {
            0 => Stop::No,
            1 => Stop::Draining,
            2 => Stop::Canceled,
            _ => Stop::Lost,
        }
    }

    /// Asks the job to stop.
    pub(crate) fn stop(&self, why: Stop) {
        self.stop.fetch_max(why as u8, Ordering::AcqRel);
        let hooks = std::mem::take(&mut *lock(&self.hooks));
        hooks.into_iter().for_each(|hook| hook());
    }

    /// Calls this once the job is to stop; at once if it is already.
    pub(crate) fn on_stop(&self, hook: Hook) {
        lock(&self.hooks).push(hook);
        if self.why_stop() != Stop::No {
            self.stop(Stop::No);
        }
    }

    pub(crate) fn sample(&self, sampler: Sampler) {
        *lock(&self.sampler) = Some(sampler);
    }

    /// Ends sampling, with what it says last.
    pub(crate) fn end_sampling(&self) {
        let sampler = lock(&self.sampler).take();
        if let Some(sampler) = sampler {
            *lock(&self.progress) = sampler();
        }
    }

    pub(crate) fn set_progress(&self, progress: Progress) {
        *lock(&self.progress) = progress;
    }

    pub(crate) fn log(&self, level: Severity, text: &str) {
        let mut lines = lock(&self.lines);
        if lines.len() >= WAITING || self.logged.load(Ordering::Relaxed) >= MAX_LINES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.logged.fetch_add(1, Ordering::Relaxed);
        let mut end = text.len().min(MAX_LINE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        lines.push_back((Timestamp::now(), level, text[..end].to_owned()));
    }

    fn current(&self) -> Progress {
        let sampled = lock(&self.sampler).as_ref().map(|sampler| sampler());
        sampled.unwrap_or_else(|| lock(&self.progress).clone())
    }

    /// What is new, and what must be told after so long at the latest; None if there is nothing.
    pub(crate) fn news(&self, at_latest: std::time::Duration) -> Option<Beat> {
        let progress = Some(self.current()).filter(|new| *new != *lock(&self.written));
        let lines: Vec<_> = lock(&self.lines).drain(..).collect();
        let due = lock(&self.beaten).elapsed() >= at_latest;
        (due || progress.is_some() || !lines.is_empty()).then(|| Beat {
            lease: self.lease.clone(),
            progress,
            lines,
        })
    }

    /// The last of what is to be said.
    pub(crate) fn last(&self) -> Beat {
        self.end_sampling();
        let dropped = self.dropped.load(Ordering::Relaxed);
        let mut lines: Vec<_> = lock(&self.lines).drain(..).collect();
        if dropped > 0 && !self.told_of_drops.swap(true, Ordering::Relaxed) {
            let text = format!("{dropped} more lines were left out here");
            lines.push((Timestamp::now(), Severity::Warning, text));
        }
        Beat { lease: self.lease.clone(), progress: Some(self.current()), lines }
    }

    /// The catalogue has this.
    pub(crate) fn written(&self, beat: &Beat, at: Instant) {
        if let Some(progress) = &beat.progress {
            *lock(&self.written) = progress.clone();
        }
        *lock(&self.beaten) = at;
    }

    /// The catalogue could not be told; the lines wait for the next time.
    pub(crate) fn put_back(&self, beat: Beat) {
        let mut lines = lock(&self.lines);
        for line in beat.lines.into_iter().rev() {
            lines.push_front(line);
        }
    }

    /// How long it is since the lease was made longer.
    pub(crate) fn silent(&self) -> std::time::Duration {
        lock(&self.beaten).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn live() -> Live {
        Live::new(Lease { job: 1, worker: "w".into(), fence: 1 }, None)
    }

    #[test]
    fn who_asks_late_hears_of_the_stop_too() {
        let live = live();
        let count = Arc::new(AtomicU64::new(0));
        let hook = |count: &Arc<AtomicU64>| {
            let count = Arc::clone(count);
            Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            })
        };
        live.on_stop(hook(&count));
        assert_eq!(count.load(Ordering::Relaxed), 0);
        live.stop(Stop::Canceled);
        live.stop(Stop::Draining);
        assert_eq!((live.why_stop(), count.load(Ordering::Relaxed)), (Stop::Canceled, 1));
        live.on_stop(hook(&count));
        assert_eq!((live.why_stop(), count.load(Ordering::Relaxed)), (Stop::Canceled, 2));
    }

    #[test]
    fn only_news_are_told_and_logs_are_bounded() {
        let live = live();
        let long = Duration::from_secs(3600);
        assert!(live.news(long).is_none());
        assert!(live.news(Duration::ZERO).is_some());
        live.set_progress(Progress { bytes_done: 1, ..Progress::default() });
        let beat = live.news(long).expect("progress is news");
        live.written(&beat, Instant::now());
        assert!(live.news(long).is_none());
        for _ in 0..WAITING + 5 {
            live.log(Severity::Info, &"ü".repeat(MAX_LINE));
        }
        let beat = live.news(long).expect("lines are news");
        assert_eq!((beat.lines.len(), beat.lines[0].2.len()), (WAITING, MAX_LINE));
        live.put_back(beat);
        let last = live.last();
        assert_eq!(last.lines.len(), WAITING + 1);
        assert!(last.lines[WAITING].2.contains("5 more"));
    }
}
