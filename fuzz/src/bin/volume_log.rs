//! A volume's log: two copies, each changed in its own way; and what its records and its root say.
#![no_main]

use std::sync::{Arc, OnceLock};

use strongroom_block::volume::record::{Change, SegmentHeader, record_at};
use strongroom_block::volume::top::{Meta, Top};
use strongroom_engine::codec::Reader;
use strongroom_engine::id::ChunkId;
use strongroom_engine::keys::Keyring;
use strongroom_engine::node::Node;
use strongroom_engine::seal::{Aead, LogSealer};

fn sealer() -> &'static Arc<LogSealer> {
    static SEALER: OnceLock<Arc<LogSealer>> = OnceLock::new();
    SEALER.get_or_init(|| {
        let sealer = Keyring::generate(Aead::None).log(0, &[7; 32]);
        Arc::new(sealer.expect("a pool that isn't encrypted has one"))
    })
}

fn change(bytes: &[u8]) {
    let mut r = Reader::new(bytes);
    let (Ok(kind), Ok(offset), Ok(length)) = (r.byte(), r.uint(), r.uint()) else { return };
    let _ = Change::decode(kind, offset, length, r.rest());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = SegmentHeader::decode(bytes, sealer());
    let _ = record_at(bytes, sealer(), 0, 0);
    change(bytes);
    if let Ok(meta) = Meta::decode(bytes) {
        assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
    }
    let ids = vec![ChunkId([1; 32]); 8];
    let node = Node { nodes: ids.clone(), data: ids, payload: bytes.to_vec() };
    if let Ok(top) = Top::decode(&node) {
        assert_eq!(Top::decode(&top.encode()).as_ref(), Ok(&top));
    }
});
