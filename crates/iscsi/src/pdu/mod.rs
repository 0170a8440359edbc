//! Units of the protocol (PDUs, RFC 7143 section 11): their headers, how they are framed and guarded
//! ([`Framing`]), and the text that some of them carry ([`text`]).

mod frame;
mod header;
pub mod text;

pub use frame::{Fault, Framing, Shape, Taken};
pub use header::{Header, Lun};

/// Bytes of a basic header segment (RFC 7143 section 11.2.1).
pub const HEADER: usize = 48;

/// A tag that names nothing.
pub const NO_TAG: u32 = 0xffff_ffff;

/// What initiators send (RFC 7143 section 11.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Request {
    NopOut,
    ScsiCommand,
    TaskManagement,
    Login,
    Text,
    DataOut,
    Logout,
    Snack,
}

impl Request {
    /// By its number; `None` for those that initiators don't send.
    pub fn of(opcode: u8) -> Option<Self> {
        Some(match opcode {
            0x00 => Self::NopOut,
            0x01 => Self::ScsiCommand,
            0x02 => Self::TaskManagement,
            0x03 => Self::Login,
            0x04 => Self::Text,
            0x05 => Self::DataOut,
            0x06 => Self::Logout,
            0x10 => Self::Snack,
            _ => return None,
        })
    }
}

/// What targets send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
#[repr(u8)]
pub enum Response {
    NopIn = 0x20,
    ScsiResponse = 0x21,
    TaskManagement = 0x22,
    Login = 0x23,
    Text = 0x24,
    DataIn = 0x25,
    Logout = 0x26,
    ReadyToTransfer = 0x31,
    AsyncMessage = 0x32,
    Reject = 0x3f,
}

/// Why a PDU is rejected (RFC 7143 section 11.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
#[repr(u8)]
pub enum Reason {
    DataDigestError = 0x02,
    ProtocolError = 0x04,
    CommandNotSupported = 0x05,
    TaskInProgress = 0x07,
    InvalidPduField = 0x09,
    LongOperationReject = 0x0a,
}
