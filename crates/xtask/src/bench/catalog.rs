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

/// On which databases.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Database {
    Sqlite,
    Postgres,
    Both,
}

impl Database {
    /// What the benchmarks call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Both => "both",
        }
    }

    /// Installs what it takes.
    pub(super) fn ensure(self) -> Result<()> {
        match self {
            Self::Sqlite => Ok(()),
            Self::Postgres | Self::Both => packages::ensure(packages::POSTGRES),
        }
    }
}

/// Measures; the table says what was missed.
pub(crate) fn catalog(options: &Options) -> Result<()> {
    options.database.ensure()?;
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--release", "--package", "strongroom-catalog", "--features", "testing"]);
    cargo.args(["--example", "bench", "--", options.database.name()]);
    let numbers = [options.images, options.events, options.requests];
    run::run(cargo.args(numbers.map(|number| number.to_string())))
}
