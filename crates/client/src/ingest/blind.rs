//! A pool into which one may send, and not look: there is no image to compare with.

use strongroom_archive::store::{Chunks, Failed, Hold, Sink, Source};
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::map::Nodes;
use strongroom_engine::node::Node;
use strongroom_engine::state::Root;
use strongroom_engine::{Error, Result};

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blind;

impl Nodes for Blind {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        Err(Error::ChunkMissing { id: *id })
    }
}

impl Chunks for Blind {
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn chunk(&self, id: &ChunkId, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::ChunkMissing { id: *id })
    }

    fn fetch(&self, wanted: &[ChunkId], _: Sink<'_>, failed: Failed<'_>) -> Result<()> {
        for (place, id) in wanted.iter().enumerate() {
            failed(place, Error::ChunkMissing { id: *id });
        }
        Ok(())
    }
}

impl Source for Blind {
    fn roots(&self) -> Result<Vec<Root>> {
        Ok(Vec::new())
    }

    fn hold(&self, root: RootId) -> Result<Box<dyn Hold + '_>> {
        Err(Error::NoSuchRoot { id: root.to_string() })
    }

    fn now(&self) -> PoolTime {
        PoolTime(0)
    }

    fn matches(&self, _: &ChunkId, _: &[u8]) -> Result<bool> {
        // Nothing that is read from here is compared with anything.
        Ok(false)
    }
}
