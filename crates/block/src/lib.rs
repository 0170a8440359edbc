//! Block devices: what protocols serve ([`BlockDevice`]), whatever keeps the bytes.

mod device;
mod error;
#[cfg(feature = "testing")]
pub mod testing;

pub use device::{BlockDevice, Content, Durability, Extent, Geometry, Zeroing};
pub use error::{Error, Result};
