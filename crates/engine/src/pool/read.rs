//! Reading chunks back.
//!
//! Every chunk is checked against its id before anybody sees it. When the check fails, the units
//! it lies on are checked against their own sums, those that are bad are worked out from the other
//! disks and written back (at once, or by [`Pool::mend`]), and the chunk is tried once more.

use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::buf::{AlignedBuf, PAGE};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, Location, PackId};
use crate::pack::{Directory, FOOTER_LEN, Footer, FrameCodec, MAX_FRAME};
use crate::pool::core::{Core, lock};
use crate::pool::{Pool, expect_kind};
use crate::seal::PackSealer;
use crate::shard::{Geometry, Shape, ShardSet};
use crate::state::PackInfo;

/// Packs that are kept open.
const OPEN_PACKS: usize = 64;
/// Opened frames that are kept, in bytes.
const KEPT_FRAMES: usize = 12 << 20;
/// Neighbouring frames are read together up to this many bytes: with the rest of the pages at both
/// ends, what fits one huge page.
pub(crate) const RUN: usize = (2 << 20) - 2 * PAGE;
/// Chunks that [`Pool::fetch`] places at a time.
const FETCH_BATCH: usize = 1 << 17;

/// A pack that is open for reading.
#[derive(Debug)]
pub(crate) struct OpenPack {
    pub(crate) id: PackId,
    pub(crate) info: PackInfo,
    pub(crate) shards: ShardSet,
    sealer: PackSealer,
}

impl OpenPack {
    pub(crate) fn open(core: &Core, id: PackId, info: PackInfo) -> Result<Self> {
        let shape = Shape::new(info.data_shards, info.parity_shards)?;
        let shards = ShardSet::open(&core.disks, core.id, id, Geometry::new(shape, info.len)?)?;
        let header = shards.header()?;
        let what = || format!("pack {id}");
        if (header.epoch, header.kind) != (info.epoch, info.kind) {
            return Err(Error::damaged(
                what(),
                "its header is not that of the pack in the journal",
            ));
        }
        let sealer = core.keyring().pack(info.epoch, &header.salt);
        // Nothing is wrong with it: a disk that is away may have the key.
        let sealer = sealer.ok_or_else(|| unknown_key(&what(), info.epoch))?;
        Ok(Self { id, info, shards, sealer })
    }

    /// Opens a sealed frame in place; what is in it is still compressed.
    pub(crate) fn unseal<'a>(&self, offset: u32, frame: &'a mut [u8]) -> Result<&'a mut [u8]> {
        self.sealer.open_in_place(offset, &self.id.0.to_le_bytes(), frame).map_err(|_| {
            Error::damaged(
                format!("the frame at {offset} of pack {}", self.id),
                "its authentication tag does not fit",
            )
        })
    }

    /// Reads the directory.
    pub(crate) fn directory(&self, core: &Core) -> Result<Directory> {
        let what = format!("pack {}", self.id);
        let footer_at = self.info.len.checked_sub(FOOTER_LEN as u64);
        let footer_at = footer_at.ok_or_else(|| Error::damaged(&*what, "it is too short"))?;
        let mut buf = AlignedBuf::default();
        let mut attempt = |verified: bool| {
            let range = self.read(core, footer_at, FOOTER_LEN, verified, &mut buf)?;
            let bytes = buf[range].first_chunk().expect("as many bytes as asked for");
            let footer = Footer::decode(bytes, self.info.len, &what)?;
            let range =
                self.read(core, footer.offset.into(), footer.len as usize, verified, &mut buf)?;
            let frame = self.unseal(footer.offset, &mut buf[range])?;
            let mut record = Vec::new();
            FrameCodec::new(1).decode(frame, &mut record)?;
            let directory = Directory::decode(&record).map_err(Error::decoding(&what))?;
            if directory.chunks() != footer.chunks {
                return Err(Error::damaged(&*what, "its directory and its footer disagree"));
            }
            Ok(directory)
        };
        // Without encryption only the units' sums tell whether it is what was written.
        if self.info.epoch == 0 {
            return attempt(true);
        }
        attempt(false).or_else(|_| attempt(true))
    }

    /// Reads `len` bytes of the pack into `buf`, at the range that is returned. `verified` checks
    /// them against the units' sums, and heals.
    pub(crate) fn read(
        &self,
        core: &Core,
        offset: u64,
        len: usize,
        verified: bool,
        buf: &mut AlignedBuf,
    ) -> Result<Range<usize>> {
        let report = match verified {
            false => self.shards.read(offset, len, buf)?,
            true => self.shards.read_verified(offset, len, buf)?,
        };
        if !report.lost.is_empty() {
            lock(&core.found).add_shards(core, self.id, &report.lost);
        }
        if report.bad.is_empty() {
            return Ok(report.range);
        }
        if core.writable().is_err() {
            lock(&core.found).add_units(self.id, &report.bad);
            return Ok(report.range);
        }
        let names: Vec<String> = report
            .bad
            .iter()
            .map(|bad| format!("unit {} of shard {} on disk {}", bad.unit, bad.shard, bad.disk))
            .collect();
        let names = format!("pack {}: {}", self.id, names.join(", "));
        match self.shards.heal(&report.bad) {
            Ok(_) => core.notice(format!("{names} bad, healed")),
            Err(e) => core.notice(format!("{names} bad, could not be healed: {e}")),
        }
        Ok(report.range)
    }
}

