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
//! A *clone* is a volume whose first map is a snapshot's.
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
//! | create, clone | the turn of names | there is none, or a whole one |
//! | remove | the turn of names, then that of upkeep | it is there, or its files are removed by the next start |
//!
//! # Runs
//!
//! Each opening begins a *run* of the log, with a salt of its own, into which it copies what isn't settled; the
//! journal says which run counts. A disk that was away comes back with files of an older one: they are
//! left-overs, whatever is in them. When two disks were each written without the other, their journals tell.

mod base;
mod device;
mod layer;
mod live;
mod log;
mod look;
pub mod record;
mod replay;
mod room;
mod segment;
pub mod settings;
mod settle;
#[cfg(test)]
mod testing;
pub mod top;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::RootId;
use strongroom_engine::map::{MapRef, NodeStore};
use strongroom_engine::pool::{NewRoot, Pool, Session};
use strongroom_engine::state::Root;

pub use self::device::SnapshotDevice;
pub use self::look::Look;
pub use self::settings::{IoType, Priority, Settings};
pub use self::settle::Settling;
pub use self::top::{Meta, Parent, ROOT_KIND};

use self::base::Windows;
use self::live::{Lives, Snapshot, View};
use self::log::{Log, Run};
use self::record::{Change, MAX_NAME, MAX_PAYLOAD};
use self::replay::{Wanted, files, replay};
use self::room::Room;
use self::top::{CHUNKS, MAX_SIZE, MAX_SNAPSHOTS, Top};
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
const MOST_LAYERS: usize = 32;

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
    /// Bytes of a segment, at most [`record::MAX_SEGMENT`].
    pub segment: u64,
    /// When a volume's log has so many bytes, who writes settles it first.
    pub log: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment: 16 << 20, log: 256 << 20 }
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

/// The volumes of a pool that is open to write.
#[derive(Debug)]
pub struct Volumes {
    pool: Arc<Pool>,
    limits: Limits,
    room: Arc<Room>,
    /// Those that are open. Who makes, opens or removes one holds this: they come in turns.
    open: Mutex<HashMap<VolumeId, Weak<Volume>>>,
}

