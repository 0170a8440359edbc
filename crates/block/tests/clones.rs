//! Clones before they have a map of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Bed, LAYOUTS, Rng, small};
use strongroom_block::volume::{ROOT_KIND, Volume, Volumes};
use strongroom_block::{BlockDevice, Durability, Error};
use strongroom_engine::pool::{GcOptions, Meter};

const LATER: Durability = Durability::Later;
const SIZE: usize = 256 << 10;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut bytes = vec![0; length];
    bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
    bytes
}

fn read(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0xee; SIZE];
    device.read_at(0, &mut bytes).unwrap();
    bytes
}

fn by_name(volumes: &Volumes, name: &str) -> Arc<Volume> {
    let id = volumes.list().iter().find(|meta| meta.name == name).unwrap().volume;
    volumes.open(id).unwrap()
}

/// How many clones have no map.
fn bare(volumes: &Volumes) -> usize {
    let roots = volumes.pool().roots_of(ROOT_KIND);
    let without = roots.iter().filter(|root| root.nodes.is_empty()).count();
    assert_eq!(volumes.list().iter().filter(|meta| meta.parent.is_some()).count(), without);
    without
}

fn collect(volumes: &Volumes) -> u64 {
    let exact = GcOptions { dry_run: false, max_unused: 0.0 };
    volumes.pool().gc(exact).unwrap();
    volumes.pool().gc(exact).unwrap().live_chunks
}

#[test]
fn a_clone_is_there_without_settling_and_follows_its_snapshot() {
    for layout in LAYOUTS {
        let bed = Bed::new(layout, 1);
        let volumes = bed.create();
        let volume = volumes.open(volumes.create(small("vol", SIZE as u64)).unwrap()).unwrap();
        let (one, two) = (noise(1, SIZE), noise(2, SIZE));
        volume.write_at(0, &one[..SIZE / 2], LATER).unwrap();
        volume.settle().unwrap();
        volume.write_at(SIZE as u64 / 2, &one[SIZE / 2..], LATER).unwrap();
        let snapshot = volume.snapshot("one").unwrap();
        volume.write_at(0, &two, LATER).unwrap();
        let log = volume.log_bytes();
        let id = volumes.clone_snapshot(&volume, snapshot, "clone").unwrap();
        assert_eq!((volume.log_bytes(), bare(&volumes)), (log, 1));
        let clone = volumes.open(id).unwrap();
        assert!(read(&*clone) == one, "{layout:?}");
        clone.write_at(4096, &two[..4096], LATER).unwrap();
        let mut model = one.clone();
        model[4096..8192].copy_from_slice(&two[..4096]);
        let inner = clone.snapshot("inner").unwrap();
        clone.write_at(0, &two[..512], LATER).unwrap();
        // The volume below is settled, and what it had is collected.
        volume.settle().unwrap();
        volume.write_at(0, &one, LATER).unwrap();
        volume.settle().unwrap();
        collect(&volumes);
        assert_eq!(bare(&volumes), 1);
        assert!(read(&clone.snapshot_device(inner).unwrap()) == model);
        model[..512].copy_from_slice(&two[..512]);
        assert!(read(&*clone) == model);
        clone.flush().unwrap();
        drop((clone, volume, volumes));
        bed.world.power_cut(1);
        let volumes = bed.open().unwrap();
        let clone = volumes.open(id).unwrap();
        assert!(read(&*clone) == model, "{layout:?}");
        clone.settle().unwrap();
        assert_eq!(bare(&volumes), 0);
        volumes.remove(by_name(&volumes, "vol").volume_id()).unwrap();
        collect(&volumes);
        assert!(read(&*clone) == model, "{layout:?}");
        assert!(volumes.pool().check(true, &Meter::new()).unwrap().lost.is_empty());
    }
}

#[test]
fn a_snapshot_with_a_clone_is_deleted_at_once_and_goes_with_the_last() {
    let bed = Bed::new(LAYOUTS[1], 1);
    let volumes = bed.create();
    let volume = volumes.open(volumes.create(small("vol", SIZE as u64)).unwrap()).unwrap();
    let one = noise(1, SIZE);
    volume.write_at(0, &one, LATER).unwrap();
    let snapshot = volume.snapshot("one").unwrap();
    let device = volume.snapshot_device(snapshot).unwrap();
    for name in ["first", "second"] {
        volumes.clone_snapshot(&volume, snapshot, name).unwrap();
    }
    let log = volume.log_bytes();
    volume.delete_snapshot(snapshot).unwrap();
    assert!(volume.log_bytes() <= log + 8192);
    assert!(volume.snapshots().is_empty());
    assert!(matches!(device.read_at(0, &mut [0; 512]), Err(Error::Gone)));
    assert!(matches!(volume.delete_snapshot(snapshot), Err(Error::NotFound(_))));
    assert!(matches!(volume.roll_back(snapshot), Err(Error::NotFound(_))));
    let third = volumes.clone_snapshot(&volume, snapshot, "third");
    assert!(matches!(third, Err(Error::NotFound(_))), "{third:?}");
    // Its name is free.
    volume.write_at(0, &noise(2, SIZE), LATER).unwrap();
    let again = volume.snapshot("one").unwrap();
    volume.settle().unwrap();
    drop((device, volume, volumes));
    let volumes = bed.open().unwrap();
    let volume = by_name(&volumes, "vol");
    let names: Vec<String> = volume.snapshots().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["one"]);
    assert_eq!(volume.usage().unwrap().snapshots.len(), 1);
    assert!(read(&volume.snapshot_device(again).unwrap()) == noise(2, SIZE));
    let (first, second) = (by_name(&volumes, "first"), by_name(&volumes, "second"));
    assert!(read(&*first) == one && read(&*second) == one);
    first.settle().unwrap();
    assert_eq!(bare(&volumes), 1);
    let second = {
        let id = second.volume_id();
        drop(second);
        id
    };
    // The other one is removed; what they began with is the first one's alone.
    volumes.remove(second).unwrap();
    volume.write_at(0, &[7; 512], LATER).unwrap();
    volume.settle().unwrap();
    volumes.remove(first.volume_id()).unwrap();
    let chunks = SIZE as u64 / 4096;
    let live = collect(&volumes);
    assert!((chunks + 1..chunks + 10).contains(&live), "{live}");
}

