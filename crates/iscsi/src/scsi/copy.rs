//! EXTENDED COPY and RECEIVE COPY RESULTS (SPC-4 6.3 and 6.24, with list identifiers of one byte): blocks of
//! a unit are copied to another place of the same unit, without going to the initiator and back.

use std::sync::Mutex;

use strongroom_block::{BlockDevice, Durability, Zeroing};

use super::inquiry;
use super::nexus::Nexus;
use super::operation::Range;
use super::sense::{Key, Sense};
use super::unit::locked;

/// Target descriptors of one command.
const MOST_TARGETS: u16 = 2;
/// Segment descriptors.
const MOST_SEGMENTS: u16 = 16;
/// Bytes of both.
const MOST_DESCRIPTORS: u32 = 1024;
/// Bytes of all parameters.
pub(super) const LONGEST: u32 = HEADER as u32 + MOST_DESCRIPTORS + 256;
/// Bytes that are copied at once.
const PIECE: u64 = 256 << 10;
/// Results that are kept for each initiator.
const MOST_RESULTS: usize = 16;

const HEADER: usize = 16;
const TARGET: usize = 32;
const SEGMENT: usize = 28;
/// The types that are known: a target by its identification, a segment from blocks to blocks.
const BY_IDENTIFICATION: u8 = 0xe4;
const BLOCKS_TO_BLOCKS: u8 = 0x02;

/// What became of a copy.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    list: u8,
    is_good: bool,
    segments: u16,
    bytes: u64,
}

/// What became of an initiator's last copies.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Mutex<Vec<Outcome>>);

impl Outcomes {
    fn note(&self, outcome: Outcome) {
        let mut kept = locked(&self.0);
        kept.retain(|one| one.list != outcome.list);
        if kept.len() == MOST_RESULTS {
            kept.remove(0);
        }
        kept.push(outcome);
    }

    /// Answers RECEIVE COPY STATUS; `None` when nothing is known of that list.
    pub(super) fn status(&self, list: u8) -> Option<Vec<u8>> {
        let kept = locked(&self.0);
        let outcome = kept.iter().find(|one| one.list == list)?;
        let mut bytes = vec![0, 0, 0, 8, if outcome.is_good { 1 } else { 2 }];
        bytes.extend_from_slice(&outcome.segments.to_be_bytes());
        // In KiB.
        bytes.push(1);
        let kibibytes = u32::try_from(outcome.bytes >> 10).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&kibibytes.to_be_bytes());
        Some(bytes)
    }
}

/// Answers RECEIVE COPY OPERATING PARAMETERS.
pub(super) fn parameters(block: u32) -> Vec<u8> {
    let mut bytes = vec![0; 44];
    let mut set = |at: usize, value: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    };
    set(3, &[42]);
    // SNLID: commands without a list identifier are taken.
    set(4, &[1]);
    set(8, &MOST_TARGETS.to_be_bytes());
    set(10, &MOST_SEGMENTS.to_be_bytes());
    set(12, &MOST_DESCRIPTORS.to_be_bytes());
    set(16, &(u32::from(u16::MAX).saturating_mul(block)).to_be_bytes());
    set(34, &[0, 1, 1, u8::try_from(block.max(1).ilog2()).unwrap_or(9)]);
    set(43, &[2]);
    bytes.extend_from_slice(&[BLOCKS_TO_BLOCKS, BY_IDENTIFICATION]);
    bytes
}

/// A segment that was checked.
#[derive(Debug)]
struct Segment {
    from: Range,
    to: u64,
}

/// The copy ended with that segment: for a device that failed (THIRD PARTY DEVICE FAILURE), a target that
/// isn't named (UNREACHABLE COPY TARGET), or blocks that aren't there.
fn failed(code: (u8, u8), segment: usize) -> Sense {
    Sense::new(Key::CopyAborted, code.0, code.1).about(segment as u64)
}

