//! A simulated disk: it forgets what was not made durable, and fails on command.
//!
//! Disks live in a [`SimWorld`], which has one power supply and one counter of operations for all
//! of them. A test runs its workload once to learn how many operations it takes
//! ([`SimWorld::ops`]), then again for every one of them with the power failing there
//! ([`SimWorld::set_crash_at`]), each time followed by [`SimWorld::power_cut`] (or
//! [`SimWorld::kill`], when only the process dies) and a look at what is left.
//!
//! # What a power cut leaves
//! Everything that was made durable (see [`crate::disk`]), and of the rest whatever the seed says:
//! - of the writes and changes of length to a file since it was last synced: any of them, in the
//!   order they were made. A write may be torn at a multiple of 512 bytes in the file, be there in
//!   some of its sectors, or leave only zeros and the length it gave the file.
//! - of the changes of names since their directory was last synced: any of them, or as many as came
//!   first, but none that needs one that was lost. A rename is one change. A name stands for its
//!   file whether or not that one's content was synced, and the other way round.
//!
//! # Determinism
//! The same seeds and the same calls in the same order give the same results. Calls of several
//! threads are as ordered as the threads are.

mod content;
mod fault;
mod rng;
mod tree;

pub use fault::{Fault, Operation, Record};

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{Caching, Disk, DiskFile, DiskLock, Entry, Space, check_dir, check_path, failed};
use fault::{Call, Effect};
use rng::Rng;
use tree::{NodeId, Tree};

/// What a disk without a set capacity says that it has.
const PLENTY: u64 = 1 << 50;

/// One disk.
#[derive(Clone, Debug)]
struct Drive {
    tree: Tree,
    capacity: u64,
    lost: bool,
    locks: BTreeMap<String, Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Exclusive,
    Shared(u32),
}

impl Drive {
    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.tree.used())
    }
}

/// Everything but who is looking at it.
#[derive(Clone, Debug)]
struct State {
    drives: Vec<Drive>,
    ops: u64,
    crash_at: Option<u64>,
    powered: bool,
    rng: Rng,
    faults: Vec<Fault>,
    rates: Vec<(Operation, u64)>,
    struck: u64,
    records: Option<Vec<Record>>,
}

#[derive(Debug)]
struct World {
    state: State,
    /// Files and locks of an earlier boot are of no use.
    boot: u64,
}

/// What becomes of an operation.
enum Fate {
    Done,
    Flipped(u64, u8),
    Failed(Errno),
    /// The power fails while it is going on.
    Cut,
}

fn power_is_off() -> io::Error {
    io::Error::other("power is off")
}

impl World {
    fn start(&mut self, boot: Option<u64>, call: Call<'_>) -> io::Result<Fate> {
        if boot.is_some_and(|boot| boot != self.boot) {
            return Err(io::Error::other("was opened before the power was cut"));
        }
        let state = &mut self.state;
        if !state.powered {
            return Err(power_is_off());
        }
        if call.operation.counts() {
            let index = state.ops;
            state.ops += 1;
            if let Some(records) = &mut state.records {
                let Call { disk, operation, path, other, range } = call;
                let path = other.map_or(path.to_owned(), |other| format!("{path} to {other}"));
                records.push(Record { index, disk, operation, path, range });
            }
            if state.crash_at.is_some_and(|at| at <= index) {
                state.powered = false;
                return Ok(Fate::Cut);
            }
        }
        if state.drives[call.disk].lost {
            return Ok(Fate::Failed(Errno::IO));
        }
        let mut effect = None;
        if !state.faults.is_empty() {
            effect = state.faults.iter_mut().find_map(|fault| fault.strikes(&call));
            state.faults.retain(|fault| !fault.is_spent());
        }
        for (operation, one_in) in &state.rates {
            if *operation == call.operation && state.rng.chance(1, *one_in) {
                effect = effect.or(Some(Effect::Error(Errno::IO)));
            }
        }
        state.struck += u64::from(effect.is_some());
        Ok(match effect {
            None => Fate::Done,
            Some(Effect::Error(errno)) => Fate::Failed(errno),
            Some(Effect::Flip(byte, bit)) => Fate::Flipped(byte, bit),
        })
    }

