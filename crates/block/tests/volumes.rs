//! Journeys of volumes on simulated disks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{Bed, LAYOUTS, Layout, small};
use strongroom_block::volume::{Limits, NewVolume, Volumes};
use strongroom_block::{BlockDevice, Content, Durability, Error, Extent, Zeroing};
use strongroom_engine::disk::Operation;
use strongroom_engine::id::{ChunkKind, RootId};
use strongroom_engine::map::{MapBuilder, MapRef, NodeStore};
use strongroom_engine::node::Node;
use strongroom_engine::pool::{GcOptions, Meter, NewRoot, Pool};

const LATER: Durability = Durability::Later;
const KIB: u64 = 1024;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = common::Rng(seed);
    let mut bytes = vec![0; length];
    bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
    bytes
}

fn read(device: &dyn BlockDevice, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    device.read_at(offset, &mut bytes).unwrap();
    bytes
}

fn log_files(bed: &Bed) -> usize {
    let disks = bed.world.disks();
    let files = disks.iter().flat_map(|disk| disk.files());
    files.filter(|(path, _)| path.starts_with("volumes/")).count()
}

#[test]
fn what_was_written_is_there_before_and_after_it_is_settled() {
    for layout in LAYOUTS {
        let bed = Bed::new(layout, 1);
        let volumes = bed.create();
        let id = volumes.create(small("vol", 1 << 20)).unwrap();
        let volume = volumes.open(id).unwrap();
        assert_eq!(read(&*volume, 0, 1 << 20), vec![0; 1 << 20]);
        let hole = Extent { offset: 0, length: 1 << 20, content: Content::Hole };
        assert_eq!(volume.extents(0, 1 << 20, 9).unwrap(), [hole]);
        let mut model = vec![0; 1 << 20];
        let long = noise(1, 300 * KIB as usize);
        for (offset, bytes) in [(10_240, &long[..]), (512, &long[..512]), (20_480, &long[..4096])] {
            volume.write_at(offset, bytes, LATER).unwrap();
            model[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        volume.write_zeroes(40_960, 8192 + 512, Zeroing::MayUnmap, LATER).unwrap();
        model[40_960..][..8704].fill(0);
        assert!(read(&*volume, 0, 1 << 20) == model, "{layout:?}");
        assert_eq!(volume.log_copies(), Some(usize::from(layout.parity) + 1));
        let done = volume.settle().unwrap();
        assert!(done.bytes > 290 * KIB, "{done:?}");
        assert_eq!((volume.log_bytes(), log_files(&bed)), (0, 0));
        assert_eq!(volume.settle().unwrap().bytes, 0);
        assert!(read(&*volume, 0, 1 << 20) == model, "{layout:?}");
        let holes = volume.extents(40_960, 8192, 9).unwrap();
        assert_eq!(holes, [Extent { offset: 40_960, length: 8192, content: Content::Hole }]);
        volume.write_at(4096, &long[..4096], LATER).unwrap();
        model[4096..8192].copy_from_slice(&long[..4096]);
        drop((volume, volumes));
        let volumes = bed.open().unwrap();
        assert_eq!(volumes.list().len(), 1);
        let volume = volumes.open(id).unwrap();
        assert!(Arc::ptr_eq(&volume, &volumes.open(id).unwrap()));
        assert!(read(&*volume, 0, 1 << 20) == model, "{layout:?}");
        assert!(volumes.pool().check(true, &Meter::new()).unwrap().lost.is_empty());
    }
}

#[test]
fn requests_out_of_bounds_are_refused() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let id = volumes.create(small("vol", 1 << 20)).unwrap();
    for bad in [
        small("vol", 1 << 20),
        small("", 1 << 20),
        small("a\nb", 1 << 20),
        small("odd", 1000),
        small("none", 0),
        NewVolume { chunk: 2048, ..small("chunk", 4096) },
        NewVolume { chunk: 12 << 10, ..small("chunk", 4096) },
        NewVolume { sector: 1024, ..small("sector", 4096) },
    ] {
        assert!(matches!(volumes.create(bad.clone()), Err(Error::Invalid(_))), "{bad:?}");
    }
    let volume = volumes.open(id).unwrap();
    assert!(matches!(volume.write_at(1 << 20, &[0; 512], LATER), Err(Error::OutOfRange { .. })));
    assert!(matches!(volume.write_at(1, &[0; 512], LATER), Err(Error::OutOfRange { .. })));
    assert!(matches!(volume.grow(512), Err(Error::Invalid(_))));
    volume.write_at(0, &[], LATER).unwrap();
    assert_eq!(volume.log_bytes(), 0);
    volumes.rename(id, "other").unwrap();
    volume.write_at(0, &[1; 512], LATER).unwrap();
    volume.settle().unwrap();
    assert_eq!((volume.name().as_str(), volumes.list()[0].name.as_str()), ("other", "other"));
    volumes.remove(id).unwrap();
    assert!(matches!(volume.write_at(0, &[1; 512], LATER), Err(Error::Failed(_))));
    assert!(matches!(volumes.open(id), Err(Error::NotFound(_))));
    assert!(volumes.list().is_empty() && log_files(&bed) == 0);
}

#[test]
fn snapshots_clones_and_rolling_back_are_exact_and_freed_with_the_last_of_them() {
    let bed = Bed::new(LAYOUTS[1], 1);
    let volumes = bed.create();
    let id = volumes.create(small("vol", 256 * KIB)).unwrap();
    let volume = volumes.open(id).unwrap();
    let size = 256 * KIB as usize;
    let (one, two) = (noise(1, size), noise(2, size));
    volume.write_at(0, &one, LATER).unwrap();
    let first = volume.snapshot("first").unwrap();
    assert!(matches!(volume.snapshot("first"), Err(Error::Invalid(_))));
    volume.write_at(0, &two[..size / 2], LATER).unwrap();
    let device = volume.snapshot_device(first).unwrap();
    assert!(read(&device, 0, size) == one);
    assert!(matches!(device.write_at(0, &[0; 512], LATER), Err(Error::ReadOnly)));
    // Of one that isn't settled yet, and of a clone.
    let clone = volumes.clone_snapshot(&volume, first, "clone").unwrap();
    let clone = volumes.open(clone).unwrap();
    assert!(read(&*clone, 0, size) == one);
    clone.write_at(0, &[7; 4096], LATER).unwrap();
    let inner = clone.snapshot("inner").unwrap();
    let again = volumes.open(volumes.clone_snapshot(&clone, inner, "again").unwrap()).unwrap();
    assert_eq!(read(&*again, 0, 4096), [7; 4096]);
    assert!(read(&*again, 4096, size - 4096) == one[4096..]);
    assert!(read(&*volume, 0, size / 2) == two[..size / 2]);
    volume.settle().unwrap();
    let usage = volume.usage().unwrap();
    assert_eq!(usage.volume, size as u64);
    assert_eq!(usage.snapshots, [(first, size as u64 / 2)]);
    volume.grow(512 * KIB).unwrap();
    volume.roll_back(first).unwrap();
    assert!(read(&*volume, 0, size) == one);
    assert_eq!(read(&*volume, size as u64, size), vec![0; size]);
    volume.delete_snapshot(first).unwrap();
    assert!(matches!(device.read_at(0, &mut [0; 512]), Err(Error::Gone)));
    volume.settle().unwrap();
    for one in [&clone, &again] {
        volumes.remove(one.volume_id()).unwrap();
    }
    let exact = GcOptions { dry_run: false, max_unused: 0.0 };
    volumes.pool().gc(exact).unwrap();
    let report = volumes.pool().gc(exact).unwrap();
    let chunks = size as u64 / 4096;
    assert_eq!(report.dead_chunks, 0);
    assert!((chunks..chunks + 8).contains(&report.live_chunks), "{report:?}");
    assert!(read(&*volume, 0, size) == one);
}

/// A volume that was rolled back has its snapshot's map, and may be larger.
#[test]
fn snapshots_keep_their_size_when_the_volume_is_larger_and_rolled_back() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let volume = volumes.open(volumes.create(small("vol", 64 * KIB)).unwrap()).unwrap();
    volume.write_at(0, &[1; 4096], LATER).unwrap();
    let small = volume.snapshot("small").unwrap();
    volume.grow(128 * KIB).unwrap();
    volume.roll_back(small).unwrap();
    let large = volume.snapshot("large").unwrap();
    volume.write_at(100 * KIB, &[2; 4096], LATER).unwrap();
    volume.settle().unwrap();
    for (id, size) in [(small, 64 * KIB), (large, 128 * KIB)] {
        let clone = volumes.clone_snapshot(&volume, id, &id.to_string()).unwrap();
        let clone = volumes.open(clone).unwrap();
        assert_eq!(clone.geometry().size, size);
        let mut model = vec![0; size as usize];
        model[..4096].fill(1);
        assert!(read(&*clone, 0, size as usize) == model);
        assert!(read(&volume.snapshot_device(id).unwrap(), 0, size as usize) == model);
    }
    assert_eq!(read(&*volume, 100 * KIB, 4096), [2; 4096]);
    volume.roll_back(small).unwrap();
    volume.settle().unwrap();
    assert_eq!(read(&*volume, 100 * KIB, 4096), [0; 4096]);
    assert_eq!(volume.geometry().size, 128 * KIB);
}

