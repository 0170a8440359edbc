//! Writing sessions.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::chunker::Params;
use crate::clock::PoolTime;
use crate::compress::Effort;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, Location, RootId};
use crate::index::Claim;
use crate::pack::{FrameCodec, NewFrame};
use crate::pool::core::lock;
use crate::pool::{Hand, Lease, MAX_CHUNK, Pool};
use crate::state::{Op, Root, State};

/// Chunks are compressed together up to this many bytes.
const DATA_FRAME: usize = 512 << 10;
/// The same for nodes, which are read one by one when an image is browsed.
const NODE_FRAME: usize = 128 << 10;
/// Index entries that may wait in memory before they are written to a segment.
const ENTRIES_WAITING: usize = 1 << 16;

/// Up to how many bytes chunks of a kind are compressed together; one that is longer is alone.
pub fn frame_limit(kind: ChunkKind) -> usize {
    match kind {
        ChunkKind::Data => DATA_FRAME,
        ChunkKind::Node => NODE_FRAME,
    }
}

/// How hard to try with a frame of that many bytes and chunks. Where chunks are much smaller than
/// streams are cut, they are small files.
pub fn effort(chunking: &Params, kind: ChunkKind, bytes: usize, chunks: usize) -> Effort {
    let small = chunking.avg.min(chunking.fixed) as usize / 2;
    match kind {
        ChunkKind::Data if bytes / chunks.max(1) >= small => Effort::Usual,
        ChunkKind::Data | ChunkKind::Node => Effort::More,
    }
}

/// What was stored by a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Chunks that the pool lacked.
    pub new_chunks: u64,
    /// Their bytes, before compression.
    pub new_bytes: u64,
    /// What they take in packs, in bytes, before redundancy. Nodes are counted when their frame
    /// is full, so a call may tell what an earlier one stored.
    pub stored_bytes: u64,
    /// Chunks that it had.
    pub known_chunks: u64,
    /// Their bytes.
    pub known_bytes: u64,
    /// Those of the new chunks that the pool once had and then lost to damage.
    pub healed_chunks: u64,
}

impl Stored {
    /// Adds what another call stored.
    pub fn add(&mut self, other: Self) {
        self.new_chunks += other.new_chunks;
        self.new_bytes += other.new_bytes;
        self.stored_bytes += other.stored_bytes;
        self.known_chunks += other.known_chunks;
        self.known_bytes += other.known_bytes;
        self.healed_chunks += other.healed_chunks;
    }
}

/// What becomes a root.
#[derive(Clone, Debug)]
pub struct NewRoot {
    /// Its identifier, made by the caller.
    pub id: RootId,
    /// What the layer above says it is.
    pub kind: u8,
    /// The user's name for the series it belongs to.
    pub name: String,
    /// For how long nothing may remove it, in nanoseconds of the pool's own time from the commit.
    pub immutable_for: Option<i64>,
    /// The nodes it holds on to.
    pub nodes: Vec<ChunkId>,
    /// What the layer above keeps here.
    pub meta: Vec<u8>,
}

/// How pieces are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storing {
    /// Compressed, where that makes them smaller.
    #[default]
    Compressed,
    /// As they are.
    AsItIs,
}

/// Chunks that were claimed and wait to become a frame.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    raw: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
    /// It isn't compressed.
    as_it_is: bool,
}

impl Gathering {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    pub(crate) fn add(&mut self, id: ChunkId, piece: &[u8]) {
        self.raw.extend_from_slice(piece);
        self.chunks.push((id, piece.len() as u32));
    }
}

/// What one thread needs while it stores.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) codec: FrameCodec,
    /// Empty between calls.
    pub(crate) gathering: Gathering,
    /// Frames of others are opened into this.
    pub(crate) raw: Vec<u8>,
}

/// A writing session: what it stores is kept at least as long as it lives, and becomes part of
/// the pool's content for good with [`Session::commit`]. A session that is dropped instead leaves
/// nothing that can be seen. All methods may be called from several threads.
#[derive(Debug)]
pub struct Session<'p> {
    pub(crate) pool: Hand<'p>,
    /// By which its pins are let go.
    hold: u64,
    parents: Mutex<Vec<Lease<Hand<'p>>>>,
    /// Chunks that another thread was about to store when this session wanted them too.
    pub(crate) awaited: Mutex<Vec<ChunkId>>,
    pub(crate) failed: AtomicBool,
    /// It may take what is set aside.
    takes_all: AtomicBool,
    /// Chunks that maps lack which are to take the place of others.
    replaced: AtomicU64,
}

