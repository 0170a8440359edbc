//! What the long proofs share: pools on simulated disks, images made of numbers, and the
//! comparison of a pool with what must be in it.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, unreachable_pub, reason = "each proof uses its part")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

pub mod watch;
pub mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use strongroom_engine::chunker::Params;
use strongroom_engine::clock::{Clock, VirtualClock};
use strongroom_engine::disk::{Disk, SimDisk, SimWorld};
use strongroom_engine::error::{Error, Result};
use strongroom_engine::id::{ChunkId, ChunkKind, RootId};
use strongroom_engine::keys::{Secret, Stretch};
use strongroom_engine::node::Node;
use strongroom_engine::pool::{
    CreateOptions, GcOptions, Meter, NewRoot, OpenMode, OpenOptions, Pool, ScrubOptions, Session,
    Use,
};
use strongroom_engine::shard;
use strongroom_engine::state::Root;

pub const DAY: i64 = 86_400_000_000_000;
pub const START: i64 = 1_700_000_000_000_000_000;
/// Frees everything that is garbage.
pub const EXACT: GcOptions = GcOptions { dry_run: false, max_unused: 0.0 };
/// Pieces with such a number are long, so that they fill packs.
pub const LONG: u64 = 1 << 20;

/// A number from the environment.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// The content of a piece: its number says everything.
pub fn piece(number: u64) -> Vec<u8> {
    let mut rng = Rng(number);
    let len = match number {
        LONG.. => 150_000 + rng.below(150_000),
        _ => 1 + rng.below(3000),
    } as usize;
    let mut bytes = vec![0; len];
    if number.is_multiple_of(3) {
        bytes.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 97) as u8);
    } else {
        bytes.chunks_mut(8).for_each(|part| {
            part.copy_from_slice(&rng.next().to_le_bytes()[..part.len()]);
        });
    }
    let tag = number.to_le_bytes();
    let tagged = len.min(8);
    bytes[..tagged].copy_from_slice(&tag[..tagged]);
    bytes
}

/// How a pool's disks are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub disks: usize,
    pub parity: u8,
    pub encrypted: bool,
}

impl Layout {
    pub const fn new(disks: usize, parity: u8, encrypted: bool) -> Self {
        Self { disks, parity, encrypted }
    }
}

pub const LAYOUTS: [Layout; 8] = [
    Layout::new(1, 0, false),
    Layout::new(2, 1, true),
    Layout::new(3, 1, false),
    Layout::new(1, 0, true),
    Layout::new(2, 1, false),
    Layout::new(3, 1, true),
    Layout::new(5, 2, true),
    Layout::new(4, 2, false),
];

/// Disks, a clock, and the ways to open the pool on them.
#[derive(Debug)]
pub struct Bed {
    pub world: SimWorld,
    pub layout: Layout,
    pub clock: VirtualClock,
    secrets: [Secret; 2],
    /// Who looks at the disks while a writer changes them.
    pub watch: Option<Arc<watch::Watch>>,
    /// The disk of the world that can't be reached: the pool is opened without it.
    pub away: Mutex<Option<usize>>,
}

impl Bed {
    pub fn new(layout: Layout, seed: u64) -> Self {
        let world = SimWorld::new(seed);
        (0..layout.disks).for_each(|_| drop(world.add_disk()));
        let secrets = [Secret::passphrase(b"first").unwrap(), Secret::passphrase(b"two").unwrap()];
        let clock = VirtualClock::new(START);
        Self { world, layout, clock, secrets, watch: None, away: Mutex::new(None) }
    }

    /// The same disks and clock in another's hand, whom nobody watches.
    pub fn beside(&self) -> Self {
        let other = Self::new(self.layout, 0);
        Self { world: self.world.clone(), clock: self.clock.clone(), ..other }
    }

    pub fn secret(&self, which: usize) -> Option<&Secret> {
        self.layout.encrypted.then(|| &self.secrets[which])
    }

