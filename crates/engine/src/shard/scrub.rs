//! Checks whole packs without any key, mends what is bad, rebuilds shards that are lost.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::format::{DATA_START, Geometry, PackHeader, Trailer, lost_mark};
use super::place::{BadUnit, Flaw, MEND, ShardFlaw, directory, shard_path};
use super::survey::{Span, Survey};
use crate::buf::{AlignedBuf, PAGE};
use crate::disk::{Caching, Disk, DiskFile};
use crate::erasure::Code;
use crate::error::Result;
use crate::id::{PackId, PoolId};

/// What a scrub found in a pack, and what it could do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// How many bytes were read.
    pub bytes_read: u64,
    /// What was wrong with shards as a whole.
    pub flaws: Vec<ShardFlaw>,
    /// Units that were not what was written, on shards that are not lost as a whole.
    pub bad_units: Vec<BadUnit>,
    /// Those that were written anew, made durable and read back.
    pub healed_units: Vec<BadUnit>,
    /// Shards (of [`ScrubReport::flaws`]) that are now as they should be.
    pub mended_shards: Vec<usize>,
    /// Logical bytes of the pack that no disk has any more, in order.
    pub unrecoverable: Vec<Range<u64>>,
    /// Logical bytes of the pack that can't be had now, but may be there: a disk is missing, or gave
    /// an error.
    pub unreadable: Vec<Range<u64>>,
    /// Disks that failed while they were mended, and what they said.
    pub failed: Vec<(usize, String)>,
}

impl ScrubReport {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.flaws.is_empty() && self.bad_units.is_empty() && self.has_all()
    }

    /// Whether all is now as it should be: nothing was wrong, or all of it was mended.
    pub fn is_whole(&self) -> bool {
        self.has_all()
            && self.healed_units.len() == self.bad_units.len()
            && self.flaws.iter().all(|flaw| self.mended_shards.contains(&flaw.shard))
    }

    fn has_all(&self) -> bool {
        self.unrecoverable.is_empty() && self.unreadable.is_empty()
    }

    fn lose(&mut self, range: Range<u64>, for_good: bool) {
        let list = if for_good { &mut self.unrecoverable } else { &mut self.unreadable };
        match list.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => list.push(range),
        }
    }
}

/// Memory for scrubbing, to be used for one pack after the other.
#[derive(Debug, Default)]
pub struct ScrubBuffers(Span);

/// Checks every unit of a pack, with no key. With `repair`, writes bad units, headers and
/// trailers anew where they are, and rebuilds shards that are missing, foreign or beyond mending
/// as new files; all is durable when it returns. A disk that was replaced is filled by the same
/// call. `geometry` is what the pool knows of the pack; without it, it is what most shards say.
///
/// `throttle` is told how many bytes were just read; it may wait, and its error ends the scrub
/// (what was mended stays so).
///
/// With damage that redundancy doesn't cover:
/// - A unit is good when its checksum holds, even one from a damaged trailer: a unit and a
///   checksum that agree prove each other.
/// - A shard whose table of checksums can't be read at all counts as lost. Without parity its
///   bytes are then reported as unrecoverable, though [`super::ShardSet::read`] still gives
///   what is on the disk to a caller that can check it otherwise.
/// - A rebuilt shard gets zeroes, and a checksum that is not theirs, for units that too few other
///   shards have: they go on being reported, and are healed should the others come back. A shard
///   that is there, but can't be read, is only rebuilt when the others have all of it.
///
/// # Errors
/// [`crate::Error::Invalid`] when `geometry` doesn't fit the disks; [`crate::Error::Damaged`] when it is not
/// given and no trailer is valid; what `throttle` returns.
pub fn scrub_pack(
    disks: &[Option<Arc<dyn Disk>>],
    pool: PoolId,
    pack: PackId,
    geometry: Option<Geometry>,
    repair: bool,
    buffers: &mut ScrubBuffers,
    throttle: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<ScrubReport> {
    let survey = Survey::take(disks, pool, pack, geometry)?;
    let mut mender = Mender::new(disks, &survey)?;
    throttle(survey.bytes_read)?;
    if repair {
        mender.begin_rebuilding();
    }
    let rows = survey.geometry.rows();
    let step = survey.span_rows();
    let span = &mut buffers.0;
    for start in (0..rows).step_by(step as usize) {
        span.turn(survey.shards.len(), start..rows.min(start + step));
        mender.look(span, repair);
        if let Err(error) = throttle(span.bytes_read) {
            mender.stop_rebuilding();
            return Err(error);
        }
    }
    mender.note_lost_header();
    if repair {
        mender.confirm(span);
        mender.mend_frames();
        mender.end_rebuilding();
    }
    Ok(mender.report)
}

/// See [`super::ShardSet::heal`].
pub(super) fn mend_units(
    disks: &[Option<Arc<dyn Disk>>],
    pool: PoolId,
    pack: PackId,
    geometry: Geometry,
    bad: &[BadUnit],
) -> Result<ScrubReport> {
    let survey = Survey::take(disks, pool, pack, Some(geometry))?;
    let mut mender = Mender::new(disks, &survey)?;
    let mut span = Span::default();
    let rows: BTreeSet<u64> = bad.iter().map(|bad| bad.unit).collect();
    for row in rows.into_iter().filter(|row| *row < geometry.rows()) {
        span.turn(survey.shards.len(), row..row + 1);
        mender.look(&mut span, true);
    }
    mender.confirm(&mut span);
    Ok(mender.report)
}

/// A shard that is written anew from the others.
struct Rebuild<'a> {
    shard: usize,
    disk: &'a dyn Disk,
    file: Box<dyn DiskFile>,
    sums: Vec<u128>,
}

