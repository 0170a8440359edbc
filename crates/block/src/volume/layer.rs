//! What the log holds, by place: a layer over a map or over other layers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::room::{Owed, Room};
use super::segment::Place;

/// What is at some place of a layer.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Bytes of a record's payload, from `skip` on.
    Log {
        /// The record.
        place: Place,
        /// How much of its payload comes before.
        skip: u32,
    },
    /// Zeroes.
    Zeroes,
}

impl What {
    /// The same, so many bytes later.
    fn after(&self, bytes: u64) -> Self {
        match self {
            Self::Log { place, skip } => {
                Self::Log { place: place.clone(), skip: skip + bytes as u32 }
            }
            Self::Zeroes => Self::Zeroes,
        }
    }
}

/// What was written since some moment, newest alone.
#[derive(Debug)]
pub(crate) struct Layer {
    /// By where they begin: where they end, and what they are. They don't overlap.
    pieces: BTreeMap<u64, (u64, What)>,
    /// Which chunks may have to be stored, 64 to a word, by number divided by 64.
    chunks: BTreeMap<u64, u64>,
    chunk: u64,
    /// What settling it may take.
    owed: Owed,
}

impl Layer {
    /// An empty one of a volume with chunks of that many bytes.
    pub(crate) fn new(chunk: u64, room: &Arc<Room>) -> Self {
        Self {
            pieces: BTreeMap::new(),
            chunks: BTreeMap::new(),
            chunk,
            owed: Owed::new(Arc::clone(room)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Puts something in the place of what is there.
    pub(crate) fn insert(&mut self, range: Range<u64>, what: What) {
        if range.is_empty() {
            return;
        }
        self.clear(&range);
        match &what {
            What::Log { .. } => self.charge(&range),
            // Whole chunks become holes, however many they are.
            What::Zeroes => {
                for edge in [range.start, range.end] {
                    if !edge.is_multiple_of(self.chunk) {
                        self.charge(&(edge..edge + 1));
                    }
                }
            }
        }
        self.pieces.insert(range.start, (range.end, what));
    }

    fn clear(&mut self, range: &Range<u64>) {
        let before = self.pieces.range(..range.start).next_back();
        if let Some((&start, (end, what))) = before.filter(|(_, (end, _))| *end > range.start) {
            let (end, what) = (*end, what.clone());
            if end > range.end {
                self.pieces.insert(range.end, (end, what.after(range.end - start)));
            }
            self.pieces.insert(start, (range.start, what));
        }
        let within: Vec<u64> = self.pieces.range(range.clone()).map(|(start, _)| *start).collect();
        for start in within {
            if let Some((end, what)) = self.pieces.remove(&start)
                && end > range.end
            {
                self.pieces.insert(range.end, (end, what.after(range.end - start)));
            }
        }
    }

    /// How many bytes the chunks have that settling may have to store.
    pub(crate) fn bytes(&self) -> u64 {
        let count: u64 = self.chunks.values().map(|word| u64::from(word.count_ones())).sum();
        count * self.chunk
    }

    /// Counts the chunks of a range as such that settling may have to store.
    fn charge(&mut self, range: &Range<u64>) {
        let (first, last) = (range.start / self.chunk, (range.end - 1) / self.chunk);
        for word in first / 64..=last / 64 {
            let low = if word == first / 64 { first % 64 } else { 0 };
            let high = if word == last / 64 { last % 64 } else { 63 };
            let bits = (u64::MAX << low) & (u64::MAX >> (63 - high));
            let there = self.chunks.entry(word).or_default();
            let new = (bits & !*there).count_ones();
            *there |= bits;
            self.owed.add(self.chunk, new.into());
        }
    }

    /// The chunks that have anything, as ranges of bytes that don't touch each other, in order.
    pub(crate) fn parts(&self) -> Vec<Range<u64>> {
        let mut parts: Vec<Range<u64>> = Vec::new();
        for (start, (end, _)) in &self.pieces {
            let start = start / self.chunk * self.chunk;
            let end = end.checked_next_multiple_of(self.chunk).unwrap_or(*end);
            match parts.last_mut() {
                Some(last) if last.end >= start => last.end = last.end.max(end),
                _ => parts.push(start..end),
            }
        }
        parts
    }
}

/// Gives what is in a range, from its start to its end in order; `None` where no layer has anything.
/// The first layer is the topmost.
pub(crate) fn find<'l>(
    layers: &[&'l Layer],
    range: Range<u64>,
    found: &mut dyn FnMut(Range<u64>, Option<(&'l What, u64)>),
) {
    let Some((top, below)) = layers.split_first() else {
        if !range.is_empty() {
            found(range, None);
        }
        return;
    };
    let mut at = range.start;
    let before = top.pieces.range(..range.start).next_back();
    let before = before.filter(|(_, (end, _))| *end > range.start);
    for (&start, (end, what)) in before.into_iter().chain(top.pieces.range(range.clone())) {
        let (from, to) = (start.max(range.start), (*end).min(range.end));
        find(below, at..from, found);
        found(from..to, Some((what, from - start)));
        at = to;
    }
    find(below, at..range.end, found);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::volume::testing::place;

    const SIZE: usize = 400;

    /// What is at each byte: the record and the byte in it, zeroes, or nothing.
    fn flat(layers: &[&Layer]) -> Vec<Option<(u64, u64)>> {
        let mut bytes = vec![None; SIZE];
        let mut next = 0;
        find(layers, 0..SIZE as u64, &mut |range, what| {
            assert_eq!(range.start, next);
            next = range.end;
            for byte in range.clone() {
                bytes[byte as usize] = what.map(|(what, after)| match what {
                    What::Log { place, skip } => {
                        (place.at, u64::from(*skip) + after + byte - range.start)
                    }
                    What::Zeroes => (u64::MAX, 0),
                });
            }
        });
        assert_eq!(next, SIZE as u64);
        bytes
    }

    #[test]
    fn zeroes_cost_what_their_ends_may_have_to_store() {
        let room = Arc::new(Room::default());
        let mut layer = Layer::new(4096, &room);
        layer.insert(0..1 << 55, What::Zeroes);
        assert_eq!((room.owed(), layer.chunks.len()), (0, 0));
        assert_eq!(layer.parts(), std::slice::from_ref(&(0..1 << 55)));
        layer.insert(0..100, What::Log { place: place(1), skip: 0 });
        let one = room.owed();
        layer.insert(200..4096 * 9, What::Zeroes);
        assert_eq!(room.owed(), one);
        layer.insert(4096..4096 * 9 + 1, What::Zeroes);
        assert_eq!(room.owed(), 2 * one);
    }

    proptest! {
        #[test]
        fn the_newest_is_found(
            writes in proptest::collection::vec(
                (0..2usize, 0..SIZE as u64, 1..90u64, any::<bool>()), 1..40),
        ) {
            let room = Arc::new(Room::default());
            let mut layers = [Layer::new(16, &room), Layer::new(16, &room)];
            let mut model = [vec![None; SIZE], vec![None; SIZE]];
            for (record, (which, offset, length, zero)) in writes.into_iter().enumerate() {
                let range = offset..(offset + length).min(SIZE as u64);
                let what = match zero {
                    true => What::Zeroes,
                    false => What::Log { place: place(record as u64), skip: 0 },
                };
                layers[which].insert(range.clone(), what);
                for byte in range.clone() {
                    let there = (record as u64, byte - offset);
                    model[which][byte as usize] = Some(if zero { (u64::MAX, 0) } else { there });
                }
            }
            let [top, below] = &layers;
            for (layer, model) in layers.iter().zip(&model) {
                let parts = layer.parts();
                for (byte, there) in model.iter().enumerate() {
                    let part = parts.iter().find(|part| part.contains(&(byte as u64)));
                    prop_assert!(there.is_none() || part.is_some());
                    if let Some(part) = part {
                        let chunk = byte / 16 * 16;
                        let end = (chunk + 16).min(SIZE);
                        prop_assert!(model[chunk..end].iter().any(Option::is_some));
                        prop_assert!(part.start % 16 == 0 && part.end % 16 == 0);
                    }
                }
            }
            let both: Vec<_> =
                model[0].iter().zip(&model[1]).map(|(top, below)| top.or(*below)).collect();
            prop_assert_eq!(flat(&[top, below]), both);
            drop(layers);
            prop_assert_eq!(room.owed(), 0);
        }
    }
}
