//! Looking into images: `ls`, `cat`.

use std::io::{self, Write};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use strongroom_archive::entry::{Body, Entry};
use strongroom_archive::image::{self, Image};
use strongroom_archive::list::List;
use strongroom_archive::names::Names;
use strongroom_archive::store::Source;
use strongroom_archive::{Troubles, show};
use strongroom_engine::clock::PoolTime;

use crate::access::SealedPoolArgs;
use crate::exit::{Context, Done};
use crate::output::{json_time, local_time};
use crate::parse;

/// List a directory of an image
#[derive(clap::Args, Debug)]
#[command(after_help = "\
With --json, one document a line for each entry; `path_hex` is there for names that aren't UTF-8.

Examples:
  strongroom ls latest:/etc --pool /srv/pool
  strongroom ls home@2026-03-01:/home/anna --recursive --pool /srv/pool")]
pub(crate) struct LsArgs {
    /// Which image, and a path in it
    #[arg(value_name = "IMAGE[:PATH]")]
    what: String,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Go into directories
    #[arg(long, short)]
    recursive: bool,
    /// Names only
    #[arg(long, short = '1')]
    names_only: bool,
}

/// Splits `IMAGE:PATH` and finds the image.
pub(crate) fn locate<'t>(source: &dyn Source, what: &'t str) -> Result<(Image, &'t [u8])> {
    let (name, path) = image::split(what);
    Ok((image::find(source, name)?, path.unwrap_or("").as_bytes()))
}

/// A path as JSON: text, and the bytes when the text doesn't tell them.
pub(crate) fn path_json(map: &mut serde_json::Map<String, Value>, path: &[u8]) {
    match std::str::from_utf8(path) {
        Ok(text) => {
            map.insert("path".into(), text.into());
        }
        Err(_) => {
            map.insert("path".into(), show(path).into());
            let hex: String = path.iter().map(|byte| format!("{byte:02x}")).collect();
            map.insert("path_hex".into(), hex.into());
        }
    }
}

fn kind(entry: &Entry) -> &'static str {
    match entry.body {
        Body::File(_) => "file",
        Body::Dir { .. } => "dir",
        Body::Symlink(_) => "symlink",
        Body::Fifo => "fifo",
        Body::Char(..) => "char",
        Body::Block(..) => "block",
        Body::Socket => "socket",
    }
}

/// An entry as JSON.
pub(crate) fn entry_json(path: &[u8], entry: &Entry, names: &Names) -> Value {
    let name = |name: Option<&Vec<u8>>| name.map(|name| show(name));
    let mut map = serde_json::Map::new();
    path_json(&mut map, path);
    let rest = json!({
        "kind": kind(entry),
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "user": name(names.users.get(&entry.uid)),
        "group": name(names.groups.get(&entry.gid)),
        "size": entry.size(),
        "mtime": json_time(PoolTime(entry.mtime.nanos())),
        "links": entry.links,
        "inode": entry.inode,
    });
    map.extend(rest.as_object().cloned().unwrap_or_default());
    match &entry.body {
        Body::Symlink(target) => {
            map.insert("target".into(), show(target).into());
        }
        Body::Char(major, minor) | Body::Block(major, minor) => {
            map.insert("device".into(), json!([major, minor]));
        }
        _ => {}
    }
    if !entry.xattrs.is_empty() {
        let attributes = entry.xattrs.iter().map(|xattr| show(&xattr.name));
        map.insert("xattrs".into(), attributes.collect::<Vec<_>>().into());
    }
    Value::Object(map)
}

