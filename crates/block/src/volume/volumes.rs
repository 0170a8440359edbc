//! The volumes of a pool: making, opening, changing and removing them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock, Weak};

use strongroom_engine::buf::BufPool;
use strongroom_engine::content::{Cache, Reader, Shared};
use strongroom_engine::id::RootId;
use strongroom_engine::map::{MapRef, NodeStore};
use strongroom_engine::pool::{NewRoot, Pool, Session};
use strongroom_engine::state::Root;

use super::base::{Source, Windows, reads};
use super::clones::{Below, pinned};
use super::live::{Lives, Snapshot, View};
use super::log::{self, Log, Run};
use super::pace::Pace;
use super::record::Change;
use super::replay::{Wanted, files, replay};
use super::room::{Reserve, Room};
use super::share::Shares;
use super::top::{CHUNKS, MAX_SIZE, Meta, Parent, ROOT_KIND, Top};
use super::{
    Head, Limits, NewVolume, Settings, SnapshotId, Volume, VolumeId, check_name, locked, random,
    segment,
};
use crate::{Error, Result};

/// Bytes of chunks and nodes that are kept for readers, unless somebody gives them more.
const KEPT: usize = 64 << 20;

/// Bytes that a log may have in however small a pool.
const LEAST_LOG: u64 = 64 << 20;

/// Those that are open.
pub(super) type Open = HashMap<VolumeId, Weak<Volume>>;

/// The volumes of a pool that is open to write.
#[derive(Debug)]
pub struct Volumes {
    pub(super) pool: Arc<Pool>,
    limits: Limits,
    room: Arc<Room>,
    shares: Arc<Shares>,
    /// For long records of logs.
    buffers: BufPool,
    reads: BufPool,
    /// What is settled is read through it.
    reader: Arc<Reader>,
    /// Who makes, opens or removes one holds this: they come in turns.
    pub(super) open: Mutex<Open>,
}

/// The volume of a root, if it is one.
pub(super) fn meta_of(root: &Root) -> Option<Meta> {
    (root.kind == ROOT_KIND).then(|| Meta::decode(&root.meta).ok()).flatten()
}

impl Volumes {
    /// The volumes of a pool, of which there must be one only in the process. Files of volumes that are no
    /// more are removed. They have a small cache of their own.
    ///
    /// # Errors
    /// When the pool can't be written, or a disk that is there can't be listed.
    pub fn new(pool: Arc<Pool>, limits: Limits) -> Result<Self> {
        Self::with_cache(pool, limits, &Cache::new(KEPT))
    }

    /// The same, with a cache that others may use too: of other pools, or of images as devices.
    ///
    /// # Errors
    /// As [`Volumes::new`].
    pub fn with_cache(pool: Arc<Pool>, limits: Limits, cache: &Arc<Cache>) -> Result<Self> {
        pool.check_writable()?;
        let found = files(pool.disks())?;
        let roots = pool.roots_of(ROOT_KIND);
        // What this version can't read may belong to any of them.
        let known: Option<Vec<Meta>> = roots.iter().map(meta_of).collect();
        if let Some(known) = known {
            let gone = found.iter().filter(|(id, _)| !known.iter().any(|one| one.volume == **id));
            gone.for_each(|(id, numbers)| remove_files(&pool, *id, numbers, u64::MAX));
        }
        let spaces = pool.disks().iter().flatten().filter_map(|disk| disk.space().ok());
        let least = spaces.map(|space| space.total).min().unwrap_or(u64::MAX);
        let log = limits.log.min((least / 8).max(LEAST_LOG));
        // Room comes back a segment at a time.
        let limits = Limits { log, segment: limits.segment.min(log / 16), ..limits };
        let room = Arc::new(Room::new(&pool, limits.log));
        roots.iter().filter_map(meta_of).for_each(|meta| room.reserve(&meta));
        // Volumes are mostly read at random: nothing is read ahead.
        let source = Arc::new(Source(Arc::clone(&pool)));
        let reader = Arc::new(Reader::new(cache, source as Shared, 0));
        let (shares, buffers, open) = (Arc::default(), log::buffers(), Mutex::default());
        let reads = reads();
        Ok(Self { pool, limits, room, shares, buffers, reads, reader, open })
    }

    /// How large logs get in this pool.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// All volumes, as they were last settled.
    pub fn list(&self) -> Vec<Meta> {
        let mut all: Vec<Meta> = self.pool.roots_of(ROOT_KIND).iter().filter_map(meta_of).collect();
        all.sort_by_key(|meta| (meta.created, meta.volume));
        all
    }

