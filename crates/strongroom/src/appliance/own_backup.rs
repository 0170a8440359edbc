//! `strongroom system backup` and `system restart`: the appliance's own backup, and starting it anew.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::types::Job;
use strongroom_client::{Client, Error};

use super::ApplianceArgs;
use super::fetch::{Old, fetch};
use super::follow::{StartArgs, Waiting, follow};
use super::jobs::SHOW as JOB;
use super::operation::operations;
use super::resource::describe;
use super::send::send;
use crate::ask::{self, YesArgs};
use crate::exit::{Context, Done};

operations! {
    SHOW = "system.backup.show", GET "/v1/system/backup", by "system backup show";
    START = "system.backup.start", POST "/v1/system/backup", by "system backup start";
    STOP = "system.backup.stop", DELETE "/v1/system/backup", by "system backup stop";
    LOG = "system.backup.log", GET "/v1/system/backup/log", by "system backup log";
    DOWNLOAD = "system.backup.download", GET "/v1/system/backup/download",
        by "system backup download";
    STORE = "system.backup.store", POST "/v1/system/backup/store", by "system backup store";
    UPLOAD = "system.backup.upload", PUT "/v1/system/backup/upload", by "system backup restore";
    RESTORE = "system.backup.restore", POST "/v1/system/backup/restore",
        by "system backup restore";
    RESTART = "system.restart", POST "/v1/system/restart", by "system restart";
}

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often it is asked whether the appliance has started.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    Start(StartBackupArgs),
    Stop(StopBackupArgs),
    Show(ShowBackupArgs),
    Log(LogArgs),
    Download(DownloadArgs),
    Store(StoreArgs),
    Restore(RestoreArgs),
}

#[derive(clap::Args, Debug)]
struct PassphraseArgs {
    /// The passphrase is the first line of this file, `-` of standard input [default: it is asked
    /// for]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Back the appliance itself up: its catalogue, configuration, certificate and keys
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The archive is sealed under the passphrase, which is not kept: without it nobody can open the archive.
It stays in the appliance's data directory until the next one or `stop`; take it elsewhere by `download`
or `store`. Pools are not in it. With PostgreSQL the catalogue is not in it either: that has its own
tools.

Examples:
  strongroom system backup start
  strongroom system backup start --passphrase-file phrase.txt
  strongroom system backup download box.tar")]
pub(crate) struct StartBackupArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Don't wait for the appliance's job: say its number and end [default: wait for it]
    #[arg(long)]
    no_wait: bool,
}

/// Stop the backup that is being made, or remove the one that there is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system backup stop")]
pub(crate) struct StopBackupArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show the backup that there is, and how the last one went
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system backup show")]
pub(crate) struct ShowBackupArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Print the log of backups and restores
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system backup log")]
pub(crate) struct LogArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Write the backup that there is to a file
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom system backup download box.tar
  strongroom system backup download - | ssh elsewhere 'cat >box.tar'")]
pub(crate) struct DownloadArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The file, which must not be there yet; `-` is standard output
    file: PathBuf,
}

/// Store the backup that there is in a pool, as an image of the name `appliance`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system backup store --into main")]
pub(crate) struct StoreArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The pool's name
    #[arg(long, value_name = "POOL", default_value = "main")]
    into: String,
    #[command(flatten)]
    how: StartArgs,
}

/// Put a backup in the place of what the appliance is now, and start it anew
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The archive is sent and looked at whole; when anything is wrong with it, nothing is changed. Then the
appliance starts with what it holds: users, keys, settings, jobs, certificate. If that does not start,
what was there is put back; else it is left in `before-restore` of the data directory. Pools stay as they
are.

An archive that a script for Jidoteki Admin made opens with the SHA-256 of its token, as hexadecimal
digits: printf %s TOKEN | sha256sum

Example:
  strongroom system backup restore box.tar --passphrase-file phrase.txt --yes")]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The archive
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// Start the appliance anew: jobs that run go on then
#[derive(clap::Args, Debug)]
#[command(after_help = "\
With --passphrase-file the appliance is backed up first.

Examples:
  strongroom system restart
  strongroom system restart --passphrase-file phrase.txt")]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Back the appliance up first, sealed under the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Don't wait until it has started
    #[arg(long)]
    no_wait: bool,
}

