//! Reading content in order: a file, a block image or a stream, whole or in part.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{Extent, MapReader, MapRef};
use strongroom_engine::{Error, Result};

use crate::store::Source;

/// How much is read from the pool at once, in bytes and chunks.
const WINDOW: u64 = 8 << 20;
const CHUNKS: usize = 4096;
/// Holes are written in pieces of so many bytes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Where a part of a chunk goes in a window.
struct Part {
    id: ChunkId,
    from: usize,
    len: usize,
    at: usize,
    chunk: u32,
}

/// Writes the bytes of `map` from `offset` on, `len` of them or as many as there are. Memory is
/// bounded; the chunks of each window are read in the pool's order, on all threads.
///
/// # Errors
/// Those of the pool when any chunk can't be read: what was written before is right. Those of
/// `out` as [`Error::Io`].
pub fn cat(
    source: &dyn Source,
    map: &MapRef,
    offset: u64,
    len: u64,
    out: &mut dyn Write,
) -> Result<()> {
    let end = offset.saturating_add(len).min(map.len());
    let mut parts: Vec<Part> = Vec::new();
    let mut buf = Vec::new();
    let mut filled = 0usize;
    for step in MapReader::new(source, map, offset) {
        let (start, extent) = step?;
        if start >= end {
            break;
        }
        let stop = (start + extent.len()).min(end);
        let from = offset.max(start);
        match extent {
            Extent::Data { id, len: chunk } => {
                let len = (stop - from) as usize;
                parts.push(Part { id, from: (from - start) as usize, len, at: filled, chunk });
                filled += len;
                if filled as u64 >= WINDOW || parts.len() >= CHUNKS {
                    flush(source, &mut parts, &mut buf, &mut filled, out)?;
                }
            }
            Extent::Hole { .. } => {
                flush(source, &mut parts, &mut buf, &mut filled, out)?;
                let mut left = stop - from;
                while left > 0 {
                    let piece = left.min(ZEROES.len() as u64);
                    put(out, &ZEROES[..piece as usize])?;
                    left -= piece;
                }
            }
        }
    }
    flush(source, &mut parts, &mut buf, &mut filled, out)
}

fn put(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|e| Error::io("writing the output", e))
}

fn flush(
    source: &dyn Source,
    parts: &mut Vec<Part>,
    buf: &mut Vec<u8>,
    filled: &mut usize,
    out: &mut dyn Write,
) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    buf.resize((*filled).max(buf.len()), 0);
    let wanted: Vec<ChunkId> = parts.iter().map(|part| part.id).collect();
    let shared = Mutex::new((&mut *buf, None::<Error>));
    let sink = |i: usize, bytes: &[u8]| {
        let part = &parts[i];
        if bytes.len() != part.chunk as usize {
            let why = format!("it has {} bytes, not {}", bytes.len(), part.chunk);
            return Err(Error::damaged(format!("chunk {}", part.id), why));
        }
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.0[part.at..part.at + part.len]
            .copy_from_slice(&bytes[part.from..part.from + part.len]);
        Ok(())
    };
    let failed = |_: usize, error: Error| {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.1.get_or_insert(error);
    };
    source.fetch(&wanted, &sink, &failed)?;
    if let Some(error) = shared.into_inner().unwrap_or_else(PoisonError::into_inner).1 {
        return Err(error);
    }
    put(out, &buf[..*filled])?;
    parts.clear();
    *filled = 0;
    Ok(())
}

/// Content as a stream of bytes, for writers that want to pull: reads a window ahead.
pub struct Content<'s> {
    source: &'s dyn Source,
    map: &'s MapRef,
    at: u64,
    window: Vec<u8>,
    given: usize,
}

impl std::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content(at {})", self.at)
    }
}

impl<'s> Content<'s> {
    /// The content of `map` from its first byte.
    pub fn new(source: &'s dyn Source, map: &'s MapRef) -> Self {
        Self { source, map, at: 0, window: Vec::new(), given: 0 }
    }
}

impl io::Read for Content<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.given == self.window.len() {
            self.window.clear();
            self.given = 0;
            cat(self.source, self.map, self.at, WINDOW, &mut self.window)
                .map_err(io::Error::other)?;
            self.at += self.window.len() as u64;
        }
        let rest = &self.window[self.given..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::Memory;
    use crate::store::Store;

    fn build(pool: &Memory, pieces: &[(bool, Vec<u8>)]) -> (MapRef, Vec<u8>) {
        let mut extents = Vec::new();
        let mut content = Vec::new();
        for (hole, bytes) in pieces {
            if *hole {
                extents.push(Extent::Hole { len: bytes.len() as u64 });
                content.extend(vec![0; bytes.len()]);
            } else {
                let mut ids = Vec::new();
                pool.store(&[bytes], &mut ids).unwrap();
                extents.push(Extent::Data { id: ids[0], len: bytes.len() as u32 });
                content.extend(bytes);
            }
        }
        (MapRef::Inline(extents), content)
    }

    proptest! {
        #[test]
        fn any_part_is_right(
            pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..50)), 0..9),
            offset in 0u64..300,
            len in 0u64..300,
        ) {
            let pool = &Memory::default();
            let (map, content) = build(pool, &pieces);
            let mut out = Vec::new();
            cat(pool, &map, offset, len, &mut out).unwrap();
            let from = (offset as usize).min(content.len());
            let to = (from + len as usize).min(content.len());
            prop_assert_eq!(&out, &content[from..to]);
            let mut all = Vec::new();
            Content::new(pool, &map).read_to_end(&mut all).unwrap();
            prop_assert_eq!(all, content);
        }
    }

    #[test]
    fn a_lost_chunk_is_an_error() {
        let pool = Memory::default();
        let (map, _) = build(&pool, &[(false, vec![1; 9])]);
        pool.lost.lock().unwrap().extend(map.ids());
        assert!(cat(&pool, &map, 0, 9, &mut Vec::new()).is_err());
    }
}
