//! What the archive needs of a pool. A pool on this machine is one such; a pool behind an
//! appliance is another.

use std::ops::Deref;

use strongroom_engine::Result;
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::PoolTime;
pub use strongroom_engine::content::{Chunks, Failed, Sink};
use strongroom_engine::id::{ChunkId, ChunkKind, RootId};
use strongroom_engine::map::NodeStore;
use strongroom_engine::pool::{Lease, NewRoot, Pool, Session, Stored};
use strongroom_engine::state::Root;

/// Keeps what a root reaches, until dropped.
pub trait Hold: Send + Sync {}

impl<P: Deref<Target = Pool> + Send + Sync> Hold for Lease<P> {}

/// Where images are read from.
pub trait Source: Chunks {
    /// All roots.
    fn roots(&self) -> Result<Vec<Root>>;
    /// Keeps a root's content, whatever is forgotten meanwhile.
    fn hold(&self, root: RootId) -> Result<Box<dyn Hold + '_>>;
    /// The pool's own clock.
    fn now(&self) -> PoolTime;
    /// Whether these bytes are those of that data chunk.
    fn matches(&self, id: &ChunkId, data: &[u8]) -> Result<bool>;
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

    fn now(&self) -> PoolTime {
        Pool::now(self)
    }

    fn matches(&self, id: &ChunkId, data: &[u8]) -> Result<bool> {
        Ok(Pool::id_of(self, ChunkKind::Data, data) == *id)
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
