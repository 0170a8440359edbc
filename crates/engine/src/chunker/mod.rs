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
//! Two strictnesses, for sizes that lie close to the average, are the idea of FastCDC (Xia et al., "FastCDC: a Fast and Efficient
//! Content-Defined Chunking Approach for Data Deduplication", USENIX ATC 2016); the sum of products in stage 2 is NH of UMAC (Black et al., CRYPTO 1999).

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

/// How many bytes the windows of both stages and the block that a kernel reads ahead of its first
/// place take; no chunk that is cut by content is shorter.
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
    /// with more data. How a stream is divided among calls doesn't change where it is cut. Empty
    /// data has no chunk: 0.
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
