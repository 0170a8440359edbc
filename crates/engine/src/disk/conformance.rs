//! What every disk must do, tried on each kind of disk there is, and on two at once.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use super::*;
use crate::buf::{AlignedBuf, PAGE};

/// The disks to try: on the system's directory for temporary files, in memory if the system has
/// that, and simulated. What is returned first keeps the directories.
fn disks() -> (Vec<tempfile::TempDir>, Vec<Arc<dyn Disk>>) {
    let mut dirs = vec![tempfile::tempdir().unwrap()];
    if Path::new("/dev/shm").is_dir() {
        dirs.extend(tempfile::tempdir_in("/dev/shm"));
    }
    let mut disks: Vec<Arc<dyn Disk>> = vec![Arc::new(SimDisk::new(0))];
    for dir in &dirs {
        disks.push(Arc::new(FsDisk::open(dir.path()).unwrap()));
    }
    (dirs, disks)
}

fn on_every_disk(test: impl Fn(&dyn Disk)) {
    let (_dirs, disks) = disks();
    for disk in disks {
        test(&*disk);
    }
}

fn fails<T: Debug>(result: io::Result<T>, kind: ErrorKind) {
    let e = result.unwrap_err();
    assert_eq!(e.kind(), kind, "{e}");
}

fn names(disk: &dyn Disk, dir: &str) -> Vec<(String, u64, bool)> {
    let entries = disk.list(dir).unwrap();
    let mut names: Vec<_> = entries.into_iter().map(|e| (e.name, e.len, e.is_dir)).collect();
    names.sort();
    names
}

const BOTH: [Caching; 2] = [Caching::Cached, Caching::Direct];

#[test]
fn a_file_gives_back_what_was_written() {
    on_every_disk(|disk| {
        for (i, caching) in BOTH.into_iter().enumerate() {
            let path = format!("file{i}");
            let file = disk.create(&path, caching).unwrap();
            assert!(file.is_empty().unwrap());
            file.write_all_at(b"world", 6).unwrap();
            file.write_all_at(b"hello ", 0).unwrap();
            file.write_all_at(b"", 1000).unwrap();
            assert_eq!(file.len().unwrap(), 11);
            let mut buf = [0; 11];
            file.read_exact_at(&mut buf, 0).unwrap();
            assert_eq!(&buf, b"hello world");
            file.set_len(5).unwrap();
            file.set_len(2 * PAGE as u64 + 3).unwrap();
            file.sync().unwrap();
            drop(file);
            for caching in BOTH {
                let file = disk.open(&path, caching, false).unwrap();
                assert_eq!(file.len().unwrap(), 2 * PAGE as u64 + 3);
                file.read_exact_at(&mut buf, 0).unwrap();
                assert_eq!(&buf, b"hello\0\0\0\0\0\0");
                file.read_exact_at(&mut buf, 2 * PAGE as u64 - 8).unwrap();
                assert_eq!(buf, [0; 11]);
                file.read_exact_at(&mut [], 1 << 40).unwrap();
                fails(file.read_exact_at(&mut buf, 2 * PAGE as u64 - 7), ErrorKind::UnexpectedEof);
                fails(file.read_exact_at(&mut buf, 1 << 40), ErrorKind::UnexpectedEof);
                fails(file.write_all_at(b"x", 0), ErrorKind::PermissionDenied);
                fails(file.set_len(0), ErrorKind::PermissionDenied);
                file.sync().unwrap();
            }
        }
    });
}

#[test]
fn a_page_written_past_the_cache_and_through_it_is_one_page() {
    on_every_disk(|disk| {
        let file = disk.create("a", Caching::Direct).unwrap();
        let cached = disk.open("a", Caching::Cached, true).unwrap();
        let mut pages = AlignedBuf::new(4 * PAGE);
        for round in 0..50_usize {
            pages.fill(round as u8);
            file.write_all_at(&pages[..4 * PAGE], 0).unwrap();
            cached.write_all_at(b"edge", (PAGE - 2) as u64).unwrap();
            file.write_all_at(b"tail", (4 * PAGE - 2) as u64).unwrap();
            let mut back = AlignedBuf::new(2 * PAGE);
            file.read_exact_at(&mut back, 0).unwrap();
            assert_eq!(&back[PAGE - 2..PAGE + 2], b"edge");
            assert_eq!(back[PAGE + 2], round as u8);
            let mut end = [0; 6];
            cached.read_exact_at(&mut end, (4 * PAGE - 4) as u64).unwrap();
            assert_eq!(&end, &[round as u8, round as u8, b't', b'a', b'i', b'l']);
            file.set_len((PAGE + 7) as u64).unwrap();
            cached.read_exact_at(&mut end[..4], (PAGE + 3) as u64).unwrap();
            assert_eq!(end[..4], [round as u8; 4]);
        }
    });
}

