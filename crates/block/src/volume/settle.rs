//! Settling: what is in the log becomes chunks of the pool.
//!
//! 1. What was written so far is frozen, and what comes next begins a segment.
//! 2. Of each snapshot that has layers, the oldest first, and then of the volume, a map is made: the map below
//!    with other chunks where the layers have anything. Chunks of zeroes become holes. A map is the base of
//!    those that are the same and more.
//! 3. The volume's top node, and one record of the journal: the new root in the place of the old one, and
//!    up to which sequence number the log is in it.
//! 4. In memory the layers go, and then the segments in which all is settled.
//!
//! Before step 3 nothing has changed; after it the log up to there is a left-over, whatever is left of it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;

use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::map::{Change, Extent, MapReader, MapRef, Put, rewrite};
use strongroom_engine::pool::{Session, Storing};

use super::ahead::ahead;
use super::base::TAIL;
use super::layer::Layer;
use super::live::{Snapshot, Source, View};
use super::pace::Pace;
use super::room::Turned;
use super::share::Steps;
use super::top::{Meta, Settled, Top};
use super::volumes::put_head;
use super::{Head, Volume, locked, random};
use crate::Result;

/// Bytes that are read and stored together.
const BATCH: u64 = 1 << 20;
/// Bytes that are compressed together, or a chunk of that many and more: who reads a little opens all of it.
const FRAME: usize = 128 << 10;
/// Bytes of which it is looked up at once what there is.
const WINDOW: u64 = 64 << 20;
/// Threads that settle a volume, at most.
const THREADS: usize = 4;
/// Bytes of chunks that are settled without them.
const FEW: u64 = 2 << 20;

/// What settling did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settling {
    /// Bytes of chunks that were made of the log.
    pub bytes: u64,
    /// Those of them that the pool lacked, before compression.
    pub new_bytes: u64,
}

/// How much less than others a thread that settles wants the processors.
const NICE: i32 = 10;

/// Has the calling thread stand back behind those that read and write, as one that settles does: when a log gets
/// long they wait, and it has what they leave. (On Linux threads have priorities of their own.)
pub fn stand_back() {
    let _ = rustix::process::setpriority_process(None, NICE);
}

impl Volume {
    /// Makes what is in the log part of the pool, and frees it. Others read and write meanwhile.
    ///
    /// # Errors
    /// Those of the pool; nothing is lost then, and it can be tried again.
    pub fn settle(&self) -> Result<Settling> {
        self.settle_above(0)
    }

    /// Settles if the log has more than so many bytes of its limit, once it is one's turn.
    pub(super) fn settle_above(&self, bytes: u64) -> Result<Settling> {
        let mut head = locked(&self.head);
        let is_alone = bytes > 0 || head.meta.parent.is_none();
        if self.log.weight() <= bytes && is_alone {
            return Ok(Settling::default());
        }
        self.part_in_turn(&mut head)?;
        self.log.roll()?;
        let (size, applied, current, snapshots) = self.lives.change(|live| {
            live.freeze();
            (live.size, live.applied, live.current.clone(), live.snapshots.clone())
        });
        if applied == head.meta.settled {
            return Ok(Settling::default());
        }
        self.pace.begin(self.fill(), to_settle(&current, &snapshots));
        let _paced = Paced(&self.pace);
        let turned = Turned::new(&self.room);
        let session = self.pool.session()?;
        session.lean_on(head.root)?;
        session.may_take_all();
        let settings = self.set_now();
        // To the end: making it durable takes its part of the disks too.
        let steps = self.shares.settle(self.id, self.weight());
        let mut work = Work {
            volume: self,
            session: &session,
            steps: &steps,
            storing: match settings.compression {
                true => Storing::Compressed,
                false => Storing::AsItIs,
            },
            tail: (!settings.deduplication).then(Mutex::default),
            keeps: settings.cache,
            counts: !settings.thin,
            held: 0,
            done: Mutex::default(),
            turned: &turned,
        };
        let mut folded: Vec<(View, Arc<MapRef>)> = Vec::new();
        let mut settled = Vec::with_capacity(snapshots.len());
        for Snapshot { id, name, created, size, view } in snapshots {
            let map = work.fold(&view, size, &mut folded)?;
            settled.push(Settled { id, name, created, size, map: (*map).clone() });
        }
        let before = work.held;
        let map = work.fold(&current, size, &mut folded)?;
        let (held, done) = (work.held - before, *locked(&work.done));
        let held = match &head.held {
            _ if settings.thin || !settled.is_empty() => None,
            Some((base, there)) if Arc::ptr_eq(base, &current.base) => {
                Some(there.saturating_add_signed(held))
            }
            _ => Some(self.count(&map)?),
        };
        let meta = Meta {
            size,
            settled: applied,
            reserve: if settings.thin { 0 } else { size.saturating_sub(held.unwrap_or(0)) },
            ..head.meta.clone()
        };
        let top = Top { map: (*map).clone(), snapshots: settled };
        let root = put_head(&session, Some(head.root), &meta, &top)?;
        self.reserve.set(&meta);
        *head = Head { root: root.id, meta, held: held.map(|held| (map, held)) };
        let gone = {
            let above = locked(&self.lives.above);
            let (gone, moved) = self.lives.change(|live| live.rebase(&folded));
            let mut gone = vec![gone];
            for (id, lives) in &*above {
                let one = moved.iter().find(|(snapshot, ..)| snapshot == id);
                if let (Some((_, old, new)), Some(lives)) = (one, lives.upgrade()) {
                    lives.follow(old, new, &mut gone);
                }
            }
            gone.extend(moved.into_iter().map(|(_, old, _)| old));
            gone
        };
        self.reserve_again();
        // Long layers take a while to go: nobody waits for that.
        // What they owe is owed until then: rather counted twice than not at all.
        drop(turned);
        drop((gone, folded, current));
        self.log.forget(applied)?;
        Ok(done)
    }

