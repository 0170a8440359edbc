//! Finding damage before somebody needs the data: `check` reads and understands, `scrub` compares
//! sums and needs no key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::buf::AlignedBuf;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, Location, PackId};
use crate::pack::{Directory, FrameEntry};
use crate::pool::core::lock;
use crate::pool::pins::ChunkSet;
use crate::pool::read::{Lens, OpenPack, RUN, unreadable};
use crate::pool::{Meter, Pool};
use crate::shard::{self, Geometry, ScrubBuffers, Shape};
use crate::state::{Op, PackInfo, ScrubMark};
use crate::superblock::Superblock;

/// Packs between two records of how far a scrub has come.
const SCRUB_STEP: usize = 64;
/// The longest that a slowed scrub is deaf to a cancel.
const NAP: Duration = Duration::from_millis(200);
/// Findings that go into one journal record.
const MARKS: usize = 4096;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Roots whose nodes were followed.
    pub roots: u64,
    /// Nodes that were read.
    pub nodes: u64,
    /// Chunks of data that are referred to.
    pub data_chunks: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes of packs that were read, before redundancy.
    pub bytes_read: u64,
    /// Chunks whose content was checked against their ids.
    pub chunks_read: u64,
    /// Copies that were read and are wrong, or are not there, with the pack that should hold them.
    pub bad_copies: Vec<(ChunkId, PackId)>,
    /// Copies that can't be read now, but may be good: a disk is missing, or gave an error, twice.
    pub unreadable: Vec<(ChunkId, PackId)>,
    /// Those of them that could not be read at the end of the check either, though all disks
    /// answer. They leave the index like bad ones; a collection doesn't give them up for that.
    pub given_up: Vec<(ChunkId, PackId)>,
    /// Chunks that are referred to and of which no good copy can be read.
    pub lost: BTreeSet<ChunkId>,
    /// Packs that can't be opened at all, and why.
    pub bad_packs: BTreeMap<PackId, String>,
}

/// Chunks of which a pack has no good copy.
#[derive(Debug, Default)]
struct Wrong {
    /// They were read and are wrong, or are not there.
    bad: Vec<ChunkId>,
    /// They can't be read.
    unreadable: Vec<ChunkId>,
}

impl Wrong {
    fn add(&mut self, other: Self) {
        self.bad.extend(other.bad);
        self.unreadable.extend(other.unreadable);
    }

    fn is_empty(&self) -> bool {
        self.bad.is_empty() && self.unreadable.is_empty()
    }
}

/// Tries to read once more after an error: what happened on the way to a disk, or to memory, is no
/// reason to give data up. Not for disks that aren't there.
pub(crate) fn twice<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    match read() {
        Err(e @ Error::TooFewDisks { .. }) => Err(e),
        Err(_) => read(),
        read => read,
    }
}

impl CheckReport {
    /// Takes in what [`Pool::check_pack`] found.
    fn join(&mut self, pack: Self) {
        self.packs_read += pack.packs_read;
        self.bytes_read += pack.bytes_read;
        self.chunks_read += pack.chunks_read;
        self.bad_copies.extend(pack.bad_copies);
        self.unreadable.extend(pack.unreadable);
        self.bad_packs.extend(pack.bad_packs);
    }

    fn add(&mut self, pack: PackId, wrong: Wrong) {
        self.bad_copies.extend(wrong.bad.into_iter().map(|chunk| (chunk, pack)));
        self.unreadable.extend(wrong.unreadable.into_iter().map(|chunk| (chunk, pack)));
    }

    /// All copies that are not known to be good.
    fn wrong(&self) -> BTreeSet<(ChunkId, PackId)> {
        self.bad_copies.iter().chain(&self.unreadable).copied().collect()
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.bad_copies.is_empty()
            && self.unreadable.is_empty()
            && self.lost.is_empty()
            && self.bad_packs.is_empty()
    }
}

/// How to scrub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Start from the first pack even if an earlier scrub was stopped half way.
    pub restart: bool,
    /// Read at most this many bytes a second from all disks together.
    pub rate: Option<u64>,
    /// Stop after this many packs; the next scrub goes on from there.
    pub packs: Option<usize>,
}

