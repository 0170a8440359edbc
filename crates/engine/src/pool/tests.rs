//! Journeys of one pool on simulated disks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::chunker::Params;
use crate::clock::VirtualClock;
use crate::disk::{Disk, FsDisk, SimDisk, SimWorld};
use crate::keys::{Secret, Stretch};

const DAY: i64 = 86_400_000_000_000;

pub(super) struct Bed {
    world: SimWorld,
    disks: Vec<SimDisk>,
    clock: Arc<VirtualClock>,
    secret: Option<Secret>,
}

impl Bed {
    pub(super) fn new(count: usize, encrypted: bool) -> Self {
        let world = SimWorld::new(7);
        let disks = (0..count).map(|_| world.add_disk()).collect();
        let clock = Arc::new(VirtualClock::new(1_700_000_000_000_000_000));
        let secret = encrypted.then(|| Secret::passphrase(b"open sesame").unwrap());
        Self { world, disks, clock, secret }
    }

    fn used(&self) -> Use {
        let clock: Arc<dyn crate::clock::Clock> = Arc::clone(&self.clock) as _;
        Use { clock, threads: 0, holder: "the test".into() }
    }

    fn handles(&self) -> Vec<Arc<dyn Disk>> {
        self.disks.iter().map(|disk| Arc::new(disk.clone()) as Arc<dyn Disk>).collect()
    }

    pub(super) fn create(&self, parity: u8) -> Pool {
        let options = CreateOptions {
            disks: self.handles(),
            parity,
            secret: self.secret.as_ref().map(|secret| (secret, Stretch::CHEAP)),
            chunking: Params::default(),
            level: 1,
            pack_size: 1 << 20,
        };
        Pool::create(options, self.used()).unwrap()
    }

    fn try_open(&self, mode: OpenMode) -> Result<Pool> {
        let disks = self.handles().into_iter().map(Some).collect();
        let secret = self.secret.as_ref();
        Pool::open(OpenOptions { disks, mode, secret, without_index: false }, self.used())
    }