/// What the pool has of a volume.
#[derive(Clone, Debug)]
struct Head {
    root: RootId,
    meta: Meta,
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
    log: Log,
    lives: Lives,
    windows: Windows,
    /// Held shared by who writes, and alone by who must not have anybody come between.
    gate: RwLock<()>,
    /// Names of snapshots are given in turns.
    names: Mutex<()>,
    /// The turn of upkeep: who reads or writes doesn't take it.
    head: Mutex<Head>,
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

/// The volume of a root, if it is one.
fn meta_of(root: &Root) -> Option<Meta> {
    (root.kind == ROOT_KIND).then(|| Meta::decode(&root.meta).ok()).flatten()
}

impl Volumes {
    /// The volumes of a pool, of which there must be one only in the process. Files of volumes that are no
    /// more are removed.
    ///
    /// # Errors
    /// When the pool can't be written, or a disk that is there can't be listed.
    pub fn new(pool: Arc<Pool>, limits: Limits) -> Result<Self> {
        pool.check_writable()?;
        let found = files(pool.disks())?;
        let roots = pool.roots();
        // What this version can't read may belong to any of them.
        let known: Option<Vec<VolumeId>> = roots
            .iter()
            .filter(|root| root.kind == ROOT_KIND)
            .map(|root| meta_of(root).map(|meta| meta.volume))
            .collect();
        if let Some(known) = known {
            let gone = found.iter().filter(|(id, _)| !known.contains(id));
            gone.for_each(|(id, numbers)| remove_files(&pool, *id, numbers, u64::MAX));
        }
        Ok(Self { pool, limits, room: Arc::default(), open: Mutex::default() })
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// All volumes, as they were last settled.
    pub fn list(&self) -> Vec<Meta> {
        self.pool.roots().iter().filter_map(meta_of).collect()
    }

    fn head(&self, id: VolumeId) -> Result<(Root, Meta)> {
        let roots = self.pool.roots().into_iter();
        roots
            .filter_map(|root| meta_of(&root).map(|meta| (root, meta)))
            .find(|(_, meta)| meta.volume == id)
            .ok_or_else(|| Error::NotFound(format!("volume {id}")))
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// [`Error::Invalid`] for measures out of bounds and names that are taken; those of the pool.
    pub fn create(&self, new: NewVolume) -> Result<VolumeId> {
        let _turn = locked(&self.open);
        let session = self.pool.session()?;
        self.make(&session, new, MapRef::default())
    }

    /// Makes a volume with the content of a map that a root reaches, an image's say. It is there at once
    /// and takes no room but for what is written to it. It may be larger than that content, which then
    /// ends in zeroes.
    ///
    /// # Errors
    /// As [`Volumes::create`]; [`Error::Invalid`] when it would be smaller.
    pub fn create_over(&self, new: NewVolume, map: MapRef, root: RootId) -> Result<VolumeId> {
        let _turn = locked(&self.open);
        let session = self.pool.session()?;
        session.lean_on(root)?;
        self.make(&session, new, map)
    }

    /// Makes a volume with the content of a snapshot. One that isn't settled yet is settled first.
    ///
    /// # Errors
    /// As [`Volumes::create`]; [`Error::NotFound`] when there is no such snapshot.
    pub fn clone_snapshot(&self, volume: &Volume, id: SnapshotId, name: &str) -> Result<VolumeId> {
        let _turn = locked(&self.open);
        if volume.snapshot_of(id)?.view.layers.iter().len() > 0 {
            volume.settle()?;
        }
        // So that nobody settles meanwhile, which would end the root that is leant on.
        let head = locked(&volume.head);
        let snapshot = volume.snapshot_of(id)?;
        if !snapshot.view.layers.is_empty() {
            return Err(Error::Invalid(format!("snapshot {id} is not settled yet: try again")));
        }
        let session = self.pool.session()?;
        session.lean_on(head.root)?;
        let new = NewVolume {
            name: name.to_owned(),
            size: snapshot.size,
            chunk: volume.chunk,
            sector: volume.sector,
            settings: head.meta.settings.clone(),
        };
        self.make(&session, new, (*snapshot.view.base).clone())
    }

    fn make(&self, session: &Session<'_>, new: NewVolume, map: MapRef) -> Result<VolumeId> {
        let NewVolume { name, size, chunk, sector, settings } = new;
        check_name(&name)?;
        settings.check()?;
        if !CHUNKS.contains(&chunk) || !chunk.is_power_of_two() {
            let (low, high) = (CHUNKS.start() >> 10, CHUNKS.end() >> 10);
            let what = format!("a volume's block size is a power of two, {low} KiB to {high} KiB");
            return Err(Error::Invalid(what));
        }
        if ![512, 4096].contains(&sector) {
            return Err(Error::Invalid("a sector has 512 or 4096 bytes".into()));
        }
        if size == 0 || size > MAX_SIZE || !size.is_multiple_of(sector.into()) {
            let what = format!("a volume has 1 to {MAX_SIZE} bytes, in whole sectors of {sector}");
            return Err(Error::Invalid(what));
        }
        if map.len() > size {
            let what = format!("a volume over {} bytes can't have {size}", map.len());
            return Err(Error::Invalid(what));
        }
        if self.list().iter().any(|meta| meta.name == name) {
            return Err(Error::Invalid(format!("there is a volume {name} already")));
        }
        let volume = VolumeId::random();
        let run = random();
        let (_, epoch) = self.pool.log_sealer(None, &run)?;
        let created = self.pool.now();
        let meta = Meta {
            volume,
            name,
            created,
            size,
            chunk,
            sector,
            run,
            epoch,
            settled: 0,
            settings,
            parent: None,
        };
        let top = Top { map, snapshots: Vec::new() };
        put_head(session, None, &meta, &top)?;
        Ok(volume)
    }

    /// Opens a volume, or gives the one that is open.
    ///
    /// # Errors
    /// [`Error::NotFound`]; when its log can't be read or is damaged; those of the pool.
    pub fn open(&self, id: VolumeId) -> Result<Arc<Volume>> {
        let mut open = locked(&self.open);
        if let Some(volume) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(volume);
        }
        let (root, meta) = self.head(id)?;
        let volume = Arc::new(self.load(&root, meta)?);
        open.retain(|_, volume| volume.strong_count() > 0);
        open.insert(id, Arc::downgrade(&volume));
        Ok(volume)
    }

    fn load(&self, root: &Root, meta: Meta) -> Result<Volume> {
        let what = format!("volume {}", meta.name);
        let damaged = |e| strongroom_engine::Error::damaged(what.clone(), e);
        let node = root.nodes.first().ok_or_else(|| {
            strongroom_engine::Error::damaged(what.clone(), "its root has no node")
        })?;
        let top = Top::decode(&self.pool.node(node)?).map_err(damaged)?;
        let id = meta.volume;
        let mut found = files(self.pool.disks())?.remove(&id).unwrap_or_default();
        let number = found.keys().next_back().map_or(0, |last| last.saturating_add(1));
        let run = Run { volume: id, salt: random(), settled: meta.settled, number };
        let (sealer, epoch) = self.pool.log_sealer(None, &run.salt)?;
        let snapshots = top.snapshots.into_iter().map(|settled| Snapshot {
            id: settled.id,
            name: settled.name,
            created: settled.created,
            size: settled.size,
            view: View::new(settled.map),
        });
        let (chunk, room) = (meta.chunk, &self.room);
        let view = View::new(top.map);
        let lives = Lives::new(meta.size, chunk, room, view, snapshots.collect(), meta.settled);
        let log = Log::new(&self.pool, run, sealer, self.limits.segment);
        let (old, _) = self.pool.log_sealer(Some(meta.epoch), &meta.run)?;
        let wanted = Wanted {
            disks: self.pool.disks(),
            volume: id,
            salt: &meta.run,
            sealer: &old,
            settled: meta.settled,
        };
        replay(wanted, &found, &mut |found| {
            let data: &[u8] = match found.change {
                Change::Data { .. } => &found.payload,
                _ => &[],
            };
            log.append(found.change, data, &lives).map(drop)
        })?;
        log.sync()?;
        let (created, sector) = (meta.created, meta.sector);
        let meta = Meta { run: run.salt, epoch, ..meta };
        self.pool.update_root(root.id, Some(meta.encode()), None)?;
        remove_files(&self.pool, id, &found, number);
        found.clear();
        Ok(Volume {
            id,
            chunk,
            sector,
            created,
            limits: self.limits,
            pool: Arc::clone(&self.pool),
            room: Arc::clone(&self.room),
            log,
            lives,
            windows: Windows::default(),
            gate: RwLock::default(),
            names: Mutex::default(),
            head: Mutex::new(Head { root: root.id, meta }),
        })
    }

    /// Removes a volume with its snapshots. What only they held goes with the next collection. One that is
    /// still held by somebody fails from here on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of the pool.
    pub fn remove(&self, id: VolumeId) -> Result<()> {
        let mut open = locked(&self.open);
        let volume = open.get(&id).and_then(Weak::upgrade);
        // Not while it is settled.
        let _upkeep = volume.as_ref().map(|volume| {
            volume.log.end();
            locked(&volume.head)
        });
        let (root, _) = self.head(id)?;
        self.pool.forget(&[root.id])?;
        open.remove(&id);
        let found = files(self.pool.disks())?.remove(&id).unwrap_or_default();
        remove_files(&self.pool, id, &found, u64::MAX);
        Ok(())
    }

    /// Renames a volume.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a name that is taken; those of the pool.
    pub fn rename(&self, id: VolumeId, name: &str) -> Result<()> {
        let open = locked(&self.open);
        check_name(name)?;
        if self.list().iter().any(|meta| meta.name == name && meta.volume != id) {
            return Err(Error::Invalid(format!("there is a volume {name} already")));
        }
        self.update(&open, id, |meta| name.clone_into(&mut meta.name))
    }

    /// Sets a volume anew, at once; of what is stored already nothing is stored anew.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for what can't be kept; [`Error::NoSpace`] when all of it
    /// is to be reserved and there isn't the room; those of the pool.
    pub fn change(&self, id: VolumeId, settings: Settings) -> Result<()> {
        let open = locked(&self.open);
        settings.check()?;
        self.update(&open, id, |meta| meta.settings = settings)
    }

    /// Changes what the pool keeps of a volume, whether it is open or not.
    fn update(
        &self,
        open: &HashMap<VolumeId, Weak<Volume>>,
        id: VolumeId,
        change: impl FnOnce(&mut Meta),
    ) -> Result<()> {
        let volume = open.get(&id).and_then(Weak::upgrade);
        let mut head = volume.as_ref().map(|volume| locked(&volume.head));
        let (root, mut meta) = self.head(id)?;
        change(&mut meta);
        self.pool.update_root(root.id, Some(meta.encode()), None)?;
        if let Some(head) = &mut head {
            head.meta = meta;
        }
        Ok(())
    }
}

/// Removes the files of a volume's log with numbers below `end`; what can't be removed now is when it is
/// next opened, or the pool's volumes are.
fn remove_files(pool: &Pool, id: VolumeId, numbers: &BTreeMap<u64, Vec<usize>>, end: u64) {
    for (number, places) in numbers.range(..end) {
        for place in places {
            if let Some(Some(disk)) = pool.disks().get(*place) {
                let _ = disk.remove(&segment::path(id, *number));
            }
        }
    }
}

/// Commits what the pool has of a volume, in the place of what it had.
fn put_head(session: &Session<'_>, old: Option<RootId>, meta: &Meta, top: &Top) -> Result<Root> {
    let (node, _) = session.put_node(&top.encode())?;
    let new = NewRoot {
        id: RootId::random(),
        kind: ROOT_KIND,
        name: meta.name.clone(),
        immutable_for: None,
        nodes: vec![node],
        meta: meta.encode(),
    };
    Ok(match old {
        Some(old) => session.replace_root(old, new)?,
        None => session.put_root(new)?,
    })
}

impl Volume {
    /// Its id.
    pub fn volume_id(&self) -> VolumeId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> String {
        locked(&self.head).meta.name.clone()
    }

