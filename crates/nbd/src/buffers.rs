//! Buffers that are used again, and bounded: no request costs the system fresh memory, and no crowd of
//! clients all of it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a small buffer: a page and what stands before it. A connection keeps some.
const SMALL: usize = 4096 + 64;
const SMALL_KEPT: usize = 64;
/// Larger ones are counted, over all connections; between are those that come and go.
const COUNTED: usize = 64 << 10;
/// Counted buffers are a multiple of this, and a bit more.
const STEP: usize = 64 << 10;
/// Bytes of counted buffers that are kept though nobody uses them.
const KEPT: usize = 32 << 20;
/// The least that all of them have, in bytes: the largest request, going either way.
const LEAST: usize = 80 << 20;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The large buffers of all connections.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    /// How long somebody waits for others' buffers.
    patience: Duration,
    state: Mutex<Large>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Large {
    used: usize,
    waiting: usize,
    kept: Vec<Vec<u8>>,
    kept_bytes: usize,
}

impl Memory {
    pub(crate) fn new(limit: usize, patience: Duration) -> Arc<Self> {
        let (state, freed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { limit: limit.max(LEAST), patience, state, freed })
    }

    fn take(&self, length: usize, wait: bool) -> Option<Vec<u8>> {
        let rounded = length.checked_next_multiple_of(STEP)?;
        let until = Instant::now() + self.patience;
        let mut state = locked(&self.state);
        while state.used.saturating_add(rounded * 2) > self.limit {
            let left = until.saturating_duration_since(Instant::now());
            if !wait || left.is_zero() {
                return None;
            }
            state.waiting += 1;
            let waited = self.freed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        let fits = |bytes: &Vec<u8>| (rounded..=rounded * 2).contains(&bytes.len());
        if let Some(found) = state.kept.iter().position(fits) {
            let bytes = state.kept.swap_remove(found);
            state.kept_bytes -= bytes.len();
            state.used += bytes.len();
            return Some(bytes);
        }
        state.used += rounded;
        drop(state);
        Some(vec![0; rounded])
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut state = locked(&self.state);
        state.used -= bytes.len();
        if state.kept_bytes + bytes.len() <= KEPT {
            state.kept_bytes += bytes.len();
            state.kept.push(bytes);
        }
        if state.waiting > 0 {
            self.freed.notify_all();
        }
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
            locked(&self.small).pop().unwrap_or_else(|| vec![0; SMALL])
        } else if length <= COUNTED {
            vec![0; length]
        } else {
            self.memory.take(length, wait)?
        };
        Some(Buffer { bytes, home: Arc::clone(self) })
    }

    /// A buffer of a size that needs no waiting.
    pub(crate) fn small(self: &Arc<Self>) -> Buffer {
        let bytes = locked(&self.small).pop().unwrap_or_else(|| vec![0; SMALL]);
        Buffer { bytes, home: Arc::clone(self) }
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
        if bytes.len() > COUNTED {
            self.home.memory.give(bytes);
        } else if bytes.len() == SMALL {
            let mut small = locked(&self.home.small);
            if small.len() < SMALL_KEPT {
                small.push(bytes);
            }
        }
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
        assert_eq!(other.take(COUNTED, false).unwrap().len(), COUNTED);
        drop(first);
        let again = other.take(32 << 20, false).unwrap();
        assert_eq!(locked(&memory.state).kept.len(), 0, "it was made anew");
        drop(again);
        assert_eq!(locked(&memory.state).used, 0);
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
    }
}
