//! A pool: chunks on disks, and the roots that hold on to them.
//!
//! # The concept
//!
//! A pool keeps *chunks*, named by a keyed hash of their content, in *packs*; *roots* name the
//! nodes that must stay, and nodes name their children. What no root reaches is garbage. The
//! *state* (which packs, index segments and roots there are) changes in one way only: a journal
//! record is made durable, then applied. So a pool is at every instant exactly as its last record
//! left it, and what a record refers to was durable before the record was.
//!
//! One process at a time may write ([`OpenMode::Write`]); any number may read. In the writing
//! process any number of threads store, read, forget and collect garbage at once.
//!
//! # What makes each operation safe beside every other
//!
//! | operation | takes | is safe beside writers because | is safe beside `gc` because |
//! |---|---|---|---|
//! | store a chunk | a claim in the memtable, a pin | a claim is won by one thread; who loses it waits before its commit until the chunk is handed over | it is pinned when it gets its place; packs made after a collection began are not looked at |
//! | re-use a chunk | a pin | packs never change | look up, then pin: pinning and the collector's decision take the same short lock, so a chunk is kept or reported absent |
//! | re-use a parent's chunks | a lease on the parent | roots never change | leased roots are marked like roots |
//! | commit | the flush turn, then the journal's turn | flushes and records come one after the other | the root's chunks are pinned until the session ends, and marked after |
//! | tag, extend immutability | the journal's turn | as commit | the root stays what it reaches |
//! | take a frame of a client | as store | as store, once each chunk was found to be what its id says | as store |
//! | commit in the place of a root | as commit | as commit; the old root must still be there | as commit: one record ends the old root and begins the new |
//! | forget | the journal's turn | as commit | what only the forgotten root held goes with the next collection |
//! | read | nothing; other processes: the readers' lock, shared | packs are immutable | a moved chunk is looked up again; files are removed only while no other process reads |
//! | gc | a hold on the pins, the journal's turn | it copies into new packs and records the change at once | one collection at a time |
//! | merge index segments | the flush turn, the journal's turn | segments never change, and the new one takes the old ones' place at once | entries of packs that went meanwhile count for nothing |
//! | check | nothing; a writer marks what is bad by a record | packs never change | a pack that is gone meanwhile is skipped |
//! | scrub, heal | nothing | a bad unit is replaced by the very bytes that were written | a pack that is gone meanwhile is skipped |
//! | mend what a reader found | the writer's lock, for as long as it takes | there is none | there is none; files that are gone are not made again |
//! | disk-replace | the writer's lock, nothing else running | it changes the superblock at its end | not at the same time |
//! | rekey, key slots | the writer's lock; rekey the turn of upkeep too | packs name the key that they were sealed with, and open ones go on with theirs | rekey not at the same time; slots have nothing to do with packs |
//! | repair | the writer's lock, nothing else running | as disk-replace | not at the same time |
//!
//! Every durable step, in order, is listed in `docs/format.md`.

mod admin;
mod aside;
mod core;
mod foreign;
mod garbage;
mod gc;
mod mend;
mod meter;
mod nodes;
mod open;
mod pins;
mod place;
mod read;
mod recover;
mod session;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

pub use self::admin::SlotInfo;
pub use self::foreign::Kept;
pub use self::garbage::{Collected, Collections, LetGo, Standing, Urgent};
pub use self::gc::{GcOptions, GcReport};
pub use self::meter::Meter;
pub use self::open::{CreateOptions, OpenMode, OpenOptions, Use};
pub use self::place::Place;
pub use self::read::ChunkBytes;
pub use self::session::{NewRoot, Session, Stored, Storing, effort, frame_limit};
pub use self::verify::{CheckReport, ScrubOptions, ScrubOutcome};

use self::core::{Core, lock};
use self::nodes::Nodes;
use self::session::Bench;
use self::writer::Writer;
use crate::chunker;
use crate::clock::PoolTime;
use crate::disk::DiskLock;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, PoolId, RootId};
use crate::node::Node;
use crate::seal::{ChunkHasher, LogSealer};
use crate::state::{Op, Root, State};

/// What the writing process locks, on every disk.
const WRITER_LOCK: &str = "pool.lock";
/// What reading processes lock, shared, on every disk.
const READERS_LOCK: &str = "pool.readers";
/// Who holds the writer's lock, as text for other processes.
const HOLDER: &str = "pool.holder";

/// The largest chunk, in bytes.
pub const MAX_CHUNK: usize = 8 << 20;

/// An open pool, to be shared by reference between threads.
#[derive(Debug)]
pub struct Pool {
    core: Arc<Core>,
    writer: Option<Writer>,
    /// Nodes of all sessions that wait to become a frame.
    nodes: Nodes,
    /// What threads need while they store; there are as many as stored at once.
    benches: Mutex<Vec<Bench>>,
    leases: Mutex<HashMap<RootId, (Root, usize)>>,
    /// Whether some thread is writing waiting index entries to a segment.
    flushing: AtomicBool,
    upkeep: Mutex<Upkeep>,
    upkeep_ended: Condvar,
    reading: read::Reading,
    threads: usize,
    /// Who this is, for others that find the pool in use.
    holder: String,
    _locks: Vec<Box<dyn DiskLock>>,
}

