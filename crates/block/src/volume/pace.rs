//! How fast a log may grow while it is settled: so that those who write wait a little each, and not one of
//! them until all is settled.
//!
//! While a log that is more than half full is settled, what comes may take of the room that is left as much
//! as settling has got ahead.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::locked;

/// The longest that one write waits here. Behind that the log is full, and it waits for its end.
const LONGEST: Duration = Duration::from_millis(25);
/// Bytes that may always come.
const SLACK: u64 = 256 << 10;

#[derive(Debug, Default)]
struct State {
    /// What the log had when settling began, in bytes; nothing when nobody settles.
    began: Option<u64>,
    /// Bytes of chunks that are to be looked at, and were.
    all: u64,
    done: u64,
}

/// The pace of one volume.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    state: Mutex<State>,
    moved: Condvar,
}

impl Pace {
    /// Settling begins with so many bytes in the log, for so many bytes of chunks.
    pub(crate) fn begin(&self, log: u64, all: u64) {
        *locked(&self.state) = State { began: Some(log), all, done: 0 };
    }

    /// So many bytes of chunks are done.
    pub(crate) fn step(&self, bytes: u64) {
        locked(&self.state).done += bytes;
        self.moved.notify_all();
    }

    /// Settling ended, well or not.
    pub(crate) fn end(&self) {
        *locked(&self.state) = State::default();
        self.moved.notify_all();
    }

    /// Waits until a log with `log()` bytes may grow, but not long. `limit` is when it is full.
    pub(crate) fn keep(&self, limit: u64, log: &dyn Fn() -> u64) {
        if log() <= limit / 2 {
            return;
        }
        let until = Instant::now() + LONGEST;
        let mut state = locked(&self.state);
        while let Some(began) = state.began
            && log() > allowed(&state, began, limit)
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Up to where a log may grow.
fn allowed(state: &State, began: u64, limit: u64) -> u64 {
    let room = limit.saturating_sub(began.max(limit / 2));
    let share = u128::from(room) * u128::from(state.done) / u128::from(state.all.max(1));
    began.max(limit / 2) + SLACK + u64::try_from(share).unwrap_or(u64::MAX).min(room)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_comes_takes_as_much_of_the_room_as_settling_has_done() {
        let state = |done| State { began: Some(600 << 20), all: 1000, done };
        let limit = 1000 << 20;
        assert_eq!(allowed(&state(0), 600 << 20, limit), (600 << 20) + SLACK);
        assert_eq!(allowed(&state(500), 600 << 20, limit), (800 << 20) + SLACK);
        assert_eq!(allowed(&state(5000), 600 << 20, limit), limit + SLACK);
        assert_eq!(allowed(&state(0), 100 << 20, limit), (500 << 20) + SLACK);
    }

    #[test]
    fn nobody_waits_while_nobody_settles_or_the_log_is_short() {
        let pace = Pace::default();
        pace.keep(100, &|| 1 << 40);
        pace.begin(0, 100);
        pace.keep(1 << 41, &|| 1 << 40);
    }

    #[test]
    fn who_waits_goes_on_with_the_settling_or_after_a_while() {
        let pace = Pace::default();
        let (limit, log) = (100 << 20, AtomicU64::new(70 << 20));
        pace.begin(60 << 20, 100);
        let begun = Instant::now();
        pace.keep(limit, &|| log.load(Ordering::Relaxed));
        assert!(begun.elapsed() >= LONGEST);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pace.step(50);
                pace.end();
            });
            pace.keep(limit, &|| log.load(Ordering::Relaxed));
        });
    }
}
