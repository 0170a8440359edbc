//! About how many rows the tables have: enough to choose a way to find some of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a number is good enough. Tables don't grow manyfold in that time, and a number that
/// is wrong makes a list slower, not wrong.
const GOOD: Duration = Duration::from_secs(10);

/// What was known of each table, and when.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    tables: Mutex<HashMap<&'static str, (Instant, u64)>>,
}

impl Sizes {
    pub(crate) fn get(&self, table: &str) -> Option<u64> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.get(table).filter(|(when, _)| when.elapsed() < GOOD).map(|(_, rows)| *rows)
    }

    pub(crate) fn set(&self, table: &'static str, rows: u64) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(table, (Instant::now(), rows));
    }
}
