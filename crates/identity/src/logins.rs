//! How logins went, counted since the process began.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::AuthError;

/// How logins went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Let in.
    pub passed: u64,
    /// Not let in: a wrong name, password or code, or a user that is switched off.
    pub failed: u64,
    /// Told to wait, because too many had failed.
    pub blocked: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    passed: AtomicU64,
    failed: AtomicU64,
    blocked: AtomicU64,
}

impl Counters {
    /// Counts how a login went. One that lacks a code is not over, and one that found the catalogue
    /// or the directory gone is no login.
    pub(crate) fn count<T>(&self, outcome: &Result<T, AuthError>) {
        let counter = match outcome {
            Ok(_) => &self.passed,
            Err(AuthError::Blocked { .. }) => &self.blocked,
            Err(AuthError::SecondFactor | AuthError::Internal(_) | AuthError::Unreachable) => {
                return;
            }
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Logins {
        Logins {
            passed: self.passed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            blocked: self.blocked.load(Ordering::Relaxed),
        }
    }
}
