//! An initiator and a unit: what the one hears of the other, and how its commands begin.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use strongroom_block::Geometry;

use super::copy;
use super::inquiry::{self, PortName};
use super::mode;
use super::opcodes::{self, Access, Unknown};
use super::operation::{self, Operation};
use super::reservations::Denied;
use super::sense::{Attention, Sense};
use super::unit::{LogicalUnit, locked};

/// Attentions that wait for one initiator at most: more say no more.
const MOST_ATTENTIONS: usize = 16;

/// One initiator port and one logical unit (an I_T_L nexus).
#[derive(Debug)]
pub struct Nexus {
    unit: Arc<LogicalUnit>,
    id: u64,
    port: Vec<u8>,
    names: PortName,
    attentions: Mutex<VecDeque<Attention>>,
    has_attention: AtomicBool,
    epoch: AtomicU64,
    copies: copy::Outcomes,
    is_withdrawn: AtomicBool,
}

impl Drop for Nexus {
    fn drop(&mut self) {
        self.unit.leave(self.id);
    }
}

fn cut(mut bytes: Vec<u8>, allocation: u32) -> Operation {
    bytes.truncate(allocation as usize);
    Operation::Answer(bytes)
}

impl Nexus {
    /// Of an initiator port, known by its TransportID (SPC-4 7.6.4).
    pub fn join(unit: &Arc<LogicalUnit>, port: Vec<u8>, names: PortName) -> Arc<Self> {
        unit.join(|id| Self {
            unit: Arc::clone(unit),
            id,
            port,
            names,
            attentions: Mutex::default(),
            has_attention: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            copies: copy::Outcomes::default(),
            is_withdrawn: AtomicBool::new(false),
        })
    }

    /// Its unit.
    pub fn unit(&self) -> &Arc<LogicalUnit> {
        &self.unit
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn outcomes(&self) -> &copy::Outcomes {
        &self.copies
    }

    pub(super) fn port(&self) -> &[u8] {
        &self.port
    }

    /// Has the initiator hear of it with its next command.
    pub fn attend(&self, what: Attention) {
        let mut attentions = locked(&self.attentions);
        if attentions.len() < MOST_ATTENTIONS && !attentions.contains(&what) {
            attentions.push_back(what);
            self.has_attention.store(true, Ordering::Release);
        }
    }

    fn attention(&self) -> Option<Attention> {
        if !self.has_attention.load(Ordering::Acquire) {
            return None;
        }
        let mut attentions = locked(&self.attentions);
        let first = attentions.pop_front();
        self.has_attention.store(!attentions.is_empty(), Ordering::Release);
        first
    }

    fn forget(&self, what: Attention) {
        if self.has_attention.load(Ordering::Acquire) {
            let mut attentions = locked(&self.attentions);
            attentions.retain(|one| *one != what);
            self.has_attention.store(!attentions.is_empty(), Ordering::Release);
        }
    }

    /// Changes when all tasks of the initiator are aborted: those that began before are to end without an
    /// answer.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Aborts all its tasks.
    pub fn abort_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.unit.wake();
    }

    pub(super) fn target(&self) -> &str {
        &self.names.target
    }