#[test]
fn names_come_and_go() {
    on_every_disk(|disk| {
        assert_eq!(names(disk, ""), []);
        disk.make_dir("a/b/c").unwrap();
        disk.make_dir("a/b/c").unwrap();
        disk.make_dir("a").unwrap();
        disk.make_dir("").unwrap();
        for dir in ["", "a", "a/b", "a/b/c"] {
            disk.sync_dir(dir).unwrap();
        }
        disk.create("a/one", Caching::Cached).unwrap().write_all_at(b"1", 0).unwrap();
        disk.create("a/two", Caching::Direct).unwrap().write_all_at(b"22", 0).unwrap();
        let expected =
            [("b".to_owned(), 0, true), ("one".to_owned(), 1, false), ("two".to_owned(), 2, false)];
        assert_eq!(names(disk, "a"), expected);
        // One rename within a directory, one over another file, one to another directory, one to
        // itself.
        disk.rename("a/one", "a/three").unwrap();
        disk.rename("a/three", "a/two").unwrap();
        disk.rename("a/two", "a/b/c/two").unwrap();
        disk.rename("a/b/c/two", "a/b/c/two").unwrap();
        assert_eq!(names(disk, "a"), [("b".to_owned(), 0, true)]);
        assert_eq!(read_file(disk, "a/b/c/two", 1).unwrap(), b"1");
        disk.remove("a/b/c/two").unwrap();
        assert_eq!(names(disk, "a/b/c"), []);
        let space = disk.space().unwrap();
        assert!(space.free <= space.total && space.total > 0);
        assert!(!disk.describe().is_empty());
    });
}

#[test]
fn what_can_not_be_is_refused_by_kind() {
    on_every_disk(|disk| {
        disk.make_dir("dir/sub").unwrap();
        disk.create("file", Caching::Cached).unwrap();
        disk.create("dir/file", Caching::Cached).unwrap();
        for caching in BOTH {
            fails(disk.create("file", caching), ErrorKind::AlreadyExists);
            fails(disk.create("dir", caching), ErrorKind::AlreadyExists);
            fails(disk.create("none/file", caching), ErrorKind::NotFound);
            fails(disk.create("file/file", caching), ErrorKind::NotADirectory);
            for write in [false, true] {
                fails(disk.open("none", caching, write), ErrorKind::NotFound);
                fails(disk.open("none/file", caching, write), ErrorKind::NotFound);
                fails(disk.open("dir", caching, write), ErrorKind::IsADirectory);
                fails(disk.open("file/file", caching, write), ErrorKind::NotADirectory);
            }
        }
        fails(disk.rename("none", "file"), ErrorKind::NotFound);
        fails(disk.rename("file", "none/file"), ErrorKind::NotFound);
        fails(disk.rename("file", "dir"), ErrorKind::IsADirectory);
        fails(disk.rename("dir", "other"), ErrorKind::IsADirectory);
        fails(disk.rename("file", "file/file"), ErrorKind::NotADirectory);
        fails(disk.remove("none"), ErrorKind::NotFound);
        fails(disk.remove("dir"), ErrorKind::IsADirectory);
        fails(disk.list("none"), ErrorKind::NotFound);
        fails(disk.list("file"), ErrorKind::NotADirectory);
        fails(disk.sync_dir("none"), ErrorKind::NotFound);
        fails(disk.sync_dir("file"), ErrorKind::NotADirectory);
        fails(disk.make_dir("file"), ErrorKind::NotADirectory);
        fails(disk.make_dir("file/dir"), ErrorKind::NotADirectory);
        fails(disk.lock("none/lock", true), ErrorKind::NotFound);
        fails(disk.lock("dir", true), ErrorKind::IsADirectory);
        let file = disk.open("file", Caching::Cached, true).unwrap();
        assert!(file.write_all_at(b"x", u64::MAX).is_err());
        assert!(file.set_len(u64::MAX).is_err());
        assert_eq!(read_file(disk, "file", 10).unwrap(), b"");
    });
}

#[test]
fn only_plain_paths_are_paths() {
    on_every_disk(|disk| {
        let bad = ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "./a", "a b", "a\n", "ä", "\0"];
        let long = "x".repeat(256);
        for path in bad.into_iter().chain([&*long]) {
            fails(disk.open(path, Caching::Cached, false), ErrorKind::InvalidInput);
            fails(disk.create(path, Caching::Direct), ErrorKind::InvalidInput);
            fails(disk.rename(path, "x"), ErrorKind::InvalidInput);
            fails(disk.rename("x", path), ErrorKind::InvalidInput);
            fails(disk.remove(path), ErrorKind::InvalidInput);
            fails(disk.lock(path, true), ErrorKind::InvalidInput);
            if !path.is_empty() {
                fails(disk.list(path), ErrorKind::InvalidInput);
                fails(disk.make_dir(path), ErrorKind::InvalidInput);
                fails(disk.sync_dir(path), ErrorKind::InvalidInput);
            }
        }
        assert_eq!(names(disk, ""), []);
        disk.create("A-z_0.9+~", Caching::Cached).unwrap();
    });
}

