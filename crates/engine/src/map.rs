//! Maps: sparse byte strings as lists of chunks.
//!
//! The content of a file, a block image, a stream or a volume is a list of [`Extent`]s. Short lists
//! stay inline in the record that owns them; longer ones become a tree of nodes, so that content
//! of any length is written and read with bounded memory, and two versions that differ in one
//! place share all nodes but a few.
//!
//! # Format of a map node
//! A [`Node`] whose payload is:
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | tag | 1 | 1: a map |
//! | level | 1 | 0: the items are extents; n > 0: the items are map nodes of level n - 1 or less |
//! | count | varint | how many items, at most 4096 |
//! | items | count varints | `length << 1`, plus 1 for a hole; never 0 long |
//!
//! The k-th item that isn't a hole refers to the k-th id of the node's `data` list (level 0) or of
//! its `nodes` list (level above 0). A data extent is at most [`MAX_EXTENT`] long. The sum of the
//! lengths is the length that the referring record states.
//!
//! # Where nodes end
//! For content cut at content-defined boundaries, a node ends after an item whose id ends in a zero
//! byte once it has [`MIN_ITEMS`] items, and after [`MAX_ITEMS`] at the latest: an insertion moves
//! no boundary behind it. For fixed-size chunks, a node of level n ends where the content's offset is
//! a multiple of `span * 512^n`; a node with nothing but holes is itself a hole. Readers must not
//! rely on any of this.

mod rewrite;

pub use rewrite::{Change, Put, rewrite};

use std::sync::Arc;

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind};
use crate::node::Node;
use crate::pool::{Pool, Session, Stored};

/// The first payload byte of a map node.
pub const MAP_TAG: u8 = 1;
/// The longest data extent, in bytes.
pub const MAX_EXTENT: u64 = 8 << 20;
/// A node has at least so many items when it ends at a content-defined boundary.
pub const MIN_ITEMS: usize = 256;
/// A writer puts at most so many items in a node.
pub const MAX_ITEMS: usize = 2048;
/// Lists up to this many extents stay inline.
pub const INLINE_ITEMS: usize = 64;
/// A reader refuses nodes with more items.
const READ_ITEMS: usize = 4096;
/// A reader refuses deeper trees; 256^8 items are more than 64 bits can count bytes.
const MAX_LEVEL: u8 = 15;
/// How many nodes of one level a node above covers, for fixed-size chunks.
const FANOUT: u64 = 512;

/// Where nodes are read from.
pub trait Nodes: Sync {
    /// Reads and decodes one node.
    ///
    /// # Errors
    /// Those of the pool.
    fn node(&self, id: &ChunkId) -> Result<Node>;

    /// Reads one node of a map, which covers `len` bytes and is of a level below `below`; who keeps
    /// such nodes keeps them decoded.
    ///
    /// # Errors
    /// Those of the pool.
    fn map_node(&self, id: &ChunkId, len: u64, below: u8) -> Result<Arc<MapNode>> {
        let node = self.node(id)?;
        let (items, level) = decode(&node, len, below).map_err(Error::decoding("a map node"))?;
        Ok(Arc::new(MapNode::new(&items, level)))
    }
}

/// Where nodes are stored.
pub trait NodeStore: Sync {
    /// Stores one node and says what that took.
    ///
    /// # Errors
    /// Those of the pool.
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)>;

    /// A map that is made has others in the place of about so many chunks of another.
    fn note_replaced(&self, _chunks: u64) {}
}

impl Nodes for Pool {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        Pool::node(self, id)
    }
}

impl NodeStore for Session<'_> {
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
        let bytes = node.encode();
        let mut ids = Vec::with_capacity(1);
        let stored = self.store(ChunkKind::Node, &[&bytes], &mut ids)?;
        let id = ids.pop().ok_or_else(|| Error::damaged("the session", "a node got no id"))?;
        Ok((id, stored))
    }

    fn note_replaced(&self, chunks: u64) {
        Session::note_replaced(self, chunks);
    }
}

/// A stretch of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One whole chunk.
    Data {
        /// Its content address.
        id: ChunkId,
        /// Its length in bytes.
        len: u32,
    },
    /// Zeroes that are stored nowhere.
    Hole {
        /// Its length in bytes.
        len: u64,
    },
}