    /// How many bytes of data a map has.
    fn count(&self, map: &MapRef) -> Result<u64> {
        let all = MapReader::new(&*self.pool, map, 0);
        all.map(|item| Ok(data_bytes(item?.1))).sum()
    }
}

/// The pace ends with the settling.
struct Paced<'p>(&'p Pace);

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// How many bytes the chunks have that may have to be stored.
fn to_settle(current: &View, snapshots: &[Snapshot]) -> u64 {
    let views = snapshots.iter().map(|snapshot| &snapshot.view).chain([current]);
    let layers = views.flat_map(|view| &view.layers);
    let each: HashMap<*const Layer, u64> =
        layers.map(|layer| (Arc::as_ptr(layer), layer.bytes())).collect();
    each.values().sum()
}

/// What makes a chunk one of its own, where what is the same isn't stored once: bytes behind it that no other
/// chunk has.
#[derive(Debug)]
struct Tail {
    start: [u8; TAIL],
    count: u64,
}

impl Default for Tail {
    fn default() -> Self {
        Self { start: random(), count: 0 }
    }
}

impl Tail {
    fn next(&mut self) -> [u8; TAIL] {
        let mut tail = self.start;
        self.count += 1;
        tail.iter_mut().zip(self.count.to_le_bytes()).for_each(|(byte, count)| *byte ^= count);
        tail
    }
}

/// What settles a volume once.
struct Work<'w, 's> {
    volume: &'w Volume,
    session: &'w Session<'s>,
    steps: &'w Steps<'w>,
    storing: Storing,
    tail: Option<Mutex<Tail>>,
    /// What is stored is kept for readers.
    keeps: bool,
    /// Whether it is counted how many bytes of data there are more, or fewer.
    counts: bool,
    held: i64,
    done: Mutex<Settling>,
    /// What was owed and is on the disk.
    turned: &'w Turned,
}

/// What is to be done with a range.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    /// It is known that it is zeroes.
    Hole(Range<u64>),
    /// At most [`BATCH`] bytes are stored.
    Store(Range<u64>),
}

