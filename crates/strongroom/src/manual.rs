//! Pages for `man`, made of the help texts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::CommandFactory;

use crate::args::Cli;
use crate::exit::Done;

/// Write the manual's pages (for man) into a directory
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom manual ./man && man ./man/strongroom.1")]
pub(crate) struct Args {
    /// The directory; it is made when it is not there
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<Done> {
    let to = &args.directory;
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    clap_mangen::generate_to(Cli::command(), to)
        .with_context(|| format!("writing pages to {}", to.display()))?;
    Ok(Done::Well)
}
