//! What the archive needs of a pool. A pool on this machine is one such; a pool behind an
//! appliance is another.

use std::ops::Deref;

use strongroom_engine::chunker::Params;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::{ChunkId, ChunkKind, RootId};
use strongroom_engine::map::{NodeStore, Nodes};
use strongroom_engine::pool::{Lease, NewRoot, Pool, Session, Stored};
use strongroom_engine::state::Root;
use strongroom_engine::{Error, Result};

/// Keeps what a root reaches, until dropped.
pub trait Hold: Send + Sync {}

impl<P: Deref<Target = Pool> + Send + Sync> Hold for Lease<P> {}

/// Takes the bytes of the chunk with this place in the list of wanted ones.
pub type Sink<'a> = &'a (dyn Fn(usize, &[u8]) -> Result<()> + Sync);
/// Hears of a chunk that can't be read.
pub type Failed<'a> = &'a (dyn Fn(usize, Error) + Sync);

/// Where images are read from.
pub trait Source: Nodes {
    /// All roots.
    fn roots(&self) -> Result<Vec<Root>>;
    /// Keeps a root's content, whatever is forgotten meanwhile.
    fn hold(&self, root: RootId) -> Result<Box<dyn Hold + '_>>;
    /// How many threads to use, at least 1.
    fn threads(&self) -> usize;
    /// The pool's own clock.
    fn now(&self) -> PoolTime;
    /// Whether these bytes are those of that data chunk.
    fn matches(&self, id: &ChunkId, data: &[u8]) -> Result<bool>;
    /// Appends the bytes of one data chunk to `out`.
    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()>;
    /// Reads many data chunks in the pool's order: `sink` takes each that can be read, once, from
    /// any thread; `failed` hears of each other. An error of the sink ends all.
    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()>;
}

/// Where an image is being stored. All calls may be made from several threads at once.
pub trait Store: NodeStore {
    /// The pool, for reading the parent image.
    fn source(&self) -> &dyn Source;
    /// How content is cut.
    fn chunking(&self) -> Params;
    /// How many bytes [`Store::store`] likes to be given at once.
    fn at_once(&self) -> usize {
        1 << 20
    }
    /// How many threads read and store: a few more than there are processors, since some wait for
    /// the disk.
    fn workers(&self) -> usize {
        self.source().threads() + 2
    }
    /// Stores pieces of data and appends one id for each.
    fn store(&self, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored>;
    /// Whether these chunks of an image that is leant on may be used again as they are.
    fn reuse(&self, ids: &[ChunkId]) -> Result<bool>;
    /// Keeps an image while this lasts, so that [`Store::reuse`] may be asked.
    fn lean_on(&self, parent: RootId) -> Result<()>;
    /// Waits for what is still on its way; what that took and no call has told.
    fn settle(&self) -> Result<Stored> {
        Ok(Stored::default())
    }
    /// Makes everything durable, then the root.
    fn commit(self, root: NewRoot) -> Result<Root>
    where
        Self: Sized;
}

impl Source for Pool {
    fn roots(&self) -> Result<Vec<Root>> {
        Ok(Pool::roots(self))
    }

    fn hold(&self, root: RootId) -> Result<Box<dyn Hold + '_>> {
        Ok(Box::new(self.lease(root)?))
    }

    fn threads(&self) -> usize {
        Pool::threads(self).max(1)
    }

    fn now(&self) -> PoolTime {
        Pool::now(self)
    }

    fn matches(&self, id: &ChunkId, data: &[u8]) -> Result<bool> {
        Ok(Pool::id_of(self, ChunkKind::Data, data) == *id)
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.read(ChunkKind::Data, id)?);
        Ok(())
    }

    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()> {
        Pool::fetch(self, wanted, Source::threads(self), sink, failed)
    }
}

impl Store for Session<'_> {
    fn source(&self) -> &dyn Source {
        self.pool()
    }

    fn chunking(&self) -> Params {
        self.pool().chunking()
    }

    fn store(&self, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored> {
        Session::store(self, ChunkKind::Data, pieces, ids)
    }

    fn reuse(&self, ids: &[ChunkId]) -> Result<bool> {
        Session::reuse(self, ids)
    }

    fn lean_on(&self, parent: RootId) -> Result<()> {
        Session::lean_on(self, parent)
    }

    fn commit(self, root: NewRoot) -> Result<Root> {
        Session::commit(self, root)
    }
}