impl Work<'_, '_> {
    /// Makes a map of a view; how it was made is added to `folded`.
    fn fold(
        &mut self,
        view: &View,
        size: u64,
        folded: &mut Vec<(View, Arc<MapRef>)>,
    ) -> Result<Arc<MapRef>> {
        let rest = view.rebased(size, folded);
        if rest.layers.is_empty() && rest.base.len() == size {
            return Ok(rest.base);
        }
        let parts = parts(&rest, size);
        let Self { volume, session, .. } = *self;
        let change = Change { chunk: volume.chunk, len: size, parts: &parts };
        let bytes: u64 = parts.iter().map(|part| part.end - part.start).sum();
        let threads = match bytes {
            0..=FEW => 0,
            _ => thread::available_parallelism().map_or(1, usize::from).min(THREADS),
        };
        let asked = match threads {
            0 => Vec::new(),
            _ => self.widened(&rest.base, &parts)?,
        };
        let tasks = asked.iter().cloned().flat_map(|part| tasks(&rest, part, volume.chunk));
        let ranges = tasks.filter_map(|task| match task {
            Task::Store(range) => Some(range),
            Task::Hole(_) => None,
        });
        let mut failed = None;
        let (work, held) = (&*self, &mut 0);
        let store = |range, buffer: &mut Vec<u8>| work.store(&rest, range, buffer);
        let map = ahead(ranges, threads, store, |ahead| {
            rewrite(&*volume.pool, session, &rest.base, change, &mut |range, put| {
                let take = |range| match ahead.take(&range) {
                    Some(extents) => extents,
                    None => work.store(&rest, range, &mut Vec::new()),
                };
                work.replace(&rest, range, held, &take, put).map_err(|e| match e {
                    crate::Error::Pool(e) => e,
                    e => {
                        // Told as it is once it has come through.
                        let what = strongroom_engine::Error::Invalid(e.to_string());
                        failed = Some(e);
                        what
                    }
                })
            })
        });
        self.held += *held;
        let map = Arc::new(map.map_err(|e| failed.unwrap_or_else(|| e.into()))?);
        folded.push((view.clone(), Arc::clone(&map)));
        Ok(map)
    }

    /// The ranges that [`rewrite`] asks for: an extent that is touched is replaced as a whole.
    fn widened(&self, map: &MapRef, parts: &[Range<u64>]) -> Result<Vec<Range<u64>>> {
        let mut all: Vec<Range<u64>> = Vec::new();
        for part in parts {
            let mut wide = part.clone();
            for edge in [part.start, part.end - 1] {
                for (at, extent) in self.volume.base().extents(map, edge..edge + 1)? {
                    if let Extent::Data { len, .. } = extent {
                        wide = wide.start.min(at)..wide.end.max(at + u64::from(len));
                    }
                }
            }
            match all.last_mut() {
                Some(last) if last.end >= wide.start => last.end = last.end.max(wide.end),
                _ => all.push(wide),
            }
        }
        Ok(all)
    }

    /// Puts what a view has in a range in the place of what its map has there; `held` is how much more data that is.
    fn replace(
        &self,
        view: &View,
        range: Range<u64>,
        held: &mut i64,
        store: &dyn Fn(Range<u64>) -> Result<Vec<Extent>>,
        put: Put<'_>,
    ) -> Result<()> {
        if self.counts {
            for (at, extent) in self.volume.base().extents(&view.base, range.clone())? {
                if range.contains(&at) {
                    *held -= data_bytes(extent) as i64;
                }
            }
        }
        for task in tasks(view, range, self.volume.chunk) {
            let extents = match task {
                Task::Hole(range) => vec![Extent::Hole { len: range.end - range.start }],
                Task::Store(range) => store(range)?,
            };
            for extent in extents {
                *held += data_bytes(extent) as i64;
                put(extent)?;
            }
        }
        Ok(())
    }

