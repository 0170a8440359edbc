//! What is roughly known of the tables: enough to choose a way to find some of their rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::list::Frequencies;

/// How long what is known is good enough. Tables don't grow manyfold in that time, and what is
/// wrong makes a list slower, not wrong.
const GOOD: Duration = Duration::from_secs(10);

/// What was known of each table, and when.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    rows: Mutex<Known<u64>>,
    frequencies: Mutex<Known<Arc<Frequencies>>>,
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

    /// How often trigrams are in the rows behind a table of them.
    pub(crate) fn frequencies(&self, table: &str) -> Option<Arc<Frequencies>> {
        known(&locked(&self.frequencies), table)
    }

    pub(crate) fn set_frequencies(
        &self,
        table: &'static str,
        found: Frequencies,
    ) -> Arc<Frequencies> {
        let found = Arc::new(found);
        locked(&self.frequencies).insert(table, (Instant::now(), Arc::clone(&found)));
        found
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn known<T: Clone>(all: &Known<T>, table: &str) -> Option<T> {
    all.get(table).filter(|(when, _)| when.elapsed() < GOOD).map(|(_, what)| what.clone())
}
