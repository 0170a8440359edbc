//! Walking several segments in one order, and choosing which to make one.
//!
//! Segments are grown by size tiers: a segment of tier `t` has between `8^t` and `8^(t+1)` times
//! 16,384 entries (tier 0: fewer as well). When a tier has [`FAN_IN`] segments, they and all
//! smaller ones become one of a higher tier. So each entry is written again once per tier, and
//! there are fewer than eight segments per tier. A merge makes at most [`FULL_GROWN`] entries:
//! while it runs, the old filters and the new one are in memory together, and that stays bounded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::segment::{self, Segment};
use crate::error::Result;
use crate::id::{ChunkId, Location, PackId, SegmentId};

/// So many segments of one tier become one.
pub(super) const FAN_IN: usize = 8;
/// No merge plans for more entries than this, and larger segments are left as they are.
const FULL_GROWN: u64 = 32 << 20;
const TIER_0: u64 = 16 << 10;

fn tier(entries: u64) -> u32 {
    (entries / TIER_0).max(1).ilog2() / 3
}

/// Chooses segments to merge, given each one's entries.
pub(super) fn plan(segments: &[(SegmentId, u64)]) -> Option<Vec<SegmentId>> {
    let mut sorted: Vec<_> = segments.iter().filter(|(_, n)| *n < FULL_GROWN).collect();
    sorted.sort_unstable_by_key(|(id, entries)| (*entries, *id));
    let mut chosen = None;
    let mut end = 0;
    while end < sorted.len() {
        let this = tier(sorted[end].1);
        let count = sorted[end..].iter().take_while(|(_, n)| tier(*n) == this).count();
        end += count;
        if count >= FAN_IN {
            chosen = Some(end);
        }
    }
    let mut sum = 0;
    let fitting = sorted[..chosen?].iter().take_while(|(_, entries)| {
        sum += entries;
        sum <= FULL_GROWN
    });
    let ids: Vec<_> = fitting.map(|(id, _)| *id).collect();
    (ids.len() > 1).then_some(ids)
}

/// The entries of several segments in order of id, then pack. Where segments have an entry of the
/// same chunk in the same pack, the newest segment's comes, once. Ends after an error.
#[derive(Debug)]
pub struct MergedEntries {
    /// Newest first.
    readers: Vec<(segment::Entries, Option<Location>)>,
    /// The next id and pack of each reader, by its place.
    heap: BinaryHeap<Reverse<(ChunkId, PackId, usize)>>,
    last: Option<(ChunkId, PackId)>,
    /// An error met before the first entry was asked for.
    early: Option<crate::Error>,
}

impl MergedEntries {
    /// Segments come newest first.
    pub(super) fn new(segments: impl IntoIterator<Item = Arc<Segment>>) -> Self {
        let readers = segments.into_iter().map(|s| (segment::Entries::new(s), None)).collect();
        let mut this = Self { readers, heap: BinaryHeap::new(), last: None, early: None };
        for place in 0..this.readers.len() {
            let (reader, head) = &mut this.readers[place];
            match reader.next() {
                Ok(Some((id, at))) => {
                    *head = Some(at);
                    this.heap.push(Reverse((id, at.pack, place)));
                }
                Ok(None) => {}
                Err(e) => this.early = Some(e),
            }
        }
        this
    }

    fn step(&mut self) -> Result<Option<(ChunkId, Location)>> {
        if let Some(e) = self.early.take() {
            return Err(e);
        }
        while let Some(mut top) = self.heap.peek_mut() {
            let Reverse((id, pack, place)) = *top;
            let (reader, head) = &mut self.readers[place];
            let this = head.take();
            match reader.next()? {
                Some((id, at)) => {
                    *head = Some(at);
                    *top = Reverse((id, at.pack, place));
                    drop(top);
                }
                None => drop(PeekMut::pop(top)),
            }
            if self.last != Some((id, pack)) {
                self.last = Some((id, pack));
                return Ok(this.map(|at| (id, at)));
            }
        }
        Ok(None)
    }
}

impl Iterator for MergedEntries {
    type Item = Result<(ChunkId, Location)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.heap.clear();
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn segments_stay_few_and_writes_too() {
        let mut segments: Vec<(SegmentId, u64)> = Vec::new();
        let (mut next, mut written, flush) = (0, 0, 100_000);
        for _ in 0..1000 {
            next += 1;
            segments.push((SegmentId(next), flush));
            while let Some(ids) = plan(&segments) {
                let sum: u64 =
                    segments.iter().filter(|(id, _)| ids.contains(id)).map(|(_, n)| n).sum();
                assert!(sum <= FULL_GROWN);
                segments.retain(|(id, _)| !ids.contains(id));
                next += 1;
                segments.push((SegmentId(next), sum));
                written += sum;
            }
            assert!(segments.len() <= 30, "{} segments", segments.len());
        }
        assert_eq!(segments.iter().map(|(_, n)| n).sum::<u64>(), 1000 * flush);
        assert!(written <= 4 * 1000 * flush, "{written} entries written again");
    }

    #[test]
    fn a_plan_has_two_segments_or_none() {
        assert_eq!(plan(&[]), None);
        let one: Vec<_> = (0..7).map(|n| (SegmentId(n), 10)).collect();
        assert_eq!(plan(&one), None);
        let large: Vec<_> = (0..20).map(|n| (SegmentId(n), FULL_GROWN - 1)).collect();
        assert_eq!(plan(&large), None);
        let huge: Vec<_> = (0..20).map(|n| (SegmentId(n), u64::MAX / 32)).collect();
        assert_eq!(plan(&huge), None);
    }
}
