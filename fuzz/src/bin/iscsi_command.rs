//! Commands and their data, from two initiators in turn.
#![no_main]

use std::sync::Arc;

use strongroom_block::testing::MemoryDevice;
use strongroom_iscsi::scsi::{Identity, LogicalUnit, Nexus, Operation, PortName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let device = Arc::new(MemoryDevice::new(1 << 20).atomic(8192));
    let unit = LogicalUnit::new(device, Identity::default(), None).expect("nothing was kept");
    let unit = Arc::new(unit);
    let join = |port: &[u8]| Nexus::join(&unit, port.to_vec(), PortName::default());
    let nexuses = [join(b"a"), join(b"b")];
    let mut rest = bytes;
    for nexus in nexuses.iter().cycle().take(64) {
        let Some((cdb, after)) = rest.split_first_chunk::<16>() else { return };
        let Some((length, after)) = after.split_first_chunk::<2>() else { return };
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (data, after) = after.split_at(length);
        rest = after;
        match nexus.begin(cdb, || vec![[0; 8]]) {
            Ok(Operation::Read { range, .. }) => {
                assert!(range.offset + range.length <= 1 << 20);
                let length = usize::try_from(range.length).expect("it lies within the device");
                nexus.read(range.offset, &mut vec![0; length]).expect("it is within the device");
            }
            Ok(operation) => {
                assert!(operation.data_out(512) <= 32 << 20);
                let _ = nexus.perform(&operation, data);
            }
            Err(_) => {}
        }
    }
});
