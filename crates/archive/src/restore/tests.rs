#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use tempfile::tempdir;

use super::*;
use crate::backup::{self, Backup, Input};
use crate::memory::Memory;
use crate::trees;

fn keep(pool: &Memory, path: &Path) -> Image {
    let backup = Backup {
        name: Some("t".into()),
        input: Input::Paths(vec![path.to_path_buf()]),
        ..Backup::default()
    };
    let outcome = backup.run(pool, &backup::Progress::default()).unwrap();
    assert!(outcome.troubles.is_empty(), "{:?}", outcome.troubles);
    outcome.image.unwrap()
}

fn restore(image: &Image, from: &Path, to: &Path) -> Restore {
    Restore {
        image: image.clone(),
        from: from.as_os_str().as_bytes().to_vec(),
        paths: Vec::new(),
        to: to.to_path_buf(),
        include: Vec::new(),
        exclude: Vec::new(),
        overwrite: Overwrite::Changed,
        verify: true,
        numeric_owner: true,
        no_owner: false,
    }
}

fn run(pool: &Memory, restore: &Restore) -> Outcome {
    let outcome = restore.run(pool, &Progress::default()).unwrap();
    assert!(outcome.troubles.is_empty(), "{:?}", outcome.troubles);
    outcome
}

/// Asks a program that has nothing to do with this one.
fn rsync_finds_no_difference(from: &Path, to: &Path) {
    let path = |path: &Path| format!("{}/", path.display());
    let found = std::process::Command::new("rsync")
        .args(["-naicAXH", "--delete", "--numeric-ids", "--devices", "--specials"])
        .args(["--exclude", "*.socket"])
        .args([path(from), path(to)])
        .output()
        .expect("this test needs rsync; `cargo xtask test` installs what is missing");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_comes_back(seed in any::<u64>()) {
        let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
        let sockets = trees::make(from.path(), seed);
        let pool = Memory::default();
        let image = keep(&pool, from.path());
        let request = restore(&image, from.path(), to.path());
        let outcome = run(&pool, &request);
        prop_assert_eq!(outcome.counts.skipped, 0);
        // They are in the image, and told of.
        prop_assert_eq!(outcome.counts.sockets, sockets);
        trees::assert_same(from.path(), to.path());
        rsync_finds_no_difference(from.path(), to.path());
        // Once more: everything is there already.
        let again = run(&pool, &request);
        prop_assert_eq!(again.counts.bytes, 0);
        trees::assert_same(from.path(), to.path());
        // And over something else.
        run(&pool, &Restore { overwrite: Overwrite::Always, ..request });
        trees::assert_same(from.path(), to.path());
    }
}

#[test]
fn sparse_files_stay_sparse() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    let file = fs::File::create(from.path().join("f")).unwrap();
    file.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"here", 1 << 39).unwrap();
    drop(file);
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    let request = Restore { verify: false, ..restore(&image, from.path(), to.path()) };
    run(&pool, &request);
    let meta = fs::metadata(to.path().join("f")).unwrap();
    assert_eq!(meta.len(), 1 << 40);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}

#[test]
fn the_whole_image_goes_under_its_full_path() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(from.path().join("f"), "x").unwrap();
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    run(&pool, &restore(&image, Path::new(""), to.path()));
    let inside = to.path().join(from.path().strip_prefix("/").unwrap());
    trees::assert_same(from.path(), &inside);
}

