//! Directories: sorted lists of entries in nodes.
//!
//! A directory of up to about a thousand entries is one node, so that two images share every
//! directory that did not change. A larger one is a tree of nodes that is cut by the names
//! themselves: a change stores one node a level again, and a million entries are written and read
//! with bounded memory.
//!
//! # Format of a directory node
//! A [`Node`] whose payload is, for a leaf:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | tag | 1 byte | 16: a directory leaf |
//! | device | varint | the place of the directory's device in the image's table |
//! | count | varint | how many entries |
//! | entries | see [`crate::entry`] | by ascending name, as bytes; no name twice |
//!
//! and for a node above:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | tag | 1 byte | 17: a directory index |
//! | level | 1 byte | 1 when the children are leaves, else one more than that of the children |
//! | count | varint | how many children, at most 4096; the k-th is the k-th id of `nodes` |
//! | children | each: byte string, varint | the name of its first entry; how many entries it holds |
//!
//! # Where nodes end
//! A leaf ends after a name whose [`name_hash`] has nine low zero bits once it has 512 entries, and
//! after 4096 entries or 512 KiB at the latest; an index node likewise by the first name of its
//! last child, with seven bits, after 128 and 1024 children. Readers must not rely on it.

use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{NodeStore, Nodes};
use strongroom_engine::node::Node;
use strongroom_engine::{Error, Result};

use crate::entry::{Entry, EntryReader, EntryWriter};

/// The first payload byte of a directory leaf.
pub const LEAF_TAG: u8 = 16;
/// The first payload byte of a directory index node.
pub const INDEX_TAG: u8 = 17;

const LEAF_MIN: usize = 512;
const LEAF_BITS: u64 = 0x1ff;
const LEAF_MAX: usize = 4096;
const LEAF_BYTES: usize = 512 << 10;
const INDEX_MIN: usize = 128;
const INDEX_BITS: u64 = 0x7f;
const INDEX_MAX: usize = 1024;
/// A reader refuses index nodes with more children.
const READ_CHILDREN: usize = 4096;
/// A reader refuses deeper directories.
const MAX_LEVEL: u8 = 7;

/// FNV-1a with 64 bits, its high half folded onto its low half: decides where nodes end.
pub fn name_hash(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash ^ hash >> 32
}

#[derive(Debug)]
struct Child {
    id: ChunkId,
    first: Vec<u8>,
    entries: u64,
}

/// Writes one directory, entry by entry, by ascending name. Memory is bounded.
#[derive(Debug)]
pub struct DirBuilder {
    device: u32,
    leaf: EntryWriter,
    first: Vec<u8>,
    in_leaf: usize,
    /// Children of the index nodes that are still open; the lowest level first.
    levels: Vec<Vec<Child>>,
    entries: u64,
}

impl DirBuilder {
    /// A directory on the device with this place in the image's table.
    pub fn new(device: u32) -> Self {
        let leaf = EntryWriter::new(device);
        Self { device, leaf, first: Vec::new(), in_leaf: 0, levels: Vec::new(), entries: 0 }
    }

    /// How many entries it has so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Appends an entry; its name must be greater than the last.
    ///
    /// # Errors
    /// Those of the store.
    pub fn push(&mut self, store: &dyn NodeStore, entry: &Entry) -> Result<()> {
        if self.in_leaf == 0 {
            self.first.clone_from(&entry.name);
        }
        self.leaf.push(entry);
        self.in_leaf += 1;
        self.entries += 1;
        let may_end = self.in_leaf >= LEAF_MIN && name_hash(&entry.name) & LEAF_BITS == 0;
        if may_end || self.in_leaf >= LEAF_MAX || self.leaf.len() >= LEAF_BYTES {
            self.close_leaf(store)?;
        }
        Ok(())
    }

    /// Ends the directory and gives its node.
    ///
    /// # Errors
    /// Those of the store.
    pub fn finish(mut self, store: &dyn NodeStore) -> Result<ChunkId> {
        if self.in_leaf > 0 || self.entries == 0 {
            self.close_leaf(store)?;
        }
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            match &self.levels[level][..] {
                [only] if top => return Ok(only.id),
                [] => {}
                _ => self.close_index(store, level)?,
            }
            level += 1;
        }
    }

    fn close_leaf(&mut self, store: &dyn NodeStore) -> Result<()> {
        let leaf = std::mem::replace(&mut self.leaf, EntryWriter::new(self.device));
        let mut w = Writer::new();
        w.byte(LEAF_TAG);
        w.uint(self.device.into());
        w.uint(self.in_leaf as u64);
        w.raw(&leaf.payload.finish());
        let node = Node { nodes: leaf.refs.nodes, data: leaf.refs.data, payload: w.finish() };
        let id = store.put_node(&node)?.0;
        let entries = std::mem::take(&mut self.in_leaf) as u64;
        let first = std::mem::take(&mut self.first);
        self.add(store, 0, Child { id, first, entries })
    }

    fn add(&mut self, store: &dyn NodeStore, level: usize, child: Child) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let children = &mut self.levels[level];
        let hash = name_hash(&child.first);
        children.push(child);
        let may_end = children.len() >= INDEX_MIN && hash & INDEX_BITS == 0;
        if may_end || children.len() >= INDEX_MAX { self.close_index(store, level) } else { Ok(()) }
    }

    fn close_index(&mut self, store: &dyn NodeStore, level: usize) -> Result<()> {
        let children = std::mem::take(&mut self.levels[level]);
        let mut w = Writer::new();
        w.byte(INDEX_TAG);
        w.byte(level as u8 + 1);
        w.uint(children.len() as u64);
        for child in &children {
            w.bytes(&child.first);
            w.uint(child.entries);
        }
        let entries = children.iter().map(|child| child.entries).sum();
        let nodes = children.iter().map(|child| child.id).collect();
        let node = Node { nodes, data: Vec::new(), payload: w.finish() };
        let id = store.put_node(&node)?.0;
        let first = children.into_iter().next().map(|child| child.first).unwrap_or_default();
        self.add(store, level + 1, Child { id, first, entries })
    }
}

