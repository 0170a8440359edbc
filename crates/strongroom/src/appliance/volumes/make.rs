//! Making volumes: empty ones, and clones.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::super::images;
use super::super::operation::{OnceArgs, operations};
use super::super::pools::pool;
use super::{ApplianceArgs, NAMES, find, number};
use crate::exit::{Context, Done};
use crate::output;
use crate::parse;

operations! {
    CREATE = "volumes.create", POST "/v1/pools/{pool}/volumes", by "volume create";
    FROM_IMAGE = "volumes.create_from_image", POST "/v1/images/{image}/volumes", by "volume clone";
    CLONE = "volumes.clone", POST "/v1/volumes/{volume}/clone", by "volume clone";
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On
    On,
    /// Off
    Off,
}

impl Switch {
    pub(super) fn is_on(self) -> bool {
        self == Self::On
    }
}

/// What a volume is mostly used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IoType {
    /// Small requests anywhere
    Transactional,
    /// Long requests, one behind the other
    Sequential,
}

impl IoType {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Sequential => "sequential",
        }
    }
}

/// What can be set of a volume, when it is made and later.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct SettingsArgs {
    /// Take only the room of what is written (on), or set room for all of it aside (off)
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true)]
    pub(super) thin: Option<Switch>,
    /// Store equal chunks once
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true)]
    pub(super) dedup: Option<Switch>,
    /// Compress its chunks
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true)]
    pub(super) compress: Option<Switch>,
    /// Keep in memory what is read, for a while
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true)]
    pub(super) cache: Option<Switch>,
    /// What it is mostly used for
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(super) io_type: Option<IoType>,
    /// Its share of what is read and written beside others: 4, 8, 16, 32, 64 or 128
    #[arg(long, value_name = "WEIGHT")]
    pub(super) priority: Option<u8>,
}

impl SettingsArgs {
    /// What was given, by the names of the interface.
    pub(super) fn add_to(&self, body: &mut Value) {
        let flags = [
            ("thin", self.thin),
            ("deduplicated", self.dedup),
            ("compressed", self.compress),
            ("cached", self.cache),
        ];
        for (name, switch) in flags {
            if let Some(switch) = switch {
                body[name] = switch.is_on().into();
            }
        }
        if let Some(io_type) = self.io_type {
            body["io_type"] = io_type.word().into();
        }
        if let Some(priority) = self.priority {
            body["priority"] = priority.into();
        }
    }
}

/// Make an empty volume
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It takes no room but for what is written to it, unless --thin off sets it aside. Sizes are numbers of
bytes, or with K, M, G and T.

Examples:
  strongroom volume create vol1 --size 10G --pool main
  strongroom volume create db --size 500G --block-size 16K --priority 64")]
pub(crate) struct CreateArgs {
    /// Its name, which no other volume of the pool has
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// How large it is
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    size: u64,
    /// The pool, by name or number [default: main, or the only one]
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Bytes of its chunks: a power of two, 4K to 1M [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = parse::size32)]
    block_size: Option<u32>,
    /// Bytes of a logical block: 512 or 4096 [default: 512]
    #[arg(long, value_name = "SIZE", value_parser = parse::size32)]
    sector_size: Option<u32>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    once: OnceArgs,
}

/// Make a volume with what another, or a disk that was backed up, has
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
The clone is there at once, takes no room but for what is written to it, and needs nothing of what it
was made of. {NAMES} To clone a snapshot, see `strongroom volume snapshot clone`.

With --image, SOURCE is an image of a disk, called as by `strongroom images list`, or IMAGE:PATH for
a file of another image that is one.

Examples:
  strongroom volume clone vol1 vol1-test
  strongroom volume clone --image db-disk@2026-03-01 db-then
  strongroom volume clone --image vms:/srv/web.img web --size 50G"))]
pub(crate) struct CloneArgs {
    /// What it is made of
    source: String,
    /// Its name, which no other volume of the pool has
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// SOURCE is an image of a disk that was backed up
    #[arg(long)]
    image: bool,
    /// The pool of the image, by name or number
    #[arg(long, value_name = "POOL", requires = "image")]
    pool: Option<String>,
    /// How large it is [default: as what it is made of]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    size: Option<u64>,
    #[command(flatten)]
    once: OnceArgs,
}

pub(super) fn say_made(context: &Context, made: &Value) -> Result<Done> {
    let bytes = output::size(made["size"].as_u64().unwrap_or_default());
    let name = made["name"].as_str().unwrap_or_default();
    let text = format!("made the volume {name} of {bytes} with the number {}", made["id"]);
    context.out.done(made.clone(), &text)?;
    Ok(Done::Well)
}

pub(crate) fn create(context: &Context, args: &CreateArgs) -> Result<Done> {
    let client = args.appliance.client()?;
    let of = pool(&client, args.pool.as_deref())?;
    let mut body = json!({ "name": args.name, "size": args.size });
    if let Some(bytes) = args.block_size {
        body["block_size"] = bytes.into();
    }
    if let Some(bytes) = args.sector_size {
        body["sector_size"] = bytes.into();
    }
    args.settings.add_to(&mut body);
    let made: Value = CREATE.make(&client, &[&of.id.to_string()], &body, &args.once)?;
    say_made(context, &made)
}

pub(crate) fn clone(context: &Context, args: &CloneArgs) -> Result<Done> {
    let client = args.appliance.client()?;
    let mut body = json!({ "name": args.name });
    if let Some(bytes) = args.size {
        body["size"] = bytes.into();
    }
    if !args.image {
        let source = find(&client, &args.source)?;
        let made: Value = CLONE.make(&client, &[&number(&source)], &body, &args.once)?;
        return say_made(context, &made);
    }
    let (image, path) = strongroom_archive::image::split(&args.source);
    let image = images::find(&client, args.pool.as_deref(), image)?;
    if let Some(path) = path {
        body["path"] = path.into();
    }
    let made: Value = FROM_IMAGE.make(&client, &[&image.id.to_string()], &body, &args.once)?;
    say_made(context, &made)
}
