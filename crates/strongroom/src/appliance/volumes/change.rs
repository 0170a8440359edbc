//! Changing, growing, measuring and removing volumes.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::operation::{forced, operations};
use super::make::SettingsArgs;
use super::{NAMES, OneArgs, VOLUMES, number};
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};
use crate::output;
use crate::parse;

operations! {
    CHANGE = "volumes.change", PATCH "/v1/volumes/{volume}", by "volume change";
    GROW = "volumes.grow", POST "/v1/volumes/{volume}/grow", by "volume grow";
    MEASURE = "volumes.measure", POST "/v1/volumes/{volume}/measure", by "volume measure";
    REMOVE = "volumes.remove", DELETE "/v1/volumes/{volume}", by "volume delete";
}

/// Change what is set of a volume
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
It holds from now on: of what is stored already nothing is stored anew. {NAMES}

Examples:
  strongroom volume change vol1 --priority 64
  strongroom volume change main/vol1 --compress off --cache off"))]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Make a volume larger
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
A volume can't be made smaller. {NAMES}

Example:
  strongroom volume grow vol1 --size 20G"))]
pub(crate) struct GrowArgs {
    #[command(flatten)]
    one: OneArgs,
    /// How large it is to be
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    size: u64,
}

/// Give a volume another name
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{NAMES}

Example:
  strongroom volume rename vol1 database"))]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its new name
    name: String,
}

/// Measure what a volume and its snapshots hold
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
The appliance does so by itself some minutes after a volume was written to. {NAMES}

Example:
  strongroom volume measure vol1"))]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Remove a volume with its snapshots; `pool gc` then frees what only they needed
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
A volume that a target has, or that clients of NBD are connected to, isn't removed. Clones of it stay. {NAMES}

Examples:
  strongroom volume delete vol1 --yes
  strongroom volume delete vol1 --force --yes"))]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Although clients of NBD are connected, which lose it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn change(context: &Context, args: &ChangeArgs) -> Result<Done> {
    let (client, volume) = args.one.find()?;
    let mut body = json!({});
    args.settings.add_to(&mut body);
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(usage(
            "nothing to change: give --thin, --dedup, --compress, --cache, --io-type or --priority",
        ));
    }
    let changed: Value = CHANGE.send(&client, &[&number(&volume)], &body)?;
    context.out.summary(None, changed.clone(), |out| VOLUMES.describe(out, &changed))?;
    Ok(Done::Well)
}

pub(crate) fn rename(context: &Context, args: &RenameArgs) -> Result<Done> {
    let (client, volume) = args.one.find()?;
    let body = json!({ "name": args.name });
    let changed: Value = CHANGE.send(&client, &[&number(&volume)], &body)?;
    let text = format!("the volume {} is called {}", args.one.volume, args.name);
    context.out.done(changed, &text)?;
    Ok(Done::Well)
}

pub(crate) fn grow(context: &Context, args: &GrowArgs) -> Result<Done> {
    let (client, volume) = args.one.find()?;
    let body = json!({ "size": args.size });
    let grown: Value = GROW.send(&client, &[&number(&volume)], &body)?;
    let bytes = output::size(grown["size"].as_u64().unwrap_or_default());
    context.out.done(grown, &format!("the volume {} has {bytes}", args.one.volume))?;
    Ok(Done::Well)
}

pub(crate) fn measure(context: &Context, args: &MeasureArgs) -> Result<Done> {
    let (client, volume) = args.one.find()?;
    let measured: Value = MEASURE.ask(&client, &[&number(&volume)])?;
    context.out.report(None, measured.clone(), |out| {
        let bytes = |field: &str| output::size(measured[field].as_u64().unwrap_or_default());
        writeln!(
            out,
            "{} holds {}; only its snapshots hold {}",
            args.one.volume,
            bytes("used_bytes"),
            bytes("snapshots_used_bytes")
        )
    })?;
    Ok(Done::Well)
}

pub(crate) fn delete(context: &Context, args: &DeleteArgs) -> Result<Done> {
    let (client, volume) = args.one.find()?;
    let snapshots = volume["snapshots"].as_u64().unwrap_or_default();
    let with = match snapshots {
        0 => String::new(),
        many => format!(" with {}", output::count(many, "snapshot", "snapshots")),
    };
    args.yes.confirm(&format!("Remove the volume {}{with}", args.one.volume))?;
    let remove = REMOVE.call(&[&number(&volume)]);
    client.call::<()>(&remove.queried(&forced(args.force)))?;
    let document = json!({ "removed": volume["id"] });
    context.out.done(document, &format!("removed the volume {}", args.one.volume))?;
    Ok(Done::Well)
}
