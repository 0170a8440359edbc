//! SCSI commands as they come: unsolicited data, data that are asked for, and where a command is done.

use std::sync::Arc;

use super::batch::{Batch, Stamp};
use super::input::{self, Got};
use super::task::{ENOUGH, Task};
use super::{Connection, End};
use crate::memory::Buffer;
use crate::pdu::{Header, Lun, NO_TAG, Reason, Response, Shape};
use crate::scsi::{Denied, Operation, Sense, begin_without_unit};

/// Tasks that wait for data.
const MOST_TASKS: usize = 2 * super::link::WINDOW as usize;
/// Buffers that are kept to be used again.
const SPARE: usize = 8;
/// And their length at most.
const SPARE_BYTES: usize = 1 << 20;
/// A device that takes longer than this on the average keeps no connection waiting: nanoseconds.
const SLOW: u64 = 60_000;

/// A command that waits for its data.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) task: Task,
    operation: Operation,
    /// At least as long as what is expected.
    buffer: Buffer,
    /// Bytes that the command needs.
    expected: usize,
    /// Bytes that came: data come in order.
    received: usize,
    /// Where the sequence ends that is coming.
    until: usize,
    /// The number of its next PDU.
    next: u32,
    /// The tag by which it was asked for; [`NO_TAG`] while data come unasked.
    tag: u32,
    /// Something was wrong: the rest is taken, and thrown away.
    failed: Option<Sense>,
}

impl Connection {
    /// Takes a command, or puts it behind one that is to come after all before it (SAM-5 8.3, ORDERED).
    pub(super) fn command_in_order(
        &mut self,
        header: &Header,
        additional: &[u8],
        data: &[u8],
    ) -> Result<(), End> {
        const ORDERED: u8 = 2;
        let is_ordered = header.flags() & 7 == ORDERED;
        if !self.deferred.is_empty() || is_ordered && !self.tasks.is_empty() {
            if self.deferred.len() >= MOST_TASKS {
                self.reject(header, Reason::LongOperationReject);
                return Ok(());
            }
            // No command that is known here has additional headers that matter.
            match self.buffer(data.len(), 0) {
                Some(mut buffer) => {
                    buffer.begin_with(data);
                    self.deferred.push_back((*header, buffer));
                }
                None => self.put_off(&Task::of(header, &[], None)),
            }
            return Ok(());
        }
        if is_ordered {
            self.jobs.wait();
        }
        self.command(header, additional, data, is_ordered)
    }

    /// Takes those that were put behind, as far as nothing is before them.
    pub(super) fn take_deferred(&mut self) -> Result<(), End> {
        while self.tasks.is_empty() {
            let Some((header, data)) = self.deferred.pop_front() else { break };
            let deferred = std::mem::take(&mut self.deferred);
            let taken = self.command_in_order(&header, &[], data.first(data.len()));
            self.deferred.extend(deferred);
            taken?;
            if self.batch.len() >= ENOUGH {
                self.flush();
            }
        }
        Ok(())
    }

    fn command(
        &mut self,
        header: &Header,
        additional: &[u8],
        data: &[u8],
        is_ordered: bool,
    ) -> Result<(), End> {
        let (flags, expected) = (header.flags(), header.word(20));
        let (is_final, writes) = (flags & 0x80 != 0, flags & 0x20 != 0);
        let tag = header.task();
        if self.tasks.contains_key(&tag) || self.jobs.has(tag) {
            self.reject(header, Reason::TaskInProgress);
            return Ok(());
        }
        let parameters = self.link().parameters;
        let has_unasked = !data.is_empty() || !is_final;
        let is_allowed = tag != NO_TAG
            && (data.is_empty() || writes && parameters.immediate_data)
            && (is_final || writes && !parameters.initial_r2t);
        if !is_allowed || self.tasks.len() >= MOST_TASKS || self.jobs.is_full() {
            let reason =
                if is_allowed { Reason::LongOperationReject } else { Reason::InvalidPduField };
            self.reject(header, reason);
            return Ok(());
        }
        let lun = Lun::read(header.lun_bytes());
        let nexus = lun.and_then(|lun| self.nexus(lun));
        let task = Task::of(header, additional, nexus);
        let target = self.target.clone();
        let luns = || {
            let luns = target.iter().flat_map(|target| target.luns());
            luns.filter_map(Lun::new).map(Lun::write).collect()
        };
        let first_burst = (parameters.first_burst as usize).min(expected as usize);
        let begun = match &task.nexus {
            _ if has_unasked && data.len() > first_burst => {
                Err(Denied::Check(Sense::TOO_MUCH_DATA))
            }
            Some(nexus) => nexus.begin(&header.cdb(), luns),
            None => begin_without_unit(&header.cdb(), luns),
        };
        let operation = match begun {
            Ok(operation) => operation,
            Err(denied) => {
                // Data that still come unasked belong to no task, and are thrown away.
                task.deny(denied, &self.session.link, &mut self.batch);
                return Ok(());
            }
        };
        let block = task.nexus.as_ref().map_or(512, |nexus| nexus.unit().device().geometry().block);
        let needed = operation.data_out(block);
        if operation.is_exact() && needed != task.wants_out as usize {
            let denied = Denied::Check(Sense::invalid_field(1));
            task.deny(denied, &self.session.link, &mut self.batch);
            return Ok(());
        }
        let expected = needed.min(task.wants_out as usize);
        if data.len() >= expected {
            let data = data.get(..expected).unwrap_or_default();
            self.perform(task, operation, Data::Lent(data), is_ordered);
            return Ok(());
        }
        let Some(mut buffer) = self.buffer(expected, operation.memory()) else {
            self.put_off(&task);
            return Ok(());
        };
        buffer.begin_with(data);
        let until = if is_final { data.len() } else { first_burst };
        let mut assembly = Assembly {
            task,
            operation,
            buffer,
            expected,
            received: data.len(),
            until,
            next: 0,
            tag: NO_TAG,
            failed: None,
        };
        if is_final {
            self.ask_for_data(&mut assembly);
        }
        self.tasks.insert(tag, assembly);
        Ok(())
    }

