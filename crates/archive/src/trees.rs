//! Trees of files for tests, and a look at them that shares nothing with the product.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// A small generator, so that trees differ by seed alone.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0 ^ self.0 >> 33;
        x.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ x >> 29
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_time(path: &Path, dice: &mut Dice) {
    let time = Timespec {
        tv_sec: 1_000_000_000 + dice.below(700_000_000) as i64,
        tv_nsec: dice.below(1_000_000_000) as i64,
    };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes a tree of every kind of file with every kind of metadata.
pub(crate) fn make(dir: &Path, seed: u64) {
    let mut dice = Dice(seed);
    let mut files: Vec<PathBuf> = Vec::new();
    fill(dir, &mut dice, 0, &mut files);
    set_time(dir, &mut dice);
}

fn fill(dir: &Path, dice: &mut Dice, depth: usize, files: &mut Vec<PathBuf>) {
    for i in 0..3 + dice.below(8) {
        let mut name = format!("{i}-").into_bytes();
        let extra = dice.below(20) as usize;
        name.extend(
            dice.bytes(extra).into_iter().map(|b| if b == 0 || b == b'/' { b'\n' } else { b }),
        );
        let path = dir.join(OsStr::from_bytes(&name));
        match dice.below(12) {
            0..=2 if depth < 3 => {
                fs::create_dir(&path).unwrap();
                fill(&path, dice, depth + 1, files);
                fs::set_permissions(
                    &path,
                    Permissions::from_mode(0o700 | dice.below(0o10000) as u32),
                )
                .unwrap();
            }
            3 => symlink(OsStr::from_bytes(b"\xff/nowhere"), &path).unwrap(),
            4 => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            5 if is_root() => {
                let device = rustix::fs::makedev(200, 300);
                rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, device)
                    .unwrap();
            }
            6 if !files.is_empty() => {
                let old = &files[dice.below(files.len() as u64) as usize];
                fs::hard_link(old, &path).unwrap();
                continue;
            }
            7 => {
                // Holes at the front, in the middle and at the end.
                let file = File::create(&path).unwrap();
                let size = 1 << (16 + dice.below(7));
                file.set_len(size).unwrap();
                for _ in 0..dice.below(4) {
                    let len = dice.below(20_000) as usize;
                    file.write_all_at(&dice.bytes(len), dice.below(size)).unwrap();
                }
                files.push(path.clone());
            }
            kind => {
                let len = match kind {
                    8 => 0,
                    9 => dice.below(5 << 20) * dice.below(2),
                    _ => 1 << dice.below(18),
                };
                let mut content = dice.bytes(len as usize);
                if dice.below(3) == 0 {
                    content.iter_mut().for_each(|b| *b &= 1);
                }
                fs::write(&path, content).unwrap();
                fs::set_permissions(
                    &path,
                    Permissions::from_mode(dice.below(0o10000) as u32 | 0o400),
                )
                .unwrap();
                for i in 0..dice.below(3) {
                    let len = [5, 300, 3000][dice.below(3) as usize];
                    let value = dice.bytes(len);
                    let name = format!("user.a{i}");
                    // Not every filesystem has them.
                    let _ = rustix::fs::setxattr(&path, name, &value, XattrFlags::empty());
                }
                files.push(path.clone());
            }
        }
        if is_root() {
            let (uid, gid) = (dice.below(5) as u32 * 1000, dice.below(5) as u32 * 100);
            let mode = fs::symlink_metadata(&path).unwrap().mode();
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).unwrap();
            if !path.is_symlink() {
                fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777)).unwrap();
            }
        }
        set_time(&path, dice);
    }
}

/// All there is to see of a tree: for each path a line that tells everything.
pub(crate) fn look(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut stack = vec![dir.to_path_buf()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let relative = path.strip_prefix(dir).unwrap().to_path_buf();
        let mut line = format!(
            "{:o} {}:{} {}.{:09}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        if meta.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            stack.extend(names.into_iter().rev());
        } else {
            let first = inodes.entry(meta.ino()).or_insert_with(|| relative.clone());
            line += &format!(" links {} first {first:?} rdev {:x}", meta.nlink(), meta.rdev());
        }
        if meta.is_symlink() {
            line += &format!(" -> {:?}", fs::read_link(&path).unwrap());
        }
        if meta.is_file() {
            let mut hash = DefaultHasher::new();
            let mut content = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut content).unwrap();
            hash.write(&content);
            line += &format!(" {} bytes {:x}", content.len(), hash.finish());
            let mut names = vec![0u8; 4096];
            let len = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
            let mut names: Vec<_> =
                names[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
            names.sort();
            for name in names {
                let mut value = vec![0u8; 65536];
                let len = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
                line += &format!(" {:?}={:?}", OsStr::from_bytes(name), &value[..len.min(40)]);
            }
        }
        out.insert(relative, line);
    }
    out
}

/// Fails with the first difference.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (look(left), look(right));
    for (path, line) in &left {
        assert_eq!(Some(line), right.get(path), "{path:?}");
    }
    for path in right.keys() {
        assert!(left.contains_key(path), "{path:?} should not be there");
    }
}
