//! `strongroom backup`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use strongroom_archive::backup::{Backup, Counts, Input, Outcome, Parent, Progress};
use strongroom_archive::image::{self, Image};
use strongroom_archive::rules::Rules;
use strongroom_archive::sealed::SealedStore;
use strongroom_archive::show;
use strongroom_archive::store::Source;
use strongroom_client::Client;
use strongroom_client::ingest::RemoteStore;
use strongroom_engine::pool::{OpenMode, Pool};

use crate::access::SealedPoolArgs;
use crate::appliance::Target;
use crate::appliance::follow::{OPTIONS, StartArgs};
use crate::exit::{Context, Done, usage};
use crate::output::{count, json_time, local_time, size, troubles};
use crate::{appliance, parse, progress};

/// Back up files, a disk image, or what comes in by a pipe
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Files that did not change since the last backup of the same name are not read again. A file that
can't be read, or that changes while it is read, is named; the rest is complete, and the exit code
is 3. The image exists once the command says so, and survives a power cut from then on; a backup
that was interrupted leaves nothing that could be seen, and the next one finds most of it stored.

Rules of --exclude are globs: `*.o` fits a name anywhere, `/home/*/cache` a path from the root,
`**` any number of directories; a rule that ends in `/` fits directories only.

To an appliance elsewhere this process sends what the pool there lacks, compressed; so it does with
--stdin, and to the appliance that runs here when that runs as another user. Else the one that runs
here reads by a job of its own, which goes on without this process; --here reads with this one.

With --client-key-file what is stored is sealed by this process under your own key: whoever keeps the
pool sees names of images (by default the last name of the first path), sizes and times, and can read
nothing. Keep the key where the pool is not; all that reads the image takes the same option. Images
under one key share what they have in common.

Examples:
  strongroom backup /etc /home --pool /srv/pool --name server --exclude '*.tmp'
  strongroom backup --image /dev/vg0/db --pool /srv/pool --name db-disk --immutable 30d
  strongroom backup /srv/www --keep-for 90d
  strongroom backup ~/docs --client-key-file ~/.config/strongroom/own.key
  pg_dump app | strongroom backup --stdin --name app.sql --pool /srv/pool")]
pub(crate) struct Args {
    /// Files and directories
    #[arg(value_name = "PATH", required_unless_present_any = ["image", "stdin"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// The series that the image belongs to; by default the last name of the first path
    #[arg(long)]
    name: Option<String>,
    /// A label; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Leave out what this rule fits; may be given several times
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Leave out what the rules in this file fit, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Leave out the content of directories that are marked as caches by a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,
    /// Do not enter other filesystems
    #[arg(long, short = 'x')]
    one_file_system: bool,
    /// Back up a disk, or a file that holds one: chunks of fixed size, holes cost nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "stdin"])]
    image: Option<PathBuf>,
    /// Back up what comes in on standard input; needs --name
    #[arg(long, conflicts_with = "paths", requires = "name")]
    stdin: bool,
    /// For how long nothing may remove the image, like 30d (by the pool's own clock)
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    immutable: Option<i64>,
    /// For how long the image is kept, like 1y (by the pool's own clock): no rule of `forget` takes
    /// it before, and an appliance forgets it then by itself
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    keep_for: Option<i64>,
    /// Only look what would be read
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Compare with this image, instead of the latest one of the same name, host and paths
    #[arg(long, value_name = "IMAGE", conflicts_with = "read_all")]
    parent: Option<String>,
    /// Read all files, even those that did not change
    #[arg(long)]
    read_all: bool,
    /// The machine's name, for the image's record
    #[arg(long)]
    host: Option<String>,
    /// Store it open although the latest image of the same name is sealed under a client's key
    #[arg(long)]
    in_clear: bool,
    /// Read with this process, not by a job of the appliance that runs here
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn run(context: &Context, mut args: Args) -> Result<Done> {
    let mut excludes = std::mem::take(&mut args.exclude);
    for path in &args.exclude_file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        excludes.extend(Rules::lines(&text).map(str::to_owned));
    }
    Rules::new(&excludes).map_err(|e| usage(e.to_string()))?;
    if args.dry_run && args.stdin {
        return Err(usage("what comes in by a pipe can't be looked at without reading it"));
    }
    let place = args.pool.clone();
    if let Some(pool) = place.at_appliance() {
        let client = args.pool.appliance.client()?;
        return match args.is_for_a_job() && appliance::is_of_this_user(&client) {
            true => by_job(context, &client, pool, &args, &excludes),
            false => sent(context, client, pool, args, excludes),
        };
    }
    args.start.must_not_be_given()?;
    let mode = if args.dry_run { OpenMode::Read } else { OpenMode::Write };
    let pool = args.pool.open(context, mode)?;
    let sealed = args.pool.sealed(pool.clone())?;
    let source: &dyn Source = sealed.as_ref().map_or(&*pool, |sealed| sealed);
    let (dry_run, in_clear) = (args.dry_run, args.in_clear);
    let backup = args.backup(source, excludes)?;
    backup.must_not_be_sealed(source, in_clear)?;
    let (outcome, counts) = watched(context, |counters| match (dry_run, &sealed) {
        (true, _) => backup.trial(source, counters),
        (false, None) => backup.run(pool.session()?, counters),
        (false, Some(sealed)) => {
            backup.run(SealedStore::new(pool.session()?, sealed.clone())?, counters)
        }
    })?;
    tell(context, Some(&pool), &outcome, &counts)
}