    pub(super) fn head(&self, id: VolumeId) -> Result<(Root, Meta)> {
        let roots = self.pool.roots_of(ROOT_KIND).into_iter();
        roots
            .filter_map(|root| meta_of(&root).map(|meta| (root, meta)))
            .find(|(_, meta)| meta.volume == id)
            .ok_or_else(|| Error::NotFound(format!("volume {id}")))
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// [`Error::Invalid`] for measures out of bounds and names that are taken; [`Error::NoSpace`] when all of
    /// it is to be reserved and there isn't the room; those of the pool.
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

    fn make(&self, session: &Session<'_>, new: NewVolume, map: MapRef) -> Result<VolumeId> {
        let meta = self.new_meta(new, None)?;
        if map.len() > meta.size {
            let what = format!("a volume over {} bytes can't have {}", map.len(), meta.size);
            return Err(Error::Invalid(what));
        }
        self.room.admit_reserve(&meta)?;
        session.may_take_all();
        put_head(session, None, &meta, &Top { map, snapshots: Vec::new() })?;
        self.room.reserve(&meta);
        Ok(meta.volume)
    }

    /// What is kept of a new volume, if it may be made.
    pub(super) fn new_meta(&self, new: NewVolume, parent: Option<Parent>) -> Result<Meta> {
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
        if self.list().iter().any(|meta| meta.name == name) {
            return Err(Error::Invalid(format!("there is a volume {name} already")));
        }
        let volume = VolumeId::random();
        let run = random();
        let (_, epoch) = self.pool.log_sealer(None, &run)?;
        let created = self.pool.now();
        let reserve = if settings.thin { 0 } else { size };
        let settled = 0;
        Ok(Meta {
            volume,
            name,
            created,
            size,
            chunk,
            sector,
            run,
            epoch,
            settled,
            settings,
            reserve,
            parent,
        })
    }

    /// Makes a root of a new volume that has no node.
    pub(super) fn make_bare(&self, meta: &Meta) -> Result<()> {
        self.room.admit_reserve(meta)?;
        self.pool.put_bare_root(new_root(meta, Vec::new()))?;
        self.room.reserve(meta);
        Ok(())
    }

    /// Opens a volume, or gives the one that is open.
    ///
    /// # Errors
    /// [`Error::NotFound`]; when its log can't be read or is damaged; those of the pool.
    pub fn open(&self, id: VolumeId) -> Result<Arc<Volume>> {
        self.open_among(&mut locked(&self.open), id)
    }

    pub(super) fn open_among(&self, open: &mut Open, id: VolumeId) -> Result<Arc<Volume>> {
        if let Some(volume) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(volume);
        }
        let (root, meta) = self.head(id)?;
        let volume = Arc::new(self.load(open, &root, meta)?);
        open.retain(|_, volume| volume.strong_count() > 0);
        open.insert(id, Arc::downgrade(&volume));
        Ok(volume)
    }

    fn load(&self, open: &mut Open, root: &Root, meta: Meta) -> Result<Volume> {
        let id = meta.volume;
        let room = &self.room;
        let pins = pinned(&self.pool, id);
        let (lives, below) = match meta.parent {
            Some(parent) => {
                let below = Below::open(self, open, parent)?;
                let lives = below.lend(|view| Lives::new(&meta, room, view, Vec::new()))?;
                (lives, Some(below))
            }
            None => (Arc::new(Lives::of(self.top(root, &meta)?, &meta, room, &pins)), None),
        };
        pins.into_iter().for_each(|id| lives.pin(id));
        let mut found = files(self.pool.disks())?.remove(&id).unwrap_or_default();
        let number = found.keys().next_back().map_or(0, |last| last.saturating_add(1));
        let run = Run { volume: id, salt: random(), settled: meta.settled, number };
        let (sealer, epoch) = self.pool.log_sealer(None, &run.salt)?;
        let log = Log::new(&self.pool, run, sealer, self.limits, &self.buffers);
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
        let (created, sector, chunk) = (meta.created, meta.sector, meta.chunk);
        let meta = Meta { run: run.salt, epoch, ..meta };
        self.pool.update_root(root.id, Some(meta.encode()), None)?;
        remove_files(&self.pool, id, &found, number);
        found.clear();
        let reserve = Reserve::new(room, &meta);
        let held = {
            let live = lives.read();
            // All of it is set aside also where nobody has counted what it holds.
            let is_known =
                !meta.settings.thin && live.snapshots.is_empty() && meta.reserve < meta.size;
            is_known.then(|| (Arc::clone(&live.current.base), meta.size - meta.reserve))
        };
        let volume = Volume {
            id,
            chunk,
            sector,
            created,
            limits: self.limits,
            pool: Arc::clone(&self.pool),
            room: Arc::clone(room),
            shares: Arc::clone(&self.shares),
            reader: Arc::clone(&self.reader),
            log,
            lives,
            windows: Windows::default(),
            reads: self.reads.clone(),
            gate: RwLock::default(),
            names: Mutex::default(),
            name: RwLock::new(meta.name.clone()),
            settings: RwLock::new(Arc::new(meta.settings.clone())),
            reserve,
            pace: Pace::default(),
            head: Mutex::new(Head { root: root.id, meta, held }),
            below: Mutex::new(below),
        };
        volume.reserve_again();
        Ok(volume)
    }

