//! Putting right what a crash or an absent disk left, before anything is written.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::disk::{patiently, read_file};
use crate::error::Result;
use crate::id::{ChunkId, Location, PackId};
use crate::index;
use crate::pack::Sealed;
use crate::pool::Pool;
use crate::pool::read::OpenPack;
use crate::shard::{self, FoundShard, ShardSet, Stage};
use crate::state::PackInfo;
use crate::superblock;

/// Longer than any superblock.
const MAX: u64 = 16 << 20;

impl Pool {
    /// `stale` are disks whose journal was behind: whole packs on them that the state doesn't
    /// know may have been given up while they were away, so they are not taken in.
    pub(crate) fn recover(&self, stale: &[usize]) -> Result<()> {
        let found = self.list_shards();
        let (floor, known) = {
            let state = self.core.state();
            let known: BTreeSet<PackId> =
                state.packs.keys().chain(state.condemned.keys()).copied().collect();
            (state.pack_floor, known)
        };
        let mut shards_of: BTreeMap<PackId, usize> = BTreeMap::new();
        let current = found.iter().filter(|(disk, _)| !stale.contains(disk));
        for (_, shards) in current.clone() {
            let whole = shards.iter().filter(|shard| shard.stage == Stage::Sealed);
            for shard in whole.filter(|shard| shard.pack >= floor && !known.contains(&shard.pack)) {
                *shards_of.entry(shard.pack).or_default() += 1;
            }
        }
        // A pack that a crash left on some disks only may be too little to read all of it, though
        // its directory can be read; and it would begin its life without redundancy.
        let disks = current.count();
        shards_of.retain(|_, shards| *shards == disks && disks >= self.core.layout.data.data());
        let orphans: BTreeSet<PackId> = shards_of.into_keys().collect();
        let unlisted = (0..self.core.disks.len())
            .filter(|place| self.core.disks[*place].is_some() && !found.contains_key(place));
        let without = stale.iter().copied().chain(unlisted).collect();
        let adopted = self.adopt(&orphans, &without)?;
        for (disk, shards) in &found {
            let Some(disk) = &self.core.disks[*disk] else { continue };
            for shard in shards {
                let pack = shard.pack;
                let belongs = known.contains(&pack) || adopted.contains(&pack);
                if shard.stage != Stage::Sealed || !belongs {
                    // What can't be removed now is tried again when the pool is next opened.
                    let _ = disk.remove(&shard.path());
                }
            }
            let _ = index::sweep(&**disk, &self.core.state().segments);
        }
        self.core.mend_index()?;
        self.mend_superblock()?;
        for disk in self.core.disks.iter().flatten() {
            // Of a change that was interrupted; it may have key slots that were never in use.
            for name in superblock::NAMES {
                let _ = disk.remove(&format!("{name}.new"));
            }
        }
        for disk in stale.iter().collect::<BTreeSet<_>>() {
            self.core.notice(format!(
                "disk {disk} was away while the pool was written; `pool scrub` rebuilds what it lacks"
            ));
        }
        self.remove_condemned()?;
        Ok(())
    }

    /// A pool on one disk has two copies; one that is bad, or that a crash left behind (perhaps
    /// with a key slot that was removed), is written anew.
    fn mend_superblock(&self) -> Result<()> {
        let [Some(disk)] = &self.core.disks[..] else { return Ok(()) };
        let [first, second] = superblock::NAMES.map(|name| read_file(&**disk, name, MAX).ok());
        if first == second {
            return Ok(());
        }
        self.core.notice("a copy of the superblock was bad or out of date; written anew");
        let superblock = self.core.superblock().clone();
        superblock.write(&**disk)
    }

    fn list_shards(&self) -> BTreeMap<usize, Vec<FoundShard>> {
        let mut found = BTreeMap::new();
        for (place, disk) in self.core.disks.iter().enumerate() {
            let Some(disk) = disk else { continue };
            match patiently(|| shard::list_packs(&**disk)) {
                Ok(shards) => {
                    found.insert(place, shards);
                }
                Err(e) => self.core.notice(format!("disk {place} can't be listed: {e}")),
            }
        }
        found
    }

    /// Takes in packs that are whole, with their index entries. Disks that may be `without` them
    /// don't count.
    fn adopt(
        &self,
        orphans: &BTreeSet<PackId>,
        without: &BTreeSet<usize>,
    ) -> Result<HashSet<PackId>> {
        let mut adopted = HashSet::new();
        for id in orphans {
            let Some((info, entries)) = self.look_into(*id) else { continue };
            for (chunk, at) in entries {
                self.core.index.memtable().insert(&chunk, at);
            }
            self.core.pack_found(*id);
            let failed = without.iter().map(|disk| (*disk, "it was away".to_owned())).collect();
            self.core.pack_taken_in(Sealed { id: *id, info, failed })?;
            adopted.insert(*id);
        }
        if !adopted.is_empty() {
            self.core.flush(|_| Ok(Vec::new()))?;
            let count = adopted.len();
            self.core.notice(format!("{count} packs of a session that did not end were taken in"));
        }
        Ok(adopted)
    }

    /// What a pack that the state doesn't know says of itself, if it is whole.
    fn look_into(&self, id: PackId) -> Option<(PackInfo, Vec<(ChunkId, Location)>)> {
        let set = ShardSet::discover(&self.core.disks, self.core.id, id).ok()?;
        let header = set.header().ok()?;
        let shape = set.geometry().shape;
        let mut info = PackInfo {
            kind: header.kind,
            chunks: 0,
            len: set.geometry().len(),
            data_shards: u8::try_from(shape.data()).ok()?,
            parity_shards: u8::try_from(shape.parity()).ok()?,
            epoch: header.epoch,
        };
        let pack = OpenPack::open(&self.core, id, info).ok()?;
        let directory = pack.directory(&self.core).ok()?;
        info.chunks = directory.chunks();
        Some((info, directory.locations(id, info.kind).collect()))
    }
}