impl<'p> Session<'p> {
    pub(crate) fn new(pool: Hand<'p>) -> Result<Self> {
        pool.core.writable()?;
        // What is known to be bad is stored again.
        pool.mark_found()?;
        let hold = pool.core.pins.hold();
        Ok(Self {
            pool,
            hold,
            parents: Mutex::default(),
            awaited: Mutex::default(),
            failed: AtomicBool::new(false),
            takes_all: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
        })
    }

    /// The pool that is written.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Stores pieces of 1 to [`MAX_CHUNK`] bytes: hashes them, and compresses, seals and packs
    /// those that the pool lacks. Pushes one id for each piece to `ids`. It works in the caller's
    /// thread; call it from several to use several cores. Pieces of one call share frames, so a
    /// call of about 1 MiB is best; nodes share frames with those of other calls.
    ///
    /// # Errors
    /// Those of the disks, after which the session can't be committed.
    pub fn store(
        &self,
        kind: ChunkKind,
        pieces: &[&[u8]],
        ids: &mut Vec<ChunkId>,
    ) -> Result<Stored> {
        self.store_with(kind, pieces, ids, Storing::default())
    }

    /// As [`Session::store`], in another way.
    ///
    /// # Errors
    /// As [`Session::store`].
    pub fn store_with(
        &self,
        kind: ChunkKind,
        pieces: &[&[u8]],
        ids: &mut Vec<ChunkId>,
        storing: Storing,
    ) -> Result<Stored> {
        self.admit(pieces.iter().map(|piece| piece.len()).sum())?;
        let mut bench = self.pool.bench();
        bench.gathering.as_it_is = storing == Storing::AsItIs && kind == ChunkKind::Data;
        let mut stored = Stored::default();
        let result = self.store_all(kind, pieces, ids, &mut bench, &mut stored);
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
            // Other sessions may count on what was claimed here.
            let Bench { codec, gathering, .. } = &mut bench;
            if let Err(e) = self.pool.push(kind, gathering, codec, &mut stored) {
                self.pool.core.stop(&e);
            }
        }
        bench.gathering.as_it_is = false;
        self.pool.put_bench(bench);
        result?;
        self.pool.relieve()?;
        Ok(stored)
    }

    fn store_all(
        &self,
        kind: ChunkKind,
        pieces: &[&[u8]],
        ids: &mut Vec<ChunkId>,
        bench: &mut Bench,
        stored: &mut Stored,
    ) -> Result<()> {
        let core = &self.pool.core;
        for piece in pieces {
            if piece.is_empty() || piece.len() > MAX_CHUNK {
                let len = piece.len();
                return Err(Error::Invalid(format!(
                    "a chunk has {len} bytes, not 1 to {MAX_CHUNK}"
                )));
            }
            let id = core.hasher.id(kind, piece);
            ids.push(id);
            if !self.claim(&id)? {
                stored.known_chunks += 1;
                stored.known_bytes += piece.len() as u64;
                continue;
            }
            stored.new_chunks += 1;
            stored.new_bytes += piece.len() as u64;
            stored.healed_chunks += u64::from(core.was_lost(&id));
            let Bench { codec, gathering, .. } = &mut *bench;
            match kind {
                ChunkKind::Data => self.pool.gather(kind, gathering, codec, id, piece, stored)?,
                ChunkKind::Node => {
                    if let Some(_under_way) = self.pool.nodes.add(id, piece, gathering) {
                        self.pool.push_shared(gathering, codec, stored)?;
                    }
                }
            }
        }
        self.pool.push(kind, &mut bench.gathering, &mut bench.codec, stored)
    }

    /// It stores also where that takes of what is set aside ([`Pool::set_aside`]).
    pub fn may_take_all(&self) {
        self.takes_all.store(true, Ordering::Relaxed);
    }

    /// A map that it stores has others in the place of so many chunks, which are garbage once a root of it
    /// takes the place of the old one ([`Session::replace_root`]).
    pub(crate) fn note_replaced(&self, chunks: u64) {
        self.replaced.fetch_add(chunks, Ordering::Relaxed);
    }

    /// Refuses so many bytes when they are set aside for others.
    pub(crate) fn admit(&self, bytes: usize) -> Result<()> {
        match self.takes_all.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.pool.core.admit(bytes),
        }
    }

    /// Claims a chunk, so that this session is to store it. `false`: the pool has it, or another
    /// thread is storing it; it stays as long as the session.
    pub(crate) fn claim(&self, id: &ChunkId) -> Result<bool> {
        let core = &self.pool.core;
        // The place is looked up first and pinned after; when the collector gave the chunk up in
        // between, the pool doesn't have it.
        let valid = |id: &ChunkId, at: &Location| core.valid(id, at) && core.pins.keeps(at);
        loop {
            match core.index.claim(id, &valid)? {
                Claim::Known(at) if core.pins.pin(&at) => return Ok(false),
                Claim::Known(_) => {}
                Claim::InFlight => {
                    lock(&self.awaited).push(*id);
                    return Ok(false);
                }
                Claim::New => return Ok(true),
            }
        }
    }

    /// Leases a parent for the life of the session: what it reaches stays, whoever forgets it.
    ///
    /// # Errors
    /// [`Error::NoSuchRoot`].
    pub fn lean_on(&self, parent: RootId) -> Result<()> {
        let lease = Lease::new(self.pool.clone(), parent)?;
        lock(&self.parents).push(lease);
        Ok(())
    }

    /// Says that chunks of a parent ([`Session::lean_on`]) are used again without reading their
    /// content. `false`: at least one is known to be bad or missing, and the source must be read
    /// again, which heals it. Costs nothing unless the pool knows of bad chunks.
    ///
    /// # Errors
    /// Those of the index.
    pub fn reuse(&self, ids: &[ChunkId]) -> Result<bool> {
        if self.pool.core.state().bad.is_empty() {
            return Ok(true);
        }
        let bad: HashSet<ChunkId> =
            ids.iter().filter(|id| self.pool.core.was_lost(id)).copied().collect();
        for id in bad {
            if self.pool.core.lookup(&id)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is stored so far survives a crash from here on, though nothing refers to it yet; a
    /// session that stores the same again finds it known, unless garbage was collected meanwhile.
    ///
    /// # Errors
    /// Those of the disks.
    pub fn checkpoint(&self) -> Result<()> {
        self.pool.flush(|_| Ok(Vec::new()))
    }

    /// Makes everything durable, then the root. When this returns, the root survives a power cut.
    ///
    /// # Errors
    /// Those of the disks; [`Error::Invalid`] when a store failed before. There is no root then.
    pub fn commit(self, root: NewRoot) -> Result<Root> {
        self.put_root(root)
    }

    /// As [`Session::commit`], for a session that several hold.
    ///
    /// # Errors
    /// As [`Session::commit`].
    pub fn put_root(&self, root: NewRoot) -> Result<Root> {
        self.put_root_for(root, None)
    }

    /// As [`Session::put_root`], and takes another root away in the same step: at every instant, and
    /// after a crash at any, there is the old one or the new. Roots never change, so the new one has
    /// another identifier.
    ///
    /// # Errors
    /// As [`Session::commit`]; [`Error::NoSuchRoot`] when the old root is gone, [`Error::Immutable`] when
    /// it may not go yet. Then there is no new one.
    pub fn replace_root(&self, old: RootId, root: NewRoot) -> Result<Root> {
        self.put_root_for(root, Some(old))
    }

    fn put_root_for(&self, root: NewRoot, old: Option<RootId>) -> Result<Root> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::Invalid("a part of the session could not be stored".into()));
        }
        let awaited = std::mem::take(&mut *lock(&self.awaited));
        for id in &awaited {
            if let Err(error) = self.pool.await_chunk(id) {
                self.failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        let mut committed = None;
        self.pool.flush(|state| {
            let now = self.pool.core.time();
            let root = made(state, root, now)?;
            committed = Some(root.clone());
            let mut ops = vec![Op::PutRoot(root)];
            if let Some(id) = old {
                ops.push(drop_root(state, id, now)?);
            }
            Ok(ops)
        })?;
        if old.is_some() {
            self.pool.core.garbage.chunks_replaced(self.replaced.swap(0, Ordering::Relaxed));
        }
        self.pool.tidy_index()?;
        Ok(committed.expect("the flush succeeded, so it called for the root"))
    }
}

