//! What is in a simulated file: what its readers see, and what would be left without power.

use std::sync::Arc;

use super::rng::Rng;

/// Content is shared between copies in pieces of this many bytes.
const BLOCK: usize = 64 << 10;
/// What a device writes wholly or not at all.
pub(super) const SECTOR: u64 = 512;
/// Longer files are refused.
pub(super) const MAX_LEN: u64 = 4 << 30;

/// Bytes of a file. A copy costs one reference per block; blocks are copied when written.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Missing blocks, and what is missing at a block's end, are zero.
    blocks: Vec<Option<Arc<Vec<u8>>>>,
    len: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads what lies before the end; false when that is not all.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> bool {
        if buf.is_empty() {
            return true;
        }
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut at = offset as usize;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = at % BLOCK;
            let (piece, after) = rest.split_at_mut(rest.len().min(BLOCK - within));
            let stored = match self.blocks.get(at / BLOCK) {
                Some(Some(block)) => block.get(within..).unwrap_or_default(),
                _ => &[],
            };
            let n = stored.len().min(piece.len());
            piece[..n].copy_from_slice(&stored[..n]);
            piece[n..].fill(0);
            at += piece.len();
            rest = after;
        }
        true
    }

    /// Writes; the end is at most [`MAX_LEN`].
    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        self.len = self.len.max(end);
        let count = (end as usize).div_ceil(BLOCK);
        if self.blocks.len() < count {
            self.blocks.resize(count, None);
        }
        let mut at = offset as usize;
        let mut rest = data;
        while !rest.is_empty() {
            let within = at % BLOCK;
            let (piece, after) = rest.split_at(rest.len().min(BLOCK - within));
            let block = Arc::make_mut(self.blocks[at / BLOCK].get_or_insert_default());
            if block.len() < within + piece.len() {
                block.resize(within + piece.len(), 0);
            }
            block[within..within + piece.len()].copy_from_slice(piece);
            at += piece.len();
            rest = after;
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.blocks.truncate((len as usize).div_ceil(BLOCK));
            let within = len as usize % BLOCK;
            if within > 0
                && let Some(Some(block)) = self.blocks.get_mut(len as usize / BLOCK)
                && block.len() > within
            {
                Arc::make_mut(block).truncate(within);
            }
        }
        self.len = len;
    }
}

/// Something done to a file since it was last synced.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen(u64),
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, data } => content.write(data, *offset),
            Self::SetLen(len) => content.set_len(*len),
        }
    }

    /// What may be left of it when it is not there wholly.
    fn apply_in_part(&self, content: &mut Content, rng: &mut Rng) {
        let Self::Write { offset, data } = self else { return };
        let end = offset + data.len() as u64;
        match rng.below(4) {
            0 => {}
            // The length is there, the data is not.
            1 => content.set_len(content.len.max(end)),
            // It was torn at a sector's edge.
            2 => {
                let sectors = end.div_ceil(SECTOR) - offset / SECTOR;
                let cut = (offset / SECTOR + rng.below(sectors)) * SECTOR;
                let kept = cut.saturating_sub(*offset) as usize;
                content.write(&data[..kept], *offset);
                if rng.chance(1, 2) {
                    content.set_len(content.len.max(end));
                }
            }
            // Its sectors were written in no order: runs of them are there, others not.
            _ => {
                let mut at = *offset;
                let longest = 1 + rng.below(64);
                while at < end {
                    let run = (at / SECTOR + 1 + rng.below(longest)) * SECTOR;
                    let next = run.min(end);
                    if rng.chance(1, 2) {
                        content.write(&data[(at - offset) as usize..(next - offset) as usize], at);
                    }
                    at = next;
                }
            }
        }
    }
}

/// A file: what is seen, what is durable, and what lies between.
#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    now: Content,
    durable: Content,
    /// From `durable` to `now`, unless `diverged`.
    changes: Vec<Change>,
    /// Changes were lost by a sync that failed: readers see them, no later sync saves them.
    diverged: bool,
    /// Whether it has a name; without one it takes no room.
    pub(super) named: bool,
    /// Shared with every handle; how many there are says whether it may be thrown away.
    pub(super) handles: Arc<()>,
}

impl FileNode {
    pub(super) fn now(&self) -> &Content {
        &self.now
    }

