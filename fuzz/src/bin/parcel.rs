//! What a client sends of its backup: ids that it asks for, and frames.
#![no_main]

use strongroom_archive::parcel::{self, Frames};
use strongroom_engine::pack::FrameCodec;

/// Longer frames are as good, and slower.
const MAX_RAW: usize = 1 << 16;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(pieces) = parcel::pieces(bytes) {
        assert!(pieces.iter().map(|piece| piece.len()).sum::<usize>() <= bytes.len());
    }
    if let Ok((kind, ids)) = parcel::ids(bytes) {
        assert_eq!(parcel::put_ids(kind, &ids), bytes);
    }
    let mut codec = FrameCodec::new(1);
    let mut raw = Vec::new();
    let mut frames = Frames::new(bytes);
    while let Ok(Some(frame)) = frames.take() {
        let mut again = Vec::new();
        frame.put(&mut again);
        assert_eq!(Frames::new(&again).take(), Ok(Some(frame.clone())));
        let told = FrameCodec::raw_len(frame.bytes);
        if told.is_some_and(|len| len <= MAX_RAW) && codec.decode(frame.bytes, &mut raw).is_ok() {
            assert_eq!(told, Some(raw.len()));
        }
    }
});
