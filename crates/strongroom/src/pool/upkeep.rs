//! `pool gc`, `scrub`, `check` and `repair`.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};
use strongroom_archive::affected::{Affected, affected};
use strongroom_engine::pool::{
    CheckReport, GcOptions, GcReport, Meter, OpenMode, Pool, ScrubOptions, ScrubOutcome,
};

use crate::access::PoolArgs;
use crate::appliance::follow::StartArgs;
use crate::appliance::pools::{self, Upkeep};
use crate::exit::{Context, Done};
use crate::output::{count, size};
use crate::{parse, progress};

/// Free the space of what no image needs any more
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Backups by the same process and readers may go on meanwhile. Ctrl-C stops it; run it again and it
goes on. Packs of which less than a third is garbage are left alone up to --max-unused.

Examples:
  strongroom pool gc
  strongroom pool gc --pool /srv/pool --dry-run
  strongroom pool gc --pool /srv/pool --max-unused 0")]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Only say what would be freed
    #[arg(long)]
    dry_run: bool,
    /// Part of the pool, in percent, that may stay as garbage inside of packs in use
    #[arg(long, value_name = "PERCENT", default_value_t = 20.0)]
    max_unused: f64,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn gc(context: &Context, args: &GcArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        let how = json!({ "dry_run": args.dry_run, "max_unused": args.max_unused / 100.0 });
        let client = args.pool.appliance.client()?;
        return pools::start(context, &client, name, Upkeep::Gc, &how, &args.start);
    }
    args.start.must_not_be_given()?;
    let pool = args.pool.open(context, OpenMode::Write)?;
    let options = GcOptions { dry_run: args.dry_run, max_unused: args.max_unused / 100.0 };
    let report = gc_with(context, &pool, options)?;
    let document = gc_json(&report, options);
    context.out.summary(Some(&pool), document, |out| gc_text(out, &report, options))?;
    Ok(Done::well_if(report.missing_chunks == 0))
}

/// Collects garbage, with progress.
pub(crate) fn gc_with(context: &Context, pool: &Pool, options: GcOptions) -> Result<GcReport> {
    Ok(progress::status(context.out, || "collecting garbage".into(), || pool.gc(options))?)
}

/// What a collection came to, as JSON.
pub(crate) fn gc_json(report: &GcReport, options: GcOptions) -> Value {
    json!({
        "dry_run": options.dry_run,
        "live_chunks": report.live_chunks,
        "dead_chunks": report.dead_chunks,
        "bytes_before": report.bytes_before,
        "bytes_freed": report.bytes_freed(),
        "bytes_removed": report.bytes_removed,
        "bytes_copied": report.bytes_copied,
        "bytes_unused": report.bytes_unused,
        "packs_removed": report.packs_removed,
        "packs_waiting": report.packs_waiting,
        "missing_chunks": report.missing_chunks,
    })
}

/// What a collection came to, as text.
pub(crate) fn gc_text(
    out: &mut dyn Write,
    report: &GcReport,
    options: GcOptions,
) -> std::io::Result<()> {
    let would = if options.dry_run { "would free" } else { "freed" };
    let (bytes, of) = (size(report.bytes_freed()), size(report.bytes_before));
    let packs = count(report.packs_removed, "pack", "packs");
    writeln!(out, "{would} {bytes} of {of}: {packs}, {} copied", size(report.bytes_copied))?;
    let dead = count(report.dead_chunks, "chunk was", "chunks were");
    let unused = size(report.bytes_unused);
    let live = report.live_chunks;
    writeln!(out, "{dead} garbage, {live} live; {unused} of garbage in packs in use")?;
    if report.packs_waiting > 0 {
        let waiting = count(report.packs_waiting, "pack waits", "packs wait");
        writeln!(out, "{waiting} for readers of the pool to end; the next gc removes them")?;
    }
    if report.missing_chunks > 0 {
        let missing = count(report.missing_chunks, "chunk is", "chunks are");
        writeln!(out, "{missing} missing: run `strongroom pool check`")?;
    }
    Ok(())
}

/// Read every disk and mend what has rotted
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Needs no key but to name what is lost. Ctrl-C stops it; the next scrub goes on where it was.

Examples:
  strongroom pool scrub --no-wait
  strongroom pool scrub --pool /srv/pool --rate 50M
  strongroom pool scrub --pool /srv/pool --packs 100")]
