//! `strongroom volume`.

mod export;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::{Context, Done};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Export(export::Args),
}

impl Command {
    /// Its name, for those who find the pool in use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Export(_) => "volume export",
        }
    }
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::Export(args) => export::run(context, args),
    }
}
