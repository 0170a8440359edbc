//! The log that a volume is written to.
//!
//! Who writes hands a record over; one of those that wait takes all that were handed over, gives them
//! their places, writes them to all copies at once, and enters them in the layers, in their order. So
//! a volume is at every instant what the records up to some number make of it, in memory as on disk.
//! Nobody holds a lock meanwhile: the pen goes from hand to hand.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use strongroom_engine::buf::{BufPool, PooledBuf};
use strongroom_engine::disk::Disk;
use strongroom_engine::pool::Pool;
use strongroom_engine::seal::LogSealer;

use super::live::Lives;
use super::record::{BLOCK, Change, Entry, HEADER, MAX_PAYLOAD, MAX_SEGMENT, SegmentHeader};
use super::segment::{Lost, Place, Prepared, Segment, aligned};
use super::{Limits, VolumeId, locked};
use crate::{Error, Result};

/// Bytes that are written at once, about: few enough that others are sealed meanwhile.
const BATCH: usize = 1 << 20;
/// Bytes of the longest write that is one of these by itself.
pub(crate) const TOGETHER: usize = 1 << 20;
/// Bytes that aren't durable before whoever tends the log makes them so.
const UNSYNCED: u64 = 8 << 20;
/// What is written past the page cache counts for so much less of them: it is on the disk, and its place in the
/// file is what isn't durable. Where a disk has no direct writes, so many times as much waits for a sync.
const ON_DISK: u64 = 8;
/// Bytes of its limit that a record takes at the least: each is about 100 bytes in memory.
const RECORD: u64 = 8 << 10;
/// Bytes that may wait to be written.
const WAITING: usize = 16 << 20;
/// Writes of long records that are under way in a pool; others wait.
const LONGS: usize = 16;

/// Buffers for long records, for all logs of a pool.
pub(crate) fn buffers() -> BufPool {
    BufPool::new(LONGS, TOGETHER + HEADER * TOGETHER.div_ceil(MAX_PAYLOAD))
}

/// Records that have no place yet, one right behind the other.
#[derive(Debug)]
enum Records {
    /// One, and its bytes.
    Short(Entry, Vec<u8>),
    /// Several, and their bytes: they begin with a block, and have whole ones.
    Long(Vec<Entry>, PooledBuf, usize),
}

impl Records {
    /// Bytes that they take.
    fn len(&self) -> usize {
        match self {
            Self::Short(_, bytes) => bytes.len(),
            Self::Long(.., len) => *len,
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Short(..) => 1,
            Self::Long(entries, ..) => entries.len() as u64,
        }
    }
}

/// What tells one process's log of a volume from all others, and where it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) volume: VolumeId,
    pub(crate) salt: [u8; 32],
    /// The last sequence number that is settled.
    pub(crate) settled: u64,
    /// The number of its first segment: no file of the volume has it or a higher one.
    pub(crate) number: u64,
}

#[derive(Debug)]
struct Queue {
    /// With the first one's sequence number.
    waiting: VecDeque<(u64, Records)>,
    /// Bytes of those.
    bytes: usize,
    /// The next sequence number.
    next: u64,
    /// Up to here all is written, and in the layers.
    applied: u64,
    /// Up to here all is durable.
    durable: u64,
    /// `None` while somebody writes.
    pen: Option<Pen>,
    syncing: bool,
    failed: Option<String>,
}

/// A segment, and what is in it.
#[derive(Debug)]
struct Written {
    segment: Arc<Segment>,
    /// The last sequence number.
    last: u64,
    records: u64,
    bytes: u64,
}

/// What who writes needs.
#[derive(Debug, Default)]
struct Pen {
    /// The last one is written.
    segments: Vec<Written>,
    /// Where the next record goes.
    end: u64,
    /// What was written before must not share a block with it.
    align: bool,
    /// The number of the next segment.
    number: u64,
    /// Disks that failed.
    lost: BTreeSet<usize>,
    /// What was written since it was last synced.
    dirty: Vec<Arc<Segment>>,
    /// And how many bytes.
    unsynced: u64,
    /// Files for the next segment.
    next: Option<Prepared>,
    buffer: Vec<u8>,
}

