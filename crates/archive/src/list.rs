//! Listing what an image holds.

use strongroom_engine::id::ChunkId;
use strongroom_engine::map::Nodes;

use crate::entry::{Body, Entry, Time};
use crate::image::Image;
use crate::names::Names;
use crate::scan::{Step, Walk, dir, locate};
use crate::store::Source;
use crate::{Result, Troubles};

/// How far a list goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// What the path names itself, even if it is a directory.
    Itself,
    /// The entries of a directory.
    #[default]
    Children,
    /// A directory and everything below it.
    All,
}

/// What a list shows of an entry. Field names are stable: they are those of the JSON output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its path from the top of the image, with `/` in front; bytes.
    pub path: Vec<u8>,
    /// `file`, `dir`, `symlink`, `fifo`, `char`, `block` or `socket`.
    pub kind: &'static str,
    /// The letter that `ls -l` begins a line with.
    pub letter: char,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The owner's name where the image was made, if it had one.
    pub user: Option<Vec<u8>>,
    /// The group's name likewise.
    pub group: Option<Vec<u8>>,
    /// Bytes of content, or of a link's target; 0 for others.
    pub size: u64,
    /// When the content last changed.
    pub mtime: Time,
    /// When the inode last changed.
    pub ctime: Time,
    /// Inode number.
    pub inode: u64,
    /// Major and minor number of the device it lay on, if the image knows it.
    pub device: Option<(u32, u32)>,
    /// How many names the inode had.
    pub links: u32,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device file.
    pub rdev: Option<(u32, u32)>,
    /// How many entries a directory has.
    pub entries: Option<u64>,
    /// Names of extended attributes.
    pub xattrs: Vec<Vec<u8>>,
    /// A directory that was only passed through on the way to a path that was asked for.
    pub passed: bool,
}

/// The name of an entry's kind, as [`Row::kind`] says.
pub fn kind(body: &Body) -> &'static str {
    match body {
        Body::File(_) => "file",
        Body::Dir { .. } => "dir",
        Body::Symlink(_) => "symlink",
        Body::Fifo => "fifo",
        Body::Char(..) => "char",
        Body::Block(..) => "block",
        Body::Socket => "socket",
    }
}

/// What turns the numbers of an image into names.
#[derive(Clone, Debug, Default)]
pub struct Legend {
    names: Names,
    devices: Vec<(u32, u32)>,
}

impl Legend {
    /// That of an image. A table that can't be read is a trouble, and names nothing.
    ///
    /// # Errors
    /// Those of the pool about the top of the image.
    pub fn of(source: &dyn Source, image: &Image, troubles: &mut Troubles) -> Result<Self> {
        let devices = image.top(source)?.devices;
        let names = image.names(source).or_else(|error| {
            if error.ends_all() {
                return Err(error);
            }
            troubles.add(b"/", format!("the names of owners can't be read: {error}"));
            Ok(Names::default())
        })?;
        Ok(Self { names, devices })
    }

    /// The name of an owner.
    pub fn user(&self, uid: u32) -> Option<&[u8]> {
        self.names.users.get(&uid).map(Vec::as_slice)
    }

    /// The name of a group.
    pub fn group(&self, gid: u32) -> Option<&[u8]> {
        self.names.groups.get(&gid).map(Vec::as_slice)
    }

    /// What a list shows of an entry at this path.
    pub fn row(&self, path: &[u8], entry: &Entry) -> Row {
        let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
        let (mut target, mut rdev, mut entries) = (None, None, None);
        match &entry.body {
            Body::Symlink(to) => target = Some(to.clone()),
            Body::Char(major, minor) | Body::Block(major, minor) => rdev = Some((*major, *minor)),
            Body::Dir { entries: count, .. } => entries = Some(*count),
            Body::File(_) | Body::Fifo | Body::Socket => {}
        }
        Row {
            path,
            kind: kind(&entry.body),
            letter: entry.body.letter(),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            user: self.user(entry.uid).map(<[u8]>::to_vec),
            group: self.group(entry.gid).map(<[u8]>::to_vec),
            size: entry.size(),
            mtime: entry.mtime,
            ctime: entry.ctime,
            inode: entry.inode,
            device: self.devices.get(entry.device as usize).copied(),
            links: entry.links,
            target,
            rdev,
            entries,
            xattrs: entry.xattrs.iter().map(|xattr| xattr.name.clone()).collect(),
            passed: entry.passed,
        }
    }
}

/// Tells `each` what lies at a path of an image, in the order of paths (names as bytes; a directory
/// before what is in it). Memory is bounded. Directories that can't be read are troubles; the rest
/// is listed. What is not a directory is listed itself whatever the depth.
///
/// # Errors
/// [`Error::NoPath`](crate::Error::NoPath), those of the pool about the way to the path, and those
/// of `each`, which end the list.
pub fn list(
    source: &dyn Source,
    image: &Image,
    path: &[u8],
    depth: Depth,
    each: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<Troubles> {
    let _hold = source.hold(image.id)?;
    let mut troubles = Troubles::default();
    let legend = Legend::of(source, image, &mut troubles)?;
    let (entry, path) = locate(source, image, path)?;
    let node = dir(&entry).filter(|_| depth != Depth::Itself);
    if node.is_none() || depth == Depth::All {
        each(legend.row(&path, &entry))?;
    }
    let Some(node) = node else { return Ok(troubles) };
    let mut walk = Walk::new(source, node, path);
    while let Some(step) = walk.step() {
        match step {
            Step::Entry(entry) => {
                each(legend.row(walk.path(), &entry))?;
                if let (Some(node), Depth::All) = (dir(&entry), depth) {
                    walk.enter(node);
                }
            }
            Step::Lost(lost) => troubles.add(walk.path(), lost.tell()?),
            Step::Left(_) => {}
        }
    }
    Ok(troubles)
}

/// Walks what is below an entry, in the order of names, a directory before what is in it. Memory
/// is bounded. After an error the list goes on with what can be read.
pub struct List<'s> {
    walk: Option<Walk<'s>>,
    path: Vec<u8>,
    depth: usize,
    level: usize,
    /// The directory that is entered with the next step.
    enter: Option<ChunkId>,
}

