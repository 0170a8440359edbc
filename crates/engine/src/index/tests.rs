#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};

use proptest::prelude::*;

use super::format::{ENTRY, PAGE, PER_PAGE};
use super::memdisk::MemDisk;
use super::*;
use crate::disk::{Caching, Fault, Operation, SimWorld};
use crate::id::ChunkKind;

const POOL: PoolId = PoolId([0x51; 16]);

fn at(pack: u64, ordinal: u32) -> Location {
    Location {
        pack: PackId(pack),
        ordinal,
        frame_offset: ordinal.wrapping_mul(77),
        frame_len: ordinal + 1,
        offset: ordinal / 2,
        len: 1000 + ordinal,
        kind: if pack.is_multiple_of(2) { ChunkKind::Data } else { ChunkKind::Node },
    }
}

/// Spread evenly, as hashes are.
fn spread(n: u64) -> ChunkId {
    let mix = |k: u64| {
        let mut z = (n * 4 + k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb).to_be_bytes()
    };
    let mut id = [0; 32];
    for (k, part) in id.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&mix(k as u64));
    }
    ChunkId(id)
}

fn disks(of: &[Arc<MemDisk>]) -> Vec<Option<Arc<dyn Disk>>> {
    of.iter().map(|disk| Some(Arc::clone(disk) as Arc<dyn Disk>)).collect()
}

const ALL: Valid<'static> = &|_, _| true;

/// A segment of `count` spread ids, on these disks.
fn write(disks: &[Option<Arc<dyn Disk>>], id: SegmentId, count: u64) -> SegmentInfo {
    let mut entries: Vec<_> = (0..count).map(|n| (spread(n), at(n % 5, n as u32))).collect();
    entries.sort_unstable_by_key(|(id, _)| *id);
    let mut writer = SegmentWriter::create(disks, POOL, id).unwrap();
    entries.iter().for_each(|(id, at)| writer.push(id, at).unwrap());
    let written = writer.finish().unwrap().unwrap();
    assert_eq!(written.info.entries, count);
    written.info
}

fn open(
    disks: &[Option<Arc<dyn Disk>>],
    segments: &BTreeMap<SegmentId, SegmentInfo>,
) -> Result<Index> {
    Index::open(disks, segments, POOL, Options { with_filters: true, cache_pages: 16 })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u8),
    /// One chunk in many packs: its entries fill several pages.
    Spill(u8),
    Flush(u8),
    MergeAll,
    MergeSome(u8),
    Lose(u8),
    Reopen(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..60, 0u8..20).prop_map(|(id, pack)| Step::Insert(id, pack)),
        1 => (0u8..60).prop_map(Step::Spill),
        4 => (0u8..30).prop_map(Step::Flush),
        1 => Just(Step::MergeAll),
        1 => any::<u8>().prop_map(Step::MergeSome),
        1 => (0u8..20).prop_map(Step::Lose),
        1 => any::<bool>().prop_map(Step::Reopen),
    ]
}

/// Ids of which many share their first eight bytes.
fn crowded(n: u8) -> ChunkId {
    let mut id = spread((n / 6).into());
    match n % 6 {
        0 => {}
        1 => id.0[..8].fill(0),
        2 => id.0[..8].fill(0xff),
        _ => id.0[31] ^= n,
    }
    id
}

/// The index beside a plain map of the same.
struct Model {
    disks: Vec<Option<Arc<dyn Disk>>>,
    index: Index,
    used: BTreeMap<SegmentId, SegmentInfo>,
    next: u64,
    memtable: BTreeMap<(ChunkId, PackId), Location>,
    stored: BTreeMap<(ChunkId, PackId), Location>,
    lost: BTreeSet<PackId>,
}

