//! Threads for commands that would keep a connection waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits for more to do before it ends.
const IDLE: Duration = Duration::from_secs(30);

/// What is to be done.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// As many threads as there is work for, up to a limit. The windows of the sessions bound what waits.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

fn locked(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    pub(crate) fn new(most: usize) -> Self {
        let (state, work) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { state, work, most: most.max(1) }))
    }

    /// Has it done; here and now, when there is no thread for it.
    pub(crate) fn run(&self, job: Job) {
        let mut state = locked(&self.0);
        state.waiting.push_back(job);
        if state.idle >= state.waiting.len() || state.threads >= self.0.most {
            drop(state);
            self.0.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("iscsi worker".to_owned());
        if thread.spawn(move || work(&shared)).is_err() {
            let mut state = locked(&self.0);
            state.threads -= 1;
            let job = if state.threads == 0 { state.waiting.pop_back() } else { None };
            drop(state);
            job.into_iter().for_each(|job| job());
        }
    }
}

fn work(shared: &Shared) {
    let mut state = locked(shared);
    loop {
        if let Some(job) = state.waiting.pop_front() {
            drop(state);
            job();
            state = locked(shared);
            continue;
        }
        state.idle += 1;
        let waited = shared.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = waited.0;
        state.idle -= 1;
        if waited.1.timed_out() && state.waiting.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_given_is_done_by_few() {
        let workers = Workers::new(3);
        let done = Arc::new((Mutex::new(0), Condvar::new()));
        for _ in 0..100 {
            let done = Arc::clone(&done);
            workers.run(Box::new(move || {
                *done.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                done.1.notify_all();
            }));
        }
        let count = done.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = done.1.wait_while(count, |count| *count < 100);
        assert_eq!(*count.unwrap_or_else(PoisonError::into_inner), 100);
        assert!(locked(&workers.0).threads <= 3);
    }
}
