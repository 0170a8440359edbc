//! Buffers that are used again, and bounded: no request costs the system fresh memory, and no crowd of
//! clients all of it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a small buffer: a page and what stands before it. A connection keeps some.
const SMALL: usize = 4096 + 64;
const SMALL_KEPT: usize = 64;
/// Bytes of small buffers that a connection keeps, at most.
pub(crate) const KEPT_BY_ONE: usize = SMALL * SMALL_KEPT;
/// Larger ones are kept for all connections; between are those that come and go.
const MEDIUM: usize = 64 << 10;
/// Large buffers are a multiple of this.
const STEP: usize = 64 << 10;
/// Bytes of large buffers that are kept though nobody uses them.
const KEPT: usize = 32 << 20;
/// The least that all of them have, in bytes: the largest request, going either way.
pub(crate) const LEAST: usize = 80 << 20;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory of all connections: every buffer is counted. Who needs more waits for what others give back;
/// only small replies to what was read already don't, and nothing more is read while they go beyond it.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    /// How long somebody waits for others' buffers.
    patience: Duration,
    account: Mutex<Account>,
    freed: Condvar,
    /// All of it is used.
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct Account {
    used: usize,
    waiting: usize,
    /// Large ones that nobody uses. They are counted beside what is used, and make room for it.
    kept: Vec<Vec<u8>>,
    kept_bytes: usize,
}

impl Memory {
    /// `limit` bytes, of which there must be [`LEAST`].
    pub(crate) fn new(limit: usize, patience: Duration) -> Arc<Self> {
        let (account, freed) = (Mutex::default(), Condvar::new());
        let (limit, full) = (limit.max(LEAST), AtomicBool::new(false));
        Arc::new(Self { limit, patience, account, freed, full })
    }

    /// The account, when there is room for so many bytes; `None` when there is none for long or, without
    /// waiting, now.
    fn room(&self, bytes: usize, wait: bool) -> Option<MutexGuard<'_, Account>> {
        let mut account = locked(&self.account);
        let mut until = None;
        while account.used.saturating_add(bytes) > self.limit {
            let now = Instant::now();
            let left = until.get_or_insert(now + self.patience).saturating_duration_since(now);
            if !wait || left.is_zero() {
                return None;
            }
            account.waiting += 1;
            let waited = self.freed.wait_timeout(account, left);
            account = waited.unwrap_or_else(PoisonError::into_inner).0;
            account.waiting -= 1;
        }
        while account.used + account.kept_bytes + bytes > self.limit {
            let Some(unused) = account.kept.pop() else { break };
            account.kept_bytes -= unused.len();
        }
        Some(account)
    }

    fn count(&self, account: &mut Account, bytes: usize) {
        account.used += bytes;
        self.full.store(account.used >= self.limit, Ordering::Relaxed);
    }

    fn give_back(&self, account: &mut Account, bytes: usize) {
        account.used -= bytes;
        self.full.store(account.used >= self.limit, Ordering::Relaxed);
        if account.waiting > 0 {
            self.freed.notify_all();
        }
    }

    /// Whether all of it is used.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Bytes that are used, and kept.
    pub(crate) fn bytes(&self) -> usize {
        let account = locked(&self.account);
        account.used + account.kept_bytes
    }

    fn take(&self, length: usize, wait: bool) -> Option<Vec<u8>> {
        let rounded = length.checked_next_multiple_of(STEP)?;
        // As much again is left, so that what some hold is never all.
        let mut account = self.room(rounded.checked_mul(2)?, wait)?;
        let fits = |bytes: &Vec<u8>| (rounded..=rounded * 2).contains(&bytes.len());
        if let Some(found) = account.kept.iter().position(fits) {
            let bytes = account.kept.swap_remove(found);
            account.kept_bytes -= bytes.len();
            self.count(&mut account, bytes.len());
            return Some(bytes);
        }
        self.count(&mut account, rounded);
        drop(account);
        Some(vec![0; rounded])
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut account = locked(&self.account);
        self.give_back(&mut account, bytes.len());
        if account.kept_bytes + bytes.len() <= KEPT {
            account.kept_bytes += bytes.len();
            account.kept.push(bytes);
        }
    }

    fn overdraw(&self, bytes: usize) {
        let mut account = locked(&self.account);
        self.count(&mut account, bytes);
        // What is kept makes room for it.
        while account.used + account.kept_bytes > self.limit {
            let Some(unused) = account.kept.pop() else { break };
            account.kept_bytes -= unused.len();
        }
    }

    fn release(&self, bytes: usize) {
        self.give_back(&mut locked(&self.account), bytes);
    }
}

/// Bytes that are counted for as long as this is there.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: usize,
    memory: Arc<Memory>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.release(self.bytes);
    }
}

/// The buffers of a connection.
#[derive(Debug)]
pub(crate) struct Buffers {
    small: Mutex<Vec<Vec<u8>>>,
    memory: Arc<Memory>,
}

