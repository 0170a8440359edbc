//! What differs between two images, from metadata alone.
//!
//! Both are walked side by side in the order of paths. Directory nodes that are the same in both
//! are skipped unread, so comparing two versions of a large tree costs what changed. Content is the
//! same when it refers to the same chunks; a hole on one side and stored zeroes on the other count
//! as a difference. Inode numbers, change times and link counts are not compared: a restore gives
//! new ones.

use std::cmp::Ordering;

use crate::entry::{Body, Entry};
use crate::image::Image;
use crate::scan::{Cursor, Step, Walk, dir, locate};
use crate::store::Source;
use crate::{Result, Troubles};

/// In what an entry differs from what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// It is of another kind.
    pub kind: bool,
    /// A file's content, a link's target, a device's numbers.
    pub content: bool,
    /// The length of a file or of a link's target.
    pub size: bool,
    /// Permission, set-id and sticky bits.
    pub mode: bool,
    /// Numeric owner or group.
    pub owner: bool,
    /// When the content was last changed.
    pub mtime: bool,
    /// Extended attributes, ACLs and capabilities.
    pub xattrs: bool,
}

impl Changes {
    /// In what `new` differs from `old`. For directories: in what they are themselves, not in what
    /// they hold.
    pub fn between(old: &Entry, new: &Entry) -> Self {
        let kind = !old.body.same_kind(&new.body);
        let content = match (&old.body, &new.body) {
            (Body::Dir { .. }, Body::Dir { .. }) => false,
            (old, new) => !kind && old != new,
        };
        Self {
            kind,
            content,
            size: !kind && old.size() != new.size(),
            mode: old.mode != new.mode,
            owner: (old.uid, old.gid) != (new.uid, new.gid),
            mtime: old.mtime != new.mtime,
            xattrs: old.xattrs != new.xattrs,
        }
    }

    /// Whether it differs at all.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// The names of what is different, in the order of the fields.
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.kind, "kind"),
            (self.content, "content"),
            (self.size, "size"),
            (self.mode, "mode"),
            (self.owner, "owner"),
            (self.mtime, "mtime"),
            (self.xattrs, "xattrs"),
        ]
        .into_iter()
        .filter_map(|(is, name)| is.then_some(name))
        .collect()
    }
}

/// One difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'e> {
    /// Only the new side has it.
    Added(&'e Entry),
    /// Only the old side has it.
    Removed(&'e Entry),
    /// Both have it, but not the same.
    Changed {
        /// What it was.
        old: &'e Entry,
        /// What it is.
        new: &'e Entry,
        /// In what they differ.
        changes: Changes,
    },
}

/// How many differences there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Entries that only the new side has.
    pub added: u64,
    /// Entries that only the old side has.
    pub removed: u64,
    /// Entries that are not the same.
    pub changed: u64,
    /// Directories that could not be compared in full. When there is any, the command's exit code
    /// is 3.
    pub troubles: Troubles,
}

/// Tells `each` what differs between two images, or between two paths in images (of one image,
/// too), in the order of paths. What was added or removed is told with all that is below it. The
/// path given is that below the two paths, with `/` before each name; empty for what the paths
/// name themselves. Memory is bounded.
///
/// # Errors
/// [`Error::NoPath`](crate::Error::NoPath), those of the pool about the ways to the paths, and
/// those of `each`, which end all.
pub fn diff(
    source: &dyn Source,
    old: (&Image, &[u8]),
    new: (&Image, &[u8]),
    each: &mut dyn FnMut(&[u8], Change<'_>) -> Result<()>,
) -> Result<Differences> {
    let _holds = (source.hold(old.0.id)?, source.hold(new.0.id)?);
    let (old, _) = locate(source, old.0, old.1)?;
    let (new, _) = locate(source, new.0, new.1)?;
    let mut differ = Differ { source, each, found: Differences::default(), path: Vec::new() };
    differ.run(&old, &new)?;
    Ok(differ.found)
}

/// Like [`diff`], of entries that were found already.
pub(crate) fn between(
    source: &dyn Source,
    old: &Entry,
    new: &Entry,
    each: &mut dyn FnMut(&[u8], Change<'_>) -> Result<()>,
) -> Result<Differences> {
    let mut differ = Differ { source, each, found: Differences::default(), path: Vec::new() };
    differ.run(old, new)?;
    Ok(differ.found)
}

/// Two directories of the same path.
struct Pair<'s> {
    old: Cursor<'s>,
    new: Cursor<'s>,
    path_len: usize,
}

/// How many pairs keep what they have read.
const OPEN: usize = 8;

struct Differ<'d, 's> {
    source: &'s dyn Source,
    each: &'d mut dyn FnMut(&[u8], Change<'_>) -> Result<()>,
    found: Differences,
    path: Vec<u8>,
}

/// The next entry of one side; parts that can't be read are troubles.
fn peek(cursor: &mut Cursor<'_>, path: &[u8], troubles: &mut Troubles) -> Result<Option<Vec<u8>>> {
    loop {
        match cursor.peek() {
            Ok(entry) => return Ok(entry.map(|entry| entry.name.clone())),
            Err(lost) => troubles.add(path, lost.tell()?),
        }
    }
}

