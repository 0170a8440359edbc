//! The bytes of a shard file, and where on it what lies. See the table in [`super`].

use xxhash_rust::xxh3::xxh3_128;

use crate::buf::PAGE;
use crate::erasure::MAX_SHARDS;
use crate::error::{Error, Result};
use crate::id::{ChunkKind, PackId, PoolId};

/// The unit that pools use, in bytes.
pub const UNIT: u32 = 128 << 10;
/// The largest unit that a reader accepts, in bytes.
pub const MAX_UNIT: u32 = 1 << 20;
/// The longest pack, in bytes.
pub const MAX_PACK: u64 = 256 << 20;

/// Where the units begin.
pub(super) const DATA_START: u64 = PAGE as u64;
/// How much of the header holds something; the trailer has a copy of it.
const FIELDS: usize = 96;
/// The fixed part at the end of the trailer.
const TAIL: usize = FIELDS + 48;
const SUM: usize = 16;
const HEADER_MAGIC: [u8; 8] = *b"SRshard\n";
const TAIL_MAGIC: [u8; 8] = *b"SRshend\n";
const VERSION: u32 = 1;

/// Rounds up to whole pages.
pub(super) fn page_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE as u64)
}

/// How a pack is cut into shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    data: u8,
    parity: u8,
    unit: u32,
}

impl Shape {
    /// `data` + `parity` shards with the usual [`UNIT`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for no data shard or more than [`MAX_SHARDS`] in all.
    pub fn new(data: u8, parity: u8) -> Result<Self> {
        Self::with_unit(data, parity, UNIT)
    }

    /// The same with units of `unit` bytes, a multiple of 4096 up to [`MAX_UNIT`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when the numbers are out of their bounds.
    pub fn with_unit(data: u8, parity: u8, unit: u32) -> Result<Self> {
        let shards = usize::from(data) + usize::from(parity);
        let unit_fits =
            (1..=MAX_UNIT).contains(&unit) && u64::from(unit).is_multiple_of(PAGE as u64);
        if data == 0 || shards > MAX_SHARDS || !unit_fits {
            return Err(Error::Invalid(format!(
                "{data}+{parity} shards with units of {unit} bytes are not a layout for packs"
            )));
        }
        Ok(Self { data, parity, unit })
    }

    /// How many shards hold data.
    pub fn data(&self) -> usize {
        self.data.into()
    }

    /// How many shards hold parity (or copies, when one holds data).
    pub fn parity(&self) -> usize {
        self.parity.into()
    }

    /// How many shards there are in all.
    pub fn shards(&self) -> usize {
        self.data() + self.parity()
    }

    /// The length of a unit, in bytes.
    pub fn unit(&self) -> u64 {
        self.unit.into()
    }

    /// The length of a stripe's data, in bytes.
    pub(super) fn stripe(&self) -> u64 {
        self.unit() * u64::from(self.data)
    }

    /// How many of the first `logical` bytes of a pack lie on data shard `shard`.
    pub(super) fn share(&self, shard: usize, logical: u64) -> u64 {
        let rest = logical % self.stripe();
        let before = shard as u64 * self.unit();
        logical / self.stripe() * self.unit() + rest.saturating_sub(before).min(self.unit())
    }
}

/// Where everything lies in the shard files of one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// How it is cut.
    pub shape: Shape,
    len: u64,
}

impl Geometry {
    /// That of a pack of `len` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is longer than [`MAX_PACK`].
    pub fn new(shape: Shape, len: u64) -> Result<Self> {
        if len > MAX_PACK {
            let what = format!("a pack of {len} bytes is longer than {MAX_PACK}");
            return Err(Error::Invalid(what));
        }
        Ok(Self { shape, len })
    }

    /// The pack's logical length, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the pack is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many stripes there are: each shard has one unit or none in each.
    pub(super) fn rows(&self) -> u64 {
        self.len.div_ceil(self.shape.stripe())
    }

    /// How many bytes of units a shard stores.
    pub(super) fn stored(&self, shard: usize) -> u64 {
        let model = if shard < self.shape.data() { shard } else { 0 };
        page_up(self.shape.share(model, self.len))
    }

    /// The stored length of a shard's unit in `row`; 0 when it has none there.
    pub(super) fn unit_len(&self, shard: usize, row: u64) -> u64 {
        let unit = self.shape.unit();
        self.stored(shard).saturating_sub(row * unit).min(unit)
    }

    /// How many units a shard has.
    pub(super) fn units(&self, shard: usize) -> u64 {
        self.stored(shard).div_ceil(self.shape.unit())
    }

    /// Where a shard's trailer begins.
    pub(super) fn trailer_start(&self, shard: usize) -> u64 {
        DATA_START + self.stored(shard)
    }

    pub(super) fn trailer_len(&self, shard: usize) -> u64 {
        page_up(self.units(shard) * SUM as u64 + TAIL as u64)
    }

