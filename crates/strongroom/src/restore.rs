//! `strongroom restore`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;
use strongroom_archive::restore::{Outcome, Overwrite, Progress, Restore};
use strongroom_archive::rules::Rules;
use strongroom_archive::store::Source;
use strongroom_client::Client;

use crate::access::SealedPoolArgs;
use crate::appliance::follow::StartArgs;
use crate::appliance::{self, Restoring};
use crate::browse::locate;
use crate::exit::{Context, Done, usage};
use crate::output::{count, size, troubles};
use crate::progress;

/// Restore an image, or a part of it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without a path the whole image comes back below DIR under its full paths: /etc/fstab becomes
DIR/etc/fstab. With IMAGE:PATH the content of that directory comes into DIR itself. Holes, links,
times, modes, owners, extended attributes, ACLs and capabilities come back as far as this user may
set them. A restore that was interrupted goes on when it is run again.

An image is called by its name (its latest image), NAME@TIME, `latest`, or digits of its id.

An image of an appliance elsewhere comes to this machine. The appliance that runs here, as this user,
restores by a job of its own, which goes on without this process; with --here, or when it runs as
another user, this process does it, with its own rights.

Examples:
  strongroom restore latest --to /tmp/back --pool /srv/pool
  strongroom restore home@2026-03-01:/home/anna --to /home/anna --overwrite changed --pool /srv/pool
  strongroom restore server etc/fstab etc/ssh --to /tmp/back --verify --pool /srv/pool")]
pub(crate) struct Args {
    /// Which image, and the path in it whose content comes to DIR
    #[arg(value_name = "IMAGE[:PATH]")]
    what: String,
    /// Only these paths below it
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Where to; it is made when it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Only what this rule fits; may be given several times
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Not what this rule fits; may be given several times
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// What happens to files that are there
    #[arg(long, value_enum, default_value_t = When::Changed)]
    overwrite: When,
    /// Read everything back from DIR and compare it with the image
    #[arg(long)]
    verify: bool,
    /// Owners by number, not by name
    #[arg(long)]
    numeric_owner: bool,
    /// Do not set owners
    #[arg(long)]
    no_owner: bool,
    /// Restore with this process, not by a job of the appliance that runs here
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    start: StartArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    /// They stay
    Never,
    /// They are replaced unless size and time are those of the image
    Changed,
    /// They are replaced
    Always,
}

pub(crate) fn run(context: &Context, args: Args) -> Result<Done> {
    for rules in [&args.include, &args.exclude] {
        Rules::new(rules).map_err(|e| usage(e.to_string()))?;
    }
    let pool = args.pool.clone();
    if let Some(pool) = pool.at_appliance()
        && !args.here
        && !args.pool.is_sealed()
    {
        let client = args.pool.appliance.client()?;
        if appliance::is_of_this_user(&client) {
            return at_appliance(context, &client, pool, args);
        }
    }
    args.start.must_not_be_given()?;
    let pool = args.pool.read(context)?;
    let (image, from) = locate(&*pool, &args.what)?;
    let restore = Restore {
        image,
        from: from.to_vec(),
        paths: args.paths.into_iter().map(OsString::into_vec).collect(),
        to: args.to,
        include: args.include,
        exclude: args.exclude,
        overwrite: match args.overwrite {
            When::Never => Overwrite::Never,
            When::Changed => Overwrite::Changed,
            When::Always => Overwrite::Always,
        },
        verify: args.verify,
        numeric_owner: args.numeric_owner,
        no_owner: args.no_owner,
    };
    let outcome = make(context, &*pool, &restore)?;
    context.out.troubles(&outcome.troubles);
    let counts = &outcome.counts;
    let document = json!({
        "image": restore.image.id.to_string(),
        "to": restore.to.to_string_lossy(),
        "files": counts.files,
        "dirs": counts.dirs,
        "others": counts.others,
        "bytes": counts.bytes,
        "skipped": counts.skipped,
        "sockets": counts.sockets,
        "verified": counts.verified,
        "troubles": outcome.troubles.count,
        "first_troubles": troubles(&outcome.troubles),
    });
    context.out.summary(pool.ended(context), document, |out| summary(out, &restore, &outcome))?;
    Ok(Done::well_if(outcome.troubles.is_empty()))
}

/// Has an appliance on this machine restore.
fn at_appliance(
    context: &Context,
    client: &Client,
    pool: Option<&str>,
    args: Args,
) -> Result<Done> {
    let text = |path: OsString| {
        path.into_string().map_err(|path| usage(format!("{} is not UTF-8", path.display())))
    };
    let paths = args.paths.into_iter().map(text).collect::<Result<Vec<_>>>()?;
    let overwrite = args.overwrite.to_possible_value();
    let rest = json!({
        "paths": paths,
        "include": args.include,
        "exclude": args.exclude,
        "overwrite": overwrite.as_ref().map(|value| value.get_name()),
        "verify": args.verify,
        "numeric_owner": args.numeric_owner,
        "no_owner": args.no_owner,
    });
    let restoring = Restoring { pool, what: &args.what, to: args.to, rest };
    appliance::restore(context, client, restoring, &args.start)
}

/// Runs a restore with progress.
fn make(context: &Context, pool: &dyn Source, restore: &Restore) -> Result<Outcome> {
    let counters = Arc::new(Progress::default());
    context.interrupt.stops(&counters);
    let status = || {
        let counts = counters.counts();
        let verified = match restore.verify {
            true => format!(", {} verified", counts.verified),
            false => String::new(),
        };
        format!("{} files, {} written{verified}", counts.files, size(counts.bytes))
    };
    Ok(progress::status(context.out, status, || restore.run(pool, &counters))?)
}

fn summary(
    out: &mut dyn std::io::Write,
    restore: &Restore,
    outcome: &Outcome,
) -> std::io::Result<()> {
    let counts = &outcome.counts;
    let files = count(counts.files, "file", "files");
    let dirs = count(counts.dirs, "directory", "directories");
    let bytes = size(counts.bytes);
    let to = restore.to.display();
    writeln!(out, "restored {files}, {dirs}, {} other to {to}; {bytes} written", counts.others)?;
    if counts.skipped > 0 {
        let skipped = count(counts.skipped, "file was", "files were");
        writeln!(out, "{skipped} there already")?;
    }
    if counts.sockets > 0 {
        let sockets = count(counts.sockets, "socket", "sockets");
        writeln!(out, "{sockets} not made: programs make their own")?;
    }
    if restore.verify {
        writeln!(out, "{} read back and compared", count(counts.verified, "file", "files"))?;
    }
    if !outcome.troubles.is_empty() {
        let bad = count(outcome.troubles.count, "path", "paths");
        writeln!(out, "{bad} had trouble (see above); the rest is complete")?;
    }
    Ok(())
}
