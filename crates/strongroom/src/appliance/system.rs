//! `strongroom system`: what an appliance is, what it serves, and how its machine fares.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::types::Items;

use super::ApplianceArgs;
use super::acme::{AcmeCommand, acme};
use super::fetch::{Old, fetch};
use super::network::{self, ApplicationCommand, NetworkCommand};
use super::operation::operations;
use super::own_backup::{self, BackupCommand, RestartArgs};
use super::resource::{self, Column, describe};
use super::storage::{self, StorageCommand};
use super::updates::{self, UpdateCommand};
use crate::ask::{self, YesArgs};
use crate::exit::{Context, Done, usage};
use crate::output::say_notes;

operations! {
    HEALTH = "system.health.show", GET "/v1/system/health", by "system health";
    VERSION = "system.version", GET "/v1/system/version", by "system version";
    CHANGELOG = "system.changelog", GET "/v1/system/changelog", by "system changelog";
    SERVICES = "system.services", GET "/v1/system/services", by "system services";
    CERTIFICATE = "system.certificate.show", GET "/v1/system/certificate",
        by "system certificate show";
    REPLACE_CERTIFICATE = "system.certificate.replace", PUT "/v1/system/certificate",
        by "system certificate replace";
    LOGS = "system.logs", GET "/v1/system/logs", by "system logs";
    DEBUG = "system.debug", GET "/v1/system/debug", by "system debug";
    TOKEN = "system.token.show", GET "/v1/system/token", by "system token show";
    SET_TOKEN = "system.token.set", PUT "/v1/system/token", by "system token set";
    RESET_TOKEN = "system.token.reset", POST "/v1/system/token/reset", by "system token reset";
}

/// What is shown of what can be full.
const USAGES: &[Column] = &[
    ("WHAT", "what"),
    ("STATE", "state"),
    (">TOTAL", "total_bytes"),
    (">USED", "used_bytes"),
    (">FREE", "free_bytes"),
    (">FULL", "percent"),
];
/// What is shown of the processors.
const CPU: &[Column] = &[
    (">CORES", "cores"),
    (">LOAD 1 MIN", "load_1"),
    (">5 MIN", "load_5"),
    (">15 MIN", "load_15"),
    (">LOAD BY CORES", "percent"),
];
/// What is shown of a server.
const SERVICE: &[Column] =
    &[("SERVICE", "name"), ("STATE", "state"), ("SINCE", "state_since"), ("ADDRESS", "address")];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Health(HealthArgs),
    Version(VersionArgs),
    Changelog(ChangelogArgs),
    Services(ServicesArgs),
    /// The certificate that the appliance shows
    Certificate {
        #[command(subcommand)]
        command: CertificateCommand,
    },
    Logs(LogsArgs),
    Debug(DebugArgs),
    /// The appliance's own backup: its catalogue, configuration, certificate and keys
    Backup {
        #[command(subcommand)]
        command: BackupCommand,
    },
    Restart(RestartArgs),
    /// How the appliance is reached: addresses, name servers, the name of the host
    Network {
        #[command(subcommand)]
        command: NetworkCommand,
    },
    /// Settings of whatever application runs beside
    Application {
        #[command(subcommand)]
        command: ApplicationCommand,
    },
    /// Other versions of the program
    Update {
        #[command(subcommand)]
        command: UpdateCommand,
    },
    /// Storage that the appliance attaches when it starts: a share, or a disk of another machine
    Storage {
        #[command(subcommand)]
        command: StorageCommand,
    },
    /// The one token that scripts for Jidoteki Admin take
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    Show(ShowCertificateArgs),
    Replace(ReplaceCertificateArgs),
    /// Certificates of an authority, asked for and renewed by themselves (ACME)
    Acme {
        #[command(subcommand)]
        command: AcmeCommand,
    },
}

/// Show what the certificate says: its names, who signed it, until when it is valid
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system certificate show")]
pub(crate) struct ShowCertificateArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show another certificate to clients from now on
#[derive(clap::Args, Debug)]
#[command(after_help = "\
All files are PEM. The key is RSA, EC or Ed25519 and not encrypted. Certificates and key are looked at
first: when they don't belong together, nothing is changed. Whoever trusted the certificate until now by
its fingerprint has to log in again.

Example:
  strongroom system certificate replace --certificate box.pem --key box.key --chain ca.pem")]