    fn open(&self) -> Pool {
        self.try_open(OpenMode::Write).unwrap()
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Stores an image of these pieces; its root.
fn back_up(pool: &Pool, pieces: &[Vec<u8>], immutable_for: Option<i64>) -> Root {
    let session = pool.session().unwrap();
    let mut data = Vec::new();
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    session.store(ChunkKind::Data, &slices, &mut data).unwrap();
    let node = Node { nodes: Vec::new(), data, payload: b"pieces".to_vec() }.encode();
    let mut nodes = Vec::new();
    session.store(ChunkKind::Node, &[&node], &mut nodes).unwrap();
    let root = NewRoot {
        id: RootId::random(),
        kind: 0,
        name: "test".into(),
        immutable_for,
        nodes,
        meta: Vec::new(),
    };
    session.commit(root).unwrap()
}

fn restore(pool: &Pool, root: &Root) -> Result<Vec<Vec<u8>>> {
    let node = pool.node(&root.nodes[0])?;
    let out = Mutex::new(vec![Vec::new(); node.data.len()]);
    let failed = Mutex::new(None);
    pool.fetch(
        &node.data,
        1,
        &|i, bytes| {
            lock(&out)[i] = bytes.to_vec();
            Ok(())
        },
        &|_, e| {
            lock(&failed).get_or_insert(e);
        },
    )?;
    match failed.into_inner().unwrap() {
        Some(e) => Err(e),
        None => Ok(out.into_inner().unwrap()),
    }
}

#[test]
fn what_is_committed_comes_back_from_every_layout() {
    for (disks, parity, encrypted) in [(1, 0, false), (1, 0, true), (2, 1, true), (3, 1, true)] {
        let bed = Bed::new(disks, encrypted);
        let pieces: Vec<_> = (0..40).map(|i| noise(i, 1000 + i as usize * 3000)).collect();
        let root = {
            let pool = bed.create(parity);
            let root = back_up(&pool, &pieces, None);
            assert_eq!(restore(&pool, &root).unwrap(), pieces);
            root
        };
        let pool = bed.open();
        assert_eq!(pool.roots(), std::slice::from_ref(&root));
        assert_eq!(restore(&pool, &root).unwrap(), pieces, "{disks} disks");
        assert!(pool.check(true, &Meter::new()).unwrap().is_clean());
        // The same again is known.
        let session = pool.session().unwrap();
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let stored = session.store(ChunkKind::Data, &slices, &mut Vec::new()).unwrap();
        assert_eq!((stored.new_chunks, stored.known_chunks), (0, 40));
        assert_eq!(pool.take_notices(), Vec::<String>::new());
    }
}

#[test]
fn a_wrong_or_missing_secret_is_one_clear_error() {
    let mut bed = Bed::new(1, true);
    drop(bed.create(0));
    bed.secret = Some(Secret::passphrase(b"open barley").unwrap());
    assert!(matches!(bed.try_open(OpenMode::Read), Err(Error::WrongSecret)));
    bed.secret = None;
    assert!(matches!(bed.try_open(OpenMode::Read), Err(Error::SecretNeeded)));
}

#[test]
fn one_process_writes_and_the_others_are_told_who() {
    let bed = Bed::new(1, false);
    let pool = bed.create(0);
    let error = bed.try_open(OpenMode::Write).unwrap_err();
    assert!(matches!(&error, Error::InUse { holder } if holder == "the test"), "{error}");
    let root = back_up(&pool, &[noise(1, 5000)], None);
    let reader = bed.try_open(OpenMode::Read).unwrap();
    assert_eq!(restore(&reader, &root).unwrap(), [noise(1, 5000)]);
    assert!(matches!(reader.session().map(drop), Err(Error::ReadOnly { .. })));
}

#[test]
fn files_of_packs_that_are_given_up_are_not_kept_open() {
    let dir = tempfile::tempdir().unwrap();
    let place = std::fs::canonicalize(dir.path()).unwrap();
    let options = CreateOptions {
        disks: vec![Arc::new(FsDisk::open(&place).unwrap())],
        parity: 0,
        secret: None,
        chunking: Params::default(),
        level: 1,
        pack_size: 1 << 20,
    };
    let pool = Pool::create(options, Bed::new(1, false).used()).unwrap();
    // Files of the pool that are open here, and of these those that were removed.
    let open = || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let paths = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let ours: Vec<_> = paths.filter(|path| path.starts_with(&place)).collect();
        let gone = ours.iter().filter(|path| path.to_string_lossy().ends_with(" (deleted)"));
        (ours.len(), gone.count())
    };
    let closed = open().0;
    let pieces: Vec<_> = (0..40).map(|i| noise(i, 100_000)).collect();
    let root = back_up(&pool, &pieces, None);
    assert_eq!(restore(&pool, &root).unwrap(), pieces);
    assert!(open().0 > closed, "what was read is open");
    pool.forget(&[root.id]).unwrap();
    let report = pool.gc(GcOptions { max_unused: 0.0, ..GcOptions::default() }).unwrap();
    assert!(report.packs_removed >= 4, "{report:?}");
    assert_eq!(open().1, 0);
}

#[test]
fn a_collection_frees_what_nothing_reaches_and_nothing_else() {
    let bed = Bed::new(3, true);
    let pool = bed.create(1);
    let shared = noise(100, 300_000);
    let first: Vec<_> = (0..20).map(|i| noise(i, 100_000)).chain([shared.clone()]).collect();
    let second: Vec<_> = (50..60).map(|i| noise(i, 100_000)).chain([shared.clone()]).collect();
    let (one, two) = (back_up(&pool, &first, None), back_up(&pool, &second, None));
    pool.forget(&[one.id]).unwrap();
    let exact = GcOptions { max_unused: 0.0, ..GcOptions::default() };
    let dry = pool.gc(GcOptions { dry_run: true, ..exact }).unwrap();
    let report = pool.gc(exact).unwrap();
    assert_eq!(dry.bytes_removed, report.bytes_removed);
    assert_eq!((report.dead_chunks, report.live_chunks, report.packs_waiting), (21, 12, 0));
    assert_eq!(restore(&pool, &two).unwrap(), second);
    let again = pool.gc(exact).unwrap();
    assert_eq!((again.dead_chunks, again.packs_removed), (0, 0));
    drop(pool);
    let pool = bed.open();
    assert_eq!(restore(&pool, &two).unwrap(), second);
    assert!(pool.check(true, &Meter::new()).unwrap().is_clean());
    assert!(pool.state().condemned.is_empty());
}

#[test]
fn a_session_keeps_what_it_uses_while_garbage_is_collected() {
    let bed = Bed::new(1, false);
    let pool = bed.create(0);
    let pieces: Vec<_> = (0..30).map(|i| noise(i, 50_000)).collect();
    let old = back_up(&pool, &pieces, None);
    let session = pool.session().unwrap();
    let mut data = Vec::new();
    let slices: Vec<&[u8]> = pieces[..3].iter().map(Vec::as_slice).collect();
    session.store(ChunkKind::Data, &slices, &mut data).unwrap();
    session.store(ChunkKind::Data, &[b"something new"], &mut data).unwrap();
    pool.forget(&[old.id]).unwrap();
    let exact = GcOptions { max_unused: 0.0, ..GcOptions::default() };
    pool.gc(exact).unwrap();
    pool.gc(exact).unwrap();
    // What the collector gave up is not offered any more.
    let stored = session.store(ChunkKind::Data, &[&pieces[9]], &mut data).unwrap();
    assert_eq!(stored.new_chunks, 1);
    let node = Node { nodes: Vec::new(), data, payload: Vec::new() }.encode();
    let mut nodes = Vec::new();
    session.store(ChunkKind::Node, &[&node], &mut nodes).unwrap();
    let root = NewRoot {
        id: RootId::random(),
        kind: 0,
        name: "new".into(),
        immutable_for: None,
        nodes,
        meta: Vec::new(),
    };
    let root = session.commit(root).unwrap();
    pool.gc(exact).unwrap();
    let back = restore(&pool, &root).unwrap();
    assert_eq!(back[..3], pieces[..3]);
    assert_eq!(back[3], b"something new");
    assert_eq!(back[4], pieces[9]);
}

#[test]
fn an_immutable_root_outlives_every_trick_with_the_clock() {
    let bed = Bed::new(1, false);
    let pool = bed.create(0);
    let root = back_up(&pool, &[noise(1, 10)], Some(30 * DAY));
    assert!(matches!(pool.forget(&[root.id]), Err(Error::Immutable { .. })));
    bed.clock.set_wall(2_000_000_000_000_000_000);
    assert!(matches!(pool.forget(&[root.id]), Err(Error::Immutable { .. })));
    drop(pool);
    bed.clock.reboot();
    let pool = bed.open();
    assert!(matches!(pool.forget(&[root.id]), Err(Error::Immutable { .. })), "7 days at most");
    let sooner = crate::clock::PoolTime(root.created.0 + DAY);
    let shortened = pool.update_root(root.id, None, Some(sooner));
    assert!(matches!(shortened, Err(Error::Immutable { .. })));
    bed.clock.advance(31 * DAY);
    pool.forget(&[root.id]).unwrap();
}

#[test]
fn a_lost_disk_is_survived_replaced_and_rebuilt() {
    let bed = Bed::new(3, true);
    let pool = bed.create(1);
    let pieces: Vec<_> = (0..40).map(|i| noise(i, 60_000)).collect();
    let root = back_up(&pool, &pieces, None);
    drop(pool);
    bed.disks[1].remove_all();
    let pool = bed.open();
    assert_eq!(restore(&pool, &root).unwrap(), pieces);
    // Writing goes on without it.
    let more = back_up(&pool, &[noise(77, 400_000)], None);
    drop(pool);
    let fresh = bed.world.add_disk();
    let disks = bed.handles().into_iter().map(Some).collect();
    let secret = bed.secret.as_ref();
    let options = OpenOptions { disks, mode: OpenMode::Write, secret, without_index: false };
    let pool = Pool::replace_disk(options, bed.used(), 1, Arc::new(fresh.clone())).unwrap();
    let outcome = pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
    assert!(outcome.complete && outcome.lost.is_empty(), "{outcome:?}");
    drop(pool);
    // Now another may go.
    let bed = Bed { disks: vec![fresh, bed.disks[2].clone()], ..bed };
    let pool = bed.open();
    assert_eq!(restore(&pool, &root).unwrap(), pieces);
    assert_eq!(restore(&pool, &more).unwrap(), [noise(77, 400_000)]);
}

#[test]
fn a_bad_chunk_leaves_the_index_and_the_next_backup_heals_it() {
    let bed = Bed::new(1, true);
    let pool = bed.create(0);
    let pieces: Vec<_> = (0..4).map(|i| noise(i, 700_000)).collect();
    let root = back_up(&pool, &pieces, None);
    drop(pool);
    let (path, len) = bed.disks[0]
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("packs/"))
        .max_by_key(|(_, len)| *len)
        .unwrap();
    bed.disks[0].flip_bit(&path, len / 2, 3).unwrap();
    let pool = bed.open();
    assert!(matches!(restore(&pool, &root), Err(Error::ChunkUnreadable { .. })));
    let report = pool.check(true, &Meter::new()).unwrap();
    assert_eq!((report.bad_copies.len(), report.lost.len()), (1, 1));
    let session = pool.session().unwrap();
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let stored = session.store(ChunkKind::Data, &slices, &mut Vec::new()).unwrap();
    assert_eq!((stored.new_chunks, stored.healed_chunks), (1, 1));
    session.checkpoint().unwrap();
    drop(session);
    assert_eq!(restore(&pool, &root).unwrap(), pieces);
}