/// A collection, a scrub and other operations come one at a time.
#[derive(Debug, Default)]
struct Upkeep {
    /// Which one runs.
    running: Option<&'static str>,
    /// How many have ended.
    ended: u64,
}

impl Pool {
    /// Its identifier.
    pub fn id(&self) -> PoolId {
        self.core.id
    }

    /// The id that a chunk of this kind with these bytes has.
    pub fn id_of(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        self.core.hasher.id(kind, bytes)
    }

    /// What names chunks. Its keys are among the pool's secrets.
    pub fn hasher(&self) -> &ChunkHasher {
        &self.core.hasher
    }

    /// The zstd level of new frames.
    pub fn level(&self) -> i32 {
        self.core.level
    }

    /// Whether copies of chunks are known to be bad.
    pub fn has_bad_chunks(&self) -> bool {
        !self.core.state().bad.is_empty()
    }

    /// The pool's own clock, now.
    pub fn now(&self) -> PoolTime {
        self.core.time()
    }

    /// How streams and images are cut, as chosen when the pool was created.
    pub fn chunking(&self) -> chunker::Params {
        self.core.superblock().chunking
    }

    /// How many threads are worth using; at least 1.
    pub fn threads(&self) -> usize {
        self.threads.max(1)
    }

    /// Things the user should hear of, though they went well (a copy that was healed, a disk that
    /// failed); each is told once.
    pub fn take_notices(&self) -> Vec<String> {
        self.tell_unreadable();
        self.core.take_notices()
    }

    /// Whether it may write: not once a write failed, and not when it was opened to read.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Stopped`].
    pub fn check_writable(&self) -> Result<()> {
        self.core.writable().map(drop)
    }

    /// Asks long work (`gc`, `check`, `scrub`, `fetch`) to stop at its next safe point.
    pub fn cancel(&self) {
        self.core.canceled.store(true, Ordering::Relaxed);
    }

    /// A copy of what the pool knows of itself.
    pub fn state(&self) -> State {
        self.core.state().clone()
    }

    /// All roots, oldest first.
    pub fn roots(&self) -> Vec<Root> {
        let mut roots: Vec<Root> = self.core.state().roots.values().cloned().collect();
        roots.sort_by_key(|root| (root.created, root.id));
        roots
    }

    /// All roots of a kind, in no order.
    pub fn roots_of(&self, kind: u8) -> Vec<Root> {
        self.core.state().roots.values().filter(|root| root.kind == kind).cloned().collect()
    }

    /// One root.
    pub fn root(&self, id: RootId) -> Option<Root> {
        self.core.state().roots.get(&id).cloned()
    }

