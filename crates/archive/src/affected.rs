//! What a loss means: which files of which images, and which parts of them.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::map::{Extent, MapReader, MapRef};

use crate::entry::{Body, Entry, XattrValue};
use crate::image::{Image, images};
use crate::scan::{Step, Walk, passing};
use crate::store::Source;
use crate::tree::Gap;
use crate::{Result, show};

/// Nodes known to reach nothing that is lost, at most; of two generations the older one is dropped.
const CLEAN: usize = 256 << 10;
/// Ranges that are told at once.
const RANGES: usize = 1024;

/// What is lost of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The top of an image can't be read: all of it is lost.
    Image {
        /// Why.
        why: String,
    },
    /// Parts of an image that is sealed under a client's own key.
    Sealed {
        /// What is known.
        why: String,
    },
    /// The table of the names of owners; numbers are kept.
    Names,
    /// Parts of a file, a block image or a stream: bytes, by ascending offset. One with very many
    /// is told in several goes.
    Bytes(Vec<Range<u64>>),
    /// Values of extended attributes, by name.
    Xattrs(Vec<Vec<u8>>),
    /// Entries of a directory, with all below them.
    Entries {
        /// From which name on; empty for the whole directory.
        first: Vec<u8>,
        /// How many, if known.
        count: Option<u64>,
        /// Why.
        why: String,
    },
}

impl Loss {
    /// As text, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Image { why } => format!("the whole image: {why}"),
            Self::Sealed { why } => why.clone(),
            Self::Names => "the names of users and groups (their numbers are kept)".into(),
            Self::Bytes(ranges) => {
                let shown: Vec<_> =
                    ranges.iter().map(|range| format!("{}-{}", range.start, range.end)).collect();
                format!("bytes {}", shown.join(", "))
            }
            Self::Xattrs(names) => {
                let shown: Vec<_> = names.iter().map(|name| show(name)).collect();
                format!("attributes {}", shown.join(", "))
            }
            Self::Entries { first, count, why } => {
                let which = match count {
                    Some(count) => format!("{count} entries"),
                    None => "all entries".into(),
                };
                match &first[..] {
                    [] => format!("{which} of the directory, and all below them: {why}"),
                    first => format!("{which} of the directory from {} on: {why}", show(first)),
                }
            }
        }
    }
}

/// How much is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Images with any loss.
    pub images: u64,
    /// Files with lost content, each name in each image counted.
    pub files: u64,
    /// Their lost bytes.
    pub bytes: u64,
    /// Directories with entries that can't be read.
    pub dirs: u64,
    /// Files and directories that have lost attributes.
    pub xattrs: u64,
}

/// A bounded memory of nodes that are known to be clean: old ones are forgotten first.
#[derive(Default)]
struct Clean {
    young: HashSet<ChunkId>,
    old: HashSet<ChunkId>,
}

impl Clean {
    fn has(&mut self, id: &ChunkId) -> bool {
        if self.young.contains(id) {
            return true;
        }
        let had = self.old.contains(id);
        if had {
            self.add(*id);
        }
        had
    }

    fn add(&mut self, id: ChunkId) {
        if self.young.len() >= CLEAN / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id);
    }
}

/// Hears of a loss: the image, the path in it, and what is lost there.
pub type Each<'f> = dyn FnMut(&Image, &[u8], Loss) -> Result<()> + 'f;

/// Tells `each`, image by image and in the order of paths, what is lost with these chunks (data and
/// nodes; `CheckReport::lost` has both), and with nodes that turn out not to be readable. Directories
/// that many images share are looked through once, unless something in them is lost. Memory is
/// bounded, but for the ids of the nodes of one sealed image. The path is that in the image, empty for
/// its top.
///
/// # Errors
/// Cancellation, and those of `each`, which end all.
pub fn losses(
    source: &dyn Source,
    images: &[Image],
    lost: &BTreeSet<ChunkId>,
    each: &mut Each<'_>,
) -> Result<Losses> {
    let mut search = Search { source, lost, clean: Clean::default(), sum: Losses::default() };
    for image in images {
        let _hold = source.hold(image.id)?;
        let mut any = false;
        let mut tell = |path: &[u8], loss: Loss| {
            any = true;
            each(image, path, loss)
        };
        search.image(image, &mut tell)?;
        search.sum.images += u64::from(any);
    }
    Ok(search.sum)
}