    /// The unit isn't there for it any more.
    pub(super) fn withdraw(&self) {
        self.is_withdrawn.store(true, Ordering::Release);
        self.abort_all();
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Ordering::Acquire)
    }

    /// Refuses what would use the device after the unit was taken away.
    pub(super) fn check_present(&self) -> Result<(), Sense> {
        match self.is_withdrawn() {
            true => Err(Sense::NO_UNIT),
            false => Ok(()),
        }
    }

    /// Whether sense data are to be in the descriptor format.
    pub fn wants_descriptors(&self) -> bool {
        locked(&self.unit.shared).mode.descriptors
    }

    /// Begins a command: checks all that can be known before there are data, and does what needs none of
    /// the medium.
    ///
    /// `luns` is what REPORT LUNS answers with.
    ///
    /// # Errors
    /// [`Denied`]: it is not done.
    pub fn begin(
        &self,
        cdb: &[u8; 16],
        luns: impl FnOnce() -> Vec<[u8; 8]>,
    ) -> Result<Operation, Denied> {
        let geometry = self.unit.geometry();
        let [code, ..] = *cdb;
        // INQUIRY, REPORT LUNS and REQUEST SENSE are answered whatever happened.
        if !matches!(code, 0x03 | 0x12 | 0xa0)
            && let Some(attention) = self.attention()
        {
            return Err(attention.sense().into());
        }
        let command = opcodes::find(cdb, |one| self.unit.can(one, &geometry)).map_err(
            |unknown| match unknown {
                Unknown::Code => Sense::INVALID_OPCODE,
                Unknown::Action => Sense::invalid_field(1),
            },
        )?;
        // NACA: there is no ACA.
        if cdb.get(command.usage.len() - 1).is_some_and(|control| control & 0x04 != 0) {
            return Err(
                Sense::invalid_field(u16::try_from(command.usage.len() - 1).unwrap_or(0)).into()
            );
        }
        if self.unit.is_reserved() {
            self.respect(code, command.access)?;
        }
        let needs_medium = match command.access {
            Access::Free | Access::Status => matches!(code, 0x00 | 0x25 | 0x9e),
            // MODE SENSE, MODE SELECT, and what puts it in again.
            Access::Read | Access::Write => !matches!(code, 0x15 | 0x1a | 0x1b | 0x55 | 0x5a),
        };
        if needs_medium && self.unit.is_ejected() {
            return Err(Sense::NO_MEDIUM.into());
        }
        if let Some(operation) =
            operation::of_medium(cdb, &geometry, self.unit.device().most_atomic())?
        {
            if command.access == Access::Write && !matches!(operation, Operation::Synchronize) {
                self.check_writable(&geometry)?;
            }
            return Ok(operation);
        }
        self.other(cdb, &geometry, luns)
    }

    fn respect(&self, code: u8, access: Access) -> Result<(), Denied> {
        let shared = locked(&self.unit.shared);
        let is_others = shared.reserved.is_some_and(|holder| holder != self.id);
        // RELEASE (6) of one who doesn't hold it does nothing.
        if is_others && access != Access::Free && code != 0x17 {
            return Err(Denied::Conflict);
        }
        match shared.reservations.permits(&self.port, access) {
            true => Ok(()),
            false => Err(Denied::Conflict),
        }
    }

    fn check_writable(&self, geometry: &Geometry) -> Result<(), Denied> {
        if geometry.read_only {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        match locked(&self.unit.shared).mode.protected {
            true => Err(Sense::SOFTWARE_PROTECTED.into()),
            false => Ok(()),
        }
    }

    fn other(
        &self,
        cdb: &[u8; 16],
        geometry: &Geometry,
        luns: impl FnOnce() -> Vec<[u8; 8]>,
    ) -> Result<Operation, Denied> {
        let [code, b1, b2, _, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, ..] = *cdb;
        let half = u32::from(u16::from_be_bytes([b7, b8]));
        let blocks = geometry.size / u64::from(geometry.block.max(1));
        Ok(match code {
            0x00 => Operation::Answer(Vec::new()),
            0x03 => {
                let sense = self.attention().map_or(Sense::NONE, Attention::sense);
                cut(sense.encode(b1 & 1 != 0), b4.into())
            }
            0x12 => self.inquiry(cdb, geometry)?,
            0x15 | 0x55 => {
                // SP: there is nowhere to save pages; PF: they are pages.
                if b1 & 1 != 0 || b1 & 0x10 == 0 {
                    return Err(Sense::invalid_field(1).into());
                }
                let list = if code == 0x15 { b4.into() } else { half };
                if list as usize > mode::LONGEST {
                    return Err(Sense::LIST_LENGTH.into());
                }
                let list = u16::try_from(list).unwrap_or(0);
                Operation::ModeSelect { list, is_long: code == 0x55 }
            }
            0x1a | 0x5a => {
                let unit =
                    mode::Unit { blocks, block: geometry.block, read_only: geometry.read_only };
                let mode = locked(&self.unit.shared).mode;
                let bytes = mode::sense(cdb, code == 0x5a, unit, mode)?;
                cut(bytes, if code == 0x1a { b4.into() } else { half })
            }
            0x16 | 0x17 => {
                self.reserve(code == 0x16)?;
                Operation::Answer(Vec::new())
            }
            0x1b => self.start_stop(b4)?,
            0x1e => {
                let mut shared = locked(&self.unit.shared);
                match b4 & 1 {
                    1 => shared.prevented.insert(self.id),
                    _ => shared.prevented.remove(&self.id),
                };
                Operation::Answer(Vec::new())
            }
            0x25 => {
                let last = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
                let mut bytes = last.to_be_bytes().to_vec();
                bytes.extend_from_slice(&geometry.block.to_be_bytes());
                Operation::Answer(bytes)
            }
            // No defects: the pool mends them.
            0x37 => cut(vec![0, b2 & 0x1f, 0, 0], half),
            0xb7 => {
                let allocation = u32::from_be_bytes([b6, b7, b8, b9]);
                cut(vec![0, b1 & 0x1f, 0, 0, 0, 0, 0, 0], allocation)
            }
            0x5e => {
                let shared = locked(&self.unit.shared);
                let can_keep = self.unit.store().is_some();
                let bytes = shared.reservations.report(b1 & 0x1f, can_keep);
                cut(bytes.ok_or(Sense::invalid_field(1))?, half)
            }
            0x5f => {
                let list = u32::from_be_bytes([b5, b6, b7, b8]);
                if list != 24 {
                    return Err(Sense::LIST_LENGTH.into());
                }
                Operation::PersistentReserve { action: b1 & 0x1f, kind: b2, list }
            }
            0x83 => {
                self.check_writable(geometry)?;
                let list = u32::from_be_bytes([b10, b11, b12, b13]);
                if list > copy::LONGEST {
                    return Err(Sense::LIST_LENGTH.into());
                }
                Operation::Copy { list }
            }
            0x84 => {
                let bytes = match b1 & 0x1f {
                    0 => self.copies.status(b2).ok_or(Sense::invalid_field(2))?,
                    _ => copy::parameters(geometry.block),
                };
                cut(bytes, u32::from_be_bytes([b10, b11, b12, b13]))
            }
            0x9e => {
                let last = blocks.saturating_sub(1);
                let mut bytes = last.to_be_bytes().to_vec();
                bytes.extend_from_slice(&geometry.block.to_be_bytes());
                let physical = self.unit().identity().physical.unwrap_or(geometry.physical);
                let per_physical = (physical / geometry.block.max(1)).max(1);
                // LBPME, LBPRZ.
                let thin = if geometry.thin { 0xc0 } else { 0 };
                bytes.extend_from_slice(&[
                    0,
                    u8::try_from(per_physical.ilog2()).unwrap_or(0),
                    thin,
                ]);
                bytes.resize(32, 0);
                cut(bytes, u32::from_be_bytes([b10, b11, b12, b13]))
            }
            0xa0 => {
                self.forget(Attention::ReportedLunsChanged);
                report_luns(cdb, &luns())?
            }
            0xa3 => {
                let bytes = opcodes::report(cdb, |one| self.unit.can(one, geometry));
                let bytes = bytes.ok_or(Sense::invalid_field(2))?;
                cut(bytes, u32::from_be_bytes([b6, b7, b8, b9]))
            }
            _ => return Err(Sense::INVALID_OPCODE.into()),
        })
    }

    fn inquiry(&self, cdb: &[u8; 16], geometry: &Geometry) -> Result<Operation, Denied> {
        let [_, b1, page, b3, b4, ..] = *cdb;
        let allocation = u16::from_be_bytes([b3, b4]).into();
        let identity = self.unit.identity();
        let bytes = match b1 & 1 {
            0 if page != 0 => return Err(Sense::invalid_field(2).into()),
            0 => inquiry::standard(identity, true),
            _ => {
                let id = self.unit.device().id();
                let most_atomic = self.unit.device().most_atomic();
                inquiry::page(page, identity, id, geometry, most_atomic, &self.names)
                    .ok_or(Sense::invalid_field(2))?
            }
        };
        Ok(cut(bytes, allocation))
    }

    /// RESERVE (6) and RELEASE (6) of SPC-2, by the whole unit.
    fn reserve(&self, takes: bool) -> Result<(), Denied> {
        let mut shared = locked(&self.unit.shared);
        if !shared.reservations.is_empty() {
            return Err(Denied::Conflict);
        }
        match (takes, shared.reserved) {
            (true, Some(holder)) if holder != self.id => return Err(Denied::Conflict),
            (true, _) => shared.reserved = Some(self.id),
            (false, Some(holder)) if holder == self.id => shared.reserved = None,
            (false, _) => {}
        }
        self.unit.note_reserved(&shared);
        Ok(())
    }

    /// START STOP UNIT (SBC-3 5.25). Nothing turns or sleeps, so that one initiator can't stop the unit for
    /// the others; but what was written is made durable where a disk would stop. A removable medium comes
    /// out and in.
    fn start_stop(&self, options: u8) -> Result<Operation, Denied> {
        let (power, loads, starts) = (options >> 4, options & 2 != 0, options & 1 != 0);
        if power == 0 && loads {
            if !self.unit.identity().removable {
                return Err(Sense::invalid_field(4).into());
            }
            let shared = locked(&self.unit.shared);
            if !shared.prevented.is_empty() {
                return Err(Sense::REMOVAL_PREVENTED.into());
            }
            let is_new = self.unit.eject(!starts);
            drop(shared);
            if is_new && starts {
                self.unit.attend(Attention::MediumChanged, Some(self.id));
            }
        }
        Ok(if starts { Operation::Answer(Vec::new()) } else { Operation::Synchronize })
    }
}

