//! What reading finds to be bad, and how it is put right.
//!
//! A process that may write mends a bad unit when it finds it. One that only reads remembers it, and
//! [`Pool::mend`] takes the writer's lock for as long as mending takes: no secret and no record of
//! the journal is needed for it, for what is written are the very bytes that were there. Copies of
//! chunks that no disk can make good leave the index by a record of whoever writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::buf::AlignedBuf;
use crate::error::{Error, Result};
use crate::id::{ChunkId, Location, PackId};
use crate::pool::Pool;
use crate::pool::core::{Core, lock};
use crate::pool::open::{OpenMode, lock_all};
use crate::pool::read::OpenPack;
use crate::shard::{BadUnit, LostShard, ScrubReport};

/// More units, copies, or packs of one disk than this are not remembered; a scrub finds the others.
const MOST: usize = 1 << 16;

/// What reading found, until somebody puts it right.
#[derive(Debug, Default)]
pub(crate) struct Found {
    units: BTreeMap<PackId, BTreeSet<BadUnit>>,
    shards: BTreeMap<usize, Unread>,
    copies: BTreeMap<(ChunkId, PackId), Location>,
}

/// Packs whose shard on one disk could not be read.
#[derive(Debug, Default)]
struct Unread {
    packs: BTreeSet<PackId>,
    /// What the system said of the first.
    why: String,
    /// Those of which it was told before.
    told: BTreeSet<PackId>,
}

impl Unread {
    fn add(&mut self, pack: PackId, why: &str) {
        if self.told.contains(&pack) || self.packs.len() + self.told.len() >= MOST {
            return;
        }
        if self.packs.is_empty() {
            why.clone_into(&mut self.why);
        }
        self.packs.insert(pack);
    }

    /// Those of which it was not told yet; now it is.
    fn take(&mut self) -> BTreeSet<PackId> {
        let packs = std::mem::take(&mut self.packs);
        self.told.extend(&packs);
        packs
    }
}

impl Found {
    /// Remembers units that were worked out from other disks.
    pub(crate) fn add_units(&mut self, pack: PackId, bad: &[BadUnit]) {
        let known: usize = self.units.values().map(BTreeSet::len).sum();
        let room = MOST.saturating_sub(known);
        self.units.entry(pack).or_default().extend(bad.iter().take(room));
    }

    /// What is found from now on is told, though it was before.
    pub(crate) fn forget_told(&mut self) {
        self.shards.values_mut().for_each(|shards| shards.told.clear());
    }

    /// Remembers shards that others stood in for. Of disks that are away everybody knows.
    pub(crate) fn add_shards(&mut self, core: &Core, pack: PackId, lost: &[LostShard]) {
        for LostShard { disk, why, .. } in lost {
            if core.disks[*disk].is_some() {
                self.shards.entry(*disk).or_default().add(pack, why);
            }
        }
    }
}

impl Pool {
    /// Puts right what reading found, in a process that may only read, and tells what came of it by
    /// [`Pool::take_notices`]: bad units are written anew, if nobody holds the writer's lock. Copies
    /// that no disk can make good leave the index, if `writer` can open the pool to write.
    pub fn mend<E: Display + From<Error>>(&self, writer: impl FnOnce() -> Result<Self, E>) {
        self.mend_units();
        let bad = self.take_bad_copies();
        if bad.is_empty() {
            return;
        }
        let left = writer().and_then(|writer| Ok(writer.mark_bad(&bad)?));
        let count = number(bad.len() as u64, "chunk");
        self.core.notice(match left {
            Ok(()) => format!(
                "{count} that no disk can make good left the index: the next backup that has the \
                 data stores it again"
            ),
            Err(e) => format!(
                "{count} can't be made good from any disk, and can't leave the index now ({e}): once \
                 `strongroom pool check --read-data` was run, the next backup that has the data \
                 stores it again"
            ),
        });
    }

    /// The first half of [`Pool::mend`]: bad units alone.
    pub fn mend_units(&self) {
        let units = std::mem::take(&mut lock(&self.core.found).units);
        if units.is_empty() {
            return;
        }
        let mut bad: BTreeMap<usize, u64> = BTreeMap::new();
        for unit in units.values().flatten() {
            *bad.entry(unit.disk).or_default() += 1;
        }
        let healed = match lock_all(&self.core.disks, OpenMode::Write, &self.holder) {
            Ok(_locked) => self.heal_all(&units),
            Err(e) => {
                for (disk, count) in bad {
                    let name = self.name_of(disk);
                    self.core.notice(format!(
                        "{} on {name} {} not what was written and came from the other disks; that \
                         can't be mended now ({e}): run `strongroom pool scrub`",
                        number(count, "unit"),
                        were(count),
                    ));
                }
                return;
            }
        };
        for (disk, count) in bad {
            let (name, healed) = (self.name_of(disk), healed.get(&disk).copied().unwrap_or(0));
            if healed > 0 {
                self.core.notice(format!(
                    "mended {} on {name} that {} not what was written",
                    number(healed, "unit"),
                    were(healed),
                ));
            }
            if let Some(left) = count.checked_sub(healed).filter(|left| *left > 0) {
                self.core.notice(format!(
                    "{} on {name} {} not what was written and came from the other disks; mending \
                     failed: run `strongroom pool scrub`",
                    number(left, "unit"),
                    were(left),
                ));
            }
        }
    }

