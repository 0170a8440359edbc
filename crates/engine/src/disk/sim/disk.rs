//! The simulated disk as the pool sees it, and as a test does.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::fault::{Call, Operation};
use super::tree::NodeId;
use super::{Drive, Fate, Held, SimWorld, power_is_off};
use crate::disk::{Caching, Disk, DiskFile, DiskLock, Entry, Space, check_dir, check_path, failed};

/// A simulated disk. Copies are the same disk; it outlives power cuts.
#[derive(Clone)]
pub struct SimDisk {
    world: SimWorld,
    index: usize,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({})", self.index)
    }
}

impl SimDisk {
    /// A disk in a world of its own.
    pub fn new(seed: u64) -> Self {
        SimWorld::new(seed).add_disk()
    }

    /// The disk with this number.
    pub(super) fn at(world: &SimWorld, index: usize) -> Self {
        Self { world: world.clone(), index }
    }

    /// The world it is in.
    pub fn world(&self) -> &SimWorld {
        &self.world
    }

    /// Its number, in the order in which disks were added.
    pub fn index(&self) -> usize {
        self.index
    }

    fn with<T>(&self, action: impl FnOnce(&mut Drive) -> T) -> T {
        action(&mut self.world.world().state.drives[self.index])
    }

    /// Limits the sum of the lengths of all files, in bytes. A write that would exceed it writes
    /// what fits and fails with [`io::ErrorKind::StorageFull`].
    pub fn set_capacity(&self, bytes: u64) {
        self.with(|drive| drive.capacity = bytes);
    }

    /// While set, every operation fails with an input/output error.
    pub fn set_lost(&self, lost: bool) {
        self.with(|drive| drive.lost = lost);
    }

    /// Removes everything, durably: an empty disk in the old one's place.
    pub fn remove_all(&self) {
        self.with(|drive| drive.tree.clear());
    }

    /// All files, by path, with their lengths in bytes, in order. Like all that follows, this is
    /// neither counted nor subject to faults.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.with(|drive| drive.tree.files())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and its like.
    pub fn read_raw(&self, path: &str) -> io::Result<Vec<u8>> {
        self.with(|drive| {
            let node = drive.tree.open(path)?;
            let content = drive.tree.file(node)?.now();
            let mut bytes = vec![0; content.len() as usize];
            content.read(&mut bytes, 0);
            Ok(bytes)
        })
    }

    /// Flips a bit of what is stored; past the end, nothing happens. What was written to the file is
    /// durable first, here and in the calls below.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and its like.
    pub fn flip_bit(&self, path: &str, byte: u64, bit: u8) -> io::Result<()> {
        self.with(|drive| {
            drive.tree.damage(path, |content| {
                let mut old = [0];
                if content.read(&mut old, byte) {
                    content.write(&[old[0] ^ (1 << (bit % 8))], byte);
                }
            })
        })
    }

    /// Cuts a file off, or extends it with zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and its like.
    pub fn truncate(&self, path: &str, len: u64) -> io::Result<()> {
        self.with(|drive| drive.tree.damage(path, |content| content.set_len(len)))
    }

    /// Puts `bytes` in the place of a file's content.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] and its like.
    pub fn write_raw(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(|drive| {
            drive.tree.damage(path, |content| {
                content.set_len(0);
                content.write(bytes, 0);
            })
        })
    }

