//! The map of a file's content, with nodes that may lie about each other.
#![no_main]

use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{MapReader, MapRef};
use strongroom_fuzz::Pieces;

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
});
