//! The files and names of one simulated disk.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::content::{FileNode, MAX_LEN};
use super::rng::Rng;
use crate::disk::Entry;

/// A file or directory, by whatever name; never used twice.
pub(super) type NodeId = u64;

const TOP: NodeId = 0;

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Debug, Default)]
struct DirNode {
    now: BTreeMap<Arc<str>, NodeId>,
    durable: BTreeMap<Arc<str>, NodeId>,
}

/// What a name in a directory is to stand for.
#[derive(Clone, Debug)]
struct Binding {
    dir: NodeId,
    name: Arc<str>,
    node: Option<NodeId>,
}

/// What one operation did to names: all of it is durable, or nothing.
type NameChange = Vec<Binding>;

/// The files and names of a disk. Copies share what neither has changed since.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    next: NodeId,
    /// Oldest first: from the durable names to those that are seen.
    changes: Vec<NameChange>,
    /// Sum of the lengths of files that have a name.
    used: u64,
    /// Names taken from files since nodes were last thrown away.
    unnamed: u32,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree =
            Self { nodes: BTreeMap::new(), next: TOP, changes: Vec::new(), used: 0, unnamed: 0 };
        tree.add(Node::Dir(DirNode::default()));
        tree
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Arc::new(node));
        id
    }

    /// Everything is gone, names and content.
    pub(super) fn clear(&mut self) {
        let next = self.next;
        *self = Self::new();
        self.nodes.clear();
        self.nodes.insert(TOP, Arc::new(Node::Dir(DirNode::default())));
        self.next = next.max(TOP + 1);
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id).map(|n| &**n) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> Option<&mut DirNode> {
        match self.nodes.get_mut(&id).map(Arc::make_mut) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    pub(super) fn file(&self, id: NodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&id).map(|n| &**n) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(Errno::ISDIR.into()),
            None => Err(Errno::IO.into()), // of a disk that was emptied
        }
    }

    fn file_mut(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id).map(Arc::make_mut) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(Errno::ISDIR.into()),
            None => Err(Errno::IO.into()),
        }
    }

    /// The node of a path; the empty one is the top directory.
    fn lookup(&self, path: &str) -> io::Result<NodeId> {
        let mut id = TOP;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            id = *self.dir(id)?.now.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(id)
    }

    /// The directory of a path, and the name in it.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(NodeId, &'a str)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let id = self.lookup(dir)?;
        self.dir(id)?;
        Ok((id, name))
    }

    pub(super) fn open(&self, path: &str) -> io::Result<NodeId> {
        let id = self.lookup(path)?;
        self.file(id)?;
        Ok(id)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.lookup(path).is_ok()
    }

    /// Changes names, for now.
    fn bind(&mut self, change: NameChange) {
        for Binding { dir, name, node } in &change {
            if let Some(dir) = self.dir_mut(*dir) {
                set(&mut dir.now, name, *node);
            }
        }
        self.changes.push(change);
    }

    pub(super) fn create(&mut self, path: &str) -> io::Result<NodeId> {
        let (dir, name) = self.parent(path)?;
        if self.dir(dir)?.now.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        let id = self.add(Node::File(FileNode::named()));
        self.bind(vec![Binding { dir, name: name.into(), node: Some(id) }]);
        Ok(id)
    }

    /// Takes its name from a file.
    fn unname(&mut self, id: NodeId) -> io::Result<()> {
        let file = self.file_mut(id)?;
        file.named = false;
        self.used -= file.now().len();
        self.unnamed += 1;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let id = self.open(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        match self.dir(to_dir)?.now.get(to_name).copied() {
            Some(old) if old == id => return Ok(()),
            Some(old) => self.unname(old)?,
            None => {}
        }
        self.bind(vec![
            Binding { dir: from_dir, name: from_name.into(), node: None },
            Binding { dir: to_dir, name: to_name.into(), node: Some(id) },
        ]);
        self.sweep_sometimes();
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let id = self.open(path)?;
        self.unname(id)?;
        self.bind(vec![Binding { dir, name: name.into(), node: None }]);
        self.sweep_sometimes();
        Ok(())
    }

    pub(super) fn make_dir(&mut self, path: &str) -> io::Result<()> {
        let mut dir = TOP;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let next = self.dir(dir)?.now.get(name).copied();
            dir = next.unwrap_or_else(|| {
                let id = self.add(Node::Dir(DirNode::default()));
                self.bind(vec![Binding { dir, name: name.into(), node: Some(id) }]);
                id
            });
        }
        self.dir(dir).map(|_| ())
    }

    pub(super) fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let dir = self.dir(self.lookup(path)?)?;
        let entry = |(name, id): (&Arc<str>, &NodeId)| {
            let file = self.file(*id).ok();
            let len = file.map_or(0, |file| file.now().len());
            Entry { name: name.to_string(), len, is_dir: file.is_none() }
        };
        Ok(dir.now.iter().map(entry).collect())
    }

    /// Makes the names of a directory durable, with everything that went before them on the same
    /// names: a rename from another directory takes what happened there to the old name along.
    pub(super) fn sync_dir(&mut self, path: &str) -> io::Result<()> {
        let synced = self.lookup(path)?;
        self.dir(synced)?;
        let mut changes = std::mem::take(&mut self.changes);
        let mut keys: HashSet<(NodeId, Arc<str>)> = HashSet::new();
        let mut due = Vec::new();
        let mut later = Vec::new();
        while let Some(change) = changes.pop() {
            let touches = |b: &Binding| b.dir == synced || keys.contains(&(b.dir, b.name.clone()));
            if change.iter().any(touches) {
                let elsewhere = change.iter().filter(|b| b.dir != synced);
                keys.extend(elsewhere.map(|b| (b.dir, b.name.clone())));
                due.push(change);
            } else {
                later.push(change);
            }
        }
        later.reverse();
        self.changes = later;
        for change in due.iter().rev() {
            self.make_durable(change);
        }
        Ok(())
    }

    fn make_durable(&mut self, change: &NameChange) {
        for Binding { dir, name, node } in change {
            if let Some(dir) = self.dir_mut(*dir) {
                set(&mut dir.durable, name, *node);
            }
        }
    }

    /// How many bytes a file may be longer than it is, given what is free; an error when `end` is
    /// too far out altogether.
    fn growth(&self, id: NodeId, end: Option<u64>) -> io::Result<u64> {
        let file = self.file(id)?;
        let end = end.filter(|end| *end <= MAX_LEN).ok_or(Errno::FBIG)?;
        Ok(if file.named { end.saturating_sub(file.now().len()) } else { 0 })
    }

    /// Writes as much of `data` as there is room for; how much that was.
    pub(super) fn write(
        &mut self,
        id: NodeId,
        data: &[u8],
        offset: u64,
        free: u64,
    ) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let growth = self.growth(id, offset.checked_add(data.len() as u64))?;
        let excess = growth.saturating_sub(free).min(data.len() as u64);
        let fits = data.len() - excess as usize;
        if fits > 0 {
            self.used += growth - growth.min(excess);
            self.file_mut(id)?.write(&data[..fits], offset);
        }
        Ok(fits)
    }

    pub(super) fn set_len(&mut self, id: NodeId, len: u64, free: u64) -> io::Result<()> {
        let growth = self.growth(id, Some(len))?;
        if growth > free {
            return Err(Errno::NOSPC.into());
        }
        let file = self.file_mut(id)?;
        let (named, old) = (file.named, file.now().len());
        file.set_len(len);
        if named {
            self.used = self.used - old + len;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, id: NodeId) -> io::Result<()> {
        if !self.file(id)?.is_durable() {
            self.file_mut(id)?.sync();
        }
        Ok(())
    }

    pub(super) fn fail_sync(&mut self, id: NodeId, rng: &mut Rng) -> io::Result<()> {
        self.file_mut(id)?.fail_sync(rng);
        Ok(())
    }

    /// Something happens to what is on the platter.
    pub(super) fn damage(
        &mut self,
        path: &str,
        how: impl FnOnce(&mut super::content::Content),
    ) -> io::Result<()> {
        let id = self.open(path)?;
        let file = self.file_mut(id)?;
        let old = file.now().len();
        file.damage(how);
        let new = file.now().len();
        self.used = self.used - old + new;
        Ok(())
    }

    /// All files, by path, with their lengths.
    pub(super) fn files(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let mut dirs = vec![(TOP, String::new())];
        while let Some((id, prefix)) = dirs.pop() {
            let Ok(dir) = self.dir(id) else { continue };
            for (name, id) in &dir.now {
                match self.file(*id) {
                    Ok(file) => found.push((format!("{prefix}{name}"), file.now().len())),
                    Err(_) => dirs.push((*id, format!("{prefix}{name}/"))),
                }
            }
        }
        found.sort();
        found
    }

    /// The power is gone and back: what was durable is there, and what `rng` saved of the rest.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) {
        let kept = rng.below(5); // from nothing to everything
        let in_order = rng.chance(1, 2);
        let mut lost_names: HashSet<(NodeId, Arc<str>)> = HashSet::new();
        let mut lost_dirs: HashSet<NodeId> = HashSet::new();
        for change in std::mem::take(&mut self.changes) {
            // What depends on something lost is lost as well: a rename of a file that was never
            // created, or, where the filesystem writes a directory's changes in order, any later
            // one in it.
            let barred = change.iter().any(|b| {
                lost_names.contains(&(b.dir, b.name.clone()))
                    || (in_order && lost_dirs.contains(&b.dir))
            });
            if !barred && rng.chance(kept, 4) {
                self.make_durable(&change);
            } else {
                for b in change {
                    lost_dirs.insert(b.dir);
                    lost_names.insert((b.dir, b.name));
                }
            }
        }
        self.start_from_durable(rng);
    }

    /// What is not reachable by durable names is gone, the rest is seen.
    fn start_from_durable(&mut self, rng: &mut Rng) {
        let mut old = std::mem::take(&mut self.nodes);
        self.used = 0;
        self.unnamed = 0;
        let mut reached = vec![TOP];
        while let Some(id) = reached.pop() {
            let Some(mut node) = old.remove(&id) else { continue };
            match &*node {
                Node::Dir(dir) => {
                    reached.extend(dir.durable.values());
                    if dir.now != dir.durable
                        && let Node::Dir(dir) = Arc::make_mut(&mut node)
                    {
                        dir.now = dir.durable.clone();
                    }
                }
                Node::File(file) => {
                    if (!file.is_durable() || !file.named)
                        && let Node::File(file) = Arc::make_mut(&mut node)
                    {
                        file.named = true;
                        file.power_cut(rng);
                    }
                }
            }
            if let Node::File(file) = &*node {
                self.used += file.now().len();
            }
            self.nodes.insert(id, node);
        }
    }

    /// Throws files away that no name, durable or not, and no handle leads to.
    fn sweep_sometimes(&mut self) {
        if self.unnamed < 256 {
            return;
        }
        self.unnamed = 0;
        let mut reached = HashSet::new();
        for node in self.nodes.values() {
            if let Node::Dir(dir) = &**node {
                reached.extend(dir.now.values().chain(dir.durable.values()).copied());
            }
        }
        reached.extend(self.changes.iter().flatten().filter_map(|b| b.node));
        self.nodes.retain(|id, node| match &**node {
            Node::Dir(_) => true,
            Node::File(file) => reached.contains(id) || Arc::strong_count(&file.handles) > 1,
        });
    }
}