pub(crate) struct ReplaceCertificateArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The certificate; those that it was signed with may follow it
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Certificates that it was signed with, in any order
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Show(ShowTokenArgs),
    Set(SetTokenArgs),
    Reset(ResetTokenArgs),
}

/// Show whether there is a token, and which API key it is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The key of that number can be narrowed, switched off and given an end, as others can.

Example:
  strongroom system token show")]
pub(crate) struct ShowTokenArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Set the token, whatever there was before; it acts as you
#[derive(clap::Args, Debug)]
#[command(after_help = "\
1 to 255 visible ASCII characters without spaces. On the control socket it acts as `admin`.

Examples:
  strongroom system token set
  strongroom system token set --token-file token.txt")]
pub(crate) struct SetTokenArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The token is the first line of this file, `-` of standard input [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// End the token, and print a passphrase that another is set with
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Until a token is set by POST /api/v1/admin/setup with the passphrase, scripts get nothing else.

Example:
  strongroom system token reset --yes")]
pub(crate) struct ResetTokenArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// Show the room, memory and load of the machine, measured now
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The load is how many processes ran or wanted to; by the cores it is that of 5 minutes. What the
system doesn't tell is left out. Of pools, the disks of those that are open are shown.

Examples:
  strongroom system health
  strongroom system health --json")]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show which program the appliance runs, and of what it was built
#[derive(clap::Args, Debug)]
#[command(after_help = "\
`strongroom --version` tells that of this program.

Example:
  strongroom system version")]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Print what is new in the program that the appliance runs, in Markdown
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system changelog | less")]
pub(crate) struct ChangelogArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// List where the appliance listens, and how the services beside are that the configuration names
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system services")]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Fetch the logs: of the process, of jobs that failed, the last events and audit lines
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Secrets are left out, and taken out of logs; look at it nevertheless before you hand it on.

Example:
  strongroom system logs --output logs.tar.gz")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The file that is made; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Fetch the logs and more, in a form that only the vendor can open
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The configuration names the file with the vendor's public key (support_key). docs/install.md says how
the vendor opens it.

Example:
  strongroom system debug --output debug-bundle.tar")]
pub(crate) struct DebugArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The file that is made; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::Logs(args) => fetch(context, &args.appliance, &LOGS, &args.output, Old::Replaced)?,
        Command::Debug(args) => {
            fetch(context, &args.appliance, &DEBUG, &args.output, Old::Replaced)?;
        }
        Command::Health(args) => {
            let health: Value = HEALTH.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, health.clone(), |out| show_health(out, &health))?;
        }
        Command::Version(args) => {
            let build: Value = VERSION.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, build.clone(), |out| describe(out, &["version"], &build))?;
        }
        Command::Changelog(args) => {
            let text = args.appliance.client()?.text(&CHANGELOG.call(&[]))?;
            let document = json!({ "changelog": text });
            context.out.report(None, document, |out| out.write_all(text.as_bytes()))?;
        }
        Command::Certificate { command } => return certificate(context, command),
        Command::Backup { command } => return own_backup::backup(context, command),
        Command::Update { command } => return updates::update(context, command),
        Command::Restart(args) => return own_backup::restart(context, args),
        Command::Network { command } => return network::network(context, command),
        Command::Application { command } => return network::application(context, command),
        Command::Storage { command } => storage::storage(context, command)?,
        Command::Token { command } => token(context, command)?,
        Command::Services(args) => {
            let services: Items<Value> = SERVICES.ask(&args.appliance.client()?, &[])?;
            match context.out.json {
                true => services.items.iter().try_for_each(|one| context.out.document(one))?,
                false => table(&mut io::stdout().lock(), SERVICE, &services.items)?,
            }
        }
    }
    Ok(Done::Well)
}

/// Bytes of a file with certificates or a key, at most; the appliance takes no more.
const MAX_PEM: u64 = 1 << 20;

pub(super) fn pem(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(MAX_PEM + 1).read_to_string(&mut text));
    file.with_context(|| format!("reading {}", path.display()))?;
    if text.len() as u64 > MAX_PEM {
        return Err(usage(format!("{} has more than {MAX_PEM} bytes", path.display())));
    }
    Ok(text)
}

