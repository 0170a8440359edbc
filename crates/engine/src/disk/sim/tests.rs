#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use super::*;
use crate::disk::{Caching, Disk, DiskFile, Space, read_file, replace_file};

fn put(disk: &SimDisk, path: &str, content: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.create(path, Caching::Cached).unwrap();
    file.write_all_at(content, 0).unwrap();
    file
}

/// What a power cut leaves of `prepare`'s doing, over many seeds.
fn outcomes(prepare: impl Fn(&SimDisk)) -> BTreeSet<Vec<(String, Vec<u8>)>> {
    let disk = SimDisk::new(0);
    prepare(&disk);
    let before = disk.world().snapshot();
    (0..300)
        .map(|seed| {
            disk.world().restore(&before);
            disk.world().power_cut(seed);
            let content = |(path, _): (String, u64)| {
                let bytes = disk.read_raw(&path).unwrap();
                (path, bytes)
            };
            disk.files().into_iter().map(content).collect()
        })
        .collect()
}

fn files(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(path, content)| (path.to_string(), content.to_vec())).collect()
}

#[test]
fn what_was_synced_survives_and_the_rest_may_not() {
    let durable = outcomes(|disk| {
        put(disk, "a", b"content").sync().unwrap();
        disk.sync_dir("").unwrap();
    });
    assert_eq!(durable, [files(&[("a", b"content")])].into());

    let no_name = outcomes(|disk| put(disk, "a", b"content").sync().unwrap());
    assert_eq!(no_name, [files(&[]), files(&[("a", b"content")])].into());

    let no_content = outcomes(|disk| {
        put(disk, "a", b"content");
        disk.sync_dir("").unwrap();
    });
    let expected: [&[u8]; 3] = [b"", b"content", &[0; 7]];
    assert_eq!(no_content, expected.map(|content| files(&[("a", content)])).into());

    let directory = outcomes(|disk| {
        disk.make_dir("d/e").unwrap();
        put(disk, "d/e/a", b"content").sync().unwrap();
        disk.sync_dir("d/e").unwrap();
        disk.sync_dir("").unwrap();
    });
    assert_eq!(directory, [files(&[]), files(&[("d/e/a", b"content")])].into());
}

#[test]
fn overwriting_and_cutting_are_undone_or_not() {
    let outcomes = outcomes(|disk| {
        let file = put(disk, "a", b"old content");
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        file.write_all_at(b"NEW", 0).unwrap();
        file.set_len(6).unwrap();
    });
    let expected: [&[u8]; 4] = [b"old content", b"NEW content", b"old co", b"NEW co"];
    assert_eq!(outcomes, expected.map(|content| files(&[("a", content)])).into());
}

#[test]
fn a_rename_leaves_the_old_file_or_the_new_one() {
    let old = files(&[("a", b"old"), ("a.new", b"new")]);
    let new = files(&[("a", b"new")]);
    let renamed = outcomes(|disk| {
        put(disk, "a", b"old").sync().unwrap();
        put(disk, "a.new", b"new").sync().unwrap();
        disk.sync_dir("").unwrap();
        disk.rename("a.new", "a").unwrap();
    });
    assert_eq!(renamed, [old, new.clone()].into());

    let unsynced = outcomes(|disk| {
        put(disk, "a", b"old").sync().unwrap();
        disk.sync_dir("").unwrap();
        put(disk, "a.new", b"new");
        disk.rename("a.new", "a").unwrap();
    });
    assert!(unsynced.contains(&files(&[("a", b"")])), "the new name without its content");
    assert!(unsynced.contains(&files(&[("a", b"old")])));
    assert!(unsynced.contains(&new));
    assert!(unsynced.iter().all(|names| names.iter().any(|(path, _)| path == "a")));
}

