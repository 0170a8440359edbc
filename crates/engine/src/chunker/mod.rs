//! Where streams are cut into chunks.
//!
//! Content-defined chunking with two windows ("win2", algorithm 1). Whether a stream is cut at a
//! place depends on the 64 bytes before the place and on the distance to the start of the chunk,
//! so bytes put in or taken out change the chunks around them, and the cuts after them are found
//! again.
//!
//! # The algorithm
//!
//! Let `b[0]`, `b[1]`, .. be the bytes from the start of the chunk. The chunk's length is the least
//! `n` with `min <= n <= max` that is accepted; `max` if none is; all of the stream if it ends
//! before. `n` is accepted if both stages say so:
//!
//! **Stage 1, the candidate.** With the weights `w[0]..w[7]` and the echo `e`, modulo 2^16:
//!
//! ```text
//! short(n) = w[0] b[n-1] + w[1] b[n-2] + .. + w[7] b[n-8]
//! sum(n)   = short(n) + e short(n-32)
//! ```
//!
//! `n` is a candidate if `0x8000 <= sum(n) < 0x8010`: about one place in 2^12. The sum needs no
//! table and has no carry from place to place, so vectors compute many of them at once.
//!
//! **Stage 2, the verdict.** The 64 bytes `b[n-64]..b[n-1]` are eight little-endian words of 64
//! bits, the oldest first; `lo` and `hi` are the halves of a word, `k` the keys, `m` the spread:
//!
//! ```text
//! s = sum over i of ((lo(word[i]) + lo(k[i])) mod 2^32) * ((hi(word[i]) + hi(k[i])) mod 2^32), mod 2^64
//! v = (s xor (s >> 32)) * m mod 2^64
//! ```
//!
//! A candidate is accepted if the highest `t` bits of `v` are zero. With `a` = log2(avg),
//! `t` = max(0, a + 2 - 12) for `n < avg * 13 / 16` and `t` = max(0, a - 2 - 12) from there on. The
//! place where it turns is set so that chunks of random data have a mean of `avg` if `min` is a
//! quarter of it.
//!
//! The constants, and how they were drawn, are in `tables.rs`; test vectors are in
//! `tests/golden/chunker.txt`:
//!
//! | constant | value |
//! |---|---|
//! | `w[0]..w[7]` | 43, 41, -27, -23, -61, -65, -55, 73 |
//! | `e` | 0x486d |
//! | `k[0]..k[3]` | 0x79f73de0e027ab91, 0xe7137339d6042e0a, 0x2049e457c44973e6, 0x12e52235472adb6a |
//! | `k[4]..k[7]` | 0x9f20458f4f5000de, 0xc31fc8dc577225b5, 0x42959b3e549f4a55, 0xe18804820b948a2e |
//! | `m` | 0x24cbd7b7f7d3c8af |
//!
//! Runs of one byte have no candidates and are cut at `max`. Block images aren't cut by content
//! but every [`Params::fixed`] bytes.
//!
//! # The record
//!
//! | field | form | value |
//! |---|---|---|
//! | algorithm | byte | 1 ([`WIN2_ID`]) |
//! | min, avg, max, fixed | varint each | bytes; 4 KiB <= min < avg < max <= 8 MiB, avg and fixed powers of two, 4 KiB <= fixed <= 4 MiB |
//!
//! Two strictnesses, for sizes that lie close to the average, are the idea of FastCDC (Xia et al.,
//! "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data Deduplication", USENIX
//! ATC 2016); the sum of products in stage 2 is NH of UMAC (Black et al., CRYPTO 1999).

mod judge;
mod kernel;
mod params;
mod portable;
mod tables;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use kernel::Kernel;
pub use params::Params;

use judge::Judge;

/// The algorithm's number in the superblock.
pub const WIN2_ID: u8 = 1;

/// No chunk that is cut by content is shorter, whatever sizes were asked for: a kernel reads the
/// windows of the block before its first place.
const LEAD: usize = 128;

/// Finds content-defined boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunker {
    params: Params,
    min: usize,
    max: usize,
    judge: Judge,
    kernel: Kernel,
}

impl Chunker {
    /// A chunker for these sizes, with the fastest kernel of this processor. Sizes that
    /// [`Params::validate`] refuses are cut by somehow, but without a panic.
    pub fn new(params: Params) -> Self {
        Self::with_kernel(params, Kernel::best())
    }

    /// A chunker that uses one kernel; it cuts at the same places as any other.
    pub fn with_kernel(params: Params, kernel: Kernel) -> Self {
        let min = (params.min as usize).max(LEAD);
        let max = (params.max as usize).max(min);
        Self { params, min, max, judge: Judge::new(&params), kernel }
    }

    /// The sizes that it cuts by.
    pub fn params(&self) -> Params {
        self.params
    }

