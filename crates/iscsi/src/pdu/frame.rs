//! How PDUs lie in the stream: header, additional headers, data padded to four bytes, and digests
//! (RFC 7143 sections 11.2 and 13.1).

use super::{HEADER, Header};

/// Bytes of a digest.
const DIGEST: usize = 4;

/// What is wrong with a PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More data than was said to be taken at once.
    #[error("{0} bytes of data are more than is taken at once")]
    TooLong(usize),
    /// More additional headers than any PDU has.
    #[error("{0} bytes of additional headers are more than any PDU has")]
    TooManyHeaders(usize),
    /// The header's digest is not that of the header.
    #[error("the header isn't what its digest says")]
    HeaderDigest,
    /// The data's digest is not that of the data.
    #[error("the data aren't what their digest says")]
    DataDigest,
}

/// Which digests there are, and how much data a PDU may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Headers have a CRC32C.
    pub header_digest: bool,
    /// Data have one.
    pub data_digest: bool,
    /// Bytes of data that are taken at once.
    pub most_data: usize,
}

/// Bytes of the parts of one PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Basic and additional headers.
    pub headers: usize,
    /// Headers and their digest: where data begin.
    pub data_at: usize,
    /// Data without padding.
    pub data: usize,
    /// Padding and digest of the data.
    pub behind: usize,
}

impl Shape {
    /// All of the PDU.
    pub fn total(&self) -> usize {
        self.data_at + self.data + self.behind
    }
}

/// A header, its data, and the bytes that follow.
pub type Taken<'a> = (Header, &'a [u8], &'a [u8]);

/// Bytes that fill the last word.
pub(crate) fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

impl Framing {
    /// Of a login: without digests (RFC 7143 section 6.1), and no more data than every end takes.
    pub const LOGIN: Self = Self { header_digest: false, data_digest: false, most_data: 8192 };

    /// Additional headers: the longest CDB that there is, and the length of a bidirectional read.
    const MOST_ADDITIONAL: usize = 256 + 8 + 8;

    /// How long the parts are of the PDU with this header.
    ///
    /// # Errors
    /// [`Fault::TooLong`], [`Fault::TooManyHeaders`].
    pub fn shape(&self, header: &Header) -> Result<Shape, Fault> {
        let (additional, data) = (header.additional(), header.data_length());
        if additional > Self::MOST_ADDITIONAL {
            return Err(Fault::TooManyHeaders(additional));
        }
        if data > self.most_data {
            return Err(Fault::TooLong(data));
        }
        let headers = HEADER + additional;
        let digest = if self.data_digest && data > 0 { DIGEST } else { 0 };
        Ok(Shape {
            headers,
            data_at: headers + if self.header_digest { DIGEST } else { 0 },
            data,
            behind: padding(data) + digest,
        })
    }

    /// Checks the digest of headers; `bytes` are those up to where data begin.
    ///
    /// # Errors
    /// [`Fault::HeaderDigest`].
    pub fn check_headers(&self, shape: &Shape, bytes: &[u8]) -> Result<(), Fault> {
        if !self.header_digest {
            return Ok(());
        }
        let (headers, digest) = bytes.split_at_checked(shape.headers).ok_or(Fault::HeaderDigest)?;
        match digest == crc32c::crc32c(headers).to_le_bytes() {
            true => Ok(()),
            false => Err(Fault::HeaderDigest),
        }
    }

    /// Checks the digest of data; `behind` is the padding and the digest.
    ///
    /// # Errors
    /// [`Fault::DataDigest`].
    pub fn check_data(&self, data: &[u8], behind: &[u8]) -> Result<(), Fault> {
        if !self.data_digest || data.is_empty() {
            return Ok(());
        }
        let (padding, digest) =
            behind.split_at_checked(padding(data.len())).ok_or(Fault::DataDigest)?;
        let sum = crc32c::crc32c_append(crc32c::crc32c(data), padding);
        match digest == sum.to_le_bytes() {
            true => Ok(()),
            false => Err(Fault::DataDigest),
        }
    }

    /// Puts a PDU at the end of `out`, with what fills it up and guards it.
    pub fn write(&self, out: &mut Vec<u8>, mut header: Header, data: &[u8]) {
        header.set_data_length(data.len());
        out.extend_from_slice(&header.0);
        if self.header_digest {
            out.extend_from_slice(&crc32c::crc32c(&header.0).to_le_bytes());
        }
        if data.is_empty() {
            return;
        }
        let padding = [0; 3].get(..padding(data.len())).unwrap_or_default().to_vec();
        out.extend_from_slice(data);
        out.extend_from_slice(&padding);
        if self.data_digest {
            let sum = crc32c::crc32c_append(crc32c::crc32c(data), &padding);
            out.extend_from_slice(&sum.to_le_bytes());
        }
    }

    /// Takes one PDU off the front: its header, its data, and what follows it; `None` when it isn't all
    /// there. For what has all bytes at hand: a login, tests, the fuzzer.
    ///
    /// # Errors
    /// Every [`Fault`].
    pub fn take<'a>(&self, bytes: &'a [u8]) -> Result<Option<Taken<'a>>, Fault> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let header = Header(*header);
        let shape = self.shape(&header)?;
        let Some((pdu, rest)) = bytes.split_at_checked(shape.total()) else { return Ok(None) };
        let (headers, data) = pdu.split_at(shape.data_at);
        self.check_headers(&shape, headers)?;
        let (data, behind) = data.split_at(shape.data);
        self.check_data(data, behind)?;
        Ok(Some((header, data, rest)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::pdu::Response;

    const GUARDED: Framing = Framing { header_digest: true, data_digest: true, most_data: 100 };

    #[test]
    fn the_digest_is_that_of_the_rfc() {
        // RFC 7143 appendix A.4: 32 bytes of zeroes.
        assert_eq!(crc32c::crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }

    #[test]
    fn what_is_written_is_taken_again() {
        for length in [0, 1, 2, 3, 4, 99, 100] {
            let data = vec![7; length];
            let mut bytes = Vec::new();
            GUARDED.write(&mut bytes, Header::answer(Response::NopIn), &data);
            bytes.push(1);
            let (header, found, rest) = GUARDED.take(&bytes).unwrap().unwrap();
            assert_eq!((header.data_length(), found, rest), (length, &data[..], &[1][..]));
            assert_eq!(GUARDED.take(&bytes[..bytes.len() - 2]), Ok(None));
        }
    }

    #[test]
    fn damage_and_too_much_are_told() {
        let mut bytes = Vec::new();
        GUARDED.write(&mut bytes, Header::answer(Response::NopIn), b"hello");
        for (at, fault) in
            [(20, Fault::HeaderDigest), (53, Fault::DataDigest), (58, Fault::DataDigest)]
        {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(GUARDED.take(&damaged), Err(fault), "{at}");
        }
        let mut header = Header::answer(Response::NopIn);
        header.set_data_length(101);
        assert_eq!(GUARDED.take(&header.0), Err(Fault::TooLong(101)));
        header.0[4] = 255;
        assert_eq!(GUARDED.take(&header.0), Err(Fault::TooManyHeaders(1020)));
    }
}
