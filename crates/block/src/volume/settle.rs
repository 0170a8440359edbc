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
use std::sync::Arc;

use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::map::{Change, Extent, MapReader, MapRef, Put, rewrite};
use strongroom_engine::pool::{Session, Storing};

use super::base::TAIL;
use super::layer::Layer;
use super::live::{Snapshot, Source, View};
use super::pace::Pace;
use super::share::Steps;
use super::top::{Meta, Settled, Top};
use super::volumes::put_head;
use super::{Head, Volume, locked, random};
use crate::Result;

/// Bytes that are stored together.
const BATCH: u64 = 1 << 20;

/// What settling did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settling {
    /// Bytes of chunks that were made of the log.
    pub bytes: u64,
    /// Those of them that the pool lacked, before compression.
    pub new_bytes: u64,
}

impl Volume {
    /// Makes what is in the log part of the pool, and frees it. Others read and write meanwhile.
    ///
    /// # Errors
    /// Those of the pool; nothing is lost then, and it can be tried again.
    pub fn settle(&self) -> Result<Settling> {
        self.settle_above(0)
    }

    /// Settles if the log has more than so many bytes, once it is one's turn.
    pub(super) fn settle_above(&self, bytes: u64) -> Result<Settling> {
        let mut head = locked(&self.head);
        let is_alone = bytes > 0 || head.meta.parent.is_none();
        if self.log.bytes() <= bytes && is_alone {
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
            tail: (!settings.deduplication).then(Tail::default),
            keeps: settings.cache,
            counts: !settings.thin,
            held: 0,
            done: Settling::default(),
        };
        let mut folded: Vec<(View, Arc<MapRef>)> = Vec::new();
        let mut settled = Vec::with_capacity(snapshots.len());
        for Snapshot { id, name, created, size, view } in snapshots {
            let map = work.fold(&view, size, &mut folded)?;
            settled.push(Settled { id, name, created, size, map: (*map).clone() });
        }
        let before = work.held;
        let map = work.fold(&current, size, &mut folded)?;
        let (held, done) = (work.held - before, work.done);
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
    tail: Option<Tail>,
    /// What is stored is kept for readers.
    keeps: bool,
    /// Whether it is counted how many bytes of data there are more, or fewer.
    counts: bool,
    held: i64,
    done: Settling,
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
        let mut failed = None;
        let map = rewrite(&*volume.pool, session, &rest.base, change, &mut |range, put| {
            self.replace(&rest, range, put).map_err(|e| match e {
                crate::Error::Pool(e) => e,
                e => {
                    // Told as it is once it has come through.
                    let what = strongroom_engine::Error::Invalid(e.to_string());
                    failed = Some(e);
                    what
                }
            })
        });
        let map = Arc::new(map.map_err(|e| failed.unwrap_or_else(|| e.into()))?);
        folded.push((view.clone(), Arc::clone(&map)));
        Ok(map)
    }

    /// Stores what a view has in a range, in the place of what its map has there.
    fn replace(&mut self, view: &View, range: Range<u64>, put: Put<'_>) -> Result<()> {
        if !self.counts {
            return self.store(view, range, put);
        }
        for (at, extent) in self.volume.base().extents(&view.base, range.clone())? {
            if range.contains(&at) {
                self.held -= data_bytes(extent) as i64;
            }
        }
        let mut new = 0;
        self.store(view, range, &mut |extent| {
            new += data_bytes(extent) as i64;
            put(extent)
        })?;
        self.held += new;
        Ok(())
    }

    /// Stores what a view has in a range, but for chunks of which it is known that they are zeroes.
    fn store(&mut self, view: &View, range: Range<u64>, put: Put<'_>) -> Result<()> {
        let chunk = u64::from(self.volume.chunk);
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
                self.store_all(view, at..from, put)?;
                put(Extent::Hole { len: to - from })?;
                at = to;
            }
        }
        self.store_all(view, at..range.end, put)
    }

    /// Stores what a view has in a range, cut at multiples of the chunk size.
    fn store_all(&mut self, view: &View, range: Range<u64>, put: Put<'_>) -> Result<()> {
        let chunk = u64::from(self.volume.chunk);
        let mut at = range.start;
        let mut buffer = Vec::new();
        while at < range.end {
            let end = range.end.min((at / BATCH + 1) * BATCH);
            let _turn = self.steps.step(self.volume.weight(), end - at);
            buffer.clear();
            buffer.resize((end - at) as usize, 0);
            self.volume.base().read_pieces(&view.base, &view.find(at..end), at, &mut buffer)?;
            let mut pieces = Vec::new();
            let mut rest = &buffer[..];
            let mut from = at;
            while !rest.is_empty() {
                let to = end.min((from / chunk + 1) * chunk);
                let (piece, after) = rest.split_at((to - from) as usize);
                pieces.push((piece, piece.iter().all(|byte| *byte == 0)));
                (rest, from) = (after, to);
            }
            let full = pieces.iter().filter(|(_, is_zero)| !is_zero).map(|(piece, _)| *piece);
            let full: Vec<&[u8]> = full.collect();
            let mut ids = self.put(&full)?.into_iter();
            for (piece, is_zero) in pieces {
                let id = if is_zero { None } else { ids.next() };
                if let Some(id) = id
                    && self.keeps
                {
                    self.volume.reader.keep(id, piece);
                }
                put(match id {
                    Some(id) => Extent::Data { id, len: piece.len() as u32 },
                    None => Extent::Hole { len: piece.len() as u64 },
                })?;
            }
            self.volume.pace.step(end - at);
            at = end;
        }
        Ok(())
    }

    /// Stores chunks, as the volume is set.
    fn put(&mut self, pieces: &[&[u8]]) -> Result<Vec<ChunkId>> {
        let mut ids = Vec::with_capacity(pieces.len());
        let (session, storing) = (self.session, self.storing);
        let stored = match &mut self.tail {
            None => session.store_with(ChunkKind::Data, pieces, &mut ids, storing)?,
            Some(tail) => {
                let alone: Vec<Vec<u8>> =
                    pieces.iter().map(|piece| [piece, &tail.next()[..]].concat()).collect();
                let alone: Vec<&[u8]> = alone.iter().map(Vec::as_slice).collect();
                session.store_with(ChunkKind::Data, &alone, &mut ids, storing)?
            }
        };
        self.done.bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.done.new_bytes += stored.new_bytes;
        Ok(ids)
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
