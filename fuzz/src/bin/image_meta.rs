//! What an image says of itself: its record in the journal, and its top node with the names.
#![no_main]

use strongroom_archive::image::{ImageMeta, Top};
use strongroom_archive::names::Names;
use strongroom_engine::node::Node;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(meta) = ImageMeta::decode(bytes) {
        assert_eq!(ImageMeta::decode(&meta.encode()).as_ref(), Ok(&meta));
    }
    if let Ok(node) = Node::decode(bytes) {
        let _ = Top::decode(&node);
        let _ = Names::decode(&node);
    }
});
