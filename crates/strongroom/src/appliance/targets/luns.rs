//! Volumes of targets, and initiators that are logged in.

use anyhow::Result;
use serde_json::{Value, json};
use strongroom_client::Client;
use strongroom_client::types::{Items, Named};

use super::{LUNS, MAP, OneArgs, SESSIONS, UNMAP};
use crate::appliance::named;
use crate::appliance::operation::OnceArgs;
use crate::appliance::pools::POOLS;
use crate::appliance::resource::{owned, print, row};
use crate::exit::{Context, usage};

/// Map a volume to a target: initiators find it as a LUN
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Initiators that are logged in are told.

Examples:
  strongroom target map t1 vol1
  strongroom target map t1 vol1 --pool main --lun 7")]
pub(crate) struct MapArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The volume's name or number
    volume: String,
    /// The volume's pool, where several pools have one of that name
    #[arg(long)]
    pool: Option<String>,
    /// The number under which initiators find it [default: the lowest that is free]
    #[arg(long, value_name = "NUMBER")]
    lun: Option<u32>,
    #[command(flatten)]
    once: OnceArgs,
}

/// Unmap a volume from a target
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom target unmap t1 vol1
  strongroom target unmap t1 --lun 7 --force")]
pub(crate) struct UnmapArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The volume's name
    #[arg(required_unless_present = "lun")]
    volume: Option<String>,
    /// The number under which initiators find it
    #[arg(long, value_name = "NUMBER", conflicts_with = "volume")]
    lun: Option<u32>,
    /// Although initiators are logged in, which lose it
    #[arg(long)]
    force: bool,
}

/// List the volumes of a target
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target luns t1")]
pub(crate) struct LunsArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// List the initiators that are logged in to a target
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target sessions t1")]
pub(crate) struct SessionsArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// The number of a volume.
fn volume(client: &Client, name: &str, pool: Option<&str>) -> Result<i64> {
    let by_name = format!("name:=={name}");
    let mut query = vec![("filter", by_name.as_str()), ("limit", "10")];
    let by_pool = match pool {
        Some(pool) => format!("pool_id:=={}", named::number(client, &POOLS, pool)?),
        None => String::new(),
    };
    if pool.is_some() {
        query.push(("filter", &by_pool));
    }
    let found: Items<Named> = client.get("/v1/volumes", &query)?;
    match (&found.items[..], name.parse::<i64>()) {
        ([one], _) => Ok(one.id),
        ([], Ok(number)) => Ok(number),
        ([], Err(_)) => {
            Err(usage(format!("there is no volume `{name}`: see `strongroom volume list`")))
        }
        _ => Err(usage(format!("several pools have a volume `{name}`: give --pool"))),
    }
}

pub(super) fn map(context: &Context, args: &MapArgs) -> Result<()> {
    let (client, target) = args.one.find()?;
    let id = volume(&client, &args.volume, args.pool.as_deref())?;
    let mut body = json!({ "volume_id": id });
    if let Some(number) = args.lun {
        body["number"] = json!(number);
    }
    let luns: Value = MAP.make(&client, &[&target], &body, &args.once)?;
    let all = luns["luns"].as_array().cloned().unwrap_or_default();
    let mapped = all.iter().find(|lun| lun["volume_id"] == id).cloned().unwrap_or_default();
    let (volume, number) = (&args.volume, &mapped["number"]);
    let text = format!("mapped the volume {volume} to {} as LUN {number}", args.one.target);
    context.out.done(mapped, &text)?;
    Ok(())
}

pub(super) fn unmap(context: &Context, args: &UnmapArgs) -> Result<()> {
    let (client, target) = args.one.find()?;
    let number = match (args.lun, &args.volume) {
        (Some(number), _) => number.to_string(),
        (None, name) => {
            let name = name.as_deref().unwrap_or_default();
            let luns: Value = LUNS.ask(&client, &[&target])?;
            let all = luns["luns"].as_array().cloned().unwrap_or_default();
            let numbers: Vec<_> = all
                .iter()
                .filter(|lun| lun["volume"] == name)
                .map(|lun| lun["number"].to_string())
                .collect();
            match &numbers[..] {
                [one] => one.clone(),
                [] => {
                    let target = &args.one.target;
                    return Err(usage(format!(
                        "the target {target} has no volume `{name}`: see `strongroom target luns \
                         {target}`"
                    )));
                }
                _ => {
                    let numbers = numbers.join(", ");
                    return Err(usage(format!(
                        "several volumes `{name}` are mapped: give --lun, one of {numbers}"
                    )));
                }
            }
        }
    };
    let query = [("force", if args.force { "true" } else { "false" })];
    let luns: Value = client.call(&UNMAP.call(&[&target, &number]).queried(&query))?;
    context.out.done(luns, &format!("unmapped LUN {number} of {}", args.one.target))?;
    Ok(())
}

/// Prints rows as a table, or a document a line.
fn rows(context: &Context, all: &[Value], columns: &[(&'static str, &'static str)]) -> Result<()> {
    if context.out.json {
        return Ok(all.iter().try_for_each(|one| context.out.document(one))?);
    }
    let columns = owned(columns);
    let rows = all.iter().map(|one| row(&columns, one)).collect();
    Ok(print(&mut std::io::stdout().lock(), &columns, rows)?)
}

pub(super) fn list(context: &Context, args: &LunsArgs) -> Result<()> {
    let (client, target) = args.one.find()?;
    let luns: Value = LUNS.ask(&client, &[&target])?;
    let all = luns["luns"].as_array().cloned().unwrap_or_default();
    let columns = [(">LUN", "number"), ("VOLUME", "volume"), (">SIZE", "size"), ("POOL", "pool")];
    rows(context, &all, &columns)
}

pub(super) fn sessions(context: &Context, args: &SessionsArgs) -> Result<()> {
    let (client, target) = args.one.find()?;
    let sessions: Value = SESSIONS.ask(&client, &[&target])?;
    let all = sessions["sessions"].as_array().cloned().unwrap_or_default();
    let columns = [("INITIATOR", "initiator"), ("ADDRESS", "address"), ("SINCE", "logged_in_at")];
    rows(context, &all, &columns)
}
