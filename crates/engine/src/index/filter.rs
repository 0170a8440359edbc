//! Which ids a segment can not have: a split-block Bloom filter.
//!
//! The filter is the one that Apache Parquet specifies (`BloomFilter.md` of parquet-format): blocks
//! of eight 32-bit words; a 64-bit hash `h` belongs to block `((h >> 32) * blocks) >> 32` and sets
//! in word `i` of it bit `(low32(h) * SALT[i] mod 2^32) >> 27`. Ids are already uniformly
//! distributed, so `h` is simply their first eight bytes, big-endian.
//!
//! That choice has a use of its own: ids that come in order fill the blocks in order, so that a
//! writer holds one block and never the filter ([`InOrder`]).

use super::format::BLOCK;

/// The odd constants of the specification.
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// One block; aligned so that it never crosses a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
struct Block([u32; 8]);

impl Block {
    fn mask(hash: u64) -> [u32; 8] {
        SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
    }

    fn insert(&mut self, hash: u64) {
        for (word, bit) in self.0.iter_mut().zip(Self::mask(hash)) {
            *word |= bit;
        }
    }

    fn may_contain(&self, hash: u64) -> bool {
        let missing =
            self.0.iter().zip(Self::mask(hash)).fold(0, |m, (word, bit)| m | (!word & bit));
        missing == 0
    }

    fn bytes(&self) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        for (to, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Self {
        let word = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| bytes[i * 4 + b]));
        Self(std::array::from_fn(word))
    }
}

/// The block of a hash, of `blocks` (fewer than 2^32) in all.
fn block_of(hash: u64, blocks: u64) -> u64 {
    ((hash >> 32) * blocks) >> 32
}

/// A filter in memory.
pub(super) struct Filter {
    blocks: Box<[Block]>,
    filled: usize,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} blocks)", self.blocks.len())
    }
}

impl Filter {
    /// An empty filter of so many blocks, at least one.
    pub(super) fn new(blocks: u64) -> Self {
        Self { blocks: vec![Block::default(); blocks as usize].into(), filled: 0 }
    }

    /// Adds a hash.
    pub(super) fn insert(&mut self, hash: u64) {
        let block = block_of(hash, self.blocks.len() as u64) as usize;
        self.blocks[block].insert(hash);
    }

    /// Whether the hash may have been added; `false` is certain.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.blocks[block_of(hash, self.blocks.len() as u64) as usize].may_contain(hash)
    }

    /// Takes the next blocks as they are stored; those past the end are padding.
    pub(super) fn load(&mut self, bytes: &[u8]) {
        let rest = &mut self.blocks[self.filled..];
        let count = rest.len().min(bytes.len() / BLOCK);
        for (block, bytes) in rest.iter_mut().zip(bytes.chunks_exact(BLOCK)) {
            *block = Block::read(bytes);
        }
        self.filled += count;
    }
}

/// Builds a filter from hashes that never fall, one block at a time.
#[derive(Debug)]
pub(super) struct InOrder {
    blocks: u64,
    at: u64,
    block: Block,
}

impl InOrder {
    /// A filter of so many blocks.
    pub(super) fn new(blocks: u64) -> Self {
        Self { blocks, at: 0, block: Block::default() }
    }

    /// Adds a hash that is no smaller than the last one; blocks that are complete go to `out`.
    pub(super) fn insert<E>(
        &mut self,
        hash: u64,
        out: &mut dyn FnMut([u8; BLOCK]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.move_to(block_of(hash, self.blocks), out)?;
        self.block.insert(hash);
        Ok(())
    }

    /// Gives the blocks that are left.
    pub(super) fn finish<E>(
        mut self,
        out: &mut dyn FnMut([u8; BLOCK]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.move_to(self.blocks, out)
    }

    fn move_to<E>(
        &mut self,
        block: u64,
        out: &mut dyn FnMut([u8; BLOCK]) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.at < block {
            out(std::mem::take(&mut self.block).bytes())?;
            self.at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// A sequence that looks random: SplitMix64.
    fn hashes(count: u64, mut state: u64) -> Vec<u64> {
        (0..count)
            .map(|_| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = state;
                z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ z >> 31
            })
            .collect()
    }

    #[test]
    fn a_block_is_as_the_specification_says() {
        let mut block = Block::default();
        block.insert(0xffff_ffff_0000_0001);
        // With key 1 the bits are the top five of each salt.
        assert_eq!(block.0, SALT.map(|salt| 1 << (salt >> 27)));
        assert_eq!(block_of(0xffff_ffff_0000_0001, 3), 2);
        assert_eq!(block_of(0x5555_5555_0000_0000, 3), 0);
        assert_eq!(block_of(0x5555_5556_0000_0000, 3), 1);
        assert_eq!(Block::read(&block.bytes()), block);
    }

    #[test]
    fn few_absent_ids_pass_at_twelve_bits_each() {
        let (present, absent) = (hashes(50_000, 1), hashes(50_000, u64::MAX / 3));
        let mut filter = Filter::new((50_000u64 * 12).div_ceil(256));
        present.iter().for_each(|h| filter.insert(*h));
        assert!(present.iter().all(|h| filter.may_contain(*h)));
        let passed = absent.iter().filter(|h| filter.may_contain(**h)).count();
        assert!(passed < 500, "{passed} of 50,000 passed");
    }

    proptest! {
        #[test]
        fn built_in_order_or_at_random_it_is_the_same(
            mut all in proptest::collection::vec(any::<u64>(), 0..300),
            blocks in 1u64..40,
        ) {
            let mut random = Filter::new(blocks);
            all.iter().for_each(|h| random.insert(*h));
            all.sort_unstable();
            let (mut in_order, mut bytes) = (InOrder::new(blocks), Vec::new());
            let mut out = |block: [u8; BLOCK]| { bytes.extend(block); Ok::<(), Infallible>(()) };
            for hash in all {
                let Ok(()) = in_order.insert(hash, &mut out);
            }
            let Ok(()) = in_order.finish(&mut out);
            let mut loaded = Filter::new(blocks);
            bytes.extend([0xff; 64]);
            bytes.chunks(3 * BLOCK).for_each(|part| loaded.load(part));
            prop_assert_eq!(loaded.blocks, random.blocks);
        }
    }
}
