//! What is roughly known of the tables: enough to choose a way to find some of their rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::list::Sample;

/// How long what is known is good enough. Tables don't grow manyfold in that time, and what is
/// wrong makes a list slower, not wrong.
const GOOD: Duration = Duration::from_secs(30);

/// What was known of each table, and when.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    rows: Mutex<Known<u64>>,
    samples: Mutex<Known<Arc<Sample>>>,
}

type Known<T> = HashMap<&'static str, (Instant, T)>;

impl Sizes {
    /// About how many rows a table has.
    pub(crate) fn rows(&self, table: &str) -> Option<u64> {
        known(&locked(&self.rows), table)
    }

    pub(crate) fn set_rows(&self, table: &'static str, rows: u64) {
        locked(&self.rows).insert(table, (Instant::now(), rows));
    }

    /// What some rows say, for a table of trigrams.
    pub(crate) fn sample(&self, table: &str) -> Option<Arc<Sample>> {
        known(&locked(&self.samples), table)
    }

    pub(crate) fn set_sample(&self, table: &'static str, sample: Sample) -> Arc<Sample> {
        let sample = Arc::new(sample);
        locked(&self.samples).insert(table, (Instant::now(), Arc::clone(&sample)));
        sample
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn known<T: Clone>(all: &Known<T>, table: &str) -> Option<T> {
    all.get(table).filter(|(when, _)| when.elapsed() < GOOD).map(|(_, what)| what.clone())
}