impl Extent {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data { len, .. } => u64::from(*len),
            Self::Hole { len } => *len,
        }
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `length << 1 | hole`; the id is for the caller to keep.
    pub fn encode(&self, w: &mut Writer) {
        w.uint(self.len() << 1 | u64::from(matches!(self, Self::Hole { .. })));
    }

    /// Takes what [`Extent::encode`] wrote; `id` gives the id when it is data.
    ///
    /// # Errors
    /// [`DecodeError`] for a length that no extent has, and those of `id`.
    pub fn decode(
        r: &mut Reader<'_>,
        id: impl FnOnce() -> Result<ChunkId, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let code = r.uint()?;
        let len = code >> 1;
        if len == 0 || (code & 1 == 0 && len > MAX_EXTENT) {
            return Err(DecodeError::Unknown("the length of an extent"));
        }
        Ok(if code & 1 == 1 {
            Self::Hole { len }
        } else {
            Self::Data { id: id()?, len: len as u32 }
        })
    }
}

/// The content of something, by reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapRef {
    /// All extents.
    Inline(Vec<Extent>),
    /// The top node of a tree, and the length of the content in bytes.
    Tree(ChunkId, u64),
}

impl Default for MapRef {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

impl MapRef {
    /// The length of the content in bytes. A hostile inline list can't make it overflow.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(extents) => {
                extents.iter().fold(0u64, |sum, extent| sum.saturating_add(extent.len()))
            }
            Self::Tree(_, len) => *len,
        }
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids that the owner of the map refers to directly.
    pub fn ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let (extents, node) = match self {
            Self::Inline(extents) => (extents.as_slice(), None),
            Self::Tree(node, _) => (&[][..], Some(*node)),
        };
        extents
            .iter()
            .filter_map(|extent| match extent {
                Extent::Data { id, .. } => Some(*id),
                Extent::Hole { .. } => None,
            })
            .chain(node)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    /// None for a hole.
    id: Option<ChunkId>,
    len: u64,
}

#[derive(Debug, Default)]
struct Level {
    items: Vec<Item>,
    /// The content's offset behind the last item.
    end: u64,
}

/// Builds a map from its extents, in order. Memory is bounded by the depth of the tree.
#[derive(Debug)]
pub struct MapBuilder {
    /// For fixed-size chunks: how many bytes a node of level 0 covers.
    span: Option<u64>,
    levels: Vec<Level>,
}

impl Default for MapBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl MapBuilder {
    /// For content that was cut at content-defined boundaries.
    pub fn new() -> Self {
        Self { span: None, levels: Vec::new() }
    }

    /// For content cut in chunks of `chunk` bytes.
    pub fn fixed(chunk: u32) -> Self {
        Self { span: Some(u64::from(chunk.max(1)) * FANOUT), levels: Vec::new() }
    }

    /// The length of what was pushed, in bytes.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.end)
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends an extent; empty ones are skipped, neighbouring holes become one.
    ///
    /// # Errors
    /// Those of the store.
    pub fn push(&mut self, store: &dyn NodeStore, extent: Extent) -> Result<()> {
        match extent {
            Extent::Data { id, len } => {
                self.put(store, 0, Item { id: Some(id), len: u64::from(len) })
            }
            Extent::Hole { len } => self.put(store, 0, Item { id: None, len }),
        }
    }

    /// Ends the map.
    ///
    /// # Errors
    /// Those of the store.
    pub fn finish(mut self, store: &dyn NodeStore) -> Result<MapRef> {
        let len = self.len();
        let mut level = 0;
        loop {
            let Some(current) = self.levels.get(level) else {
                return Ok(MapRef::default());
            };
            if level + 1 == self.levels.len() {
                if level == 0 && current.items.len() <= INLINE_ITEMS {
                    return Ok(MapRef::Inline(current.items.iter().map(extent_of).collect()));
                }
                if let [only] = current.items[..]
                    && level > 0
                {
                    return Ok(match only.id {
                        Some(id) => MapRef::Tree(id, len),
                        None => MapRef::Inline(vec![Extent::Hole { len }]),
                    });
                }
            }
            self.close(store, level)?;
            level += 1;
        }
    }

