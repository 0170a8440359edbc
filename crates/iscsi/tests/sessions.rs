//! Sessions as initiators see them, byte for byte.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use strongroom_block::testing::MemoryDevice;
use strongroom_block::{BlockDevice, Durability};
use strongroom_iscsi::Limits;
use strongroom_iscsi::scsi::{Identity, LogicalUnit, ReservationStore};
use support::Served;
use support::initiator::{Done, Initiator, TARGET};

const A: &str = "iqn.2026-11.org.example:a";
const B: &str = "iqn.2026-11.org.example:b";

fn served() -> (Served, Arc<MemoryDevice>) {
    let device = Arc::new(MemoryDevice::new(16 << 20));
    (Served::device(Arc::clone(&device) as _), device)
}

fn write10(block: u32, blocks: u16) -> Vec<u8> {
    let mut cdb = vec![0x2a, 0];
    cdb.extend(block.to_be_bytes());
    cdb.push(0);
    cdb.extend(blocks.to_be_bytes());
    cdb
}

fn read10(block: u32, blocks: u16) -> Vec<u8> {
    let mut cdb = write10(block, blocks);
    cdb[0] = 0x28;
    cdb
}

#[test]
fn what_is_written_is_read_with_and_without_digests() {
    let (served, _) = served();
    let data: Vec<u8> = (0..65536_u32).map(|n| (n % 251) as u8).collect();
    for (isid, digests) in [(1, false), (2, true)] {
        let mut one = Initiator::log_in(served.address, A, isid, digests);
        assert_eq!(one.perform(&write10(7, 128), &data, 0), Done::good(&[]));
        assert_eq!(one.perform(&read10(7, 128), &[], 65536), Done::good(&data));
        // Immediate data, without a question.
        let header = one.command(&write10(300, 8), 0, 4096);
        one.send(header, &data[..4096]);
        assert_eq!(one.finish(&[]), Done::good(&[]));
        assert_eq!(one.perform(&read10(300, 8), &[], 4096), Done::good(&data[..4096]));
    }
}

#[test]
fn many_commands_in_one_write_are_all_answered() {
    let (served, _) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    let framing = strongroom_iscsi::pdu::Framing::LOGIN;
    let mut bytes = Vec::new();
    for block in 0..100 {
        let header = one.command(&read10(block, 1), 512, 0);
        framing.write(&mut bytes, header, &[]);
    }
    one.send_raw(&bytes);
    for _ in 0..100 {
        assert_eq!(one.finish(&[]), Done::good(&[0; 512]));
    }
}

#[test]
fn a_damaged_header_ends_the_connection_and_the_rest_goes_on() {
    let (served, _) = served();
    let mut other = Initiator::log_in(served.address, B, 1, true);
    let mut one = Initiator::log_in(served.address, A, 1, true);
    let header = one.command(&[0], 0, 0);
    let mut bytes = header.0.to_vec();
    bytes.extend([1, 2, 3, 4]);
    one.send_raw(&bytes);
    assert_eq!(one.try_receive(), None);
    assert_eq!(other.perform(&[0], &[], 0), Done::good(&[]));
}

