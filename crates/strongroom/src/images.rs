//! `strongroom images`.

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_archive::image::{self, Image, ImageKind};
use strongroom_archive::show;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::RootId;
use strongroom_engine::pool::{OpenMode, Pool};

use crate::access::{PoolArgs, SealedPoolArgs};
use crate::appliance::images::{Going, Wanted};
use crate::appliance::list::{LANGUAGE, SearchArgs};
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};
use crate::output::{count, json_time, local_time, print_table, size, table};
use crate::parse::{self, Moment};
use crate::{appliance, compare};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Diff(compare::DiffArgs),
    Find(compare::FindArgs),
    Tag(TagArgs),
    Immutable(ImmutableArgs),
    Retention(RetentionArgs),
    Forget(ForgetArgs),
}

/// List images, the oldest first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}
That is how an appliance lists; a pool of your own takes only --name, --tag and --host.

Examples:
  strongroom images list --filter complete:==false --columns id,name,created_at
  strongroom images list --pool /srv/pool --name home --tag weekly --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Only those of this name
    #[arg(long, short)]
    name: Option<String>,
    /// Only those with this label; several: with each of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only those of this machine
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    search: SearchArgs,
}

/// Show all that is known of an image
#[derive(clap::Args, Debug)]
#[command(after_help = "\
An image is called by its name (its latest image), NAME@TIME (its latest image not after that time),
`latest`, or the first digits of its id.

Examples:
  strongroom images show latest --pool /srv/pool
  strongroom images show home@2026-03-01 --pool /srv/pool")]
pub(crate) struct ShowArgs {
    /// Which
    image: String,
    #[command(flatten)]
    pool: SealedPoolArgs,
}

/// Change the labels of an image
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom images tag 17 --add keep
  strongroom images tag home --add before-upgrade --remove daily --pool /srv/pool")]
pub(crate) struct TagArgs {
    /// Which
    image: String,
    #[command(flatten)]
    pool: PoolArgs,
    /// Add this label
    #[arg(long, value_name = "TAG")]
    add: Vec<String>,
    /// Remove this label
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
}

/// Forget images; `pool gc` then frees what only they needed
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Immutable images can't be forgotten before their time. Of a pool of your own all that are named are
forgotten, or none; an appliance forgets one after the other. To forget by age and number, see
`strongroom forget`.

Examples:
  strongroom images forget 17 18 --yes
  strongroom images forget 3f9a 77c01d --yes --pool /srv/pool")]
pub(crate) struct ForgetArgs {
    /// Which
    #[arg(required = true)]
    images: Vec<String>,
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// Let nothing remove an image before a time
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The time is the pool's own, and can be put off only. Nobody can take it back, no administrator either.

Examples:
  strongroom images immutable home --until 1y
  strongroom images immutable 3f9a --until 2027-12-31 --pool /srv/pool")]
pub(crate) struct ImmutableArgs {
    /// Which
    image: String,
    #[command(flatten)]
    pool: PoolArgs,
    /// Until when: a time, or how long from now, like 1y
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse::moment)]
    until: Moment,
}

/// Say how long an image is kept
#[derive(clap::Args, Debug)]
#[command(after_help = "\
No rule of `forget` takes an image before that time, which is the pool's own; then an appliance forgets
it by itself, of a pool of your own `forget --expired` does. It can be put off and brought forward; an
image that is immutable for longer stays for as long as it is.

Examples:
  strongroom images retention home --until 1y
  strongroom images retention 3f9a --until 2027-12-31 --pool /srv/pool
  strongroom images retention 17 --unlimited")]
pub(crate) struct RetentionArgs {
    /// Which
    image: String,
    #[command(flatten)]
    pool: PoolArgs,
    /// Until when: a time, or how long from now, like 1y
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse::moment,
          required_unless_present = "unlimited")]
    until: Option<Moment>,
    /// Until somebody forgets it
    #[arg(long, conflicts_with = "until")]
    unlimited: bool,
}

