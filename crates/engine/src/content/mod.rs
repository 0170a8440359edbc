//! The content of maps, read at any place by many threads at once.
//!
//! A [`Cache`] keeps a bounded number of bytes of nodes and chunks for all that a process reads
//! through it. A [`Reader`] reads one pool through a cache: what two want of a chunk is read once,
//! holes are never read, and who reads a [`Content`] in order finds what comes next at hand. Mounts
//! of images and block devices are made of this.

mod cache;
mod pace;
mod reads;
#[cfg(test)]
mod testing;

use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind};
use crate::map::Nodes;
use crate::pool::Pool;

pub use cache::{Bytes, Cache, Wanted, cut};
pub use reads::{Content, Misread, Reader, Shared};

/// Takes the bytes of the chunk with this place in the list of wanted ones.
pub type Sink<'a> = &'a (dyn Fn(usize, &[u8]) -> Result<()> + Sync);
/// Hears of a chunk that can't be read.
pub type Failed<'a> = &'a (dyn Fn(usize, Error) + Sync);

/// Where the content of maps is read from.
pub trait Chunks: Nodes {
    /// How many threads to use, at least 1.
    fn threads(&self) -> usize;

    /// How many bytes a chunk may have behind those that maps know of: where it has so many more than it
    /// must, they are no part of the content.
    fn tail(&self) -> u32 {
        0
    }

    /// Appends the bytes of one data chunk to `out`.
    ///
    /// # Errors
    /// Those of the pool.
    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()>;

    /// Reads many data chunks in the pool's order: `sink` takes each that can be read, once, from
    /// any thread; `failed` hears of each other. An error of the sink ends all.
    ///
    /// # Errors
    /// Those of the sink, and those of the pool that hold for more than single chunks.
    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()>;
}

impl Chunks for Pool {
    fn threads(&self) -> usize {
        Pool::threads(self).max(1)
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.read(ChunkKind::Data, id)?);
        Ok(())
    }

    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()> {
        Pool::fetch(self, wanted, Chunks::threads(self), sink, failed)
    }
}
