//! How full a pool may get: what is in logs must be settled one day, and that takes room first; and what is
//! set aside for volumes that are fully reserved.
//!
//! For such a volume as much room is set aside as what it has no chunks for yet may take; all of it while it has
//! snapshots, since whatever is written then takes new room. What is overwritten takes new
//! room too, and gives the old one back with the next collection: for that a little more is set aside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use strongroom_engine::disk::Disk;
use strongroom_engine::pool::Pool;

use super::top::Meta;
use super::{VolumeId, locked};
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
/// What a chunk that is set aside for takes in nodes, an index and a directory, in bytes.
const PLACE: u64 = 128;
/// What may be overwritten before garbage is collected, in bytes, or the whole of a smaller volume.
const OVERWRITTEN: u64 = 64 << 20;

/// What the logs of a pool's volumes owe, in bytes that settling them may take on a disk, and what is set aside.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pool: Option<Arc<Pool>>,
    /// How long a log gets, in bytes.
    log: u64,
    owed: AtomicU64,
    /// What of that is on the disk already: of settlings that aren't over.
    turned: AtomicU64,
    /// What was free when disks were last asked, with what is owed; nothing before.
    last_free: AtomicU64,
    /// What may be written before disks are asked again.
    allowed: AtomicI64,
    /// On each disk, in bytes.
    aside: Mutex<HashMap<VolumeId, u64>>,
}

impl Room {
    pub(crate) fn new(pool: &Arc<Pool>, log: u64) -> Self {
        Self { pool: Some(Arc::clone(pool)), log, ..Self::default() }
    }

    /// What settling may take on a disk, in bytes.
    pub(crate) fn owed(&self) -> u64 {
        self.owed.load(Ordering::Relaxed).saturating_sub(self.turned.load(Ordering::Relaxed))
    }

    /// What is set aside on a disk, but for one volume's part, in bytes.
    fn aside(&self, but: VolumeId) -> u64 {
        let aside = locked(&self.aside);
        aside.iter().filter(|(id, _)| **id != but).map(|(_, bytes)| *bytes).sum()
    }

    /// What is free on the fullest disk beside all that is kept, owed and set aside for other volumes.
    fn free<'d>(&self, disks: impl Iterator<Item = &'d dyn Disk>, but: VolumeId) -> u64 {
        let taken = self.owed().saturating_add(self.aside(but));
        let mut least = u64::MAX;
        for disk in disks {
            // A disk that can't tell will say so when it is written.
            let Ok(space) = disk.space() else { continue };
            let kept = RESERVE.min(space.total / 50) + SLACK.min(space.total / 100);
            least = least.min(space.free.saturating_sub(kept).saturating_sub(taken));
        }
        least
    }

    /// How much of `whole` is used up when what is owed is seen as a part of what is free: logs that are short
    /// may owe much.
    pub(crate) fn used(&self, whole: u64) -> u64 {
        let free = self.last_free.load(Ordering::Relaxed);
        if free == 0 {
            return 0;
        }
        let used = u128::from(whole) * u128::from(self.owed()) / u128::from(free);
        u64::try_from(used).unwrap_or(u64::MAX).min(whole)
    }

    fn free_of_pool(&self, but: VolumeId) -> u64 {
        let disks = self.pool.iter().flat_map(|pool| pool.disks().iter().flatten());
        self.free(disks.map(|disk| -> &dyn Disk { &**disk }), but)
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
        reserve: &Reserve,
    ) -> Result<()> {
        let takes = bytes.saturating_add(chunks.saturating_mul(chunk + NODES));
        let takes = i64::try_from(takes).unwrap_or(i64::MAX);
        // Who may take of what is set aside is allowed more than others.
        let allowed = if reserve.is_on() { &reserve.allowed } else { &self.allowed };
        if allowed.fetch_sub(takes, Ordering::Relaxed) >= takes {
            return Ok(());
        }
        let least = self.free(disks, reserve.id);
        self.last_free.store(least.saturating_add(self.owed()), Ordering::Relaxed);
        if least < takes.unsigned_abs() {
            allowed.store(0, Ordering::Relaxed);
            return Err(Error::NoSpace);
        }
        allowed.store((least / 2).min(STEP) as i64, Ordering::Relaxed);
        Ok(())
    }

    /// What is set aside on each disk for so many bytes of a volume.
    fn takes(&self, bytes: u64, size: u64, chunk: u32) -> u64 {
        let shards = self.pool.as_ref().map_or(1, |pool| pool.superblock().data_shards);
        let bytes = bytes.saturating_add(OVERWRITTEN.min(size));
        let places = (bytes / u64::from(chunk) + 1).saturating_mul(PLACE);
        bytes.div_ceil(u64::from(shards.max(1))) + places + self.log.min(size)
    }

    fn set(&self, id: VolumeId, bytes: Option<u64>) {
        let mut aside = locked(&self.aside);
        match bytes {
            Some(bytes) => aside.insert(id, bytes),
            None => aside.remove(&id),
        };
        self.allowed.store(0, Ordering::Relaxed);
        // In turns, so that the last sum is the one that counts.
        if let Some(pool) = &self.pool {
            pool.set_aside(aside.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes)));
        }
    }

    /// Sets aside what the pool's words of a volume ask for.
    pub(crate) fn reserve(&self, meta: &Meta) {
        let takes = self.takes(meta.reserve, meta.size, meta.chunk);
        self.set(meta.volume, (!meta.settings.thin).then_some(takes));
    }

    /// Nothing is set aside for a volume any more.
    pub(crate) fn release(&self, id: VolumeId) {
        self.set(id, None);
    }

    /// Refuses to set aside what isn't there.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn admit_reserve(&self, meta: &Meta) -> Result<()> {
        let takes = self.takes(meta.reserve, meta.size, meta.chunk);
        match meta.settings.thin || self.free_of_pool(meta.volume) >= takes {
            true => Ok(()),
            false => Err(Error::NoSpace),
        }
    }
}

