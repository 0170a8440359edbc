//! Open files: where their content lies, and reading ahead of who reads in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use strongroom_engine::map::{Extent, MapReader, MapRef, Nodes};
use strongroom_engine::{Error, Result};

use super::chunks::{ChunkCache, NodeCache, Shared, Wanted};
use super::lock;

/// The furthest that is read ahead, in bytes.
const AHEAD: u64 = 8 << 20;
/// The least that is read ahead, in bytes.
const AHEAD_MIN: u64 = 512 << 10;
/// Reads that are at most so far from the end of the last one are in order: the kernel sends
/// several at a time, and threads take them up in any order.
const NEAR: u64 = 1 << 20;
/// Extents are looked up so far behind the end of a read, in bytes and in number.
const STRETCH: u64 = 32 << 20;
const STRETCH_ITEMS: usize = 1024;
/// Stretches that an open file keeps.
const STRETCHES: usize = 3;

/// The extents of a part of a file.
#[derive(Debug)]
struct Stretch {
    /// The first offset that they cover, and the one behind them.
    from: u64,
    to: u64,
    extents: Vec<(u64, Extent)>,
}

impl Stretch {
    /// The extents that have bytes in `from..to`.
    fn part(&self, from: u64, to: u64) -> &[(u64, Extent)] {
        let begin = self.extents.partition_point(|(at, extent)| at + extent.len() <= from);
        let end = self.extents.partition_point(|(at, _)| *at < to);
        &self.extents[begin.min(end)..end]
    }
}

/// How a file is being read.
#[derive(Debug, Default)]
struct Pace {
    /// The furthest that was read in order.
    end: u64,
    /// How many reads were in order.
    run: u32,
    /// What is before this was read, or is being read, ahead.
    ahead: u64,
    stretches: VecDeque<Arc<Stretch>>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) inode: u64,
    map: MapRef,
    len: u64,
    pace: Mutex<Pace>,
}

impl File {
    pub(super) fn new(inode: u64, map: MapRef) -> Self {
        Self { inode, len: map.len(), map, pace: Mutex::default() }
    }

    /// Notes a read; says what should be read ahead, if anything.
    fn note(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let mut pace = lock(&self.pace);
        if from <= pace.end.saturating_add(NEAR) && from.saturating_add(NEAR) >= pace.end {
            pace.run = pace.run.saturating_add(1);
            pace.end = pace.end.max(to);
        } else {
            (pace.run, pace.end, pace.ahead) = (0, to, to);
        }
        if pace.run < 2 {
            return None;
        }
        let window = AHEAD.min(AHEAD_MIN << (pace.run - 2).min(8));
        let begin = pace.ahead.max(pace.end);
        let end = pace.end.saturating_add(window).min(self.len);
        if begin >= end || begin - pace.end > window / 2 {
            return None;
        }
        pace.ahead = end;
        Some((begin, end))
    }

    /// The extents of at least `from..to`, which must be within the file.
    fn stretch(&self, nodes: &dyn Nodes, from: u64, to: u64) -> Result<Arc<Stretch>> {
        let fits = |s: &&Arc<Stretch>| s.from <= from && s.to >= to;
        let found = lock(&self.pace).stretches.iter().rev().find(fits).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        let mut stretch = Stretch { from, to: from, extents: Vec::new() };
        for item in MapReader::new(nodes, &self.map, from) {
            let (at, extent) = item?;
            stretch.to = at.saturating_add(extent.len());
            stretch.extents.push((at, extent));
            let enough =
                stretch.extents.len() >= STRETCH_ITEMS || stretch.to >= to.saturating_add(STRETCH);
            if stretch.to >= to && enough {
                break;
            }
        }
        if stretch.to < to {
            return Err(Error::damaged("a map", "it ends before the file does"));
        }
        let stretch = Arc::new(stretch);
        let mut pace = lock(&self.pace);
        pace.stretches.push_back(Arc::clone(&stretch));
        if pace.stretches.len() > STRETCHES {
            pace.stretches.pop_front();
        }
        Ok(stretch)
    }

    /// The next offset from `from` on that has data, or that has none; the end of the file counts
    /// as a hole. None when there is no such data.
    pub(super) fn seek(&self, nodes: &dyn Nodes, from: u64, data: bool) -> Result<Option<u64>> {
        if from >= self.len {
            return Ok(None);
        }
        for item in MapReader::new(nodes, &self.map, from) {
            let (at, extent) = item?;
            if matches!(extent, Extent::Data { .. }) == data {
                return Ok(Some(at.max(from)));
            }
        }
        Ok((!data).then_some(self.len))
    }
}

