//! How chunks travel to a pool that is elsewhere.
//!
//! # Ids
//! | field | bytes | meaning |
//! |---|---|---|
//! | kind | 1 | 0 data, 1 nodes |
//! | ids | 32 each | to the end, [`MAX_IDS`] at most |
//!
//! The answer to ids is a string of bits, one for each in the same order, the lowest of a byte
//! first.
//!
//! # Frames
//! One after the other to the end, [`MAX_FRAMES`] bytes at most:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | kind | 1 byte | 0 data, 1 nodes |
//! | chunks | varint count, then each: 32 bytes, varint | their ids and lengths, in order |
//! | frame | varint length, bytes | the chunks, compressed ([`strongroom_engine::pack`]) |
//!
//! # Pieces
//! Data as it is, for a pool that is near: it names and compresses them itself. [`MAX_FRAMES`] bytes at
//! most:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | count | varint | how many, [`MAX_IDS`] at most |
//! | lengths | varints | of each, not 0, [`MAX_CHUNK`] at most |
//! | bytes | to the end | all of them, one after the other |

use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::pool::MAX_CHUNK;

/// How many ids are sent at once, at most.
pub const MAX_IDS: usize = 4096;
/// How many requests of one backup are under way at once, at most.
pub const MAX_PARALLEL: usize = 8;
/// The longest string of frames, or of pieces, in bytes: one of the largest chunk fits.
pub const MAX_FRAMES: usize = MAX_CHUNK + (64 << 10);

fn kind(code: u8) -> Result<ChunkKind, DecodeError> {
    ChunkKind::from_code(code).ok_or(DecodeError::Unknown("the kind of chunks"))
}

/// Ids as they travel.
pub fn put_ids(kind: ChunkKind, ids: &[ChunkId]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 32 * ids.len());
    out.push(kind as u8);
    ids.iter().for_each(|id| out.extend_from_slice(&id.0));
    out
}

/// Reads what [`put_ids`] wrote.
///
/// # Errors
/// [`DecodeError`] for what isn't that.
pub fn ids(bytes: &[u8]) -> Result<(ChunkKind, Vec<ChunkId>), DecodeError> {
    let (code, rest) = bytes.split_first().ok_or(DecodeError::Short)?;
    let (ids, left) = rest.as_chunks::<32>();
    if !left.is_empty() {
        return Err(DecodeError::Trailing);
    }
    if ids.len() > MAX_IDS {
        return Err(DecodeError::Unknown("the number of ids"));
    }
    Ok((kind(*code)?, ids.iter().map(|id| ChunkId(*id)).collect()))
}

/// Bits as they travel.
pub fn put_bits(bits: impl IntoIterator<Item = bool>) -> Vec<u8> {
    let mut out = Vec::new();
    for (place, bit) in bits.into_iter().enumerate() {
        if place % 8 == 0 {
            out.push(0);
        }
        out[place / 8] |= u8::from(bit) << (place % 8);
    }
    out
}

/// Reads so many bits of what [`put_bits`] wrote.
///
/// # Errors
/// [`DecodeError`] when they are not as many.
pub fn bits(bytes: &[u8], count: usize) -> Result<Vec<bool>, DecodeError> {
    if bytes.len() != count.div_ceil(8) {
        return Err(DecodeError::Short);
    }
    Ok((0..count).map(|place| bytes[place / 8] >> (place % 8) & 1 == 1).collect())
}

/// Appends pieces as they travel.
pub fn put_pieces(pieces: &[&[u8]], out: &mut Vec<u8>) {
    let mut w = Writer::new();
    w.uint(pieces.len() as u64);
    pieces.iter().for_each(|piece| w.uint(piece.len() as u64));
    let lens = w.finish();
    out.reserve(lens.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>());
    out.extend_from_slice(&lens);
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
}

/// Reads what [`put_pieces`] wrote.
///
/// # Errors
/// [`DecodeError`] for what isn't that.
pub fn pieces(bytes: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let mut r = Reader::new(bytes);
    let count = r.count(1)?;
    if count > MAX_IDS {
        return Err(DecodeError::Unknown("the number of pieces"));
    }
    let lens: Vec<u32> = (0..count).map(|_| r.uint32()).collect::<Result<_, _>>()?;
    let mut rest = r.rest();
    let mut take = |len: u32| -> Result<&[u8], DecodeError> {
        let (piece, after) = rest.split_at_checked(len as usize).ok_or(DecodeError::Short)?;
        rest = after;
        match piece.len() {
            1..=MAX_CHUNK => Ok(piece),
            _ => Err(DecodeError::Unknown("the length of a piece")),
        }
    };
    let pieces = lens.into_iter().map(&mut take).collect::<Result<_, _>>()?;
    if rest.is_empty() { Ok(pieces) } else { Err(DecodeError::Trailing) }
}

