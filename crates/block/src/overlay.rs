//! A device that lets another be written to, without touching it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{BlockDevice, Content, Durability, Error, Extent, Geometry, Result, Zeroing};

/// Bytes of a piece, which is the base's, or the overlay's.
const PIECE: u64 = 4096;
/// Pieces of a region: those that one lock guards, with one record.
const PIECES: u64 = 256;
const REGION: u64 = PIECE * PIECES;
/// Locks; regions share them.
const LOCKS: u64 = 64;
/// So many regions are looked at for one answer, and about so many runs of pieces are told of.
const LOOKED_AT: usize = 1 << 14;
const RUNS: usize = 4096;
/// Bytes that are zeroed at once.
const ZEROES: usize = 64 << 10;

/// A base that is only read, and a file that has what was written since: a writable copy at once.
///
/// The file is sparse, and as long as the base at most. It has no order and no record of what is in it, so
/// that nothing of it can be had once the device is gone, and nothing is made durable by a flush: it is for
/// work that is thrown away. The size is that of the base when it was made.
///
/// In memory it takes some 100 bytes for each MiB that was written to. Reads and writes of one MiB wait for
/// each other.
#[derive(Debug)]
pub struct OverlayDevice {
    base: Arc<dyn BlockDevice>,
    file: File,
    geometry: Geometry,
    regions: Vec<RwLock<HashMap<u64, Region>>>,
    id: [u8; 16],
}

/// What became of a region's pieces: a bit for each.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    /// It is in the file.
    written: Bits,
    /// It is a hole, whatever the base has.
    zero: Bits,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bits([u64; (PIECES / 64) as usize]);

impl Bits {
    fn has(&self, piece: u64) -> bool {
        self.0.get((piece / 64) as usize).is_some_and(|word| word >> (piece % 64) & 1 == 1)
    }

    fn set(&mut self, piece: u64, on: bool) {
        if let Some(word) = self.0.get_mut((piece / 64) as usize) {
            *word = *word & !(1 << (piece % 64)) | u64::from(on) << (piece % 64);
        }
    }
}

/// Where a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Base,
    Written,
    Zero,
}

impl Region {
    fn place(&self, piece: u64) -> Place {
        match (self.written.has(piece), self.zero.has(piece)) {
            (true, _) => Place::Written,
            (false, true) => Place::Zero,
            (false, false) => Place::Base,
        }
    }

    fn put(&mut self, piece: u64, place: Place) {
        self.written.set(piece, place == Place::Written);
        self.zero.set(piece, place == Place::Zero);
    }
}

type Regions = HashMap<u64, Region>;

