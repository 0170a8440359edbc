//! Directories and files of this machine, by descriptor: no path is ever built from more than one
//! name, so none can be too long, and none can be redirected by a link on the way.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::entry::Time;

/// The kinds of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Char,
    Block,
    Socket,
}

/// What the system knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) inode: u64,
    pub(crate) device: u64,
    pub(crate) rdev: u64,
    pub(crate) links: u32,
    /// How much of it is stored, in bytes.
    pub(crate) stored: u64,
}

impl Meta {
    /// Whether it is surely the same content: what changes with any write is the same.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.size == other.size
            && self.mtime == other.mtime
            && self.ctime == other.ctime
            && self.inode == other.inode
    }
}

// The fields of `Stat` are of other types on other machines.
#[allow(clippy::unnecessary_cast, trivial_numeric_casts, reason = "differs by machine")]
fn meta(stat: &Stat) -> io::Result<Meta> {
    let mode = stat.st_mode as u32;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return Err(io::Error::other("it is of an unknown kind")),
    };
    Ok(Meta {
        kind,
        mode: mode & 0o7777,
        uid: stat.st_uid as u32,
        gid: stat.st_gid as u32,
        size: stat.st_size as u64,
        mtime: Time { sec: stat.st_mtime as i64, nsec: stat.st_mtime_nsec as u32 },
        ctime: Time { sec: stat.st_ctime as i64, nsec: stat.st_ctime_nsec as u32 },
        inode: stat.st_ino as u64,
        device: stat.st_dev as u64,
        rdev: stat.st_rdev as u64,
        links: stat.st_nlink as u32,
        stored: stat.st_blocks as u64 * 512,
    })
}

/// What the system knows of an open file.
pub(crate) fn meta_of(fd: impl AsFd) -> io::Result<Meta> {
    meta(&rustix::fs::fstat(fd)?)
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

impl Folder {
    /// Opens a directory by its path; links are followed.
    pub(crate) fn open(path: &[u8]) -> io::Result<Self> {
        Ok(Self { fd: rustix::fs::open(path, DIR, Mode::empty())? })
    }

    /// Opens a directory in this one. A link is an error.
    pub(crate) fn dir(&self, name: &[u8]) -> io::Result<Self> {
        let fd = no_atime(|extra| {
            rustix::fs::openat(&self.fd, name, DIR | OFlags::NOFOLLOW | extra, Mode::empty())
        })?;
        Ok(Self { fd })
    }

    /// Opens a directory in this one; a link is followed.
    pub(crate) fn dir_behind(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self { fd: rustix::fs::openat(&self.fd, name, DIR, Mode::empty())? })
    }

    /// What the system knows of it.
    pub(crate) fn meta(&self) -> io::Result<Meta> {
        meta_of(&self.fd)
    }

    /// What the system knows of something in it; a link is not followed.
    pub(crate) fn stat(&self, name: impl rustix::path::Arg) -> io::Result<Meta> {
        meta(&rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// What the system knows of what a name leads to.
    pub(crate) fn stat_behind(&self, name: &[u8]) -> io::Result<Meta> {
        meta(&rustix::fs::statat(&self.fd, name, AtFlags::empty())?)
    }

    /// Opens a file in it for reading, without changing its access time where that is allowed,
    /// and without waiting for anybody should it be a FIFO.
    pub(crate) fn file(&self, name: &[u8], extra: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC
            | extra;
        no_atime(|more| rustix::fs::openat(&self.fd, name, flags | more, Mode::empty()))
    }

    /// Where a symbolic link in it points.
    pub(crate) fn link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// The names in it, sorted. A directory that is read has a position: one that was opened just
    /// now and is nobody else's is listed, once.
    pub(crate) fn names(&mut self) -> io::Result<Names> {
        names(&self.fd)
    }
}

fn names(fd: impl AsFd) -> io::Result<Names> {
    let mut names = Names::default();
    let mut buf = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(fd, &mut buf);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.add(name.to_bytes())?;
        }
    }
    names.sort();
    Ok(names)
}

/// Opens with `O_NOATIME`, and without it where only the owner may do so.
fn no_atime<T>(open: impl Fn(OFlags) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => open(OFlags::empty()),
        other => other,
    }
}

/// Sorted names: one block of bytes for all of them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Each name is followed by a NUL.
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Names {
    fn add(&mut self, name: &[u8]) -> io::Result<()> {
        let start = u32::try_from(self.bytes.len())
            .map_err(|_| io::Error::other("its names take more than 4 GiB"))?;
        self.starts.push(start);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let name = |start: u32| CStr::from_bytes_until_nul(&bytes[start as usize..]).ok();
        self.starts.sort_unstable_by_key(|start| name(*start));
    }

    /// The name at that place.
    pub(crate) fn get(&self, index: usize) -> Option<&CStr> {
        let start = *self.starts.get(index)? as usize;
        CStr::from_bytes_until_nul(&self.bytes[start..]).ok()
    }
}

impl<'a> FromIterator<&'a [u8]> for Names {
    fn from_iter<T: IntoIterator<Item = &'a [u8]>>(iter: T) -> Self {
        let mut names = Self::default();
        for name in iter {
            // Names that are given one by one are few.
            let _ = names.add(name);
        }
        names.sort();
        names
    }
}
