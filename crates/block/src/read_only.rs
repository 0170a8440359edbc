//! A device that can only be read, over one that could be written.

use std::sync::Arc;

use crate::{BlockDevice, Durability, Error, Extent, Geometry, Result, Zeroing};

/// Another device, whatever it allows, of which nothing can be changed here. It is the same device to who
/// asks for its id, and grows with it.
#[derive(Debug)]
pub struct ReadOnlyDevice(Arc<dyn BlockDevice>);

impl ReadOnlyDevice {
    /// Over a device.
    pub fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self(device)
    }
}

impl BlockDevice for ReadOnlyDevice {
    fn geometry(&self) -> Geometry {
        Geometry { read_only: true, ..self.0.geometry() }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, _: u64, _: &[u8], _: Durability) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn write_zeroes(&self, _: u64, _: u64, _: Zeroing, _: Durability) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(Error::ReadOnly)
    }

    /// Those who write to the device elsewhere flush it themselves.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn compare_and_write(&self, _: u64, _: &[u8], _: &[u8], _: Durability) -> Result<Option<u64>> {
        Err(Error::ReadOnly)
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.0.extents(offset, length, most)
    }

    fn id(&self) -> [u8; 16] {
        self.0.id()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::MemoryDevice;

    #[test]
    fn it_reads_what_the_other_has_and_writes_nothing() {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        device.write_at(4096, &[7; 4096], Durability::Now).unwrap();
        let shown = ReadOnlyDevice::new(device.clone());
        assert!(shown.geometry().read_only);
        assert_eq!((shown.geometry().size, shown.id()), (1 << 20, device.id()));
        let mut there = [0; 4096];
        shown.read_at(4096, &mut there).unwrap();
        assert_eq!(there, [7; 4096]);
        let wrote = [
            shown.write_at(0, &[1; 4096], Durability::Now),
            shown.write_zeroes(4096, 4096, Zeroing::Keep, Durability::Now),
            shown.discard(4096, 4096),
            shown.compare_and_write(0, &[0; 512], &[1; 512], Durability::Now).map(drop),
        ];
        assert!(wrote.iter().all(|wrote| matches!(wrote, Err(Error::ReadOnly))));
        device.read_at(4096, &mut there).unwrap();
        assert_eq!(there, [7; 4096]);
        shown.flush().unwrap();
        assert_eq!(shown.extents(0, 1 << 20, 9).unwrap(), device.extents(0, 1 << 20, 9).unwrap());
    }
}
