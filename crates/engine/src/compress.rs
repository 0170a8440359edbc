//! Compression of frames: zstd, with contexts that are used again and again.
//!
//! | id | method | what is stored |
//! |---|---|---|
//! | 0 | raw | the bytes as they are |
//! | 1 | zstd | one zstd frame (RFC 8878) |
//!
//! The zstd frame has neither content size nor checksum nor dictionary id: its length before
//! compression stands in the pack's directory, and the pack's own seal or checksum covers it. It
//! begins with the four bytes of zstd's magic number, a frame header descriptor of 0, and a window
//! descriptor; the window is at most [`WINDOW_LOG`] (1 MiB). Any zstd decoder can read it.
//!
//! Raw is chosen when zstd would save less than 1/32. There is no test for incompressible data in
//! front: zstd skips through it at 6 to 8 GB/s on one core, as fast as any sample that could be
//! trusted, and without missing what repeats from afar (see `docs/benchmarks.md`).

use std::fmt;

use zstd::zstd_safe::{
    self, CCtx, CParameter, CompressionLevel, DCtx, SafeResult, get_error_name,
};

use crate::codec::DecodeError;
use crate::error::{Error, Result};

/// The largest window of a frame, as a power of two of bytes.
pub const WINDOW_LOG: u32 = 20;
/// The lowest and the highest level; memory for a context grows with it.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// What new pools get.
pub const DEFAULT_LEVEL: i32 = 1;

/// How a frame is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// As it is.
    Raw = 0,
    /// Compressed by zstd.
    Zstd = 1,
}

impl Method {
    /// The method with this id.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for any other.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(DecodeError::Unknown("the compression")),
        }
    }
}

/// Compresses frames, one after the other.
pub struct Compressor {
    context: CCtx<'static>,
    level: CompressionLevel,
}

impl Compressor {
    /// A compressor for this level; one out of [`LEVELS`] is taken to the nearest in it.
    ///
    /// # Panics
    /// When there is no memory for a context.
    pub fn new(level: i32) -> Self {
        let level = level.clamp(*LEVELS.start(), *LEVELS.end());
        let mut context = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            context.set_parameter(parameter).expect("zstd knows the parameter and its range");
        }
        Self { context, level }
    }

    /// Compresses `raw` into `out`, whose content is replaced. With [`Method::Raw`] `out` is empty:
    /// the bytes are to be stored as they are. Allocates nothing once `out` has grown and the
    /// context has seen a frame of this size.
    pub fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Method {
        out.clear();
        out.reserve(zstd_safe::compress_bound(raw.len()));
        match self.context.compress2(out, raw) {
            Ok(len) if len + raw.len() / 32 < raw.len() => Method::Zstd,
            // An error can only mean that memory is short; raw is always right.
            _ => {
                out.clear();
                Method::Raw
            }
        }
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        self.context.sizeof()
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Decompresses frames, one after the other.
pub struct Decompressor {
    context: DCtx<'static>,
}

impl Decompressor {
    /// A decompressor.
    ///
    /// # Panics
    /// When there is no memory for a context.
    pub fn new() -> Self {
        Self { context: DCtx::create() }
    }

    /// Gives back in `out`, whose content is replaced, the `raw_len` bytes that `stored` was made
    /// of. `raw_len` must have been bounded by the caller: so much memory is taken.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it isn't what [`Compressor::compress`] gave, or has another length;
    /// `out` is empty then.
    pub fn decompress(
        &mut self,
        method: Method,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        let done: SafeResult = match method {
            Method::Raw if stored.len() == raw_len => {
                out.extend_from_slice(stored);
                Ok(raw_len)
            }
            Method::Raw => Ok(stored.len()),
            Method::Zstd => {
                out.reserve(raw_len);
                self.context.decompress(out, stored)
            }
        };
        let why = match done {
            Ok(len) if len == raw_len => return Ok(()),
            Ok(len) => format!("it holds {len} bytes and not {raw_len}"),
            Err(code) => get_error_name(code).to_owned(),
        };
        out.clear();
        Err(Error::damaged("a compressed frame", why))
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Bytes without any pattern, always the same (xorshift64*).
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }
    fn text(len: usize) -> Vec<u8> {
        let n = noise(len);
        let words: Vec<&[u8]> = b"the of and a to in he have it that for they with as not on she at by this we you do but from or which one would all will there say who make when can more if no man out".split(|b| *b == b' ').collect();
        let mut t = Vec::new();
        for b in n { t.extend_from_slice(words[b as usize % words.len()]); t.push(b' '); if t.len() >= len { break; } }
        t.truncate(len);
        t
    }
    #[test]
    fn tmp_bench() {
        let real = { let mut v = std::fs::read("/usr/bin/python3.11").unwrap(); v.truncate(4<<20); v };
        let bin: Vec<u8> = { let mut v = std::fs::read(std::env::current_exe().unwrap()).unwrap(); v.truncate(32<<20); v };
        let mut gz = Vec::new();
        for e in std::fs::read_dir("/tmp/gz").unwrap() { gz.extend(std::fs::read(e.unwrap().path()).unwrap()); }
        for (name, data) in [("noise", noise(16<<20)), ("words", text(16<<20)), ("python", real), ("exe", bin), ("gz", gz)] {
            for level in [1, 2, 3, 6, 9, 12, 15, 19] {
                for piece in [256usize<<10, 512<<10] {
                let mut c = Compressor::new(level);
                let mut out = Vec::new();
                c.compress(&data[..piece.min(data.len())], &mut out);
                let mut stored = 0; let mut raws = 0;
                let mut best = f64::MAX;
                for _ in 0..(if level > 9 {1} else {3}) {
                stored = 0; raws = 0;
                let now = std::time::Instant::now();
                for p in data.chunks(piece) { match c.compress(p, &mut out) { Method::Raw => { raws += 1; stored += p.len() } Method::Zstd => stored += out.len() } }
                best = best.min(now.elapsed().as_secs_f64());
                }
                eprintln!("BENCH {name} L{level} {piece} ratio {:.3} raws {raws} {:.0} MB/s mem {}", data.len() as f64 / stored as f64, data.len() as f64 / best / 1e6, c.memory());
                let mut d = Decompressor::new(); let mut o2 = Vec::new();
                let m = c.compress(&data[..piece], &mut out);
                let s = if m == Method::Raw { &data[..piece] } else { &out[..] };
                d.decompress(m, s, piece, &mut o2).unwrap();
                assert!(o2 == data[..piece]);
                }
            }
        }
        let mut c = Compressor::new(1);
        let mut c3 = Compressor::new(3);
        let mut out = Vec::new();
        let big = text(8<<20);
        c.compress(&big, &mut out); c3.compress(&big, &mut out);
        eprintln!("BENCH mem for 8 MiB: L1 {} L3 {} d {}", c.memory(), c3.memory(), Decompressor::new().context.sizeof());
        // probe
        let data = noise(512<<10);
        let now = std::time::Instant::now();
        let mut c = Compressor::new(1);
        for _ in 0..200 { for at in [0usize, 128<<10, 256<<10, 384<<10] { c.compress(&data[at..at+4096], &mut out); } }
        eprintln!("BENCH probe of 4x4K: {:?} a frame", now.elapsed() / 200);
        let now = std::time::Instant::now();
        for _ in 0..200 { c.compress(&data, &mut out); }
        eprintln!("BENCH whole 512K: {:?} a frame", now.elapsed() / 200);
    }
}