#[test]
fn damaged_data_are_rejected_and_not_written() {
    let (served, device) = served();
    let mut one = Initiator::log_in(served.address, A, 1, true);
    let header = one.command(&write10(0, 8), 0, 4096);
    one.send(header, &[]);
    let (asked, _) = one.receive();
    one.damage_next = true;
    one.answer(&asked, &[9; 4096]);
    let (reject, rejected) = one.receive();
    assert_eq!((reject.opcode(), reject.bytes::<4>(0)[2], rejected[0]), (0x3f, 0x02, 0x05));
    assert_eq!(one.try_receive(), None);
    let mut there = [1; 512];
    device.read_at(0, &mut there).unwrap();
    assert_eq!(there, [0; 512]);
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    const OF_THREAD: usize = 1600 << 10;
    let device = Arc::new(MemoryDevice::new(64 << 20));
    let unit = LogicalUnit::new(device, Identity::default(), None).unwrap();
    // One worker, three connections, and data.
    let limits = Limits { workers: 1, memory: 4 * OF_THREAD + (96 << 20), ..Limits::default() };
    let served = Served::within(limits, unit);
    let mut one = Initiator::log_in(served.address, A, 1, false);
    let mut other = Initiator::log_in(served.address, B, 1, false);
    let mut third = Initiator::log_in(served.address, B, 2, false);
    let ask = |who: &mut Initiator| {
        let header = who.command(&write10(0, 65535), 0, 65535 * 512);
        who.send(header, &[]);
        header.task()
    };
    let first = ask(&mut one);
    assert_eq!(one.receive().0.opcode(), 0x31);
    ask(&mut one);
    assert_eq!(one.receive().0.opcode(), 0x31);
    // What is left is for others: TASK SET FULL tells it to end a task first.
    ask(&mut one);
    assert_eq!(one.finish(&[]), Done { status: 0x28, data: Vec::new(), sense: None });
    ask(&mut other);
    assert_eq!(other.receive().0.opcode(), 0x31);
    // Now there is no room for a few blocks, nor for a connection: BUSY, for it has no task.
    let few = |who: &mut Initiator| who.perform(&write10(0, 8), &[7; 4096], 0);
    assert_eq!(few(&mut third), Done { status: 0x08, data: Vec::new(), sense: None });
    let mut fourth = TcpStream::connect(served.address).unwrap();
    assert_eq!(fourth.read(&mut [0; 1]).unwrap_or(0), 0);
    // Data that come with their command need none.
    let header = third.command(&write10(8, 8), 0, 4096);
    third.send(header, &[7; 4096]);
    assert_eq!(third.finish(&[]), Done::good(&[]));
    assert_eq!(one.manage(1, first), 0);
    assert_eq!(few(&mut third), Done::good(&[]));
    assert_eq!(third.perform(&read10(0, 16), &[], 8192), Done::good(&[7; 8192]));
    Initiator::log_in(served.address, B, 3, false);
}

#[test]
fn no_more_is_moved_than_may_be() {
    let served = Served::device(Arc::new(MemoryDevice::new(64 << 20)));
    let mut one = Initiator::log_in(served.address, A, 1, false);
    // One block more than may be moved at once, and one that nobody can have.
    let mut cdb = [0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0];
    let header = one.command(&cdb, 0, 65537 * 512);
    one.send(header, &[]);
    assert_eq!(one.finish(&[]), Done::check(5, 0x24, 0));
    cdb[2] = 0xff;
    assert_eq!(one.perform(&cdb, &[1; 512], 0), Done::check(5, 0x21, 0));
}

#[test]
fn blocks_are_read_whole_by_those_who_take_odd_pieces_of_them() {
    let (served, device) = served();
    let data: Vec<u8> = (0..600 * 512_u32).map(|n| (n % 251) as u8).collect();
    device.write_at(512, &data, Durability::Later).unwrap();
    let mut one = Initiator::log_in_taking(1000, TARGET, served.address, A, 1, false);
    assert_eq!(one.perform(&read10(1, 600), &[], 600 * 512), Done::good(&data));
    // Less than it asks for, and not of whole blocks.
    assert_eq!(one.perform(&read10(1, 600), &[], 300_001), Done::good(&data[..300_001]));
}