#[test]
fn the_index_comes_back_from_packs_alone() {
    let bed = Bed::new(2, true);
    let pool = bed.create(1);
    let pieces: Vec<_> = (0..30).map(|i| noise(i, 30_000)).collect();
    let root = back_up(&pool, &pieces, None);
    drop(pool);
    for disk in &bed.disks {
        for (path, _) in disk.files() {
            if path.starts_with("index/") {
                disk.truncate(&path, 10).unwrap();
            }
        }
    }
    let error = bed.try_open(OpenMode::Write).unwrap_err().to_string();
    assert!(error.contains("rebuild-index"), "{error}");
    let disks = bed.handles().into_iter().map(Some).collect();
    let secret = bed.secret.as_ref();
    let options = OpenOptions { disks, mode: OpenMode::Write, secret, without_index: true };
    let pool = Pool::open(options, bed.used()).unwrap();
    assert_eq!(pool.rebuild_index(&Meter::new()).unwrap(), 31);
    drop(pool);
    let pool = bed.open();
    assert_eq!(restore(&pool, &root).unwrap(), pieces);
}

#[test]
fn key_slots_come_and_go_and_new_packs_get_the_new_key() {
    let mut bed = Bed::new(1, true);
    let pool = bed.create(0);
    let root = back_up(&pool, &[noise(1, 1000)], None);
    let second = Secret::passphrase(b"another way").unwrap();
    let slot = pool.add_slot(&second, "second", Stretch::CHEAP).unwrap();
    let first = pool.slots().iter().find(|slot| slot.opened).unwrap().id;
    pool.remove_slot(first).unwrap();
    assert!(pool.remove_slot(slot).is_err(), "the last slot stays");
    let epoch = pool.rekey().unwrap();
    let newer = back_up(&pool, &[noise(2, 1000)], None);
    drop(pool);
    assert!(matches!(bed.try_open(OpenMode::Read), Err(Error::WrongSecret)));
    bed.secret = Some(second);
    let pool = bed.open();
    assert!(pool.state().packs.values().any(|pack| pack.epoch == epoch));
    assert_eq!(restore(&pool, &root).unwrap(), [noise(1, 1000)]);
    assert_eq!(restore(&pool, &newer).unwrap(), [noise(2, 1000)]);
}