#[test]
fn a_part_can_be_chosen() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    for dir in ["a/deep", "b", "c"] {
        fs::create_dir_all(from.path().join(dir)).unwrap();
        for name in ["x.c", "x.o"] {
            fs::write(from.path().join(dir).join(name), dir).unwrap();
        }
    }
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    let request = Restore {
        paths: vec![b"a".to_vec(), b"b/x.c".to_vec()],
        exclude: vec!["*.o".into()],
        ..restore(&image, from.path(), to.path())
    };
    run(&pool, &request);
    let names: Vec<_> = trees::look(to.path()).into_keys().collect();
    let expected = ["", "a", "a/deep", "a/deep/x.c", "b", "b/x.c"].map(std::path::PathBuf::from);
    assert_eq!(names, expected);

    let to = tempdir().unwrap();
    let request =
        Restore { include: vec!["*.o".into()], ..restore(&image, from.path(), to.path()) };
    run(&pool, &request);
    assert!(to.path().join("a/deep/x.o").exists() && !to.path().join("a/deep/x.c").exists());

    let to = tempdir().unwrap();
    run(&pool, &restore(&image, &from.path().join("c/x.c"), to.path()));
    assert_eq!(fs::read(to.path().join("x.c")).unwrap(), b"c");

    let missing =
        Restore { paths: vec![b"zz".to_vec()], ..restore(&image, from.path(), to.path()) };
    assert!(matches!(missing.run(&pool, &Progress::default()), Err(Error::NoPath { .. })));
}

#[test]
fn files_that_are_there_are_treated_as_asked() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(from.path().join("f"), "image").unwrap();
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    fs::write(to.path().join("f"), "was there").unwrap();
    let request = restore(&image, from.path(), to.path());
    let never = Restore { overwrite: Overwrite::Never, verify: false, ..request.clone() };
    assert_eq!(run(&pool, &never).counts.skipped, 1);
    assert_eq!(fs::read(to.path().join("f")).unwrap(), b"was there");
    run(&pool, &request);
    assert_eq!(fs::read(to.path().join("f")).unwrap(), b"image");
}

#[test]
fn what_the_target_gives_new_files_is_not_theirs() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/f"), "image").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, from.path().join("d/p"), FileType::Fifo, Mode::RUSR, 0)
        .unwrap();
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    let setfacl = std::process::Command::new("setfacl")
        .args(["-d", "-m", "u:1234:rwx"])
        .arg(to.path())
        .status()
        .expect("this test needs setfacl; `cargo xtask test` installs what is missing");
    assert!(setfacl.success());
    run(&pool, &restore(&image, from.path(), to.path()));
    for (path, line) in trees::look(to.path()) {
        assert!(path.as_os_str().is_empty() || !line.contains("acl"), "{path:?} {line}");
    }
    trees::assert_same(from.path(), to.path());
}

#[test]
fn links_in_the_target_are_not_followed() {
    let (from, to, outside) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/f"), "image").unwrap();
    fs::write(from.path().join("g"), "image").unwrap();
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    fs::write(outside.path().join("victim"), "mine").unwrap();
    symlink(outside.path(), to.path().join("d")).unwrap();
    symlink(outside.path().join("victim"), to.path().join("g")).unwrap();
    let request = restore(&image, from.path(), to.path());
    let never = Restore { overwrite: Overwrite::Never, verify: false, ..request.clone() };
    assert!(!never.run(&pool, &Progress::default()).unwrap().troubles.is_empty());
    assert!(!outside.path().join("f").exists());
    run(&pool, &Restore { overwrite: Overwrite::Always, ..request });
    trees::assert_same(from.path(), to.path());
    assert!(!outside.path().join("f").exists());
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"mine");
}

#[test]
fn a_lost_chunk_costs_its_bytes_alone() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    let content = trees::Dice(5).bytes(3 << 20);
    fs::write(from.path().join("big"), &content).unwrap();
    fs::write(from.path().join("small"), "fine").unwrap();
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    let path = from.path().join("big");
    let entry = image.entry(&pool, path.as_os_str().as_bytes()).unwrap();
    let Body::File(map) = &entry.body else { panic!("no file") };
    let (offset, extent) =
        strongroom_engine::map::MapReader::new(&pool, map, 1 << 20).next().unwrap().unwrap();
    let strongroom_engine::map::Extent::Data { id, .. } = extent else { panic!("a hole") };
    pool.lost.lock().unwrap().insert(id);
    let request = Restore { verify: false, ..restore(&image, from.path(), to.path()) };
    let outcome = request.run(&pool, &Progress::default()).unwrap();
    assert!(outcome.troubles.count >= 1);
    assert!(outcome.troubles.first[0].path.ends_with("big"), "{:?}", outcome.troubles);
    let mut expected = content;
    expected[offset as usize..(offset + extent.len()) as usize].fill(0);
    assert!(fs::read(to.path().join("big")).unwrap() == expected);
    assert_eq!(fs::read(to.path().join("small")).unwrap(), b"fine");
    // Once the chunk is there again, the next restore mends the file.
    pool.lost.lock().unwrap().clear();
    run(&pool, &request);
    trees::assert_same(from.path(), to.path());
}

