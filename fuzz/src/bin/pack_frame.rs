//! Frames: what was compressed.
#![no_main]

use strongroom_engine::compress::Effort;
use strongroom_engine::pack::{FrameCodec, MAX_FRAME};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut codec = FrameCodec::new(1);
    let mut raw = Vec::new();
    if codec.decode(bytes, &mut raw).is_ok() {
        assert!(raw.len() <= MAX_FRAME);
    }
    let (mut frame, mut back) = (Vec::new(), Vec::new());
    for effort in [Effort::Usual, Effort::More] {
        codec.encode(bytes, effort, &mut frame);
        assert!(codec.decode(&frame, &mut back).is_ok());
        assert_eq!(back, bytes);
    }
});
