//! What a command that failed is told (SPC-4 4.5).

use strongroom_block::Error as DeviceError;

/// A sense key (SPC-4 table 43).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Key {
    NoSense = 0x0,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    CopyAborted = 0xa,
    AbortedCommand = 0xb,
    Miscompare = 0xe,
}

/// Where the field is that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// In the CDB, or else in the parameters.
    pub in_command: bool,
    /// Which byte.
    pub byte: u16,
}

/// Sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The sense key.
    pub key: Key,
    /// Additional sense code and its qualifier.
    pub code: (u8, u8),
    /// The INFORMATION field: what it means depends on the code.
    pub information: Option<u64>,
    /// Where the wrong field is.
    pub field: Option<Field>,
}

impl Sense {
    /// Of a key and a code.
    pub const fn new(key: Key, code: u8, qualifier: u8) -> Self {
        Self { key, code: (code, qualifier), information: None, field: None }
    }

    /// Nothing to tell.
    pub const NONE: Self = Self::new(Key::NoSense, 0, 0);
    /// Such an operation code isn't known.
    pub const INVALID_OPCODE: Self = Self::new(Key::IllegalRequest, 0x20, 0);
    /// Blocks behind the end.
    pub const OUT_OF_RANGE: Self = Self::new(Key::IllegalRequest, 0x21, 0);
    /// There is no such logical unit.
    pub const NO_UNIT: Self = Self::new(Key::IllegalRequest, 0x25, 0);
    /// The length of the parameters isn't what it has to be.
    pub const LIST_LENGTH: Self = Self::new(Key::IllegalRequest, 0x1a, 0);
    /// There is nothing that is kept of mode pages.
    pub const SAVING_UNSUPPORTED: Self = Self::new(Key::IllegalRequest, 0x39, 0);
    /// What is released isn't what was reserved.
    pub const INVALID_RELEASE: Self = Self::new(Key::IllegalRequest, 0x26, 0x04);
    /// A copy names more targets than are taken.
    pub const TOO_MANY_TARGETS: Self = Self::new(Key::IllegalRequest, 0x26, 0x06);
    /// It names one in another way than is known.
    pub const UNSUPPORTED_TARGET: Self = Self::new(Key::IllegalRequest, 0x26, 0x07);
    /// It has more segments than are taken.
    pub const TOO_MANY_SEGMENTS: Self = Self::new(Key::IllegalRequest, 0x26, 0x08);
    /// It has one of another type than is known.
    pub const UNSUPPORTED_SEGMENT: Self = Self::new(Key::IllegalRequest, 0x26, 0x09);
    /// No room for another registration.
    pub const TOO_MANY_REGISTRATIONS: Self = Self::new(Key::IllegalRequest, 0x55, 0x04);
    /// The device may only be read.
    pub const WRITE_PROTECTED: Self = Self::new(Key::DataProtect, 0x27, 0);
    /// An initiator said that it may only be read.
    pub const SOFTWARE_PROTECTED: Self = Self::new(Key::DataProtect, 0x27, 0x02);
    /// Data came in another order than they must.
    pub const DATA_PHASE: Self = Self::new(Key::AbortedCommand, 0x4b, 0);
    /// More unasked data came than was agreed to.
    pub const TOO_MUCH_DATA: Self = Self::new(Key::AbortedCommand, 0x0c, 0x0d);
    /// Less unasked data came than was said.
    pub const TOO_LITTLE_DATA: Self = Self::new(Key::AbortedCommand, 0x0c, 0x0c);
    /// What is there isn't what was expected.
    pub const MISCOMPARE: Self = Self::new(Key::Miscompare, 0x1d, 0);
    /// The medium was taken out.
    pub const NO_MEDIUM: Self = Self::new(Key::NotReady, 0x3a, 0);
    /// An initiator said that the medium has to stay as it is.
    pub const REMOVAL_PREVENTED: Self = Self::new(Key::IllegalRequest, 0x53, 0x02);

    /// A field of the CDB.
    pub const fn invalid_field(byte: u16) -> Self {
        let field = Some(Field { in_command: true, byte });
        Self { field, ..Self::new(Key::IllegalRequest, 0x24, 0) }
    }