fn certificate(context: &Context, command: &CertificateCommand) -> Result<Done> {
    let first = ["subject", "issuer", "names"];
    match command {
        CertificateCommand::Acme { command } => return acme(context, command),
        CertificateCommand::Show(args) => {
            let shown: Value = CERTIFICATE.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, shown.clone(), |out| describe(out, &first, &shown))?;
        }
        CertificateCommand::Replace(args) => {
            let chain = args.chain.as_deref().map(pem).transpose()?.unwrap_or_default();
            let new = json!({
                "certificate": pem(&args.certificate)?,
                "key": pem(&args.key)?,
                "chain": chain,
            });
            let client = args.appliance.client()?;
            let done: Value = REPLACE_CERTIFICATE.send(&client, &[], &new)?;
            if !context.out.json {
                let warnings = done["warnings"].as_array().into_iter().flatten();
                say_notes(&warnings.map(|one| resource::text("", one)).collect::<Vec<_>>());
            }
            let shown = &done["certificate"];
            context.out.report(None, done.clone(), |out| describe(out, &first, shown))?;
        }
    }
    Ok(Done::Well)
}

fn token(context: &Context, command: &TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Show(args) => {
            let token: Value = TOKEN.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, token.clone(), |out| describe(out, &["state"], &token))?;
        }
        TokenCommand::Set(args) => {
            let client = args.appliance.client()?;
            let token = ask::new_secret(args.token_file.as_deref(), "New token")?;
            let token = token.ok_or_else(|| ask::nobody("--token-file"))?;
            SET_TOKEN.send::<()>(&client, &[], &json!({ "token": token }))?;
            context.out.done(json!({ "set": true }), "the token was set")?;
        }
        TokenCommand::Reset(args) => {
            let client = args.appliance.client()?;
            args.yes.confirm("End the token; scripts that have it get nothing more")?;
            let made: Value = RESET_TOKEN.ask(&client, &[])?;
            context.out.report(None, made.clone(), |out| {
                writeln!(out, "passphrase  {}", made["passphrase"].as_str().unwrap_or_default())?;
                writeln!(out, "Shown this once. It is good for POST /api/v1/admin/setup alone.")
            })?;
        }
    }
    Ok(())
}

fn show_health(out: &mut dyn Write, health: &Value) -> io::Result<()> {
    let row = |what: &str, told: &Value| {
        let mut row = told.clone();
        row["what"] = what.into();
        row
    };
    let mut rows = vec![row("data directory", &health["disk"]), row("memory", &health["memory"])];
    for disk in health["pool_disks"].as_array().into_iter().flatten() {
        let what = format!("pool {}, disk {}", resource::text("", &disk["pool"]), disk["number"]);
        rows.push(row(&what, disk));
    }
    table(out, USAGES, &rows)?;
    writeln!(out)?;
    table(out, CPU, std::slice::from_ref(&health["cpu"]))?;
    // Where there is none, there is nothing to mind.
    match (health["license"]["state"].as_str(), health["license"]["expires"].as_str()) {
        (None | Some("none"), _) => Ok(()),
        (Some(state), Some(day)) => writeln!(out, "\nlicence {state}, its last day is {day}"),
        (Some(state), None) => writeln!(out, "\nlicence {state}"),
    }
}

pub(super) fn table(out: &mut dyn Write, columns: &[Column], items: &[Value]) -> io::Result<()> {
    let columns = resource::owned(columns);
    let rows = items.iter().map(|item| resource::row(&columns, item)).collect();
    resource::print(out, &columns, rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_not_known_leaves_its_cells_empty() {
        let health = json!({
            "at": "2026-03-01T10:00:00Z",
            "disk": null,
            "memory":
                { "total_bytes": 4096, "used_bytes": 1024, "free_bytes": 3072, "percent": 25 },
            "cpu": { "cores": 2, "load_1": 0.5, "load_5": 3.0, "load_15": null, "percent": 150 },
            "pool_disks": [{ "pool": "m", "number": 0, "state": "missing", "free_bytes": null }],
            "license": { "state": "expired", "expires": "2026-02-28" },
        });
        let mut out = Vec::new();
        show_health(&mut out, &health).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let told = [
            "WHAT STATE TOTAL USED FREE FULL",
            "data directory",
            "memory 4.00 KiB 1.00 KiB 3.00 KiB 25 %",
            "pool m, disk 0 missing",
            "",
            "CORES LOAD 1 MIN 5 MIN 15 MIN LOAD BY CORES",
            "2 0.50 3.00 150 %",
            "",
            "licence expired, its last day is 2026-02-28",
        ];
        assert_eq!(lines, told);
    }
}
