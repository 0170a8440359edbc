//! Reads ranges of a pack, with or without some of its disks.

use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::format::{DATA_START, Geometry, PackHeader, page_up};
use super::place::{BadUnit, disk_of, shard_path};
use super::scrub::{ScrubReport, mend_units};
use super::survey::{Span, Survey};
use crate::buf::{AlignedBuf, PAGE};
use crate::disk::{Caching, Disk, DiskFile};
use crate::erasure::Code;
use crate::error::{Error, Result};
use crate::id::{PackId, PoolId};

/// How many bytes of each shard are put together at a time when some are lost.
const STEP: u64 = 1 << 20;

/// A shard that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostShard {
    /// Its number in the pack.
    pub shard: usize,
    /// Its disk's place in the pool.
    pub disk: usize,
    /// What the system said.
    pub why: String,
}

/// Where bytes read are, and what was noticed on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// The bytes asked for, in the buffer.
    pub range: Range<usize>,
    /// Shards that could not be read; what was on them came from the others.
    pub lost: Vec<LostShard>,
    /// Units that are not what was written; their content came from the others. Only
    /// [`ShardSet::read_verified`] looks.
    pub bad: Vec<BadUnit>,
}

/// A file, or why there is none.
type Opened = Result<Box<dyn DiskFile>, String>;

/// The shards of a sealed pack, for reading. Files are opened when first needed and kept open;
/// several threads may read at once. A set doesn't notice files that come back: make a new one
/// after a disk was replaced.
#[derive(Debug)]
pub struct ShardSet {
    disks: Vec<Option<Arc<dyn Disk>>>,
    pool: PoolId,
    pack: PackId,
    geometry: Geometry,
    code: Code,
    files: Vec<OnceLock<Opened>>,
}

/// Bytes `range` of each shard's units are being put together for `out`.
struct Step<'a> {
    /// The logical bytes wanted, whole pages.
    wanted: Range<u64>,
    out: &'a mut [u8],
    scratch: &'a mut [u8],
    /// Why shards could not be read so far.
    lost: Vec<Option<String>>,
}

impl ShardSet {
    /// The shards of a pack that the pool knows; nothing is read yet. `disks` are all of the pool
    /// in their order, with `None` for those that are missing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the number of disks is not that of the shards.
    pub fn open(
        disks: &[Option<Arc<dyn Disk>>],
        pool: PoolId,
        pack: PackId,
        geometry: Geometry,
    ) -> Result<Self> {
        let shape = geometry.shape;
        if shape.shards() != disks.len() {
            let what = format!("pack {pack} has {} shards, not {}", shape.shards(), disks.len());
            return Err(Error::Invalid(what));
        }
        let code = Code::new(shape.data(), shape.parity())?;
        let files = (0..disks.len()).map(|_| OnceLock::new()).collect();
        Ok(Self { disks: disks.to_vec(), pool, pack, geometry, code, files })
    }

    /// The shards of a pack of which only its number is known: reads what they say of themselves.
    ///
    /// # Errors
    /// [`Error::Damaged`] when no trailer is valid.
    pub fn discover(disks: &[Option<Arc<dyn Disk>>], pool: PoolId, pack: PackId) -> Result<Self> {
        let geometry = Survey::take(disks, pool, pack, None)?.geometry;
        Self::open(disks, pool, pack, geometry)
    }

    /// How the pack is cut, and how long it is.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What the pack says of itself: from the first header that is whole, else from a trailer.
    ///
    /// # Errors
    /// [`Error::Damaged`] when no shard has its header; [`Error::TooFewDisks`] or [`Error::Io`]
    /// when one that can't be read may have it.
    pub fn header(&self) -> Result<PackHeader> {
        let fits = |header: &PackHeader| {
            header.pool == self.pool
                && header.pack == self.pack
                && header.shape == self.geometry.shape
        };
        let mut page = AlignedBuf::new(PAGE);
        for number in 0..self.files.len() {
            let Ok(file) = self.file(number) else { continue };
            if file.read_exact_at(&mut page, 0).is_err() {
                continue;
            }
            match PackHeader::decode(&page) {
                Some((header, shard)) if shard == number && fits(&header) => return Ok(header),
                _ => {}
            }
        }
        let survey = Survey::take(&self.disks, self.pool, self.pack, Some(self.geometry))?;
        survey.header.ok_or_else(|| survey.short_of("no shard of it has a valid header"))
    }

