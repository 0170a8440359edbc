//! Chunks in memory, for tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::{Chunks, Failed, Sink};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::map::{NodeStore, Nodes};
use crate::node::Node;
use crate::pool::Stored;

/// A pool in memory that counts what is read of it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    chunks: Mutex<HashMap<ChunkId, Vec<u8>>>,
    lost: Mutex<HashSet<ChunkId>>,
    reads: Mutex<HashMap<ChunkId, usize>>,
}

impl Memory {
    pub(crate) fn put(&self, bytes: &[u8]) -> ChunkId {
        let id = ChunkId(*blake3::hash(bytes).as_bytes());
        self.put_as(id, bytes);
        id
    }

    pub(crate) fn put_as(&self, id: ChunkId, bytes: &[u8]) {
        self.chunks.lock().unwrap().insert(id, bytes.to_vec());
    }

    pub(crate) fn lose(&self, id: ChunkId) {
        self.lost.lock().unwrap().insert(id);
    }

    /// How often the chunk was read that was read most often.
    pub(crate) fn most_reads(&self) -> usize {
        self.reads.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    /// How many different chunks and nodes were read.
    pub(crate) fn read(&self) -> usize {
        self.reads.lock().unwrap().len()
    }
}

impl Nodes for Memory {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        let mut bytes = Vec::new();
        self.chunk(id, &mut bytes)?;
        Node::decode(&bytes).map_err(Error::decoding("a node"))
    }
}

impl NodeStore for Memory {
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
        Ok((self.put(&node.encode()), Stored::default()))
    }
}

impl Chunks for Memory {
    fn threads(&self) -> usize {
        2
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        *self.reads.lock().unwrap().entry(*id).or_default() += 1;
        let missing = || Error::ChunkMissing { id: *id };
        if self.lost.lock().unwrap().contains(id) {
            return Err(missing());
        }
        out.extend(self.chunks.lock().unwrap().get(id).ok_or_else(missing)?);
        Ok(())
    }

    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()> {
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
