//! Comparing two images by their metadata alone. Directories with the same node are the same, all
//! the way down: they are not even read.

use std::cmp::Ordering;
use std::iter::Peekable;

use strongroom_engine::map::Nodes;

use crate::entry::{Body, Entry};
use crate::tree::{Dir, Entries};
use crate::{Result, image::components};

/// What differs between two entries of the same kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The content, the target of a link, or the number of a device.
    pub content: bool,
    /// Mode, owner or extended attributes.
    pub metadata: bool,
    /// The modification time.
    pub time: bool,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only in the second image; of a directory, what is in it is told too.
    Added(Entry),
    /// Only in the first image; likewise.
    Removed(Entry),
    /// In both, as something else each.
    Replaced(Entry, Entry),
    /// In both.
    Changed(Entry, Entry, Changes),
}

/// Compares what is below two entries. `tell` gets each path and difference, in the order of
/// names; a directory comes before what is in it.
///
/// # Errors
/// Those of the pool, and those of `tell`, which end the comparison.
pub fn diff(
    source: &dyn Nodes,
    left: &Entry,
    right: &Entry,
    path: &[u8],
    tell: &mut dyn FnMut(&[u8], Difference) -> Result<()>,
) -> Result<()> {
    let mut path = components(path)?.iter().fold(Vec::new(), |mut path, name| {
        path.push(b'/');
        path.extend_from_slice(name);
        path
    });
    let mut stack: Vec<Pair<'_>> = Vec::new();
    compare(source, Some(left.clone()), Some(right.clone()), &path, &mut stack, tell)?;
    while let Some(pair) = stack.last_mut() {
        path.truncate(pair.path_len);
        let Some((left, right)) = pair.next()? else {
            stack.pop();
            continue;
        };
        if let Some(entry) = left.as_ref().or(right.as_ref()) {
            path.push(b'/');
            path.extend_from_slice(&entry.name);
        }
        compare(source, left, right, &path, &mut stack, tell)?;
    }
    Ok(())
}

struct Pair<'s> {
    left: Option<Peekable<Entries<'s>>>,
    right: Option<Peekable<Entries<'s>>>,
    path_len: usize,
}

impl Pair<'_> {
    /// The next name that either side has.
    fn next(&mut self) -> Result<Option<(Option<Entry>, Option<Entry>)>> {
        let name = |side: &mut Option<Peekable<Entries<'_>>>| match side.as_mut()?.peek()? {
            Ok(entry) => Some(Some(entry.name.clone())),
            Err(_) => Some(None),
        };
        let take = |side: &mut Option<Peekable<Entries<'_>>>| {
            side.as_mut().and_then(Iterator::next).transpose()
        };
        let order = match (name(&mut self.left), name(&mut self.right)) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // An error comes first, and out.
            (Some(left), Some(right)) => left.cmp(&right),
        };
        Ok(Some(match order {
            Ordering::Less => (take(&mut self.left)?, None),
            Ordering::Greater => (None, take(&mut self.right)?),
            Ordering::Equal => (take(&mut self.left)?, take(&mut self.right)?),
        }))
    }
}

fn compare<'s>(
    source: &'s dyn Nodes,
    left: Option<Entry>,
    right: Option<Entry>,
    path: &[u8],
    stack: &mut Vec<Pair<'s>>,
    tell: &mut dyn FnMut(&[u8], Difference) -> Result<()>,
) -> Result<()> {
    let node = |entry: &Option<Entry>| match entry.as_ref()?.body {
        Body::Dir { node, .. } => Some(node),
        _ => None,
    };
    let nodes = (node(&left), node(&right));
    match (left, right) {
        (Some(left), None) => tell(path, Difference::Removed(left))?,
        (None, Some(right)) => tell(path, Difference::Added(right))?,
        (Some(left), Some(right)) if !left.body.same_kind(&right.body) => {
            tell(path, Difference::Replaced(left, right))?;
        }
        (Some(left), Some(right)) => {
            let changes = changes(&left, &right);
            if changes != Changes::default() {
                tell(path, Difference::Changed(left, right, changes))?;
            }
        }
        (None, None) => {}
    }
    if nodes.0 != nodes.1 {
        let open = |node| Dir::new(source, node).entries().peekable();
        let (left, right) = (nodes.0.map(open), nodes.1.map(open));
        stack.push(Pair { left, right, path_len: path.len() });
    }
    Ok(())
}

fn changes(left: &Entry, right: &Entry) -> Changes {
    let is_dir = left.is_dir();
    Changes {
        // Content that was cut alike has the same map; a device or link is what it says.
        content: !is_dir && left.body != right.body,
        metadata: (left.mode, left.uid, left.gid) != (right.mode, right.uid, right.gid)
            || left.xattrs != right.xattrs,
        time: left.mtime != right.mtime,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::backup::{Backup, Input, Progress};
    use crate::memory::Memory;

    #[test]
    fn every_kind_of_difference_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let pool = Memory::default();
        let keep = || {
            let input = Input::Paths(vec![dir.path().into()]);
            let backup = Backup { input, name: Some("t".into()), ..Backup::default() };
            let image = backup.run(&pool, &Progress::default()).unwrap().image.unwrap();
            image.entry(&pool, dir.path().as_os_str().as_bytes()).unwrap()
        };
        fs::create_dir_all(at("same/deep")).unwrap();
        fs::write(at("same/deep/f"), "f").unwrap();
        fs::create_dir(at("gone")).unwrap();
        for name in ["gone/x", "kind", "text"] {
            fs::write(at(name), name).unwrap();
        }
        let before = keep();
        fs::remove_dir_all(at("gone")).unwrap();
        fs::remove_file(at("kind")).unwrap();
        fs::create_dir(at("kind")).unwrap();
        fs::write(at("kind/in"), "in").unwrap();
        fs::write(at("new"), "new").unwrap();
        fs::write(at("text"), "other text").unwrap();
        let after = keep();
        let mut told = Vec::new();
        diff(&pool, &before, &after, b"", &mut |path, difference| {
            let sign = match difference {
                Difference::Added(_) => '+',
                Difference::Removed(_) => '-',
                Difference::Replaced(..) => '!',
                Difference::Changed(_, _, changes) if changes.content => 'C',
                Difference::Changed(..) => 'm',
            };
            told.push(format!("{sign}{}", crate::show(path)));
            Ok(())
        })
        .unwrap();
        told.retain(|line| line != "m");
        assert_eq!(told, ["-/gone", "-/gone/x", "!/kind", "+/kind/in", "+/new", "C/text"]);
        let mut none = 0;
        diff(&pool, &after, &after, b"", &mut |_, _| {
            none += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(none, 0);
    }
}
