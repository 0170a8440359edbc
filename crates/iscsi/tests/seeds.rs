//! What fuzzing begins with is what the parsers take: `fuzz/corpus` holds it, as
//! `crates/archive/tests/seeds.rs` asks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use strongroom_block::testing::MemoryDevice;
use strongroom_iscsi::pdu::{Framing, text};
use strongroom_iscsi::scsi::{Identity, LogicalUnit, Nexus, PortName, Reservations};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(corpus).unwrap();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn pdus_and_logins_are_taken() {
    for bytes in [seeds("iscsi_pdu"), seeds("iscsi_login")].concat() {
        let mut rest = &bytes[1..];
        while !rest.is_empty() {
            let (_, data, after) = Framing::LOGIN.take(rest).unwrap().unwrap();
            assert!(data == b"ping" || !text::read(data).unwrap().is_empty());
            rest = after;
        }
    }
}

#[test]
fn commands_are_done() {
    for bytes in seeds("iscsi_command") {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        let unit = Arc::new(LogicalUnit::new(device, Identity::default(), None).unwrap());
        let nexus = Nexus::join(&unit, b"a".to_vec(), PortName::default());
        let mut rest = &bytes[..];
        while let Some((cdb, after)) = rest.split_first_chunk::<16>() {
            let (length, after) = after.split_first_chunk::<2>().unwrap();
            let (data, after) = after.split_at(u16::from_be_bytes(*length).into());
            let operation = nexus.begin(cdb, Vec::new).unwrap();
            assert_eq!(operation.data_out(512), data.len());
            nexus.perform(&operation, data).unwrap();
            rest = after;
        }
    }
}

#[test]
fn reservations_are_taken_up() {
    for bytes in seeds("iscsi_reservations") {
        assert_eq!(Reservations::take_up(&bytes).unwrap().kept(), Some(bytes));
    }
}
