//! Giving restored files their owners, modes, attributes and times.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};

use crate::entry::{Entry, Time, XattrValue};
use crate::names::Owners;
use crate::store::Source;
use crate::xattrs::{self, Which};

/// The attribute that is a file's ACL.
const ACL: &[u8] = b"system.posix_acl_access";

/// How owners are treated.
#[derive(Debug)]
pub(super) struct Attributes<'s> {
    /// Owners are set.
    pub(super) owner: bool,
    /// Which numbers become which.
    pub(super) owners: Owners,
    /// This process may do anything.
    pub(super) root: bool,
    pub(super) source: &'s dyn Source,
}

impl std::fmt::Debug for dyn Source + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.into() },
    }
}

impl Attributes<'_> {
    fn ids(&self, entry: &Entry) -> (Uid, Gid) {
        let (uid, gid) = (self.owners.user(entry.uid), self.owners.group(entry.gid));
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    /// Without its owner, a file must not run with the rights of another.
    fn mode(&self, entry: &Entry) -> Mode {
        Mode::from_raw_mode(if self.owner { entry.mode } else { entry.mode & 0o1777 })
    }

    /// Gives an open file or directory all it had. Gives what could not be done.
    pub(super) fn apply(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Vec<String> {
        let mut troubles = Vec::new();
        let mut note = |what: &str, done: Result<(), rustix::io::Errno>| {
            if let Err(e) = done {
                troubles.push(format!("{what}: {e}"));
            }
        };
        // The owner first: changing it takes set-id bits and capabilities away.
        if self.owner {
            let (uid, gid) = self.ids(entry);
            note("setting its owner", rustix::fs::fchown(fd, Some(uid), Some(gid)));
        }
        note("setting its mode", rustix::fs::fchmod(fd, self.mode(entry)));
        self.xattrs(Which::Open(fd), entry, &mut troubles);
        if let Err(e) = rustix::fs::futimens(fd, &times(entry.mtime)) {
            troubles.push(format!("setting its time: {e}"));
        }
        troubles
    }

    /// Gives something that can't be opened (a link, a FIFO, a device) all it had.
    pub(super) fn apply_named(&self, dir: &impl AsFd, entry: &Entry, link: bool) -> Vec<String> {
        let mut troubles = Vec::new();
        let name = entry.name.as_slice();
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.owner {
            let (uid, gid) = self.ids(entry);
            if let Err(e) = rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags) {
                troubles.push(format!("setting its owner: {e}"));
            }
        }
        if !link && let Err(e) = rustix::fs::chmodat(dir, name, self.mode(entry), AtFlags::empty())
        {
            troubles.push(format!("setting its mode: {e}"));
        }
        self.xattrs(Which::named(dir, name), entry, &mut troubles);
        if let Err(e) = rustix::fs::utimensat(dir, name, &times(entry.mtime), flags) {
            troubles.push(format!("setting its time: {e}"));
        }
        troubles
    }

    /// Takes away what a directory that was there has and the image's has not.
    pub(super) fn strip(&self, fd: BorrowedFd<'_>, entry: &Entry) {
        // What can't be listed or removed stays; nothing of the image is lost by that.
        for (name, _) in xattrs::read(Which::Open(fd)).unwrap_or_default() {
            if !entry.xattrs.iter().any(|xattr| xattr.name == name) {
                let _ = xattrs::remove(Which::Open(fd), &name);
            }
        }
    }

    fn xattrs(&self, which: Which<'_>, entry: &Entry, troubles: &mut Vec<String>) {
        // What is made in a directory with a default ACL gets one, which it did not have before.
        if !entry.is_dir()
            && !entry.xattrs.iter().any(|xattr| xattr.name == ACL)
            && xattrs::has(which, ACL)
            && let Err(e) = xattrs::remove(which, ACL)
        {
            troubles.push(format!("taking away the ACL that its directory gave it: {e}"));
        }
        for xattr in &entry.xattrs {
            let open =
                xattr.name.starts_with(b"user.") || xattr.name.starts_with(b"system.posix_acl");
            if !self.root && !open {
                continue;
            }
            let mut read = Vec::new();
            let value = match &xattr.value {
                XattrValue::Inline(value) => value,
                XattrValue::Chunk(id, _) => match self.source.chunk(id, &mut read) {
                    Ok(()) => &read,
                    Err(e) => {
                        troubles.push(format!("its {}: {e}", crate::show(&xattr.name)));
                        continue;
                    }
                },
            };
            if let Err(e) = xattrs::write(which, &xattr.name, value) {
                troubles.push(format!("setting its {}: {e}", crate::show(&xattr.name)));
            }
        }
    }
}