#[test]
fn removals_are_undone_or_not_and_in_any_order() {
    let outcomes = outcomes(|disk| {
        for path in ["a", "b"] {
            put(disk, path, b"x").sync().unwrap();
        }
        disk.sync_dir("").unwrap();
        disk.remove("a").unwrap();
        disk.remove("b").unwrap();
        put(disk, "c", b"y").sync().unwrap();
    });
    assert_eq!(outcomes.len(), 8);
}

#[test]
fn replacing_a_file_is_safe_wherever_the_power_fails() {
    let disk = SimDisk::new(1);
    let world = disk.world();
    replace_file(&disk, "a", b"first").unwrap();
    let (start, before) = (world.ops(), world.snapshot());
    world.set_recording(true);
    replace_file(&disk, "a", &[7; 3000]).unwrap();
    let (end, records) = (world.ops(), world.records());
    assert_eq!(records.len() as u64, end - start);
    assert_eq!(records[1].operation, Operation::Create);
    assert_eq!(records[1].path, "a.new");
    assert_eq!(records[2].range, Some((0, 3000)));
    assert_eq!(records[4].path, "a.new to a");
    let mut seen = BTreeSet::new();
    for at in start..=end {
        for seed in 0..50 {
            world.restore(&before);
            world.set_seed(seed);
            world.set_crash_at(at);
            let done = replace_file(&disk, "a", &[7; 3000]);
            assert_eq!(done.is_ok(), at == end, "{at}");
            assert_eq!(world.is_off(), at < end);
            if let Err(e) = &done {
                assert!(e.to_string().ends_with("power is off"), "{e}");
                disk.open("a", Caching::Cached, false).unwrap_err();
                disk.space().unwrap_err();
            }
            world.power_cut(seed);
            let found = read_file(&disk, "a", 3000).unwrap();
            assert!(found == b"first" && done.is_err() || found == [7; 3000], "{at} {seed}");
            seen.insert((at, found.len()));
        }
    }
    assert_eq!(seen.len() as u64, end - start + 1 + 2, "the last two steps end either way");
}

#[test]
fn a_kill_loses_files_and_locks_but_no_content() {
    let disk = SimDisk::new(2);
    let world = disk.world();
    let file = put(&disk, "a", b"content");
    let lock = disk.lock("lock", true).unwrap();
    world.set_crash_at(world.ops());
    disk.remove("b").unwrap_err();
    world.kill();
    assert_eq!(read_file(&disk, "a", 7).unwrap(), b"content");
    for result in [file.sync(), file.write_all_at(b"x", 0), file.len().map(|_| ())] {
        assert!(result.unwrap_err().to_string().contains("before the power"));
    }
    let other = disk.lock("lock", true).unwrap();
    drop(lock); // that of an earlier boot
    assert_eq!(disk.lock("lock", false).unwrap_err().kind(), ErrorKind::WouldBlock);
    world.power_cut(0);
    assert!(disk.lock("lock", true).is_ok());
    drop(other);
}

#[test]
fn faults_strike_as_scripted() {
    let world = SimWorld::new(3);
    let disks = [world.add_disk(), world.add_disk()];
    for disk in &disks {
        disk.make_dir("p").unwrap();
    }
    let eio = io::Error::from(Errno::IO).kind();
    world.inject(Fault::io_error(Operation::Create, "p/").on_disk(1).after(1));
    for disk in &disks {
        disk.create("p/a", Caching::Cached).unwrap();
        disk.create("q", Caching::Cached).unwrap();
    }
    disks[0].create("p/b", Caching::Cached).unwrap();
    let e = disks[1].create("p/b", Caching::Cached).unwrap_err();
    assert_eq!(e.kind(), eio);
    assert!(e.to_string().starts_with("create sim1/p/b: "), "{e}");
    disks[1].create("p/b", Caching::Cached).unwrap();

    world.inject(Fault::io_error(Operation::Rename, "r").forever());
    for _ in 0..3 {
        assert_eq!(disks[0].rename("p/b", "r").unwrap_err().kind(), eio);
        assert_eq!(disks[0].rename("r", "p/b").unwrap_err().kind(), eio);
    }
    world.clear_faults();
    disks[0].rename("p/b", "r").unwrap();

    world.inject(Fault::no_space(Operation::Write, "").times(2));
    let file = disks[0].open("r", Caching::Cached, true).unwrap();
    for _ in 0..2 {
        assert_eq!(file.write_all_at(&[1; 100], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    }
    file.write_all_at(&[1; 100], 0).unwrap();

    world.inject(Fault::flipped_read("r", 1003, 9));
    let mut buf = [0; 100];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf[3], 3, "byte 1003 modulo 100, bit 9 modulo 8");
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [1; 100]);
    assert_eq!(world.faults_struck(), 1 + 6 + 2 + 1);

    world.set_error_rate(Operation::Read, 10);
    let failed = (0..1000).filter(|_| file.read_exact_at(&mut buf, 0).is_err()).count();
    assert!((50..200).contains(&failed), "{failed}");
    world.set_error_rate(Operation::Read, 0);
    file.read_exact_at(&mut buf, 0).unwrap();
}

