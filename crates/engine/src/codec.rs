//! How numbers and strings are written in every record of the format.
//!
//! Unsigned integers are LEB128 varints, signed ones zigzag varints, byte strings carry a varint
//! length in front. Reading is bounded by the input: no length is believed before it is checked.

/// Why a record can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record ends before its last field does.
    #[error("the record is cut short")]
    Short,
    /// A varint runs past 64 bits.
    #[error("a number is longer than 64 bits")]
    Overlong,
    /// A field holds a value that the format doesn't know.
    #[error("{0} has a value that this version does not know")]
    Unknown(&'static str),
    /// Bytes are left after the last field.
    #[error("bytes are left over after the record")]
    Trailing,
}

/// Builds a record.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty record with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// Appends an unsigned varint.
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Appends a zigzag varint.
    pub fn int(&mut self, value: i64) {
        self.uint((value << 1 ^ value >> 63) as u64);
    }

    /// Appends one byte.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends bytes with their length in front.
    pub fn bytes(&mut self, value: &[u8]) {
        self.uint(value.len() as u64);
        self.raw(value);
    }

    /// Appends bytes as they are; the reader must know how many.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// How many bytes the record has so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The record.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a record from the front.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `record` from its first byte.
    pub fn new(record: &'a [u8]) -> Self {
        Self { rest: record }
    }

    /// Takes an unsigned varint.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(DecodeError::Overlong);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Overlong)
    }

    /// Takes an unsigned varint that must fit 32 bits.
    pub fn uint32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.uint()?).map_err(|_| DecodeError::Overlong)
    }

    /// Takes a zigzag varint.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        let value = self.uint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    /// Takes a byte string with its length in front.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.uint()?).map_err(|_| DecodeError::Short)?;
        self.raw(len)
    }

    /// Takes exactly `len` bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.raw(N)?.try_into().expect("raw gave N bytes"))
    }

    /// Takes a count of items that take at least `item` bytes each, so that a forged count can't
    /// make the caller reserve more than the record could hold.
    pub fn count(&mut self, item: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.uint()?).map_err(|_| DecodeError::Short)?;
        match count.checked_mul(item.max(1)) {
            Some(need) if need <= self.rest.len() => Ok(count),
            _ => Err(DecodeError::Short),
        }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Ends the reading; bytes left over are an error.
    pub fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(u in any::<u64>(), i in any::<i64>(), b in any::<Vec<u8>>()) {
            let mut w = Writer::new();
            w.uint(u);
            w.int(i);
            w.bytes(&b);
            let record = w.finish();
            let mut r = Reader::new(&record);
            prop_assert_eq!(r.uint(), Ok(u));
            prop_assert_eq!(r.int(), Ok(i));
            prop_assert_eq!(r.bytes(), Ok(&b[..]));
            prop_assert_eq!(r.end(), Ok(()));
        }

        #[test]
        fn no_input_makes_the_reader_panic(bytes in any::<Vec<u8>>()) {
            let mut r = Reader::new(&bytes);
            while r.uint().is_ok() {}
            let mut r = Reader::new(&bytes);
            let _ = (r.count(40), r.bytes(), r.int(), r.end());
        }
    }

    #[test]
    fn a_number_past_64_bits_is_refused() {
        let mut r = Reader::new(&[0xff; 10]);
        assert_eq!(r.uint(), Err(DecodeError::Overlong));
    }
}
