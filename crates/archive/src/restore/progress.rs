//! How far a restore has come, readable from any thread while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of a running restore, and a flag to end it.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) files: AtomicU64,
    pub(super) dirs: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) sockets: AtomicU64,
    pub(super) verified: AtomicU64,
    canceled: AtomicBool,
}

/// What [`Progress`] says at a moment, and a finished restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files restored, further names of a file included.
    pub files: u64,
    /// Directories restored.
    pub dirs: u64,
    /// Links, FIFOs and devices restored.
    pub others: u64,
    /// Bytes written; holes are not.
    pub bytes: u64,
    /// Files left as they were.
    pub skipped: u64,
    /// Sockets that were noted in the image; they are not made.
    pub sockets: u64,
    /// Files read back and found right.
    pub verified: u64,
}

impl Progress {
    /// Asks the restore to end soon; it then fails with `Canceled`.
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
            skipped: get(&self.skipped),
            sockets: get(&self.sockets),
            verified: get(&self.verified),
        }
    }

    pub(super) fn add(&self, counter: impl Fn(&Self) -> &AtomicU64, by: u64) {
        counter(self).fetch_add(by, Ordering::Relaxed);
    }
}
