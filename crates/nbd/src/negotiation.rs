//! The negotiation of a connection, without its socket (`doc/proto.md`, "Fixed newstyle negotiation" and
//! "TLS support"): options go in, replies come out.

use std::sync::Arc;

use strongroom_block::Geometry;

use crate::exports::{Denied, Export, Exports, Peer};
use crate::options::{Asked, Wants, Wrong};
use crate::protocol::{
    ALLOCATION, ALLOCATION_ID, IHAVEOPT, MAX_PAYLOAD, MAX_STRING, NBDMAGIC, OPTION_REPLY,
    handshake, info, option, reply, transmission,
};
use crate::request::Terms;

/// Options that a client may send before it has to come to an end.
const MAX_OPTIONS: u32 = 256;
/// Bytes of an option before its data.
pub const HEADER: usize = 16;
const FLAGS: u16 = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;

/// Whether TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It can't be.
    None,
    /// As the client likes (SELECTIVETLS).
    Offered,
    /// It must be (FORCEDTLS).
    Demanded,
}

/// What a client has said so far.
#[derive(Debug)]
pub struct Negotiation {
    exports: Arc<dyn Exports>,
    tls: Tls,
    peer: Peer,
    fixed: bool,
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    allocation: Option<String>,
    options: u32,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// Another option.
    Option,
    /// The handshake of TLS, once the reply is sent.
    StartTls,
    /// Requests.
    Transmission(Box<Agreed>),
    /// Nothing.
    End,
}

/// What a client is going to use, and how.
#[derive(Debug)]
pub struct Agreed {
    /// The export.
    pub export: Export,
    /// How.
    pub terms: Terms,
}

/// A client that can't be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Flags that nobody knows.
    #[error("unknown client flags {0:#x}")]
    Flags(u32),
    /// Not an option.
    #[error("what came is no option")]
    Magic,
}

/// What the server says first.
pub fn greeting() -> Vec<u8> {
    [&NBDMAGIC.to_be_bytes()[..], &IHAVEOPT.to_be_bytes(), &FLAGS.to_be_bytes()].concat()
}

/// The number of an option, and the length of its data.
///
/// # Errors
/// [`Broken::Magic`].
pub fn header(bytes: &[u8; HEADER]) -> Result<(u32, u32), Broken> {
    let number = |from: usize| {
        let four = bytes.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
        four.map_or(0, u32::from_be_bytes)
    };
    match (u64::from(number(0)) << 32) | u64::from(number(4)) {
        IHAVEOPT => Ok((number(8), number(12))),
        _ => Err(Broken::Magic),
    }
}

impl Negotiation {
    /// With nothing agreed upon.
    pub fn new(exports: Arc<dyn Exports>, tls: Tls, peer: Peer) -> Self {
        Self {
            exports,
            tls,
            peer,
            fixed: false,
            no_zeroes: false,
            structured: false,
            allocation: None,
            options: 0,
        }
    }

    /// Who it is with.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Takes the client's flags.
    ///
    /// # Errors
    /// [`Broken::Flags`].
    pub fn client_flags(&mut self, flags: u32) -> Result<(), Broken> {
        if flags & !u32::from(FLAGS) != 0 {
            return Err(Broken::Flags(flags));
        }
        self.fixed = flags & u32::from(handshake::FIXED_NEWSTYLE) != 0;
        self.no_zeroes = flags & u32::from(handshake::NO_ZEROES) != 0;
        Ok(())
    }

    /// TLS is spoken from now on; what was agreed upon before is void.
    pub fn tls_is_spoken(&mut self, certificate: Option<Vec<u8>>) {
        self.peer.tls = true;
        self.peer.certificate = certificate;
        self.structured = false;
        self.allocation = None;
    }

    /// Refuses an option whose data are too long to be read.
    pub fn too_long(&mut self, number: u32, out: &mut Vec<u8>) -> Next {
        self.options += 1;
        if number == option::EXPORT_NAME || self.options > MAX_OPTIONS {
            return Next::End;
        }
        fail(out, number, reply::ERR_TOO_BIG, "the data of the option are too long");
        Next::Option
    }

