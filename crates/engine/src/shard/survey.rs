//! Looks at a pack with all its checksums: which shards and units can be believed, and what the
//! others must have been.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::format::{DATA_START, Geometry, PackHeader, Trailer, lost_mark, read_sums};
use super::place::{Flaw, ShardFlaw, disk_of, shard_path};
use crate::buf::{AlignedBuf, PAGE};
use crate::disk::{Caching, Disk, DiskFile, is_passing};
use crate::erasure::Code;
use crate::error::{Error, Result};
use crate::id::{PackId, PoolId};

/// How many bytes of one shard are looked at together.
const SPAN: u64 = 1 << 20;
/// How many bytes of all shards are looked at together at most (but for one stripe).
const SPANS: u64 = 8 << 20;

/// One shard as it was found.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) disk: usize,
    pub(super) file: Option<Box<dyn DiskFile>>,
    /// The table of checksums; from a damaged trailer too, because a unit and its checksum that
    /// agree prove each other. Nothing when there is none to be had.
    pub(super) sums: Option<Vec<u128>>,
    /// Whether the trailer is valid and agrees with the others.
    pub(super) sealed: bool,
    pub(super) flaws: Vec<Flaw>,
    /// Why all or a part of what tells of it could not be read: when it can be, it may be whole.
    pub(super) unread: Option<String>,
    header: Option<PackHeader>,
    trailer: Option<Trailer>,
    file_len: u64,
}

/// All shards of a pack as they were found.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) pack: PackId,
    /// What most shards say; nothing when no header and no trailer is valid.
    pub(super) header: Option<PackHeader>,
    pub(super) geometry: Geometry,
    pub(super) shards: Vec<Shard>,
    pub(super) bytes_read: u64,
}

impl Shard {
    fn lost(disk: usize, flaw: Flaw) -> Self {
        let unread = match &flaw {
            Flaw::NoDisk | Flaw::Unreadable(_) => Some(flaw.to_string()),
            _ => None,
        };
        Self {
            disk,
            file: None,
            sums: None,
            sealed: false,
            flaws: vec![flaw],
            unread,
            header: None,
            trailer: None,
            file_len: 0,
        }
    }

    /// Opens a shard and reads its header and, where `geometry` or else the file's end says it
    /// is, its trailer.
    fn open(
        disk: &dyn Disk,
        place: usize,
        pack: PackId,
        shard: usize,
        geometry: Option<&Geometry>,
    ) -> io::Result<Self> {
        let file = disk.open(&shard_path(pack, shard), Caching::Direct, false)?;
        let file_len = file.len()?;
        let mut found = Self { flaws: Vec::new(), file_len, ..Self::lost(place, Flaw::Missing) };
        let mut page = AlignedBuf::new(PAGE);
        let mut unread = None;
        let mut read = |bytes: &mut [u8], at: u64| match file.read_exact_at(bytes, at) {
            Err(error) => {
                if is_passing(&error) {
                    unread.get_or_insert(error.to_string());
                }
                false
            }
            Ok(()) => true,
        };
        if read(&mut page, 0) {
            found.header = PackHeader::decode(&page).filter(|(_, s)| *s == shard).map(|(h, _)| h);
        }
        let range = match geometry {
            Some(geometry) => Some((geometry.trailer_start(shard), geometry.trailer_len(shard))),
            None => file_len
                .checked_sub(PAGE as u64)
                .filter(|at| read(&mut page, *at))
                .and_then(|_| Trailer::locate(&page, file_len))
                .map(|start| (start, file_len - start)),
        };
        if let Some((start, len)) = range {
            let mut bytes = AlignedBuf::new(len as usize);
            // Of a trailer that is cut short, the table may still be whole.
            let there = file_len.saturating_sub(start).min(len) as usize;
            if there > 0 && read(&mut bytes[..there], start) {
                let bytes = &bytes[..len as usize];
                found.trailer = Trailer::decode(bytes).filter(|trailer| trailer.shard == shard);
                found.sums = geometry.map(|geometry| read_sums(bytes, geometry.units(shard)));
            }
        }
        found.unread = unread;
        found.file = Some(file);
        Ok(found)
    }
}