#[test]
fn errors_name_the_operation_and_the_path() {
    on_every_disk(|disk| {
        let e = disk.open("some/file", Caching::Cached, false).unwrap_err().to_string();
        assert!(e.starts_with("open ") && e.contains("some/file: "), "{e}");
        assert!(e.contains(&disk.describe()), "{e}");
        let e = disk.rename("one", "two").unwrap_err().to_string();
        assert!(e.starts_with("rename ") && e.contains("one to two: "), "{e}");
        let file = disk.create("short", Caching::Direct).unwrap();
        let e = file.read_exact_at(&mut [0], 0).unwrap_err().to_string();
        assert!(e.starts_with("read ") && e.contains("short: "), "{e}");
    });
}

#[test]
fn locks_exclude_each_other_and_end_with_their_holder() {
    on_every_disk(|disk| {
        let exclusive = disk.lock("lock", true).unwrap();
        fails(disk.lock("lock", true), ErrorKind::WouldBlock);
        fails(disk.lock("lock", false), ErrorKind::WouldBlock);
        let other = disk.lock("other", true).unwrap();
        drop(exclusive);
        let one = disk.lock("lock", false).unwrap();
        let two = disk.lock("lock", false).unwrap();
        fails(disk.lock("lock", true), ErrorKind::WouldBlock);
        drop(one);
        fails(disk.lock("lock", true), ErrorKind::WouldBlock);
        drop(two);
        drop(other);
        drop(disk.lock("lock", true).unwrap());
        drop(disk.lock("other", true).unwrap());
        assert_eq!(names(disk, "").len(), 2);
    });
}

#[test]
fn an_open_file_outlives_its_name() {
    on_every_disk(|disk| {
        for caching in BOTH {
            let file = disk.create("a", caching).unwrap();
            file.write_all_at(b"content", 0).unwrap();
            disk.remove("a").unwrap();
            disk.create("a", caching).unwrap().write_all_at(b"another", 0).unwrap();
            let mut buf = [0; 7];
            file.read_exact_at(&mut buf, 0).unwrap();
            assert_eq!(&buf, b"content");
            file.write_all_at(b"C", 0).unwrap();
            file.sync().unwrap();
            assert_eq!(read_file(disk, "a", 7).unwrap(), b"another");
            disk.remove("a").unwrap();
        }
    });
}

#[test]
fn small_files_are_replaced_in_one_step() {
    on_every_disk(|disk| {
        disk.make_dir("d").unwrap();
        for content in [&b"first"[..], b"the second", b""] {
            replace_file(disk, "d/file", content).unwrap();
            assert_eq!(read_file(disk, "d/file", 10).unwrap(), content);
            replace_file(disk, "top", content).unwrap();
        }
        // One that was left half done is in nobody's way.
        disk.create("d/file.new", Caching::Cached).unwrap();
        replace_file(disk, "d/file", b"third").unwrap();
        fails(read_file(disk, "d/file", 4), ErrorKind::InvalidData);
        assert_eq!(names(disk, "d"), [("file".to_owned(), 5, false)]);
    });
}

/// A step of a random workload; paths and files are small numbers.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, bool),
    Open(usize, bool, bool),
    Close(usize),
    Write(usize, u64, usize, u8),
    Read(usize, u64, usize),
    SetLen(usize, u64),
    Len(usize),
    Sync(usize),
    Rename(usize, usize),
    Remove(usize),
    MakeDir(usize),
    List(usize),
    SyncDir(usize),
    Lock(usize, bool),
    Unlock(usize),
}

const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/f", "b/x"];

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let slot = || any::<usize>();
    let page = PAGE as u64;
    let offset = || {
        prop_oneof![
            0..5 * page,
            (0..8u64).prop_map(move |n| n * page),
            (0..8u64).prop_map(move |n| n * page + 512)
        ]
    };
    let len = || {
        prop_oneof![0..200usize, 0..3 * PAGE, (0..6usize).prop_map(|n| n * PAGE), Just(600 << 10)]
    };
    prop_oneof![
        3 => (path(), any::<bool>()).prop_map(|(p, d)| Step::Create(p, d)),
        2 => (path(), any::<bool>(), any::<bool>()).prop_map(|(p, d, w)| Step::Open(p, d, w)),
        1 => slot().prop_map(Step::Close),
        6 => (slot(), offset(), len(), any::<u8>()).prop_map(|(f, o, l, b)| Step::Write(f, o, l, b)),
        6 => (slot(), offset(), len()).prop_map(|(f, o, l)| Step::Read(f, o, l)),
        2 => (slot(), offset()).prop_map(|(f, l)| Step::SetLen(f, l)),
        1 => slot().prop_map(Step::Len),
        1 => slot().prop_map(Step::Sync),
        2 => (path(), path()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => path().prop_map(Step::Remove),
        2 => path().prop_map(Step::MakeDir),
        1 => path().prop_map(Step::List),
        1 => path().prop_map(Step::SyncDir),
        1 => (path(), any::<bool>()).prop_map(|(p, e)| Step::Lock(p, e)),
        1 => slot().prop_map(Step::Unlock),
    ]
}

