//! Nodes of all sessions on their way to the packing thread. They share frames; nobody holds a lock
//! while a frame is compressed, or waits for a slow disk.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::id::{ChunkId, ChunkKind};
use crate::pool::core::lock;
use crate::pool::session::{Gathering, frame_limit};

/// Nodes that wait to become a frame, and the frames of nodes that are being handed over.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    waiting: Mutex<Waiting>,
    handed_over: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    gathering: Gathering,
    /// How many frames were taken.
    taken: u64,
    /// Those of them that the packing thread doesn't have yet.
    under_way: BTreeSet<u64>,
}

impl Waiting {
    /// Gives all that waits to `frame`, which is empty, and whose buffers are used from now on.
    fn take<'n>(&mut self, nodes: &'n Nodes, frame: &mut Gathering) -> Option<UnderWay<'n>> {
        if self.gathering.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.gathering, frame);
        self.taken += 1;
        self.under_way.insert(self.taken);
        Some(UnderWay { nodes, number: self.taken })
    }
}

impl Nodes {
    /// Adds a node to those that wait. When that makes a frame of the others, they are in `frame`
    /// then, which must be empty: the caller hands it over.
    pub(crate) fn add(
        &self,
        id: ChunkId,
        node: &[u8],
        frame: &mut Gathering,
    ) -> Option<UnderWay<'_>> {
        let mut waiting = lock(&self.waiting);
        let full = waiting.gathering.len() + node.len() > frame_limit(ChunkKind::Node);
        let taken = if full { waiting.take(self, frame) } else { None };
        waiting.gathering.add(id, node);
        taken
    }

    /// Takes what waits, as [`Nodes::add`] does.
    pub(crate) fn take(&self, frame: &mut Gathering) -> Option<UnderWay<'_>> {
        lock(&self.waiting).take(self, frame)
    }

    /// Waits until every frame that was taken before is handed over.
    pub(crate) fn settle(&self) {
        let mut waiting = lock(&self.waiting);
        let taken = waiting.taken;
        while waiting.under_way.first().is_some_and(|number| *number <= taken) {
            waiting = self.handed_over.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A frame of nodes is being handed over, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct UnderWay<'n> {
    nodes: &'n Nodes,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.nodes.waiting).under_way.remove(&self.number);
        self.nodes.handed_over.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_settles_waits_for_frames_taken_before_and_for_no_later_ones() {
        let nodes = Nodes::default();
        let full = vec![1; frame_limit(ChunkKind::Node)];
        let [mut first, mut second] = [Gathering::default(), Gathering::default()];
        assert!(nodes.add(ChunkId([1; 32]), &full, &mut first).is_none());
        nodes.settle(); // what waits is not under way
        let under_way = nodes.add(ChunkId([2; 32]), &full, &mut first);
        assert!(under_way.is_some() && first.len() == full.len());
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            scope.spawn({
                let (nodes, tell) = (&nodes, tell.clone());
                move || {
                    nodes.settle();
                    let _ = tell.send("settled");
                }
            });
            let _ = tell.send("handed over");
            drop(under_way);
            assert_eq!([told.recv(), told.recv()], [Ok("handed over"), Ok("settled")]);
        });
        let later = nodes.take(&mut second);
        assert!(later.is_some() && !second.is_empty());
        drop(later);
        nodes.settle();
        assert!(nodes.take(&mut Gathering::default()).is_none());
    }
}