/// What is set aside for one volume that is open.
#[derive(Debug)]
pub(crate) struct Reserve {
    room: Arc<Room>,
    id: VolumeId,
    chunk: u32,
    /// For how many bytes, and the size, both as settled; `None` of a thin volume.
    settled: Mutex<Option<(u64, u64)>>,
    /// What may be written before disks are asked again.
    allowed: AtomicI64,
}

impl Reserve {
    pub(crate) fn new(room: &Arc<Room>, meta: &Meta) -> Self {
        let Meta { volume, chunk, .. } = *meta;
        let settled = (!meta.settings.thin).then_some((meta.reserve, meta.size));
        let (room, settled) = (Arc::clone(room), Mutex::new(settled));
        Self { room, id: volume, chunk, settled, allowed: AtomicI64::default() }
    }

    /// Whether the volume isn't thin.
    pub(crate) fn is_on(&self) -> bool {
        locked(&self.settled).is_some()
    }

    /// It was settled, or set anew.
    pub(crate) fn set(&self, meta: &Meta) {
        *locked(&self.settled) = (!meta.settings.thin).then_some((meta.reserve, meta.size));
        self.allowed.store(0, Ordering::Relaxed);
    }

    fn takes(&self, size: u64, has_snapshots: bool) -> Option<u64> {
        let (reserve, settled) = (*locked(&self.settled))?;
        let bytes = match has_snapshots {
            true => size,
            false => reserve.saturating_add(size.saturating_sub(settled)),
        };
        Some(self.room.takes(bytes, size, self.chunk))
    }

    /// Sets aside what the volume needs with this size.
    pub(crate) fn again(&self, size: u64, has_snapshots: bool) {
        if let Some(takes) = self.takes(size, has_snapshots) {
            self.room.set(self.id, Some(takes));
        }
    }

    /// Refuses what would need more room than there is.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn admit(&self, size: u64, has_snapshots: bool) -> Result<()> {
        match self.takes(size, has_snapshots) {
            Some(takes) if self.room.free_of_pool(self.id) < takes => Err(Error::NoSpace),
            _ => Ok(()),
        }
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

/// What one settling has turned from owed to stored, until it is over: then its layers owe nothing.
#[derive(Debug)]
pub(crate) struct Turned {
    room: Arc<Room>,
    bytes: AtomicU64,
}

impl Turned {
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), bytes: AtomicU64::new(0) }
    }

    /// So many chunks more.
    pub(crate) fn add(&self, chunk: u64, chunks: u64) {
        let bytes = chunks.saturating_mul(chunk + NODES);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.room.turned.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Turned {
    fn drop(&mut self) {
        self.room.turned.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.room.owed.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
