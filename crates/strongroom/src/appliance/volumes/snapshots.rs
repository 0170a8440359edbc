//! `strongroom volume snapshot`.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::Client;
use strongroom_client::types::Items;

use super::super::list::{self, LANGUAGE, Only, SearchArgs};
use super::super::operation::{OnceArgs, operations};
use super::super::resource::Resource;
use super::make::say_made;
use super::{ApplianceArgs, OneArgs, find, number};
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};
use crate::parse;

operations! {
    CREATE = "snapshots.create", POST "/v1/volumes/{volume}/snapshots", by "volume snapshot create";
    SHOW = "snapshots.show", GET "/v1/snapshots/{snapshot}", by "volume snapshot show";
    RESTORE = "snapshots.restore", POST "/v1/snapshots/{snapshot}/restore",
        by "volume snapshot restore";
    CLONE = "snapshots.clone", POST "/v1/snapshots/{snapshot}/clone", by "volume snapshot clone";
    REMOVE = "snapshots.remove", DELETE "/v1/snapshots/{snapshot}", by "volume snapshot delete";
}

/// Snapshots of volumes.
pub(crate) static SNAPSHOTS: Resource = Resource {
    one: "snapshot",
    path: "/v1/snapshots",
    id: "snapshots.list",
    command: "volume snapshot list",
    columns: &[
        (">ID", "id"),
        (">VOLUME", "volume_id"),
        ("NAME", "name"),
        (">SIZE", "size"),
        (">RESERVED", "reserved_bytes"),
        ("CREATED", "created_at"),
        ("BY SCHEDULE", "scheduled"),
    ],
    sort: Some("created_at:asc"),
    limit: None,
};

/// What the help of each command says of names.
const NAMES: &str = "\
A snapshot is called VOLUME@NAME, or by its number; the volume by its name, POOL/NAME or number.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(CreateArgs),
    List(ListArgs),
    Show(ShowArgs),
    Restore(RestoreArgs),
    Clone(CloneArgs),
    Delete(DeleteArgs),
}

impl Command {
    /// Its name, for those who find the pool in use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "volume snapshot create",
            Self::List(_) => "volume snapshot list",
            Self::Show(_) => "volume snapshot show",
            Self::Restore(_) => "volume snapshot restore",
            Self::Clone(_) => "volume snapshot clone",
            Self::Delete(_) => "volume snapshot delete",
        }
    }
}

/// Make a snapshot of a volume, at once
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It has all that was written to the volume when the command was begun. What the machines that use the
volume have in memory only, it has not: as if their power had gone.

Example:
  strongroom volume snapshot create vol1 before-upgrade")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its name, which no other snapshot of the volume has
    name: String,
    #[command(flatten)]
    once: OnceArgs,
}

/// List snapshots of volumes, the oldest first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom volume snapshot list vol1
  strongroom volume snapshot list --filter scheduled:==false --json"))]
pub(crate) struct ListArgs {
    /// Only those of this volume: NAME, POOL/NAME or its number
    #[arg(value_name = "VOLUME")]
    volume: Option<String>,
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

/// Which snapshot.
#[derive(clap::Args, Debug)]
struct SnapshotArgs {
    /// The snapshot: VOLUME@NAME or its number
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show a snapshot
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{NAMES}

Example:
  strongroom volume snapshot show vol1@before-upgrade"))]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: SnapshotArgs,
}

/// Make a volume what it was at a snapshot
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
What was written since is lost, but for what other snapshots have; the volume stays as large as it is,
and all snapshots stay. While initiators are logged in that use the volume it is refused: they don't
notice, and may write what they have in memory over it. {NAMES}

Examples:
  strongroom volume snapshot restore vol1@before-upgrade --yes
  strongroom volume snapshot restore vol1@before-upgrade --force"))]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    one: SnapshotArgs,
    /// Even while initiators are logged in that use the volume
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    yes: YesArgs,
}

/// Make a volume of a snapshot, at once
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
It takes no room but for what is written to it, and stays when the snapshot is removed. {NAMES}

Example:
  strongroom volume snapshot clone vol1@before-upgrade vol1-then"))]
