//! What time it is. Tests set it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// A clock: the system's, or one that stands until it is moved.
#[derive(Clone, Default)]
pub struct Clock {
    /// Microseconds since 1970.
    set: Option<Arc<AtomicI64>>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.set.is_some() { "Clock(set)" } else { "Clock(system)" })
    }
}

impl Clock {
    /// One that shows this time until it is moved.
    pub fn standing(at: Timestamp) -> Self {
        Self { set: Some(Arc::new(AtomicI64::new(at.as_microsecond()))) }
    }

    /// The time, in whole microseconds.
    pub fn now(&self) -> Timestamp {
        let now = match &self.set {
            Some(set) => set.load(Ordering::Relaxed),
            None => Timestamp::now().as_microsecond(),
        };
        Timestamp::from_microsecond(now).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Moves a standing clock; the system's goes by itself.
    pub fn advance(&self, by: std::time::Duration) {
        if let Some(set) = &self.set {
            set.fetch_add(i64::try_from(by.as_micros()).unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// So long after a time; the end of times when that is past it.
pub(crate) fn after(at: Timestamp, by: std::time::Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
