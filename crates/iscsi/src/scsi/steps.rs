//! Atomic writes beside commands that take several steps (SBC-4 4.29): neither sees half of the other, or
//! overwrites half of it.
//!
//! Nobody holds a lock meanwhile: who works on blocks is entered, and who comes later and is of the other
//! kind waits until it has left. So each waits only for those who came before.

use std::sync::{Condvar, Mutex, PoisonError};

use super::operation::Range;
use super::unit::locked;

/// Who works on which blocks of a unit. As many at most as there are threads that do commands.
#[derive(Debug, Default)]
pub(super) struct Steps {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    present: Vec<Entry>,
    last: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// In the order in which they came.
    number: u64,
    range: Range,
    is_atomic: bool,
}

impl Entry {
    fn is_before(&self, other: &Self) -> bool {
        let end = |range: Range| range.offset.saturating_add(range.length);
        self.number < other.number
            && self.is_atomic != other.is_atomic
            && self.range.length.min(other.range.length) > 0
            && self.range.offset < end(other.range)
            && other.range.offset < end(self.range)
    }
}

/// Somebody works on blocks for as long as this is there.
#[derive(Debug)]
pub struct Stepping<'a> {
    steps: &'a Steps,
    number: u64,
}

impl Steps {
    /// Enters one who writes these blocks as one, or works on them in several steps. It waits for those of the
    /// other kind who came before.
    /// One that was aborted doesn't wait: what it has still to do is not done.
    pub(super) fn enter(
        &self,
        range: Range,
        is_atomic: bool,
        is_aborted: impl Fn() -> bool,
    ) -> Stepping<'_> {
        let mut state = locked(&self.state);
        state.last += 1;
        let own = Entry { number: state.last, range, is_atomic };
        state.present.push(own);
        let is_held = |state: &mut State| {
            !is_aborted() && state.present.iter().any(|one| one.is_before(&own))
        };
        let waited = self.left.wait_while(state, is_held);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Stepping { steps: self, number: own.number }
    }

    /// Has those who wait look whether they were aborted.
    pub(super) fn wake(&self) {
        drop(locked(&self.state));
        self.left.notify_all();
    }
}

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.steps.state);
        state.present.retain(|one| one.number != self.number);
        drop(state);
        self.steps.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::mpsc::channel;

    fn range(offset: u64, length: u64) -> Range {
        Range { offset, length }
    }

    #[test]
    fn those_of_one_kind_and_of_other_blocks_do_not_wait() {
        let steps = Steps::default();
        let _reads =
            (steps.enter(range(0, 8), false, || false), steps.enter(range(4, 8), false, || false));
        let _beside = steps.enter(range(12, 8), true, || false);
        let _again = steps.enter(range(12, 1), true, || false);
        let _nothing = steps.enter(range(6, 0), true, || false);
    }

    #[test]
    fn who_is_of_the_other_kind_waits_for_those_before() {
        let steps = Steps::default();
        let (told, heard) = channel();
        std::thread::scope(|scope| {
            let read = steps.enter(range(0, 8), false, || false);
            let (steps, write_told) = (&steps, told.clone());
            scope.spawn(move || {
                let _write = steps.enter(range(7, 2), true, || false);
                write_told.send("write").unwrap();
            });
            // Once the write is entered, a read that comes later is behind it.
            while locked(&steps.state).present.len() < 2 {
                std::thread::yield_now();
            }
            scope.spawn(move || {
                let _later = steps.enter(range(8, 1), false, || false);
                told.send("read").unwrap();
            });
            while locked(&steps.state).present.len() < 3 {
                std::thread::yield_now();
            }
            assert!(heard.try_recv().is_err());
            drop(read);
        });
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["write", "read"]);
    }
}
