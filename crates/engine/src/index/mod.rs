//! Where every chunk of a pool lies.
//!
//! The index is a set of immutable, sorted *segments* on disk, and a [`Memtable`] of what is in no
//! segment yet. A segment costs memory only for its filter (12 bits per chunk) and its fences (the
//! first id of every 4 KiB page: 0.9 bits per chunk); a look-up tests the filters, and where one
//! says "maybe" reads one page. The bytes of a segment are described in the source of
//! `index/format.rs`, the filter's in `index/filter.rs`.
//!
//! Every disk of the pool has an identical copy of every segment. Every page of it is checksummed;
//! what one copy can't give is read from another and noted ([`Index::damage`]), and
//! [`Index::heal`] writes a copy again. Header, fences and filter follow from the entries, so only
//! a page of entries that is bad in all copies is a loss: [`Error::Damaged`] then says to rebuild
//! the index from the packs.
//!
//! An entry is a claim, not a fact: a segment may tell of packs that are gone, and several segments
//! may tell of several copies. So look-ups take a predicate `valid`, by which the pool says whether
//! its state has the pack and the copy is not known as bad; and whether the pack is one that this
//! process is writing, for the memtable's entries. Newer segments, and in one segment higher packs,
//! are asked first; that is a preference, nothing depends on it.
//!
//! Who changes the index does it in this order:
//!
//! | step | call | by |
//! |---|---|---|
//! | write the segment, file synced and renamed | [`Index::flush`], [`Index::merge`], [`Index::heal`] | here |
//! | sync the directory [`DIR`] of every disk | [`crate::disk::Disk::sync_dir`] | caller |
//! | commit `AddSegment` (and `DropSegment`s) | the journal | caller |
//! | use the new segments | [`Index::adopt_flush`], [`Index::replace`], [`Index::reopen`] | here |
//! | remove the files of dropped segments | [`remove`] | caller |
//!
//! One flush, merge or heal at a time each; look-ups and claims go on beside all of them.

mod cache;
mod damage;
mod filter;
mod format;
#[cfg(test)]
mod memdisk;
mod memtable;
mod merge;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::id::{ChunkId, Location, PackId, PoolId, SegmentId};
use crate::state::SegmentInfo;
use cache::PageCache;
pub use damage::CopyDamage;
use damage::{DamageLog, damaged};
pub use memtable::Memtable;
use memtable::{Begun, SHARDS};
pub use merge::MergedEntries;
use segment::{Segment, Walk};
pub use writer::{SegmentWriter, Written};

/// The directory of segments on every disk. It must exist before a segment is written.
pub const DIR: &str = "index";

/// A memtable with so many entries (about 12 MiB) should be flushed.
pub const FLUSH_AT: usize = 128 << 10;

/// How to open an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to load the filters (1.5 bytes of memory per chunk). Without them every look-up
    /// reads a page of every segment: right for restores, which look up few ids or many at once.
    pub with_filters: bool,
    /// How many pages of 4 KiB to keep in memory.
    pub cache_pages: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { with_filters: true, cache_pages: 1024 }
    }
}

/// The answer to [`Index::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The pool has it, here.
    Known(Location),
    /// Another caller in this process is storing it. It will be filled or abandoned; who relies on
    /// it must find it with [`Index::lookup`] before committing, and store it itself if it can't.
    InFlight,
    /// The caller must store it now, then call [`Memtable::fill`] or [`Memtable::abandon`].
    New,
}

/// Says whether an entry counts. Called without any lock of the index held.
pub type Valid<'v> = &'v dyn Fn(&ChunkId, &Location) -> bool;

/// Open segments, newest first.
type Snapshot = Arc<[Arc<Segment>]>;

/// See the module's text.
#[derive(Debug)]
pub struct Index {
    pool: PoolId,
    disks: Box<[Option<Arc<dyn Disk>>]>,
    options: Options,
    memtable: Memtable,
    segments: RwLock<Snapshot>,
    cache: PageCache,
    damage: Arc<DamageLog>,
}