/// The log of one volume, in one process.
#[derive(Debug)]
pub(crate) struct Log {
    pool: Arc<Pool>,
    run: Run,
    sealer: Arc<LogSealer>,
    segment_size: u64,
    /// Bytes of long records.
    long: usize,
    buffers: BufPool,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The number under which the next payload is sealed.
    sealed: AtomicU64,
    /// The next record begins a segment.
    roll: AtomicBool,
    /// Records in segments, and bytes.
    records: AtomicU64,
    bytes: AtomicU64,
    notices: Mutex<Vec<String>>,
}

impl Log {
    /// A log without a segment.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        run: Run,
        sealer: LogSealer,
        limits: Limits,
        buffers: &BufPool,
    ) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            next: run.settled + 1,
            applied: run.settled,
            durable: run.settled,
            pen: Some(Pen { number: run.number, ..Pen::default() }),
            syncing: false,
            failed: None,
        };
        Self {
            pool: Arc::clone(pool),
            run,
            sealer: Arc::new(sealer),
            segment_size: limits.segment.clamp(2 * BLOCK, MAX_SEGMENT),
            long: limits.long,
            buffers: buffers.clone(),
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            sealed: AtomicU64::new(0),
            roll: AtomicBool::new(false),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            notices: Mutex::default(),
        }
    }

    /// Bytes of its segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How much of its limit it has: its bytes, or more when they are many short records, which take memory.
    pub(crate) fn weight(&self) -> u64 {
        self.bytes().max(self.records.load(Ordering::Relaxed).saturating_mul(RECORD))
    }

    /// What the user should hear of.
    pub(crate) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.notices))
    }

    fn wait<'q>(
        &self,
        queue: std::sync::MutexGuard<'q, Queue>,
    ) -> std::sync::MutexGuard<'q, Queue> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a change to all copies and enters it in the layers; the sequence number of its last record: data of
    /// up to [`TOGETHER`] bytes may be several.
    ///
    /// # Errors
    /// [`Error::Failed`], after which nothing more is written.
    pub(crate) fn append(&self, change: Change, data: &[u8], lives: &Lives) -> Result<u64> {
        if let Change::Data { offset, .. } = change
            && data.len() >= self.long.min(MAX_PAYLOAD)
        {
            return self.append_long(offset, data, lives);
        }
        let number = self.sealed.fetch_add(1, Ordering::Relaxed);
        let (entry, bytes) = Entry::record(change, data, number, &self.sealer);
        self.hand_over(Records::Short(entry, bytes), lives)
    }

    /// Appends what is written from `offset` on, at most [`TOGETHER`] bytes; the last record's sequence number.
    fn append_long(&self, offset: u64, bytes: &[u8], lives: &Lives) -> Result<u64> {
        let parts = bytes.chunks(MAX_PAYLOAD);
        let count = parts.len();
        let first = self.sealed.fetch_add(count as u64, Ordering::Relaxed);
        let mut buffer = self.buffers.take();
        let mut entries = Vec::with_capacity(count);
        let (mut at, mut rest) = (offset, &mut buffer[..]);
        for (number, part) in (first..).zip(parts) {
            let (record, after) = rest.split_at_mut(HEADER + part.len());
            let payload = &mut record[HEADER..];
            payload.copy_from_slice(part);
            let change = Change::Data { offset: at, length: part.len() as u32 };
            entries.push(Entry::seal(change, payload, number, &self.sealer));
            (at, rest) = (at + part.len() as u64, after);
        }
        let len = bytes.len() + count * HEADER;
        let whole = aligned(len as u64) as usize;
        buffer[len..whole].fill(0);
        self.hand_over(Records::Long(entries, buffer, whole), lives)
    }

    /// Has records written, by whoever's turn it is; the last one's sequence number.
    fn hand_over(&self, records: Records, lives: &Lives) -> Result<u64> {
        let mut queue = locked(&self.queue);
        while queue.bytes > WAITING && queue.failed.is_none() {
            queue = self.wait(queue);
        }
        let first = queue.next;
        queue.next += records.count();
        queue.bytes += records.len();
        let sequence = queue.next - 1;
        queue.waiting.push_back((first, records));
        loop {
            if queue.applied >= sequence {
                return Ok(sequence);
            }
            if let Some(why) = queue.failed.clone() {
                // Nobody writes them any more, and their buffers are those of all volumes.
                queue.waiting.clear();
                queue.bytes = 0;
                return Err(Error::Failed(why));
            }
            let Some(mut pen) = queue.pen.take() else {
                queue = self.wait(queue);
                continue;
            };
            let mut batch = Vec::new();
            let mut bytes = 0;
            while bytes < BATCH
                && let Some((first, records)) = queue.waiting.pop_front()
            {
                bytes += records.len();
                batch.push((first, records));
            }
            queue.bytes -= bytes;
            let last = batch.last().map_or(0, |(first, records)| first + records.count() - 1);
            let durable = queue.durable;
            drop(queue);
            let written = self.write(&mut pen, batch, durable, lives);
            queue = locked(&self.queue);
            queue.pen = Some(pen);
            match written {
                Ok(()) => queue.applied = queue.applied.max(last),
                Err(why) => {
                    queue.failed.get_or_insert_with(|| format!("its log can't be written: {why}"));
                }
            }
            self.changed.notify_all();
        }
    }

    fn write(
        &self,
        pen: &mut Pen,
        batch: Vec<(u64, Records)>,
        durable: u64,
        lives: &Lives,
    ) -> io::Result<()> {
        let mut placed = Vec::with_capacity(batch.len());
        let mut buffer = std::mem::take(&mut pen.buffer);
        if std::mem::take(&mut pen.align) {
            pen.end = aligned(pen.end);
        }
        for (first, records) in batch {
            if matches!(records, Records::Long(..)) {
                self.write_out(pen, &mut buffer)?;
                pen.end = aligned(pen.end);
            }
            let end = pen.end + (buffer.len() + records.len()) as u64;
            let rolls = self.roll.swap(false, Ordering::AcqRel);
            if rolls || pen.segments.is_empty() || end > self.segment_size {
                self.write_out(pen, &mut buffer)?;
                self.begin(pen, first)?;
            }
            let Some(Written { segment, last, records: written, .. }) = pen.segments.last_mut()
            else {
                break;
            };
            *last = first + records.count() - 1;
            *written += records.count();
            self.records.fetch_add(records.count(), Ordering::Relaxed);
            let segment = Arc::clone(segment);
            let mut at = pen.end + buffer.len() as u64;
            let mut place = |entry: Entry, sequence| {
                let Entry { payload, .. } = entry;
                let number = segment.header.number;
                let header = entry.header(&self.sealer, number, at, sequence, durable);
                let place = Place { segment: Arc::clone(&segment), at, payload };
                placed.push((sequence, entry.change, place));
                at += HEADER as u64 + u64::from(payload);
                header
            };
            match records {
                Records::Short(entry, bytes) => {
                    buffer.extend_from_slice(&place(entry, first));
                    buffer.extend_from_slice(bytes.get(HEADER..).unwrap_or_default());
                }
                Records::Long(entries, mut bytes, whole) => {
                    let mut from = 0;
                    for (sequence, entry) in (first..).zip(entries) {
                        let length = HEADER + entry.payload as usize;
                        bytes[from..from + HEADER].copy_from_slice(&place(entry, sequence));
                        from += length;
                    }
                    let lost = segment.write_long(self.pool.disks(), &bytes[..whole], pen.end)?;
                    self.wrote(pen, whole as u64, whole as u64 / ON_DISK, lost);
                }
            }
        }
        self.write_out(pen, &mut buffer)?;
        pen.buffer = buffer;
        if pen.buffer.capacity() > 2 * BATCH {
            pen.buffer = Vec::new();
        }
        lives.apply(placed);
        Ok(())
    }

    /// Writes bytes to the end of the last segment.
    fn write_out(&self, pen: &mut Pen, buffer: &mut Vec<u8>) -> io::Result<()> {
        if let Some(Written { segment, .. }) = pen.segments.last()
            && !buffer.is_empty()
        {
            let lost = segment.write(buffer, pen.end)?;
            let len = buffer.len() as u64;
            self.wrote(pen, len, len, lost);
            buffer.clear();
        }
        Ok(())
    }

    /// So many bytes are in the last segment, and so many of them have to be written out.
    fn wrote(&self, pen: &mut Pen, len: u64, unsynced: u64, lost: Vec<Lost>) {
        if let Some(Written { segment, bytes, .. }) = pen.segments.last_mut() {
            *bytes += len;
            if !pen.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, segment)) {
                pen.dirty.push(Arc::clone(segment));
            }
        }
        pen.end += len;
        pen.unsynced += unsynced;
        self.lose_disks(pen, lost);
        self.bytes.fetch_add(len, Ordering::Relaxed);
    }

    /// Begins a segment, on other disks when some fail as long as there are others.
    fn begin(&self, pen: &mut Pen, first: u64) -> io::Result<()> {
        let segment = loop {
            let is_good = |next: &Prepared| !pen.lost.iter().any(|disk| next.is_on(*disk));
            let next = match pen.next.take() {
                Some(next) if is_good(&next) => next,
                other => {
                    other.inspect(|files| files.remove(self.pool.disks()));
                    let number = pen.number;
                    pen.number += 1;
                    let (next, lost) = self.make(number, &pen.lost)?;
                    self.lose_disks(pen, lost);
                    next
                }
            };
            let Run { volume, salt, .. } = self.run;
            let number = next.number;
            let header = SegmentHeader { pool: self.pool.id(), volume, salt, number, first };
            let (segment, lost) = Segment::begin(next, header, &self.sealer);
            let is_whole = lost.is_empty();
            self.lose_disks(pen, lost);
            let left = self.usable(&pen.lost).count();
            let copies = segment.copies();
            if is_whole || copies > 0 && copies >= left.min(self.count()) {
                break segment;
            }
            segment.remove(self.pool.disks());
        };
        // It has what this one lost again.
        self.roll.store(false, Ordering::Release);
        pen.end = BLOCK;
        let segment = Arc::new(segment);
        pen.segments.push(Written { segment, last: first, records: 0, bytes: BLOCK });
        self.bytes.fetch_add(BLOCK, Ordering::Relaxed);
        Ok(())
    }

    fn lose_disks(&self, pen: &mut Pen, lost: Vec<Lost>) {
        pen.lost.extend(lost.iter().map(|(disk, _)| *disk));
        self.lose(lost);
    }

    /// Copies of a segment: as many as disks that the pool's layout must survive, and one.
    fn count(&self) -> usize {
        usize::from(self.pool.superblock().parity_shards) + 1
    }

    /// The disks that are there and haven't failed.
    fn usable<'l>(
        &'l self,
        lost: &'l BTreeSet<usize>,
    ) -> impl Iterator<Item = (usize, &'l dyn Disk)> {
        let disks = self.pool.disks().iter().enumerate();
        disks.filter(|(place, _)| !lost.contains(place)).filter_map(|(place, disk)| {
            let disk: Option<&dyn Disk> = disk.as_deref();
            Some((place, disk?))
        })
    }

    /// Makes files for a segment.
    fn make(&self, number: u64, lost: &BTreeSet<usize>) -> io::Result<(Prepared, Vec<Lost>)> {
        let usable: Vec<_> = self.usable(lost).collect();
        let volume = self.run.volume;
        // So that all disks share the work.
        let turn = number.wrapping_add(volume.0[0].into()) as usize % usable.len().max(1);
        let (before, from) = usable.split_at(turn);
        let there = from.iter().chain(before).copied();
        Prepared::make(there, self.count(), volume, number)
    }

    /// Does ahead what whoever writes would have to wait for: the next segment's files are made when
    /// the last one is half full, and much that isn't durable yet is made so, a flush or not.
    ///
    /// # Errors
    /// [`Error::Failed`], after which nothing more is written.
    pub(crate) fn tend(&self) -> Result<()> {
        let (next, unsynced) = self.with_pen(|_, pen| {
            let is_half_full = !pen.segments.is_empty() && pen.end > self.segment_size / 2;
            let next = (pen.next.is_none() && is_half_full).then(|| {
                pen.number += 1;
                (pen.number - 1, pen.lost.clone())
            });
            (next, pen.unsynced)
        })?;
        // Should it fail, whoever writes tries again, and tells of it.
        if let Some((number, lost)) = next
            && let Ok((files, lost)) = self.make(number, &lost)
        {
            let mut files = Some(files);
            let kept = self.with_pen(|_, pen| {
                self.lose_disks(pen, lost);
                // Numbers ascend: once a later one was taken this one is of no use.
                if pen.number == number + 1 && pen.next.is_none() {
                    pen.next = files.take();
                }
            });
            if let Some(files) = files {
                files.remove(self.pool.disks());
            }
            kept?;
        }
        if unsynced >= UNSYNCED { self.sync() } else { Ok(()) }
    }

    /// What comes next goes where no copy has failed.
    fn lose(&self, lost: Vec<Lost>) {
        if lost.is_empty() {
            return;
        }
        self.roll.store(true, Ordering::Release);
        let mut notices = locked(&self.notices);
        for (disk, why) in lost {
            if notices.len() < 100 {
                notices.push(format!("disk {disk} failed to take a volume's log: {why}"));
            }
        }
    }

    /// Waits for the pen, so that nothing is being written.
    fn with_pen<R>(&self, act: impl FnOnce(&mut Queue, &mut Pen) -> R) -> Result<R> {
        let mut queue = locked(&self.queue);
        loop {
            if let Some(why) = &queue.failed {
                return Err(Error::Failed(why.clone()));
            }
            if let Some(mut pen) = queue.pen.take() {
                let result = act(&mut queue, &mut pen);
                queue.pen = Some(pen);
                self.changed.notify_all();
                return Ok(result);
            }
            queue = self.wait(queue);
        }
    }

    /// Makes durable what calls that returned have appended. Whoever comes while others sync waits for
    /// the next sync, which serves all that wait.
    ///
    /// # Errors
    /// [`Error::Failed`], after which nothing more is written.
    pub(crate) fn sync(&self) -> Result<()> {
        let through = locked(&self.queue).applied;
        loop {
            let turn = self.with_pen(|queue, pen| {
                if queue.durable >= through {
                    return Some(None);
                }
                if queue.syncing {
                    return None;
                }
                queue.syncing = true;
                (pen.align, pen.unsynced) = (true, 0);
                Some(Some((queue.applied, std::mem::take(&mut pen.dirty))))
            })?;
            let (target, dirty) = match turn {
                Some(None) => return Ok(()),
                Some(Some(turn)) => turn,
                None => {
                    let mut queue = locked(&self.queue);
                    while queue.syncing {
                        queue = self.wait(queue);
                    }
                    continue;
                }
            };
            let mut failed = None;
            let mut lost = Vec::new();
            for segment in &dirty {
                match segment.sync() {
                    Ok(some) => lost.extend(some),
                    Err(why) => failed = Some(format!("its log can't be made durable: {why}")),
                }
            }
            let disks: Vec<usize> = lost.iter().map(|(disk, _)| *disk).collect();
            self.lose(lost);
            {
                let mut queue = locked(&self.queue);
                queue.syncing = false;
                match failed {
                    None => queue.durable = queue.durable.max(target),
                    Some(why) => drop(queue.failed.get_or_insert(why)),
                }
                self.changed.notify_all();
            }
            if !disks.is_empty() {
                self.with_pen(|_, pen| pen.lost.extend(disks))?;
            }
        }
    }

    /// The next record begins a segment.
    pub(crate) fn roll(&self) -> Result<()> {
        self.with_pen(|_, pen| {
            if !pen.segments.is_empty() {
                self.roll.store(true, Ordering::Release);
            }
        })
    }

    /// Removes the segments in which all is settled, up to that sequence number.
    pub(crate) fn forget(&self, through: u64) -> Result<()> {
        let gone = self.with_pen(|queue, pen| {
            queue.durable = queue.durable.max(through);
            let count = pen.segments.iter().take_while(|one| one.last <= through).count();
            let gone: Vec<Written> = pen.segments.drain(..count).collect();
            pen.dirty.retain(|dirty| !gone.iter().any(|one| Arc::ptr_eq(dirty, &one.segment)));
            let records = gone.iter().map(|one| one.records).sum();
            self.records.fetch_sub(records, Ordering::Relaxed);
            let bytes = gone.iter().map(|one| one.bytes).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            gone
        })?;
        gone.iter().for_each(|one| one.segment.remove(self.pool.disks()));
        Ok(())
    }

    /// How many copies the newest segment has; `None` without one.
    pub(crate) fn copies(&self) -> Option<usize> {
        let copies = self.with_pen(|_, pen| pen.segments.last().map(|last| last.segment.copies()));
        copies.ok().flatten()
    }

    /// Nothing more is written.
    pub(crate) fn end(&self) {
        let ahead = {
            let mut queue = locked(&self.queue);
            queue.failed.get_or_insert_with(|| "it was closed".into());
            queue.pen.as_mut().and_then(|pen| pen.next.take())
        };
        self.changed.notify_all();
        // What was made ahead would look like a log.
        if let Some(files) = ahead {
            files.remove(self.pool.disks());
        }
    }
}
