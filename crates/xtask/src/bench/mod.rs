//! `cargo xtask bench`.
use anyhow::Result;
use clap::Subcommand;
/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Chunkers.
    Chunkers,
}
pub(crate) fn bench(_bench: &Bench) -> Result<()> {
    Ok(())
}
