//! SCSI commands as tasks of iSCSI: what is known of one, how it is done, and how it is answered
//! (RFC 7143 sections 11.3, 11.4 and 11.7).

use std::sync::Arc;

use super::batch::{Batch, Stamp};
use super::link::Link;
use crate::pdu::{Header, NO_TAG, Response};
use crate::scsi::{Denied, Nexus, Operation, Range, Sense};

/// Bytes of answers that are sent before more are made.
pub(crate) const ENOUGH: usize = 256 << 10;
/// Bytes of data that a PDU brings at most, also to initiators that would take more.
pub(crate) const PIECE: usize = 256 << 10;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const RESERVATION_CONFLICT: u8 = 0x18;
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;

/// What is known of a task.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) tag: u32,
    pub(crate) lun: [u8; 8],
    /// Bytes that the initiator expects to get.
    pub(crate) wants_in: u32,
    /// Bytes that it expects to send.
    pub(crate) wants_out: u32,
    /// It came outside of the window.
    pub(crate) is_immediate: bool,
    pub(crate) nexus: Option<Arc<Nexus>>,
    /// The nexus's when it came: it is another when all its tasks were aborted.
    pub(crate) epoch: u64,
    /// Times that it was asked to send.
    pub(crate) asked: u32,
}

impl Task {
    /// Of a command, with its additional headers.
    pub(crate) fn of(header: &Header, additional: &[u8], nexus: Option<Arc<Nexus>>) -> Self {
        let (flags, expected) = (header.flags(), header.word(20));
        let (reads, writes) = (flags & 0x40 != 0, flags & 0x20 != 0);
        Self {
            tag: header.task(),
            lun: header.lun_bytes(),
            wants_in: match (reads, writes) {
                (true, true) => bidirectional(additional),
                (true, false) => expected,
                (false, _) => 0,
            },
            wants_out: if writes { expected } else { 0 },
            is_immediate: header.is_immediate(),
            epoch: nexus.as_ref().map_or(0, |nexus| nexus.epoch()),
            nexus,
            asked: 0,
        }
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.nexus.as_ref().is_some_and(|nexus| nexus.epoch() != self.epoch)
    }

    fn stamp(&self) -> Stamp {
        Stamp::Status { completes: !self.is_immediate }
    }

    /// Does an operation and adds its answer; long ones are sent in between. A task that was aborted
    /// meanwhile gets none.
    pub(crate) fn perform(
        &self,
        operation: &Operation,
        data: &[u8],
        link: &Link,
        batch: &mut Batch,
    ) {
        if self.is_aborted() {
            return self.end_silently(link);
        }
        let place = batch.place();
        let Some(nexus) = &self.nexus else {
            let Operation::Answer(bytes) = operation else { return };
            return self.send_bytes(bytes, link, batch);
        };
        let done = match operation {
            Operation::Read { range, flush } => self.read(nexus, *range, *flush, link, batch),
            Operation::Answer(bytes) => {
                self.send_bytes(bytes, link, batch);
                Ok(())
            }
            _ => nexus.perform(operation, data).map(|bytes| {
                let block = nexus.unit().device().geometry().block;
                match bytes.is_empty() && operation.data_out(block) > 0 {
                    true => self.good_out(operation.data_out(block), link, batch),
                    false => self.send_bytes(&bytes, link, batch),
                }
            }),
        };
        if self.is_aborted() {
            batch.back_to(place);
            self.end_silently(link);
            return;
        }
        if let Err(denied) = done {
            self.deny(denied, link, batch);
        }
    }

    /// It ends without an answer.
    pub(crate) fn end_silently(&self, link: &Link) {
        if !self.is_immediate {
            link.complete();
        }
    }

    fn read(
        &self,
        nexus: &Nexus,
        range: Range,
        flush: bool,
        link: &Link,
        batch: &mut Batch,
    ) -> Result<(), Denied> {
        if flush {
            nexus.flush()?;
        }
        let length = usize::try_from(range.length).unwrap_or(usize::MAX);
        let wanted = length.min(self.wants_in as usize);
        let block = nexus.unit().device().geometry().block.max(1) as usize;
        let piece = link.most_data_in().min(link.parameters.max_burst as usize);
        let pieces_are_blocks = link.most_data_in().is_multiple_of(block)
            && (link.parameters.max_burst as usize).is_multiple_of(block)
            && wanted.is_multiple_of(block);
        let whole = wanted.next_multiple_of(block).min(length);
        let step = if pieces_are_blocks { piece } else { PIECE };
        let touched = Range { length: whole as u64, ..range };
        let _entered = nexus.unit().in_steps(touched, step as u64, || self.is_aborted());
        if pieces_are_blocks {
            return self.send(length, link, batch, |at, place| {
                nexus.read(range.offset + at as u64, place)
            });
        }
        // Blocks are read ahead of the pieces that they are sent in.
        let (mut window, mut from) = (Vec::new(), 0);
        self.send(length, link, batch, |mut at, mut place| {
            while !place.is_empty() {
                if !(from..from + window.len()).contains(&at) {
                    from = at / block * block;
                    window.resize(PIECE.min(whole - from), 0);
                    nexus.read(range.offset + from as u64, &mut window)?;
                }
                let there = window.get(at - from..).unwrap_or_default();
                let (now, later) = place.split_at_mut(there.len().min(place.len()));
                now.copy_from_slice(there.get(..now.len()).unwrap_or_default());
                at += now.len();
                place = later;
            }
            Ok::<(), Sense>(())
        })
    }

    fn send_bytes(&self, bytes: &[u8], link: &Link, batch: &mut Batch) {
        self.send_bytes_of(bytes.len(), bytes, link, batch);
    }