    /// The length of a shard's file, in bytes.
    pub fn file_len(&self, shard: usize) -> u64 {
        self.trailer_start(shard) + self.trailer_len(shard)
    }

    /// The logical bytes that a data shard's unit in `row` holds.
    pub(super) fn logical(&self, shard: usize, row: u64) -> std::ops::Range<u64> {
        let start = (row * self.shape.data() as u64 + shard as u64) * self.shape.unit();
        start.min(self.len)..(start + self.shape.unit()).min(self.len)
    }
}

/// What the shards of one pack have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackHeader {
    /// The pool it belongs to.
    pub pool: PoolId,
    /// Its number.
    pub pack: PackId,
    /// What its chunks hold.
    pub kind: ChunkKind,
    /// How it is cut.
    pub shape: Shape,
    /// Which data key seals it; 0 in a pool that isn't encrypted.
    pub epoch: u32,
    /// Random bytes that its own key is derived with; no secret.
    pub salt: [u8; 32],
}

impl PackHeader {
    fn write_fields(&self, shard: usize, out: &mut [u8]) {
        out[..FIELDS].fill(0);
        out[..8].copy_from_slice(&HEADER_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.shape.unit.to_le_bytes());
        out[16..32].copy_from_slice(&self.pool.0);
        out[32..40].copy_from_slice(&self.pack.0.to_le_bytes());
        out[40] = u8::try_from(shard).expect("there are at most 32 shards");
        out[41] = self.shape.data;
        out[42] = self.shape.parity;
        out[43] = self.kind as u8;
        out[44..48].copy_from_slice(&self.epoch.to_le_bytes());
        out[64..96].copy_from_slice(&self.salt);
    }

    /// Reads what [`PackHeader::write_fields`] wrote; gives the shard's number too.
    fn read_fields(bytes: &[u8]) -> Option<(Self, usize)> {
        let fields = bytes.get(..FIELDS)?;
        let known = fields[..8] == HEADER_MAGIC
            && u32_at(fields, 8) == VERSION
            && fields[48..64].iter().all(|byte| *byte == 0);
        let shape = Shape::with_unit(fields[41], fields[42], u32_at(fields, 12)).ok()?;
        let shard = usize::from(fields[40]);
        let pack = u64_at(fields, 32);
        if !known || shard >= shape.shards() || pack > PackId::MAX {
            return None;
        }
        let header = Self {
            pool: PoolId(array_at(fields, 16)),
            pack: PackId(pack),
            kind: ChunkKind::from_code(fields[43])?,
            shape,
            epoch: u32_at(fields, 44),
            salt: array_at(fields, 64),
        };
        Some((header, shard))
    }

    /// Writes the header page of a shard.
    pub(super) fn encode(&self, shard: usize, page: &mut [u8]) {
        page[..PAGE].fill(0);
        self.write_fields(shard, page);
        let sum = xxh3_128(&page[..PAGE - SUM]);
        page[PAGE - SUM..PAGE].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a header page; gives the shard's number too. Nothing when a byte of it is not what
    /// was written.
    pub(super) fn decode(page: &[u8]) -> Option<(Self, usize)> {
        let page = page.get(..PAGE)?;
        if xxh3_128(&page[..PAGE - SUM]) != u128_at(page, PAGE - SUM) {
            return None;
        }
        Self::read_fields(page)
    }
}

/// The end of a shard file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) header: PackHeader,
    pub(super) shard: usize,
    pub(super) len: u64,
    /// XXH3-128 of each unit.
    pub(super) sums: Vec<u128>,
}

impl Trailer {
    /// Writes it to the front of `out`, which must have room; says how long it is.
    pub(super) fn encode(&self, out: &mut [u8]) -> usize {
        let geometry = Geometry::new(self.header.shape, self.len).expect("the length was checked");
        let len = geometry.trailer_len(self.shard) as usize;
        let out = &mut out[..len];
        out.fill(0);
        let (table, tail) = out.split_at_mut(len - TAIL);
        for (sum, place) in self.sums.iter().zip(table.chunks_exact_mut(SUM)) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        self.header.write_fields(self.shard, tail);
        let start = geometry.trailer_start(self.shard);
        let units = u32::try_from(self.sums.len()).expect("a pack has fewer units");
        tail[96..104].copy_from_slice(&self.len.to_le_bytes());
        tail[104..112].copy_from_slice(&start.to_le_bytes());
        tail[112..116].copy_from_slice(&units.to_le_bytes());
        tail[120..128].copy_from_slice(&TAIL_MAGIC);
        let sum = xxh3_128(&out[..len - SUM]);
        out[len - SUM..].copy_from_slice(&sum.to_le_bytes());
        len
    }

