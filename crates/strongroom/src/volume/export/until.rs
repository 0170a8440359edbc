//! Waiting until somebody says stop.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::interrupt::Stop;

/// Waits until somebody says stop.
#[derive(Debug, Default)]
pub(super) struct Until {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop for Until {
    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

impl Until {
    /// Waits as long as it takes.
    pub(super) fn wait(&self) {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(stopped, |stopped| !*stopped));
    }

    /// Waits at most so long; whether somebody has said it.
    pub(super) fn wait_for(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
