//! What operations do to the device.

use std::time::Instant;

use strongroom_block::{Content, Durability, Zeroing};

use super::mode;
use super::nexus::Nexus;
use super::operation::{Compare, MOST_DESCRIPTORS, Operation, Range};
use super::reservations::{Change, Denied};
use super::sense::{Attention, Key, Sense};
use super::unit::locked;

/// Bytes that are read or filled at once.
const PIECE: usize = 256 << 10;

/// GET LBA STATUS tells of so many extents at most.
const MOST_EXTENTS: usize = 4096;

fn durability(durable: bool) -> Durability {
    if durable { Durability::Now } else { Durability::Later }
}

impl Nexus {
    /// Reads a piece of what a [`Operation::Read`] reads: whole blocks.
    ///
    /// # Errors
    /// As sense data.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Sense> {
        let _in_use = self.unit().begin_use();
        self.check_present()?;
        let begun = Instant::now();
        self.unit().device().read_at(offset, buffer)?;
        self.unit().note_pace(begun.elapsed(), buffer.len());
        Ok(())
    }

    /// Makes durable what was written, before a read that asks for it.
    ///
    /// # Errors
    /// As sense data.
    pub fn flush(&self) -> Result<(), Sense> {
        let _in_use = self.unit().begin_use();
        self.check_present()?;
        Ok(self.unit().device().flush()?)
    }

    /// Does what is to be done, with the data that the initiator sent: as many as
    /// [`Operation::data_out`] says, or less when the initiator said so. What is answered is cut to what
    /// was asked for. [`Operation::Read`] is [`Nexus::read`]'s matter.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn perform(&self, operation: &Operation, data: &[u8]) -> Result<Vec<u8>, Denied> {
        let unit = self.unit();
        // It waits for those who use the device, so it isn't one of them.
        if let Operation::PersistentReserve { action, kind, .. } = operation {
            self.persistent_reserve(*action, *kind, data)?;
            return Ok(Vec::new());
        }
        let epoch = self.epoch();
        let _entered = unit.enter(operation, || self.epoch() != epoch);
        let _in_use = unit.begin_use();
        self.check_present()?;
        if self.epoch() != epoch {
            // It was aborted while it waited: nobody is told of what becomes of it.
            return Ok(Vec::new());
        }
        let device = unit.device();
        let block = device.geometry().block.max(1) as usize;
        let needed = operation.data_out(block as u32);
        let is_cut = data.len() < needed;
        let data = data.get(..needed.min(data.len())).unwrap_or_default();
        match operation {
            Operation::Answer(bytes) => return Ok(bytes.clone()),
            Operation::Read { .. } => {}
            Operation::Write { range, durable, verify } => {
                // What the initiator didn't want to send isn't written.
                let data = data.get(..data.len() / block * block).unwrap_or_default();
                let begun = Instant::now();
                device.write_at(range.offset, data, durability(*durable)).map_err(Sense::from)?;
                if !durable {
                    unit.note_pace(begun.elapsed(), data.len());
                }
                if let Some(compare) = verify {
                    let range = Range { length: data.len() as u64, ..*range };
                    self.verify(range, *compare, data, block)?;
                }
            }
            Operation::Verify { .. } if is_cut => return Err(Sense::invalid_field(1).into()),
            Operation::Verify { range, compare } => self.verify(*range, *compare, data, block)?,
            Operation::WriteSame { has_data: true, .. } if is_cut => {
                return Err(Sense::invalid_field(7).into());
            }
            Operation::WriteSame { range, unmap, .. } => self.write_same(*range, *unmap, data)?,
            Operation::CompareAndWrite { .. } | Operation::OrWrite { .. } if is_cut => {
                return Err(Sense::invalid_field(13).into());
            }
            Operation::WriteAtomic { .. } if is_cut => return Err(Sense::invalid_field(12).into()),
            Operation::WriteAtomic { range, durable } => {
                device.write_at(range.offset, data, durability(*durable)).map_err(Sense::from)?;
            }
            Operation::CompareAndWrite { range, durable } => {
                let (expected, new) = data.split_at(data.len() / 2);
                let differs = device
                    .compare_and_write(range.offset, expected, new, durability(*durable))
                    .map_err(Sense::from)?;
                if let Some(at) = differs {
                    return Err(Sense::MISCOMPARE.about(at).into());
                }
            }
            Operation::OrWrite { range, durable } => self.or_write(*range, *durable, data)?,
            Operation::Synchronize => device.flush().map_err(Sense::from)?,
            Operation::Unmap { .. } if is_cut => return Err(Sense::LIST_LENGTH.into()),
            Operation::Unmap { .. } => self.unmap(data)?,
            Operation::LbaStatus { range, allocation } => {
                return Ok(self.lba_status(*range, *allocation, block)?);
            }
            Operation::Copy { .. } if is_cut => return Err(Sense::LIST_LENGTH.into()),
            Operation::Copy { .. } => self.copy(device.as_ref(), data)?,
            Operation::ModeSelect { .. } if is_cut => return Err(Sense::LIST_LENGTH.into()),
            Operation::ModeSelect { is_long, .. } => {
                let mut shared = locked(&unit.shared);
                let mode = mode::select(data, *is_long, shared.mode)?;
                let is_new = std::mem::replace(&mut shared.mode, mode) != mode;
                drop(shared);
                if is_new {
                    unit.attend(Attention::ModeParametersChanged, Some(self.id()));
                }
            }
            Operation::PersistentReserve { .. } => {}
        }
        Ok(Vec::new())
    }

    fn verify(
        &self,
        range: Range,
        compare: Compare,
        data: &[u8],
        block: usize,
    ) -> Result<(), Sense> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(range.length).unwrap_or(PIECE))];
        let mut done = 0;
        while done < range.length {
            let left = usize::try_from(range.length - done).unwrap_or(usize::MAX);
            let length = left.min(buffer.len());
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.unit().device().read_at(range.offset + done, piece)?;
            let from = usize::try_from(done).unwrap_or(usize::MAX);
            let is_same = match compare {
                Compare::Nothing => true,
                Compare::All => data.get(from..from.saturating_add(length)) == Some(piece),
                Compare::OneBlock => piece.chunks(block).all(|one| one == data),
            };
            if !is_same {
                return Err(Sense::MISCOMPARE);
            }
            done += length as u64;
        }
        Ok(())
    }

    fn write_same(&self, range: Range, unmap: bool, pattern: &[u8]) -> Result<(), Sense> {
        let device = self.unit().device();
        if pattern.iter().all(|byte| *byte == 0) {
            let zeroing = if unmap { Zeroing::MayUnmap } else { Zeroing::Keep };
            device.write_zeroes(range.offset, range.length, zeroing, Durability::Later)?;
            return Ok(());
        }
        let most = usize::try_from(range.length).unwrap_or(usize::MAX);
        let repeated = pattern.repeat((PIECE.min(most) / pattern.len()).max(1));
        let (mut done, epoch) = (0, self.epoch());
        while done < range.length {
            if self.epoch() != epoch {
                // It was aborted: nobody is told of what becomes of it.
                return Ok(());
            }
            let left = usize::try_from(range.length - done).unwrap_or(usize::MAX);
            let piece = repeated.get(..left.min(repeated.len())).unwrap_or_default();
            device.write_at(range.offset + done, piece, Durability::Later)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Reads, and writes what is read and what came, again if another write came between (SBC-3 5.12
    /// asks that none does).
    fn or_write(&self, range: Range, durable: bool, data: &[u8]) -> Result<(), Sense> {
        let device = self.unit().device();
        let mut there = vec![0; data.len()];
        loop {
            device.read_at(range.offset, &mut there)?;
            let new: Vec<u8> = there.iter().zip(data).map(|(a, b)| a | b).collect();
            let durability = durability(durable);
            if device.compare_and_write(range.offset, &there, &new, durability)?.is_none() {
                return Ok(());
            }
        }
    }

    /// UNMAP's parameters (SBC-3 5.28): a header of 8 bytes, then ranges of 16 each.
    fn unmap(&self, data: &[u8]) -> Result<(), Sense> {
        let Some((header, list)) = data.split_first_chunk::<8>() else {
            return if data.is_empty() { Ok(()) } else { Err(Sense::LIST_LENGTH) };
        };
        let said = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let list = list.get(..said.min(list.len())).unwrap_or_default();
        let (ranges, _) = list.as_chunks::<16>();
        if ranges.len() > MOST_DESCRIPTORS as usize {
            return Err(Sense::invalid_parameter(2));
        }
        let geometry = self.unit().geometry();
        let block = u64::from(geometry.block.max(1));
        let mut checked = Vec::with_capacity(ranges.len());
        for [a, b, c, d, e, f, g, h, i, j, k, l, ..] in ranges {
            let first = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            let count = u64::from(u32::from_be_bytes([*i, *j, *k, *l]));
            let end = first.checked_add(count).ok_or(Sense::OUT_OF_RANGE)?;
            if end > geometry.size / block {
                return Err(Sense::OUT_OF_RANGE);
            }
            checked.push((first * block, count * block));
        }
        for (offset, length) in checked {
            self.unit().device().discard(offset, length)?;
        }
        Ok(())
    }

    fn lba_status(&self, range: Range, allocation: u32, block: usize) -> Result<Vec<u8>, Sense> {
        let most = (allocation as usize).saturating_sub(8).div_ceil(16).clamp(1, MOST_EXTENTS);
        let extents = self.unit().device().extents(range.offset, range.length, most)?;
        let mut bytes = vec![0; 8];
        for extent in extents {
            let mut first = extent.offset / block as u64;
            let mut left = extent.length / block as u64;
            let status = if extent.content == Content::Hole { 1 } else { 0 };
            while left > 0 {
                let count = u32::try_from(left).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&first.to_be_bytes());
                bytes.extend_from_slice(&count.to_be_bytes());
                bytes.extend_from_slice(&[status, 0, 0, 0]);
                first += u64::from(count);
                left -= u64::from(count);
            }
        }
        let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX).to_be_bytes();
        bytes.iter_mut().zip(length).for_each(|(place, byte)| *place = byte);
        bytes.truncate(allocation as usize);
        Ok(bytes)
    }

    fn persistent_reserve(&self, action: u8, kind: u8, parameters: &[u8]) -> Result<(), Denied> {
        let unit = self.unit();
        let effects = {
            let mut shared = locked(&unit.shared);
            if shared.reserved.is_some_and(|holder| holder != self.id()) {
                return Err(Denied::Conflict);
            }
            let mut changed = shared.reservations.clone();
            let can_keep = unit.store().is_some();
            let change = Change { action, kind, parameters, can_keep };
            let effects = changed.change(self.port(), change)?;
            // Kept before it is answered; held meanwhile, so that what is kept is the last state.
            if let Some(store) = unit.store()
                && changed.kept() != shared.reservations.kept()
                && store.keep(changed.kept().as_deref()).is_err()
            {
                return Err(Sense::new(Key::HardwareError, 0x44, 0).into());
            }
            shared.reservations = changed;
            unit.note_reserved(&shared);
            effects
        };
        unit.take_effect(&effects, self.id());
        Ok(())
    }
}
