//! Segments of a log: files of the same bytes on several disks.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use strongroom_engine::disk::{Caching, Disk, DiskFile};
use strongroom_engine::seal::{LogSealer, TAG_LEN};

use super::record::{BLOCK, HEADER, Header, SegmentHeader};
use super::{SnapshotId, VolumeId};

/// Records with payloads of so many bytes are written past the page cache, and read so: what is written to
/// fresh pages of it costs more than a disk takes.
pub(crate) const LONG: usize = 64 << 10;

/// The directory of logs on a disk.
pub(crate) const DIR: &str = "volumes";

/// The path of a segment.
pub(crate) fn path(volume: VolumeId, number: u64) -> String {
    format!("{DIR}/{volume}.{number:016x}")
}

/// Whose segment a name in the directory is, and its number.
pub(crate) fn parse(name: &str) -> Option<(VolumeId, u64)> {
    let (volume, number) = name.split_once('.')?;
    let volume = VolumeId(SnapshotId::parse(volume)?.0);
    let number = u64::from_str_radix(number, 16).ok()?;
    (name == path(volume, number).rsplit_once('/')?.1).then_some((volume, number))
}

#[derive(Debug)]
struct Copy {
    /// Its disk, by its place in the pool.
    disk: usize,
    file: Box<dyn DiskFile>,
    /// The same past the page cache, once there are long records; none where it can't be had.
    long: OnceLock<Option<Box<dyn DiskFile>>>,
    /// It gets no more records: what it has stays a beginning of what others have.
    failed: AtomicBool,
}

/// A copy that failed: its disk, and why.
pub(crate) type Lost = (usize, io::Error);

/// A segment that is or was written by this process.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    copies: Vec<Copy>,
    sealer: Arc<LogSealer>,
}

/// Files for a segment, which it has from the moment it begins; their names are durable.
#[derive(Debug)]
pub(crate) struct Prepared {
    volume: VolumeId,
    pub(crate) number: u64,
    copies: Vec<Copy>,
}

impl Prepared {
    /// Makes a file for the segment of that number on up to `count` of the disks, of which the first
    /// that can are taken. Also which disks could not.
    ///
    /// # Errors
    /// When not one disk could.
    pub(crate) fn make<'d>(
        disks: impl Iterator<Item = (usize, &'d dyn Disk)>,
        count: usize,
        volume: VolumeId,
        number: u64,
    ) -> io::Result<(Self, Vec<Lost>)> {
        let (mut copies, mut lost) = (Vec::new(), Vec::new());
        let path = path(volume, number);
        for (place, disk) in disks {
            if copies.len() == count {
                break;
            }
            match make(disk, &path) {
                Ok(file) => {
                    let (long, failed) = (OnceLock::new(), false.into());
                    copies.push(Copy { disk: place, file, long, failed });
                }
                Err(why) => lost.push((place, why)),
            }
        }
        match copies.is_empty() {
            false => Ok((Self { volume, number, copies }, lost)),
            true => {
                Err(lost.pop().map_or_else(|| io::Error::other("there is no disk"), |lost| lost.1))
            }
        }
    }

    /// Whether one of its files is on that disk.
    pub(crate) fn is_on(&self, disk: usize) -> bool {
        self.copies.iter().any(|copy| copy.disk == disk)
    }

    /// Removes the files; what can't be removed is, when the volume is next opened.
    pub(crate) fn remove(&self, disks: &[Option<Arc<dyn Disk>>]) {
        remove(&self.copies, disks, &path(self.volume, self.number));
    }
}

fn remove(copies: &[Copy], disks: &[Option<Arc<dyn Disk>>], path: &str) {
    for copy in copies {
        if let Some(Some(disk)) = disks.get(copy.disk) {
            let _ = disk.remove(path);
        }
    }
}

impl Segment {
    /// Begins a segment in files of its number. Its first block becomes durable with the first record that
    /// does: a file without one has nothing that counts. Also which copies failed.
    pub(crate) fn begin(
        prepared: Prepared,
        header: SegmentHeader,
        sealer: &Arc<LogSealer>,
    ) -> (Self, Vec<Lost>) {
        let (mut copies, mut lost) = (prepared.copies, Vec::new());
        let first = header.encode(sealer);
        for copy in &mut copies {
            if let Err(why) = copy.file.write_all_at(&first, 0) {
                copy.failed = true.into();
                lost.push((copy.disk, why));
            }
        }
        (Self { header, copies, sealer: Arc::clone(sealer) }, lost)
    }

    /// Does something to every copy that hasn't failed; which have now.
    ///
    /// # Errors
    /// When no copy is left.
    fn all(&self, act: impl Fn(&Copy) -> io::Result<()>) -> io::Result<Vec<Lost>> {
        let mut lost = Vec::new();
        let mut good = 0;
        for copy in &self.copies {
            if copy.failed.load(Ordering::Acquire) {
                continue;
            }
            match act(copy) {
                Ok(()) => good += 1,
                Err(why) => {
                    copy.failed.store(true, Ordering::Release);
                    lost.push((copy.disk, why));
                }
            }
        }
        match (good, lost.pop()) {
            (0, last) => {
                Err(last
                    .map_or_else(|| io::Error::other("no copy of the log is left"), |lost| lost.1))
            }
            (_, last) => {
                lost.extend(last);
                Ok(lost)
            }
        }
    }

