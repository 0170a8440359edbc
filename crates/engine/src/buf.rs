//! Page-aligned buffers that are used again and again.
//!
//! On a virtual machine a fresh page costs more than hashing its content, so the hot paths touch
//! each page once and keep it. Large buffers lie on huge pages: a disk that takes each 4 KiB page
//! of a request as a piece of its own moves twice as much when there is one piece (see
//! `docs/benchmarks.md`).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use memmap2::MmapMut;

/// The unit of direct input and output, in bytes.
pub const PAGE: usize = 4096;
/// The size of a huge page, in bytes. Where it is another, nothing but speed is lost.
const HUGE: usize = 2 << 20;
/// Buffers from this size on are put on huge pages, in bytes.
const LARGE: usize = 1 << 20;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Bytes whose address and capacity are multiples of [`PAGE`]. The content is zero at first.
pub struct AlignedBuf {
    memory: Memory,
}

enum Memory {
    Small(Vec<Page>),
    /// A mapping, where in it the first huge page begins, and how long the buffer is.
    Large(MmapMut, usize, usize),
}

impl Memory {
    fn new(len: usize) -> Self {
        let len = len.next_multiple_of(PAGE);
        if len >= LARGE
            && let Some(large) = Self::large(len)
        {
            return large;
        }
        Self::Small(vec![bytemuck::Zeroable::zeroed(); len / PAGE])
    }

    /// None when the system gives no mapping.
    fn large(len: usize) -> Option<Self> {
        // What lies outside of the huge pages is never touched and so costs nothing.
        let map = MmapMut::map_anon(len.checked_next_multiple_of(HUGE)? + HUGE).ok()?;
        // Where this isn't to be had, small pages do.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let address = map.as_ptr() as usize;
        let start = address.next_multiple_of(HUGE) - address;
        Some(Self::Large(map, start, len))
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        Self { memory: Memory::Small(Vec::new()) }
    }
}

impl AlignedBuf {
    /// A buffer of at least `len` bytes, rounded up to whole pages.
    pub fn new(len: usize) -> Self {
        Self { memory: Memory::new(len) }
    }

    /// Makes it at least `len` bytes long; what is in it stays.
    pub fn grow(&mut self, len: usize) {
        if self.len() < len {
            let mut larger = Self::new(len);
            larger[..self.len()].copy_from_slice(self);
            *self = larger;
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Small(pages) => bytemuck::cast_slice(pages),
            Memory::Large(map, start, len) => &map[*start..*start + *len],
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Small(pages) => bytemuck::cast_slice_mut(pages),
            Memory::Large(map, start, len) => &mut map[*start..*start + *len],
        }
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
    fn growing_keeps_what_is_there() {
        let mut buf = AlignedBuf::default();
        for (i, len) in [1, PAGE + 1, LARGE - PAGE, LARGE + 1, HUGE + 1].into_iter().enumerate() {
            buf.grow(len);
            assert_eq!(buf.len(), len.next_multiple_of(PAGE));
            let wanted = if len > LARGE { HUGE } else { PAGE };
            assert_eq!(buf.as_ptr() as usize % wanted, 0, "{len} bytes");
            assert!(buf[i..].iter().all(|b| *b == 0));
            buf[i] = i as u8 + 1;
            assert!(buf[..=i].iter().zip(1..).all(|(b, i)| *b == i));
        }
    }

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
