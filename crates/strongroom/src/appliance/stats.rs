//! `strongroom stats`: what is stored, what was done, and how that grows.

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::Value;

use super::ApplianceArgs;
use super::list::{LANGUAGE, Listing};
use super::operation::operations;
use super::pools;
use super::resource::{self, Column, Resource, describe};
use crate::exit::{Context, Done, usage};
use crate::parse::{self, Moment};

operations! {
    SHOW = "stats.show", GET "/v1/stats", by "stats show";
    POOL = "stats.pool", GET "/v1/pools/{pool}/stats", by "stats pool";
}

/// How pools were, hour by hour and day by day.
pub(crate) static SAMPLES: Resource = Resource {
    one: "sample",
    path: "/v1/stats/samples",
    id: "stats.samples",
    command: "stats samples",
    columns: &[
        (">POOL", "pool_id"),
        ("GRAIN", "grain"),
        ("AT", "figures.at"),
        (">IMAGES", "figures.images"),
        (">LOGICAL", "figures.logical_bytes"),
        (">STORED", "figures.stored_bytes"),
        (">ON DISK", "figures.disk_bytes"),
        (">FREE", "figures.free_bytes"),
    ],
    sort: Some("id:desc"),
    limit: Some(50),
};

/// What is shown of pools.
const POOLS: &[Column] = &[
    (">POOL", "pool_id"),
    ("NAME", "name"),
    (">IMAGES", "figures.images"),
    (">LOGICAL", "figures.logical_bytes"),
    (">STORED", "figures.stored_bytes"),
    (">ON DISK", "figures.disk_bytes"),
    (">FREE", "figures.free_bytes"),
    (">DEDUP", "deduplication"),
    (">COMPR", "compression"),
    (">A DAY", "growth_bytes_per_day"),
    (">FULL IN DAYS", "full_in_days"),
    ("LAST BACKUP", "last_backup_at"),
];
/// What is shown of jobs that are over.
const ENDED: &[Column] = &[
    ("JOBS", "kind"),
    ("ENDED", "state"),
    (">COUNT", "count"),
    (">BYTES", "bytes"),
    (">SECONDS", "seconds"),
    (">RATE", "rate"),
];
/// What is shown of those that are not.
const OPEN: &[Column] =
    &[("JOBS", "kind"), ("ARE", "state"), (">COUNT", "count"), ("OLDEST", "oldest")];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Show(ShowArgs),
    Pool(PoolArgs),
    Samples(SamplesArgs),
}

/// Show all pools, and the jobs of a time
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom stats show
  strongroom stats show --from 2026-11-01 --to 2026-11-30 --json
  strongroom stats show --last 7d")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Count jobs that were over since this time [default: a day before its end]
    #[arg(long, value_name = "TIME", value_parser = parse::moment)]
    from: Option<Moment>,
    /// Count jobs that were over before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse::moment)]
    to: Option<Moment>,
    /// Count jobs that were over within this time until now, like 7d
    #[arg(long, value_name = "DURATION", value_parser = parse::duration,
          conflicts_with_all = ["from", "to"])]
    last: Option<i64>,
}

/// Show how a pool is, how it grows, and when it will be full
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The figures are those of its last measurement; `strongroom pool stats` asks the pool itself.

Examples:
  strongroom stats pool
  strongroom stats pool branch --json")]
pub(crate) struct PoolArgs {
    /// Its name or number [default: main, or the only one]
    pool: Option<String>,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// List how pools were, hour by hour and day by day, the newest first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom stats samples --filter grain:==day --filter pool_id:==1
  strongroom stats samples --all --json"))]
pub(crate) struct SamplesArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    list: Listing,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::Show(args) => show(context, args),
        Command::Pool(args) => {
            let client = args.appliance.client()?;
            let id = pools::pool(&client, args.pool.as_deref())?.id.to_string();
            let pool: Value = POOL.ask(&client, &[&id])?;
            let first: Vec<&str> = POOLS.iter().map(|(_, field)| *field).collect();
            context.out.report(None, pool.clone(), |out| describe(out, &first, &pool))?;
            Ok(Done::Well)
        }
        Command::Samples(args) => args.list.run(context, &args.appliance.client()?, &SAMPLES),
    }
}

fn show(context: &Context, args: &ShowArgs) -> Result<Done> {
    let now = Timestamp::now();
    let ago = |nanos: i64| Moment::In(-nanos);
    let time = |moment: Option<Moment>| moment.map(|m| m.from(now)).transpose().map_err(usage);
    let from = time(args.from.or(args.last.map(ago)))?.map(|at| at.to_string());
    let to = time(args.to)?.map(|at| at.to_string());
    let mut query = Vec::new();
    query.extend(from.as_deref().map(|from| ("from", from)));
    query.extend(to.as_deref().map(|to| ("to", to)));
    let client = args.appliance.client()?;
    let stats: Value = client.call(&SHOW.call(&[]).queried(&query))?;
    context.out.report(None, stats.clone(), |out| {
        table(out, POOLS, &stats["pools"])?;
        describe(out, &[], &stats["total"])?;
        let time = |field: &str| resource::text(field, &stats[field]);
        writeln!(out, "\nfrom {} to {}", time("from"), time("to"))?;
        table(out, ENDED, &stats["jobs"])?;
        table(out, OPEN, &stats["open"])
    })?;
    Ok(Done::Well)
}

/// Prints a table, if there is anything in it.
fn table(out: &mut dyn Write, columns: &[Column], items: &Value) -> std::io::Result<()> {
    let Some(items) = items.as_array().filter(|items| !items.is_empty()) else { return Ok(()) };
    let columns = resource::owned(columns);
    let rows = items.iter().map(|item| resource::row(&columns, item)).collect();
    resource::print(out, &columns, rows)?;
    writeln!(out)
}
