//! Block devices: what protocols serve ([`BlockDevice`]), whatever keeps the bytes; and volumes, whose
//! bytes a pool keeps ([`volume`]).

mod device;
mod error;
#[cfg(feature = "testing")]
pub mod testing;
pub mod volume;

pub use device::{BlockDevice, Content, Durability, Extent, Geometry, Zeroing};
pub use error::{Error, Result};
