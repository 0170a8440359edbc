//! Units without a transport.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use strongroom_block::testing::MemoryDevice;
use strongroom_block::{BlockDevice, Durability, Geometry};
use strongroom_iscsi::scsi::{
    Attention, Denied, Identity, Key, LogicalUnit, Nexus, PortName, Sense, begin_without_unit,
};

const SIZE: u64 = 1 << 20;

fn nexus(device: &Arc<MemoryDevice>) -> Arc<Nexus> {
    let device = Arc::clone(device) as Arc<dyn BlockDevice>;
    let unit = Arc::new(LogicalUnit::new(device, Identity::default(), None).unwrap());
    Nexus::join(&unit, b"a".to_vec(), PortName::default())
}

fn perform(nexus: &Nexus, cdb: &[u8], data: &[u8]) -> Result<Vec<u8>, Denied> {
    let mut whole = [0; 16];
    whole[..cdb.len()].copy_from_slice(cdb);
    let operation = nexus.begin(&whole, || vec![[0; 8]])?;
    nexus.perform(&operation, data)
}

fn byte_at(device: &MemoryDevice, offset: u64) -> u8 {
    let mut bytes = [0; 512];
    device.read_at(offset / 512 * 512, &mut bytes).unwrap();
    bytes[(offset % 512) as usize]
}

#[test]
fn an_unmap_with_one_range_too_many_unmaps_nothing() {
    let device = Arc::new(MemoryDevice::new(SIZE));
    device.write_at(0, &[7; 8192], Durability::Later).unwrap();
    let nexus = nexus(&device);
    let list = |ranges: &[(u64, u32)]| {
        let mut list = vec![0, 0, 0, ranges.len() as u8 * 16, 0, 0, 0, 0];
        for (first, count) in ranges {
            list.extend(first.to_be_bytes());
            list.extend(count.to_be_bytes());
            list.extend([0; 4]);
        }
        list
    };
    let unmap = |ranges: &[(u64, u32)]| {
        let list = list(ranges);
        perform(&nexus, &[0x42, 0, 0, 0, 0, 0, 0, 0, list.len() as u8], &list)
    };
    assert_eq!(unmap(&[(0, 8), (2040, 9)]), Err(Denied::Check(Sense::OUT_OF_RANGE)));
    assert_eq!(byte_at(&device, 0), 7);
    unmap(&[(0, 8), (2040, 8)]).unwrap();
    assert_eq!((byte_at(&device, 0), byte_at(&device, 4096)), (0, 7));
    let status = perform(&nexus, &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40], &[]).unwrap();
    // Eight blocks unmapped, then eight that are there.
    assert_eq!(status[8..21], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1]);
    assert_eq!(status[24..37], [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0]);
}

#[test]
fn a_comparison_that_fails_tells_where_and_writes_nothing() {
    let device = Arc::new(MemoryDevice::new(SIZE));
    let nexus = nexus(&device);
    let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut data = vec![0; 1024];
    data[100] = 1;
    data[512..].fill(9);
    let differs = Err(Denied::Check(Sense::MISCOMPARE.about(100)));
    assert_eq!(perform(&nexus, &cdb, &data), differs);
    assert_eq!(byte_at(&device, 0), 0);
    data[100] = 0;
    perform(&nexus, &cdb, &data).unwrap();
    assert_eq!(byte_at(&device, 0), 9);
}

#[test]
fn bits_are_added_to_those_there() {
    let device = Arc::new(MemoryDevice::new(SIZE));
    device.write_at(0, &[0x0f; 512], Durability::Later).unwrap();
    let nexus = nexus(&device);
    let cdb = [0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    perform(&nexus, &cdb, &[0x50; 512]).unwrap();
    assert_eq!(byte_at(&device, 511), 0x5f);
}

#[test]
fn fua_is_durable_and_synchronize_flushes() {
    let device = Arc::new(MemoryDevice::new(SIZE));
    let nexus = nexus(&device);
    perform(&nexus, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1], &[1; 512]).unwrap();
    assert_eq!((device.durable(), device.flushes()), (0, 0));
    perform(&nexus, &[0x2a, 0x08, 0, 0, 0, 0, 0, 0, 1], &[1; 512]).unwrap();
    perform(&nexus, &[0x35], &[]).unwrap();
    assert_eq!((device.durable(), device.flushes()), (1, 1));
}