#[test]
fn whole_packs_of_an_interrupted_session_are_taken_in() {
    let bed = Bed::new(2, true);
    let pool = bed.create(1);
    let pieces: Vec<_> = (0..60).map(|i| noise(i, 100_000)).collect();
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let session = pool.session().unwrap();
    session.store(ChunkKind::Data, &slices, &mut Vec::new()).unwrap();
    drop(session);
    drop(pool);
    bed.world.kill();
    let pool = bed.open();
    assert!(pool.roots().is_empty());
    let session = pool.session().unwrap();
    let stored = session.store(ChunkKind::Data, &slices, &mut Vec::new()).unwrap();
    assert!(stored.known_chunks >= 40, "{stored:?}");
}

#[test]
fn a_disk_that_alone_has_something_is_not_replaced() {
    let bed = Bed::new(2, true);
    let pool = bed.create(1);
    let pieces: Vec<_> = (0..10).map(|i| noise(i, 60_000)).collect();
    let root = back_up(&pool, &pieces, None);
    drop(pool);
    let fresh = [bed.world.add_disk(), bed.world.add_disk()];
    let replace = |bed: &Bed, place: usize| {
        let disks = bed.handles().into_iter().map(Some).collect();
        let secret = bed.secret.as_ref();
        let options = OpenOptions { disks, mode: OpenMode::Write, secret, without_index: false };
        Pool::replace_disk(options, bed.used(), place, Arc::new(fresh[place].clone()))
    };
    drop(replace(&bed, 0).unwrap());
    // The first one is empty yet: the second has the only copy.
    let bed = Bed { disks: vec![fresh[0].clone(), bed.disks[1].clone()], ..bed };
    let error = replace(&bed, 1).unwrap_err().to_string();
    assert!(error.contains("pool scrub"), "{error}");
    bed.open().scrub(ScrubOptions::default(), &Meter::new()).unwrap();
    let pool = replace(&bed, 1).unwrap();
    assert_eq!(restore(&pool, &root).unwrap(), pieces);
}

