//! Volumes: thin disks whose content a pool keeps.
//!
//! # The concept
//!
//! What is written goes to a *log*, on as many of the pool's disks as its layout must survive and one
//! more, and is acknowledged when it is there. From time to time the log is *settled*: what it has
//! becomes chunks of the pool, below a new map that shares all nodes with the old one but those above
//! what changed, and one record of the journal puts the new map in the old one's place. Then the log's
//! files go. So nothing that was acknowledged is ever in one place only, and what is read is looked for in the
//! log first and in the map after.
//!
//! A *snapshot* is a record in the log. In memory it ends a layer: what is written after goes to
//! another one above, and the snapshot is the map with the layers up to there. Settling makes a map of each.
//! A *clone* begins as a name for a snapshot of another volume (`clones.rs` tells how), and has a map of
//! its own once it was settled.
//!
//! # What a crash leaves
//!
//! Records of the log count from the first that isn't settled up to the first that no disk has whole. So a
//! volume is, after a crash at any instant, what it was after some prefix of the changes that were made
//! to it, with at least all that a flush, a durable write, or one of the operations on snapshots and size
//! came back from.
//!
//! | operation | takes | at a crash within |
//! |---|---|---|
//! | write, zero, discard | the pen, in turns | it is there or not, a long one perhaps in part, none without those before it |
//! | flush | the turn to sync | as before; when it returned, all that had returned is there |
//! | snapshot, delete a snapshot, roll back, grow | as a write and a flush | it was done or not |
//! | settle | the turn of upkeep; the pen, for a moment | the old map and the whole log, or the new map and the rest: by one record of the journal |
//! | open | the turn of upkeep | the old run of the log counts until a record of the journal says that the new one does, which has all of the old one then |
//! | create, clone | the turn of all volumes | there is none, or a whole one |
//! | settle a clone for the first time | its turn of upkeep, then that of the volume below | it still begins with the snapshot, which stays, or it has the snapshot's map |
//! | remove | the turn of all volumes, then that of upkeep | it is there, or its files are removed by the next start |
//!
//! # Runs
//!
//! Each opening begins a *run* of the log, with a salt of its own, into which it copies what isn't settled; the
//! journal says which run counts. A disk that was away comes back with files of an older one: they are
//! left-overs, whatever is in them. When two disks were each written without the other, their journals tell.

mod ahead;
mod base;
mod clones;
mod device;
mod layer;
mod live;
mod log;
mod look;
mod pace;
pub mod record;
mod replay;
mod room;
mod segment;
pub mod settings;
mod settle;
mod share;
#[cfg(test)]
mod testing;
pub mod top;
mod usage;
mod volumes;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use strongroom_engine::buf::BufPool;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::content::Reader;
use strongroom_engine::id::RootId;
use strongroom_engine::map::MapRef;
use strongroom_engine::pool::Pool;

pub use self::device::SnapshotDevice;
pub use self::look::Look;
pub use self::settings::{IoType, Priority, Settings};
pub use self::settle::{Settling, stand_back};
pub use self::top::{Meta, Parent, ROOT_KIND};
pub use self::volumes::Volumes;

use self::base::Windows;
use self::clones::Below;
use self::live::{Lives, Snapshot};
use self::log::Log;
use self::pace::Pace;
use self::record::{Change, MAX_NAME, MAX_PAYLOAD};
use self::room::{Reserve, Room};
use self::share::Shares;
use self::top::{MAX_SIZE, MAX_SNAPSHOTS};
use crate::{Error, Result};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// Layers that may lie over a volume's map before a snapshot has it settled first.
const MOST_LAYERS: usize = 128;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A fresh random one.
            pub fn random() -> Self {
                Self(random())
            }

            /// Reads the 32 hexadecimal digits that `Display` writes.
            pub fn parse(text: &str) -> Option<Self> {
                RootId::parse(text).map(|id| Self(id.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                RootId(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&RootId(self.0), f)
            }
        }
    };
}

id!(
    /// A volume, for as long as it lives.
    VolumeId
);
id!(
    /// A snapshot of a volume.
    SnapshotId
);

/// How large logs get.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a segment, at most [`record::MAX_SEGMENT`], and less in a short log.
    pub segment: u64,
    /// When a volume's log has so many bytes, who writes settles it first; less in a small pool (an eighth of
    /// its smallest disk).
    pub log: u64,
    /// Writes of so many bytes, and more, go to the log past the page cache.
    pub long: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment: record::MAX_SEGMENT, log: 8 << 30, long: segment::LONG }
    }
}