/// The ten characters that `ls -l` begins a line with.
fn mode(entry: &Entry) -> String {
    let mut text = String::with_capacity(10);
    text.push(entry.body.letter());
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift & 7;
        text.push(if bits & 4 > 0 { 'r' } else { '-' });
        text.push(if bits & 2 > 0 { 'w' } else { '-' });
        text.push(match (bits & 1 > 0, entry.mode & special > 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// An entry as a line of text.
pub(crate) fn entry_line(
    out: &mut dyn Write,
    shown: &str,
    entry: &Entry,
    names: &Names,
) -> io::Result<()> {
    let owner = |table: &std::collections::BTreeMap<u32, Vec<u8>>, id: u32| {
        table.get(&id).map_or_else(|| id.to_string(), |name| show(name))
    };
    let size = match entry.body {
        Body::Char(major, minor) | Body::Block(major, minor) => format!("{major},{minor}"),
        _ => entry.size().to_string(),
    };
    let (user, group) = (owner(&names.users, entry.uid), owner(&names.groups, entry.gid));
    let time = local_time(PoolTime(entry.mtime.nanos()));
    write!(out, "{} {user:<8} {group:<8} {size:>12} {time} {shown}", mode(entry))?;
    match &entry.body {
        Body::Symlink(target) => writeln!(out, " -> {}", show(target)),
        _ => writeln!(out),
    }
}

pub(crate) fn ls(context: &Context, args: &LsArgs) -> Result<Done> {
    let pool = args.pool.read(context)?;
    let (image, path) = locate(&*pool, &args.what)?;
    let names = image.names(&*pool)?;
    let top = image.entry(&*pool, path)?;
    let stdout = io::stdout();
    let mut out = io::BufWriter::new(stdout.lock());
    let mut print = |path: &[u8], shown: &[u8], entry: &Entry| -> io::Result<()> {
        if context.out.json {
            serde_json::to_writer(&mut out, &entry_json(path, entry, &names))?;
            out.write_all(b"\n")
        } else if args.names_only {
            writeln!(out, "{}", show(shown))
        } else {
            entry_line(&mut out, &show(shown), entry, &names)
        }
    };
    if !top.is_dir() {
        print(path, &top.name, &top)?;
    }
    let depth = if args.recursive { usize::MAX } else { 1 };
    let path = [b"/", path.strip_prefix(b"/").unwrap_or(path)].concat();
    let mut list = List::new(&*pool, &top, &path, depth);
    let mut troubles = Troubles::default();
    while let Some(entry) = list.next() {
        match entry {
            Ok(entry) => {
                print(list.path(), if args.recursive { list.path() } else { &entry.name }, &entry)?;
            }
            Err(e) if e.ends_all() => return Err(e.into()),
            Err(e) => troubles.add(list.path(), e),
        }
    }
    out.flush()?;
    drop(out);
    context.out.stream_ended(pool.ended(context), &troubles);
    Ok(Done::well_if(troubles.is_empty()))
}

/// Print the content of a file, a block image or a stream
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom cat server:/etc/fstab --pool /srv/pool
  strongroom cat app.sql --pool /srv/pool | psql app
  strongroom cat db-disk --offset 1M --length 4K --pool /srv/pool | xxd")]
pub(crate) struct CatArgs {
    /// Which image, and a file in it; a block image or a stream needs no path
    #[arg(value_name = "IMAGE[:PATH]")]
    what: String,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Begin here
    #[arg(long, value_name = "SIZE", value_parser = parse::size, default_value = "0")]
    offset: u64,
    /// Print so much at most
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    length: Option<u64>,
}

pub(crate) fn cat(context: &Context, args: &CatArgs) -> Result<Done> {
    let pool = args.pool.read(context)?;
    let (image, path) = locate(&*pool, &args.what)?;
    let entry = image.entry(&*pool, path)?;
    let Body::File(map) = &entry.body else {
        let what = if path.is_empty() { "the top of this image".into() } else { show(path) };
        bail!("{what} is a {}, not a file: give IMAGE:PATH of one", kind(&entry));
    };
    let length = args.length.unwrap_or(u64::MAX);
    let mut out = io::stdout().lock();
    let printed = strongroom_archive::cat(&*pool, map, args.offset, length, &mut out);
    context.out.notes(pool.ended(context));
    printed?;
    out.flush()?;
    Ok(Done::Well)
}
