//! Numbers that look random and are the same in every run: xoshiro256** (Blackman and Vigna,
//! "Scrambled linear pseudorandom number generators", 2021), seeded through SplitMix64.

/// A generator.
#[derive(Clone, Debug)]
pub(crate) struct Random([u64; 4]);

impl Random {
    /// The generator of this seed.
    pub(crate) fn new(mut seed: u64) -> Self {
        let mut next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        };
        Self([next(), next(), next(), next()])
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ b << 17, d.rotate_left(45)];
        result
    }

    /// A number below `limit`, which must not be 0. (The bias of a remainder doesn't matter here.)
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Fills `bytes`.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let (mut one, mut two, mut other) = (Random::new(1), Random::new(1), Random::new(2));
        assert_eq!([one.next(), one.next()], [two.next(), two.next()]);
        assert_ne!(one.next(), other.next());
        let mut bytes = [0; 19];
        one.fill(&mut bytes);
        assert!(bytes.iter().filter(|b| **b == 0).count() < 6);
    }
}
