//! Frames: chunks that are compressed and sealed together. The layout is in [the module
//! above](super).

use crate::compress::{Compressor, Decompressor, Effort, Method};
use crate::error::{Error, Result};

/// The largest frame before compression, in bytes: what its tail can say.
pub const MAX_FRAME: usize = (1 << 24) - 1;
/// The length of a frame's tail, in bytes.
pub const FRAME_TAIL: usize = 4;

/// Compresses and decompresses frames with contexts and buffers that are kept.
#[derive(Debug)]
pub struct FrameCodec {
    compressor: Compressor,
    decompressor: Decompressor,
}

impl FrameCodec {
    /// A codec that compresses at this zstd level.
    pub fn new(level: i32) -> Self {
        Self { compressor: Compressor::new(level), decompressor: Decompressor::new() }
    }

    /// Replaces `out` by a frame that holds `raw`.
    ///
    /// # Panics
    /// When `raw` is longer than [`MAX_FRAME`]; callers bound it.
    pub fn encode(&mut self, raw: &[u8], effort: Effort, out: &mut Vec<u8>) {
        assert!(raw.len() <= MAX_FRAME, "a frame holds at most {MAX_FRAME} bytes");
        let method = self.compressor.compress(raw, effort, out);
        if method == Method::Raw {
            out.clear();
            out.extend_from_slice(raw);
        }
        out.push(method as u8);
        out.extend_from_slice(&(raw.len() as u32).to_le_bytes()[..3]);
    }

    /// Whether an opened frame has its chunks as they were, not compressed.
    pub fn is_as_it_was(frame: &[u8]) -> bool {
        split(frame).is_ok_and(|(method, ..)| method == Method::Raw)
    }

    /// How many bytes an opened frame says that its chunks have.
    pub fn raw_len(frame: &[u8]) -> Option<usize> {
        let [_, len @ ..] = frame.last_chunk::<FRAME_TAIL>()?;
        Some(u32::from_le_bytes([len[0], len[1], len[2], 0]) as usize)
    }

    /// Replaces `out` by the chunks of an opened frame.
    ///
    /// # Errors
    /// [`Error::Damaged`] when `frame` isn't one.
    pub fn decode(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let (method, body, raw_len) = split(frame)?;
        self.decompressor.decompress(method, body, raw_len, out)
    }

    /// The chunks of an opened frame: where they are if they were not compressed, else in `out`.
    ///
    /// # Errors
    /// As [`FrameCodec::decode`].
    pub fn view<'a>(&mut self, frame: &'a [u8], out: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        match split(frame)? {
            (Method::Raw, body, raw_len) if body.len() == raw_len => Ok(body),
            (method, body, raw_len) => {
                self.decompressor.decompress(method, body, raw_len, out)?;
                Ok(out)
            }
        }
    }
}

/// Takes a frame apart: how it is stored, what is stored, and the length it has uncompressed.
fn split(frame: &[u8]) -> Result<(Method, &[u8], usize)> {
    let what = "a frame";
    let (body, tail) = frame
        .split_last_chunk::<FRAME_TAIL>()
        .ok_or_else(|| Error::damaged(what, "it is shorter than its tail"))?;
    let method = Method::from_code(tail[0]).map_err(Error::decoding(what))?;
    let raw_len = u32::from_le_bytes([tail[1], tail[2], tail[3], 0]) as usize;
    Ok((method, body, raw_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whether_they_compress_or_not() {
        let mut codec = FrameCodec::new(1);
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for (raw, shrinks) in [(vec![7; 100_000], true), (noise, false), (Vec::new(), false)] {
            let (mut frame, mut back) = (Vec::new(), Vec::new());
            codec.encode(&raw, Effort::More, &mut frame);
            assert_eq!(frame.len() < raw.len(), shrinks);
            assert!(codec.decode(&frame, &mut back).is_ok());
            assert_eq!(back, raw);
            assert!(codec.view(&frame, &mut back).is_ok_and(|view| view == raw));
        }
        assert!(codec.view(&[0, 200, 0, 0], &mut Vec::new()).is_err());
        assert!(codec.decode(&[0, 1], &mut Vec::new()).is_err());
        assert!(codec.decode(&[0, 9, 1, 0, 0], &mut Vec::new()).is_err());
        assert!(codec.decode(&[0, 0, 200, 0, 0], &mut Vec::new()).is_err());
    }
}
