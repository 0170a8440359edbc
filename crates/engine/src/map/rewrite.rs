//! A map with other content in some of its parts: only nodes above those are read, and made anew.

use std::ops::Range;

use super::{Extent, Item, MAX_LEVEL, MapBuilder, MapRef, NodeStore, Nodes, decode, item_of};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::id::ChunkId;

/// Takes the extents of a range, in order.
pub type Put<'p> = &'p mut dyn FnMut(Extent) -> Result<()>;

/// What a map is to become.
#[derive(Clone, Copy, Debug)]
pub struct Change<'c> {
    /// The size of chunks, in bytes, by which nodes end ([`MapBuilder::fixed`]).
    pub chunk: u32,
    /// The length of the new map in bytes, not less than that of the old; what is new is a hole.
    pub len: u64,
    /// Which parts have other content: in order, apart from each other, within `len`.
    pub parts: &'c [Range<u64>],
}

/// Makes a map of `base` with other content in some parts. `content` is asked for the extents of one
/// range after the other, which together cover the parts: an extent of `base` that is touched is
/// replaced as a whole. Subtrees without a touched part are taken over without being read, where they
/// begin and end as those of chunks of that size do.
///
/// # Errors
/// Those of the source, the store and `content`; [`Error::Invalid`] when `base` is longer than that, or
/// `content` gives more or less than it was asked for.
pub fn rewrite(
    source: &dyn Nodes,
    store: &dyn NodeStore,
    base: &MapRef,
    change: Change<'_>,
    content: &mut dyn FnMut(Range<u64>, Put<'_>) -> Result<()>,
) -> Result<MapRef> {
    let Change { chunk, len, parts } = change;
    if base.len() > len {
        return Err(Error::Invalid("a map can't be made shorter".into()));
    }
    if base.len() == len && parts.is_empty() {
        return Ok(base.clone());
    }
    let builder = MapBuilder::fixed(chunk);
    let mut new = Rewriting { builder, store, len, parts, content, region: None, replaced: 0 };
    let (items, level) = match base {
        MapRef::Inline(extents) => (extents.iter().map(item_of).collect(), 0),
        MapRef::Tree(node, len) => (vec![Item { id: Some(*node), len: *len }], MAX_LEVEL + 1),
    };
    let mut stack = vec![(items.into_iter(), level)];
    let mut at = 0u64;
    while let Some((items, level)) = stack.last_mut() {
        let level = *level;
        let Some(item) = items.next() else {
            stack.pop();
            continue;
        };
        let overlong = || Error::damaged("a map", DecodeError::Overlong);
        let end = at.checked_add(item.len).filter(|end| *end <= len).ok_or_else(overlong)?;
        match item.id {
            None => new.hole(at..end)?,
            Some(id) if level == 0 => new.data(at..end, id)?,
            Some(_) if new.replaces(&(at..end)) => {
                // It isn't read for that: if it has holes, it is fewer.
                new.replaced += item.len.div_ceil(chunk.max(1).into());
                new.replace(at..end)?;
            }
            Some(id) if new.takes(level, at..end, id)? => {}
            Some(id) => {
                let node = source.node(&id)?;
                let (items, level) =
                    decode(&node, item.len, level).map_err(Error::decoding("a map node"))?;
                stack.push((items.into_iter(), level));
                continue;
            }
        }
        at = end;
    }
    new.hole(at..len)?;
    new.flush()?;
    store.note_replaced(new.replaced);
    new.builder.finish(store)
}

struct Rewriting<'r, 'c> {
    builder: MapBuilder,
    store: &'r dyn NodeStore,
    len: u64,
    parts: &'r [Range<u64>],
    content: &'r mut (dyn FnMut(Range<u64>, Put<'_>) -> Result<()> + 'c),
    /// What is to be replaced and wasn't asked for yet.
    region: Option<Range<u64>>,
    /// How many chunks of the old map the new one lacks, about.
    replaced: u64,
}

impl Rewriting<'_, '_> {
    /// The parts that are touched within a range.
    fn parts_in(&self, range: &Range<u64>) -> &[Range<u64>] {
        let first = self.parts.partition_point(|part| part.end <= range.start);
        let end = self.parts.partition_point(|part| part.start < range.end);
        self.parts.get(first..end).unwrap_or_default()
    }

    /// Whether all of a range is touched.
    fn replaces(&self, range: &Range<u64>) -> bool {
        let first = self.parts_in(range).first();
        first.is_some_and(|part| part.start <= range.start && range.end <= part.end)
    }