    /// The top of a volume that has one.
    fn top(&self, root: &Root, meta: &Meta) -> Result<Top> {
        let what = format!("volume {}", meta.name);
        let damaged = |e| strongroom_engine::Error::damaged(what.clone(), e);
        let node = root.nodes.first().ok_or_else(|| {
            strongroom_engine::Error::damaged(what.clone(), "its root has no node")
        })?;
        Ok(Top::decode(&self.pool.node(node)?).map_err(damaged)?)
    }

    /// Removes a volume with its snapshots. What only they held goes with the next collection. One that is
    /// still held by somebody fails from here on. Clones of its snapshots that weren't settled yet are first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of the pool.
    pub fn remove(&self, id: VolumeId) -> Result<()> {
        let mut open = locked(&self.open);
        self.part_with_clones(&mut open, id)?;
        let volume = open.get(&id).and_then(Weak::upgrade);
        // Not while it is settled.
        let _upkeep = volume.as_ref().map(|volume| {
            volume.log.end();
            volume.upkeep()
        });
        let (root, meta) = self.head(id)?;
        self.pool.forget(&[root.id])?;
        open.remove(&id);
        self.room.release(id);
        if let Some(parent) = meta.parent
            && let Some(below) = open.get(&parent.volume).and_then(Weak::upgrade)
        {
            below.lives.unpin(parent.snapshot);
        }
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
        self.update(&open, id, |_, meta| {
            name.clone_into(&mut meta.name);
            Ok(())
        })
    }

    /// Sets a volume anew, at once; of what is stored already nothing is stored anew.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for what can't be kept; [`Error::NoSpace`] when all of it
    /// is to be reserved and there isn't the room; those of the pool.
    pub fn change(&self, id: VolumeId, settings: Settings) -> Result<()> {
        let open = locked(&self.open);
        settings.check()?;
        self.update(&open, id, |volume, meta| {
            let is_to_be_reserved = meta.settings.thin && !settings.thin;
            meta.settings = settings;
            if meta.settings.thin {
                meta.reserve = 0;
            } else if is_to_be_reserved {
                // What it holds is counted when it is next settled.
                meta.reserve = meta.size;
                let size = volume.map_or(meta.size, |volume| volume.lives.read().size);
                self.room.admit_reserve(&Meta { size, reserve: size, ..meta.clone() })?;
            }
            Ok(())
        })
    }

    /// Changes what the pool keeps of a volume, whether it is open or not.
    fn update(
        &self,
        open: &Open,
        id: VolumeId,
        change: impl FnOnce(Option<&Volume>, &mut Meta) -> Result<()>,
    ) -> Result<()> {
        let volume = open.get(&id).and_then(Weak::upgrade);
        let mut head = volume.as_ref().map(|volume| volume.upkeep());
        let (root, mut meta) = self.head(id)?;
        change(volume.as_deref(), &mut meta)?;
        self.pool.update_root(root.id, Some(meta.encode()), None)?;
        self.room.reserve(&meta);
        if let (Some(head), Some(volume)) = (&mut head, &volume) {
            volume.set(&meta);
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

fn new_root(meta: &Meta, nodes: Vec<strongroom_engine::id::ChunkId>) -> NewRoot {
    NewRoot {
        id: RootId::random(),
        kind: ROOT_KIND,
        name: meta.name.clone(),
        immutable_for: None,
        nodes,
        meta: meta.encode(),
    }
}

/// Commits what the pool has of a volume, in the place of what it had.
pub(super) fn put_head(
    session: &Session<'_>,
    old: Option<RootId>,
    meta: &Meta,
    top: &Top,
) -> Result<Root> {
    let (node, _) = session.put_node(&top.encode())?;
    let new = new_root(meta, vec![node]);
    Ok(match old {
        Some(old) => session.replace_root(old, new)?,
        None => session.put_root(new)?,
    })
}

impl Lives {
    /// Those of a volume of which the pool has this, and whose clones begin with these snapshots.
    fn of(top: Top, meta: &Meta, room: &Arc<Room>, pins: &[SnapshotId]) -> Self {
        // One that was deleted is there for its clones alone.
        let is_wanted = |id, name: &str| !name.is_empty() || pins.contains(&id);
        let snapshots = top.snapshots.into_iter().filter(|one| is_wanted(one.id, &one.name));
        let snapshots = snapshots.map(|settled| Snapshot {
            id: settled.id,
            name: settled.name,
            created: settled.created,
            size: settled.size,
            view: View::new(settled.map),
        });
        Self::new(meta, room, View::new(top.map), snapshots.collect())
    }
}