    pub fn used(&self, threads: usize) -> Use {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        Use { clock, threads, holder: "the test".into() }
    }

    /// All disks of the world, those of the pool first.
    pub fn handles(&self) -> Vec<Arc<dyn Disk>> {
        self.world.disks().into_iter().map(|disk| Arc::new(disk) as Arc<dyn Disk>).collect()
    }

    pub fn create(&self) -> Result<Pool> {
        self.create_with(0)
    }

    pub fn create_with(&self, threads: usize) -> Result<Pool> {
        let options = CreateOptions {
            disks: self.handles().into_iter().take(self.layout.disks).collect(),
            parity: self.layout.parity,
            secret: self.secret(0).map(|secret| (secret, Stretch::CHEAP)),
            chunking: Params::default(),
            level: 1,
            pack_size: 1 << 20,
        };
        Pool::create(options, self.used(threads))
    }

    pub fn options(&self, mode: OpenMode, secret: usize) -> OpenOptions<'_> {
        let away = *self.away.lock().unwrap();
        let watch = self.watch.as_ref().filter(|_| mode == OpenMode::Write);
        let disks = self.handles().into_iter().enumerate().map(|(i, disk)| {
            let disk = match watch {
                Some(watch) => watch::watched(disk, watch),
                None => disk,
            };
            (Some(i) != away).then_some(disk)
        });
        OpenOptions {
            disks: disks.collect(),
            mode,
            secret: self.secret(secret),
            without_index: false,
        }
    }

    pub fn open(&self, mode: OpenMode) -> Result<Pool> {
        self.open_with(mode, 0)
    }

    pub fn open_with(&self, mode: OpenMode, threads: usize) -> Result<Pool> {
        Pool::open(self.options(mode, 0), self.used(threads))
    }

    pub fn write(&self) -> Pool {
        self.open(OpenMode::Write).unwrap()
    }

    /// The simulated disk behind a disk of a pool.
    pub fn sim(&self, disk: &dyn Disk) -> SimDisk {
        let name = disk.describe();
        self.world.disks().into_iter().find(|sim| sim.describe() == name).unwrap()
    }
}

/// What an image holds: the numbers of its pieces.
pub type Image = Vec<u64>;

/// The identifier of the `n`-th image.
pub fn root_id(n: u64) -> RootId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    RootId(id)
}

/// Pieces that hang on one node.
const FAN: usize = 6;

/// Stores pieces; their ids.
pub fn store_pieces(session: &Session<'_>, image: &[u64]) -> Result<Vec<ChunkId>> {
    let pieces: Vec<Vec<u8>> = image.iter().map(|n| piece(*n)).collect();
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let mut ids = Vec::new();
    session.store(ChunkKind::Data, &slices, &mut ids)?;
    Ok(ids)
}

/// Stores the nodes above pieces; the topmost.
pub fn store_nodes(session: &Session<'_>, data: &[ChunkId]) -> Result<ChunkId> {
    let mut nodes = Vec::new();
    for part in data.chunks(FAN) {
        let node = Node { nodes: Vec::new(), data: part.to_vec(), payload: b"leaf".to_vec() };
        session.store(ChunkKind::Node, &[&node.encode()], &mut nodes)?;
    }
    let top = Node { nodes, data: Vec::new(), payload: b"top".to_vec() };
    let mut ids = Vec::new();
    session.store(ChunkKind::Node, &[&top.encode()], &mut ids)?;
    Ok(ids[0])
}

pub fn new_root(n: u64, top: ChunkId, immutable_for: Option<i64>) -> NewRoot {
    let meta = n.to_le_bytes().to_vec();
    NewRoot { id: root_id(n), kind: 3, name: "test".into(), immutable_for, nodes: vec![top], meta }
}

