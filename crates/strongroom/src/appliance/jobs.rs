//! `strongroom jobs`: what an appliance does, and waiting for it.

use std::io::Write;

use anyhow::{Result, anyhow};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget};
use strongroom_client::Client;
use strongroom_client::types::{Items, Job, Line};

use super::ApplianceArgs;
use crate::exit::{Context, Done};
use crate::output::{print_table, size, table};
use crate::progress::style;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(OneArgs),
    Watch(WatchArgs),
    Log(LogArgs),
    Cancel(CancelArgs),
}

/// List jobs, the newest first
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Filters are FIELD:OPERATOR VALUE without the space, as the API takes them; all must hold.

Examples:
  strongroom jobs list
  strongroom jobs list --filter state:==failed --limit 20 --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Only those that this fits; may be given several times
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Only those with this word in them
    #[arg(long)]
    keyword: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// Show all that is known of a job
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom jobs show 17")]
pub(crate) struct OneArgs {
    /// Its number
    job: i64,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Wait for a job and show how far it is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The exit code tells how it ended: 0 well, 3 with warnings, 1 not. Ctrl-C leaves the job alone.

Example:
  strongroom jobs watch 17")]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Show what a job wrote
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom jobs log 17")]
pub(crate) struct LogArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Ask a job to stop
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom jobs cancel 17")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    one: OneArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => list(context, args),
        Command::Show(args) => {
            let job: Job = args.appliance.client()?.get(&path(args.job), &[])?;
            context.out.report(None, serde_json::to_value(&job)?, |out| tell(out, &job))?;
            Ok(Done::Well)
        }
        Command::Watch(WatchArgs { one }) => {
            let client = one.appliance.client()?;
            let job = client.get(&path(one.job), &[])?;
            follow(context, &client, job, false)
        }
        Command::Log(LogArgs { one }) => log(context, one),
        Command::Cancel(CancelArgs { one }) => {
            let client = one.appliance.client()?;
            let job: Job = client.post(&format!("{}/cancel", path(one.job)), &())?;
            context.out.summary(None, serde_json::to_value(&job)?, |out| {
                writeln!(out, "job {} was asked to stop", job.id)
            })?;
            Ok(Done::Well)
        }
    }
}

fn path(job: i64) -> String {
    format!("/v1/jobs/{job}")
}

fn list(context: &Context, args: &ListArgs) -> Result<Done> {
    let limit = args.limit.to_string();
    let mut query = vec![("sort", "id:desc"), ("limit", limit.as_str())];
    query.extend(args.filter.iter().map(|filter| ("filter", filter.as_str())));
    query.extend(args.keyword.iter().map(|keyword| ("keyword", keyword.as_str())));
    let jobs: Items<Job> = args.appliance.client()?.get("/v1/jobs", &query)?;
    if context.out.json {
        for job in &jobs.items {
            context.out.document(&serde_json::to_value(job)?)?;
        }
        return Ok(Done::Well);
    }
    let mut table = table(&[">JOB", "KIND", "STATE", "OBJECT", "ASKED BY", "ASKED AT", ">DONE"]);
    for job in &jobs.items {
        let done = match job.progress.percent {
            Some(percent) if !job.is_over() => format!("{percent:.0} %"),
            _ => size(job.progress.bytes_done),
        };
        let cells = [&job.kind, &job.state, &job.object, &job.user_name, &job.queued_at];
        let mut row = vec![job.id.to_string()];
        row.extend(cells.into_iter().cloned());
        row.push(done);
        table.add_row(row);
    }
    print_table(&mut std::io::stdout().lock(), &table)?;
    Ok(Done::Well)
}

fn tell(out: &mut dyn Write, job: &Job) -> std::io::Result<()> {
    writeln!(out, "job      {}", job.id)?;
    writeln!(out, "what     {} {}", job.kind, job.object)?;
    writeln!(out, "state    {}", job.state)?;
    writeln!(out, "asked    {} by {}", job.queued_at, job.user_name)?;
    let times = [("begun", &job.started_at), ("ended", &job.ended_at), ("error", &job.error)];
    for (name, text) in times {
        if let Some(text) = text {
            writeln!(out, "{name:<8} {text}")?;
        }
    }
    let progress = &job.progress;
    writeln!(out, "done     {} in {} items", size(progress.bytes_done), progress.items_done)?;
    match &job.result {
        Some(result) => writeln!(out, "result   {result}"),
        None => Ok(()),
    }
}

fn log(context: &Context, args: &OneArgs) -> Result<Done> {
    let client = args.appliance.client()?;
    let lines: Items<Line> =
        client.get(&format!("{}/log", path(args.job)), &[("limit", "10000")])?;
    for line in &lines.items {
        if context.out.json {
            context.out.document(&serde_json::to_value(line)?)?;
        } else {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{} {:<7} {}", line.at, line.level, line.message)?;
        }
    }
    Ok(Done::Well)
}

/// Waits for a job, shows how far it is where a person is watching, and tells how it ended. Ctrl-C
/// stops the job when it is `own`, begun by this very command, and only the waiting otherwise.
pub(crate) fn follow(context: &Context, client: &Client, mut job: Job, own: bool) -> Result<Done> {
    let bar = context.out.shows_progress().then(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
        bar
    });
    let mut canceled = false;
    loop {
        if let (true, Some(next)) = (job.state == "retried", job.retried_as) {
            job = client.get(&path(next), &[])?;
        }
        if job.is_over() {
            break;
        }
        // A stream that ends before the job does is opened again.
        for change in client.events::<Job>(&format!("{}/events", path(job.id)))? {
            job = change?;
            if let Some(bar) = &bar {
                bar.set_message(line(&job));
                bar.tick();
            }
            if context.interrupt.is_asked() && !own {
                return Err(strongroom_engine::Error::Canceled.into());
            }
            if context.interrupt.is_asked() && !canceled && !job.is_over() {
                canceled = true;
                // It may be over by now; then that is told next.
                let _ = client.post::<Job>(&format!("{}/cancel", path(job.id)), &());
            }
            if job.is_over() {
                break;
            }
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let document = serde_json::to_value(&job)?;
    match job.state.as_str() {
        "succeeded" | "warnings" => {
            context.out.summary(None, document, |out| {
                writeln!(out, "job {}: {} {} {}", job.id, job.kind, job.object, job.state)
            })?;
            Ok(Done::well_if(job.state == "succeeded"))
        }
        "canceled" if canceled => Err(strongroom_engine::Error::Canceled.into()),
        state => {
            let why = job.error.clone().unwrap_or_else(|| state.replace('_', " "));
            Err(anyhow!("job {} ({} {}): {why}", job.id, job.kind, job.object))
        }
    }
}

fn line(job: &Job) -> String {
    let progress = &job.progress;
    let mut line = format!("{} {}: {}", job.kind, job.object, job.state);
    if !progress.phase.is_empty() {
        line.push_str(&format!(", {}", progress.phase));
    }
    match (progress.percent, progress.bytes_done) {
        (Some(percent), done) => line.push_str(&format!(", {percent:.0} %, {}", size(done))),
        (None, done) if done > 0 => line.push_str(&format!(", {}", size(done))),
        _ => {}
    }
    if let Some(rate) = progress.rate {
        line.push_str(&format!(", {}/s", size(rate as u64)));
    }
    line
}
