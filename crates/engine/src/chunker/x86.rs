//! Stage 1 with AVX2 and AVX-512BW.
//!
//! A lane of 16 bits holds the sum for one place. One multiplication of byte pairs
//! (`vpmaddubsw`) weighs two neighbouring bytes for every second place, so four of them at
//! distances of two bytes make the short window of the even places, and four more, one byte on,
//! that of the odd places. The second window, 32 bytes back, is what the block before has
//! computed already.
#![allow(unsafe_code, reason = "vector loads; measured 4 times as fast as portable code")]

use std::arch::x86_64::*;
use std::ops::ControlFlow;

use super::judge::Judge;
use super::tables::{CANDIDATE_BELOW, ECHO, WEIGHTS};

/// How many bytes before the first place the kernels read: the block before it, and its window.
const LEAD: usize = 64 + 8;

/// Proof that the processor has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Avx2(());

impl Avx2 {
    /// Asks the processor.
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Looks at as many chunk lengths of `from..=to` as fill whole blocks. Breaks with the first
    /// that is a candidate and accepted, or goes on with the first that was not looked at.
    ///
    /// # Panics
    /// If `from` is less than [`LEAD`] or `to` is past the end of `data`.
    pub(super) fn scan(
        self,
        data: &[u8],
        from: usize,
        to: usize,
        judge: &Judge,
    ) -> ControlFlow<usize, usize> {
        // SAFETY: only `detect` makes this value, after the processor has said that it has AVX2.
        unsafe { avx2(data, from, to, judge) }
    }
}

/// Proof that the processor has AVX-512F and AVX-512BW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Avx512(());

impl Avx512 {
    /// Asks the processor.
    pub(super) fn detect() -> Option<Self> {
        let both = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        both.then_some(Self(()))
    }

    /// As [`Avx2::scan`].
    ///
    /// # Panics
    /// If `from` is less than [`LEAD`] or `to` is past the end of `data`.
    pub(super) fn scan(
        self,
        data: &[u8],
        from: usize,
        to: usize,
        judge: &Judge,
    ) -> ControlFlow<usize, usize> {
        // SAFETY: only `detect` makes this value, after the processor has said that it has both.
        unsafe { avx512(data, from, to, judge) }
    }
}

/// The weights of pair `pair` as the multiplication wants them: the older byte comes first.
const fn pair_weights(pair: usize) -> i16 {
    i16::from_le_bytes([WEIGHTS[2 * pair + 1] as u8, WEIGHTS[2 * pair] as u8])
}

/// The lowest place of two sets of lanes, one of even and one of odd places.
#[inline]
fn take_lowest(even: &mut u32, odd: &mut u32) -> Option<usize> {
    let place = (2 * even.trailing_zeros()).min(2 * odd.trailing_zeros() + 1);
    if *even == 0 && *odd == 0 {
        return None;
    }
    let set = if place.is_multiple_of(2) { even } else { odd };
    *set &= *set - 1;
    Some(place as usize)
}

