//! What a client asks for in the transmission phase (`doc/proto.md`, "Request message" and "Request
//! types"), and why it is refused ("Error values").

use strongroom_block::{Durability, Geometry, Zeroing};

use crate::protocol::{MAX_PAYLOAD, REQUEST, command, command_flag, error};

/// Bytes of a request before its payload.
pub const HEADER: usize = 28;

/// A request as it comes, not looked at any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Flags of the command.
    pub flags: u16,
    /// The command.
    pub kind: u16,
    /// What its reply is known by.
    pub cookie: u64,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
}

/// What was agreed upon with the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Replies are structured.
    pub structured: bool,
    /// `base:allocation` may be asked for.
    pub block_status: bool,
    /// Nothing may be written.
    pub read_only: bool,
}

/// A command that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `NBD_CMD_READ`.
    Read {
        /// In one chunk (`NBD_CMD_FLAG_DF`).
        whole: bool,
    },
    /// `NBD_CMD_WRITE`.
    Write(Durability),
    /// `NBD_CMD_FLUSH`.
    Flush,
    /// `NBD_CMD_TRIM`.
    Trim(Durability),
    /// `NBD_CMD_CACHE`.
    Cache,
    /// `NBD_CMD_WRITE_ZEROES`.
    Zero(Zeroing, Durability),
    /// `NBD_CMD_BLOCK_STATUS`.
    Status {
        /// Of one extent only (`NBD_CMD_FLAG_REQ_ONE`).
        one: bool,
    },
}

/// A number of the protocol, and words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// The number.
    pub number: u32,
    /// The words.
    pub why: String,
    /// Where in the device, if that is known.
    pub offset: Option<u64>,
}

/// The client has lost the thread, or never had it: nothing that follows can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not a request.
    #[error("what came is no request")]
    Magic,
    /// More than we take.
    #[error("a payload of {0} bytes is too large")]
    Payload(u32),
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, Broken> {
        let (magic, rest) = part::<4>(bytes);
        if u32::from_be_bytes(magic) != REQUEST {
            return Err(Broken::Magic);
        }
        let (flags, rest) = part::<2>(rest);
        let (kind, rest) = part::<2>(rest);
        let (cookie, rest) = part::<8>(rest);
        let (offset, rest) = part::<8>(rest);
        let (length, _) = part::<4>(rest);
        let header = Self {
            flags: u16::from_be_bytes(flags),
            kind: u16::from_be_bytes(kind),
            cookie: u64::from_be_bytes(cookie),
            offset: u64::from_be_bytes(offset),
            length: u32::from_be_bytes(length),
        };
        match header.payload() > MAX_PAYLOAD {
            true => Err(Broken::Payload(header.length)),
            false => Ok(header),
        }
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let parts: [&[u8]; 6] = [
            &REQUEST.to_be_bytes(),
            &self.flags.to_be_bytes(),
            &self.kind.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.length.to_be_bytes(),
        ];
        let all = parts.into_iter().flatten();
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// How many bytes follow it.
    pub fn payload(&self) -> u32 {
        if self.kind == command::WRITE { self.length } else { 0 }
    }

    /// No request follows it.
    pub(crate) fn is_last(&self) -> bool {
        self.kind == command::DISC
    }

    /// It reads, whatever else is wrong with it: its reply is structured if any is.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.kind, command::READ | command::BLOCK_STATUS)
    }

    /// It waits for a disk, as far as can be told before it is done.
    pub(crate) fn is_slow(&self) -> bool {
        self.kind == command::FLUSH
            || (self.flags & command_flag::FUA != 0
                && matches!(self.kind, command::WRITE | command::TRIM | command::WRITE_ZEROES))
    }

    /// What is to be done.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn command(&self, terms: Terms, geometry: &Geometry) -> Result<Command, Refusal> {
        let fua = self.flags & command_flag::FUA != 0;
        let durability = if fua { Durability::Now } else { Durability::Later };
        // FUA is good with every command.
        let (known, allowed) = match self.kind {
            command::READ if terms.structured => (true, command_flag::DF),
            command::READ | command::WRITE | command::FLUSH => (true, 0),
            command::TRIM | command::CACHE => (true, 0),
            command::WRITE_ZEROES => (true, command_flag::NO_HOLE),
            command::BLOCK_STATUS => (terms.block_status, command_flag::REQ_ONE),
            _ => (false, 0),
        };
        if !known {
            return Err(invalid("this command is not known, or was not agreed upon"));
        }
        if self.flags & !(allowed | command_flag::FUA) != 0 {
            return Err(invalid("the command does not take such a flag"));
        }
        let writes = matches!(self.kind, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if writes && terms.read_only {
            return Err(refusal(error::EPERM, "the export may only be read"));
        }
        if self.kind == command::FLUSH {
            return match (self.offset, self.length) {
                (0, 0) => Ok(Command::Flush),
                _ => Err(invalid("a flush is of the whole device: offset and length are 0")),
            };
        }
        let end = self.offset.checked_add(u64::from(self.length));
        if end.is_none_or(|end| end > geometry.size) {
            let is_trim = self.kind == command::TRIM;
            let number = if writes && !is_trim { error::ENOSPC } else { error::EINVAL };
            return Err(refusal(number, "it is not within the device"));
        }
        if geometry.check(self.offset, u64::from(self.length)).is_err() {
            return Err(invalid("offset and length must be multiples of the minimum block size"));
        }
        Ok(match self.kind {
            command::READ if self.length > MAX_PAYLOAD => {
                let number = if terms.structured { error::EOVERFLOW } else { error::EINVAL };
                return Err(refusal(number, "more than the maximum payload"));
            }
            command::READ => Command::Read { whole: self.flags & command_flag::DF != 0 },
            command::WRITE => Command::Write(durability),
            command::TRIM => Command::Trim(durability),
            command::CACHE => Command::Cache,
            command::WRITE_ZEROES if self.flags & command_flag::NO_HOLE != 0 => {
                Command::Zero(Zeroing::Keep, durability)
            }
            command::WRITE_ZEROES => Command::Zero(Zeroing::MayUnmap, durability),
            _ => Command::Status { one: self.flags & command_flag::REQ_ONE != 0 },
        })
    }
}

