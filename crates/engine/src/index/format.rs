//! The bytes of a segment file.
//!
//! A segment is a whole number of pages of 4096 bytes. The last 8 bytes of *every* page are its
//! checksum: XXH3-64 of the 4088 bytes before, seeded with `k + n` (modulo 2^64), where `n` is the
//! number of the page in the file, from 0, and `k` is the unseeded XXH3-64 of the 16 bytes of the
//! pool's id followed by the segment's number as 8 bytes. So a page that lies in the wrong place,
//! the wrong segment or the wrong pool is noticed as surely as a changed one. All integers are
//! little-endian. Bytes that no field covers are zero.
//!
//! | pages | content |
//! |---|---|
//! | 0 | header |
//! | 1 .. 1+P | P = ceil(entries / 73) pages of entries |
//! | 1+P .. 1+P+F | F = ceil(P / 511) pages of fences |
//! | 1+P+F .. 1+P+F+B | B = ceil(blocks / 127) pages of filter blocks |
//!
//! Header page:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `SR-INDEX` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | bytes per entry: 56 |
//! | 16 | 16 | pool id |
//! | 32 | 8 | segment number |
//! | 40 | 8 | entries in all, at least 1 |
//! | 48 | 8 | pages of entries, P; the first is page 1 |
//! | 56 | 8 | first page of fences |
//! | 64 | 8 | pages of fences, F |
//! | 72 | 8 | first page of the filter |
//! | 80 | 8 | pages of the filter, B |
//! | 88 | 8 | blocks of the filter: ceil(entries * 12 / 256) |
//!
//! Entry (56 bytes, 73 to a page; only the last page may hold fewer). Entries are sorted by chunk
//! id, then by pack; no two have both in common.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 32 | chunk id |
//! | 32 | 6 | pack |
//! | 38 | 3 | ordinal of the chunk in the pack |
//! | 41 | 4 | offset of the frame in the pack |
//! | 45 | 3 | stored length of the frame |
//! | 48 | 3 | offset of the chunk in the opened frame |
//! | 51 | 3 | length of the chunk |
//! | 54 | 1 | kind: 0 data, 1 node |
//! | 55 | 1 | zero |
//!
//! Fence (8 bytes, 511 to a page): the first eight bytes of the first id of an entry page, read as
//! a big-endian number (so that numbers sort as ids do) and stored little-endian; one per entry
//! page, in order.
//!
//! Filter block (32 bytes, 127 to a page): see [`super::filter`].
//!
//! Everything but the entries follows from them, so that two writers given the same entries write
//! the same bytes, and a damaged header, fence or filter page can be made again.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(super) use crate::buf::PAGE;
use crate::id::{ChunkId, ChunkKind, Location, PackId, PoolId, SegmentId};

/// Bytes of a page before its checksum.
pub(super) const PAYLOAD: usize = PAGE - 8;
/// Bytes of an entry.
pub(super) const ENTRY: usize = 56;
/// Entries in a full page.
pub(super) const PER_PAGE: usize = PAYLOAD / ENTRY;
/// Fences in a full page.
pub(super) const FENCES_PER_PAGE: usize = PAYLOAD / 8;
/// Bytes of a filter block.
pub(super) const BLOCK: usize = 32;
/// Filter blocks in a full page.
pub(super) const BLOCKS_PER_PAGE: usize = PAYLOAD / BLOCK;

const MAGIC: &[u8; 8] = b"SR-INDEX";
const VERSION: u32 = 1;
/// Bits of filter per entry: about 0.4 % of absent ids pass one segment's filter.
const BITS_PER_KEY: u64 = 12;
/// More entries than a segment may have; keeps all sums far from overflowing.
const TOO_MANY: u64 = 1 << 36;
const LIMIT_24: u32 = 1 << 24;