/// Parts of a range that end where pieces, or regions, do.
fn cut(range: Range<u64>, at: u64) -> impl Iterator<Item = Range<u64>> {
    let mut from = range.start;
    std::iter::from_fn(move || {
        let part = from..range.end.min((from / at + 1) * at);
        from = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// Parts of a range within one region, each with the place it has.
fn places(regions: &Regions, range: Range<u64>) -> Vec<(Range<u64>, Place)> {
    let region = regions.get(&(range.start / REGION)).copied().unwrap_or_default();
    let mut places: Vec<(Range<u64>, Place)> = Vec::new();
    for part in cut(range, PIECE) {
        let place = region.place(part.start / PIECE % PIECES);
        match places.last_mut() {
            Some((last, same)) if *same == place => last.end = part.end,
            _ => places.push((part, place)),
        }
    }
    places
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::NoSpace
        }
        _ => Error::Failed(format!("what was written could not be kept: {error}")),
    }
}

impl OverlayDevice {
    /// Over a base, with an empty file for what is written.
    pub fn new(base: Arc<dyn BlockDevice>, file: File, id: [u8; 16]) -> Self {
        let geometry = Geometry {
            read_only: false,
            thin: true,
            physical: base.geometry().physical.max(PIECE as u32),
            ..base.geometry()
        };
        let regions = (0..LOCKS).map(|_| RwLock::default()).collect();
        Self { base, file, geometry, regions, id }
    }

    fn lock_of(&self, offset: u64) -> &RwLock<Regions> {
        &self.regions[(offset / REGION % LOCKS) as usize]
    }

    fn shared(&self, offset: u64) -> RwLockReadGuard<'_, Regions> {
        self.lock_of(offset).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self, offset: u64) -> RwLockWriteGuard<'_, Regions> {
        self.lock_of(offset).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what lies within one region.
    fn read(&self, regions: &Regions, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut rest = buffer;
        for (part, place) in places(regions, offset..offset + rest.len() as u64) {
            let (now, later) = rest.split_at_mut((part.end - part.start) as usize);
            match place {
                Place::Base => self.base.read_at(part.start, now)?,
                Place::Zero => now.fill(0),
                Place::Written => self.file.read_exact_at(now, part.start).map_err(|error| {
                    Error::Unreadable { offset: part.start, why: error.to_string() }
                })?,
            }
            rest = later;
        }
        Ok(())
    }

    /// Makes those pieces the overlay's, of which only a part will be written.
    fn take(&self, regions: &mut Regions, part: &Range<u64>) -> Result<()> {
        let pieces = [part.start / PIECE, part.end.saturating_sub(1) / PIECE];
        for piece in pieces {
            let whole = piece * PIECE..self.geometry.size.min((piece + 1) * PIECE);
            let region = regions.get(&(piece / PIECES)).copied().unwrap_or_default();
            let is_whole = part.start <= whole.start && part.end >= whole.end;
            if is_whole || region.place(piece % PIECES) == Place::Written {
                continue;
            }
            let mut bytes = [0; PIECE as usize];
            let bytes = &mut bytes[..(whole.end - whole.start) as usize];
            self.read(regions, whole.start, bytes)?;
            self.file.write_all_at(bytes, whole.start).map_err(failed)?;
            let region = regions.entry(piece / PIECES).or_default();
            region.put(piece % PIECES, Place::Written);
        }
        Ok(())
    }

    /// Writes what lies within one region.
    fn write(&self, regions: &mut Regions, offset: u64, bytes: &[u8]) -> Result<()> {
        let part = offset..offset + bytes.len() as u64;
        self.take(regions, &part)?;
        self.file.write_all_at(bytes, offset).map_err(failed)?;
        let region = regions.entry(offset / REGION).or_default();
        for piece in cut(part, PIECE) {
            region.put(piece.start / PIECE % PIECES, Place::Written);
        }
        Ok(())
    }

    /// Has what lies within one region read as zeroes.
    fn zero(&self, regions: &mut Regions, range: Range<u64>) -> Result<()> {
        let first = range.start.next_multiple_of(PIECE).min(range.end);
        let last = match range.end == self.geometry.size {
            true => range.end,
            false => (range.end / PIECE * PIECE).max(first),
        };
        let zeroes = [0; PIECE as usize];
        for edge in [range.start..first, last..range.end] {
            if !edge.is_empty() {
                self.write(regions, edge.start, &zeroes[..(edge.end - edge.start) as usize])?;
            }
        }
        let whole = first..last;
        if whole.is_empty() || self.is_hole(regions, &whole)? {
            return Ok(());
        }
        let region = regions.entry(whole.start / REGION).or_default();
        let mut was_written = false;
        for piece in cut(whole.clone(), PIECE) {
            let piece = piece.start / PIECE % PIECES;
            was_written |= region.place(piece) == Place::Written;
            region.put(piece, Place::Zero);
        }
        if was_written {
            // Where the filesystem can't, its room stays taken until the end.
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(&self.file, flags, whole.start, whole.end - whole.start);
        }
        Ok(())
    }

    /// Whether nothing was written in a range, and the base has nothing there: then there is nothing to
    /// be noted of it.
    fn is_hole(&self, regions: &Regions, range: &Range<u64>) -> Result<bool> {
        if regions.contains_key(&(range.start / REGION)) {
            return Ok(false);
        }
        let length = range.end - range.start;
        let extents = self.base.extents(range.start, length, 1);
        // What can't be told is no hole.
        Ok(extents.is_ok_and(|extents| {
            matches!(extents[..], [Extent { length: l, content: Content::Hole, .. }] if l == length)
        }))
    }

    fn check(&self, offset: u64, length: u64) -> Result<Range<u64>> {
        self.geometry.check(offset, length)?;
        Ok(offset..offset + length)
    }
}

