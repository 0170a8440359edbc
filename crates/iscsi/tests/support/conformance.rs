//! What a run of libiscsi's conformance tests (`iscsi-test-cu --Verbose-scsi`) came to.
#![allow(clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) tests: usize,
    pub(crate) failed: usize,
    /// Those that skipped themselves, in whole or in part; they count as passed for the suite.
    pub(crate) skipped: usize,
}

impl Sum {
    /// Of what it said; what skipped, and all when something failed, is printed.
    pub(crate) fn of(said: &str) -> Self {
        let line = said.lines().find(|line| line.trim_start().starts_with("tests "));
        let numbers = line.unwrap_or_default().split_whitespace().skip(1);
        let numbers: Vec<usize> = numbers.filter_map(|number| number.parse().ok()).collect();
        let [tests, _ran, _passed, failed, ..] = numbers[..] else { panic!("no sum: {said}") };
        if failed > 0 {
            println!("{said}");
        }
        let mut skipped = BTreeSet::new();
        let (mut suite, mut test) = ("", "");
        for line in said.lines() {
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
        println!("{line:?}, skipped: {skipped:?}");
        Self { tests, failed, skipped: skipped.len() }
    }
}
