//! What several targets need.

use strongroom_engine::disk::{Caching, Disk, SimDisk};
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::Nodes;
use strongroom_engine::node::Node;
use strongroom_engine::{Error, Result};

/// A good file, changed as the input says: each six bytes are a place (32 bits), what to do there,
/// and a value. A file with checksums lets nothing else in very far.
pub fn edited(good: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for edit in edits.chunks_exact(6) {
        if bytes.is_empty() {
            break;
        }
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], edit[3]]) as usize % bytes.len();
        match edit[4] % 4 {
            0 => bytes[at] = edit[5],
            1 => bytes[at] ^= 1 << (edit[5] % 8),
            2 => bytes.truncate(at),
            _ => bytes.extend_from_within(at..(at + usize::from(edit[5])).min(bytes.len())),
        }
    }
    bytes
}

/// Puts a file on a disk in memory.
pub fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    drop(disk.create(path, Caching::Cached).expect("the file is new"));
    disk.write_raw(path, bytes).expect("the file is there");
}

/// The input as a store of nodes: pieces between two bytes 0xff 0xfe, by the first byte of the id.
/// Nodes may name each other in circles.
#[derive(Debug)]
pub struct Pieces<'a>(Vec<&'a [u8]>);

impl<'a> Pieces<'a> {
    /// Cuts the input.
    pub fn new(mut input: &'a [u8]) -> Self {
        let mut pieces = Vec::new();
        while let Some(at) = input.windows(2).position(|w| w == [0xff, 0xfe]) {
            pieces.push(&input[..at]);
            input = &input[at + 2..];
        }
        pieces.push(input);
        Self(pieces)
    }

    /// The first piece.
    pub fn first(&self) -> &'a [u8] {
        self.0[0]
    }

    /// The piece that an id names.
    pub fn piece(&self, id: &ChunkId) -> &'a [u8] {
        self.0[usize::from(id.0[0]) % self.0.len()]
    }
}

impl Nodes for Pieces<'_> {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        Node::decode(self.piece(id)).map_err(Error::decoding("a node"))
    }
}
