//! `cargo xtask bench api`.

use anyhow::Result;
use clap::Args;

use super::catalog::Database;
use crate::{run, workspace};

/// How much to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// On which database.
    #[arg(long, value_enum, default_value_t = Database::Both)]
    database: Database,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns of each.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    turns: u64,
}

/// Measures.
pub(crate) fn api(options: &Options) -> Result<()> {
    options.database.ensure()?;
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--release", "--package", "strongroom-api", "--example", "bench", "--"]);
    cargo.arg(options.database.name());
    run::run(cargo.args([options.seconds.to_string(), options.turns.to_string()]))
}