/// One scrub of one pack.
struct Mender<'a> {
    disks: &'a [Option<Arc<dyn Disk>>],
    survey: &'a Survey,
    code: Code,
    report: ScrubReport,
    /// By shard: its file for writing, once it was needed.
    files: Vec<Option<Box<dyn DiskFile>>>,
    /// By shard: checksums that have changed with what was mended.
    sums: Vec<Option<Vec<u128>>>,
    /// By shard: whether a unit is bad for good, so that its trailer must not say otherwise.
    spoiled: Vec<bool>,
    written: Vec<BadUnit>,
    rebuilds: Vec<Rebuild<'a>>,
}

impl<'a> Mender<'a> {
    fn new(disks: &'a [Option<Arc<dyn Disk>>], survey: &'a Survey) -> Result<Self> {
        let shape = survey.geometry.shape;
        let report = ScrubReport {
            bytes_read: survey.bytes_read,
            flaws: survey.flaws(),
            ..ScrubReport::default()
        };
        Ok(Self {
            disks,
            survey,
            code: Code::new(shape.data(), shape.parity())?,
            report,
            files: (0..shape.shards()).map(|_| None).collect(),
            sums: survey.shards.iter().map(|shard| shard.sums.clone()).collect(),
            spoiled: vec![false; shape.shards()],
            written: Vec::new(),
            rebuilds: Vec::new(),
        })
    }