/// Backs the `n`-th image up.
pub fn back_up(pool: &Pool, n: u64, image: &[u64], immutable_for: Option<i64>) -> Result<Root> {
    let session = pool.session()?;
    let data = store_pieces(&session, image)?;
    let top = store_nodes(&session, &data)?;
    session.commit(new_root(n, top, immutable_for))
}

/// Reads all pieces of a root, by `fetch`.
pub fn restore(pool: &Pool, root: &Root) -> Result<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    for leaf in pool.node(&root.nodes[0])?.nodes {
        let data = pool.node(&leaf)?.data;
        let out = Mutex::new(vec![Vec::new(); data.len()]);
        let failed = Mutex::new(None);
        let sink = |i: usize, bytes: &[u8]| {
            out.lock().unwrap()[i] = bytes.to_vec();
            Ok(())
        };
        let note = |_: usize, e: Error| {
            failed.lock().unwrap().get_or_insert(e);
        };
        pool.fetch(&data, 1, &sink, &note)?;
        if let Some(e) = failed.into_inner().unwrap() {
            return Err(e);
        }
        pieces.extend(out.into_inner().unwrap());
    }
    Ok(pieces)
}

/// Whether a root reads back as the image it was made of; an error for anything else.
pub fn compare(pool: &Pool, root: &Root, image: &[u64]) -> std::result::Result<(), String> {
    let back = restore(pool, root).map_err(|e| format!("image {}: {e}", root.id))?;
    if back.len() != image.len() {
        return Err(format!("image {} has {} pieces, not {}", root.id, back.len(), image.len()));
    }
    match back.iter().zip(image).position(|(bytes, n)| *bytes != piece(*n)) {
        Some(i) => Err(format!("piece {i} of image {} is not what was stored", root.id)),
        None => Ok(()),
    }
}

/// Everything that the roots reach, found by walking.
pub fn reachable(pool: &Pool) -> Result<BTreeSet<ChunkId>> {
    let mut seen = BTreeSet::new();
    let mut stack: Vec<ChunkId> = pool.roots().into_iter().flat_map(|root| root.nodes).collect();
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            let node = pool.node(&id)?;
            stack.extend(node.nodes);
            seen.extend(node.data);
        }
    }
    Ok(seen)
}

/// How a reader says that it may see an older state: that the journal can't be read where what was
/// committed last may be.
pub const UNREAD: &str = "the newest images may be missing from what is shown, for the journal can't \
                          be read where they may be alone (";
/// The same, of disks that are away or can't be told to be the pool's.
pub const AWAY: &str = "if what is missing was written while the rest was away, the newest images \
                        are only there: then connect it before anything is written";

/// The images of a pool at one moment, and what was put in the place of what they were made with.
pub type Contents = (BTreeMap<RootId, Image>, BTreeMap<RootId, Vec<u8>>);

/// Whether these are all the roots that were there then.
pub fn are_of(roots: &[Root], (images, tags): &Contents) -> bool {
    let is_of = |root: &Root| images.contains_key(&root.id) && root.meta == meta_of(root.id, tags);
    roots.len() == images.len() && roots.iter().all(is_of)
}

fn meta_of(id: RootId, tags: &BTreeMap<RootId, Vec<u8>>) -> Vec<u8> {
    let number = || u64::from_be_bytes(*id.0.first_chunk().unwrap()).to_le_bytes().to_vec();
    tags.get(&id).cloned().unwrap_or_else(number)
}

/// What must be in a pool.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub images: BTreeMap<RootId, Image>,
    /// All states that were committed, the present one last.
    pub committed: Vec<Contents>,
    /// What was put in the place of what a root was made with.
    pub tags: BTreeMap<RootId, Vec<u8>>,
    /// Whether the second secret opens the pool.
    pub second: bool,
    pub next: u64,
}

impl Model {
    /// What is in it now was committed.
    pub fn commit(&mut self) {
        let now = (self.images.clone(), self.tags.clone());
        if self.committed.last() != Some(&now) {
            self.committed.push(now);
        }
    }
}