    /// The code that it runs.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The length in bytes of the first chunk of `data`, which must begin where a chunk begins.
    ///
    /// `last` says that the stream ends with `data`. If it doesn't, and `data` is shorter than the
    /// largest chunk and has no boundary, the length isn't certain and 0 is returned: call again
    /// with more data. How a stream is divided among calls doesn't change where it is cut, but what
    /// was looked at in vain is looked at again: give several times the largest chunk at once.
    /// Empty data has no chunk: 0.
    pub fn next_cut(&self, data: &[u8], last: bool) -> usize {
        let end = data.len().min(self.max);
        let found = if end < self.min {
            None
        } else {
            self.kernel.first_cut(&data[..end], self.min, end, &self.judge)
        };
        match found {
            Some(cut) => cut,
            None if last || end == self.max => end,
            None => 0,
        }
    }

    /// Appends to `cuts` where each chunk of `data` ends that is certain (see
    /// [`Chunker::next_cut`]), in bytes from the start of `data`. Returns the last of them, or 0:
    /// what lies behind must be given again, in front of more data. With `last` set nothing does.
    pub fn cuts(&self, data: &[u8], last: bool, cuts: &mut Vec<usize>) -> usize {
        let mut done = 0;
        loop {
            match self.next_cut(&data[done..], last) {
                0 => return done,
                cut => done += cut,
            }
            cuts.push(done);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use super::tables::{CANDIDATE_BELOW, ECHO, JUDGE_KEYS, JUDGE_SPREAD, WEIGHTS};
    use super::*;
    use proptest::prelude::*;

    fn random(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn text(seed: u64, len: usize) -> Vec<u8> {
        let words = ["disk ", "pool ", "error: ", "chunk", " = ", "0x00", "\n", "the ", "1970"];
        let pick = |byte: u8| words[byte as usize % words.len()].bytes();
        random(seed, len).into_iter().flat_map(pick).take(len).collect()
    }

    /// Data of several kinds, one after another.
    fn data() -> impl Strategy<Value = Vec<u8>> {
        let piece = (0..5u8, any::<u64>(), 0..50_000usize, 1..300usize);
        let piece = piece.prop_map(|(kind, seed, len, period)| match kind {
            0 => random(seed, len),
            1 => text(seed, len),
            2 => vec![0; len],
            3 => random(seed, period).into_iter().cycle().take(len).collect(),
            _ => random(seed, len).into_iter().map(|b| b & 1).collect(),
        });
        prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    fn params() -> impl Strategy<Value = Params> {
        (13..17u32, 1..4u32, 1..4u32, 0..4096u32).prop_map(|(avg, less, more, odd)| {
            let avg = 1u32 << avg;
            Params::new((avg >> less).max(4096) + odd % 7, avg, (avg << more) - odd, 4096).unwrap()
        })
    }

    /// The module's definition, word for word.
    fn defined_cut(params: &Params, b: &[u8]) -> usize {
        let short = |n: usize| {
            (0..8).fold(0i64, |sum, i| sum + i64::from(WEIGHTS[i]) * i64::from(b[n - 1 - i]))
        };
        let a = params.avg.ilog2() as i64;
        for n in params.min as usize..=b.len().min(params.max as usize) {
            let sum = (short(n) + i64::from(ECHO) * short(n - 32)).rem_euclid(1 << 16);
            if !(0x8000..0x8010).contains(&sum) {
                continue;
            }
            let s = (0..8).fold(0u128, |s, i| {
                let word = &b[n - 64 + 8 * i..][..8];
                let lo = u128::from(u32::from_le_bytes(word[..4].try_into().unwrap()));
                let hi = u128::from(u32::from_le_bytes(word[4..].try_into().unwrap()));
                let (key_lo, key_hi) = (JUDGE_KEYS[i] % (1 << 32), JUDGE_KEYS[i] >> 32);
                let lo = (lo + u128::from(key_lo)) % (1 << 32);
                let hi = (hi + u128::from(key_hi)) % (1 << 32);
                (s + lo * hi) % (1 << 64)
            });
            let v = ((s ^ s >> 32) * u128::from(JUDGE_SPREAD)) % (1 << 64);
            let early = n < params.avg as usize * 13 / 16;
            let t = (if early { a + 2 - 12 } else { a - 2 - 12 }).max(0);
            if v >> (64 - t) == 0 {
                return n;
            }
        }
        b.len().min(params.max as usize)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_kernel_cuts_as_defined(params in params(), data in data(), skip in 0..70usize) {
            let data = &data[skip.min(data.len())..];
            let mut defined = Vec::new();
            let mut at = 0;
            while at < data.len() {
                at += defined_cut(&params, &data[at..]);
                defined.push(at);
            }
            for kernel in Kernel::available() {
                let mut cuts = Vec::new();
                let done = Chunker::with_kernel(params, kernel).cuts(data, true, &mut cuts);
                prop_assert_eq!(done, data.len());
                prop_assert_eq!(&cuts, &defined, "{}", kernel.name());
            }
        }

        #[test]
        fn every_kernel_finds_the_same_place_in_any_range(
            data in data(), from in 128..400usize, len in 0..2000usize, strict in any::<bool>(),
        ) {
            let avg = if strict { 1 << 14 } else { 1 << 10 };
            let params = Params { avg, ..Params::default() };
            let judge = Judge::new(&params);
            let to = (from + len).min(data.len());
            prop_assume!(from <= to);
            let expected = (from..=to).find(|&n| {
                let short = |n: usize| (0..8).fold(0u16, |sum, i| {
                    sum.wrapping_add((WEIGHTS[i] as u16).wrapping_mul(data[n - 1 - i].into()))
                });
                let sum = short(n).wrapping_add(ECHO.wrapping_mul(short(n - 32)));
                (sum as i16) < CANDIDATE_BELOW && judge.accepts(&data, n)
            });
            for kernel in Kernel::available() {
                let found = kernel.first_cut(&data[..to], from, to, &judge);
                prop_assert_eq!(found, expected, "{}", kernel.name());
            }
        }

        #[test]
        fn it_matters_not_how_a_stream_arrives(
            params in params(),
            data in data(),
            steps in prop::collection::vec(1..40_000usize, 1..20),
        ) {
            let chunker = Chunker::new(params);
            let mut whole = Vec::new();
            chunker.cuts(&data, true, &mut whole);

            let (mut start, mut have, mut piecewise) = (0, 0, Vec::new());
            for step in steps.iter().cycle() {
                have = (have + step).min(data.len());
                let mut cuts = Vec::new();
                let done = chunker.cuts(&data[start..have], have == data.len(), &mut cuts);
                piecewise.extend(cuts.iter().map(|cut| start + cut));
                start += done;
                prop_assert!(have - start < params.max as usize);
                if have == data.len() {
                    break;
                }
            }
            prop_assert_eq!(piecewise, whole);
        }

        #[test]
        fn no_chunk_is_out_of_bounds(params in params(), data in data()) {
            let mut cuts = Vec::new();
            Chunker::new(params).cuts(&data, true, &mut cuts);
            let mut start = 0;
            for (nth, &end) in cuts.iter().enumerate() {
                prop_assert!(end - start <= params.max as usize);
                prop_assert!(end - start >= params.min as usize || nth + 1 == cuts.len());
                start = end;
            }
            prop_assert_eq!(start, data.len());
        }
    }

    #[test]
    fn nothing_and_little_are_one_chunk_at_the_end_only() {
        let chunker = Chunker::new(Params::default());
        assert_eq!(chunker.next_cut(&[], true), 0);
        assert_eq!(chunker.next_cut(&[], false), 0);
        assert_eq!(chunker.next_cut(&[1; 100], true), 100);
        assert_eq!(chunker.next_cut(&[1; 100], false), 0);
    }

    #[test]
    fn sizes_that_no_pool_may_have_do_no_harm() {
        let data = random(1, 10_000);
        for params in [
            Params { min: 0, avg: 0, max: 0, fixed: 0 },
            Params { min: u32::MAX, avg: u32::MAX, max: 1, fixed: 3 },
        ] {
            let mut cuts = Vec::new();
            assert_eq!(Chunker::new(params).cuts(&data, true, &mut cuts), data.len());
        }
    }

    #[test]
    fn runs_of_one_byte_are_cut_at_the_maximum() {
        let params = Params::around(16 << 10, 4096).unwrap();
        let chunker = Chunker::new(params);
        for byte in 0..=255 {
            let data = vec![byte; 3 * params.max as usize / 2];
            assert_eq!(chunker.next_cut(&data, false), params.max as usize, "{byte}");
        }
    }

    #[test]
    fn chunks_are_as_long_as_was_asked_for() {
        for (name, data) in [("random", random(2, 32 << 20)), ("text", text(3, 32 << 20))] {
            for avg in [16 << 10, 64 << 10] {
                let params = Params::around(avg, 4096).unwrap();
                let mut cuts = Vec::new();
                Chunker::new(params).cuts(&data, true, &mut cuts);
                let mean = data.len() / cuts.len();
                let aim = avg as usize;
                assert!(mean.abs_diff(aim) < aim / 10, "{name}: {mean} instead of {aim}");
            }
        }
    }

    #[test]
    fn cuts_are_found_again_behind_a_change() {
        let chunker = Chunker::new(Params::around(16 << 10, 4096).unwrap());
        let pieces = |data: &[u8]| {
            let mut cuts = Vec::new();
            chunker.cuts(data, true, &mut cuts);
            let starts = [0].into_iter().chain(cuts.iter().copied());
            starts.zip(&cuts).map(|(start, &end)| data[start..end].to_vec()).collect::<Vec<_>>()
        };
        for (name, data) in [("random", random(4, 8 << 20)), ("text", text(5, 8 << 20))] {
            let known: HashSet<_> = pieces(&data).into_iter().collect();
            let mut changed = Vec::new();
            for (nth, mebi) in data.chunks(1 << 20).enumerate() {
                let place = nth * 131_071;
                changed.extend_from_slice(&mebi[..place]);
                changed.extend_from_slice(&vec![nth as u8; nth + 1]);
                changed.extend_from_slice(&mebi[place..]);
            }
            let pieces = pieces(&changed);
            let again = pieces.iter().filter(|piece| known.contains(*piece)).count();
            assert!(again * 100 > pieces.len() * 95, "{name}: {again} of {}", pieces.len());
        }
    }
}
