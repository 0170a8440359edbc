//! Changing the pool itself: its keys, its disks, and an index that is beyond use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::id::{DiskId, PackId, PoolId, SegmentId};
use crate::index::{self, Index};
use crate::journal::{Journal, Settings};
use crate::keys::{Kdf, Protection, Secret, Stretch};
use crate::pool::open::{
    Found, OpenMode, OpenOptions, Use, find, lock_all, make_room, places, refuse_unknown_keys,
    refuse_unread, settings,
};
use crate::pool::pins::ChunkSet;
use crate::pool::read::OpenPack;
use crate::pool::verify::twice;
use crate::pool::{Meter, Pool};
use crate::shard::{self, Stage, disk_of};
use crate::state::{Op, SegmentInfo};
use crate::superblock::Superblock;

/// Index entries that are gathered before they are written to a segment.
const ENTRIES: usize = 1 << 16;

/// How many shards are asked which place their disk has.
const WITNESSES: usize = 8;

/// A key slot, as shown to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its number.
    pub id: u32,
    /// The name the user gave it.
    pub label: String,
    /// Whether a key file opens it, and not a passphrase.
    pub key_file: bool,
    /// Whether this process opened the pool with it.
    pub opened: bool,
}

impl Pool {
    /// A copy of what the disks' superblocks say.
    pub fn superblock(&self) -> Superblock {
        self.core.superblock().clone()
    }

    /// The disks, in the order of the layout; `None` for those that are missing.
    pub fn disks(&self) -> &[Option<Arc<dyn Disk>>] {
        &self.core.disks
    }

    /// The key slots of an encrypted pool; none otherwise.
    pub fn slots(&self) -> Vec<SlotInfo> {
        let opened = self.core.master.as_ref().map(|(slot, _)| *slot);
        let superblock = self.core.superblock();
        let Protection::Sealed { slots, .. } = &superblock.protection else { return Vec::new() };
        slots
            .iter()
            .map(|slot| SlotInfo {
                id: slot.id(),
                label: slot.label().to_owned(),
                key_file: slot.kdf() == Kdf::KeyFile,
                opened: opened == Some(slot.id()),
            })
            .collect()
    }

    /// Adds a key slot; its number.
    ///
    /// # Errors
    /// [`Error::Invalid`] in a pool that isn't encrypted, or that has all the slots it may have.
    pub fn add_slot(&self, secret: &Secret, label: &str, stretch: Stretch) -> Result<u32> {
        let (_, master) = self.master()?;
        self.change_superblock(|sb| sb.protection.slots_mut()?.add(master, secret, label, stretch))
    }

    /// Gives a key slot another secret.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such slot.
    pub fn change_slot(&self, id: u32, secret: &Secret, stretch: Stretch) -> Result<()> {
        let (_, master) = self.master()?;
        self.change_superblock(|sb| sb.protection.slots_mut()?.change(id, master, secret, stretch))
    }

    /// Removes a key slot. The last one stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the last slot, or one that isn't there.
    pub fn remove_slot(&self, id: u32) -> Result<()> {
        self.change_superblock(|sb| sb.protection.slots_mut()?.remove(id))
    }

    /// Makes a new data key, with which all packs are sealed from now on; its number. Packs that
    /// are there keep theirs until a collection copies them.
    ///
    /// # Errors
    /// [`Error::Invalid`] in a pool that isn't encrypted.
    pub fn rekey(&self) -> Result<u32> {
        let _upkeep = self.begin_upkeep("rekey")?;
        let (_, master) = self.master()?;
        let mut keyring = self.core.keyring().clone();
        let epoch = keyring.new_epoch()?;
        // The packs that are open go on with the key they began with.
        self.change_superblock(|sb| sb.protection.replace_keyring(master, self.core.id, &keyring))?;
        *self.core.keyring.write().unwrap_or_else(PoisonError::into_inner) = keyring;
        Ok(epoch)
    }

    fn master(&self) -> Result<&(u32, crate::keys::Master)> {
        self.core.writable()?;
        self.core.master.as_ref().ok_or_else(|| {
            Error::Invalid("the pool isn't encrypted, so it has no keys to change".into())
        })
    }