impl Nexus {
    /// Does an EXTENDED COPY.
    ///
    /// # Errors
    /// As sense data; segments before the one that failed are copied.
    pub(super) fn copy(&self, device: &dyn BlockDevice, data: &[u8]) -> Result<(), Sense> {
        if data.is_empty() {
            return Ok(());
        }
        let (header, rest) = data.split_first_chunk::<HEADER>().ok_or(Sense::LIST_LENGTH)?;
        let targets = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let [.., a, b, c, d, _, _, _, _] = *header;
        let segments = u32::from_be_bytes([a, b, c, d]) as usize;
        if targets.saturating_add(segments) > MOST_DESCRIPTORS as usize {
            return Err(Sense::LIST_LENGTH);
        }
        let (targets, rest) = rest.split_at_checked(targets).ok_or(Sense::LIST_LENGTH)?;
        let segments = rest.get(..segments).ok_or(Sense::LIST_LENGTH)?;
        let targets = self.targets(targets)?;
        let segments = self.segments(segments, device, targets)?;
        let [list, flags, ..] = *header;
        let mut outcome = Outcome { list, ..Outcome::default() };
        let epoch = self.epoch();
        let mut result = Ok(());
        for segment in &segments {
            result = segment.copy(device, || self.epoch() != epoch);
            if result.is_err() {
                break;
            }
            outcome.segments += 1;
            outcome.bytes += segment.from.length;
        }
        outcome.is_good = result.is_ok();
        // LIST ID USAGE 11b: there is no list identifier.
        if flags >> 3 & 3 != 3 {
            self.outcomes().note(outcome);
        }
        result.map_err(|_| failed((0x0d, 0x01), usize::from(outcome.segments)))
    }

    /// How many targets there are: each has to be this unit.
    fn targets(&self, bytes: &[u8]) -> Result<usize, Sense> {
        let (targets, rest) = bytes.as_chunks::<TARGET>();
        if !rest.is_empty() {
            return Err(Sense::LIST_LENGTH);
        }
        if targets.len() > usize::from(MOST_TARGETS) {
            return Err(Sense::TOO_MANY_TARGETS);
        }
        let own = inquiry::designators(self.unit().identity(), self.unit().device().id());
        for target in targets {
            let [kind, _, _, _, set, designator, _, length, named @ ..] = target;
            if *kind != BY_IDENTIFICATION {
                return Err(Sense::UNSUPPORTED_TARGET);
            }
            let named = named.get(..usize::from(*length).min(20)).unwrap_or_default();
            let is_own = own.iter().any(|(own_set, own_kind, value)| {
                (*own_set, *own_kind) == (set & 0x0f, designator & 0x3f)
                    && value.get(..20.min(value.len())) == Some(named)
            });
            if !is_own {
                // COPY TARGET DEVICE NOT REACHABLE.
                return Err(Sense::new(Key::CopyAborted, 0x0d, 0x02));
            }
        }
        Ok(targets.len())
    }

    fn segments(
        &self,
        mut bytes: &[u8],
        device: &dyn BlockDevice,
        targets: usize,
    ) -> Result<Vec<Segment>, Sense> {
        let geometry = device.geometry();
        let block = u64::from(geometry.block.max(1));
        let mut segments = Vec::new();
        while !bytes.is_empty() {
            if segments.len() == usize::from(MOST_SEGMENTS) {
                return Err(Sense::TOO_MANY_SEGMENTS);
            }
            let [kind, ..] = *bytes else { return Err(Sense::LIST_LENGTH) };
            if kind != BLOCKS_TO_BLOCKS {
                return Err(Sense::UNSUPPORTED_SEGMENT);
            }
            let (one, rest) = bytes.split_first_chunk::<SEGMENT>().ok_or(Sense::LIST_LENGTH)?;
            bytes = rest;
            let half = |at: usize| u64::from(super::word(one, at) >> 16);
            let long = |at: usize| {
                u64::from(super::word(one, at)) << 32 | u64::from(super::word(one, at + 4))
            };
            let is_known = |index: u64| index < targets as u64;
            let (blocks, from, to) = (half(10), long(12), long(20));
            let fits = |first: u64| {
                first.checked_add(blocks).is_some_and(|end| end <= geometry.size / block)
            };
            if !is_known(half(4)) || !is_known(half(6)) {
                return Err(failed((0x08, 0x04), segments.len()));
            }
            if !fits(from) || !fits(to) {
                return Err(failed((0, 0), segments.len()));
            }
            let from = Range { offset: from * block, length: blocks * block };
            segments.push(Segment { from, to: to * block });
        }
        Ok(segments)
    }
}

impl Segment {
    fn copy(&self, device: &dyn BlockDevice, is_aborted: impl Fn() -> bool) -> Result<(), Sense> {
        let mut buffer = vec![0; usize::try_from(PIECE.min(self.from.length)).unwrap_or(0)];
        let mut done = 0;
        while done < self.from.length && !is_aborted() {
            let length = PIECE.min(self.from.length - done);
            let piece = buffer.get_mut(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
            device.read_at(self.from.offset + done, piece)?;
            let to = self.to + done;
            match piece.iter().all(|byte| *byte == 0) {
                // Holes stay holes.
                true => device.write_zeroes(to, length, Zeroing::MayUnmap, Durability::Later)?,
                false => device.write_at(to, piece, Durability::Later)?,
            }
            done += length;
        }
        Ok(())
    }
}