impl Index {
    /// Opens the segments that the pool's state names. `disks` are the pool's disks in their order,
    /// `None` for those that are not there. Copies that are missing or bad are noted in
    /// [`Index::damage`].
    ///
    /// # Errors
    /// [`Error::Damaged`] when a segment can't be had from any disk, [`Error::Unsupported`] when
    /// one is of a newer version, [`Error::Io`] when all disks fail.
    pub fn open(
        disks: &[Option<Arc<dyn Disk>>],
        segments: &BTreeMap<SegmentId, SegmentInfo>,
        pool: PoolId,
        options: Options,
    ) -> Result<Self> {
        let index = Self {
            pool,
            disks: disks.into(),
            options,
            memtable: Memtable::default(),
            segments: RwLock::new(Arc::new([])),
            cache: PageCache::new(options.cache_pages),
            damage: Arc::default(),
        };
        let newest_first = segments.iter().rev();
        let open = newest_first.map(|(id, info)| index.open_segment(*id, info));
        *index.segments.write().unwrap_or_else(PoisonError::into_inner) =
            open.collect::<Result<_>>()?;
        Ok(index)
    }

    fn open_segment(&self, id: SegmentId, info: &SegmentInfo) -> Result<Arc<Segment>> {
        let with_filter = self.options.with_filters;
        Segment::open(&self.disks, self.pool, id, info, with_filter, &self.damage).map(Arc::new)
    }

    fn snapshot(&self) -> Snapshot {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is in no segment yet.
    pub fn memtable(&self) -> &Memtable {
        &self.memtable
    }

    /// The segments in use, with their entries, newest first.
    pub fn segments(&self) -> Vec<(SegmentId, u64)> {
        self.snapshot().iter().map(|s| (s.id, s.layout.entries)).collect()
    }

    /// Runs a read on the present set of segments; again when one that failed has been replaced
    /// meanwhile, for its files are then gone from the disks.
    fn on_segments<R>(&self, mut read: impl FnMut(&Snapshot) -> Result<R>) -> Result<R> {
        let mut snapshot = self.snapshot();
        loop {
            match read(&snapshot) {
                Err(e @ (Error::Damaged { .. } | Error::Io { .. })) => {
                    let now = self.snapshot();
                    if Arc::ptr_eq(&now, &snapshot) {
                        return Err(e);
                    }
                    snapshot = now;
                }
                result => return result,
            }
        }
    }

    /// The newest place of a chunk for which `valid` holds.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Io`] when a page that must be looked at can't be read.
    pub fn lookup(&self, id: &ChunkId, valid: Valid<'_>) -> Result<Option<Location>> {
        // The memtable first: entries move from there to segments, never back.
        if !self.memtable.is_empty() {
            let seen = self.memtable.look(id).locations;
            if let Some(at) = seen.into_iter().rev().find(|at| valid(id, at)) {
                return Ok(Some(at));
            }
        }
        self.lookup_stored(id, valid)
    }

    fn lookup_stored(&self, id: &ChunkId, valid: Valid<'_>) -> Result<Option<Location>> {
        let mut found = Vec::new();
        self.on_segments(|segments| {
            for segment in segments.iter().filter(|s| s.may_contain(id)) {
                found.clear();
                segment.find(id, &self.cache, &mut found)?;
                if let Some(at) = found.iter().rev().find(|at| valid(id, at)) {
                    return Ok(Some(*at));
                }
            }
            Ok(None)
        })
    }

    /// Whether [`Index::lookup`] finds a place.
    ///
    /// # Errors
    /// As for it.
    pub fn contains(&self, id: &ChunkId, valid: Valid<'_>) -> Result<bool> {
        Ok(self.lookup(id, valid)?.is_some())
    }

    /// All places that the index tells for a chunk, valid or not, each pack once, the newest first.
    ///
    /// # Errors
    /// As for [`Index::lookup`].
    pub fn lookup_all(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut seen = self.memtable.look(id).locations;
        seen.reverse();
        let stored = self.on_segments(|segments| {
            let mut stored = Vec::new();
            for segment in segments.iter().filter(|s| s.may_contain(id)) {
                let mut found = Vec::new();
                segment.find(id, &self.cache, &mut found)?;
                stored.extend(found.into_iter().rev());
            }
            Ok(stored)
        })?;
        let mut packs = BTreeSet::new();
        seen.extend(stored);
        seen.retain(|at| packs.insert(at.pack));
        Ok(seen)
    }

    /// Looks up many ids at once; the answers are in the order of `ids`. Ids should be sorted: then
    /// every page is read at most once, and in order. Takes 36 bytes of memory per id.
    ///
    /// # Errors
    /// As for [`Index::lookup`].
    pub fn lookup_many(&self, ids: &[ChunkId], valid: Valid<'_>) -> Result<Vec<Option<Location>>> {
        let mut answers = vec![None; ids.len()];
        if !self.memtable.is_empty() {
            for (id, answer) in ids.iter().zip(&mut answers) {
                let seen = self.memtable.look(id).locations;
                *answer = seen.into_iter().rev().find(|at| valid(id, at));
            }
        }
        let mut found = Vec::new();
        self.on_segments(|segments| {
            for segment in segments.iter() {
                let open = answers.iter().filter(|answer| answer.is_none()).count();
                if open == 0 {
                    break;
                }
                let mut walk = Walk::new(segment, open);
                let both = ids.iter().zip(&mut answers);
                let wanted = both.filter(|(id, a)| a.is_none() && segment.may_contain(id));
                for (id, answer) in wanted {
                    found.clear();
                    walk.find(id, &mut found)?;
                    *answer = found.iter().rev().find(|at| valid(id, at)).copied();
                }
            }
            Ok(())
        })?;
        Ok(answers)
    }

    /// Finds out whether a chunk must be stored and, if so, makes that the caller's task, in one
    /// step: of several callers at the same time just one is told [`Claim::New`].
    ///
    /// # Errors
    /// As for [`Index::lookup`].
    pub fn claim(&self, id: &ChunkId, valid: Valid<'_>) -> Result<Claim> {
        loop {
            let seen = self.memtable.look(id);
            if let Some(at) = seen.locations.iter().rev().find(|at| valid(id, at)) {
                return Ok(Claim::Known(*at));
            }
            if seen.in_flight {
                return Ok(Claim::InFlight);
            }
            if let Some(at) = self.lookup_stored(id, valid)? {
                return Ok(Claim::Known(at));
            }
            match self.memtable.begin(id, &seen) {
                Begun::Yes => return Ok(Claim::New),
                Begun::InFlight => return Ok(Claim::InFlight),
                Begun::Changed => {}
            }
        }
    }

    /// Writes the memtable's entries in packs for which `ready` holds (those that are durable) to a
    /// segment; nothing when there are none. They stay visible throughout. After the commit the
    /// caller calls [`Index::adopt_flush`]; after a failure, nothing: the next flush takes them too.
    /// `ready` must not call back, nor wait for anything.
    ///
    /// # Errors
    /// [`Error::Io`] when no disk takes the segment.
    pub fn flush(&self, id: SegmentId, ready: &dyn Fn(PackId) -> bool) -> Result<Option<Written>> {
        self.memtable.freeze(ready);
        let mut writer = None;
        for number in 0..SHARDS {
            for (chunk, at) in self.memtable.frozen(number) {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    none => none.insert(SegmentWriter::create(&self.disks, self.pool, id)?),
                };
                writer.push(&chunk, &at)?;
            }
        }
        writer.map_or(Ok(None), SegmentWriter::finish)
    }