#[test]
fn clones_of_clones_outlive_what_they_stand_on() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let mut below = volumes.create(small("v0", SIZE as u64)).unwrap();
    let mut model = vec![0; SIZE];
    let mut all = vec![below];
    for number in 1..=20u8 {
        let volume = volumes.open(below).unwrap();
        let at = usize::from(number) * 4096;
        volume.write_at(at as u64, &[number; 4096], LATER).unwrap();
        model[at..at + 4096].fill(number);
        let snapshot = volume.snapshot("s").unwrap();
        below = volumes.clone_snapshot(&volume, snapshot, &format!("v{number}")).unwrap();
        all.push(below);
    }
    // The eighth of them has those below it settled, too.
    assert!((1..=8).contains(&bare(&volumes)), "{}", bare(&volumes));
    drop(volumes);
    bed.world.power_cut(5);
    let volumes = bed.open().unwrap();
    let last = volumes.open(below).unwrap();
    assert!(read(&*last) == model);
    for id in &all[..20] {
        volumes.remove(*id).unwrap();
        assert!(read(&*last) == model);
    }
    assert_eq!((volumes.list().len(), bare(&volumes)), (1, 0));
    last.settle().unwrap();
    collect(&volumes);
    drop((last, volumes));
    let volumes = bed.open().unwrap();
    assert!(read(&*volumes.open(below).unwrap()) == model);
}

#[test]
fn a_clone_of_a_clone_follows_what_becomes_of_the_lowest() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let volume = volumes.open(volumes.create(small("v", SIZE as u64)).unwrap()).unwrap();
    let mut model = noise(1, SIZE);
    volume.write_at(0, &model, LATER).unwrap();
    volume.settle().unwrap();
    // Parts of chunks: what is around them is read from below.
    for at in (0..SIZE).step_by(8192) {
        volume.write_at(at as u64, &[7; 512], LATER).unwrap();
        model[at..at + 512].fill(7);
    }
    let snapshot = volume.snapshot("s").unwrap();
    let first = volumes.open(volumes.clone_snapshot(&volume, snapshot, "c1").unwrap()).unwrap();
    let snapshot = first.snapshot("s").unwrap();
    let mut settings = first.settings();
    // So that no cache has what is gone.
    settings.cache = false;
    let second = volumes.clone_with(&first, snapshot, "c2", settings).unwrap();
    let second = volumes.open(second).unwrap();
    volume.write_at(0, &noise(2, SIZE), LATER).unwrap();
    volume.settle().unwrap();
    collect(&volumes);
    assert!(read(&*second) == model);
    second.settle().unwrap();
    first.settle().unwrap();
    collect(&volumes);
    assert!(read(&*second) == model && read(&*first) == model);
}

#[test]
fn nothing_is_cloned_of_what_was_removed() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let id = volumes.create(small("v", SIZE as u64)).unwrap();
    let volume = volumes.open(id).unwrap();
    let snapshot = volume.snapshot("s").unwrap();
    volumes.remove(id).unwrap();
    let refused = volumes.clone_snapshot(&volume, snapshot, "c");
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    assert!(volumes.list().is_empty());
}

#[test]
fn clones_are_made_read_and_written_while_what_is_below_is_settled() {
    let bed = Bed::new(LAYOUTS[2], 1);
    let volumes = bed.create();
    let volume = volumes.open(volumes.create(small("vol", SIZE as u64)).unwrap()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (volumes, volume, done) = (&volumes, &volume, &done);
        let settling = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                volume.settle().unwrap();
            }
        });
        for round in 0..40u64 {
            let content = noise(round, SIZE);
            volume.write_at(0, &content, LATER).unwrap();
            let snapshot = volume.snapshot(&format!("s{round}")).unwrap();
            let id = volumes.clone_snapshot(volume, snapshot, &format!("c{round}")).unwrap();
            volume.delete_snapshot(snapshot).unwrap();
            volume.write_at(0, &noise(!round, SIZE), LATER).unwrap();
            let clone = volumes.open(id).unwrap();
            assert!(read(&*clone) == content, "{round}");
            clone.write_at(0, &[9; 512], LATER).unwrap();
            if round % 3 == 0 {
                clone.settle().unwrap();
            }
            let mut model = content;
            model[..512].fill(9);
            assert!(read(&*clone) == model, "{round}");
            if round % 2 == 0 {
                volumes.remove(id).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        settling.join().unwrap();
    });
    for meta in volumes.list() {
        let Some(round) = meta.name.strip_prefix('c') else { continue };
        let mut model = noise(round.parse().unwrap(), SIZE);
        model[..512].fill(9);
        assert!(read(&*volumes.open(meta.volume).unwrap()) == model, "{round}");
    }
}
