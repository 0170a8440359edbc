//! What is known to be wrong with copies of segments.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::id::SegmentId;

/// A copy of a segment that must be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyDamage {
    /// Which segment.
    pub segment: SegmentId,
    /// The disk's place among the pool's disks.
    pub disk: usize,
    /// What was first found wrong with it.
    pub why: String,
}

/// Collects damage as it is found; shared by all segments of an index.
#[derive(Debug, Default)]
pub(super) struct DamageLog {
    copies: Mutex<BTreeMap<(SegmentId, usize), String>>,
    events: AtomicU64,
}

impl DamageLog {
    pub(super) fn add(&self, segment: SegmentId, disk: usize, why: &str) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.entry((segment, disk)).or_insert_with(|| why.to_owned());
    }

    /// Forgets all copies of a segment.
    pub(super) fn forget(&self, segment: SegmentId) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.retain(|(s, _), _| *s != segment);
    }

    pub(super) fn list(&self) -> Vec<CopyDamage> {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies
            .iter()
            .map(|((segment, disk), why)| CopyDamage {
                segment: *segment,
                disk: *disk,
                why: why.clone(),
            })
            .collect()
    }

    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

/// What makes an index that can't be used anew.
const REMEDY: &str = "run `pool repair --rebuild-index` to make the index from the packs";

/// The error for a segment that no copy can serve.
pub(super) fn damaged(segment: SegmentId, why: impl std::fmt::Display) -> Error {
    Error::damaged(format!("index segment {segment}"), format!("{why}; {REMEDY}"))
}

/// The error for a segment of which no copy can be read, though it may be whole.
pub(super) fn unreadable(segment: SegmentId, e: io::Error) -> Error {
    Error::io(format!("reading index segment {segment} (if it stays so {REMEDY})"), e)
}
