//! `strongroom images diff` and `find`: from metadata alone.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::json;
use strongroom_archive::diff::{Difference, diff};
use strongroom_archive::entry::Time;
use strongroom_archive::find::{Query, find_in};
use strongroom_archive::image::{self, Image, parse_time};
use strongroom_archive::names::Names;
use strongroom_archive::{Error, Troubles, show};

use crate::access::SealedPoolArgs;
use crate::browse::{entry_json, entry_line, locate, path_json};
use crate::exit::{Context, Done, usage};
use crate::images::short;
use crate::parse;

/// Show what differs between two images
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Each line begins with what happened: + added, - removed, T became something else, M content
changed, U mode, owner or attributes changed, t only the time changed. No file content is read.
With --json, one document a line for each difference.

Examples:
  strongroom images diff home@2026-03-01 home --pool /srv/pool
  strongroom images diff 3f9a:/etc latest:/etc --pool /srv/pool")]
pub(crate) struct DiffArgs {
    /// The first image, and a directory in it
    #[arg(value_name = "IMAGE[:PATH]")]
    left: String,
    /// The second image, and a directory in it
    #[arg(value_name = "IMAGE[:PATH]")]
    right: String,
    #[command(flatten)]
    pool: SealedPoolArgs,
}

/// An error of the output, for calls that have errors of the archive.
fn unwritten(error: io::Error) -> Error {
    Error::local("the output", error)
}

pub(crate) fn run_diff(context: &Context, args: &DiffArgs) -> Result<Done> {
    let pool = args.pool.read(context)?;
    let (left, left_path) = locate(&*pool, &args.left)?;
    let (right, right_path) = locate(&*pool, &args.right)?;
    let left = left.entry(&*pool, left_path)?;
    let right = right.entry(&*pool, right_path)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut added, mut removed, mut changed) = (0u64, 0u64, 0u64);
    let mut tell = |path: &[u8], difference: Difference| {
        let (sign, word, sizes, changes) = match &difference {
            Difference::Added(entry) => ('+', "added", (None, Some(entry.size())), None),
            Difference::Removed(entry) => ('-', "removed", (Some(entry.size()), None), None),
            Difference::Replaced(one, two) => {
                ('T', "replaced", (Some(one.size()), Some(two.size())), None)
            }
            Difference::Changed(one, two, changes) => {
                let sign = match changes {
                    changes if changes.content => 'M',
                    changes if changes.metadata => 'U',
                    _ => 't',
                };
                (sign, "changed", (Some(one.size()), Some(two.size())), Some(changes))
            }
        };
        match sign {
            '+' => added += 1,
            '-' => removed += 1,
            _ => changed += 1,
        }
        if !context.out.json {
            return writeln!(out, "{sign} {}", show(path)).map_err(unwritten);
        }
        let mut map = serde_json::Map::new();
        path_json(&mut map, path);
        map.insert("change".into(), word.into());
        map.insert("size_before".into(), json!(sizes.0));
        map.insert("size_after".into(), json!(sizes.1));
        if let Some(changes) = changes {
            map.insert("content".into(), changes.content.into());
            map.insert("metadata".into(), changes.metadata.into());
            map.insert("time".into(), changes.time.into());
        }
        serde_json::to_writer(&mut out, &map).map_err(|e| unwritten(e.into()))?;
        writeln!(out).map_err(unwritten)
    };
    let compared = diff(&*pool, &left, &right, left_path, &mut tell);
    context.out.notes(pool.ended(context));
    compared?;
    if !context.out.json && !context.out.quiet {
        writeln!(out, "{added} added, {removed} removed, {changed} changed")?;
    }
    out.flush()?;
    Ok(Done::Well)
}

/// Find files in images by name, size, time and kind
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Patterns are globs as for `backup --exclude`. All images are looked through, the oldest first; no
file content is read. With --json, one document a line for each find.

Examples:
  strongroom images find '*.pst' --min-size 1G --pool /srv/pool
  strongroom images find /etc/fstab --name server --newer 2026-01-01 --pool /srv/pool")]
pub(crate) struct FindArgs {
    /// What to look for: any of these fits; all files if there is none
    #[arg(value_name = "GLOB")]
    patterns: Vec<String>,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Only in this image; may be given several times
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<String>,
    /// Only in images of this name
    #[arg(long)]
    name: Option<String>,
    /// At least this large
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    min_size: Option<u64>,
    /// At most this large
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    max_size: Option<u64>,
    /// Changed at or after this time
    #[arg(long, value_name = "TIME")]
    newer: Option<String>,
    /// Changed at or before this time
    #[arg(long, value_name = "TIME")]
    older: Option<String>,
    /// Of this kind: f file, d directory, l link, p FIFO, c or b device, s socket
    #[arg(long = "type", value_name = "LETTER",
          value_parser = ["f", "d", "l", "p", "c", "b", "s"])]
    kind: Option<String>,
}

pub(crate) fn run_find(context: &Context, args: &FindArgs) -> Result<Done> {
    let time = |text: &Option<String>| -> Result<Option<Time>> {
        let Some(text) = text else { return Ok(None) };
        let time = parse_time(text).map_err(|e| usage(e.to_string()))?;
        Ok(Some(Time::from_nanos(time.0)))
    };
    let query = Query {
        patterns: args.patterns.clone(),
        min_size: args.min_size,
        max_size: args.max_size,
        newer: time(&args.newer)?,
        older: time(&args.older)?,
        kind: args.kind.as_ref().and_then(|kind| match kind.as_str() {
            "f" => Some('-'),
            other => other.chars().next(),
        }),
    };
    let pool = args.pool.read(context)?;
    let (all, _) = image::images(&*pool)?;
    let mut images: Vec<&Image> = match args.images.is_empty() {
        true => all.iter().collect(),
        false => args
            .images
            .iter()
            .map(|text| image::choose(&all, text))
            .collect::<strongroom_archive::Result<_>>()?,
    };
    images.retain(|image| args.name.as_ref().is_none_or(|name| *name == image.name));
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut troubles = Troubles::default();
    for image in images {
        if context.interrupt.is_asked() {
            return Err(strongroom_engine::Error::Canceled.into());
        }
        if let Some(key) = image.meta.closed() {
            troubles
                .add(image.name.as_bytes(), format!("it is sealed under the client's key {key}"));
            continue;
        }
        let names = image.names(&*pool).unwrap_or_else(|e| {
            troubles.add(image.name.as_bytes(), format!("no names of owners: {e}"));
            Names::default()
        });
        let mut tell = |path: &[u8], entry: &strongroom_archive::entry::Entry| {
            if !context.out.json {
                write!(out, "{} ", short(&image.id)).map_err(unwritten)?;
                return entry_line(&mut out, &show(path), entry, &names).map_err(unwritten);
            }
            let mut document = entry_json(path, entry, &names);
            document["image"] = image.id.to_string().into();
            document["name"] = image.name.clone().into();
            serde_json::to_writer(&mut out, &document).map_err(|e| unwritten(e.into()))?;
            writeln!(out).map_err(unwritten)
        };
        let mut failed = |path: &[u8], error| troubles.add(path, error);
        find_in(&*pool, image, &query, &mut tell, &mut failed)?;
    }
    out.flush()?;
    drop(out);
    context.out.stream_ended(pool.ended(context), &troubles);
    Ok(Done::well_if(troubles.is_empty()))
}