/// Chunks that were compressed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What they are.
    pub kind: ChunkKind,
    /// Their ids and lengths.
    pub chunks: Vec<(ChunkId, u32)>,
    /// The frame.
    pub bytes: &'a [u8],
}

impl Frame<'_> {
    /// How many bytes it takes on its way, or a few less.
    #[allow(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len() + 35 * self.chunks.len() + 4
    }

    /// Appends it to a string of frames.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new();
        w.byte(self.kind as u8);
        w.uint(self.chunks.len() as u64);
        for (id, len) in &self.chunks {
            w.raw(&id.0);
            w.uint((*len).into());
        }
        w.uint(self.bytes.len() as u64);
        out.extend_from_slice(&w.finish());
        out.extend_from_slice(self.bytes);
    }
}

/// Takes frames from the front of a string of them.
#[derive(Clone, Debug)]
pub struct Frames<'a>(Reader<'a>);

impl<'a> Frames<'a> {
    /// Those of this string.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    /// The next one; None at the end.
    ///
    /// # Errors
    /// [`DecodeError`] for what isn't one.
    pub fn take(&mut self) -> Result<Option<Frame<'a>>, DecodeError> {
        let r = &mut self.0;
        if r.rest().is_empty() {
            return Ok(None);
        }
        let kind = kind(r.byte()?)?;
        let count = r.count(33)?;
        let chunks = (0..count).map(|_| Ok((ChunkId(r.array()?), r.uint32()?)));
        let chunks = chunks.collect::<Result<_, DecodeError>>()?;
        Ok(Some(Frame { kind, chunks, bytes: r.bytes()? }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_travels_arrives() {
        let all = [ChunkId([1; 32]), ChunkId([2; 32])];
        let sent = put_ids(ChunkKind::Node, &all);
        assert_eq!(ids(&sent), Ok((ChunkKind::Node, all.to_vec())));
        assert_eq!(ids(&sent[..40]), Err(DecodeError::Trailing));
        assert!(ids(&put_ids(ChunkKind::Data, &[all[0]; MAX_IDS + 1])).is_err());
        let pattern: Vec<bool> = (0..19).map(|n| n % 3 == 0).collect();
        assert_eq!(bits(&put_bits(pattern.iter().copied()), 19), Ok(pattern));
        assert!(bits(&[0], 9).is_err());
        let frame = |kind, bytes| Frame { kind, chunks: vec![(all[0], 7), (all[1], 300)], bytes };
        let (a, b) = (frame(ChunkKind::Data, &b"a frame"[..]), frame(ChunkKind::Node, &b""[..]));
        let mut sent = Vec::new();
        a.put(&mut sent);
        b.put(&mut sent);
        let mut frames = Frames::new(&sent);
        assert_eq!(frames.take(), Ok(Some(a)));
        assert_eq!(frames.take(), Ok(Some(b)));
        assert_eq!(frames.take(), Ok(None));
        assert!(Frames::new(&sent[..50]).take().is_err());
        let put_pieces = |pieces: &[&[u8]]| {
            let mut out = Vec::new();
            put_pieces(pieces, &mut out);
            out
        };
        let sent = put_pieces(&[b"one", b"another"]);
        assert_eq!(pieces(&sent), Ok(vec![&b"one"[..], b"another"]));
        assert_eq!(pieces(&sent[..5]), Err(DecodeError::Short));
        assert_eq!(pieces(&[&sent[..], b"x"].concat()), Err(DecodeError::Trailing));
        assert!(pieces(&put_pieces(&[b""])).is_err());
        assert!(pieces(&put_pieces(&[&b"x"[..]; MAX_IDS + 1])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in any::<Vec<u8>>()) {
            let _ = (ids(&bytes), pieces(&bytes));
            let mut frames = Frames::new(&bytes);
            while let Ok(Some(_)) = frames.take() {}
        }
    }
}