/// The kernel of [`Avx2::scan`].
#[target_feature(enable = "avx2")]
fn avx2(data: &[u8], mut from: usize, to: usize, judge: &Judge) -> ControlFlow<usize, usize> {
    const LANES: usize = 32;
    assert!(from >= LEAD && to <= data.len(), "the window is inside the data");
    let weights: [__m256i; 4] = std::array::from_fn(|pair| _mm256_set1_epi16(pair_weights(pair)));
    let echo = _mm256_set1_epi16(ECHO as i16);
    let limit = _mm256_set1_epi16(CANDIDATE_BELOW);
    // The sums for the places `at`, `at + 2`, .. `at + 30`, that is, of the bytes before them.
    let sums = |at: usize| {
        let pair = |pair: usize| {
            let start = at - 2 - 2 * pair;
            // SAFETY: every caller passes `at` with LEAD - 64 = 8 <= at and at + 30 <= data.len(),
            // as said where it is called, so that start is not negative (at - 8 >= 0) and the 32
            // bytes from it end at at + 30 - 2 * pair, inside the data.
            let bytes = unsafe { _mm256_loadu_si256(data.as_ptr().add(start).cast()) };
            _mm256_maddubs_epi16(bytes, weights[pair])
        };
        let first = _mm256_add_epi16(pair(0), pair(1));
        let second = _mm256_add_epi16(pair(2), pair(3));
        _mm256_add_epi16(first, second)
    };
    // from >= LEAD, so from - 32 >= 8; and from - 32 + 1 + 30 < from <= data.len() if there is a
    // block at all.
    if from + LANES > to + 1 {
        return ControlFlow::Continue(from);
    }
    let mut even_before = sums(from - LANES);
    let mut odd_before = sums(from - LANES + 1);
    while from + LANES <= to + 1 {
        // from + 1 + 30 = from + LANES - 1 <= to <= data.len().
        let even = sums(from);
        let odd = sums(from + 1);
        let even_sum = _mm256_add_epi16(even, _mm256_mullo_epi16(even_before, echo));
        let odd_sum = _mm256_add_epi16(odd, _mm256_mullo_epi16(odd_before, echo));
        let even_hit = _mm256_cmpgt_epi16(limit, even_sum);
        let odd_hit = _mm256_cmpgt_epi16(limit, odd_sum);
        let any = _mm256_or_si256(even_hit, odd_hit);
        if _mm256_testz_si256(any, any) == 0 {
            // Two equal bits per lane: bit 2k is that of lane k, whose place is 2k or 2k + 1.
            let even_bits = _mm256_movemask_epi8(even_hit) as u32 & 0x5555_5555;
            let odd_bits = _mm256_movemask_epi8(odd_hit) as u32 & 0xaaaa_aaaa;
            let mut places = even_bits | odd_bits;
            while places != 0 {
                let len = from + places.trailing_zeros() as usize;
                if judge.accepts(data, len) {
                    return ControlFlow::Break(len);
                }
                places &= places - 1;
            }
        }
        even_before = even;
        odd_before = odd;
        from += LANES;
    }
    ControlFlow::Continue(from)
}

/// The kernel of [`Avx512::scan`].
#[target_feature(enable = "avx512f,avx512bw")]
fn avx512(data: &[u8], mut from: usize, to: usize, judge: &Judge) -> ControlFlow<usize, usize> {
    const LANES: usize = 64;
    assert!(from >= LEAD && to <= data.len(), "the window is inside the data");
    let weights: [__m512i; 4] = std::array::from_fn(|pair| _mm512_set1_epi16(pair_weights(pair)));
    let echo = _mm512_set1_epi16(ECHO as i16);
    let limit = _mm512_set1_epi16(CANDIDATE_BELOW);
    // The sums for the places `at`, `at + 2`, .. `at + 62`, that is, of the bytes before them.
    let sums = |at: usize| {
        let pair = |pair: usize| {
            let start = at - 2 - 2 * pair;
            // SAFETY: every caller passes `at` with LEAD - 64 = 8 <= at and at + 62 <= data.len(),
            // as said where it is called, so that start is not negative (at - 8 >= 0) and the 64
            // bytes from it end at at + 62 - 2 * pair, inside the data.
            let bytes = unsafe { _mm512_loadu_si512(data.as_ptr().add(start).cast()) };
            _mm512_maddubs_epi16(bytes, weights[pair])
        };
        let first = _mm512_add_epi16(pair(0), pair(1));
        let second = _mm512_add_epi16(pair(2), pair(3));
        _mm512_add_epi16(first, second)
    };
    if from + LANES > to + 1 {
        return ControlFlow::Continue(from);
    }
    // from >= LEAD, so from - 64 >= 8; and from - 64 + 1 + 62 < from <= data.len().
    let mut even_before = sums(from - LANES);
    let mut odd_before = sums(from - LANES + 1);
    while from + LANES <= to + 1 {
        // from + 1 + 62 = from + LANES - 1 <= to <= data.len().
        let even = sums(from);
        let odd = sums(from + 1);
        // 32 places back: the upper half of the block before, then the lower half of this one.
        let even_back = _mm512_shuffle_i64x2::<0b01_00_11_10>(even_before, even);
        let odd_back = _mm512_shuffle_i64x2::<0b01_00_11_10>(odd_before, odd);
        let even_sum = _mm512_add_epi16(even, _mm512_mullo_epi16(even_back, echo));
        let odd_sum = _mm512_add_epi16(odd, _mm512_mullo_epi16(odd_back, echo));
        let mut even_hit = _mm512_cmplt_epi16_mask(even_sum, limit);
        let mut odd_hit = _mm512_cmplt_epi16_mask(odd_sum, limit);
        if even_hit | odd_hit != 0 {
            while let Some(place) = take_lowest(&mut even_hit, &mut odd_hit) {
                if judge.accepts(data, from + place) {
                    return ControlFlow::Break(from + place);
                }
            }
        }
        even_before = even;
        odd_before = odd;
        from += LANES;
    }
    ControlFlow::Continue(from)
}
