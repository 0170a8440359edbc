//! A directory of a filesystem as a disk.
//!
//! # Direct input and output
//! A file opened with [`Caching::Direct`] has an `O_DIRECT` descriptor, which moves whole pages
//! between the device and page-aligned memory without filling the page cache. What is not aligned
//! goes other ways, so that callers need not care:
//!
//! | what | how |
//! |---|---|
//! | read, all aligned | straight into the caller's buffer |
//! | read, anything else | the pages around it into a bounce buffer, copied out; of a large read whose memory is aligned as the file is, only the two edges |
//! | write, whole pages | straight from the caller's memory, or copied to a bounce buffer when that is not aligned |
//! | write, part of a page at either end | through a second descriptor, which uses the page cache |
//!
//! The two descriptors never write to one page at once unless the caller's own writes overlap: a
//! write that shares a page with another covers that page in part, so both use the page cache.
//! Between them the kernel keeps order: a direct read or write first writes back the dirty cached
//! pages of its range, a direct write then drops them, and fdatasync on either descriptor covers
//! the file, with its write-back errors.
//!
//! Filesystems that refuse `O_DIRECT`, when opening or at the first transfer, get the page cache.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{
    Caching, Disk, DiskFile, DiskLock, Entry, Space, check_dir, check_path, failed, patiently,
};
use crate::buf::{BufPool, PAGE};

/// Bytes a bounce buffer can move at once: any read of up to 512 KiB takes one call.
const BOUNCE: usize = (512 << 10) + 2 * PAGE;
/// Bounce buffers of a disk; more threads than this wait for each other.
const BOUNCES: usize = 8;

const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIR_MODE: Mode = Mode::from_raw_mode(0o700);

/// A directory of a filesystem as a disk: see the module's text.
#[derive(Debug)]
pub struct FsDisk {
    root: PathBuf,
    /// All paths are resolved from here, so that the disk stays the same one when its directory is
    /// renamed or another filesystem is mounted over it.
    top: OwnedFd,
    bounce: BufPool,
}