pub(crate) struct ScrubArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Read at most this much a second
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    rate: Option<u64>,
    /// Stop after so many packs; the next scrub goes on from there
    #[arg(long)]
    packs: Option<usize>,
    /// Begin with the first pack, even if the last scrub was stopped half way
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn scrub(context: &Context, args: &ScrubArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        let how = json!({ "rate": args.rate, "packs": args.packs, "restart": args.restart });
        let client = args.pool.appliance.client()?;
        return pools::start(context, &client, name, Upkeep::Scrub, &how, &args.start);
    }
    args.start.must_not_be_given()?;
    let pool = args.pool.open(context, OpenMode::Write)?;
    let options = ScrubOptions { restart: args.restart, rate: args.rate, packs: args.packs };
    let outcome = scrubbed(context, &pool, options, "scrubbing")?;
    let document = scrub_json(&outcome);
    context.out.summary(Some(&pool), document, |out| scrub_text(out, &outcome))?;
    if context.interrupt.is_asked() {
        return Err(strongroom_engine::Error::Canceled.into());
    }
    Ok(Done::well_if(outcome.lost.is_empty() && outcome.unreadable.is_empty()))
}

/// Scrubs with progress.
pub(super) fn scrubbed(
    context: &Context,
    pool: &Pool,
    options: ScrubOptions,
    what: &str,
) -> Result<ScrubOutcome> {
    let meter = Meter::new();
    Ok(progress::meter(context.out, what, &meter, || pool.scrub(options, &meter))?)
}

/// What a scrub came to, as JSON.
pub(super) fn scrub_json(outcome: &ScrubOutcome) -> Value {
    json!({
        "complete": outcome.complete,
        "packs": outcome.packs,
        "bytes_read": outcome.bytes_read,
        "bad_units": outcome.bad_units,
        "bad_shards": outcome.bad_shards,
        "healed": outcome.healed,
        "lost_packs": outcome.lost.iter().map(|(pack, why)| json!({
            "pack": pack.to_string(), "why": why,
        })).collect::<Vec<_>>(),
        "unreadable_packs": outcome.unreadable.iter().map(|(pack, why)| json!({
            "pack": pack.to_string(), "why": why,
        })).collect::<Vec<_>>(),
        "bad_copies": outcome.bad_copies.len(),
    })
}

/// What a scrub came to, as text.
pub(super) fn scrub_text(out: &mut dyn Write, outcome: &ScrubOutcome) -> std::io::Result<()> {
    let packs = count(outcome.packs, "pack", "packs");
    let bad = outcome.bad_units + outcome.bad_shards;
    writeln!(
        out,
        "{packs} read ({}), {bad} bad parts found, {} mended",
        size(outcome.bytes_read),
        outcome.healed
    )?;
    for (pack, why) in outcome.lost.iter().chain(&outcome.unreadable) {
        writeln!(out, "pack {pack}: {why}")?;
    }
    if !outcome.unreadable.is_empty() {
        writeln!(
            out,
            "what can't be read is not given up: bring back missing disks and scrub again"
        )?;
    }
    if !outcome.lost.is_empty() {
        writeln!(out, "run `strongroom pool check` for the files that this affects")?;
    }
    if !outcome.complete {
        writeln!(out, "stopped before the last pack; the next scrub goes on from there")?;
    }
    Ok(())
}

/// Check that all images are whole, and name the files that are not
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without --read-data it follows every image through its directories and looks up each chunk; with it
every pack is read too, and every chunk compared with its id. Rot that other disks make good is mended
when nobody else writes the pool. Exit code 3 says that damage was found; the images and files that it
affects are listed, each of them.

Examples:
  strongroom pool check --read-data
  strongroom pool check --pool /srv/pool --read-data")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Read all data
    #[arg(long)]
    read_data: bool,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn check(context: &Context, args: &CheckArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        let how = json!({ "read_data": args.read_data });
        let client = args.pool.appliance.client()?;
        return pools::start(context, &client, name, Upkeep::Check, &how, &args.start);
    }
    args.start.must_not_be_given()?;
    let pool = args.pool.open(context, OpenMode::Read)?;
    // It only reads, beside whoever writes; what is bad leaves the index if nobody does. With a disk
    // that is away it may be good again.
    let whole = pool.disks().iter().all(Option::is_some);
    let mark = |report: &CheckReport| {
        let writer = whole.then(|| args.pool.open_unasked(context).ok()).flatten();
        let bad = [&report.bad_copies[..], &report.given_up].concat();
        writer.is_some_and(|writer| writer.mark_bad(&bad).is_ok())
    };
    checked(context, &pool, args.read_data, mark, json!({}))
}

/// Checks, and prints what was found. `mark` takes bad copies out of the index, if it can.
fn checked(
    context: &Context,
    pool: &Pool,
    read_data: bool,
    mark: impl FnOnce(&CheckReport) -> bool,
    mut document: Value,
) -> Result<Done> {
    let meter = Meter::new();
    let report =
        progress::meter(context.out, "checking", &meter, || pool.check(read_data, &meter))?;
    pool.mend_units();
    let affected = affected(pool, &report.lost)?;
    let clean = report.is_clean();
    let is_bad = !report.bad_copies.is_empty() || !report.given_up.is_empty();
    let marked = is_bad && mark(&report);
    if let Value::Object(map) = &mut document {
        map.extend(check_json(&report, &affected, marked).as_object().cloned().unwrap_or_default());
    }
    context.out.report(Some(pool), document, |out| {
        if clean && context.out.quiet {
            return Ok(());
        }
        check_text(out, &report, &affected, read_data, marked)
    })?;
    Ok(Done::well_if(clean))
}