    /// An operation that is done wholly or not at all.
    fn perform<T>(
        &mut self,
        boot: Option<u64>,
        call: Call<'_>,
        action: impl FnOnce(&mut Drive) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.start(boot, call)? {
            Fate::Done | Fate::Flipped(..) => action(&mut self.state.drives[call.disk]),
            Fate::Failed(errno) => Err(errno.into()),
            Fate::Cut => {
                let drive = &mut self.state.drives[call.disk];
                if !drive.lost && self.state.rng.chance(1, 2) {
                    drop(action(drive));
                }
                Err(power_is_off())
            }
        }
    }

    fn write(&mut self, boot: u64, call: Call<'_>, node: NodeId, data: &[u8]) -> io::Result<()> {
        let fate = self.start(Some(boot), call)?;
        let State { drives, rng, .. } = &mut self.state;
        let drive = &mut drives[call.disk];
        let (offset, free) = (call.range.map_or(0, |(offset, _)| offset), drive.free());
        let why = match fate {
            Fate::Done | Fate::Flipped(..) => {
                if drive.tree.write(node, data, offset, free)? == data.len() {
                    return Ok(());
                }
                return Err(Errno::NOSPC.into());
            }
            Fate::Failed(errno) => errno.into(),
            Fate::Cut => power_is_off(),
        };
        if !drive.lost {
            let prefix = rng.below(data.len() as u64 + 1) as usize;
            drive.tree.write(node, &data[..prefix], offset, free)?;
        }
        Err(why)
    }

    fn sync(&mut self, boot: u64, call: Call<'_>, node: NodeId) -> io::Result<()> {
        let fate = self.start(Some(boot), call)?;
        let State { drives, rng, .. } = &mut self.state;
        let Drive { tree, lost, .. } = &mut drives[call.disk];
        match fate {
            Fate::Done | Fate::Flipped(..) => tree.sync(node),
            Fate::Failed(errno) => {
                tree.fail_sync(node, rng)?;
                Err(errno.into())
            }
            Fate::Cut => {
                // Done, or, as a power cut will find it, in part.
                if !*lost && rng.chance(1, 4) {
                    tree.sync(node)?;
                }
                Err(power_is_off())
            }
        }
    }

    /// Every process that had files open is gone.
    fn reboot(&mut self) {
        self.boot += 1;
        self.state.powered = true;
        self.state.crash_at = None;
        for drive in &mut self.state.drives {
            drive.locks.clear();
        }
    }
}

/// The state of a world at some moment: cheap to keep, for it shares what has not changed since.
#[derive(Clone, Debug)]
pub struct Snapshot {
    state: State,
}

/// Simulated disks with one power supply: see the module's text. Copies are the same world.
#[derive(Clone)]
pub struct SimWorld {
    shared: Arc<Mutex<World>>,
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world();
        write!(f, "SimWorld({} disks, {} operations)", world.state.drives.len(), world.state.ops)
    }
}

