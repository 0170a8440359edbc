//! Block devices: what protocols serve ([`BlockDevice`]), whatever keeps the bytes; and volumes, whose
//! bytes a pool keeps ([`volume`]).
//!
//! A [`MapDevice`] is the content of a map, such as a disk's backup; an [`OverlayDevice`] lets another be
//! written to, for as long as it is open; a [`ReadOnlyDevice`] keeps another from being written to.

mod device;
mod error;
mod map;
mod overlay;
mod read_only;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod volume;

pub use device::{BlockDevice, Content, Durability, Extent, Geometry, Zeroing};
pub use error::{Error, Result};
pub use map::{MapDevice, Report};
pub use overlay::OverlayDevice;
pub use read_only::ReadOnlyDevice;
