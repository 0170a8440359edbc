//! Directories of an image, with nodes that may lie about each other.
#![no_main]

use strongroom_archive::tree::Dir;
use strongroom_engine::id::ChunkId;
use strongroom_fuzz::Pieces;

/// More entries than an honest input of this size can hold.
const ENOUGH: usize = 10_000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let pieces = Pieces::new(bytes);
    let dir = Dir::new(&pieces, ChunkId([0; 32]));
    let _ = dir.lookup(b"name");
    for entry in dir.entries().take(ENOUGH) {
        match entry {
            Ok(entry) => drop(entry.ids().count()),
            Err(_) => break,
        }
    }
    let _ = dir.entries_from(7).next();
});
