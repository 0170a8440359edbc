//! Nodes: chunks that refer to other chunks.
//!
//! A node begins with the list of the chunks it refers to, so that the engine can follow every
//! reference (for garbage collection, checks and replication) without knowing what the payload
//! means. The payload names its children by their place in that list.

use crate::codec::{DecodeError, Reader, Writer};
use crate::id::ChunkId;

/// A decoded node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Children that are nodes themselves.
    pub nodes: Vec<ChunkId>,
    /// Children that are data.
    pub data: Vec<ChunkId>,
    /// What the layer above keeps here.
    pub payload: Vec<u8>,
}

impl Node {
    /// The bytes that are stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.uint(self.nodes.len() as u64);
        w.uint(self.data.len() as u64);
        self.nodes.iter().chain(&self.data).for_each(|id| w.raw(&id.0));
        w.raw(&self.payload);
        w.finish()
    }

    /// Reads what [`Node::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a node.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let nodes = r.count(32)?;
        let data = r.count(32)?;
        let mut take = |n: usize| (0..n).map(|_| Ok(ChunkId(r.array()?))).collect();
        let nodes: Result<Vec<_>, DecodeError> = take(nodes);
        let data: Result<Vec<_>, DecodeError> = take(data);
        Ok(Self { nodes: nodes?, data: data?, payload: r.rest().to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_survives_its_bytes() {
        let node = Node {
            nodes: vec![ChunkId([1; 32])],
            data: vec![ChunkId([2; 32]), ChunkId([3; 32])],
            payload: b"names".to_vec(),
        };
        assert_eq!(Node::decode(&node.encode()), Ok(node));
        assert!(Node::decode(&[200, 1, 0]).is_err());
    }
}
