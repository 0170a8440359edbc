//! Volumes in a pool that is full of what they have overwritten, and in one that is full of what is needed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::thread;

use common::{Bed, Layout, Rng, small};
use strongroom_block::volume::{Limits, NewVolume, Volume};
use strongroom_block::{BlockDevice, Durability, Error};
use strongroom_engine::pool::{GcOptions, LetGo};

const LATER: Durability = Durability::Later;
const CHUNK: u64 = 65536;
const ONE_DISK: Layout = Layout { disks: 1, parity: 0, encrypted: false };
const EXACT: GcOptions = GcOptions { dry_run: false, max_unused: 0.0 };

fn noise(seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut bytes = vec![0; CHUNK as usize];
    bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
    bytes
}

fn write(volume: &Volume, chunk: u64, seed: u64) -> Result<(), Error> {
    volume.write_at(chunk * CHUNK, &noise(seed), LATER)
}

fn has(volume: &Volume, chunk: u64, seed: u64) -> bool {
    let mut bytes = vec![0; CHUNK as usize];
    volume.read_at(chunk * CHUNK, &mut bytes).unwrap();
    bytes == noise(seed)
}

#[test]
fn a_thin_volume_is_overwritten_many_times_the_size_of_its_pool() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 96;
    let mut bed = Bed::new(ONE_DISK, 1);
    bed.limits.segment = 256 << 10;
    bed.limits.log = 2 << 20;
    let volumes = bed.create();
    bed.world.disks()[0].set_capacity(64 << 20);
    let size = WRITERS * EACH * CHUNK;
    let id = volumes.create(NewVolume { chunk: CHUNK as u32, ..small("vol", size) }).unwrap();
    let volume = volumes.open(id).unwrap();
    // Several at once, each in places of its own: nobody is refused because another collects.
    let all: Vec<Vec<u64>> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let volume = &volume;
                scope.spawn(move || {
                    let mut rng = Rng(writer);
                    let mut model = vec![0; EACH as usize];
                    for number in 0..10 * EACH {
                        // First all of it, then anywhere.
                        let at = if number < EACH { number } else { rng.below(EACH) };
                        let seed = (writer << 32) + number + 1;
                        write(volume, writer * EACH + at, seed).unwrap();
                        model[at as usize] = seed;
                    }
                    model
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for (chunk, seed) in (0..).zip(all.concat()) {
        assert!(has(&volume, chunk, seed), "{chunk}");
    }
    let standing = volumes.pool().standing();
    assert!(standing.collections.urgent > 0, "{standing:?}");
    assert!(volumes.pool().take_urgent().unwrap().count > 0);
    drop((volume, volumes));
    let volumes = bed.open().unwrap();
    let volume = volumes.open(id).unwrap();
    for (chunk, seed) in (0..).zip(all.concat()) {
        assert!(has(&volume, chunk, seed), "{chunk}");
    }
}

#[test]
fn where_all_is_needed_refused_writes_do_not_collect_each() {
    let mut bed = Bed::new(ONE_DISK, 1);
    bed.limits.segment = 256 << 10;
    bed.limits.log = 2 << 20;
    let volumes = bed.create();
    bed.world.disks()[0].set_capacity(48 << 20);
    let new = |name| NewVolume { chunk: CHUNK as u32, ..small(name, 256 << 20) };
    let other = volumes.create(new("other")).unwrap();
    let opened = volumes.open(other).unwrap();
    (0..64).for_each(|chunk| write(&opened, chunk, chunk + 1).unwrap());
    opened.settle().unwrap();
    drop(opened);
    let volume = volumes.open(volumes.create(new("vol")).unwrap()).unwrap();
    let mut written = 0;
    let refused = loop {
        match write(&volume, written, written << 32) {
            Ok(()) => written += 1,
            Err(e) => break e,
        }
        assert!(written < 4096);
    };
    assert!(matches!(refused, Error::NoSpace), "{refused}");
    let collections = volumes.pool().standing().collections;
    assert!(collections.urgent > 0);
    for _ in 0..50 {
        assert!(matches!(write(&volume, written, 7), Err(Error::NoSpace)));
    }
    assert_eq!(volumes.pool().standing().collections, collections);
    // What is needed no more makes room again.
    volumes.remove(other).unwrap();
    volumes.pool().gc(EXACT).unwrap();
    write(&volume, written, 7).unwrap();
    (0..written).for_each(|chunk| assert!(has(&volume, chunk, chunk << 32), "{chunk}"));
}

#[test]
fn what_was_overwritten_is_counted_until_it_is_collected() {
    let mut bed = Bed::new(ONE_DISK, 1);
    bed.limits = Limits { segment: 1 << 20, log: 64 << 20, ..bed.limits };
    let volumes = bed.create();
    let id =
        volumes.create(NewVolume { chunk: CHUNK as u32, ..small("vol", 256 * CHUNK) }).unwrap();
    let volume = volumes.open(id).unwrap();
    let (pool, let_go) = (volumes.pool(), |roots, chunks| LetGo { roots, chunks });
    let fill = |chunks: std::ops::Range<u64>, seed: u64| {
        chunks.for_each(|chunk| write(&volume, chunk, seed + chunk).unwrap());
        volume.settle().unwrap();
    };
    fill(0..64, 1 << 32);
    // The volume's empty root was replaced, and no chunk.
    assert_eq!(pool.standing().let_go, let_go(1, 0));
    fill(16..32, 2 << 32);
    assert_eq!(pool.standing().let_go, let_go(2, 16));
    volume.discard(0, 8 * CHUNK).unwrap();
    fill(100..101, 3 << 32);
    assert_eq!(pool.standing().let_go, let_go(3, 24));
    // One that only looks changes nothing.
    let dry = pool.gc(GcOptions { dry_run: true, ..EXACT }).unwrap();
    assert!(dry.dead_chunks >= 24, "{dry:?}");
    assert_eq!(pool.standing().let_go, let_go(3, 24));
    assert_eq!(pool.standing().collections.count, 0);
    let report = pool.gc(EXACT).unwrap();
    assert!(report.bytes_freed() >= 20 * CHUNK, "{report:?}");
    let standing = pool.standing();
    assert_eq!((standing.let_go, standing.collections.count), (let_go(0, 0), 1));
    assert_eq!(standing.collections.bytes_freed, report.bytes_freed());
    // What is overwritten as a whole isn't read for that: a part of it may have been holes.
    fill(0..256, 4 << 32);
    let LetGo { roots, chunks } = pool.standing().let_go;
    assert!(roots == 1 && (57..=256).contains(&chunks), "{chunks}");
}
