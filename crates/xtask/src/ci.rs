//! `cargo xtask ci`: everything a change must pass, the quick and telling checks first.

use std::process::ExitCode;

use anyhow::Result;

use crate::{advisories, docs, fuzz, layers, run, testing, workspace};

/// Seconds for each fuzz target: enough to notice a parser that trusts its input.
const FUZZ_SECONDS: u64 = 5;

/// Runs the checks in turn and stops at the first that fails; the tests come last, so that their
/// sum is the last line.
pub(crate) fn ci() -> Result<ExitCode> {
    run::timed("formatting", || {
        run::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
        let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
        run::run(workspace::cargo().args(fuzz))
    })?;
    run::timed("lints", || {
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        run::run(workspace::cargo().args(clippy))
    })?;
    run::timed("layers", layers::layers)?;
    run::timed("what the program is made of", || {
        advisories::advisories(&advisories::Options::default())
    })?;
    run::timed("pages made from the source", || docs::docs(docs::Options { check: true }))?;
    run::timed("short fuzz run", || fuzz::fuzz(&fuzz::Options::short(FUZZ_SECONDS)))?;
    testing::test(&testing::Options::default())
}
