//! How far a backup has come, readable from any thread while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use strongroom_engine::pool::Stored;

use crate::image::Stats;

/// Counters of a running backup, and a flag to end it.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    dirs: AtomicU64,
    others: AtomicU64,
    bytes: AtomicU64,
    read: AtomicU64,
    unread: AtomicU64,
    reused: AtomicU64,
    reused_bytes: AtomicU64,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    healed: AtomicU64,
    troubles: AtomicU64,
    canceled: AtomicBool,
    path: Mutex<Vec<u8>>,
}

/// What [`Progress`] says at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files seen.
    pub files: u64,
    /// Directories done.
    pub dirs: u64,
    /// Links, FIFOs, devices and sockets seen.
    pub others: u64,
    /// Bytes of content of the files seen.
    pub bytes: u64,
    /// Bytes of content read so far, holes included.
    pub read: u64,
    /// Bytes of content of the files that must be read, as far as they were seen.
    pub unread: u64,
    /// Files taken over from the parent.
    pub reused: u64,
    /// Their bytes.
    pub reused_bytes: u64,
    /// Bytes the pool did not have.
    pub new_bytes: u64,
    /// What those take in packs.
    pub stored_bytes: u64,
    /// Chunks that the pool had lost and has again.
    pub healed: u64,
    /// Files and directories with trouble.
    pub troubles: u64,
    /// The directory that is being looked at.
    pub path: Vec<u8>,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Progress {
    /// Asks the backup to end soon; it then fails with `Canceled`.
    pub fn cancel(&self) {
        self.canceled.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed)
    }

    /// All counters now.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            files: get(&self.files),
            dirs: get(&self.dirs),
            others: get(&self.others),
            bytes: get(&self.bytes),
            read: get(&self.read),
            unread: get(&self.unread),
            reused: get(&self.reused),
            reused_bytes: get(&self.reused_bytes),
            new_bytes: get(&self.new_bytes),
            stored_bytes: get(&self.stored_bytes),
            healed: get(&self.healed),
            troubles: get(&self.troubles),
            path: self.path.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let counts = self.counts();
        Stats {
            files: counts.files,
            dirs: counts.dirs,
            others: counts.others,
            bytes: counts.bytes,
            new_bytes: counts.new_bytes,
            stored_bytes: counts.stored_bytes,
            reused: counts.reused,
            troubles: counts.troubles,
        }
    }

    pub(super) fn stored(&self, stored: &Stored) {
        add(&self.new_bytes, stored.new_bytes);
        add(&self.stored_bytes, stored.stored_bytes);
        add(&self.healed, stored.healed_chunks);
    }

    pub(super) fn at(&self, path: &[u8]) {
        let mut current = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        current.clear();
        current.extend_from_slice(path);
    }

    pub(super) fn read(&self, bytes: u64) {
        add(&self.read, bytes);
    }

    pub(super) fn add_file(&self, bytes: u64) {
        add(&self.files, 1);
        add(&self.bytes, bytes);
    }

    pub(super) fn add_unread(&self, bytes: u64) {
        add(&self.unread, bytes);
    }

    pub(super) fn add_reused(&self, bytes: u64) {
        add(&self.reused, 1);
        add(&self.reused_bytes, bytes);
    }

    pub(super) fn add_dir(&self) {
        add(&self.dirs, 1);
    }

    pub(super) fn add_other(&self) {
        add(&self.others, 1);
    }

    pub(super) fn add_trouble(&self) {
        add(&self.troubles, 1);
    }
}