    fn disk(&self, shard: usize) -> Option<&'a dyn Disk> {
        self.disks[self.survey.shards[shard].disk].as_deref()
    }

    fn fail(&mut self, shard: usize, what: &str, error: &io::Error) {
        // Disks name the file in their errors.
        self.report.failed.push((self.survey.shards[shard].disk, format!("{what}: {error}")));
    }

    /// Checks the stripes of `span`, and mends them when `repair` says so.
    fn look(&mut self, span: &mut Span, repair: bool) {
        let survey = self.survey;
        span.load_all(survey);
        for row in span.rows.clone() {
            let bad: Vec<usize> =
                (0..survey.shards.len()).filter(|shard| !span.is_good(*shard, row)).collect();
            if bad.is_empty() {
                continue;
            }
            span.restore(survey, &self.code, row);
            for shard in bad {
                let restored = span.is_good(shard, row);
                if !restored && shard < survey.geometry.shape.data() {
                    let for_good = !span.may_be_there(survey, shard, row);
                    self.report.lose(survey.geometry.logical(shard, row), for_good);
                }
                if survey.shards[shard].sums.is_none() {
                    continue;
                }
                let unit = BadUnit { shard, disk: survey.shards[shard].disk, unit: row };
                self.report.bad_units.push(unit);
                if !(restored && repair && self.write(unit, span.unit(survey, shard, row))) {
                    self.spoiled[shard] = true;
                }
            }
        }
        self.report.bytes_read += span.bytes_read;
        for i in (0..self.rebuilds.len()).rev() {
            if let Err(error) = self.rebuilds[i].write(survey, span) {
                let rebuild = self.rebuilds.swap_remove(i);
                self.fail(rebuild.shard, "rebuilding", &error);
                rebuild.discard(survey.pack);
            }
        }
    }

    /// A shard's file, for writing.
    fn writable(&mut self, shard: usize) -> Option<&dyn DiskFile> {
        if self.files[shard].is_none() {
            let path = shard_path(self.survey.pack, shard);
            match self.disk(shard)?.open(&path, Caching::Direct, true) {
                Ok(file) => self.files[shard] = Some(file),
                Err(error) => self.fail(shard, "opening", &error),
            }
        }
        self.files[shard].as_deref()
    }

    /// Writes a unit anew in its place.
    fn write(&mut self, unit: BadUnit, bytes: &[u8]) -> bool {
        let at = DATA_START + unit.unit * self.survey.geometry.shape.unit();
        let Some(file) = self.writable(unit.shard) else { return false };
        if let Err(error) = file.write_all_at(bytes, at) {
            self.fail(unit.shard, "writing", &error);
            return false;
        }
        if let Some(sums) = &mut self.sums[unit.shard] {
            sums[unit.unit as usize] = xxh3_128(bytes);
        }
        self.written.push(unit);
        true
    }

    /// Without its salt an encrypted pack can't be read at all.
    fn note_lost_header(&mut self) {
        if self.survey.header.is_none() {
            self.report.unrecoverable.clear();
            self.report.unreadable.clear();
            let for_good = self.survey.shards.iter().all(|shard| shard.unread.is_none());
            self.report.lose(0..self.survey.geometry.len(), for_good);
        }
    }

    /// Makes units that were written durable and reads them back.
    fn confirm(&mut self, span: &mut Span) {
        let shards: BTreeSet<usize> = self.written.iter().map(|unit| unit.shard).collect();
        for shard in shards {
            let synced = self.files[shard].as_ref().map_or(Ok(()), |file| file.sync());
            if let Err(error) = synced {
                self.fail(shard, "syncing", &error);
                self.spoiled[shard] = true;
                self.written.retain(|unit| unit.shard != shard);
            }
        }
        for unit in std::mem::take(&mut self.written) {
            span.turn(self.survey.shards.len(), unit.unit..unit.unit + 1);
            let sum = self.sums[unit.shard].as_ref().map(|sums| sums[unit.unit as usize]);
            span.load(self.survey, unit.shard);
            if sum == Some(xxh3_128(span.unit(self.survey, unit.shard, unit.unit))) {
                self.report.healed_units.push(unit);
            } else {
                let error = io::Error::other(format!(
                    "{}: what was written does not read back",
                    shard_path(self.survey.pack, unit.shard)
                ));
                self.fail(unit.shard, "healing", &error);
                self.spoiled[unit.shard] = true;
            }
        }
        self.rewrite_marked();
    }

    /// Units that had been given up have come back: valid trailers must say so.
    fn rewrite_marked(&mut self) {
        for shard in 0..self.survey.shards.len() {
            let found = &self.survey.shards[shard];
            if found.sealed
                && found.sums != self.sums[shard]
                && let Err(error) = self.write_trailer(shard)
            {
                self.fail(shard, "writing the trailer", &error);
            }
        }
    }

    /// Writes headers and trailers anew, and corrects the length of files.
    fn mend_frames(&mut self) {
        for shard in 0..self.survey.shards.len() {
            let flaws = &self.survey.shards[shard].flaws;
            if flaws.is_empty() || self.sums[shard].is_none() {
                continue;
            }
            if flaws.contains(&Flaw::Trailer) && self.spoiled[shard] {
                continue;
            }
            match self.mend_frame(shard) {
                Ok(true) => self.report.mended_shards.push(shard),
                Ok(false) => {}
                Err(error) => self.fail(shard, "mending", &error),
            }
        }
    }

    fn mend_frame(&mut self, shard: usize) -> io::Result<bool> {
        let (Some(header), geometry) = (self.survey.header, self.survey.geometry) else {
            return Ok(false);
        };
        let flaws = self.survey.shards[shard].flaws.clone();
        if flaws.contains(&Flaw::Trailer) {
            self.write_trailer(shard)?;
        }
        let Some(file) = self.writable(shard) else { return Ok(false) };
        if flaws.contains(&Flaw::Header) {
            file.write_all_at(&header_page(&header, shard)[..PAGE], 0)?;
        }
        if flaws.contains(&Flaw::Length) {
            file.set_len(geometry.file_len(shard))?;
        }
        file.sync()?;
        Ok(true)
    }

    /// Writes a shard's trailer in its place, durably.
    fn write_trailer(&mut self, shard: usize) -> io::Result<()> {
        let (Some(header), Some(sums)) = (self.survey.header, self.sums[shard].clone()) else {
            return Ok(());
        };
        let geometry = self.survey.geometry;
        let bytes = trailer_pages(header, shard, &geometry, sums);
        let Some(file) = self.writable(shard) else { return Ok(()) };
        file.write_all_at(&bytes, geometry.trailer_start(shard))?;
        file.sync()
    }

    /// Creates new files for shards that are lost as a whole, when enough others have something.
    fn begin_rebuilding(&mut self) {
        let survey = self.survey;
        let some = survey.shards.iter().filter(|shard| shard.sums.is_some()).count();
        if some < survey.geometry.shape.data() || survey.header.is_none() {
            return;
        }
        for (shard, _) in survey.shards.iter().enumerate().filter(|(_, s)| s.sums.is_none()) {
            let Some(disk) = self.disk(shard) else { continue };
            let path = format!("{}{MEND}", shard_path(survey.pack, shard));
            let created = match disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => disk.create(&path, Caching::Direct),
            };
            match created {
                Ok(file) => {
                    self.rebuilds.push(Rebuild { shard, disk, file, sums: Vec::new() });
                }
                Err(error) => self.fail(shard, "creating", &error),
            }
        }
    }

    fn stop_rebuilding(&mut self) {
        self.rebuilds.drain(..).for_each(|rebuild| rebuild.discard(self.survey.pack));
    }

    /// Completes the new files and gives them their names.
    fn end_rebuilding(&mut self) {
        let Some(header) = self.survey.header else { return };
        for rebuild in std::mem::take(&mut self.rebuilds) {
            let shard = rebuild.shard;
            match rebuild.complete(header, &self.survey.geometry) {
                Ok(()) => self.report.mended_shards.push(shard),
                Err(error) => {
                    self.fail(shard, "rebuilding", &error);
                    rebuild.discard(self.survey.pack);
                }
            }
        }
    }
}

