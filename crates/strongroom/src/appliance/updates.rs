//! `strongroom system update`: other versions of the program.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::types::{Items, Job};
use strongroom_client::{Client, Error};

use super::ApplianceArgs;
use super::jobs::SHOW as JOB;
use super::operation::operations;
use super::resource::{Column, describe};
use super::send::send;
use super::system::table;
use crate::ask::YesArgs;
use crate::exit::{Context, Done};

operations! {
    SHOW = "system.updates.show", GET "/v1/system/updates", by "system update status";
    HISTORY = "system.updates.history", GET "/v1/system/updates/history",
        by "system update history";
    UPLOAD = "system.updates.upload", PUT "/v1/system/updates/upload",
        by "system update install";
    INSTALL = "system.updates.install", POST "/v1/system/updates", by "system update install";
    ROLLBACK = "system.updates.rollback", POST "/v1/system/updates/rollback",
        by "system update rollback";
}

/// How long nothing may be heard of the appliance while it starts anew.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How often it is asked how it is.
const LOOK: Duration = Duration::from_millis(250);
/// What is told first of how updates are.
const FIRST: [&str; 3] = ["version", "previous_version", "on_trial"];
/// What is shown of what was done.
const RECORD: &[Column] = &[
    ("VERSION", "version"),
    ("FROM", "from_version"),
    ("AT", "at"),
    ("BY", "by"),
    (">JOB", "job_id"),
    ("RESULT", "result"),
    ("REASON", "reason"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum UpdateCommand {
    Install(InstallArgs),
    Status(StatusArgs),
    History(HistoryArgs),
    Rollback(RollbackArgs),
}

/// Install another version of the program, and start it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The package is sent and checked whole; when anything is wrong with it, nothing is changed. It is
installed beside what runs, and the appliance starts anew with it, on trial: if it ends, or does not
answer, what was there before comes back by itself. Jobs that run go on then.

Example:
  strongroom system update install strongroom-0.2.0.update")]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The package
    file: PathBuf,
    /// Also when it is not newer than what runs
    #[arg(long)]
    allow_older: bool,
    /// Also when the catalogue can't be copied before, as with PostgreSQL: if the new version changes
    /// its schema and fails, nothing starts without a backup of the database
    #[arg(long)]
    without_catalogue_copy: bool,
    /// Don't wait for the appliance's job: say its number and end [default: wait until the trial is
    /// over]
    #[arg(long)]
    no_wait: bool,
}

/// Show which version runs, and how the last update went
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system update status")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// List the updates that were installed and rolled back
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system update history")]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Go back to the version before, and start it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Where the version before does not know the catalogue as it is now, it takes --put-catalogue-back: what
was done since the update is lost then, but for what is in pools.

Example:
  strongroom system update rollback --yes")]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// With the catalogue as it was before the update, where that is needed
    #[arg(long)]
    put_catalogue_back: bool,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn update(context: &Context, command: &UpdateCommand) -> Result<Done> {
    match command {
        UpdateCommand::Install(args) => install(context, args)?,
        UpdateCommand::Status(args) => {
            let shown: Value = SHOW.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, shown.clone(), |out| describe(out, &FIRST, &shown))?;
        }
        UpdateCommand::History(args) => {
            let records: Items<Value> = HISTORY.ask(&args.appliance.client()?, &[])?;
            match context.out.json {
                true => records.items.iter().try_for_each(|one| context.out.document(one))?,
                false => table(&mut io::stdout().lock(), RECORD, &records.items)?,
            }
        }
        UpdateCommand::Rollback(args) => {
            let client = args.appliance.client()?;
            args.yes.confirm("Go back to the version before")?;
            let body = json!({ "put_catalogue_back": args.put_catalogue_back });
            let told: Value = ROLLBACK.send(&client, &[], &body)?;
            let version = told["version"].as_str().unwrap_or_default();
            let text = format!("the appliance starts anew with version {version}");
            context.out.done(told.clone(), &text)?;
        }
    }
    Ok(Done::Well)
}

fn install(context: &Context, args: &InstallArgs) -> Result<()> {
    let client = args.appliance.client()?;
    send(&client, &UPLOAD, &args.file)?;
    let body = json!({
        "allow_older": args.allow_older,
        "without_catalogue_copy": args.without_catalogue_copy,
    });
    let job: Job = INSTALL.send(&client, &[], &body)?;
    let id = job.id.to_string();
    if args.no_wait {
        return Ok(context.out.summary(None, serde_json::to_value(&job)?, |out| {
            writeln!(out, "job {id}; `strongroom jobs show {id}` tells how it is")
        })?);
    }
    let job = until_over(&client, &id)?;
    if !matches!(job.state.as_str(), "succeeded" | "warnings") {
        bail!("job {id} is {}: {}", job.state, job.error.unwrap_or_default());
    }
    let shown: Value = SHOW.ask(&client, &[])?;
    let version = shown["version"].as_str().unwrap_or_default();
    Ok(context.out.done(shown.clone(), &format!("version {version} is in force"))?)
}

/// Waits for a job in the course of which the appliance starts anew.
fn until_over(client: &Client, id: &str) -> Result<Job> {
    let mut heard = Instant::now();
    loop {
        match JOB.ask::<Job>(client, &[id]) {
            Ok(job) if job.is_over() => return Ok(job),
            Ok(_) => heard = Instant::now(),
            Err(error) => {
                let refused = error.downcast_ref::<Error>();
                if let Some(Error::Refused(problem)) = refused
                    && (400..500).contains(&problem.status)
                {
                    return Err(error);
                }
                if heard.elapsed() >= PATIENCE {
                    bail!("nothing is heard of the appliance: its log says more");
                }
            }
        }
        std::thread::sleep(LOOK);
    }
}
