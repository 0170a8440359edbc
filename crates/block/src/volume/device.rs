//! Volumes and snapshots as block devices.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use strongroom_engine::disk::Disk;
use strongroom_engine::map;

use super::base::Base;
use super::live::Source;
use super::record::{BLOCK, Change, HEADER, MAX_PAYLOAD};
use super::segment::aligned;
use super::share::Turn;
use super::{SnapshotId, Volume, log};
use crate::{BlockDevice, Content, Durability, Error, Extent, Geometry, Result, Zeroing};

/// A chunk may move, and a map be replaced by a newer one, while it is read: so often it is tried again.
const TRIES: usize = 8;
/// Chunks whose extents are looked at together.
const STEP: u64 = 4096;

impl Volume {
    pub(super) fn base(&self) -> Base<'_> {
        let keeps = self.set_now().cache;
        let (pool, reader, windows, reads) = (&self.pool, &self.reader, &self.windows, &self.reads);
        Base { pool, reader, windows, reads, chunk: self.chunk, keeps }
    }

    /// Looks a range up in the volume or a snapshot, and works on what was found, again when maps were
    /// replaced meanwhile and what was looked at is gone.
    fn look<R>(
        &self,
        of: Option<SnapshotId>,
        range: Range<u64>,
        mut work: impl FnMut(&map::MapRef, Vec<(Range<u64>, Source)>) -> Result<R>,
    ) -> Result<R> {
        let mut tries = 0;
        loop {
            let (pieces, base, generation) =
                self.lives.look(of, range.clone()).ok_or(Error::Gone)?;
            tries += 1;
            match work(&base, pieces) {
                Err(_) if tries < TRIES && self.lives.read().generation != generation => {}
                result => return result,
            }
        }
    }

    pub(super) fn read_of(
        &self,
        of: Option<SnapshotId>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let range = offset..offset + buffer.len() as u64;
        self.look(of, range, |base, pieces| self.base().read_pieces(base, &pieces, offset, buffer))
    }

    fn extents_of(
        &self,
        of: Option<SnapshotId>,
        offset: u64,
        length: u64,
        most: usize,
    ) -> Result<Vec<Extent>> {
        let mut found: Vec<Extent> = Vec::new();
        let hole = if self.set_now().thin { Content::Hole } else { Content::Zeroes };
        let (mut at, end) = (offset, offset + length);
        let most = most.max(1);
        // Adds an extent; `false` when there are enough.
        let add = |found: &mut Vec<Extent>, range: Range<u64>, content| {
            let (offset, length) = (range.start, range.end - range.start);
            let count = found.len();
            match found.last_mut() {
                _ if length == 0 => true,
                Some(last) if last.content == content => {
                    last.length += length;
                    true
                }
                _ if count >= most => false,
                _ => {
                    found.push(Extent { offset, length, content });
                    true
                }
            }
        };
        while at < end {
            let stop = end.min(at.saturating_add(STEP * u64::from(self.chunk)));
            let before = found.clone();
            let is_full = self.look(of, at..stop, |base, pieces| {
                found.clone_from(&before);
                for (range, source) in pieces {
                    let content = match source {
                        Source::Log { .. } => Content::Data,
                        Source::Zeroes => hole,
                        Source::Base => {
                            let mut from = range.start;
                            for (start, extent) in self.base().extents(base, range.clone())? {
                                let to = (start + extent.len()).min(range.end);
                                let content = match extent {
                                    map::Extent::Data { .. } => Content::Data,
                                    map::Extent::Hole { .. } => hole,
                                };
                                if !add(&mut found, from..to.max(from), content) {
                                    return Ok(true);
                                }
                                from = to.max(from);
                            }
                            if !add(&mut found, from..range.end, hole) {
                                return Ok(true);
                            }
                            continue;
                        }
                    };
                    if !add(&mut found, range, content) {
                        return Ok(true);
                    }
                }
                Ok(false)
            })?;
            if is_full {
                break;
            }
            at = stop;
        }
        Ok(found)
    }

    fn geometry_of(&self, size: u64, read_only: bool) -> Geometry {
        Geometry {
            size,
            block: self.sector,
            physical: 4096,
            optimal: self.chunk,
            read_only,
            thin: self.set_now().thin,
        }
    }

    /// Refuses what couldn't be settled any more, and settles when the log has grown long.
    pub(super) fn admit(&self, bytes: u64, chunks: u64) -> Result<()> {
        let bytes = bytes + HEADER as u64;
        match self.log.weight().saturating_add(bytes) > self.limits.log {
            true => drop(self.settle_above(self.limits.log.saturating_sub(bytes))?),
            false => self.pace.keep(self.limits.log, &|| self.fill()),
        }
        self.has_room(bytes, chunks)
    }

    /// How full its log is, of its limit: by what it has, or by the room that settling all logs may take.
    pub(super) fn fill(&self) -> u64 {
        self.log.weight().max(self.room.used(self.limits.log))
    }

    /// Refuses what couldn't be settled any more.
    pub(super) fn has_room(&self, bytes: u64, chunks: u64) -> Result<()> {
        let room = || {
            let disks = self.pool.disks().iter().flatten().map(|disk| -> &dyn Disk { &**disk });
            self.room.admit(disks, bytes, chunks, self.chunk.into(), &self.reserve)
        };
        let mut result = room();
        // What is settled needs its room in the log no more.
        if matches!(result, Err(Error::NoSpace)) && self.log.bytes() > 0 {
            self.settle()?;
            result = room();
        }
        // What volumes have overwritten is garbage. For one that is reserved the room of it is its own, whatever
        // the last collection came to.
        if matches!(result, Err(Error::NoSpace)) {
            self.pool.make_room(self.reserve.is_on(), &mut || {
                result = room();
                !matches!(result, Err(Error::NoSpace))
            });
        }
        result
    }

    /// Waits for the volume's turn at the pool's disks. Who does must hold nothing that others wait for.
    fn turn(&self, bytes: u64) -> Turn<'_> {
        self.shares.enter(self.id, self.weight(), bytes)
    }

    fn chunks_in(&self, range: &Range<u64>) -> u64 {
        let chunk = u64::from(self.chunk);
        range.end.div_ceil(chunk) - range.start / chunk
    }

    /// Admits a write of so many bytes.
    fn admit_write(&self, offset: u64, bytes: u64) -> Result<()> {
        let headers = bytes.div_ceil(MAX_PAYLOAD as u64) * HEADER as u64;
        // Long ones begin and end with a block.
        let takes = match bytes >= self.limits.long as u64 {
            true => aligned(bytes + headers) + BLOCK,
            false => bytes + headers,
        };
        self.admit(takes, self.chunks_in(&(offset..offset + bytes)))
    }

    fn write_parts(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut at = offset;
        for part in bytes.chunks(log::TOGETHER) {
            let change = Change::Data { offset: at, length: part.len() as u32 };
            self.log.append(change, part, &self.lives)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn settle_durability(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Later => Ok(()),
            Durability::Now => self.log.sync(),
        }
    }
}

