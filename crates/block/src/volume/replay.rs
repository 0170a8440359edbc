//! Finding what an earlier process left in the log.
//!
//! Records count in their order, from the first that isn't settled up to the first that no copy has
//! whole. Each is taken from any copy that has it. Behind that one there may be more: of what wasn't
//! durable a power cut leaves any part. But a record that says that all up to some other was durable, which
//! isn't there, tells of damage; then the volume isn't opened.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use strongroom_engine::disk::{Caching, Disk};
use strongroom_engine::seal::LogSealer;

use super::VolumeId;
use super::record::{
    BLOCK, Found, HEADER, Header, MAX_PAYLOAD, MAX_SEGMENT, SegmentHeader, record_at,
};
use super::segment::{DIR, aligned, parse, path};
use crate::{Error, Result};

/// The files of volumes' logs: by volume and number, on which disks.
pub(crate) type Files = BTreeMap<VolumeId, BTreeMap<u64, Vec<usize>>>;

/// How often a disk is asked before its error is believed.
const TRIES: usize = 3;

/// Asks a disk again when that may help.
fn patiently<T>(mut look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match look() {
            Err(e)
                if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {}
            answer => return answer,
        }
    }
    look()
}

fn cannot_tell(why: &io::Error) -> Error {
    Error::Failed(format!(
        "a disk is there whose part of the log can't be read, and what was written last may be there \
         alone: try again, and if it stays so take the disk away ({why})"
    ))
}

/// Lists the logs on all disks.
///
/// # Errors
/// When a disk that is there can't be listed.
pub(crate) fn files(disks: &[Option<Arc<dyn Disk>>]) -> Result<Files> {
    let mut files = Files::new();
    for (place, disk) in disks.iter().enumerate() {
        let Some(disk) = disk else { continue };
        let entries = match patiently(|| disk.list(DIR)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|e| cannot_tell(&e))?,
        };
        for (volume, number) in entries.iter().filter_map(|entry| parse(&entry.name)) {
            files.entry(volume).or_default().entry(number).or_default().push(place);
        }
    }
    Ok(files)
}

/// One segment's copies, as they were read.
#[derive(Debug)]
struct Copies {
    number: u64,
    first: u64,
    bytes: Vec<Vec<u8>>,
}

impl Copies {
    fn read(
        disks: &[Option<Arc<dyn Disk>>],
        places: &[usize],
        wanted: &dyn Fn(&SegmentHeader) -> bool,
        (volume, number): (VolumeId, u64),
        sealer: &LogSealer,
    ) -> Result<Option<Self>> {
        let mut copies = Self { number, first: 0, bytes: Vec::new() };
        for place in places {
            let Some(Some(disk)) = disks.get(*place) else { continue };
            let path = path(volume, number);
            let read = patiently(|| {
                let file = disk.open(&path, Caching::Cached, false)?;
                let len = file.len()?.min(MAX_SEGMENT + (HEADER + MAX_PAYLOAD) as u64);
                let mut bytes = vec![0; len as usize];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            });
            let bytes = match read {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(|e| cannot_tell(&e))?,
            };
            if let Some(header) = SegmentHeader::decode(&bytes, sealer).filter(|h| wanted(h)) {
                copies.first = header.first;
                copies.bytes.push(bytes);
            }
        }
        Ok((!copies.bytes.is_empty()).then_some(copies))
    }

    fn at(&self, at: u64, sequence: u64, sealer: &LogSealer) -> Option<Found> {
        let found = |bytes: &Vec<u8>| record_at(bytes, sealer, self.number, at);
        self.bytes.iter().find_map(found).filter(|found| found.header.sequence == sequence)
    }

    /// The record of that number, where one ended at `at`.
    fn next(&self, at: u64, sequence: u64, sealer: &LogSealer) -> Option<Found> {
        self.at(at, sequence, sealer).or_else(|| self.at(aligned(at), sequence, sealer))
    }

    /// The most that a record from `at` on says was durable.
    fn durable(&self, at: u64, sealer: &LogSealer) -> Option<u64> {
        let longest = self.bytes.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let blocks = (aligned(at)..longest).step_by(BLOCK as usize);
        blocks
            .filter_map(|at| {
                let head = |bytes: &Vec<u8>| {
                    let rest = bytes.get(usize::try_from(at).ok()?..)?;
                    Header::decode(rest, sealer, self.number, at)
                };
                self.bytes.iter().find_map(head).map(|header| header.durable)
            })
            .max()
    }
}

/// What to find.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'w> {
    pub(crate) disks: &'w [Option<Arc<dyn Disk>>],
    pub(crate) volume: VolumeId,
    /// The salt of the run.
    pub(crate) salt: &'w [u8; 32],
    pub(crate) sealer: &'w LogSealer,
    /// Up to which sequence number all is settled.
    pub(crate) settled: u64,
}

/// Gives every record that counts, in order.
///
/// # Errors
/// When a copy can't be read or the log is damaged; those of `each`.
pub(crate) fn replay(
    wanted: Wanted<'_>,
    files: &BTreeMap<u64, Vec<usize>>,
    each: &mut dyn FnMut(Found) -> Result<()>,
) -> Result<()> {
    let Wanted { disks, volume, salt, sealer, settled } = wanted;
    let mut last = settled;
    let mut ended = false;
    let mut before: Option<Copies> = None;
    let fits = |header: &SegmentHeader| header.volume == volume && header.salt == *salt;
    let mut check = |copies: &Copies, last: &mut u64, ended: &mut bool| -> Result<()> {
        let mut at = BLOCK;
        // Everything before was settled, or is there.
        if !*ended && copies.first <= *last + 1 {
            let mut sequence = copies.first;
            while let Some(found) = copies.next(at, sequence, sealer) {
                at = found.end;
                if sequence > *last {
                    each(found)?;
                    *last = sequence;
                }
                sequence += 1;
            }
        } else {
            *ended = true;
        }
        match copies.durable(at, sealer) {
            Some(durable) if durable > *last => Err(Error::Failed(format!(
                "the volume's log is damaged: record {} can't be read from any copy, though it was \
                 durable. Bring back the disk that has it",
                *last + 1
            ))),
            _ => Ok(()),
        }
    };
    for (number, places) in files {
        let copies = Copies::read(disks, places, &fits, (volume, *number), sealer)?;
        let Some(copies) = copies else { continue };
        // One whose successor begins with what isn't settled yet has nothing that is wanted.
        if let Some(before) = before.take().filter(|_| copies.first > settled + 1) {
            check(&before, &mut last, &mut ended)?;
        }
        before = Some(copies);
    }
    match before {
        Some(copies) => check(&copies, &mut last, &mut ended),
        None => Ok(()),
    }
}
