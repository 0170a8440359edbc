//! `strongroom dump`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use strongroom_archive::dump::{Format, dump};

use crate::access::SealedPoolArgs;
use crate::browse::locate;
use crate::exit::{Context, Done, usage};

/// Write an image, or a part of it, as a tar or zip archive
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A tar archive has everything but sockets: hard links, devices, extended attributes, ACLs, times in
nanoseconds. A zip archive has files, directories and symbolic links; what is left out is named, and
the exit code is 3.

Examples:
  strongroom dump latest:/etc --pool /srv/pool | tar -tv
  strongroom dump home:/home/anna --format zip --output anna.zip --pool /srv/pool")]
pub(crate) struct Args {
    /// Which image, and a path in it
    #[arg(value_name = "IMAGE[:PATH]")]
    what: String,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Kind of archive
    #[arg(long, value_enum, default_value_t = Kind::Tar)]
    format: Kind,
    /// Write it to this file, not to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Tar,
    Zip,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(usage("an archive is not for a terminal: give --output FILE, or use a pipe"));
    }
    let pool = args.pool.read(context)?;
    let (image, path) = locate(&*pool, &args.what)?;
    let format = match args.format {
        Kind::Tar => Format::Tar,
        Kind::Zip => Format::Zip,
    };
    let write = |out: &mut dyn Write| -> Result<_> {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        let troubles = dump(&*pool, &image, path, format, &mut out)?;
        out.flush()?;
        Ok(troubles)
    };
    let written = match &args.output {
        None => write(&mut io::stdout().lock()),
        Some(path) => {
            let mut file =
                File::create(path).with_context(|| format!("making {}", path.display()))?;
            write(&mut file)
        }
    };
    context.out.notes(pool.ended(context));
    let troubles = written?;
    context.out.stream_ended(None, &troubles);
    Ok(Done::well_if(troubles.is_empty()))
}
