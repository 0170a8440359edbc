//! Strongroom's store: chunks that are deduplicated, compressed, sealed and packed onto disks that
//! may fail.
pub mod buf;
pub mod chunker;
pub mod clock;
pub mod codec;
pub mod compress;
pub mod content;
pub mod disk;
pub mod erasure;
pub mod error;
pub mod id;
pub mod index;
pub mod journal;
pub mod keys;
pub mod lru;
pub mod map;
pub mod node;
pub mod pack;
pub mod pool;
pub mod seal;
pub mod shard;
pub mod state;
pub mod superblock;

pub use error::{Error, Result};