/// What a scrub found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubOutcome {
    /// Packs that were looked at.
    pub packs: u64,
    /// Bytes that were read from the disks.
    pub bytes_read: u64,
    /// Units that did not have their sum.
    pub bad_units: u64,
    /// Shards with something wrong as a whole: missing, on a missing disk, cut short.
    pub bad_shards: u64,
    /// Units and shards that are whole again.
    pub healed: u64,
    /// Packs of which a part is lost, and what the scrub could tell of it.
    pub lost: BTreeMap<PackId, String>,
    /// Packs of which a part can't be read now, but may be there: a disk is missing, or gave an
    /// error, twice.
    pub unreadable: BTreeMap<PackId, String>,
    /// Chunks in lost parts.
    pub bad_copies: Vec<(ChunkId, PackId)>,
    /// Whether the last pack was reached.
    pub complete: bool,
}

impl Pool {
    /// Follows every root, and with `read_data` reads every pack and checks every chunk against
    /// its id. What can be mended is mended on the way ([`Pool::take_notices`] says so). In a
    /// process that may write, bad copies leave the index, so that the next backup that has the
    /// data brings it back; so do those that can't be read, when they can't at the end either and
    /// all disks answer. Copies that are good again come back into it.
    ///
    /// # Errors
    /// [`Error::Canceled`]; damage is reported, not an error.
    pub fn check(&self, read_data: bool, meter: &Meter) -> Result<CheckReport> {
        let report = Mutex::new(CheckReport::default());
        if read_data {
            let packs: Vec<(PackId, PackInfo)> =
                self.core.state().packs.iter().map(|(id, info)| (*id, *info)).collect();
            meter.begin(packs.iter().map(|(_, info)| info.len).sum());
            self.for_each_pack(&packs, |id, info, lens| {
                meter.check()?;
                let found = self.check_pack(id, &info, lens);
                lock(&report).join(found);
                meter.add(info.len);
                Ok(())
            })?;
        }
        let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.check_broken(&mut report)?;
        self.mark_bad(&report.bad_copies)?;
        if read_data {
            let wrong = report.wrong();
            self.take_back(&|copy| !wrong.contains(copy), meter)?;
        }
        let known = report.bad_copies.len();
        self.check_roots(&mut report, meter)?;
        let packs = report.unreadable.iter().map(|(_, pack)| *pack).collect();
        let found: BTreeSet<_> = report.unreadable.iter().copied().collect();
        let again = self.try_again(packs, meter)?;
        report.given_up.extend(again.unreadable.into_iter().filter(|copy| found.contains(copy)));
        report.bad_copies.extend(again.bad_copies.into_iter().filter(|copy| found.contains(copy)));
        self.mark_bad(&report.bad_copies[known..])?;
        self.mark_bad(&report.given_up)?;
        Ok(report)
    }

    /// Reads packs once more of which something could not be read; what still can't be read, and
    /// what is wrong, in them. Nothing, when a disk is away or doesn't answer: it may come back.
    fn try_again(&self, packs: BTreeSet<PackId>, meter: &Meter) -> Result<CheckReport> {
        let answers =
            |disk: &Arc<dyn Disk>| !matches!(Superblock::read(&**disk), Err(Error::Io { .. }));
        let all_there = || self.core.disks.iter().all(|disk| disk.as_ref().is_some_and(answers));
        if packs.is_empty() || !all_there() {
            return Ok(CheckReport::default());
        }
        // Files that could not be opened are opened again.
        self.reading.forget_packs();
        let mut report = CheckReport::default();
        let mut lens = self.reading.lens();
        for id in packs {
            self.check_stop(meter)?;
            let info = self.core.state().packs.get(&id).copied();
            if let Some(info) = info {
                report.join(self.check_pack(id, &info, &mut lens));
            }
        }
        self.reading.put_lens(lens);
        self.check_broken(&mut report)?;
        Ok(report)
    }

