//! Writes a pack's shards as its bytes come.

use std::io;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::format::{DATA_START, Geometry, MAX_PACK, PackHeader, Trailer, page_up};
use super::place::{OPEN, directory, disk_of, shard_path};
use crate::buf::{AlignedBuf, PAGE};
use crate::disk::{Caching, Disk, DiskFile};
use crate::erasure::Code;
use crate::error::{Error, Result};

/// How many bytes of one shard are gathered before they are written.
const LANE: u64 = 2 << 20;
/// How many bytes of all shards are gathered at most (but for one stripe, which must fit).
const LANES: u64 = 8 << 20;

/// The buffers of a [`ShardWriter`], to be handed from one to the next: fresh memory is slow.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Vec<AlignedBuf>,
    page: AlignedBuf,
    at_once: bool,
}

impl Lanes {
    /// With `at_once`, each disk is written and synced by a thread of its own, so that their
    /// speeds add up; else one after the other in the caller's thread, always in the same order.
    pub fn new(at_once: bool) -> Self {
        Self { at_once, ..Self::default() }
    }
}

/// A shard file being written.
#[derive(Debug)]
struct Target {
    shard: usize,
    place: usize,
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    path: String,
}

impl Target {
    fn open_path(&self) -> String {
        format!("{}{OPEN}", self.path)
    }
}

/// A disk that could not take its shard.
pub type FailedDisk = (usize, io::Error);

/// The files of a pack and the disks that failed it so far.
#[derive(Debug)]
struct Targets {
    header: PackHeader,
    live: Vec<Target>,
    failed: Vec<FailedDisk>,
    at_once: bool,
}

impl Targets {
    /// Does `step` with each file. A disk that fails is left out from then on.
    fn each(&mut self, step: impl FnMut(&Target) -> io::Result<()>) -> Result<()> {
        let results = self.live.iter().map(step).collect();
        self.judge(results)
    }

    /// The same, with all disks at once when that was asked for.
    fn each_disk(&mut self, step: impl Fn(&Target) -> io::Result<()> + Sync) -> Result<()> {
        let [first, others @ ..] = &self.live[..] else { return self.check() };
        if !self.at_once || others.is_empty() {
            return self.each(step);
        }
        let step = &step;
        let results = std::thread::scope(|scope| {
            let others: Vec<_> =
                others.iter().map(|target| scope.spawn(move || step(target))).collect();
            let first = step(first);
            let joined = others.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            std::iter::once(first).chain(joined).collect()
        });
        self.judge(results)
    }

    /// Drops the disks that failed.
    fn judge(&mut self, results: Vec<io::Result<()>>) -> Result<()> {
        let live = std::mem::take(&mut self.live);
        for (target, result) in live.into_iter().zip(results) {
            match result {
                Ok(()) => self.live.push(target),
                Err(error) => {
                    // What can't be removed now is found as a left-over when the pool is opened.
                    let _ = target.disk.remove(&target.open_path());
                    self.failed.push((target.place, error));
                }
            }
        }
        self.check()
    }

    /// Fails when too few disks are left to hold the pack.
    fn check(&self) -> Result<()> {
        let shape = self.header.shape;
        if self.live.len() >= shape.data() {
            return Ok(());
        }
        match self.failed.last() {
            // The system's own words: "no space left" is what the user must read.
            Some((_, error)) => Err(Error::io(
                format!("writing pack {}", self.header.pack),
                io::Error::new(error.kind(), error.to_string()),
            )),
            None => Err(Error::TooFewDisks {
                missing: shape.shards() - self.live.len(),
                total: shape.shards(),
                tolerated: shape.parity(),
            }),
        }
    }

    fn remove(&self) {
        for target in &self.live {
            // As above: a left-over is harmless.
            let _ = target.disk.remove(&target.open_path());
        }
    }
}

/// Writes one pack. The bytes are gathered in aligned buffers of up to 1 MiB for each shard; when
/// these are full, parity and checksums are computed and all are written, past the page cache
/// where the disks can.
///
/// A disk that fails is left out of this pack as long as enough remain to read it; after any
/// error the writer is of no more use and must be given to [`ShardWriter::abandon`] (or be
/// dropped: its files are then found as left-overs).
#[derive(Debug)]
pub struct ShardWriter {
    targets: Targets,
    code: Code,
    lanes: Lanes,
    /// XXH3-128 of each unit, by lane.
    sums: Vec<Vec<u128>>,
    /// The length of a full lane, whole units.
    lane_len: u64,
    /// How many bytes of each shard are written.
    written: u64,
    /// How many logical bytes are in the lanes.
    pending: u64,
    len: u64,
}