impl Refusal {
    /// What a device said, of a request that does or doesn't write.
    pub(crate) fn of_device(error: &strongroom_block::Error) -> Self {
        use strongroom_block::Error;
        let (number, offset) = match error {
            Error::ReadOnly => (error::EPERM, None),
            Error::NoSpace => (error::ENOSPC, None),
            Error::Unreadable { offset, .. } => (error::EIO, Some(*offset)),
            Error::OutOfRange { .. } | Error::Unsupported(_) => (error::EINVAL, None),
            Error::Gone => (error::ESHUTDOWN, None),
            _ => (error::EIO, None),
        };
        Self { number, why: error.to_string(), offset }
    }

    pub(crate) fn shutdown() -> Self {
        refusal(error::ESHUTDOWN, "the server is ending")
    }
}

fn refusal(number: u32, why: &str) -> Refusal {
    Refusal { number, why: why.to_owned(), offset: None }
}

fn invalid(why: &str) -> Refusal {
    refusal(error::EINVAL, why)
}

/// The first bytes, and those after them. There are as many: all is taken from one header.
fn part<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk::<N>().map_or(([0; N], &[]), |(now, rest)| (*now, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    const GEOMETRY: Geometry = Geometry {
        size: 1 << 20,
        block: 512,
        physical: 4096,
        optimal: 4096,
        read_only: false,
        thin: true,
    };
    const STRUCTURED: Terms = Terms { structured: true, block_status: true, read_only: false };

    fn header(kind: u16, flags: u16, offset: u64, length: u32) -> Header {
        Header { flags, kind, cookie: 1, offset, length }
    }

    fn number(terms: Terms, header: Header) -> u32 {
        header.command(terms, &GEOMETRY).unwrap_err().number
    }

    #[test]
    fn what_is_refused_has_the_number_of_the_protocol() {
        let plain = Terms::default();
        let reading = Terms { read_only: true, ..plain };
        let end = 1 << 20;
        for (number_wanted, terms, header) in [
            // Unknown; not agreed upon; flags of others.
            (22, STRUCTURED, header(8, 0, 0, 512)),
            (22, plain, header(command::BLOCK_STATUS, 0, 0, 512)),
            (22, plain, header(command::READ, command_flag::DF, 0, 512)),
            (22, STRUCTURED, header(command::WRITE, command_flag::NO_HOLE, 0, 512)),
            (22, STRUCTURED, header(command::WRITE_ZEROES, 1 << 4, 0, 512)),
            (22, STRUCTURED, header(command::CACHE, command_flag::DF, 0, 512)),
            // Nothing may be written.
            (1, reading, header(command::WRITE, 0, 0, 512)),
            (1, reading, header(command::TRIM, 0, 0, 512)),
            (1, reading, header(command::WRITE_ZEROES, 0, 0, 512)),
            // Behind the end.
            (28, plain, header(command::WRITE, 0, end, 512)),
            (28, plain, header(command::WRITE_ZEROES, 0, end - 512, 1024)),
            (22, plain, header(command::TRIM, 0, end, 512)),
            (22, plain, header(command::READ, 0, u64::MAX, 512)),
            (22, STRUCTURED, header(command::BLOCK_STATUS, 0, end, 512)),
            // Not of whole blocks.
            (22, plain, header(command::READ, 0, 1, 512)),
            (22, plain, header(command::WRITE, 0, 0, 511)),
            (22, plain, header(command::FLUSH, 0, 0, 512)),
        ] {
            assert_eq!(number(terms, header), number_wanted, "{header:?}");
        }
        let huge = Geometry { size: 1 << 40, ..GEOMETRY };
        let read = header(command::READ, 0, 0, MAX_PAYLOAD + 512);
        assert_eq!(read.command(STRUCTURED, &huge).unwrap_err().number, 75);
        assert_eq!(read.command(plain, &huge).unwrap_err().number, 22);
        let trim = header(command::TRIM, 0, 0, u32::MAX - 511);
        assert_eq!(trim.command(plain, &huge), Ok(Command::Trim(Durability::Later)));
    }

    #[test]
    fn commands_are_known() {
        let read = |kind, flags| header(kind, flags, 512, 1024).command(STRUCTURED, &GEOMETRY);
        let fua = command_flag::FUA;
        assert_eq!(read(command::READ, command_flag::DF), Ok(Command::Read { whole: true }));
        assert_eq!(read(command::READ, fua), Ok(Command::Read { whole: false }));
        assert_eq!(read(command::WRITE, fua), Ok(Command::Write(Durability::Now)));
        assert_eq!(
            read(command::WRITE_ZEROES, fua | command_flag::NO_HOLE),
            Ok(Command::Zero(Zeroing::Keep, Durability::Now))
        );
        let status = read(command::BLOCK_STATUS, command_flag::REQ_ONE);
        assert_eq!(status, Ok(Command::Status { one: true }));
        let flush = header(command::FLUSH, fua, 0, 0).command(STRUCTURED, &GEOMETRY);
        assert_eq!(flush, Ok(Command::Flush));
    }

    #[test]
    fn payloads_are_bounded_and_only_of_writes() {
        let large = header(command::WRITE, 0, 0, MAX_PAYLOAD + 1);
        assert_eq!(Header::parse(&large.encode()), Err(Broken::Payload(MAX_PAYLOAD + 1)));
        let zeroes = header(command::WRITE_ZEROES, 0, 0, u32::MAX);
        assert_eq!(Header::parse(&zeroes.encode()).unwrap().payload(), 0);
        assert_eq!(Header::parse(&[0; HEADER]), Err(Broken::Magic));
    }

    proptest! {
        #[test]
        fn what_is_let_through_is_within_the_device(
            flags: u16, kind in 0_u16..10, cookie: u64, offset in 0_u64..(2 << 20), length in 0_u32..(2 << 20),
            structured: bool, block_status: bool, read_only: bool,
        ) {
            let header = Header { flags, kind, cookie, offset, length };
            prop_assert_eq!(Header::parse(&header.encode()), Ok(header));
            let terms = Terms { structured, block_status, read_only };
            if header.command(terms, &GEOMETRY).is_ok() {
                prop_assert!(GEOMETRY.check(offset, u64::from(length)).is_ok());
                prop_assert!(!read_only || ![1, 4, 6].contains(&kind));
            }
        }
    }
}
