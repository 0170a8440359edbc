//! What no initiator should send once it has logged in: the server goes on, and has all of its memory again.
//!
//! `STRONGROOM_HOSTILE_SESSIONS` says how many sessions there are, `STRONGROOM_HOSTILE_SEED` with which they begin.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strongroom_block::testing::MemoryDevice;
use strongroom_iscsi::Limits;
use strongroom_iscsi::pdu::{Framing, Header};
use strongroom_iscsi::scsi::{Identity, LogicalUnit};
use support::Served;
use support::initiator::Initiator;

const A: &str = "iqn.2026-11.org.example:a";
const FRAMING: Framing = Framing { header_digest: false, data_digest: false, most_data: 1 << 20 };
/// Commands, of which most are right before something is changed in them.
const COMMANDS: &[[u8; 16]] = &[
    [0x2a, 0, 0, 0, 0, 1, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0],
    [0x28, 0, 0, 0, 0, 1, 0, 1, 128, 0, 0, 0, 0, 0, 0, 0],
    [0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0],
    [0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 16, 0, 0],
    [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0],
    [0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0],
    [0x8f, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
    [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0],
    [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0],
    [0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0],
    [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 76, 0, 0],
    [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x12, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// What was asked for and not sent yet: the headers of R2Ts.
type Asked = Arc<Mutex<Vec<Header>>>;

/// Takes all that the target says, until it ends.
fn listen(mut stream: TcpStream, asked: &Asked) {
    let (mut bytes, mut more) = (Vec::new(), vec![0; 65536]);
    while let Ok(count @ 1..) = stream.read(&mut more) {
        bytes.extend_from_slice(&more[..count]);
        let mut at = 0;
        while let Some((header, _, rest)) = FRAMING.take(&bytes[at..]).unwrap() {
            if header.opcode() == 0x31 {
                asked.lock().unwrap().push(header);
            }
            at = bytes.len() - rest.len();
        }
        bytes.drain(..at);
    }
}

/// A PDU that is not quite what it should be, and its data.
fn pdu(rng: &mut Rng, number: &mut u32, asked: &Asked) -> (Header, Vec<u8>) {
    let mut header = Header([0; 48]);
    let mut data = vec![rng.next() as u8; rng.of(&[0, 0, 1, 511, 512, 4096, 8192, 65536])];
    let opcode = rng.of(&[0x01, 0x01, 0x01, 0x01, 0x05, 0x05, 0x05, 0x00, 0x02, 0x04, 0x10, 0x1c]);
    let immediate = if rng.one_in(8) { 0x40 } else { 0 };
    let flags = rng.of(&[0xa0, 0xa0, 0xa0, 0xa0, 0xa2, 0xc0, 0xc0, 0x80, 0xe0, 0x20, 0xff]);
    if opcode == 0x01 && (flags & 0x20 == 0 || rng.one_in(2)) {
        data.clear();
    }
    header.set_bytes(0, &[opcode | immediate, flags]);
    header.set_word(16, rng.below(100) as u32);
    header.set_word(20, rng.of(&[0, 512, 8192, 65536, 65536, 131_072, 32 << 20, u32::MAX]));
    header.set_word(24, *number);
    match opcode {
        0x01 => {
            let mut cdb = rng.of(COMMANDS);
            if rng.one_in(4) {
                cdb[rng.below(16)] = rng.next() as u8;
            }
            header.set_bytes(32, &cdb);
        }
        0x02 => header.set_bytes(1, &[0x80 | rng.of(&[1, 1, 1, 2, 4, 5, 6, 3, 8, 9])]),
        0x04 => {
            data = rng.of(&[&b"SendTargets=All\0"[..], b"X=Y\0", b"nothing"]).repeat(rng.below(99))
        }
        // What was asked for, as it was, or in part, or from elsewhere.
        0x05 => {
            let found = asked.lock().unwrap().pop();
            if let Some(found) = found {
                header.set_bytes(0, &[opcode, rng.of(&[0x80, 0x80, 0x00])]);
                header.set_word(16, found.word(16));
                header.set_word(20, found.word(20));
                header.set_word(40, found.word(40) + rng.of(&[0, 0, 0, 0, 1, 512]));
                let length = found.word(44) as usize;
                data.resize(rng.of(&[length, length, length / 2, 0]).min(256 << 10), 7);
            }
        }
        _ => {}
    }
    let is_numbered = !matches!(opcode, 0x05 | 0x10) && immediate == 0;
    *number = number.wrapping_add(u32::from(is_numbered));
    if rng.one_in(200) {
        header.0[rng.below(48)] = rng.next() as u8;
    }
    (header, data)
}

fn session(served: &Served, seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let one = Initiator::log_in(served.address, A, 1, false);
    let (mut stream, asked) = (one.stream(), Asked::default());
    let mut number = one.command_number;
    std::thread::scope(|scope| {
        let (listening, asked) = (one.stream(), &asked);
        scope.spawn(move || listen(listening, asked));
        for _ in 0..200 {
            let (header, data) = pdu(&mut rng, &mut number, asked);
            let mut bytes = Vec::new();
            FRAMING.write(&mut bytes, header, &data);
            if stream.write_all(&bytes).is_err() {
                break;
            }
        }
        // It has all of it taken; an error means that the target has ended it.
        let _ = stream.shutdown(Shutdown::Write);
    });
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

#[test]
fn nothing_that_is_sent_stops_the_server_or_keeps_its_memory() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |about| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(about);
    }));
    const OF_THREAD: usize = 1600 << 10;
    const LENGTH: usize = 65535 * 512;
    let device = Arc::new(MemoryDevice::new(64 << 20).atomic(131_072));
    let unit = LogicalUnit::new(device, Identity::default(), None).unwrap();
    // Of connections there may be some that are about to end; of data there is room for one long write.
    let limits = Limits { workers: 4, memory: 6 * OF_THREAD + LENGTH, ..Limits::default() };
    let served = Served::within(limits, unit);
    let (first, count) =
        (setting("STRONGROOM_HOSTILE_SEED", 1), setting("STRONGROOM_HOSTILE_SESSIONS", 40));
    let end = Instant::now() + Duration::from_secs(120 + count);
    let until_gone = |seed| {
        while !served.target.sessions().is_empty() {
            assert!(Instant::now() < end, "the session of seed {seed} stays");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for seed in first..first + count {
        session(&served, seed);
        until_gone(seed);
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "seed {seed}");
    }
    let mut one = Initiator::log_in(served.address, A, 1, false);
    // Modes and what it has to hear.
    assert_eq!(one.manage(5, 0), 0);
    while one.perform(&[0; 6], &[], 0).status == 2 {}
    loop {
        let header = one.command(&[0x2a, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 0, LENGTH as u32);
        one.send(header, &[]);
        let (answer, _) = one.receive();
        if answer.opcode() == 0x31 {
            break;
        }
        // BUSY, while connections before it are about to end.
        assert_eq!((answer.opcode(), answer.bytes::<4>(0)[3]), (0x21, 0x08));
        assert!(Instant::now() < end, "memory isn't given back");
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}