    fn hole(&mut self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        let count = self.parts_in(&range).len();
        for index in 0..count {
            let Some(part) = self.parts_in(&range).get(index).cloned() else { break };
            let part = part.start.max(range.start)..part.end.min(range.end);
            self.untouched_hole(at..part.start)?;
            at = part.end;
            self.replace(part)?;
        }
        self.untouched_hole(at..range.end)
    }

    fn untouched_hole(&mut self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.flush()?;
        self.builder.push(self.store, Extent::Hole { len: range.end - range.start })
    }

    fn data(&mut self, range: Range<u64>, id: ChunkId) -> Result<()> {
        if !self.parts_in(&range).is_empty() {
            self.replaced += 1;
            return self.replace(range);
        }
        self.flush()?;
        self.builder.push(self.store, Extent::Data { id, len: (range.end - range.start) as u32 })
    }

    /// Takes a whole subtree over, if nothing of it is touched and it is one that the builder would
    /// make of its extents.
    fn takes(&mut self, level: u8, range: Range<u64>, id: ChunkId) -> Result<bool> {
        let level = usize::from(level);
        let span = self.builder.span(level.saturating_sub(1));
        let Some(span) = span.filter(|_| self.parts_in(&range).is_empty()) else {
            return Ok(false);
        };
        let ends = range.end.is_multiple_of(span) || range.end == self.len;
        if !range.start.is_multiple_of(span) || !ends || level > usize::from(MAX_LEVEL) {
            return Ok(false);
        }
        self.flush()?;
        self.builder.push_node(
            self.store,
            level,
            Item { id: Some(id), len: range.end - range.start },
        )
    }

