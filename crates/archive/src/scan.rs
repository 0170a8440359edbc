//! Walking through the directories of an image in the order of paths, with bounded memory however
//! deep and wide they are.

use strongroom_engine::id::ChunkId;
use strongroom_engine::map::Nodes;

use crate::entry::{Body, Entry};
use crate::image::Image;
use crate::store::Source;
use crate::tree::{Dir, Entries, Gap};
use crate::{Error, Result, show};

/// How many directories of a path keep the entries they have read; those above read them again
/// when the walk comes back to them.
pub(crate) const OPEN: usize = 16;

/// A place in a directory that can be put away and taken up again.
pub(crate) struct Cursor<'s> {
    source: &'s dyn Nodes,
    node: ChunkId,
    number: u64,
    entries: Option<Entries<'s>>,
    peeked: Option<Entry>,
}

impl<'s> Cursor<'s> {
    pub(crate) fn new(source: &'s dyn Nodes, node: ChunkId) -> Self {
        Self { source, node, number: 0, entries: None, peeked: None }
    }

    pub(crate) fn node(&self) -> ChunkId {
        self.node
    }

    fn entries(&mut self) -> &mut Entries<'s> {
        self.entries
            .get_or_insert_with(|| Dir::new(self.source, self.node).entries_from(self.number))
    }

    /// The next entry. After an error, what comes behind the gap.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Lost> {
        if let Some(entry) = self.peeked.take() {
            return Ok(Some(entry));
        }
        let entries = self.entries();
        let next = entries.next().transpose();
        let next = next.map_err(|error| Lost {
            gap: entries.gap().cloned().unwrap_or(Gap { first: Vec::new(), entries: None }),
            error,
        });
        self.number = self.entries().number();
        next
    }

    /// The next entry, which stays the next one.
    pub(crate) fn peek(&mut self) -> Result<Option<&Entry>, Lost> {
        if self.peeked.is_none() {
            self.peeked = self.next()?;
        }
        Ok(self.peeked.as_ref())
    }

    /// Passes over nodes that come next in both.
    pub(crate) fn skip_common(&mut self, other: &mut Self) {
        if self.peeked.is_none() && other.peeked.is_none() {
            self.entries().skip_common(other.entries());
            self.number = self.entries().number();
            other.number = other.entries().number();
        }
    }

    /// Gives up what was read ahead.
    pub(crate) fn put_away(&mut self) {
        self.entries = None;
    }
}

/// A part of a directory that can't be read.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) gap: Gap,
    pub(crate) error: strongroom_engine::Error,
}

impl Lost {
    /// What to tell the user; an error when it is one to end with.
    pub(crate) fn tell(self) -> Result<String> {
        if self.error.ends_all() {
            return Err(self.error.into());
        }
        let which = match (&self.gap.first[..], self.gap.entries) {
            ([], None) => "the directory can't be read".to_owned(),
            ([], Some(count)) => format!("{count} entries can't be read"),
            (first, Some(count)) => {
                format!("{count} entries from {} on can't be read", show(first))
            }
            (first, None) => format!("entries from {} on can't be read", show(first)),
        };
        Ok(format!("{which}: {}", self.error))
    }
}

/// What a walk comes upon.
pub(crate) enum Step {
    /// An entry; [`Walk::path`] is its path. [`Walk::enter`] goes into it if it is a directory.
    Entry(Box<Entry>),
    /// All of this directory was seen; [`Walk::path`] is its path.
    Left(ChunkId),
    /// A part of the directory at [`Walk::path`] can't be read; the rest comes.
    Lost(Lost),
}

struct Level<'s> {
    cursor: Cursor<'s>,
    path_len: usize,
}

/// A walk through a directory and what the caller chooses to enter.
pub(crate) struct Walk<'s> {
    source: &'s dyn Nodes,
    levels: Vec<Level<'s>>,
    path: Vec<u8>,
}

impl<'s> Walk<'s> {
    /// A walk through the directory with this node, which has this path: empty for the top.
    pub(crate) fn new(source: &'s dyn Nodes, node: ChunkId, path: Vec<u8>) -> Self {
        let mut walk = Self { source, levels: Vec::new(), path };
        walk.enter(node);
        walk
    }

    /// Where the walk stands: names with `/` in front of each.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Goes into the directory that came last.
    pub(crate) fn enter(&mut self, node: ChunkId) {
        if let Some(above) = self.levels.len().checked_sub(OPEN) {
            self.levels[above].cursor.put_away();
        }
        let path_len = self.path.len();
        self.levels.push(Level { cursor: Cursor::new(self.source, node), path_len });
    }

    /// The next step; None after the top directory was left.
    pub(crate) fn step(&mut self) -> Option<Step> {
        let level = self.levels.last_mut()?;
        self.path.truncate(level.path_len);
        Some(match level.cursor.next() {
            Ok(Some(entry)) => {
                self.path.push(b'/');
                self.path.extend_from_slice(&entry.name);
                Step::Entry(Box::new(entry))
            }
            Ok(None) => {
                let node = level.cursor.node();
                self.levels.pop();
                Step::Left(node)
            }
            Err(lost) => Step::Lost(lost),
        })
    }
}

