//! A file that is being restored.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use strongroom_engine::buf::PAGE;
use strongroom_engine::map::{Extent, MapReader, MapRef};

use super::Shared;
use crate::entry::{Body, Entry};
use crate::folder::{Folder, meta_of};

/// Files whose list of extents would take too long to look through for holes are not preallocated.
const LOOK_THROUGH: u64 = 64 << 30;

/// A file that is being restored: created when the first byte of it is written, whole when the
/// last is.
pub(super) struct OutFile {
    folder: Arc<Folder>,
    pub(super) entry: Entry,
    pub(super) path: Vec<u8>,
    open: OnceLock<Handles>,
    /// Windows that still have something of it, and 1 while more may come.
    left: AtomicUsize,
    failed: AtomicBool,
    /// Some of it could not be read.
    damaged: AtomicBool,
}

struct Handles {
    fd: OwnedFd,
    /// Past the page cache.
    direct: Option<OwnedFd>,
    /// It has all its room, which reads as zeros: zeros need not be written.
    zeroed: AtomicBool,
}

/// Zeros are left out where this many come together, in bytes.
const ZEROS: usize = 64 << 10;

impl OutFile {
    pub(super) fn new(folder: Arc<Folder>, entry: Entry, path: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            folder,
            entry,
            path,
            open: OnceLock::new(),
            left: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        })
    }

    /// One more window has something of it.
    pub(super) fn hold(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Creates a large file and makes room for it.
    pub(super) fn prepare(&self, shared: &Shared<'_>, map: &MapRef) {
        let handles = match self.create(true) {
            Ok(handles) => self.open.get_or_init(|| handles),
            Err(e) => return self.fail(shared, format!("creating it: {e}")),
        };
        let size = map.len();
        let dense = size <= LOOK_THROUGH
            && MapReader::new(shared.source, map, 0)
                .all(|step| step.is_ok_and(|(_, extent)| matches!(extent, Extent::Data { .. })));
        if dense {
            match rustix::fs::fallocate(&handles.fd, FallocateFlags::empty(), 0, size) {
                Ok(()) => handles.zeroed.store(true, Ordering::Relaxed),
                Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    self.fail(shared, format!("making room for {size} bytes: {e}"));
                }
                // Not every filesystem can do so; the file then grows as it is written.
                Err(_) => {}
            }
        }
    }

    fn create(&self, direct: bool) -> io::Result<Handles> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let name = self.entry.name.as_slice();
        let mode = Mode::RUSR | Mode::WUSR;
        let new = flags | OFlags::CREATE | OFlags::EXCL;
        let open = || rustix::fs::openat(&self.folder, name, new, mode);
        let fd = match open() {
            Err(Errno::EXIST) => {
                // The caller has decided that what is there is to be replaced. It is not written
                // into: it may have other names, or be a link to somewhere else.
                rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?;
                open()?
            }
            other => other?,
        };
        let direct = match direct {
            true => rustix::fs::openat(&self.folder, name, flags | OFlags::DIRECT, Mode::empty())
                .ok()
                .filter(|direct| match (meta_of(direct), meta_of(&fd)) {
                    (Ok(a), Ok(b)) => (a.device, a.inode) == (b.device, b.inode),
                    _ => false,
                }),
            false => None,
        };
        Ok(Handles { fd, direct, zeroed: AtomicBool::new(false) })
    }

    /// The first trouble that leaves it incomplete is told, and nothing more is written.
    pub(super) fn fail(&self, shared: &Shared<'_>, what: impl ToString) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            shared.trouble(&self.path, what);
        }
    }

    /// Bytes of it are lost: they are left out.
    pub(super) fn lose(&self, shared: &Shared<'_>, from: u64, to: u64, why: &str) {
        self.damaged.store(true, Ordering::Relaxed);
        shared.trouble(&self.path, format!("bytes {from} to {to} are lost: {why}"));
    }

    /// Writes bytes at a place of the file.
    pub(super) fn write(&self, shared: &Shared<'_>, bytes: &[u8], offset: u64) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let handles = match self.open.get() {
            Some(handles) => handles,
            None => match self.create(false) {
                Ok(handles) => self.open.get_or_init(|| handles),
                Err(e) => return self.fail(shared, format!("creating it: {e}")),
            },
        };
        match handles.write(bytes, offset) {
            Ok(()) => shared.progress.add(|p| &p.bytes, bytes.len() as u64),
            Err(e) => self.fail(shared, format!("writing at {offset}: {e}")),
        }
    }

    /// One window less has something of it; with the last one it is done.
    pub(super) fn release(&self, shared: &Shared<'_>) {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let handles = match self.open.get() {
            Some(handles) => handles,
            None => match self.create(false) {
                Ok(handles) => self.open.get_or_init(|| handles),
                Err(e) => return self.fail(shared, format!("creating it: {e}")),
            },
        };
        let Body::File(map) = &self.entry.body else { return };
        let size = map.len();
        let ends_in_data = match map {
            MapRef::Inline(extents) => {
                extents.last().is_none_or(|last| matches!(last, Extent::Data { .. }))
            }
            MapRef::Tree(..) => false,
        };
        // A hole at the end, or in place of what could not be read.
        let damaged = self.damaged.load(Ordering::Relaxed);
        if (!ends_in_data || damaged)
            && let Err(e) = rustix::fs::ftruncate(&handles.fd, size)
        {
            return self.fail(shared, format!("setting its length: {e}"));
        }
        for what in shared.attributes.apply(handles.fd.as_fd(), &self.entry) {
            shared.trouble(&self.path, what);
        }
        if damaged {
            // Not to be taken for the right one by the next restore that skips what is unchanged.
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let times = Timestamps { last_access: now, last_modification: now };
            let _ = rustix::fs::futimens(&handles.fd, &times);
        }
        shared.progress.add(|p| &p.files, 1);
    }
}

impl Handles {
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.zeroed.load(Ordering::Relaxed) {
            return self.write_all(bytes, offset);
        }
        // Blocks of zeros between blocks of something else, which are written together.
        static ZERO: [u8; ZEROS] = [0; ZEROS];
        let mut blocks = bytes.chunks(ZEROS).peekable();
        let (mut start, mut end) = (0, 0);
        while let Some(block) = blocks.next() {
            let zero = *block == ZERO[..block.len()];
            if !zero {
                end += block.len();
            }
            if start < end && (zero || blocks.peek().is_none()) {
                self.write_all(&bytes[start..end], offset + start as u64)?;
            }
            if zero {
                end += block.len();
                start = end;
            }
        }
        Ok(())
    }

    fn write_all(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct
            && offset.is_multiple_of(PAGE as u64)
            && (bytes.as_ptr() as usize).is_multiple_of(PAGE)
        {
            let mut whole = bytes.len() / PAGE * PAGE;
            while whole > 0 {
                match rustix::io::pwrite(direct, &bytes[..whole], offset) {
                    Ok(n) => {
                        let n = n / PAGE * PAGE;
                        if n == 0 {
                            break;
                        }
                        (bytes, offset, whole) = (&bytes[n..], offset + n as u64, whole - n);
                    }
                    Err(Errno::INTR) => {}
                    // This filesystem wants other alignments, or none of it at all.
                    Err(Errno::INVAL | Errno::OPNOTSUPP) => break,
                    Err(e) => return Err(e.into()),
                }
            }
        }
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => (bytes, offset) = (&bytes[n..], offset + n as u64),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