/// A decoded directory node.
#[derive(Debug)]
enum Page {
    Leaf(Node),
    Index(u8, Vec<Child>),
}

fn read_page(source: &dyn Nodes, id: &ChunkId, below: u8) -> Result<Page> {
    let node = source.node(id)?;
    page(node, below).map_err(Error::decoding("a directory node"))
}

fn page(node: Node, below: u8) -> Result<Page, DecodeError> {
    let mut r = Reader::new(&node.payload);
    match r.byte()? {
        LEAF_TAG => Ok(Page::Leaf(node)),
        INDEX_TAG => {
            let level = r.byte()?;
            if level == 0 || level >= below {
                return Err(DecodeError::Unknown("the level of a directory node"));
            }
            let count = r.count(2)?;
            if count == 0 || count > READ_CHILDREN || count != node.nodes.len() {
                return Err(DecodeError::Unknown("the number of children of a directory node"));
            }
            let mut children: Vec<Child> = Vec::with_capacity(count);
            for id in &node.nodes {
                let first = r.bytes()?.to_vec();
                if children.last().is_some_and(|last| last.first >= first) {
                    return Err(DecodeError::Unknown("the order of a directory"));
                }
                children.push(Child { id: *id, first, entries: r.uint()? });
            }
            r.end()?;
            Ok(Page::Index(level, children))
        }
        _ => Err(DecodeError::Unknown("the tag of a directory node")),
    }
}

/// The entries of a leaf, checked for order.
fn leaf(node: &Node) -> Result<Vec<Entry>, DecodeError> {
    let mut r = Reader::new(&node.payload);
    r.byte()?;
    let device = r.uint32()?;
    // An entry takes at least a dozen bytes.
    let count = r.count(12)?;
    let mut reader = EntryReader::new(r, &node.nodes, &node.data, device);
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(2 * LEAF_MAX));
    for _ in 0..count {
        let entry = reader.take()?;
        if entry.name.is_empty() {
            return Err(DecodeError::Unknown("the name of an entry"));
        }
        if entries.last().is_some_and(|last| last.name >= entry.name) {
            return Err(DecodeError::Unknown("the order of a directory"));
        }
        entries.push(entry);
    }
    reader.end()?;
    Ok(entries)
}

/// A directory of an image.
#[derive(Clone, Copy)]
pub struct Dir<'s> {
    source: &'s dyn Nodes,
    node: ChunkId,
}

impl std::fmt::Debug for Dir<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dir({:?})", self.node)
    }
}

impl<'s> Dir<'s> {
    /// The directory with this node; nothing is read yet.
    pub fn new(source: &'s dyn Nodes, node: ChunkId) -> Self {
        Self { source, node }
    }

    /// Its node.
    pub fn node(&self) -> ChunkId {
        self.node
    }

    /// The entry of that name. Reads one node a level.
    ///
    /// # Errors
    /// Those of the source, and [`Error::Damaged`] for what isn't a directory node.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<Entry>> {
        let mut node = self.node;
        let mut below = MAX_LEVEL + 1;
        loop {
            match read_page(self.source, &node, below)? {
                Page::Leaf(node) => {
                    let entries = leaf(&node).map_err(Error::decoding("a directory node"))?;
                    let found = entries.binary_search_by(|e| e.name.as_slice().cmp(name)).ok();
                    return Ok(found.and_then(|index| entries.into_iter().nth(index)));
                }
                Page::Index(level, children) => {
                    let behind = children.partition_point(|child| child.first.as_slice() <= name);
                    let Some(child) = behind.checked_sub(1).map(|index| &children[index]) else {
                        return Ok(None);
                    };
                    (node, below) = (child.id, level);
                }
            }
        }
    }

    /// All entries, by name.
    pub fn entries(&self) -> Entries<'s> {
        self.entries_from(0)
    }

    /// The entries from the one with this number on: 0 is the first. A number stays right for as
    /// long as the image exists, so it can serve as the cookie of a directory stream.
    pub fn entries_from(&self, number: u64) -> Entries<'s> {
        let top = Child { id: self.node, first: Vec::new(), entries: u64::MAX };
        Entries {
            source: self.source,
            stack: vec![(vec![top].into_iter(), MAX_LEVEL + 1)],
            leaf: Vec::new().into_iter(),
            skip: number,
            last: Vec::new(),
        }
    }
}

