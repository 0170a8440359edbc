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
//! Raw is chosen when zstd would save less than 1/32, and without trying when 16 samples of 1 KiB,
//! spread evenly over a frame of at least 128 KiB, all save less than that at level 1. Measured on
//! one core with frames of 512 KiB at level 1 (zstd alone, then with samples first): random bytes
//! 5.5 and 16.8 GB/s, gzip files 2.3 and 4.7 GB/s at 0.03 % more bytes, a mixture of one part of
//! programs with seven of gzip files 0.02 % more bytes, programs no slower and no larger. Four
//! samples of 4 KiB were faster still, but lost a third of what the mixture had to give.

use std::fmt;

use zstd::zstd_safe::{self, CCtx, CParameter, CompressionLevel, DCtx, SafeResult, get_error_name};

use crate::codec::DecodeError;
use crate::error::{Error, Result};

/// The largest window of a frame, as a power of two of bytes.
pub const WINDOW_LOG: u32 = 20;
/// The lowest and the highest level; memory for a context grows with it.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// What new pools get.
pub const DEFAULT_LEVEL: i32 = 1;

/// How hard to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// None: bytes are stored as they are.
    None,
    /// The pool's level.
    #[default]
    Usual,
    /// Four levels more, for what takes longer to collect than to compress: small files, and
    /// nodes. Of a source tree it leaves a tenth less, for half as much time of the processor again.
    More,
}

impl Effort {
    fn level(self, level: CompressionLevel) -> CompressionLevel {
        match self {
            Self::None | Self::Usual => level,
            Self::More => (level + 4).min(*LEVELS.end()),
        }
    }
}

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

/// How many samples are taken of a frame.
const SAMPLES: usize = 16;
/// How long each is, in bytes.
const SAMPLE_LEN: usize = 1 << 10;
/// The shortest frame of which samples are taken, in bytes: of this one, an eighth.
const SAMPLED_FROM: usize = 8 * SAMPLES * SAMPLE_LEN;

/// Compresses frames, one after the other.
pub struct Compressor {
    context: CCtx<'static>,
    /// For samples, so that their size doesn't make the other one lay out its memory anew.
    sampler: CCtx<'static>,
    level: CompressionLevel,
    /// The level that the context has now.
    current: CompressionLevel,
}

/// A context that writes frames as the module's text says.
fn context(level: CompressionLevel) -> CCtx<'static> {
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
    context
}

/// Compresses `raw` into `out` and says whether that saves enough.
fn saves(context: &mut CCtx<'static>, raw: &[u8], out: &mut Vec<u8>) -> bool {
    // An error can only mean that memory is short; raw is always right.
    context.compress2(out, raw).is_ok_and(|len| len + raw.len() / 32 < raw.len())
}

impl Compressor {
    /// A compressor for this level; one out of [`LEVELS`] is taken to the nearest in it.
    ///
    /// # Panics
    /// When there is no memory for a context.
    pub fn new(level: i32) -> Self {
        let level = level.clamp(*LEVELS.start(), *LEVELS.end());
        Self { context: context(level), sampler: context(1), level, current: level }
    }

