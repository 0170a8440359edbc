//! Writing a part of an image as a tar or zip archive, in one pass and with bounded memory.
//!
//! Names in the archive begin with the last name of the path that was asked for. Where content
//! can't be read zeroes stand in its place, as the headers have promised its length; every such
//! place is a trouble, as is every entry that is left out.
//!
//! What each form can hold:
//!
//! | | tar (pax, POSIX.1-2001) | zip |
//! |---|---|---|
//! | names | bytes of any length | UTF-8; other bytes as `\xNN`, which is a trouble |
//! | times | nanoseconds | seconds, UTC, 1901 to 2038 |
//! | modes | all bits | permissions, no set-id and sticky bits |
//! | owners | numbers and names | no |
//! | extended attributes, capabilities | `SCHILY.xattr.*` | no |
//! | POSIX ACLs | as attributes, and as text in `SCHILY.acl.*` | no |
//! | hard links | yes | each is a file of its own |
//! | symbolic links | yes | yes |
//! | FIFOs, devices | yes | left out |
//! | sockets | left out | left out |
//! | holes | as zeroes | as zeroes |

mod acl;
mod tar;
#[cfg(test)]
mod tests;
mod zip;

use std::collections::HashMap;
use std::io::{BufWriter, Write};

use crate::entry::{Body, Entry, LinkKey, XattrValue};
use crate::flow::{self, Giver};
use crate::image::Image;
use crate::list::Legend;
use crate::scan::{Step, Walk, dir, locate, passing};
use crate::store::Source;
use crate::{Error, Result, Troubles};

/// Names of inodes with several names that are kept in mind, in bytes; when more would be needed,
/// the rest are written as files of their own.
const LINKS: usize = 32 << 20;

/// How an archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// With everything but sockets: extended attributes as `SCHILY.xattr`, times in nanoseconds.
    Tar,
    /// Files, directories and symbolic links with their modes; other things are left out. Its
    /// directory is kept in memory until the end: about 200 bytes and the name for each entry.
    Zip,
}

/// Something that becomes an entry of an archive; the content of a file follows.
struct Item {
    /// Its name in the archive.
    name: Vec<u8>,
    entry: Box<Entry>,
    /// Values of extended attributes; those that can't be read are left out.
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// It is another name for this one.
    link: Option<Vec<u8>>,
    troubles: Vec<String>,
}

/// Names of inodes that have more than one.
#[derive(Default)]
struct Links {
    first: HashMap<LinkKey, (Vec<u8>, u32)>,
    held: usize,
}

impl Links {
    /// The first name of this entry's inode, if there was one before.
    fn of(&mut self, entry: &Entry, name: &[u8]) -> Option<Vec<u8>> {
        let key = entry.link_key()?;
        if let Some((first, left)) = self.first.get_mut(&key) {
            let first = first.clone();
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.first.remove(&key);
                self.held -= first.len() + 128;
            }
            return Some(first);
        }
        if self.held < LINKS {
            self.held += name.len() + 128;
            self.first.insert(key, (name.to_vec(), entry.links - 1));
        }
        None
    }
}

/// Writes what is at `path` of an image, and all below it, to `out`. Names in the archive begin at
/// that entry's own name. What is missing, or not as it was, is told in the result.
///
/// # Errors
/// [`Error::NoPath`], those of the pool about the way to the path, and those of `out` as the pool's
/// `Io`.
pub fn dump<'s>(
    source: &'s dyn Source,
    image: &Image,
    path: &[u8],
    format: Format,
    out: &mut dyn Write,
) -> Result<Troubles> {
    let _hold = source.hold(image.id)?;
    let mut troubles = Troubles::default();
    let legend = Legend::of(source, image, &mut troubles)?;
    let (top, path) = locate(source, image, path)?;
    let base = path.iter().rposition(|b| *b == b'/').map_or(1, |at| at + 1);
    let links = matches!(format, Format::Tar);
    let give = |giver: &mut Giver<'s, Event>| {
        let mut feed = Feed { source, giver, base, links: links.then(Links::default) };
        feed.tree(top, path)
    };
    let mut out = BufWriter::with_capacity(256 << 10, out);
    let troubles = match format {
        Format::Tar => {
            let mut writer = tar::Writer::new(&mut out, &legend, troubles);
            flow::run(source, give, &mut writer)?;
            writer.finish()?
        }
        Format::Zip => {
            let mut writer = zip::Writer::new(&mut out, troubles);
            flow::run(source, give, &mut writer)?;
            writer.finish()?
        }
    };
    out.flush().map_err(broken)?;
    Ok(troubles)
}

fn broken(error: std::io::Error) -> Error {
    strongroom_engine::Error::io("writing the archive", error).into()
}

/// What the writers take: an entry, or something to tell the user.
enum Event {
    Item(Item),
    Trouble(Vec<u8>, String),
}

/// Walks and gives.
struct Feed<'f, 's> {
    source: &'s dyn Source,
    giver: &'f mut Giver<'s, Event>,
    base: usize,
    links: Option<Links>,
}

impl Feed<'_, '_> {
    fn tree(&mut self, top: Entry, path: Vec<u8>) -> Result<()> {
        let node = dir(&top);
        // The top directory has no name.
        if path.len() > self.base {
            self.entry(Box::new(top), &path)?;
        }
        let Some(node) = node else { return Ok(()) };
        let mut walk = Walk::new(self.source, node, path);
        while let Some(step) = walk.step() {
            match step {
                Step::Entry(entry) => {
                    let node = dir(&entry);
                    self.entry(entry, walk.path())?;
                    if let Some(node) = node {
                        walk.enter(node);
                    }
                }
                Step::Lost(lost) => {
                    let what = lost.tell()?;
                    let weight = what.len() + walk.path().len();
                    self.giver.item(Event::Trouble(walk.path().to_vec(), what), weight)?;
                }
                Step::Left(_) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Box<Entry>, path: &[u8]) -> Result<()> {
        let name = path[self.base..].to_vec();
        let link = self.links.as_mut().and_then(|links| links.of(&entry, &name));
        let (mut xattrs, mut troubles) = (Vec::new(), Vec::new());
        if self.links.is_some() && link.is_none() {
            for xattr in &entry.xattrs {
                let mut value = Vec::new();
                match &xattr.value {
                    XattrValue::Inline(inline) => value.clone_from(inline),
                    XattrValue::Chunk(id, _) => {
                        if let Err(error) = self.source.chunk(id, &mut value) {
                            let error = passing(error)?;
                            let name = crate::show(&xattr.name);
                            troubles.push(format!("its attribute {name} is lost: {error}"));
                            continue;
                        }
                    }
                }
                xattrs.push((xattr.name.clone(), value));
            }
        }
        let weight = 2 * name.len()
            + 512
            + xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let map = match &entry.body {
            Body::File(map) if link.is_none() => Some(map.clone()),
            _ => None,
        };
        self.giver.item(Event::Item(Item { name, entry, xattrs, link, troubles }), weight)?;
        match map {
            Some(map) => self.giver.content(&map, 0, map.len()),
            None => Ok(()),
        }
    }
}

/// Where the content of the present file stands.
#[derive(Debug, Default)]
struct Place {
    path: Vec<u8>,
    at: u64,
    size: u64,
}

impl Place {
    /// What to tell of the next `len` bytes.
    fn lost(&self, len: u64, why: &str) -> String {
        let to = self.at + len;
        format!("bytes {} to {to} are lost, zeroes stand in their place: {why}", self.at)
    }
}