    /// Answers an option.
    pub fn answer(&mut self, number: u32, data: &[u8], out: &mut Vec<u8>) -> Next {
        self.options += 1;
        if self.options > MAX_OPTIONS {
            return Next::End;
        }
        let demanded = self.tls == Tls::Demanded && !self.peer.tls;
        if demanded && ![option::STARTTLS, option::ABORT].contains(&number) {
            if number == option::EXPORT_NAME {
                return Next::End;
            }
            fail(out, number, reply::ERR_TLS_REQD, "speak TLS first");
            return Next::Option;
        }
        if number == option::SET_META_CONTEXT {
            // It replaces what was chosen, even when it fails.
            self.allocation = None;
        }
        let asked = match Asked::parse(number, data) {
            Ok(asked) => asked,
            Err(_) if number == option::EXPORT_NAME => return Next::End,
            Err(wrong) => {
                let kind = match wrong {
                    Wrong::TooMany => reply::ERR_TOO_BIG,
                    _ => reply::ERR_INVALID,
                };
                fail(out, number, kind, &wrong.to_string());
                return Next::Option;
            }
        };
        match asked {
            Asked::ExportName(name) => return self.export_name(name, out),
            Asked::Abort => {
                put(out, number, reply::ACK, &[]);
                return Next::End;
            }
            Asked::List => self.list(number, out),
            Asked::StartTls => return self.start_tls(number, out),
            Asked::Info { go, name, wants } => return self.info(number, go, name, wants, out),
            Asked::StructuredReply => {
                self.structured = true;
                put(out, number, reply::ACK, &[]);
            }
            Asked::MetaContext { set, name, queries } => {
                self.meta_context(number, set, name, &queries, out);
            }
            Asked::Other => fail(out, number, reply::ERR_UNSUP, "this option is not known here"),
        }
        Next::Option
    }

    fn start_tls(&self, number: u32, out: &mut Vec<u8>) -> Next {
        if self.peer.tls {
            fail(out, number, reply::ERR_INVALID, "TLS is spoken already");
        } else if self.tls == Tls::None {
            fail(out, number, reply::ERR_POLICY, "TLS is not spoken here");
        } else if !self.fixed {
            fail(out, number, reply::ERR_INVALID, "TLS needs fixed newstyle negotiation");
        } else {
            put(out, number, reply::ACK, &[]);
            return Next::StartTls;
        }
        Next::Option
    }

    fn list(&self, number: u32, out: &mut Vec<u8>) {
        let listed = match self.exports.list(&self.peer) {
            Ok(listed) => listed,
            Err(denied) => return self.deny(number, &denied, out),
        };
        for one in listed {
            let name = cut(&one.name);
            let length = (name.len() as u32).to_be_bytes();
            let description = cut(&one.description).as_bytes();
            put(out, number, reply::SERVER, &[&length, name.as_bytes(), description]);
        }
        put(out, number, reply::ACK, &[]);
    }

    fn export_name(&self, name: &str, out: &mut Vec<u8>) -> Next {
        let Ok(export) = self.exports.open(name, &self.peer) else { return Next::End };
        let agreed = self.agree(name, export);
        out.extend(agreed.export.device.geometry().size.to_be_bytes());
        out.extend(agreed.flags().to_be_bytes());
        if !self.no_zeroes {
            out.extend([0; 124]);
        }
        Next::Transmission(Box::new(agreed))
    }

    fn info(&self, number: u32, go: bool, name: &str, wants: Wants, out: &mut Vec<u8>) -> Next {
        let export = match self.exports.open(name, &self.peer) {
            Ok(export) => export,
            Err(denied) => {
                self.deny(number, &denied, out);
                return Next::Option;
            }
        };
        let agreed = self.agree(name, export);
        let geometry = agreed.export.device.geometry();
        let mut tell = |kind: u16, parts: &[&[u8]]| {
            let kind = kind.to_be_bytes();
            let all: Vec<&[u8]> = [&kind[..]].into_iter().chain(parts.iter().copied()).collect();
            put(out, number, reply::INFO, &all);
        };
        let (size, flags) = (geometry.size.to_be_bytes(), agreed.flags().to_be_bytes());
        tell(info::EXPORT, &[&size, &flags]);
        let [least, best, most] = block_sizes(&geometry).map(u32::to_be_bytes);
        tell(info::BLOCK_SIZE, &[&least, &best, &most]);
        if wants.name {
            tell(info::NAME, &[cut(&agreed.export.name).as_bytes()]);
        }
        if wants.description && !agreed.export.description.is_empty() {
            tell(info::DESCRIPTION, &[cut(&agreed.export.description).as_bytes()]);
        }
        put(out, number, reply::ACK, &[]);
        match go {
            true => Next::Transmission(Box::new(agreed)),
            false => Next::Option,
        }
    }

