//! Reading what is settled: chunks by a map, whose extents are kept for a while.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use strongroom_engine::buf::BufPool;
use strongroom_engine::content::{Bytes, Chunks, Failed, Reader, Sink, Wanted, cut};
use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::lru::Lru;
use strongroom_engine::map::{Extent, MapReader, MapRef, Nodes};
use strongroom_engine::node::Node;
use strongroom_engine::pool::Pool;

use super::live::Source as Piece;
use super::locked;
use super::record::{BLOCK, HEADER, MAX_PAYLOAD};
use super::segment::{self, Place, read_run};
use crate::{Error, Result};

/// Chunks to a window: what a map's lowest node covers when all chunks are of the volume's size.
const WINDOW: u64 = 512;
/// How many bytes a chunk may have behind those of its extent: they make it one of its own.
pub(crate) const TAIL: usize = 16;
/// Extents that are kept, of 48 bytes each.
const EXTENTS: usize = 128 << 10;
/// Bytes of long records of the log that are kept, and how long one is.
const RECORDS: usize = 8 << 20;
const LONG: usize = 16 << 10;

/// Long records that are read at once, at most, and how many threads do that at a time.
const MOST: usize = 8;
const READS: usize = 16;

/// Extents of a part of a map, by offset.
type Window = Arc<Vec<(u64, Extent)>>;

#[derive(Debug, Default)]
struct Kept {
    windows: HashMap<(ChunkId, u64), (Window, u64)>,
    extents: usize,
    tick: u64,
}

/// A record of a log: the run's salt, the segment's number, and where in it.
type RecordKey = ([u8; 32], u64, u64);

/// Extents of maps that were read lately, and long records of the log.
#[derive(Debug)]
pub(crate) struct Windows {
    maps: Mutex<Kept>,
    records: Mutex<Lru<RecordKey, Arc<Vec<u8>>>>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { maps: Mutex::default(), records: Mutex::new(Lru::new(RECORDS)) }
    }
}

impl Windows {
    /// The payload of a record, of which so many bytes are wanted: of a long one others may be wanted soon.
    fn record(&self, place: &Place, wanted: usize) -> io::Result<Arc<Vec<u8>>> {
        if (place.payload as usize) < LONG.max(2 * wanted) {
            return place.read().map(Arc::new);
        }
        let header = &place.segment.header;
        let key = (header.salt, header.number, place.at);
        if let Some(payload) = locked(&self.records).get(&key) {
            return Ok(payload);
        }
        let payload = Arc::new(place.read()?);
        locked(&self.records).insert(key, Arc::clone(&payload), payload.len());
        Ok(payload)
    }

    fn get(&self, key: (ChunkId, u64)) -> Option<Window> {
        let mut kept = locked(&self.maps);
        kept.tick += 1;
        let tick = kept.tick;
        let (window, used) = kept.windows.get_mut(&key)?;
        *used = tick;
        Some(Arc::clone(window))
    }

    fn keep(&self, key: (ChunkId, u64), window: &Window) {
        let mut kept = locked(&self.maps);
        let tick = kept.tick;
        if kept.windows.insert(key, (Arc::clone(window), tick)).is_none() {
            kept.extents += window.len() + 1;
        }
        while kept.extents > EXTENTS && kept.windows.len() > 1 {
            let oldest = kept.windows.iter().min_by_key(|(_, (_, used))| *used).map(|(k, _)| *k);
            if let Some((window, _)) = oldest.and_then(|key| kept.windows.remove(&key)) {
                kept.extents -= window.len() + 1;
            }
        }
    }
}

/// The chunks of volumes: those of a pool, some of which have a tail.
#[derive(Debug)]
pub(crate) struct Source(pub(crate) Arc<Pool>);

impl Nodes for Source {
    fn node(&self, id: &ChunkId) -> strongroom_engine::Result<Node> {
        Nodes::node(&*self.0, id)
    }
}

impl Chunks for Source {
    fn threads(&self) -> usize {
        Chunks::threads(&*self.0)
    }

    fn tail(&self) -> u32 {
        TAIL as u32
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> strongroom_engine::Result<()> {
        Chunks::chunk(&*self.0, id, out)
    }

    fn fetch(
        &self,
        wanted: &[ChunkId],
        sink: Sink<'_>,
        failed: Failed<'_>,
    ) -> strongroom_engine::Result<()> {
        Chunks::fetch(&*self.0, wanted, sink, failed)
    }
}

/// Reads what a map has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base<'b> {
    pub(crate) pool: &'b Pool,
    pub(crate) reader: &'b Reader,
    pub(crate) windows: &'b Windows,
    /// For records that are read at once.
    pub(crate) reads: &'b BufPool,
    pub(crate) chunk: u32,
    /// What is read is kept for a while.
    pub(crate) keeps: bool,
}

/// How many whole long records come first that lie one right behind the other.
fn run(pieces: &[(Range<u64>, Piece)]) -> Vec<&Place> {
    let mut run: Vec<&Place> = Vec::new();
    for (range, source) in pieces {
        let Piece::Log { place, skip: 0 } = source else { break };
        let follows = |last: &&Place| {
            let end = last.at + HEADER as u64 + u64::from(last.payload);
            Arc::ptr_eq(&last.segment, &place.segment) && end == place.at
        };
        let is_whole = range.end - range.start == u64::from(place.payload);
        let is_long = place.payload as usize >= segment::LONG;
        if !is_whole || !is_long || run.len() == MOST || !run.last().is_none_or(follows) {
            break;
        }
        run.push(place);
    }
    run
}

/// Buffers for those of all volumes of a pool.
pub(crate) fn reads() -> BufPool {
    BufPool::new(READS, MOST * (HEADER + MAX_PAYLOAD) + 2 * BLOCK as usize)
}

