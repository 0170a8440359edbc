//! An archive that is to be restored: its structure, its manifest, its sums.
#![no_main]

use std::io::Cursor;

use strongroom_appliance::backup::Plan;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(plan) = Plan::read(&mut Cursor::new(bytes), bytes.len() as u64) {
        let manifest = plan.manifest();
        // What was taken lies within it, and nowhere else.
        let total: u64 = manifest.files.iter().map(|file| file.sealed_bytes).sum();
        assert!(total <= bytes.len() as u64);
        for file in &manifest.files {
            assert!(file.bytes < file.sealed_bytes);
            assert!(!file.path.starts_with('/') && !file.path.split('/').any(|part| part == ".."));
        }
    }
});
