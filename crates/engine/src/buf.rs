//! Page-aligned buffers that are used again and again.
//!
//! On a virtual machine a fresh page costs more than hashing its content, so the hot paths touch
//! each page once and keep it (see `docs/benchmarks.md`).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The unit of direct input and output, in bytes.
pub const PAGE: usize = 4096;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Bytes whose address and capacity are multiples of [`PAGE`]. The content is zero at first.
#[derive(Default)]
pub struct AlignedBuf {
    pages: Vec<Page>,
}

impl AlignedBuf {
    /// A buffer of at least `len` bytes, rounded up to whole pages.
    pub fn new(len: usize) -> Self {
        Self { pages: vec![bytemuck::Zeroable::zeroed(); len.div_ceil(PAGE)] }
    }

    /// Makes it at least `len` bytes long; what is in it stays.
    pub fn grow(&mut self, len: usize) {
        if self.len() < len {
            self.pages.resize(len.div_ceil(PAGE), bytemuck::Zeroable::zeroed());
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.pages)
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.pages)
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len())
    }
}

#[derive(Debug)]
struct Shelf {
    free: Mutex<(Vec<AlignedBuf>, usize)>,
    returned: Condvar,
    size: usize,
}

/// A bounded set of equal buffers. [`BufPool::take`] waits until one is free: that is what keeps
/// a fast reader from running ahead of a slow writer.
#[derive(Clone, Debug)]
pub struct BufPool {
    shelf: Arc<Shelf>,
}

impl BufPool {
    /// A set of at most `count` buffers of `size` bytes; they are made when first needed.
    pub fn new(count: usize, size: usize) -> Self {
        let shelf = Shelf { free: Mutex::new((Vec::new(), count)), returned: Condvar::new(), size };
        Self { shelf: Arc::new(shelf) }
    }

    /// Takes a buffer, waiting for one when all are in use. Its content is whatever was last in it.
    pub fn take(&self) -> PooledBuf {
        let mut free = self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(buf) = free.0.pop() {
                return PooledBuf { buf, shelf: Arc::clone(&self.shelf) };
            }
            if free.1 > 0 {
                free.1 -= 1;
                drop(free);
                let buf = AlignedBuf::new(self.shelf.size);
                return PooledBuf { buf, shelf: Arc::clone(&self.shelf) };
            }
            free = self.shelf.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A buffer of a [`BufPool`]; it goes back when dropped.
pub struct PooledBuf {
    buf: AlignedBuf,
    shelf: Arc<Shelf>,
}

impl Deref for PooledBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buf
    }
}

impl DerefMut for PooledBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf
    }
}

impl fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledBuf({} bytes)", self.len())
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        let buf = std::mem::take(&mut self.buf);
        self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner).0.push(buf);
        self.shelf.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_bounded() {
        let pool = BufPool::new(1, 10_000);
        let first = pool.take();
        assert_eq!(first.as_ptr() as usize % PAGE, 0);
        assert_eq!(first.len(), 3 * PAGE);
        let address = first.as_ptr() as usize;
        let waiter = std::thread::spawn({
            let pool = pool.clone();
            move || pool.take().as_ptr() as usize
        });
        drop(first);
        assert_eq!(waiter.join().expect("the waiter ends"), address);
    }
}
