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
    let tv_sec = match dice.below(6) {
        // From 1902 to 1970, and from 2038 on: what 32 bits with a sign say otherwise, or not at all.
        0 => -1 - dice.below(2_145_000_000) as i64,
        1 => (1 << 31) + dice.below(10_000_000_000) as i64,
        _ => 1_000_000_000 + dice.below(700_000_000) as i64,
    };
    let time = Timespec { tv_sec, tv_nsec: dice.below(1_000_000_000) as i64 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A POSIX ACL as the system keeps it in an attribute (acl(5), `linux/posix_acl_xattr.h`).
fn acl(dice: &mut Dice) -> Vec<u8> {
    const USER_OBJ: u16 = 1;
    const USER: u16 = 2;
    const GROUP_OBJ: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 16;
    const OTHER: u16 = 32;
    let mut value = 2u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, id: u32| {
        let bits = dice.below(8) as u16;
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    };
    for (tag, id) in [
        (USER_OBJ, u32::MAX),
        (USER, 1234),
        (USER, 70_000),
        (GROUP_OBJ, u32::MAX),
        (GROUP, 99),
        (MASK, u32::MAX),
        (OTHER, u32::MAX),
    ] {
        entry(tag, id);
    }
    value
}

/// File capabilities as the system keeps them in an attribute: version 2, effective.
fn capabilities(dice: &mut Dice) -> Vec<u8> {
    let permitted = 1u32 << dice.below(30);
    [0x0200_0001, permitted, 0, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// Sets an attribute. A test that is not run as root, or on a filesystem without some kind of
/// attribute, says what it leaves out.
fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    if let Err(e) = rustix::fs::setxattr(path, name, value, XattrFlags::empty()) {
        let unfit = matches!(e, rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM);
        assert!(unfit, "{}: {name}: {e}", path.display());
        eprintln!("NOT TESTED: {name} can't be set here: {e}");
    }
}

/// Attributes, ACLs and capabilities of a file or directory that has its owner and mode.
fn set_attributes(path: &Path, dice: &mut Dice) {
    for i in 0..dice.below(3) {
        // All of a file's must fit one block of ext4 together.
        let len = [5, 30, if i == 0 { 2500 } else { 300 }][dice.below(3) as usize];
        set_attribute(path, &format!("user.a{i}"), &dice.bytes(len));
    }
    if dice.below(3) == 0 {
        set_attribute(path, "system.posix_acl_access", &acl(dice));
    }
    if path.is_dir() && dice.below(2) == 0 {
        set_attribute(path, "system.posix_acl_default", &acl(dice));
    }
    if path.is_file() && dice.below(4) == 0 {
        set_attribute(path, "security.capability", &capabilities(dice));
    }
    if dice.below(5) == 0 {
        set_attribute(path, "trusted.note", b"for administrators");
    }
}

/// Makes a tree of every kind of file with every kind of metadata. Sockets have names that end in
/// `.socket`; how many there are.
pub(crate) fn make(dir: &Path, seed: u64) -> u64 {
    if !is_root() {
        eprintln!("NOT TESTED: owners, devices, capabilities: this test is not run as root");
    }
    let mut dice = Dice(seed);
    let mut files: Vec<PathBuf> = Vec::new();
    fill(dir, &mut dice, 0, &mut files);
    set_attributes(dir, &mut dice);
    set_time(dir, &mut dice);
    look(dir).into_keys().filter(|path| is_socket(path)).count() as u64
}

fn is_socket(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b".socket")
}

fn fill(dir: &Path, dice: &mut Dice, depth: usize, files: &mut Vec<PathBuf>) {
    for i in 0..3 + dice.below(8) {
        let mut name = format!("{i}-").into_bytes();
        let extra = dice.below(20) as usize;
        name.extend(
            dice.bytes(extra).into_iter().map(|b| if b == 0 || b == b'/' { b'\n' } else { b }),
        );
        let mut path = dir.join(OsStr::from_bytes(&name));
        match dice.below(14) {
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
            kind @ (5 | 12) if is_root() => {
                let kind =
                    if kind == 5 { FileType::CharacterDevice } else { FileType::BlockDevice };
                // Both numbers of more than eight bits among them.
                let (major, minor) = (1 + dice.below(4095), dice.below(1 << 20));
                let device = rustix::fs::makedev(major as u32, minor as u32);
                rustix::fs::mknodat(CWD, &path, kind, Mode::RUSR, device).unwrap();
            }
            13 => {
                name.extend(b".socket");
                path = dir.join(OsStr::from_bytes(&name));
                rustix::fs::mknodat(CWD, &path, FileType::Socket, Mode::RUSR, 0).unwrap();
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
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_file() || kind.is_dir() {
            set_attributes(&path, dice);
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
        if !meta.is_dir() && !meta.is_file() {
            out.insert(relative, line);
            continue;
        }
        if meta.is_file() {
            let mut hash = DefaultHasher::new();
            let mut content = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut content).unwrap();
            hash.write(&content);
            line += &format!(" {} bytes {:x}", content.len(), hash.finish());
        }
        let mut names = vec![0u8; 4096];
        let len = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
        let mut names: Vec<_> = names[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        names.sort();
        for name in names {
            let mut value = vec![0u8; 65536];
            let len = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
            line += &format!(" {:?}={:?}", OsStr::from_bytes(name), &value[..len]);
        }
        out.insert(relative, line);
    }
    out
}

/// Fails with the first difference. Sockets are not restored: programs make their own.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (look(left), look(right));
    for (path, line) in left.iter().filter(|(path, _)| !is_socket(path)) {
        assert_eq!(Some(line), right.get(path), "{path:?}");
    }
    for path in right.keys() {
        assert!(left.contains_key(path) && !is_socket(path), "{path:?} should not be there");
    }
}