#[test]
fn opening_may_be_cut_off_anywhere() {
    for layout in [LAYOUTS[0], LAYOUTS[1]] {
        let bed = Bed::new(layout, 1);
        let volumes = bed.create();
        let id = volumes.create(small("vol", 256 * KIB)).unwrap();
        let volume = volumes.open(id).unwrap();
        let content = noise(5, 200 * KIB as usize);
        volume.write_at(0, &content, Durability::Now).unwrap();
        drop((volume, volumes));
        let before = bed.world.snapshot();
        let begin = bed.world.ops();
        drop(bed.open().unwrap().open(id).unwrap());
        for op in begin..bed.world.ops() {
            for kill in [true, false] {
                bed.world.restore(&before);
                bed.world.set_crash_at(op);
                drop(bed.open().and_then(|volumes| volumes.open(id)));
                match kill {
                    true => bed.world.kill(),
                    false => bed.world.power_cut(op),
                }
                let volumes = bed.open().unwrap();
                let volume = volumes.open(id).unwrap();
                assert!(read(&*volume, 0, content.len()) == content, "{layout:?} {op} {kill}");
            }
        }
    }
}

/// A backup of an image, cut into pieces of that length.
fn backup(pool: &Pool, image: &[u8], piece: usize) -> (MapRef, RootId) {
    let session = pool.session().unwrap();
    let mut builder = MapBuilder::new();
    for piece in image.chunks(piece) {
        let mut ids = Vec::new();
        session.store(ChunkKind::Data, &[piece], &mut ids).unwrap();
        let len = piece.len() as u32;
        builder.push(&session, strongroom_engine::map::Extent::Data { id: ids[0], len }).unwrap();
    }
    let map = builder.finish(&session).unwrap();
    let holder = Node { nodes: vec![], data: map.ids().collect(), payload: vec![] };
    let (node, _) = session.put_node(&holder).unwrap();
    let root = NewRoot {
        id: RootId::random(),
        kind: 1,
        name: "image".into(),
        immutable_for: None,
        nodes: vec![node],
        meta: vec![],
    };
    (map, session.commit(root).unwrap().id)
}

