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

use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

use strongroom_engine::id::ChunkKind;
use strongroom_engine::map::{Change, Extent, MapReader, MapRef, Put, rewrite};
use strongroom_engine::pool::Session;

use super::live::{Snapshot, Source, View};
use super::top::{Meta, Settled, Top};
use super::{Usage, Volume, locked, put_head};
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
        let mut done = Settling::default();
        if self.log.bytes() <= bytes {
            return Ok(done);
        }
        self.log.roll()?;
        let (size, applied, current, snapshots) = self.lives.change(|live| {
            live.freeze();
            (live.size, live.applied, live.current.clone(), live.snapshots.clone())
        });
        if applied == head.meta.settled {
            return Ok(done);
        }
        let session = self.pool.session()?;
        session.lean_on(head.root)?;
        let mut folded: Vec<(View, Arc<MapRef>)> = Vec::new();
        let mut settled = Vec::with_capacity(snapshots.len());
        for Snapshot { id, name, created, size, view } in snapshots {
            let map = self.fold(&session, &view, size, &mut folded, &mut done)?;
            settled.push(Settled { id, name, created, size, map: (*map).clone() });
        }
        let map = self.fold(&session, &current, size, &mut folded, &mut done)?;
        let meta = Meta { size, settled: applied, ..head.meta.clone() };
        let top = Top { map: (*map).clone(), snapshots: settled };
        let root = put_head(&session, Some(head.root), &meta, &top)?;
        (head.root, head.meta) = (root.id, meta);
        self.lives.change(|live| {
            live.generation += 1;
            live.current = live.current.rebased(live.size, &folded);
            for snapshot in &mut live.snapshots {
                snapshot.view = snapshot.view.rebased(snapshot.size, &folded);
            }
        });
        self.log.forget(applied)?;
        Ok(done)
    }

    /// Makes a map of a view; how it was made is added to `folded`.
    fn fold(
        &self,
        session: &Session<'_>,
        view: &View,
        size: u64,
        folded: &mut Vec<(View, Arc<MapRef>)>,
        done: &mut Settling,
    ) -> Result<Arc<MapRef>> {
        let rest = view.rebased(size, folded);
        if rest.layers.is_empty() && rest.base.len() == size {
            return Ok(rest.base);
        }
        let parts = parts(&rest, size);
        let change = Change { chunk: self.chunk, len: size, parts: &parts };
        let mut failed = None;
        let map = rewrite(&*self.pool, session, &rest.base, change, &mut |range, put| {
            self.store(session, &rest, range, put, done).map_err(|e| match e {
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

    /// Stores what a view has in a range, but for chunks of which it is known that they are zeroes.
    fn store(
        &self,
        session: &Session<'_>,
        view: &View,
        range: Range<u64>,
        put: Put<'_>,
        done: &mut Settling,
    ) -> Result<()> {
        let chunk = u64::from(self.chunk);
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
                self.store_all(session, view, at..from, put, done)?;
                put(Extent::Hole { len: to - from })?;
                at = to;
            }
        }
        self.store_all(session, view, at..range.end, put, done)
    }

    /// Stores what a view has in a range, cut at multiples of the chunk size.
    fn store_all(
        &self,
        session: &Session<'_>,
        view: &View,
        range: Range<u64>,
        put: Put<'_>,
        done: &mut Settling,
    ) -> Result<()> {
        let chunk = u64::from(self.chunk);
        let mut at = range.start;
        let mut buffer = Vec::new();
        while at < range.end {
            let end = range.end.min((at / BATCH + 1) * BATCH);
            buffer.clear();
            buffer.resize((end - at) as usize, 0);
            self.base().read_pieces(&view.base, &view.find(at..end), at, &mut buffer)?;
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
            let mut ids = Vec::with_capacity(full.len());
            let stored = session.store(ChunkKind::Data, &full, &mut ids)?;
            done.bytes += full.iter().map(|piece| piece.len() as u64).sum::<u64>();
            done.new_bytes += stored.new_bytes;
            let mut ids = ids.into_iter();
            for (piece, is_zero) in pieces {
                let id = if is_zero { None } else { ids.next() };
                put(match id {
                    Some(id) => Extent::Data { id, len: piece.len() as u32 },
                    None => Extent::Hole { len: piece.len() as u64 },
                })?;
            }
            at = end;
        }
        Ok(())
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

/// Whether a map has an extent, asked for extents in order.
struct Neighbour<'m> {
    rest: Option<Peekable<MapReader<'m>>>,
}

impl<'m> Neighbour<'m> {
    fn new(volume: &'m Volume, map: Option<&MapRef>) -> Self {
        Self { rest: map.map(|map| MapReader::new(&*volume.pool, map, 0).peekable()) }
    }

    fn has(&mut self, at: u64, extent: Extent) -> Result<bool> {
        let Some(rest) = &mut self.rest else { return Ok(false) };
        while let Some(Ok((from, _))) = rest.peek()
            && *from < at
        {
            rest.next();
        }
        match rest.peek() {
            Some(Ok(there)) => Ok(*there == (at, extent)),
            Some(Err(_)) => {
                rest.next().transpose()?;
                Ok(false)
            }
            None => Ok(false),
        }
    }
}

/// See [`Volume::usage`].
pub(super) fn usage(volume: &Volume) -> Result<Usage> {
    // So that maps stay what they are.
    let _upkeep = locked(&volume.head);
    let (snapshots, current) = {
        let live = volume.lives.read();
        (live.snapshots.clone(), live.current.clone())
    };
    let mut usage = Usage { log: volume.log.bytes(), ..Usage::default() };
    for item in MapReader::new(&*volume.pool, &current.base, 0) {
        usage.volume += data_bytes(item?.1);
    }
    let maps: Vec<&MapRef> =
        snapshots.iter().map(|one| &*one.view.base).chain([&*current.base]).collect();
    for (place, snapshot) in snapshots.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| maps.get(before));
        let mut before = Neighbour::new(volume, before.copied());
        let mut after = Neighbour::new(volume, maps.get(place + 1).copied());
        let mut now = Neighbour::new(volume, Some(&current.base));
        let mut alone = 0;
        for item in MapReader::new(&*volume.pool, &snapshot.view.base, 0) {
            let (at, extent) = item?;
            // What the one before has as well is counted there.
            if before.has(at, extent)? {
                continue;
            }
            if !after.has(at, extent)? {
                alone += data_bytes(extent);
            }
            if !now.has(at, extent)? {
                usage.in_snapshots += data_bytes(extent);
            }
        }
        usage.snapshots.push((snapshot.id, alone));
    }
    Ok(usage)
}

/// How many bytes of data an extent has.
fn data_bytes(extent: Extent) -> u64 {
    match extent {
        Extent::Data { len, .. } => len.into(),
        Extent::Hole { .. } => 0,
    }
}
