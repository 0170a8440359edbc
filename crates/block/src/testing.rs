//! A device in memory, for tests of what serves one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{BlockDevice, Content, Durability, Error, Extent, Geometry, Result, Zeroing};

/// Bytes of a piece that is there or not.
const PIECE: u64 = 4096;

/// A thin device in memory, which counts its flushes and durable writes.
#[derive(Debug)]
pub struct MemoryDevice {
    geometry: Mutex<Geometry>,
    pieces: Mutex<BTreeMap<u64, Box<[u8]>>>,
    flushes: AtomicU64,
    durable: AtomicU64,
    most_atomic: u32,
    id: [u8; 16],
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDevice {
    /// With so many bytes, in blocks of 512.
    pub fn new(size: u64) -> Self {
        let geometry = Geometry {
            size,
            block: 512,
            physical: 4096,
            optimal: 65536,
            read_only: false,
            thin: true,
        };
        Self::with(geometry)
    }

    /// As this says.
    pub fn with(geometry: Geometry) -> Self {
        Self {
            geometry: Mutex::new(geometry),
            pieces: Mutex::default(),
            flushes: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            most_atomic: 0,
            id: *b"a device of test",
        }
    }

    /// One that says that it writes so many bytes as one, which it does with any number.
    pub fn atomic(self, most_atomic: u32) -> Self {
        Self { most_atomic, ..self }
    }

    /// Grows it.
    pub fn grow(&self, size: u64) {
        locked(&self.geometry).size = size;
    }

    /// How often it was flushed.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    /// How many changes were to be durable at once.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    fn may_write(&self, offset: u64, length: u64, durability: Durability) -> Result<()> {
        let geometry = self.geometry();
        if geometry.read_only {
            return Err(Error::ReadOnly);
        }
        geometry.check(offset, length)?;
        if durability == Durability::Now {
            self.durable.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

fn read(pieces: &BTreeMap<u64, Box<[u8]>>, mut offset: u64, mut buffer: &mut [u8]) {
    while !buffer.is_empty() {
        let (piece, from) = (offset / PIECE, (offset % PIECE) as usize);
        let length = buffer.len().min(PIECE as usize - from);
        let (now, rest) = buffer.split_at_mut(length);
        match pieces.get(&piece) {
            Some(bytes) => now.copy_from_slice(&bytes[from..from + length]),
            None => now.fill(0),
        }
        (buffer, offset) = (rest, offset + length as u64);
    }
}

fn write(pieces: &mut BTreeMap<u64, Box<[u8]>>, mut offset: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (piece, from) = (offset / PIECE, (offset % PIECE) as usize);
        let length = bytes.len().min(PIECE as usize - from);
        let there = pieces.entry(piece).or_insert_with(|| vec![0; PIECE as usize].into());
        there[from..from + length].copy_from_slice(&bytes[..length]);
        (bytes, offset) = (&bytes[length..], offset + length as u64);
    }
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> Geometry {
        *locked(&self.geometry)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.geometry().check(offset, buffer.len() as u64)?;
        read(&locked(&self.pieces), offset, buffer);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8], durability: Durability) -> Result<()> {
        self.may_write(offset, bytes.len() as u64, durability)?;
        write(&mut locked(&self.pieces), offset, bytes);
        Ok(())
    }

    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        zeroing: Zeroing,
        durability: Durability,
    ) -> Result<()> {
        self.may_write(offset, length, durability)?;
        let mut pieces = locked(&self.pieces);
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let next = end.min((at / PIECE + 1) * PIECE);
            if next - at == PIECE && zeroing == Zeroing::MayUnmap {
                pieces.remove(&(at / PIECE));
            } else if zeroing == Zeroing::Keep || pieces.contains_key(&(at / PIECE)) {
                write(&mut pieces, at, &vec![0; (next - at) as usize]);
            }
            at = next;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.write_zeroes(offset, length, Zeroing::MayUnmap, Durability::Later)
    }

    fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn compare_and_write(
        &self,
        offset: u64,
        expected: &[u8],
        bytes: &[u8],
        durability: Durability,
    ) -> Result<Option<u64>> {
        self.may_write(offset, bytes.len() as u64, durability)?;
        let mut pieces = locked(&self.pieces);
        let mut there = vec![0; expected.len()];
        read(&pieces, offset, &mut there);
        if let Some(differs) = there.iter().zip(expected).position(|(a, b)| a != b) {
            return Ok(Some(differs as u64));
        }
        write(&mut pieces, offset, bytes);
        Ok(None)
    }

    fn most_atomic(&self) -> u32 {
        self.most_atomic
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.geometry().check(offset, length)?;
        let pieces = locked(&self.pieces);
        let mut extents: Vec<Extent> = Vec::new();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let next = end.min((at / PIECE + 1) * PIECE);
            let content = match pieces.contains_key(&(at / PIECE)) {
                true => Content::Data,
                false => Content::Hole,
            };
            let is_full = extents.len() == most.max(1);
            match extents.last_mut() {
                Some(last) if last.content == content => last.length += next - at,
                _ if is_full => break,
                _ => extents.push(Extent { offset: at, length: next - at, content }),
            }
            at = next;
        }
        Ok(extents)
    }

    fn id(&self) -> [u8; 16] {
        self.id
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn it_holds_what_was_written_and_holes() {
        let device = MemoryDevice::new(1 << 20);
        device.write_at(4096 - 512, &[7; 1024], Durability::Now).unwrap();
        let mut bytes = [1; 2048];
        device.read_at(4096 - 1024, &mut bytes).unwrap();
        assert_eq!((bytes[511], bytes[512], bytes[1535], bytes[1536]), (0, 7, 7, 0));
        let hole = |offset, length| Extent { offset, length, content: Content::Hole };
        let data = |offset, length| Extent { offset, length, content: Content::Data };
        assert_eq!(
            device.extents(0, 1 << 20, 9).unwrap(),
            [data(0, 8192), hole(8192, (1 << 20) - 8192)]
        );
        assert_eq!(device.extents(0, 1 << 20, 1).unwrap(), [data(0, 8192)]);
        device.discard(4096, 4096).unwrap();
        assert_eq!(device.extents(4096, 8192, 9).unwrap(), [hole(4096, 8192)]);
        assert_eq!((device.durable(), device.flushes()), (1, 0));
        let same = device.compare_and_write(0, &[0; 512], &[9; 512], Durability::Later).unwrap();
        assert_eq!(same, None);
        let differs = device.compare_and_write(0, &[0; 512], &[9; 512], Durability::Later).unwrap();
        assert_eq!(differs, Some(0));
        assert!(device.write_at(1 << 20, &[0; 512], Durability::Later).is_err());
    }
}
