#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use strongroom_engine::map::{Extent, MapReader};
use tempfile::tempdir;

use super::*;
use crate::memory::Memory;
use crate::store::Chunks;
use crate::trees;

fn backup(path: &Path) -> Backup {
    Backup {
        name: Some("t".into()),
        input: Input::Paths(vec![path.to_path_buf()]),
        host: Some("h".into()),
        ..Backup::default()
    }
}

fn run(pool: &Memory, backup: Backup) -> Outcome {
    backup.run(pool, &Progress::default()).unwrap()
}

fn entry(pool: &Memory, outcome: &Outcome, path: &Path) -> Result<Entry> {
    outcome.image.as_ref().unwrap().entry(pool, path.as_os_str().as_bytes())
}

/// Makes all inodes old enough to be trusted.
fn settle() {
    let start = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    loop {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let passed = (now.tv_sec - start.tv_sec) * 1_000_000_000 + now.tv_nsec - start.tv_nsec;
        if passed > 30_000_000 {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn nothing_changed_reads_nothing_and_gives_the_same_nodes() {
    let dir = tempdir().unwrap();
    trees::make(dir.path(), 1);
    settle();
    let pool = Memory::default();
    let first = run(&pool, backup(dir.path()));
    assert!(first.troubles.is_empty(), "{:?}", first.troubles);
    let progress = Progress::default();
    let second = backup(dir.path()).run(&pool, &progress).unwrap();
    assert_eq!(progress.counts().unread, 0);
    assert_eq!(second.stats.files, first.stats.files);
    // Not counted: anybody may have changed the directories above meanwhile.
    let body = |outcome: &Outcome| entry(&pool, outcome, dir.path()).unwrap().body;
    assert_eq!(body(&second), body(&first), "the second image shares all nodes of the first");
    assert_eq!(second.image.unwrap().meta.parent, Some(first.image.unwrap().id));
}

#[test]
fn a_changed_file_is_read_and_a_lost_chunk_heals() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("a"), vec![1; 3000]).unwrap();
    fs::write(dir.path().join("b"), vec![2; 3000]).unwrap();
    settle();
    let pool = Memory::default();
    run(&pool, backup(dir.path()));
    fs::write(dir.path().join("a"), vec![3; 3000]).unwrap();
    let progress = Progress::default();
    backup(dir.path()).run(&pool, &progress).unwrap();
    assert_eq!(progress.counts().unread, 3000);
    settle();
    run(&pool, backup(dir.path()));
    let last = run(&pool, backup(dir.path()));
    let lost: Vec<_> = entry(&pool, &last, &dir.path().join("b")).unwrap().ids().collect();
    pool.lost.lock().unwrap().extend(lost);
    let progress = Progress::default();
    backup(dir.path()).run(&pool, &progress).unwrap();
    assert_eq!(progress.counts().unread, 3000, "the file with the lost chunk is read again");
}

#[test]
fn a_file_that_was_just_written_is_not_trusted() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, "new").unwrap();
    let pool = Memory::default();
    let first = run(&pool, backup(dir.path()));
    assert!(entry(&pool, &first, &path).unwrap().racy);
    let progress = Progress::default();
    backup(dir.path()).run(&pool, &progress).unwrap();
    assert_eq!(progress.counts().unread, 3);
}

#[test]
fn rules_leave_things_out() {
    let dir = tempdir().unwrap();
    for name in ["a.o", "a.c", "keep.o"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    for name in ["cache", "target"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("x"), "x").unwrap();
    }
    fs::write(
        dir.path().join("cache/CACHEDIR.TAG"),
        "Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n",
    )
    .unwrap();
    let pool = Memory::default();
    let outcome = run(
        &pool,
        Backup {
            excludes: vec!["*.o".into(), "!keep.o".into(), "target/".into()],
            exclude_caches: true,
            ..backup(dir.path())
        },
    );
    let has = |name: &str| entry(&pool, &outcome, &dir.path().join(name)).is_ok();
    assert!(has("a.c") && has("keep.o") && has("cache") && has("cache/CACHEDIR.TAG"));
    assert!(!has("a.o") && !has("target") && !has("cache/x"));
}

#[test]
fn several_paths_share_what_is_above_them() {
    let dir = tempdir().unwrap();
    for name in ["one/deep", "two", "three"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("f"), name).unwrap();
    }
    symlink("two", dir.path().join("link")).unwrap();
    let pool = Memory::default();
    let paths = ["one/deep", "one/deep/f", "link/f", "three"].map(|name| dir.path().join(name));
    let outcome = run(&pool, Backup { input: Input::Paths(paths.into()), ..backup(dir.path()) });
    assert!(outcome.troubles.is_empty(), "{:?}", outcome.troubles);
    let get = |name: &str| entry(&pool, &outcome, &dir.path().join(name));
    assert!(get("one").unwrap().passed);
    assert!(!get("one/deep").unwrap().passed);
    assert!(get("one/deep/f").is_ok() && get("three/f").is_ok());
    assert!(get("link").unwrap().is_dir(), "a link on the way is followed");
    assert!(get("link/f").is_ok());
    assert!(get("two").is_err());
}