    /// An empty file that is getting a name.
    pub(super) fn named() -> Self {
        Self { named: true, ..Self::default() }
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        if !data.is_empty() {
            self.now.write(data, offset);
            self.changes.push(Change::Write { offset, data: data.into() });
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.now.set_len(len);
        self.changes.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        if self.diverged {
            for change in &self.changes {
                change.apply(&mut self.durable);
            }
        } else if !self.changes.is_empty() {
            self.durable = self.now.clone();
        }
        self.changes.clear();
    }

    /// A sync that failed: some of the changes are durable, the others never will be.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        if !self.changes.is_empty() {
            self.durable = self.survivor(rng);
            self.changes.clear();
            self.diverged = true;
        }
    }

    /// The power is gone and back: what readers see is what was durable, and what `rng` saved.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) {
        if !self.changes.is_empty() || self.diverged {
            self.durable = self.survivor(rng);
            self.now = self.durable.clone();
            self.changes.clear();
            self.diverged = false;
        }
    }

    fn survivor(&self, rng: &mut Rng) -> Content {
        let mut content = self.durable.clone();
        let kept = rng.below(5); // from nothing to everything
        for change in &self.changes {
            if rng.chance(kept, 4) {
                change.apply(&mut content);
            } else {
                change.apply_in_part(&mut content, rng);
            }
        }
        content
    }

    /// Something that happens to what is on the platter: everything is durable first.
    pub(super) fn damage(&mut self, how: impl FnOnce(&mut Content)) {
        how(&mut self.now);
        self.durable = self.now.clone();
        self.changes.clear();
        self.diverged = false;
    }

    /// Whether a power cut would leave all of it.
    pub(super) fn is_durable(&self) -> bool {
        self.changes.is_empty() && !self.diverged
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::*;

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = vec![1; content.len() as usize];
        assert!(content.read(&mut bytes, 0));
        bytes
    }

    proptest! {
        #[test]
        fn content_is_a_vector(
            steps in prop::collection::vec((any::<bool>(), 0..200_000u64, 0..100_000usize, any::<u8>()), 1..20)
        ) {
            let (mut content, mut model) = (Content::default(), Vec::new());
            let mut copies = Vec::new();
            for (write, offset, len, byte) in steps {
                if write {
                    content.write(&vec![byte; len], offset);
                    if len > 0 {
                        model.resize(model.len().max(offset as usize + len), 0);
                        model[offset as usize..offset as usize + len].fill(byte);
                    }
                } else {
                    content.set_len(offset);
                    model.resize(offset as usize, 0);
                }
                prop_assert!(all(&content) == model);
                copies.push((content.clone(), model.clone()));
            }
            for (content, model) in copies {
                prop_assert!(all(&content) == model);
                prop_assert!(!content.read(&mut [0], content.len()));
                prop_assert!(content.read(&mut [], u64::MAX));
                prop_assert!(!content.read(&mut [0], u64::MAX));
            }
        }
    }

    #[test]
    fn a_write_is_never_torn_within_a_sector() {
        let mut torn = false;
        for seed in 0..500 {
            let mut file = FileNode::default();
            file.write(&[1; 4096], 0);
            file.sync();
            file.write(&[2; 3000], 100);
            file.power_cut(&mut Rng::new(seed));
            let bytes = all(file.now());
            assert_eq!(bytes.len(), 4096);
            for (i, sector) in bytes.chunks(SECTOR as usize).enumerate() {
                let from = i * SECTOR as usize;
                let within = |at: usize| (100..3100).contains(&at);
                let new = sector.contains(&2);
                for (j, byte) in sector.iter().enumerate() {
                    assert_eq!(*byte, if new && within(from + j) { 2 } else { 1 });
                }
            }
            torn |= bytes.contains(&2) && bytes[100..3100].contains(&1);
        }
        assert!(torn);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut file = FileNode::default();
            file.write(b"one", 0);
            file.fail_sync(&mut rng);
            assert_eq!(all(file.now()), b"one");
            file.write(b"two", 1000);
            file.sync();
            file.power_cut(&mut rng);
            let bytes = all(file.now());
            assert_eq!(&bytes[1000..], b"two");
            lost += u32::from(&bytes[..3] != b"one");
        }
        assert!((20..100).contains(&lost), "{lost}");
    }
}
