//! The superblock: the first thing that is read of a disk.
#![no_main]

use strongroom_engine::disk::SimDisk;
use strongroom_engine::superblock::{FILE, Superblock};
use strongroom_fuzz::put;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let disk = SimDisk::new(1);
    put(&disk, FILE, bytes);
    let _ = Superblock::read(&disk);
});
