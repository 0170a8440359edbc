//! Numbers and strings, read in an order that the input itself chooses.
#![no_main]

use strongroom_engine::codec::Reader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    while let Ok(step) = reader.byte() {
        let left = reader.rest().len();
        let ended = match step % 6 {
            0 => reader.uint().is_err(),
            1 => reader.uint32().is_err(),
            2 => reader.int().is_err(),
            3 => reader.bytes().is_err(),
            4 => reader.array::<16>().is_err(),
            _ => reader.count(32).is_ok_and(|n| n * 32 > left),
        };
        assert!(reader.rest().len() <= left);
        if ended {
            break;
        }
    }
    let _ = reader.end();
});