#[test]
fn an_atomic_write_is_read_whole_or_not_at_all() {
    let device = Arc::new(MemoryDevice::new(1 << 20).atomic(16_384));
    let served = Served::device(Arc::clone(&device) as _);
    let mut writer = Initiator::log_in(served.address, A, 1, false);
    let mut reader = Initiator::log_in(served.address, B, 1, false);
    let write = |blocks| [0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, blocks, 0, 0];
    // 33 blocks are more than it can.
    assert_eq!(writer.perform(&write(33), &[0; 33 * 512], 0), Done::check(5, 0x24, 0));
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            for n in 1..=100 {
                assert_eq!(writer.perform(&write(32), &[n; 32 * 512], 0), Done::good(&[]));
            }
        });
        // In pieces of 4 KiB, of which five have some of each write.
        while !writing.is_finished() {
            let read = reader.perform(&read10(0, 40), &[], 40 * 512);
            let written = &read.data[4 * 512..36 * 512];
            assert!(written.iter().all(|byte| *byte == written[0]), "half of a write was read");
        }
    });
    let read = reader.perform(&read10(4, 1), &[], 512);
    assert_eq!(read, Done::good(&[100; 512]));
}

#[test]
fn what_is_not_known_is_rejected_and_the_next_is_done() {
    let (served, _) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    for opcode in [0x1c, 0x1e] {
        let mut header = one.command(&[0], 0, 0);
        header.set_bytes(0, &[opcode, 0x80]);
        one.send(header, &[]);
        let (reject, rejected) = one.receive();
        assert_eq!((reject.opcode(), reject.bytes::<4>(0)[2]), (0x3f, 0x05));
        assert_eq!(rejected[0], opcode);
    }
    assert_eq!(one.perform(&[0], &[], 0), Done::good(&[]));
    // More than the window's commands, one after the other: each that ends makes room.
    for _ in 0..300 {
        let mut header = one.command(&[0], 0, 0);
        header.set_bytes(0, &[0x1c, 0x80]);
        one.send(header, &[]);
        let (reject, _) = one.receive();
        assert!(reject.word(32).wrapping_sub(one.command_number) < 128);
    }
}

#[test]
fn a_ping_comes_back_as_it_was() {
    let (served, _) = served();
    let mut one = Initiator::log_in(served.address, A, 1, true);
    let mut header = one.command(&[0], 0, 0);
    header.set_bytes(0, &[0x00, 0x80]);
    header.set_word(20, 0xffff_ffff);
    one.send(header, b"are you there?");
    let (answer, data) = one.receive();
    assert_eq!((answer.opcode(), answer.word(16), &data[..]), (0x20, 1, &b"are you there?"[..]));
}

#[test]
fn a_logout_is_answered_and_ends_the_session() {
    let (served, _) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    let mut header = one.command(&[0], 0, 0);
    header.set_bytes(0, &[0x06, 0x80]);
    one.send(header, &[]);
    let (answer, _) = one.receive();
    assert_eq!((answer.opcode(), answer.bytes::<4>(0)[2]), (0x26, 0));
    assert_eq!(one.try_receive(), None);
}

#[test]
fn hostile_bytes_end_their_own_connection_only() {
    let (served, _) = served();
    let mut other = Initiator::log_in(served.address, B, 1, false);
    let mut state = 1_u64;
    for _ in 0..200 {
        let mut one = Initiator::log_in(served.address, A, 1, false);
        let mut bytes = Vec::new();
        for _ in 0..256 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((state >> 33) as u8);
        }
        // The kinds that initiators send, and lengths that are taken.
        bytes[0] = [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x41][(state % 8) as usize];
        (bytes[4], bytes[5], bytes[6]) = (0, 0, 0);
        one.send_raw(&bytes);
    }
    assert_eq!(other.perform(&[0], &[], 0), Done::good(&[]));
    drop(other);
    served.server.stop();
    assert!(served.target.sessions().is_empty());
}

#[test]
fn the_same_initiator_port_takes_the_place_of_its_session() {
    let (served, _) = served();
    let mut first = Initiator::log_in(served.address, A, 1, false);
    let mut other = Initiator::log_in(served.address, A, 2, false);
    let mut again = Initiator::log_in(served.address, A, 1, false);
    assert_eq!(first.try_receive(), None);
    assert_eq!(again.perform(&[0], &[], 0), Done::good(&[]));
    assert_eq!(other.perform(&[0], &[], 0), Done::good(&[]));
    assert_eq!(served.target.sessions().len(), 2);
}

