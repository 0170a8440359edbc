//! A plain file as a device, for the example and for measuring.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{PoisonError, RwLock};

use rustix::fs::{FallocateFlags, fallocate};
use strongroom_block::{
    BlockDevice, Content, Durability, Error, Extent, Geometry, Result, Zeroing,
};

/// A plain file as a device.
#[derive(Debug)]
pub(crate) struct FileDevice {
    file: File,
    size: u64,
    /// Taken alone by what no write may come between.
    order: RwLock<()>,
}

impl FileDevice {
    pub(crate) fn open(path: &std::path::Path) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let size = file.metadata()?.len() / 512 * 512;
        Ok(Self { file, size, order: RwLock::default() })
    }

    fn done(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Now => self.flush(),
            Durability::Later => Ok(()),
        }
    }

    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match length {
            0 => Ok(()),
            _ => fallocate(&self.file, flags, offset, length)
                .map_err(|error| Error::Failed(error.to_string())),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::Failed(error.to_string())
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size,
            block: 512,
            physical: 4096,
            optimal: 65536,
            read_only: false,
            thin: true,
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.geometry().check(offset, buffer.len() as u64)?;
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| Error::Unreadable { offset, why: error.to_string() })
    }

    fn write_at(&self, offset: u64, bytes: &[u8], durability: Durability) -> Result<()> {
        self.geometry().check(offset, bytes.len() as u64)?;
        let _beside = self.order.read().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(bytes, offset).map_err(failed)?;
        self.done(durability)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        _zeroing: Zeroing,
        durability: Durability,
    ) -> Result<()> {
        self.geometry().check(offset, length)?;
        let _beside = self.order.read().unwrap_or_else(PoisonError::into_inner);
        self.punch(offset, length)?;
        self.done(durability)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.write_zeroes(offset, length, Zeroing::MayUnmap, Durability::Later)
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(failed)
    }

    fn compare_and_write(
        &self,
        offset: u64,
        expected: &[u8],
        bytes: &[u8],
        durability: Durability,
    ) -> Result<Option<u64>> {
        let _alone = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut there = vec![0; expected.len()];
        self.read_at(offset, &mut there)?;
        if let Some(differs) = there.iter().zip(expected).position(|(a, b)| a != b) {
            return Ok(Some(differs as u64));
        }
        self.file.write_all_at(bytes, offset).map_err(failed)?;
        self.done(durability)?;
        Ok(None)
    }

    fn extents(&self, offset: u64, length: u64, _most: usize) -> Result<Vec<Extent>> {
        Ok(vec![Extent { offset, length, content: Content::Data }])
    }

    fn id(&self) -> [u8; 16] {
        *b"a file of a test"
    }
}