    fn change_superblock<R>(&self, change: impl FnOnce(&mut Superblock) -> Result<R>) -> Result<R> {
        self.core.writable()?;
        let mut changed = self.core.superblock().clone();
        let result = change(&mut changed)?;
        // A disk that is away may have a change that was cut off before it reached this one: what
        // is changed without it must count for more, for data will be sealed with these keys.
        let alone = self.core.disks.iter().any(Option::is_none);
        changed.generation += if alone { 2 } else { 1 };
        // After a failure some disks may have this generation: nothing else may be written under
        // its number, so this process ends its writing. The next one begins with the newest.
        write_superblock(&changed, &self.core.disks).inspect_err(|e| self.core.stop(e))?;
        *self.core.superblock.write().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(result)
    }

    /// Puts an empty disk in the place of one of the pool's, and opens the pool to write. What
    /// the old disk had is then rebuilt by [`Pool::scrub`].
    ///
    /// # Errors
    /// As [`Pool::open`]; [`Error::Invalid`] when there is no such place, the new disk is not
    /// empty, or the old one is there and has what no other disk has.
    pub fn replace_disk(
        options: OpenOptions<'_>,
        used: Use,
        place: usize,
        new: Arc<dyn Disk>,
    ) -> Result<Self> {
        if Superblock::exists(&*new) {
            let what = format!("{} is part of a pool already", new.describe());
            return Err(Error::Invalid(what));
        }
        let mut options = OpenOptions { mode: OpenMode::Write, ..options };
        {
            let locked = lock_all(&options.disks, OpenMode::Write, &used.holder)?;
            let Found { mut superblock, mut disks, mut unread, .. } = find(&locked.disks)?;
            unread.extend(locked.unread);
            if place >= disks.len() {
                let what = format!("the pool has disks 0 to {}, not {place}", disks.len() - 1);
                return Err(Error::Invalid(what));
            }
            let left = disks.iter().enumerate().filter(|(i, disk)| *i != place && disk.is_some());
            if left.count() < usize::from(superblock.data_shards) {
                return Err(Error::TooFewDisks {
                    missing: disks.iter().filter(|disk| disk.is_none()).count(),
                    total: disks.len(),
                    tolerated: superblock.parity_shards.into(),
                });
            }
            // A wrong secret is noticed before anything is changed.
            let unlocked = superblock.protection.unlock(superblock.pool, options.secret)?;
            if disks[place].is_none() {
                refuse_unread(
                    &unread,
                    "it may be the one to be replaced and have what others lack",
                )?;
            } else {
                let settings = settings(&superblock, &unlocked.keyring, &used);
                check_others(&disks, place, settings)?;
            }
            // Whatever opening will refuse is refused before anything is changed.
            disks[place] = Some(Arc::clone(&new));
            let missing = disks.iter().filter(|disk| disk.is_none()).count();
            if missing >= usize::from(superblock.data_shards) {
                refuse_unread(&unread, "what was committed last may be there alone")?;
            }
            let settings = settings(&superblock, &unlocked.keyring, &used);
            let (_, state, report) = Journal::open(&places(&disks), settings, false)?;
            if let Some(why) = report.hidden.first() {
                return Err(Error::Invalid(format!(
                    "what was committed last may be where it can't be read ({why}): try again, and \
                     if it stays so take that disk away first"
                )));
            }
            refuse_unknown_keys(&state, &unlocked.keyring)?;
            make_room(&*new)?;
            // As for a change without a disk: the one that is replaced may come back.
            superblock.generation += 2;
            superblock.disks[place] = DiskId::random();
            write_superblock(&superblock, &disks)?;
        }
        options.disks.push(Some(new));
        Self::open(options, used)
    }

    /// Writes superblocks anew that are damaged, or can't be read though their disks are there; the
    /// places of those disks. A disk is known by its shards, which say what pool they belong to and,
    /// with their numbers, to which of its places. Opening the pool then finds what else the disk lacks.
    ///
    /// # Errors
    /// As [`Pool::open`], before anything is changed; those of the disks.
    pub fn mend_superblocks(options: &OpenOptions<'_>, used: &Use) -> Result<Vec<usize>> {
        let locked = lock_all(&options.disks, OpenMode::Write, &used.holder)?;
        let Found { superblock, mut disks, .. } = find(&locked.disks)?;
        let unlocked = superblock.protection.unlock(superblock.pool, options.secret)?;
        let mut mended = Vec::new();
        for disk in locked.disks.iter().flatten() {
            let Err(flaw) = Superblock::read(&**disk) else { continue };
            let is_unread = matches!(flaw, Error::Io { .. });
            if !is_unread && !matches!(flaw, Error::Damaged { .. } | Error::NotAPool { .. }) {
                continue;
            }
            let place = place_of(&**disk, superblock.pool, disks.len());
            let Some(place) = place.filter(|place| disks[*place].is_none()) else { continue };
            disks[place] = Some(Arc::clone(disk));
            if is_unread {
                // It may be a newer one: not when the journal knows of keys that others lack.
                let settings = settings(&superblock, &unlocked.keyring, used);
                let (_, state, _) = Journal::open(&places(&disks), settings, false)?;
                refuse_unknown_keys(&state, &unlocked.keyring)?;
            }
            superblock.for_disk(place).write(&**disk)?;
            mended.push(place);
        }
        Ok(mended)
    }