    fn call<'a>(&self, operation: Operation, path: &'a str) -> Call<'a> {
        Call { disk: self.index, operation, path, other: None, range: None }
    }

    fn failed(&self, call: &Call<'_>, why: io::Error) -> io::Error {
        let to = call.other.map_or(String::new(), |other| format!(" to {other}"));
        failed(call.operation.name(), format_args!("{}/{}{to}", self.describe(), call.path), why)
    }

    /// An operation that is done wholly or not at all.
    fn perform<T>(
        &self,
        call: Call<'_>,
        action: impl FnOnce(&mut Drive) -> io::Result<T>,
    ) -> io::Result<T> {
        let result = self.world.world().perform(None, call, action);
        result.map_err(|e| self.failed(&call, e))
    }

    /// The same on a file.
    fn perform_on_file(
        &self,
        call: Call<'_>,
        action: impl FnOnce(&mut Drive) -> io::Result<NodeId>,
        write: bool,
    ) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world.world();
        let boot = world.boot;
        let result = world.perform(None, call, |drive| {
            check_path(call.path)?;
            let node = action(drive)?;
            Ok((node, Arc::clone(&drive.tree.file(node)?.handles)))
        });
        drop(world);
        let (node, handle) = result.map_err(|e| self.failed(&call, e))?;
        let path = call.path.to_owned();
        Ok(Box::new(SimFile { disk: self.clone(), node, path, write, boot, _handle: handle }))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, _caching: Caching, write: bool) -> io::Result<Box<dyn DiskFile>> {
        let call = self.call(Operation::Open, path);
        self.perform_on_file(call, |drive| drive.tree.open(path), write)
    }

    fn create(&self, path: &str, _caching: Caching) -> io::Result<Box<dyn DiskFile>> {
        let call = self.call(Operation::Create, path);
        let action = |drive: &mut Drive| {
            if drive.free() == 0 && !drive.tree.exists(path) {
                return Err(Errno::NOSPC.into());
            }
            drive.tree.create(path)
        };
        self.perform_on_file(call, action, true)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let call = Call { other: Some(to), ..self.call(Operation::Rename, from) };
        self.perform(call, |drive| {
            check_path(from)?;
            check_path(to)?;
            drive.tree.rename(from, to)
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.perform(self.call(Operation::Remove, path), |drive| {
            check_path(path)?;
            drive.tree.remove(path)
        })
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.perform(self.call(Operation::List, dir), |drive| {
            check_dir(dir)?;
            drive.tree.list(dir)
        })
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.perform(self.call(Operation::MakeDir, dir), |drive| {
            check_dir(dir)?;
            if drive.free() == 0 && !drive.tree.exists(dir) {
                return Err(Errno::NOSPC.into());
            }
            drive.tree.make_dir(dir)
        })
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.perform(self.call(Operation::SyncDir, dir), |drive| {
            check_dir(dir)?;
            drive.tree.sync_dir(dir)
        })
    }

    fn space(&self) -> io::Result<Space> {
        self.perform(self.call(Operation::Space, ""), |drive| {
            Ok(Space { total: drive.capacity, free: drive.free() })
        })
    }

    fn lock(&self, path: &str, exclusive: bool) -> io::Result<Box<dyn DiskLock>> {
        // Creating the file is an operation of its own.
        let missing = self.with(|drive| !drive.lost && !drive.tree.exists(path));
        if missing {
            match self.create(path, Caching::Cached) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        let call = self.call(Operation::Lock, path);
        let mut world = self.world.world();
        let boot = world.boot;
        let result = world.perform(None, call, |drive| {
            check_path(path)?;
            let node = drive.tree.open(path)?;
            let held = match drive.locks.get(&node) {
                None if exclusive => Held::Exclusive,
                None => Held::Shared(1),
                Some(Held::Shared(n)) if !exclusive => Held::Shared(n + 1),
                Some(_) => return Err(Errno::WOULDBLOCK.into()),
            };
            drive.locks.insert(node, held);
            Ok((node, Arc::clone(&drive.tree.file(node)?.handles)))
        });
        drop(world);
        let (node, handle) = result.map_err(|e| self.failed(&call, e))?;
        Ok(Box::new(SimLock { disk: self.clone(), node, boot, _handle: handle }))
    }

    fn describe(&self) -> String {
        format!("sim{}", self.index)
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    node: NodeId,
    boot: u64,
    _handle: Arc<()>,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world.world();
        if world.boot != self.boot {
            return;
        }
        let locks = &mut world.state.drives[self.disk.index].locks;
        match locks.get_mut(&self.node) {
            Some(Held::Shared(n)) if *n > 1 => *n -= 1,
            _ => drop(locks.remove(&self.node)),
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: NodeId,
    path: String,
    write: bool,
    boot: u64,
    /// Keeps the file while it is open.
    _handle: Arc<()>,
}

impl SimFile {
    fn call(&self, operation: Operation, range: Option<(u64, u64)>) -> Call<'_> {
        Call { range, ..self.disk.call(operation, &self.path) }
    }

    fn must_be_writable(&self, call: &Call<'_>) -> io::Result<()> {
        if self.write {
            return Ok(());
        }
        let why =
            io::Error::new(io::ErrorKind::PermissionDenied, "the file is open for reading only");
        Err(self.disk.failed(call, why))
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let call = self.call(Operation::Read, Some((offset, buf.len() as u64)));
        let mut read = || {
            let mut world = self.disk.world.world();
            let flip = match world.start(Some(self.boot), call)? {
                Fate::Done => None,
                Fate::Flipped(byte, bit) => Some((byte, bit)),
                Fate::Failed(errno) => return Err(errno.into()),
                Fate::Cut => return Err(power_is_off()),
            };
            let file = world.state.drives[self.disk.index].tree.file(self.node)?;
            if !file.now().read(buf, offset) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((byte, bit)) = flip
                && !buf.is_empty()
            {
                buf[(byte % buf.len() as u64) as usize] ^= 1 << (bit % 8);
            }
            Ok(())
        };
        read().map_err(|e| self.disk.failed(&call, e))
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let call = self.call(Operation::Write, Some((offset, data.len() as u64)));
        self.must_be_writable(&call)?;
        let result = self.disk.world.world().write(self.boot, call, self.node, data);
        result.map_err(|e| self.disk.failed(&call, e))
    }

    fn len(&self) -> io::Result<u64> {
        let call = self.call(Operation::Len, None);
        let action = |drive: &mut Drive| Ok(drive.tree.file(self.node)?.now().len());
        let result = self.disk.world.world().perform(Some(self.boot), call, action);
        result.map_err(|e| self.disk.failed(&call, e))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let call = self.call(Operation::SetLen, Some((0, len)));
        self.must_be_writable(&call)?;
        let action = |drive: &mut Drive| drive.tree.set_len(self.node, len, drive.free());
        let result = self.disk.world.world().perform(Some(self.boot), call, action);
        result.map_err(|e| self.disk.failed(&call, e))
    }

    fn sync(&self) -> io::Result<()> {
        let call = self.call(Operation::Sync, None);
        let result = self.disk.world.world().sync(self.boot, call, self.node);
        result.map_err(|e| self.disk.failed(&call, e))
    }
}