#[test]
fn what_replaces_extents_of_another_length_is_stored_once() {
    const PIECE: usize = 100_000;
    const CHUNK: usize = 65536;
    let mut bed = Bed::new(LAYOUTS[0], 1);
    bed.limits = Limits { log: 64 << 20, ..bed.limits };
    let volumes = bed.create();
    let (map, root) = backup(volumes.pool(), &noise(3, 50 * PIECE), PIECE);
    let new = NewVolume { chunk: CHUNK as u32, ..small("over", 8 << 20) };
    let volume = volumes.open(volumes.create_over(new, map, root).unwrap()).unwrap();
    // Not where any of them begins, and more than is settled without threads.
    let (from, length): (usize, usize) = (200 * 512, 3 << 20);
    volume.write_at(from as u64, &noise(4, length), LATER).unwrap();
    let chunks = from / CHUNK * CHUNK..(from + length).next_multiple_of(CHUNK);
    let touched = chunks.end.next_multiple_of(PIECE) - chunks.start / PIECE * PIECE;
    assert_eq!(volume.settle().unwrap().bytes, touched as u64);
}

#[test]
fn a_volume_over_an_image_has_its_content_and_leaves_it_alone() {
    let bed = Bed::new(LAYOUTS[2], 1);
    let volumes = bed.create();
    let pool = Arc::clone(volumes.pool());
    // Cut elsewhere than the volume's chunks are.
    let image = noise(3, 100_000);
    let (map, root) = backup(&pool, &image, 7777);
    let new = |size| NewVolume { chunk: 16384, ..small("over", size) };
    assert!(volumes.create_over(new(99_840), map.clone(), root).is_err());
    let id = volumes.create_over(new(100_352), map.clone(), root).unwrap();
    pool.forget(&[root]).unwrap();
    pool.gc(GcOptions { dry_run: false, max_unused: 0.0 }).unwrap();
    let volume = volumes.open(id).unwrap();
    let mut model = image.clone();
    model.resize(100_352, 0);
    assert!(read(&*volume, 0, model.len()) == model);
    volume.write_at(51_200, &[5; 1024], LATER).unwrap();
    model[51_200..][..1024].fill(5);
    assert!(read(&*volume, 0, model.len()) == model);
    volume.settle().unwrap();
    assert!(read(&*volume, 0, model.len()) == model);
    drop((volume, volumes, pool));
    let volumes = bed.open().unwrap();
    assert!(read(&*volumes.open(id).unwrap(), 0, model.len()) == model);
}