/// What occurs most often.
fn most_common<T: PartialEq + Copy>(votes: impl Iterator<Item = T>) -> Option<T> {
    let votes: Vec<T> = votes.collect();
    let count = |vote: &T| votes.iter().filter(|other| *other == vote).count();
    // The first of equals.
    votes.iter().rev().max_by_key(|vote| count(vote)).copied()
}

impl Survey {
    /// Opens all shards. `geometry` is what the pool knows of the pack; without it, it is what
    /// most trailers say.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `geometry` doesn't fit the disks; without it [`Error::Damaged`]
    /// when no trailer is valid.
    pub(super) fn take(
        disks: &[Option<Arc<dyn Disk>>],
        pool: PoolId,
        pack: PackId,
        geometry: Option<Geometry>,
    ) -> Result<Self> {
        if disks.is_empty() || geometry.is_some_and(|g| g.shape.shards() != disks.len()) {
            let what = format!("pack {pack} does not lie on {} disks", disks.len());
            return Err(Error::Invalid(what));
        }
        let mut shards: Vec<Shard> = (0..disks.len())
            .map(|shard| {
                let place = disk_of(pack, shard, disks.len());
                let Some(disk) = &disks[place] else { return Shard::lost(place, Flaw::NoDisk) };
                Shard::open(disk.as_ref(), place, pack, shard, geometry.as_ref()).unwrap_or_else(
                    |error| match error.kind() {
                        io::ErrorKind::NotFound => Shard::lost(place, Flaw::Missing),
                        _ => Shard::lost(place, Flaw::Unreadable(error.to_string())),
                    },
                )
            })
            .collect();
        let fits = |header: &PackHeader| {
            header.pool == pool
                && header.pack == pack
                && header.shape.shards() == disks.len()
                && geometry.is_none_or(|geometry| geometry.shape == header.shape)
        };
        let header = most_common(shards.iter().filter_map(|shard| {
            shard.trailer.as_ref().map(|trailer| trailer.header).or(shard.header).filter(fits)
        }));
        let Some(geometry) = geometry else {
            let trailers = shards.iter().filter_map(|shard| shard.trailer.as_ref());
            let agreeing = trailers.filter(|trailer| Some(trailer.header) == header);
            let len = most_common(agreeing.map(|trailer| trailer.len));
            let (Some(header), Some(len)) = (header, len) else {
                let why = "none of its shards has a valid end";
                return Err(Error::damaged(format!("pack {pack}"), why));
            };
            let geometry = Geometry::new(header.shape, len)?;
            // Now that it is known where trailers should be, damaged ones may give something too.
            return Self::take(disks, pool, pack, Some(geometry));
        };
        for (number, shard) in shards.iter_mut().enumerate().filter(|(_, s)| s.file.is_some()) {
            shard.judge(number, header, &geometry);
        }
        let bytes_read = shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| shard.file.is_some())
            .map(|(number, _)| PAGE as u64 + geometry.trailer_len(number))
            .sum();
        Ok(Self { pack, header, geometry, shards, bytes_read })
    }

    /// What to say when the shards that were found don't give what was asked for: that it is
    /// damaged, only if all of them could be read.
    pub(super) fn short_of(&self, why: impl ToString) -> Error {
        let away = self.shards.iter().filter(|shard| shard.flaws.contains(&Flaw::NoDisk)).count();
        if away > self.geometry.shape.parity() {
            return Error::TooFewDisks {
                missing: away,
                total: self.shards.len(),
                tolerated: self.geometry.shape.parity(),
            };
        }
        match self.shards.iter().find_map(|shard| shard.unread.as_ref()) {
            Some(unread) => self.unreadable(unread),
            None => Error::damaged(format!("pack {}", self.pack), why),
        }
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::io(format!("reading pack {}", self.pack), io::Error::other(why.to_owned()))
    }

    pub(super) fn flaws(&self) -> Vec<ShardFlaw> {
        self.shards
            .iter()
            .enumerate()
            .flat_map(|(number, shard)| {
                let disk = shard.disk;
                shard.flaws.iter().map(move |flaw| ShardFlaw {
                    shard: number,
                    disk,
                    flaw: flaw.clone(),
                })
            })
            .collect()
    }

    /// How many stripes are looked at together.
    pub(super) fn span_rows(&self) -> u64 {
        let each = (SPANS / self.shards.len() as u64).min(SPAN);
        (each / self.geometry.shape.unit()).max(1)
    }
}

