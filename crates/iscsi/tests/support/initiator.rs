//! A small initiator that says exactly what a test has it say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use strongroom_iscsi::pdu::{Framing, Header, text};

pub(crate) const TARGET: &str = "iqn.2026-11.org.example:disk";

/// A session.
#[derive(Debug)]
pub(crate) struct Initiator {
    stream: TcpStream,
    framing: Framing,
    bytes: Vec<u8>,
    pub(crate) command_number: u32,
    expected_status: u32,
    pub(crate) task: u32,
    /// The next PDU's last byte arrives as another.
    pub(crate) damage_next: bool,
}

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) status: u8,
    pub(crate) data: Vec<u8>,
    /// Key, code and qualifier.
    pub(crate) sense: Option<(u8, u8, u8)>,
}

impl Done {
    pub(crate) fn good(data: &[u8]) -> Self {
        Self { status: 0, data: data.to_vec(), sense: None }
    }

    pub(crate) fn conflict() -> Self {
        Self { status: 0x18, data: Vec::new(), sense: None }
    }

    pub(crate) fn check(key: u8, code: u8, qualifier: u8) -> Self {
        Self { status: 2, data: Vec::new(), sense: Some((key, code, qualifier)) }
    }
}

impl Initiator {
    /// Logs in by one request that agrees to digests or not.
    pub(crate) fn log_in(address: SocketAddr, name: &str, isid: u8, digests: bool) -> Self {
        Self::log_in_to(TARGET, address, name, isid, digests)
    }

    /// As [`Initiator::log_in`], to this target.
    pub(crate) fn log_in_to(
        target: &str,
        address: SocketAddr,
        name: &str,
        isid: u8,
        digests: bool,
    ) -> Self {
        Self::log_in_taking(4096, target, address, name, isid, digests)
    }

