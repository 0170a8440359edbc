//! How full a pool may get: what is in logs must be settled one day, and that takes room first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use strongroom_engine::disk::Disk;

use crate::{Error, Result};

/// What every disk keeps for the pool itself, in bytes, or a fiftieth of a small one: the engine stores
/// nothing more from there on.
const RESERVE: u64 = 64 << 20;
/// What settling takes for nodes, an index segment and packs that are not full, in bytes.
const SLACK: u64 = 8 << 20;
/// What settling a chunk may take for nodes above it, in bytes.
const NODES: u64 = 20 << 10;
/// After so many bytes disks are asked again.
const STEP: u64 = 64 << 20;

/// What the logs of a pool's volumes owe, in bytes that settling them may take on a disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    owed: AtomicU64,
    /// What may be written before disks are asked again.
    allowed: AtomicI64,
}

impl Room {
    /// What settling may take on a disk, in bytes.
    pub(crate) fn owed(&self) -> u64 {
        self.owed.load(Ordering::Relaxed)
    }

    /// Refuses to write `bytes` in `chunks` when what is then in the logs couldn't be settled.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn admit<'d>(
        &self,
        disks: impl Iterator<Item = &'d dyn Disk>,
        bytes: u64,
        chunks: u64,
        chunk: u64,
    ) -> Result<()> {
        let takes = bytes.saturating_add(chunks.saturating_mul(chunk + NODES));
        let takes = i64::try_from(takes).unwrap_or(i64::MAX);
        let taken = self.allowed.fetch_sub(takes, Ordering::Relaxed);
        if taken >= takes {
            return Ok(());
        }
        let mut least = u64::MAX;
        for disk in disks {
            // A disk that can't tell will say so when it is written.
            let Ok(space) = disk.space() else { continue };
            let kept = RESERVE.min(space.total / 50) + SLACK.min(space.total / 100);
            let free = space.free.saturating_sub(kept).saturating_sub(self.owed());
            least = least.min(free);
        }
        if least < takes.unsigned_abs() {
            self.allowed.store(0, Ordering::Relaxed);
            return Err(Error::NoSpace);
        }
        let allowed = (least / 2).min(STEP);
        self.allowed.store(allowed as i64, Ordering::Relaxed);
        Ok(())
    }
}

/// The part of it that one layer owes.
#[derive(Debug)]
pub(crate) struct Owed {
    room: Arc<Room>,
    bytes: u64,
}

impl Owed {
    pub(crate) fn new(room: Arc<Room>) -> Self {
        Self { room, bytes: 0 }
    }

    /// So many chunks more.
    pub(crate) fn add(&mut self, chunk: u64, chunks: u64) {
        let bytes = chunks.saturating_mul(chunk + NODES);
        self.bytes = self.bytes.saturating_add(bytes);
        self.room.owed.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.room.owed.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