/// Answers REPORT LUNS (SPC-4 6.33).
fn report_luns(cdb: &[u8; 16], luns: &[[u8; 8]]) -> Result<Operation, Denied> {
    let [_, _, select, _, _, _, b6, b7, b8, b9, ..] = *cdb;
    let luns = match select {
        0 | 2 => luns,
        // Well-known units: there are none.
        1 => &[],
        _ => return Err(Sense::invalid_field(2).into()),
    };
    let mut bytes = u32::try_from(luns.len() * 8).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend(luns.iter().flatten());
    Ok(cut(bytes, u32::from_be_bytes([b6, b7, b8, b9])))
}

/// Begins a command to a number without a unit (SAM-5 4.7.4): what such a command is answered.
///
/// # Errors
/// [`Denied`], for all but INQUIRY, REQUEST SENSE and REPORT LUNS.
pub fn begin_without_unit(
    cdb: &[u8; 16],
    luns: impl FnOnce() -> Vec<[u8; 8]>,
) -> Result<Operation, Denied> {
    let [code, b1, b2, b3, b4, ..] = *cdb;
    match code {
        0x12 if b1 & 1 == 0 && b2 == 0 => {
            let bytes = inquiry::standard(&inquiry::Identity::default(), false);
            Ok(cut(bytes, u16::from_be_bytes([b3, b4]).into()))
        }
        0x03 => Ok(cut(Sense::NO_UNIT.encode(b1 & 1 != 0), b4.into())),
        0xa0 => report_luns(cdb, &luns()),
        _ => Err(Sense::NO_UNIT.into()),
    }
}