    /// Takes a flushed segment, that is committed, in use, and lets go of the memtable's copies of
    /// its entries.
    ///
    /// # Errors
    /// Those of [`Index::open`]; the entries then stay in the memtable.
    pub fn adopt_flush(&self, id: SegmentId, info: &SegmentInfo) -> Result<()> {
        self.replace(&[], Some((id, info)))?;
        self.memtable.release();
        Ok(())
    }

    /// Which segments would best become one now, if any. Ask again after each merge.
    pub fn plan_merge(&self) -> Option<Vec<SegmentId>> {
        merge::plan(&self.segments())
    }

    /// Writes the entries of these segments for which `keep` holds to one new segment; nothing when
    /// none is left. `keep` must be false only for what is gone for good: packs that were dropped
    /// or never committed, not copies that are merely bad now. After the commit the caller calls
    /// [`Index::replace`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a segment that is not in use; those of reading and writing.
    pub fn merge(
        &self,
        from: &[SegmentId],
        to: SegmentId,
        keep: Valid<'_>,
    ) -> Result<Option<Written>> {
        let mut writer = SegmentWriter::create(&self.disks, self.pool, to)?;
        for entry in self.entries_of(from)? {
            let (id, at) = entry?;
            if keep(&id, &at) {
                writer.push(&id, &at)?;
            }
        }
        writer.finish()
    }