/// A disk with what a workload has open on it.
struct Run<'a> {
    disk: &'a dyn Disk,
    files: Vec<Box<dyn DiskFile>>,
    locks: Vec<Box<dyn DiskLock>>,
}

impl Run<'_> {
    /// What came of a step, in words that are the same for all disks.
    fn take(&mut self, step: &Step) -> io::Result<String> {
        let caching = |direct: bool| BOTH[usize::from(direct)];
        let open = self.files.len();
        let file = |slot: usize| (open > 0).then(|| &self.files[slot % open]);
        match *step {
            Step::Create(p, direct) => {
                self.files.push(self.disk.create(PATHS[p], caching(direct))?);
            }
            Step::Open(p, direct, write) => {
                self.files.push(self.disk.open(PATHS[p], caching(direct), write)?);
            }
            Step::Close(slot) if open > 0 => drop(self.files.swap_remove(slot % open)),
            Step::Write(slot, offset, len, byte) => {
                let data: Vec<u8> = (0..len).map(|i| (i / 7) as u8 ^ byte).collect();
                file(slot).map_or(Ok(()), |f| f.write_all_at(&data, offset))?;
            }
            Step::Read(slot, offset, len) => {
                let mut memory = AlignedBuf::new(len + 1);
                let skew = usize::from(offset % 3 == 1);
                let buf = &mut memory[skew..][..len];
                file(slot).map_or(Ok(()), |f| f.read_exact_at(buf, offset))?;
                return Ok(blake3::hash(buf).to_string());
            }
            Step::SetLen(slot, len) => file(slot).map_or(Ok(()), |f| f.set_len(len))?,
            Step::Len(slot) => return file(slot).map_or(Ok(0), |f| f.len()).map(|n| n.to_string()),
            Step::Sync(slot) => file(slot).map_or(Ok(()), |f| f.sync())?,
            Step::Rename(a, b) => self.disk.rename(PATHS[a], PATHS[b])?,
            Step::Remove(p) => self.disk.remove(PATHS[p])?,
            Step::MakeDir(p) => self.disk.make_dir(PATHS[p])?,
            Step::List(p) => {
                self.disk.list(PATHS[p])?;
                return Ok(format!("{:?}", names(self.disk, PATHS[p])));
            }
            Step::SyncDir(p) => self.disk.sync_dir(PATHS[p])?,
            Step::Lock(p, exclusive) => self.locks.push(self.disk.lock(PATHS[p], exclusive)?),
            Step::Unlock(slot) if !self.locks.is_empty() => {
                let slot = slot % self.locks.len();
                drop(self.locks.swap_remove(slot));
            }
            Step::Close(_) | Step::Unlock(_) => {}
        }
        Ok(String::new())
    }
}

/// Every file and directory below `dir`, with its content.
fn tree(disk: &dyn Disk, dir: &str, found: &mut BTreeMap<String, Option<Vec<u8>>>) {
    for entry in disk.list(dir).unwrap() {
        let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
        if entry.is_dir {
            tree(disk, &path, found);
            found.insert(path, None);
        } else {
            let content = read_file(disk, &path, entry.len).unwrap();
            found.insert(path, Some(content));
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn all_disks_do_the_same(steps in prop::collection::vec(step(), 1..80)) {
        let (_dirs, disks) = disks();
        let mut runs: Vec<_> = disks
            .iter()
            .map(|disk| Run { disk: &**disk, files: Vec::new(), locks: Vec::new() })
            .collect();
        for step in &steps {
            let said: Vec<_> = runs.iter_mut().map(|run| run.take(step).map_err(|e| e.kind())).collect();
            assert!(said.windows(2).all(|w| w[0] == w[1]), "{step:?}: {said:?}");
        }
        let trees: Vec<_> = disks
            .iter()
            .map(|disk| {
                let mut found = BTreeMap::new();
                tree(&**disk, "", &mut found);
                found
            })
            .collect();
        assert!(trees.windows(2).all(|w| w[0] == w[1]));
    }
}