    /// Builds the index again from the packs alone, and puts it in the place of the old one. How
    /// many entries it has. Packs whose directory is beyond mending are named in
    /// [`Pool::take_notices`]; of them it has what can still be read of the old index.
    ///
    /// # Errors
    /// Those of the disks and the journal. Where a pack's directory, or the part of the old index
    /// that would have to stand in for it, merely can't be read, the old index stays, and it is said
    /// which files are in the way.
    pub fn rebuild_index(&self, meter: &Meter) -> Result<u64> {
        let _upkeep = self.begin_upkeep("rebuilding the index")?;
        self.flush(|_| Ok(Vec::new()))?;
        let packs = self.core.state().packs.clone();
        let segments = self.core.state().segments.clone();
        let old: BTreeSet<SegmentId> = segments.keys().copied().collect();
        let mut silent: BTreeMap<PackId, Silent> = BTreeMap::new();
        meter.begin(packs.len() as u64);
        let mut entries = 0;
        for (id, info) in packs {
            self.check_stop(meter)?;
            let directory = twice(|| {
                OpenPack::open(&self.core, id, info).and_then(|pack| pack.directory(&self.core))
            });
            match directory {
                Ok(directory) => {
                    for (chunk, at) in directory.locations(id, info.kind) {
                        self.core.index.memtable().insert(&chunk, at);
                        entries += 1;
                    }
                }
                Err(e) => {
                    self.core.notice(format!("pack {id} does not tell what is in it: {e}"));
                    let why = Some(e).filter(|e| !e.is_for_good());
                    silent.insert(id, Silent { chunks: info.chunks, why });
                }
            }
            if self.core.index.memtable().len() > ENTRIES {
                self.flush(|_| Ok(Vec::new()))?;
            }
            meter.add(1);
        }
        if !silent.is_empty() {
            entries += self.entries_of_old(&segments, silent)?;
        }
        self.flush(|_| Ok(old.iter().map(|id| Op::DropSegment(*id)).collect()))?;
        let dropped: Vec<SegmentId> = old.into_iter().collect();
        self.core.index.replace(&dropped, None)?;
        for disk in self.core.disks.iter().flatten() {
            for id in &dropped {
                // A left-over is swept away when the pool is opened to write.
                let _ = index::remove(&**disk, *id);
            }
        }
        self.tidy_index()?;
        Ok(entries)
    }

    /// Takes what segments that are about to go say of packs that don't tell themselves; how many
    /// entries that are. Only what is lost for good on both sides is left out.
    fn entries_of_old(
        &self,
        segments: &BTreeMap<SegmentId, SegmentInfo>,
        silent: BTreeMap<PackId, Silent>,
    ) -> Result<u64> {
        let mut found = 0;
        let mut known = ChunkSet::default();
        for (id, info) in segments {
            let one = BTreeMap::from([(*id, *info)]);
            let options = index::Options::default();
            let end = match Index::open(&self.core.disks, &one, self.core.id, options) {
                Ok(old) => self.entries_of(&old, &silent, &mut known, &mut found)?,
                Err(e) => Some(e),
            };
            match end {
                None => {}
                Some(e) if e.is_for_good() => self.core.notice(format!(
                    "{e}: what packs had that don't tell what is in them may be lost with it"
                )),
                Some(e) => return Err(or_without(&format!("{}/{id}", index::DIR), e)),
            }
        }
        for (id, Silent { chunks, why }) in silent {
            if let Some(why) = why.filter(|_| known.count(id) < chunks) {
                return Err(or_without(&format!("{}/{id}.*", shard::directory(id)), why));
            }
        }
        Ok(found)
    }

    /// Takes an old index's entries of these packs, and counts them. Why it can't be read to its end.
    fn entries_of(
        &self,
        old: &Index,
        packs: &BTreeMap<PackId, Silent>,
        known: &mut ChunkSet,
        found: &mut u64,
    ) -> Result<Option<Error>> {
        for entry in old.entries() {
            let (chunk, at) = match entry {
                Ok(entry) => entry,
                Err(e) => return Ok(Some(e)),
            };
            if packs.contains_key(&at.pack) {
                self.core.index.memtable().insert(&chunk, at);
                known.insert(at.pack, at.ordinal);
                *found += 1;
            }
            if self.core.index.memtable().len() > ENTRIES {
                self.flush(|_| Ok(Vec::new()))?;
            }
        }
        Ok(None)
    }
}

