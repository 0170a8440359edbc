//! File trees, block images and streams in a Strongroom pool: scan, back up, list, compare,
//! restore.
pub mod backup;
pub mod entry;
mod error;
mod folder;
pub mod image;
#[cfg(test)]
mod memory;
pub mod names;
pub mod restore;
pub mod rules;
pub mod store;
pub mod tree;
#[cfg(test)]
mod trees;
mod xattrs;

pub use error::{Error, Result, Trouble, Troubles, show};
