//! Garbage collection: exact, online, and safe without any clock.
//!
//! 1. Everything handed over so far is brought into the state. Packs with numbers from here on
//!    (the *boundary*) are not looked at.
//! 2. *Mark*: everything that the roots and leases of this moment reach is marked, one bit for
//!    each chunk. A node that was marked before is not entered again.
//! 3. *Decide*, in one short step together with the sessions' pins: a pack with nothing marked or
//!    pinned is given up; one with much garbage is given up after what lives in it was copied.
//!    From this step on no session can re-use what is not kept. When chunks are referred to that the
//!    index doesn't have, no pack is given up that has one of them, or doesn't tell what it has: with
//!    another index they are there again. A copy that is marked bad counts like one that the index
//!    doesn't have: what couldn't be read may be readable another day.
//! 4. *Copy* the living chunks of sparse packs into new packs.
//! 5. *Record*: the new packs, their index segment, and the end of the old packs, in one journal
//!    record. Steps 4 and 5 repeat for a bounded amount of copies at a time, so a crash costs at
//!    most that much work, and a collection that is run again goes on where it was. Where there is little room
//!    for copies, files of packs that were given up are removed in between: first of those that needed none.
//! 6. *Remove* the files of packs that are given up, sync the directories, record that they are
//!    gone. While other processes read the pool this is left to the next collection.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::compress::Effort;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::pack::{Directory, FrameCodec, FrameEntry, NewFrame};
use crate::pool::core::{RESERVE, lock};
use crate::pool::garbage::COLLECTING;
use crate::pool::pins::ChunkSet;
use crate::pool::read::{Lens, OpenPack};
use crate::pool::{Meter, Pool, READERS_LOCK};
use crate::shard;
use crate::state::{Op, PackInfo, State};

/// Living bytes that are copied on each disk before the state is changed.
const COPY_STEP: u64 = 512 << 20;
/// Missing chunks that are looked for in packs; with more, no pack that isn't used whole is given up.
const MOST_MISSING: usize = 1 << 16;
/// Data references that are looked up together.
const MARK_BATCH: usize = 1 << 15;

/// How to collect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GcOptions {
    /// Only say what would be freed.
    pub dry_run: bool,
    /// The part of the pool, 0 to 1, that may stay as garbage inside of packs that are also in
    /// use; packs with the most garbage are copied first. Packs of which a third is garbage are
    /// copied in any case, unless it is 1. 0 frees everything. What is copied grows faster than
    /// what it frees (see `docs/benchmarks.md`), and the rest comes with a later collection.
    pub max_unused: f64,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { dry_run: false, max_unused: 0.2 }
    }
}

/// What a collection found and did. Bytes are as stored in packs, before redundancy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Chunks that something still needs.
    pub live_chunks: u64,
    /// Chunks that nothing needs.
    pub dead_chunks: u64,
    /// Bytes of packs before.
    pub bytes_before: u64,
    /// Bytes of packs that were (or would be) given up.
    pub bytes_removed: u64,
    /// Bytes that were (or would be) copied out of them.
    pub bytes_copied: u64,
    /// Bytes of garbage that stay inside of packs in use.
    pub bytes_unused: u64,
    /// Packs that were (or would be) given up.
    pub packs_removed: u64,
    /// Packs given up whose files are still there because other processes read the pool.
    pub packs_waiting: u64,
    /// Chunks that are referred to, but are not in the pool; when they are very many, about so many.
    pub missing_chunks: u64,
}

impl GcReport {
    /// Bytes of packs that were (or would be) freed: those given up, without what was copied out of them.
    pub fn bytes_freed(&self) -> u64 {
        self.bytes_removed.saturating_sub(self.bytes_copied)
    }
}

/// Chunks that are referred to and not in the index.
#[derive(Debug, Default)]
struct Missing {
    /// All of them, unless there are too many.
    ids: HashSet<ChunkId>,
    /// How often others were met; what is in a pack can't be told to be none of them then.
    more: u64,
}

impl Missing {
    fn add(&mut self, id: ChunkId) {
        // One that is met in several batches is still one.
        if self.ids.len() < MOST_MISSING {
            self.ids.insert(id);
        } else if !self.ids.contains(&id) {
            self.more += 1;
        }
    }

    fn count(&self) -> u64 {
        self.ids.len() as u64 + self.more
    }