    /// When it was made, by the pool's own clock.
    pub fn created(&self) -> PoolTime {
        self.created
    }

    /// What is set.
    pub fn settings(&self) -> Settings {
        locked(&self.head).meta.settings.clone()
    }

    /// Bytes that its log has.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
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
        live.snapshots.iter().map(info).collect()
    }

    fn snapshot_of(&self, id: SnapshotId) -> Result<Snapshot> {
        let live = self.lives.read();
        let snapshot = live.snapshots.iter().find(|snapshot| snapshot.id == id).cloned();
        snapshot.ok_or_else(|| Error::NotFound(format!("snapshot {id}")))
    }

    /// Makes a snapshot of all that was written before: at once, and durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is taken, or too many snapshots; those of writing.
    pub fn snapshot(&self, name: &str) -> Result<SnapshotId> {
        let _turn = locked(&self.names);
        check_name(name)?;
        let there = self.snapshots();
        if there.iter().any(|snapshot| snapshot.name == name) {
            return Err(Error::Invalid(format!("there is a snapshot {name} already")));
        }
        if there.len() >= MAX_SNAPSHOTS {
            return Err(Error::Invalid(format!("a volume has at most {MAX_SNAPSHOTS} snapshots")));
        }
        // Each layer costs whoever reads a little.
        if self.lives.read().current.layers.len() >= MOST_LAYERS {
            self.settle()?;
        }
        let id = SnapshotId::random();
        let created = self.pool.now();
        self.note(Change::Snapshot { id, created, name: name.to_owned() })?;
        Ok(id)
    }

    /// Deletes a snapshot. What only it held goes once the volume was settled, with the next collection.
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
        self.note(Change::Grown(size))
    }

    /// Appends a record that isn't about blocks, and makes it durable.
    fn note(&self, change: Change) -> Result<()> {
        self.admit(MAX_PAYLOAD as u64, 0)?;
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
        settle::usage(self)
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
    }
}
