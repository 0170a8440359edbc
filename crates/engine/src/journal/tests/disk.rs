//! Disks in memory that lose power, and all that was not synced with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Caching, Disk, DiskFile, DiskLock, Entry, Space};

/// The power supply of several disks: counts the changes they make, and fails at one of them.
#[derive(Debug)]
pub(crate) struct Power {
    changes: AtomicU64,
    cut_at: AtomicU64,
}

impl Power {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { changes: AtomicU64::new(0), cut_at: AtomicU64::new(u64::MAX) })
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// The change with this number (from 1), and all after it, fail.
    pub(crate) fn cut_at(&self, change: u64) {
        self.cut_at.store(change, Ordering::SeqCst);
    }

    fn tick(&self) -> io::Result<()> {
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        if number >= self.cut_at.load(Ordering::SeqCst) { Err(off()) } else { Ok(()) }
    }

    fn check(&self) -> io::Result<()> {
        let off_now = self.changes() >= self.cut_at.load(Ordering::SeqCst);
        if off_now { Err(off()) } else { Ok(()) }
    }
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

/// Numbers that are the same for the same seed.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// What becomes of that which was not synced.
#[derive(Debug)]
pub(crate) enum Unsynced {
    Lost,
    Kept,
    Dice(Dice),
}

impl Unsynced {
    fn keep(&mut self) -> bool {
        match self {
            Self::Lost => false,
            Self::Kept => true,
            Self::Dice(dice) => dice.coin(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Name {
    Set(String, usize),
    Gone(String),
    Dir(String),
}

#[derive(Clone, Debug, Default)]
struct Content {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    dirs: BTreeSet<String>,
    synced_names: BTreeMap<String, usize>,
    synced_dirs: BTreeSet<String>,
    pending: Vec<Name>,
    /// All calls fail.
    broken: bool,
    /// All syncs of files fail.
    sync_fails: bool,
    /// Reads that touch these bytes of any file fail.
    bad_sector: Option<std::ops::Range<u64>>,
    /// That many opens find the file gone.
    vanish: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct TestDisk {
    name: String,
    content: Arc<Mutex<Content>>,
    power: Arc<Power>,
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    bytes.resize(bytes.len().max(at + data.len()), 0);
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl TestDisk {
    pub(crate) fn new(name: usize, power: &Arc<Power>) -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        Self { name: format!("disk{name}"), content, power: Arc::clone(power) }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// The same disk after a power cut, on a new supply.
    pub(crate) fn after_cut(&self, unsynced: &mut Unsynced, power: &Arc<Power>) -> Self {
        let mut content = self.content().clone();
        for inode in &mut content.inodes {
            for (at, data) in std::mem::take(&mut inode.pending) {
                for (i, sector) in data.chunks(512).enumerate() {
                    if unsynced.keep() {
                        put(&mut inode.synced, at as usize + i * 512, sector);
                    }
                }
                if unsynced.keep() {
                    // The length was written, the sectors were not.
                    let len = inode.synced.len().max(at as usize + data.len());
                    inode.synced.resize(len, 0);
                }
            }
            inode.now.clone_from(&inode.synced);
        }
        let (mut names, mut dirs) = (content.synced_names, content.synced_dirs);
        for change in std::mem::take(&mut content.pending) {
            if unsynced.keep() {
                apply(&mut names, &mut dirs, change);
            }
        }
        (content.names, content.dirs) = (names.clone(), dirs.clone());
        (content.synced_names, content.synced_dirs) = (names, dirs);
        let content = Arc::new(Mutex::new(content));
        Self { name: self.name.clone(), content, power: Arc::clone(power) }
    }

    /// A copy that lives on by itself.
    pub(crate) fn fork(&self) -> Self {
        let content = Arc::new(Mutex::new(self.content().clone()));
        Self { content, ..self.clone() }
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.content().names.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        let content = self.content();
        content.inodes[content.names[path]].now.clone()
    }

    /// Replaces what a file holds, durably, as bit rot does.
    pub(crate) fn set_bytes(&self, path: &str, bytes: &[u8]) {
        let mut content = self.content();
        let content = &mut *content;
        let inode = *content.names.entry(path.into()).or_insert_with(|| {
            content.inodes.push(Inode::default());
            content.inodes.len() - 1
        });
        content.synced_names.insert(path.into(), inode);
        let dir = parent(path).to_owned();
        content.dirs.insert(dir.clone());
        content.synced_dirs.insert(dir);
        content.inodes[inode] =
            Inode { now: bytes.to_vec(), synced: bytes.to_vec(), pending: Vec::new() };
    }

    pub(crate) fn set_broken(&self, broken: bool) {
        self.content().broken = broken;
    }

    pub(crate) fn set_sync_fails(&self, fails: bool) {
        self.content().sync_fails = fails;
    }

    pub(crate) fn set_bad_sector(&self, range: Option<std::ops::Range<u64>>) {
        self.content().bad_sector = range;
    }

    pub(crate) fn set_vanish(&self, times: u32) {
        self.content().vanish = times;
    }

    /// Before a change: the content to change, and what to return after it.
    fn change(&self) -> io::Result<(MutexGuard<'_, Content>, io::Result<()>)> {
        self.power.check()?;
        let content = self.content();
        if content.broken {
            return Err(io::Error::other("the disk is broken"));
        }
        let outcome = self.power.tick();
        Ok((content, outcome))
    }

    fn look(&self) -> io::Result<MutexGuard<'_, Content>> {
        self.power.check()?;
        let content = self.content();
        if content.broken { Err(io::Error::other("the disk is broken")) } else { Ok(content) }
    }

    fn file(&self, inode: usize) -> Box<dyn DiskFile> {
        Box::new(TestFile { disk: self.clone(), inode })
    }
}

fn apply(names: &mut BTreeMap<String, usize>, dirs: &mut BTreeSet<String>, change: Name) {
    match change {
        Name::Set(path, inode) => drop(names.insert(path, inode)),
        Name::Gone(path) => drop(names.remove(&path)),
        Name::Dir(path) => drop(dirs.insert(path)),
    }
}

impl Content {
    fn rename_now(&mut self, changes: &[Name]) {
        for change in changes {
            apply(&mut self.names, &mut self.dirs, change.clone());
            self.pending.push(change.clone());
        }
    }
}

impl Disk for TestDisk {
    fn open(&self, path: &str, _: Caching, _: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut content = self.look()?;
        if content.vanish > 0 {
            content.vanish -= 1;
            return Err(not_found());
        }
        content.names.get(path).map(|inode| self.file(*inode)).ok_or_else(not_found)
    }

    fn create(&self, path: &str, _: Caching) -> io::Result<Box<dyn DiskFile>> {
        let (mut content, outcome) = self.change()?;
        if content.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !content.dirs.contains(parent(path)) {
            return Err(not_found());
        }
        content.inodes.push(Inode::default());
        let inode = content.inodes.len() - 1;
        content.rename_now(&[Name::Set(path.into(), inode)]);
        outcome.map(|()| self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut content, outcome) = self.change()?;
        let inode = *content.names.get(from).ok_or_else(not_found)?;
        content.rename_now(&[Name::Set(to.into(), inode), Name::Gone(from.into())]);
        outcome
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        if !self.look()?.names.contains_key(path) {
            return Err(not_found());
        }
        let (mut content, outcome) = self.change()?;
        content.rename_now(&[Name::Gone(path.into())]);
        outcome
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let content = self.look()?;
        if !content.dirs.contains(dir) {
            return Err(not_found());
        }
        let inside = content.names.keys().filter(|path| parent(path) == dir);
        let name = |path: &String| path.rsplit('/').next().unwrap().to_owned();
        Ok(inside.map(|path| Entry { name: name(path), len: 0, is_dir: false }).collect())
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        let (mut content, outcome) = self.change()?;
        content.rename_now(&[Name::Dir(dir.into())]);
        outcome
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let (mut content, outcome) = self.change()?;
        if outcome.is_ok() {
            let content = &mut *content;
            for change in std::mem::take(&mut content.pending) {
                let (Name::Set(path, _) | Name::Gone(path) | Name::Dir(path)) = &change;
                if parent(path) == dir {
                    apply(&mut content.synced_names, &mut content.synced_dirs, change);
                } else {
                    content.pending.push(change);
                }
            }
        }
        outcome
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: u64::MAX, free: u64::MAX })
    }

    fn lock(&self, _: &str, _: bool) -> io::Result<Box<dyn DiskLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

#[derive(Debug)]
struct TestFile {
    disk: TestDisk,
    inode: usize,
}

impl DiskFile for TestFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.disk.look()?;
        let (from, to) = (offset as usize, offset as usize + buf.len());
        if let Some(bad) = &content.bad_sector
            && bad.start < to as u64
            && offset < bad.end
        {
            return Err(io::Error::other("a bad sector"));
        }
        let bytes = content.inodes[self.inode].now.get(from..to);
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let (mut content, outcome) = self.disk.change()?;
        let inode = &mut content.inodes[self.inode];
        put(&mut inode.now, offset as usize, data);
        inode.pending.push((offset, data.to_vec()));
        outcome
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.look()?.inodes[self.inode].now.len() as u64)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut content, outcome) = self.disk.change()?;
        if content.sync_fails {
            return Err(io::Error::other("a failed sync"));
        }
        if outcome.is_ok() {
            let inode = &mut content.inodes[self.inode];
            inode.pending.clear();
            inode.synced.clone_from(&inode.now);
        }
        outcome
    }
}