    fn replace(&mut self, range: Range<u64>) -> Result<()> {
        match &mut self.region {
            Some(region) if region.end == range.start => {
                region.end = range.end;
                Ok(())
            }
            _ => {
                self.flush()?;
                self.region = Some(range);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(region) = self.region.take() else { return Ok(()) };
        let Self { builder, store, content, .. } = self;
        content(region.clone(), &mut |extent| builder.push(*store, extent))?;
        match builder.len() == region.end {
            true => Ok(()),
            false => Err(Error::Invalid("a part of a map got content of another length".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::super::tests::{Memory, build, data, read};
    use super::*;
    use crate::node::Node;

    const CHUNK: u64 = 4096;

    /// Counts the nodes that are read.
    struct Counted<'m>(&'m Memory, AtomicUsize);

    impl Nodes for Counted<'_> {
        fn node(&self, id: &ChunkId) -> Result<Node> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.node(id)
        }
    }

    /// One extent for each chunk of a map, or of what begins there.
    fn chunks(store: &Memory, map: &MapRef) -> BTreeMap<u64, Extent> {
        let all = read(store, map, 0);
        all.into_iter().filter(|(_, extent)| matches!(extent, Extent::Data { .. })).collect()
    }

    fn replaced(
        source: &dyn Nodes,
        store: &Memory,
        base: &MapRef,
        len: u64,
        parts: &[Range<u64>],
        salt: u64,
    ) -> (MapRef, BTreeMap<u64, Extent>, Vec<Range<u64>>) {
        let (mut new, mut asked) = (BTreeMap::new(), Vec::new());
        let mut content = |range: Range<u64>, put: Put<'_>| {
            asked.push(range.clone());
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min((at / CHUNK + 1) * CHUNK);
                let extent = match (at / CHUNK + salt).is_multiple_of(3) {
                    true => Extent::Hole { len: end - at },
                    false => {
                        let extent = data(salt << 32 | at, (end - at) as u32);
                        new.insert(at, extent);
                        extent
                    }
                };
                put(extent)?;
                at = end;
            }
            Ok(())
        };
        let change = Change { chunk: CHUNK as u32, len, parts };
        let map = rewrite(source, store, base, change, &mut content).unwrap();
        (map, new, asked)
    }

    #[test]
    fn a_small_change_of_a_large_map_reads_and_makes_few_nodes() {
        let store = Memory::default();
        let count = 512 * 512 * 2 + 700;
        let extents: Vec<_> = (0..count).map(|i| data(i, CHUNK as u32)).collect();
        let base = build(&store, MapBuilder::fixed(CHUNK as u32), &extents);
        let before = store.len();
        let counted = Counted(&store, AtomicUsize::new(0));
        let parts = [CHUNK * 5000..CHUNK * 5001, CHUNK * 300_000..CHUNK * 300_002];
        let (map, new, asked) = replaced(&counted, &store, &base, base.len(), &parts, 1);
        assert_eq!(asked, parts);
        assert!(counted.1.load(Ordering::Relaxed) <= 8);
        assert!(store.len() - before <= 6, "{} new nodes", store.len() - before);
        let mut expected = chunks(&store, &base);
        expected.retain(|at, _| !parts.iter().any(|part| part.contains(at)));
        expected.extend(new);
        assert_eq!(chunks(&store, &map), expected);
        // What would be made of it from its extents is the same map.
        let all: Vec<_> = read(&store, &map, 0).into_iter().map(|(_, extent)| extent).collect();
        assert_eq!(build(&store, MapBuilder::fixed(CHUNK as u32), &all), map);
    }

    #[test]
    fn what_is_replaced_as_a_whole_is_not_read() {
        let store = Memory::default();
        let extents: Vec<_> = (0..512 * 600).map(|i| data(i, CHUNK as u32)).collect();
        let base = build(&store, MapBuilder::fixed(CHUNK as u32), &extents);
        let counted = Counted(&store, AtomicUsize::new(0));
        let part = 512 * CHUNK..base.len();
        let parts = std::slice::from_ref(&part);
        let (map, new, asked) = replaced(&counted, &store, &base, base.len(), parts, 1);
        assert_eq!(asked, parts);
        assert!(counted.1.load(Ordering::Relaxed) <= 3);
        assert_eq!(chunks(&store, &map).len(), 512 + new.len());
    }

    #[test]
    fn a_map_that_is_as_it_should_be_is_not_read() {
        let store = Memory::default();
        let none = MapRef::Tree(ChunkId([1; 32]), CHUNK);
        let (map, ..) = replaced(&store, &store, &none, CHUNK, &[], 1);
        assert_eq!(map, none);
        let change = Change { chunk: CHUNK as u32, len: CHUNK - 1, parts: &[] };
        assert!(rewrite(&store, &store, &none, change, &mut |_, _| Ok(())).is_err());
        let part = std::slice::from_ref(&(0..CHUNK));
        let change = Change { chunk: CHUNK as u32, len: CHUNK, parts: part };
        let error = rewrite(&store, &store, &MapRef::default(), change, &mut |_, _| Ok(()));
        assert!(matches!(error, Err(Error::Invalid(_))), "{error:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn parts_are_replaced_and_nothing_else(
            items in proptest::collection::vec((any::<bool>(), 1..3000u64), 1..12),
            cuts in proptest::collection::btree_set(0..9000u64, 0..30),
            grown in 0..5000u64,
            even in any::<bool>(),
        ) {
            let store = Memory::default();
            let mut extents = Vec::new();
            for (hole, count) in items {
                match hole {
                    true => extents.push(Extent::Hole { len: count * CHUNK }),
                    false => extents.extend((0..count).map(|i| {
                        // Maps of chunks of another size may be taken for the base, too.
                        data(i, if even { CHUNK as u32 } else { 3000 + i as u32 % 5000 })
                    })),
                }
            }
            let builder = if even { MapBuilder::fixed(CHUNK as u32) } else { MapBuilder::new() };
            let base = build(&store, builder, &extents);
            let len = base.len() + grown * CHUNK;
            let cuts: Vec<u64> = cuts.into_iter().map(|cut| (cut * CHUNK).min(len)).collect();
            let parts: Vec<Range<u64>> = cuts
                .chunks_exact(2)
                .filter(|pair| pair[0] < pair[1])
                .map(|pair| pair[0]..pair[1])
                .collect();
            let (map, new, asked) = replaced(&store, &store, &base, len, &parts, 7);
            prop_assert_eq!(map.len(), len);
            for part in &parts {
                let covered = |asked: &Range<u64>| asked.start <= part.start && part.end <= asked.end;
                prop_assert!(asked.iter().any(covered), "{part:?} of {asked:?}");
            }
            let mut expected = chunks(&store, &base);
            let touched = |at: &u64, extent: &Extent| {
                parts.iter().any(|part| part.start < at + extent.len() && *at < part.end)
            };
            expected.retain(|at, extent| !touched(at, extent));
            expected.extend(new);
            prop_assert_eq!(chunks(&store, &map), expected);
        }
    }
}
