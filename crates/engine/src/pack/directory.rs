//! The directory and the footer of a pack. The layout is in [the module above](super).

use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, Location, PackId};

/// The length of a footer, in bytes.
pub const FOOTER_LEN: usize = 32;
const MAGIC: &[u8; 8] = b"SRPKEND1";

/// One frame of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Where it begins in the pack, in bytes.
    pub offset: u32,
    /// Its stored length, in bytes.
    pub len: u32,
    /// Its chunks and their lengths, in order.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// Which frames and chunks a pack has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// All frames, in order of their offsets.
    pub frames: Vec<FrameEntry>,
}

impl Directory {
    /// How many chunks the pack has.
    pub fn chunks(&self) -> u32 {
        self.frames.iter().map(|f| f.chunks.len() as u32).sum()
    }

    /// The record that is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.uint(self.frames.len() as u64);
        for frame in &self.frames {
            w.uint(frame.len.into());
            w.uint(frame.chunks.len() as u64);
            for (id, len) in &frame.chunks {
                w.raw(&id.0);
                w.uint((*len).into());
            }
        }
        w.finish()
    }

    /// Reads what [`Directory::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a directory.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let mut frames = Vec::with_capacity(r.clone().count(2)?);
        let mut offset = 0u32;
        for _ in 0..r.count(2)? {
            let len = r.uint32()?;
            let count = r.count(33)?;
            let mut chunks = Vec::with_capacity(count);
            for _ in 0..count {
                chunks.push((ChunkId(r.array()?), r.uint32()?));
            }
            frames.push(FrameEntry { offset, len, chunks });
            offset = offset.checked_add(len).ok_or(DecodeError::Overlong)?;
        }
        r.end()?;
        Ok(Self { frames })
    }

    /// Every chunk with its place, in order of ordinals.
    pub fn locations(
        &self,
        pack: PackId,
        kind: ChunkKind,
    ) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        let places = self.frames.iter().flat_map(|frame| {
            let mut offset = 0u32;
            frame.chunks.iter().map(move |(id, len)| {
                let at = offset;
                offset = offset.saturating_add(*len);
                (id, at, *len, frame)
            })
        });
        places.enumerate().map(move |(ordinal, (id, offset, len, frame))| {
            let location = Location {
                pack,
                ordinal: ordinal as u32,
                frame_offset: frame.offset,
                frame_len: frame.len,
                offset,
                len,
                kind,
            };
            (*id, location)
        })
    }
}

/// The last bytes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the directory begins.
    pub offset: u32,
    /// Its stored length.
    pub len: u32,
    /// How many chunks it lists.
    pub chunks: u32,
}

impl Footer {
    /// The bytes that are stored.
    pub fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut bytes = [0; FOOTER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.chunks.to_le_bytes());
        let sum = xxh3_64(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the footer of a pack of `pack_len` bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it isn't one, or points outside of the pack.
    pub fn decode(bytes: &[u8; FOOTER_LEN], pack_len: u64, what: &str) -> Result<Self> {
        let word = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
        };
        if &bytes[..8] != MAGIC || xxh3_64(&bytes[..24]).to_le_bytes() != bytes[24..] {
            return Err(Error::damaged(what, "its footer is not one"));
        }
        let footer = Self { offset: word(8), len: word(12), chunks: word(16) };
        let end = u64::from(footer.offset) + u64::from(footer.len) + FOOTER_LEN as u64;
        if end != pack_len || word(20) != 0 {
            return Err(Error::damaged(what, "its footer does not fit its length"));
        }
        Ok(footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn directory() -> Directory {
        let chunk = |n: u8, len| (ChunkId([n; 32]), len);
        Directory {
            frames: vec![
                FrameEntry { offset: 0, len: 100, chunks: vec![chunk(1, 50), chunk(2, 70)] },
                FrameEntry { offset: 100, len: 9, chunks: vec![chunk(3, 5)] },
            ],
        }
    }

    #[test]
    fn a_directory_survives_its_bytes_and_places_its_chunks() {
        let directory = directory();
        assert_eq!(Directory::decode(&directory.encode()).as_ref(), Ok(&directory));
        let places: Vec<_> = directory.locations(PackId(7), ChunkKind::Data).collect();
        assert_eq!(places.len(), 3);
        assert_eq!((places[1].1.ordinal, places[1].1.offset, places[1].1.len), (1, 50, 70));
        assert_eq!((places[2].1.frame_offset, places[2].1.offset), (100, 0));
    }

    #[test]
    fn a_footer_with_any_bit_changed_is_refused() {
        let footer = Footer { offset: 200, len: 68, chunks: 3 };
        let bytes = footer.encode();
        assert_eq!(Footer::decode(&bytes, 300, "pack").ok(), Some(footer));
        assert!(Footer::decode(&bytes, 301, "pack").is_err());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&bad, 300, "pack").is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_directory_panic(bytes in any::<Vec<u8>>()) {
            if let Ok(directory) = Directory::decode(&bytes) {
                let _ = directory.locations(PackId(1), ChunkKind::Node).count();
            }
        }
    }
}
