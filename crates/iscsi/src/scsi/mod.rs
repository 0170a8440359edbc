//! Disks as SCSI knows them (SPC-4, SBC-3, and atomic writes of SBC-4), without a transport: a [`LogicalUnit`] over a block device,
//! and for each initiator a [`Nexus`] that begins and performs commands.

mod copy;
mod inquiry;
mod mode;
mod nexus;
mod opcodes;
mod operation;
mod perform;
mod reservations;
mod sense;
mod steps;
mod unit;

/// Four bytes of a CDB or of parameters, big end first; behind their end there are zeroes.
fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at.saturating_add(4)).and_then(|bytes| bytes.try_into().ok());
    u32::from_be_bytes(found.unwrap_or_default())
}

pub use inquiry::{Identity, PortName};
pub use nexus::{Nexus, begin_without_unit};
pub use opcodes::Access;
pub use operation::{Compare, MOST_TRANSFER, Operation, Range};
pub use reservations::{Change, Denied, Effects, Kind, Reservations};
pub use sense::{Attention, Field, Key, Sense};
pub use steps::Stepping;
pub use unit::{LogicalUnit, ReservationStore};
