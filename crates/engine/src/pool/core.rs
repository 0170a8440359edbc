//! What all parts of an open pool share, and the one way in which its state changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::clock::{Clock, ClockMark, PoolTime};
use crate::disk::{Disk, is_dead};
use crate::error::{Error, Result};
use crate::id::{ChunkId, Location, PackId, PoolId, SegmentId};
use crate::index::{self, CopyDamage, Index, Written};
use crate::journal::{Journal, Lost};
use crate::keys::{Keyring, Master};
use crate::pack::Sealed;
use crate::pool::aside::Aside;
use crate::pool::garbage::Garbage;
use crate::pool::mend::Found;
use crate::pool::pins::Pins;
use crate::seal::ChunkHasher;
use crate::shard::{self, Shape};
use crate::state::{Op, State};
use crate::superblock::Superblock;

/// How many numbers of packs and segments are set aside at once. Numbers that were set aside by a
/// process that crashed are never used, so a disk that comes back can't hold another pack of the
/// same number.
const NUMBERS: u64 = 1 << 16;

/// What every disk keeps free for collecting garbage, in bytes, or a fiftieth of a small one.
pub(super) const RESERVE: u64 = 64 << 20;

/// Locks, and goes on after a panic elsewhere: what is guarded here is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that one thread at a time takes away, works with, and puts back. Nobody holds a lock
/// meanwhile.
#[derive(Debug)]
struct Turn<T> {
    slot: Mutex<Option<T>>,
    back: Condvar,
}

impl<T> Turn<T> {
    fn new(value: T) -> Self {
        Self { slot: Mutex::new(Some(value)), back: Condvar::new() }
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let mut slot = lock(&self.slot);
        let mut value = loop {
            match slot.take() {
                Some(value) => break value,
                None => slot = self.back.wait(slot).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(slot);
        let result = work(&mut value);
        *lock(&self.slot) = Some(value);
        self.back.notify_one();
        result
    }
}

/// The numbers that may be given out.
#[derive(Debug)]
struct Numbers {
    pack: u64,
    pack_end: u64,
    segment: u64,
    segment_end: u64,
}

/// What may change the pool; there is none in a process that only reads.
#[derive(Debug)]
pub(crate) struct Journaling {
    turn: Turn<Journal>,
    /// Held while packs are flushed into the state, so that flushes come one after the other.
    flushing: Turn<()>,
    numbers: Mutex<Numbers>,
    /// Packs that were sealed and are not in the state yet.
    sealed: Mutex<Vec<Sealed>>,
}

/// How packs are cut into shards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) data: Shape,
    /// Nodes are copied to every disk.
    pub(crate) nodes: Shape,
}

/// What all parts of an open pool share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) superblock: RwLock<Superblock>,
    pub(crate) keyring: RwLock<Keyring>,
    /// In an encrypted pool, the slot that was opened and the master key in it.
    pub(crate) master: Option<(u32, Master)>,
    pub(crate) id: PoolId,
    pub(crate) layout: Layout,
    /// A pack of data is closed once it has this many bytes.
    pub(crate) pack_size: u32,
    /// The zstd level of new frames.
    pub(crate) level: i32,
    pub(crate) hasher: ChunkHasher,
    /// The disks in the order of the layout; `None` for those that are missing or out of date.
    pub(crate) disks: Vec<Option<Arc<dyn Disk>>>,
    pub(crate) index: Index,
    pub(crate) pins: Pins,
    pub(crate) clock: Arc<dyn Clock>,
    state: RwLock<State>,
    /// Packs of this process that are not in the state yet.
    fresh: RwLock<BTreeSet<PackId>>,
    journaling: Option<Journaling>,
    stopped: Mutex<Option<String>>,
    notices: Mutex<Vec<String>>,
    /// What reading found bad that isn't put right yet.
    pub(crate) found: Mutex<Found>,
    pub(crate) canceled: AtomicBool,
    /// Whether a collection is at work: it may use the last of the room.
    pub(crate) collecting: AtomicBool,
    /// What sessions leave alone unless they may take it.
    pub(crate) aside: Aside,
    /// What may have become garbage, and what was collected.
    pub(crate) garbage: Garbage,
}