/// A path that is not whole, and what of it is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which, as text, from the top of the image.
    pub path: String,
    /// What is lost.
    pub what: String,
}

/// An image that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Its identifier.
    pub id: RootId,
    /// Its name.
    pub name: String,
    /// Every path in it that is affected, in the order of paths.
    pub paths: Vec<Hit>,
}

/// [`losses`] of all images as one list, for those who can hold it.
///
/// # Errors
/// As [`losses`].
pub fn affected(source: &dyn Source, lost: &BTreeSet<ChunkId>) -> Result<Vec<Affected>> {
    let mut found: Vec<Affected> = Vec::new();
    if lost.is_empty() {
        return Ok(found);
    }
    losses(source, &images(source)?.0, lost, &mut |image, path, loss| {
        let path = if path.is_empty() { "/".into() } else { show(path) };
        let hit = Hit { path, what: loss.describe() };
        match found.last_mut() {
            Some(last) if last.id == image.id => last.paths.push(hit),
            _ => found.push(Affected { id: image.id, name: image.name.clone(), paths: vec![hit] }),
        }
        Ok(())
    })?;
    Ok(found)
}

type Tell<'t> = &'t mut dyn FnMut(&[u8], Loss) -> Result<()>;

struct Search<'s> {
    source: &'s dyn Source,
    lost: &'s BTreeSet<ChunkId>,
    clean: Clean,
    sum: Losses,
}