    /// Stores what a view has in a range of at most [`BATCH`] bytes, cut at multiples of the chunk size.
    fn store(&self, view: &View, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<Vec<Extent>> {
        let chunk = u64::from(self.volume.chunk);
        let Range { start, end } = range;
        let _turn = self.steps.step(self.volume.weight(), end - start);
        buffer.resize((end - start) as usize, 0);
        self.volume.base().read_pieces(&view.base, &view.find(start..end), start, buffer)?;
        let mut pieces = Vec::new();
        let (mut rest, mut from) = (&buffer[..], start);
        while !rest.is_empty() {
            let to = end.min((from / chunk + 1) * chunk);
            let (piece, after) = rest.split_at((to - from) as usize);
            pieces.push((piece, piece.iter().all(|byte| *byte == 0)));
            (rest, from) = (after, to);
        }
        let full = pieces.iter().filter(|(_, is_zero)| !is_zero).map(|(piece, _)| *piece);
        let full: Vec<&[u8]> = full.collect();
        let mut ids = self.put(&full)?.into_iter();
        let extents = pieces.into_iter().map(|(piece, is_zero)| {
            let id = if is_zero { None } else { ids.next() };
            if let Some(id) = id
                && self.keeps
            {
                self.volume.reader.keep(id, piece);
            }
            match id {
                Some(id) => Extent::Data { id, len: piece.len() as u32 },
                None => Extent::Hole { len: piece.len() as u64 },
            }
        });
        let extents = extents.collect();
        self.turned.add(chunk, (end - start).div_ceil(chunk));
        self.volume.pace.step(end - start);
        Ok(extents)
    }

    /// Stores chunks, as the volume is set.
    fn put(&self, pieces: &[&[u8]]) -> Result<Vec<ChunkId>> {
        let mut ids = Vec::with_capacity(pieces.len());
        let (session, storing) = (self.session, self.storing);
        let mut done = Settling::default();
        for pieces in pieces.chunks((FRAME / self.volume.chunk as usize).max(1)) {
            let stored = match &self.tail {
                None => session.store_with(ChunkKind::Data, pieces, &mut ids, storing)?,
                Some(tail) => {
                    let alone = |piece: &&[u8]| [piece, &locked(tail).next()[..]].concat();
                    let alone: Vec<Vec<u8>> = pieces.iter().map(alone).collect();
                    let alone: Vec<&[u8]> = alone.iter().map(Vec::as_slice).collect();
                    session.store_with(ChunkKind::Data, &alone, &mut ids, storing)?
                }
            };
            done.bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            done.new_bytes += stored.new_bytes;
        }
        let mut sum = locked(&self.done);
        sum.bytes += done.bytes;
        sum.new_bytes += done.new_bytes;
        Ok(ids)
    }
}

/// What is to be done with a range, in order: chunks of which it is known that they are zeroes aren't stored.
fn tasks(view: &View, range: Range<u64>, chunk: u32) -> impl Iterator<Item = Task> {
    let Range { start: mut at, end } = range;
    let mut length = WINDOW;
    let windows = std::iter::from_fn(move || {
        let window = at..end.min((at / WINDOW * WINDOW).saturating_add(length));
        if window.is_empty() {
            return None;
        }
        at = window.end;
        let tasks = tasks_in(view, window, chunk.into());
        // A hole may be of any length.
        length = match tasks[..] {
            [Task::Hole(_)] => length.saturating_mul(2),
            _ => WINDOW,
        };
        Some(tasks)
    });
    windows.flatten()
}

/// The same, looked up at once.
fn tasks_in(view: &View, range: Range<u64>, chunk: u64) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut at = range.start;
    for (piece, source) in view.find(range.clone()) {
        if !matches!(source, Source::Zeroes) {
            continue;
        }
        let from = if piece.start == range.start {
            piece.start
        } else {
            piece.start.next_multiple_of(chunk)
        };
        let to = if piece.end == range.end { piece.end } else { piece.end / chunk * chunk };
        if from < to {
            batches(at..from, &mut tasks);
            tasks.push(Task::Hole(from..to));
            at = to;
        }
    }
    batches(at..range.end, &mut tasks);
    tasks
}

fn batches(range: Range<u64>, tasks: &mut Vec<Task>) {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min((at / BATCH + 1) * BATCH);
        tasks.push(Task::Store(at..end));
        at = end;
    }
}

/// The chunks in which layers of a view have anything, as ranges that don't touch each other.
fn parts(view: &View, size: u64) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = view.layers.iter().flat_map(|layer| layer.parts()).collect();
    all.sort_by_key(|part| part.start);
    let mut parts: Vec<Range<u64>> = Vec::new();
    for part in all {
        let part = part.start..part.end.min(size);
        match parts.last_mut() {
            _ if part.is_empty() => {}
            Some(last) if last.end >= part.start => last.end = last.end.max(part.end),
            _ => parts.push(part),
        }
    }
    parts
}

/// How many bytes of data an extent has.
pub(super) fn data_bytes(extent: Extent) -> u64 {
    match extent {
        Extent::Data { len, .. } => len.into(),
        Extent::Hole { .. } => 0,
    }
}
