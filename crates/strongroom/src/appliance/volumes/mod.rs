//! Volumes of an appliance: `strongroom volume`, but for `export`.

pub(crate) mod change;
pub(crate) mod make;
pub(crate) mod schedule;
pub(crate) mod snapshots;

use anyhow::Result;
use serde_json::Value;
use strongroom_client::Client;
use strongroom_client::types::{Items, Pool};

use super::ApplianceArgs;
use super::list::{LANGUAGE, Only, SearchArgs};
use super::operation::operations;
use super::pools::{self, pool};
use super::resource::Resource;
use crate::exit::{Context, Done, usage};

operations! {
    SHOW = "volumes.show", GET "/v1/volumes/{volume}", by "volume show";
}

/// Volumes.
pub(crate) static VOLUMES: Resource = Resource {
    one: "volume",
    path: "/v1/volumes",
    id: "volumes.list",
    command: "volume list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        (">POOL", "pool_id"),
        (">SIZE", "size"),
        (">USED", "used_bytes"),
        (">IN SNAPSHOTS", "snapshots_used_bytes"),
        (">SNAPSHOTS", "snapshots"),
        (">TARGETS", "targets"),
        ("MADE OF", "origin"),
        ("CREATED", "created_at"),
    ],
    sort: None,
    limit: None,
};

/// What the help of each command says of names.
pub(crate) const NAMES: &str = "\
A volume is called by its name, by POOL/NAME where several pools have one of that name, or by its
number.";

/// Which volume.
#[derive(clap::Args, Debug)]
pub(crate) struct OneArgs {
    /// The volume: NAME, POOL/NAME or its number
    #[arg(value_name = "VOLUME")]
    pub(super) volume: String,
    #[command(flatten)]
    pub(super) appliance: ApplianceArgs,
}

impl OneArgs {
    /// A client, and the volume.
    pub(super) fn find(&self) -> Result<(Client, Value)> {
        let client = self.appliance.client()?;
        let volume = find(&client, &self.volume)?;
        Ok((client, volume))
    }
}

/// The number of what was found, as a path has it.
pub(super) fn number(item: &Value) -> String {
    item["id"].to_string()
}

/// The volume that is called so.
pub(crate) fn find(client: &Client, text: &str) -> Result<Value> {
    let found = |filters: &[String]| -> Result<Vec<Value>> {
        let mut query: Vec<_> = filters.iter().map(|filter| ("filter", filter.as_str())).collect();
        query.push(("limit", "10"));
        let volumes: Items<Value> = client.get(VOLUMES.path, &query)?;
        Ok(volumes.items)
    };
    let none = || usage(format!("there is no volume `{text}`: see `strongroom volume list`"));
    if let Some((name, rest)) = text.split_once('/') {
        let of = pool(client, Some(name))?;
        let filters = [format!("pool_id:=={}", of.id), format!("name:=={rest}")];
        return found(&filters)?.pop().ok_or_else(none);
    }
    let mut named = found(&[format!("name:=={text}")])?;
    match (named.len(), text.parse::<i64>()) {
        (1, _) => Ok(named.remove(0)),
        (0, Ok(id)) => found(&[format!("id:=={id}")])?.pop().ok_or_else(none),
        (0, Err(_)) => Err(none()),
        _ => {
            let ids: Vec<String> = named.iter().map(number).collect();
            Err(usage(format!(
                "volumes of several pools are called `{text}`: give POOL/{text}, or the number, one \
                 of {}",
                ids.join(", ")
            )))
        }
    }
}

/// List volumes
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom volume list
  strongroom volume list --pool main --columns name,size,used_bytes --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Only those of this pool, by name or number
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    #[command(flatten)]
    search: SearchArgs,
}

/// Show a volume: what is set, what it holds, who serves it
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{NAMES}

Example:
  strongroom volume show main/vol1"))]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

pub(crate) fn list(context: &Context, args: &ListArgs) -> Result<Done> {
    let client = args.appliance.client()?;
    let of: Option<Pool> =
        args.pool.as_deref().map(|name| pools::pool(&client, Some(name))).transpose()?;
    let filters = of.iter().map(|pool| format!("pool_id:=={}", pool.id)).collect();
    let only = Only { keywords: &args.search.keyword, filters, is: None };
    super::list::run(context, &client, &VOLUMES, &args.search.list, &only)
}

pub(crate) fn show(context: &Context, args: &ShowArgs) -> Result<Done> {
    let (client, volume) = args.one.find()?;
    let found: Value = SHOW.ask(&client, &[&number(&volume)])?;
    context.out.report(None, found.clone(), |out| {
        let first = ["pool", "volume.name", "volume.size", "volume.used_bytes", "mapped_to"];
        super::resource::describe(out, &first, &found)
    })?;
    Ok(Done::Well)
}