/// What was going on when the world ended: it happened, or it did not.
#[derive(Clone, Debug)]
pub enum Pending {
    Nothing,
    Put(RootId, Image),
    Drop(Vec<RootId>),
    Tag(RootId, Vec<u8>),
    Second(bool),
}

type Held<T> = std::result::Result<T, String>;

fn told<T>(what: &str, result: Result<T>) -> Held<T> {
    result.map_err(|e| format!("{what}: {e}"))
}

/// Compares the roots with the model, and learns whether what was going on happened.
pub fn check_roots(pool: &Pool, model: &mut Model, pending: &Pending) -> Held<()> {
    let roots: BTreeMap<RootId, Root> = pool.roots().into_iter().map(|r| (r.id, r)).collect();
    match pending {
        Pending::Put(id, image) if roots.contains_key(id) => {
            model.images.insert(*id, image.clone());
        }
        Pending::Drop(ids) => {
            let gone = ids.iter().filter(|id| !roots.contains_key(id)).count();
            if gone == ids.len() {
                ids.iter().for_each(|id| drop(model.images.remove(id)));
            } else if gone != 0 {
                return Err("some of the images forgotten together are there".into());
            }
        }
        Pending::Tag(id, tag) if roots.get(id).is_some_and(|root| root.meta == *tag) => {
            model.tags.insert(*id, tag.clone());
        }
        _ => {}
    }
    model.tags.retain(|id, _| model.images.contains_key(id));
    let (have, want): (Vec<_>, Vec<_>) = (roots.keys().collect(), model.images.keys().collect());
    if have != want {
        return Err(format!("the images are {have:?}, they should be {want:?}"));
    }
    for (id, image) in &model.images {
        let tag = meta_of(*id, &model.tags);
        if tag != roots[id].meta {
            return Err(format!("image {id} is tagged {:?}, not {tag:?}", roots[id].meta));
        }
        compare(pool, &roots[id], image)?;
    }
    model.commit();
    Ok(())
}

/// After an exact collection: packs have what lives, and nothing else.
pub fn check_exact(pool: &Pool) -> Held<()> {
    let live = told("walking", reachable(pool))?;
    let stored: u64 = pool.state().packs.values().map(|pack| u64::from(pack.chunks)).sum();
    if stored != live.len() as u64 {
        return Err(format!("packs have {stored} chunks, {} live", live.len()));
    }
    for id in &live {
        if !told("looking up", pool.contains(id))? {
            return Err(format!("chunk {id} is not in the index"));
        }
    }
    Ok(())
}

/// Compares the files on the pool's disks with what the state names. After a complete scrub.
pub fn check_files(bed: &Bed, pool: &Pool) -> Held<()> {
    let state = pool.state();
    if !state.condemned.is_empty() {
        return Err(format!("condemned packs are left: {:?}", state.condemned.keys()));
    }
    let count = pool.disks().len();
    for (place, disk) in pool.disks().iter().enumerate() {
        let Some(disk) = disk else { return Err(format!("disk {place} is missing")) };
        let mut want: BTreeSet<String> =
            ["pool.superblock", "pool.lock", "pool.readers", "pool.holder"].map(Into::into).into();
        want.extend(state.segments.keys().map(|id| format!("index/{id}")));
        for pack in state.packs.keys() {
            let shard = (0..count).find(|s| shard::disk_of(*pack, *s, count) == place).unwrap();
            want.insert(shard::shard_path(*pack, shard));
        }
        let mut have: BTreeSet<String> =
            bed.sim(&**disk).files().into_iter().map(|(path, _)| path).collect();
        if count == 1 {
            want.insert("pool.superblock.2".into());
        }
        for dir in if count == 1 { &["journal/", "journal.2/"][..] } else { &["journal/"] } {
            let of_journal: Vec<_> =
                have.iter().filter(|path| path.starts_with(dir)).cloned().collect();
            if of_journal.len() != 1 || !of_journal[0].ends_with(".log") {
                return Err(format!("disk {place} has journals {of_journal:?}"));
            }
            have.remove(&of_journal[0]);
        }
        if have != want {
            let odd: Vec<_> = have.symmetric_difference(&want).collect();
            return Err(format!(
                "disk {place} has files it should not have, or lacks some: {odd:?}"
            ));
        }
    }
    Ok(())
}

