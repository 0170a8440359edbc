//! The chunker: every kernel cuts at the same places, and within the limits.
#![no_main]

use strongroom_engine::chunker::{Chunker, Kernel, Params};
use strongroom_engine::codec::Reader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Params::decode(&mut Reader::new(bytes));
    let Ok(params) = Params::new(4096, 16384, 65536, 4096) else { return };
    // Inputs are short: what they hold is repeated, so that there are boundaries to find.
    let repeated = bytes.repeat(1 + (200_000 / (bytes.len() + 1)).min(4096));
    let mut expected: Option<Vec<usize>> = None;
    for kernel in Kernel::available() {
        let mut cuts = Vec::new();
        Chunker::with_kernel(params, kernel).cuts(&repeated, true, &mut cuts);
        assert_eq!(cuts.last().copied().unwrap_or(0), repeated.len());
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        for (start, end) in starts.zip(&cuts) {
            assert!(start < *end && end - start <= 65536);
        }
        assert_eq!(expected.get_or_insert_with(|| cuts.clone()), &cuts);
    }
});
