//! Somebody who looks at a pool between any two steps of whoever writes it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use strongroom_engine::disk::{Caching, Disk, DiskFile, DiskLock, Entry, Space};

type Look = Box<dyn Fn() + Send>;

/// Looks before every so-many-th operation that changes a disk.
pub struct Watch {
    every: u64,
    seen: AtomicU64,
    /// How often it looked.
    pub looks: AtomicU64,
    /// Locks that keep readers out, for as long as files are removed.
    closed: AtomicU64,
    look: Mutex<Option<Look>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch(every {})", self.every)
    }
}

impl Watch {
    pub fn new(every: u64, look: Look) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        let look = Mutex::new(Some(look));
        Arc::new(Self { every, seen: zero(), looks: zero(), closed: zero(), look })
    }

    fn step(&self) {
        let due = self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every);
        if !due || self.closed.load(Ordering::Relaxed) > 0 {
            return;
        }
        // Not while it is looking: who looks may take locks, too.
        let Some(look) = self.look.lock().unwrap().take() else { return };
        look();
        self.looks.fetch_add(1, Ordering::Relaxed);
        *self.look.lock().unwrap() = Some(look);
    }
}

/// A disk that is looked at.
pub fn watched(disk: Arc<dyn Disk>, watch: &Arc<Watch>) -> Arc<dyn Disk> {
    Arc::new(Watched { disk, watch: Arc::clone(watch) })
}

#[derive(Debug)]
struct Watched {
    disk: Arc<dyn Disk>,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn DiskFile>,
    watch: Arc<Watch>,
}

impl Watched {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(WatchedFile { file, watch: Arc::clone(&self.watch) })
    }
}

impl Disk for Watched {
    fn open(&self, path: &str, caching: Caching, write: bool) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.open(path, caching, write)?))
    }

    fn create(&self, path: &str, caching: Caching) -> io::Result<Box<dyn DiskFile>> {
        self.watch.step();
        Ok(self.file(self.disk.create(path, caching)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.watch.step();
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.watch.step();
        self.disk.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.watch.step();
        self.disk.make_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.watch.step();
        self.disk.sync_dir(dir)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn lock(&self, path: &str, exclusive: bool) -> io::Result<Box<dyn DiskLock>> {
        let lock = self.disk.lock(path, exclusive)?;
        if !(exclusive && path == "pool.readers") {
            return Ok(lock);
        }
        self.watch.closed.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Closed { _lock: lock, watch: Arc::clone(&self.watch) }))
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

impl DiskFile for WatchedFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.watch.step();
        self.file.write_all_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.step();
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.watch.step();
        self.file.sync()
    }
}

/// Readers are kept out.
#[derive(Debug)]
struct Closed {
    _lock: Box<dyn DiskLock>,
    watch: Arc<Watch>,
}

impl DiskLock for Closed {}

impl Drop for Closed {
    fn drop(&mut self) {
        self.watch.closed.fetch_sub(1, Ordering::Relaxed);
    }
}