pub(crate) fn run(context: &Context, command: Command) -> Result<Done> {
    match command {
        Command::List(args) => list(context, &args),
        Command::Show(args) => show_one(context, &args),
        Command::Diff(args) => compare::run_diff(context, &args),
        Command::Find(args) => compare::run_find(context, &args),
        Command::Tag(args) => tag(context, &args),
        Command::Immutable(args) => immutable(context, &args),
        Command::Retention(args) => retention(context, &args),
        Command::Forget(args) => forget(context, &args),
    }
}

/// What an image was made of, in a word.
fn kind(image: &Image) -> &'static str {
    match image.meta.kind {
        ImageKind::Files => "files",
        ImageKind::Block => "image",
        ImageKind::Stream => "stream",
    }
}

/// The first digits of an id: enough to tell images apart in a list.
pub(crate) fn short(id: &RootId) -> String {
    id.to_string().chars().take(12).collect()
}

/// An image as JSON.
pub(crate) fn image_json(image: &Image) -> Value {
    let (meta, stats) = (&image.meta, &image.meta.stats);
    json!({
        "id": image.id.to_string(),
        "name": image.name,
        "kind": kind(image),
        "created": json_time(image.created),
        "immutable_until": image.immutable_until.map(json_time),
        "expires_at": image.expires().map(json_time),
        "complete": meta.complete,
        "host": meta.host,
        "user": meta.user,
        "program": meta.program,
        "paths": meta.paths.iter().map(|path| show(path)).collect::<Vec<_>>(),
        "tags": meta.tags,
        "excludes": meta.excludes,
        "client_key": meta.sealing.as_ref().map(|sealing| sealing.key.to_string()),
        "started": json_time(PoolTime(meta.started)),
        "ended": json_time(PoolTime(meta.ended)),
        "parent": meta.parent.map(|parent| parent.to_string()),
        "files": stats.files,
        "dirs": stats.dirs,
        "others": stats.others,
        "bytes": stats.bytes,
        "new_bytes": stats.new_bytes,
        "stored_bytes": stats.stored_bytes,
        "reused_files": stats.reused,
        "troubles": stats.troubles,
    })
}

fn list(context: &Context, args: &ListArgs) -> Result<Done> {
    if let Some(pool) = args.pool.at_appliance() {
        let (name, host) = (args.name.as_deref(), args.host.as_deref());
        let wanted = Wanted { pool, name, host, tags: &args.tags, search: &args.search };
        return appliance::images::list(context, &args.pool.appliance.client()?, &wanted);
    }
    if args.search.is_given() {
        let text = "a pool of your own takes only --name, --tag and --host; the other options are \
                    for an appliance's lists";
        return Err(usage(text));
    }
    let pool = args.pool.open(context, OpenMode::Read)?;
    let (mut images, unreadable) = image::images(&*pool)?;
    images.retain(|image| {
        args.name.as_ref().is_none_or(|name| *name == image.name)
            && args.host.as_ref().is_none_or(|host| *host == image.meta.host)
            && args.tags.iter().all(|tag| image.meta.tags.contains(tag))
    });
    let document = json!({
        "images": images.iter().map(image_json).collect::<Vec<_>>(),
        "unreadable": unreadable,
    });
    context.out.report(Some(&pool), document, |out| {
        if images.is_empty() {
            writeln!(out, "no images")?;
        } else {
            print_images(out, &images)?;
        }
        if unreadable > 0 {
            let bad = count(unreadable as u64, "image", "images");
            writeln!(out, "{bad} can't be read: run `strongroom pool check`")?;
        }
        Ok(())
    })?;
    Ok(Done::well_if(unreadable == 0))
}

/// Prints images as a table.
pub(crate) fn print_images(out: &mut dyn Write, images: &[Image]) -> std::io::Result<()> {
    let mut rows =
        table(&["ID", "NAME", "CREATED", "KIND", ">FILES", ">SIZE", ">NEW", "HOST", "NOTES"]);
    for image in images {
        let mut notes = image.meta.tags.clone();
        if !image.meta.complete {
            notes.push("(incomplete)".into());
        }
        if let Some(until) = image.immutable_until {
            notes.push(format!("(immutable until {})", local_time(until)));
        }
        if let Some(at) = image.expires() {
            notes.push(format!("(kept until {})", local_time(at)));
        }
        let stats = &image.meta.stats;
        rows.add_row([
            short(&image.id),
            show(image.name.as_bytes()),
            local_time(image.created),
            kind(image).into(),
            stats.files.to_string(),
            size(stats.bytes),
            size(stats.new_bytes),
            show(image.meta.host.as_bytes()),
            show(notes.join(" ").as_bytes()),
        ]);
    }
    print_table(out, &rows)
}