#[test]
fn blocks_are_written_as_one_or_not_at_all() {
    let write = [0x9c, 0x08, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let plain = nexus(&Arc::new(MemoryDevice::new(SIZE)));
    let unknown = Err(Denied::Check(Sense::INVALID_OPCODE));
    assert_eq!(perform(&plain, &write, &[1; 1024]), unknown);
    let device = Arc::new(MemoryDevice::new(SIZE).atomic(1024));
    let nexus = nexus(&device);
    let short = Err(Denied::Check(Sense::invalid_field(12)));
    assert_eq!(perform(&nexus, &write, &[1; 512]), short);
    assert_eq!((byte_at(&device, 512), device.durable()), (0, 0));
    perform(&nexus, &write, &[1; 1024]).unwrap();
    assert_eq!((byte_at(&device, 512), byte_at(&device, 1535), device.durable()), (1, 1, 1));
    // How it is asked for is told to those that can do it.
    let ask = [0xa3, 0x0c, 1, 0x9c, 0, 0, 0, 0, 0, 64];
    assert_eq!(perform(&plain, &ask, &[]).unwrap(), [0, 1, 0, 0]);
    assert_eq!(perform(&nexus, &ask, &[]).unwrap()[..5], [0, 3, 0, 16, 0x9c]);
}

#[test]
fn what_may_only_be_read_is_not_written() {
    let geometry = Geometry { read_only: true, ..MemoryDevice::new(SIZE).geometry() };
    let nexus = nexus(&Arc::new(MemoryDevice::with(geometry)));
    let denied = Err(Denied::Check(Sense::WRITE_PROTECTED));
    for cdb in [
        &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[0x41, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x42, 0, 0, 0, 0, 0, 0, 0, 24],
        &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x83, 0],
    ] {
        assert_eq!(perform(&nexus, cdb, &[]), denied, "{cdb:x?}");
    }
    let mode = perform(&nexus, &[0x1a, 0x08, 0x3f, 0, 255], &[]).unwrap();
    assert_eq!(mode[2], 0x90);
}

#[test]
fn an_initiator_may_forbid_writes_and_all_hear_of_it() {
    let device = Arc::new(MemoryDevice::new(SIZE));
    let first = nexus(&device);
    let second = Nexus::join(first.unit(), b"b".to_vec(), PortName::default());
    let mut mode = perform(&first, &[0x1a, 0x08, 0x0a, 0, 255], &[]).unwrap();
    mode[0] = 0;
    mode[2] = 0;
    mode[4 + 4] |= 0x08;
    perform(&first, &[0x15, 0x10, 0, 0, mode.len() as u8], &mode).unwrap();
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1];
    let told = Attention::ModeParametersChanged.sense();
    assert_eq!(perform(&second, &write, &[1; 512]), Err(Denied::Check(told)));
    for one in [&first, &second] {
        let denied = Err(Denied::Check(Sense::SOFTWARE_PROTECTED));
        assert_eq!(perform(one, &write, &[1; 512]), denied);
    }
    first.unit().reset();
    let _ = perform(&first, &[0], &[]);
    perform(&first, &write, &[1; 512]).unwrap();
}

#[test]
fn a_disk_is_not_ejected_and_not_stopped() {
    let nexus = nexus(&Arc::new(MemoryDevice::new(SIZE)));
    let denied = Err(Denied::Check(Sense::invalid_field(4)));
    assert_eq!(perform(&nexus, &[0x1b, 0, 0, 0, 2], &[]), denied);
    perform(&nexus, &[0x1b, 0, 0, 0, 0], &[]).unwrap();
    perform(&nexus, &[0], &[]).unwrap();
}

#[test]
fn a_copy_names_the_unit_itself() {
    let device = Arc::new(MemoryDevice::new(SIZE));
    device.write_at(0, &[5; 4096], Durability::Later).unwrap();
    let nexus = nexus(&device);
    let page = perform(&nexus, &[0x12, 1, 0x83, 0, 255], &[]).unwrap();
    let name = &page[8..16];
    let copy = |name: &[u8]| {
        let mut data = vec![1, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
        data.extend([0xe4, 0, 0, 0, 1, 3, 0, 8]);
        data.extend(name);
        data.extend([0; 16]);
        data.extend([2, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 8]);
        data.extend(0_u64.to_be_bytes());
        data.extend(1024_u64.to_be_bytes());
        let cdb = [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, data.len() as u8];
        perform(&nexus, &cdb, &data)
    };
    let unreachable = Sense::new(Key::CopyAborted, 0x0d, 0x02);
    assert_eq!(copy(&[0; 8]), Err(Denied::Check(unreachable)));
    copy(name).unwrap();
    assert_eq!((byte_at(&device, 1024 * 512), byte_at(&device, 1032 * 512)), (5, 0));
    let status = [0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255];
    assert_eq!(perform(&nexus, &status, &[]).unwrap(), [0, 0, 0, 8, 1, 0, 1, 1, 0, 0, 0, 4]);
}

#[test]
fn a_number_without_a_unit_says_so() {
    let mut inquiry = [0; 16];
    (inquiry[0], inquiry[4]) = (0x12, 36);
    let operation = begin_without_unit(&inquiry, Vec::new).unwrap();
    let strongroom_iscsi::scsi::Operation::Answer(bytes) = operation else { panic!("no answer") };
    assert_eq!((bytes[0], bytes.len()), (0x7f, 36));
    assert_eq!(begin_without_unit(&[0; 16], Vec::new), Err(Denied::Check(Sense::NO_UNIT)));
}
