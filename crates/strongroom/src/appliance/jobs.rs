//! `strongroom jobs`: what an appliance does, and waiting for it.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;
use strongroom_client::Client;
use strongroom_client::types::{Items, Job, Line};

pub(crate) use super::follow::{Waiting, follow};
use super::list::{LANGUAGE, SearchArgs};
use super::operation::operations;
use super::resource::{Resource, local};
use super::{ApplianceArgs, watch};
use crate::exit::{Context, Done};

operations! {
    SHOW = "jobs.show", GET "/v1/jobs/{job}", by "jobs show";
    WATCH_ALL = "jobs.watch_all", GET "/v1/jobs/events", by "jobs watch";
    WATCH = "jobs.watch", GET "/v1/jobs/{job}/events", by "jobs watch";
    LOG = "jobs.log", GET "/v1/jobs/{job}/log", by "jobs log";
    CANCEL = "jobs.cancel", POST "/v1/jobs/{job}/cancel", by "jobs cancel";
}

/// Jobs.
pub(crate) static JOBS: Resource = Resource {
    one: "job",
    path: "/v1/jobs",
    id: "jobs.list",
    command: "jobs list",
    columns: &[
        (">JOB", "id"),
        ("KIND", "kind"),
        ("STATE", "state"),
        ("OBJECT", "object"),
        ("ASKED BY", "user_name"),
        ("ASKED AT", "queued_at"),
        (">DONE", "progress.percent"),
        (">BYTES", "progress.bytes_done"),
    ],
    sort: Some("id:desc"),
    limit: Some(50),
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Watch(WatchArgs),
    Log(LogArgs),
    Cancel(CancelArgs),
}

/// List jobs, the newest first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom jobs list
  strongroom jobs list --filter state:==failed --limit 20 --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

/// Show all that is known of a job
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom jobs show 17")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Which job.
#[derive(clap::Args, Debug)]
struct OneArgs {
    /// Its number
    job: i64,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Wait for a job and show how far it is; without a number all jobs, until Ctrl-C
#[derive(clap::Args, Debug)]
#[command(after_help = "\
On a terminal there are bars; elsewhere one line for each step, with --json one document for each
change. For one job the exit code tells how it ended: 0 well, 3 with warnings, 1 not. Ctrl-C leaves
jobs alone.

Examples:
  strongroom jobs watch
  strongroom jobs watch 17")]
pub(crate) struct WatchArgs {
    /// Its number
    job: Option<i64>,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show what a job wrote
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom jobs log 17
  strongroom jobs log 17 --follow")]
pub(crate) struct LogArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Go on until the job is over
    #[arg(long, short)]
    follow: bool,
}

/// Ask a job to stop
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It stops at its next safe point, within a second as a rule; `strongroom jobs watch` waits for that.

Example:
  strongroom jobs cancel 17")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    one: OneArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => args.search.run(context, &args.appliance.client()?, &JOBS),
        Command::Show(ShowArgs { one }) => {
            let job: Value = SHOW.ask(&one.appliance.client()?, &[&one.job.to_string()])?;
            context.out.report(None, job.clone(), |out| JOBS.describe(out, &job))?;
            Ok(Done::Well)
        }
        Command::Watch(WatchArgs { job, appliance }) => {
            let client = appliance.client()?;
            let Some(job) = job else { return watch::all(context, &client) };
            let job = SHOW.ask(&client, &[&job.to_string()])?;
            follow(context, &client, job, Waiting::ToSee)
        }
        Command::Log(args) => log(context, args),
        Command::Cancel(CancelArgs { one }) => {
            let job: Job = CANCEL.ask(&one.appliance.client()?, &[&one.job.to_string()])?;
            context.out.summary(None, serde_json::to_value(&job)?, |out| {
                writeln!(out, "job {} was asked to stop", job.id)
            })?;
            Ok(Done::Well)
        }
    }
}

fn log(context: &Context, args: &LogArgs) -> Result<Done> {
    let client = args.one.appliance.client()?;
    let id = args.one.job.to_string();
    let mut after = lines(context, &client, &id, 0)?;
    while args.follow && !context.interrupt.is_asked() {
        let job: Job = SHOW.ask(&client, &[&id])?;
        after = lines(context, &client, &id, after)?;
        if job.is_over() {
            return Ok(Done::Well);
        }
        // Until it changes, or a moment: it may write without that.
        let mut changes = client.events::<Job>(&WATCH.path(&[&id]))?;
        let _ = changes.wait(Duration::from_secs(1)).transpose()?;
        let _ = changes.wait(Duration::from_secs(1)).transpose()?;
    }
    match context.interrupt.is_asked() {
        true => Err(strongroom_engine::Error::Canceled.into()),
        false => Ok(Done::Well),
    }
}

/// Prints the lines of a job's log behind this one; the number of the last.
fn lines(context: &Context, client: &Client, job: &str, mut after: i64) -> Result<i64> {
    loop {
        let from = after.to_string();
        let path = LOG.path(&[job]);
        let page: Items<Line> = client.get(&path, &[("after", &from), ("limit", "1000")])?;
        for line in &page.items {
            after = line.id;
            match context.out.json {
                true => context.out.document(&serde_json::to_value(line)?)?,
                false => {
                    let mut out = std::io::stdout().lock();
                    let message = strongroom_archive::show(line.message.as_bytes());
                    writeln!(out, "{} {:<7} {message}", local(&line.at), line.level)?;
                }
            }
        }
        if !page.more || page.items.is_empty() {
            return Ok(after);
        }
    }
}
