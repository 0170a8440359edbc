//! The superblock: what a disk says of the pool and of itself.
//!
//! It is the file `pool.superblock` in a disk's top directory. A pool of one disk has a second
//! copy, `pool.superblock.2`, that is read when the first one is damaged. It is replaced as a whole
//! (new file, sync, rename, sync of the directory), one disk after the other; among the disks of a
//! pool the highest generation counts.
//!
//! | part | bytes | content |
//! |---|---|---|
//! | first line | 37 | `strongroom pool, see docs/format.md` and two line feeds, for people |
//! | magic | 8 | `SRSUPER1` |
//! | length | 4 | of the record, little-endian, at most 65,536 |
//! | record | length | below |
//! | checksum | 32 | BLAKE3 of everything before |
//!
//! The record ([`crate::codec`]):
//!
//! | field | type |
//! |---|---|
//! | required features: a bit that a reader doesn't know forbids opening; none yet | varint |
//! | optional features: unknown bits may be passed over, and are kept; none yet | varint |
//! | generation: 1 when created, one more with each change | varint |
//! | pool | 16 bytes |
//! | when it was created, by the wall clock, in nanoseconds since the Unix epoch | zigzag varint |
//! | this disk | 16 bytes |
//! | data shards | byte |
//! | parity shards | byte |
//! | all disks, in the order of the layout: as many as there are shards | 16 bytes each |
//! | chunker and its sizes ([`crate::chunker`]) | byte, four varints |
//! | chunk hash ([`crate::seal`]) | byte |
//! | compression of new frames ([`crate::compress`]) | byte |
//! | its level | zigzag varint |
//! | pack size, in bytes, 1 MiB to 256 MiB | varint |
//! | keys ([`crate::keys`]) | record |

use std::io::ErrorKind;

use crate::chunker::Params;
use crate::codec::{DecodeError, Reader, Writer};
use crate::compress::{LEVELS, Method};
use crate::disk::{Disk, patiently, read_file, replace_file};
use crate::error::{Error, Result};
use crate::id::{DiskId, PoolId};
use crate::keys::Protection;
use crate::seal::ChunkHash;

/// The file's name.
pub const FILE: &str = "pool.superblock";
const SECOND: &str = "pool.superblock.2";
/// Both of a pool on one disk; others have the first alone.
pub(crate) const NAMES: [&str; 2] = [FILE, SECOND];
const FIRST_LINE: &[u8] = b"strongroom pool, see docs/format.md\n\n";
const MAGIC: &[u8; 8] = b"SRSUPER1";
const MAX_RECORD: usize = 64 << 10;
const SUM: usize = 32;
/// The bounds of a pool's pack size, in bytes.
pub const PACK_SIZES: std::ops::RangeInclusive<u32> = 1 << 20..=224 << 20;

/// What a disk says of the pool and of itself.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Optional features that whoever wrote it knew.
    optional: u64,
    /// How often it was changed.
    pub generation: u64,
    /// The pool.
    pub pool: PoolId,
    /// When the pool was created, by the wall clock, in nanoseconds since the Unix epoch.
    pub created: i64,
    /// This disk.
    pub disk: DiskId,
    /// Shards that hold data.
    pub data_shards: u8,
    /// Shards that hold parity or copies: so many disks may be lost.
    pub parity_shards: u8,
    /// All disks, in the order of the layout.
    pub disks: Vec<DiskId>,
    /// How streams and images are cut.
    pub chunking: Params,
    /// How chunks get their ids.
    pub chunk_hash: ChunkHash,
    /// The zstd level of new frames.
    pub compression_level: i32,
    /// A pack of data is closed once it has this many bytes.
    pub pack_size: u32,
    /// The pool's keys.
    pub protection: Protection,
}

impl Superblock {
    /// That of a new pool, for its first disk. `layout` is data and parity shards.
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes or levels out of their bounds.
    #[allow(clippy::too_many_arguments, reason = "each is one field of a record made once")]
    pub fn new(
        pool: PoolId,
        created: i64,
        disks: Vec<DiskId>,
        layout: (u8, u8),
        chunking: Params,
        compression_level: i32,
        pack_size: u32,
        protection: Protection,
    ) -> Result<Self> {
        chunking.validate()?;
        if !LEVELS.contains(&compression_level) {
            let (low, high) = (LEVELS.start(), LEVELS.end());
            let what = format!("compression level {compression_level} is not {low} to {high}");
            return Err(Error::Invalid(what));
        }
        if !PACK_SIZES.contains(&pack_size) {
            let (low, high) = (PACK_SIZES.start() >> 20, PACK_SIZES.end() >> 20);
            let what = format!("a pack size of {pack_size} bytes is not {low} to {high} MiB");
            return Err(Error::Invalid(what));
        }
        let disk = *disks.first().ok_or_else(|| Error::Invalid("a pool needs a disk".into()))?;
        Ok(Self {
            optional: 0,
            generation: 1,
            pool,
            created,
            disk,
            data_shards: layout.0,
            parity_shards: layout.1,
            disks,
            chunking,
            chunk_hash: ChunkHash::Blake3,
            compression_level,
            pack_size,
            protection,
        })
    }