impl Model {
    fn new() -> Self {
        let disks = disks(&[MemDisk::new(), MemDisk::new()]);
        let index = open(&disks, &BTreeMap::new()).unwrap();
        Self {
            disks,
            index,
            used: BTreeMap::new(),
            next: 1,
            memtable: BTreeMap::new(),
            stored: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    fn insert(&mut self, id: u8, pack: u64) {
        let (id, at) = (crowded(id), at(pack, id.into()));
        if !self.lost.contains(&at.pack) {
            self.index.memtable().insert(&id, at);
            self.memtable.insert((id, at.pack), at);
        }
    }

    fn merge(&mut self, from: &[SegmentId]) {
        if from.is_empty() {
            return;
        }
        let to = SegmentId(self.next);
        self.next += 1;
        let lost = &self.lost;
        let keep = |_: &ChunkId, at: &Location| !lost.contains(&at.pack);
        let written = self.index.merge(from, to, &keep).unwrap();
        let added = written.as_ref().map(|w| (to, &w.info));
        self.index.replace(from, added).unwrap();
        for id in from {
            self.used.remove(id);
            self.disks.iter().flatten().for_each(|disk| remove(&**disk, *id).unwrap());
        }
        self.used.extend(written.map(|w| (to, w.info)));
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Insert(id, pack) => self.insert(*id, (*pack).into()),
            Step::Spill(id) => (100..300).for_each(|pack| self.insert(*id, pack)),
            Step::Flush(limit) => {
                let ready = |pack: PackId| pack.0 % 30 >= u64::from(*limit) % 25;
                let id = SegmentId(self.next);
                self.next += 1;
                if let Some(written) = self.index.flush(id, &ready).unwrap() {
                    assert!(written.failed.is_empty());
                    self.check();
                    self.index.adopt_flush(id, &written.info).unwrap();
                    self.used.insert(id, written.info);
                }
                let (moved, stay) = std::mem::take(&mut self.memtable)
                    .into_iter()
                    .partition::<BTreeMap<_, _>, _>(|((_, pack), _)| ready(*pack));
                self.memtable = stay;
                self.stored.extend(moved);
            }
            Step::MergeAll => {
                let all: Vec<_> = self.used.keys().copied().collect();
                self.merge(&all);
                let lost = self.lost.clone();
                self.stored.retain(|(_, pack), _| !lost.contains(pack));
            }
            Step::MergeSome(mask) => {
                let chosen = self.used.keys().enumerate().filter(|(n, _)| mask >> (n % 8) & 1 == 1);
                let chosen: Vec<_> = chosen.map(|(_, id)| *id).collect();
                self.merge(&chosen);
            }
            Step::Lose(pack) => {
                let pack = PackId((*pack).into());
                self.lost.insert(pack);
                self.index.memtable().drop_packs(&|p| p == pack);
                self.memtable.retain(|(_, p), _| *p != pack);
            }
            Step::Reopen(with_filters) => {
                self.memtable.clear();
                let options = Options { with_filters: *with_filters, cache_pages: 8 };
                self.index = Index::open(&self.disks, &self.used, POOL, options).unwrap();
            }
        }
    }

    fn check(&self) {
        let lost = &self.lost;
        let valid = |_: &ChunkId, at: &Location| !lost.contains(&at.pack);
        let mut ids: Vec<_> = (0..64).map(crowded).collect();
        ids.sort_unstable();
        let many = self.index.lookup_many(&ids, &valid).unwrap();
        for (id, batch) in ids.iter().zip(many) {
            let mut places = BTreeMap::new();
            for map in [&self.stored, &self.memtable] {
                let of_id = map.range((*id, PackId(0))..=(*id, PackId(u64::MAX)));
                places.extend(of_id.map(|((_, pack), at)| (*pack, *at)));
            }
            places.retain(|pack, _| !lost.contains(pack));
            for found in [self.index.lookup(id, &valid).unwrap(), batch] {
                assert_eq!(found.is_some(), !places.is_empty());
                assert!(found.is_none_or(|at| places.get(&at.pack) == Some(&at)));
            }
            let all = self.index.lookup_all(id).unwrap();
            let live: BTreeMap<_, _> =
                all.iter().filter(|at| valid(id, at)).map(|at| (at.pack, *at)).collect();
            assert_eq!(live, places);
        }
        let mut walked = self.index.entries().map(Result::unwrap).collect::<Vec<_>>();
        assert!(walked.is_sorted_by(|a, b| (a.0, a.1.pack) < (b.0, b.1.pack)));
        walked.retain(|(id, at)| valid(id, at) && !self.memtable.contains_key(&(*id, at.pack)));
        let stored = self.stored.iter().filter(|(key, _)| !self.memtable.contains_key(key));
        let stored = stored.filter(|((_, pack), _)| !lost.contains(pack));
        assert!(stored.map(|((id, _), at)| (*id, *at)).eq(walked));
        assert_eq!(self.index.memtable().len(), self.memtable.len());
        assert_eq!(self.index.faults(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn it_answers_as_a_plain_map_does(steps in proptest::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
            if !matches!(step, Step::Insert(..)) {
                model.check();
            }
        }
        model.check();
    }
}

/// All answers must be right, or an error that names the segment. Gives how many were errors.
fn answers(index: &Index, count: u64) -> usize {
    let mut errors = 0;
    for n in (0..count).step_by(7).chain(count..count + 10) {
        match index.lookup(&spread(n), ALL) {
            Ok(found) => assert_eq!(found, (n < count).then(|| at(n % 5, n as u32))),
            Err(Error::Damaged { what, why }) => {
                assert_eq!(what, "index segment 000000000009");
                assert!(why.contains("pool repair --rebuild-index"));
                errors += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    errors
}

const ID: SegmentId = SegmentId(9);
const COUNT: u64 = PER_PAGE as u64 * 2 + 20;

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let (bad, good) = (MemDisk::new(), MemDisk::new());
    let alone = disks(std::slice::from_ref(&bad));
    let both = disks(&[Arc::clone(&bad), good]);
    let used = BTreeMap::from([(ID, write(&both, ID, COUNT))]);
    let content = bad.content(ID).unwrap();
    for byte in 0..used[&ID].len as usize {
        content.lock().unwrap()[byte] ^= 1 << (byte % 8);
        let page = byte / PAGE;
        // Header, fences and filter can be made again.
        let index = open(&alone, &used).unwrap();
        let errors = answers(&index, COUNT);
        let scrubbed = index.scrub(ID);
        assert_eq!(scrubbed, 1, "byte {byte}");
        assert_eq!(index.damage().len(), 1);
        assert!(errors > 0 || !(1..4).contains(&page), "byte {byte}");
        assert!(errors == 0 || (1..4).contains(&page), "byte {byte}");
        let index = open(&both, &used).unwrap();
        assert_eq!(answers(&index, COUNT), 0);
        assert!(index.faults() > 0);
        let damage = index.damage();
        assert!(damage.len() == 1 && damage[0].disk == 0 && damage[0].segment == ID);
        content.lock().unwrap()[byte] ^= 1 << (byte % 8);
    }
    let index = open(&both, &used).unwrap();
    assert_eq!((answers(&index, COUNT), index.scrub(ID), index.faults()), (0, 0, 0));
}

#[test]
fn every_truncation_is_noticed() {
    let (bad, good) = (MemDisk::new(), MemDisk::new());
    let alone = disks(std::slice::from_ref(&bad));
    let both = disks(&[Arc::clone(&bad), good]);
    let used = BTreeMap::from([(ID, write(&both, ID, COUNT))]);
    let whole = bad.bytes(ID);
    for len in 0..whole.len() {
        bad.set(ID, whole[..len].to_vec());
        match open(&alone, &used) {
            Ok(index) => {
                assert_eq!(index.damage().len(), 1);
                assert_eq!(answers(&index, COUNT), 0);
                // Only what follows from the entries was cut off.
                assert!(len >= 4 * PAGE);
            }
            Err(Error::Damaged { what, .. }) => assert_eq!(what, "index segment 000000000009"),
            Err(other) => panic!("{other}"),
        }
        let index = open(&both, &used).unwrap();
        assert_eq!(answers(&index, COUNT), 0);
        assert_eq!(index.damage()[0].disk, 0);
    }
}

#[test]
fn two_damaged_copies_make_a_whole_one() {
    let (a, b) = (MemDisk::new(), MemDisk::new());
    let both = disks(&[Arc::clone(&a), Arc::clone(&b)]);
    let used = BTreeMap::from([(ID, write(&both, ID, COUNT))]);
    let whole = a.bytes(ID);
    assert_eq!(whole, b.bytes(ID));
    a.content(ID).unwrap().lock().unwrap()[PAGE + 5] ^= 1;
    a.content(ID).unwrap().lock().unwrap()[17] ^= 1;
    b.content(ID).unwrap().lock().unwrap()[2 * PAGE + 5] ^= 1;
    let index = open(&both, &used).unwrap();
    assert_eq!(answers(&index, COUNT), 0);
    assert_eq!(index.scrub(ID), 3);
    assert_eq!(index.damage().iter().map(|d| d.disk).collect::<Vec<_>>(), [0, 1]);
    index.heal(ID, 0).unwrap();
    index.heal(ID, 1).unwrap();
    index.reopen(ID).unwrap();
    assert_eq!((a.bytes(ID), b.bytes(ID)), (whole.clone(), whole));
    assert_eq!((index.damage(), index.scrub(ID)), (vec![], 0));
    assert_eq!(answers(&index, COUNT), 0);
    assert!(matches!(index.heal(ID, 2), Err(Error::Invalid(_))));
    assert!(matches!(index.heal(SegmentId(1), 0), Err(Error::Invalid(_))));
}

#[test]
fn a_missing_copy_is_told_of_and_healed() {
    let (a, b) = (MemDisk::new(), MemDisk::new());
    let mut both = disks(&[Arc::clone(&a), Arc::clone(&b)]);
    let used = BTreeMap::from([(ID, write(&both, ID, COUNT))]);
    a.remove(&writer::path(ID)).unwrap();
    let index = open(&both, &used).unwrap();
    let damage = index.damage();
    assert_eq!((damage[0].disk, damage[0].why.as_str()), (0, "its file is missing"));
    index.heal(ID, 0).unwrap();
    index.reopen(ID).unwrap();
    assert_eq!(a.bytes(ID), b.bytes(ID));
    assert_eq!((answers(&index, COUNT), index.damage()), (0, vec![]));
    // A disk that isn't there is no damage.
    both[0] = None;
    assert_eq!(open(&both, &used).unwrap().damage(), []);
    b.remove(&writer::path(ID)).unwrap();
    assert!(matches!(open(&both, &used), Err(Error::Damaged { .. })));
}

#[test]
fn a_scrub_does_not_open_a_copy_for_each_page() {
    let world = SimWorld::new(1);
    let both: Vec<Option<Arc<dyn Disk>>> =
        (0..2).map(|_| Some(Arc::new(world.add_disk()) as Arc<dyn Disk>)).collect();
    both.iter().flatten().for_each(|disk| disk.make_dir(DIR).unwrap());
    let used = BTreeMap::from([(ID, write(&both, ID, COUNT))]);
    let index = open(&both, &used).unwrap();
    world.inject(Fault::io_error(Operation::Open, DIR).on_disk(1).forever());
    let pages = format::Layout::of(COUNT).unwrap().all_pages();
    assert_eq!(index.scrub(ID), pages);
    assert_eq!(index.damage().iter().map(|d| d.disk).collect::<Vec<_>>(), [1]);
    assert_eq!(world.faults_struck(), 2);
}

#[test]
fn what_contradicts_the_state_is_refused() {
    let disk = MemDisk::new();
    let disks = disks(std::slice::from_ref(&disk));
    let info = write(&disks, ID, COUNT);
    for wrong in [
        SegmentInfo { entries: COUNT - 1, ..info },
        SegmentInfo { entries: 0, len: 0 },
        SegmentInfo { entries: u64::MAX, len: u64::MAX },
        SegmentInfo { entries: COUNT + PER_PAGE as u64, len: info.len + PAGE as u64 },
        SegmentInfo { entries: 1 << 35, ..info },
    ] {
        let opened = open(&disks, &BTreeMap::from([(ID, wrong)]));
        assert!(matches!(opened, Err(Error::Damaged { .. })), "{wrong:?}");
    }
    // A whole header of another version.
    let mut bytes = disk.bytes(ID);
    bytes[8] = 2;
    format::Binding::new(POOL, ID).seal(0, &mut bytes[..PAGE]);
    disk.set(ID, bytes);
    let opened = open(&disks, &BTreeMap::from([(ID, info)]));
    assert!(matches!(opened, Err(Error::Unsupported { .. })));
    // The segment of another pool.
    let opened =
        Index::open(&disks, &BTreeMap::from([(ID, info)]), PoolId([1; 16]), Options::default());
    assert!(matches!(opened, Err(Error::Damaged { .. })));
}

#[test]
fn forged_pages_with_right_checksums_cause_no_panic() {
    let disk = MemDisk::new();
    let disks = disks(std::slice::from_ref(&disk));
    let used = BTreeMap::from([(ID, write(&disks, ID, COUNT))]);
    let whole = disk.bytes(ID);
    let binding = format::Binding::new(POOL, ID);
    for page in 0..whole.len() / PAGE {
        for fill in [0, 0x55, 0xff] {
            let mut bytes = whole.clone();
            bytes[page * PAGE..(page + 1) * PAGE].fill(fill);
            binding.seal(page as u64, &mut bytes[page * PAGE..(page + 1) * PAGE]);
            disk.set(ID, bytes);
            let Ok(index) = open(&disks, &used) else { continue };
            for n in 0..COUNT {
                drop(index.lookup(&spread(n), ALL));
                drop(index.lookup(&ChunkId([fill; 32]), ALL));
            }
            drop(index.entries().collect::<Vec<_>>());
            drop(index.merge(&[ID], SegmentId(10), ALL));
            drop(index.heal(ID, 0));
        }
    }
}

#[test]
fn a_disk_that_fails_at_any_step_of_writing_is_left_out() {
    let mut steps = 0;
    loop {
        let (weak, strong) = (MemDisk::new(), MemDisk::new());
        weak.changes_left.store(steps, Ordering::Relaxed);
        let both = disks(&[Arc::clone(&weak), Arc::clone(&strong)]);
        let mut writer = SegmentWriter::create(&both, POOL, ID).unwrap();
        for n in 0..200u8 {
            writer.push(&ChunkId([n; 32]), &at(1, n.into())).unwrap();
        }
        let written = writer.finish().unwrap().unwrap();
        assert_eq!(strong.names(), [writer::path(ID)]);
        if written.failed.is_empty() {
            assert_eq!(weak.names(), strong.names());
            break;
        }
        assert_eq!(written.failed[0].0, 0);
        assert!(weak.names().is_empty());
        // Alone it is an error, and nothing is left behind.
        weak.changes_left.store(steps, Ordering::Relaxed);
        let alone = disks(std::slice::from_ref(&weak));
        let result = SegmentWriter::create(&alone, POOL, ID).and_then(|mut writer| {
            for n in 0..200u8 {
                writer.push(&ChunkId([n; 32]), &at(1, n.into()))?;
            }
            writer.finish()
        });
        assert!(matches!(result, Err(Error::Io { .. })));
        assert!(weak.names().is_empty());
        steps += 1;
    }
    assert!(steps >= 6, "{steps}");
}

#[test]
fn a_failed_flush_loses_nothing() {
    let disk = MemDisk::new();
    let disks = disks(std::slice::from_ref(&disk));
    let index = open(&disks, &BTreeMap::new()).unwrap();
    (0..500).for_each(|n| index.memtable().insert(&spread(n), at(n % 5, n as u32)));
    disk.changes_left.store(3, Ordering::Relaxed);
    assert!(index.flush(ID, &|_| true).is_err());
    assert_eq!(answers(&index, 500), 0);
    disk.changes_left.store(usize::MAX, Ordering::Relaxed);
    let written = index.flush(ID, &|_| true).unwrap().unwrap();
    assert_eq!((written.info.entries, index.memtable().len()), (500, 500));
    index.adopt_flush(ID, &written.info).unwrap();
    assert_eq!((answers(&index, 500), index.memtable().len()), (0, 0));
    assert!(index.flush(SegmentId(10), &|_| true).unwrap().is_none());
}

#[test]
fn out_of_order_and_out_of_range_entries_are_refused() {
    let disks = disks(&[MemDisk::new()]);
    let mut writer = SegmentWriter::create(&disks, POOL, ID).unwrap();
    writer.push(&ChunkId([5; 32]), &at(1, 1)).unwrap();
    assert!(writer.push(&ChunkId([5; 32]), &at(1, 1)).is_err());
    assert!(writer.push(&ChunkId([4; 32]), &at(2, 1)).is_err());
    assert!(writer.push(&ChunkId([6; 32]), &Location { len: 1 << 24, ..at(1, 1) }).is_err());
    writer.push(&ChunkId([5; 32]), &at(2, 1)).unwrap();
    assert_eq!(writer.finish().unwrap().unwrap().info.entries, 2);
    const { assert!(ENTRY == 56) };
}

#[test]
fn left_overs_are_swept() {
    let disk = MemDisk::new();
    let disks = disks(std::slice::from_ref(&disk));
    let used = BTreeMap::from([(ID, write(&disks, ID, 3))]);
    write(&disks, SegmentId(8), 3);
    disk.create("index/000000000007.new", Caching::Cached).unwrap();
    disk.create("other", Caching::Cached).unwrap();
    assert_eq!(sweep(&*disk, &used).unwrap(), 2);
    assert_eq!(disk.names(), [writer::path(ID), "other".to_owned()]);
    remove(&*disk, ID).unwrap();
    remove(&*disk, ID).unwrap();
    assert_eq!(disk.names(), ["other"]);
    assert!(SegmentWriter::create(&disks, POOL, ID).unwrap().finish().unwrap().is_none());
    assert_eq!(disk.names(), ["other"]);
}

#[test]
fn of_all_claims_on_a_chunk_just_one_is_new() {
    const CHUNKS: u64 = 3000;
    let disks = disks(&[MemDisk::new()]);
    let index = open(&disks, &BTreeMap::new()).unwrap();
    let won: Vec<AtomicU64> = (0..CHUNKS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storers: Vec<_> = (0..4u64)
            .map(|thread| {
                let (index, won) = (&index, &won);
                scope.spawn(move || {
                    for round in 0..CHUNKS * 2 {
                        // Each thread in another order, but often the same chunks at once.
                        let n = (round + thread * 37 * (round / 500 % 2)) % CHUNKS;
                        match index.claim(&spread(n), ALL).unwrap() {
                            Claim::New
                                if n % 10 == 3
                                    && won[n as usize].load(Ordering::Relaxed) == 0
                                    && round < CHUNKS =>
                            {
                                index.memtable().abandon(&spread(n));
                            }
                            Claim::New => {
                                won[n as usize].fetch_add(1, Ordering::Relaxed);
                                index.memtable().fill(&spread(n), at(thread, n as u32));
                            }
                            Claim::Known(at) => assert_eq!(at.ordinal, n as u32),
                            Claim::InFlight => {}
                        }
                    }
                })
            })
            .collect();
        let (index, done) = (&index, &done);
        scope.spawn(move || {
            let mut next = 1;
            while !done.load(Ordering::Acquire) {
                let id = SegmentId(next);
                next += 1;
                if let Some(written) = index.flush(id, &|_| true).unwrap() {
                    index.adopt_flush(id, &written.info).unwrap();
                }
                if let Some(from) = index.plan_merge() {
                    let to = SegmentId(next);
                    next += 1;
                    let written = index.merge(&from, to, ALL).unwrap().unwrap();
                    index.replace(&from, Some((to, &written.info))).unwrap();
                }
            }
        });
        storers.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Release);
    });
    assert!(won.iter().all(|n| n.load(Ordering::Relaxed) == 1));
    let ids: HashMap<_, _> = (0..CHUNKS).map(|n| (spread(n), n)).collect();
    let mut held = index.entries().map(|e| e.unwrap().0).collect::<Vec<_>>();
    (0..CHUNKS)
        .filter(|n| !index.memtable().look(&spread(*n)).locations.is_empty())
        .for_each(|n| held.push(spread(n)));
    assert_eq!(held.len(), ids.len());
    assert!(held.iter().all(|id| ids.contains_key(id)));
}

#[test]
fn a_copy_known_as_bad_is_stored_again() {
    let disks = disks(&[MemDisk::new()]);
    let index = open(&disks, &BTreeMap::new()).unwrap();
    let id = spread(1);
    assert_eq!(index.claim(&id, ALL).unwrap(), Claim::New);
    assert_eq!(index.claim(&id, ALL).unwrap(), Claim::InFlight);
    index.memtable().fill(&id, at(1, 1));
    assert_eq!(index.claim(&id, ALL).unwrap(), Claim::Known(at(1, 1)));
    let not_first: Valid<'_> = &|_, at| at.pack != PackId(1);
    for flush in [false, true] {
        if flush {
            let written = index.flush(ID, &|_| true).unwrap().unwrap();
            index.adopt_flush(ID, &written.info).unwrap();
        }
        assert_eq!(index.claim(&id, not_first).unwrap(), Claim::New);
        assert!(index.memtable().is_in_flight(&id));
        assert_eq!(index.claim(&id, not_first).unwrap(), Claim::InFlight);
        assert_eq!(index.lookup(&id, ALL).unwrap(), Some(at(1, 1)));
        index.memtable().abandon(&id);
    }
    assert_eq!(index.claim(&id, not_first).unwrap(), Claim::New);
    index.memtable().fill(&id, at(2, 1));
    assert_eq!(index.claim(&id, not_first).unwrap(), Claim::Known(at(2, 1)));
    assert_eq!(index.lookup_all(&id).unwrap(), [at(2, 1), at(1, 1)]);
    assert!(index.contains(&id, not_first).unwrap());
}