pub(crate) fn backup(context: &Context, command: &BackupCommand) -> Result<Done> {
    match command {
        BackupCommand::Start(args) => {
            let client = args.appliance.client()?;
            let file = args.passphrase.passphrase_file.as_deref();
            let passphrase = ask::new_secret(file, "Passphrase of the archive")?;
            let passphrase = passphrase.ok_or_else(|| ask::nobody("--passphrase-file"))?;
            let job: Job = START.send(&client, &[], &json!({ "passphrase": passphrase }))?;
            return wait(context, &client, job, args.no_wait);
        }
        BackupCommand::Stop(args) => {
            STOP.ask::<()>(&args.appliance.client()?, &[])?;
            context.out.done(json!({ "stopped": true }), "there is no backup any more")?;
        }
        BackupCommand::Show(args) => {
            let shown: Value = SHOW.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, shown.clone(), |out| describe(out, &["job_state"], &shown))?;
        }
        BackupCommand::Log(args) => {
            let text = args.appliance.client()?.text(&LOG.call(&[]))?;
            let document = json!({ "log": text });
            context.out.report(None, document, |out| out.write_all(text.as_bytes()))?;
        }
        BackupCommand::Download(args) => {
            fetch(context, &args.appliance, &DOWNLOAD, &args.file, Old::Stays)?;
        }
        BackupCommand::Store(args) => {
            let client = args.appliance.client()?;
            let into = json!({ "pool": args.into });
            return args.how.start(context, &client, &STORE, &[], &into);
        }
        BackupCommand::Restore(args) => restore(context, args)?,
    }
    Ok(Done::Well)
}

/// Waits for a job, unless that isn't wanted.
fn wait(context: &Context, client: &Client, job: Job, no_wait: bool) -> Result<Done> {
    if !no_wait {
        return follow(context, client, job, Waiting::ForOwn);
    }
    context.out.summary(None, serde_json::to_value(&job)?, |out| {
        let id = job.id;
        writeln!(out, "job {id}; `strongroom jobs watch {id}` waits for it")
    })?;
    Ok(Done::Well)
}

fn restore(context: &Context, args: &RestoreArgs) -> Result<()> {
    let client = args.appliance.client()?;
    args.yes.confirm("Replace users, keys, settings and certificate by those of the backup")?;
    let file = args.passphrase.passphrase_file.as_deref();
    let passphrase = ask::secret(file, "Passphrase of the archive")?;
    let passphrase = passphrase.ok_or_else(|| ask::nobody("--passphrase-file"))?;
    let before = started(&client).ok();
    send(&client, &UPLOAD, &args.file)?;
    let restored: Value = RESTORE.send(&client, &[], &json!({ "passphrase": passphrase }))?;
    if let Some(before) = before {
        until_started(&client, &before, None)?;
    }
    context.out.report(None, restored.clone(), |out| describe(out, &["made_at"], &restored))?;
    Ok(())
}

pub(crate) fn restart(context: &Context, args: &RestartArgs) -> Result<Done> {
    let client = args.appliance.client()?;
    let passphrase = ask::from_file(args.passphrase_file.as_deref())?;
    // Who doesn't wait needs no right to look.
    let before = if args.no_wait { None } else { Some(started(&client)?) };
    let body = match passphrase {
        Some(passphrase) => json!({ "passphrase": passphrase }),
        None => json!({}),
    };
    let job: Job = RESTART.send(&client, &[], &body)?;
    let Some(before) = before else { return wait(context, &client, job, true) };
    until_started(&client, &before, Some(&job))?;
    context.out.done(json!({ "restarted": true, "job": job.id }), "the appliance has started")?;
    Ok(Done::Well)
}

/// When it started.
fn started(client: &Client) -> Result<Value, Error> {
    let status: Value = client.get("/v1/system/status", &[])?;
    Ok(status["started_at"].clone())
}

/// Waits until it has started anew: with the job that does it, or with a backup, where who is not
/// known any more has been answered by it.
fn until_started(client: &Client, before: &Value, job: Option<&Job>) -> Result<()> {
    let mut end = Instant::now() + PATIENCE;
    loop {
        match started(client) {
            Ok(at) if at != *before => return Ok(()),
            Err(Error::OtherCertificate { .. }) if job.is_none() => return Ok(()),
            Err(Error::Refused(problem))
                if job.is_none() && [401, 403].contains(&problem.status) =>
            {
                return Ok(());
            }
            // It takes its turn after other jobs, and a backup may take long.
            Ok(_) if let Some(job) = job => match JOB.ask::<Job>(client, &[&job.id.to_string()]) {
                Ok(now) if matches!(now.state.as_str(), "queued" | "running") => {
                    end = Instant::now() + PATIENCE;
                }
                Ok(now) if !matches!(now.state.as_str(), "succeeded" | "warnings") => {
                    let why = now.error.unwrap_or_default();
                    bail!("job {}, which starts it anew, is {}: {why}", now.id, now.state);
                }
                _ => {}
            },
            _ => {}
        }
        if Instant::now() >= end {
            bail!("the appliance has not started within {PATIENCE:?}: its log says more");
        }
        std::thread::sleep(LOOK);
    }
}
