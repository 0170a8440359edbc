//! A file that goes away after it was listed, as when a writer rotates.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::disk::{Caching, DiskFile, DiskLock, Entry, Space};

/// A disk where so many openings of files find them gone.
#[derive(Debug)]
struct Vanishing(SimDisk, AtomicU32);

impl Disk for Vanishing {
    fn open(&self, path: &str, caching: Caching, write: bool) -> io::Result<Box<dyn DiskFile>> {
        let less = |left: u32| left.checked_sub(1);
        match self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err(io::ErrorKind::NotFound.into()),
            Err(_) => self.0.open(path, caching, write),
        }
    }
    fn create(&self, path: &str, caching: Caching) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(path, caching)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.0.list(dir)
    }
    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.0.make_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
    fn lock(&self, path: &str, exclusive: bool) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(path, exclusive)
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[test]
fn it_is_looked_for_again_but_not_for_ever() {
    let (rig, states) = written(Rig::lone());
    let open = |times| {
        let handle = Arc::new(Vanishing(rig.disk(0), AtomicU32::new(times)));
        let place = Place { disk: 0, handle, dir: "journal".into() };
        Journal::open(&[Some(place)], settings(1), false)
    };
    assert_eq!(&open(5).unwrap().1, states.last().unwrap());
    assert!(matches!(open(1000), Err(Error::Io { .. })));
}