#[test]
fn a_sync_that_failed_may_have_lost_what_readers_still_see() {
    let disk = SimDisk::new(4);
    let world = disk.world();
    let file = put(&disk, "a", b"");
    disk.sync_dir("").unwrap();
    let before = world.snapshot();
    let mut found = BTreeSet::new();
    for seed in 0..100 {
        world.restore(&before);
        let file = disk.open("a", Caching::Cached, true).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        world.set_seed(seed);
        world.inject(Fault::io_error(Operation::Sync, "a"));
        file.sync().unwrap_err();
        assert_eq!(read_file(&disk, "a", 512).unwrap(), [1; 512]);
        file.sync().unwrap();
        world.power_cut(seed);
        found.insert(read_file(&disk, "a", 512).unwrap());
    }
    assert!(found.contains(&vec![1; 512]) && found.contains(&Vec::new()));
    file.len().unwrap_err();
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = SimDisk::new(5);
    disk.set_capacity(1000);
    let file = put(&disk, "a", &[1; 600]);
    assert_eq!(disk.space().unwrap(), Space { total: 1000, free: 400 });
    let e = file.write_all_at(&[2; 600], 500).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.space().unwrap().free, 0);
    assert_eq!(file.len().unwrap(), 1000);
    assert_eq!(file.set_len(1001).unwrap_err().kind(), ErrorKind::StorageFull);
    let full = disk.create("b", Caching::Cached).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.make_dir("d").unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_all_at(&[3; 1000], 0).unwrap();
    file.set_len(100).unwrap();
    put(&disk, "b", &[4; 900]);
    assert_eq!(disk.space().unwrap().free, 0);
    disk.rename("b", "a").unwrap();
    assert_eq!(disk.space().unwrap().free, 100);
    disk.remove("a").unwrap();
    assert_eq!(disk.space().unwrap().free, 1000);
    file.write_all_at(&[5; 2000], 0).unwrap(); // has no name any more
    assert_eq!(disk.space().unwrap().free, 1000);
    disk.world().power_cut(0);
    let used: u64 = disk.files().iter().map(|f| f.1).sum();
    assert_eq!(disk.space().unwrap().free, 1000 - used);
}

