//! Entries as FUSE shows them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use strongroom_engine::clock::PoolTime;
use strongroom_engine::map::{Extent, MapRef};

use crate::entry::{Body, Entry, Time};

const BLOCK: u32 = 4096;

/// The kind of an entry.
pub(super) fn kind(entry: &Entry) -> FileType {
    match entry.body {
        Body::File(_) => FileType::RegularFile,
        Body::Dir { .. } => FileType::Directory,
        Body::Symlink(_) => FileType::Symlink,
        Body::Fifo => FileType::NamedPipe,
        Body::Char(..) => FileType::CharDevice,
        Body::Block(..) => FileType::BlockDevice,
        Body::Socket => FileType::Socket,
    }
}

/// The attributes of an entry.
pub(super) fn of_entry(number: u64, entry: &Entry) -> FileAttr {
    let (mtime, ctime) = (system_time(entry.mtime), system_time(entry.ctime));
    FileAttr {
        ino: INodeNo(number),
        size: entry.size(),
        blocks: blocks(entry),
        atime: mtime,
        mtime,
        ctime,
        crtime: mtime,
        kind: kind(entry),
        perm: entry.mode as u16 & 0o7777,
        // 1 keeps programs from counting on it; what was left out of the image doesn't count.
        nlink: if entry.is_dir() { 1 } else { entry.links.max(1) },
        uid: entry.uid,
        gid: entry.gid,
        rdev: match entry.body {
            Body::Char(major, minor) | Body::Block(major, minor) => device(major, minor),
            _ => 0,
        },
        blksize: BLOCK,
        flags: 0,
    }
}

/// The attributes of a directory or link that no image holds.
pub(super) fn of_view(
    number: u64,
    link: Option<usize>,
    time: PoolTime,
    owner: (u32, u32),
) -> FileAttr {
    let time = system_time(Time::from_nanos(time.0));
    FileAttr {
        ino: INodeNo(number),
        size: link.unwrap_or(0) as u64,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: if link.is_some() { FileType::Symlink } else { FileType::Directory },
        perm: if link.is_some() { 0o777 } else { 0o555 },
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

/// In units of 512 bytes. How much of a long map is holes is not known without reading it: one
/// block less than all makes copying programs ask where they are.
fn blocks(entry: &Entry) -> u64 {
    match &entry.body {
        Body::File(MapRef::Inline(extents)) => {
            let data = extents.iter().filter(|extent| matches!(extent, Extent::Data { .. }));
            data.map(Extent::len).sum::<u64>().div_ceil(512)
        }
        Body::File(MapRef::Tree(_, len)) => len.div_ceil(512).saturating_sub(1),
        _ => 0,
    }
}

/// As the kernel's `new_encode_dev` does.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

/// A moment that can't be told becomes the epoch.
fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let base =
        if time.sec < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nsec.into())))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_before_the_epoch_and_absurd_ones_are_no_trouble() {
        let before = system_time(Time { sec: -2, nsec: 300_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(before).unwrap(), Duration::from_millis(1700));
        for sec in [i64::MIN, i64::MAX] {
            system_time(Time { sec, nsec: 999_999_999 });
        }
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_unpacks_them() {
        let packed = device(0xabc, 0xdef12);
        let major = packed >> 8 & 0xfff;
        let minor = packed & 0xff | packed >> 12 & 0xf_ff00;
        assert_eq!((major, minor), (0xabc, 0xdef12));
    }
}
