//! How much is sent at once: about as much as goes in a second. What breaks off is sent again, and
//! an answer that takes too long counts as none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes at once, at least and at most; the least at first.
const RANGE: (usize, usize) = (256 << 10, 4 << 20);
/// What is smaller tells nothing of the way's speed.
const TELLING: usize = RANGE.0 / 2;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pace(AtomicUsize);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicUsize::new(RANGE.0))
    }
}

impl Pace {
    /// How many bytes to send at once.
    pub(super) fn at_once(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes note of how long it took until so many bytes were sent and answered. One quick answer
    /// doubles what is sent at once, a slow one lowers it to what was seen.
    pub(super) fn went(&self, bytes: usize, took: Duration) {
        if bytes >= TELLING {
            let in_a_second = (bytes as f64 / took.as_secs_f64().max(1e-6)) as usize;
            let most = self.at_once().saturating_mul(2).min(RANGE.1);
            self.0.store(in_a_second.clamp(RANGE.0, most), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_lines_get_less_at_once() {
        let pace = Pace::default();
        assert_eq!(pace.at_once(), RANGE.0);
        pace.went(1000, Duration::ZERO);
        assert_eq!(pace.at_once(), RANGE.0);
        for at_once in [512 << 10, 1 << 20, 2 << 20, 4 << 20, 4 << 20] {
            pace.went(200 << 10, Duration::from_millis(20));
            assert_eq!(pace.at_once(), at_once);
        }
        pace.went(4 << 20, Duration::from_secs(4));
        assert_eq!(pace.at_once(), 1 << 20);
        pace.went(1 << 20, Duration::from_secs(40));
        assert_eq!(pace.at_once(), RANGE.0);
    }
}
