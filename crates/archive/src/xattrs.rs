//! Extended attributes of files: POSIX ACLs and capabilities among them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::entry::XATTR_MAX;

/// Which file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// One that is open (not with `O_PATH`).
    Open(BorrowedFd<'a>),
    /// One by its name in an open directory; a link itself, not what it points to. The system has
    /// no call for this, so it goes by `/proc/self/fd`.
    Named(BorrowedFd<'a>, &'a [u8]),
}

fn path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Names and values.
pub(crate) type List = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads all attributes, sorted by name. A filesystem that has none gives none.
pub(crate) fn read(which: Which<'_>) -> io::Result<List> {
    let query = match which {
        Which::Open(fd) => rustix::fs::flistxattr_query(fd),
        Which::Named(dir, name) => rustix::fs::llistxattr_query(path(dir, name)),
    };
    let len = match query {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(List::new()),
        other => other?,
    };
    // What is added in between shows as a change of the inode.
    let mut names = vec![0u8; len + 1024];
    let len = match which {
        Which::Open(fd) => rustix::fs::flistxattr(fd, &mut names[..]),
        Which::Named(dir, name) => rustix::fs::llistxattr(path(dir, name), &mut names[..]),
    }?;
    let mut list = List::new();
    for name in names[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if let Some(value) = value(which, name)? {
            list.push((name.to_vec(), value));
        }
    }
    list.sort();
    Ok(list)
}

fn value(which: Which<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    for size in [256, XATTR_MAX] {
        let mut value = vec![0u8; size];
        let len = match which {
            Which::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut value[..]),
            Which::Named(dir, file) => rustix::fs::lgetxattr(path(dir, file), name, &mut value[..]),
        };
        match len {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::RANGE.into())
}

/// Whether a file has an attribute.
pub(crate) fn has(which: Which<'_>, name: &[u8]) -> bool {
    let len = match which {
        Which::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut [0u8; 0][..]),
        Which::Named(dir, file) => rustix::fs::lgetxattr(path(dir, file), name, &mut [0u8; 0][..]),
    };
    len.is_ok()
}

/// Sets one attribute.
pub(crate) fn write(which: Which<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    let flags = XattrFlags::empty();
    Ok(match which {
        Which::Open(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
        Which::Named(dir, file) => rustix::fs::lsetxattr(path(dir, file), name, value, flags),
    }?)
}

/// Removes one attribute.
pub(crate) fn remove(which: Which<'_>, name: &[u8]) -> io::Result<()> {
    Ok(match which {
        Which::Open(fd) => rustix::fs::fremovexattr(fd, name),
        Which::Named(dir, file) => rustix::fs::lremovexattr(path(dir, file), name),
    }?)
}

impl<'a> Which<'a> {
    /// An open file.
    pub(crate) fn open(fd: &'a impl AsFd) -> Self {
        Self::Open(fd.as_fd())
    }

    /// A name in an open directory.
    pub(crate) fn named(dir: &'a impl AsFd, name: &'a [u8]) -> Self {
        Self::Named(dir.as_fd(), name)
    }
}
