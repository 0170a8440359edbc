//! A session whose image appears once, whoever else was at the same job.

use std::sync::Arc;

use strongroom_archive::store::{Source, Store};
use strongroom_engine::chunker::Params;
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::map::NodeStore;
use strongroom_engine::node::Node;
use strongroom_engine::pool::{NewRoot, Pool, Session, Stored};
use strongroom_engine::state::Root;
use strongroom_engine::{Error, Result};

use crate::{Failure, Run};

/// A session that commits its image under an id that the job has chosen before, and only while the
/// job is held. The pool refuses the same id twice; so even a worker that lost its job between the
/// two makes no second image.
pub(super) struct Fenced<'a> {
    /// Until it is committed.
    session: Option<Session<'a>>,
    pool: &'a Pool,
    id: RootId,
    run: &'a Run,
}

impl<'a> Fenced<'a> {
    pub(super) fn new(pool: &'a Arc<Pool>, id: RootId, run: &'a Run) -> Result<Self> {
        Ok(Self { session: Some(pool.session()?), pool, id, run })
    }

    fn session(&self) -> &Session<'a> {
        self.session.as_ref().expect("it is taken by the commit alone, which takes all of this")
    }
}

impl NodeStore for Fenced<'_> {
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
        self.session().put_node(node)
    }
}

impl Store for Fenced<'_> {
    fn source(&self) -> &dyn Source {
        self.pool
    }

    fn chunking(&self) -> Params {
        self.pool.chunking()
    }

    fn store(&self, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored> {
        Store::store(self.session(), pieces, ids)
    }

    fn reuse(&self, ids: &[ChunkId]) -> Result<bool> {
        self.session().reuse(ids)
    }

    fn lean_on(&self, parent: RootId) -> Result<()> {
        self.session().lean_on(parent)
    }

    fn commit(mut self, root: NewRoot) -> Result<Root> {
        self.run.hold().map_err(|failure| match failure {
            Failure::Canceled => Error::Canceled,
            Failure::Refused(why) | Failure::Failed(why) | Failure::Elsewhere(why) => {
                let what = "asking whether the job is still this worker's";
                Error::io(what, std::io::Error::other(why))
            }
        })?;
        let session = self.session.take().expect("a session is committed once");
        session.commit(NewRoot { id: self.id, ..root })
    }
}

impl Drop for Fenced<'_> {
    /// Who takes the job up again finds what was stored so far.
    fn drop(&mut self) {
        if let Some(session) = self.session.take().filter(|_| self.run.is_draining())
            && let Err(error) = session.checkpoint()
        {
            tracing::warn!("what a backup had stored can't be kept: {error}");
        }
    }
}
