//! Volumes of targets, and initiators that are logged in.

use anyhow::Result;
use serde_json::{Value, json};

use super::{LUNS, MAP, OneArgs, SESSIONS, UNMAP};
use crate::appliance::operation::{OnceArgs, forced};
use crate::appliance::resource::{owned, print, row};
use crate::appliance::volumes;
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
    /// The volume: NAME, POOL/NAME or its number
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

pub(super) fn map(context: &Context, args: &MapArgs) -> Result<()> {
    let (client, target) = args.one.find()?;
    let called = match &args.pool {
        Some(pool) => format!("{pool}/{}", args.volume),
        None => args.volume.clone(),
    };
    let id = volumes::find(&client, &called)?["id"].clone();
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

/// Whether the volume of a LUN is called so: by its name, or `POOL/NAME`.
fn is_called(lun: &Value, name: &str) -> bool {
    let (pool, volume) = (lun["pool"].as_str(), lun["volume"].as_str());
    let full = pool.zip(volume).map(|(pool, volume)| format!("{pool}/{volume}"));
    volume == Some(name) || full.as_deref() == Some(name)
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
                .filter(|lun| is_called(lun, name))
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
    let query = forced(args.force);
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