/// What a path in an image names: the entry, and its path as walks write it (`/` before each name;
/// empty for the top directory).
///
/// # Errors
/// As [`Image::entry`].
pub(crate) fn locate(source: &dyn Source, image: &Image, path: &[u8]) -> Result<(Entry, Vec<u8>)> {
    let entry = image.entry(source, path)?;
    let mut full = Vec::with_capacity(path.len() + 1);
    for name in crate::image::components(path)? {
        full.push(b'/');
        full.extend_from_slice(name);
    }
    if full.is_empty() && !entry.name.is_empty() {
        // A block image or stream.
        full.push(b'/');
        full.extend_from_slice(&entry.name);
    }
    Ok((entry, full))
}

/// The node of a directory.
pub(crate) fn dir(entry: &Entry) -> Option<ChunkId> {
    match entry.body {
        Body::Dir { node, .. } => Some(node),
        _ => None,
    }
}

/// An error to end with unless it is only about one file.
pub(crate) fn passing(error: strongroom_engine::Error) -> Result<strongroom_engine::Error> {
    if error.ends_all() { Err(Error::Pool(error)) } else { Ok(error) }
}

/// For tests: trees in memory.
#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use crate::backup::{Backup, Input, Parent, Progress};
    use crate::image::Image;
    use crate::memory::Memory;

    /// Backs a directory up; it is the whole image but for the directories above it.
    pub(crate) fn backup(store: &Memory, dir: &Path, name: &str) -> Image {
        let backup = Backup {
            name: Some(name.into()),
            input: Input::Paths(vec![dir.to_owned()]),
            parent: Parent::Latest,
            ..Backup::default()
        };
        backup.run(store, &Progress::default()).unwrap().image.unwrap()
    }

    /// The path of a directory in the image.
    pub(crate) fn inside(dir: &Path) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        dir.canonicalize().unwrap().as_os_str().as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::Time;
    use crate::memory::Memory;
    use crate::tree::DirBuilder;

    fn directory(store: &Memory, files: &BTreeMap<String, u32>) -> ChunkId {
        let mut builder = DirBuilder::new(0);
        for (name, mode) in files {
            let entry = Entry {
                name: name.as_bytes().to_vec(),
                body: Body::Fifo,
                mode: *mode,
                uid: 0,
                gid: 0,
                mtime: Time::default(),
                ctime: Time::default(),
                inode: 1,
                device: 0,
                links: 1,
                racy: false,
                passed: false,
                xattrs: Vec::new(),
            };
            builder.push(store, &entry).unwrap();
        }
        builder.finish(store).unwrap()
    }

    /// Names that differ, and how many names were looked at.
    fn compare(store: &Memory, old: ChunkId, new: ChunkId, forget: usize) -> (Vec<String>, usize) {
        let (mut old, mut new) = (Cursor::new(store, old), Cursor::new(store, new));
        let (mut found, mut seen) = (Vec::new(), 0);
        loop {
            old.skip_common(&mut new);
            let names = [&mut old, &mut new]
                .map(|side| side.peek().unwrap().map(|entry| entry.name.clone()));
            let (old_entry, new_entry) = match &names {
                [None, None] => return (found, seen),
                [Some(a), Some(b)] if a == b => (old.next().unwrap(), new.next().unwrap()),
                [Some(a), Some(b)] if a < b => (old.next().unwrap(), None),
                [Some(_), None] => (old.next().unwrap(), None),
                _ => (None, new.next().unwrap()),
            };
            seen += 1;
            if forget > 0 && seen % forget == 0 {
                old.put_away();
                new.put_away();
            }
            if old_entry != new_entry {
                let name = old_entry.or(new_entry).unwrap().name;
                found.push(String::from_utf8(name).unwrap());
            }
        }
    }

    #[test]
    fn equal_parts_of_large_directories_are_not_read() {
        let store = Memory::default();
        let mut files: BTreeMap<_, _> = (0..60_000).map(|i| (format!("{i:08}"), 1u32)).collect();
        let old = directory(&store, &files);
        files.insert("00030000".into(), 2);
        files.insert("00030001x".into(), 1);
        let new = directory(&store, &files);
        let (found, seen) = compare(&store, old, new, 0);
        assert_eq!(found, ["00030000", "00030001x"]);
        assert!(seen < 9_000, "{seen} of 60000 entries were read");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn directories_compare_as_maps_do(
            size in 0usize..6000,
            edits in prop::collection::vec((0usize..7000, 0u32..4), 0..40),
            forget in 0usize..900,
        ) {
            let store = Memory::default();
            let before: BTreeMap<_, _> = (0..size).map(|i| (format!("{i:06}"), 1u32)).collect();
            let mut after = before.clone();
            for (at, mode) in edits {
                let name = format!("{at:06}");
                if mode == 0 { after.remove(&name); } else { after.insert(name, mode); }
            }
            let (old, new) = (directory(&store, &before), directory(&store, &after));
            let names = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
            let differ: Vec<_> = names
                .into_iter()
                .filter(|name| before.get(*name) != after.get(*name))
                .cloned()
                .collect();
            prop_assert_eq!(compare(&store, old, new, forget).0, differ);
        }
    }
}