    /// Compresses `raw` into `out`, whose content is replaced. With [`Method::Raw`] `out` is empty:
    /// the bytes are to be stored as they are. Allocates nothing once `out` has grown and the
    /// context has seen a frame of this size.
    pub fn compress(&mut self, raw: &[u8], effort: Effort, out: &mut Vec<u8>) -> Method {
        out.clear();
        if effort == Effort::None {
            return Method::Raw;
        }
        let level = effort.level(self.level);
        if level != self.current {
            let parameter = CParameter::CompressionLevel(level);
            self.context.set_parameter(parameter).expect("zstd knows the level");
            self.current = level;
        }
        out.reserve(zstd_safe::compress_bound(raw.len()));
        let worth_it = raw.len() < SAMPLED_FROM
            || raw
                .chunks_exact(raw.len() / SAMPLES)
                .any(|part| saves(&mut self.sampler, &part[..SAMPLE_LEN], out));
        if worth_it && saves(&mut self.context, raw, out) {
            Method::Zstd
        } else {
            out.clear();
            Method::Raw
        }
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        self.context.sizeof() + self.sampler.sizeof()
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
    use proptest::prelude::*;

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

    /// Words in no order: compresses to a third.
    fn text(len: usize) -> Vec<u8> {
        const WORDS: [&str; 8] =
            ["pack ", "chunk ", "disk ", "a ", "the ", "image ", "of ", "root "];
        let words = noise(len).into_iter().flat_map(|b| WORDS[usize::from(b % 8)].bytes());
        words.take(len).collect()
    }

    fn round_trip(raw: &[u8], level: i32) -> (Method, usize) {
        let mut out = vec![7; 3];
        let method = Compressor::new(level).compress(raw, Effort::Usual, &mut out);
        let stored = if method == Method::Raw { raw } else { &out };
        let mut back = vec![7; 3];
        Decompressor::new().decompress(method, stored, raw.len(), &mut back).unwrap();
        assert!(back == raw);
        (method, stored.len())
    }

    #[test]
    fn every_level_gives_back_what_was_put_in() {
        for level in [i32::MIN, 1, 3, 9, 19, i32::MAX] {
            let (method, len) = round_trip(&text(150_000), level);
            assert_eq!(method, Method::Zstd);
            assert!(len < 75_000, "{len}");
        }
    }

    #[test]
    fn what_saves_too_little_stays_raw() {
        for len in [0, 1, 100, 5_000, 130_000, 600_000] {
            assert_eq!(round_trip(&noise(len), 1), (Method::Raw, len));
        }
        // Long enough for samples, and short of one part in 32.
        let mut mostly = noise(300_000);
        mostly[..8_000].fill(0);
        assert_eq!(round_trip(&mostly, 1).0, Method::Raw);
        let mut out = vec![1];
        Compressor::new(1).compress(&mostly, Effort::Usual, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn one_compressible_stretch_is_not_overlooked() {
        let mut mixed = noise(512 << 10);
        mixed[200_000..240_000].copy_from_slice(&text(40_000));
        let (method, len) = round_trip(&mixed, 1);
        assert_eq!(method, Method::Zstd);
        assert!(len < mixed.len() - 20_000, "{len}");
    }

    #[test]
    fn frames_begin_as_documented() {
        let mut out = Vec::new();
        for len in [1_000, 200_000, 3 << 20] {
            Compressor::new(3).compress(&text(len), Effort::Usual, &mut out);
            assert_eq!(out[..5], [0x28, 0xb5, 0x2f, 0xfd, 0], "magic number, then no flag at all");
            // The exponent of the window, from 2^10 on, stands in the upper five bits.
            assert!(out[5] <= ((WINDOW_LOG - 10) << 3) as u8, "{:#x}", out[5]);
        }
    }

    /// Written by zstd's command line tool: what any encoder makes can be read.
    #[test]
    fn golden_frame() {
        let frame = [
            0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x48, 0x4d, 0x00, 0x00, 0x10, 0x61, 0x61, 0x01, 0x00,
            0xe3, 0x2b, 0x80, 0x05,
        ];
        let mut out = Vec::new();
        Decompressor::new().decompress(Method::Zstd, &frame, 1_000, &mut out).unwrap();
        assert_eq!(out, [b'a'; 1_000]);
    }

    #[test]
    fn another_length_is_refused() {
        let raw = text(10_000);
        let mut stored = Vec::new();
        let mut out = Vec::with_capacity(1 << 20);
        assert_eq!(Compressor::new(1).compress(&raw, Effort::Usual, &mut stored), Method::Zstd);
        for len in [0, 9_999, 10_001] {
            for (method, stored) in [(Method::Zstd, &stored), (Method::Raw, &raw)] {
                let refused = Decompressor::new().decompress(method, stored, len, &mut out);
                assert!(matches!(refused, Err(Error::Damaged { .. })), "{method:?} {len}");
                assert!(out.is_empty());
            }
        }
        let mut exact = Vec::new();
        assert!(Decompressor::new().decompress(Method::Zstd, &stored, 9_999, &mut exact).is_err());
    }

    #[test]
    fn contexts_are_small_and_used_again() {
        let raw = text(512 << 10);
        for level in 1..=3 {
            let mut compressor = Compressor::new(level);
            let mut out = Vec::new();
            compressor.compress(&raw, Effort::Usual, &mut out);
            let before = (compressor.memory(), out.as_ptr(), out.capacity());
            assert!(before.0 < 2 << 20, "{before:?}");
            compressor.compress(&raw, Effort::Usual, &mut out);
            compressor.compress(&raw[..1_000], Effort::Usual, &mut out);
            assert_eq!((compressor.memory(), out.as_ptr(), out.capacity()), before);
        }
    }

    proptest! {
        #[test]
        fn no_stored_bytes_make_it_panic(
            noise in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), len in 0..4_000usize,
        ) {
            let mut decompressor = Decompressor::new();
            let mut out = Vec::new();
            let _ = decompressor.decompress(Method::Zstd, &noise, len, &mut out);
            let raw = text(2_000);
            let mut stored = Vec::new();
            Compressor::new(1).compress(&raw, Effort::Usual, &mut stored);
            let whole = stored.clone();
            stored.splice(at.index(whole.len()).., noise);
            if decompressor.decompress(Method::Zstd, &stored, len, &mut out).is_ok() {
                prop_assert_eq!(out.len(), len);
            }
            // What went wrong before has no effect on what comes after.
            decompressor.decompress(Method::Zstd, &whole, raw.len(), &mut out).unwrap();
            prop_assert_eq!(out, raw);
        }
    }
}
