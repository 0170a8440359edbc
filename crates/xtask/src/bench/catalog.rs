//! `cargo xtask bench catalog`.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{packages, run, workspace};

/// How much to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// On which database.
    #[arg(long, value_enum, default_value_t = Database::Both)]
    database: Database,
    /// Images in the catalogue.
    #[arg(long, default_value_t = 1_000_000)]
    images: u64,
    /// Events in the catalogue.
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// Questions of each kind.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
    Both,
}

/// Measures; the table says what was missed.
pub(crate) fn catalog(options: &Options) -> Result<()> {
    let database = match options.database {
        Database::Sqlite => "sqlite",
        Database::Postgres => "postgres",
        Database::Both => "both",
    };
    if !matches!(options.database, Database::Sqlite) {
        packages::ensure(packages::POSTGRES)?;
    }
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--release", "--package", "strongroom-catalog", "--features", "testing"]);
    cargo.args(["--example", "bench", "--", database]);
    let numbers = [options.images, options.events, options.requests];
    run::run(cargo.args(numbers.map(|number| number.to_string())))
}