impl Args {
    /// Whether the appliance of this machine can read all of it by itself.
    fn is_for_a_job(&self) -> bool {
        let other = self.parent.is_some() || self.host.is_some();
        let own = self.here || self.stdin || self.dry_run || self.pool.is_sealed();
        !(own || other)
    }

    /// What the archive is to do.
    fn backup(self, source: &dyn Source, excludes: Vec<String>) -> Result<Backup> {
        let parent = match (&self.parent, self.read_all) {
            (Some(text), _) => Parent::Image(image::find(source, text)?.id),
            (None, true) => Parent::None,
            (None, false) => Parent::Latest,
        };
        let input = match (self.image, self.stdin) {
            (Some(path), _) => Input::Block(path),
            (None, true) => Input::Stream(Box::new(std::io::stdin())),
            (None, false) => Input::Paths(self.paths),
        };
        Ok(Backup {
            name: self.name,
            input,
            tags: self.tags,
            excludes,
            exclude_caches: self.exclude_caches,
            one_file_system: self.one_file_system,
            immutable_for: self.immutable,
            keep_for: self.keep_for,
            parent,
            host: self.host,
            user: None,
        })
    }

    /// What it is about, in a word: of a sealed one, no more than its image will be called.
    fn object(&self) -> String {
        let first = self.image.as_ref().or(self.paths.first());
        let path = first.and_then(|path| match self.pool.is_sealed() {
            true => path.file_name(),
            false => Some(path.as_os_str()),
        });
        let path = path.map(|path| path.to_string_lossy().into_owned());
        self.name.clone().or(path).unwrap_or_default()
    }
}

/// Has an appliance on this machine make the backup.
fn by_job(
    context: &Context,
    client: &Client,
    pool: Option<&str>,
    args: &Args,
    excludes: &[String],
) -> Result<Done> {
    let what = json!({
        "name": args.name,
        "tags": args.tags,
        "excludes": excludes,
        "exclude_caches": args.exclude_caches,
        "one_file_system": args.one_file_system,
        "immutable_seconds": args.immutable.map(|ns| ns.unsigned_abs().div_ceil(1_000_000_000)),
        "keep_seconds": args.keep_for.map(|ns| ns.unsigned_abs().div_ceil(1_000_000_000)),
        "read_all": args.read_all,
        "in_clear": args.in_clear,
    });
    let paths = (&args.paths[..], args.image.as_ref());
    appliance::backup(context, client, pool, paths, what, &args.start)
}

/// Makes the backup here, and sends an appliance what its pool lacks.
fn sent(
    context: &Context,
    client: Client,
    pool: Option<&str>,
    args: Args,
    excludes: Vec<String>,
) -> Result<Done> {
    if args.start.is_given() {
        return Err(usage(format!("{OPTIONS} is for backups that the appliance itself makes")));
    }
    let Target { client, pool, source } = appliance::target(context, client, pool)?;
    let sealed = args.pool.sealed(Arc::clone(&source))?;
    let (dry_run, object) = (args.dry_run, args.object());
    let looked: &dyn Source = sealed.as_ref().map_or(&*source, |sealed| sealed);
    let in_clear = args.in_clear;
    let backup = args.backup(looked, excludes)?;
    backup.must_not_be_sealed(looked, in_clear)?;
    let counters = Arc::new(Progress::default());
    let (outcome, counts) = if dry_run {
        watched_by(context, &counters, || backup.trial(looked, &counters))?
    } else {
        let (told, open) = (Arc::clone(&counters), Arc::clone(&source));
        let store = RemoteStore::open(client, pool, &object, open, told)?;
        watched_by(context, &counters, || match &sealed {
            None => backup.run(store.passing_on(), &counters),
            Some(sealed) => backup.run(SealedStore::new(store, sealed.clone())?, &counters),
        })?
    };
    tell(context, None, &outcome, &counts)
}