#[test]
fn a_disk_that_fails_or_is_away_takes_nothing_with_it() {
    for layout in LAYOUTS.into_iter().filter(|layout| layout.parity > 0) {
        for lost in 0..layout.disks {
            let bed = Bed::new(layout, 1);
            let volumes = bed.create();
            let id = volumes.create(small("vol", 512 * KIB)).unwrap();
            let volume = volumes.open(id).unwrap();
            let content = noise(lost as u64, 512 * KIB as usize);
            let half = content.len() / 2;
            volume.write_at(0, &content[..half / 2], LATER).unwrap();
            volume.settle().unwrap();
            volume.write_at(half as u64 / 2, &content[half / 2..half], LATER).unwrap();
            volume.flush().unwrap();
            bed.world.disks()[lost].set_lost(true);
            for (n, part) in content[half..].chunks(8192).enumerate() {
                volume.write_at((half + n * 8192) as u64, part, LATER).unwrap();
            }
            volume.flush().unwrap();
            assert!(read(&*volume, 0, content.len()) == content, "{layout:?} {lost}");
            assert!(!volume.take_notices().is_empty());
            drop((volume, volumes));
            bed.world.power_cut(1);
            let volumes = bed.open_without(&[lost]).unwrap();
            let volume = volumes.open(id).unwrap();
            assert!(read(&*volume, 0, content.len()) == content, "{layout:?} {lost}");
            volume.write_at(0, &[9; 512], LATER).unwrap();
            drop((volume, volumes));
            // The disk comes back with what it had: that is of another run.
            bed.world.disks()[lost].set_lost(false);
            let volumes = bed.open().unwrap();
            let volume = volumes.open(id).unwrap();
            assert_eq!(read(&*volume, 0, 512), [9; 512]);
            assert!(read(&*volume, 512, content.len() - 512) == content[512..]);
            let all = usize::from(layout.parity) + 1;
            volume.write_at(0, &[8; 512], LATER).unwrap();
            assert_eq!(volume.log_copies(), Some(all));
        }
    }
}

#[test]
fn without_a_copy_that_can_be_written_nothing_is_acknowledged_and_nothing_lost() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let id = volumes.create(small("vol", 64 * KIB)).unwrap();
    let volume = volumes.open(id).unwrap();
    volume.write_at(0, &[1; 4096], Durability::Now).unwrap();
    bed.world.set_error_rate(Operation::Write, 1);
    assert!(matches!(volume.write_at(0, &[2; 4096], LATER), Err(Error::Failed(_))));
    bed.world.clear_faults();
    assert!(matches!(volume.write_at(0, &[2; 4096], LATER), Err(Error::Failed(_))));
    assert!(matches!(volume.flush(), Err(Error::Failed(_))));
    assert_eq!(read(&*volume, 0, 4096), [1; 4096]);
    drop((volume, volumes));
    let volumes = bed.open().unwrap();
    let volume = volumes.open(id).unwrap();
    let there = read(&*volume, 0, 4096);
    assert!(there == [1; 4096] || there == [2; 4096]);
    // Nor when it can't be made durable.
    bed.world.set_error_rate(Operation::Sync, 1);
    assert!(matches!(volume.write_at(0, &[3; 512], Durability::Now), Err(Error::Failed(_))));
    bed.world.clear_faults();
    assert!(matches!(volume.write_at(0, &[3; 512], LATER), Err(Error::Failed(_))));
}