#[test]
fn what_is_missing_is_told_and_the_rest_is_kept() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("f"), "f").unwrap();
    let pool = Memory::default();
    let paths = vec![dir.path().join("f"), dir.path().join("nothing")];
    let outcome = run(&pool, Backup { input: Input::Paths(paths), ..backup(dir.path()) });
    assert_eq!(outcome.troubles.count, 1);
    assert!(outcome.troubles.first[0].path.ends_with("nothing"));
    assert!(!outcome.image.as_ref().unwrap().meta.complete);
    let only =
        Backup { input: Input::Paths(vec![dir.path().join("nothing")]), ..backup(dir.path()) };
    assert!(only.run(&pool, &Progress::default()).is_err());
}

#[test]
fn files_that_vanish_while_they_are_read_are_told_and_the_rest_is_kept() {
    let dir = tempdir().unwrap();
    let files: Vec<_> = (0..3000).map(|n| dir.path().join(format!("{n:04}"))).collect();
    files.iter().enumerate().for_each(|(n, file)| fs::write(file, vec![n as u8; 4096]).unwrap());
    // The walk has seen them all and the workers have some in their buffers when the first is stored.
    let pool = Memory::default();
    *pool.vanishing.lock().unwrap() = files[2000..].to_vec();
    let outcome = run(&pool, backup(dir.path()));
    assert!((1..=1000).contains(&outcome.troubles.count), "{}", outcome.troubles.count);
    assert!(!outcome.image.as_ref().unwrap().meta.complete);
    let told: Vec<_> = outcome.troubles.first.iter().map(|trouble| &trouble.path).collect();
    assert!(outcome.troubles.first.iter().all(|trouble| trouble.what.contains("No such file")));
    for (n, file) in files.iter().enumerate() {
        let missing = told.contains(&&file.to_str().unwrap().to_owned());
        assert_eq!(entry(&pool, &outcome, file).is_err(), missing, "{}", file.display());
        assert!(n >= 2000 || !missing, "{}", file.display());
    }
}

#[test]
fn a_socket_is_noted() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let pool = Memory::default();
    let outcome = run(&pool, backup(dir.path()));
    assert!(outcome.troubles.first.is_empty(), "{:?}", outcome.troubles);
    assert_eq!(entry(&pool, &outcome, &path).unwrap().body, Body::Socket);
}

#[test]
fn a_block_image_has_fixed_chunks_and_holes() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("disk");
    let file = File::create(&path).unwrap();
    file.set_len(9 << 20).unwrap();
    let mut dice = trees::Dice(7);
    file.write_all_at(&dice.bytes(8192), 4 << 20).unwrap();
    file.write_all_at(&dice.bytes(100), 5000).unwrap();
    file.write_all_at(&[0; 65536], 1 << 20).unwrap();
    let pool = Memory::default();
    let outcome = run(&pool, Backup { input: Input::Block(path), ..backup(dir.path()) });
    let image = outcome.image.unwrap();
    assert_eq!(image.meta.kind, ImageKind::Block);
    let Body::File(map) = image.top(&pool).unwrap().entry.body else { panic!("no file") };
    assert_eq!(map.len(), 9 << 20);
    let data: Vec<_> = MapReader::new(&pool, &map, 0)
        .map(Result::unwrap)
        .filter(|(_, extent)| matches!(extent, Extent::Data { .. }))
        .map(|(offset, extent)| (offset, extent.len()))
        .collect();
    assert_eq!(data, [(4096, 4096), (4 << 20, 4096), ((4 << 20) + 4096, 4096)]);
}

#[test]
fn a_stream_is_kept_whole() {
    let pool = Memory::default();
    for len in [0, 1, 4096, 1 << 20, (5 << 20) + 17] {
        let content = trees::Dice(len as u64).bytes(len);
        let input = Input::Stream(Box::new(Cursor::new(content.clone())));
        let outcome = Backup { input, name: Some("db.sql".into()), ..Backup::default() }
            .run(&pool, &Progress::default());
        let image = outcome.unwrap().image.unwrap();
        let entry = image.entry(&pool, b"db.sql").unwrap();
        let Body::File(map) = &entry.body else { panic!("no file") };
        let mut found = Vec::new();
        for step in MapReader::new(&pool, map, 0) {
            let (_, Extent::Data { id, .. }) = step.unwrap() else { panic!("a hole") };
            pool.chunk(&id, &mut found).unwrap();
        }
        assert!(found == content, "{len} bytes");
    }
}

#[test]
fn a_trial_stores_nothing() {
    let dir = tempdir().unwrap();
    trees::make(dir.path(), 3);
    let pool = Memory::default();
    let outcome = backup(dir.path()).trial(&pool, &Progress::default()).unwrap();
    assert!(outcome.image.is_none());
    assert!(outcome.stats.new_bytes > 0);
    assert_eq!((pool.nodes(), pool.chunks()), (0, 0));
}

#[test]
fn a_canceled_backup_leaves_no_image() {
    let dir = tempdir().unwrap();
    trees::make(dir.path(), 4);
    let pool = Memory::default();
    let progress = Progress::default();
    progress.cancel();
    assert!(backup(dir.path()).run(&pool, &progress).unwrap_err().is_canceled());
    assert!(images(&pool).unwrap().0.is_empty());
}

#[test]
fn names_are_made_for_paths_that_have_none() {
    assert_eq!(default_name(b"/usr", "h"), "usr");
    assert_eq!(default_name(b"/", "h"), "h");
    assert_eq!(file_name("a/b"), b"a_b");
    assert_eq!(file_name(".."), b"content");
    let paths = [&b"/usr"[..], b"/usr/lib", b"/usrx", b"/usr"].map(<[u8]>::to_vec).to_vec();
    assert_eq!(outermost(paths), [&b"/usr"[..], b"/usrx"]);
}
