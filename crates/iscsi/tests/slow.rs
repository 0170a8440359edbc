//! A device that takes its time: who waits for it, and who doesn't.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::{Arc, Condvar, Mutex};

use strongroom_block::testing::MemoryDevice;
use strongroom_block::{BlockDevice, Durability, Extent, Geometry, Result, Zeroing};
use strongroom_iscsi::pdu::Header;
use support::Served;
use support::initiator::{Done, Initiator};

/// Its flushes end when they are let.
#[derive(Debug)]
struct Gated {
    memory: MemoryDevice,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    waiting: u32,
}

impl Gated {
    fn new() -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { memory: MemoryDevice::new(1 << 20), state, changed })
    }

    fn wait_for_flushes(&self, count: u32) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.waiting < count).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }
}

impl BlockDevice for Gated {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.memory.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8], durability: Durability) -> Result<()> {
        self.memory.write_at(offset, bytes, durability)
    }

    fn write_zeroes(&self, at: u64, length: u64, how: Zeroing, when: Durability) -> Result<()> {
        self.memory.write_zeroes(at, length, how, when)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.memory.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.is_open).unwrap());
        self.memory.flush()
    }

    fn compare_and_write(
        &self,
        offset: u64,
        expected: &[u8],
        bytes: &[u8],
        durability: Durability,
    ) -> Result<Option<u64>> {
        self.memory.compare_and_write(offset, expected, bytes, durability)
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.memory.extents(offset, length, most)
    }

    fn id(&self) -> [u8; 16] {
        self.memory.id()
    }
}

const SYNCHRONIZE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn a_flush_keeps_no_other_command_waiting() {
    let device = Gated::new();
    let served = Served::device(Arc::clone(&device) as _);
    let mut one = Initiator::log_in(served.address, "iqn.2026-11.org.example:a", 1, false);
    let flush = one.command(&SYNCHRONIZE, 0, 0);
    one.send(flush, &[]);
    device.wait_for_flushes(1);
    assert_eq!(one.perform(&READ, &[], 512), Done::good(&[0; 512]));
    device.open();
    assert_eq!(one.finish(&[]), Done::good(&[]));
    assert_eq!(device.memory.flushes(), 1);
}

/// An initiator whose flush the device is at, and a thread that lets that go on.
fn flushing() -> (Arc<Gated>, Served, Initiator, Header, std::thread::JoinHandle<()>) {
    let device = Gated::new();
    let served = Served::device(Arc::clone(&device) as _);
    let mut one = Initiator::log_in(served.address, "iqn.2026-11.org.example:a", 1, false);
    let flush = one.command(&SYNCHRONIZE, 0, 0);
    one.send(flush, &[]);
    device.wait_for_flushes(1);
    let opener = {
        let device = Arc::clone(&device);
        std::thread::spawn(move || device.open())
    };
    (device, served, one, flush, opener)
}

#[test]
fn a_flush_that_is_aborted_has_ended_when_that_is_said() {
    let (device, _served, mut one, flush, opener) = flushing();
    // Either it was aborted, or it had ended just before: then its status comes first.
    one.send_abort(flush.task());
    let (first, _) = one.receive();
    match first.opcode() {
        0x22 => assert_eq!(first.bytes::<4>(0)[2], 0),
        0x21 => assert_eq!(one.receive().0.bytes::<4>(0)[2], 1),
        other => panic!("PDU {other:x} came"),
    }
    assert_eq!(device.memory.flushes(), 1);
    assert_eq!(one.perform(&READ, &[], 512), Done::good(&[0; 512]));
    opener.join().unwrap();
}

#[test]
fn a_server_stops_when_commands_have_ended() {
    let (device, served, _one, _, opener) = flushing();
    served.server.stop();
    assert_eq!(device.memory.flushes(), 1);
    assert!(served.target.sessions().is_empty());
    assert_eq!(served.server.addresses(), []);
    opener.join().unwrap();
}
