//! The constants of win2. They are part of the format: a change makes another algorithm.
//!
//! They were drawn once, in this order, from the BLAKE3 extendable output of the ASCII string
//! `strongroom win2 chunker v1` (unkeyed, no length, read from its first byte on):
//!
//! 1. [`WEIGHTS`]: two bytes at a time, as signed numbers (older, newer). The pair is taken if both
//!    are odd, both are 9 or more in size, the sizes add up to 128 or less (so that the sum of both
//!    products with two bytes stays below 2^15, which the pairwise multiplication of AVX2 needs),
//!    they differ from each other and from all sizes taken before. Four pairs.
//! 2. [`ECHO`]: two bytes at a time, little-endian. Taken if it is 1 modulo 4 and if no byte value,
//!    repeated, gives a candidate (so that runs of one byte are cut at the maximum only).
//! 3. [`JUDGE_KEYS`]: eight times eight bytes, little-endian.
//! 4. [`JUDGE_SPREAD`]: eight bytes, little-endian, with the lowest bit set.

/// What the bytes of a short window weigh: `WEIGHTS[0]` is for the newest byte.
pub(super) const WEIGHTS: [i8; 8] = [43, 41, -27, -23, -61, -65, -55, 73];
/// What the short window [`ECHO_DISTANCE`] bytes back weighs.
pub(super) const ECHO: u16 = 0x486d;
/// How far back the second short window ends, in bytes.
pub(super) const ECHO_DISTANCE: usize = 32;
/// A place is a candidate if the sum, as a signed number, is below this: 16 of 65536 values.
pub(super) const CANDIDATE_BELOW: i16 = i16::MIN + 16;
/// One place in 2^12 is a candidate.
pub(super) const CANDIDATE_BITS: u32 = 12;

/// Added to the eight words of the long window.
pub(super) const JUDGE_KEYS: [u64; 8] = [
    0x79f7_3de0_e027_ab91,
    0xe713_7339_d604_2e0a,
    0x2049_e457_c449_73e6,
    0x12e5_2235_472a_db6a,
    0x9f20_458f_4f50_00de,
    0xc31f_c8dc_5772_25b5,
    0x4295_9b3e_549f_4a55,
    0xe188_0482_0b94_8a2e,
];
/// Spreads the sum over all its bits.
pub(super) const JUDGE_SPREAD: u64 = 0x24cb_d7b7_f7d3_c8af;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn draw<const N: usize>(xof: &mut blake3::OutputReader) -> [u8; N] {
        let mut bytes = [0; N];
        xof.fill(&mut bytes);
        bytes
    }

    fn run_of_one_byte_cuts(weights: [i8; 8], echo: u16) -> bool {
        let sum = weights.iter().fold(0u16, |sum, &w| sum.wrapping_add(w as u16));
        let sum = sum.wrapping_mul(echo.wrapping_add(1));
        (0..256).any(|byte| (sum.wrapping_mul(byte) as i16) < CANDIDATE_BELOW)
    }

    #[test]
    fn the_constants_are_what_they_were_drawn_as() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"strongroom win2 chunker v1");
        let mut xof = hasher.finalize_xof();

        let mut weights = Vec::new();
        while weights.len() < 8 {
            let [older, newer] = draw::<2>(&mut xof).map(|b| b as i8);
            let sizes = [older, newer].map(|w| u16::from(w.unsigned_abs()));
            let fits = sizes.iter().all(|s| s % 2 == 1 && *s >= 9) && sizes[0] + sizes[1] <= 128;
            let fresh = sizes[0] != sizes[1]
                && weights.iter().all(|w: &i8| !sizes.contains(&u16::from(w.unsigned_abs())));
            if fits && fresh {
                weights.extend([newer, older]);
            }
        }
        let weights: [i8; 8] = weights.try_into().unwrap();
        let echo = loop {
            let echo = u16::from_le_bytes(draw(&mut xof));
            if echo % 4 == 1 && !run_of_one_byte_cuts(weights, echo) {
                break echo;
            }
        };
        let keys: [u64; 8] = std::array::from_fn(|_| u64::from_le_bytes(draw(&mut xof)));
        let spread = u64::from_le_bytes(draw(&mut xof)) | 1;
        assert_eq!(
            (WEIGHTS, ECHO, JUDGE_KEYS, JUDGE_SPREAD),
            (weights, echo, keys, spread),
            "drawn: {weights:?} {echo:#x} {keys:#018x?} {spread:#018x}"
        );
    }
}