    /// Whether a pack with this directory has one of them. A copy that is known to be bad is one,
    /// too: it may only have been unreadable when it was marked, and there is no other.
    fn is_in(&self, directory: &Directory) -> bool {
        let mut chunks = directory.frames.iter().flat_map(|frame| &frame.chunks);
        chunks.any(|(id, _)| self.more > 0 || self.ids.contains(id))
    }

    /// Whether a pack has none but copies that are known to be bad.
    fn is_in_bad_only(&self, pack: PackId, directory: &Directory, state: &State) -> bool {
        let mut chunks = directory.frames.iter().flat_map(|frame| &frame.chunks);
        self.more == 0
            && chunks.all(|(id, _)| !self.ids.contains(id) || state.bad.contains(&(*id, pack)))
    }
}

/// A pack that is to be given up.
#[derive(Debug)]
struct Victim {
    id: PackId,
    info: PackInfo,
    /// Estimated bytes that live in it.
    live_bytes: u64,
}

impl Pool {
    /// Frees what no root reaches. Sessions may go on meanwhile.
    ///
    /// # Errors
    /// [`Error::ChunkUnreadable`] or [`Error::ChunkMissing`] for a node that can't be read: what
    /// it refers to isn't known then, and nothing is freed. [`Error::Canceled`].
    pub fn gc(&self, options: GcOptions) -> Result<GcReport> {
        self.gc_with(options, &Meter::new())
    }

    /// As [`Pool::gc`]; the meter counts the bytes of the packs that are given up.
    ///
    /// # Errors
    /// As [`Pool::gc`].
    pub fn gc_with(&self, options: GcOptions, meter: &Meter) -> Result<GcReport> {
        let _upkeep = self.begin_upkeep(COLLECTING)?;
        self.gc_in_turn(options, meter)
    }

    /// As [`Pool::gc_with`], for who has the turn of upkeep.
    pub(super) fn gc_in_turn(&self, options: GcOptions, meter: &Meter) -> Result<GcReport> {
        let begun = self.core.garbage.begin();
        let hold = self.core.pins.hold_all();
        self.core.collecting.store(true, Ordering::Relaxed);
        let result = self.collect(options, meter);
        self.core.collecting.store(false, Ordering::Relaxed);
        self.core.pins.release(hold);
        if let (Ok(report), false) = (&result, options.dry_run) {
            self.core.garbage.collected(begun, *report);
        }
        result
    }