impl BlockDevice for Volume {
    fn geometry(&self) -> Geometry {
        self.geometry_of(self.lives.read().size, false)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.geometry().check(offset, buffer.len() as u64)?;
        let _turn = self.turn(buffer.len() as u64);
        self.read_of(None, offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8], durability: Durability) -> Result<()> {
        self.geometry().check(offset, bytes.len() as u64)?;
        if !bytes.is_empty() {
            self.admit_write(offset, bytes.len() as u64)?;
            let _turn = self.turn(bytes.len() as u64);
            let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            self.write_parts(offset, bytes)?;
        }
        self.settle_durability(durability)
    }

    /// Whatever keeps room for a later write is counted for the volume as a whole: zeroes are holes.
    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        _zeroing: Zeroing,
        durability: Durability,
    ) -> Result<()> {
        self.geometry().check(offset, length)?;
        if length > 0 {
            // Whole chunks become holes; those at both ends may have to be stored anew.
            self.admit(0, 2)?;
            let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            self.log.append(Change::Zeroes { offset, length }, &[], &self.lives)?;
        }
        self.settle_durability(durability)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        if !self.set_now().thin {
            return self.geometry().check(offset, length);
        }
        self.write_zeroes(offset, length, Zeroing::MayUnmap, Durability::Later)
    }

    fn flush(&self) -> Result<()> {
        self.log.sync()
    }

    fn compare_and_write(
        &self,
        offset: u64,
        expected: &[u8],
        bytes: &[u8],
        durability: Durability,
    ) -> Result<Option<u64>> {
        if expected.len() != bytes.len() {
            return Err(Error::Unsupported("compare with other than what it writes"));
        }
        self.geometry().check(offset, bytes.len() as u64)?;
        {
            self.admit_write(offset, bytes.len() as u64)?;
            let _turn = self.turn(2 * bytes.len() as u64);
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            let mut there = vec![0; expected.len()];
            self.read_of(None, offset, &mut there)?;
            if let Some(differs) = there.iter().zip(expected).position(|(a, b)| a != b) {
                return Ok(Some(differs as u64));
            }
            self.write_parts(offset, bytes)?;
        }
        self.settle_durability(durability)?;
        Ok(None)
    }

    /// Such a write is one record of the log, which enters the layers as a whole.
    fn most_atomic(&self) -> u32 {
        MAX_PAYLOAD as u32
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.geometry().check(offset, length)?;
        self.extents_of(None, offset, length, most)
    }

    fn id(&self) -> [u8; 16] {
        self.id.0
    }
}

/// A snapshot as a device. Once it is deleted, every call says [`Error::Gone`].
#[derive(Debug)]
pub struct SnapshotDevice {
    volume: Arc<Volume>,
    id: SnapshotId,
    size: u64,
}

impl SnapshotDevice {
    pub(super) fn new(volume: Arc<Volume>, id: SnapshotId, size: u64) -> Self {
        Self { volume, id, size }
    }
}

impl BlockDevice for SnapshotDevice {
    fn geometry(&self) -> Geometry {
        self.volume.geometry_of(self.size, true)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.geometry().check(offset, buffer.len() as u64)?;
        let _turn = self.volume.turn(buffer.len() as u64);
        self.volume.read_of(Some(self.id), offset, buffer)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8], _durability: Durability) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn write_zeroes(
        &self,
        _offset: u64,
        _length: u64,
        _zeroing: Zeroing,
        _durability: Durability,
    ) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn compare_and_write(
        &self,
        _offset: u64,
        _expected: &[u8],
        _bytes: &[u8],
        _durability: Durability,
    ) -> Result<Option<u64>> {
        Err(Error::ReadOnly)
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.geometry().check(offset, length)?;
        self.volume.extents_of(Some(self.id), offset, length, most)
    }

    fn id(&self) -> [u8; 16] {
        self.id.0
    }
}