#[test]
fn long_records_that_are_bad_in_one_copy_are_read_from_another() {
    let mut bed = Bed::new(LAYOUTS[1], 1);
    bed.limits = Limits { segment: 4 << 20, log: 64 << 20, ..bed.limits };
    let volumes = bed.create();
    let volume = volumes.open(volumes.create(small("vol", 1 << 20)).unwrap()).unwrap();
    let written = noise(5, 1 << 20);
    volume.write_at(0, &written, Durability::Now).unwrap();
    assert_eq!(volume.log_copies(), Some(2));
    for (disk, at) in bed.world.disks().iter().zip([300_000, 700_000]) {
        let files = disk.files();
        let (path, _) = files.iter().find(|(path, _)| path.starts_with("volumes/")).unwrap();
        disk.flip_bit(path, at, 3).unwrap();
        assert!(read(&*volume, 0, written.len()) == written, "bad at {at}");
    }
}

#[test]
fn a_volume_whose_log_failed_keeps_nothing_that_others_need() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let [failed, other] = ["failed", "other"].map(|name| {
        let id = volumes.create(small(name, 64 * KIB)).unwrap();
        volumes.open(id).unwrap()
    });
    bed.world.set_error_rate(Operation::Write, 1);
    assert!(matches!(failed.write_at(0, &[2; 4096], LATER), Err(Error::Failed(_))));
    bed.world.clear_faults();
    let (told, heard) = std::sync::mpsc::channel();
    // By themselves, since who finds no buffer waits for one.
    std::thread::spawn(move || {
        for _ in 0..100 {
            assert!(matches!(failed.write_at(0, &[2; 4096], LATER), Err(Error::Failed(_))));
        }
        told.send(other.write_at(0, &[3; 4096], LATER)).unwrap();
    });
    heard.recv_timeout(std::time::Duration::from_secs(60)).unwrap().unwrap();
}

#[test]
fn damage_in_what_was_durable_is_told_and_not_cut_off() {
    for layout in [LAYOUTS[0], LAYOUTS[1]] {
        let bed = Bed::new(layout, 1);
        let volumes = bed.create();
        let id = volumes.create(small("vol", 64 * KIB)).unwrap();
        let volume = volumes.open(id).unwrap();
        for n in 0..5 {
            volume.write_at(n * 512, &[n as u8 + 1; 512], Durability::Now).unwrap();
        }
        drop((volume, volumes));
        let before = bed.world.snapshot();
        // Of the third record, in one copy after the other.
        for disk in bed.world.disks() {
            let files = disk.files();
            let (path, _) = files.iter().find(|(path, _)| path.starts_with("volumes/")).unwrap();
            disk.flip_bit(path, 3 * 4096 + 100, 3).unwrap();
            let is_last = disk.index() + 1 == layout.disks;
            let snapshot = bed.world.snapshot();
            let volumes = bed.open().unwrap();
            match volumes.open(id) {
                Ok(volume) => {
                    assert!(!is_last);
                    assert_eq!(read(&*volume, 1024, 512), [3; 512]);
                }
                Err(Error::Failed(why)) => assert!(is_last && why.contains("damaged"), "{why}"),
                Err(e) => panic!("{e}"),
            }
            drop(volumes);
            bed.world.restore(&snapshot);
        }
        // The last record can't be told from one that was cut off.
        bed.world.restore(&before);
        let volumes = bed.open().unwrap();
        assert_eq!(read(&*volumes.open(id).unwrap(), 4 * 512, 512), [5; 512]);
    }
}