    fn collect(&self, options: GcOptions, meter: &Meter) -> Result<GcReport> {
        let mut report = GcReport::default();
        self.flush(|_| Ok(Vec::new()))?;
        let (packs, boundary) = {
            let state = self.core.state();
            let packs: Vec<_> = state.packs.iter().map(|(id, info)| (*id, *info)).collect();
            let boundary = packs.last().map_or(PackId(0), |(id, _)| PackId(id.0 + 1));
            (packs, boundary)
        };
        let mut missing = Missing::default();
        let marked = self.mark(&mut missing, meter)?;
        report.missing_chunks = missing.count();
        report.bytes_before = packs.iter().map(|(_, info)| info.len).sum();

        // How much of each pack lives is worked out before the decision, which must be quick.
        let mut victims = Vec::new();
        let mut sparse = Vec::new();
        let (mut held_back, mut last_copies) = (0u64, 0u64);
        for (id, info) in &packs {
            let live = marked.count(*id);
            report.live_chunks += u64::from(live);
            report.dead_chunks += u64::from(info.chunks - live.min(info.chunks));
            if live == 0 && missing.count() == 0 {
                victims.push(Victim { id: *id, info: *info, live_bytes: 0 });
            } else if live < info.chunks {
                self.check_stop(meter)?;
                let pack = self.reading.pack(&self.core, *id);
                let Ok(directory) = pack.and_then(|pack| pack.directory(&self.core)) else {
                    // Nobody can tell what is in it: it stays, for `check` to name.
                    continue;
                };
                if missing.is_in(&directory) {
                    match missing.is_in_bad_only(*id, &directory, &self.core.state()) {
                        true => last_copies += 1,
                        false => held_back += 1,
                    }
                    continue;
                }
                let live_bytes = live_bytes(&directory, *id, &marked);
                let list = if live == 0 { &mut victims } else { &mut sparse };
                list.push(Victim { id: *id, info: *info, live_bytes });
            }
        }
        if missing.more > 0 {
            self.core.notice(format!(
                "more than {MOST_MISSING} chunks that images need are not in the index, too many to \
                 look for: {held_back} packs with garbage are kept whole. Run `strongroom pool \
                 repair --rebuild-index`"
            ));
        } else if held_back > 0 {
            self.core.notice(format!(
                "{held_back} packs are kept because they have chunks that images need and the index \
                 does not know: run `strongroom pool repair --rebuild-index`"
            ));
        }
        if last_copies > 0 {
            self.core.notice(format!(
                "{last_copies} packs are kept because they have the only copies of chunks that images \
                 need, though these are bad or can't be read: once a backup has stored them again, \
                 or the images are forgotten, they go"
            ));
        }
        let kept: u64 = report.bytes_before - victims.iter().map(|v| v.info.len).sum::<u64>();
        let allowed = (kept as f64 * options.max_unused.clamp(0.0, 1.0)) as u64;
        let mut unused: u64 = sparse.iter().map(Victim::dead_bytes).sum();
        sparse.sort_by_key(|v| v.dead_bytes() * 1000 / v.info.len.max(1));
        let cheap = |v: &Victim| v.dead_bytes() * 3 >= v.info.len && options.max_unused < 1.0;
        while let Some(victim) = sparse.pop_if(|victim| unused > allowed || cheap(victim)) {
            unused -= victim.dead_bytes();
            victims.push(victim);
        }
        report.bytes_unused = unused;
        report.packs_removed = victims.len() as u64;
        report.bytes_removed = victims.iter().map(|v| v.info.len).sum();
        report.bytes_copied = victims.iter().map(|v| v.live_bytes).sum();
        if options.dry_run {
            return Ok(report);
        }
        debug_assert!(victims.iter().all(|v| v.id < boundary));

        let mut keep = marked;
        self.core.pins.doom(|pinned| {
            keep.extend(pinned);
            victims.iter().map(|v| (v.id, keep.words(v.id))).collect()
        });
        meter.begin(report.bytes_removed);
        let result = self.give_up(&victims, &keep, meter);
        let stay: Vec<PackId> = {
            let state = self.core.state();
            victims.iter().map(|v| v.id).filter(|id| state.packs.contains_key(id)).collect()
        };
        self.core.pins.undoom(&stay);
        for victim in victims.iter().filter(|v| stay.contains(&v.id)) {
            report.packs_removed -= 1;
            report.bytes_removed -= victim.info.len;
            report.bytes_copied -= victim.live_bytes;
            report.bytes_unused += victim.dead_bytes();
        }
        result?;
        self.tidy_index()?;
        report.packs_waiting = self.remove_condemned()?;
        Ok(report)
    }

    /// Copies what lives out of the victims, and records their end, step by step. A pack in
    /// which something can't be read stays, and one for whose copy there is no room.
    fn give_up(&self, victims: &[Victim], keep: &ChunkSet, meter: &Meter) -> Result<()> {
        let mut step = Vec::new();
        let (mut copied, mut room) = (0, self.room_for_copies());
        let mut without_room = 0u64;
        for victim in victims {
            // A session may have pinned a chunk of a pack that looked empty.
            if keep.count(victim.id) > 0 {
                if let Err(e) = self.check_stop(meter) {
                    self.end_packs(&mut step)?;
                    return Err(e);
                }
                let takes = victim.takes(victim.live_bytes);
                if copied + takes > room.min(COPY_STEP) && !step.is_empty() {
                    self.end_packs(&mut step)?;
                    self.remove_condemned()?;
                    (copied, room) = (0, self.room_for_copies());
                }
                if copied + takes > room {
                    without_room += 1;
                    continue;
                }
                match self.copy_living(victim, keep) {
                    Ok(bytes) => copied += victim.takes(bytes),
                    Err(e @ (Error::Stopped { .. } | Error::ReadOnly { .. })) => return Err(e),
                    Err(e) => {
                        self.core.notice(format!("pack {} is kept: {e}", victim.id));
                        continue;
                    }
                }
            }
            step.push(victim.id);
            meter.add(victim.info.len);
        }
        if without_room > 0 {
            self.core.notice(format!(
                "{without_room} packs with garbage are kept: there is no room for copies of what \
                 lives in them"
            ));
        }
        self.end_packs(&mut step)
    }