#[test]
fn damage_is_durable_and_seen() {
    let disk = SimDisk::new(6);
    let file = put(&disk, "a", b"abcdef");
    disk.sync_dir("").unwrap();
    disk.flip_bit("a", 1, 0).unwrap();
    disk.flip_bit("a", 100, 0).unwrap();
    disk.truncate("a", 4).unwrap();
    let mut buf = [0; 4];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"accd");
    disk.world().power_cut(0);
    assert_eq!(disk.read_raw("a").unwrap(), b"accd");
    disk.write_raw("a", b"xyz").unwrap();
    assert_eq!(disk.files(), [("a".to_owned(), 3)]);
    assert_eq!(disk.flip_bit("b", 0, 0).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_disk_is_lost_found_and_replaced() {
    let disk = SimDisk::new(7);
    let file = put(&disk, "a", b"content");
    disk.set_lost(true);
    let eio = io::Error::from(Errno::IO).kind();
    let mut buf = [0; 7];
    assert_eq!(file.read_exact_at(&mut buf, 0).unwrap_err().kind(), eio);
    assert_eq!(file.write_all_at(b"x", 0).unwrap_err().kind(), eio);
    assert_eq!(file.sync().unwrap_err().kind(), eio);
    assert_eq!(disk.open("a", Caching::Cached, false).unwrap_err().kind(), eio);
    assert_eq!(disk.create("b", Caching::Cached).unwrap_err().kind(), eio);
    assert_eq!(disk.list("").unwrap_err().kind(), eio);
    assert_eq!(disk.lock("lock", true).unwrap_err().kind(), eio);
    assert_eq!(disk.space().unwrap_err().kind(), eio);
    disk.set_lost(false);
    assert_eq!(read_file(&disk, "a", 7).unwrap(), b"content");
    disk.remove_all();
    assert_eq!(disk.files(), []);
    assert_eq!(disk.open("a", Caching::Cached, false).unwrap_err().kind(), ErrorKind::NotFound);
    file.read_exact_at(&mut buf, 0).unwrap_err();
    put(&disk, "a", b"new");
    file.read_exact_at(&mut buf[..3], 0).unwrap_err();
    disk.world().power_cut(0);
    assert!(disk.files().len() < 2);
}

#[test]
fn the_number_of_operations_is_that_of_all_disks() {
    let world = SimWorld::new(8);
    let (one, two) = (world.add_disk(), world.add_disk());
    assert_eq!(world.disks().iter().map(SimDisk::index).collect::<Vec<_>>(), [0, 1]);
    put(&one, "a", b"x");
    put(&two, "a", b"x").sync().unwrap();
    assert_eq!(world.ops(), 5);
    read_file(&one, "a", 1).unwrap();
    one.list("").unwrap();
    assert_eq!(world.ops(), 5);
    world.set_crash_at(6);
    one.sync_dir("").unwrap();
    two.sync_dir("").unwrap_err();
    one.sync_dir("").unwrap_err();
    world.power_cut(0);
    assert_eq!(one.files().len(), 1);
    one.sync_dir("").unwrap();
}

#[test]
fn worlds_that_start_from_a_snapshot_are_apart() {
    let disk = SimDisk::new(9);
    put(&disk, "a", &[1; 200_000]).sync().unwrap();
    disk.sync_dir("").unwrap();
    let snapshot = disk.world().snapshot();
    let other = SimWorld::from_snapshot(&snapshot);
    let fork = other.disks().remove(0);
    assert_eq!(other.ops(), disk.world().ops());
    fork.open("a", Caching::Cached, true).unwrap().write_all_at(&[2; 10], 70_000).unwrap();
    disk.remove("a").unwrap();
    assert_eq!(fork.read_raw("a").unwrap()[70_000..70_010], [2; 10]);
    disk.world().restore(&snapshot);
    assert!(disk.read_raw("a").unwrap() == [1; 200_000]);
}

#[test]
fn threads_may_use_it_all_at_once() {
    let world = SimWorld::new(10);
    let disk = world.add_disk();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let disk = disk.clone();
            scope.spawn(move || {
                for j in 0..200 {
                    let path = format!("{i}-{j}");
                    put(&disk, &path, path.as_bytes()).sync().unwrap();
                    disk.rename(&path, &format!("done-{path}")).unwrap();
                    disk.sync_dir("").unwrap();
                }
            });
        }
    });
    world.power_cut(0);
    let files = disk.files();
    assert_eq!(files.len(), 800);
    for (path, _) in files {
        assert_eq!(
            Some(disk.read_raw(&path).unwrap().as_slice()),
            path.strip_prefix("done-").map(str::as_bytes)
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, usize, u8),
    SetLen(usize, u64),
    Sync(usize),
    Create(usize),
    Rename(usize, usize),
    Remove(usize),
    SyncDir,
}