fn show_one(context: &Context, args: &ShowArgs) -> Result<Done> {
    let pool = args.pool.read(context)?;
    let image = image::find(&*pool, &args.image)?;
    context.out.report(pool.ended(context), image_json(&image), |out| describe(out, &image))?;
    Ok(Done::Well)
}

fn describe(out: &mut dyn Write, image: &Image) -> std::io::Result<()> {
    let (meta, stats) = (&image.meta, &image.meta.stats);
    writeln!(out, "image      {}", image.id)?;
    writeln!(out, "name       {}", show(image.name.as_bytes()))?;
    writeln!(out, "kind       {}", kind(image))?;
    writeln!(out, "created    {} (pool's time)", local_time(image.created))?;
    if let Some(until) = image.immutable_until {
        writeln!(out, "immutable  until {} (pool's time)", local_time(until))?;
    }
    if let Some(at) = image.expires() {
        writeln!(out, "kept       until {} (pool's time)", local_time(at))?;
    }
    writeln!(
        out,
        "made by    {} on {}, {}",
        show(meta.user.as_bytes()),
        show(meta.host.as_bytes()),
        show(meta.program.as_bytes())
    )?;
    let (started, ended) = (PoolTime(meta.started), PoolTime(meta.ended));
    writeln!(out, "from, to   {}, {} (machine's time)", local_time(started), local_time(ended))?;
    for path in &meta.paths {
        writeln!(out, "path       {}", show(path))?;
    }
    for rule in &meta.excludes {
        writeln!(out, "without    {}", show(rule.as_bytes()))?;
    }
    if let Some(sealing) = &meta.sealing {
        writeln!(out, "sealed     under the client's key {}", sealing.key)?;
    }
    if !meta.tags.is_empty() {
        writeln!(out, "tags       {}", show(meta.tags.join(", ").as_bytes()))?;
    }
    if let Some(parent) = meta.parent {
        writeln!(out, "parent     {parent}")?;
    }
    writeln!(
        out,
        "content    {} files, {} directories, {} other, {}",
        stats.files,
        stats.dirs,
        stats.others,
        size(stats.bytes)
    )?;
    writeln!(
        out,
        "new        {}, {} stored; {} files unchanged",
        size(stats.new_bytes),
        size(stats.stored_bytes),
        stats.reused
    )?;
    let bad = count(stats.troubles, "file", "files");
    writeln!(
        out,
        "complete   {}",
        if meta.complete { "yes".into() } else { format!("no: {bad} with trouble") }
    )
}