    /// The same, as the disk at this place of the layout has it.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn for_disk(&self, place: usize) -> Self {
        Self { disk: self.disks[place], ..self.clone() }
    }

    /// Whether a disk has anything that claims to be a superblock.
    pub fn exists(disk: &dyn Disk) -> bool {
        [FILE, SECOND].iter().any(
            |path| !matches!(read_file(disk, path, 1), Err(e) if e.kind() == ErrorKind::NotFound),
        )
    }

    /// The bytes of the file.
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.uint(0);
        w.uint(self.optional);
        w.uint(self.generation);
        w.raw(&self.pool.0);
        w.int(self.created);
        w.raw(&self.disk.0);
        w.byte(self.data_shards);
        w.byte(self.parity_shards);
        self.disks.iter().for_each(|disk| w.raw(&disk.0));
        self.chunking.encode(&mut w);
        w.byte(self.chunk_hash as u8);
        w.byte(Method::Zstd as u8);
        w.int(self.compression_level.into());
        w.uint(self.pack_size.into());
        self.protection.encode(&mut w);
        let record = w.finish();
        let mut bytes = FIRST_LINE.to_vec();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&record);
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// Reads the bytes of the file. `what` names it in errors.
    ///
    /// # Errors
    /// [`Error::NotAPool`] when it never was one, [`Error::Damaged`], [`Error::Unsupported`].
    pub fn decode(bytes: &[u8], what: &str) -> Result<Self> {
        let Some(rest) = bytes.strip_prefix(FIRST_LINE).and_then(|b| b.strip_prefix(MAGIC)) else {
            let why = "its superblock does not begin as one".into();
            return Err(Error::NotAPool { path: what.into(), why });
        };
        let damaged = |why: &str| Error::damaged(what, why);
        let (len, rest) = rest.split_first_chunk().ok_or_else(|| damaged("it is cut short"))?;
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_RECORD || rest.len() != len + SUM {
            return Err(damaged("it has a wrong length"));
        }
        let (content, sum) = bytes.split_at(bytes.len() - SUM);
        if blake3::hash(content).as_bytes() != sum {
            return Err(damaged("its checksum does not fit"));
        }
        let mut r = Reader::new(&rest[..len]);
        let required = r.uint().map_err(Error::decoding(what))?;
        if required != 0 {
            return Err(Error::Unsupported { feature: format!("features {required:#x}") });
        }
        Self::decode_record(&mut r).map_err(|e| match e {
            DecodeError::Unknown(feature) => Error::Unsupported { feature: feature.into() },
            e => Error::damaged(what, e),
        })
    }

    fn decode_record(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let optional = r.uint()?;
        let generation = r.uint()?;
        let pool = PoolId(r.array()?);
        let created = r.int()?;
        let disk = DiskId(r.array()?);
        let (data_shards, parity_shards) = (r.byte()?, r.byte()?);
        let count = u16::from(data_shards) + u16::from(parity_shards);
        let disks = (0..count).map(|_| Ok(DiskId(r.array()?))).collect::<Result<Vec<_>, _>>()?;
        if data_shards == 0 || !disks.contains(&disk) {
            return Err(DecodeError::Unknown("the layout"));
        }
        let chunking = Params::decode(r)?;
        let chunk_hash = ChunkHash::from_code(r.byte()?)?;
        if Method::from_code(r.byte()?)? != Method::Zstd {
            return Err(DecodeError::Unknown("the compression"));
        }
        let level = i32::try_from(r.int()?).ok().filter(|level| LEVELS.contains(level));
        let compression_level = level.ok_or(DecodeError::Unknown("the compression level"))?;
        let pack_size = r.uint32()?;
        if !PACK_SIZES.contains(&pack_size) {
            return Err(DecodeError::Unknown("the pack size"));
        }
        let protection = Protection::decode(r)?;
        r.clone().end()?;
        Ok(Self {
            optional,
            generation,
            pool,
            created,
            disk,
            data_shards,
            parity_shards,
            disks,
            chunking,
            chunk_hash,
            compression_level,
            pack_size,
            protection,
        })
    }

    /// Writes it to its disk; durable when this returns.
    ///
    /// # Errors
    /// [`Error::Io`]; what was there before is then still there.
    pub fn write(&self, disk: &dyn Disk) -> Result<()> {
        let bytes = self.encode();
        let names = if self.disks.len() == 1 { &NAMES[..] } else { &NAMES[..1] };
        for name in names {
            replace_file(disk, name, &bytes).map_err(|e| {
                Error::io(format!("writing the superblock of {}", disk.describe()), e)
            })?;
        }
        Ok(())
    }

    /// Reads that of a disk; the copy with the higher generation when there are two.
    ///
    /// # Errors
    /// As [`Superblock::decode`], of the first copy when neither is good.
    pub fn read(disk: &dyn Disk) -> Result<Self> {
        let read = |name: &str| {
            let what = format!("{}/{name}", disk.describe());
            let limit = MAX_RECORD + 1024;
            let read = patiently(|| read_file(disk, name, limit as u64));
            let bytes = read.map_err(|e| match e.kind() {
                ErrorKind::NotFound => {
                    Error::NotAPool { path: disk.describe(), why: "it has no superblock".into() }
                }
                ErrorKind::InvalidData => Error::damaged(&*what, "it is too long"),
                _ => Error::io(format!("reading {what}"), e),
            })?;
            Self::decode(&bytes, &what)
        };
        match (read(FILE), read(SECOND)) {
            (Ok(first), Ok(second)) if second.generation > first.generation => Ok(second),
            (Err(_), Ok(second)) => Ok(second),
            (first, _) => first,
        }
    }

    /// The newest of those that were read; with several pools among them, that of the first.
    ///
    /// # Errors
    /// The first one's error when none could be read.
    pub fn newest(read: &[Result<Self>]) -> Result<&Self> {
        let Some(first) = read.iter().flatten().next() else {
            let why = match read.first() {
                Some(Err(e)) => e.to_string(),
                _ => "none of its disks is there".into(),
            };
            return match read.iter().find_map(|read| match read {
                Err(Error::Unsupported { feature }) => Some(feature.clone()),
                _ => None,
            }) {
                Some(feature) => Err(Error::Unsupported { feature }),
                None => Err(Error::NotAPool { path: "what was given".into(), why }),
            };
        };
        let same = read.iter().flatten().filter(|superblock| superblock.pool == first.pool);
        Ok(same.max_by_key(|superblock| superblock.generation).unwrap_or(first))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::disk::SimDisk;
    use crate::keys::{Keyring, Secret, Stretch};
    use crate::seal::Aead;
    use proptest::prelude::*;

    fn superblock(disks: usize, encrypted: bool) -> Superblock {
        let pool = PoolId::random();
        let protection = if encrypted {
            let secret = Secret::passphrase(b"secret").unwrap();
            let keyring = Keyring::generate(Aead::Aes256Gcm);
            Protection::seal(&keyring, pool, &secret, "first", Stretch::CHEAP).unwrap()
        } else {
            Protection::Clear(Keyring::generate(Aead::None))
        };
        let disks = (0..disks).map(|_| DiskId::random()).collect();
        Superblock::new(pool, 17, disks, (1, 0), Params::default(), 1, 32 << 20, protection)
            .unwrap()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for encrypted in [false, true] {
            let whole = superblock(1, encrypted);
            let bytes = whole.encode();
            assert_eq!(Superblock::decode(&bytes, "it").unwrap().encode(), bytes);
            for byte in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[byte] ^= 1 << (byte % 8);
                assert!(Superblock::decode(&bad, "it").is_err(), "byte {byte}");
                assert!(Superblock::decode(&bytes[..byte], "it").is_err(), "cut at {byte}");
            }
        }
    }

    #[test]
    fn a_pool_of_one_disk_survives_the_loss_of_one_copy() {
        let disk = SimDisk::new(1);
        assert!(!Superblock::exists(&disk));
        let mut written = superblock(1, true);
        written.write(&disk).unwrap();
        written.generation = 2;
        written.write(&disk).unwrap();
        assert!(Superblock::exists(&disk));
        for name in [FILE, SECOND] {
            disk.flip_bit(name, 70, 1).unwrap();
            assert_eq!(Superblock::read(&disk).unwrap().generation, 2);
            disk.flip_bit(name, 70, 1).unwrap();
        }
        disk.flip_bit(FILE, 70, 1).unwrap();
        disk.flip_bit(SECOND, 70, 1).unwrap();
        assert!(matches!(Superblock::read(&disk), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_newer_format_is_named_and_refused() {
        let mut bytes = superblock(1, false).encode();
        let required = FIRST_LINE.len() + MAGIC.len() + 4;
        bytes[required] = 4;
        let end = bytes.len() - SUM;
        let sum = *blake3::hash(&bytes[..end]).as_bytes();
        bytes[end..].copy_from_slice(&sum);
        let error = Superblock::decode(&bytes, "it").unwrap_err();
        assert!(matches!(&error, Error::Unsupported { feature } if feature.contains("0x4")));
    }

    #[test]
    fn the_newest_counts_and_strangers_do_not() {
        let old = superblock(2, false);
        let new = Superblock { generation: 5, ..old.clone() };
        let other = Superblock { generation: 9, ..superblock(1, false) };
        let read = [Err(Error::Canceled), Ok(old), Ok(other), Ok(new)];
        assert_eq!(Superblock::newest(&read).unwrap().generation, 5);
        assert!(Superblock::newest(&[]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            let _ = Superblock::decode(&bytes, "it");
            let _ = Superblock::decode_record(&mut Reader::new(&bytes));
        }
    }
}
