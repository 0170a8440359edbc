//! Those who were let in lately, so that not every request asks the catalogue.
//!
//! A change of identity on this node ends all entries at once. On PostgreSQL another node may have
//! made one, so entries end after a second there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use strongroom_catalog::Engine;

use crate::clock::after;
use crate::principal::Principal;

const ENTRIES: usize = 8192;

/// The cache, by the hash of what was shown.
#[derive(Debug)]
pub(crate) struct Cache {
    life: Duration,
    generation: AtomicU64,
    entries: Mutex<HashMap<[u8; 32], Entry>>,
}

#[derive(Debug)]
struct Entry {
    principal: Principal,
    generation: u64,
    from: Timestamp,
    until: Timestamp,
}

impl Cache {
    pub(crate) fn new(engine: Engine) -> Self {
        let seconds = match engine {
            Engine::Sqlite => 10,
            Engine::Postgres => 1,
        };
        Self {
            life: Duration::from_secs(seconds),
            generation: AtomicU64::new(0),
            entries: Mutex::default(),
        }
    }

    /// Taken before the catalogue is asked: what was read before a change is not kept after it.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Ends all entries.
    pub(crate) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.entries().clear();
    }

    pub(crate) fn get(&self, hash: &[u8; 32], now: Timestamp) -> Option<Principal> {
        let generation = self.generation();
        let entries = self.entries();
        let entry = entries.get(hash)?;
        let holds = entry.generation == generation && (entry.from..entry.until).contains(&now);
        holds.then(|| entry.principal.clone())
    }

    /// Keeps one for a while, never longer than until this time.
    pub(crate) fn put(
        &self,
        hash: [u8; 32],
        principal: Principal,
        generation: u64,
        now: Timestamp,
        until: Option<Timestamp>,
    ) {
        let most = after(now, self.life);
        let until = until.map_or(most, |until| until.min(most));
        let mut entries = self.entries();
        if entries.len() >= ENTRIES {
            entries.retain(|_, entry| entry.until > now && entry.generation == generation);
            if entries.len() >= ENTRIES {
                entries.clear();
            }
        }
        entries.insert(hash, Entry { principal, generation, from: now, until });
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