/// Bytes of a chunk, shared with the cache of opened frames.
#[derive(Clone, Debug)]
pub struct ChunkBytes {
    frame: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Deref for ChunkBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.frame[self.range.clone()]
    }
}

type FrameKey = (PackId, u32);

#[derive(Debug, Default)]
struct Kept {
    packs: HashMap<PackId, (Arc<OpenPack>, u64)>,
    frames: HashMap<FrameKey, (Arc<Vec<u8>>, u64)>,
    frame_bytes: usize,
    tick: u64,
}

/// What a thread needs to open frames.
#[derive(Debug)]
pub(crate) struct Lens {
    pub(crate) codec: FrameCodec,
    pub(crate) sealed: AlignedBuf,
    pub(crate) raw: Vec<u8>,
}

impl Lens {
    fn new(level: i32) -> Self {
        Self { codec: FrameCodec::new(level), sealed: AlignedBuf::default(), raw: Vec::new() }
    }
}

/// Caches of an open pool's readers.
#[derive(Debug)]
pub(crate) struct Reading {
    kept: Mutex<Kept>,
    lenses: Mutex<Vec<Lens>>,
    level: i32,
}

impl Reading {
    /// Empty caches; what is compressed anew is compressed at this level.
    pub(crate) fn new(level: i32) -> Self {
        Self { kept: Mutex::default(), lenses: Mutex::default(), level }
    }

    /// An open pack, from the cache or opened now.
    pub(crate) fn pack(&self, core: &Core, id: PackId) -> Result<Arc<OpenPack>> {
        {
            let mut kept = lock(&self.kept);
            kept.tick += 1;
            let tick = kept.tick;
            if let Some((pack, used)) = kept.packs.get_mut(&id) {
                *used = tick;
                return Ok(Arc::clone(pack));
            }
        }
        let info = core.state().packs.get(&id).copied();
        let info =
            info.ok_or_else(|| Error::damaged(format!("pack {id}"), "it is not in the pool"))?;
        let pack = Arc::new(OpenPack::open(core, id, info)?);
        let mut kept = lock(&self.kept);
        let tick = kept.tick;
        kept.packs.insert(id, (Arc::clone(&pack), tick));
        if kept.packs.len() > OPEN_PACKS {
            let oldest = kept.packs.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            oldest.and_then(|id| kept.packs.remove(&id));
        }
        drop(kept);
        // Given up meanwhile: who forgets those that are gone may have come by before.
        if !core.state().packs.contains_key(&id) {
            self.forget_gone(&[id]);
        }
        Ok(pack)
    }

    /// Forgets open packs, so that shards that were rebuilt are seen.
    pub(crate) fn forget_packs(&self) {
        lock(&self.kept).packs.clear();
    }

