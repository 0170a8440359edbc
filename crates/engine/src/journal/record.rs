//! The bytes of a journal file: its header and its records.

use crate::id::PoolId;

/// Every record begins at a multiple of this, so that appending one never writes again to a block
/// that holds a committed one.
pub(super) const BLOCK: usize = 4096;
/// The file header's length in bytes; the rest of its block is zero.
pub(super) const FILE_HEADER: usize = 96;
/// A record header's length in bytes.
pub(super) const RECORD_HEADER: usize = 64;
/// The longest payload of a record, in bytes, before it is sealed.
pub(super) const MAX_PAYLOAD: usize = 16 << 20;
/// What sealing adds to a payload, in bytes.
pub(super) const TAG: usize = 16;
/// The version of this format.
const VERSION: u16 = 1;
/// The hash of the chain and of the checks: BLAKE3.
const HASH_BLAKE3: u8 = 1;

const FILE_MAGIC: [u8; 8] = *b"SRJRNL\r\n";
const RECORD_MAGIC: [u8; 4] = *b"SRjr";

/// What tells one journal file from all others: 16 random bytes.
pub(super) type Salt = [u8; 16];

/// The sum of everything in a file up to and including a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain(pub(super) [u8; 16]);

fn digest<const N: usize>(context: &str, parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let mut out = [0; N];
    hasher.finalize_xof().fill(&mut out);
    out
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

/// Where the record after one with `stored` bytes of payload begins, relative to it.
pub(super) fn span(stored: usize) -> usize {
    (RECORD_HEADER + stored).next_multiple_of(BLOCK)
}

/// Why a file header is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// It isn't one, or it is damaged.
    Damaged,
    /// It is whole, but of a version that isn't known.
    Version(u16),
    /// It is whole, but its checksums are made by a hash that isn't known.
    Hash(u8),
}

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// How payloads are sealed.
    pub(super) sealing: u8,
    /// Whose journal it is.
    pub(super) pool: PoolId,
    /// The generation of the state in its snapshot.
    pub(super) base: u64,
    /// What tells this file from all others.
    pub(super) salt: Salt,
    /// The chain value of that generation in the file before this one.
    pub(super) before: Chain,
}

impl FileHeader {
    /// The bytes, without the padding to a block.
    pub(super) fn encode(&self) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        out[..8].copy_from_slice(&FILE_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.sealing;
        out[11] = HASH_BLAKE3;
        out[16..32].copy_from_slice(&self.pool.0);
        out[32..40].copy_from_slice(&self.base.to_le_bytes());
        out[40..56].copy_from_slice(&self.salt);
        out[56..72].copy_from_slice(&self.before.0);
        let check: [u8; 16] = Self::check(&out);
        out[80..].copy_from_slice(&check);
        out
    }

    fn check(bytes: &[u8; FILE_HEADER]) -> [u8; 16] {
        digest("strongroom 1 journal file header", &[&bytes[..80]])
    }

    /// Reads what [`FileHeader::encode`] wrote.
    pub(super) fn decode(bytes: &[u8; FILE_HEADER]) -> Result<Self, HeaderFault> {
        if bytes[..8] != FILE_MAGIC || bytes[80..] != Self::check(bytes) {
            return Err(HeaderFault::Damaged);
        }
        match (u16::from_le_bytes(field(bytes, 8)), bytes[11]) {
            (VERSION, HASH_BLAKE3) => {}
            (VERSION, hash) => return Err(HeaderFault::Hash(hash)),
            (version, _) => return Err(HeaderFault::Version(version)),
        }
        Ok(Self {
            sealing: bytes[10],
            pool: PoolId(field(bytes, 16)),
            base: u64::from_le_bytes(field(bytes, 32)),
            salt: field(bytes, 40),
            before: Chain(field(bytes, 56)),
        })
    }