    fn span(&self, level: usize) -> Option<u64> {
        let fanout = FANOUT.checked_pow(u32::try_from(level).ok()?)?;
        self.span?.checked_mul(fanout)
    }

    fn put(&mut self, store: &dyn NodeStore, level: usize, mut item: Item) -> Result<()> {
        while item.len > 0 {
            if self.levels.len() == level {
                self.levels.push(Level::default());
            }
            let span = self.span(level);
            let current = &mut self.levels[level];
            let mut part = item;
            if let (Some(span), None) = (span, item.id) {
                if current.items.is_empty() && current.end.is_multiple_of(span) && item.len >= span
                {
                    part.len = item.len - item.len % span;
                    current.end += part.len;
                    item.len -= part.len;
                    self.put(store, level + 1, part)?;
                    continue;
                }
                part.len = item.len.min(span - current.end % span);
            }
            item.len -= part.len;
            current.end += part.len;
            match (current.items.last_mut(), part.id) {
                (Some(Item { id: None, len }), None) => *len += part.len,
                _ => current.items.push(part),
            }
            let count = current.items.len();
            let at_end = match span {
                Some(span) => current.end.is_multiple_of(span),
                None => count >= MIN_ITEMS && part.id.is_some_and(|id| id.0[31] == 0),
            };
            if at_end || count >= MAX_ITEMS {
                self.close(store, level)?;
            }
        }
        Ok(())
    }

    /// Appends a node of the level below as an item of `level`. `false`, with nothing done, when that
    /// would end nodes elsewhere than at multiples of their span.
    fn push_node(&mut self, store: &dyn NodeStore, level: usize, item: Item) -> Result<bool> {
        if self.levels.iter().take(level).any(|below| !below.items.is_empty()) {
            return Ok(false);
        }
        if self.levels.len() < level {
            self.levels.resize_with(level, Level::default);
        }
        self.levels.iter_mut().take(level).for_each(|below| below.end += item.len);
        self.put(store, level, item)?;
        Ok(true)
    }

    /// Makes a node of a level's items and passes it up.
    fn close(&mut self, store: &dyn NodeStore, level: usize) -> Result<()> {
        let items = std::mem::take(&mut self.levels[level].items);
        if items.is_empty() {
            return Ok(());
        }
        let len = items.iter().map(|item| item.len).sum();
        let id = if items.iter().all(|item| item.id.is_none()) {
            None
        } else {
            Some(store.put_node(&encode(&items, level))?.0)
        };
        self.put(store, level + 1, Item { id, len })?;
        // The allocation is worth keeping: level 0 fills again and again.
        let mut items = items;
        items.clear();
        self.levels[level].items = items;
        Ok(())
    }
}

fn extent_of(item: &Item) -> Extent {
    match item.id {
        Some(id) => Extent::Data { id, len: item.len as u32 },
        None => Extent::Hole { len: item.len },
    }
}

fn item_of(extent: &Extent) -> Item {
    let id = match extent {
        Extent::Data { id, .. } => Some(*id),
        Extent::Hole { .. } => None,
    };
    Item { id, len: extent.len() }
}

fn encode(items: &[Item], level: usize) -> Node {
    let mut w = Writer::new();
    w.byte(MAP_TAG);
    w.byte(level as u8);
    w.uint(items.len() as u64);
    for item in items {
        w.uint(item.len << 1 | u64::from(item.id.is_none()));
    }
    let ids = items.iter().filter_map(|item| item.id).collect();
    let payload = w.finish();
    if level == 0 {
        Node { nodes: Vec::new(), data: ids, payload }
    } else {
        Node { nodes: ids, data: Vec::new(), payload }
    }
}