    /// Forgets packs whose files were removed: as long as these are open, their room isn't free.
    pub(crate) fn forget_gone(&self, gone: &[PackId]) {
        let mut kept = lock(&self.kept);
        let closed: Vec<_> = gone.iter().filter_map(|id| kept.packs.remove(id)).collect();
        // Closing files may take a while.
        drop(kept);
        drop(closed);
    }

    fn frame(&self, key: FrameKey) -> Option<Arc<Vec<u8>>> {
        let mut kept = lock(&self.kept);
        kept.tick += 1;
        let tick = kept.tick;
        let (frame, used) = kept.frames.get_mut(&key)?;
        *used = tick;
        Some(Arc::clone(frame))
    }

    fn keep_frame(&self, key: FrameKey, frame: &Arc<Vec<u8>>) {
        let mut kept = lock(&self.kept);
        let tick = kept.tick;
        if kept.frames.insert(key, (Arc::clone(frame), tick)).is_none() {
            kept.frame_bytes += frame.len();
        }
        while kept.frame_bytes > KEPT_FRAMES && kept.frames.len() > 1 {
            let oldest = kept.frames.iter().min_by_key(|(_, (_, used))| *used).map(|(k, _)| *k);
            if let Some((frame, _)) = oldest.and_then(|key| kept.frames.remove(&key)) {
                kept.frame_bytes -= frame.len();
            }
        }
    }

    pub(crate) fn lens(&self) -> Lens {
        lock(&self.lenses).pop().unwrap_or_else(|| Lens::new(self.level))
    }

    pub(crate) fn put_lens(&self, lens: Lens) {
        lock(&self.lenses).push(lens);
    }
}

/// Reads one frame and opens it into `lens.raw`.
fn open_frame(
    core: &Core,
    pack: &OpenPack,
    offset: u32,
    len: u32,
    verified: bool,
    lens: &mut Lens,
) -> Result<()> {
    let range = pack.read(core, offset.into(), len as usize, verified, &mut lens.sealed)?;
    let frame = pack.unseal(offset, &mut lens.sealed[range])?;
    lens.codec.decode(frame, &mut lens.raw)
}

/// The chunk at `at` in an opened frame, if it is the one that `id` names.
fn chunk_in<'a>(core: &Core, raw: &'a [u8], at: &Location, id: &ChunkId) -> Result<&'a [u8]> {
    let range = at.offset as usize..at.offset as usize + at.len as usize;
    let bytes =
        raw.get(range).ok_or_else(|| unreadable(id, at, &"it lies outside of its frame"))?;
    if core.hasher.id(at.kind, bytes) != *id {
        return Err(unreadable(id, at, &"its content does not have its id"));
    }
    Ok(bytes)
}

/// What was sealed in an epoch whose key isn't in the keyring that was found.
pub(crate) fn unknown_key(what: &str, epoch: u32) -> Error {
    let why = format!(
        "the data key of epoch {epoch} is not in the superblocks that are there: bring back the disk \
         that has it"
    );
    Error::io(what, std::io::Error::new(std::io::ErrorKind::NotFound, why))
}

pub(crate) fn unreadable(id: &ChunkId, at: &Location, why: &dyn std::fmt::Display) -> Error {
    Error::ChunkUnreadable { id: *id, pack: at.pack, why: why.to_string() }
}

impl Pool {
    /// Reads a chunk, through a bounded cache of opened frames.
    ///
    /// # Errors
    /// [`Error::ChunkMissing`], [`Error::ChunkUnreadable`].
    pub fn read(&self, kind: ChunkKind, id: &ChunkId) -> Result<ChunkBytes> {
        self.read_keeping(kind, id, true)
    }

    /// As [`Pool::read`], for what is not worth a place in the cache; what is there is used.
    ///
    /// # Errors
    /// As [`Pool::read`].
    pub fn read_once(&self, kind: ChunkKind, id: &ChunkId) -> Result<ChunkBytes> {
        self.read_keeping(kind, id, false)
    }