impl std::fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "List({})", crate::show(self.path()))
    }
}

impl<'s> List<'s> {
    /// What is below `top`, which lies at `path`, so many directories deep at most (1: only what
    /// is in it itself). Of something that isn't a directory: nothing.
    pub fn new(source: &'s dyn Nodes, top: &Entry, path: &[u8], depth: usize) -> Self {
        let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        let node = dir(top).filter(|_| depth > 0);
        let walk = node.map(|node| Walk::new(source, node, path.clone()));
        Self { walk, path, depth, level: 1, enter: None }
    }

    /// Leaves out what is in the directory that was given last.
    pub fn pass_over(&mut self) {
        self.enter = None;
    }

    /// The path of the entry that was given last; after an error, that of the directory.
    pub fn path(&self) -> &[u8] {
        self.walk.as_ref().map_or(&self.path, |walk| walk.path())
    }
}

impl Iterator for List<'_> {
    type Item = strongroom_engine::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let walk = self.walk.as_mut()?;
        if let Some(node) = self.enter.take()
            && self.level < self.depth
        {
            walk.enter(node);
            self.level += 1;
        }
        loop {
            match walk.step()? {
                Step::Entry(entry) => {
                    self.enter = dir(&entry);
                    return Some(Ok(*entry));
                }
                Step::Lost(lost) => return Some(Err(lost.error)),
                Step::Left(_) => self.level -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::memory::Memory;
    use crate::scan::testing::{backup, inside};

    fn rows(store: &Memory, image: &Image, path: &[u8], depth: Depth) -> Vec<Row> {
        let mut rows = Vec::new();
        let troubles = list(store, image, path, depth, &mut |row| {
            rows.push(row);
            Ok(())
        });
        assert!(troubles.unwrap().is_empty());
        rows
    }

    #[test]
    fn directories_are_listed_as_deep_as_asked() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        fs::create_dir_all(dir.join("sub/deep")).unwrap();
        fs::write(dir.join("sub/deep/file"), b"12345").unwrap();
        fs::write(dir.join("sub.txt"), b"1").unwrap();
        std::os::unix::fs::symlink("sub.txt", dir.join("link")).unwrap();
        let store = Memory::default();
        let image = backup(&store, &dir, "x");
        let top = inside(&dir);
        let below = |rows: &[Row]| -> Vec<String> {
            let tail = |row: &Row| String::from_utf8_lossy(&row.path[top.len()..]).into_owned();
            rows.iter().map(tail).collect()
        };
        let children = rows(&store, &image, &top, Depth::Children);
        assert_eq!(below(&children), ["/link", "/sub", "/sub.txt"]);
        assert_eq!(children[0].target.as_deref(), Some(&b"sub.txt"[..]));
        assert_eq!((children[1].entries, children[1].kind), (Some(1), "dir"));
        let all = rows(&store, &image, &top, Depth::All);
        let names = ["", "/link", "/sub", "/sub/deep", "/sub/deep/file", "/sub.txt"];
        assert_eq!(below(&all), names);
        assert_eq!(below(&rows(&store, &image, &top, Depth::Itself)), [""]);
        let entry = image.entry(&store, &top).unwrap();
        let listed = |depth: usize, over: &[u8]| -> Vec<String> {
            let mut list = List::new(&store, &entry, b"/p/", depth);
            let mut found = Vec::new();
            while let Some(step) = list.next() {
                if step.unwrap().name == over {
                    list.pass_over();
                }
                found.push(String::from_utf8(list.path()[2..].to_vec()).unwrap());
            }
            found
        };
        assert!(listed(0, b"").is_empty());
        assert_eq!(listed(1, b""), [&names[1..3], &names[5..]].concat());
        assert_eq!(listed(2, b""), [&names[1..4], &names[5..]].concat());
        assert_eq!(listed(9, b""), names[1..]);
        assert_eq!(listed(9, b"sub"), listed(1, b""));
        let file = [&top[..], b"/sub/deep/file"].concat();
        let file = rows(&store, &image, &file, Depth::Children);
        assert_eq!((file.len(), file[0].size, file[0].letter), (1, 5, '-'));
        let uid = fs::metadata(dir.join("sub.txt")).unwrap().uid();
        assert_eq!(file[0].uid, uid);
        if uid == 0 {
            assert_eq!(file[0].user.as_deref(), Some(&b"root"[..]));
        }
        assert!(file[0].device.is_some());
        assert_eq!(rows(&store, &image, b"", Depth::Itself)[0].path, b"/");
    }

    #[test]
    fn a_walk_comes_back_from_deep_paths() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        let mut deep = dir.clone();
        for _ in 0..100 {
            deep.push("a");
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("0"), b"").unwrap();
            fs::write(deep.join("z"), b"").unwrap();
        }
        let store = Memory::default();
        let image = backup(&store, &dir, "x");
        let all = rows(&store, &image, &inside(&dir), Depth::All);
        assert_eq!(all.len(), 301);
        let keys: Vec<Vec<&[u8]>> =
            all.iter().map(|row| row.path.split(|b| *b == b'/').collect()).collect();
        assert!(keys.is_sorted());
    }
}
