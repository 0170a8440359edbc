//! Open files: from the page cache what is there, past it what is not.

/// A file that changed so shortly before it was read may change again without a new time: the
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::time::{ClockId, clock_gettime};
use strongroom_engine::buf::PAGE;

use super::content::Task;
use crate::entry::Time;
use crate::folder::{Kind, Meta, meta_of};

/// kernel stamps times with the tick, which is at most 10 ms apart.
const RACY: i64 = 20_000_000;

/// An open file and, where the filesystem can do so, a way past the page cache.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) direct: Option<OwnedFd>,
    /// For how many more reads the page cache isn't asked, as it had nothing.
    pub(super) cold: AtomicU32,
}

/// For how many reads it is believed that the page cache has nothing when it had nothing for one.
const COLD: u32 = 15;

impl Opened {
    pub(super) fn open(task: &Task, direct: bool) -> io::Result<(Self, Meta)> {
        let fd = task.folder.file(&task.name, OFlags::empty())?;
        let meta = meta_of(&fd)?;
        if meta.kind != Kind::File && meta.kind != Kind::Block {
            return Err(io::Error::other("it became something else while it was looked at"));
        }
        let direct = match direct {
            true => task.folder.file(&task.name, OFlags::DIRECT).ok().filter(|direct| {
                // Another file may have come to that name in between.
                meta_of(direct).is_ok_and(|m| (m.device, m.inode) == (meta.device, meta.inode))
            }),
            false => None,
        };
        if direct.is_some() {
            // Asking the page cache for what it lacks makes the kernel read it, and with
            // read-ahead much more of it.
            let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Random);
        }
        Ok((Self { fd, direct, cold: AtomicU32::new(0) }, meta))
    }

    /// Fills `buf` from `offset`; fewer bytes only at the end of the file. What is in the page
    /// cache is taken from there, the rest read past it.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let aligned = |at: u64, buf: &[u8]| {
            at.is_multiple_of(PAGE as u64)
                && buf.len().is_multiple_of(PAGE)
                && (buf.as_ptr() as usize).is_multiple_of(PAGE)
        };
        let mut direct = self.direct.as_ref();
        let mut done = match direct {
            Some(_) if aligned(offset, buf) => self.cached(buf, offset)?,
            _ => 0,
        };
        while done < buf.len() {
            let at = offset + done as u64;
            let rest = &mut buf[done..];
            let read = match direct.filter(|_| aligned(at, rest)) {
                Some(fd) => match rustix::io::pread(fd, &mut *rest, at) {
                    Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                        direct = None;
                        continue;
                    }
                    other => other,
                },
                None => rustix::io::pread(&self.fd, &mut *rest, at),
            };
            match read {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(done)
    }

    /// Takes what the page cache has from `offset` on, in whole pages.
    fn cached(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let cold = self.cold.load(Ordering::Relaxed);
        if cold > 0 {
            self.cold.store(cold - 1, Ordering::Relaxed);
            return Ok(0);
        }
        let mut done = 0;
        // One page first: a miss costs a read of as much as was asked for.
        for end in [PAGE.min(buf.len()), buf.len()] {
            while done < end {
                let mut into = [IoSliceMut::new(&mut buf[done..end])];
                let at = offset + done as u64;
                match rustix::io::preadv2(&self.fd, &mut into, at, ReadWriteFlags::NOWAIT) {
                    Ok(0) => return Ok(done),
                    Ok(n) => done += n,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                        self.cold.store(COLD, Ordering::Relaxed);
                        return Ok(done / PAGE * PAGE);
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(done)
    }

    /// Where the next data at or after `offset` begins and ends; None when only a hole is left.
    /// A filesystem that knows no holes has one stretch of data.
    pub(super) fn next_data(&self, offset: u64, size: u64) -> Option<(u64, u64)> {
        let start = match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return None,
            Err(_) => return Some((offset, size)),
        };
        let end = rustix::fs::seek(&self.fd, SeekFrom::Hole(start)).unwrap_or(size);
        (start < size).then(|| (start, end.clamp(start + 1, size.max(start + 1)).min(size)))
    }
}

/// Whether a file that was read just now could have changed since without a sign.
pub(super) fn is_racy(meta: &Meta) -> bool {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let now = Time { sec: now.tv_sec, nsec: now.tv_nsec as u32 };
    meta.ctime.nanos() >= now.nanos().saturating_sub(RACY)
}