    fn read_keeping(&self, kind: ChunkKind, id: &ChunkId, keep: bool) -> Result<ChunkBytes> {
        let mut last: Option<(Location, Error)> = None;
        // A collection may move the chunk between the look-up and the read, perhaps several times.
        for _ in 0..16 {
            let Some(at) = self.locate(id)? else { break };
            expect_kind(kind, at.kind, id)?;
            match self.read_at(id, &at, keep) {
                Ok(bytes) => return Ok(bytes),
                Err(e) => {
                    let again = last.as_ref().is_some_and(|(before, _)| before.pack == at.pack);
                    last = Some((at, e));
                    if again {
                        break;
                    }
                }
            }
        }
        match last {
            None => Err(Error::ChunkMissing { id: *id }),
            Some((at, _)) if self.core.state().bad.contains(&(*id, at.pack)) => {
                Err(Error::ChunkMissing { id: *id })
            }
            Some((at, e)) => {
                self.found_unreadable(id, &at);
                Err(match e {
                    e @ Error::ChunkUnreadable { .. } => e,
                    e => unreadable(id, &at, &e),
                })
            }
        }
    }

    /// The newest good place of a chunk; what is still on its way to a pack is brought there.
    pub(crate) fn locate(&self, id: &ChunkId) -> Result<Option<Location>> {
        for _ in 0..8 {
            let on_its_way = match self.core.lookup(id)? {
                Some(at) if !self.core.is_fresh(at.pack) => return Ok(Some(at)),
                Some(_) => true,
                None => self.core.index.memtable().is_in_flight(id),
            };
            if !on_its_way {
                return self.marked_copy(id);
            }
            // Meanwhile a collection may copy it to yet another pack.
            self.flush(|_| Ok(Vec::new()))?;
        }
        self.core.lookup(id)
    }

    /// A copy that is marked bad: it may be good again, and what is read is checked.
    fn marked_copy(&self, id: &ChunkId) -> Result<Option<Location>> {
        if !self.core.was_lost(id) {
            return Ok(None);
        }
        self.core.index.lookup(id, &|_, at| self.core.state().packs.contains_key(&at.pack))
    }

    fn read_at(&self, id: &ChunkId, at: &Location, keep: bool) -> Result<ChunkBytes> {
        let key = (at.pack, at.frame_offset);
        let range = at.offset as usize..at.offset as usize + at.len as usize;
        if let Some(frame) = self.reading.frame(key)
            && chunk_in(&self.core, &frame, at, id).is_ok()
        {
            return Ok(ChunkBytes { frame, range });
        }
        let mut lens = self.reading.lens();
        let result = self.open_checked(id, at, &mut lens).map(|()| {
            let frame = Arc::new(lens.raw.clone());
            if keep {
                self.reading.keep_frame(key, &frame);
            }
            ChunkBytes { frame, range }
        });
        self.reading.put_lens(lens);
        result
    }

    /// Opens the frame of a chunk into `lens.raw` and checks the chunk; mends what it can.
    pub(crate) fn open_checked(&self, id: &ChunkId, at: &Location, lens: &mut Lens) -> Result<()> {
        let pack = self.reading.pack(&self.core, at.pack)?;
        let mut attempt = |verified| {
            open_frame(&self.core, &pack, at.frame_offset, at.frame_len, verified, lens)?;
            chunk_in(&self.core, &lens.raw, at, id).map(|_| ())
        };
        attempt(false).or_else(|_| attempt(true))
    }

    /// Reads many data chunks in the order in which they lie in packs, each frame once, on
    /// `threads` threads. `sink(i, bytes)` is called once for each `i` whose chunk could be read,
    /// from any thread and several at once. A chunk that can't be read goes to `failed(i, error)`
    /// and the rest goes on.
    ///
    /// # Errors
    /// The first error of `sink`, which ends all; [`Error::Canceled`].
    pub fn fetch(
        &self,
        wanted: &[ChunkId],
        threads: usize,
        sink: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
        failed: &(dyn Fn(usize, Error) + Sync),
    ) -> Result<()> {
        for (batch, ids) in wanted.chunks(FETCH_BATCH).enumerate() {
            let base = batch * FETCH_BATCH;
            self.fetch_batch(ids, threads, &|i, bytes| sink(base + i, bytes), &|i, e| {
                failed(base + i, e);
            })?;
        }
        Ok(())
    }

