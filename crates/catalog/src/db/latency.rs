//! How long the database takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds, in seconds; what takes longer is behind the last.
pub const BOUNDS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0];

/// How long something took, counted.
#[derive(Debug, Default)]
pub struct Latency {
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Latency {
    pub(crate) fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How often it took no longer than each of [`BOUNDS`] and longer than the one before; at the
    /// end, longer than all.
    pub fn counts(&self) -> [u64; BOUNDS.len() + 1] {
        std::array::from_fn(|place| self.counts[place].load(Ordering::Relaxed))
    }

    /// Seconds in all.
    pub fn seconds(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// Of statements that read, and of transactions that write, from asking for one to its end.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Statements that read.
    pub reads: Latency,
    /// Transactions that write.
    pub writes: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_counted_once_where_it_belongs() {
        let latency = Latency::default();
        for millis in [0, 1, 3, 20_000] {
            latency.took(Duration::from_millis(millis));
        }
        assert_eq!(latency.counts(), [1, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert!((latency.seconds() - 20.004).abs() < 1e-6);
    }
}