#[test]
fn a_full_pool_refuses_writes_while_it_can_still_settle() {
    let layout = Layout { disks: 1, parity: 0, encrypted: false };
    let mut bed = Bed::new(layout, 1);
    bed.limits = Limits { segment: 256 << 10, log: 64 << 20, ..bed.limits };
    let volumes = bed.create();
    let id = volumes.create(NewVolume { chunk: 16384, ..small("vol", 256 << 20) }).unwrap();
    bed.world.disks()[0].set_capacity(48 << 20);
    let volume = volumes.open(id).unwrap();
    let mut written = 0u64;
    let refused = loop {
        let bytes = noise(written, 4096);
        match volume.write_at(written * 16384, &bytes, LATER) {
            Ok(()) => written += 1,
            Err(e) => break e,
        }
        assert!(written < 16384);
    };
    assert!(matches!(refused, Error::NoSpace), "{refused}");
    assert!(written > 100, "{written}");
    volume.flush().unwrap();
    volume.settle().unwrap();
    for n in 0..written {
        assert!(read(&*volume, n * 16384, 4096) == noise(n, 4096), "{n}");
    }
    drop((volume, volumes));
    let volumes = bed.open().unwrap();
    let volume = volumes.open(id).unwrap();
    assert!(read(&*volume, 0, 4096) == noise(0, 4096));
}

#[test]
fn discarding_a_huge_volume_costs_nothing() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let id = volumes.create(small("vol", 1 << 50)).unwrap();
    bed.world.disks()[0].set_capacity(64 << 20);
    let volume = volumes.open(id).unwrap();
    volume.write_at(1 << 40, &[1; 4096], LATER).unwrap();
    volume.write_at((1 << 40) + 8192, &[2; 4096], LATER).unwrap();
    volume.settle().unwrap();
    volume.discard(512, (1 << 40) + 8192).unwrap();
    volume.write_at(1 << 30, &[3; 512], LATER).unwrap();
    volume.discard(1 << 41, (1 << 50) - (1 << 41)).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&*volume, 1 << 40, 4096), [0; 4096]);
        assert_eq!(read(&*volume, (1 << 40) + 8192, 1024), [[0; 512], [2; 512]].concat());
        assert_eq!(read(&*volume, 1 << 30, 512), [3; 512]);
        volume.settle().unwrap();
    }
    assert_eq!(volume.usage().unwrap().volume, 8192);
}

#[test]
fn a_log_that_is_long_is_settled_by_who_writes() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes: Volumes = bed.create();
    let id = volumes.create(small("vol", 1 << 20)).unwrap();
    let volume = volumes.open(id).unwrap();
    for n in 0..600u64 {
        volume.write_at(n * 4096 % (1 << 20), &noise(n, 4096), LATER).unwrap();
        assert!(volume.log_bytes() <= bed.limits.log, "{}", volume.log_bytes());
    }
    for n in 400..600u64 {
        assert!(read(&*volume, n * 4096 % (1 << 20), 4096) == noise(n, 4096));
    }
}

#[test]
fn threads_write_flush_and_read_at_once() {
    const AT: u64 = 1 << 20;
    let bed = Bed::new(LAYOUTS[1], 1);
    let volumes = bed.create();
    let id = volumes.create(small("vol", AT + 512)).unwrap();
    let volume = volumes.open(id).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let volume = &volume;
            scope.spawn(move || {
                let base = thread * (256 << 10);
                for n in 0..150u64 {
                    let offset = base + n * 7 % 64 * 4096;
                    let bytes = noise(thread << 32 | n, 4096);
                    volume.write_at(offset, &bytes, LATER).unwrap();
                    if n % 13 == 0 {
                        volume.flush().unwrap();
                    }
                    if n % 50 == thread {
                        volume.settle().unwrap();
                    }
                    assert!(read(&**volume, offset, 4096) == bytes);
                    // All count one counter up.
                    loop {
                        let old = read(&**volume, AT, 512);
                        let mut new = old.clone();
                        let count = u64::from_le_bytes(*old.first_chunk().unwrap()) + 1;
                        new[..8].copy_from_slice(&count.to_le_bytes());
                        if volume.compare_and_write(AT, &old, &new, LATER).unwrap().is_none() {
                            break;
                        }
                    }
                }
            });
        }
    });
    let last = read(&*volume, AT, 512);
    assert_eq!(u64::from_le_bytes(*last.first_chunk().unwrap()), 600);
}
