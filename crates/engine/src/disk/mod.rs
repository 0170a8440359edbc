//! What the pool needs of a disk, and nothing more.
//!
//! A [`Disk`] is a directory tree of files with plain names. All of the engine's input and output
//! goes through it, so that the same code runs on a filesystem ([`FsDisk`]) and on a simulated
//! disk ([`SimDisk`]) that loses power, tears writes and returns errors on command.
//!
//! What is durable, and when:
//! - file content: after [`DiskFile::sync`] on it returned;
//! - a name (creation, rename, removal): after [`Disk::sync_dir`] on its directory returned;
//! - anything else may be there after a power cut, wholly, in part, or not at all.
//!
//! A file whose content was synced but whose name was not may be gone; a name that was synced may
//! stand for a file with missing content. A rename within a directory is one step: after a power
//! cut there is the old name or the new one, never neither. A directory is itself a name in the one
//! above it.
//!
//! Paths are relative, `/`-separated, of components of printable ASCII without `.` or `..`; others
//! are refused with [`io::ErrorKind::InvalidInput`]. Errors name the operation and the path, and
//! keep the kind the system gave.

mod fs;
mod sim;

#[cfg(test)]
mod conformance;

pub use fs::FsDisk;
pub use sim::{Fault, Operation, Record, SimDisk, SimWorld, Snapshot};

use std::fmt::{self, Debug, Display};
use std::io;

use rustix::io::Errno;

/// How a file's content is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Through the page cache: small files, read again soon.
    Cached,
    /// Past the page cache where the filesystem can do so, else through it: packs. Offsets and
    /// lengths may be anything; they are fast when they and the buffer's address are multiples of
    /// [`crate::buf::PAGE`].
    Direct,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last component of its path.
    pub name: String,
    /// Its length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// How much room a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that may still be written.
    pub free: u64,
}

/// What [`Disk::lock`] gives: held until dropped.
pub trait DiskLock: Send + Sync + Debug {}

/// An open file. All calls may be made from several threads at once.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads exactly `buf.len()` bytes at `offset`; [`io::ErrorKind::UnexpectedEof`] when the file
    /// ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`, growing the file when needed.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends it to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes its content and length durable. After an error nothing may be assumed of what was
    /// written since the last success, and the call must not be tried again on this file.
    fn sync(&self) -> io::Result<()>;
}

/// A disk: see the module's text.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file that exists, to read, and to write when `write` is set.
    fn open(&self, path: &str, caching: Caching, write: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file that must not exist ([`io::ErrorKind::AlreadyExists`]), to read and write.
    fn create(&self, path: &str, caching: Caching) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file, replacing what has the new name, in one step. Directories are not renamed
    /// ([`io::ErrorKind::IsADirectory`]).
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The names in a directory, in no order. A directory that does not exist is an error
    /// ([`io::ErrorKind::NotFound`]). Whatever is neither a directory nor a plain file (a symbolic
    /// link, say) is listed as a file, and refused by [`Disk::open`].
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>>;
    /// Creates a directory, and those above it, when they are not there. Each is durable after
    /// [`Disk::sync_dir`] on the one above it.
    fn make_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes the names in a directory durable; the empty path is the disk's own top directory.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// How much room there is.
    fn space(&self) -> io::Result<Space>;
    /// Takes the advisory lock of the file `path` (created when missing), shared or exclusive,
    /// without waiting: [`io::ErrorKind::WouldBlock`] when another holder has it, in this process
    /// or another. It ends with its holder: no lock survives a process or a power cut.
    fn lock(&self, path: &str, exclusive: bool) -> io::Result<Box<dyn DiskLock>>;
    /// Where it is, for messages.
    fn describe(&self) -> String;
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// Those of the disk, and [`io::ErrorKind::InvalidData`] for a file that is longer.
pub fn read_file(disk: &dyn Disk, path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Caching::Cached, false)?;
    let len = file.len()?;
    if len > limit {
        let what = format!("{path} has {len} bytes; at most {limit} are expected");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a small file in one step: a new file is written, made durable, and renamed over the
/// old one; when this returns, the new content survives a power cut. `path` must have a directory.
///
/// # Errors
/// Those of the disk. The old content is then still there, or, when only making the new name
/// durable failed, the new one: never a mixture.
pub fn replace_file(disk: &dyn Disk, path: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{path}.new");
    match disk.remove(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = disk.create(&temporary, Caching::Cached)?;
    file.write_all_at(content, 0)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
}

/// How often something is asked of a disk before its error is believed.
const TRIES: usize = 3;

/// Looks at something on a disk, once more when that fails: an error that passes must not decide
/// what there is. That something isn't there, or is cut short, is an answer.
pub(crate) fn patiently<T>(mut look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match look() {
            Err(e) if is_passing(&e) => {}
            answer => return answer,
        }
    }
    look()
}

/// Whether an error of looking at something says nothing of what is there.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}

/// Refuses what is no path of a file on a disk.
fn check_path(path: &str) -> io::Result<()> {
    let plain = |part: &str| {
        let printable = part.bytes().all(|b| b.is_ascii_graphic());
        !part.is_empty() && part.len() <= 255 && part != "." && part != ".." && printable
    };
    if path.len() <= 1024 && path.split('/').all(plain) {
        return Ok(());
    }
    let what = format!("{path:?} is no path on a disk");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Refuses what is no path of a directory on a disk; the empty one is the top directory.
fn check_dir(dir: &str) -> io::Result<()> {
    if dir.is_empty() { Ok(()) } else { check_path(dir) }
}

/// What the system said, and of what.
#[derive(Debug)]
struct Failed {
    text: String,
    code: Option<i32>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failed {}

/// An error that says what was being done to which file, and keeps its kind.
fn failed(operation: &str, path: impl Display, why: impl Into<io::Error>) -> io::Error {
    let why = why.into();
    let text = format!("{operation} {path}: {why}");
    io::Error::new(why.kind(), Failed { text, code: why.raw_os_error() })
}

/// Whether an error of a [`Disk`] says that the device behind it doesn't answer: it is as good as
/// missing. Not so when it may not be used, is full, or this process has run out of something.
pub fn is_dead(error: &io::Error) -> bool {
    let failed = error.get_ref().and_then(|inner| inner.downcast_ref::<Failed>());
    let code = failed.map_or_else(|| error.raw_os_error(), |failed| failed.code);
    code.is_some_and(|code| {
        [
            Errno::IO,
            Errno::NXIO,
            Errno::NODEV,
            Errno::NOMEDIUM,
            Errno::REMOTEIO,
            Errno::STALE,
            Errno::TIMEDOUT,
            Errno::HOSTDOWN,
            Errno::NOTCONN,
            Errno::SHUTDOWN,
        ]
        .contains(&Errno::from_raw_os_error(code))
    })
}