/// Runs a backup with progress.
fn watched(
    context: &Context,
    make: impl FnOnce(&Progress) -> strongroom_archive::Result<Outcome>,
) -> Result<(Outcome, Counts)> {
    let counters = Arc::new(Progress::default());
    watched_by(context, &counters, || make(&counters))
}

fn watched_by(
    context: &Context,
    counters: &Arc<Progress>,
    make: impl FnOnce() -> strongroom_archive::Result<Outcome>,
) -> Result<(Outcome, Counts)> {
    context.interrupt.stops(counters);
    let outcome = progress::status(context.out, || status(&counters.counts()), make)?;
    let counts = counters.counts();
    Ok((outcome, counts))
}

/// Says what came of it.
fn tell(
    context: &Context,
    pool: Option<&Pool>,
    outcome: &Outcome,
    counts: &Counts,
) -> Result<Done> {
    context.out.troubles(&outcome.troubles);
    let document = document(outcome, counts);
    context.out.summary(pool, document, |out| summary(out, outcome, counts))?;
    Ok(Done::well_if(outcome.troubles.is_empty()))
}

fn status(counts: &Counts) -> String {
    format!(
        "{} files, {} of {} read, {} new, {} stored, {}{}",
        counts.files,
        size(counts.read),
        size(counts.unread),
        size(counts.new_bytes),
        size(counts.stored_bytes),
        match counts.troubles {
            0 => String::new(),
            troubles => format!("{troubles} with trouble, "),
        },
        show(&counts.path)
    )
}

fn document(outcome: &Outcome, counts: &Counts) -> Value {
    let stats = &outcome.stats;
    json!({
        "image": outcome.image.as_ref().map(|image| image.id.to_string()),
        "name": outcome.image.as_ref().map(|image| &image.name),
        "created": outcome.image.as_ref().map(|image| json_time(image.created)),
        "immutable_until":
            outcome.image.as_ref().and_then(|image| image.immutable_until).map(json_time),
        "expires_at": outcome.image.as_ref().and_then(Image::expires).map(json_time),
        "parent": outcome
            .image.as_ref().and_then(|image| image.meta.parent).map(|parent| parent.to_string()),
        "dry_run": outcome.image.is_none(),
        "files": stats.files,
        "dirs": stats.dirs,
        "others": stats.others,
        "bytes": stats.bytes,
        "bytes_read": counts.read,
        "new_bytes": stats.new_bytes,
        "stored_bytes": stats.stored_bytes,
        "reused_files": stats.reused,
        "healed_chunks": counts.healed,
        "troubles": stats.troubles,
        "first_troubles": troubles(&outcome.troubles),
    })
}

fn summary(
    out: &mut dyn std::io::Write,
    outcome: &Outcome,
    counts: &Counts,
) -> std::io::Result<()> {
    let stats = &outcome.stats;
    let files = count(stats.files, "file", "files");
    let dirs = count(stats.dirs, "directory", "directories");
    let Some(image) = &outcome.image else {
        let unread = size(stats.new_bytes);
        return writeln!(
            out,
            "would back up {files} and {dirs}, {}; {unread} would be read",
            size(stats.bytes)
        );
    };
    writeln!(out, "image {} of {} is in the pool", image.id, show(image.name.as_bytes()))?;
    writeln!(
        out,
        "{files}, {dirs}, {} other: {}; {} unchanged",
        stats.others,
        size(stats.bytes),
        stats.reused
    )?;
    writeln!(
        out,
        "{} read, {} new, {} stored",
        size(counts.read),
        size(stats.new_bytes),
        size(stats.stored_bytes)
    )?;
    if let Some(until) = image.immutable_until {
        writeln!(out, "nothing can remove it before {} (pool's time)", local_time(until))?;
    }
    if let Some(at) = image.expires() {
        writeln!(out, "it is kept until {} (pool's time)", local_time(at))?;
    }
    if counts.healed > 0 {
        let healed = count(counts.healed, "chunk that was", "chunks that were");
        writeln!(out, "{healed} lost before are in the pool again")?;
    }
    if stats.troubles > 0 {
        let bad = count(stats.troubles, "file", "files");
        writeln!(out, "{bad} had trouble (see above); the rest is complete")?;
    }
    Ok(())
}
