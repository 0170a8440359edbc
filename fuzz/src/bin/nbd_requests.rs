//! What a client of NBD asks for once it uses an export: the first byte says what was agreed upon and how
//! the bytes are cut, the rest are requests.
#![no_main]

use std::sync::Arc;

use strongroom_block::testing::MemoryDevice;
use strongroom_block::{BlockDevice, Durability};
use strongroom_nbd::exchange::exchange;
use strongroom_nbd::request::{Header, Terms};

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Every reply is whole; structured ones end with a chunk that says so.
fn replies_are_whole(mut bytes: &[u8]) {
    let mut is_done = true;
    while !bytes.is_empty() {
        bytes = match number(&bytes[..4]) {
            0x6744_6698 => &bytes[16..],
            magic => {
                assert_eq!(magic, 0x668e_33ef);
                is_done = bytes[5] == 1;
                &bytes[20 + number(&bytes[16..20]) as usize..]
            }
        };
    }
    assert!(is_done);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, requests)) = bytes.split_first() else { return };
    let terms = Terms {
        structured: first & 1 != 0,
        block_status: first & 3 == 3,
        read_only: first & 4 != 0,
    };
    // Small, so that what is read doesn't fill the memory.
    let device = Arc::new(MemoryDevice::new(256 << 10));
    device.write_at(64 << 10, &[7; 8192], Durability::Later).expect("it is within");
    let _ = requests.first_chunk().map(|header| Header::parse(header));
    let requests = &requests[..requests.len().min(28 * 64)];
    let shared: Arc<dyn BlockDevice> = Arc::<MemoryDevice>::clone(&device);
    let (replies, end) = exchange(shared, terms, requests, usize::from(first >> 3) * 7 + 1);
    if terms.structured {
        replies_are_whole(&replies);
    }
    let whole = Arc::new(MemoryDevice::new(256 << 10));
    whole.write_at(64 << 10, &[7; 8192], Durability::Later).expect("it is within");
    let shared: Arc<dyn BlockDevice> = Arc::<MemoryDevice>::clone(&whole);
    let (again, end_again) = exchange(shared, terms, requests, usize::MAX);
    assert!(replies == again && end == end_again, "it hangs on how the bytes are cut");
    if terms.read_only {
        assert_eq!(device.extents(0, 256 << 10, 9).expect("it is within").len(), 3);
    }
});