impl Rebuild<'_> {
    /// Appends the shard's units of the stripes in `span`.
    fn write(&mut self, survey: &Survey, span: &mut Span) -> io::Result<()> {
        for row in span.rows.clone() {
            let len = survey.geometry.unit_len(self.shard, row);
            if len == 0 {
                break;
            }
            if !span.is_good(self.shard, row) {
                if survey.shards[self.shard].unread.is_some() {
                    return Err(io::Error::other(
                        "the other disks don't have all of it, and it may be whole when it can be read",
                    ));
                }
                span.clear(survey, self.shard, row);
                self.sums.push(lost_mark(len));
            } else {
                self.sums.push(xxh3_128(span.unit(survey, self.shard, row)));
            }
        }
        match span.units(survey, self.shard) {
            [] => Ok(()),
            bytes => {
                let at = DATA_START + span.rows.start * survey.geometry.shape.unit();
                self.file.write_all_at(bytes, at)
            }
        }
    }

    fn complete(&self, header: PackHeader, geometry: &Geometry) -> io::Result<()> {
        let path = shard_path(header.pack, self.shard);
        let trailer = trailer_pages(header, self.shard, geometry, self.sums.clone());
        self.file.write_all_at(&header_page(&header, self.shard), 0)?;
        self.file.write_all_at(&trailer, geometry.trailer_start(self.shard))?;
        self.file.sync()?;
        self.disk.rename(&format!("{path}{MEND}"), &path)?;
        self.disk.sync_dir(&directory(header.pack))
    }

    fn discard(&self, pack: PackId) {
        // What can't be removed now is a left-over that the next rebuilding removes.
        let _ = self.disk.remove(&format!("{}{MEND}", shard_path(pack, self.shard)));
    }
}

fn header_page(header: &PackHeader, shard: usize) -> AlignedBuf {
    let mut page = AlignedBuf::new(PAGE);
    header.encode(shard, &mut page);
    page
}

fn trailer_pages(
    header: PackHeader,
    shard: usize,
    geometry: &Geometry,
    sums: Vec<u128>,
) -> AlignedBuf {
    let mut pages = AlignedBuf::new(geometry.trailer_len(shard) as usize);
    Trailer { header, shard, len: geometry.len(), sums }.encode(&mut pages);
    pages
}