impl ShardWriter {
    /// Creates the shard files under their temporary names. `disks` are all of the pool in their
    /// order, with `None` for those that are missing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the number of disks is not the shape's; [`Error::Io`] of kind
    /// [`io::ErrorKind::AlreadyExists`] when the pack's number was used before; the first error
    /// of a disk when too few are left, [`Error::TooFewDisks`] when too few were there.
    pub fn create(
        disks: &[Option<Arc<dyn Disk>>],
        header: PackHeader,
        lanes: Lanes,
    ) -> Result<Self> {
        let shape = header.shape;
        if disks.len() != shape.shards() {
            let what = format!("a pack of {} shards on {} disks", shape.shards(), disks.len());
            return Err(Error::Invalid(what));
        }
        let at_once = lanes.at_once;
        let mut targets = Targets { header, live: Vec::new(), failed: Vec::new(), at_once };
        let mut lanes = lanes;
        lanes.page.grow(PAGE);
        for shard in 0..shape.shards() {
            let place = disk_of(header.pack, shard, disks.len());
            let Some(disk) = &disks[place] else { continue };
            let path = shard_path(header.pack, shard);
            let opened = must_be_new(disk.as_ref(), &path)
                .and_then(|()| disk.create(&format!("{path}{OPEN}"), Caching::Direct));
            match opened {
                Ok(file) => {
                    let disk = Arc::clone(disk);
                    targets.live.push(Target { shard, place, disk, file, path });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    targets.remove();
                    return Err(Error::io(format!("creating {path}"), error));
                }
                Err(error) => targets.failed.push((place, error)),
            }
        }
        let written = targets.check().and_then(|()| {
            targets.each(|target| {
                header.encode(target.shard, &mut lanes.page);
                target.file.write_all_at(&lanes.page[..PAGE], 0)
            })
        });
        if let Err(error) = written {
            targets.remove();
            return Err(error);
        }
        let code = Code::new(shape.data(), shape.parity())?;
        // Copies are written from one and the same lane.
        let count = if shape.data() == 1 { 1 } else { shape.shards() };
        let lane_len = (LANES / count as u64).min(LANE) / shape.unit() * shape.unit();
        let lane_len = lane_len.max(shape.unit());
        lanes.lanes.resize_with(count.max(lanes.lanes.len()), AlignedBuf::default);
        lanes.lanes[..count].iter_mut().for_each(|lane| lane.grow(lane_len as usize));
        let sums = vec![Vec::new(); count];
        Ok(Self { targets, code, lanes, sums, lane_len, written: 0, pending: 0, len: 0 })
    }

    /// How many bytes were appended.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the next bytes go, for a caller that makes them there: as many as are in one piece
    /// until the next unit begins (with one data shard: until the buffer is full). Never empty.
    /// Its content is whatever was in it before.
    pub fn spare(&mut self) -> &mut [u8] {
        let shape = self.targets.header.shape;
        let unit = shape.unit();
        let row = self.pending / shape.stripe();
        let rest = self.pending % shape.stripe();
        let start = row * unit + rest % unit;
        let end = if shape.data() == 1 { self.lane_len } else { (row + 1) * unit };
        &mut self.lanes.lanes[(rest / unit) as usize][start as usize..end as usize]
    }

    /// Takes the first `count` bytes of [`ShardWriter::spare`] as appended.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the pack gets longer than [`MAX_PACK`]; the first error of a disk
    /// when too few are left.
    ///
    /// # Panics
    /// When `count` is more than there is spare.
    pub fn commit(&mut self, count: usize) -> Result<()> {
        assert!(count <= self.spare().len(), "no more than is spare can be committed");
        if count as u64 > MAX_PACK - self.len {
            return Err(Error::Invalid(format!("a pack can't be longer than {MAX_PACK} bytes")));
        }
        self.pending += count as u64;
        self.len += count as u64;
        if self.pending == self.lane_len * self.code.data_shards() as u64 {
            self.flush()?;
        }
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// As [`ShardWriter::commit`].
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let spare = self.spare();
            let count = spare.len().min(bytes.len());
            spare[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.commit(count)?;
        }
        Ok(())
    }