/// A root as it is made now, if there is none of that identifier.
pub(crate) fn made(state: &State, root: NewRoot, now: PoolTime) -> Result<Root> {
    if state.roots.contains_key(&root.id) {
        return Err(Error::Invalid(format!("there is an image {} already", root.id)));
    }
    let NewRoot { id, kind, name, immutable_for, nodes, meta } = root;
    let immutable_until = immutable_for.map(|ns| now.plus(ns));
    Ok(Root { id, kind, name, created: now, immutable_until, nodes, meta })
}

/// What ends a root, if it may go.
pub(crate) fn drop_root(state: &State, id: RootId, now: PoolTime) -> Result<Op> {
    let root = state.roots.get(&id).ok_or_else(|| Error::NoSuchRoot { id: id.to_string() })?;
    match root.immutable_until {
        Some(until) if until > now => Err(Error::Immutable { id, until: until.to_string() }),
        _ => Ok(Op::DropRoot(id)),
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.pool.core.pins.release(self.hold);
    }
}

impl Pool {
    /// Adds a chunk to those that wait, and makes them a frame when they are enough.
    pub(crate) fn gather(
        &self,
        kind: ChunkKind,
        gathering: &mut Gathering,
        codec: &mut FrameCodec,
        id: ChunkId,
        piece: &[u8],
        stored: &mut Stored,
    ) -> Result<()> {
        if gathering.len() + piece.len() > frame_limit(kind) {
            self.push(kind, gathering, codec, stored)?;
        }
        gathering.add(id, piece);
        Ok(())
    }

