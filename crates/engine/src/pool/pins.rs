//! Which chunks the garbage collector must keep although no root reaches them yet.
//!
//! A writing session pins every chunk that it stores or re-uses, under one short lock together
//! with the collector's decision which chunks to give up. So a chunk is either pinned before the
//! decision, and kept, or it is given up before it could be pinned, and then the session is told
//! that the pool doesn't have it. No time is measured anywhere.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::{Location, PackId};

/// A set of chunks, as one bit for each of a pack's chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkSet {
    packs: HashMap<PackId, Vec<u64>>,
}

impl ChunkSet {
    /// Adds a chunk; whether it was not in the set before.
    pub(crate) fn insert(&mut self, pack: PackId, ordinal: u32) -> bool {
        let words = self.packs.entry(pack).or_default();
        let word = ordinal as usize / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let bit = 1 << (ordinal % 64);
        let new = words[word] & bit == 0;
        words[word] |= bit;
        new
    }

    /// Whether a chunk is in the set.
    pub(crate) fn contains(&self, pack: PackId, ordinal: u32) -> bool {
        self.packs
            .get(&pack)
            .and_then(|words| words.get(ordinal as usize / 64))
            .is_some_and(|word| word & 1 << (ordinal % 64) != 0)
    }

    /// How many chunks of a pack are in the set.
    pub(crate) fn count(&self, pack: PackId) -> u32 {
        self.packs.get(&pack).map_or(0, |words| words.iter().map(|w| w.count_ones()).sum())
    }

    /// The chunks of one pack.
    pub(crate) fn words(&self, pack: PackId) -> Vec<u64> {
        self.packs.get(&pack).cloned().unwrap_or_default()
    }

    /// Adds all chunks of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (pack, words) in &other.packs {
            let own = self.packs.entry(*pack).or_default();
            if own.len() < words.len() {
                own.resize(words.len(), 0);
            }
            own.iter_mut().zip(words).for_each(|(a, b)| *a |= b);
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    holders: usize,
    pinned: ChunkSet,
    /// Packs that are being given up, with those of their chunks that are being moved.
    doomed: HashMap<PackId, Vec<u64>>,
}

impl Inner {
    fn gave_up(&self, at: &Location) -> bool {
        self.doomed.get(&at.pack).is_some_and(|moved| {
            moved.get(at.ordinal as usize / 64).is_none_or(|w| w & 1 << (at.ordinal % 64) == 0)
        })
    }
}

/// The pins of all sessions of this process.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    inner: Mutex<Inner>,
}

impl Pins {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session, or the collector, begins: pins are kept until the last of them ends.
    pub(crate) fn hold(&self) {
        self.lock().holders += 1;
    }

    /// A holder ends.
    pub(crate) fn release(&self) {
        let mut inner = self.lock();
        inner.holders -= 1;
        if inner.holders == 0 {
            inner.pinned = ChunkSet::default();
            inner.doomed.clear();
        }
    }

    /// Pins a chunk. `false` when the collector has given it up: then the pool doesn't have it.
    pub(crate) fn pin(&self, at: &Location) -> bool {
        let mut inner = self.lock();
        if inner.gave_up(at) {
            return false;
        }
        if inner.holders > 0 {
            inner.pinned.insert(at.pack, at.ordinal);
        }
        true
    }

    /// Whether the collector has not given the chunk up.
    pub(crate) fn keeps(&self, at: &Location) -> bool {
        !self.lock().gave_up(at)
    }

    /// Decides which packs are given up. `choose` sees the pinned chunks and returns the packs,
    /// each with the set of its chunks that live on elsewhere; nobody can pin the others from the
    /// moment it returns. It must be quick: sessions wait.
    pub(crate) fn doom(&self, choose: impl FnOnce(&ChunkSet) -> Vec<(PackId, Vec<u64>)>) {
        let mut inner = self.lock();
        let chosen = choose(&inner.pinned);
        inner.doomed.extend(chosen);
    }

    /// The packs stay after all. Packs that do go stay doomed until the last holder ends: a session
    /// may have looked a chunk up there before, and pin it only now.
    pub(crate) fn undoom(&self, packs: &[PackId]) {
        let mut inner = self.lock();
        packs.iter().for_each(|pack| {
            inner.doomed.remove(pack);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkKind;

    fn at(pack: u64, ordinal: u32) -> Location {
        Location {
            pack: PackId(pack),
            ordinal,
            frame_offset: 0,
            frame_len: 0,
            offset: 0,
            len: 0,
            kind: ChunkKind::Data,
        }
    }

    #[test]
    fn a_chunk_is_pinned_or_given_up_never_both() {
        let pins = Pins::default();
        pins.hold();
        assert!(pins.pin(&at(1, 70)));
        pins.doom(|pinned| {
            assert!(pinned.contains(PackId(1), 70));
            assert_eq!(pinned.count(PackId(1)), 1);
            vec![(PackId(1), pinned.words(PackId(1))), (PackId(2), Vec::new())]
        });
        assert!(pins.pin(&at(1, 70)), "it is being moved, so it stays");
        assert!(!pins.pin(&at(1, 71)));
        assert!(!pins.pin(&at(2, 0)));
        assert!(pins.pin(&at(3, 0)));
        pins.undoom(&[PackId(2)]);
        assert!(pins.pin(&at(2, 0)));
    }

    #[test]
    fn the_last_holder_takes_the_pins_away() {
        let pins = Pins::default();
        pins.hold();
        pins.hold();
        pins.pin(&at(1, 1));
        pins.release();
        pins.doom(|pinned| {
            assert!(pinned.contains(PackId(1), 1));
            Vec::new()
        });
        pins.release();
        pins.doom(|pinned| {
            assert!(!pinned.contains(PackId(1), 1));
            Vec::new()
        });
    }
}
