//! `pool rekey` and `pool key`.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_engine::keys::Stretch;
use strongroom_engine::pool::{OpenMode, SlotInfo};

use crate::access::PoolArgs;
use crate::exit::{Context, Done};
use crate::output::{print_table, table};
use crate::secret::NewSecretArgs;

/// Begin a new data key: packs written from now on are sealed with it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Packs that are there keep their keys until a collection copies them. The secrets stay the same.

Example:
  strongroom pool rekey --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct RekeyArgs {
    #[command(flatten)]
    pool: PoolArgs,
}

pub(crate) fn rekey(context: &Context, args: &RekeyArgs) -> Result<Done> {
    let pool = args.pool.open(context, OpenMode::Write)?;
    let epoch = pool.rekey()?;
    context.out.summary(Some(&pool), json!({ "data_key": epoch }), |out| {
        writeln!(out, "new packs are sealed with data key {epoch}")
    })?;
    Ok(Done::Well)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Add(AddArgs),
    Change(ChangeArgs),
    Remove(RemoveArgs),
}

/// List the key slots
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom pool key list --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pool: PoolArgs,
}

/// Add a secret that opens the pool
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom pool key add --label office --new-password-file /root/office.pw \\
      --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    new: NewSecretArgs,
    /// A name for the new key slot
    #[arg(long, default_value = "")]
    label: String,
}

/// Replace the secret of a key slot
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom pool key change 1 --new-password-file /root/new.pw \\
      --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct ChangeArgs {
    /// The slot's number
    slot: u32,
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    new: NewSecretArgs,
}

/// Remove a key slot; the last one stays
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Who knew its secret and kept a copy of the disks as they were can still open that copy.

Example:
  strongroom pool key remove 2 --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct RemoveArgs {
    /// The slot's number
    slot: u32,
    #[command(flatten)]
    pool: PoolArgs,
}

/// A slot as JSON.
pub(super) fn slot_json(slot: &SlotInfo) -> Value {
    json!({
        "slot": slot.id,
        "label": slot.label,
        "kind": if slot.key_file { "key file" } else { "password" },
        "opened": slot.opened,
    })
}

pub(crate) fn run(context: &Context, command: Command) -> Result<Done> {
    match command {
        Command::List(args) => list(context, &args)?,
        Command::Add(args) => {
            let pool = args.pool.open(context, OpenMode::Write)?;
            let slot = pool.add_slot(&args.new.read()?, &args.label, Stretch::DEFAULT)?;
            context.out.summary(Some(&pool), json!({ "added": slot }), |out| {
                writeln!(out, "key slot {slot} was added")
            })?;
        }
        Command::Change(args) => {
            let pool = args.pool.open(context, OpenMode::Write)?;
            pool.change_slot(args.slot, &args.new.read()?, Stretch::DEFAULT)?;
            context.out.summary(Some(&pool), json!({ "changed": args.slot }), |out| {
                writeln!(out, "key slot {} has a new secret", args.slot)
            })?;
        }
        Command::Remove(args) => {
            let pool = args.pool.open(context, OpenMode::Write)?;
            pool.remove_slot(args.slot)?;
            context.out.summary(Some(&pool), json!({ "removed": args.slot }), |out| {
                writeln!(out, "key slot {} was removed", args.slot)
            })?;
        }
    }
    Ok(Done::Well)
}

fn list(context: &Context, args: &ListArgs) -> Result<()> {
    let pool = args.pool.open(context, OpenMode::Read)?;
    let slots = pool.slots();
    let document = json!({ "keys": slots.iter().map(slot_json).collect::<Vec<_>>() });
    context.out.report(Some(&pool), document, |out| {
        if slots.is_empty() {
            return writeln!(out, "the pool is not encrypted");
        }
        let mut rows = table(&[">SLOT", "KIND", "LABEL", "OPENED"]);
        for slot in &slots {
            rows.add_row([
                slot.id.to_string(),
                if slot.key_file { "key file" } else { "password" }.into(),
                slot.label.clone(),
                if slot.opened { "now" } else { "" }.into(),
            ]);
        }
        print_table(out, &rows)
    })?;
    Ok(())
}
