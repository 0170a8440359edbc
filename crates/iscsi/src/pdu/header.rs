//! Basic header segments.

use super::{HEADER, Request, Response};

/// 48 bytes, with their fields by name. Those that depend on the kind of PDU are at the places that RFC
/// 7143 section 11 gives them; the methods' names say which.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header(pub [u8; HEADER]);

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header")
            .field("opcode", &self.opcode())
            .field("flags", &self.flags())
            .field("data", &self.data_length())
            .field("task", &self.task())
            .finish_non_exhaustive()
    }
}

/// A logical unit's number, of one level (SAM-5 4.7.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(u16);

impl Lun {
    /// The largest number: flat space addressing has 14 bits.
    pub const MAX: u16 = 0x3fff;

    /// By its number, up to [`Lun::MAX`].
    pub fn new(number: u16) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// As initiators address it: by peripheral device or flat space addressing; `None` for what addresses
    /// no single level.
    pub fn read(bytes: [u8; 8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes;
        if rest != [0; 6] {
            return None;
        }
        match first >> 6 {
            0 if first == 0 => Some(Self(second.into())),
            1 => Some(Self(u16::from_be_bytes([first & 0x3f, second]))),
            _ => None,
        }
    }

    /// As a target reports it.
    pub fn write(self) -> [u8; 8] {
        let [high, low] = self.0.to_be_bytes();
        let mode = if self.0 < 256 { 0 } else { 0x40 };
        [mode | high, low, 0, 0, 0, 0, 0, 0]
    }
}

impl Header {
    /// An answer, with nothing but its kind and the bit that says that it is the last of its sequence.
    pub fn answer(kind: Response) -> Self {
        let mut header = Self([0; HEADER]);
        header.0[0] = kind as u8;
        header.0[1] = 0x80;
        header
    }

    /// The number of its kind.
    pub fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// What an initiator sent.
    pub fn request(&self) -> Option<Request> {
        Request::of(self.opcode())
    }

    /// To be delivered at once, out of the order of commands.
    pub fn is_immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// The byte of flags.
    pub fn flags(&self) -> u8 {
        self.0[1]
    }

    /// The last, or only, PDU of a sequence.
    pub fn is_final(&self) -> bool {
        self.0[1] & 0x80 != 0
    }

    /// Sets the byte of flags.
    pub fn set_flags(&mut self, flags: u8) {
        self.0[1] = flags;
    }

    /// Bytes of additional header segments.
    pub fn additional(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// Bytes of the data segment, without padding: 24 bits.
    pub fn data_length(&self) -> usize {
        usize::from(self.0[5]) << 16 | usize::from(self.0[6]) << 8 | usize::from(self.0[7])
    }

    /// Sets the bytes of the data segment: it has less than 2^24.
    pub fn set_data_length(&mut self, length: usize) {
        let [.., a, b, c] = (length as u64).to_be_bytes();
        (self.0[5], self.0[6], self.0[7]) = (a, b, c);
    }

    /// Eight bytes: the LUN.
    pub fn lun_bytes(&self) -> [u8; 8] {
        self.bytes(8)
    }

    /// The initiator's task tag.
    pub fn task(&self) -> u32 {
        self.word(16)
    }

    /// The command's number.
    pub fn command_number(&self) -> u32 {
        self.word(24)
    }

    /// The number of the status that the initiator expects next.
    pub fn expected_status(&self) -> u32 {
        self.word(28)
    }

    /// The CDB of a SCSI command.
    pub fn cdb(&self) -> [u8; 16] {
        self.bytes(32)
    }

    /// Four bytes at one of the places of the RFC's tables, big end first.
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bytes(at))
    }

    /// Sets four bytes.
    pub fn set_word(&mut self, at: usize, value: u32) {
        self.set_bytes(at, &value.to_be_bytes());
    }

    /// Two bytes.
    pub fn half(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.bytes(at))
    }

    /// Sets two bytes.
    pub fn set_half(&mut self, at: usize, value: u16) {
        self.set_bytes(at, &value.to_be_bytes());
    }

    /// Bytes at a place that lies within the header: that is up to the caller, and else they are zeroes.
    pub fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let found = self.0.get(at..at.saturating_add(N)).and_then(|bytes| bytes.try_into().ok());
        found.unwrap_or([0; N])
    }

    /// Sets bytes at a place that lies within the header; elsewhere nothing is set.
    pub fn set_bytes(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn luns_are_written_as_they_are_read() {
        for number in [0, 1, 255, 256, Lun::MAX] {
            let lun = Lun::new(number).unwrap();
            assert_eq!(Lun::read(lun.write()), Some(lun), "{number}");
        }
        assert_eq!(Lun::read([0x40, 7, 0, 0, 0, 0, 0, 0]), Lun::new(7));
        for other in
            [[0xc1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(Lun::read(other), None);
        }
        assert_eq!(Lun::new(Lun::MAX + 1), None);
    }

    #[test]
    fn lengths_have_24_bits() {
        let mut header = Header::answer(Response::DataIn);
        header.set_data_length(0x12_3456);
        assert_eq!(header.data_length(), 0x12_3456);
        assert_eq!(header.opcode(), 0x25);
        assert!(header.is_final());
        assert_eq!(header.bytes::<8>(44), [0; 8]);
    }
}