/// What [`Core::new`] is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) superblock: Superblock,
    pub(crate) keyring: Keyring,
    pub(crate) master: Option<(u32, Master)>,
    pub(crate) disks: Vec<Option<Arc<dyn Disk>>>,
    pub(crate) index: Index,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: State,
    /// For writing only.
    pub(crate) journal: Option<Journal>,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let Parts { superblock, keyring, master, disks, index, clock, state, journal } = parts;
        let (data, parity) = (superblock.data_shards, superblock.parity_shards);
        let layout =
            Layout { data: Shape::new(data, parity)?, nodes: Shape::new(1, data + parity - 1)? };
        let numbers = Numbers {
            pack: state.next_pack.0,
            pack_end: state.next_pack.0,
            segment: state.next_segment.0,
            segment_end: state.next_segment.0,
        };
        Ok(Self {
            id: superblock.pool,
            layout,
            pack_size: superblock.pack_size,
            level: superblock.compression_level,
            hasher: keyring.hasher(),
            superblock: RwLock::new(superblock),
            keyring: RwLock::new(keyring),
            master,
            disks,
            index,
            pins: Pins::default(),
            clock,
            state: RwLock::new(state),
            fresh: RwLock::default(),
            journaling: journal.map(|journal| Journaling {
                turn: Turn::new(journal),
                flushing: Turn::new(()),
                numbers: Mutex::new(numbers),
                sealed: Mutex::default(),
            }),
            stopped: Mutex::default(),
            notices: Mutex::default(),
            found: Mutex::default(),
            canceled: AtomicBool::new(false),
            collecting: AtomicBool::new(false),
            aside: Aside::default(),
            garbage: Garbage::default(),
        })
    }

    /// What the disks' superblocks say.
    pub(crate) fn superblock(&self) -> RwLockReadGuard<'_, Superblock> {
        self.superblock.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool's keys.
    pub(crate) fn keyring(&self) -> RwLockReadGuard<'_, Keyring> {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to look at briefly.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process may write.
    pub(crate) fn writable(&self) -> Result<&Journaling> {
        if let Some(why) = lock(&self.stopped).clone() {
            return Err(Error::Stopped { why });
        }
        self.journaling.as_ref().ok_or_else(|| Error::ReadOnly {
            why: "it was opened without the writer's lock".into(),
        })
    }

    /// Ends all writing of this process: what is on disk stays as the last commit left it.
    pub(crate) fn stop(&self, why: &dyn std::fmt::Display) {
        lock(&self.stopped).get_or_insert_with(|| why.to_string());
    }

    /// Something the user should hear of, though it went well.
    pub(crate) fn notice(&self, text: impl Into<String>) {
        let mut notices = lock(&self.notices);
        if notices.len() < 1000 {
            notices.push(text.into());
        }
    }

    /// Takes what [`Core::notice`] collected.
    pub(crate) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notices))
    }

    /// An error when the caller asked to stop.
    pub(crate) fn check_canceled(&self) -> Result<()> {
        if self.canceled.load(Ordering::Relaxed) { Err(Error::Canceled) } else { Ok(()) }
    }

    /// The pool's own clock, now.
    pub(crate) fn now(&self) -> ClockMark {
        ClockMark::now(Some(&self.state().clock), &*self.clock).0
    }

    /// The pool's own time, now.
    pub(crate) fn time(&self) -> PoolTime {
        self.now().time
    }

    /// Whether an index entry counts: its pack is part of the pool, and the copy isn't known bad.
    pub(crate) fn valid(&self, id: &ChunkId, at: &Location) -> bool {
        let by_state = || {
            let state = self.state();
            let is_bad = || !state.bad.is_empty() && state.bad.contains(&(*id, at.pack));
            state.packs.contains_key(&at.pack).then(|| !is_bad())
        };
        // A pack becomes part of the state before it is no longer fresh: one that was neither may
        // have gone from one to the other in between.
        by_state().unwrap_or_else(|| self.is_fresh(at.pack) || by_state().unwrap_or(false))
    }

    /// The newest good place of a chunk.
    pub(crate) fn lookup(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.index.lookup(id, &|id, at| self.valid(id, at))
    }

    /// Whether the pool once had a copy of the chunk that was found bad.
    pub(crate) fn was_lost(&self, id: &ChunkId) -> bool {
        let state = self.state();
        !state.bad.is_empty()
            && state.bad.range((*id, PackId(0))..).next().is_some_and(|(bad, _)| bad == id)
    }

    /// Whether a pack of this process isn't in the state yet.
    pub(crate) fn is_fresh(&self, pack: PackId) -> bool {
        self.fresh.read().unwrap_or_else(PoisonError::into_inner).contains(&pack)
    }

    fn fresh_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeSet<PackId>> {
        self.fresh.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when a disk is so full that a collection, which must write before it can free
    /// anything, would soon have no room to work in.
    fn check_room(&self) -> Result<()> {
        if self.collecting.load(Ordering::Relaxed) {
            return Ok(());
        }
        for disk in self.disks.iter().flatten() {
            // A disk that can't tell will say so when it is written.
            let Ok(space) = disk.space() else { continue };
            let reserve = RESERVE.min(space.total / 50);
            if space.free < reserve {
                let what = format!(
                    "{} has {} MiB left, of which {} MiB are kept for collecting garbage; give it \
                     room, or forget images and run `strongroom pool gc`",
                    disk.describe(),
                    space.free >> 20,
                    reserve >> 20,
                );
                return Err(Error::io(what, ErrorKind::StorageFull.into()));
            }
        }
        Ok(())
    }

    /// A number for a new pack. It is durably set aside.
    pub(crate) fn new_pack(&self) -> Result<PackId> {
        let journaling = self.writable()?;
        self.check_room()?;
        loop {
            let mut numbers = lock(&journaling.numbers);
            if numbers.pack < numbers.pack_end {
                let id = PackId(numbers.pack);
                numbers.pack += 1;
                drop(numbers);
                self.fresh_mut().insert(id);
                return Ok(id);
            }
            drop(numbers);
            self.set_numbers_aside()?;
        }
    }

    fn new_segment(&self) -> Result<SegmentId> {
        let journaling = self.writable()?;
        loop {
            let mut numbers = lock(&journaling.numbers);
            if numbers.segment < numbers.segment_end {
                numbers.segment += 1;
                return Ok(SegmentId(numbers.segment - 1));
            }
            drop(numbers);
            self.set_numbers_aside()?;
        }
    }

    fn set_numbers_aside(&self) -> Result<()> {
        let journaling = self.writable()?;
        self.record(|_| {
            let numbers = lock(&journaling.numbers);
            let pack = numbers.pack.max(numbers.pack_end) + NUMBERS;
            if pack > PackId::MAX {
                return Err(Error::Invalid("the pool has used up all pack numbers".into()));
            }
            let segment = numbers.segment.max(numbers.segment_end) + NUMBERS;
            Ok(vec![Op::NextPack(PackId(pack)), Op::NextSegment(SegmentId(segment))])
        })?;
        let (pack, segment) = {
            let state = self.state();
            (state.next_pack.0, state.next_segment.0)
        };
        let mut numbers = lock(&journaling.numbers);
        numbers.pack_end = numbers.pack_end.max(pack);
        numbers.segment_end = numbers.segment_end.max(segment);
        Ok(())
    }

    /// Changes the state: `ops` sees the state and says how; then the ops are made durable, then
    /// they are applied. One caller at a time; `ops` sees what the one before left.
    ///
    /// # Errors
    /// Those of `ops`, with nothing changed; those of the journal, after which this process writes
    /// no more.
    pub(crate) fn record(&self, ops: impl FnOnce(&State) -> Result<Vec<Op>>) -> Result<()> {
        let journaling = self.writable()?;
        journaling.turn.with(|journal| {
            let mut ops = ops(&self.state())?;
            if ops.is_empty() {
                return Ok(());
            }
            ops.push(Op::Clock(self.now()));
            let commit = journal.commit(&ops).inspect_err(|e| self.stop(e))?;
            self.journal_lost(commit.lost);
            let ended = ops.iter().filter(|op| matches!(op, Op::DropRoot(_))).count();
            self.garbage.roots_ended(ended as u64);
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            ops.into_iter().for_each(|op| state.apply(op));
            if journal.wants_rotation() {
                let snapshot = state.clone();
                drop(state);
                let lost = journal.rotate(&snapshot).inspect_err(|e| self.stop(e))?;
                self.journal_lost(lost);
            }
            Ok(())
        })
    }

    fn journal_lost(&self, lost: Vec<Lost>) {
        for Lost { disk, dir, why } in lost {
            self.notice(format!("disk {disk} failed, its {dir} is out of date from now on: {why}"));
        }
    }

    /// A pack is durable but for its name.
    pub(crate) fn pack_sealed(&self, sealed: Sealed) -> Result<()> {
        for (disk, why) in &sealed.failed {
            self.notice(format!("disk {disk} failed while pack {} was written: {why}", sealed.id));
        }
        self.pack_taken_in(sealed)
    }

    /// As [`Core::pack_sealed`], of an earlier process.
    pub(crate) fn pack_taken_in(&self, sealed: Sealed) -> Result<()> {
        lock(&self.writable()?.sealed).push(sealed);
        Ok(())
    }

    /// A pack was given up.
    pub(crate) fn pack_abandoned(&self, id: PackId) {
        self.fresh_mut().remove(&id);
        self.index.memtable().drop_packs(&|pack| pack == id);
    }

    /// Brings sealed packs and their index entries into the state, together with what `more` says.
    /// The durable steps, in order: the packs' names, the index segment, the journal record.
    ///
    /// # Errors
    /// As [`Core::record`]; an error of a disk on the way stops this process's writing too.
    pub(crate) fn flush(&self, more: impl FnOnce(&State) -> Result<Vec<Op>>) -> Result<()> {
        let journaling = self.writable()?;
        journaling.flushing.with(|()| {
            let sealed = std::mem::take(&mut *lock(&journaling.sealed));
            let ids: Vec<PackId> = sealed.iter().map(|s| s.id).collect();
            self.sync_names(&sealed).inspect_err(|e| self.stop(e))?;
            let mut ops: Vec<Op> = sealed.iter().map(|s| Op::AddPack(s.id, s.info)).collect();
            let segment = if self.index.memtable().is_empty() {
                None
            } else {
                // Entries of packs that are still being written wait for a later flush.
                let mut open = self.fresh_mut().clone();
                open.retain(|id| !ids.contains(id));
                let ready = |pack| !open.contains(&pack);
                let id = self.new_segment()?;
                let written = self.index.flush(id, &ready).inspect_err(|e| self.stop(e))?;
                written.map(|written| (id, written))
            };
            if let Some((id, written)) = &segment {
                ops.push(Op::AddSegment(*id, written.info));
                for (disk, why) in &written.failed {
                    self.notice(format!("disk {disk} failed to take an index segment: {why}"));
                }
                self.sync_segment(written).inspect_err(|e| self.stop(e))?;
            }
            let recorded = self.record(|state| {
                ops.extend(more(state)?);
                let floor = {
                    let fresh = self.fresh_mut();
                    fresh.iter().find(|id| !ids.contains(id)).copied()
                };
                let floor = floor.unwrap_or(PackId(lock(&journaling.numbers).pack));
                if floor != state.pack_floor && !ops.is_empty() {
                    ops.push(Op::PackFloor(floor));
                }
                Ok(ops)
            });
            if let Err(e) = recorded {
                // The packs are durable and stay; a later flush may still bring them in.
                lock(&journaling.sealed).extend(sealed);
                return Err(e);
            }
            if let Some((id, written)) = &segment {
                self.index.adopt_flush(*id, &written.info)?;
            }
            let mut fresh = self.fresh_mut();
            ids.iter().for_each(|id| {
                fresh.remove(id);
            });
            Ok(())
        })
    }

    /// Counts a pack that was found whole as one of this process's own, until it is recorded.
    pub(crate) fn pack_found(&self, id: PackId) {
        self.fresh_mut().insert(id);
    }

    /// Merges index segments when there are many. Entries of packs that are gone are left out.
    pub(crate) fn merge_segments(&self) -> Result<()> {
        let journaling = self.writable()?;
        journaling.flushing.with(|()| {
            while let Some(from) = self.index.plan_merge() {
                let to = self.new_segment()?;
                let keep = |_: &ChunkId, at: &Location| {
                    self.state().packs.contains_key(&at.pack) || self.is_fresh(at.pack)
                };
                let written = self.index.merge(&from, to, &keep)?;
                if let Some(written) = &written {
                    self.sync_segment(written)?;
                }
                let added = written.as_ref().map(|written| (to, &written.info));
                let mut ops: Vec<Op> = from.iter().map(|id| Op::DropSegment(*id)).collect();
                ops.extend(added.map(|(id, info)| Op::AddSegment(id, *info)));
                self.record(|_| Ok(ops))?;
                self.index.replace(&from, added)?;
                for disk in self.disks.iter().flatten() {
                    for id in &from {
                        // A left-over is swept away when the pool is opened to write.
                        let _ = index::remove(&**disk, *id);
                    }
                }
            }
            Ok(())
        })
    }

    /// Writes copies of index segments anew that were found bad or missing on some disk.
    ///
    /// # Errors
    /// When the new copies can't be made durable.
    pub(crate) fn mend_index(&self) -> Result<()> {
        let journaling = self.writable()?;
        // Not while a merge takes segments away.
        journaling.flushing.with(|()| {
            let mut mended = BTreeSet::new();
            for CopyDamage { segment, disk, why } in self.index.damage() {
                if !self.state().segments.contains_key(&segment) {
                    continue;
                }
                let what = format!("index segment {segment} on disk {disk}");
                match self.index.heal(segment, disk) {
                    Ok(()) => {
                        mended.insert(segment);
                        self.notice(format!("{what} was bad ({why}); copied anew"));
                    }
                    Err(e) => self.notice(format!("{what} is bad and could not be copied: {e}")),
                }
            }
            if !mended.is_empty() {
                self.sync_dirs(&HashSet::from([index::DIR.to_owned()]))?;
            }
            mended.into_iter().try_for_each(|segment| self.index.reopen(segment))
        })
    }

    /// Syncs the directories that packs lie in. A disk that failed a pack before doesn't count for
    /// it: on one disk its content may be missing and on another its name.
    fn sync_names(&self, packs: &[Sealed]) -> Result<()> {
        let dirs = packs.iter().map(|pack| shard::directory(pack.id)).collect();
        let unsynced = self.sync(&dirs);
        packs.iter().try_for_each(|pack| {
            let before = pack.failed.iter().map(|(disk, _)| *disk);
            let need = usize::from(pack.info.data_shards);
            self.judge(&unsynced, &shard::directory(pack.id), before, need)
        })
    }

    /// Makes the name of a segment durable, as [`Core::sync_names`] those of packs.
    fn sync_segment(&self, written: &Written) -> Result<()> {
        let unsynced = self.sync(&HashSet::from([index::DIR.to_owned()]));
        let before = written.failed.iter().map(|(disk, _)| *disk);
        self.judge(&unsynced, index::DIR, before, self.layout.data.data())
    }

    /// Syncs directories on all disks.
    pub(crate) fn sync_dirs(&self, dirs: &HashSet<String>) -> Result<()> {
        let unsynced = self.sync(dirs);
        let need = self.layout.data.data();
        dirs.iter().try_for_each(|dir| self.judge(&unsynced, dir, std::iter::empty(), need))
    }

    /// Syncs directories on all disks; which could not be synced.
    fn sync(&self, dirs: &HashSet<String>) -> HashMap<(usize, String), std::io::Error> {
        let mut unsynced = HashMap::new();
        let mut sorted: Vec<&String> = dirs.iter().collect();
        sorted.sort();
        for (place, disk) in self.disks.iter().enumerate() {
            let Some(disk) = disk else { continue };
            let (mut failed, mut dead) = (0u64, 0);
            let mut first: Option<std::io::Error> = None;
            for dir in &sorted {
                // A disk that didn't answer twice is not asked again: once may be one bad place.
                let synced = match &first {
                    Some(e) if dead > 1 => Err(std::io::Error::new(e.kind(), e.to_string())),
                    _ => disk.sync_dir(dir),
                };
                if let Err(e) = synced {
                    failed += 1;
                    dead += u32::from(is_dead(&e));
                    let copy = std::io::Error::new(e.kind(), e.to_string());
                    unsynced.insert((place, (*dir).clone()), copy);
                    if first.as_ref().is_none_or(|first| !is_dead(first)) {
                        first = Some(e);
                    }
                }
            }
            if let Some(e) = first {
                let more =
                    if failed > 1 { format!(", and {} more", failed - 1) } else { String::new() };
                self.notice(format!("{} failed to sync: {e}{more}", disk.describe()));
            }
        }
        unsynced
    }

    /// Fails when a directory could not be synced on some disk, and fewer disks than are needed have
    /// neither failed here nor before.
    fn judge(
        &self,
        unsynced: &HashMap<(usize, String), std::io::Error>,
        dir: &str,
        before: impl Iterator<Item = usize>,
        need: usize,
    ) -> Result<()> {
        let before: BTreeSet<usize> = before.collect();
        let here = |place: usize| unsynced.get(&(place, dir.to_owned()));
        let good = self.disks.iter().enumerate().filter(|(place, disk)| {
            disk.is_some() && !before.contains(place) && here(*place).is_none()
        });
        if good.count() >= need {
            return Ok(());
        }
        match (0..self.disks.len()).find_map(here) {
            Some(e) => {
                let e = std::io::Error::new(e.kind(), e.to_string());
                Err(Error::io(format!("syncing directory {dir}"), e))
            }
            // Too few took it in the first place; whoever wrote it has let that pass.
            None => Ok(()),
        }
    }
}