    /// Writes what is in the lanes.
    fn flush(&mut self) -> Result<()> {
        let shape = self.targets.header.shape;
        let (unit, data) = (shape.unit() as usize, shape.data());
        let stored = |lane: usize, pending: u64| {
            page_up(shape.share(if lane < data { lane } else { 0 }, pending)) as usize
        };
        let width = stored(0, self.pending);
        let count = self.sums.len();
        for (shard, lane) in self.lanes.lanes.iter_mut().enumerate().take(data) {
            lane[shape.share(shard, self.pending) as usize..width].fill(0);
        }
        if count > 1 {
            let (from, to) = self.lanes.lanes[..count].split_at_mut(data);
            let from: Vec<&[u8]> = from.iter().map(|lane| &lane[..width]).collect();
            let mut to: Vec<&mut [u8]> = to.iter_mut().map(|lane| &mut lane[..width]).collect();
            self.code.encode(&from, &mut to);
        }
        for (lane, sums) in self.sums.iter_mut().enumerate() {
            let bytes = &self.lanes.lanes[lane][..stored(lane, self.pending)];
            sums.extend(bytes.chunks(unit).map(xxh3_128));
        }
        let at = DATA_START + self.written;
        let (lanes, pending) = (&self.lanes.lanes, self.pending);
        self.targets.each_disk(|target| {
            let lane = if count == 1 { 0 } else { target.shard };
            match &lanes[lane][..stored(lane, pending)] {
                [] => Ok(()),
                bytes => target.file.write_all_at(bytes, at),
            }
        })?;
        self.written += width as u64;
        self.pending = 0;
        Ok(())
    }

    /// Writes the rest and the trailers. Nothing is durable yet.
    ///
    /// # Errors
    /// The first error of a disk when too few are left; the files are then removed.
    pub fn finish(mut self) -> Result<FinishedPack> {
        match self.write_end() {
            Ok(()) => Ok(FinishedPack { targets: self.targets, len: self.len, lanes: self.lanes }),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    fn write_end(&mut self) -> Result<()> {
        if self.pending > 0 {
            self.flush()?;
        }
        let header = self.targets.header;
        let geometry = Geometry::new(header.shape, self.len)?;
        let (page, sums) = (&mut self.lanes.page, &self.sums);
        self.targets.each(|target| {
            let shard = target.shard;
            page.grow(geometry.trailer_len(shard) as usize);
            let sums = sums[if sums.len() == 1 { 0 } else { shard }].clone();
            let len = Trailer { header, shard, len: geometry.len(), sums }.encode(page);
            target.file.write_all_at(&page[..len], geometry.trailer_start(shard))
        })
    }

    /// Gives the pack up: removes its files.
    pub fn abandon(self) -> Lanes {
        self.targets.remove();
        self.lanes
    }
}

/// A pack that is written, but neither durable nor under its name.
#[derive(Debug)]
pub struct FinishedPack {
    targets: Targets,
    len: u64,
    lanes: Lanes,
}

/// A pack whose content is durable. Its names are once [`Disk::sync_dir`] was called on each of
/// [`SealedPack::directories`]; one call does for all packs of a directory.
#[derive(Debug)]
pub struct SealedPack {
    /// What it says of itself.
    pub header: PackHeader,
    /// Its logical length, in bytes.
    pub len: u64,
    /// Disks that failed to take their shard, by their place in the pool.
    pub failed: Vec<FailedDisk>,
    /// Disks that have their shard.
    pub disks: Vec<usize>,
    /// Which directories of which disks have new names.
    pub directories: Vec<(usize, String)>,
}

impl FinishedPack {
    /// Takes the buffers, so that the next pack can be written before this one is synced.
    pub fn take_lanes(&mut self) -> Lanes {
        std::mem::take(&mut self.lanes)
    }

    /// Makes the content durable, then gives the files their names.
    ///
    /// # Errors
    /// The first error of a disk when too few are left; the files are then removed where that
    /// is possible.
    pub fn publish(mut self) -> Result<SealedPack> {
        let result = self.targets.each_disk(|target| target.file.sync()).and_then(|()| {
            self.targets.each(|target| target.disk.rename(&target.open_path(), &target.path))
        });
        if let Err(error) = result {
            self.targets.remove();
            for target in &self.targets.live {
                let _ = target.disk.remove(&target.path);
            }
            return Err(error);
        }
        let header = self.targets.header;
        let disks: Vec<usize> = self.targets.live.iter().map(|target| target.place).collect();
        let directories = disks.iter().map(|place| (*place, directory(header.pack))).collect();
        Ok(SealedPack { header, len: self.len, failed: self.targets.failed, disks, directories })
    }

    /// Gives the pack up: removes its files.
    pub fn abandon(self) -> Lanes {
        self.targets.remove();
        self.lanes
    }
}

fn must_be_new(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.open(path, Caching::Cached, false) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