#[test]
fn a_meter_ends_its_own_work_and_no_other() {
    let bed = Bed::new(1, false);
    let pool = bed.create(0);
    back_up(&pool, &[noise(1, 3 << 20)], None);
    let canceled = Meter::new();
    canceled.cancel();
    let collected = pool.gc_with(GcOptions::default(), &canceled);
    assert!(matches!(collected, Err(Error::Canceled)), "{collected:?}");
    assert!(matches!(pool.check(true, &canceled), Err(Error::Canceled)));
    assert!(!pool.scrub(ScrubOptions::default(), &canceled).unwrap().complete);
    assert!(pool.gc(GcOptions::default()).is_ok());
    assert!(pool.check(true, &Meter::new()).unwrap().is_clean());
    assert!(pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap().complete);
}

#[test]
fn a_root_takes_the_place_of_another_in_one_step() {
    let bed = Bed::new(1, false);
    let pool = bed.create(0);
    let old = back_up(&pool, &[noise(1, 5000), noise(2, 5000)], None);
    let new = |pool: &Pool, session: &Session<'_>| {
        let mut nodes = Vec::new();
        let data = pool.node(&old.nodes[0]).unwrap().data;
        let node = Node { nodes: Vec::new(), data: data[..1].to_vec(), payload: Vec::new() };
        session.store(ChunkKind::Node, &[&node.encode()], &mut nodes).unwrap();
        NewRoot {
            id: RootId::random(),
            kind: 2,
            name: "volume".into(),
            immutable_for: Some(DAY),
            nodes,
            meta: Vec::new(),
        }
    };
    let session = pool.session().unwrap();
    let refused = session.replace_root(RootId::random(), new(&pool, &session));
    assert!(matches!(refused, Err(Error::NoSuchRoot { .. })));
    assert_eq!(pool.roots(), std::slice::from_ref(&old));
    let root = session.replace_root(old.id, new(&pool, &session)).unwrap();
    assert_eq!(pool.roots(), std::slice::from_ref(&root));
    let refused = session.replace_root(root.id, new(&pool, &session));
    assert!(matches!(refused, Err(Error::Immutable { .. })));
    drop(session);
    drop(pool);
    let pool = bed.open();
    assert_eq!(pool.roots(), std::slice::from_ref(&root));
    let report = pool.gc(GcOptions { dry_run: false, max_unused: 0.0 }).unwrap();
    assert_eq!((report.live_chunks, report.missing_chunks), (2, 0));
    assert!(report.dead_chunks > 0);
    assert!(pool.check(true, &Meter::new()).unwrap().lost.is_empty());
}

