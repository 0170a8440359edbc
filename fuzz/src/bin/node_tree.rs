//! Nodes: the references that everything follows.
#![no_main]

use strongroom_engine::node::Node;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = Node::decode(bytes) {
        assert_eq!(Node::decode(&node.encode()).as_ref(), Ok(&node));
    }
});
