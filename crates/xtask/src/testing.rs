//! `cargo xtask test`.

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;

use crate::postgres::{self, Postgres};
use crate::{kernel, packages, run, schemathesis, workspace};

/// How to test.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// Use `cargo test` even where cargo-nextest is installed.
    #[arg(long)]
    no_nextest: bool,
}

/// Runs all tests and prints the sum as the last line. The exit code is a failure when a test
/// failed or something could not be built.
pub(crate) fn test(options: &Options) -> Result<ExitCode> {
    packages::ensure(packages::FOR_TESTS)?;
    let schemathesis = schemathesis::ensure()?;
    let kernel = kernel::ensure()?;
    let nextest = !options.no_nextest && run::is_installed("cargo-nextest");
    let mut sum = Sum::default();

    // Journeys call the binary; it must be there whichever of their crates is tested.
    run::heading("build the binary");
    let built = sum.add(workspace::cargo().args(["build", "--package", "strongroom"]))?;
    if built {
        // One server for all test processes; each test makes a database of its own.
        let postgres = Postgres::start()?;
        run::heading("tests");
        let mut cargo = workspace::cargo();
        cargo.env(postgres::SERVER, postgres.url()).env(schemathesis::PROGRAM, &schemathesis);
        cargo.env(kernel::KERNEL, &kernel);
        if nextest {
            cargo.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"]);
        } else {
            let targets = ["--lib", "--bins", "--tests", "--examples"];
            cargo.args(["test", "--workspace", "--no-fail-fast"]).args(targets);
        }
        sum.add(&mut cargo)?;
        run::heading("documentation tests");
        sum.add(workspace::cargo().args(["test", "--doc", "--workspace", "--no-fail-fast"]))?;
    }
    println!("\n{} passed, {} failed", sum.passed, sum.failed);
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many tests passed and failed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
}

impl Sum {
    /// Runs a command, adds what it counts, and says whether it succeeded. One that fails without
    /// counting a failed test (because it can't be built, say) counts as one.
    fn add(&mut self, command: &mut Command) -> Result<bool> {
        let before = self.failed;
        let status = run::watch(command, &mut |line| self.read(line))?;
        if !status.success() && self.failed == before {
            eprintln!("`{}` failed: {status}", run::show(command));
            self.failed += 1;
        }
        Ok(status.success())
    }

    /// Adds what a runner's summary line counts; other lines count nothing.
    fn read(&mut self, line: &str) {
        let line = line.trim();
        let counts = if let Some(counts) = line.strip_prefix("test result: ") {
            counts.split_once(". ").map(|(_, counts)| counts)
        } else if line.starts_with("Summary [") {
            line.split_once(" run: ").map(|(_, counts)| counts)
        } else {
            None
        };
        for count in counts.into_iter().flat_map(|counts| counts.split([',', ';'])) {
            let mut words = count.trim().splitn(2, ' ');
            let number = words.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            let what = words.next().unwrap_or("");
            if what.starts_with("passed") {
                self.passed += number;
            } else if ["failed", "timed out", "exec failed"].iter().any(|w| what.starts_with(w)) {
                self.failed += number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(lines: &[&str]) -> Sum {
        let mut sum = Sum::default();
        lines.iter().for_each(|line| sum.read(line));
        sum
    }

    #[test]
    fn the_lines_of_both_runners_are_understood() {
        let text = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out";
        assert_eq!(sum(&[text, "running 5 tests", text]), Sum { passed: 10, failed: 0 });
        let text = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(sum(&[text]), Sum { passed: 3, failed: 2 });
        let text = "     Summary [   0.013s] 7 tests run: 4 passed (1 slow), 2 failed, 1 timed out, 0 skipped";
        assert_eq!(sum(&["   PASS [ 0.1s] engine a", text]), Sum { passed: 4, failed: 3 });
        let text = "     Summary [   0.013s] 5/7 tests run: 5 passed (2 leaky), 2 skipped";
        assert_eq!(sum(&[text]), Sum { passed: 5, failed: 0 });
    }

    #[test]
    fn a_command_that_fails_before_any_test_counts() {
        let mut sum = Sum::default();
        let ok = sum.add(Command::new("sh").args(["-c", "exit 101"]));
        assert!(ok.is_ok_and(|ok| !ok));
        assert_eq!(sum, Sum { passed: 0, failed: 1 });
    }
}