    /// Takes copies that were marked bad into the index again when they are good, in a process that
    /// may write. Only those are looked at that `may_be` says may be.
    fn take_back(&self, may_be: &dyn Fn(&(ChunkId, PackId)) -> bool, meter: &Meter) -> Result<()> {
        if self.core.writable().is_err() {
            return Ok(());
        }
        let marked: Vec<_> = {
            let state = self.core.state();
            state.bad.iter().filter(|copy| may_be(copy)).copied().collect()
        };
        let mut good = Vec::new();
        let mut lens = self.reading.lens();
        for (id, pack) in marked {
            self.check_stop(meter)?;
            let at = self.core.index.lookup(&id, &|_, at| at.pack == pack)?;
            if at.is_some_and(|at| self.open_checked(&id, &at, &mut lens).is_ok()) {
                good.push((id, pack));
            }
        }
        self.reading.put_lens(lens);
        for good in good.chunks(MARKS) {
            self.core.record(|state| {
                let part = good.iter().filter(|copy| state.bad.contains(*copy));
                Ok(part.map(|(chunk, pack)| Op::ClearBad(*chunk, *pack)).collect())
            })?;
        }
        if !good.is_empty() {
            let count = good.len();
            self.core.notice(format!("{count} copies of chunks that had been bad are good again"));
        }
        Ok(())
    }

    /// Packs that don't tell what is in them: the index still does, and a part of them may be
    /// readable. Finds the copies that aren't.
    fn check_broken(&self, report: &mut CheckReport) -> Result<()> {
        if report.bad_packs.is_empty() {
            return Ok(());
        }
        let mut lens = self.reading.lens();
        for entry in self.core.index.entries() {
            self.core.check_canceled()?;
            let (id, at) = entry?;
            if report.bad_packs.contains_key(&at.pack) && self.core.valid(&id, &at) {
                self.check_copy(&id, &at, &mut lens, report);
            }
        }
        self.reading.put_lens(lens);
        Ok(())
    }

    /// Reads one copy; notes it in the report when it isn't good.
    fn check_copy(&self, id: &ChunkId, at: &Location, lens: &mut Lens, report: &mut CheckReport) {
        match twice(|| self.open_checked(id, at, lens)) {
            Ok(()) => {}
            Err(e) if e.is_for_good() => report.bad_copies.push((*id, at.pack)),
            Err(_) => report.unreadable.push((*id, at.pack)),
        }
    }