/// What to make.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Its name, which no other volume of the pool has.
    pub name: String,
    /// Bytes; a multiple of `sector`.
    pub size: u64,
    /// Bytes of a chunk: a power of two, 4 KiB to 1 MiB. What is settled is stored in these.
    pub chunk: u32,
    /// Bytes of a logical block: 512 or 4096.
    pub sector: u32,
    /// What is set; all of it can be changed later.
    pub settings: Settings,
}

/// What the pool has of a volume.
#[derive(Clone, Debug)]
struct Head {
    root: RootId,
    meta: Meta,
    /// How many bytes of data a map has, where that is known and asked for.
    held: Option<(Arc<MapRef>, u64)>,
}

/// An open volume.
#[derive(Debug)]
pub struct Volume {
    id: VolumeId,
    chunk: u32,
    sector: u32,
    created: PoolTime,
    limits: Limits,
    pool: Arc<Pool>,
    room: Arc<Room>,
    shares: Arc<Shares>,
    reader: Arc<Reader>,
    log: Log,
    lives: Arc<Lives>,
    windows: Windows,
    reads: BufPool,
    /// Held shared by who writes, and alone by who must not have anybody come between.
    gate: RwLock<()>,
    /// Names of snapshots are given in turns.
    names: Mutex<()>,
    /// What it is called, for who doesn't wait for its upkeep.
    name: RwLock<String>,
    settings: RwLock<Arc<Settings>>,
    reserve: Reserve,
    pace: Pace,
    /// The turn of upkeep: who reads or writes doesn't take it.
    head: Mutex<Head>,
    /// What a clone stands on that has no map of its own yet.
    below: Mutex<Option<Below>>,
}

/// A snapshot, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// When it was made, by the pool's own clock.
    pub created: PoolTime,
    /// The volume's size then, in bytes.
    pub size: u64,
}

fn check_name(name: &str) -> Result<()> {
    let is_plain = !name.chars().any(char::is_control);
    match is_plain && !name.is_empty() && name.len() <= MAX_NAME {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "a name has 1 to {MAX_NAME} bytes and no control characters"
        ))),
    }
}

impl Volume {
    /// Its id.
    pub fn volume_id(&self) -> VolumeId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When it was made, by the pool's own clock.
    pub fn created(&self) -> PoolTime {
        self.created
    }

    /// What is set.
    pub fn settings(&self) -> Settings {
        (*self.set_now()).clone()
    }

    fn set_now(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its weight beside others.
    fn weight(&self) -> u8 {
        self.set_now().priority.weight()
    }

    /// Takes the turn of upkeep. Who settles and has it doesn't stand in line behind other volumes meanwhile.
    fn upkeep(&self) -> MutexGuard<'_, Head> {
        let _hurry = self.shares.hurry(self.id);
        locked(&self.head)
    }

    /// Another name or setting holds from here on.
    fn set(&self, meta: &Meta) {
        meta.name.clone_into(&mut self.name.write().unwrap_or_else(PoisonError::into_inner));
        let settings = Arc::new(meta.settings.clone());
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.reserve.set(meta);
        self.reserve_again();
    }

    /// Sets as much room aside as the volume needs now.
    fn reserve_again(&self) {
        let live = self.lives.read();
        let (size, has_snapshots) = (live.size, !live.snapshots.is_empty());
        drop(live);
        self.reserve.again(size, has_snapshots);
    }

    /// Bytes that its log has.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Whether its log is so long, or owes so much of the pool's room, that it is to be settled now and not when
    /// nobody writes: what is settled later is settled less often, and what comes meanwhile needs its room.
    pub fn is_due(&self) -> bool {
        self.log.bytes() > 0 && self.fill() >= self.limits.log / 4
    }

    /// Does ahead what those who write would else have to wait for: to be called several times a second while
    /// it is written to, by a thread that doesn't settle meanwhile.
    ///
    /// # Errors
    /// [`Error::Failed`] when its log can't be written any more.
    pub fn tend(&self) -> Result<()> {
        self.log.tend()
    }

    /// How many copies of what is written next there are; `None` before anything is.
    pub fn log_copies(&self) -> Option<usize> {
        self.log.copies()
    }

    /// What the user should hear of, though it went well; each is told once.
    pub fn take_notices(&self) -> Vec<String> {
        self.log.take_notices()
    }

    /// Its snapshots, oldest first.
    pub fn snapshots(&self) -> Vec<SnapshotInfo> {
        let live = self.lives.read();
        let info = |snapshot: &Snapshot| SnapshotInfo {
            id: snapshot.id,
            name: snapshot.name.clone(),
            created: snapshot.created,
            size: snapshot.size,
        };
        live.snapshots.iter().filter(|snapshot| !snapshot.is_hidden()).map(info).collect()
    }