#[test]
fn what_large_files_have_in_common_is_read_once() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    let one = trees::Dice(7).bytes(6 << 20);
    let page = 4096;
    let parts: [&[u8]; 4] =
        [&[0; 1 << 20], &one[25 * page..5 << 20], &[7; 5000], &one[page + 17..3 << 20]];
    let mut files = vec![one.clone(), parts.concat(), one.repeat(2)];
    // More of them than are kept back at a time.
    files.extend((1..40).map(|n| one[n * page..][..600 << 10].to_vec()));
    for (n, content) in files.iter().enumerate() {
        fs::write(from.path().join(n.to_string()), content).unwrap();
    }
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    let request = Restore { verify: false, ..restore(&image, from.path(), to.path()) };
    run(&pool, &request);
    trees::assert_same(from.path(), to.path());
    let (fetched, all) = (*pool.fetched.lock().unwrap(), pool.chunks());
    assert!(fetched < 3 * all, "{fetched} chunks were read of {all}");

    // What is lost is lost in all of them, and nothing else.
    let path = from.path().join("0");
    let entry = image.entry(&pool, path.as_os_str().as_bytes()).unwrap();
    let Body::File(map) = &entry.body else { panic!("no file") };
    let mut extents = strongroom_engine::map::MapReader::new(&pool, map, 2 << 20);
    let (_, extent) = extents.next().unwrap().unwrap();
    let strongroom_engine::map::Extent::Data { id, len } = extent else { panic!("a hole") };
    pool.lost.lock().unwrap().insert(id);
    let to = tempdir().unwrap();
    let outcome = Restore { to: to.path().into(), ..request }.run(&pool, &Progress::default());
    assert!(outcome.unwrap().troubles.count >= 3);
    for (n, times) in [(0, 1), (1, 2), (2, 2), (3, 0)] {
        let back = fs::read(to.path().join(n.to_string())).unwrap();
        assert_eq!(back.len(), files[n].len());
        let wrong = back.iter().zip(&files[n]).filter(|(a, b)| a != b);
        let zeros = wrong.inspect(|(a, _)| assert_eq!(**a, 0)).count();
        // A few of the lost bytes were zeros before.
        let most = times * len as usize;
        assert!(zeros <= most && zeros >= most * 9 / 10, "{zeros} of {most} in file {n}");
    }
}

#[test]
fn paths_longer_than_the_system_takes_come_back() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    let name = "n".repeat(200);
    let mut folder = Folder::open(from.path().as_os_str().as_bytes()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
        folder = folder.dir(name.as_bytes()).unwrap();
    }
    rustix::fs::mknodat(&folder, "end", FileType::Fifo, Mode::RUSR, 0).unwrap();
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    run(&pool, &restore(&image, from.path(), to.path()));
    let mut folder = Folder::open(to.path().as_os_str().as_bytes()).unwrap();
    for _ in 0..40 {
        folder = folder.dir(name.as_bytes()).unwrap();
    }
    assert_eq!(folder.stat("end").unwrap().kind, Kind::Fifo);
}

#[test]
fn a_canceled_restore_says_so() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(from.path().join("f"), "x").unwrap();
    let pool = Memory::default();
    let image = keep(&pool, from.path());
    let progress = Progress::default();
    progress.cancel();
    assert!(
        restore(&image, from.path(), to.path()).run(&pool, &progress).unwrap_err().is_canceled()
    );
}