impl FsDisk {
    /// Opens the directory `root`, which must exist.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || {
            let opened = retry_on_intr(|| rustix::fs::open(root, flags, Mode::empty()));
            opened.map_err(|e| failed("open", root.display(), e))
        };
        let top = patiently(open)?;
        Ok(Self { root: root.to_owned(), top, bounce: BufPool::new(BOUNCES, BOUNCE) })
    }

    fn failed(&self, operation: &str, path: &str, why: impl Into<io::Error>) -> io::Error {
        failed(operation, self.root.join(path).display(), why)
    }

    fn open_at(&self, path: &str, flags: OFlags) -> rustix::io::Result<File> {
        // Without NONBLOCK, opening a FIFO somebody put there would wait for ever; on plain files
        // it means nothing.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        retry_on_intr(|| rustix::fs::openat(&self.top, path, flags, FILE_MODE)).map(File::from)
    }

    /// Opens a directory to list or sync it.
    fn open_dir(&self, dir: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = if dir.is_empty() { "." } else { dir };
        retry_on_intr(|| rustix::fs::openat(&self.top, dir, flags, Mode::empty()))
    }

    /// A second descriptor, for direct transfers, of the file that `cached` is; none when it can't
    /// be had or the name has come to stand for another file.
    fn open_direct(&self, path: &str, cached: &File) -> io::Result<Option<File>> {
        let direct = match self.open_at(path, OFlags::RDWR | OFlags::DIRECT) {
            Ok(direct) => direct,
            Err(e) if refuses_direct(e) || e == Errno::NOENT => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let (one, other) = (rustix::fs::fstat(cached)?, rustix::fs::fstat(&direct)?);
        Ok(((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)).then_some(direct))
    }

    fn file(
        &self,
        path: &str,
        whole: File,
        edges: Option<File>,
        direct: bool,
        write: bool,
    ) -> Box<FsFile> {
        let direct = AtomicBool::new(direct);
        let path = self.root.join(path).display().to_string();
        Box::new(FsFile { whole, edges, direct, write, path, bounce: self.bounce.clone() })
    }

    /// `cached`, with a descriptor for direct transfers beside it if `caching` asks for one.
    fn writable(&self, path: &str, caching: Caching, cached: File) -> io::Result<Box<FsFile>> {
        let direct = match caching {
            Caching::Direct => self.open_direct(path, &cached)?,
            Caching::Cached => None,
        };
        Ok(match direct {
            Some(direct) => self.file(path, direct, Some(cached), true, true),
            None => self.file(path, cached, None, false, true),
        })
    }

    fn open_plain(&self, path: &str, caching: Caching, write: bool) -> io::Result<Box<FsFile>> {
        check_path(path)?;
        if write {
            let cached = self.open_at(path, OFlags::RDWR)?;
            must_be_plain(&cached)?;
            return self.writable(path, caching, cached);
        }
        let (file, direct) = match caching {
            Caching::Cached => (self.open_at(path, OFlags::RDONLY)?, false),
            Caching::Direct => match self.open_at(path, OFlags::RDONLY | OFlags::DIRECT) {
                Err(e) if refuses_direct(e) => (self.open_at(path, OFlags::RDONLY)?, false),
                result => (result?, true),
            },
        };
        must_be_plain(&file)?;
        Ok(self.file(path, file, None, direct, false))
    }

    fn create_plain(&self, path: &str, caching: Caching) -> io::Result<Box<FsFile>> {
        check_path(path)?;
        // Not with DIRECT: where that is refused, the file would be left behind all the same.
        let cached = self.open_at(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        // A file that can't be given to the caller would be in the way of the next attempt.
        self.writable(path, caching, cached).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&self.top, path, AtFlags::empty());
        })
    }

    fn rename_plain(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(from)?;
        check_path(to)?;
        let stat = rustix::fs::statat(&self.top, from, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Errno::ISDIR.into());
        }
        match rustix::fs::renameat(&self.top, from, &self.top, to) {
            // What the kernel says when `to` is a directory that `from` lies in.
            Err(Errno::NOTEMPTY) => Err(Errno::ISDIR.into()),
            result => Ok(result?),
        }
    }

    fn list_plain(&self, dir: &str) -> io::Result<Vec<Entry>> {
        check_dir(dir)?;
        let fd = self.open_dir(dir)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue, // removed since
                result => result?,
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let len = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
            // What is not ASCII is none of ours; it is shown, and can't be opened.
            entries.push(Entry { name: name.to_string_lossy().into_owned(), len, is_dir });
        }
        Ok(entries)
    }

    fn make_dir_plain(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let ends =
            dir.match_indices('/').map(|(at, _)| at).chain((!dir.is_empty()).then_some(dir.len()));
        for end in ends {
            match rustix::fs::mkdirat(&self.top, &dir[..end], DIR_MODE) {
                Err(Errno::EXIST) => {}
                result => result?,
            }
        }
        drop(self.open_dir(dir)?); // what was there must be a directory
        Ok(())
    }

    fn lock_plain(&self, path: &str, exclusive: bool) -> io::Result<File> {
        check_path(path)?;
        let file = match self.open_at(path, OFlags::RDWR | OFlags::CREATE) {
            // To read a pool on a filesystem that can't be written.
            Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) if !exclusive => {
                self.open_at(path, OFlags::RDONLY)?
            }
            result => result?,
        };
        must_be_plain(&file)?;
        let how = if exclusive {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        retry_on_intr(|| rustix::fs::flock(&file, how))?;
        Ok(file)
    }
}

impl Disk for FsDisk {
    fn open(&self, path: &str, caching: Caching, write: bool) -> io::Result<Box<dyn DiskFile>> {
        match self.open_plain(path, caching, write) {
            Ok(file) => Ok(file),
            Err(e) => Err(self.failed("open", path, e)),
        }
    }

    fn create(&self, path: &str, caching: Caching) -> io::Result<Box<dyn DiskFile>> {
        match self.create_plain(path, caching) {
            Ok(file) => Ok(file),
            Err(e) => Err(self.failed("create", path, e)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let named = |e| self.failed("rename", &format!("{from} to {to}"), e);
        self.rename_plain(from, to).map_err(named)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check_path(path)
            .and_then(|()| Ok(rustix::fs::unlinkat(&self.top, path, AtFlags::empty())?))
            .map_err(|e| self.failed("remove", path, e))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.list_plain(dir).map_err(|e| self.failed("list", dir, e))
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.make_dir_plain(dir).map_err(|e| self.failed("make directory", dir, e))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)
            .and_then(|()| Ok(File::from(self.open_dir(dir)?)))
            .and_then(|fd| fd.sync_all())
            .map_err(|e| self.failed("sync directory", dir, e))
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.top).map_err(|e| self.failed("measure", "", e))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }

