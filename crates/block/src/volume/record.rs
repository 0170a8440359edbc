//! What lies in the log of a volume.
//!
//! # A segment of a volume's log (version 1, little-endian)
//!
//! The file `volumes/<volume>.<number>` on some of the pool's disks: the volume's id and the segment's
//! number as hexadecimal digits, 32 and 16. All copies of a segment have the same bytes.
//!
//! | at | bytes | segment header |
//! |---|---|---|
//! | 0 | 8 | `SRVLOG\r\n` |
//! | 8 | 2 | version: 1 |
//! | 10 | 6 | zero |
//! | 16 | 16 | pool |
//! | 32 | 16 | volume |
//! | 48 | 32 | salt of the run |
//! | 80 | 8 | number of the segment |
//! | 88 | 8 | sequence number of its first record |
//! | 96 | 16 | check of bytes 0..96 |
//! | 112 | | zero to 4096 |
//!
//! Records follow. Each begins where the one before ends, or at the next multiple of 4096 bytes: so
//! begins the first one after each sync, so that no write touches a block with what is durable, and
//! what is written past the page cache.
//!
//! | at | bytes | record |
//! |---|---|---|
//! | 0 | 4 | `SRvr` |
//! | 4 | 1 | kind |
//! | 5 | 3 | zero |
//! | 8 | 4 | length of the payload, at most 128 KiB |
//! | 12 | 4 | zero |
//! | 16 | 8 | sequence number: one more than that of the record before |
//! | 24 | 8 | where in the volume, in bytes |
//! | 32 | 8 | how many bytes of it |
//! | 40 | 8 | up to which sequence number all was durable when this was written |
//! | 48 | 8 | number under which the payload is sealed |
//! | 56 | 16 | tag of the sealed payload; in a pool that isn't encrypted its XXH3-128 |
//! | 72 | 8 | check of the segment's number, the record's place in the file (8 bytes each) and bytes 0..72, cut to 8 bytes |
//! | 80 | | payload |
//!
//! How payloads are sealed, and what a check is, see "Logs of volumes" with the keys; the associated data
//! are the kind, the place and the length (1 + 8 + 8 bytes).
//!
//! | kind | what | payload |
//! |---|---|---|
//! | 1 | bytes were written | they |
//! | 2 | a range reads as zeroes | none |
//! | 3 | a snapshot | its id (16 bytes), when it was made by the pool's own clock (zigzag varint), its name (byte string) |
//! | 4 | a snapshot was deleted | its id |
//! | 5 | the volume has grown; its new size stands in the length | none |
//! | 6 | the volume was rolled back to a snapshot | its id |

use strongroom_engine::clock::PoolTime;
use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::id::PoolId;
use strongroom_engine::seal::{LogSealer, TAG_LEN};
use xxhash_rust::xxh3::xxh3_128;

use super::{SnapshotId, VolumeId};

/// What a write must not share with one that is durable, in bytes.
pub(crate) const BLOCK: u64 = 4096;
/// The longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 128 << 10;
/// A record's header, in bytes.
pub(crate) const HEADER: usize = 80;
/// The longest segment, in bytes.
pub const MAX_SEGMENT: u64 = 64 << 20;
/// The longest name of a snapshot or volume, in bytes.
pub const MAX_NAME: usize = 255;

const MAGIC: &[u8; 8] = b"SRVLOG\r\n";
const RECORD_MAGIC: &[u8; 4] = b"SRvr";
const VERSION: u16 = 1;
const SEGMENT_CHECK: usize = 96;
const RECORD_CHECK: usize = 72;

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose pool.
    pub pool: PoolId,
    /// Whose log.
    pub volume: VolumeId,
    /// The run's.
    pub salt: [u8; 32],
    /// The segment's number.
    pub number: u64,
    /// The sequence number of its first record.
    pub first: u64,
}