    /// Begins a writing session.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Stopped`].
    pub fn session(&self) -> Result<Session<'_>> {
        Session::new(Hand::Lent(self))
    }

    /// Begins a writing session that keeps the pool open for as long as it lives.
    ///
    /// # Errors
    /// As [`Pool::session`].
    pub fn shared_session(self: &Arc<Self>) -> Result<Session<'static>> {
        Session::new(Hand::Shared(Arc::clone(self)))
    }

    /// Keeps what a root reaches until the lease is dropped, even if it is forgotten meanwhile.
    /// Only collections of this process know of it.
    ///
    /// # Errors
    /// [`Error::NoSuchRoot`].
    pub fn lease(&self, id: RootId) -> Result<Lease<&Self>> {
        Lease::new(self, id)
    }

    /// As [`Pool::lease`], for who shares the pool.
    ///
    /// # Errors
    /// [`Error::NoSuchRoot`].
    pub fn shared_lease(self: &Arc<Self>, id: RootId) -> Result<Lease<Arc<Self>>> {
        Lease::new(Arc::clone(self), id)
    }

    /// Sets room aside on every disk, in bytes: sessions store nothing more once they would take of it, but
    /// for those that may ([`Session::may_take_all`]).
    pub fn set_aside(&self, bytes: u64) {
        self.core.aside.set(bytes);
    }

    /// Makes a root that holds on to nothing but what it says itself. That is one record of the journal,
    /// and waits for nothing that sessions store meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it names nodes, or there is such a root already; those of the journal.
    pub fn put_bare_root(&self, root: NewRoot) -> Result<Root> {
        if !root.nodes.is_empty() {
            return Err(Error::Invalid("only a session makes roots that have nodes".into()));
        }
        let mut made = None;
        self.core.record(|state| {
            let root = session::made(state, root, self.core.now().time)?;
            made = Some(root.clone());
            Ok(vec![Op::PutRoot(root)])
        })?;
        Ok(made.expect("the record succeeded, so it called for the root"))
    }

    /// Removes roots, all or none. What only they reached goes with the next [`Pool::gc`].
    ///
    /// # Errors
    /// [`Error::NoSuchRoot`]; [`Error::Immutable`] for one whose time has not come.
    pub fn forget(&self, ids: &[RootId]) -> Result<()> {
        self.core.record(|state| {
            let now = self.core.now().time;
            ids.iter().map(|id| session::drop_root(state, *id, now)).collect()
        })
    }

    /// Changes what the layer above keeps in a root, and extends its immutability.
    ///
    /// # Errors
    /// [`Error::NoSuchRoot`]; [`Error::Immutable`] when the immutability would be shortened.
    pub fn update_root(
        &self,
        id: RootId,
        meta: Option<Vec<u8>>,
        immutable_until: Option<PoolTime>,
    ) -> Result<Root> {
        let mut updated = None;
        self.core.record(|state| {
            let root = state.roots.get(&id);
            let mut root = root.cloned().ok_or_else(|| Error::NoSuchRoot { id: id.to_string() })?;
            if let Some(until) = immutable_until {
                if let Some(old) = root.immutable_until.filter(|old| *old > until) {
                    return Err(Error::Immutable { id, until: old.to_string() });
                }
                root.immutable_until = Some(until);
            }
            if let Some(meta) = meta {
                root.meta = meta;
            }
            updated = Some(root.clone());
            Ok(vec![Op::PutRoot(root)])
        })?;
        Ok(updated.expect("the record succeeded, so it called for the root"))
    }

    /// What seals and checks the run of a volume's log with this salt, and its epoch: that of new packs
    /// unless one is named.
    ///
    /// # Errors
    /// [`Error::Io`] when the key of that epoch isn't there.
    pub fn log_sealer(&self, epoch: Option<u32>, salt: &[u8; 32]) -> Result<(LogSealer, u32)> {
        let keyring = self.core.keyring();
        let epoch = epoch.unwrap_or_else(|| keyring.epoch());
        let sealer = keyring.log(epoch, salt);
        sealer
            .map(|sealer| (sealer, epoch))
            .ok_or_else(|| read::unknown_key("a volume's log", epoch))
    }

    /// Reads and decodes a node.
    ///
    /// # Errors
    /// As [`Pool::read`]; [`Error::Damaged`] for a chunk that isn't a node.
    pub fn node(&self, id: &ChunkId) -> Result<Node> {
        Node::decode(&self.read(ChunkKind::Node, id)?)
            .map_err(Error::decoding(&format!("node {id}")))
    }

    /// Whether the pool has a good copy of a chunk.
    ///
    /// # Errors
    /// Those of the index.
    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.core.lookup(id)?.is_some())
    }

    fn writer(&self) -> Result<&Writer> {
        self.core.writable()?;
        self.writer.as_ref().ok_or_else(|| Error::ReadOnly { why: "it was opened to read".into() })
    }

    /// Brings everything handed over so far into the state, with what `more` says.
    fn flush(&self, more: impl FnOnce(&State) -> Result<Vec<Op>>) -> Result<()> {
        self.push_nodes()?;
        self.writer()?.flush()?;
        self.core.flush(more)
    }

    /// Writes waiting index entries to a segment, unless another thread is at it.
    fn flush_if_idle(&self) -> Result<()> {
        if self.flushing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.flush(|_| Ok(Vec::new()));
        self.flushing.store(false, Ordering::Release);
        result
    }
}

/// A pool in somebody's hand: lent to them, or shared and open for as long as they have it.
#[derive(Clone, Debug)]
pub(crate) enum Hand<'p> {
    Lent(&'p Pool),
    Shared(Arc<Pool>),
}

impl Deref for Hand<'_> {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        match self {
            Self::Lent(pool) => pool,
            Self::Shared(pool) => pool,
        }
    }
}

/// Keeps what a root reaches: see [`Pool::lease`].
#[derive(Debug)]
pub struct Lease<P: Deref<Target = Pool>> {
    pool: P,
    id: RootId,
}

impl<P: Deref<Target = Pool>> Lease<P> {
    fn new(pool: P, id: RootId) -> Result<Self> {
        let mut leases = lock(&pool.leases);
        let root = pool.root(id).ok_or_else(|| Error::NoSuchRoot { id: id.to_string() })?;
        leases.entry(id).or_insert((root, 0)).1 += 1;
        drop(leases);
        Ok(Self { pool, id })
    }
}

impl<P: Deref<Target = Pool>> Drop for Lease<P> {
    fn drop(&mut self) {
        let mut leases = lock(&self.pool.leases);
        if let Some((_, count)) = leases.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                leases.remove(&self.id);
            }
        }
    }
}

/// Whether a kind was asked for that the place doesn't have.
fn expect_kind(wanted: ChunkKind, found: ChunkKind, id: &ChunkId) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    Err(Error::damaged(format!("chunk {id}"), "the index has it as the other kind"))
}
