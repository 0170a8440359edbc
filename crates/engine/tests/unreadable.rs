//! What can't be read is not what isn't there: errors of disks that pass give nothing up, write
//! nothing over and hide nothing in silence.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{
    AWAY, Bed, EXACT, LONG, Layout, Model, Pending, UNREAD, back_up, check_roots, compare,
    new_root, root_id, verify,
};
use strongroom_engine::disk::{Disk, Fault, Operation, SimDisk};
use strongroom_engine::error::Error;
use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::node::Node;
use strongroom_engine::pool::{Meter, NewRoot, OpenMode, OpenOptions, Pool, ScrubOptions};

/// A pool with one image.
fn scene(layout: Layout) -> (Bed, Model) {
    let bed = Bed::new(layout, 3);
    let pool = bed.create().unwrap();
    let image: Vec<u64> = (0..20).chain(LONG..LONG + 4).collect();
    let root = back_up(&pool, 0, &image, None).unwrap();
    let model = Model { images: [(root.id, image)].into(), next: 1, ..Model::default() };
    drop(pool);
    (bed, model)
}

fn error(operation: Operation, of: &str) -> Fault {
    Fault::io_error(operation, of).forever()
}

/// The pack of data on a disk that has most, and its content.
fn largest(disk: &SimDisk) -> (String, Vec<u8>) {
    let packs = disk.files().into_iter().filter(|(path, _)| path.starts_with("packs/"));
    let (path, _) = packs.max_by_key(|(_, len)| *len).unwrap();
    let content = disk.read_raw(&path).unwrap();
    (path, content)
}

fn remove_below(disk: &SimDisk, dir: &str) {
    for (path, _) in disk.files().into_iter().filter(|(path, _)| path.starts_with(dir)) {
        disk.remove(&path).unwrap();
    }
}

/// Takes from the largest pack its directory, which is in the last unit, whose sum goes; and from
/// the pool its index. The pack as it was.
fn lose_directory(disk: &SimDisk) -> (String, Vec<u8>) {
    let (path, content) = largest(disk);
    disk.write_raw(&path, &[&content[..content.len() - 4096], &[0; 4096]].concat()).unwrap();
    remove_below(disk, "index/");
    (path, content)
}

fn without_index(bed: &Bed) -> Pool {
    let options = OpenOptions { without_index: true, ..bed.options(OpenMode::Write, 0) };
    Pool::open(options, bed.used(0)).unwrap()
}

#[test]
fn an_index_is_not_built_of_what_could_not_be_read() {
    for layout in [Layout::new(1, 0, false), Layout::new(1, 0, true), Layout::new(2, 1, true)] {
        for of_index in [Operation::Open, Operation::Read] {
            let (bed, mut model) = scene(layout);
            let pool = without_index(&bed);
            bed.world.inject(error(Operation::Read, "packs/"));
            bed.world.inject(error(of_index, "index/"));
            let refused = pool.rebuild_index(&Meter::new()).unwrap_err();
            assert!(matches!(refused, Error::Io { .. }), "{refused}");
            // The old index would do, but is not read whole.
            drop(pool);
            bed.world.clear_faults();
            let pool = without_index(&bed);
            bed.world.inject(error(Operation::Read, "packs/"));
            assert!(pool.rebuild_index(&Meter::new()).unwrap() > 0);
            drop(pool);
            bed.world.clear_faults();
            verify(&bed, &mut model, &Pending::Nothing).unwrap();
        }
    }
}