impl SegmentHeader {
    /// The whole first block.
    pub fn encode(&self, sealer: &LogSealer) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.pool.0);
        out.extend_from_slice(&self.volume.0);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&sealer.check(&out));
        out.resize(BLOCK as usize, 0);
        out
    }

    /// Reads what [`SegmentHeader::encode`] wrote with the same sealer; `None` for anything else.
    pub fn decode(bytes: &[u8], sealer: &LogSealer) -> Option<Self> {
        let mut r = Reader::new(bytes.get(..SEGMENT_CHECK + 16)?);
        let is_one = r.array::<8>().ok()? == *MAGIC
            && u16::from_le_bytes(r.array().ok()?) == VERSION
            && r.array::<6>().ok()? == [0; 6];
        let header = Self {
            pool: PoolId(r.array().ok()?),
            volume: VolumeId(r.array().ok()?),
            salt: r.array().ok()?,
            number: u64::from_le_bytes(r.array().ok()?),
            first: u64::from_le_bytes(r.array().ok()?),
        };
        let check = sealer.check(bytes.get(..SEGMENT_CHECK)?);
        (is_one && r.array::<16>().ok()? == check).then_some(header)
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// So many bytes were written; they are the payload.
    Data {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// A range reads as zeroes.
    Zeroes {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// A snapshot of what was written before.
    Snapshot {
        /// Its id.
        id: SnapshotId,
        /// When, by the pool's own clock.
        created: PoolTime,
        /// Its name.
        name: String,
    },
    /// A snapshot is no more.
    Deleted(SnapshotId),
    /// The volume has this size in bytes from here on.
    Grown(u64),
    /// The volume is what it was at a snapshot.
    RolledBack(SnapshotId),
}

impl Change {
    /// Kind, place, length and, but for data, payload.
    fn parts(&self) -> (u8, u64, u64, Vec<u8>) {
        match self {
            Self::Data { offset, length } => (1, *offset, u64::from(*length), Vec::new()),
            Self::Zeroes { offset, length } => (2, *offset, *length, Vec::new()),
            Self::Snapshot { id, created, name } => {
                let mut w = Writer::new();
                w.raw(&id.0);
                w.int(created.0);
                w.bytes(name.as_bytes());
                (3, 0, 0, w.finish())
            }
            Self::Deleted(id) => (4, 0, 0, id.0.to_vec()),
            Self::Grown(size) => (5, 0, *size, Vec::new()),
            Self::RolledBack(id) => (6, 0, 0, id.0.to_vec()),
        }
    }

    /// What a record says, of its fields.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that no record says.
    pub fn decode(kind: u8, offset: u64, length: u64, payload: &[u8]) -> Result<Self, DecodeError> {
        if offset.checked_add(length).is_none() || payload.len() > MAX_PAYLOAD {
            return Err(DecodeError::Overlong);
        }
        let mut r = Reader::new(payload);
        let change = match kind {
            1 if length == payload.len() as u64 && length > 0 => {
                return Ok(Self::Data { offset, length: payload.len() as u32 });
            }
            2 if length > 0 => Self::Zeroes { offset, length },
            3 => Self::Snapshot {
                id: SnapshotId(r.array()?),
                created: PoolTime(r.int()?),
                name: name(r.bytes()?)?,
            },
            4 => Self::Deleted(SnapshotId(r.array()?)),
            5 => Self::Grown(length),
            6 => Self::RolledBack(SnapshotId(r.array()?)),
            _ => return Err(DecodeError::Unknown("a record of a volume's log")),
        };
        r.end()?;
        Ok(change)
    }
}

/// A name as it stands in a record.
pub(crate) fn name(bytes: &[u8]) -> Result<String, DecodeError> {
    if bytes.len() > MAX_NAME {
        return Err(DecodeError::Unknown("the length of a name"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Unknown("a name"))
}

/// A change whose payload is sealed, and that has no place in the log yet: what its header will say.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) change: Change,
    pub(crate) payload: u32,
    number: u64,
    sum: [u8; TAG_LEN],
}

fn aad(kind: u8, offset: u64, length: u64) -> [u8; 17] {
    let mut aad = [0; 17];
    aad[0] = kind;
    aad[1..9].copy_from_slice(&offset.to_le_bytes());
    aad[9..].copy_from_slice(&length.to_le_bytes());
    aad
}

impl Entry {
    /// Seals a change under a number that is used for nothing else, where its payload lies already: the bytes
    /// of [`Change::Data`], at most [`MAX_PAYLOAD`].
    pub(crate) fn seal(
        change: Change,
        payload: &mut [u8],
        number: u64,
        sealer: &LogSealer,
    ) -> Self {
        let (kind, offset, length, _) = change.parts();
        let tag = sealer.seal(number, &aad(kind, offset, length), payload);
        let sum = tag.unwrap_or_else(|| xxh3_128(payload).to_le_bytes());
        Self { change, payload: payload.len() as u32, number, sum }
    }

    /// The same, with room for the header before the payload, which it makes of the change or of `data`.
    pub(crate) fn record(
        change: Change,
        data: &[u8],
        number: u64,
        sealer: &LogSealer,
    ) -> (Self, Vec<u8>) {
        let (.., words) = change.parts();
        let payload = if words.is_empty() { data } else { &words };
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(payload);
        let (_, payload) = bytes.split_at_mut(HEADER);
        (Self::seal(change, payload, number, sealer), bytes)
    }

    /// The header of the record, which is written so that it comes to lie at `at`.
    pub(crate) fn header(
        &self,
        sealer: &LogSealer,
        segment: u64,
        at: u64,
        sequence: u64,
        durable: u64,
    ) -> [u8; HEADER] {
        let (kind, offset, length, _) = self.change.parts();
        let mut fields = [0; HEADER];
        let mut end = 0;
        let mut put = |bytes: &[u8]| {
            fields[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        put(RECORD_MAGIC);
        put(&[kind, 0, 0, 0]);
        put(&self.payload.to_le_bytes());
        put(&[0; 4]);
        for field in [sequence, offset, length, durable, self.number] {
            put(&field.to_le_bytes());
        }
        put(&self.sum);
        let (head, place) = fields.split_at_mut(RECORD_CHECK);
        place.copy_from_slice(&check(sealer, segment, at, head));
        fields
    }
}

fn check(sealer: &LogSealer, segment: u64, at: u64, fields: &[u8]) -> [u8; 8] {
    let mut checked = [0; 16 + RECORD_CHECK];
    let (place, said) = checked.split_at_mut(16);
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..].copy_from_slice(&at.to_le_bytes());
    said.copy_from_slice(fields);
    *sealer.check(&checked).first_chunk().expect("8 of 16 bytes")
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    /// The payload's length in bytes.
    pub payload: u32,
    /// The record's sequence number.
    pub sequence: u64,
    offset: u64,
    length: u64,
    /// Up to which sequence number all was durable.
    pub durable: u64,
    number: u64,
    sum: [u8; TAG_LEN],
}

impl Header {
    /// Reads the header at the beginning of `bytes`, which lie at `at` in the segment of that number;
    /// `None` for what is none that was written there.
    pub fn decode(bytes: &[u8], sealer: &LogSealer, segment: u64, at: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        let (fields, sum) = bytes.split_at_checked(RECORD_CHECK)?;
        if fields.get(..4)? != RECORD_MAGIC || check(sealer, segment, at, fields) != *sum {
            return None;
        }
        let mut r = Reader::new(fields.get(4..)?);
        let kind = r.byte().ok()?;
        r.raw(3).ok()?;
        let payload = u32::from_le_bytes(r.array().ok()?);
        r.raw(4).ok()?;
        let mut number = || r.array().ok().map(u64::from_le_bytes);
        let [sequence, offset, length, durable, sealed] =
            [number()?, number()?, number()?, number()?, number()?];
        let sum = r.array().ok()?;
        let bounded = payload as usize <= MAX_PAYLOAD;
        bounded.then_some(Self {
            kind,
            payload,
            sequence,
            offset,
            length,
            durable,
            number: sealed,
            sum,
        })
    }

    /// Opens the payload, which is replaced by what was sealed; `None` when it isn't this record's.
    pub fn open(&self, sealer: &LogSealer, payload: &mut Vec<u8>) -> Option<Change> {
        let len = payload.len();
        payload.resize(len + TAG_LEN, 0);
        let change = self.open_in(sealer, payload);
        payload.truncate(len);
        change
    }

    /// As [`Header::open`], where there is room for a tag behind the payload.
    pub(crate) fn open_in(&self, sealer: &LogSealer, bytes: &mut [u8]) -> Option<Change> {
        let len = self.payload as usize;
        let (payload, tag) = bytes.split_at_mut_checked(len)?;
        if tag.len() != TAG_LEN {
            return None;
        }
        if sealer.is_sealed() {
            tag.copy_from_slice(&self.sum);
            let aad = aad(self.kind, self.offset, self.length);
            sealer.open(self.number, &aad, bytes).ok()?;
        } else if xxh3_128(payload).to_le_bytes() != self.sum {
            return None;
        }
        Change::decode(self.kind, self.offset, self.length, bytes.get(..len)?).ok()
    }
}

/// What was found in a segment.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its head.
    pub header: Header,
    /// What it says.
    pub change: Change,
    /// Its payload, opened.
    pub payload: Vec<u8>,
    /// Where it begins in the segment.
    pub at: u64,
    /// Where it ends.
    pub end: u64,
}

/// The record at `at` in the bytes of a segment, if there is a whole one.
pub fn record_at(bytes: &[u8], sealer: &LogSealer, segment: u64, at: u64) -> Option<Found> {
    let from = usize::try_from(at).ok()?;
    let rest = bytes.get(from..)?;
    let header = Header::decode(rest, sealer, segment, at)?;
    let end = HEADER + header.payload as usize;
    let mut payload = rest.get(HEADER..end)?.to_vec();
    let change = header.open(sealer, &mut payload)?;
    Some(Found { header, change, payload, at, end: at + end as u64 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::volume::testing::sealer;

    fn changes() -> Vec<(Change, Vec<u8>)> {
        let id = SnapshotId([7; 16]);
        vec![
            (Change::Data { offset: 512, length: 1024 }, vec![9; 1024]),
            (Change::Zeroes { offset: 0, length: 1 << 40 }, vec![]),
            (Change::Snapshot { id, created: PoolTime(-5), name: "before".into() }, vec![]),
            (Change::Deleted(id), vec![]),
            (Change::Grown(1 << 50), vec![]),
            (Change::RolledBack(id), vec![]),
        ]
    }

    fn segment(sealed: bool) -> (LogSealer, Vec<u8>) {
        let sealer = sealer(sealed);
        let mut bytes = vec![0; BLOCK as usize];
        for (n, (change, data)) in changes().into_iter().enumerate() {
            let (entry, record) = Entry::record(change, &data, n as u64, &sealer);
            let at = bytes.len() as u64;
            bytes.extend_from_slice(&entry.header(&sealer, 3, at, 10 + n as u64, 9));
            bytes.extend_from_slice(&record[HEADER..]);
        }
        (sealer, bytes)
    }

    #[test]
    fn records_survive_their_bytes_and_no_flipped_bit_does() {
        for sealed in [false, true] {
            let (sealer, bytes) = segment(sealed);
            let mut at = BLOCK;
            for (n, (change, data)) in changes().into_iter().enumerate() {
                let found = record_at(&bytes, &sealer, 3, at).unwrap();
                assert_eq!((found.header.sequence, &found.change), (10 + n as u64, &change));
                assert_eq!(found.header.durable, 9);
                if !data.is_empty() {
                    assert_eq!(found.payload, data);
                    assert_eq!(found.payload == bytes[at as usize + HEADER..][..1024], !sealed);
                }
                for byte in at..found.end {
                    let mut bad = bytes.clone();
                    bad[byte as usize] ^= 1 << (byte % 8);
                    assert!(record_at(&bad, &sealer, 3, at).is_none(), "byte {byte}");
                }
                assert!(record_at(&bytes[..found.end as usize - 1], &sealer, 3, at).is_none());
                assert!(record_at(&bytes, &sealer, 4, at).is_none(), "another segment's");
                at = found.end;
            }
            assert_eq!(at, bytes.len() as u64);
        }
    }

    #[test]
    fn a_segment_header_survives_its_bytes_and_no_flipped_bit_does() {
        let sealer = sealer(true);
        let header = SegmentHeader {
            pool: PoolId([1; 16]),
            volume: VolumeId([2; 16]),
            salt: [3; 32],
            number: 4,
            first: 5,
        };
        let bytes = header.encode(&sealer);
        assert_eq!(SegmentHeader::decode(&bytes, &sealer), Some(header));
        for bit in 0..112 * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad, &sealer), None, "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..100], &sealer), None);
    }
}
