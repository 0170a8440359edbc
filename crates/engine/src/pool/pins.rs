//! Which chunks the garbage collector must keep although no root reaches them yet.
//!
//! A writing session pins every chunk that it stores or re-uses, under one short lock together
//! with the collector's decision which chunks to give up. So a chunk is either pinned before the
//! decision, and kept, or it is given up before it could be pinned, and then the session is told
//! that the pool doesn't have it. No time is measured anywhere.
//!
//! A pin stays until all have ended that held when it was made. So sessions that overlap without an end don't
//! keep for good what the first of them pinned. A collection keeps all that is pinned when it begins: a session
//! may have its root made, and end, after roots were marked.

use std::collections::{HashMap, VecDeque};
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

    /// Whether nothing was ever added.
    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
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

/// Sessions that began without a pin in between, and what was pinned before the next ones began.
#[derive(Debug)]
struct Generation {
    number: u64,
    holders: usize,
    pinned: ChunkSet,
}

impl Generation {
    fn hold(&mut self) -> u64 {
        self.holders += 1;
        self.number
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Oldest first, each with a holder.
    generations: VecDeque<Generation>,
    number: u64,
    /// Packs that are being given up, with those of their chunks that are being moved.
    doomed: HashMap<PackId, Vec<u64>>,
}

impl Inner {
    fn begin(&mut self) {
        self.number += 1;
        let (number, pinned) = (self.number, ChunkSet::default());
        self.generations.push_back(Generation { number, holders: 0, pinned });
    }

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

    /// A session begins: what is pinned from here on is kept until it ends. What it is to be released by.
    pub(crate) fn hold(&self) -> u64 {
        let mut inner = self.lock();
        let is_new = inner.generations.back().is_none_or(|last| !last.pinned.is_empty());
        if is_new {
            inner.begin();
        }
        inner.generations.back_mut().map_or(0, Generation::hold)
    }

    /// A collection begins: what is pinned already is kept until it ends, too.
    pub(crate) fn hold_all(&self) -> u64 {
        let mut inner = self.lock();
        if inner.generations.is_empty() {
            inner.begin();
        }
        inner.generations.front_mut().map_or(0, Generation::hold)
    }

    /// A holder ends.
    pub(crate) fn release(&self, hold: u64) {
        let mut inner = self.lock();
        let place = inner.generations.iter().position(|one| one.number == hold);
        let Some(place) = place else { return };
        if let Some(one) = inner.generations.get_mut(place) {
            one.holders -= 1;
            if one.holders > 0 {
                return;
            }
        }
        let ended = inner.generations.remove(place);
        // Those that began before held, too, when its pins were made.
        let older = place.checked_sub(1).and_then(|older| inner.generations.get_mut(older));
        if let (Some(older), Some(ended)) = (older, ended) {
            older.pinned.extend(&ended.pinned);
        }
        if inner.generations.is_empty() {
            inner.doomed.clear();
        }
    }

    /// Pins a chunk. `false` when the collector has given it up: then the pool doesn't have it.
    pub(crate) fn pin(&self, at: &Location) -> bool {
        let mut inner = self.lock();
        if inner.gave_up(at) {
            return false;
        }
        if let Some(last) = inner.generations.back_mut() {
            last.pinned.insert(at.pack, at.ordinal);
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
        let mut pinned = ChunkSet::default();
        inner.generations.iter().for_each(|one| pinned.extend(&one.pinned));
        let chosen = choose(&pinned);
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
        let _hold = pins.hold();
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

    fn is_pinned(pins: &Pins, ordinal: u32) -> bool {
        let mut is_pinned = false;
        pins.doom(|pinned| {
            is_pinned = pinned.contains(PackId(1), ordinal);
            Vec::new()
        });
        is_pinned
    }

    #[test]
    fn the_last_that_held_takes_a_pin_away() {
        let pins = Pins::default();
        let holds = [pins.hold(), pins.hold()];
        pins.pin(&at(1, 1));
        pins.release(holds[0]);
        assert!(is_pinned(&pins, 1));
        // Not those that came after.
        let later = pins.hold();
        pins.pin(&at(1, 2));
        pins.release(holds[1]);
        assert!(!is_pinned(&pins, 1));
        assert!(is_pinned(&pins, 2));
        pins.release(later);
        assert!(!is_pinned(&pins, 2));
        assert!(pins.lock().generations.is_empty());
    }

    #[test]
    fn what_ended_sessions_pinned_stays_for_older_ones_and_for_collections_that_began_meanwhile() {
        let pins = Pins::default();
        let old = pins.hold();
        pins.pin(&at(1, 1));
        let young = pins.hold();
        pins.pin(&at(1, 2));
        let collection = pins.hold_all();
        pins.release(young);
        pins.pin(&at(1, 3));
        pins.release(old);
        assert!((1..=3).all(|ordinal| is_pinned(&pins, ordinal)));
        pins.release(collection);
        assert!((1..=3).all(|ordinal| !is_pinned(&pins, ordinal)));
        // A collection that comes first holds what comes after.
        let collection = pins.hold_all();
        let session = pins.hold();
        pins.pin(&at(1, 4));
        pins.release(session);
        assert!(is_pinned(&pins, 4));
        pins.release(collection);
        assert!(!is_pinned(&pins, 4));
    }

    #[test]
    fn sessions_that_overlap_without_an_end_keep_no_more_than_the_last_ones_pinned() {
        let pins = Pins::default();
        let mut last = pins.hold();
        for ordinal in 0..1000 {
            pins.pin(&at(1, ordinal));
            let next = pins.hold();
            pins.release(last);
            last = next;
            assert!(pins.lock().generations.len() == 1 && !is_pinned(&pins, ordinal));
        }
    }
}