    /// What copies may take on each disk, in bytes, until what they were made of is removed: what is kept
    /// for collecting, and a quarter of what else is free, since others write meanwhile.
    fn room_for_copies(&self) -> u64 {
        // A disk that can't tell will say so when it is written.
        let spaces = self.core.disks.iter().flatten().filter_map(|disk| disk.space().ok());
        let rooms = spaces.map(|space| -> u64 {
            let reserve = RESERVE.min(space.total / 50).min(space.free);
            reserve + (space.free - reserve) / 4
        });
        rooms.min().unwrap_or(u64::MAX)
    }

    fn end_packs(&self, step: &mut Vec<PackId>) -> Result<()> {
        let ops: Vec<Op> = step.drain(..).map(Op::Condemn).collect();
        self.flush(|_| Ok(ops))
    }

    /// Copies the living chunks of a pack into new packs; how many bytes that were.
    fn copy_living(&self, victim: &Victim, keep: &ChunkSet) -> Result<u64> {
        let pack = self.reading.pack(&self.core, victim.id)?;
        let directory = pack.directory(&self.core)?;
        let mut lens = self.reading.lens();
        let mut first = 0;
        let mut copied = 0;
        let mut result = Ok(());
        for frame in &directory.frames {
            let ordinals = first..first + frame.chunks.len() as u32;
            first = ordinals.end;
            if ordinals.clone().any(|ordinal| keep.contains(victim.id, ordinal)) {
                copied += u64::from(frame.len);
                result = self.copy_frame(&pack, frame, ordinals.start, keep, &mut lens);
            }
            if result.is_err() {
                break;
            }
        }
        self.reading.put_lens(lens);
        result.map(|()| copied)
    }

    /// Copies the living chunks of a frame, each checked against its id.
    fn copy_frame(
        &self,
        pack: &OpenPack,
        frame: &FrameEntry,
        first: u32,
        keep: &ChunkSet,
        lens: &mut Lens,
    ) -> Result<()> {
        let kind = pack.info.kind;
        let lives = |place: usize, id: &ChunkId| {
            keep.contains(pack.id, first + place as u32)
                && !self.core.state().bad.contains(&(*id, pack.id))
        };
        // What was marked bad since it was found to live, and is nowhere else, must not go with it.
        for (place, (id, _)) in frame.chunks.iter().enumerate() {
            let wanted = keep.contains(pack.id, first + place as u32);
            if wanted && !lives(place, id) && self.core.lookup(id)?.is_none() {
                let why = "it was marked bad meanwhile, and there is no other copy".into();
                return Err(Error::ChunkUnreadable { id: *id, pack: pack.id, why });
            }
        }
        let whole = frame.chunks.iter().enumerate().all(|(place, (id, _))| lives(place, id));
        let mut new = self.writer()?.frame();
        let mut raw = Vec::new();
        let read = |verified: bool, lens: &mut Lens, new: &mut NewFrame, raw: &mut Vec<u8>| {
            let (at, len) = (frame.offset.into(), frame.len as usize);
            let range = pack.read(&self.core, at, len, verified, &mut lens.sealed)?;
            let opened = pack.unseal(frame.offset, &mut lens.sealed[range])?;
            lens.codec.decode(opened, &mut lens.raw)?;
            new.bytes.clear();
            new.bytes.extend_from_slice(opened);
            new.chunks.clear();
            raw.clear();
            let mut rest = &lens.raw[..];
            for (place, (id, len)) in frame.chunks.iter().enumerate() {
                let bytes;
                (bytes, rest) = rest.split_at_checked(*len as usize).ok_or_else(|| {
                    Error::damaged(format!("a frame of pack {}", pack.id), "it is too short")
                })?;
                if lives(place, id) {
                    if self.core.hasher.id(kind, bytes) != *id {
                        return Err(Error::ChunkUnreadable {
                            id: *id,
                            pack: pack.id,
                            why: "its content does not have its id".into(),
                        });
                    }
                    raw.extend_from_slice(bytes);
                    new.chunks.push((*id, *len));
                }
            }
            Ok(())
        };
        read(false, lens, &mut new, &mut raw).or_else(|_| read(true, lens, &mut new, &mut raw))?;
        if new.chunks.is_empty() {
            return Ok(());
        }
        // A frame that lives as a whole is copied as it was compressed, or wasn't.
        if !whole {
            let effort = match FrameCodec::is_as_it_was(&new.bytes) {
                true => Effort::None,
                false => self.effort(kind, raw.len(), new.chunks.len()),
            };
            lens.codec.encode(&raw, effort, &mut new.bytes);
        }
        self.writer()?.push(kind, new)
    }

