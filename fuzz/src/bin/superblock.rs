//! The superblock: the first thing that is read of a disk.
#![no_main]

use strongroom_engine::disk::SimDisk;
use strongroom_engine::superblock::{FILE, Superblock};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let disk = SimDisk::new(1);
    if disk.write_raw(FILE, bytes).is_ok() {
        let _ = Superblock::read(&disk);
    }
});