    /// Puts committed changes of the set of segments in use. Look-ups under way end on the old set.
    ///
    /// # Errors
    /// Those of [`Index::open`] for the new segment; the set is then unchanged.
    pub fn replace(
        &self,
        dropped: &[SegmentId],
        added: Option<(SegmentId, &SegmentInfo)>,
    ) -> Result<()> {
        let added = added.map(|(id, info)| self.open_segment(id, info)).transpose()?;
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let same = |s: &Arc<Segment>| added.as_ref().is_some_and(|added| added.id == s.id);
        let (gone, mut next): (Vec<_>, Vec<_>) =
            segments.iter().cloned().partition(|s| dropped.contains(&s.id) || same(s));
        next.extend(added);
        next.sort_by_key(|s| std::cmp::Reverse(s.id));
        let old = std::mem::replace(&mut *segments, next.into());
        drop(segments);
        for segment in &gone {
            segment.retired.store(true, Ordering::Relaxed);
        }
        for id in dropped {
            self.damage.forget(*id);
        }
        // The last reader of the old set closes its files: not under the lock.
        drop(old);
        Ok(())
    }

    /// All entries of all segments in order of id, then pack; entries that don't count included.
    /// The memtable's are not among them.
    pub fn entries(&self) -> MergedEntries {
        MergedEntries::new(self.snapshot().iter().cloned())
    }

    fn entries_of(&self, ids: &[SegmentId]) -> Result<MergedEntries> {
        let segments = self.snapshot();
        let chosen: Vec<_> = segments.iter().filter(|s| ids.contains(&s.id)).cloned().collect();
        if chosen.len() != ids.len() {
            return Err(Error::Invalid("an index segment to be read is not in use".to_owned()));
        }
        Ok(MergedEntries::new(chosen))
    }

    /// Copies that were found missing or bad and not healed since.
    pub fn damage(&self) -> Vec<CopyDamage> {
        self.damage.list()
    }

    /// How many times a copy could not give what it should, since the index was opened.
    pub fn faults(&self) -> u64 {
        self.damage.events()
    }

    /// Reads and checks every page of every copy of a segment. What is found is in
    /// [`Index::damage`]; gives the number of bad pages.
    pub fn scrub(&self, id: SegmentId) -> u64 {
        let segments = self.snapshot();
        segments.iter().find(|s| s.id == id).map_or(0, |segment| segment.scrub())
    }

    /// Writes the copy of a segment on one disk (by its place) again from what any copy still has.
    /// After syncing the directory the caller calls [`Index::reopen`].
    ///
    /// # Errors
    /// [`Error::Damaged`] when an entry page is bad in all copies, [`Error::Io`] when the disk does
    /// not take it, [`Error::Invalid`] when there is no such segment or disk.
    pub fn heal(&self, id: SegmentId, disk: usize) -> Result<()> {
        let absent = || Error::Invalid(format!("disk {disk} is not there to write to"));
        let target = self.disks.get(disk).and_then(Option::as_ref).ok_or_else(absent)?;
        let mut writer = SegmentWriter::create(&[Some(Arc::clone(target))], self.pool, id)?;
        let mut left = self.entries_in(id).unwrap_or_default();
        for entry in self.entries_of(&[id])? {
            let (id, at) = entry?;
            writer.push(&id, &at)?;
            left = left.saturating_sub(1);
        }
        if left > 0 {
            return Err(damaged(id, "it has an entry twice"));
        }
        writer.finish().map(drop)
    }

    fn entries_in(&self, id: SegmentId) -> Option<u64> {
        self.snapshot().iter().find(|s| s.id == id).map(|s| s.layout.entries)
    }

    /// Opens a segment anew after its copies were healed, so that they are read.
    ///
    /// # Errors
    /// Those of [`Index::open`]; the old one then stays in use.
    pub fn reopen(&self, id: SegmentId) -> Result<()> {
        let Some(entries) = self.entries_in(id) else { return Ok(()) };
        let layout = format::Layout::of(entries).expect("an open segment has a layout");
        self.damage.forget(id);
        self.replace(&[], Some((id, &SegmentInfo { entries, len: layout.len() })))
    }
}

/// Removes the file of a dropped segment; one that is not there is no error.
///
/// # Errors
/// Those of the disk.
pub fn remove(disk: &dyn Disk, id: SegmentId) -> io::Result<()> {
    match disk.remove(&writer::path(id)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Removes all files in [`DIR`] that are no segment in use: left-overs of a crash. Nobody may be
/// writing a segment. Gives the number of files removed.
///
/// # Errors
/// Those of the disk.
pub fn sweep(disk: &dyn Disk, used: &BTreeMap<SegmentId, SegmentInfo>) -> io::Result<usize> {
    let names: BTreeSet<String> = used.keys().map(ToString::to_string).collect();
    let mut removed = 0;
    for entry in disk.list(DIR)? {
        if !entry.is_dir && !names.contains(&entry.name) {
            disk.remove(&format!("{DIR}/{}", entry.name))?;
            removed += 1;
        }
    }
    Ok(removed)
}