    /// A field of the parameters.
    pub const fn invalid_parameter(byte: u16) -> Self {
        let field = Some(Field { in_command: false, byte });
        Self { field, ..Self::new(Key::IllegalRequest, 0x26, 0) }
    }

    /// With the INFORMATION field.
    pub const fn about(self, information: u64) -> Self {
        Self { information: Some(information), ..self }
    }

    /// In the fixed or the descriptor format.
    pub fn encode(&self, as_descriptors: bool) -> Vec<u8> {
        if as_descriptors { self.descriptors() } else { self.fixed() }
    }

    fn pointer(field: Field) -> [u8; 3] {
        let [high, low] = field.byte.to_be_bytes();
        [0x80 | if field.in_command { 0x40 } else { 0 }, high, low]
    }

    fn fixed(&self) -> Vec<u8> {
        let information = self.information.and_then(|value| u32::try_from(value).ok());
        let mut bytes =
            vec![0x70 | if information.is_some() { 0x80 } else { 0 }, 0, self.key as u8];
        bytes.extend_from_slice(&information.unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&[10, 0, 0, 0, 0, self.code.0, self.code.1, 0]);
        bytes.extend_from_slice(&self.field.map_or([0; 3], Self::pointer));
        bytes
    }

    fn descriptors(&self) -> Vec<u8> {
        let mut bytes = vec![0x72, self.key as u8, self.code.0, self.code.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            bytes.extend_from_slice(&[0x00, 0x0a, 0x80, 0]);
            bytes.extend_from_slice(&information.to_be_bytes());
        }
        if let Some(field) = self.field {
            bytes.extend_from_slice(&[0x02, 0x06, 0, 0]);
            bytes.extend_from_slice(&Self::pointer(field));
            bytes.push(0);
        }
        let length = bytes.len() - 8;
        if let Some(place) = bytes.get_mut(7) {
            *place = u8::try_from(length).unwrap_or(0);
        }
        bytes
    }
}

impl From<DeviceError> for Sense {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::OutOfRange { .. } => Self::OUT_OF_RANGE,
            DeviceError::ReadOnly => Self::WRITE_PROTECTED,
            // SPACE ALLOCATION FAILED WRITE PROTECT.
            DeviceError::NoSpace => Self::new(Key::DataProtect, 0x27, 0x07),
            // UNRECOVERED READ ERROR.
            DeviceError::Unreadable { .. } => Self::new(Key::MediumError, 0x11, 0),
            // LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE.
            DeviceError::Gone => Self::new(Key::NotReady, 0x04, 0),
            DeviceError::Unsupported(_) => Self::INVALID_OPCODE,
            // INTERNAL TARGET FAILURE.
            _ => Self::new(Key::HardwareError, 0x44, 0),
        }
    }
}

/// A condition that an initiator hears of with its next command (SAM-5 5.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Attention {
    MediumChanged,
    BusDeviceReset,
    ModeParametersChanged,
    ReservationsPreempted,
    ReservationsReleased,
    RegistrationsPreempted,
    CapacityChanged,
    ReportedLunsChanged,
}

impl Attention {
    /// As sense data.
    pub fn sense(self) -> Sense {
        let (code, qualifier) = match self {
            Self::MediumChanged => (0x28, 0x00),
            Self::BusDeviceReset => (0x29, 0x03),
            Self::ModeParametersChanged => (0x2a, 0x01),
            Self::ReservationsPreempted => (0x2a, 0x03),
            Self::ReservationsReleased => (0x2a, 0x04),
            Self::RegistrationsPreempted => (0x2a, 0x05),
            Self::CapacityChanged => (0x2a, 0x09),
            Self::ReportedLunsChanged => (0x3f, 0x0e),
        };
        Sense::new(Key::UnitAttention, code, qualifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_say_the_same() {
        let sense = Sense::invalid_field(2).about(0x1234);
        let fixed = sense.encode(false);
        assert_eq!(fixed, [0xf0, 0, 5, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xc0, 0, 2]);
        let descriptors = sense.encode(true);
        assert_eq!(descriptors.get(..8), Some(&[0x72, 5, 0x24, 0, 0, 0, 0, 20][..]));
        assert_eq!(descriptors.len(), 28);
    }
}
