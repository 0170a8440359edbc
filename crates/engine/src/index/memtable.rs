//! Chunks that are in no segment yet: being stored by this process, or stored in packs that are
//! not committed.
//!
//! An id is *in flight* from the moment a caller has claimed it until the caller fills in where it
//! was put, or abandons it. A flush has two phases: [`Memtable::freeze`] sets the entries of
//! finished packs aside, where look-ups still see them; when the segment that they were written to
//! is in use, [`Memtable::release`] lets go of them. At every instant an entry is to be seen in the
//! memtable or in a segment, so who looks in the memtable first and then in the segments misses
//! nothing.
//!
//! 64 shards by the first bits of the id, each under its own lock, which is never held over I/O.
//! About 100 bytes per entry: flush at [`super::FLUSH_AT`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::{ChunkId, Location, PackId};

/// Number of shards.
pub(super) const SHARDS: usize = 64;

/// Ids are uniform already: eight bytes of one, that the shards don't depend on, are its hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        if let Some(part) = bytes.get(8..16) {
            self.0 = u64::from_le_bytes(part.try_into().expect("eight bytes"));
        }
    }
    fn write_usize(&mut self, _: usize) {}
}

type Map<V> = HashMap<ChunkId, V, BuildHasherDefault<IdHasher>>;

/// What is known of one id.
#[derive(Debug)]
enum Slot {
    InFlight,
    Filled(Location),
    /// Anything else. Rare: a copy that turned bad is stored again, or a chunk is moved.
    Mixed(Box<Mixed>),
}

#[derive(Debug, Default)]
struct Mixed {
    in_flight: bool,
    locations: Vec<Location>,
}

impl Slot {
    fn locations(&self) -> &[Location] {
        match self {
            Self::InFlight => &[],
            Self::Filled(at) => std::slice::from_ref(at),
            Self::Mixed(mixed) => &mixed.locations,
        }
    }

    fn in_flight(&self) -> bool {
        match self {
            Self::InFlight => true,
            Self::Filled(_) => false,
            Self::Mixed(mixed) => mixed.in_flight,
        }
    }

    /// The shortest slot with this content; none when there is nothing to tell.
    fn of(in_flight: bool, mut locations: Vec<Location>) -> Option<Self> {
        match (in_flight, locations.len()) {
            (false, 0) => None,
            (true, 0) => Some(Self::InFlight),
            (false, 1) => locations.pop().map(Self::Filled),
            _ => Some(Self::Mixed(Box::new(Mixed { in_flight, locations }))),
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    active: Map<Slot>,
    frozen: Map<Slot>,
}

impl Shard {
    fn locations(&self, id: &ChunkId) -> Vec<Location> {
        let (active, frozen) = (self.active.get(id), self.frozen.get(id));
        let both = [frozen, active].into_iter().flatten();
        both.flat_map(|slot| slot.locations()).copied().collect()
    }

    fn in_flight(&self, id: &ChunkId) -> bool {
        self.active.get(id).is_some_and(Slot::in_flight)
    }
}

/// Adds a location to a map, in place of one in the same pack; tells whether it is one more.
fn add(map: &mut Map<Slot>, id: ChunkId, at: Location, settle: bool) -> bool {
    let Some(slot) = map.get_mut(&id) else {
        map.insert(id, Slot::Filled(at));
        return true;
    };
    let in_flight = slot.in_flight() && !settle;
    let mut locations = slot.locations().to_vec();
    let before = locations.len();
    locations.retain(|old| old.pack != at.pack);
    locations.push(at);
    let more = locations.len() > before;
    *slot = Slot::of(in_flight, locations).expect("it has a location");
    more
}

/// What the memtable says about one id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether somebody is storing it.
    pub(super) in_flight: bool,
    /// Where it is, the newest last.
    pub(super) locations: Vec<Location>,
    epoch: u64,
}

/// The answer to trying to claim an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is the caller's now.
    Yes,
    /// Somebody else has it.
    InFlight,
    /// What was seen before is no longer so: look again.
    Changed,
}

/// See the module's text.
#[derive(Debug)]
pub struct Memtable {
    shards: Box<[Mutex<Shard>]>,
    /// Locations held, active and frozen.
    filled: AtomicUsize,
    /// Ids in flight.
    claimed: AtomicUsize,
    /// Counts releases, so that who looks and then claims notices one in between.
    epoch: AtomicU64,
}

impl Default for Memtable {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            filled: AtomicUsize::new(0),
            claimed: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
        }
    }
}

impl Memtable {
    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, Shard> {
        self.lock(usize::from(id.0[0]) * SHARDS / 256)
    }

