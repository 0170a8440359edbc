//! The threads: those that serve, of which there are only so many, and the one that looks after them.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::buffers::locked;
use crate::session::Session;

/// How long a thread without work stays.
const STAYS: Duration = Duration::from_secs(20);
/// How long a request may take before somebody else looks after its connection, at least.
const TICK: Duration = Duration::from_millis(2);
/// After so many looks at nothing the watch sleeps.
const QUIET: u32 = 20;

type Task = Box<dyn FnOnce() + Send>;

/// Threads that take tasks.
pub(crate) struct Crew {
    most: usize,
    state: Mutex<State>,
    work: Condvar,
    gone: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    idle: usize,
    threads: usize,
    stopped: bool,
}

impl Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Crew {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let (work, gone) = (Condvar::new(), Condvar::new());
        Arc::new(Self { most, state: Mutex::default(), work, gone })
    }

    /// Has a task done, unless there are too many.
    pub(crate) fn run(self: &Arc<Self>, task: impl FnOnce() + Send + 'static) -> bool {
        let mut state = locked(&self.state);
        if state.stopped {
            return false;
        }
        if state.idle > state.tasks.len() {
            state.tasks.push_back(Box::new(task));
            self.work.notify_one();
            return true;
        }
        if state.threads == self.most {
            return false;
        }
        state.threads += 1;
        drop(state);
        let of_thread = Arc::clone(self);
        let body = move || {
            // However a task ends, the thread is counted no more.
            let leaving = Leaving(of_thread);
            task();
            leaving.0.take_tasks();
        };
        let spawned = thread::Builder::new().name("nbd".to_owned()).spawn(body);
        if let Err(error) = &spawned {
            tracing::warn!(%error, "no thread for a connection");
            // The body was dropped with what leaves in it; it had not begun, and nothing counts it.
            locked(&self.state).threads -= 1;
        }
        spawned.is_ok()
    }

    fn take_tasks(&self) {
        let mut state = locked(&self.state);
        let mut until = Instant::now() + STAYS;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                task();
                state = locked(&self.state);
                until = Instant::now() + STAYS;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.stopped || left.is_zero() {
                return;
            }
            state.idle += 1;
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
    }

    /// Takes no more tasks, and waits for the threads to end; `false` when some have not by then.
    pub(crate) fn stop(&self, until: Instant) -> bool {
        let mut state = locked(&self.state);
        state.stopped = true;
        self.work.notify_all();
        while state.threads > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.gone.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

struct Leaving(Arc<Crew>);

impl Drop for Leaving {
    fn drop(&mut self) {
        locked(&self.0.state).threads -= 1;
        self.0.gone.notify_all();
    }
}

/// Finds connections whose threads are all held up by slow requests, while nobody reads others. It
/// sleeps while nothing is done.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    asleep: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
    sessions: Mutex<Vec<Weak<Session>>>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn start() -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let of_thread = Arc::clone(&watch);
        let name = "nbd-watch".to_owned();
        match thread::Builder::new().name(name).spawn(move || of_thread.look()) {
            Ok(thread) => drop(watch.thread.set(thread.thread().clone())),
            Err(error) => tracing::warn!(%error, "slow requests will hold up others"),
        }
        watch
    }

    pub(crate) fn add(&self, session: &Arc<Session>) {
        let mut sessions = locked(&self.sessions);
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    /// Something is done.
    pub(crate) fn stir(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        self.thread.get().inspect(|thread| thread.unpark());
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn is_active(&self) -> bool {
        let sessions: Vec<_> = locked(&self.sessions).iter().filter_map(Weak::upgrade).collect();
        sessions.iter().filter(|session| session.look()).count() > 0
    }

    fn look(&self) {
        let mut quiet = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            quiet = if self.is_active() { 0 } else { quiet + 1 };
            if quiet < QUIET {
                thread::park_timeout(TICK);
                continue;
            }
            // Who begins after this look sees that it is asleep; who began before is seen by it.
            self.asleep.store(true, Ordering::SeqCst);
            if !self.is_active() && !self.stopped.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
            quiet = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn there_are_no_more_threads_than_may_be() {
        let crew = Crew::new(2);
        let (go, wait) = mpsc::channel::<()>();
        let (told, seen) = mpsc::channel();
        let first = move || wait.recv().unwrap();
        assert!(crew.run(first));
        let of_task = told.clone();
        assert!(crew.run(move || of_task.send(thread::current().id()).unwrap()));
        let id = seen.recv().unwrap();
        // The second thread takes more, once it is idle; a third there isn't.
        while !crew.run({
            let told = told.clone();
            move || told.send(thread::current().id()).unwrap()
        }) {
            thread::yield_now();
        }
        assert_eq!(seen.recv().unwrap(), id);
        go.send(()).unwrap();
        assert!(crew.stop(Instant::now() + Duration::from_secs(60)));
        assert!(!crew.run(|| ()));
    }
}
