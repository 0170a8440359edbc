//! The project's habits, one command each: `cargo xtask --help` lists them.
//!
//! Nothing here is part of the product, and no other crate may depend on it.
#![allow(clippy::print_stdout, reason = "a command line tool talks on standard output")]

mod advisories;
mod bench;
mod ci;
mod crash;
mod deb;
mod docs;
mod fuzz;
mod kernel;
mod layers;
mod licences;
mod packages;
mod parts;
mod postgres;
mod run;
mod schemathesis;
mod testing;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Strongroom's habits: test, ci, layers, docs, fuzz, crash, bench.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    habit: Habit,
}

#[derive(Debug, Subcommand)]
enum Habit {
    /// Run all tests: unit, property, journey and documentation tests.
    ///
    /// Programs that the tests call (rsync, getfattr, ...) are installed with apt-get when they
    /// are missing. The tests run under cargo-nextest where that is installed, else under
    /// `cargo test`; both run the same tests. The last line of the output is the sum:
    /// `N passed, N failed`.
    Test(testing::Options),
    /// Run everything a change must pass: formatting, lints, layers, a short fuzz run, the tests.
    Ci,
    /// Check that the crates depend on each other only as ARCHITECTURE.md draws it.
    ///
    /// Also that the lower floors pull in no async runtime and no network stack, and that `unsafe`
    /// stands only in the modules listed for it.
    Layers,
    /// Make the pages that are put together from the source (docs/format.md).
    Docs(docs::Options),
    /// Feed hostile bytes to every parser (libFuzzer with AddressSanitizer).
    Fuzz(fuzz::Options),
    /// Cut the power of simulated disks at every operation, then kill the real binary.
    Crash(crash::Options),
    /// Make the Debian package, in target/deb/.
    Deb(deb::Options),
    /// Check what the program is made of: licences, bans, sources, and known holes.
    Advisories(advisories::Options),
    /// Measure: against other backup programs, or one part of the engine.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().habit {
        Habit::Test(options) => testing::test(&options),
        Habit::Ci => ci::ci(),
        Habit::Layers => layers::layers().map(|()| ExitCode::SUCCESS),
        Habit::Docs(options) => docs::docs(options).map(|()| ExitCode::SUCCESS),
        Habit::Fuzz(options) => fuzz::fuzz(&options).map(|()| ExitCode::SUCCESS),
        Habit::Crash(options) => crash::crash(&options),
        Habit::Deb(options) => deb::deb(&options).map(|()| ExitCode::SUCCESS),
        Habit::Advisories(options) => advisories::advisories(&options).map(|()| ExitCode::SUCCESS),
        Habit::Bench(bench) => bench::bench(&bench).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