fn bare(name: &str) -> NewRoot {
    NewRoot {
        id: RootId::random(),
        kind: 9,
        name: name.into(),
        immutable_for: None,
        nodes: Vec::new(),
        meta: b"says it itself".to_vec(),
    }
}

#[test]
fn roots_without_nodes_are_one_record_and_durable() {
    let bed = Bed::new(2, true);
    let pool = bed.create(1);
    let session = pool.session().unwrap();
    session.store(ChunkKind::Data, &[&noise(1, 5000)], &mut Vec::new()).unwrap();
    let before = pool.state().packs.len();
    let root = pool.put_bare_root(bare("one")).unwrap();
    assert_eq!(pool.state().packs.len(), before, "a session's packs were closed");
    let again = NewRoot { id: root.id, ..bare("two") };
    assert!(matches!(pool.put_bare_root(again), Err(Error::Invalid(_))));
    let with = NewRoot { nodes: vec![ChunkId([1; 32])], ..bare("three") };
    assert!(matches!(pool.put_bare_root(with), Err(Error::Invalid(_))));
    drop(session);
    drop(pool);
    bed.world.power_cut(1);
    let pool = bed.open();
    assert_eq!(pool.roots_of(9), [root]);
    assert!(pool.roots_of(8).is_empty());
}

#[test]
fn what_is_set_aside_is_taken_by_who_may_alone() {
    let bed = Bed::new(1, false);
    let pool = bed.create(0);
    bed.disks[0].set_capacity(64 << 20);
    pool.set_aside(32 << 20);
    let (others, own) = (pool.session().unwrap(), pool.session().unwrap());
    own.may_take_all();
    let store = |session: &Session<'_>, seed| {
        session.store(ChunkKind::Data, &[&noise(seed, 1 << 20)], &mut Vec::new())
    };
    let refused = (0..64).find_map(|seed| store(&others, seed).err()).unwrap();
    assert!(refused.to_string().contains("set aside"), "{refused}");
    for seed in 100..116 {
        store(&own, seed).unwrap();
    }
    pool.set_aside(0);
    store(&others, 1000).unwrap();
    others.commit(bare("a refusal ends nothing")).unwrap();
}

#[test]
fn what_is_stored_as_it_is_stays_so_when_it_is_collected() {
    let bed = Bed::new(1, false);
    let pool = bed.create(0);
    let pieces: Vec<Vec<u8>> = (0..64u8).map(|number| vec![number; 16 << 10]).collect();
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let session = pool.session().unwrap();
    let mut ids = Vec::new();
    let storing = Storing::AsItIs;
    let stored = session.store_with(ChunkKind::Data, &slices, &mut ids, storing).unwrap();
    assert!(stored.stored_bytes >= 1 << 20, "{stored:?}");
    // Half of each frame lives.
    let half = ids.iter().step_by(2).copied().collect();
    let node = Node { nodes: Vec::new(), data: half, payload: Vec::new() }.encode();
    let mut nodes = Vec::new();
    session.store(ChunkKind::Node, &[&node], &mut nodes).unwrap();
    let root = session.commit(NewRoot { nodes, ..bare("half") }).unwrap();
    pool.gc(GcOptions { dry_run: false, max_unused: 0.0 }).unwrap();
    let packs: u64 = pool.state().packs.values().map(|pack| pack.len).sum();
    assert!((512 << 10..700 << 10).contains(&packs), "{packs}");
    let living: Vec<Vec<u8>> = pieces.into_iter().step_by(2).collect();
    assert_eq!(restore(&pool, &root).unwrap(), living);
    // Without that it is small.
    back_up(&pool, &[vec![7; 1 << 20]], None);
    let after: u64 = pool.state().packs.values().map(|pack| pack.len).sum();
    assert!(after - packs < 64 << 10, "{packs} {after}");
}
