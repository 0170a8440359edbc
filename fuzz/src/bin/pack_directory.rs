//! The directory and the footer of a pack.
#![no_main]

use strongroom_engine::pack::{Directory, FOOTER_LEN, Footer};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(directory) = Directory::decode(bytes) {
        assert_eq!(Directory::decode(&directory.encode()).as_ref(), Ok(&directory));
        let _ = directory.chunks();
    }
    if let Some(last) = bytes.last_chunk::<FOOTER_LEN>()
        && let Ok(footer) = Footer::decode(last, bytes.len() as u64, "a pack")
    {
        assert!(u64::from(footer.offset) + u64::from(footer.len) <= bytes.len() as u64);
        assert_eq!(&footer.encode(), last);
    }
});