    fn snapshot_of(&self, id: SnapshotId) -> Result<Snapshot> {
        let live = self.lives.read();
        let mut all = live.snapshots.iter();
        let snapshot = all.find(|snapshot| snapshot.id == id && !snapshot.is_hidden()).cloned();
        snapshot.ok_or_else(|| Error::NotFound(format!("snapshot {id}")))
    }

    /// Makes a snapshot of all that was written before: at once, and durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is taken, or too many snapshots; those of writing.
    pub fn snapshot(&self, name: &str) -> Result<SnapshotId> {
        let _turn = locked(&self.names);
        check_name(name)?;
        let there: Vec<String> = {
            let live = self.lives.read();
            live.snapshots.iter().map(|snapshot| snapshot.name.clone()).collect()
        };
        if there.iter().any(|other| other == name) {
            return Err(Error::Invalid(format!("there is a snapshot {name} already")));
        }
        if there.len() >= MAX_SNAPSHOTS {
            return Err(Error::Invalid(format!("a volume has at most {MAX_SNAPSHOTS} snapshots")));
        }
        // Each layer costs whoever reads a little.
        if self.lives.read().current.layers.len() >= MOST_LAYERS {
            let _hurry = self.shares.hurry(self.id);
            self.settle()?;
        }
        // Whatever is written from here on takes new room.
        self.reserve.admit(self.lives.read().size, true)?;
        let id = SnapshotId::random();
        let created = self.pool.now();
        self.note(Change::Snapshot { id, created, name: name.to_owned() })?;
        self.reserve_again();
        Ok(id)
    }

    /// Deletes a snapshot. What only it held goes once the volume was settled, with the next collection after
    /// that; where a clone begins with it, not before the clone was settled.
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of writing.
    pub fn delete_snapshot(&self, id: SnapshotId) -> Result<()> {
        let _turn = locked(&self.names);
        self.snapshot_of(id)?;
        self.note(Change::Deleted(id))
    }

    /// Makes the volume what it was at a snapshot. It stays as large as it is, and all snapshots stay.
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of writing.
    pub fn roll_back(&self, id: SnapshotId) -> Result<()> {
        let _turn = locked(&self.names);
        self.snapshot_of(id)?;
        self.note(Change::RolledBack(id))
    }

    /// Makes it larger.
    ///
    /// # Errors
    /// [`Error::Invalid`] when that would make it smaller, or part of a sector; those of writing.
    pub fn grow(&self, size: u64) -> Result<()> {
        let _turn = locked(&self.names);
        let now = self.lives.read().size;
        if size < now {
            return Err(Error::Invalid(format!(
                "a volume can't be made smaller: it has {now} bytes, and what is behind {size} would \
                 be lost"
            )));
        }
        if size > MAX_SIZE || !size.is_multiple_of(self.sector.into()) {
            let what =
                format!("a volume has at most {MAX_SIZE} bytes, in sectors of {}", self.sector);
            return Err(Error::Invalid(what));
        }
        self.reserve.admit(size, !self.lives.read().snapshots.is_empty())?;
        self.note(Change::Grown(size))?;
        self.reserve_again();
        Ok(())
    }

    /// Appends a record that isn't about blocks, and makes it durable.
    fn note(&self, change: Change) -> Result<()> {
        self.has_room(MAX_PAYLOAD as u64, 0)?;
        self.log.append(change, &[], &self.lives)?;
        self.log.sync()
    }

    /// A snapshot as a device that can only be read.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn snapshot_device(self: &Arc<Self>, id: SnapshotId) -> Result<SnapshotDevice> {
        let snapshot = self.snapshot_of(id)?;
        Ok(SnapshotDevice::new(Arc::clone(self), snapshot.id, snapshot.size))
    }

    /// Bytes that settled maps hold: of the volume, and of each snapshot those that neither the one before
    /// it nor the one after it (or the volume) has at that place. Of what isn't settled nothing is known.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn usage(&self) -> Result<Usage> {
        usage::usage(self)
    }
}

/// What a volume holds, in bytes before compression and deduplication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the volume as it is.
    pub volume: u64,
    /// Of each snapshot what neighbours don't have, in their order.
    pub snapshots: Vec<(SnapshotId, u64)>,
    /// What snapshots have and the volume doesn't, at that place: each once, but for what came back after
    /// another snapshot was without it.
    pub in_snapshots: u64,
    /// In the log.
    pub log: u64,
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.log.end();
        self.shares.leave(self.id);
    }
}