#[test]
fn a_task_that_waits_for_data_can_be_aborted() {
    let (served, device) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    let header = one.command(&write10(0, 8), 0, 4096);
    one.send(header, &[]);
    let (asked, _) = one.receive();
    assert_eq!(asked.opcode(), 0x31);
    assert_eq!(one.manage(1, header.task()), 0);
    assert_eq!(one.manage(1, header.task()), 1);
    // What still comes for it is thrown away.
    one.answer(&asked, &[9; 4096]);
    assert_eq!(one.perform(&read10(0, 8), &[], 4096), Done::good(&[0; 4096]));
    drop(device);
}

#[test]
fn an_ordered_command_comes_after_those_before_it() {
    let (served, _) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    let write = one.command(&write10(0, 8), 0, 4096);
    one.send(write, &[]);
    let (asked, _) = one.receive();
    let mut read = one.command(&read10(0, 8), 4096, 0);
    read.set_flags(0xc2);
    one.send(read, &[]);
    one.answer(&asked, &[9; 4096]);
    assert_eq!(one.finish(&[]), Done::good(&[]));
    assert_eq!(one.finish(&[]), Done::good(&[9; 4096]));
}

#[test]
fn what_was_put_behind_a_task_that_is_aborted_is_done() {
    let (served, _) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    let write = one.command(&write10(0, 8), 0, 4096);
    one.send(write, &[]);
    assert_eq!(one.receive().0.opcode(), 0x31);
    let mut ordered = one.command(&read10(0, 8), 4096, 0);
    ordered.set_flags(0xc2);
    one.send(ordered, &[]);
    let behind = one.command(&[0], 0, 0);
    one.send(behind, &[]);
    assert_eq!(one.manage(1, write.task()), 0);
    assert_eq!(one.finish(&[]), Done::good(&[0; 4096]));
    assert_eq!(one.finish(&[]), Done::good(&[]));
}

#[test]
fn a_reset_is_told_to_all_and_ends_what_waits() {
    let (served, _) = served();
    let mut a = Initiator::log_in(served.address, A, 1, false);
    let mut b = Initiator::log_in(served.address, B, 1, false);
    assert_eq!(b.perform(&[0x16], &[], 0), Done::good(&[]));
    assert_eq!(a.perform(&[0], &[], 0), Done::conflict());
    let header = b.command(&write10(0, 8), 0, 4096);
    b.send(header, &[]);
    let (asked, _) = b.receive();
    assert_eq!(a.manage(5, 0), 0);
    b.answer(&asked, &[9; 4096]);
    for one in [&mut a, &mut b] {
        assert_eq!(one.perform(&[0], &[], 0), Done::check(6, 0x29, 3));
        assert_eq!(one.perform(&[0], &[], 0), Done::good(&[]));
    }
    assert_eq!(a.perform(&read10(0, 8), &[], 4096), Done::good(&[0; 4096]));
}

#[test]
fn growth_is_told_at_once_and_with_the_next_command() {
    let (served, device) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    assert_eq!(one.perform(&[0], &[], 0), Done::good(&[]));
    device.grow(32 << 20);
    served.target.look_at_sizes();
    let (header, data) = one.receive();
    assert_eq!(
        (header.opcode(), &data[2..]),
        (0x32, &[0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 9, 0, 0, 0, 0][..])
    );
    assert_eq!(one.perform(&[0], &[], 0), Done::check(6, 0x2a, 9));
    let capacity = one.perform(&[0x25], &[], 8);
    assert_eq!(capacity, Done::good(&[0, 0, 0xff, 0xff, 0, 0, 2, 0]));
}

