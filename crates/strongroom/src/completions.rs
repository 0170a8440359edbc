//! Completions for shells.

use std::io::{self, Write};

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Done;

/// Print the completion script of a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom completions bash > /etc/bash_completion.d/strongroom")]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<Done> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "strongroom", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Done::Well)
}