    /// Writes to every copy.
    ///
    /// # Errors
    /// When no copy is left.
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> io::Result<Vec<Lost>> {
        self.all(|copy| copy.file.write_all_at(bytes, at))
    }

    /// Writes whole blocks of long records to every copy, past the page cache where that can be.
    ///
    /// # Errors
    /// When no copy is left.
    pub(crate) fn write_long(
        &self,
        disks: &[Option<Arc<dyn Disk>>],
        bytes: &[u8],
        at: u64,
    ) -> io::Result<Vec<Lost>> {
        let path = path(self.header.volume, self.header.number);
        self.all(|copy| {
            let long = copy.long.get_or_init(|| {
                let disk = disks.get(copy.disk)?.as_ref()?;
                disk.open(&path, Caching::Direct, true).ok()
            });
            long.as_ref().unwrap_or(&copy.file).write_all_at(bytes, at)
        })
    }

    /// Makes every copy durable.
    ///
    /// # Errors
    /// When no copy is left.
    pub(crate) fn sync(&self) -> io::Result<Vec<Lost>> {
        self.all(|copy| copy.file.sync())
    }

    /// Removes the files; what can't be removed is, when the volume is next opened.
    pub(crate) fn remove(&self, disks: &[Option<Arc<dyn Disk>>]) {
        remove(&self.copies, disks, &path(self.header.volume, self.header.number));
    }

    /// How many copies haven't failed.
    pub(crate) fn copies(&self) -> usize {
        self.copies.iter().filter(|copy| !copy.failed.load(Ordering::Acquire)).count()
    }
}

fn make(disk: &dyn Disk, path: &str) -> io::Result<Box<dyn DiskFile>> {
    let file = match disk.create(path, Caching::Cached) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            disk.make_dir(DIR)?;
            disk.sync_dir("")?;
            disk.create(path, Caching::Cached)?
        }
        other => other?,
    };
    disk.sync_dir(DIR)?;
    Ok(file)
}

/// Where a record is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    /// Where it begins in the segment.
    pub(crate) at: u64,
    /// The length of its payload in bytes.
    pub(crate) payload: u32,
}

impl Place {
    /// Reads the record's payload from the first copy in which it is whole.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let Segment { header, copies, sealer } = &*self.segment;
        let mut last = None;
        for copy in copies {
            let mut bytes = vec![0; HEADER + self.payload as usize];
            let long = copy.long.get().and_then(Option::as_ref);
            let file = long.filter(|_| self.payload as usize >= LONG).unwrap_or(&copy.file);
            if let Err(why) = file.read_exact_at(&mut bytes, self.at) {
                last = Some(why);
                continue;
            }
            let head = Header::decode(&bytes, sealer, header.number, self.at);
            bytes.drain(..HEADER);
            if head.and_then(|head| head.open(sealer, &mut bytes)).is_some() {
                return Ok(bytes);
            }
        }
        Err(last.unwrap_or_else(|| {
            let what = format!(
                "the record at {} of segment {} of the volume's log is damaged",
                self.at, header.number
            );
            io::Error::new(io::ErrorKind::InvalidData, what)
        }))
    }
}

/// Fills the buffer with the payloads of long records that lie one right behind the other, read at once. `false`
/// when not all of it could be had so: then they are read one by one, from any copy.
pub(crate) fn read_run(run: &[&Place], scratch: &mut [u8], mut buffer: &mut [u8]) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return true };
    let Segment { header, copies, sealer } = &*first.segment;
    let good = copies.iter().find(|copy| !copy.failed.load(Ordering::Acquire));
    let Some(copy) = good else { return false };
    let file = copy.long.get().and_then(Option::as_ref).unwrap_or(&copy.file);
    let (from, to) = (first.at / BLOCK * BLOCK, last.at + HEADER as u64 + u64::from(last.payload));
    let Some(read) = scratch.get_mut(..aligned(to - from) as usize) else { return false };
    if file.read_exact_at(read, from).is_err() {
        return false;
    }
    // The last one first: what it is opened in reaches over the head of the next.
    for place in run.iter().rev() {
        let at = (place.at - from) as usize;
        let Some(record) = scratch.get_mut(at..at + HEADER + place.payload as usize + TAG_LEN)
        else {
            return false;
        };
        let head = Header::decode(record, sealer, header.number, place.at);
        let Some((_, bytes)) = record.split_at_mut_checked(HEADER) else { return false };
        let opened = head.and_then(|head| head.open_in(sealer, bytes));
        let room = buffer.len().checked_sub(place.payload as usize);
        let (Some(_), Some(room)) = (opened, room) else { return false };
        let (rest, payload) = buffer.split_at_mut(room);
        payload.copy_from_slice(&bytes[..place.payload as usize]);
        buffer = rest;
    }
    buffer.is_empty()
}

/// The first multiple of [`BLOCK`] that is not before `at`.
pub(crate) fn aligned(at: u64) -> u64 {
    at.next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_made_and_no_others() {
        let volume = VolumeId([0xab; 16]);
        let name = path(volume, 0x12f);
        let name = name.strip_prefix("volumes/").unwrap_or_default();
        assert_eq!(parse(name), Some((volume, 0x12f)));
        for other in [&name[1..], &name.to_uppercase(), &format!("{name}0"), "", "x.y", "."] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