    /// Tells which packs were read without one of their disks.
    pub(crate) fn tell_unreadable(&self) {
        let shards: Vec<_> = {
            let mut found = lock(&self.core.found);
            let all = found.shards.iter_mut();
            let new =
                all.map(|(disk, shards)| (*disk, shards.take().len() as u64, shards.why.clone()));
            new.filter(|(_, count, _)| *count > 0).collect()
        };
        for (disk, count, why) in shards {
            let name = self.name_of(disk);
            self.core.notice(format!(
                "{} {} not readable on {name} ({why}) and came from the other disks: run \
                 `strongroom pool scrub`",
                number(count, "pack"),
                were(count),
            ));
        }
    }

    /// Heals units; how many on each disk.
    fn heal_all(&self, units: &BTreeMap<PackId, BTreeSet<BadUnit>>) -> BTreeMap<usize, u64> {
        let mut healed: BTreeMap<usize, u64> = BTreeMap::new();
        for (pack, bad) in units {
            let bad: Vec<BadUnit> = bad.iter().copied().collect();
            let report =
                self.reading.pack(&self.core, *pack).and_then(|pack| pack.shards.heal(&bad));
            let report = report.unwrap_or_else(|e| {
                self.core.notice(format!("pack {pack}: {e}"));
                ScrubReport::default()
            });
            for (disk, why) in report.failed {
                self.core.notice(format!("disk {disk} failed while pack {pack} was mended: {why}"));
            }
            // Of the same stripes others may have been bad, too; they were not counted.
            for unit in report.healed_units.iter().filter(|unit| bad.contains(unit)) {
                *healed.entry(unit.disk).or_default() += 1;
            }
        }
        healed
    }

    fn name_of(&self, disk: usize) -> String {
        let handle = self.core.disks.get(disk).and_then(Option::as_ref);
        handle.map_or_else(|| format!("disk {disk}"), |handle| handle.describe())
    }

    /// Remembers a copy that can't be read, if that is for good.
    pub(crate) fn found_unreadable(&self, id: &ChunkId, at: &Location) {
        if self.is_rot(at) {
            let mut found = lock(&self.core.found);
            if found.copies.len() < MOST {
                found.copies.insert((*id, at.pack), *at);
            }
        }
    }

    /// Whether a place that can't be made good will not be good again: the one disk gives bytes, and
    /// these are wrong. Of several disks a read does not ask each, and what one that was not asked has
    /// may be good: `pool check` tells of those.
    fn is_rot(&self, at: &Location) -> bool {
        let gives_bytes = |pack: &OpenPack| -> Result<bool> {
            let mut buf = AlignedBuf::default();
            let read = pack.shards.read(at.frame_offset.into(), at.frame_len as usize, &mut buf)?;
            Ok(read.lost.is_empty())
        };
        let pack = || self.reading.pack(&self.core, at.pack).and_then(|pack| gives_bytes(&pack));
        let is_alone = self.core.disks.len() == 1 && self.core.disks[0].is_some();
        is_alone && pack().unwrap_or(false)
    }

    /// The copies that reading found bad, and that are bad when they are read once more: what a bus
    /// or memory did to a read is no reason to give data up.
    fn take_bad_copies(&self) -> Vec<(ChunkId, PackId)> {
        let found = std::mem::take(&mut lock(&self.core.found).copies);
        if found.is_empty() {
            return Vec::new();
        }
        let mut lens = self.reading.lens();
        let bad = found.into_iter().filter(|((id, _), at)| {
            self.open_checked(id, at, &mut lens).is_err() && self.is_rot(at)
        });
        let bad = bad.map(|(copy, _)| copy).collect();
        self.reading.put_lens(lens);
        bad
    }

    /// In a process that may write: takes copies that reading found bad out of the index.
    pub(crate) fn mark_found(&self) -> Result<()> {
        let bad = self.take_bad_copies();
        if bad.is_empty() { Ok(()) } else { self.mark_bad(&bad) }
    }
}

fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn were(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_s_packs_are_told_once_and_bounded() {
        let mut unread = Unread::default();
        unread.add(PackId(1), "first");
        unread.add(PackId(2), "second");
        assert_eq!((unread.take().len(), unread.why.as_str()), (2, "first"));
        (0..2 * MOST as u64).for_each(|pack| unread.add(PackId(pack), "third"));
        let told = unread.take();
        assert!(!told.contains(&PackId(1)) && told.contains(&PackId(0)));
        assert_eq!((told.len() + 2, unread.why.as_str()), (MOST, "third"));
        unread.add(PackId(u64::MAX), "fourth");
        assert!(unread.take().is_empty());
    }
}
