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
mod disk;
mod fault;
mod rng;
mod tree;

#[cfg(test)]
mod tests;

pub use disk::SimDisk;
pub use fault::{Fault, Operation, Record};

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

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
    /// By file, whatever its name is by now.
    locks: BTreeMap<NodeId, Held>,
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
    rates: Vec<(Operation, Rate, &'static str, u64)>,
    struck: u64,
    records: Option<Vec<Record>>,
}

#[derive(Debug)]
struct World {
    state: State,
    /// Files and locks of an earlier boot are of no use.
    boot: u64,
}

/// What goes wrong now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Error(Errno),
    Flip,
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
        let State { rates, rng, .. } = state;
        for (operation, rate, prefix, one_in) in rates {
            let meant = *operation == call.operation && call.path.starts_with(*prefix);
            if meant && rng.chance(1, *one_in) {
                effect = effect.or_else(|| {
                    Some(match rate {
                        Rate::Error(errno) => Effect::Error(*errno),
                        Rate::Flip => Effect::Flip(rng.below(1 << 40), rng.below(8) as u8),
                    })
                });
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

    /// From now on another seed decides what [`SimWorld::new`] says. A restored world goes on with
    /// the numbers it had: to see another end of the same crash, give another seed.
    pub fn set_seed(&self, seed: u64) {
        self.world().state.rng = Rng::new(seed);
    }

    /// Adds an empty disk without a limit.
    pub fn add_disk(&self) -> SimDisk {
        let mut world = self.world();
        let drive =
            Drive { tree: Tree::new(), capacity: PLENTY, lost: false, locks: BTreeMap::new() };
        world.state.drives.push(drive);
        SimDisk::at(self, world.state.drives.len() - 1)
    }

    /// The disks, in the order in which they were added.
    pub fn disks(&self) -> Vec<SimDisk> {
        let count = self.world().state.drives.len();
        (0..count).map(|index| SimDisk::at(self, index)).collect()
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
        self.set_rate(operation, Rate::Error(Errno::IO), "", one_in);
    }

    /// As [`SimWorld::set_error_rate`], for want of space.
    pub fn set_no_space_rate(&self, operation: Operation, one_in: u64) {
        self.set_rate(operation, Rate::Error(Errno::NOSPC), "", one_in);
    }

    /// One in `one_in` reads of files whose path begins with `prefix` is to return what was written
    /// but for one bit; 0 for none. What is stored stays as it is.
    pub fn set_flip_rate(&self, prefix: &'static str, one_in: u64) {
        self.set_rate(Operation::Read, Rate::Flip, prefix, one_in);
    }

    fn set_rate(&self, operation: Operation, rate: Rate, prefix: &'static str, one_in: u64) {
        let rates = &mut self.world().state.rates;
        rates.retain(|(other, kind, of, _)| (*other, *kind, *of) != (operation, rate, prefix));
        if one_in > 0 {
            rates.push((operation, rate, prefix, one_in));
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

    /// Everything as it was then, the count of operations included, but for locks, which are free.
    /// Files opened and locks taken before are of no use.
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