    /// Calls `work` for every pack, on all threads.
    fn for_each_pack(
        &self,
        packs: &[(PackId, PackInfo)],
        work: impl Fn(PackId, PackInfo, &mut Lens) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let run = || -> Result<()> {
            let mut lens = self.reading.lens();
            while let Some((id, info)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.core.check_canceled()?;
                work(*id, *info, &mut lens)?;
            }
            self.reading.put_lens(lens);
            Ok(())
        };
        if self.threads <= 1 {
            return run();
        }
        // More than there are processors, so that some can wait for the disk.
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..self.threads + 2).map(|_| scope.spawn(run)).collect();
            let own = run();
            others.into_iter().fold(own, |result, other| {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.and(other)
            })
        })
    }

    /// Reads a whole pack; what is wrong in it. Nothing of one that was given up meanwhile.
    fn check_pack(&self, id: PackId, info: &PackInfo, lens: &mut Lens) -> CheckReport {
        let mut report = CheckReport::default();
        let opened = twice(|| {
            OpenPack::open(&self.core, id, *info)
                .and_then(|pack| Ok((pack.directory(&self.core)?, pack)))
        });
        let (directory, pack) = match opened {
            Ok(opened) => opened,
            Err(_) if !self.core.state().packs.contains_key(&id) => return report,
            Err(e) => {
                report.bad_packs.insert(id, e.to_string());
                return report;
            }
        };
        let wrong = self.wrong_in(&pack, &directory, lens);
        if !wrong.is_empty() && !self.core.state().packs.contains_key(&id) {
            return report;
        }
        report.packs_read = 1;
        report.bytes_read = info.len;
        report.chunks_read = info.chunks.into();
        report.add(id, wrong);
        report
    }

    /// Reads a whole pack; which of its chunks are not what their ids say, after all mending.
    fn wrong_in(&self, pack: &OpenPack, directory: &Directory, lens: &mut Lens) -> Wrong {
        let mut wrong = Wrong::default();
        let mut rest = &directory.frames[..];
        while let Some(first) = rest.first() {
            let end = rest.iter().position(|f| (f.offset + f.len - first.offset) as usize > RUN);
            let (run, after) = rest.split_at(end.unwrap_or(rest.len()).max(1));
            rest = after;
            let last = &run[run.len() - 1];
            let len = (last.offset + last.len - first.offset) as usize;
            let mut buf = std::mem::take(&mut lens.sealed);
            let read = pack.read(&self.core, first.offset.into(), len, false, &mut buf);
            for frame in run {
                let good = read.as_ref().is_ok_and(|range| {
                    let begin = range.start + (frame.offset - first.offset) as usize;
                    let sealed = &mut buf[begin..begin + frame.len as usize];
                    self.frame_is_good(pack, frame, sealed, lens)
                });
                if !good {
                    wrong.add(self.mend_frame(pack, frame, lens));
                }
            }
            lens.sealed = buf;
        }
        wrong
    }

    fn frame_is_good(
        &self,
        pack: &OpenPack,
        frame: &FrameEntry,
        sealed: &mut [u8],
        lens: &mut Lens,
    ) -> bool {
        let opened = pack.unseal(frame.offset, sealed);
        opened
            .and_then(|opened| lens.codec.view(opened, &mut lens.raw))
            .is_ok_and(|raw| self.wrong_chunks(pack.info.kind, frame, raw).is_empty())
    }

    /// Reads a frame with its sums checked and its bad units worked out anew; which chunks are
    /// not good all the same.
    fn mend_frame(&self, pack: &OpenPack, frame: &FrameEntry, lens: &mut Lens) -> Wrong {
        let mut sealed = AlignedBuf::default();
        let mut bad = Vec::new();
        let opened = twice(|| {
            let range =
                pack.read(&self.core, frame.offset.into(), frame.len as usize, true, &mut sealed)?;
            let opened = pack.unseal(frame.offset, &mut sealed[range])?;
            lens.codec.decode(opened, &mut lens.raw)?;
            bad = self.wrong_chunks(pack.info.kind, frame, &lens.raw);
            match bad.is_empty() {
                true => Ok(()),
                false => Err(Error::damaged(format!("a frame of pack {}", pack.id), "its chunks")),
            }
        });
        let all = || frame.chunks.iter().map(|(id, _)| *id).collect();
        match opened {
            Ok(()) => Wrong::default(),
            Err(e) if !e.is_for_good() => Wrong { unreadable: all(), ..Wrong::default() },
            Err(_) if bad.is_empty() => Wrong { bad: all(), ..Wrong::default() },
            Err(_) => Wrong { bad, ..Wrong::default() },
        }
    }

    fn wrong_chunks(&self, kind: ChunkKind, frame: &FrameEntry, raw: &[u8]) -> Vec<ChunkId> {
        let mut rest = raw;
        let wrong = frame.chunks.iter().filter(|(id, len)| {
            let Some((bytes, after)) = rest.split_at_checked(*len as usize) else { return true };
            rest = after;
            self.core.hasher.id(kind, bytes) != *id
        });
        wrong.map(|(id, _)| *id).collect()
    }

    /// Takes bad copies out of the index, in a process that may write: the next backup that has the
    /// data brings it back. In another it does nothing.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn mark_bad(&self, bad: &[(ChunkId, PackId)]) -> Result<()> {
        if self.core.writable().is_err() {
            return Ok(());
        }
        for bad in bad.chunks(MARKS) {
            self.core.record(|state| {
                let part = bad.iter().filter(|copy| !state.bad.contains(*copy));
                let part = part.filter(|(_, pack)| state.packs.contains_key(pack));
                Ok(part.map(|(chunk, pack)| Op::MarkBad(*chunk, *pack)).collect())
            })?;
        }
        Ok(())
    }

    /// Follows all roots; finds nodes that can't be read and chunks that are not there.
    fn check_roots(&self, report: &mut CheckReport, meter: &Meter) -> Result<()> {
        let roots = self.core.state().roots.clone();
        report.roots = roots.len() as u64;
        let mut seen = ChunkSet::default();
        let mut stack: Vec<ChunkId> = roots.into_values().flat_map(|root| root.nodes).collect();
        let found_bad = report.wrong();
        let mut lens = self.reading.lens();
        let valid = |id: &ChunkId, at: &Location| {
            self.core.valid(id, at) && !found_bad.contains(&(*id, at.pack))
        };
        while let Some(id) = stack.pop() {
            self.check_stop(meter)?;
            let Some(at) = self.core.index.lookup(&id, &valid)? else {
                report.lost.insert(id);
                continue;
            };
            if !seen.insert(at.pack, at.ordinal) {
                continue;
            }
            report.nodes += 1;
            let node = match self.node(&id) {
                Ok(node) => node,
                Err(e) => {
                    self.check_copy(&id, &at, &mut lens, report);
                    self.core.notice(unreadable(&id, &at, &e).to_string());
                    report.lost.insert(id);
                    continue;
                }
            };
            stack.extend(node.nodes);
            let mut data = node.data;
            data.sort_unstable();
            data.dedup();
            let found = self.core.index.lookup_many(&data, &valid)?;
            for (id, at) in data.into_iter().zip(found) {
                match at {
                    None => {
                        report.lost.insert(id);
                    }
                    Some(at) => report.data_chunks += u64::from(seen.insert(at.pack, at.ordinal)),
                }
            }
        }
        self.reading.put_lens(lens);
        Ok(())
    }

    /// Compares every unit on every disk with its sum, and heals what is bad or missing. It needs
    /// no key but to name what is lost. A scrub that was stopped goes on where it was.
    ///
    /// # Errors
    /// Those of the journal. A cancel ends it early with what was found so far.
    pub fn scrub(&self, options: ScrubOptions, meter: &Meter) -> Result<ScrubOutcome> {
        let _upkeep = self.begin_upkeep("scrub")?;
        let now = self.core.time();
        let mark = self.core.state().scrub.filter(|_| !options.restart);
        let mark = mark.unwrap_or(ScrubMark { next: PackId(0), started: now });
        let packs: Vec<(PackId, PackInfo)> = {
            let state = self.core.state();
            state.packs.range(mark.next..).map(|(id, info)| (*id, *info)).collect()
        };
        meter.begin(packs.iter().map(|(_, info)| info.len).sum());
        let mut outcome = ScrubOutcome { complete: true, ..ScrubOutcome::default() };
        let begun = Instant::now();
        let mut read = 0;
        let mut throttle = |bytes| {
            read += bytes;
            if let Some(rate) = options.rate {
                let due = Duration::from_secs_f64(read as f64 / rate.max(1) as f64);
                while let Some(left) = due.checked_sub(begun.elapsed()).filter(|d| !d.is_zero()) {
                    self.check_stop(meter)?;
                    std::thread::sleep(left.min(NAP));
                }
            }
            self.check_stop(meter)
        };
        let mut buffers = ScrubBuffers::default();
        for (done, (id, info)) in packs.iter().enumerate() {
            let come_to =
                || self.core.record(|_| Ok(vec![Op::Scrub(Some(ScrubMark { next: *id, ..mark }))]));
            if done % SCRUB_STEP == 0 {
                come_to()?;
            }
            let enough = options.packs.is_some_and(|packs| done >= packs);
            let scrubbed = if enough {
                Err(Error::Canceled)
            } else {
                self.scrub_pack(*id, info, &mut outcome, &mut buffers, &mut throttle)
            };
            match scrubbed {
                Ok(()) => meter.add(info.len),
                Err(Error::Canceled) => {
                    outcome.complete = false;
                    come_to()?;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        self.reading.forget_packs();
        lock(&self.core.found).forget_told();
        if self.check_stop(meter).is_ok() {
            let again = self.try_again(outcome.unreadable.keys().copied().collect(), meter)?;
            self.mark_bad(&again.unreadable)?;
            self.mark_bad(&again.bad_copies)?;
            let count = again.unreadable.len();
            if count > 0 {
                self.core.notice(format!(
                    "{count} copies of chunks can't be read, also when tried again, and left the \
                     index: the next backup that has the data stores it again"
                ));
            }
            outcome.bad_copies.extend(again.bad_copies);
        }
        if outcome.complete {
            let broken: BTreeSet<PackId> =
                outcome.lost.keys().chain(outcome.unreadable.keys()).copied().collect();
            self.take_back(&|(_, pack)| !broken.contains(pack), meter)?;
            self.scrub_index(&mut outcome)?;
            self.core.record(|_| Ok(vec![Op::Scrub(None), Op::Scrubbed(now)]))?;
        }
        Ok(outcome)
    }

    /// Reads all copies of the index, and makes bad ones anew.
    fn scrub_index(&self, outcome: &mut ScrubOutcome) -> Result<()> {
        let segments: Vec<_> = self.core.state().segments.keys().copied().collect();
        let bad: u64 = segments.iter().map(|id| self.core.index.scrub(*id)).sum();
        outcome.bad_units += bad;
        self.core.mend_index()?;
        if self.core.index.damage().is_empty() {
            outcome.healed += bad;
        }
        Ok(())
    }

    /// Scrubs one pack, and finds out what is lost when not all of it could be healed.
    pub(crate) fn scrub_pack(
        &self,
        id: PackId,
        info: &PackInfo,
        outcome: &mut ScrubOutcome,
        buffers: &mut ScrubBuffers,
        throttle: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let shape = Shape::new(info.data_shards, info.parity_shards)?;
        let geometry = Geometry::new(shape, info.len)?;
        let (disks, pool) = (&self.core.disks, self.core.id);
        let mut scrub = |outcome: &mut ScrubOutcome| {
            let report =
                shard::scrub_pack(disks, pool, id, Some(geometry), true, buffers, throttle)?;
            outcome.bytes_read += report.bytes_read;
            outcome.healed += (report.healed_units.len() + report.mended_shards.len()) as u64;
            for (disk, why) in &report.failed {
                self.core.notice(format!("disk {disk} failed while pack {id} was mended: {why}"));
            }
            Ok::<_, Error>(report)
        };
        let mut report = scrub(outcome)?;
        outcome.packs += 1;
        outcome.bad_units += report.bad_units.len() as u64;
        outcome.bad_shards += report.flaws.len() as u64;
        if !report.unreadable.is_empty() && disks.iter().all(Option::is_some) {
            report = scrub(outcome)?;
        }
        if !self.core.state().packs.contains_key(&id) {
            return Ok(());
        }
        let show = |ranges: &[std::ops::Range<u64>]| {
            let ranges: Vec<String> =
                ranges.iter().map(|r| format!("{} to {}", r.start, r.end)).collect();
            ranges.join(", ")
        };
        if !report.unreadable.is_empty() {
            let what = format!("bytes {} can't be read", show(&report.unreadable));
            outcome.unreadable.insert(id, what);
        }
        if report.unrecoverable.is_empty() {
            return Ok(());
        }
        outcome.lost.insert(id, format!("bytes {} are lost", show(&report.unrecoverable)));
        let mut lens = self.reading.lens();
        let mut found = self.check_pack(id, info, &mut lens);
        self.reading.put_lens(lens);
        self.check_broken(&mut found)?;
        self.mark_bad(&found.bad_copies)?;
        outcome.bad_copies.extend(found.bad_copies);
        Ok(())
    }

    /// An error when this piece of work, or all of this process, was asked to stop.
    pub(crate) fn check_stop(&self, meter: &Meter) -> Result<()> {
        meter.check()?;
        self.core.check_canceled()
    }

    /// Makes sure that one piece of upkeep runs at a time.
    pub(crate) fn begin_upkeep(&self, what: &'static str) -> Result<UpkeepTurn<'_>> {
        self.core.writable()?;
        let mut upkeep = lock(&self.upkeep);
        if let Some(other) = upkeep.running {
            return Err(Error::InUse { holder: format!("{other} is running in this process") });
        }
        upkeep.running = Some(what);
        Ok(UpkeepTurn::taken(self))
    }
}

/// Held while a piece of upkeep runs.
#[derive(Debug)]
pub(crate) struct UpkeepTurn<'p> {
    pool: &'p Pool,
}

impl<'p> UpkeepTurn<'p> {
    /// Of who has noted that it runs.
    pub(super) fn taken(pool: &'p Pool) -> Self {
        Self { pool }
    }
}

impl Drop for UpkeepTurn<'_> {
    fn drop(&mut self) {
        let mut upkeep = lock(&self.pool.upkeep);
        upkeep.running = None;
        upkeep.ended += 1;
        drop(upkeep);
        self.pool.upkeep_ended.notify_all();
    }
}
