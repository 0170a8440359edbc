//! The map of a file's content, with nodes that may lie about each other, and reading by it.
#![no_main]

use std::sync::Arc;

use strongroom_engine::Result;
use strongroom_engine::content::{Cache, Chunks, Content, Failed, Reader, Sink};
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{MapReader, MapRef, Nodes};
use strongroom_engine::node::Node;
use strongroom_fuzz::Pieces;

/// The input, where nodes and data are read from.
struct Input(Vec<u8>);

impl Nodes for Input {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        Pieces::new(&self.0).node(id)
    }
}

impl Chunks for Input {
    fn threads(&self) -> usize {
        1
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(Pieces::new(&self.0).piece(id));
        Ok(())
    }

    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, _: Failed<'_>) -> Result<()> {
        let pieces = Pieces::new(&self.0);
        wanted.iter().enumerate().try_for_each(|(i, id)| sink(i, pieces.piece(id)))
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let pieces = Pieces::new(bytes);
    let len = pieces.first().iter().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
    let map = MapRef::Tree(ChunkId([1; 32]), len);
    for from in [0, 1, len / 2, len] {
        for extent in MapReader::new(&pieces, &map, from).take(10_000) {
            if extent.is_err() {
                break;
            }
        }
    }
    let Ok(content) = Content::new(&map).map(Arc::new) else { return };
    let reader = Reader::new(&Cache::new(1 << 20), Arc::new(Input(bytes.to_vec())), 0);
    // As much as is soon read where each byte is an extent of its own.
    let mut buffer = vec![1; 5_000];
    for from in [0, 1, len / 2, len.saturating_sub(9)] {
        if reader.read_at(&content, from, &mut buffer).is_ok() {
            let left = usize::try_from(len.saturating_sub(from)).unwrap_or(usize::MAX);
            let inside = left.min(buffer.len());
            assert!(buffer[inside..].iter().all(|byte| *byte == 0));
        }
    }
});