    /// How many locations it holds, frozen ones included.
    pub fn len(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// Whether it holds no location.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether some caller has claimed the id and has not filled or abandoned it.
    pub fn is_in_flight(&self, id: &ChunkId) -> bool {
        self.claimed.load(Ordering::Acquire) > 0 && self.shard(id).in_flight(id)
    }

    pub(super) fn look(&self, id: &ChunkId) -> Seen {
        let epoch = self.epoch.load(Ordering::Acquire);
        let shard = self.shard(id);
        Seen { in_flight: shard.in_flight(id), locations: shard.locations(id), epoch }
    }

    /// Claims an id if nothing changed since it was looked at.
    pub(super) fn begin(&self, id: &ChunkId, seen: &Seen) -> Begun {
        let mut shard = self.shard(id);
        if shard.in_flight(id) {
            return Begun::InFlight;
        }
        // A release counts before it clears a shard, and clears under the shard's lock: entries
        // that moved to a segment since the look are noticed here.
        if self.epoch.load(Ordering::Acquire) != seen.epoch || shard.locations(id) != seen.locations
        {
            return Begun::Changed;
        }
        let locations = shard.active.get(id).map_or(Vec::new(), |slot| slot.locations().to_vec());
        shard.active.insert(*id, Slot::of(true, locations).expect("it is in flight"));
        self.claimed.fetch_add(1, Ordering::Release);
        Begun::Yes
    }

    /// Says where a chunk is that the caller has claimed; it is no longer in flight.
    pub fn fill(&self, id: &ChunkId, at: Location) {
        self.put(id, at, true);
    }

    /// Adds one more place where a chunk is, without any claim: it was moved, or found.
    pub fn insert(&self, id: &ChunkId, at: Location) {
        self.put(id, at, false);
    }

    fn put(&self, id: &ChunkId, at: Location, settle: bool) {
        let mut shard = self.shard(id);
        let settled = settle && shard.in_flight(id);
        if add(&mut shard.active, *id, at, settle) {
            self.filled.fetch_add(1, Ordering::AcqRel);
        }
        // Last: both counts are looked at without the lock, and an id that is no longer in flight
        // must be found.
        if settled {
            self.claimed.fetch_sub(1, Ordering::Release);
        }
    }

    /// Gives a claim back: the chunk was not stored. Whoever was told that it is in flight must
    /// then store it, or fail.
    pub fn abandon(&self, id: &ChunkId) {
        let mut shard = self.shard(id);
        let Some(slot) = shard.active.get(id).filter(|slot| slot.in_flight()) else { return };
        match Slot::of(false, slot.locations().to_vec()) {
            Some(slot) => drop(shard.active.insert(*id, slot)),
            None => drop(shard.active.remove(id)),
        }
        self.claimed.fetch_sub(1, Ordering::Release);
    }

    /// Forgets all entries in packs for which `gone` holds. `gone` is called under a lock: it must
    /// not call back, nor wait for anything.
    pub fn drop_packs(&self, gone: &dyn Fn(PackId) -> bool) {
        for number in 0..SHARDS {
            let Shard { active, frozen } = &mut *self.lock(number);
            for map in [active, frozen] {
                map.retain(|_, slot| {
                    if !slot.locations().iter().any(|at| gone(at.pack)) {
                        return true;
                    }
                    let mut locations = slot.locations().to_vec();
                    let before = locations.len();
                    locations.retain(|at| !gone(at.pack));
                    self.filled.fetch_sub(before - locations.len(), Ordering::AcqRel);
                    Slot::of(slot.in_flight(), locations).is_some_and(|left| {
                        *slot = left;
                        true
                    })
                });
            }
        }
    }

    /// First phase of a flush: sets aside all entries in packs for which `ready` holds, added to
    /// those that an earlier flush set aside and never released. The same rules as for
    /// [`Memtable::drop_packs`] hold for `ready`. One flush at a time.
    pub fn freeze(&self, ready: &dyn Fn(PackId) -> bool) {
        for number in 0..SHARDS {
            let mut shard = self.lock(number);
            for (id, slot) in std::mem::take(&mut shard.active) {
                let in_flight = slot.in_flight();
                let (mut stay, mut stayed) = (Vec::new(), None);
                match &slot {
                    Slot::Filled(at) if !ready(at.pack) => stayed = Some(*at),
                    Slot::Filled(at) => self.set_aside(&mut shard, id, *at),
                    slot => {
                        for at in slot.locations() {
                            match ready(at.pack) {
                                true => self.set_aside(&mut shard, id, *at),
                                false => stay.push(*at),
                            }
                        }
                    }
                }
                let left = stayed.map(Slot::Filled).or_else(|| Slot::of(in_flight, stay));
                if let Some(left) = left {
                    shard.active.insert(id, left);
                }
            }
        }
    }

    fn set_aside(&self, shard: &mut Shard, id: ChunkId, at: Location) {
        if !add(&mut shard.frozen, id, at, false) {
            // It took the place of one in the same pack.
            self.filled.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The frozen entries of one shard, sorted by id and pack; shards are in the order of ids.
    pub(super) fn frozen(&self, number: usize) -> Vec<(ChunkId, Location)> {
        let mut all = Vec::new();
        let shard = self.lock(number);
        all.reserve_exact(shard.frozen.len());
        for (id, slot) in &shard.frozen {
            all.extend(slot.locations().iter().map(|at| (*id, *at)));
        }
        drop(shard);
        all.sort_unstable_by_key(|(id, at)| (*id, at.pack));
        all
    }

    /// Second phase of a flush: lets go of what was set aside. The segment must be in use by then.
    pub(super) fn release(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for number in 0..SHARDS {
            let gone = std::mem::take(&mut self.lock(number).frozen);
            let count: usize = gone.values().map(|slot| slot.locations().len()).sum();
            self.filled.fetch_sub(count, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::id::ChunkKind;

    fn at(pack: u64) -> Location {
        Location {
            pack: PackId(pack),
            ordinal: 1,
            frame_offset: 2,
            frame_len: 3,
            offset: 4,
            len: 5,
            kind: ChunkKind::Data,
        }
    }

    fn id(n: u8) -> ChunkId {
        ChunkId(std::array::from_fn(|i| n.wrapping_mul(i as u8 * 2 + 1)))
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<(ChunkId, Slot)>() <= 64);
    }

    #[test]
    fn claims_are_kept_apart_from_places() {
        let table = Memtable::default();
        let seen = table.look(&id(1));
        assert_eq!(seen, Seen::default());
        assert_eq!(table.begin(&id(1), &seen), Begun::Yes);
        assert_eq!(table.begin(&id(1), &seen), Begun::InFlight);
        // Somebody else finds it meanwhile; the claim stands.
        table.insert(&id(1), at(1));
        assert!(table.is_in_flight(&id(1)));
        table.fill(&id(1), at(2));
        assert!(!table.is_in_flight(&id(1)));
        assert_eq!(table.look(&id(1)).locations, [at(1), at(2)]);
        assert_eq!(table.begin(&id(1), &seen), Begun::Changed);
        assert_eq!(table.begin(&id(1), &table.look(&id(1))), Begun::Yes);
        table.abandon(&id(1));
        table.abandon(&id(2));
        assert_eq!(table.len(), 2);
        table.drop_packs(&|pack| pack == PackId(2));
        assert_eq!(table.look(&id(1)).locations, [at(1)]);
        table.drop_packs(&|_| true);
        assert!(table.is_empty() && !table.is_in_flight(&id(1)));
    }

    #[test]
    fn what_was_claimed_is_in_flight_or_there_at_every_moment() {
        const TURNS: usize = 20_000;
        const OVER: usize = usize::MAX;
        let table = Memtable::default();
        let turn = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..TURNS {
                    while turn.load(Ordering::Acquire) != 2 * n + 1 {
                        if turn.load(Ordering::Acquire) == OVER {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    table.fill(&id(7), at(1));
                    turn.store(2 * n + 2, Ordering::Release);
                }
            });
            for n in 0..TURNS {
                assert_eq!(table.begin(&id(7), &table.look(&id(7))), Begun::Yes);
                turn.store(2 * n + 1, Ordering::Release);
                for poll in 1u32.. {
                    if turn.load(Ordering::Acquire) == 2 * n + 2 {
                        break;
                    }
                    // The other may have no processor to itself.
                    if poll % 1024 == 0 {
                        std::thread::yield_now();
                    }
                    // As whoever looks for it asks.
                    let there = table.is_in_flight(&id(7))
                        || !table.is_empty() && !table.look(&id(7)).locations.is_empty();
                    if !there {
                        turn.store(OVER, Ordering::Release);
                        panic!("turn {n}");
                    }
                }
                table.drop_packs(&|_| true);
            }
        });
    }

    #[test]
    fn a_flush_takes_finished_packs_only_and_stays_visible() {
        let table = Memtable::default();
        for n in 0..100 {
            let claimed = table.begin(&id(n), &table.look(&id(n)));
            assert_eq!(claimed, Begun::Yes);
            match n % 4 {
                0 => {}
                pack => table.fill(&id(n), at(pack.into())),
            }
        }
        table.insert(&id(1), at(2));
        table.insert(&id(0), at(1));
        let before: Vec<_> = (0..100).map(|n| table.look(&id(n))).collect();
        table.freeze(&|pack| pack.0 < 3);
        table.freeze(&|pack| pack.0 < 3);
        let after: Vec<_> = (0..100).map(|n| table.look(&id(n))).collect();
        assert_eq!(before, after);
        let frozen: Vec<_> = (0..SHARDS).flat_map(|n| table.frozen(n)).collect();
        assert!(frozen.is_sorted_by_key(|(id, at)| (*id, at.pack)));
        assert_eq!(frozen.len(), 52);
        let early = table.look(&id(1));
        table.release();
        assert_eq!(table.begin(&id(1), &early), Begun::Changed);
        assert_eq!(table.len(), 25);
        assert_eq!(table.look(&id(1)).locations, []);
        assert_eq!(table.look(&id(3)).locations, [at(3)]);
        assert!(table.look(&id(0)).in_flight && table.look(&id(4)).in_flight);
    }
}