/// What could not be read: the error, and at which offset of the file.
pub(super) type Failed = (u64, Error);

/// Reads files.
pub(super) struct Reads {
    pub(super) nodes: NodeCache,
    chunks: ChunkCache,
    /// How many threads may read ahead at once, and how many do.
    limit: usize,
    ahead: AtomicUsize,
    /// Buffers for replies.
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Reads {
    /// With at most `limit` threads that read ahead.
    pub(super) fn new(source: &Shared, limit: usize) -> Self {
        Self {
            nodes: NodeCache::new(Arc::clone(source)),
            chunks: ChunkCache::new(Arc::clone(source)),
            limit,
            ahead: AtomicUsize::new(0),
            buffers: Mutex::default(),
        }
    }

    /// Hands the bytes at `offset` to `reply`, `size` of them or up to the file's end; then, when
    /// the file is read in order, reads ahead in this thread.
    pub(super) fn read(
        &self,
        file: &File,
        offset: u64,
        size: u32,
        reply: impl FnOnce(Result<&[u8], Failed>),
    ) {
        let to = offset.saturating_add(size.into()).min(file.len);
        if offset >= to {
            return reply(Ok(&[]));
        }
        match self.content(file, offset, to) {
            Err(failed) => return reply(Err(failed)),
            Ok(Content::Chunk(bytes, begin)) => {
                reply(Ok(&bytes[begin..begin + (to - offset) as usize]));
            }
            Ok(Content::Copied(buffer)) => {
                reply(Ok(&buffer));
                lock(&self.buffers).push(buffer);
            }
        }
        if let Some((from, to)) = file.note(offset, to) {
            self.read_ahead(file, from, to);
        }
    }

    fn content(&self, file: &File, from: u64, to: u64) -> Result<Content, Failed> {
        let stretch = file.stretch(&self.nodes, from, to).map_err(|e| (from, e))?;
        let part = stretch.part(from, to);
        let (places, wanted): (Vec<u64>, Vec<Wanted>) = data(part).unzip();
        let chunks = self.chunks.get(&wanted).map_err(|(i, e)| (places[i].max(from), e))?;
        if let ([(at, extent)], [chunk]) = (part, &chunks[..])
            && at + extent.len() >= to
        {
            return Ok(Content::Chunk(Arc::clone(chunk), (from - at) as usize));
        }
        let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
        buffer.clear();
        let mut chunks = chunks.iter();
        for (at, extent) in part {
            let begin = from.max(*at) - at;
            let end = to.min(at + extent.len()) - at;
            match extent {
                Extent::Hole { .. } => {
                    buffer.resize(buffer.len() + (end - begin) as usize, 0);
                }
                Extent::Data { .. } => {
                    let chunk = chunks.next().expect("one chunk was asked for by data extent");
                    buffer.extend_from_slice(&chunk[begin as usize..end as usize]);
                }
            }
        }
        Ok(Content::Copied(buffer))
    }

    /// Errors are left to who reads there.
    fn read_ahead(&self, file: &File, from: u64, to: u64) {
        if self.ahead.fetch_add(1, Ordering::AcqRel) < self.limit {
            if let Ok(stretch) = file.stretch(&self.nodes, from, to) {
                let wanted: Vec<Wanted> =
                    data(stretch.part(from, to)).map(|(_, wanted)| wanted).collect();
                self.chunks.prepare(&wanted);
            }
        } else {
            let mut pace = lock(&file.pace);
            pace.ahead = pace.ahead.min(from);
        }
        self.ahead.fetch_sub(1, Ordering::AcqRel);
    }

    /// The bytes of one chunk.
    pub(super) fn chunk(&self, wanted: Wanted) -> Result<Arc<Vec<u8>>> {
        let mut got = self.chunks.get(&[wanted]).map_err(|(_, e)| e)?;
        Ok(got.pop().expect("one chunk was asked for, and there was no error"))
    }
}

enum Content {
    /// All lies in this chunk, from there on.
    Chunk(Arc<Vec<u8>>, usize),
    Copied(Vec<u8>),
}

/// The chunks of extents, each with its offset.
fn data(part: &[(u64, Extent)]) -> impl Iterator<Item = (u64, Wanted)> + '_ {
    part.iter().filter_map(|(at, extent)| match extent {
        Extent::Data { id, len } => Some((*at, (*id, *len))),
        Extent::Hole { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use strongroom_engine::map::MapBuilder;

    use super::*;
    use crate::memory::Memory;
    use crate::store::Store;

    /// A file of data and holes; its bytes.
    fn file(memory: &Memory, parts: &[(bool, u16)]) -> (File, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut map = MapBuilder::new();
        for (i, (hole, len)) in parts.iter().enumerate() {
            let len = usize::from(*len) + 1;
            if *hole {
                bytes.resize(bytes.len() + len, 0);
                map.push(&memory, Extent::Hole { len: len as u64 }).unwrap();
            } else {
                let piece: Vec<u8> = (0..len).map(|at| (at * 7 + i * 31 + 1) as u8).collect();
                let mut ids = Vec::new();
                memory.store(&[&piece], &mut ids).unwrap();
                map.push(&memory, Extent::Data { id: ids[0], len: len as u32 }).unwrap();
                bytes.extend(piece);
            }
        }
        let map = map.finish(&memory).unwrap();
        (File::new(7, map), bytes)
    }

    fn read(reads: &Reads, file: &File, offset: u64, size: u32) -> Result<Vec<u8>, u64> {
        let mut out = None;
        reads.read(file, offset, size, |got| {
            out = Some(got.map(<[u8]>::to_vec).map_err(|(at, _)| at));
        });
        out.unwrap()
    }

    proptest! {
        #[test]
        fn any_read_gives_the_bytes_that_are_there(
            parts in prop::collection::vec((any::<bool>(), 0u16..3000), 0..200),
            asked in prop::collection::vec((0u64..300_000, 0u32..70_000), 1..20),
            in_order in any::<bool>(),
        ) {
            let memory = Arc::new(Memory::default());
            let (file, bytes) = file(&memory, &parts);
            let source: Shared = memory;
            let reads = Reads::new(&source, 1);
            let mut next = 0;
            for (offset, size) in asked {
                let offset = if in_order { next } else { offset };
                next = offset + u64::from(size);
                let from = (offset as usize).min(bytes.len());
                let to = (next as usize).min(bytes.len());
                prop_assert_eq!(read(&reads, &file, offset, size).unwrap(), &bytes[from..to]);
            }
            for from in [0, bytes.len() / 3, bytes.len()] {
                let mut at = from as u64;
                let mut data = false;
                // Walks over data and holes in turn, as copying programs do.
                while let Some(next) = file.seek(&reads.nodes, at, data).unwrap() {
                    if data {
                        prop_assert!(bytes[at as usize..next as usize].iter().all(|b| *b == 0));
                    }
                    if next >= bytes.len() as u64 { break; }
                    (at, data) = (next, !data);
                }
            }
        }
    }

    #[test]
    fn a_lost_chunk_is_an_error_at_its_place_and_nowhere_else() {
        let memory = Arc::new(Memory::default());
        let (file, bytes) = file(&memory, &[(false, 999), (false, 1999), (false, 999)]);
        let stretch = file.stretch(&*memory, 0, 4000).unwrap();
        let (_, Extent::Data { id, .. }) = stretch.extents[1] else { panic!() };
        memory.lost.lock().unwrap().insert(id);
        let source: Shared = memory;
        let reads = Reads::new(&source, 1);
        assert_eq!(read(&reads, &file, 0, 1000).unwrap(), &bytes[..1000]);
        assert_eq!(read(&reads, &file, 500, 1000), Err(1000));
        assert_eq!(read(&reads, &file, 1500, 10), Err(1500));
        assert_eq!(read(&reads, &file, 3000, 9000).unwrap(), &bytes[3000..]);
    }

    #[test]
    fn only_who_reads_in_order_makes_us_read_ahead() {
        let len = 100 << 20;
        let file = || File::new(7, MapRef::Inline(vec![Extent::Hole { len }]));
        let order = file();
        let step = 128 << 10;
        let mut ahead = 0;
        for at in (0..len).step_by(step) {
            if let Some((from, to)) = order.note(at, at + step as u64) {
                assert!(from >= ahead && to > from && to <= len);
                assert!(to - at <= AHEAD + 2 * NEAR);
                ahead = to;
            }
        }
        assert_eq!(ahead, len);
        let random = file();
        for i in 1..100 {
            let at = (i * 37 % 97) << 20;
            assert_eq!(random.note(at, at + 4096), None);
        }
    }
}