    /// A buffer of at least that length, and so many bytes of memory beside it; `None` when there is none.
    fn buffer(&mut self, length: usize, beside: usize) -> Option<Buffer> {
        // One of another command, unless that was much longer.
        let fits = |spare: &Buffer| (length..=2 * length).contains(&spare.len());
        if beside == 0
            && let Some(found) = self.spare.iter().position(fits)
        {
            return Some(self.spare.swap_remove(found));
        }
        self.share.buffer(length, beside).or_else(|| {
            self.spare.clear();
            self.share.buffer(length, beside)
        })
    }

    /// There is no memory for a command now; the initiator tries again.
    fn put_off(&mut self, task: &Task) {
        let is_alone = self.tasks.is_empty() && self.deferred.is_empty() && self.jobs.is_empty();
        task.put_off(is_alone, &self.session.link, &mut self.batch);
    }

    /// Asks for the next sequence of data (RFC 7143 section 11.8).
    fn ask_for_data(&mut self, assembly: &mut Assembly) {
        let most = self.link().parameters.max_burst as usize;
        let length = (assembly.expected - assembly.received).min(most);
        assembly.tag = self.new_tag();
        assembly.until = assembly.received + length;
        assembly.next = 0;
        let mut header = Header::answer(Response::ReadyToTransfer);
        header.set_bytes(8, &assembly.task.lun);
        header.set_word(16, assembly.task.tag);
        header.set_word(20, assembly.tag);
        header.set_word(36, assembly.task.asked);
        header.set_word(40, u32::try_from(assembly.received).unwrap_or(u32::MAX));
        header.set_word(44, u32::try_from(length).unwrap_or(u32::MAX));
        assembly.task.asked = assembly.task.asked.wrapping_add(1);
        self.batch.add(&self.session.link.framing, header, Stamp::Next, &[]);
    }

    /// Takes data of a command: its headers are there, its data are read to where they belong.
    pub(super) fn data_out(&mut self, header: &Header, shape: &Shape) -> Result<(), End> {
        self.input.skip(shape.data_at);
        // What belongs to no task was sent for one that has ended.
        let mut assembly = self.tasks.remove(&header.task());
        let mut elsewhere = Vec::new();
        let place = match &mut assembly {
            Some(assembly) => assembly.place(header),
            None => None,
        };
        let framing = self.session.link.framing;
        let mut behind = [0; 8];
        let behind = behind.get_mut(..shape.behind).unwrap_or_default();
        let place = match place {
            Some(place) => place,
            None => {
                elsewhere.resize(shape.data, 0);
                &mut elsewhere[..]
            }
        };
        // The part that is needed, and what was sent beyond it.
        let kept = place.len().min(shape.data);
        let (now, _) = place.split_at_mut(kept);
        let mut beyond = vec![0; shape.data - kept];
        self.read_to(now)?;
        self.read_to(&mut beyond)?;
        self.read_to(behind)?;
        let checked = match beyond.is_empty() {
            true => framing.check_data(now, behind),
            false => framing.check_data(&[&*now, &beyond[..]].concat(), behind),
        };
        if let Err(fault) = checked {
            self.reject(header, Reason::DataDigestError);
            return Err(fault.into());
        }
        let Some(mut assembly) = assembly else { return Ok(()) };
        assembly.received = (assembly.received + shape.data).min(assembly.until);
        assembly.next = assembly.next.wrapping_add(1);
        if assembly.task.is_aborted() {
            assembly.task.end_silently(&self.session.link);
            return self.take_deferred();
        }
        if !header.is_final() {
            self.tasks.insert(header.task(), assembly);
            return Ok(());
        }
        let is_short = assembly.received < assembly.until.min(assembly.expected);
        if assembly.failed.is_none() && assembly.tag != NO_TAG && is_short {
            assembly.failed = Some(Sense::TOO_LITTLE_DATA);
        }
        if assembly.failed.is_none() && assembly.received < assembly.expected {
            self.ask_for_data(&mut assembly);
            self.tasks.insert(header.task(), assembly);
            return Ok(());
        }
        let Assembly { task, operation, buffer, expected, failed, .. } = assembly;
        match failed {
            Some(sense) => task.deny(Denied::Check(sense), &self.session.link, &mut self.batch),
            None => self.perform(task, operation, Data::Own(buffer, expected), false),
        }
        self.take_deferred()
    }

