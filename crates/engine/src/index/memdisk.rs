//! A disk in memory, for the tests of the index.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::writer;
use crate::disk::{Caching, Disk, DiskFile, DiskLock, Entry, Space};
use crate::id::SegmentId;

pub(super) type Content = Arc<Mutex<Vec<u8>>>;

/// A disk in memory that can be told to fail after a number of changes.
#[derive(Debug)]
pub(super) struct MemDisk {
    files: Mutex<BTreeMap<String, Content>>,
    pub(super) changes_left: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct MemFile(Content, Arc<AtomicUsize>);

fn change(left: &AtomicUsize) -> io::Result<()> {
    let step = |n: usize| n.checked_sub(1);
    match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other("the disk is broken")),
    }
}

impl DiskFile for MemFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let from = bytes.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        change(&self.1)?;
        let mut bytes = self.0.lock().unwrap();
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        change(&self.1)
    }
}

impl MemDisk {
    pub(super) fn new() -> Arc<Self> {
        let changes_left = Arc::new(AtomicUsize::new(usize::MAX));
        Arc::new(Self { files: Mutex::default(), changes_left })
    }
    pub(super) fn content(&self, id: SegmentId) -> Option<Content> {
        self.files.lock().unwrap().get(&writer::path(id)).cloned()
    }
    pub(super) fn bytes(&self, id: SegmentId) -> Vec<u8> {
        self.content(id).unwrap().lock().unwrap().clone()
    }
    pub(super) fn set(&self, id: SegmentId, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(writer::path(id), Arc::new(Mutex::new(bytes)));
    }
    pub(super) fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &str, _: Caching, _: bool) -> io::Result<Box<dyn DiskFile>> {
        let files = self.files.lock().unwrap();
        let content = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile(Arc::clone(content), Arc::clone(&self.changes_left))))
    }
    fn create(&self, path: &str, _: Caching) -> io::Result<Box<dyn DiskFile>> {
        change(&self.changes_left)?;
        let content = Content::default();
        let old = self.files.lock().unwrap().insert(path.to_owned(), Arc::clone(&content));
        assert!(old.is_none());
        Ok(Box::new(MemFile(content, Arc::clone(&self.changes_left))))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        change(&self.changes_left)?;
        let mut files = self.files.lock().unwrap();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        let old = self.files.lock().unwrap().remove(path);
        old.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let names = self.names().into_iter();
        let inside = names.filter_map(|n| n.strip_prefix(&format!("{dir}/")).map(str::to_owned));
        Ok(inside.map(|name| Entry { name, len: 0, is_dir: false }).collect())
    }
    fn make_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: 0, free: 0 })
    }
    fn lock(&self, _: &str, _: bool) -> io::Result<Box<dyn DiskLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
