//! libiscsi's conformance tests (`iscsi-test-cu`) against a thin unit, by number: none may be lost.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::process::Command;
use std::sync::Arc;

use strongroom_block::Geometry;
use strongroom_block::testing::MemoryDevice;
use strongroom_iscsi::scsi::{Identity, LogicalUnit};
use support::Served;

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    tests: usize,
    failed: usize,
    /// Those that skipped themselves, in whole or in part; they count as passed for the suite.
    skipped: usize,
}

/// Runs the tests of that name on two paths to one unit with such physical blocks.
fn sum(name: &str, physical: u32) -> Sum {
    let geometry = Geometry {
        size: 256 << 20,
        block: 512,
        physical,
        optimal: 65536,
        read_only: false,
        thin: true,
    };
    let identity = Identity { removable: true, ..Identity::default() };
    let device = Arc::new(MemoryDevice::with(geometry));
    let served = Served::unit(LogicalUnit::new(device, identity, None).unwrap());
    let (first, second) = (served.url(), served.url());
    let arguments = ["--dataloss", "--Verbose-scsi", "--test", name, &first, &second];
    let output = Command::new("iscsi-test-cu").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.trim_start().starts_with("tests "));
    let numbers = line.unwrap_or_default().split_whitespace().skip(1);
    let numbers: Vec<usize> = numbers.filter_map(|number| number.parse().ok()).collect();
    let [tests, _ran, _passed, failed, ..] = numbers[..] else { panic!("no sum: {text}") };
    if failed > 0 {
        println!("{text}");
    }
    let mut skipped = std::collections::BTreeSet::new();
    let (mut suite, mut test) = ("", "");
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name;
        } else if let Some((name, _)) =
            line.strip_prefix("  Test: ").and_then(|line| line.split_once(" ..."))
        {
            test = name;
        }
        if line.contains("[SKIPPED]") {
            skipped.insert((suite, test));
        }
    }
    println!("{name}: {line:?}, skipped: {skipped:?}");
    Sum { tests, failed, skipped: skipped.len() }
}

/// What skips: SANITIZE (11; it needs a permission), a unit that is read-only (1), WRITE ATOMIC (6), tests of
/// physical blocks larger than logical ones (5), which the other test runs, and WRITE SAME of no blocks (2),
/// which is refused as it has to be and says that it skips the rest. GET LBA STATUS asks a unit with physical
/// blocks of 4 KiB for a block that isn't the one that it named, so that this one has small ones.
#[test]
fn all_tests_of_libiscsi() {
    let expected = Sum { tests: 230, failed: 0, skipped: 25 };
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