    /// What the chain of the file's records begins with.
    pub(super) fn chain(&self) -> Chain {
        Chain(digest("strongroom 1 journal chain start", &[&self.encode()]))
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The files that came before, see [`super::lineage::Lineage`].
    Lineage = 1,
    /// Ops that build the state of the file's first generation; more follow.
    Snapshot = 2,
    /// The last of them.
    SnapshotEnd = 3,
    /// The ops of one commit.
    Commit = 4,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [Self::Lineage, Self::Snapshot, Self::SnapshotEnd, Self::Commit]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// What the payload is.
    pub(super) kind: Kind,
    /// The stored payload's length in bytes.
    pub(super) len: u32,
    /// The record's number in its file, from 0; also the nonce of its seal.
    pub(super) number: u32,
    /// The generation of the state after it.
    pub(super) generation: u64,
    /// The file's.
    pub(super) salt: Salt,
}

impl RecordHeader {
    /// The part of the header that the chain and the seal cover.
    pub(super) fn fields(&self) -> [u8; 40] {
        let mut out = [0; 40];
        out[..4].copy_from_slice(&RECORD_MAGIC);
        out[4] = self.kind as u8;
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        out[24..].copy_from_slice(&self.salt);
        out
    }

    /// The chain value after this record.
    pub(super) fn chain(&self, before: Chain, stored: &[u8]) -> Chain {
        let parts = [&before.0[..], &self.fields(), stored];
        Chain(digest("strongroom 1 journal chain", &parts))
    }

    /// The whole record with its padding, to be written at `offset`.
    pub(super) fn encode(&self, chain: Chain, stored: &[u8], offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(span(stored.len()));
        out.extend_from_slice(&self.fields());
        out.extend_from_slice(&chain.0);
        out.extend_from_slice(&Self::check(&out, offset));
        out.extend_from_slice(stored);
        out.resize(span(stored.len()), 0);
        out
    }

    /// The header's own check: with it, records after a damaged one can be recognised. The offset
    /// is in it so that a record can't be taken for one somewhere else.
    fn check(first: &[u8], offset: u64) -> [u8; 8] {
        digest("strongroom 1 journal record header", &[first, &offset.to_le_bytes()])
    }

    /// Reads the header of a record at `offset`, and the chain value it claims.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER], offset: u64) -> Option<(Self, Chain)> {
        if bytes[..4] != RECORD_MAGIC
            || bytes[5..8] != [0; 3]
            || bytes[56..] != Self::check(&bytes[..56], offset)
        {
            return None;
        }
        let header = Self {
            kind: Kind::from_code(bytes[4])?,
            len: u32::from_le_bytes(field(bytes, 8)),
            number: u32::from_le_bytes(field(bytes, 12)),
            generation: u64::from_le_bytes(field(bytes, 16)),
            salt: field(bytes, 24),
        };
        let bounded = header.len as usize <= MAX_PAYLOAD + TAG;
        bounded.then(|| (header, Chain(field(bytes, 40))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn file_header() -> FileHeader {
        FileHeader {
            sealing: 1,
            pool: PoolId([7; 16]),
            base: 9,
            salt: [3; 16],
            before: Chain([5; 16]),
        }
    }

    #[test]
    fn a_file_header_survives_its_bytes_and_no_flipped_bit_does() {
        let bytes = file_header().encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(file_header()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&bad), Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = file_header().encode();
        bytes[8] = 2;
        let check = FileHeader::check(&bytes);
        bytes[80..].copy_from_slice(&check);
        assert_eq!(FileHeader::decode(&bytes), Err(HeaderFault::Version(2)));
    }

    #[test]
    fn a_record_is_known_only_where_it_was_written() {
        let header =
            RecordHeader { kind: Kind::Commit, len: 3, number: 4, generation: 10, salt: [3; 16] };
        let chain = header.chain(Chain([1; 16]), b"abc");
        let bytes = header.encode(chain, b"abc", 8192);
        assert_eq!(bytes.len(), BLOCK);
        let first: [u8; RECORD_HEADER] = bytes[..RECORD_HEADER].try_into().unwrap();
        assert_eq!(RecordHeader::decode(&first, 8192), Some((header, chain)));
        assert_eq!(RecordHeader::decode(&first, 4096), None);
        for bit in 0..first.len() * 8 {
            let mut bad = first;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bad, 8192), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_header_panic(
            file in proptest::array::uniform32(any::<[u8; 3]>()),
            record in proptest::array::uniform32(any::<[u8; 2]>()),
        ) {
            let file: Vec<u8> = file.concat();
            let record: Vec<u8> = record.concat();
            prop_assert!(FileHeader::decode(&file.try_into().unwrap()).is_err());
            prop_assert!(RecordHeader::decode(&record.try_into().unwrap(), 0).is_none());
        }
    }
}