    fn meta_context(
        &mut self,
        number: u32,
        set: bool,
        name: &str,
        queries: &[&str],
        out: &mut Vec<u8>,
    ) {
        if !self.structured {
            let why = "metadata contexts need structured replies";
            return fail(out, number, reply::ERR_INVALID, why);
        }
        if let Err(denied) = self.exports.open(name, &self.peer) {
            return self.deny(number, &denied, out);
        }
        // Listing takes the namespace for all that is in it, and no query for all that there is.
        let found = queries.contains(&ALLOCATION)
            || (!set && (queries.is_empty() || queries.contains(&"base:")));
        if found {
            let id = if set { ALLOCATION_ID } else { 0 };
            put(out, number, reply::META_CONTEXT, &[&id.to_be_bytes(), ALLOCATION.as_bytes()]);
            if set {
                self.allocation = Some(name.to_owned());
            }
        }
        put(out, number, reply::ACK, &[]);
    }

    fn agree(&self, name: &str, export: Export) -> Agreed {
        let read_only = export.read_only || export.device.geometry().read_only;
        let block_status = self.allocation.as_deref() == Some(name);
        Agreed { export, terms: Terms { structured: self.structured, block_status, read_only } }
    }

    fn deny(&self, number: u32, denied: &Denied, out: &mut Vec<u8>) {
        let kind = match denied {
            Denied::NeedsTls if !self.peer.tls && self.tls != Tls::None => reply::ERR_TLS_REQD,
            Denied::NeedsTls | Denied::Policy(_) => reply::ERR_POLICY,
            Denied::Unknown | Denied::Unavailable(_) => reply::ERR_UNKNOWN,
        };
        fail(out, number, kind, &denied.to_string());
    }
}

/// Refuses an option because the server is ending.
pub(crate) fn shutdown(number: u32, out: &mut Vec<u8>) {
    fail(out, number, reply::ERR_SHUTDOWN, "the server is ending");
}

/// Refuses an option because there are too many connections.
pub(crate) fn crowded(number: u32, out: &mut Vec<u8>) {
    fail(out, number, reply::ERR_POLICY, "there are too many connections; try again later");
}

impl Agreed {
    /// The transmission flags.
    pub fn flags(&self) -> u16 {
        let mut flags = transmission::HAS_FLAGS
            | transmission::SEND_FLUSH
            | transmission::SEND_FUA
            | transmission::CAN_MULTI_CONN
            | transmission::SEND_CACHE;
        if self.terms.structured {
            flags |= transmission::SEND_DF;
        }
        if self.terms.read_only {
            flags |= transmission::READ_ONLY;
        } else {
            flags |= transmission::SEND_WRITE_ZEROES;
            if self.export.device.geometry().thin {
                flags |= transmission::SEND_TRIM;
            }
        }
        flags
    }
}

/// The least, the best and the largest size of requests, as `NBD_INFO_BLOCK_SIZE` wants them: powers of
/// two, but for the last.
fn block_sizes(geometry: &Geometry) -> [u32; 3] {
    let least = geometry.block.clamp(1, 1 << 16);
    let best = geometry.physical.clamp(least.max(512), 1 << 20);
    [least, best.checked_next_power_of_two().unwrap_or(least.max(512)), MAX_PAYLOAD]
}

fn put(out: &mut Vec<u8>, number: u32, kind: u32, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend(OPTION_REPLY.to_be_bytes());
    out.extend(number.to_be_bytes());
    out.extend(kind.to_be_bytes());
    // Three strings of 4096 bytes at most.
    out.extend((length as u32).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn fail(out: &mut Vec<u8>, number: u32, kind: u32, why: &str) {
    put(out, number, kind, &[cut(why).as_bytes()]);
}

/// As much of it as a string of the protocol may have.
pub(crate) fn cut(text: &str) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    let mut end = text.len().min(MAX_STRING);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
