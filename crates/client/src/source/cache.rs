//! What was read lately, in bounded memory: two generations, of which the older one is given up
//! when the younger is full.

use std::collections::{HashMap, HashSet};

use strongroom_engine::id::ChunkId;
use strongroom_engine::node::Node;

/// Bytes of nodes of one generation.
const NODES: usize = 24 << 20;
/// How many nodes that come behind one are asked for with it.
const BEHIND: usize = 64;

/// How many levels up they are looked for.
const LEVELS: usize = 32;

/// Small things by the chunk they belong to; at least the last `room` are kept.
#[derive(Debug)]
pub(super) struct Recent<T> {
    young: HashMap<u64, T>,
    old: HashMap<u64, T>,
    room: usize,
}

/// Ids are as good as random: the first half of a quarter tells a few million of them apart.
fn short(id: &ChunkId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    u64::from_le_bytes(bytes)
}

impl<T: Copy> Recent<T> {
    pub(super) fn new(room: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), room }
    }

    pub(super) fn insert(&mut self, id: &ChunkId, item: T) {
        if self.young.len() >= self.room {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(short(id), item);
    }

    pub(super) fn get(&mut self, id: &ChunkId) -> Option<T> {
        match self.young.get(&short(id)) {
            Some(item) => Some(*item),
            None => {
                let item = self.old.get(&short(id)).copied()?;
                self.insert(id, item);
                Some(item)
            }
        }
    }
}

#[derive(Debug)]
struct Kept {
    node: Node,
    /// It came unasked, and nobody has wanted it yet.
    ahead: bool,
}

/// Nodes, and where they stand among those beside them.
#[derive(Debug)]
pub(super) struct NodeCache {
    young: HashMap<ChunkId, Kept>,
    old: HashMap<ChunkId, Kept>,
    bytes: usize,
    room: usize,
    /// For a node: the one that refers to it, and its place there.
    above: Recent<(ChunkId, u32)>,
}

impl Default for NodeCache {
    fn default() -> Self {
        Self::new(NODES)
    }
}

impl NodeCache {
    fn new(room: usize) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { young, old, bytes: 0, room, above: Recent::new(200_000) }
    }

    /// Keeps a node that came.
    pub(super) fn insert(&mut self, id: ChunkId, node: &Node) {
        for (place, child) in node.nodes.iter().enumerate() {
            self.above.insert(child, (id, place as u32));
        }
        self.put(id, Kept { node: node.clone(), ahead: true });
    }

    fn put(&mut self, id: ChunkId, kept: Kept) {
        let weight =
            256 + kept.node.payload.len() + 32 * (kept.node.nodes.len() + kept.node.data.len());
        if self.bytes + weight > self.room {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(id, kept).is_none() {
            self.bytes += weight;
        }
    }

    /// The node with this id did not come unasked.
    pub(super) fn asked(&mut self, id: &ChunkId) {
        if let Some(kept) = self.young.get_mut(id) {
            kept.ahead = false;
        }
    }

    /// A node, and whether it came unasked and is wanted for the first time.
    pub(super) fn get(&mut self, id: &ChunkId) -> Option<(Node, bool)> {
        if let Some(kept) = self.old.remove(id) {
            self.put(*id, kept);
        }
        let kept = self.young.get_mut(id)?;
        Some((kept.node.clone(), std::mem::take(&mut kept.ahead)))
    }

    fn peek(&self, id: &ChunkId) -> Option<&Node> {
        self.young.get(id).or_else(|| self.old.get(id)).map(|kept| &kept.node)
    }

    /// The nodes that a walk comes to after all that is below this one, as far as they are known
    /// and not here yet.
    pub(super) fn behind(&mut self, id: &ChunkId) -> Vec<ChunkId> {
        let mut found = Vec::new();
        let (mut id, mut seen) = (*id, HashSet::from([*id]));
        for _ in 0..LEVELS {
            if found.len() >= BEHIND {
                break;
            }
            let Some((above, place)) = self.above.get(&id) else { break };
            let Some(node) = self.peek(&above) else { break };
            let next = node.nodes.iter().skip(place as usize + 1);
            let missing = next.filter(|id| self.peek(id).is_none());
            found.extend(missing.filter(|id| seen.insert(**id)).take(BEHIND - found.len()));
            id = above;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ChunkId {
        ChunkId([number; 32])
    }

    fn node(children: &[u8]) -> Node {
        Node { nodes: children.iter().map(|n| id(*n)).collect(), ..Node::default() }
    }

    #[test]
    fn recent_things_are_kept_and_others_go() {
        let mut recent = Recent::new(2);
        for number in 0..6 {
            recent.insert(&id(number), number);
            // What is used stays.
            assert_eq!(recent.get(&id(0)), Some(0));
        }
        assert_eq!((recent.get(&id(5)), recent.get(&id(1))), (Some(5), None));
        assert!(recent.young.len() <= 2 && recent.old.len() <= 2);
    }

    #[test]
    fn nodes_are_kept_within_bounds_and_tell_what_came_unasked() {
        let mut cache = NodeCache::new(1000);
        for number in 0..10 {
            cache.insert(id(number), &node(&[]));
        }
        assert!(cache.young.len() + cache.old.len() <= 6);
        assert_eq!(cache.get(&id(9)), Some((node(&[]), true)));
        assert_eq!(cache.get(&id(9)), Some((node(&[]), false)));
        assert_eq!(cache.get(&id(0)), None);
        cache.insert(id(20), &node(&[]));
        cache.asked(&id(20));
        assert_eq!(cache.get(&id(20)), Some((node(&[]), false)));
    }

    #[test]
    fn a_walk_comes_to_what_is_behind_on_all_levels() {
        let mut cache = NodeCache::new(1 << 20);
        cache.insert(id(1), &node(&[2, 3, 4]));
        cache.insert(id(2), &node(&[5, 6, 7]));
        cache.insert(id(6), &node(&[]));
        assert_eq!(cache.behind(&id(5)), [id(7), id(3), id(4)]);
        assert_eq!(cache.behind(&id(4)), []);
        assert_eq!(cache.behind(&id(9)), []);
        // A node that refers to itself, as no honest one can.
        cache.insert(id(8), &node(&[8, 8]));
        assert_eq!(cache.behind(&id(8)), []);
    }
}