/// The items of a node that must be `len` bytes long in all and of a level below `below`.
fn decode(node: &Node, len: u64, below: u8) -> Result<(Vec<Item>, u8), DecodeError> {
    let mut r = Reader::new(&node.payload);
    if r.byte()? != MAP_TAG {
        return Err(DecodeError::Unknown("the tag of a map node"));
    }
    let level = r.byte()?;
    if level >= below {
        return Err(DecodeError::Unknown("the level of a map node"));
    }
    let count = r.count(1)?;
    if count > READ_ITEMS {
        return Err(DecodeError::Unknown("the number of items of a map node"));
    }
    let mut ids = if level == 0 { &node.data } else { &node.nodes }.iter().copied();
    let mut items = Vec::with_capacity(count);
    let mut sum = 0u64;
    for _ in 0..count {
        let code = r.uint()?;
        let hole = code & 1 == 1;
        let item_len = code >> 1;
        if item_len == 0 || (!hole && level == 0 && item_len > MAX_EXTENT) {
            return Err(DecodeError::Unknown("the length of an extent"));
        }
        let id = if hole { None } else { Some(ids.next().ok_or(DecodeError::Short)?) };
        sum = sum.checked_add(item_len).ok_or(DecodeError::Overlong)?;
        items.push(Item { id, len: item_len });
    }
    r.end()?;
    if sum != len {
        return Err(DecodeError::Unknown("the length of a map node"));
    }
    Ok((items, level))
}

/// A decoded map node: what it refers to, by the offset where that ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapNode {
    level: u8,
    items: Vec<Placed>,
}

/// An item, and where it ends, counted from the node's own start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    /// None for a hole.
    id: Option<ChunkId>,
    end: u64,
}

impl MapNode {
    fn new(items: &[Item], level: u8) -> Self {
        let mut end = 0u64;
        let placed = items.iter().map(|item| {
            // Their sum was checked when they were decoded.
            end = end.saturating_add(item.len);
            Placed { id: item.id, end }
        });
        Self { level, items: placed.collect() }
    }

    /// A node above all others, of a map's own items.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a hostile list, longer than 64 bits can count.
    pub(crate) fn top(map: &MapRef) -> Result<Arc<Self>> {
        let top = match map {
            MapRef::Inline(extents) => {
                let mut end = 0u64;
                let items = extents.iter().map(|extent| {
                    end = end.checked_add(extent.len()).ok_or(DecodeError::Overlong)?;
                    let id = match extent {
                        Extent::Data { id, .. } => Some(*id),
                        Extent::Hole { .. } => None,
                    };
                    Ok(Placed { id, end })
                });
                let items = items.collect::<Result<_, _>>().map_err(Error::decoding("a map"))?;
                Self { level: 0, items }
            }
            MapRef::Tree(node, len) => {
                let items = vec![Placed { id: Some(*node), end: *len }];
                Self { level: MAX_LEVEL + 1, items }
            }
        };
        Ok(Arc::new(top))
    }

    /// How many bytes of content it covers.
    fn len(&self) -> u64 {
        self.items.last().map_or(0, |item| item.end)
    }

    /// What it takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.items.capacity() * size_of::<Placed>()
    }

    /// Refuses a node of another length than that which refers to it says, or that isn't below it.
    fn check(&self, len: u64, below: u8) -> Result<(), DecodeError> {
        if self.level >= below {
            return Err(DecodeError::Unknown("the level of a map node"));
        }
        if self.len() != len {
            return Err(DecodeError::Unknown("the length of a map node"));
        }
        Ok(())
    }
}

/// Reads the extents of a map, in order, from an offset on. Memory is bounded by the depth of the
/// tree. An item is the extent's offset in the content, and the extent; the first one is that
/// which holds the offset asked for, so it may begin before it. After a node that can't be read
/// the next item is what comes behind it: the gap up to that one's offset is what is not known.
pub struct MapReader<'s> {
    source: &'s dyn Nodes,
    /// Nodes with items still to come; the deepest last.
    stack: Vec<Entered>,
    position: u64,
    /// Items that end at or before this are skipped.
    from: u64,
    /// What is wrong with the map as a whole: the one item.
    failed: Option<Error>,
}

/// A node on the way to an extent.
struct Entered {
    node: Arc<MapNode>,
    /// The place of its next item.
    next: usize,
    /// Where in the content it begins.
    start: u64,
}

impl std::fmt::Debug for MapReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MapReader(at {})", self.position)
    }
}

impl<'s> MapReader<'s> {
    /// A reader from `offset` on.
    pub fn new(source: &'s dyn Nodes, map: &MapRef, offset: u64) -> Self {
        match MapNode::top(map) {
            Ok(top) => Self::within(source, &top, offset),
            Err(error) => {
                let (stack, failed) = (Vec::new(), Some(error));
                Self { source, stack, position: 0, from: offset, failed }
            }
        }
    }

