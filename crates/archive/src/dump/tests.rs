#![allow(clippy::unwrap_used, reason = "tests")]
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, FileType, Timespec, Timestamps, XattrFlags};

use super::*;
use crate::entry::Body;
use crate::memory::Memory;
use crate::scan::testing::{backup, inside};

fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("sub/empty")).unwrap();
    fs::write(dir.join("sub/file"), b"hello").unwrap();
    fs::hard_link(dir.join("sub/file"), dir.join("sub/other")).unwrap();
    fs::write(dir.join("big"), vec![7u8; 3_000_001]).unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    symlink("sub/file", dir.join("link")).unwrap();
    symlink("t/".repeat(80), dir.join("far")).unwrap();
    fs::write(dir.join("set"), b"#!/bin/sh").unwrap();
    fs::set_permissions(dir.join("set"), fs::Permissions::from_mode(0o4751)).unwrap();
    let long = dir.join("l".repeat(120)).join("m".repeat(200));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("deep"), b"deep").unwrap();
    for (name, sec) in [("old", -5), ("new", 1 << 33)] {
        fs::write(dir.join(name), name).unwrap();
        let time = Timespec { tv_sec: sec, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, dir.join(name), &times, AtFlags::empty()).unwrap();
    }
}

fn odd(dir: &Path) {
    fs::write(dir.join(OsStr::from_bytes(b"\xff\xfe name\n")), b"odd").unwrap();
    let long = dir.join(OsStr::from_bytes(&[b"\xff", &b"n".repeat(150)[..]].concat()));
    fs::write(long, b"odd and long").unwrap();
    let fifo = FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), fifo, 0o640.into(), 0).unwrap();
    let name = dir.join("big");
    // Not every filesystem that tests run on has attributes.
    let _ = rustix::fs::setxattr(&name, "user.a=b%", b"\0value\n", XattrFlags::empty());
    let _ = rustix::fs::setxattr(&name, "user.plain", b"v", XattrFlags::empty());
}

/// Everything about a tree that an archive keeps, as text.
fn describe(root: &Path, all: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let content = if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let hash = content.iter().fold(content.len() as u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        // Set-id bits don't survive in a zip.
        let mode = if all { meta.mode() } else { meta.mode() & !0o7000 };
        let mut line = format!("{name:?} {mode:o} {hash:x}");
        if all {
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let time = (meta.mtime(), meta.mtime_nsec());
            line += &format!(" {}:{} {links} {time:?}", meta.uid(), meta.gid());
            for name in ["user.a=b%", "user.plain"] {
                let mut value = [0; 64];
                let len = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap_or(0);
                line += &format!(" {:?}", &value[..len]);
            }
        }
        found.push(line);
    }
    found.sort();
    found
}

fn dumped(store: &Memory, image: &Image, path: &[u8], format: Format) -> (Vec<u8>, Troubles) {
    let mut out = Vec::new();
    let troubles = dump(store, image, path, format, &mut out).unwrap();
    (out, troubles)
}

fn made(full: bool) -> (tempfile::TempDir, PathBuf, Memory, Image) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    tree(&dir);
    if full {
        odd(&dir);
    }
    let store = Memory::default();
    let image = backup(&store, &dir, "x");
    (temp, dir, store, image)
}

#[test]
fn the_system_s_tar_unpacks_all_of_it() {
    let (temp, dir, store, image) = made(true);
    let (bytes, troubles) = dumped(&store, &image, &inside(&dir), Format::Tar);
    assert!(troubles.is_empty(), "{troubles:?}");
    let file = temp.path().join("a.tar");
    fs::write(&file, bytes).unwrap();
    let out = temp.path().join("out");
    fs::create_dir(&out).unwrap();
    let done = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&file)
        .arg("-C")
        .arg(&out)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found = describe(&out.join("d"), true);
    assert_eq!(found, describe(&dir, true));
}

#[test]
fn zip_holds_files_directories_and_links() {
    let (temp, dir, store, image) = made(false);
    let (bytes, troubles) = dumped(&store, &image, &inside(&dir), Format::Zip);
    assert!(troubles.is_empty(), "{troubles:?}");
    let mut zip = ::zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let out = temp.path().join("out");
    zip.extract(&out).unwrap();
    assert_eq!(describe(&out.join("d"), false), describe(&dir, false));
}

#[test]
fn another_program_reads_the_zip() {
    let (temp, dir, store, image) = made(true);
    let (bytes, troubles) = dumped(&store, &image, &inside(&dir), Format::Zip);
    assert_eq!(troubles.count, 3);
    let file = temp.path().join("a.zip");
    fs::write(&file, bytes).unwrap();
    let check = "import sys, zipfile\n\
                 z = zipfile.ZipFile(sys.argv[1])\n\
                 assert z.testzip() is None\n\
                 assert z.read('d/sub/other') == b'hello'\n\
                 assert z.getinfo('d/set').external_attr >> 16 == 0o100751\n";
    let Ok(done) = Command::new("python3").arg("-c").arg(check).arg(&file).output() else {
        return;
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    if let Ok(done) = Command::new("unzip").arg("-tqq").arg(&file).output() {
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
}

#[test]
fn what_is_lost_becomes_zeroes_and_the_rest_is_whole() {
    let (temp, dir, store, image) = made(false);
    let name = [&inside(&dir)[..], b"/sub/file"].concat();
    let Body::File(map) = image.entry(&store, &name).unwrap().body else { panic!("a file") };
    store.lost.lock().unwrap().insert(map.ids().next().unwrap());
    let (bytes, troubles) = dumped(&store, &image, &inside(&dir), Format::Tar);
    assert_eq!(troubles.count, 1);
    assert_eq!(troubles.first[0].path, "d/sub/file");
    let file = temp.path().join("a.tar");
    fs::write(&file, bytes).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&file).arg("-C").arg(temp.path()).arg("d/sub/file");
    assert!(tar.status().unwrap().success());
    assert_eq!(fs::read(dir.join("sub/file")).unwrap(), [0; 5]);
    assert!(Command::new("tar").arg("-tf").arg(&file).output().unwrap().status.success());
}

#[test]
fn names_begin_at_the_path_or_at_the_top() {
    let (_temp, dir, store, image) = made(false);
    let at = inside(&dir);
    let top = [at[1..].split(|b| *b == b'/').next().unwrap(), b"/"].concat();
    for (path, expected) in [([&at[..], b"/sub"].concat(), b"sub/".to_vec()), (Vec::new(), top)] {
        let (bytes, troubles) = dumped(&store, &image, &path, Format::Tar);
        assert!(troubles.is_empty());
        let mut tar = ::tar::Archive::new(&bytes[..]);
        let first = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(first.path_bytes(), expected);
    }
}
