//! `strongroom system storage`: what an appliance attaches when it starts.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::ApplianceArgs;
use super::operation::operations;
use super::resource::{self, describe};
use crate::ask::{self, YesArgs};
use crate::exit::Context;

operations! {
    SHOW = "system.storage.show", GET "/v1/system/storage", by "system storage show";
    SET = "system.storage.set", PUT "/v1/system/storage", by "system storage set";
    CLEAR = "system.storage.clear", DELETE "/v1/system/storage", by "system storage clear";
}

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    Show(ShowArgs),
    Set(Box<SetArgs>),
    Clear(ClearArgs),
}

/// Show what is attached, what is set, and what this machine can attach
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system storage show")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Where storage is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    Local,
    Nfs,
    Aoe,
    Iscsi,
    Nbd,
}

/// Attach other storage from the next start on
#[derive(clap::Args, Debug)]
#[command(after_help = "\
What is attached is at a path in the data directory, which `show` tells after the start; make a pool
there, or give it to `pool disk-replace`. A disk must have a filesystem: none is made, nothing on it is
changed.

Examples:
  strongroom system storage set local
  strongroom system storage set nfs --ip 192.168.1.100 --share /nfs/storage --mount-options noacl,sync
  strongroom system storage set aoe --device e0.1
  strongroom system storage set iscsi --target iqn.2016-01.com.example:storage.lun1 \\
    --ip 192.168.1.100 --username user --password-file chap.txt
  strongroom system storage set nbd --export-name otherexport --ip 192.168.1.100 --port 1043")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Where it is
    #[arg(value_enum)]
    kind: Type,
    /// Of nfs: options of the share
    #[arg(long, value_name = "OPTIONS")]
    mount_options: Option<String>,
    /// Of nfs, iscsi and nbd: the server's address
    #[arg(long)]
    ip: Option<String>,
    /// Of nfs: the share's path on the server
    #[arg(long, value_name = "PATH")]
    share: Option<String>,
    /// Of aoe: the disk, by shelf and slot
    #[arg(long, value_name = "eSHELF.SLOT")]
    device: Option<String>,
    /// Of iscsi: the target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Of iscsi: as whom to log in
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Of iscsi: the password is the first line of this file, `-` of standard input [default: it is
    /// asked for]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Of nbd: the name of the device on the server
    #[arg(long, value_name = "NAME")]
    export_name: Option<String>,
    /// Of nbd: the server's port
    #[arg(long)]
    port: Option<u16>,
}

/// Attach none from the next start on
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Pools that have disks there lack them then. Nothing that is on it is changed.

Example:
  strongroom system storage clear --yes")]
pub(crate) struct ClearArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(super) fn storage(context: &Context, command: &StorageCommand) -> Result<()> {
    match command {
        StorageCommand::Show(args) => {
            let shown: Value = SHOW.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, shown.clone(), |out| tell(out, &shown))?;
        }
        StorageCommand::Set(args) => {
            let client = args.appliance.client()?;
            let word = args.kind.to_possible_value();
            let mut body = json!({ "type": word.as_ref().map_or("", |word| word.get_name()) });
            let password = match args.kind {
                Type::Iscsi => {
                    let given = ask::secret(args.password_file.as_deref(), "Password")?;
                    Some(given.ok_or_else(|| ask::nobody("--password-file"))?)
                }
                _ => ask::from_file(args.password_file.as_deref())?,
            };
            let given = [
                ("mount_options", &args.mount_options),
                ("ip", &args.ip),
                ("share", &args.share),
                ("device", &args.device),
                ("target", &args.target),
                ("username", &args.username),
                ("password", &password),
                ("export_name", &args.export_name),
            ];
            for (name, value) in given {
                if let Some(value) = value {
                    body[name] = value.as_str().into();
                }
            }
            if let Some(port) = args.port {
                body["port"] = port.into();
            }
            let shown: Value = SET.send(&client, &[], &body)?;
            context.out.report(None, shown.clone(), |out| tell(out, &shown))?;
        }
        StorageCommand::Clear(args) => {
            let client = args.appliance.client()?;
            args.yes.confirm("Detach the storage at the next start")?;
            CLEAR.ask::<()>(&client, &[])?;
            let text = "nothing is attached from the next start on";
            context.out.done(json!({ "cleared": true }), text)?;
        }
    }
    Ok(())
}

fn tell(out: &mut dyn Write, shown: &Value) -> io::Result<()> {
    let mut short = shown.clone();
    let types = short.as_object_mut().and_then(|short| short.remove("types"));
    describe(out, &["state", "path", "error"], &short)?;
    if shown["state"] == "waits" {
        writeln!(out, "`strongroom system restart` applies it.")?;
    }
    writeln!(out)?;
    for one in types.iter().filter_map(Value::as_array).flatten() {
        let lacks = one["lacks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let lacks: Vec<_> = lacks.iter().map(|why| resource::text("", why)).collect();
        let can = match (one["offered"] == true, lacks.is_empty()) {
            (false, _) => "not offered by the configuration".to_owned(),
            (true, true) => "possible here".to_owned(),
            (true, false) => lacks.join("; "),
        };
        writeln!(out, "{:<6} {can}", resource::text("", &one["type"]))?;
    }
    Ok(())
}
