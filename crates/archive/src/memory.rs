//! A store in memory, for tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;

use strongroom_engine::chunker::Params;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::map::{NodeStore, Nodes};
use strongroom_engine::node::Node;
use strongroom_engine::pool::{NewRoot, Stored};
use strongroom_engine::state::Root;
use strongroom_engine::{Error, Result};

use crate::store::{Chunks, Failed, Hold, Sink, Source, Store};

/// A pool in memory. Ids are not cryptographic.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    chunks: Mutex<HashMap<ChunkId, Vec<u8>>>,
    nodes: Mutex<HashMap<ChunkId, Vec<u8>>>,
    roots: Mutex<Vec<Root>>,
    /// Chunks that are lost.
    pub(crate) lost: Mutex<HashSet<ChunkId>>,
    /// Files that are removed as soon as something is stored.
    pub(crate) vanishing: Mutex<Vec<PathBuf>>,
    /// How many chunks were asked for in lists.
    pub(crate) fetched: Mutex<usize>,
}

struct Kept;
impl Hold for Kept {}

fn id_of(bytes: &[u8], seed: u64) -> ChunkId {
    let mut id = [0; 32];
    for (i, word) in id.chunks_exact_mut(8).take(2).enumerate() {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(seed + 16 * i as u64);
        hasher.write(bytes);
        word.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    id.rotate_right(16);
    ChunkId(id)
}

impl Memory {
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.lock().unwrap().len()
    }

    pub(crate) fn chunks(&self) -> usize {
        self.chunks.lock().unwrap().len()
    }

    /// Whether a chunk, a node or a root's record has these bytes in it.
    pub(crate) fn holds(&self, what: &[u8]) -> bool {
        let has = |bytes: &Vec<u8>| bytes.windows(what.len()).any(|window| window == what);
        self.chunks.lock().unwrap().values().any(has)
            || self.nodes.lock().unwrap().values().any(has)
            || self.roots.lock().unwrap().iter().any(|root| has(&root.meta))
    }

    pub(crate) fn lose_node(&self, id: &ChunkId) {
        self.nodes.lock().unwrap().remove(id);
    }
}

impl Nodes for Memory {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        let nodes = self.nodes.lock().unwrap();
        Node::decode(nodes.get(id).ok_or(Error::ChunkMissing { id: *id })?)
            .map_err(Error::decoding("a node"))
    }
}

impl NodeStore for Memory {
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
        let bytes = node.encode();
        let id = id_of(&bytes, 1);
        self.nodes.lock().unwrap().insert(id, bytes);
        Ok((id, Stored::default()))
    }
}

impl Chunks for Memory {
    fn threads(&self) -> usize {
        2
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        if self.lost.lock().unwrap().contains(id) {
            return Err(Error::ChunkMissing { id: *id });
        }
        let chunks = self.chunks.lock().unwrap();
        out.extend(chunks.get(id).ok_or(Error::ChunkMissing { id: *id })?);
        Ok(())
    }

    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()> {
        *self.fetched.lock().unwrap() += wanted.len();
        // Backwards and on two threads: callers must not count on any order.
        let half = |odd: usize| -> Result<()> {
            for (i, id) in wanted.iter().enumerate().rev().filter(|(i, _)| i % 2 == odd) {
                let mut bytes = Vec::new();
                match self.chunk(id, &mut bytes) {
                    Ok(()) => sink(i, &bytes)?,
                    Err(error) => failed(i, error),
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| half(1));
            half(0).and(other.join().unwrap())
        })
    }
}

impl Source for Memory {
    fn roots(&self) -> Result<Vec<Root>> {
        Ok(self.roots.lock().unwrap().clone())
    }

    fn hold(&self, _: RootId) -> Result<Box<dyn Hold + '_>> {
        Ok(Box::new(Kept))
    }

    fn now(&self) -> PoolTime {
        PoolTime(self.roots.lock().unwrap().len() as i64)
    }

    fn matches(&self, id: &ChunkId, data: &[u8]) -> Result<bool> {
        Ok(id_of(data, 2) == *id)
    }
}

impl NodeStore for &Memory {
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
        (**self).put_node(node)
    }
}

impl Store for &Memory {
    fn source(&self) -> &dyn Source {
        *self
    }

    fn chunking(&self) -> Params {
        Params { min: 256, avg: 1024, max: 4096, fixed: 4096 }
    }

    fn store(&self, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored> {
        for file in self.vanishing.lock().unwrap().drain(..) {
            std::fs::remove_file(file).unwrap();
        }
        let mut stored = Stored::default();
        let mut chunks = self.chunks.lock().unwrap();
        for piece in pieces {
            assert!(!piece.is_empty());
            let id = id_of(piece, 2);
            if chunks.insert(id, piece.to_vec()).is_none() {
                stored.new_chunks += 1;
                stored.new_bytes += piece.len() as u64;
            } else {
                stored.known_chunks += 1;
                stored.known_bytes += piece.len() as u64;
            }
            ids.push(id);
        }
        Ok(stored)
    }

    fn reuse(&self, ids: &[ChunkId]) -> Result<bool> {
        let lost = self.lost.lock().unwrap();
        Ok(!ids.iter().any(|id| lost.contains(id)))
    }

    fn lean_on(&self, _: RootId) -> Result<()> {
        Ok(())
    }

    fn commit(self, root: NewRoot) -> Result<Root> {
        let created = self.now();
        let root = Root {
            id: root.id,
            kind: root.kind,
            name: root.name,
            created,
            immutable_until: root.immutable_for.map(|ns| PoolTime(created.0 + ns)),
            nodes: root.nodes,
            meta: root.meta,
        };
        self.roots.lock().unwrap().push(root.clone());
        Ok(root)
    }
}
