//! `strongroom volume schedule`.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::super::operation::operations;
use super::super::resource::{describe, text};
use super::{OneArgs, number};
use crate::ask::YesArgs;
use crate::exit::{Context, Done};
use crate::parse;

operations! {
    SHOW = "volumes.schedule.show", GET "/v1/volumes/{volume}/schedule", by "volume schedule show";
    SET = "volumes.schedule.set", PUT "/v1/volumes/{volume}/schedule", by "volume schedule set";
    REMOVE = "volumes.schedule.remove", DELETE "/v1/volumes/{volume}/schedule",
        by "volume schedule delete";
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Show(ShowArgs),
    Set(SetArgs),
    Delete(DeleteArgs),
}

impl Command {
    /// Its name, for those who find the pool in use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Show(_) => "volume schedule show",
            Self::Set(_) => "volume schedule set",
            Self::Delete(_) => "volume schedule delete",
        }
    }
}

/// Show when snapshots of a volume are made by themselves
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom volume schedule show vol1")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Have snapshots of a volume made by themselves, and the oldest of those removed
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The time is the pool's own. Only snapshots that the schedule made count and are removed; those that
somebody made stay until somebody removes them.

Examples:
  strongroom volume schedule set vol1 --every 1h --keep 24
  strongroom volume schedule set vol1 --every 1d --keep 14 --disabled")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    one: OneArgs,
    /// How long from one to the next, like 15min, 1h or 1d
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    every: i64,
    /// So many of them stay
    #[arg(long, value_name = "N")]
    keep: u32,
    /// Not yet: make none until it is set anew
    #[arg(long)]
    disabled: bool,
}

/// Have no more snapshots of a volume made by themselves; those that there are stay
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom volume schedule delete vol1 --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::Show(args) => {
            let (client, volume) = args.one.find()?;
            let found: Value = SHOW.ask(&client, &[&number(&volume)])?;
            context.out.report(None, found.clone(), |out| {
                describe(out, &["enabled", "every_seconds", "keep", "next_at"], &found)
            })?;
        }
        Command::Set(args) => {
            let (client, volume) = args.one.find()?;
            let seconds = args.every / 1_000_000_000;
            let body =
                json!({ "enabled": !args.disabled, "every_seconds": seconds, "keep": args.keep });
            let set: Value = SET.send(&client, &[&number(&volume)], &body)?;
            let told = match args.disabled {
                true => format!("the schedule of {} is set, and not in force", args.one.volume),
                false => {
                    let next = text("next_at", &set["next_at"]);
                    format!("the next snapshot of {} is made at {next}", args.one.volume)
                }
            };
            context.out.done(set, &told)?;
        }
        Command::Delete(args) => {
            let (client, volume) = args.one.find()?;
            args.yes.confirm(&format!("Have no more snapshots of {} made", args.one.volume))?;
            REMOVE.ask::<()>(&client, &[&number(&volume)])?;
            let document = json!({ "removed": volume["id"] });
            let told = format!("no more snapshots of {} are made", args.one.volume);
            context.out.done(document, &told)?;
        }
    }
    Ok(Done::Well)
}