impl Search<'_> {
    fn image(&mut self, image: &Image, tell: Tell<'_>) -> Result<()> {
        if let Some(key) = image.meta.closed() {
            let lost = self.below(image.node)?;
            let why = format!(
                "{lost} of its chunks; which files those are of is sealed under the client's key {key}"
            );
            return if lost == 0 { Ok(()) } else { tell(b"", Loss::Sealed { why }) };
        }
        let top = match image.top(self.source) {
            Ok(top) => top,
            Err(error) if error.ends_all() => return Err(error),
            Err(error) => return tell(b"", Loss::Image { why: error.to_string() }),
        };
        if let Some(names) = top.names
            && (self.lost.contains(&names) || image.names(self.source).is_err())
        {
            tell(b"", Loss::Names)?;
        }
        let mut path = Vec::new();
        if !top.entry.name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&top.entry.name);
        }
        self.entry(&top.entry, &path, tell)?;
        match top.entry.body {
            Body::Dir { node, .. } => self.tree(node, path, tell),
            _ => Ok(()),
        }
    }

    /// How many chunks of a sealed image are lost: all that its nodes refer to, as far as those can
    /// be read, each once.
    fn below(&mut self, top: ChunkId) -> Result<u64> {
        let mut lost = HashSet::new();
        let mut seen = HashSet::from([top]);
        let mut stack = vec![top];
        while let Some(id) = stack.pop() {
            match self.source.node(&id) {
                Ok(node) => {
                    lost.extend(node.data.into_iter().filter(|id| self.lost.contains(id)));
                    let unclean = node.nodes.into_iter().filter(|child| !self.clean.has(child));
                    stack.extend(unclean.filter(|child| seen.insert(*child)));
                }
                Err(error) => {
                    passing(error)?;
                    lost.insert(id);
                }
            }
        }
        if lost.is_empty() {
            seen.into_iter().for_each(|id| self.clean.add(id));
        }
        Ok(lost.len() as u64)
    }

    fn tree(&mut self, node: ChunkId, path: Vec<u8>, tell: Tell<'_>) -> Result<()> {
        if self.clean.has(&node) {
            return Ok(());
        }
        let mut walk = Walk::new(self.source, node, path);
        // For each directory on the way: whether nothing in it was lost so far.
        let mut clean = vec![true];
        let spoil = |clean: &mut Vec<bool>| {
            if let Some(last) = clean.last_mut() {
                *last = false;
            }
        };
        while let Some(step) = walk.step() {
            match step {
                Step::Entry(entry) => {
                    if !self.entry(&entry, walk.path(), tell)? {
                        spoil(&mut clean);
                    }
                    if let Body::Dir { node, .. } = entry.body
                        && !self.clean.has(&node)
                    {
                        walk.enter(node);
                        clean.push(true);
                    }
                }
                Step::Left(node) => match clean.pop() {
                    Some(true) => self.clean.add(node),
                    _ => spoil(&mut clean),
                },
                Step::Lost(gone) => {
                    spoil(&mut clean);
                    self.sum.dirs += 1;
                    let why = passing(gone.error)?.to_string();
                    let Gap { first, entries } = gone.gap;
                    tell(walk.path(), Loss::Entries { first, count: entries, why })?;
                }
            }
        }
        Ok(())
    }

    /// Looks at what an entry itself refers to, but not into directories; whether all is there.
    fn entry(&mut self, entry: &Entry, path: &[u8], tell: Tell<'_>) -> Result<bool> {
        let names: Vec<_> = entry
            .xattrs
            .iter()
            .filter_map(|xattr| match &xattr.value {
                XattrValue::Chunk(id, _) if self.lost.contains(id) => Some(xattr.name.clone()),
                _ => None,
            })
            .collect();
        let mut whole = names.is_empty();
        if !whole {
            self.sum.xattrs += 1;
            tell(path, Loss::Xattrs(names))?;
        }
        if let Body::File(map) = &entry.body {
            whole &= self.content(map, path, tell)?;
        }
        Ok(whole)
    }

    fn content(&mut self, map: &MapRef, path: &[u8], tell: Tell<'_>) -> Result<bool> {
        match map {
            MapRef::Tree(node, _) if self.clean.has(node) => return Ok(true),
            MapRef::Inline(_) if !map.ids().any(|id| self.lost.contains(&id)) => return Ok(true),
            _ => {}
        }
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut whole = true;
        let mut reader = MapReader::new(self.source, map, 0);
        let mut end = 0;
        loop {
            let bad = match reader.next() {
                None => break,
                Some(Ok((start, Extent::Data { id, len }))) if self.lost.contains(&id) => {
                    start..start + u64::from(len)
                }
                Some(Ok(_)) => {
                    end = reader.position();
                    continue;
                }
                Some(Err(error)) => {
                    passing(error)?;
                    end..reader.position()
                }
            };
            end = reader.position();
            whole = false;
            self.sum.bytes += bad.end - bad.start;
            if let Some(last) = ranges.last_mut()
                && last.end == bad.start
            {
                last.end = bad.end;
            } else if ranges.len() == RANGES {
                tell(path, Loss::Bytes(std::mem::replace(&mut ranges, vec![bad])))?;
            } else {
                ranges.push(bad);
            }
        }
        if whole {
            if let MapRef::Tree(node, _) = map {
                self.clean.add(*node);
            }
        } else {
            self.sum.files += 1;
            tell(path, Loss::Bytes(ranges))?;
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;
    use crate::memory::Memory;
    use crate::scan::testing::{backup, inside};

    /// One line for each loss: the image's number, the last name of the path, the loss.
    fn told(store: &Memory, lost: &BTreeSet<ChunkId>) -> (Vec<String>, Losses) {
        let (images, _) = images(store).unwrap();
        let mut told = Vec::new();
        let sum = losses(store, &images, lost, &mut |image, path, loss| {
            let number = images.iter().position(|other| other.id == image.id).unwrap();
            let name = String::from_utf8_lossy(path.rsplit(|b| *b == b'/').next().unwrap());
            told.push(format!("{number} {name} {}", loss.describe()));
            Ok(())
        });
        (told, sum.unwrap())
    }

    fn map(store: &Memory, image: &Image, path: &[u8]) -> MapRef {
        match image.entry(store, path).unwrap().body {
            Body::File(map) => map,
            _ => panic!("it is a file"),
        }
    }

    fn noise(len: u32, seed: u32) -> Vec<u8> {
        (0..len)
            .flat_map(|i| (i ^ seed).wrapping_mul(0x9e37_79b1).rotate_left(7).to_le_bytes())
            .collect()
    }

    #[test]
    fn each_path_in_each_image_is_told_exactly() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::create_dir_all(dir.join("clean")).unwrap();
        fs::write(dir.join("clean/x"), noise(1000, 1)).unwrap();
        fs::write(dir.join("sub/big"), noise(300_000, 2)).unwrap();
        fs::write(dir.join("sub/copy"), noise(300_000, 2)).unwrap();
        fs::write(dir.join("small"), b"small").unwrap();
        let store = Memory::default();
        let first = backup(&store, &dir, "x");
        fs::remove_file(dir.join("sub/copy")).unwrap();
        fs::write(dir.join("new"), b"new").unwrap();
        backup(&store, &dir, "x");
        assert_eq!(told(&store, &BTreeSet::new()), (Vec::new(), Losses::default()));

        let at = inside(&dir);
        let big = map(&store, &first, &[&at[..], b"/sub/big"].concat());
        assert!(matches!(big, MapRef::Tree(..)));
        let extents: Vec<_> = MapReader::new(&store, &big, 0).map(|step| step.unwrap()).collect();
        let (start, Extent::Data { id, len }) = extents[extents.len() / 2] else { panic!("data") };
        let small = map(&store, &first, &[&at[..], b"/small"].concat());
        let lost: BTreeSet<_> = [id].into_iter().chain(small.ids()).collect();
        let (lines, sum) = told(&store, &lost);
        let part = format!("bytes {start}-{}", start + u64::from(len));
        assert_eq!(
            lines,
            [
                "0 small bytes 0-5".to_owned(),
                format!("0 big {part}"),
                format!("0 copy {part}"),
                "1 small bytes 0-5".to_owned(),
                format!("1 big {part}"),
            ]
        );
        let bytes = 3 * u64::from(len) + 10;
        assert_eq!(sum, Losses { images: 2, files: 5, bytes, dirs: 0, xattrs: 0 });
    }

    #[test]
    fn lost_nodes_are_told_and_the_rest_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        fs::create_dir_all(dir.join("a")).unwrap();
        fs::write(dir.join("a/x"), b"x").unwrap();
        fs::write(dir.join("big"), noise(600_000, 2)).unwrap();
        fs::write(dir.join("z"), b"z").unwrap();
        let store = Memory::default();
        let image = backup(&store, &dir, "x");
        let at = inside(&dir);
        let Body::Dir { node, .. } = image.entry(&store, &[&at[..], b"/a"].concat()).unwrap().body
        else {
            panic!("a directory")
        };
        let big = map(&store, &image, &[&at[..], b"/big"].concat());
        let MapRef::Tree(top, len) = big else { panic!("a tree") };
        let inner = strongroom_engine::map::Nodes::node(&store, &top).unwrap().nodes[1];
        let before: u64 = MapReader::new(&store, &big, 0).map(|step| step.unwrap().1.len()).sum();
        assert_eq!(before, len);
        let z = map(&store, &image, &[&at[..], b"/z"].concat()).ids().next().unwrap();
        store.lose_node(&node);
        store.lose_node(&inner);
        let (lines, sum) = told(&store, &[node, inner, z].into());
        assert_eq!(lines.len(), 3, "{lines:?}");
        let whole = "0 a all entries of the directory, and all below them: ";
        assert!(lines[0].starts_with(whole), "{}", lines[0]);
        assert!(lines[1].starts_with("0 big bytes "), "{}", lines[1]);
        assert_eq!(lines[2], "0 z bytes 0-1");
        assert_eq!((sum.dirs, sum.files), (1, 2));
        let good: u64 = MapReader::new(&store, &big, 0).flatten().map(|(_, e)| e.len()).sum();
        assert_eq!(good + sum.bytes - 1, len);
    }

    #[test]
    fn a_lost_top_is_a_lost_image() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        fs::create_dir_all(&dir).unwrap();
        let store = Memory::default();
        let image = backup(&store, &dir, "x");
        store.lose_node(&image.node);
        let (lines, sum) = told(&store, &[image.node].into());
        assert_eq!((lines.len(), sum.images), (1, 1));
        assert!(lines[0].contains("the whole image"), "{}", lines[0]);
        let listed = affected(&store, &[image.node].into()).unwrap();
        assert_eq!((listed.len(), listed[0].paths.len()), (1, 1));
        assert_eq!((listed[0].id, listed[0].paths[0].path.as_str()), (image.id, "/"));
    }
}