    /// Makes a frame of the chunks that wait, if there are any, and hands it over.
    pub(crate) fn push(
        &self,
        kind: ChunkKind,
        gathering: &mut Gathering,
        codec: &mut FrameCodec,
        stored: &mut Stored,
    ) -> Result<()> {
        if gathering.is_empty() {
            return Ok(());
        }
        let mut frame: NewFrame = self.writer()?.frame();
        let effort = match gathering.as_it_is {
            true => Effort::None,
            false => self.effort(kind, gathering.raw.len(), gathering.chunks.len()),
        };
        codec.encode(&gathering.raw, effort, &mut frame.bytes);
        frame.chunks.append(&mut gathering.chunks);
        gathering.raw.clear();
        stored.stored_bytes += frame.bytes.len() as u64;
        self.writer()?.push(kind, frame)
    }

    /// How hard to try with a frame of that many bytes and chunks.
    pub(crate) fn effort(&self, kind: ChunkKind, bytes: usize, chunks: usize) -> Effort {
        effort(&self.chunking(), kind, bytes, chunks)
    }

    /// What a thread needs while it stores.
    pub(crate) fn bench(&self) -> Bench {
        lock(&self.benches).pop().unwrap_or_else(|| Bench {
            codec: FrameCodec::new(self.core.level),
            gathering: Gathering::default(),
            raw: Vec::new(),
        })
    }

    pub(crate) fn put_bench(&self, bench: Bench) {
        lock(&self.benches).push(bench);
    }

    /// Writes index entries to a segment when many wait.
    pub(crate) fn relieve(&self) -> Result<()> {
        match self.core.index.memtable().len() > ENTRIES_WAITING {
            true => self.flush_if_idle(),
            false => Ok(()),
        }
    }

    /// Hands over a frame of nodes of several sessions, all of which count on it.
    fn push_shared(
        &self,
        nodes: &mut Gathering,
        codec: &mut FrameCodec,
        stored: &mut Stored,
    ) -> Result<()> {
        self.push(ChunkKind::Node, nodes, codec, stored).inspect_err(|e| self.core.stop(e))
    }

    /// Hands over all nodes that were stored before.
    pub(crate) fn push_nodes(&self) -> Result<()> {
        let mut nodes = Gathering::default();
        if let Some(_under_way) = self.nodes.take(&mut nodes) {
            let mut codec = FrameCodec::new(self.core.level);
            self.push_shared(&mut nodes, &mut codec, &mut Stored::default())?;
        }
        self.nodes.settle();
        Ok(())
    }

    /// Waits until another thread has handed over a chunk that it claimed.
    fn await_chunk(&self, id: &ChunkId) -> Result<()> {
        self.push_nodes()?;
        while self.core.index.memtable().is_in_flight(id) {
            self.core.writable()?;
            std::thread::yield_now();
        }
        match self.core.lookup(id)? {
            Some(_) => Ok(()),
            None => Err(Error::ChunkMissing { id: *id }),
        }
    }
}