/// Says how to go on without files that stay unreadable: once they are elsewhere it is known what the
/// index lacks, and a collection keeps what is to be put back.
fn or_without(files: &str, error: Error) -> Error {
    let Error::Io { source, .. } = error else { return error };
    let what = format!(
        "{files} can't be read, and the index is made of it: try again; if it stays so, move it \
         elsewhere and build the index without it, and again when it was put back readable"
    );
    Error::io(what, source)
}

/// A pack that does not tell what is in it.
#[derive(Debug)]
struct Silent {
    chunks: u32,
    /// Why, when it may tell another time.
    why: Option<Error>,
}

/// Which place of a pool of `disks` disks a disk has, by the shards on it, of which a few are looked
/// at; none when there are none of this pool, or they disagree.
fn place_of(disk: &dyn Disk, pool: PoolId, disks: usize) -> Option<usize> {
    let found = shard::list_packs(disk).ok()?;
    let sealed = found.iter().filter(|shard| shard.stage == Stage::Sealed);
    let ours = sealed
        .filter(|shard| shard::read_header(disk, shard).is_ok_and(|header| header.pool == pool));
    let mut places = ours.take(WITNESSES).map(|shard| disk_of(shard.pack, shard.shard, disks));
    let first = places.next()?;
    places.all(|place| place == first).then_some(first)
}

/// Fails when a disk that is there, and is to be replaced, has shards that the others need.
fn check_others(disks: &[Option<Arc<dyn Disk>>], place: usize, settings: Settings) -> Result<()> {
    let (_, state, with) = Journal::open(&places(disks), settings.clone(), false)?;
    // Nor may it be the only one with what was committed last.
    let mut others = disks.to_vec();
    others[place] = None;
    let (_, _, without) = Journal::open(&places(&others), settings, false)?;
    if let Some(why) = with.hidden.first() {
        return Err(Error::Invalid(format!(
            "it can't be told whether what was committed last is on disk {place} alone ({why}): try \
             again, and if it is disk {place} that can't be read, take it away first"
        )));
    }
    if without.generation < with.generation {
        return Err(Error::Invalid(format!(
            "disk {place} alone has the newest state of the pool: open the pool to write, with `pool \
             scrub`, and try again"
        )));
    }
    let mut shards: HashMap<PackId, usize> = HashMap::new();
    // A disk may have been the only one to take a segment.
    let mut segments: BTreeSet<String> = BTreeSet::new();
    for disk in others.iter().flatten() {
        let found = shard::list_packs(&**disk)
            .map_err(|e| Error::io(format!("listing {}", disk.describe()), e))?;
        for shard in found.iter().filter(|shard| shard.stage == Stage::Sealed) {
            *shards.entry(shard.pack).or_default() += 1;
        }
        let listed = disk.list(index::DIR);
        segments.extend(listed.unwrap_or_default().into_iter().map(|entry| entry.name));
    }
    let only_there = state.segments.keys().filter(|id| !segments.contains(&id.to_string()));
    match only_there.count() {
        0 => {}
        count => {
            return Err(Error::Invalid(format!(
                "{count} segments of the index are on disk {place} alone: run `pool scrub` first"
            )));
        }
    }
    let short = state
        .packs
        .iter()
        .filter(|(id, info)| shards.get(id).copied().unwrap_or(0) < usize::from(info.data_shards));
    match short.count() {
        0 => Ok(()),
        packs => Err(Error::Invalid(format!(
            "{packs} packs can't be read without disk {place}, because another disk was not rebuilt \
             yet: run `pool scrub` first"
        ))),
    }
}

/// Writes a superblock to every disk that is there.
fn write_superblock(superblock: &Superblock, disks: &[Option<Arc<dyn Disk>>]) -> Result<()> {
    let mut good = 0;
    let mut last = None;
    for (place, disk) in disks.iter().enumerate() {
        let Some(disk) = disk else { continue };
        match superblock.for_disk(place).write(&**disk) {
            Ok(()) => good += 1,
            Err(e) => last = Some(e),
        }
    }
    match last {
        Some(e) if good < usize::from(superblock.data_shards) => Err(e),
        _ => Ok(()),
    }
}