/// Takes the entry that [`peek`] has shown.
fn take(cursor: &mut Cursor<'_>) -> Result<Option<Entry>> {
    cursor.next().map_err(|lost| lost.error.into())
}

impl<'s> Differ<'_, 's> {
    fn run(&mut self, old: &Entry, new: &Entry) -> Result<()> {
        let mut pairs = Vec::new();
        pairs.extend(self.both(old, new)?);
        while let Some(pair) = pairs.last_mut() {
            self.path.truncate(pair.path_len);
            pair.old.skip_common(&mut pair.new);
            let troubles = &mut self.found.troubles;
            let old_name = peek(&mut pair.old, &self.path, troubles)?;
            let new_name = peek(&mut pair.new, &self.path, troubles)?;
            let order = match (&old_name, &new_name) {
                (None, None) => {
                    pairs.pop();
                    continue;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.cmp(new),
            };
            let old = if order.is_le() { take(&mut pair.old)? } else { None };
            let new = if order.is_ge() { take(&mut pair.new)? } else { None };
            let name = if order.is_le() { old_name } else { new_name };
            let Some(name) = name else { continue };
            self.path.push(b'/');
            self.path.extend_from_slice(&name);
            match (old, new) {
                (Some(old), Some(new)) => {
                    if let Some(pair) = self.both(&old, &new)? {
                        if let Some(above) = pairs.len().checked_sub(OPEN) {
                            pairs[above].old.put_away();
                            pairs[above].new.put_away();
                        }
                        pairs.push(pair);
                    }
                }
                (Some(old), None) => self.one(&old, true)?,
                (None, Some(new)) => self.one(&new, false)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Compares two entries of the present path; gives what is to be compared in them.
    fn both(&mut self, old: &Entry, new: &Entry) -> Result<Option<Pair<'s>>> {
        let changes = Changes::between(old, new);
        if changes.any() {
            self.found.changed += 1;
            (self.each)(&self.path, Change::Changed { old, new, changes })?;
        }
        match (dir(old), dir(new)) {
            (Some(old), Some(new)) if old == new => Ok(None),
            (Some(old), Some(new)) => Ok(Some(Pair {
                old: Cursor::new(self.source, old),
                new: Cursor::new(self.source, new),
                path_len: self.path.len(),
            })),
            (Some(_), None) => self.below(old, true).map(|()| None),
            (None, Some(_)) => self.below(new, false).map(|()| None),
            (None, None) => Ok(None),
        }
    }

    /// Tells of an entry that only one side has, and of all below it.
    fn one(&mut self, entry: &Entry, is_old: bool) -> Result<()> {
        self.tell(entry, is_old)?;
        self.below(entry, is_old)
    }

    fn tell(&mut self, entry: &Entry, is_old: bool) -> Result<()> {
        let change = if is_old {
            self.found.removed += 1;
            Change::Removed(entry)
        } else {
            self.found.added += 1;
            Change::Added(entry)
        };
        (self.each)(&self.path, change)
    }

    fn below(&mut self, entry: &Entry, is_old: bool) -> Result<()> {
        let Some(node) = dir(entry) else { return Ok(()) };
        let mut walk = Walk::new(self.source, node, self.path.clone());
        while let Some(step) = walk.step() {
            match step {
                Step::Entry(entry) => {
                    self.path.clear();
                    self.path.extend_from_slice(walk.path());
                    self.tell(&entry, is_old)?;
                    if let Some(node) = dir(&entry) {
                        walk.enter(node);
                    }
                }
                Step::Lost(lost) => self.found.troubles.add(walk.path(), lost.tell()?),
                Step::Left(_) => {}
            }
        }
        self.path.truncate(walk.path().len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use strongroom_engine::id::ChunkId;
    use strongroom_engine::map::{Extent, MapRef};

    use super::*;
    use crate::entry::Time;
    use crate::memory::Memory;
    use crate::scan::testing::{backup, inside};
    use crate::tree::DirBuilder;

    fn compare(store: &Memory, old: (&Image, &[u8]), new: (&Image, &[u8])) -> Vec<String> {
        let mut found = Vec::new();
        let done = diff(store, old, new, &mut |path, change| {
            let path = crate::show(path);
            found.push(match change {
                Change::Added(_) => format!("+{path}"),
                Change::Removed(_) => format!("-{path}"),
                Change::Changed { changes, .. } => format!("*{path} {}", changes.names().join(",")),
            });
            Ok(())
        });
        let done = done.unwrap();
        assert!(done.troubles.is_empty());
        assert_eq!(found.len() as u64, done.added + done.removed + done.changed);
        found
    }

    #[test]
    fn each_kind_of_change_has_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        fs::create_dir_all(dir.join("same/deep")).unwrap();
        fs::create_dir_all(dir.join("turned")).unwrap();
        fs::create_dir_all(dir.join("gone/below")).unwrap();
        for name in ["same/deep/x", "content", "mode", "turned/in", "gone/below/x"] {
            fs::write(dir.join(name), name).unwrap();
        }
        let store = Memory::default();
        let old = backup(&store, &dir, "x");
        let at = inside(&dir);
        assert!(compare(&store, (&old, &at), (&old, &at)).is_empty());
        let time = fs::metadata(dir.join("content")).unwrap().modified().unwrap();
        fs::write(dir.join("content"), b"CONTENT").unwrap();
        fs::File::options()
            .write(true)
            .open(dir.join("content"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        fs::set_permissions(dir.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_dir_all(dir.join("gone")).unwrap();
        fs::remove_dir_all(dir.join("turned")).unwrap();
        fs::write(dir.join("turned"), b"a file").unwrap();
        fs::create_dir(dir.join("new")).unwrap();
        fs::write(dir.join("new/file"), b"").unwrap();
        let new = backup(&store, &dir, "x");
        let found = compare(&store, (&old, &at), (&new, &at));
        let kinds = |line: &str| line.split(' ').next().unwrap().to_owned();
        let paths: Vec<_> = found.iter().map(|line| kinds(line)).collect();
        assert_eq!(
            paths,
            [
                "*",
                "*/content",
                "-/gone",
                "-/gone/below",
                "-/gone/below/x",
                "*/mode",
                "+/new",
                "+/new/file",
                "*/turned",
                "-/turned/in"
            ]
        );
        assert_eq!(found[1], "*/content content");
        assert_eq!(found[5], "*/mode mode");
        assert!(found[8].starts_with("*/turned kind"), "{}", found[8]);
        let back = compare(&store, (&new, &at), (&old, &at));
        assert_eq!(back.len(), found.len());
        let inner = [&at[..], b"/same"].concat();
        assert!(compare(&store, (&old, &inner), (&new, &inner)).is_empty());
    }

    fn file(name: &str, version: u32) -> Entry {
        let extent = Extent::Data { id: ChunkId([version as u8; 32]), len: 1 + version };
        Entry {
            name: name.as_bytes().to_vec(),
            body: Body::File(MapRef::Inline(vec![extent])),
            mode: 0o644,
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
        }
    }

    fn directory(store: &Memory, files: &BTreeMap<String, u32>) -> Entry {
        let mut builder = DirBuilder::new(0);
        for (name, version) in files {
            builder.push(store, &file(name, *version)).unwrap();
        }
        let entries = builder.entries();
        let node = builder.finish(store).unwrap();
        Entry { name: b"d".to_vec(), body: Body::Dir { node, entries }, ..file("d", 0) }
    }

    #[test]
    fn equal_parts_of_a_large_directory_are_not_read() {
        let store = Memory::default();
        let mut files: BTreeMap<_, _> = (0..60_000).map(|i| (format!("{i:08}"), 1u32)).collect();
        let old = directory(&store, &files);
        files.insert("00030000".into(), 2);
        files.insert("00030001x".into(), 1);
        let new = directory(&store, &files);
        let nodes = [&old, &new].map(|entry| dir(entry).unwrap());
        let [mut old, mut new] = nodes.map(|node| Cursor::new(&store, node));
        let mut seen = 0;
        loop {
            old.skip_common(&mut new);
            let names = [&mut old, &mut new]
                .map(|side| side.peek().unwrap().map(|entry| entry.name.clone()));
            match names {
                [None, None] => break,
                [Some(a), Some(b)] if a == b => (old.next().unwrap(), new.next().unwrap()),
                [Some(a), Some(b)] if a < b => (old.next().unwrap(), None),
                [Some(_), None] => (old.next().unwrap(), None),
                _ => (None, new.next().unwrap()),
            };
            seen += 1;
        }
        assert!(seen < 9_000, "{seen} of 60000 entries were read");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn directories_of_any_size_compare_as_maps_do(
            size in 0usize..6000,
            edits in prop::collection::vec((0usize..7000, 0u32..4), 0..40),
        ) {
            let store = Memory::default();
            let before: BTreeMap<_, _> = (0..size).map(|i| (format!("{i:06}"), 1u32)).collect();
            let mut after = before.clone();
            for (at, version) in edits {
                let name = format!("{at:06}");
                if version == 0 { after.remove(&name); } else { after.insert(name, version); }
            }
            let (old, new) = (directory(&store, &before), directory(&store, &after));
            let mut found = Vec::new();
            between(&store, &old, &new, &mut |path, change| {
                let name = String::from_utf8_lossy(&path[1..]).into_owned();
                found.push((name, match change {
                    Change::Added(_) => '+',
                    Change::Removed(_) => '-',
                    Change::Changed { .. } => '*',
                }));
                Ok(())
            }).unwrap();
            let mut expected: BTreeMap<String, char> = BTreeMap::new();
            for (name, version) in &before {
                match after.get(name) {
                    None => { expected.insert(name.clone(), '-'); }
                    Some(now) if now != version => { expected.insert(name.clone(), '*'); }
                    Some(_) => {}
                }
            }
            let added = after.keys().filter(|name| !before.contains_key(*name));
            expected.extend(added.map(|name| (name.clone(), '+')));
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