    fn lock(&self, path: &str, exclusive: bool) -> io::Result<Box<dyn DiskLock>> {
        match self.lock_plain(path, exclusive) {
            Ok(file) => Ok(Box::new(FsLock { _file: file })),
            Err(e) => Err(self.failed("lock", path, e)),
        }
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

/// Whether this is how a filesystem says that it has no direct transfers.
fn refuses_direct(e: Errno) -> bool {
    matches!(e, Errno::INVAL | Errno::OPNOTSUPP)
}

fn must_be_plain(file: &File) -> io::Result<()> {
    match FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file")),
    }
}

/// The lock goes with the descriptor.
#[derive(Debug)]
struct FsLock {
    _file: File,
}

impl DiskLock for FsLock {}

#[derive(Debug)]
struct FsFile {
    /// Moves whole pages while `direct` is set, anything otherwise.
    whole: File,
    /// Moves parts of pages; there when the file is open for writing and was open for direct
    /// transfers.
    edges: Option<File>,
    /// Whether `whole` bypasses the page cache; once cleared, it stays so.
    direct: AtomicBool,
    write: bool,
    path: String,
    bounce: BufPool,
}

impl FsFile {
    fn failed(&self, operation: &str, why: impl Into<io::Error>) -> io::Error {
        failed(operation, &self.path, why)
    }

    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// From now on `whole` uses the page cache.
    fn stop_direct(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.whole)?;
        rustix::fs::fcntl_setfl(&self.whole, flags.difference(OFlags::DIRECT))?;
        self.direct.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.whole)?.st_size).unwrap_or(0))
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if !self.is_direct() {
            return self.whole.read_exact_at(buf, offset);
        }
        let (head, body) = page_parts(buf.len(), offset);
        let aligned = body > 0 && buf[head..].as_ptr().addr().is_multiple_of(PAGE);
        if aligned && (body == buf.len() || body >= BOUNCE) {
            let (first, rest) = buf.split_at_mut(head);
            let (pages, last) = rest.split_at_mut(body);
            let after = offset + head as u64;
            self.read_bounced(first, offset)?;
            self.read_pages(pages, after, body)?;
            return self.read_bounced(last, after + body as u64);
        }
        self.read_bounced(buf, offset)
    }

    /// Reads the pages around what is wanted, and copies that.
    fn read_bounced(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let mut bounce = self.bounce.take();
        while !buf.is_empty() {
            let skew = (offset % PAGE as u64) as usize;
            let wanted = buf.len().min(bounce.len() - skew);
            let span = (skew + wanted).next_multiple_of(PAGE);
            self.read_pages(&mut bounce[..span], offset - skew as u64, skew + wanted)?;
            let (piece, rest) = buf.split_at_mut(wanted);
            piece.copy_from_slice(&bounce[skew..skew + wanted]);
            buf = rest;
            offset += wanted as u64;
        }
        Ok(())
    }

    /// Reads at least `wanted` bytes into `pages`; everything is aligned but `wanted`.
    fn read_pages(&self, pages: &mut [u8], offset: u64, wanted: usize) -> io::Result<()> {
        let mut done = 0;
        while done < wanted {
            let was_direct = self.is_direct();
            match self.whole.read_at(&mut pages[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) if done + n >= wanted => return Ok(()),
                Ok(n) if !was_direct => done += n,
                Ok(n) => {
                    // The end of the file, or else a count that ends within a page, from where a
                    // direct transfer can't go on.
                    if offset + (done + n) as u64 >= self.size()? {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    if n < PAGE {
                        self.stop_direct()?;
                    }
                    done += n / PAGE * PAGE;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if was_direct && is_invalid(&e) => self.stop_direct()?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if !self.is_direct() {
            return self.whole.write_all_at(data, offset);
        }
        let (head, body) = page_parts(data.len(), offset);
        let (first, rest) = data.split_at(head);
        let (pages, last) = rest.split_at(body);
        let edges = self.edges.as_ref().unwrap_or(&self.whole);
        if !first.is_empty() {
            edges.write_all_at(first, offset)?;
        }
        let offset = offset + head as u64;
        if pages.as_ptr().addr().is_multiple_of(PAGE) {
            self.write_pages(pages, offset)?;
        } else if !pages.is_empty() {
            let mut bounce = self.bounce.take();
            let mut at = offset;
            for piece in pages.chunks(bounce.len()) {
                bounce[..piece.len()].copy_from_slice(piece);
                self.write_pages(&bounce[..piece.len()], at)?;
                at += piece.len() as u64;
            }
        }
        if !last.is_empty() {
            edges.write_all_at(last, offset + body as u64)?;
        }
        Ok(())
    }

    /// Writes whole pages; everything is aligned.
    fn write_pages(&self, pages: &[u8], offset: u64) -> io::Result<()> {
        while !pages.is_empty() {
            let was_direct = self.is_direct();
            match self.whole.write_at(pages, offset) {
                Ok(n) if n == pages.len() => break,
                Ok(n) => {
                    // The count may end within a page, from where only the page cache can go on.
                    let edges = self.edges.as_ref().unwrap_or(&self.whole);
                    return edges.write_all_at(&pages[n..], offset + n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if was_direct && is_invalid(&e) => self.stop_direct()?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn must_be_writable(&self) -> io::Result<()> {
        if self.write {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is open for reading only"))
    }
}

/// How many bytes come before the first page boundary in a range of a file, and how many in whole
/// pages follow.
fn page_parts(len: usize, offset: u64) -> (usize, usize) {
    let head = ((offset.wrapping_neg() % PAGE as u64) as usize).min(len);
    (head, (len - head) / PAGE * PAGE)
}

fn is_invalid(e: &io::Error) -> bool {
    e.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

impl DiskFile for FsFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(buf, offset).map_err(|e| self.failed("read", e))
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.must_be_writable()
            .and_then(|()| self.write(data, offset))
            .map_err(|e| self.failed("write", e))
    }

    fn len(&self) -> io::Result<u64> {
        self.size().map_err(|e| self.failed("measure", e))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.must_be_writable()
            .and_then(|()| self.whole.set_len(len))
            .map_err(|e| self.failed("set the length of", e))
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync writes the length as well, wherever it is needed to find the data again.
        self.whole.sync_data().map_err(|e| self.failed("sync", e))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::buf::AlignedBuf;

    fn disk() -> (tempfile::TempDir, FsDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(dir.path()).unwrap();
        (dir, disk)
    }

    fn bytes(n: usize, seed: u8) -> Vec<u8> {
        (0..n).map(|i| (i * 31 % 251) as u8 ^ seed).collect()
    }

    #[test]
    fn a_transfer_that_is_refused_goes_through_the_page_cache() {
        let (_dir, disk) = disk();
        let content = bytes(3 * PAGE, 0);
        // Memory that is not aligned is what most filesystems refuse; one that does not is read and
        // written all the same.
        let mut memory = AlignedBuf::new(3 * PAGE + 1);
        let file = disk.create_plain("read", Caching::Direct).unwrap();
        file.write_all_at(&content, 0).unwrap();
        file.read_pages(&mut memory[1..101], PAGE as u64, 100).unwrap();
        assert_eq!(memory[1..101], content[PAGE..PAGE + 100]);

        let file = disk.create_plain("write", Caching::Direct).unwrap();
        memory[1..3 * PAGE + 1].copy_from_slice(&content);
        file.write_pages(&memory[1..3 * PAGE + 1], 0).unwrap();

        for path in ["read", "write"] {
            let file = disk.open_plain(path, Caching::Direct, true).unwrap();
            for direct in [true, false] {
                if !direct {
                    file.stop_direct().unwrap();
                }
                let mut back = vec![0; 3 * PAGE];
                file.read_exact_at(&mut back, 0).unwrap();
                assert!(back == content);
                file.write_all_at(&content[5..2 * PAGE], 5).unwrap();
                assert_eq!(file.len().unwrap(), content.len() as u64);
            }
        }
    }

    #[test]
    fn a_filesystem_without_direct_transfers_is_read_all_the_same() {
        let disk = FsDisk::open(Path::new("/proc/self")).unwrap();
        let file = disk.open_plain("status", Caching::Direct, false).unwrap();
        assert!(!file.is_direct());
        let mut name = [0; 5];
        file.read_exact_at(&mut name, 0).unwrap();
        assert_eq!(&name, b"Name:");
    }

    #[test]
    fn every_alignment_of_offset_length_and_memory() {
        let (_dir, disk) = disk();
        let file = disk.create("a", Caching::Direct).unwrap();
        let size = 3 * BOUNCE + 777;
        let mut model = bytes(size, 1);
        file.write_all_at(&model, 0).unwrap();
        let offsets = [0, 1, 511, 512, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 100];
        let lengths =
            [0, 1, 100, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, BOUNCE, BOUNCE + PAGE, 2 * BOUNCE + 5];
        let mut memory = AlignedBuf::new(size + PAGE);
        for (round, (&offset, &len)) in
            offsets.iter().flat_map(|o| lengths.iter().map(move |l| (o, l))).enumerate()
        {
            for skew in [0, 1, offset % PAGE] {
                let data = bytes(len, round as u8 ^ 0x55);
                memory[skew..skew + len].copy_from_slice(&data);
                file.write_all_at(&memory[skew..skew + len], offset as u64).unwrap();
                model[offset..offset + len].copy_from_slice(&data);
                memory[skew..skew + len].fill(0);
                file.read_exact_at(&mut memory[skew..skew + len], offset as u64).unwrap();
                assert_eq!(&memory[skew..skew + len], &data, "{offset} {len} {skew}");
            }
        }
        let mut back = vec![0; size];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back == model);
        assert_eq!(file.len().unwrap(), size as u64);
        file.sync().unwrap();
        let again = disk.open("a", Caching::Cached, false).unwrap();
        again.read_exact_at(&mut back, 0).unwrap();
        assert!(back == model);
    }

    #[test]
    fn the_end_of_a_file_is_found_at_every_alignment() {
        let (_dir, disk) = disk();
        for size in [0, 1, 511, 512, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            let path = format!("f{size}");
            disk.create(&path, Caching::Direct).unwrap().write_all_at(&bytes(size, 0), 0).unwrap();
            let file = disk.open_plain(&path, Caching::Direct, false).unwrap();
            let direct = file.is_direct();
            let mut buf = AlignedBuf::new(8 * PAGE);
            file.read_exact_at(&mut buf[..size], 0).unwrap();
            assert_eq!(buf[..size], bytes(size, 0));
            for (at, len) in
                [(0, size + 1), (size, 1), (size, PAGE), (size + PAGE, 7), (0, 6 * PAGE)]
            {
                let e = file.read_exact_at(&mut buf[..len], at as u64).unwrap_err();
                assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof, "{size} {at} {len}");
            }
            assert_eq!(file.is_direct(), direct, "the end is no reason to stop");
        }
    }

    #[test]
    fn surprises_are_neither_followed_nor_waited_for() {
        let (dir, disk) = disk();
        std::fs::write(dir.path().join("real"), b"x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("top")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("fifo"), FileType::Fifo, FILE_MODE, 0)
            .unwrap();
        let mut names: Vec<_> =
            disk.list("").unwrap().into_iter().map(|e| (e.name, e.is_dir)).collect();
        names.sort();
        let expected = ["fifo", "link", "real", "top"].map(|n| (n.to_owned(), false));
        assert_eq!(names, expected);
        for path in ["fifo", "link", "top"] {
            for caching in [Caching::Cached, Caching::Direct] {
                let e = disk.open(path, caching, false).unwrap_err();
                assert!(e.to_string().contains(path), "{e}");
                disk.create(path, caching).unwrap_err();
            }
        }
    }

    #[test]
    fn modes_are_private_and_the_directory_must_exist() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, disk) = disk();
        disk.make_dir("a/b").unwrap();
        disk.create("a/b/c", Caching::Direct).unwrap();
        let mode = |p: &str| std::fs::metadata(dir.path().join(p)).unwrap().permissions().mode();
        assert_eq!(mode("a") & 0o7777, 0o700);
        assert_eq!(mode("a/b/c") & 0o7777, 0o600);
        let e = FsDisk::open(&dir.path().join("none")).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
        assert!(e.to_string().starts_with("open "), "{e}");
    }

    #[test]
    fn threads_share_a_file() {
        let (_dir, disk) = disk();
        let file = disk.create("a", Caching::Direct).unwrap();
        let part = PAGE * 3 + 123; // neighbours share pages
        std::thread::scope(|scope| {
            for i in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    let data = bytes(part, i as u8);
                    for _ in 0..20 {
                        file.write_all_at(&data, (i * part) as u64).unwrap();
                        let mut back = vec![0; part];
                        file.read_exact_at(&mut back, (i * part) as u64).unwrap();
                        assert!(back == data);
                    }
                });
            }
        });
    }
}