/// Where the sections of a segment lie. Follows from the number of entries alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) entries: u64,
    /// Pages of entries.
    pub(super) pages: u64,
    /// Pages of fences.
    pub(super) fence_pages: u64,
    /// Blocks of the filter.
    pub(super) blocks: u64,
    /// Pages of the filter.
    pub(super) filter_pages: u64,
}

impl Layout {
    /// The layout for so many entries; none for zero or absurdly many.
    pub(super) fn of(entries: u64) -> Option<Self> {
        if entries == 0 || entries >= TOO_MANY {
            return None;
        }
        let pages = entries.div_ceil(PER_PAGE as u64);
        let blocks = (entries * BITS_PER_KEY).div_ceil(BLOCK as u64 * 8);
        Some(Self {
            entries,
            pages,
            fence_pages: pages.div_ceil(FENCES_PER_PAGE as u64),
            blocks,
            filter_pages: blocks.div_ceil(BLOCKS_PER_PAGE as u64),
        })
    }

    /// The first page of fences.
    pub(super) fn fences_at(&self) -> u64 {
        1 + self.pages
    }

    /// The first page of the filter.
    pub(super) fn filter_at(&self) -> u64 {
        self.fences_at() + self.fence_pages
    }

    /// All pages of the file.
    pub(super) fn all_pages(&self) -> u64 {
        self.filter_at() + self.filter_pages
    }

    /// The file's length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.all_pages() * PAGE as u64
    }

    /// How many entries the entry page with this number (from 0) holds.
    pub(super) fn entries_in(&self, page: u64) -> usize {
        let before = page * PER_PAGE as u64;
        self.entries.saturating_sub(before).min(PER_PAGE as u64) as usize
    }
}

/// Which segment of which pool: what every page's checksum is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pool: PoolId,
    segment: SegmentId,
    key: u64,
}

impl Binding {
    pub(super) fn new(pool: PoolId, segment: SegmentId) -> Self {
        let mut name = [0; 24];
        name[..16].copy_from_slice(&pool.0);
        name[16..].copy_from_slice(&segment.0.to_le_bytes());
        Self { pool, segment, key: xxh3_64(&name) }
    }

    fn checksum(&self, number: u64, page: &[u8]) -> [u8; 8] {
        xxh3_64_with_seed(&page[..PAYLOAD], self.key.wrapping_add(number)).to_le_bytes()
    }

    /// Puts the checksum at the end of a page.
    pub(super) fn seal(&self, number: u64, page: &mut [u8]) {
        let sum = self.checksum(number, page);
        page[PAYLOAD..PAGE].copy_from_slice(&sum);
    }

    /// Whether the page is the one that was written with this number.
    pub(super) fn holds(&self, number: u64, page: &[u8]) -> bool {
        self.checksum(number, page) == page[PAYLOAD..PAGE]
    }

    /// The header page, sealed.
    pub(super) fn header(&self, layout: &Layout) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&(ENTRY as u32).to_le_bytes());
        page[16..32].copy_from_slice(&self.pool.0);
        let numbers = [
            self.segment.0,
            layout.entries,
            layout.pages,
            layout.fences_at(),
            layout.fence_pages,
            layout.filter_at(),
            layout.filter_pages,
            layout.blocks,
        ];
        for (field, number) in page[32..].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        self.seal(0, &mut page);
        page
    }
}

