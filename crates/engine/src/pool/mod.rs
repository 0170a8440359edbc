//! SKELETON of the public interface (bodies follow).
use std::sync::Arc;
use crate::clock::PoolTime;
use crate::disk::Disk;
use crate::error::Result;
use crate::id::{ChunkId, ChunkKind, PoolId, RootId};
use crate::node::Node;
use crate::state::Root;

/// The largest chunk, in bytes.
pub const MAX_CHUNK: usize = 8 << 20;

/// How data is spread over the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout { /** shards that hold data */ pub data: u8, /** shards that hold parity or copies */ pub parity: u8 }

/// Limits of one process's use of a pool.
#[derive(Clone, Debug)]
pub struct Tuning { /** worker threads (0: everything in the caller's thread, for tests) */ pub threads: usize }

/// An open pool. Cheap to share by reference between threads.
#[derive(Debug)]
pub struct Pool(());
/// What was stored by a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored { /** chunks that the pool lacked */ pub new_chunks: u64, /** their bytes, before compression */ pub new_bytes: u64, /** what they take in packs, before redundancy */ pub stored_bytes: u64, /** chunks it had */ pub known_chunks: u64, /** their bytes */ pub known_bytes: u64, /** copies it had lost, now back */ pub healed_chunks: u64 }

/// What becomes a root.
#[derive(Clone, Debug)]
pub struct NewRoot { pub id: RootId, pub kind: u8, pub name: String, /** ns from commit */ pub immutable_for: Option<i64>, pub nodes: Vec<ChunkId>, pub meta: Vec<u8> }

impl Pool {
    pub fn id(&self) -> PoolId { todo!() }
    /// Pool's own clock, now.
    pub fn now(&self) -> PoolTime { todo!() }
    /// Chunking parameters chosen at creation.
    pub fn chunking(&self) -> crate::chunker::Params { todo!() }
    /// Worker threads to use (at least 1).
    pub fn threads(&self) -> usize { todo!() }
    /// All roots.
    pub fn roots(&self) -> Vec<Root> { todo!() }
    /// One root.
    pub fn root(&self, id: RootId) -> Option<Root> { todo!() }
    /// A writing session.
    pub fn session(&self) -> Result<Session<'_>> { todo!() }
    /// Keeps everything the root reaches alive (against gc) until dropped, even if it is forgotten meanwhile.
    pub fn lease(&self, root: RootId) -> Result<Lease<'_>> { todo!() }
    /// Removes roots, all or none. Immutable ones refuse.
    pub fn forget(&self, ids: &[RootId]) -> Result<()> { todo!() }
    /// Changes the opaque meta of a root and/or extends (never shortens) immutability.
    pub fn update_root(&self, id: RootId, meta: Option<Vec<u8>>, immutable_until: Option<PoolTime>) -> Result<Root> { todo!() }
    /// Reads one chunk (through a bounded cache of opened frames), verified against its id.
    pub fn read(&self, kind: ChunkKind, id: &ChunkId) -> Result<ChunkBytes> { todo!() }
    /// Reads and decodes a node.
    pub fn node(&self, id: &ChunkId) -> Result<Node> { Ok(Node::decode(&self.read(ChunkKind::Node, id)?).unwrap()) }
    /// Reads many data chunks in pack order, each frame opened once, on `threads` threads.
    /// `sink(i, bytes)` is called once for each i whose chunk could be read, from any thread, concurrently.
    /// A chunk that can't be read is reported to `failed(i, error)`; the rest goes on. A sink error ends all.
    pub fn fetch(&self, wanted: &[ChunkId], threads: usize, sink: &(dyn Fn(usize, &[u8]) -> Result<()> + Sync), failed: &(dyn Fn(usize, crate::Error) + Sync)) -> Result<()> { todo!() }
    /// The id that bytes would get.
    pub fn id_of(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId { todo!() }
    /// Whether the chunk is in the index (and not marked bad).
    pub fn contains(&self, id: &ChunkId) -> Result<bool> { todo!() }
}

/// Bytes of a chunk, shared with the frame cache.
#[derive(Clone, Debug)]
pub struct ChunkBytes { frame: Arc<Vec<u8>>, range: std::ops::Range<usize> }
impl std::ops::Deref for ChunkBytes { type Target = [u8]; fn deref(&self) -> &[u8] { &self.frame[self.range.clone()] } }

/// See [`Pool::lease`].
#[derive(Debug)]
pub struct Lease<'p>(&'p Pool);

/// A writing session: what it stores is kept at least as long as it lives, and becomes part of the pool's content for good with [`Session::commit`]. All methods may be called from several threads.
#[derive(Debug)]
pub struct Session<'p>(&'p Pool);
impl<'p> Session<'p> {
    pub fn pool(&self) -> &'p Pool { self.0 }
    /// The id that bytes would get.
    pub fn id_of(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId { todo!() }
    /// Stores pieces (each 1..=MAX_CHUNK bytes; a call of about 1 MiB in all is best): hashes, looks up, compresses, seals and packs what the pool lacks. Pushes one id per piece to `ids`.
    /// Runs in the caller's thread; call from several threads to use several cores. Neighbouring new pieces share compression frames.
    pub fn store(&self, kind: ChunkKind, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored> { todo!() }
    /// Says that chunks that the pool should have (read from a parent image that is leased by this session) are used again. False: at least one is bad or missing, and the source must be read again.
    /// Cheap: no index lookup unless the pool knows of bad chunks.
    pub fn reuse(&self, ids: &[ChunkId]) -> Result<bool> { todo!() }
    /// Leases a parent for the life of the session; needed before `reuse`.
    pub fn lean_on(&self, parent: RootId) -> Result<()> { todo!() }
    /// Makes everything durable, then the root. When this returns, the root survives a power cut.
    pub fn commit(self, root: NewRoot) -> Result<Root> { todo!() }
}
/// Where a pool lies, for opening.
#[derive(Debug)]
pub struct OpenOptions { pub disks: Vec<Arc<dyn Disk>> }