fn check_json(report: &CheckReport, affected: &[Affected], marked: bool) -> Value {
    json!({
        "clean": report.is_clean(),
        "images": report.roots,
        "nodes": report.nodes,
        "data_chunks": report.data_chunks,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "chunks_read": report.chunks_read,
        "bad_copies": report.bad_copies.len(),
        "unreadable_copies": report.unreadable.len(),
        "left_index": marked,
        "lost_chunks": report.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "bad_packs": report.bad_packs.iter().map(|(pack, why)| json!({
            "pack": pack.to_string(), "why": why,
        })).collect::<Vec<_>>(),
        "affected": affected.iter().map(|image| json!({
            "image": image.id.to_string(),
            "name": image.name,
            "files": image.paths.iter().map(|hit| json!({
                "path": hit.path, "what": hit.what,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn check_text(
    out: &mut dyn Write,
    report: &CheckReport,
    affected: &[Affected],
    read_data: bool,
    marked: bool,
) -> std::io::Result<()> {
    let images = count(report.roots, "image", "images");
    writeln!(
        out,
        "{images} followed: {} directory nodes, {} chunks of data",
        report.nodes, report.data_chunks
    )?;
    if read_data {
        let packs = count(report.packs_read, "pack", "packs");
        writeln!(out, "{packs} read: {}, {} chunks", size(report.bytes_read), report.chunks_read)?;
    }
    if report.is_clean() {
        return writeln!(out, "no damage found");
    }
    for (pack, why) in &report.bad_packs {
        writeln!(out, "pack {pack}: {why}")?;
    }
    let bad = count(report.bad_copies.len() as u64, "copy", "copies");
    let unreadable = count(report.unreadable.len() as u64, "copy", "copies");
    let lost = count(report.lost.len() as u64, "chunk", "chunks");
    writeln!(
        out,
        "{bad} of chunks bad, {unreadable} that can't be read now; no good copy of {lost}"
    )?;
    for image in affected {
        let files = count(image.paths.len() as u64, "path is", "paths are");
        writeln!(out, "image {} ({}): {files} affected", image.id, image.name)?;
        for hit in &image.paths {
            writeln!(out, "  {}: {}", hit.path, hit.what)?;
        }
    }
    if affected.is_empty() {
        writeln!(out, "no image is affected")?;
    }
    let rest = match marked {
        true => {
            "What stays lost has left the index: the next backup that has the data stores it again."
        }
        false => {
            "For what stays lost run `strongroom pool repair`: the next backup that has the data \
             then stores it again."
        }
    };
    writeln!(out, "Bring back missing disks and run `strongroom pool scrub`. {rest}")
}

/// Mend what can be mended, and forget bad copies so that backups store them again
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Writes superblocks anew that can't be read, scrubs all disks, then checks all data. Chunks that are
lost, or that still can't be read though all disks are there, leave the index; the next backup whose
source still has them stores them again, and with that every image that needs them is whole again.

Examples:
  strongroom pool repair --pool main
  strongroom pool repair --pool /srv/pool
  strongroom pool repair --pool /srv/pool --rebuild-index")]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// First build the index again from the packs alone
    #[arg(long)]
    rebuild_index: bool,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn repair(context: &Context, args: &RepairArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        let how = json!({ "rebuild_index": args.rebuild_index });
        let client = args.pool.appliance.client()?;
        return pools::start(context, &client, name, Upkeep::Repair, &how, &args.start);
    }
    args.start.must_not_be_given()?;
    let (pool, superblocks) = args.pool.open_to_repair(context, args.rebuild_index)?;
    if !context.out.json && !context.out.quiet {
        for disk in &superblocks {
            writeln!(std::io::stdout(), "the superblock of disk {disk} was written anew")?;
        }
    }
    let mut entries = None;
    if args.rebuild_index {
        let meter = Meter::new();
        let text = || {
            let (done, total) = meter.read();
            format!("building the index: {done} of {total} packs")
        };
        let found = progress::status(context.out, text, || pool.rebuild_index(&meter))?;
        entries = Some(found);
        if !context.out.json && !context.out.quiet {
            writeln!(std::io::stdout(), "the index was built again: {found} entries")?;
        }
    }
    let options = ScrubOptions { restart: true, ..ScrubOptions::default() };
    let outcome = scrubbed(context, &pool, options, "scrubbing")?;
    if !outcome.complete {
        return Err(strongroom_engine::Error::Canceled.into());
    }
    if !context.out.json && !context.out.quiet {
        scrub_text(&mut std::io::stdout(), &outcome)?;
    }
    let scrub = scrub_json(&outcome);
    let document = json!({ "superblocks": superblocks, "index_entries": entries, "scrub": scrub });
    // Who may write takes them out of the index on the way.
    checked(context, &pool, true, |_| true, document)
}
