//! File trees, block images and streams in a Strongroom pool: scan, back up, list, compare,
//! restore.
pub mod affected;
pub mod backup;
pub mod cat;
pub mod diff;
pub mod dump;
pub mod entry;
mod error;
pub mod find;
mod flow;
mod folder;
pub mod image;
pub mod list;
#[cfg(test)]
mod memory;
pub mod mount;
pub mod names;
pub mod parcel;
pub mod restore;
pub mod retention;
pub mod rules;
mod scan;
pub mod sealed;
pub mod store;
pub mod tree;
#[cfg(test)]
mod trees;
pub mod wire;
mod xattrs;

pub use cat::cat;
pub use error::{Error, Result, Trouble, Troubles, show};