fn tag(context: &Context, args: &TagArgs) -> Result<Done> {
    if args.add.is_empty() && args.remove.is_empty() {
        return Err(usage("nothing to change: give --add or --remove"));
    }
    if let Some(pool) = args.pool.at_appliance() {
        let (client, change) = (args.pool.appliance.client()?, (&args.add[..], &args.remove[..]));
        return appliance::images::tag(context, &client, pool, &args.image, change);
    }
    let pool = args.pool.open(context, OpenMode::Write)?;
    let mut image = image::find(&*pool, &args.image)?;
    let tags = &mut image.meta.tags;
    tags.retain(|tag| !args.remove.contains(tag));
    for tag in &args.add {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    pool.update_root(image.id, Some(image.meta.encode()), None)?;
    context.out.summary(Some(&pool), image_json(&image), |out| {
        let tags = &image.meta.tags;
        let tags = if tags.is_empty() { "none".into() } else { show(tags.join(", ").as_bytes()) };
        writeln!(out, "labels of {}: {tags}", short(&image.id))
    })?;
    Ok(Done::Well)
}

fn immutable(context: &Context, args: &ImmutableArgs) -> Result<Done> {
    if let Some(pool) = args.pool.at_appliance() {
        let client = args.pool.appliance.client()?;
        return appliance::images::keep(context, &client, pool, &args.image, args.until);
    }
    let pool = args.pool.open(context, OpenMode::Write)?;
    let image = image::find(&*pool, &args.image)?;
    let now = jiff::Timestamp::from_nanosecond(pool.now().0.into())?;
    let until = args.until.from(now).map_err(usage)?;
    let until = i64::try_from(until.as_nanosecond()).map_err(|_| usage("that is too far away"))?;
    pool.update_root(image.id, None, Some(PoolTime(until)))?;
    let image = image::find(&*pool, &image.id.to_string())?;
    context.out.summary(Some(&pool), image_json(&image), |out| {
        let until = image.immutable_until.map(local_time).unwrap_or_default();
        writeln!(out, "nothing can remove {} before {until} (pool's time)", short(&image.id))
    })?;
    Ok(Done::Well)
}

fn retention(context: &Context, args: &RetentionArgs) -> Result<Done> {
    if let Some(pool) = args.pool.at_appliance() {
        let client = args.pool.appliance.client()?;
        return appliance::images::retain(context, &client, pool, &args.image, args.until);
    }
    let pool = args.pool.open(context, OpenMode::Write)?;
    let mut image = image::find(&*pool, &args.image)?;
    let now = pool.now();
    let until = match args.until {
        Some(until) => {
            let until =
                until.from(jiff::Timestamp::from_nanosecond(now.0.into())?).map_err(usage)?;
            let until = i64::try_from(until.as_nanosecond());
            let until = PoolTime(until.map_err(|_| usage("that is too far away"))?);
            if until <= now {
                return Err(usage(format!("that is over: the pool's time is {now}")));
            }
            Some(until)
        }
        None => None,
    };
    image.meta.kept_for = until.map(|until| until.since(image.created));
    pool.update_root(image.id, Some(image.meta.encode()), None)?;
    context.out.summary(Some(&pool), image_json(&image), |out| match until {
        Some(at) => {
            writeln!(out, "{} is kept until {} (pool's time)", short(&image.id), local_time(at))
        }
        None => writeln!(out, "{} is kept until somebody forgets it", short(&image.id)),
    })?;
    Ok(Done::Well)
}

fn forget(context: &Context, args: &ForgetArgs) -> Result<Done> {
    if let Some(pool) = args.pool.at_appliance() {
        let client = args.pool.appliance.client()?;
        let going = Going::find(&client, pool, &args.images)?;
        args.yes.confirm(&going.question())?;
        return going.forget(context, &client);
    }
    let pool = args.pool.open(context, OpenMode::Write)?;
    let (images, _) = image::images(&*pool)?;
    let mut chosen: Vec<&Image> = Vec::new();
    for text in &args.images {
        let image = image::choose(&images, text)?;
        if !chosen.iter().any(|other| other.id == image.id) {
            chosen.push(image);
        }
    }
    let names = chosen.iter().map(|i| format!("{} of {}", short(&i.id), show(i.name.as_bytes())));
    args.yes.confirm(&format!("Forget {}", names.collect::<Vec<_>>().join(", ")))?;
    forget_all(&pool, &chosen)?;
    let document = json!({
        "forgotten": chosen.iter().map(|image| image.id.to_string()).collect::<Vec<_>>(),
    });
    context.out.summary(Some(&pool), document, |out| {
        for image in &chosen {
            let name = show(image.name.as_bytes());
            writeln!(out, "forgot {} of {name}, {}", short(&image.id), local_time(image.created))?;
        }
        writeln!(out, "`strongroom pool gc` frees what only they needed")
    })?;
    Ok(Done::Well)
}

/// Forgets images, all or none.
pub(crate) fn forget_all(pool: &Pool, images: &[&Image]) -> Result<()> {
    let ids: Vec<RootId> = images.iter().map(|image| image.id).collect();
    if ids.is_empty() { Ok(()) } else { Ok(pool.forget(&ids)?) }
}