impl Buffers {
    pub(crate) fn new(memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self { small: Mutex::default(), memory })
    }

    /// A buffer of at least so many bytes, which holds what it was used for last; `None` when others
    /// have too much, for long or, if it isn't to wait, now.
    pub(crate) fn take(self: &Arc<Self>, length: usize, wait: bool) -> Option<Buffer> {
        let bytes = if length <= SMALL {
            return Some(self.small());
        } else if length <= MEDIUM {
            let mut account = self.memory.room(length, wait)?;
            self.memory.count(&mut account, length);
            drop(account);
            vec![0; length]
        } else {
            self.memory.take(length, wait)?
        };
        Some(Buffer { bytes, home: Arc::clone(self) })
    }

    /// A buffer of a size that needs no waiting.
    pub(crate) fn small(self: &Arc<Self>) -> Buffer {
        let kept = locked(&self.small).pop();
        let bytes = kept.unwrap_or_else(|| {
            self.memory.overdraw(SMALL);
            vec![0; SMALL]
        });
        Buffer { bytes, home: Arc::clone(self) }
    }

    /// Counts bytes that are no buffer; `None` as for [`Buffers::take`], after waiting.
    pub(crate) fn room(&self, bytes: usize) -> Option<Room> {
        let mut account = self.memory.room(bytes, true)?;
        self.memory.count(&mut account, bytes);
        drop(account);
        Some(Room { bytes, memory: Arc::clone(&self.memory) })
    }

    /// As [`Buffers::room`], for what a connection has from its beginning, whatever others have.
    pub(crate) fn set_aside(&self, bytes: usize) -> Room {
        self.memory.overdraw(bytes);
        Room { bytes, memory: Arc::clone(&self.memory) }
    }

    /// Waits while all memory is used; `false` when it is for long.
    pub(crate) fn wait(&self) -> bool {
        !self.memory.is_full() || self.memory.room(1, true).is_some()
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let small = locked(&self.small).len();
        self.memory.release(small * SMALL);
    }
}

/// Bytes that go back where they came from.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let length = bytes.len();
        if length > MEDIUM {
            return self.home.memory.give(bytes);
        }
        if length == SMALL {
            let mut small = locked(&self.home.small);
            if small.len() < SMALL_KEPT {
                return small.push(bytes);
            }
        }
        drop(bytes);
        self.home.memory.release(length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn large_buffers_are_bounded_over_all_and_used_again() {
        let memory = Memory::new(0, Duration::ZERO);
        let (one, other) = (Buffers::new(Arc::clone(&memory)), Buffers::new(Arc::clone(&memory)));
        let first = one.take(32 << 20, false).unwrap();
        assert!(other.take(32 << 20, true).is_none(), "there is no room for two");
        // What is small has room.
        assert_eq!(other.take(1, false).unwrap().len(), SMALL);
        assert_eq!(other.take(MEDIUM, false).unwrap().len(), MEDIUM);
        drop(first);
        let again = other.take(32 << 20, false).unwrap();
        assert_eq!(locked(&memory.account).kept.len(), 0, "it was made anew");
        drop(again);
        drop((one, other));
        assert_eq!(locked(&memory.account).used, 0);
    }

    #[test]
    fn everything_is_counted_and_what_is_kept_makes_room() {
        let memory = Memory::new(0, Duration::ZERO);
        let buffers = Buffers::new(Arc::clone(&memory));
        drop(buffers.take(32 << 20, false).unwrap());
        assert_eq!(memory.bytes(), 32 << 20, "it is kept");
        let mut held = Vec::new();
        while let Some(buffer) = buffers.take(MEDIUM, true) {
            held.push(buffer);
            assert!(memory.bytes() <= LEAST);
        }
        assert_eq!(held.len(), LEAST / MEDIUM, "nothing is kept from who needs it");
        assert!(memory.is_full() && !buffers.wait());
        assert!(buffers.room(1).is_none() && buffers.take(SMALL + 1, true).is_none());
        // What was read before is answered all the same, and counts.
        let small: Vec<_> = (0..2 * SMALL_KEPT).map(|_| buffers.small()).collect();
        assert_eq!(memory.bytes(), LEAST + small.len() * SMALL);
        drop(small);
        assert_eq!(memory.bytes(), LEAST + KEPT_BY_ONE);
        drop(held);
        assert!(!memory.is_full() && buffers.wait());
        let room = buffers.room(LEAST / 2).unwrap();
        assert_eq!(memory.bytes(), LEAST / 2 + KEPT_BY_ONE);
        drop((room, buffers.set_aside(7)));
        drop(buffers);
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn whoever_waits_gets_what_is_given_back() {
        let memory = Memory::new(0, Duration::from_secs(60));
        let buffers = Buffers::new(memory);
        let first = buffers.take(32 << 20, false).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| buffers.take(32 << 20, true).is_some());
            drop(first);
            assert!(waiting.join().unwrap());
        });
        // And who waits to read more goes on as soon as there is any.
        let all: Vec<_> = std::iter::from_fn(|| buffers.take(MEDIUM, false)).collect();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| buffers.wait());
            drop(all);
            assert!(waiting.join().unwrap());
        });
    }
}