impl Shard {
    /// Compares it with what most say.
    fn judge(&mut self, number: usize, header: Option<PackHeader>, geometry: &Geometry) {
        let differs = |found: Option<PackHeader>| found.is_some() && found != header;
        let trailer = self.trailer.take();
        if differs(self.header)
            || differs(trailer.as_ref().map(|trailer| trailer.header))
            || trailer.as_ref().is_some_and(|trailer| trailer.len != geometry.len())
        {
            self.flaws.push(Flaw::Foreign);
            self.sums = None;
            self.file = None;
            self.unread = None;
            return;
        }
        if self.header.is_none() {
            self.flaws.push(Flaw::Header);
        }
        match trailer {
            Some(trailer) => {
                self.sums = Some(trailer.sums);
                self.sealed = true;
            }
            None => self.flaws.push(Flaw::Trailer),
        }
        if self.file_len != geometry.file_len(number) {
            self.flaws.push(Flaw::Length);
        }
    }
}

/// Some stripes of a pack, in memory.
#[derive(Debug, Default)]
pub(super) struct Span {
    pub(super) rows: Range<u64>,
    lanes: Vec<AlignedBuf>,
    /// For each shard and stripe: whether the lane has what was written.
    good: Vec<Vec<bool>>,
    /// For each shard and stripe: whether the unit could not be read at all, and may be good.
    unread: Vec<Vec<bool>>,
    /// Why the last unit could not be read.
    why: Option<String>,
    loaded: Vec<bool>,
    pub(super) bytes_read: u64,
}

impl Span {
    /// Turns to other stripes, perhaps of another pack, of so many shards.
    pub(super) fn turn(&mut self, shards: usize, rows: Range<u64>) {
        self.lanes.resize_with(shards.max(self.lanes.len()), AlignedBuf::default);
        self.good.resize(self.lanes.len(), Vec::new());
        self.unread.resize(self.lanes.len(), Vec::new());
        self.why = None;
        self.loaded.clear();
        self.loaded.resize(self.lanes.len(), false);
        self.rows = rows;
        self.bytes_read = 0;
    }

    /// Reads a shard's units of these stripes and checks them.
    pub(super) fn load(&mut self, survey: &Survey, shard: usize) {
        if std::mem::replace(&mut self.loaded[shard], true) {
            return;
        }
        let geometry = &survey.geometry;
        let unit = geometry.shape.unit();
        let lane = &mut self.lanes[shard];
        let width = (self.rows.end - self.rows.start) * unit;
        lane.grow(width as usize);
        let start = self.rows.start * unit;
        let stored = geometry.stored(shard).clamp(start, start + width) - start;
        // Beyond a shard's last unit, zeroes are what parity was computed with.
        lane[stored as usize..width as usize].fill(0);
        let good = &mut self.good[shard];
        good.clear();
        good.extend(self.rows.clone().map(|row| geometry.unit_len(shard, row) == 0));
        let found = &survey.shards[shard];
        let unread = &mut self.unread[shard];
        unread.clear();
        unread.resize(good.len(), false);
        if stored == 0 {
            return;
        }
        let (Some(file), Some(sums)) = (&found.file, &found.sums) else {
            let may_be = found.unread.is_some();
            unread.iter_mut().zip(good).for_each(|(unread, good)| *unread = may_be && !*good);
            return;
        };
        let whole = file.read_exact_at(&mut lane[..stored as usize], DATA_START + start).is_ok();
        self.bytes_read += stored;
        for ((row, good), unread) in self.rows.clone().zip(good).zip(unread) {
            let at = (row - self.rows.start) * unit;
            let len = geometry.unit_len(shard, row);
            if len == 0 {
                break;
            }
            let bytes = &mut lane[at as usize..(at + len) as usize];
            // One bad place on the disk must not cost the units beside it.
            let read = match whole {
                true => Ok(()),
                false => file.read_exact_at(bytes, DATA_START + start + at),
            };
            match read {
                Ok(()) => {
                    *good = sums.get(row as usize).is_some_and(|sum| *sum == xxh3_128(bytes));
                }
                Err(error) if is_passing(&error) => {
                    *unread = true;
                    self.why = Some(error.to_string());
                }
                Err(_) => {}
            }
        }
    }

