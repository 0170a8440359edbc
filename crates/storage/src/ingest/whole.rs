//! Nodes whose every child is in the pool, and theirs too.
//!
//! A node that a session stores, or is told that the pool has, must have all its children there,
//! kept for the same session. Those of a node that comes in were stored or asked for before; a node
//! that the pool has already is read, once a session, and so are nodes that only an image before
//! knows of. What was found whole stays so: the session's pins keep every chunk of it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use strongroom_archive::image::Top;
use strongroom_archive::sealed;
use strongroom_engine::codec::DecodeError;
use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::node::Node;
use strongroom_engine::pool::{Kept, Session, Stored};
use strongroom_engine::{Error, Result};

/// How many nodes are remembered; what was forgotten is read and checked again.
const REMEMBERED: usize = 1 << 20;

/// What a session knows to be whole.
#[derive(Debug, Default)]
pub(super) struct Whole {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    nodes: HashSet<ChunkId>,
    /// Those that can be the top of an image.
    tops: HashSet<ChunkId>,
}

/// Nobody but its owner can tell of a sealed node.
fn may_be_top(node: &Node) -> bool {
    Top::decode(node).is_ok() || sealed::is_sealed(node)
}

impl Whole {
    fn with<R>(&self, look: impl FnOnce(&mut Known) -> R) -> R {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember(&self, found: Known) {
        self.with(|known| {
            if known.nodes.len() + found.nodes.len() > REMEMBERED {
                *known = Known::default();
            }
            known.nodes.extend(found.nodes);
            known.tops.extend(found.tops);
        });
    }

    fn is_known(&self, id: &ChunkId) -> bool {
        self.with(|known| known.nodes.contains(id))
    }

    /// Whether the pool has a chunk, a node with all that it refers to; it stays.
    pub(super) fn has(&self, session: &Session<'_>, kind: ChunkKind, id: &ChunkId) -> Result<bool> {
        match kind {
            ChunkKind::Data => Ok(session.keep(kind, id)? != Kept::No),
            ChunkKind::Node if self.is_known(id) => Ok(true),
            // To read one that is on its way would bring all to the disks now; being sent it once
            // more costs less.
            ChunkKind::Node => match session.keep(kind, id)? {
                Kept::No | Kept::Fresh => Ok(false),
                Kept::Durably => self.check(session, *id).map(|missing| missing.is_none()),
            },
        }
    }

    /// Whether that can be the top of an image, and is whole.
    pub(super) fn is_top(&self, session: &Session<'_>, id: &ChunkId) -> Result<bool> {
        if self.with(|known| known.tops.contains(id)) {
            return Ok(true);
        }
        Ok(self.is_known(id) && may_be_top(&session.pool().node(id)?))
    }

    /// Stores a frame of nodes. Each may refer to those before it.
    pub(super) fn store(
        &self,
        session: &Session<'_>,
        frame: &[u8],
        chunks: &[(ChunkId, u32)],
    ) -> Result<Stored> {
        let mut fresh = Known::default();
        let mut look = |id: &ChunkId, bytes: &[u8]| {
            let node = Node::decode(bytes).map_err(|why: DecodeError| {
                Error::Invalid(format!("what was sent as node {id} is none: {why}"))
            })?;
            let others: Vec<ChunkId> =
                node.nodes.iter().filter(|child| !fresh.nodes.contains(*child)).copied().collect();
            if let Some(missing) = self.missing(session, &others, &node.data)? {
                return Err(Error::Invalid(format!(
                    "node {id} refers to chunk {missing}, which is not in the pool or not whole: \
                     send that first"
                )));
            }
            fresh.nodes.insert(*id);
            if may_be_top(&node) {
                fresh.tops.insert(*id);
            }
            Ok(())
        };
        let stored = session.store_frame(ChunkKind::Node, frame, chunks, &mut look)?;
        self.remember(fresh);
        Ok(stored)
    }

    /// The first of these children that isn't there, or isn't whole.
    fn missing(
        &self,
        session: &Session<'_>,
        nodes: &[ChunkId],
        data: &[ChunkId],
    ) -> Result<Option<ChunkId>> {
        for id in data {
            if session.keep(ChunkKind::Data, id)? == Kept::No {
                return Ok(Some(*id));
            }
        }
        for id in nodes {
            if !self.is_known(id)
                && let Some(missing) = self.check(session, *id)?
            {
                return Ok(Some(missing));
            }
        }
        Ok(None)
    }

    /// Reads a node and all below it that isn't known to be whole; what is missing, if anything.
    fn check(&self, session: &Session<'_>, top: ChunkId) -> Result<Option<ChunkId>> {
        let mut seen = HashSet::from([top]);
        let mut stack = vec![top];
        while let Some(id) = stack.pop() {
            // Kept before it is read: what is read then stays.
            if session.keep(ChunkKind::Node, &id)? == Kept::No {
                return Ok(Some(id));
            }
            let node = match session.pool().node(&id) {
                Ok(node) => node,
                // Whoever has it may send it again, which mends it.
                Err(Error::ChunkMissing { .. } | Error::ChunkUnreadable { .. }) => {
                    return Ok(Some(id));
                }
                Err(error) => return Err(error),
            };
            for child in &node.data {
                if session.keep(ChunkKind::Data, child)? == Kept::No {
                    return Ok(Some(*child));
                }
            }
            for child in node.nodes {
                if !self.is_known(&child) && seen.insert(child) {
                    stack.push(child);
                }
            }
        }
        self.remember(Known { nodes: seen, ..Known::default() });
        Ok(None)
    }
}
