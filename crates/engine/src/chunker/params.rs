//! How long chunks are: what a pool is told once, and keeps for ever.

use super::WIN2_ID;
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};

/// The shortest `min` that a pool may have, in bytes.
const MIN_FLOOR: u32 = 4 << 10;
/// The longest `max` that a pool may have, in bytes; the format bounds a chunk by it.
const MAX_CEILING: u32 = 8 << 20;
/// The largest chunk size for block images, in bytes.
const FIXED_CEILING: u32 = 4 << 20;

/// How streams are cut. Data written with other sizes shares few chunks with what the pool has
/// already, so a pool keeps these for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// No chunk but the last of a stream is shorter, in bytes.
    pub min: u32,
    /// The aim, in bytes: a power of two.
    pub avg: u32,
    /// No chunk is longer, in bytes.
    pub max: u32,
    /// The chunk size for block images, in bytes: a power of two.
    pub fixed: u32,
}

impl Default for Params {
    /// The sizes that the measurements in the chunking benchmark speak for.
    fn default() -> Self {
        Self { min: 16 << 10, avg: 64 << 10, max: 256 << 10, fixed: 64 << 10 }
    }
}

impl Params {
    /// Sizes in bytes, checked.
    ///
    /// # Errors
    /// [`Error::Invalid`], see [`Params::validate`].
    pub fn new(min: u32, avg: u32, max: u32, fixed: u32) -> Result<Self> {
        let params = Self { min, avg, max, fixed };
        params.validate()?;
        Ok(params)
    }

    /// The usual proportions around an average: a quarter of it at least, four times it at most,
    /// within the bounds of the format.
    ///
    /// # Errors
    /// [`Error::Invalid`], see [`Params::validate`].
    pub fn around(avg: u32, fixed: u32) -> Result<Self> {
        let max = avg.saturating_mul(4).min(MAX_CEILING);
        Self::new((avg / 4).max(MIN_FLOOR), avg, max, fixed)
    }

    /// Says whether a pool can be cut by these sizes.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the size that is out of bounds, and the bound.
    pub fn validate(&self) -> Result<()> {
        let Self { min, avg, max, fixed } = *self;
        let refuse = |why: String| Err(Error::Invalid(why));
        if min < MIN_FLOOR {
            return refuse(format!("the smallest chunk is {min} bytes, it must be 4096 or more"));
        }
        if !avg.is_power_of_two() {
            return refuse(format!("the average chunk is {avg} bytes, it must be a power of two"));
        }
        if min >= avg {
            return refuse(format!(
                "the smallest chunk ({min} bytes) must be smaller than the average ({avg})"
            ));
        }
        if avg >= max {
            return refuse(format!(
                "the average chunk ({avg} bytes) must be smaller than the largest ({max})"
            ));
        }
        if max > MAX_CEILING {
            return refuse(format!("the largest chunk is {max} bytes, it can be 8 MiB at most"));
        }
        if !fixed.is_power_of_two() || !(MIN_FLOOR..=FIXED_CEILING).contains(&fixed) {
            return refuse(format!(
                "the chunk of a block image is {fixed} bytes, it must be a power of two from 4 KiB \
                 to 4 MiB"
            ));
        }
        Ok(())
    }

    /// Appends the chunker record: its algorithm, then the sizes (see the module's table).
    pub fn encode(&self, record: &mut Writer) {
        record.byte(WIN2_ID);
        for size in [self.min, self.avg, self.max, self.fixed] {
            record.uint(u64::from(size));
        }
    }

    /// Takes a chunker record.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for an algorithm that this version doesn't have and for sizes that
    /// no pool may have.
    pub fn decode(record: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if record.byte()? != WIN2_ID {
            return Err(DecodeError::Unknown("the chunker's algorithm"));
        }
        let [min, avg, max, fixed] =
            [record.uint32()?, record.uint32()?, record.uint32()?, record.uint32()?];
        Self::new(min, avg, max, fixed).map_err(|_| DecodeError::Unknown("a chunk size"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_is_valid() {
        Params::default().validate().unwrap();
    }

    #[test]
    fn every_bound_is_named() {
        let k = 1 << 10;
        for (sizes, word) in [
            ([2 * k, 64 * k, 256 * k, 64 * k], "smallest"),
            ([16 * k, 65_000, 256 * k, 64 * k], "power of two"),
            ([64 * k, 64 * k, 256 * k, 64 * k], "smaller than the average"),
            ([16 * k, 64 * k, 64 * k, 64 * k], "smaller than the largest"),
            ([16 * k, 64 * k, 8192 * k + 1, 64 * k], "8 MiB"),
            ([16 * k, 64 * k, 256 * k, 2 * k], "4 KiB"),
            ([16 * k, 64 * k, 256 * k, 8192 * k], "4 MiB"),
            ([16 * k, 64 * k, 256 * k, 48 * k], "power of two"),
            ([16 * k, 0, 256 * k, 64 * k], "power of two"),
        ] {
            let [min, avg, max, fixed] = sizes;
            let why = Params::new(min, avg, max, fixed).unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn usual_proportions_stay_within_bounds() {
        for bits in 13..=22 {
            Params::around(1 << bits, 4096).unwrap();
        }
        assert!(Params::around(u32::MAX, 4096).is_err());
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(bits in 13u32..=22, fixed in 12u32..=22) {
            let params = Params::around(1 << bits, 1 << fixed).unwrap();
            let mut record = Writer::new();
            params.encode(&mut record);
            let record = record.finish();
            let mut reader = Reader::new(&record);
            prop_assert_eq!(Params::decode(&mut reader), Ok(params));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn no_record_makes_a_wrong_chunker(bytes in any::<Vec<u8>>()) {
            if let Ok(params) = Params::decode(&mut Reader::new(&bytes)) {
                prop_assert!(params.validate().is_ok());
            }
        }
    }
}
