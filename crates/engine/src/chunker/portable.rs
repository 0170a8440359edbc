//! Stage 1 for any processor: the definition that the other kernels must agree with.

use super::judge::Judge;
use super::tables::{CANDIDATE_BELOW, ECHO, ECHO_DISTANCE, WEIGHTS};

/// How many places are looked at in one go: enough for a compiler to use the vectors of the
/// processor, few enough to stay in the nearest cache.
const BLOCK: usize = 256;

/// The weighted sum of the eight bytes before `data[len]`.
#[inline]
fn short_sum(data: &[u8], len: usize) -> u16 {
    let newest_first = data[len - WEIGHTS.len()..len].iter().rev();
    newest_first.zip(WEIGHTS).fold(0, |sum: u16, (&byte, weight)| {
        sum.wrapping_add(u16::from(byte).wrapping_mul(weight as u16))
    })
}

/// Whether a sum and the one [`ECHO_DISTANCE`] bytes before it make a candidate.
#[inline]
fn is_candidate(sum: u16, before: u16) -> bool {
    (sum.wrapping_add(before.wrapping_mul(ECHO)) as i16) < CANDIDATE_BELOW
}

/// Finds the first chunk length in `from..=to` that is a candidate and accepted.
pub(super) fn first_cut(data: &[u8], mut from: usize, to: usize, judge: &Judge) -> Option<usize> {
    let mut sums = [0u16; ECHO_DISTANCE + BLOCK];
    if from + BLOCK <= to + 1 {
        for (back, sum) in sums[..ECHO_DISTANCE].iter_mut().enumerate() {
            *sum = short_sum(data, from - ECHO_DISTANCE + back);
        }
    }
    while from + BLOCK <= to + 1 {
        let window: &[u8; BLOCK + 7] = data[from - 8..from - 1 + BLOCK]
            .try_into()
            .expect("the slice is as long as the block and seven bytes more");
        let fresh = &mut sums[ECHO_DISTANCE..];
        for (place, sum) in fresh.iter_mut().enumerate() {
            *sum = (0..WEIGHTS.len()).fold(0, |sum: u16, back| {
                let byte = u16::from(window[place + 7 - back]);
                sum.wrapping_add(byte.wrapping_mul(WEIGHTS[back] as u16))
            });
        }
        let mut hit = false;
        for place in 0..BLOCK {
            hit |= is_candidate(sums[place + ECHO_DISTANCE], sums[place]);
        }
        if hit {
            let accepted = (0..BLOCK)
                .filter(|place| is_candidate(sums[place + ECHO_DISTANCE], sums[*place]))
                .find(|place| judge.accepts(data, from + place));
            if let Some(place) = accepted {
                return Some(from + place);
            }
        }
        sums.copy_within(BLOCK.., 0);
        from += BLOCK;
    }
    (from..=to).find(|&len| {
        is_candidate(short_sum(data, len), short_sum(data, len - ECHO_DISTANCE))
            && judge.accepts(data, len)
    })
}