impl SimWorld {
    /// A world without disks. The seed decides how far an operation gets that fails, and what the
    /// rates of [`SimWorld::set_error_rate`] hit.
    pub fn new(seed: u64) -> Self {
        let state = State {
            drives: Vec::new(),
            ops: 0,
            crash_at: None,
            powered: true,
            rng: Rng::new(seed),
            faults: Vec::new(),
            rates: Vec::new(),
            struck: 0,
            records: None,
        };
        Self { shared: Arc::new(Mutex::new(World { state, boot: 0 })) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an empty disk without a limit.
    pub fn add_disk(&self) -> SimDisk {
        let mut world = self.world();
        let drive =
            Drive { tree: Tree::new(), capacity: PLENTY, lost: false, locks: BTreeMap::new() };
        world.state.drives.push(drive);
        SimDisk { world: self.clone(), index: world.state.drives.len() - 1 }
    }

    /// The disks, in the order in which they were added.
    pub fn disks(&self) -> Vec<SimDisk> {
        let count = self.world().state.drives.len();
        (0..count).map(|index| SimDisk { world: self.clone(), index }).collect()
    }

    /// How many operations there were that count ([`Operation::counts`]).
    pub fn ops(&self) -> u64 {
        self.world().state.ops
    }

    /// The power fails during the operation with this number, counted from 0: it and all after it
    /// fail, and it may have been done, or a part of it.
    pub fn set_crash_at(&self, op: impl Into<Option<u64>>) {
        self.world().state.crash_at = op.into();
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        !self.world().state.powered
    }

    /// Cuts the power and brings it back: what was not durable is there as far as `seed` says, files
    /// and locks from before are of no use, and no further crash is set.
    pub fn power_cut(&self, seed: u64) {
        let mut world = self.world();
        world.reboot();
        let mut rng = Rng::new(seed);
        for drive in &mut world.state.drives {
            drive.tree.power_cut(&mut rng);
        }
    }

    /// The process is gone, the system runs on: as [`SimWorld::power_cut`], but nothing is lost.
    pub fn kill(&self) {
        self.world().reboot();
    }

    /// Something is to go wrong. Of several faults that match, the first given strikes.
    pub fn inject(&self, fault: Fault) {
        self.world().state.faults.push(fault);
    }

    /// One in `one_in` operations of a kind is to fail with an input/output error, by the world's
    /// seed; 0 for none.
    pub fn set_error_rate(&self, operation: Operation, one_in: u64) {
        let rates = &mut self.world().state.rates;
        rates.retain(|(other, _)| *other != operation);
        if one_in > 0 {
            rates.push((operation, one_in));
        }
    }

    /// Nothing more is to go wrong.
    pub fn clear_faults(&self) {
        let state = &mut self.world().state;
        state.faults.clear();
        state.rates.clear();
    }

    /// How many faults have struck.
    pub fn faults_struck(&self) -> u64 {
        self.world().state.struck
    }

    /// Starts to remember the operations that count, or stops and forgets them.
    pub fn set_recording(&self, on: bool) {
        self.world().state.records = on.then(Vec::new);
    }

    /// What was remembered, for the report of a failing test.
    pub fn records(&self) -> Vec<Record> {
        self.world().state.records.clone().unwrap_or_default()
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { state: self.world().state.clone() }
    }

    /// Everything as it was then, the count of operations included, but for the disks that are
    /// locked: files and locks from before are of no use.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut world = self.world();
        let (powered, crash_at) = (snapshot.state.powered, snapshot.state.crash_at);
        world.state = snapshot.state.clone();
        world.reboot();
        world.state.powered = powered;
        world.state.crash_at = crash_at;
    }

    /// A world of its own that starts from a snapshot, to try something beside this one.
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let world = Self::new(0);
        world.restore(snapshot);
        world
    }
}

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
        self.perform(call, |drive| {
            check_path(path)?;
            drive.tree.open(path)?;
            let held = match drive.locks.get(path) {
                None if exclusive => Held::Exclusive,
                None => Held::Shared(1),
                Some(Held::Shared(n)) if !exclusive => Held::Shared(n + 1),
                Some(_) => return Err(Errno::WOULDBLOCK.into()),
            };
            drive.locks.insert(path.to_owned(), held);
            Ok(())
        })?;
        let boot = self.world.world().boot;
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned(), boot }))
    }

    fn describe(&self) -> String {
        format!("sim{}", self.index)
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: String,
    boot: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world.world();
        if world.boot != self.boot {
            return;
        }
        let locks = &mut world.state.drives[self.disk.index].locks;
        match locks.get_mut(&self.path) {
            Some(Held::Shared(n)) if *n > 1 => *n -= 1,
            _ => drop(locks.remove(&self.path)),
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