    fn send_bytes_of(&self, length: usize, bytes: &[u8], link: &Link, batch: &mut Batch) {
        let copy = |at: usize, place: &mut [u8]| {
            let from = bytes.get(at..at + place.len()).unwrap_or_default();
            place.get_mut(..from.len()).unwrap_or_default().copy_from_slice(from);
            Ok::<(), Denied>(())
        };
        let Ok(()) = self.send(length, link, batch, copy) else { return };
    }

    /// Sends so many bytes, or as many as are wanted, and the good status with the last of them.
    fn send<E: Into<Denied>>(
        &self,
        length: usize,
        link: &Link,
        batch: &mut Batch,
        mut fill: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), Denied> {
        let total = length.min(self.wants_in as usize);
        if total == 0 {
            let residual = residual(self.wants_in.into(), length as u64);
            self.respond(GOOD, &[], residual, 0, link, batch);
            return Ok(());
        }
        let most = link.most_data_in();
        let burst = link.parameters.max_burst as usize;
        let place = batch.place();
        let (mut at, mut in_burst, mut number, mut was_sent) = (0, 0, 0_u32, false);
        while at < total {
            let piece = most.min(total - at).min(burst - in_burst);
            let is_last = at + piece == total;
            in_burst += piece;
            let ends_burst = is_last || in_burst == burst;
            let mut header = Header::answer(Response::DataIn);
            let mut flags = if ends_burst { 0x80 } else { 0 };
            if is_last {
                let (residual_flags, count) = residual(self.wants_in.into(), length as u64);
                flags |= 0x01 | residual_flags;
                header.set_word(44, count);
            }
            header.set_flags(flags);
            header.set_bytes(8, &self.lun);
            header.set_word(16, self.tag);
            header.set_word(20, NO_TAG);
            header.set_word(36, number);
            header.set_word(40, u32::try_from(at).unwrap_or(u32::MAX));
            let stamp = if is_last { self.stamp() } else { Stamp::Data };
            let filled = batch.fill(&link.framing, header, stamp, piece, |bytes| fill(at, bytes));
            if let Err(error) = filled {
                if !was_sent {
                    batch.back_to(place);
                }
                return Err(error.into());
            }
            number = number.wrapping_add(1);
            at += piece;
            in_burst %= burst;
            if self.is_aborted() {
                // Nobody hears of the rest: `perform` takes back what is there.
                return Ok(());
            }
            if batch.len() >= ENOUGH && !is_last {
                link.send(batch);
                was_sent = true;
            }
        }
        Ok(())
    }

    fn good_out(&self, needed: usize, link: &Link, batch: &mut Batch) {
        let residual = residual(self.wants_out.into(), needed as u64);
        self.respond(GOOD, &[], residual, self.asked, link, batch);
    }

    /// It is not done.
    pub(crate) fn deny(&self, denied: Denied, link: &Link, batch: &mut Batch) {
        match denied {
            Denied::Conflict => {
                let residual = residual(self.expected().into(), 0);
                self.respond(RESERVATION_CONFLICT, &[], residual, self.asked, link, batch);
            }
            Denied::Check(sense) => self.check(&sense, link, batch),
        }
    }

    fn expected(&self) -> u32 {
        self.wants_in.max(self.wants_out)
    }

    fn check(&self, sense: &Sense, link: &Link, batch: &mut Batch) {
        let descriptors = self.nexus.as_ref().is_some_and(|nexus| nexus.wants_descriptors());
        let sense = sense.encode(descriptors);
        let mut data = u16::try_from(sense.len()).unwrap_or(0).to_be_bytes().to_vec();
        data.extend(sense);
        let residual = residual(self.expected().into(), 0);
        self.respond(CHECK_CONDITION, &data, residual, self.asked, link, batch);
    }

    /// There is no room for its data now; the initiator tries again, once another of its tasks has ended, or
    /// when it likes if there is none.
    pub(crate) fn put_off(&self, is_alone: bool, link: &Link, batch: &mut Batch) {
        let residual = residual(self.expected().into(), 0);
        let status = if is_alone { BUSY } else { TASK_SET_FULL };
        self.respond(status, &[], residual, 0, link, batch);
    }

    fn respond(
        &self,
        status: u8,
        data: &[u8],
        residual: (u8, u32),
        expected_data: u32,
        link: &Link,
        batch: &mut Batch,
    ) {
        let mut header = Header::answer(Response::ScsiResponse);
        header.set_flags(0x80 | residual.0);
        header.set_bytes(3, &[status]);
        header.set_word(16, self.tag);
        header.set_word(36, expected_data);
        header.set_word(44, residual.1);
        batch.add(&link.framing, header, self.stamp(), data);
    }
}

/// The flags and the count of a residual (RFC 7143 section 11.4.5.1).
fn residual(expected: u64, moved: u64) -> (u8, u32) {
    let count = u32::try_from(expected.abs_diff(moved)).unwrap_or(u32::MAX);
    match expected.cmp(&moved) {
        std::cmp::Ordering::Less => (0x04, count),
        std::cmp::Ordering::Equal => (0, 0),
        std::cmp::Ordering::Greater => (0x02, count),
    }
}

/// The length of a bidirectional read, of an additional header (RFC 7143 section 11.2.2.4).
fn bidirectional(mut additional: &[u8]) -> u32 {
    while let [high, low, kind, rest @ ..] = additional {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if let (2, [_, a, b, c, d, ..]) = (*kind, rest) {
            return u32::from_be_bytes([*a, *b, *c, *d]);
        }
        // The length counts the byte behind the kind; each header fills its last word.
        additional = rest.get(length.next_multiple_of(4).max(1)..).unwrap_or_default();
    }
    0
}