    fn file(&self, shard: usize) -> Result<&dyn DiskFile, &str> {
        let opened = self.files[shard].get_or_init(|| {
            let place = disk_of(self.pack, shard, self.disks.len());
            let Some(disk) = &self.disks[place] else { return Err("the disk is missing".into()) };
            let path = shard_path(self.pack, shard);
            disk.open(&path, Caching::Direct, false).map_err(|error| error.to_string())
        });
        match opened {
            Ok(file) => Ok(file.as_ref()),
            Err(why) => Err(why),
        }
    }

    fn damaged(&self, why: impl ToString) -> Error {
        Error::damaged(format!("pack {}", self.pack), why)
    }

    fn too_few(&self, missing: usize) -> Error {
        Error::TooFewDisks {
            missing,
            total: self.files.len(),
            tolerated: self.geometry.shape.parity(),
        }
    }

    /// The whole pages that hold a range, which must be in the pack.
    fn pages(&self, offset: u64, len: usize) -> Result<Range<u64>> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.geometry.len() => {
                Ok(offset / PAGE as u64 * PAGE as u64..page_up(end))
            }
            _ => Err(self.damaged(format!(
                "it has {} bytes; {len} were asked for at {offset}",
                self.geometry.len()
            ))),
        }
    }

    fn report(&self, offset: u64, len: usize, lost: Vec<Option<String>>) -> ReadReport {
        let start = if len == 0 { 0 } else { (offset % PAGE as u64) as usize };
        let lost = lost
            .into_iter()
            .enumerate()
            .filter_map(|(shard, why)| {
                let disk = disk_of(self.pack, shard, self.disks.len());
                Some(LostShard { shard, disk, why: why? })
            })
            .collect();
        ReadReport { range: start..start + len, lost, bad: Vec::new() }
    }

    /// Reads `len` bytes at `offset` into `buf`, which grows when it must; where in it they are,
    /// the report says. What can't be read is put together from other shards. Checksums are NOT
    /// looked at: the caller has stronger ones, and turns to [`ShardSet::read_verified`] when
    /// they don't hold.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a range that isn't in the pack, or that lies where too many shards
    /// have unreadable places; [`Error::TooFewDisks`] when it can't be had without shards that
    /// are not there.
    pub fn read(&self, offset: u64, len: usize, buf: &mut AlignedBuf) -> Result<ReadReport> {
        let wanted = self.pages(offset, len)?;
        let size = if len == 0 { 0 } else { (wanted.end - wanted.start) as usize };
        let mut lost = vec![None; self.files.len()];
        if size == 0 {
            return Ok(self.report(offset, len, lost));
        }
        if self.geometry.shape.data() == 1 {
            buf.grow(size);
            self.read_copy(wanted.start, &mut buf[..size], &mut lost)?;
        } else if !self.read_data(&wanted, size, buf, &mut lost) {
            self.read_any(wanted, size, buf, &mut lost)?;
        }
        Ok(self.report(offset, len, lost))
    }

    /// Reads from the first copy that can be read.
    fn read_copy(&self, at: u64, out: &mut [u8], lost: &mut [Option<String>]) -> Result<()> {
        // Copies that failed before are asked last.
        let (good, failed): (Vec<usize>, _) =
            (0..self.files.len()).partition(|shard| lost[*shard].is_none());
        let mut open = 0;
        for shard in good.into_iter().chain(failed) {
            let why = match self.file(shard) {
                Ok(file) => {
                    open += 1;
                    match file.read_exact_at(out, DATA_START + at) {
                        Ok(()) => return Ok(()),
                        Err(error) => error.to_string(),
                    }
                }
                Err(why) => why.to_owned(),
            };
            lost[shard].get_or_insert(why);
        }
        if open == 0 {
            return Err(self.too_few(self.files.len()));
        }
        if out.len() <= PAGE {
            return Err(self.damaged(format!("no copy can be read at {at}")));
        }
        let half = (out.len() / PAGE).div_ceil(2) * PAGE;
        let (first, second) = out.split_at_mut(half);
        self.read_copy(at, first, lost)?;
        self.read_copy(at + half as u64, second, lost)
    }

    /// Reads from the data shards alone. False when one can't be read.
    fn read_data(
        &self,
        wanted: &Range<u64>,
        size: usize,
        buf: &mut AlignedBuf,
        lost: &mut [Option<String>],
    ) -> bool {
        let shape = self.geometry.shape;
        let shares =
            |shard: usize| shape.share(shard, wanted.start)..shape.share(shard, wanted.end);
        // A share in several pieces is read in one go behind the result, then put in its places.
        let in_pieces = |share: &Range<u64>| {
            !share.is_empty() && share.start / shape.unit() != (share.end - 1) / shape.unit()
        };
        let longest = (0..shape.data()).map(shares).filter(in_pieces).map(|s| s.end - s.start);
        buf.grow(size + longest.max().unwrap_or(0) as usize);
        let (out, scratch) = buf.split_at_mut(size);
        for (shard, lost) in lost.iter_mut().enumerate().take(shape.data()) {
            let share = shares(shard);
            if share.is_empty() {
                continue;
            }
            let read = self.file(shard).map_err(str::to_owned).and_then(|file| {
                let at = DATA_START + share.start;
                let len = (share.end - share.start) as usize;
                let result = if in_pieces(&share) {
                    let bytes = &mut scratch[..len];
                    file.read_exact_at(bytes, at).map(|()| {
                        self.scatter(shard, share.start, bytes, wanted, out);
                    })
                } else {
                    let logical = self.logical(shard, share.start);
                    let place = (logical - wanted.start) as usize;
                    file.read_exact_at(&mut out[place..place + len], at)
                };
                result.map_err(|error| error.to_string())
            });
            if let Err(why) = read {
                *lost = Some(why);
                return false;
            }
        }
        true
    }

    /// Where byte `at` of a data shard's units lies in the pack.
    fn logical(&self, shard: usize, at: u64) -> u64 {
        let shape = self.geometry.shape;
        at / shape.unit() * shape.stripe() + shard as u64 * shape.unit() + at % shape.unit()
    }

    /// Puts bytes of a data shard's units, from its byte `at` on, where they belong in `out`,
    /// which holds the logical range `wanted`.
    fn scatter(
        &self,
        shard: usize,
        mut at: u64,
        mut bytes: &[u8],
        wanted: &Range<u64>,
        out: &mut [u8],
    ) {
        let unit = self.geometry.shape.unit();
        while !bytes.is_empty() {
            let count = bytes.len().min((unit - at % unit) as usize);
            let (piece, rest) = bytes.split_at(count);
            let place = (self.logical(shard, at) - wanted.start) as usize;
            out[place..place + count].copy_from_slice(piece);
            bytes = rest;
            at += count as u64;
        }
    }

    /// Reads from whatever shards there are.
    fn read_any(
        &self,
        wanted: Range<u64>,
        size: usize,
        buf: &mut AlignedBuf,
        lost: &mut Vec<Option<String>>,
    ) -> Result<()> {
        let shape = self.geometry.shape;
        let touched = (0..shape.data())
            .map(|shard| shape.share(shard, wanted.start)..shape.share(shard, wanted.end))
            .filter(|share| !share.is_empty());
        let (start, end) =
            touched.fold((u64::MAX, 0), |(start, end), s| (start.min(s.start), end.max(s.end)));
        let step = STEP.min(end - start);
        buf.grow(size + shape.shards() * step as usize);
        let (out, scratch) = buf.split_at_mut(size);
        let known = std::mem::take(lost);
        let mut work = Step { wanted, out, scratch, lost: known };
        let result = (start..end)
            .step_by(step as usize)
            .try_for_each(|at| self.step(&mut work, at..end.min(at + step)));
        *lost = work.lost;
        result
    }

    /// Puts bytes `range` of all data shards' units where they belong, as far as they are wanted.
    fn step(&self, work: &mut Step<'_>, range: Range<u64>) -> Result<()> {
        let shape = self.geometry.shape;
        let width = (range.end - range.start) as usize;
        // Data first; shards that failed before last.
        let (good, failed): (Vec<usize>, _) =
            (0..shape.shards()).partition(|shard| work.lost[*shard].is_none());
        let mut present: Vec<usize> = Vec::new();
        let mut absent = 0;
        for shard in good.into_iter().chain(failed) {
            if present.len() == shape.data() {
                break;
            }
            let slot = &mut work.scratch[present.len() * width..][..width];
            let stored = self.geometry.stored(shard).clamp(range.start, range.end) - range.start;
            let (bytes, beyond) = slot.split_at_mut(stored as usize);
            beyond.fill(0);
            let read = match self.file(shard) {
                Ok(file) => match bytes {
                    [] => Ok(()),
                    bytes => file
                        .read_exact_at(bytes, DATA_START + range.start)
                        .map_err(|error: io::Error| error.to_string()),
                },
                Err(why) => {
                    absent += 1;
                    Err(why.to_owned())
                }
            };
            match read {
                Ok(()) => present.push(shard),
                Err(why) => drop(work.lost[shard].get_or_insert(why)),
            }
        }
        if present.len() < shape.data() {
            return self.step_apart(work, range, absent);
        }
        let share = |shard: usize| {
            let from = shape.share(shard, work.wanted.start).max(range.start);
            from..shape.share(shard, work.wanted.end).min(range.end)
        };
        let wanted: Vec<usize> = (0..shape.data())
            .filter(|shard| !present.contains(shard) && !share(*shard).is_empty())
            .collect();
        let (from, to) = work.scratch.split_at_mut(shape.data() * width);
        if !wanted.is_empty() {
            let from: Vec<&[u8]> = from.chunks_exact(width).collect();
            let mut to: Vec<&mut [u8]> = to.chunks_exact_mut(width).take(wanted.len()).collect();
            self.code.decoder(&present, &wanted).decode(&from, &mut to);
        }
        let slots =
            from.chunks_exact(width).zip(&present).chain(to.chunks_exact(width).zip(&wanted));
        for (slot, shard) in slots.filter(|(_, shard)| **shard < shape.data()) {
            let share = share(*shard);
            if !share.is_empty() {
                let bytes =
                    (share.start - range.start) as usize..(share.end - range.start) as usize;
                self.scatter(*shard, share.start, &slot[bytes], &work.wanted, work.out);
            }
        }
        Ok(())
    }

    /// Too few shards can be read over all of `range`; perhaps over each half of it, others.
    fn step_apart(&self, work: &mut Step<'_>, range: Range<u64>, absent: usize) -> Result<()> {
        let shape = self.geometry.shape;
        let share = |shard: usize| {
            let from = shape.share(shard, work.wanted.start).max(range.start);
            from..shape.share(shard, work.wanted.end).min(range.end)
        };
        if absent > shape.parity() {
            return Err(self.too_few(absent));
        }
        if range.end - range.start > PAGE as u64 {
            let middle = range.start + page_up((range.end - range.start) / 2);
            self.step(work, range.start..middle)?;
            return self.step(work, middle..range.end);
        }
        // One page: what is on shards that can be read needs no others.
        for shard in 0..shape.data() {
            let share = share(shard);
            if share.is_empty() {
                continue;
            }
            let mut page = AlignedBuf::new(PAGE);
            let bytes = &mut page[..(share.end - share.start) as usize];
            let read = self
                .file(shard)
                .is_ok_and(|file| file.read_exact_at(bytes, DATA_START + share.start).is_ok());
            if !read {
                let at = self.logical(shard, share.start);
                return Err(self.damaged(format!("too many shards can't be read at {at}")));
            }
            self.scatter(shard, share.start, bytes, &work.wanted, work.out);
        }
        Ok(())
    }

    /// Reads as [`ShardSet::read`] does, but checks every unit that the range touches, and puts
    /// together from the others what is not what was written. Slow; for when the caller's own
    /// checksum did not hold. What is bad and could be mended with [`ShardSet::heal`] is in the
    /// report.
    ///
    /// # Errors
    /// As [`ShardSet::read`], but [`Error::Damaged`] only when too many units were read and are bad,
    /// or are not there, to know the content; [`Error::Io`] when some that can't be read may be good.
    pub fn read_verified(
        &self,
        offset: u64,
        len: usize,
        buf: &mut AlignedBuf,
    ) -> Result<ReadReport> {
        let wanted = self.pages(offset, len)?;
        let survey = Survey::take(&self.disks, self.pool, self.pack, Some(self.geometry))?;
        let shape = self.geometry.shape;
        let mut lost = vec![None; self.files.len()];
        for flaw in survey.flaws() {
            if survey.shards[flaw.shard].sums.is_none() {
                lost[flaw.shard].get_or_insert(flaw.flaw.to_string());
            }
        }
        let mut report = self.report(offset, len, lost);
        if len == 0 {
            return Ok(report);
        }
        buf.grow((wanted.end - wanted.start) as usize);
        let mut span = Span::default();
        for row in wanted.start / shape.stripe()..wanted.end.div_ceil(shape.stripe()) {
            span.turn(shape.shards(), row..row + 1);
            let touched: Vec<usize> = (0..shape.data())
                .filter(|shard| {
                    let logical = self.geometry.logical(*shard, row);
                    logical.start < wanted.end && wanted.start < logical.end
                })
                .collect();
            touched.iter().for_each(|shard| span.load(&survey, *shard));
            if !touched.iter().all(|shard| span.is_good(*shard, row)) {
                span.load_all(&survey);
                let bad = |shard: &usize| {
                    !span.is_good(*shard, row) && survey.shards[*shard].sums.is_some()
                };
                report.bad.extend((0..shape.shards()).filter(bad).map(|shard| BadUnit {
                    shard,
                    disk: survey.shards[shard].disk,
                    unit: row,
                }));
                span.restore(&survey, &self.code, row);
            }
            for shard in touched {
                let logical = self.geometry.logical(shard, row);
                if !span.is_good(shard, row) {
                    let why = format!("too many of its shards are bad at {}", logical.start);
                    return Err(match span.may_be_there(&survey, shard, row) {
                        true => span.short_of(&survey, why),
                        false => self.damaged(why),
                    });
                }
                let unit = span.unit(&survey, shard, row);
                let from = logical.start.max(wanted.start);
                let to = (logical.start + unit.len() as u64).min(wanted.end);
                let bytes = &unit[(from - logical.start) as usize..(to - logical.start) as usize];
                let place = (from - wanted.start) as usize;
                buf[place..place + bytes.len()].copy_from_slice(bytes);
            }
        }
        Ok(report)
    }

    /// Writes bad units anew where they are, makes them durable and reads them back. Shards that
    /// are lost as a whole are left to [`super::scrub_pack`].
    ///
    /// # Errors
    /// As [`super::scrub_pack`].
    pub fn heal(&self, bad: &[BadUnit]) -> Result<ScrubReport> {
        mend_units(&self.disks, self.pool, self.pack, self.geometry, bad)
    }
}