#[test]
fn units_come_and_go_while_a_session_stays() {
    let (served, _) = served();
    let mut one = Initiator::log_in(served.address, A, 1, false);
    assert_eq!(one.perform(&[0], &[], 0), Done::good(&[]));
    let unit = served.target.unit(0).unwrap();
    let header = one.command(&write10(0, 8), 0, 4096);
    one.send(header, &[]);
    let (asked, _) = one.receive();
    served.target.unmap(0);
    // What was on the way ends without an answer, and isn't done.
    one.answer(&asked, &[9; 4096]);
    assert_eq!(one.perform(&[0], &[], 0), Done::check(5, 0x25, 0));
    served.target.map(0, unit).unwrap();
    assert_eq!(one.perform(&[0], &[], 0), Done::good(&[]));
    assert_eq!(one.perform(&read10(0, 8), &[], 4096), Done::good(&[0; 4096]));
    served.server.remove(support::initiator::TARGET);
    assert_eq!(one.try_receive(), None);
}

/// Keeps reservations in memory.
#[derive(Debug, Default)]
struct Kept(Mutex<Option<Vec<u8>>>);

impl ReservationStore for Kept {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn keep(&self, reservations: Option<&[u8]>) -> std::io::Result<()> {
        *self.0.lock().unwrap() = reservations.map(<[u8]>::to_vec);
        Ok(())
    }
}

fn reserve(action: u8, kind: u8, key: u64, new: u64) -> ([u8; 10], Vec<u8>) {
    let mut parameters = [key.to_be_bytes(), new.to_be_bytes(), [0; 8]].concat();
    parameters[20] = u8::from(matches!(action, 0 | 6));
    ([0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], parameters)
}

#[test]
fn persistent_reservations_outlast_sessions_and_restarts() {
    let (device, kept) = (Arc::new(MemoryDevice::new(16 << 20)), Arc::new(Kept::default()));
    let start = || {
        let (device, kept) = (Arc::clone(&device), Arc::clone(&kept));
        let unit = LogicalUnit::new(device, Identity::default(), Some(kept)).unwrap();
        Served::unit(unit)
    };
    let served = start();
    let mut a = Initiator::log_in(served.address, A, 1, false);
    let mut b = Initiator::log_in(served.address, B, 1, false);
    for (one, key) in [(&mut a, 1), (&mut b, 2)] {
        let (cdb, data) = reserve(0, 0, 0, key);
        assert_eq!(one.perform(&cdb, &data, 0), Done::good(&[]));
    }
    let (cdb, data) = reserve(1, 1, 1, 0);
    assert_eq!(a.perform(&cdb, &data, 0), Done::good(&[]));
    assert_eq!(b.perform(&write10(0, 1), &[1; 512], 0), Done::conflict());
    assert_eq!(b.perform(&read10(0, 1), &[], 512), Done::good(&[0; 512]));
    // The one who holds it goes, and comes back.
    drop(a);
    let mut a = Initiator::log_in(served.address, A, 1, false);
    assert_eq!(a.perform(&write10(0, 1), &[1; 512], 0), Done::good(&[]));
    assert_eq!(b.perform(&write10(0, 1), &[2; 512], 0), Done::conflict());
    drop((a, b, served));

    let served = start();
    let mut b = Initiator::log_in(served.address, B, 1, false);
    let mut a = Initiator::log_in(served.address, A, 1, false);
    assert_eq!(b.perform(&write10(0, 1), &[2; 512], 0), Done::conflict());
    assert_eq!(a.perform(&write10(0, 1), &[3; 512], 0), Done::good(&[]));
    // The other takes over, and the first hears of it.
    let (cdb, data) = reserve(5, 1, 2, 1);
    assert_eq!(b.perform(&cdb, &data, 0), Done::good(&[]));
    assert_eq!(a.perform(&write10(0, 1), &[4; 512], 0), Done::check(6, 0x2a, 5));
    assert_eq!(a.perform(&write10(0, 1), &[4; 512], 0), Done::conflict());
    assert_eq!(b.perform(&read10(0, 1), &[], 512), Done::good(&[3; 512]));
    let (cdb, data) = reserve(3, 0, 2, 0);
    assert_eq!(b.perform(&cdb, &data, 0), Done::good(&[]));
    assert_eq!(*kept.0.lock().unwrap(), None);
}
