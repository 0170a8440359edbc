//! `strongroom forget`: retention.

use anyhow::Result;
use serde_json::{Value, json};
use strongroom_archive::image::{self, Image};
use strongroom_archive::retention::{Policy, Verdict};
use strongroom_archive::show;
use strongroom_engine::pool::{GcOptions, OpenMode};

use crate::access::PoolArgs;
use crate::appliance::follow::StartArgs;
use crate::appliance::pools::{self, Upkeep};
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};
use crate::images::{forget_all, short};
use crate::output::{count, local_time, print_table, table};
use crate::parse;
use crate::pool::{gc_json, gc_text, gc_with};

/// Forget images by age and number
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The rules hold for each name and machine by itself. An image stays when any rule keeps it:
--keep-daily 7 keeps the latest image of each of the last 7 days that have one. Time is the pool's
own, whatever the clients' clocks say. Immutable images stay in any case, and so do those that say how
long they are kept (`backup --keep-for`); --expired forgets the latter once that is over. On a terminal you are asked
first; elsewhere, as in a timer, not.

Examples:
  strongroom forget --keep-daily 7 --keep-weekly 5 --prune --yes
  strongroom forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --prune --pool /srv/pool
  strongroom forget --name home --keep-last 3 --dry-run --pool /srv/pool
  strongroom forget --expired --prune --pool /srv/pool")]
pub(crate) struct Args {
    #[command(flatten)]
    pool: PoolArgs,
    /// Keep the latest N
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_last: u64,
    /// Keep the latest of each of N hours
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_hourly: u64,
    /// Keep the latest of each of N days
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_daily: u64,
    /// Keep the latest of each of N weeks
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_weekly: u64,
    /// Keep the latest of each of N months
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_monthly: u64,
    /// Keep the latest of each of N years
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_yearly: u64,
    /// Keep all that are not older than this before the latest, like 30d
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    keep_within: Option<i64>,
    /// Keep all with this label
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// Instead of rules: forget those that have been kept for as long as they say
    #[arg(long, conflicts_with_all = [
        "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly",
        "keep_within", "keep_tag",
    ])]
    expired: bool,
    /// Only images of this name
    #[arg(long)]
    name: Option<String>,
    /// Only images of this machine
    #[arg(long)]
    host: Option<String>,
    /// Only images with this label
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only say what would be forgotten
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Then free what no image needs any more, as `pool gc` does
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    yes: YesArgs,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    let policy = Policy {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within: args.keep_within,
        tags: args.keep_tag.clone(),
    };
    if policy.is_empty() && !args.expired {
        return Err(usage("nothing says what is to stay: give at least one --keep option"));
    }
    if let Some(name) = args.pool.at_appliance() {
        return at_appliance(context, name, args);
    }
    args.start.must_not_be_given()?;
    let mode = if args.dry_run && !args.prune { OpenMode::Read } else { OpenMode::Write };
    let pool = args.pool.open(context, mode)?;
    let (images, _) = image::images(&*pool)?;
    let chosen = images.iter().filter(|image| {
        args.name.as_ref().is_none_or(|name| *name == image.name)
            && args.host.as_ref().is_none_or(|host| *host == image.meta.host)
            && args.tags.iter().all(|tag| image.meta.tags.contains(tag))
    });
    let now = pool.now();
    let verdicts = match args.expired {
        // What isn't expired is not spoken of.
        true => {
            let expired = chosen.filter(|image| image.is_expired(now));
            expired.map(|image| Verdict { image, reasons: Vec::new() }).collect()
        }
        false => policy.judge(chosen, now)?,
    };
    let going: Vec<&Image> = verdicts.iter().filter(|v| !v.stays()).map(|v| v.image).collect();
    if !args.dry_run && !going.is_empty() {
        let images = count(going.len() as u64, "image", "images");
        args.yes.confirm_if_somebody(&format!("Forget {images}"))?;
        forget_all(&pool, &going)?;
    }
    let options = GcOptions { dry_run: args.dry_run, ..GcOptions::default() };
    let freed = match args.prune {
        true => Some(gc_with(context, &pool, options)?),
        false => None,
    };
    let (kept, forgotten): (Vec<_>, Vec<_>) = verdicts.iter().partition(|v| v.stays());
    let document = json!({
        "dry_run": args.dry_run,
        "kept": kept.iter().map(|verdict| verdict_json(verdict)).collect::<Vec<_>>(),
        "forgotten": forgotten.iter().map(|verdict| verdict_json(verdict)).collect::<Vec<_>>(),
        "gc": freed.as_ref().map(|report| gc_json(report, options)),
    });
    context.out.summary(Some(&pool), document, |out| {
        let mut rows = table(&["", "ID", "NAME", "CREATED", "HOST", "KEPT AS"]);
        for verdict in &verdicts {
            let image = verdict.image;
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            rows.add_row([
                if verdict.stays() { "keep" } else { "forget" }.into(),
                short(&image.id),
                show(image.name.as_bytes()),
                local_time(image.created),
                show(image.meta.host.as_bytes()),
                show(reasons.join(", ").as_bytes()),
            ]);
        }
        if !verdicts.is_empty() {
            print_table(out, &rows)?;
        }
        let gone = count(going.len() as u64, "image", "images");
        let stay = count(kept.len() as u64, "stays", "stay");
        let did = if args.dry_run { "would forget" } else { "forgot" };
        writeln!(out, "{did} {gone}; {stay}")?;
        match &freed {
            Some(report) => gc_text(out, report, options),
            None if going.is_empty() || args.dry_run => Ok(()),
            None => writeln!(out, "`strongroom pool gc` frees what only they needed"),
        }
    })?;
    Ok(Done::well_if(freed.is_none_or(|report| report.missing_chunks == 0)))
}

/// Has an appliance forget.
fn at_appliance(context: &Context, pool: Option<&str>, args: &Args) -> Result<Done> {
    if !args.dry_run {
        args.yes.confirm_if_somebody(match args.expired {
            true => "Forget all images that have been kept for as long as they say",
            false => "Forget all images that no rule keeps",
        })?;
    }
    let what = json!({
        "name": args.name,
        "host": args.host,
        "tags": args.tags,
        "keep_last": args.keep_last,
        "keep_hourly": args.keep_hourly,
        "keep_daily": args.keep_daily,
        "keep_weekly": args.keep_weekly,
        "keep_monthly": args.keep_monthly,
        "keep_yearly": args.keep_yearly,
        "keep_within_seconds": args.keep_within.map(|ns| ns.unsigned_abs() / 1_000_000_000),
        "keep_tags": args.keep_tag,
        "expired": args.expired,
        "dry_run": args.dry_run,
        "prune": args.prune,
    });
    let client = args.pool.appliance.client()?;
    pools::start(context, &client, pool, Upkeep::Forget, &what, &args.start)
}

fn verdict_json(verdict: &Verdict<'_>) -> Value {
    json!({
        "id": verdict.image.id.to_string(),
        "name": verdict.image.name,
        "reasons": verdict.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