    /// Marks everything that the roots and leases reach.
    fn mark(&self, missing: &mut Missing, meter: &Meter) -> Result<ChunkSet> {
        let mut stack: Vec<ChunkId> = {
            // Roots and leases of one moment. In between, a session could commit an image that
            // leans on a forgotten one, and end its lease: neither would be seen.
            let leases = lock(&self.leases);
            let leased = leases.values().flat_map(|(root, _)| root.nodes.clone()).collect();
            let state = self.core.state();
            let roots = state.roots.values().flat_map(|root| root.nodes.clone());
            roots.chain::<Vec<ChunkId>>(leased).collect()
        };
        let mut marked = ChunkSet::default();
        let mut data = Vec::new();
        while let Some(id) = stack.pop() {
            self.check_stop(meter)?;
            let at = self.core.lookup(&id)?.ok_or(Error::ChunkMissing { id })?;
            if !marked.insert(at.pack, at.ordinal) {
                continue;
            }
            let node = self.node(&id)?;
            stack.extend(node.nodes);
            data.extend(node.data);
            if data.len() >= MARK_BATCH {
                self.mark_data(&mut data, &mut marked, missing)?;
            }
        }
        self.mark_data(&mut data, &mut marked, missing)?;
        Ok(marked)
    }

    fn mark_data(
        &self,
        ids: &mut Vec<ChunkId>,
        marked: &mut ChunkSet,
        missing: &mut Missing,
    ) -> Result<()> {
        ids.sort_unstable();
        ids.dedup();
        for id in ids.drain(..) {
            match self.core.lookup(&id)? {
                Some(at) => {
                    marked.insert(at.pack, at.ordinal);
                }
                None => missing.add(id),
            }
        }
        Ok(())
    }

    /// Removes the files of packs that were given up, unless other processes read the pool. How
    /// many packs are left waiting: also those that a failing disk would not let go.
    pub(crate) fn remove_condemned(&self) -> Result<u64> {
        let mut condemned: Vec<PackId> = self.core.state().condemned.keys().copied().collect();
        if condemned.is_empty() {
            return Ok(0);
        }
        let mut locks = Vec::new();
        for disk in self.core.disks.iter().flatten() {
            match disk.lock(READERS_LOCK, true) {
                Ok(lock) => locks.push(lock),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    return Ok(condemned.len() as u64);
                }
                // A disk that can't be locked can't be read either.
                Err(_) => {}
            }
        }
        let all = condemned.len();
        let mut failed = None;
        condemned.retain(|id| match shard::remove_pack(&self.core.disks, *id) {
            Ok(()) => true,
            Err(e) => {
                failed = Some(e);
                false
            }
        });
        self.reading.forget_gone(&condemned);
        let dirs = condemned.iter().map(|id| shard::directory(*id)).collect();
        self.core.sync_dirs(&dirs)?;
        self.core.record(|_| Ok(condemned.iter().copied().map(Op::DropPack).collect()))?;
        let waiting = (all - condemned.len()) as u64;
        if let Some(e) = failed {
            self.core
                .notice(format!("{waiting} packs that were given up could not be removed: {e}"));
        }
        Ok(waiting)
    }

    /// Merges index segments when there are many.
    pub(crate) fn tidy_index(&self) -> Result<()> {
        self.core.merge_segments()
    }
}

impl Victim {
    fn dead_bytes(&self) -> u64 {
        self.info.len.saturating_sub(self.live_bytes)
    }

    /// What so many bytes of it take on each disk.
    fn takes(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.info.data_shards.max(1)))
    }
}

/// What the living chunks of a pack take in it, shared frames counted by the chunks' lengths.
fn live_bytes(directory: &Directory, pack: PackId, live: &ChunkSet) -> u64 {
    let mut ordinal = 0;
    let mut bytes = 0;
    for frame in &directory.frames {
        let (mut raw, mut kept) = (0u64, 0u64);
        for (_, len) in &frame.chunks {
            raw += u64::from(*len);
            kept += u64::from(*len) * u64::from(live.contains(pack, ordinal));
            ordinal += 1;
        }
        bytes += (u64::from(frame.len) * kept).div_ceil(raw.max(1));
    }
    bytes
}