    /// Fills a place from what was read and then from the stream itself.
    fn read_to(&mut self, mut place: &mut [u8]) -> Result<(), End> {
        let count = self.input.give(place);
        place = place.get_mut(count..).unwrap_or_default();
        while !place.is_empty() {
            // A PDU of which little is missing is read with those behind it.
            let got = match place.len() < 16 << 10 {
                true => {
                    self.want(1)?;
                    self.input.give(place)
                }
                false => {
                    self.flush();
                    let (got, count) = input::read(&mut &self.session.link.stream, place);
                    match got {
                        Got::More => self.questions = 0,
                        Got::End => return Err(End::Gone),
                        Got::Nothing => return Err(End::Silent),
                    }
                    count
                }
            };
            place = place.get_mut(got..).unwrap_or_default();
        }
        Ok(())
    }

    /// Does a command here, or has a worker do it when it would keep the connection waiting.
    fn perform(&mut self, task: Task, operation: Operation, data: Data<'_>, is_ordered: bool) {
        let is_slow = task.nexus.as_ref().is_some_and(|nexus| nexus.unit().pace() > SLOW);
        let is_here = is_ordered || operation.is_quick() && !is_slow;
        let copy = match &data {
            Data::Lent(bytes) if !is_here => self.buffer(bytes.len(), 0),
            _ => None,
        };
        let (buffer, length) = match (data, copy) {
            (Data::Own(buffer, length), _) if !is_here => (buffer, length),
            (Data::Lent(bytes), Some(mut buffer)) => {
                buffer.begin_with(bytes);
                (buffer, bytes.len())
            }
            // Also where there is no room for a copy: then the connection waits for it.
            (data, _) => return self.perform_here(&task, &operation, data),
        };
        let (session, jobs) = (Arc::clone(&self.session), Arc::clone(&self.jobs));
        jobs.begin(task.tag);
        self.hall.workers.run(Box::new(move || {
            let _ended = Ended(&jobs, task.tag);
            let mut batch = Batch::default();
            task.perform(&operation, buffer.first(length), &session.link, &mut batch);
            // Who has the answer may send as much again.
            drop(buffer);
            match jobs.answer(task.tag) {
                true => session.link.send(&mut batch),
                // An answer that isn't sent makes room for no command by itself.
                false if !batch.is_empty() => task.end_silently(&session.link),
                false => {}
            }
        }));
    }

    fn perform_here(&mut self, task: &Task, operation: &Operation, data: Data<'_>) {
        task.perform(operation, data.bytes(), &self.session.link, &mut self.batch);
        if let Data::Own(buffer, _) = data
            && buffer.is_worth_keeping(SPARE_BYTES)
        {
            // Else those of other lengths would stay for good.
            if self.spare.len() == SPARE {
                self.spare.remove(0);
            }
            self.spare.push(buffer);
        }
    }
}

/// A job has ended, however it did.
struct Ended<'a>(&'a super::jobs::Jobs, u32);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

/// Data of a command.
enum Data<'a> {
    /// They came with it, and lie where they were read.
    Lent(&'a [u8]),
    /// They were gathered, so many of them.
    Own(Buffer, usize),
}

impl Data<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(data) => data,
            Self::Own(buffer, length) => buffer.first(*length),
        }
    }
}

impl Assembly {
    /// Where the data of this PDU belong; `None` when they are thrown away.
    fn place(&mut self, header: &Header) -> Option<&mut [u8]> {
        let (offset, length) = (header.word(40) as usize, header.data_length());
        let is_next =
            header.word(20) == self.tag && header.word(36) == self.next && offset == self.received;
        if !is_next {
            self.failed.get_or_insert(Sense::DATA_PHASE);
        } else if length > self.until - self.received {
            self.failed.get_or_insert(Sense::TOO_MUCH_DATA);
        }
        if self.failed.is_some() {
            return None;
        }
        // What is sent unasked may be more than the command needs.
        let end = self.expected.min(offset + length).max(offset.min(self.expected));
        self.buffer.part(offset.min(self.expected), end)
    }
}
