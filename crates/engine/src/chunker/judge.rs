//! Stage 2: whether a candidate becomes a boundary.

use super::params::Params;
use super::tables::{CANDIDATE_BITS, JUDGE_KEYS, JUDGE_SPREAD};

/// How many bytes before a boundary decide on it, at most.
pub(super) const WINDOW: usize = 64;

/// How many bits stricter than the average a boundary is wanted before the turning point, and how
/// many bits laxer after it.
const LEVEL: u32 = 2;

/// Accepts so many candidates that chunks get the size that is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judge {
    turn: usize,
    strict: u64,
    lax: u64,
}

impl Judge {
    /// A judge for an average size.
    pub(super) fn new(params: &Params) -> Self {
        let bits = params.avg.max(1).ilog2();
        let limit = |bits: u32| u64::MAX >> bits.saturating_sub(CANDIDATE_BITS);
        Self {
            turn: params.avg as usize / 16 * 13,
            strict: limit(bits + LEVEL),
            lax: limit(bits.saturating_sub(LEVEL)),
        }
    }

    /// Whether the chunk that starts with `data` ends before `data[len]`, which is a candidate.
    /// `len` must be [`WINDOW`] at least.
    #[inline]
    pub(super) fn accepts(&self, data: &[u8], len: usize) -> bool {
        verdict(&data[len - WINDOW..len]) <= if len < self.turn { self.strict } else { self.lax }
    }
}

/// The hash of a long window.
#[inline]
fn verdict(window: &[u8]) -> u64 {
    let (words, _) = window.as_chunks::<8>();
    let sum = words.iter().zip(JUDGE_KEYS).fold(0u64, |sum, (word, key)| {
        let word = u64::from_le_bytes(*word);
        let low = (word as u32).wrapping_add(key as u32);
        let high = ((word >> 32) as u32).wrapping_add((key >> 32) as u32);
        sum.wrapping_add(u64::from(low) * u64::from(high))
    });
    (sum ^ sum >> 32).wrapping_mul(JUDGE_SPREAD)
}
