//! `pool rekey` and `pool key`.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::Client;
use strongroom_engine::keys::Stretch;
use strongroom_engine::pool::{OpenMode, SlotInfo};

use crate::access::PoolArgs;
use crate::appliance::OnceArgs;
use crate::appliance::follow::StartArgs;
use crate::appliance::pools::{self, Upkeep};
use crate::exit::{Context, Done, usage};
use crate::output::{print_table, table};
use crate::secret::NewSecretArgs;

/// Begin a new data key: packs written from now on are sealed with it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Packs that are there keep their keys until a collection copies them. The secrets stay the same.

Examples:
  strongroom pool rekey --pool main
  strongroom pool rekey --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct RekeyArgs {
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn rekey(context: &Context, args: &RekeyArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        let client = args.pool.appliance.client()?;
        return pools::start(context, &client, name, Upkeep::Rekey, &json!({}), &args.start);
    }
    args.start.must_not_be_given()?;
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
An appliance keeps one of the secrets itself, sealed, and opens the pool with it.

Examples:
  strongroom pool key list --pool main
  strongroom pool key list --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pool: PoolArgs,
}

/// Add a secret that opens the pool
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom pool key add --label office --new-password-file office.pw --pool main
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
    #[command(flatten)]
    once: OnceArgs,
}

/// Replace the secret of a key slot
#[derive(clap::Args, Debug)]
#[command(after_help = "\
When an appliance opens its pool with the slot, it keeps the new secret from then on.

Examples:
  strongroom pool key change 0 --new-password-file new.pw --pool main
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
Who knew its secret and kept a copy of the disks as they were can still open that copy. An appliance
doesn't remove the slot with which it opens the pool: change that.

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

impl Command {
    fn pool(&self) -> &PoolArgs {
        match self {
            Self::List(args) => &args.pool,
            Self::Add(args) => &args.pool,
            Self::Change(args) => &args.pool,
            Self::Remove(args) => &args.pool,
        }
    }
}

/// Of an appliance's pool.
fn at_appliance(
    context: &Context,
    client: &Client,
    name: Option<&str>,
    command: &Command,
) -> Result<Done> {
    match command {
        Command::List(_) => pools::keys(context, client, name),
        Command::Add(AddArgs { new, label, once, .. }) => {
            let passphrase = new.passphrase()?;
            pools::add_key(context, client, name, (&passphrase, label), once)
        }
        Command::Change(ChangeArgs { slot, new, .. }) => {
            pools::change_key(context, client, name, *slot, &new.passphrase()?)
        }
        Command::Remove(args) => pools::remove_key(context, client, name, args.slot),
    }
}

pub(crate) fn run(context: &Context, command: Command) -> Result<Done> {
    if let Some(name) = command.pool().at_appliance() {
        let client = command.pool().appliance.client()?;
        return at_appliance(context, &client, name, &command);
    }
    match command {
        Command::List(args) => list(context, &args)?,
        Command::Add(args) => {
            if args.once.idempotency_key.is_some() {
                return Err(usage("--idempotency-key is for pools of an appliance"));
            }
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