fn step() -> impl Strategy<Value = Step> {
    let file = || 0..4usize;
    prop_oneof![
        4 => (file(), 0..5000u64, 0..5000usize, any::<u8>())
            .prop_map(|(f, o, l, b)| Step::Write(f, o, l, b)),
        1 => (file(), 0..6000u64).prop_map(|(f, l)| Step::SetLen(f, l)),
        3 => file().prop_map(Step::Sync),
        3 => file().prop_map(Step::Create),
        2 => (file(), file()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => file().prop_map(Step::Remove),
        2 => (0..1usize).prop_map(|_| Step::SyncDir),
    ]
}

fn take(disk: &SimDisk, step: &Step) -> io::Result<()> {
    let name = |f: usize| ["a", "b", "c", "d"][f];
    let open = |f| disk.open(name(f), Caching::Cached, true);
    match *step {
        Step::Write(f, offset, len, byte) => open(f)?.write_all_at(&vec![byte; len], offset),
        Step::SetLen(f, len) => open(f)?.set_len(len),
        Step::Sync(f) => open(f)?.sync(),
        Step::Create(f) => disk.create(name(f), Caching::Cached).map(drop),
        Step::Rename(a, b) => disk.rename(name(a), name(b)),
        Step::Remove(f) => disk.remove(name(f)),
        Step::SyncDir => disk.sync_dir(""),
    }
}

proptest! {
    /// Whatever went before: once every file and the directory are synced, a power cut, at once or
    /// during what comes next, leaves what it did not touch; and the same seeds give the same.
    #[test]
    fn what_is_synced_stays(
        before in prop::collection::vec(step(), 0..40),
        after in prop::collection::vec(step(), 0..10),
        crash in 0..10u64,
        seed in any::<u64>(),
    ) {
        let run = || {
            let disk = SimDisk::new(seed);
            for step in &before {
                drop(take(&disk, step));
            }
            disk.make_dir("e").unwrap();
            put(&disk, "e/untouched", b"content").sync().unwrap();
            disk.sync_dir("e").unwrap();
            for (path, _) in disk.files() {
                disk.open(&path, Caching::Cached, false).unwrap().sync().unwrap();
            }
            disk.sync_dir("").unwrap();
            let contents = |disk: &SimDisk| -> BTreeMap<String, Vec<u8>> {
                let read = |(path, _): (String, u64)| (path.clone(), disk.read_raw(&path).unwrap());
                disk.files().into_iter().map(read).collect()
            };
            let synced = contents(&disk);
            let snapshot = disk.world().snapshot();
            disk.world().power_cut(seed);
            assert_eq!(contents(&disk), synced);

            disk.world().restore(&snapshot);
            disk.world().set_crash_at(disk.world().ops() + crash);
            for step in &after {
                drop(take(&disk, step));
            }
            disk.world().power_cut(seed);
            assert_eq!(disk.read_raw("e/untouched").unwrap(), b"content");
            let left = contents(&disk);
            let touched: BTreeSet<usize> = after
                .iter()
                .flat_map(|step| match *step {
                    Step::Write(f, ..) | Step::SetLen(f, _) | Step::Sync(f) => vec![f],
                    Step::Create(f) | Step::Remove(f) => vec![f],
                    Step::Rename(a, b) => vec![a, b],
                    Step::SyncDir => vec![],
                })
                .collect();
            for (i, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
                if !touched.contains(&i) {
                    assert_eq!(left.get(name), synced.get(name));
                }
            }
            let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
            let space = disk.space().unwrap();
            assert_eq!(space.total - space.free, used);
            left
        };
        assert_eq!(run(), run());
    }
}
