//! libiscsi's conformance tests (`iscsi-test-cu`) against a thin unit, by number: none may be lost.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "support/conformance.rs"]
mod conformance;
mod support;

use std::process::Command;
use std::sync::Arc;

use self::conformance::Sum;
use self::support::Served;
use strongroom_block::Geometry;
use strongroom_block::testing::MemoryDevice;
use strongroom_iscsi::scsi::{Identity, LogicalUnit};

/// Runs the tests of that name on two paths to one unit with such physical blocks.
fn sum(name: &str, physical: u32) -> Sum {
    let geometry = Geometry {
        size: 64 << 20,
        block: 512,
        physical,
        optimal: 65536,
        read_only: false,
        thin: true,
    };
    let identity = Identity { removable: true, ..Identity::default() };
    let device = Arc::new(MemoryDevice::with(geometry).atomic(131_072));
    let served = Served::unit(LogicalUnit::new(device, identity, None).unwrap());
    let (first, second) = (served.url(), served.url());
    let arguments = ["--dataloss", "--Verbose-scsi", "--test", name, &first, &second];
    let output = Command::new("iscsi-test-cu").args(arguments).output().unwrap();
    println!("{name}:");
    Sum::of(&String::from_utf8_lossy(&output.stdout))
}

/// What skips: SANITIZE (11; it needs a permission), a unit that is read-only (1), tests of physical blocks larger
/// than logical ones (5), which the other test runs, WRITE SAME of no blocks (2), and atomic writes that have to
/// be aligned (1, in part). Of a unit with physical blocks of 4 KiB, GET LBA STATUS's test asks for a block and
/// expects an answer that begins with a later one.
#[test]
fn all_tests_of_libiscsi() {
    let expected = Sum { tests: 230, failed: 0, skipped: 20 };
    assert_eq!(sum("ALL", 512), expected);
}

#[test]
fn those_of_large_physical_blocks() {
    for (name, tests, skipped) in
        [("CompareAndWrite", 5, 0), ("WriteSame10", 10, 1), ("WriteSame16", 10, 1)]
    {
        let expected = Sum { tests, failed: 0, skipped };
        assert_eq!(sum(&format!("ALL.{name}"), 4096), expected);
    }
}
