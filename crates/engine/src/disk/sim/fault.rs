//! What goes wrong on a simulated disk, and which operation it was.

use rustix::io::Errno;

/// A kind of operation on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Disk::open`](crate::disk::Disk::open)
    Open,
    /// [`DiskFile::read_exact_at`](crate::disk::DiskFile::read_exact_at)
    Read,
    /// [`DiskFile::len`](crate::disk::DiskFile::len)
    Len,
    /// [`Disk::list`](crate::disk::Disk::list)
    List,
    /// [`Disk::space`](crate::disk::Disk::space)
    Space,
    /// [`Disk::lock`](crate::disk::Disk::lock)
    Lock,
    /// [`Disk::create`](crate::disk::Disk::create)
    Create,
    /// [`DiskFile::write_all_at`](crate::disk::DiskFile::write_all_at)
    Write,
    /// [`DiskFile::set_len`](crate::disk::DiskFile::set_len)
    SetLen,
    /// [`DiskFile::sync`](crate::disk::DiskFile::sync)
    Sync,
    /// [`Disk::rename`](crate::disk::Disk::rename)
    Rename,
    /// [`Disk::remove`](crate::disk::Disk::remove)
    Remove,
    /// [`Disk::make_dir`](crate::disk::Disk::make_dir)
    MakeDir,
    /// [`Disk::sync_dir`](crate::disk::Disk::sync_dir)
    SyncDir,
}

impl Operation {
    /// Whether it changes what is on the disk, or what is durable: only these are counted, for a
    /// cut before another one leaves the same disk as a cut at the next of these.
    pub fn counts(self) -> bool {
        self >= Self::Create
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Len => "measure",
            Self::List => "list",
            Self::Space => "measure",
            Self::Lock => "lock",
            Self::Create => "create",
            Self::Write => "write",
            Self::SetLen => "set the length of",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::MakeDir => "make directory",
            Self::SyncDir => "sync directory",
        }
    }
}

/// An operation that was counted, for the report of a failing test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number: what [`set_crash_at`](super::SimWorld::set_crash_at) takes.
    pub index: u64,
    /// Which disk, by the order in which they were added.
    pub disk: usize,
    /// What was done.
    pub operation: Operation,
    /// To which file or directory, by the name it was opened with.
    pub path: String,
    /// Offset and length of a write; 0 and the new length of a cut or extension.
    pub range: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    Error(Errno),
    /// Which byte of those read, modulo their number, and which bit.
    Flip(u64, u8),
}

/// Something that is to go wrong. Unless said otherwise it does so once, on whichever disk.
///
/// A write that fails may have written a prefix; a sync that fails may have made anything durable,
/// and what it did not, no later one will. Other operations that fail have done nothing.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    prefix: String,
    effect: Effect,
    disk: Option<usize>,
    skip: u64,
    left: u64,
}

impl Fault {
    fn new(operation: Operation, prefix: &str, effect: Effect) -> Self {
        Self { operation, prefix: prefix.to_owned(), effect, disk: None, skip: 0, left: 1 }
    }

    /// `operation` fails with an input/output error on a path that starts with `prefix`; of a
    /// rename, either path.
    pub fn io_error(operation: Operation, prefix: &str) -> Self {
        Self::new(operation, prefix, Effect::Error(Errno::IO))
    }

    /// `operation` fails for want of space, though there may be some.
    pub fn no_space(operation: Operation, prefix: &str) -> Self {
        Self::new(operation, prefix, Effect::Error(Errno::NOSPC))
    }

    /// A read returns what was written but for one bit: that of the `byte`-th byte read, modulo
    /// their number.
    pub fn flipped_read(prefix: &str, byte: u64, bit: u8) -> Self {
        Self::new(Operation::Read, prefix, Effect::Flip(byte, bit))
    }

    /// Only on one disk, by the order in which they were added.
    #[must_use]
    pub fn on_disk(self, disk: usize) -> Self {
        Self { disk: Some(disk), ..self }
    }

    /// Not the first `count` times.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        Self { skip: count, ..self }
    }

    /// So many times.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self { left: count, ..self }
    }

    /// From then on every time.
    #[must_use]
    pub fn forever(self) -> Self {
        self.times(u64::MAX)
    }

    /// Whether it strikes now.
    pub(super) fn strikes(&mut self, call: &Call<'_>) -> Option<Effect> {
        let matches = self.operation == call.operation
            && self.disk.is_none_or(|disk| disk == call.disk)
            && (call.path.starts_with(&self.prefix)
                || call.other.is_some_and(|path| path.starts_with(&self.prefix)));
        if !matches || self.left == 0 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.left != u64::MAX {
            self.left -= 1;
        }
        Some(self.effect)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// An operation about to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) disk: usize,
    pub(super) operation: Operation,
    pub(super) path: &'a str,
    /// The new path of a rename.
    pub(super) other: Option<&'a str>,
    pub(super) range: Option<(u64, u64)>,
}