    fn fetch_batch(
        &self,
        wanted: &[ChunkId],
        threads: usize,
        sink: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
        failed: &(dyn Fn(usize, Error) + Sync),
    ) -> Result<()> {
        let mut places = Vec::with_capacity(wanted.len());
        for (i, id) in wanted.iter().enumerate() {
            match self.locate(id) {
                Ok(Some(at)) => places.push((at, i)),
                Ok(None) => failed(i, Error::ChunkMissing { id: *id }),
                Err(e) => failed(i, e),
            }
        }
        places.sort_unstable_by_key(|(at, _)| (at.pack, at.frame_offset, at.offset));
        let runs = runs(&places);
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut lens = self.reading.lens();
            let result = loop {
                let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break Ok(());
                };
                if let Err(e) = self.core.check_canceled() {
                    break Err(e);
                }
                if let Err(e) =
                    self.fetch_run(&places[run.clone()], wanted, &mut lens, sink, failed)
                {
                    next.store(runs.len(), Ordering::Relaxed);
                    break Err(e);
                }
            };
            self.reading.put_lens(lens);
            result
        };
        let threads = threads.min(runs.len());
        if threads <= 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |result, other| {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.and(other)
            })
        })
    }

    /// Reads neighbouring frames in one go and hands out their chunks.
    fn fetch_run(
        &self,
        run: &[(Location, usize)],
        wanted: &[ChunkId],
        lens: &mut Lens,
        sink: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync),
        failed: &(dyn Fn(usize, Error) + Sync),
    ) -> Result<()> {
        let (first, last) = (&run[0].0, &run[run.len() - 1].0);
        let start = first.frame_offset;
        let len = (last.frame_offset - start) as usize + last.frame_len as usize;
        let mut buf = std::mem::take(&mut lens.sealed);
        let pack = self.reading.pack(&self.core, first.pack).ok();
        let read = pack
            .as_ref()
            .and_then(|pack| pack.read(&self.core, start.into(), len, false, &mut buf).ok());
        let mut result = Ok(());
        for frame in run.chunk_by(|a, b| a.0.frame_offset == b.0.frame_offset) {
            let at = &frame[0].0;
            let opened = pack.as_ref().zip(read.clone()).and_then(|(pack, range)| {
                let begin = range.start + (at.frame_offset - start) as usize;
                let sealed = &mut buf[begin..begin + at.frame_len as usize];
                let frame = pack.unseal(at.frame_offset, sealed).ok()?;
                lens.codec.view(frame, &mut lens.raw).ok()
            });
            for (at, i) in frame {
                let id = &wanted[*i];
                let chunk = opened.and_then(|raw| chunk_in(&self.core, raw, at, id).ok());
                result = match chunk {
                    Some(chunk) => sink(*i, chunk),
                    // The slow way mends what it can, and follows a chunk that was moved.
                    None => match self.read(ChunkKind::Data, id) {
                        Ok(chunk) => sink(*i, &chunk),
                        Err(e) => {
                            failed(*i, e);
                            Ok(())
                        }
                    },
                };
                if result.is_err() {
                    break;
                }
            }
            if result.is_err() {
                break;
            }
        }
        lens.sealed = buf;
        result
    }
}

/// Splits sorted places into runs of frames that are worth reading together.
fn runs(places: &[(Location, usize)]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut begin = 0;
    for i in 1..=places.len() {
        let ends = places.get(i).is_none_or(|(at, _)| {
            let (first, before) = (&places[begin].0, &places[i - 1].0);
            let gap_from = before.frame_offset + before.frame_len;
            at.pack != first.pack
                || (at.frame_offset > gap_from && at.frame_offset - gap_from > (64 << 10))
                || (at.frame_offset + at.frame_len - first.frame_offset) as usize > RUN
        });
        if ends {
            runs.push(begin..i);
            begin = i;
        }
    }
    runs
}

const _: () = assert!(RUN < MAX_FRAME);