fn set(names: &mut BTreeMap<Arc<str>, NodeId>, name: &Arc<str>, node: Option<NodeId>) {
    match node {
        Some(node) => names.insert(Arc::clone(name), node),
        None => names.remove(name),
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn files_that_nothing_leads_to_are_thrown_away() {
        let mut tree = Tree::new();
        let held = tree.create("held").unwrap();
        let handle = Arc::clone(&tree.file(held).unwrap().handles);
        tree.remove("held").unwrap();
        for i in 0..2000 {
            let id = tree.create("a").unwrap();
            tree.write(id, &[1; 1000], 0, u64::MAX).unwrap();
            if i % 2 == 0 {
                tree.rename("a", "b").unwrap();
            } else {
                tree.remove("a").unwrap();
            }
            tree.sync_dir("").unwrap();
        }
        assert!(tree.nodes.len() < 600, "{}", tree.nodes.len());
        assert!(tree.changes.is_empty());
        assert_eq!(tree.used(), 1000);
        tree.write(held, b"still here", 0, 0).unwrap();
        assert_eq!(tree.used(), 1000);
        drop(handle);
    }

    #[test]
    fn a_rename_between_directories_never_loses_the_file() {
        let mut outcomes = HashSet::new();
        for seed in 0..200 {
            let mut tree = Tree::new();
            tree.make_dir("a").unwrap();
            tree.make_dir("b").unwrap();
            tree.sync_dir("").unwrap();
            tree.create("a/x").unwrap();
            if seed % 2 == 0 {
                tree.sync_dir("a").unwrap();
            }
            tree.rename("a/x", "b/y").unwrap();
            if seed % 4 == 1 {
                tree.sync_dir("b").unwrap();
            }
            tree.power_cut(&mut Rng::new(seed));
            let names: Vec<_> = tree.files().into_iter().map(|f| f.0).collect();
            outcomes.insert((seed % 4, names));
        }
        let has = |case, names: &[&str]| {
            outcomes.contains(&(case, names.iter().map(|n| n.to_string()).collect()))
        };
        for case in [0, 2] {
            assert!(has(case, &["a/x"]) && has(case, &["b/y"]) && !has(case, &[]));
        }
        assert!(has(1, &["b/y"]) && !has(1, &["a/x"]) && !has(1, &[]));
        assert!(has(3, &["a/x"]) && has(3, &["b/y"]) && has(3, &[]));
        assert!(outcomes.iter().all(|(_, names)| names.len() < 2));
    }
}
