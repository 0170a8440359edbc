//! Recently used pages of entries.
//!
//! A set-associative cache: a page can lie in one of [`WAYS`] slots of the one set that its name
//! hashes to. Every set has its own lock, held for a look or a copy of one page, never over a
//! read. Memory is taken when a slot is first used and then kept. Segment numbers are never used
//! twice and segments never change, so nothing in it ever goes stale.

use std::sync::{Mutex, PoisonError};

use super::format::PAGE;
use crate::id::SegmentId;

/// Slots of a set.
const WAYS: usize = 8;

/// The name of a page: its segment, and its number among the segment's pages.
pub(super) type PageName = (SegmentId, u64);

#[derive(Debug, Default)]
struct Set {
    names: Vec<PageName>,
    /// Whether the slot was used since the hand last passed it.
    used: [bool; WAYS],
    hand: usize,
    bytes: Vec<u8>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct PageCache {
    sets: Box<[Mutex<Set>]>,
}

impl PageCache {
    /// A cache of about so many pages; none at all for 0.
    pub(super) fn new(pages: usize) -> Self {
        Self { sets: (0..pages.div_ceil(WAYS)).map(|_| Mutex::default()).collect() }
    }

    fn set(&self, name: PageName) -> Option<&Mutex<Set>> {
        let mixed = (name.0.0 ^ name.1.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = (u128::from(mixed) * self.sets.len() as u128) >> 64;
        self.sets.get(index as usize)
    }

    /// Looks at a page if it is there.
    pub(super) fn look<R>(&self, name: PageName, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut set = self.set(name)?.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = set.names.iter().position(|n| *n == name)?;
        set.used[slot] = true;
        Some(look(&set.bytes[slot * PAGE..][..PAGE]))
    }

    /// Keeps a copy of a page, in place of one that was not used lately.
    pub(super) fn keep(&self, name: PageName, page: &[u8]) {
        let Some(set) = self.set(name) else { return };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.names.contains(&name) {
            return;
        }
        if set.names.len() < WAYS {
            set.names.push(name);
            set.bytes.extend_from_slice(page);
            return;
        }
        while set.used[set.hand] {
            let hand = set.hand;
            set.used[hand] = false;
            set.hand = (hand + 1) % WAYS;
        }
        let slot = set.hand;
        set.hand = (slot + 1) % WAYS;
        set.names[slot] = name;
        set.bytes[slot * PAGE..][..PAGE].copy_from_slice(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_mixes_pages_up_and_stays_in_its_bounds() {
        let cache = PageCache::new(32);
        let page = |n: u64| vec![n as u8; PAGE];
        for n in 0..200 {
            cache.keep((SegmentId(1), n), &page(n));
            assert_eq!(cache.look((SegmentId(1), n), |p| p[17]), Some(n as u8));
            assert_eq!(cache.look((SegmentId(2), n), |p| p[17]), None);
        }
        let kept = (0..200).filter(|n| cache.look((SegmentId(1), *n), |p| p[0]).is_some()).count();
        assert!((8..=32).contains(&kept), "{kept} pages kept");
        let off = PageCache::new(0);
        off.keep((SegmentId(1), 1), &page(1));
        assert_eq!(off.look((SegmentId(1), 1), |p| p[0]), None);
    }
}