impl BlockDevice for OverlayDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut rest = buffer;
        for part in cut(self.check(offset, rest.len() as u64)?, REGION) {
            let (now, later) = rest.split_at_mut((part.end - part.start) as usize);
            self.read(&self.shared(part.start), part.start, now)?;
            rest = later;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8], _: Durability) -> Result<()> {
        let mut rest = bytes;
        for part in cut(self.check(offset, bytes.len() as u64)?, REGION) {
            let (now, later) = rest.split_at((part.end - part.start) as usize);
            self.write(&mut self.alone(part.start), part.start, now)?;
            rest = later;
        }
        Ok(())
    }

    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        zeroing: Zeroing,
        durability: Durability,
    ) -> Result<()> {
        let range = self.check(offset, length)?;
        if zeroing == Zeroing::Keep {
            let zeroes = vec![0; ZEROES];
            for part in cut(range, ZEROES as u64) {
                let length = (part.end - part.start) as usize;
                self.write_at(part.start, &zeroes[..length], durability)?;
            }
            return Ok(());
        }
        for part in cut(range, REGION) {
            self.zero(&mut self.alone(part.start), part)?;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.write_zeroes(offset, length, Zeroing::MayUnmap, Durability::Later)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn compare_and_write(
        &self,
        offset: u64,
        expected: &[u8],
        bytes: &[u8],
        _: Durability,
    ) -> Result<Option<u64>> {
        let range = self.check(offset, bytes.len() as u64)?;
        if expected.len() != bytes.len() {
            return Err(Error::Unsupported("compare so many bytes with others"));
        }
        // All locks at once, always in one order.
        let mut locks: Vec<_> = (0..LOCKS).map(|lock| self.alone(lock * REGION)).collect();
        let mut at = 0;
        for part in cut(range.clone(), REGION) {
            let regions = &locks[(part.start / REGION % LOCKS) as usize];
            let mut there = vec![0; (part.end - part.start) as usize];
            self.read(regions, part.start, &mut there)?;
            let wanted = &expected[at..at + there.len()];
            if let Some(differs) = there.iter().zip(wanted).position(|(a, b)| a != b) {
                return Ok(Some((at + differs) as u64));
            }
            at += there.len();
        }
        let mut rest = bytes;
        for part in cut(range, REGION) {
            let (now, later) = rest.split_at((part.end - part.start) as usize);
            let regions = &mut locks[(part.start / REGION % LOCKS) as usize];
            self.write(regions, part.start, now)?;
            rest = later;
        }
        Ok(None)
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        let mut runs: Vec<(Range<u64>, Place)> = Vec::new();
        for part in cut(self.check(offset, length)?, REGION).take(LOOKED_AT) {
            for (part, place) in places(&self.shared(part.start), part) {
                match runs.last_mut() {
                    Some((last, same)) if *same == place => last.end = part.end,
                    _ => runs.push((part, place)),
                }
            }
            if runs.len() > RUNS {
                break;
            }
        }
        // The base is asked without a lock: it stays as it is.
        let mut extents: Vec<Extent> = Vec::new();
        for (run, place) in runs {
            let length = run.end - run.start;
            let found = match place {
                Place::Base => self.base.extents(run.start, length, most),
                Place::Written => Ok(vec![extent(run.clone(), Content::Data)]),
                Place::Zero => Ok(vec![extent(run.clone(), Content::Hole)]),
            };
            let found = match found {
                Ok(found) => found,
                // What is known comes first; who asks for the rest hears of it.
                Err(_) if !extents.is_empty() => return Ok(extents),
                Err(error) => return Err(error),
            };
            let mut end = run.start;
            for next in found {
                end += next.length;
                let is_full = extents.len() == most.max(1);
                match extents.last_mut() {
                    Some(last) if last.content == next.content => last.length += next.length,
                    _ if is_full => return Ok(extents),
                    _ => extents.push(next),
                }
            }
            if end < run.end {
                break;
            }
        }
        Ok(extents)
    }

    fn id(&self) -> [u8; 16] {
        self.id
    }
}

fn extent(part: Range<u64>, content: Content) -> Extent {
    Extent { offset: part.start, length: part.end - part.start, content }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::MemoryDevice;

    /// Not of whole pieces, and of a few regions.
    const SIZE: u64 = 2 * REGION + 5 * 512;

    /// A base with data in some places, which is only read, and its bytes.
    fn base() -> (Arc<MemoryDevice>, Vec<u8>) {
        let device = MemoryDevice::new(SIZE);
        let mut bytes = vec![0; SIZE as usize];
        for (i, offset) in (0..SIZE - 8192).step_by(3 * 8192).enumerate() {
            let data: Vec<u8> = (0..8192).map(|at| (at + 7 * i) as u8 | 1).collect();
            device.write_at(offset, &data, Durability::Later).unwrap();
            bytes[offset as usize..offset as usize + 8192].copy_from_slice(&data);
        }
        (Arc::new(device), bytes)
    }

    fn over(base: &Arc<MemoryDevice>) -> OverlayDevice {
        OverlayDevice::new(Arc::clone(base) as _, tempfile::tempfile().unwrap(), [5; 16])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u8),
        Zero(bool),
        Discard,
        Exchange(u8, bool),
    }

    fn step() -> impl Strategy<Value = (u64, u64, Step)> {
        let what = prop_oneof![
            any::<u8>().prop_map(Step::Write),
            any::<bool>().prop_map(Step::Zero),
            Just(Step::Discard),
            (any::<u8>(), any::<bool>()).prop_map(|(byte, same)| Step::Exchange(byte, same)),
        ];
        let length = prop_oneof![3 => 1u64..40, 1 => 1u64..SIZE / 512];
        (0..SIZE / 512, length, what)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_what_was_written_over_the_base(
            steps in prop::collection::vec(step(), 1..40),
            most in 1usize..6,
        ) {
            let (base, original) = base();
            let device = over(&base);
            let mut model = original.clone();
            for (offset, length, what) in steps {
                let offset = offset * 512;
                let length = (length * 512).min(SIZE - offset);
                let range = offset as usize..(offset + length) as usize;
                match what {
                    Step::Write(byte) => {
                        let bytes: Vec<u8> =
                            (0..length).map(|at| byte.wrapping_add((at / 512) as u8)).collect();
                        device.write_at(offset, &bytes, Durability::Now).unwrap();
                        model[range].copy_from_slice(&bytes);
                    }
                    Step::Zero(keep) => {
                        let zeroing = if keep { Zeroing::Keep } else { Zeroing::MayUnmap };
                        device.write_zeroes(offset, length, zeroing, Durability::Later).unwrap();
                        model[range].fill(0);
                    }
                    Step::Discard => {
                        device.discard(offset, length).unwrap();
                        model[range].fill(0);
                    }
                    Step::Exchange(byte, same) => {
                        let mut expected = model[range.clone()].to_vec();
                        let last = expected.len() - 1;
                        if !same {
                            expected[last] ^= 1;
                        }
                        let bytes = vec![byte; expected.len()];
                        let told = device
                            .compare_and_write(offset, &expected, &bytes, Durability::Later)
                            .unwrap();
                        prop_assert_eq!(told, (!same).then_some(last as u64));
                        if same {
                            model[range].fill(byte);
                        }
                    }
                }
            }
            device.flush().unwrap();
            let mut bytes = vec![1; SIZE as usize];
            device.read_at(0, &mut bytes).unwrap();
            prop_assert!(bytes == model);
            let mut at = 0;
            while at < SIZE {
                let some = device.extents(at, SIZE - at, most).unwrap();
                prop_assert!((1..=most).contains(&some.len()));
                for extent in some {
                    prop_assert_eq!(extent.offset, at);
                    let range = at as usize..(at + extent.length) as usize;
                    if extent.content != Content::Data {
                        prop_assert!(model[range].iter().all(|byte| *byte == 0));
                    }
                    at += extent.length;
                }
            }
            prop_assert_eq!(at, SIZE);
            base.read_at(0, &mut bytes).unwrap();
            prop_assert!(bytes == original, "the base was written to");
        }
    }

    #[test]
    fn each_block_is_of_one_writer_entire_and_a_number_is_drawn_once() {
        let (base, _) = base();
        let device = over(&base);
        let (offset, length) = (REGION - 6 * 512, 12 * 512);
        std::thread::scope(|scope| {
            for writer in 1..5u8 {
                let device = &device;
                scope.spawn(move || {
                    for _ in 0..100 {
                        device.write_at(offset, &vec![writer; length], Durability::Later).unwrap();
                        let mut bytes = vec![0; length];
                        device.read_at(offset, &mut bytes).unwrap();
                        for block in bytes.chunks(512) {
                            assert!(block.iter().all(|byte| *byte == block[0]));
                            assert!((1..5).contains(&block[0]));
                        }
                    }
                });
            }
        });
        let drawn = std::thread::scope(|scope| {
            let draw = |_| {
                let device = &device;
                scope.spawn(move || {
                    (0..50u8)
                        .filter(|number| {
                            let was = vec![*number; 1024];
                            let next = vec![number + 1; 1024];
                            let place = 4096 - 512;
                            let told =
                                device.compare_and_write(place, &was, &next, Durability::Later);
                            told.unwrap().is_none()
                        })
                        .count()
                })
            };
            device.write_at(4096 - 512, &[0; 1024], Durability::Later).unwrap();
            let threads: Vec<_> = (0..3).map(draw).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert!((1..=50).contains(&drawn), "{drawn}");
        let mut bytes = [0; 1024];
        device.read_at(4096 - 512, &mut bytes).unwrap();
        assert_eq!(bytes, [drawn as u8; 1024]);
    }

    #[test]
    fn room_is_given_back_and_holes_of_the_base_take_none() {
        use std::os::unix::fs::MetadataExt;
        let hole = Arc::new(MemoryDevice::new(1 << 40));
        let device = over(&hole);
        device.discard(0, 1 << 32).unwrap();
        assert!(device.regions.iter().all(|regions| regions.read().unwrap().is_empty()));
        device.write_at(0, &vec![1; 8 << 20], Durability::Later).unwrap();
        let taken = device.file.metadata().unwrap().blocks();
        device.discard(0, 8 << 20).unwrap();
        assert!(device.file.metadata().unwrap().blocks() < taken);
        assert_eq!(device.extents(0, 8 << 20, 9).unwrap(), [extent(0..8 << 20, Content::Hole)]);
    }

    #[test]
    fn what_the_base_can_not_read_is_an_error_until_it_is_written() {
        #[derive(Debug)]
        struct Bad(MemoryDevice);
        impl BlockDevice for Bad {
            fn geometry(&self) -> Geometry {
                Geometry { read_only: true, ..self.0.geometry() }
            }
            fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
                match (offset..offset + buffer.len() as u64).contains(&8192) {
                    true => Err(Error::Unreadable { offset: 8192, why: "lost".into() }),
                    false => self.0.read_at(offset, buffer),
                }
            }
            fn write_at(&self, _: u64, _: &[u8], _: Durability) -> Result<()> {
                Err(Error::ReadOnly)
            }
            fn write_zeroes(&self, _: u64, _: u64, _: Zeroing, _: Durability) -> Result<()> {
                Err(Error::ReadOnly)
            }
            fn discard(&self, _: u64, _: u64) -> Result<()> {
                Err(Error::ReadOnly)
            }
            fn flush(&self) -> Result<()> {
                Ok(())
            }
            fn compare_and_write(
                &self,
                _: u64,
                _: &[u8],
                _: &[u8],
                _: Durability,
            ) -> Result<Option<u64>> {
                Err(Error::ReadOnly)
            }
            fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
                self.0.extents(offset, length, most)
            }
            fn id(&self) -> [u8; 16] {
                self.0.id()
            }
        }
        let bad = Bad(MemoryDevice::new(SIZE));
        let device = OverlayDevice::new(Arc::new(bad), tempfile::tempfile().unwrap(), [0; 16]);
        assert!(!device.geometry().read_only);
        let mut bytes = [0; 4096];
        assert!(matches!(device.read_at(8192, &mut bytes), Err(Error::Unreadable { .. })));
        device.read_at(4096, &mut bytes).unwrap();
        let half = device.write_at(8192, &[1; 512], Durability::Later);
        assert!(matches!(half, Err(Error::Unreadable { .. })));
        device.write_at(8192, &[1; 4096], Durability::Later).unwrap();
        device.read_at(8192, &mut bytes).unwrap();
        assert_eq!(bytes, [1; 4096]);
        assert!(device.write_at(SIZE, &[1; 512], Durability::Later).is_err());
    }
}