/// An error of the pool, and which place can't be read because of it.
fn unreadable(offset: u64) -> impl Fn(strongroom_engine::Error) -> Error {
    move |e| Error::Unreadable { offset, why: e.to_string() }
}

impl Base<'_> {
    /// The extents that have a part of a range, in order, each whole; what the map doesn't reach has none.
    pub(crate) fn extents(&self, map: &MapRef, range: Range<u64>) -> Result<Vec<(u64, Extent)>> {
        let node = match map {
            MapRef::Inline(_) => {
                let mut found = Vec::new();
                for item in MapReader::new(self.reader, map, range.start) {
                    let (at, extent) = item.map_err(unreadable(range.start))?;
                    if at >= range.end {
                        break;
                    }
                    found.push((at, extent));
                }
                return Ok(found);
            }
            MapRef::Tree(node, _) => *node,
        };
        let span = u64::from(self.chunk) * WINDOW;
        let mut found: Vec<(u64, Extent)> = Vec::new();
        let end = range.end.min(map.len());
        let mut at = range.start;
        while at < end {
            let number = at / span;
            let key = (node, number);
            let window = match self.windows.get(key) {
                Some(window) => window,
                None => {
                    let mut extents = Vec::new();
                    for item in MapReader::new(self.reader, map, number * span) {
                        let (from, extent) = item.map_err(unreadable(at))?;
                        if from >= (number + 1) * span {
                            break;
                        }
                        extents.push((from, extent));
                    }
                    let window = Arc::new(extents);
                    self.windows.keep(key, &window);
                    window
                }
            };
            let first = window.partition_point(|(from, extent)| from + extent.len() <= at);
            let here = window.iter().skip(first).take_while(|(from, _)| *from < end);
            // One that reaches over windows is in each of them.
            let last = found.last().map(|(from, _)| *from);
            found.extend(here.filter(|(from, _)| last.is_none_or(|last| *from > last)));
            at = (number + 1) * span;
        }
        Ok(found)
    }

    fn chunks(&self, wanted: &[Wanted]) -> Result<Vec<Bytes>, (usize, strongroom_engine::Error)> {
        if self.keeps {
            return self.reader.chunks(wanted);
        }
        let once = |(place, (id, len)): (usize, &Wanted)| {
            let chunk = self.pool.read_once(ChunkKind::Data, id).map_err(|e| (place, e))?;
            let own = cut(&chunk, *len, TAIL as u32).ok_or_else(|| {
                let why = format!("it has {} bytes instead of {len}", chunk.len());
                (place, strongroom_engine::Error::damaged(format!("chunk {id}"), why))
            })?;
            Ok(Arc::new(own.to_vec()))
        };
        wanted.iter().enumerate().map(once).collect()
    }

    /// Fills the buffer with what the map has from `offset` on; zeroes where it has nothing.
    pub(crate) fn read(&self, map: &MapRef, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset + buffer.len() as u64;
        let extents = self.extents(map, offset..end)?;
        let mut places: Vec<u64> = Vec::with_capacity(extents.len());
        let mut wanted: Vec<Wanted> = Vec::with_capacity(extents.len());
        for (from, extent) in &extents {
            if let Extent::Data { id, len } = extent {
                places.push(*from);
                wanted.push((*id, *len));
            }
        }
        let chunks = self.chunks(&wanted).map_err(|(failed, why)| {
            let from = places.get(failed).copied().unwrap_or(offset);
            unreadable(from.max(offset))(why)
        })?;
        // Up to where the buffer is filled.
        let mut at = offset;
        for ((from, (_, len)), chunk) in places.into_iter().zip(wanted).zip(chunks) {
            let (start, stop) = (from.max(at), (from + u64::from(len)).min(end));
            if start >= stop {
                continue;
            }
            let zeroes = buffer.get_mut((at - offset) as usize..(start - offset) as usize);
            zeroes.unwrap_or_default().fill(0);
            let part = chunk.get((start - from) as usize..(stop - from) as usize);
            let room = buffer.get_mut((start - offset) as usize..(stop - offset) as usize);
            room.unwrap_or_default().copy_from_slice(part.unwrap_or_default());
            at = stop;
        }
        buffer.get_mut((at - offset) as usize..).unwrap_or_default().fill(0);
        Ok(())
    }

    /// Fills the buffer, from `offset` on, with pieces that were found.
    pub(crate) fn read_pieces(
        &self,
        map: &MapRef,
        pieces: &[(Range<u64>, Piece)],
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let mut pieces = pieces;
        while let Some(((range, source), rest)) = pieces.split_first() {
            let run = run(pieces);
            if let Some((last, _)) = run.len().checked_sub(1).and_then(|last| pieces.get(last)) {
                let within = (range.start - offset) as usize..(last.end - offset) as usize;
                let room = buffer.get_mut(within).unwrap_or_default();
                if read_run(&run, &mut self.reads.take(), room) {
                    pieces = pieces.get(run.len()..).unwrap_or_default();
                    continue;
                }
            }
            pieces = rest;
            let within = (range.start - offset) as usize..(range.end - offset) as usize;
            let Some(room) = buffer.get_mut(within) else { continue };
            match source {
                Piece::Zeroes => room.fill(0),
                Piece::Base => self.read(map, range.start, room)?,
                Piece::Log { place, skip } => {
                    let unreadable = |why: String| Error::Unreadable { offset: range.start, why };
                    let payload = self.windows.record(place, room.len());
                    let payload = payload.map_err(|e| unreadable(e.to_string()))?;
                    let part = payload.get(*skip..*skip + room.len());
                    room.copy_from_slice(
                        part.ok_or_else(|| unreadable("a record is too short".into()))?,
                    );
                }
            }
        }
        Ok(())
    }
}
