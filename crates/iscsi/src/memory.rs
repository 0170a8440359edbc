//! Memory that grows by what initiators send: one bound for all connections of a server.
//!
//! Nobody waits for it, for those who hold it may themselves wait for data of their initiators: what finds no
//! room is refused, and tried again by who sent it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that the thread of a connection, or a worker, uses of its own at most: what is read at once, answers
/// that wait to be sent, and twice the longest data of a PDU to work with.
pub(crate) const OF_THREAD: usize = 1600 << 10;

/// The bound.
#[derive(Debug)]
pub(crate) struct Memory {
    most: usize,
    used: AtomicUsize,
}

/// One who takes of it, and gets no more than is left for all others: so that there is always some for who
/// comes next.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    memory: Arc<Memory>,
    own: Arc<AtomicUsize>,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    share: Share,
    bytes: usize,
}

/// Bytes that are counted.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    held: Held,
}

impl Memory {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicUsize::new(0) })
    }

    /// Whether more than an eighth of it is used: what is kept to be used again takes no connection its room.
    fn is_scarce(&self) -> bool {
        self.used.load(Ordering::Acquire) > self.most / 8
    }
}

impl Share {
    /// One who has nothing of it yet.
    pub(crate) fn of(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), own: Arc::default() }
    }

    /// Takes so many bytes, if there are as many. Of each share, one thread at a time does.
    pub(crate) fn take(&self, bytes: usize) -> Option<Held> {
        let own = self.own.load(Ordering::Acquire);
        let taken = |used: usize| {
            let left = self.memory.most.checked_sub(used)?;
            (bytes == 0 || own.checked_add(bytes)? <= left).then_some(used + bytes)
        };
        self.memory.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).ok()?;
        self.own.fetch_add(bytes, Ordering::AcqRel);
        Some(Held { share: self.clone(), bytes })
    }

    /// A buffer of that length, and so many bytes for whoever works with it.
    pub(crate) fn buffer(&self, length: usize, beside: usize) -> Option<Buffer> {
        let held = self.take(length.checked_add(beside)?)?;
        Some(Buffer { bytes: vec![0; length], held })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.own.fetch_sub(self.bytes, Ordering::AcqRel);
        self.share.memory.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Buffer {
    /// The first so many of its bytes.
    pub(crate) fn first(&self, count: usize) -> &[u8] {
        self.bytes.get(..count).unwrap_or_default()
    }

    /// Those from `from` on and before `end`.
    pub(crate) fn part(&mut self, from: usize, end: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(from..end)
    }

    /// Puts bytes at its start.
    pub(crate) fn begin_with(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is worth being kept to be used again: it isn't that large, and there is enough memory.
    pub(crate) fn is_worth_keeping(&self, most: usize) -> bool {
        self.held.bytes <= most && !self.held.share.memory.is_scarce()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn nobody_has_more_than_is_left() {
        let memory = Memory::new(1000);
        let (one, other, third) = (Share::of(&memory), Share::of(&memory), Share::of(&memory));
        assert!(one.take(1001).is_none());
        let first = one.take(500).unwrap();
        assert!(one.take(1).is_none(), "half of all is left, and it has as much");
        let second = other.take(300).unwrap();
        assert!(other.take(1).is_none());
        assert!(third.take(201).is_none());
        let _third = third.take(100).unwrap();
        assert_eq!(memory.used.load(Ordering::Acquire), 900);
        drop((first, second));
        assert_eq!(memory.used.load(Ordering::Acquire), 100);
        assert!(one.take(900).is_some());
    }

    #[test]
    fn no_more_is_given_than_there_is_however_many_ask() {
        let memory = Memory::new(1000);
        let held: Vec<_> = std::thread::scope(|scope| {
            let takers = (0..8).map(|_| {
                let share = Share::of(&memory);
                scope.spawn(move || (0..200).filter_map(|_| share.take(7)).collect::<Vec<_>>())
            });
            let takers: Vec<_> = takers.collect();
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        let used = memory.used.load(Ordering::Acquire);
        assert_eq!(used, held.len() * 7);
        // Eight who have as much as is left, each to a piece: eight ninths.
        assert!((800..=1000).contains(&used), "{used}");
        drop(held);
        assert_eq!(memory.used.load(Ordering::Acquire), 0);
    }
}