/// Opens a pool after whatever happened to it and holds it against everything it promises. The
/// model is brought up to what is found.
pub fn verify(bed: &Bed, model: &mut Model, pending: &Pending) -> Held<()> {
    let mut pool = told("opening", bed.open(OpenMode::Write))?;
    // A replacement that was begun counts, though the new disk may have got nothing yet.
    while let Some(place) = pool.disks().iter().position(Option::is_none) {
        drop(pool);
        let options = bed.options(OpenMode::Write, 0);
        let fresh: Arc<dyn Disk> = Arc::new(bed.world.add_disk());
        pool = told("replacing", Pool::replace_disk(options, bed.used(0), place, fresh))?;
    }
    check_roots(&pool, model, pending)?;
    if bed.layout.encrypted {
        let second = pool.slots().len() == 2;
        match pending {
            Pending::Second(wanted) if second == *wanted => model.second = second,
            _ if second != model.second => return Err("the key slots are not as they were".into()),
            _ => {}
        }
    }
    let report = told("checking", pool.check(true, &Meter::new()))?;
    if !report.is_clean() {
        return Err(format!("the check is not clean: {report:?}"));
    }
    let report = told("collecting", pool.gc(EXACT))?;
    if report.missing_chunks != 0 || report.packs_waiting != 0 {
        return Err(format!("the collection found {report:?}"));
    }
    check_exact(&pool)?;
    // What a crash left on some disks only, and what a new disk lacks, comes back.
    let outcome = told("scrubbing", pool.scrub(ScrubOptions::default(), &Meter::new()))?;
    let whole = outcome.lost.is_empty() && outcome.unreadable.is_empty();
    if !outcome.complete || !whole || !outcome.bad_copies.is_empty() {
        return Err(format!("the scrub found {outcome:?}"));
    }
    let outcome = told("scrubbing", pool.scrub(ScrubOptions::default(), &Meter::new()))?;
    if outcome.bad_units + outcome.bad_shards != 0 {
        return Err(format!("the scrub healed nothing: {outcome:?}"));
    }
    drop(pool);
    let pool = told("opening again", bed.open(OpenMode::Write))?;
    check_files(bed, &pool)?;
    check_roots(&pool, model, &Pending::Nothing)?;
    let n = 1 << 40;
    let image: Image = vec![1, 2, 3, 70, 71, 72, n];
    let root = told("backing up", back_up(&pool, n, &image, None))?;
    compare(&pool, &root, &image)?;
    model.images.insert(root.id, image);
    model.commit();
    told("forgetting", pool.forget(&[root.id]))?;
    model.images.remove(&root.id);
    model.commit();
    told("collecting", pool.gc(EXACT))?;
    check_exact(&pool)?;
    drop(pool);
    let pool = told("opening to read", bed.open(OpenMode::Read))?;
    check_roots(&pool, model, &Pending::Nothing)?;
    drop(pool);
    if model.second && bed.layout.encrypted {
        let opened = Pool::open(bed.options(OpenMode::Read, 1), bed.used(0));
        told("opening with the second secret", opened)?;
    } else if bed.layout.encrypted {
        let opened = Pool::open(bed.options(OpenMode::Read, 1), bed.used(0));
        if !matches!(opened, Err(Error::WrongSecret)) {
            return Err("a secret that was removed opens the pool".into());
        }
    }
    Ok(())
}
