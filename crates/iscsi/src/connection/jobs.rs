//! Commands that workers do, so that they can be aborted and waited for.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::link::WINDOW;

/// Those of one connection, by their task tags.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    present: Mutex<HashMap<u32, State>>,
    left: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Aborted,
    Answering,
}

impl Jobs {
    fn locked(&self) -> MutexGuard<'_, HashMap<u32, State>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task of that tag is there. One that is being answered isn't for the initiator, which may
    /// use the tag again as soon as it has the answer: it is waited for.
    pub(crate) fn has(&self, task: u32) -> bool {
        let is_leaving =
            |present: &mut HashMap<u32, State>| present.get(&task) == Some(&State::Answering);
        let waited = self.left.wait_while(self.locked(), is_leaving);
        waited.unwrap_or_else(PoisonError::into_inner).contains_key(&task)
    }

    /// As many as a connection may have: immediate commands come beside the window's.
    pub(crate) fn is_full(&self) -> bool {
        self.locked().len() >= 2 * WINDOW as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    pub(crate) fn begin(&self, task: u32) {
        self.locked().insert(task, State::Running);
    }

    /// It was done; whether it is to be answered. Then [`Jobs::end`] has to follow.
    pub(crate) fn answer(&self, task: u32) -> bool {
        match self.locked().get_mut(&task) {
            Some(state @ State::Running) => {
                *state = State::Answering;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn end(&self, task: u32) {
        self.locked().remove(&task);
        self.left.notify_all();
    }

    /// Has it end without an answer, and waits until it has; whether that could still be.
    pub(crate) fn abort(&self, task: u32) -> bool {
        let mut present = self.locked();
        let is_aborted = match present.get_mut(&task) {
            Some(state @ State::Running) => {
                *state = State::Aborted;
                true
            }
            _ => false,
        };
        let waited = self.left.wait_while(present, |present| present.contains_key(&task));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        is_aborted
    }

    /// Waits until there are none.
    pub(crate) fn wait(&self) {
        let waited = self.left.wait_while(self.locked(), |present| !present.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_free_once_its_answer_is_sent() {
        let jobs = Jobs::default();
        jobs.begin(7);
        assert!(jobs.has(7));
        assert!(jobs.answer(7));
        std::thread::scope(|scope| {
            // A thread takes longer to begin than it takes to ask here: that waits.
            scope.spawn(|| jobs.end(7));
            assert!(!jobs.has(7));
        });
        assert!(!jobs.has(7));
    }
}