    /// As [`MapReader::new`], of a map whose top is at hand.
    pub(crate) fn within(source: &'s dyn Nodes, top: &Arc<MapNode>, offset: u64) -> Self {
        let stack = Vec::with_capacity(4);
        let mut reader = Self { source, stack, position: 0, from: offset, failed: None };
        reader.enter(Arc::clone(top), 0);
        reader
    }

    /// The offset up to which the content was passed: behind the last extent, or behind what could
    /// not be read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes into a node that begins there, and passes what is not wanted of it. No sum overflows: it
    /// ends where the item that refers to it does.
    fn enter(&mut self, node: Arc<MapNode>, start: u64) {
        let wanted = self.from.saturating_sub(start);
        let next = node.items.partition_point(|item| item.end <= wanted);
        let passed = next.checked_sub(1).and_then(|last| node.items.get(last));
        self.position = start.saturating_add(passed.map_or(0, |item| item.end));
        self.stack.push(Entered { node, next, start });
    }

    fn step(&mut self) -> Result<Option<(u64, Extent)>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while let Some(entered) = self.stack.last_mut() {
            let Some(item) = entered.node.items.get(entered.next).copied() else {
                self.stack.pop();
                continue;
            };
            entered.next += 1;
            let start = self.position;
            let end = entered.start.saturating_add(item.end);
            let (len, level) = (end - start, entered.node.level);
            let Some(id) = item.id.filter(|_| level > 0) else {
                self.position = end;
                return Ok(Some((start, extent_of(&Item { id: item.id, len }))));
            };
            let node = self.source.map_node(&id, len, level).and_then(|node| {
                // It may have been kept for another, that refers to it otherwise.
                node.check(len, level).map_err(Error::decoding("a map node"))?;
                Ok(node)
            });
            match node {
                Ok(node) => self.enter(node, start),
                Err(error) => {
                    self.position = end;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for MapReader<'_> {
    type Item = Result<(u64, Extent)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashMap;
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    pub(super) struct Memory(Mutex<HashMap<ChunkId, Vec<u8>>>);

    impl Memory {
        /// How many nodes there are.
        pub(super) fn len(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl Nodes for Memory {
        fn node(&self, id: &ChunkId) -> Result<Node> {
            let map = self.0.lock().unwrap();
            let bytes = map.get(id).ok_or(Error::ChunkMissing { id: *id })?;
            Node::decode(bytes).map_err(Error::decoding("a node"))
        }
    }

    impl NodeStore for Memory {
        fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
            let bytes = node.encode();
            let id = ChunkId(*blake3::hash(&bytes).as_bytes());
            self.0.lock().unwrap().insert(id, bytes);
            Ok((id, Stored::default()))
        }
    }

    pub(super) fn data(seed: u64, len: u32) -> Extent {
        Extent::Data { id: ChunkId(*blake3::hash(&seed.to_le_bytes()).as_bytes()), len }
    }

    pub(super) fn build(store: &Memory, mut builder: MapBuilder, extents: &[Extent]) -> MapRef {
        for extent in extents {
            builder.push(store, *extent).unwrap();
        }
        builder.finish(store).unwrap()
    }

    pub(super) fn read(store: &Memory, map: &MapRef, from: u64) -> Vec<(u64, Extent)> {
        MapReader::new(store, map, from).collect::<Result<_>>().unwrap()
    }

    #[test]
    fn long_lists_come_back_and_can_be_entered_anywhere() {
        let store = Memory::default();
        let extents: Vec<_> = (0..20_000).map(|i| data(i, 1000 + i as u32 % 7)).collect();
        let map = build(&store, MapBuilder::new(), &extents);
        assert!(matches!(map, MapRef::Tree(..)));
        let all = read(&store, &map, 0);
        assert_eq!(all.iter().map(|(_, e)| *e).collect::<Vec<_>>(), extents);
        assert_eq!(map.len(), extents.iter().map(Extent::len).sum::<u64>());
        for index in [1, 300, 9_999, 19_999] {
            let rest = read(&store, &map, all[index].0 + 5);
            assert_eq!(rest, all[index..]);
        }
        assert!(read(&store, &map, map.len()).is_empty());
    }

    #[test]
    fn an_insertion_changes_few_nodes() {
        let store = Memory::default();
        let mut extents: Vec<_> = (0..50_000).map(|i| data(i, 4096)).collect();
        build(&store, MapBuilder::new(), &extents);
        let before = store.0.lock().unwrap().len();
        extents.insert(10_000, data(1 << 40, 4096));
        build(&store, MapBuilder::new(), &extents);
        let added = store.0.lock().unwrap().len() - before;
        assert!(added <= 4, "{added} of {before} nodes are new");
    }

    #[test]
    fn holes_of_any_length_cost_next_to_nothing() {
        let store = Memory::default();
        let huge = 5 << 50;
        let extents =
            [data(1, 4096), Extent::Hole { len: huge }, data(2, 4096), Extent::Hole { len: 8192 }];
        let mut builder = MapBuilder::fixed(4096);
        for extent in extents {
            builder.push(&store, extent).unwrap();
        }
        let map = builder.finish(&store).unwrap();
        assert_eq!(map.len(), huge + 16384);
        let found = read(&store, &map, 0);
        let datas: Vec<_> =
            found.iter().filter(|(_, e)| matches!(e, Extent::Data { .. })).copied().collect();
        assert_eq!(datas, [(0, data(1, 4096)), (huge + 4096, data(2, 4096))]);
        assert!(store.0.lock().unwrap().len() < 20);
        let empty = build(&store, MapBuilder::fixed(4096), &[Extent::Hole { len: huge }]);
        assert_eq!(empty, MapRef::Inline(vec![Extent::Hole { len: huge }]));
    }

    #[test]
    fn a_change_in_a_fixed_map_changes_one_node_a_level() {
        let store = Memory::default();
        let mut extents: Vec<_> = (0..4096 * 512 / 8).map(|i| data(i, 4096)).collect();
        build(&store, MapBuilder::fixed(4096), &extents);
        let before = store.0.lock().unwrap().len();
        extents[100_000] = Extent::Hole { len: 4096 };
        build(&store, MapBuilder::fixed(4096), &extents);
        assert_eq!(store.0.lock().unwrap().len() - before, 2);
    }

    proptest! {
        #[test]
        fn any_list_comes_back(
            items in prop::collection::vec((any::<bool>(), 1u32..10), 0..600),
            fixed in any::<bool>(),
        ) {
            let store = Memory::default();
            let builder = if fixed { MapBuilder::fixed(1) } else { MapBuilder::new() };
            let extents: Vec<_> = items
                .iter()
                .enumerate()
                .map(|(i, (hole, len))| match (hole, fixed) {
                    (true, _) => Extent::Hole { len: u64::from(*len) },
                    (false, true) => data(i as u64, 1),
                    (false, false) => data(i as u64, *len),
                })
                .collect();
            let map = build(&store, builder, &extents);
            // Compared byte by byte: holes may be cut or joined.
            let flat = |extents: &[Extent]| {
                let mut out = Vec::new();
                for extent in extents {
                    match extent {
                        Extent::Data { id, len } => out.push((Some(*id), u64::from(*len))),
                        Extent::Hole { len } => match out.last_mut() {
                            Some((None, sum)) => *sum += len,
                            _ => out.push((None, *len)),
                        },
                    }
                }
                out
            };
            let found: Vec<_> = read(&store, &map, 0).into_iter().map(|(_, e)| e).collect();
            prop_assert_eq!(flat(&found), flat(&extents));
        }

        #[test]
        fn no_payload_makes_the_reader_panic(payload in any::<Vec<u8>>(), len in any::<u64>()) {
            let mut payload = payload;
            for first in [None, Some([MAP_TAG, 0]), Some([MAP_TAG, 1])] {
                if let (Some(first), [a, b, ..]) = (first, &mut payload[..]) {
                    (*a, *b) = (first[0], first[1]);
                }
                let node = Node { nodes: vec![], data: vec![], payload: payload.clone() };
                let _ = decode(&node, len, MAX_LEVEL);
            }
        }
    }
}