pub(crate) struct CloneArgs {
    #[command(flatten)]
    one: SnapshotArgs,
    /// The volume's name, which no other volume of the pool has
    name: String,
    /// How large it is [default: as the snapshot]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    size: Option<u64>,
    #[command(flatten)]
    once: OnceArgs,
}

/// Remove a snapshot; `pool gc` then frees what only it needed
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{NAMES}

Example:
  strongroom volume snapshot delete vol1@before-upgrade --yes"))]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: SnapshotArgs,
    #[command(flatten)]
    yes: YesArgs,
}

impl SnapshotArgs {
    /// A client, and the snapshot.
    fn find(&self) -> Result<(Client, Value)> {
        let client = self.appliance.client()?;
        let snapshot = snapshot(&client, &self.snapshot)?;
        Ok((client, snapshot))
    }
}

/// The snapshot that is called so.
fn snapshot(client: &Client, text: &str) -> Result<Value> {
    let filters = match (text.rsplit_once('@'), text.parse::<i64>()) {
        (Some((volume, name)), _) => {
            let volume = find(client, volume)?;
            vec![format!("volume_id:=={}", volume["id"]), format!("name:=={name}")]
        }
        (None, Ok(id)) => vec![format!("id:=={id}")],
        (None, Err(_)) => {
            let text = format!("`{text}` names no snapshot: write VOLUME@NAME, or its number");
            return Err(usage(text));
        }
    };
    let mut query: Vec<_> = filters.iter().map(|filter| ("filter", filter.as_str())).collect();
    query.push(("limit", "1"));
    let mut found: Items<Value> = client.get(SNAPSHOTS.path, &query)?;
    found.items.pop().ok_or_else(|| {
        usage(format!("there is no snapshot `{text}`: see `strongroom volume snapshot list`"))
    })
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::Create(args) => {
            let (client, volume) = args.one.find()?;
            let body = json!({ "name": args.name });
            let made: Value = CREATE.make(&client, &[&number(&volume)], &body, &args.once)?;
            let text = format!(
                "made the snapshot {}@{} with the number {}",
                args.one.volume, args.name, made["id"]
            );
            context.out.done(made, &text)?;
        }
        Command::List(args) => {
            let client = args.appliance.client()?;
            let of = args.volume.as_deref().map(|volume| find(&client, volume)).transpose()?;
            let filters = of.iter().map(|volume| format!("volume_id:=={}", volume["id"])).collect();
            let only = Only { keywords: &args.search.keyword, filters, is: None };
            return list::run(context, &client, &SNAPSHOTS, &args.search.list, &only);
        }
        Command::Show(args) => {
            let (client, snapshot) = args.one.find()?;
            let found: Value = SHOW.ask(&client, &[&number(&snapshot)])?;
            context.out.report(None, found.clone(), |out| SNAPSHOTS.describe(out, &found))?;
        }
        Command::Restore(args) => {
            let (client, snapshot) = args.one.find()?;
            let at = super::super::resource::text("created_at", &snapshot["created_at"]);
            let what = &args.one.snapshot;
            args.yes.confirm(&format!(
                "Roll the volume back to {what}, of {at}; what was written since is lost"
            ))?;
            let body = json!({ "force": args.force });
            let volume: Value = RESTORE.send(&client, &[&number(&snapshot)], &body)?;
            let name = volume["name"].as_str().unwrap_or_default().to_owned();
            context.out.done(volume, &format!("the volume {name} is what it was at {at}"))?;
        }
        Command::Clone(args) => {
            let (client, snapshot) = args.one.find()?;
            let mut body = json!({ "name": args.name });
            if let Some(bytes) = args.size {
                body["size"] = bytes.into();
            }
            let made: Value = CLONE.make(&client, &[&number(&snapshot)], &body, &args.once)?;
            return say_made(context, &made);
        }
        Command::Delete(args) => {
            let (client, snapshot) = args.one.find()?;
            args.yes.confirm(&format!("Remove the snapshot {}", args.one.snapshot))?;
            REMOVE.ask::<()>(&client, &[&number(&snapshot)])?;
            let document = json!({ "removed": snapshot["id"] });
            context.out.done(document, &format!("removed the snapshot {}", args.one.snapshot))?;
        }
    }
    Ok(Done::Well)
}
