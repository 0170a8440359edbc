//! The one trait between what keeps blocks and what serves them.

use std::fmt::Debug;

use crate::{Error, Result};

/// How large a device is, and how it is best used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes; a multiple of `block`.
    pub size: u64,
    /// Bytes of a logical block, the least that is read or written: 512 or 4096.
    pub block: u32,
    /// Bytes of a physical block: writes of whole ones are no slower than they need be.
    pub physical: u32,
    /// Bytes that writes are best a multiple of.
    pub optimal: u32,
    /// Nothing may be written.
    pub read_only: bool,
    /// It has holes: what is discarded costs nothing and reads as zeroes.
    pub thin: bool,
}

/// When a change is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// With the next flush.
    Later,
    /// When the call returns (FUA).
    Now,
}

/// What becomes of a range that is to read as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// It may become a hole.
    MayUnmap,
    /// It keeps its room, so that a later write can't fail for the lack of it.
    Keep,
}

/// What a range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes that were written.
    Data,
    /// A hole: it reads as zeroes and takes no room.
    Hole,
    /// Zeroes that keep their room.
    Zeroes,
}

/// A range, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What is there.
    pub content: Content,
}

/// Blocks that are read and written by their place.
///
/// Every method may be called by any number of threads at once, and blocks its thread while it works.
/// Calls that overlap in place and time may take effect in any order, but each block is that of one of them
/// entire. What a call that returned has done is seen by every later one.
///
/// Offsets and lengths are in bytes and multiples of [`Geometry::block`]; a length of 0 does nothing.
pub trait BlockDevice: Debug + Send + Sync {
    /// How large it is, now: it may grow.
    fn geometry(&self) -> Geometry;

    /// Fills the buffer.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Unreadable`], [`Error::Gone`]; the buffer may then hold anything.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes the bytes.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::ReadOnly`], [`Error::NoSpace`], [`Error::Failed`],
    /// [`Error::Gone`]; each block then holds the old or the new bytes.
    fn write_at(&self, offset: u64, bytes: &[u8], durability: Durability) -> Result<()>;

    /// Has a range read as zeroes.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        zeroing: Zeroing,
        durability: Durability,
    ) -> Result<()>;

    /// Gives a range back: it reads as zeroes on a thin device, and as it did on another.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn discard(&self, offset: u64, length: u64) -> Result<()>;

    /// Makes durable what was written by calls that had returned.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Gone`]: then nothing is known of what was written since the last one.
    fn flush(&self) -> Result<()>;

    /// Writes the bytes if what is there is what was expected, as one step that no other call comes between
    /// (COMPARE AND WRITE, SBC-3 5.2); `Some` tells the offset, from the range's start, of the first byte
    /// that differs. Both slices have one length.
    ///
    /// # Errors
    /// Those of reading and writing.
    fn compare_and_write(
        &self,
        offset: u64,
        expected: &[u8],
        bytes: &[u8],
        durability: Durability,
    ) -> Result<Option<u64>>;

    /// The most bytes that [`BlockDevice::write_at`] writes as one: a crash leaves all of them or none, and so
    /// does an error, and no call that reads finds some of them. A multiple of [`Geometry::block`], and always
    /// the same; 0, if it promises that of single blocks alone.
    fn most_atomic(&self) -> u32 {
        0
    }

    /// What a range holds, from its start on, in order and without gaps: at least one extent, and no more
    /// than `most`, so that they may end before the range does.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Unreadable`], [`Error::Gone`].
    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>>;

    /// What tells this device from all others, the same whenever it is served: 16 bytes that are no
    /// secret.
    fn id(&self) -> [u8; 16];
}

impl Geometry {
    /// Refuses a range that is not within the device, or not of whole blocks.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn check(&self, offset: u64, length: u64) -> Result<()> {
        let block = u64::from(self.block);
        let is_within = offset.checked_add(length).is_some_and(|end| end <= self.size);
        match is_within && offset.is_multiple_of(block) && length.is_multiple_of(block) {
            true => Ok(()),
            false => Err(Error::OutOfRange { offset, length, size: self.size }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ranges_are_within_and_of_whole_blocks() {
        let geometry = Geometry {
            size: 8192,
            block: 512,
            physical: 4096,
            optimal: 4096,
            read_only: false,
            thin: true,
        };
        for (offset, length) in [(0, 8192), (8192, 0), (512, 512), (0, 0)] {
            geometry.check(offset, length).unwrap();
        }
        for (offset, length) in [(0, 8193), (8192, 512), (1, 512), (512, 1), (u64::MAX - 511, 512)]
        {
            assert!(geometry.check(offset, length).is_err(), "{offset} {length}");
        }
    }
}