/// Entries of a directory in order of their names; memory is bounded by its depth.
pub struct Entries<'s> {
    source: &'s dyn Nodes,
    /// Children still to come, and below which level they must be; the deepest last.
    stack: Vec<(std::vec::IntoIter<Child>, u8)>,
    leaf: std::vec::IntoIter<Entry>,
    skip: u64,
    /// The last name of the leaf before.
    last: Vec<u8>,
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries({} at hand)", self.leaf.len())
    }
}

impl Entries<'_> {
    fn step(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(entry));
            }
            let Some((children, below)) = self.stack.last_mut() else { return Ok(None) };
            let below = *below;
            let Some(child) = children.next() else {
                self.stack.pop();
                continue;
            };
            // Not of the top: how many entries that has is only known when it was read.
            if child.entries <= self.skip {
                self.skip -= child.entries;
                continue;
            }
            match read_page(self.source, &child.id, below)? {
                Page::Leaf(node) => {
                    let mut entries = leaf(&node).map_err(Error::decoding("a directory node"))?;
                    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                        if !self.last.is_empty() && first.name <= self.last {
                            let what = DecodeError::Unknown("the order of a directory");
                            return Err(Error::damaged("a directory node", what));
                        }
                        self.last.clone_from(&last.name);
                    }
                    let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX);
                    entries.drain(..skipped.min(entries.len()));
                    self.skip = 0;
                    self.leaf = entries.into_iter();
                }
                Page::Index(level, children) => self.stack.push((children.into_iter(), level)),
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.stack.clear();
            self.leaf = Vec::new().into_iter();
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Body, Time};
    use crate::memory::Memory;

    fn file(name: String) -> Entry {
        Entry {
            name: name.into_bytes(),
            body: Body::Fifo,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { sec: 5, nsec: 6 },
            ctime: Time { sec: 5, nsec: 6 },
            inode: 77,
            device: 0,
            links: 1,
            racy: false,
            passed: false,
            xattrs: Vec::new(),
        }
    }

    fn build(store: &Memory, entries: &[Entry]) -> ChunkId {
        let mut builder = DirBuilder::new(0);
        entries.iter().for_each(|entry| builder.push(store, entry).unwrap());
        builder.finish(store).unwrap()
    }

    #[test]
    fn large_directories_can_be_listed_searched_and_entered_anywhere() {
        let store = Memory::default();
        let entries: Vec<_> = (0..300_000).map(|i| file(format!("f{i:07}"))).collect();
        let dir = Dir::new(&store, build(&store, &entries));
        assert!(dir.entries().map(Result::unwrap).eq(entries.iter().cloned()));
        for i in [0, 1, 4096, 123_456, 299_999] {
            assert_eq!(dir.lookup(&entries[i].name).unwrap().as_ref(), Some(&entries[i]));
            assert_eq!(dir.entries_from(i as u64).next().unwrap().unwrap(), entries[i]);
        }
        assert!(dir.entries_from(300_000).next().is_none());
        assert_eq!(dir.lookup(b"f0000000x").unwrap(), None);
        assert_eq!(dir.lookup(b"a").unwrap(), None);
    }

    #[test]
    fn a_new_name_stores_few_nodes_again() {
        let store = Memory::default();
        let mut entries: Vec<_> = (0..100_000).map(|i| file(format!("f{i:07}"))).collect();
        build(&store, &entries);
        let before = store.nodes();
        entries.insert(50_000, file("f0049999x".into()));
        build(&store, &entries);
        assert!(store.nodes() - before <= 3, "{} more", store.nodes() - before);
    }

    #[test]
    fn an_empty_directory_is_one_node() {
        let store = Memory::default();
        let dir = Dir::new(&store, build(&store, &[]));
        assert!(dir.entries().next().is_none());
        assert_eq!(dir.lookup(b"x").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_directory_comes_back(entries in prop::collection::vec(crate::entry::tests::entry(), 0..40)) {
            let mut entries = entries;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            let store = Memory::default();
            let dir = Dir::new(&store, build(&store, &entries));
            prop_assert_eq!(dir.entries().map(Result::unwrap).collect::<Vec<_>>(), entries);
        }

        #[test]
        fn no_payload_makes_the_reader_panic(payload in any::<Vec<u8>>(), tag in 15u8..19) {
            let mut payload = payload;
            payload.insert(0, tag);
            let node = Node { nodes: vec![ChunkId([1; 32])], data: vec![], payload };
            let _ = leaf(&node);
            let _ = page(node, 3);
        }
    }
}