#[test]
fn an_index_whose_loss_is_for_good_does_not_stop_it_from_being_built() {
    let (bed, mut model) = scene(Layout::new(1, 0, false));
    let disk = &bed.world.disks()[0];
    let (path, content) = lose_directory(disk);
    let pool = without_index(&bed);
    pool.rebuild_index(&Meter::new()).unwrap();
    let notices = pool.take_notices().join("; ");
    assert!(notices.contains("may be lost with it"), "{notices}");
    // Nothing in the pack looks alive, but what the image lacks may be in it.
    let report = pool.gc(EXACT).unwrap();
    assert!(report.missing_chunks > 0 && report.packs_removed == 0, "{report:?}");
    drop(pool);
    disk.write_raw(&path, &content).unwrap();
    without_index(&bed).rebuild_index(&Meter::new()).unwrap();
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

#[test]
fn an_index_is_not_built_without_a_pack_that_only_the_disk_could_tell_of() {
    let (bed, mut model) = scene(Layout::new(1, 0, false));
    let disk = &bed.world.disks()[0];
    remove_below(disk, "index/");
    let (path, _) = largest(disk);
    let pool = without_index(&bed);
    bed.world.inject(error(Operation::Read, &path));
    let refused = pool.rebuild_index(&Meter::new()).unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    drop(pool);
    bed.world.clear_faults();
    without_index(&bed).rebuild_index(&Meter::new()).unwrap();
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

/// The directory of a pack and the index are unreadable for good: the pool can be used without them,
/// and what it lacks then comes back with them.
#[test]
fn what_an_index_can_not_be_made_of_can_be_moved_away() {
    for is_lost in [false, true] {
        let (bed, mut model) = scene(Layout::new(1, 0, false));
        let disk = &bed.world.disks()[0];
        let (pack, _) = largest(disk);
        bed.world.inject(error(Operation::Read, &pack));
        if is_lost {
            remove_below(disk, "index/");
        }
        let segments = disk.files().into_iter().filter(|(path, _)| path.starts_with("index/"));
        let segments: Vec<String> = segments.map(|(path, _)| path).collect();
        segments.iter().for_each(|path| bed.world.inject(error(Operation::Read, path)));
        let refused = bed.open(OpenMode::Write).unwrap_err().to_string();
        assert!(refused.contains("pool repair --rebuild-index"), "{refused}");
        // It says what is in the way, one after the other.
        for path in segments.iter().chain([&pack]) {
            let refused = without_index(&bed).rebuild_index(&Meter::new()).unwrap_err().to_string();
            let (named, _) = path.split_once('.').unwrap_or((path, ""));
            assert!(refused.contains("move it elsewhere"), "{refused}");
            assert!(refused.contains(named), "{refused}");
            disk.rename(path, &format!("moved.{}", path.replace('/', "."))).unwrap();
        }
        without_index(&bed).rebuild_index(&Meter::new()).unwrap();
        let pool = bed.write();
        let report = pool.gc(EXACT).unwrap();
        assert!(report.missing_chunks > 0 && report.packs_removed == 0, "{report:?}");
        assert!(!pool.check(true, &Meter::new()).unwrap().is_clean());
        drop(pool);
        bed.world.clear_faults();
        disk.rename(&format!("moved.{}", pack.replace('/', ".")), &pack).unwrap();
        remove_below(disk, "moved.");
        without_index(&bed).rebuild_index(&Meter::new()).unwrap();
        verify(&bed, &mut model, &Pending::Nothing).unwrap();
    }
}

#[test]
fn a_collection_keeps_packs_with_chunks_that_the_index_lacks() {
    let (bed, mut model) = scene(Layout::new(1, 0, false));
    let disk = &bed.world.disks()[0];
    // It is away for as long as the index is made without it.
    let (path, content) = lose_directory(disk);
    let pool = without_index(&bed);
    pool.rebuild_index(&Meter::new()).unwrap();
    pool.take_notices();
    disk.write_raw(&path, &content).unwrap();
    let report = pool.gc(EXACT).unwrap();
    assert!(report.missing_chunks > 0 && report.packs_removed == 0, "{report:?}");
    let notices = pool.take_notices().join("; ");
    assert!(notices.contains("pool repair --rebuild-index"), "{notices}");
    pool.rebuild_index(&Meter::new()).unwrap();
    drop(pool);
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

/// References are looked up in batches, and the same may be missing in each.
#[test]
fn a_chunk_that_is_missing_twice_does_not_stop_a_collection() {
    let bed = Bed::new(Layout::new(1, 0, false), 3);
    let pool = bed.create().unwrap();
    let garbage: Vec<u64> = (LONG..LONG + 20).collect();
    back_up(&pool, 0, &garbage, None).unwrap();
    let session = pool.session().unwrap();
    let mut nodes = Vec::new();
    for payload in [b"one", b"two"] {
        let data = vec![ChunkId([9; 32]); 1 << 15];
        let node = Node { nodes: Vec::new(), data, payload: payload.to_vec() };
        session.store(ChunkKind::Node, &[&node.encode()], &mut nodes).unwrap();
    }
    session.commit(NewRoot { nodes, ..new_root(1, ChunkId([0; 32]), None) }).unwrap();
    pool.forget(&[root_id(0)]).unwrap();
    let report = pool.gc(EXACT).unwrap();
    assert_eq!(report.missing_chunks, 1);
    assert!(report.packs_removed > 0 && report.bytes_unused == 0, "{report:?}");
}

#[test]
fn what_can_not_be_read_is_not_given_up() {
    for layout in [Layout::new(1, 0, false), Layout::new(1, 0, true), Layout::new(2, 1, true)] {
        for fails in [Operation::Read, Operation::Open] {
            let (bed, mut model) = scene(layout);
            let pool = bed.write();
            bed.world.inject(error(fails, "packs/"));
            let what = format!("{layout:?}, {fails:?}");
            let report = pool.check(true, &Meter::new()).unwrap();
            assert!(report.bad_copies.is_empty(), "{what}: {report:?}");
            assert!(!report.unreadable.is_empty() && !report.is_clean(), "{what}: {report:?}");
            assert!(!report.lost.is_empty(), "{what}: {report:?}");
            let outcome = pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
            assert!(outcome.lost.is_empty(), "{what}: {outcome:?}");
            assert!(!outcome.unreadable.is_empty(), "{what}: {outcome:?}");
            // Nobody counts on it any more, but it isn't thrown away for that.
            assert!(!pool.state().bad.is_empty(), "{what}");
            let before = pool.state().packs;
            drop(pool.gc(EXACT));
            assert_eq!(pool.state().packs, before, "{what}");
            bed.world.clear_faults();
            let report = pool.check(true, &Meter::new()).unwrap();
            assert!(pool.state().bad.is_empty(), "{what}");
            assert!(report.is_clean(), "{what}: {report:?}");
            drop(pool);
            verify(&bed, &mut model, &Pending::Nothing).unwrap();
        }
    }
    // What is wrong, or not there, is.
    for gone in [false, true] {
        let (bed, _) = scene(Layout::new(1, 0, true));
        let disk = &bed.world.disks()[0];
        let (path, _) = largest(disk);
        match gone {
            true => disk.remove(&path).unwrap(),
            false => disk.flip_bit(&path, 5000, 1).unwrap(),
        }
        let pool = bed.write();
        let report = pool.check(true, &Meter::new()).unwrap();
        assert!(!report.bad_copies.is_empty() && report.unreadable.is_empty(), "{report:?}");
        assert!(!pool.state().bad.is_empty());
    }
}

/// The data of the first image can't be read any more, and its nodes can.
fn bad_place(bed: &Bed) {
    bed.world.inject(error(Operation::Read, &largest(&bed.world.disks()[0]).0));
}

#[test]
fn what_stays_unreadable_is_stored_again_by_the_next_backup() {
    for scrubs in [false, true] {
        let (bed, model) = scene(Layout::new(1, 0, true));
        let pool = bed.write();
        bad_place(&bed);
        if scrubs {
            pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
        } else {
            let report = pool.check(true, &Meter::new()).unwrap();
            assert_eq!(report.given_up, report.unreadable);
        }
        assert!(pool.has_bad_chunks());
        let (id, image) = model.images.first_key_value().unwrap();
        let root = back_up(&pool, 1, image, None).unwrap();
        compare(&pool, &root, image).unwrap();
        compare(&pool, &pool.root(*id).unwrap(), image).unwrap();
        // Now that it is elsewhere, the bad place may go.
        let report = pool.gc(EXACT).unwrap();
        assert!(report.packs_removed > 0 && report.missing_chunks == 0, "{report:?}");
        assert!(!pool.has_bad_chunks());
    }
}

#[test]
fn what_was_unreadable_for_a_time_is_not_collected_and_comes_back() {
    for scrubs in [false, true] {
        let (bed, mut model) = scene(Layout::new(1, 0, true));
        let pool = bed.write();
        bad_place(&bed);
        pool.check(true, &Meter::new()).unwrap();
        assert!(pool.has_bad_chunks());
        for passes in [false, true] {
            if passes {
                bed.world.clear_faults();
            }
            pool.take_notices();
            let report = pool.gc(EXACT).unwrap();
            assert!(report.missing_chunks > 0 && report.packs_removed == 0, "{report:?}");
            let notices = pool.take_notices().join("; ");
            assert_eq!(notices.contains("the only copies"), passes, "{notices}");
        }
        if scrubs {
            pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
        } else {
            pool.check(true, &Meter::new()).unwrap();
        }
        assert!(!pool.has_bad_chunks());
        drop(pool);
        verify(&bed, &mut model, &Pending::Nothing).unwrap();
    }
}

#[test]
fn nothing_is_counted_off_while_a_disk_does_not_answer() {
    let (bed, mut model) = scene(Layout::new(1, 0, true));
    let pool = bed.write();
    bad_place(&bed);
    bed.world.inject(error(Operation::Read, "pool.superblock"));
    let report = pool.check(true, &Meter::new()).unwrap();
    assert!(!report.unreadable.is_empty() && report.given_up.is_empty(), "{report:?}");
    assert!(!pool.has_bad_chunks());
    bed.world.clear_faults();
    drop(pool);
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

/// Of a mirror of which only disk 1 has what was committed last.
fn one_ahead() -> (Bed, Model) {
    let (bed, mut model) = scene(Layout::new(2, 1, true));
    let pool = bed.write();
    bed.world.inject(Fault::io_error(Operation::Write, "journal/").on_disk(0));
    let root = back_up(&pool, 1, &[1, 2, 3], None).unwrap();
    model.images.insert(root.id, vec![1, 2, 3]);
    assert!(pool.take_notices().iter().any(|notice| notice.contains("out of date")));
    (bed, model)
}

#[test]
fn what_only_one_disk_has_is_not_written_over_while_it_can_not_be_read() {
    let ways = [
        (Operation::List, "journal"),
        (Operation::Open, "journal/"),
        (Operation::Read, "journal/"),
        (Operation::Open, "pool.superblock"),
        (Operation::Read, "pool.superblock"),
        (Operation::Lock, "pool."),
    ];
    for (operation, of) in ways {
        let (bed, mut model) = one_ahead();
        let what = format!("{operation:?} {of}");
        bed.world.inject(error(operation, of).on_disk(1));
        let refused = bed.open(OpenMode::Write).unwrap_err();
        assert!(matches!(refused, Error::Io { .. } | Error::Damaged { .. }), "{what}: {refused}");
        let options = || bed.options(OpenMode::Write, 0);
        let kept = || {
            let files = |disk: &SimDisk| {
                let kept = disk.files().into_iter().filter(|(path, _)| {
                    path.starts_with("pool.superblock") || path.starts_with("journal")
                });
                kept.map(|(path, _)| (disk.read_raw(&path).unwrap(), path)).collect::<Vec<_>>()
            };
            bed.world.disks().iter().map(files).collect::<Vec<_>>()
        };
        for place in [0, 1] {
            let new = Arc::new(bed.world.add_disk());
            let before = kept();
            let refused = Pool::replace_disk(options(), bed.used(0), place, new).unwrap_err();
            assert!(!matches!(refused, Error::InUse { .. }), "{what}: {refused}");
            assert!(kept() == before, "{what}: {place} was changed");
        }
        // A reader sees what was there before and says so, or nothing.
        match bed.open(OpenMode::Read) {
            Ok(reader) => {
                assert!(reader.root(root_id(1)).is_none());
                let says = if of.starts_with("journal") { UNREAD } else { AWAY };
                let notices = reader.take_notices();
                let told = notices.iter().any(|notice| notice.starts_with(says));
                assert!(told, "{what}: {notices:?}");
            }
            Err(e) => assert_eq!((operation, of), (Operation::Read, "journal/"), "{e}"),
        }
        bed.world.clear_faults();
        verify(&bed, &mut model, &Pending::Nothing).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

#[test]
fn an_error_that_passes_keeps_nobody_from_writing() {
    for (operation, of) in [
        (Operation::List, "journal"),
        (Operation::Open, "journal/"),
        (Operation::Lock, "pool.lock"),
    ] {
        let (bed, mut model) = one_ahead();
        bed.world.inject(Fault::io_error(operation, of).on_disk(1).times(2));
        drop(bed.write());
        verify(&bed, &mut model, &Pending::Nothing).unwrap();
    }
}

/// Where others must have what was confirmed, and where another copy of the same file was read, a
/// copy that can't be read hides nothing.
#[test]
fn a_copy_that_hides_nothing_stops_nobody() {
    for (layout, operation, of) in [
        (Layout::new(3, 1, false), Operation::List, "journal"),
        (Layout::new(3, 1, false), Operation::Open, "journal/"),
        (Layout::new(1, 0, false), Operation::Open, "journal.2/"),
    ] {
        let (bed, mut model) = scene(layout);
        bed.world.inject(error(operation, of).on_disk(layout.disks - 1));
        let pool = bed.open(OpenMode::Write).unwrap_or_else(|e| panic!("{layout:?}: {e}"));
        check_roots(&pool, &mut model, &Pending::Nothing).unwrap();
        drop(pool);
        bed.world.clear_faults();
        verify(&bed, &mut model, &Pending::Nothing).unwrap();
    }
}

/// Both disks of a mirror began a file at the same generation, each without the other.
#[test]
fn a_file_of_the_same_name_is_not_taken_for_the_same() {
    let (bed, _) = scene(Layout::new(2, 1, false));
    for (away, n) in [(0, 1), (1, 2)] {
        *bed.away.lock().unwrap() = Some(away);
        back_up(&bed.write(), n, &[n], None).unwrap();
    }
    *bed.away.lock().unwrap() = None;
    bed.world.inject(error(Operation::Open, "journal/").on_disk(0));
    let refused = bed.open(OpenMode::Write).unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    bed.world.clear_faults();
    let refused = bed.open(OpenMode::Write).unwrap_err();
    assert!(matches!(refused, Error::Diverged { .. }), "{refused}");
}

/// It says nothing of what was committed.
#[test]
fn an_empty_copy_of_the_journal_is_out_of_sight() {
    let (bed, _) = scene(Layout::new(3, 1, false));
    let disks = bed.world.disks();
    remove_below(&disks[0], "journal/");
    drop(bed.open(OpenMode::Read).unwrap());
    bed.world.inject(error(Operation::List, "journal").on_disk(1));
    let refused = bed.open(OpenMode::Write).unwrap_err();
    assert!(matches!(refused, Error::Io { .. } | Error::TooFewDisks { .. }), "{refused}");
    let reader = bed.open(OpenMode::Read).unwrap();
    let notices = reader.take_notices();
    assert!(notices.iter().any(|notice| notice.starts_with(UNREAD)), "{notices:?}");
}

#[test]
fn repair_mends_a_superblock_that_stays_unreadable() {
    let (bed, mut model) = scene(Layout::new(2, 1, true));
    let fault = error(Operation::Read, "pool.superblock").on_disk(1);
    bed.world.inject(fault);
    let refused = bed.open(OpenMode::Write).unwrap_err().to_string();
    assert!(refused.contains("pool repair"), "{refused}");
    let options = bed.options(OpenMode::Write, 0);
    let mended = Pool::mend_superblocks(&options, &bed.used(0)).unwrap();
    assert_eq!(mended.len(), 1);
    // The file is another now, elsewhere on the disk.
    bed.world.clear_faults();
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

#[test]
fn nothing_is_replaced_that_could_not_be_opened_then() {
    let (bed, mut model) = scene(Layout::new(3, 2, false));
    bed.world.inject(error(Operation::Read, "pool.superblock").on_disk(2));
    let disks = bed.world.disks();
    let superblocks = || [0, 1].map(|disk| disks[disk].read_raw("pool.superblock").unwrap());
    let before = superblocks();
    let new = Arc::new(bed.world.add_disk());
    let options = bed.options(OpenMode::Write, 0);
    let options = OpenOptions { disks: options.disks.into_iter().take(3).collect(), ..options };
    Pool::replace_disk(options, bed.used(0), 1, new).unwrap_err();
    assert_eq!(superblocks(), before);
    bed.world.clear_faults();
    let new = bed.world.disks().pop().unwrap();
    assert!(new.files().iter().all(|(path, _)| path != "pool.superblock"));
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

/// The superblock with a new key did not reach disk 0, and then disk 1 is away.
#[test]
fn what_is_sealed_under_a_key_on_another_disk_is_not_given_up() {
    let (bed, mut model) = scene(Layout::new(2, 1, true));
    let pool = bed.write();
    bed.world.inject(error(Operation::Create, "pool.superblock").on_disk(0));
    pool.rekey().unwrap();
    let image: Vec<u64> = (50..60).collect();
    let root = back_up(&pool, 1, &image, None).unwrap();
    model.images.insert(root.id, image);
    drop(pool);
    bed.world.clear_faults();
    *bed.away.lock().unwrap() = Some(1);
    let refused = bed.open(OpenMode::Write).unwrap_err();
    assert!(refused.to_string().contains("data key"), "{refused}");
    let report = bed.open(OpenMode::Read).unwrap().check(true, &Meter::new()).unwrap();
    assert!(report.bad_copies.is_empty() && !report.unreadable.is_empty(), "{report:?}");
    *bed.away.lock().unwrap() = None;
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

#[test]
fn a_journal_of_one_disk_that_can_not_be_listed_can_be_moved_away() {
    let (bed, mut model) = scene(Layout::new(1, 0, false));
    bed.world.inject(error(Operation::List, "journal.2"));
    let refused = bed.open(OpenMode::Write).unwrap_err().to_string();
    assert!(refused.contains("move it elsewhere"), "{refused}");
    bed.world.clear_faults();
    remove_below(&bed.world.disks()[0], "journal.2/");
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

#[test]
fn who_writes_tells_what_came_from_other_disks_too_and_once() {
    let (bed, model) = scene(Layout::new(2, 1, false));
    let pool = bed.write();
    for disk in [0, 1] {
        bed.world.inject(error(Operation::Open, "packs/").on_disk(disk));
        let (id, image) = model.images.first_key_value().unwrap();
        let read = || drop(compare(&pool, &pool.root(*id).unwrap(), image));
        read();
        let notices = pool.take_notices();
        if notices.is_empty() {
            // It was the other that was read.
            bed.world.clear_faults();
            continue;
        }
        let told = |notice: &&String| notice.contains(&format!("not readable on sim{disk}"));
        assert_eq!(notices.iter().filter(told).count(), 1, "{notices:?}");
        read();
        assert_eq!(pool.take_notices(), Vec::<String>::new());
        return;
    }
    panic!("nothing was told");
}

#[test]
fn a_disk_that_does_not_answer_is_told_of_once() {
    let (bed, _) = scene(Layout::new(2, 1, false));
    let pool = bed.write();
    // Many packs, so many directories.
    let image: Vec<u64> = (LONG + 10..LONG + 60).collect();
    bed.world.inject(error(Operation::SyncDir, "packs").on_disk(0));
    let before = bed.world.faults_struck();
    back_up(&pool, 1, &image, None).unwrap();
    let notices = pool.take_notices();
    let told = notices.iter().filter(|notice| notice.contains("sim0 failed to sync"));
    assert_eq!(told.count(), 1, "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains(" more")), "{notices:?}");
    // Once may be one bad place; who fails twice is not asked again.
    assert_eq!(bed.world.faults_struck() - before, 2);
}

#[test]
fn a_pool_says_whether_it_may_write() {
    let (bed, _) = scene(Layout::new(1, 0, false));
    let refused = bed.open(OpenMode::Read).unwrap().check_writable().unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
    let pool = bed.write();
    let before = bed.world.ops();
    pool.check_writable().unwrap();
    assert_eq!(bed.world.ops(), before);
    bed.world.inject(error(Operation::Sync, "journal"));
    back_up(&pool, 1, &[1], None).unwrap_err();
    let refused = pool.check_writable().unwrap_err();
    assert!(matches!(refused, Error::Stopped { .. }), "{refused}");
}