    /// Reads all shards.
    pub(super) fn load_all(&mut self, survey: &Survey) {
        (0..survey.shards.len()).for_each(|shard| self.load(survey, shard));
    }

    /// Whether the lane has a shard's unit of `row`.
    pub(super) fn is_good(&self, shard: usize, row: u64) -> bool {
        self.good[shard][(row - self.rows.start) as usize]
    }

    /// Of a unit that is not good, all shards loaded: whether it may be there all the same, or be
    /// worked out, once what could not be read can be.
    pub(super) fn may_be_there(&self, survey: &Survey, shard: usize, row: u64) -> bool {
        let index = (row - self.rows.start) as usize;
        let shards = 0..survey.shards.len();
        let unread = shards.clone().filter(|shard| self.unread[*shard][index]).count();
        let good = shards.filter(|shard| self.good[*shard][index]).count();
        self.unread[shard][index] || unread > 0 && good + unread >= survey.geometry.shape.data()
    }

    /// What to say of such a unit.
    pub(super) fn short_of(&self, survey: &Survey, why: impl ToString) -> Error {
        match survey.short_of(why) {
            error @ Error::Damaged { .. } => match &self.why {
                Some(why) => survey.unreadable(why),
                None => error,
            },
            error => error,
        }
    }

    /// A shard's units of these stripes, as far as it has any.
    pub(super) fn units(&self, survey: &Survey, shard: usize) -> &[u8] {
        let unit = survey.geometry.shape.unit();
        let start = self.rows.start * unit;
        let width = (self.rows.end - self.rows.start) * unit;
        let stored = survey.geometry.stored(shard).clamp(start, start + width) - start;
        &self.lanes[shard][..stored as usize]
    }

    /// A shard's unit of `row`.
    pub(super) fn unit(&self, survey: &Survey, shard: usize, row: u64) -> &[u8] {
        let at = ((row - self.rows.start) * survey.geometry.shape.unit()) as usize;
        &self.lanes[shard][at..at + survey.geometry.unit_len(shard, row) as usize]
    }

    /// Puts zeroes in place of a shard's unit of `row`.
    pub(super) fn clear(&mut self, survey: &Survey, shard: usize, row: u64) {
        let at = ((row - self.rows.start) * survey.geometry.shape.unit()) as usize;
        self.lanes[shard][at..at + survey.geometry.unit_len(shard, row) as usize].fill(0);
    }

    /// Computes the units of `row` that are not good from those that are; all shards must be
    /// loaded. What could not be computed stays bad.
    pub(super) fn restore(&mut self, survey: &Survey, code: &Code, row: u64) {
        let index = (row - self.rows.start) as usize;
        let is_good = |shard: &usize| self.good[*shard][index];
        let (good, wanted): (Vec<usize>, Vec<usize>) =
            (0..survey.shards.len()).partition(|shard| is_good(shard));
        let data = survey.geometry.shape.data();
        if wanted.is_empty() || good.len() < data {
            return;
        }
        let present = &good[..data];
        let width = survey.geometry.unit_len(0, row) as usize;
        let at = index * survey.geometry.shape.unit() as usize;
        let mut from = Vec::new();
        let mut to = Vec::new();
        for (shard, lane) in self.lanes.iter_mut().enumerate() {
            if present.contains(&shard) {
                from.push(&lane[at..at + width]);
            } else if wanted.contains(&shard) {
                to.push(&mut lane[at..at + width]);
            }
        }
        code.decoder(present, &wanted).decode(&from, &mut to);
        for shard in wanted {
            let len = survey.geometry.unit_len(shard, row);
            let sum = xxh3_128(&self.lanes[shard][at..at + len as usize]);
            let found = &survey.shards[shard];
            // A valid table is to be believed, unless it says that the unit was lost for good.
            let expected = found.sums.as_ref().filter(|_| found.sealed).map(|s| s[row as usize]);
            self.good[shard][index] =
                expected.is_none_or(|expected| expected == sum || expected == lost_mark(len));
        }
    }
}