    /// As [`Initiator::log_in_to`], and takes so many bytes of data in a PDU.
    pub(crate) fn log_in_taking(
        most_data: usize,
        target: &str,
        address: SocketAddr,
        name: &str,
        isid: u8,
        digests: bool,
    ) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut one = Self {
            stream,
            framing: Framing::LOGIN,
            bytes: Vec::new(),
            command_number: 1,
            expected_status: 1,
            task: 0,
            damage_next: false,
        };
        let digest = if digests { "CRC32C" } else { "None" };
        let mut data = Vec::new();
        for (key, value) in [
            ("InitiatorName", name),
            ("TargetName", target),
            ("SessionType", "Normal"),
            ("HeaderDigest", digest),
            ("DataDigest", digest),
            ("InitialR2T", "Yes"),
            ("ImmediateData", "Yes"),
            ("MaxRecvDataSegmentLength", &most_data.to_string()),
            ("MaxBurstLength", "16384"),
        ] {
            text::write(&mut data, key, value);
        }
        let mut header = Header([0; 48]);
        header.set_bytes(0, &[0x43, 0x87]);
        header.set_bytes(8, &[0x80, 0, 0, 0, 0, isid]);
        header.set_word(24, 1);
        one.send(header, &data);
        let (answer, _) = one.receive();
        assert_eq!((answer.flags(), answer.half(36)), (0x87, 0), "the login was refused");
        one.framing = Framing { header_digest: digests, data_digest: digests, most_data };
        one
    }

    /// Its stream, to do with it what no initiator does.
    pub(crate) fn stream(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    pub(crate) fn send(&mut self, header: Header, data: &[u8]) {
        let mut out = Vec::new();
        self.framing.write(&mut out, header, data);
        if let (true, Some(last)) = (std::mem::take(&mut self.damage_next), out.last_mut()) {
            *last ^= 1;
        }
        self.stream.write_all(&out).unwrap();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next PDU, or none when the target ended the connection.
    pub(crate) fn try_receive(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            let taken = self.framing.take(&self.bytes).expect("the target's digests are right");
            if let Some((header, data, rest)) = taken {
                let found = (header, data.to_vec());
                self.bytes = rest.to_vec();
                return Some(found);
            }
            let mut more = vec![0; 65536];
            match self.stream.read(&mut more) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.bytes.extend_from_slice(&more[..count]),
            }
        }
    }

    pub(crate) fn receive(&mut self) -> (Header, Vec<u8>) {
        self.try_receive().expect("the target is there")
    }

    /// The header of a command, with a tag and a number of its own.
    pub(crate) fn command(&mut self, cdb: &[u8], reads: u32, writes: u32) -> Header {
        self.task += 1;
        let mut header = Header([0; 48]);
        let flags = 0x80 | if reads > 0 { 0x40 } else { 0 } | if writes > 0 { 0x20 } else { 0 };
        header.set_bytes(0, &[0x01, flags | 1]);
        header.set_word(16, self.task);
        header.set_word(20, reads.max(writes));
        header.set_word(24, self.command_number);
        header.set_word(28, self.expected_status);
        header.set_bytes(32, cdb);
        self.command_number += 1;
        header
    }

    /// Does a command that sends these data, as the target asks for them, or reads so many bytes.
    pub(crate) fn perform(&mut self, cdb: &[u8], out: &[u8], reads: u32) -> Done {
        let header = self.command(cdb, reads, out.len() as u32);
        self.send(header, &[]);
        self.finish(out)
    }

    /// Sends what is asked for, and waits for the status of the last command.
    pub(crate) fn finish(&mut self, out: &[u8]) -> Done {
        let mut data = Vec::new();
        loop {
            let (header, bytes) = self.receive();
            match header.opcode() {
                0x25 => {
                    assert_eq!(header.word(40) as usize, data.len(), "data come in order");
                    data.extend(bytes);
                    if header.flags() & 1 != 0 {
                        return Done { status: header.bytes::<4>(0)[3], data, sense: None };
                    }
                }
                0x21 => {
                    let sense = bytes.get(2..).filter(|sense| sense.len() >= 14);
                    return Done {
                        status: header.bytes::<4>(0)[3],
                        data,
                        sense: sense.map(|sense| (sense[2] & 0xf, sense[12], sense[13])),
                    };
                }
                0x31 => self.answer(&header, out),
                // What it is told of its own accord.
                0x32 => {}
                other => panic!("PDU {other:x} came"),
            }
        }
    }

    /// Sends a sequence that is asked for, in PDUs of 4 KiB.
    pub(crate) fn answer(&mut self, asked: &Header, out: &[u8]) {
        let (from, length) = (asked.word(40) as usize, asked.word(44) as usize);
        let pieces: Vec<_> = out[from..from + length].chunks(4096).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let mut header = Header([0; 48]);
            let is_last = number + 1 == pieces.len();
            header.set_bytes(0, &[0x05, if is_last { 0x80 } else { 0 }]);
            header.set_word(16, asked.word(16));
            header.set_word(20, asked.word(20));
            header.set_word(36, number as u32);
            header.set_word(40, (from + number * 4096) as u32);
            self.send(header, piece);
        }
    }

    /// Asks for a task to be aborted.
    pub(crate) fn send_abort(&mut self, tag: u32) {
        self.send_management(1, tag);
    }

    fn send_management(&mut self, function: u8, tag: u32) {
        let mut header = Header([0; 48]);
        header.set_bytes(0, &[0x42, 0x80 | function]);
        header.set_word(16, 0x1000 + tag);
        header.set_word(20, tag);
        header.set_word(24, self.command_number);
        self.send(header, &[]);
    }

    /// A function of task management; its response.
    pub(crate) fn manage(&mut self, function: u8, tag: u32) -> u8 {
        self.send_management(function, tag);
        let (answer, _) = self.receive();
        assert_eq!(answer.opcode(), 0x22);
        answer.bytes::<4>(0)[2]
    }
}