    /// Reads a whole trailer. Nothing when a byte of it is not what was written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let tail = bytes.get(bytes.len().checked_sub(TAIL)?..)?;
        if xxh3_128(&bytes[..bytes.len() - SUM]) != u128_at(tail, TAIL - SUM)
            || tail[120..128] != TAIL_MAGIC
        {
            return None;
        }
        let (header, shard) = PackHeader::read_fields(tail)?;
        let len = u64_at(tail, 96);
        let geometry = Geometry::new(header.shape, len).ok()?;
        let units = geometry.units(shard);
        let fits = u64_at(tail, 104) == geometry.trailer_start(shard)
            && u64::from(u32_at(tail, 112)) == units
            && bytes.len() as u64 == geometry.trailer_len(shard);
        fits.then(|| Self { header, shard, len, sums: read_sums(bytes, units) })
    }

    /// Where the trailer begins in a file of `file_len` bytes, as its last page says; believed
    /// only as far as a trailer can be long.
    pub(super) fn locate(last_page: &[u8], file_len: u64) -> Option<u64> {
        let tail = last_page.get(last_page.len().checked_sub(TAIL)?..)?;
        let start = u64_at(tail, 104);
        let longest = page_up(MAX_PACK / PAGE as u64 * SUM as u64 + TAIL as u64);
        let fits = start < file_len && file_len - start <= longest;
        fits.then_some(start)
    }
}

/// The table at the front of a trailer, of which nothing else need be right.
pub(super) fn read_sums(trailer: &[u8], units: u64) -> Vec<u128> {
    trailer.chunks_exact(SUM).take(units as usize).map(|sum| u128_at(sum, 0)).collect()
}

/// The checksum of a unit, in the table where a rebuilt shard lacks the unit because it was lost
/// for good: what stands in its place are zeroes, and this is not their checksum.
pub(super) fn lost_mark(unit_len: u64) -> u128 {
    !xxh3_128(&vec![0; unit_len as usize])
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(shape: Shape) -> PackHeader {
        PackHeader {
            pool: PoolId([7; 16]),
            pack: PackId(0x1234),
            kind: ChunkKind::Node,
            shape,
            epoch: 3,
            salt: [9; 32],
        }
    }

    #[test]
    fn a_header_is_read_back_and_no_flipped_bit_is_missed() {
        let header = header(Shape::new(4, 2).unwrap());
        let mut page = vec![0xff; PAGE];
        header.encode(5, &mut page);
        assert_eq!(PackHeader::decode(&page), Some((header, 5)));
        for i in 0..PAGE {
            page[i] ^= 1 << (i % 8);
            assert_eq!(PackHeader::decode(&page), None);
            page[i] ^= 1 << (i % 8);
        }
        assert_eq!(PackHeader::decode(&page[1..]), None);
    }

    #[test]
    fn a_trailer_is_read_back_and_no_flipped_bit_is_missed() {
        let shape = Shape::with_unit(2, 1, 4096).unwrap();
        let trailer =
            Trailer { header: header(shape), shard: 2, len: 20_000, sums: vec![1, 2, u128::MAX] };
        let mut bytes = vec![0xff; 2 * PAGE];
        assert_eq!(trailer.encode(&mut bytes), PAGE);
        bytes.truncate(PAGE);
        assert_eq!(Trailer::decode(&bytes), Some(trailer));
        for i in 0..PAGE {
            bytes[i] ^= 1 << (i % 8);
            assert_eq!(Trailer::decode(&bytes), None);
            bytes[i] ^= 1 << (i % 8);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert_eq!(PackHeader::decode(&bytes), None);
            prop_assert_eq!(Trailer::decode(&bytes), None);
            let _ = Trailer::locate(&bytes, 1 << 20);
            // With right checksums as well: whoever can write can compute them.
            if bytes.len() > TAIL {
                let end = bytes.len() - SUM;
                bytes[end - 8..end].copy_from_slice(&TAIL_MAGIC);
                let at = bytes.len() - TAIL;
                bytes[at..at + 8].copy_from_slice(&HEADER_MAGIC);
                bytes[at + 8..at + 12].copy_from_slice(&VERSION.to_le_bytes());
                let sum = xxh3_128(&bytes[..end]);
                bytes[end..].copy_from_slice(&sum.to_le_bytes());
                let _ = Trailer::decode(&bytes);
            }
        }

        #[test]
        fn shares_add_up(data in 1u8..9, units in 1u32..4, len in 0u64..200_000) {
            let shape = Shape::with_unit(data, 2, units * 4096).unwrap();
            let sum: u64 = (0..shape.data()).map(|shard| shape.share(shard, len)).sum();
            prop_assert_eq!(sum, len);
            let geometry = Geometry::new(shape, len).unwrap();
            for shard in 0..shape.shards() {
                let units = (0..geometry.rows()).map(|row| geometry.unit_len(shard, row));
                prop_assert_eq!(units.sum::<u64>(), geometry.stored(shard));
                prop_assert!(geometry.stored(shard) <= geometry.stored(0));
            }
            for row in 0..geometry.rows() {
                for shard in 0..shape.data() {
                    let logical = geometry.logical(shard, row);
                    prop_assert_eq!(
                        page_up(logical.end - logical.start), geometry.unit_len(shard, row));
                }
            }
        }
    }
}