/// The version that a header page (whose checksum held) tells, when it is one that this program
/// does not know.
pub(super) fn unknown_version(page: &[u8]) -> Option<u32> {
    let version = u32::from_le_bytes(page[8..12].try_into().expect("four bytes"));
    (page[..8] == *MAGIC && version != VERSION).then_some(version)
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

/// Writes an entry; false (and nothing usable written) when a number does not fit its field.
#[must_use]
pub(super) fn put_entry(to: &mut [u8], id: &ChunkId, at: &Location) -> bool {
    let small = [at.ordinal, at.frame_len, at.offset, at.len];
    if at.pack.0 > PackId::MAX || small.iter().any(|n| *n >= LIMIT_24) {
        return false;
    }
    to[..32].copy_from_slice(&id.0);
    to[32..38].copy_from_slice(&at.pack.0.to_le_bytes()[..6]);
    to[38..41].copy_from_slice(&at.ordinal.to_le_bytes()[..3]);
    to[41..45].copy_from_slice(&at.frame_offset.to_le_bytes());
    to[45..48].copy_from_slice(&at.frame_len.to_le_bytes()[..3]);
    to[48..51].copy_from_slice(&at.offset.to_le_bytes()[..3]);
    to[51..54].copy_from_slice(&at.len.to_le_bytes()[..3]);
    to[54] = at.kind as u8;
    to[55] = 0;
    true
}

/// Reads what [`put_entry`] wrote after the id; nothing when the kind is unknown.
pub(super) fn location(entry: &[u8]) -> Option<Location> {
    let mut pack = [0; 8];
    pack[..6].copy_from_slice(&entry[32..38]);
    Some(Location {
        pack: PackId(u64::from_le_bytes(pack)),
        ordinal: u24(&entry[38..41]),
        frame_offset: u32::from_le_bytes(entry[41..45].try_into().expect("four bytes")),
        frame_len: u24(&entry[45..48]),
        offset: u24(&entry[48..51]),
        len: u24(&entry[51..54]),
        kind: ChunkKind::from_code(entry[54])?,
    })
}

/// The id of the entry with this number in a page.
pub(super) fn id_at(page: &[u8], entry: usize) -> &[u8; 32] {
    page[entry * ENTRY..][..32].try_into().expect("thirty-two bytes")
}

/// The first eight bytes of an id as a number in the ids' order.
pub(super) fn prefix(id: &[u8; 32]) -> u64 {
    ChunkId(*id).prefix()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sections_fill_the_file_without_a_gap() {
        assert_eq!(Layout::of(0), None);
        assert_eq!(Layout::of(TOO_MANY), None);
        for entries in [1, 72, 73, 74, 73 * 511, 73 * 511 + 1, 10_000_000] {
            let layout = Layout::of(entries).unwrap();
            assert_eq!(layout.len() % PAGE as u64, 0);
            let held: u64 = (0..layout.pages).map(|p| layout.entries_in(p) as u64).sum();
            assert_eq!(held, entries);
            assert!(layout.blocks * 256 >= entries * 12);
        }
    }

    #[test]
    fn entries_survive_their_bytes_and_too_large_ones_are_refused() {
        let at = Location {
            pack: PackId(PackId::MAX),
            ordinal: LIMIT_24 - 1,
            frame_offset: u32::MAX,
            frame_len: 1,
            offset: 2,
            len: 8 << 20,
            kind: ChunkKind::Node,
        };
        let id = ChunkId([7; 32]);
        let mut bytes = [0xff; ENTRY];
        assert!(put_entry(&mut bytes, &id, &at));
        assert_eq!(location(&bytes), Some(at));
        assert_eq!(bytes[55], 0);
        bytes[54] = 9;
        assert_eq!(location(&bytes), None);
        assert!(!put_entry(&mut bytes, &id, &Location { len: LIMIT_24, ..at }));
        assert!(!put_entry(&mut bytes, &id, &Location { pack: PackId(PackId::MAX + 1), ..at }));
    }

    #[test]
    fn a_page_is_bound_to_its_place() {
        let here = Binding::new(PoolId([1; 16]), SegmentId(5));
        let mut page = [3; PAGE];
        here.seal(9, &mut page);
        assert!(here.holds(9, &page));
        assert!(!here.holds(10, &page));
        assert!(!Binding::new(PoolId([1; 16]), SegmentId(6)).holds(9, &page));
        assert!(!Binding::new(PoolId([2; 16]), SegmentId(5)).holds(9, &page));
        page[100] ^= 1;
        assert!(!here.holds(9, &page));
    }
}
