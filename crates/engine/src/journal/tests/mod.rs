#![allow(clippy::unwrap_used, reason = "tests")]

mod copies;
mod crash;
mod damage;
mod vanishing;

use std::sync::Arc;

use zeroize::Zeroizing;

use super::*;
use crate::Error;
use crate::clock::{ClockMark, PoolTime};
use crate::disk::{SimDisk, SimWorld};
use crate::id::{ChunkId, ChunkKind, PackId, RootId};
use crate::state::{Op, PackInfo, Root, State};

const POOL: PoolId = PoolId([0x50; 16]);

fn settings(need: usize) -> Settings {
    Settings { pool: POOL, sealing: Sealing::Plain, need, inline: true }
}

fn sealed(need: usize, key: u8) -> Settings {
    Settings { sealing: Sealing::Aes256Gcm(Zeroizing::new([key; 32])), ..settings(need) }
}

fn first_state() -> State {
    State::new(ClockMark { time: PoolTime(5), boot: [1; 16], since_boot: 2 })
}

/// What a commit of the tests adds.
fn step(n: u64) -> Vec<Op> {
    let pack = PackInfo {
        kind: ChunkKind::Data,
        chunks: 7,
        len: n,
        data_shards: 1,
        parity_shards: 0,
        epoch: 0,
    };
    let root = Root {
        id: RootId([n as u8; 16]),
        kind: 1,
        name: format!("a name in the clear {n}"),
        created: PoolTime(n as i64),
        immutable_until: None,
        nodes: vec![ChunkId([n as u8; 32])],
        meta: vec![n as u8; 40],
    };
    vec![Op::AddPack(PackId(n), pack), Op::PutRoot(root)]
}

fn after(state: &State, ops: &[Op]) -> State {
    let mut state = state.clone();
    ops.iter().cloned().for_each(|op| state.apply(op));
    state
}

/// A pool's disks, with the copies of its journal.
#[derive(Clone, Debug)]
struct Rig {
    world: SimWorld,
    copies_per_disk: usize,
    settings: Settings,
}

impl Rig {
    /// Two copies on one disk.
    fn single() -> Self {
        Self { copies_per_disk: 2, ..Self::of(1, 1) }
    }

    /// One copy on one disk, to see what one copy is worth.
    fn lone() -> Self {
        Self::of(1, 1)
    }

    /// A copy on each disk.
    fn of(disks: usize, need: usize) -> Self {
        let world = SimWorld::new(7);
        (0..disks).for_each(|_| drop(world.add_disk()));
        Self { world, copies_per_disk: 1, settings: settings(need) }
    }

    fn with(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    fn disk(&self, index: usize) -> SimDisk {
        self.world.disks().swap_remove(index)
    }

    fn disks(&self) -> usize {
        self.world.disks().len()
    }

    fn places(&self) -> Vec<Place> {
        let names = ["journal", "journal.2"];
        let place = |disk: usize, dir: &str| Place {
            disk,
            handle: Arc::new(self.disk(disk)),
            dir: dir.into(),
        };
        (0..self.disks())
            .flat_map(|disk| names[..self.copies_per_disk].iter().map(move |dir| place(disk, dir)))
            .collect()
    }

    fn create(&self) -> Journal {
        Journal::create(&self.places(), self.settings.clone(), &first_state()).unwrap()
    }

    fn open_with(&self, there: &[usize], for_write: bool) -> Result<(Journal, State, LoadReport)> {
        let place = |place: Place| there.contains(&place.disk).then_some(place);
        let places: Vec<_> = self.places().into_iter().map(place).collect();
        Journal::open(&places, self.settings.clone(), for_write)
    }

    fn open(&self, for_write: bool) -> Result<(Journal, State, LoadReport)> {
        let all: Vec<_> = (0..self.disks()).collect();
        self.open_with(&all, for_write)
    }

    /// What is read, with nothing wrong.
    fn state(&self) -> State {
        let (_, state, report) = self.open(false).unwrap();
        assert_eq!(report.stale, []);
        state
    }

    /// Opens to write with the given disks and commits one step.
    fn write_with(&self, there: &[usize], n: u64) -> State {
        let (mut journal, state, _) = self.open_with(there, true).unwrap();
        journal.commit(&step(n)).unwrap();
        after(&state, &step(n))
    }

    /// The same disks, in a world of their own.
    fn fork(&self) -> Self {
        Self { world: SimWorld::from_snapshot(&self.world.snapshot()), ..self.clone() }
    }

    /// The files of a copy.
    fn files(&self, disk: usize, dir: &str) -> Vec<String> {
        let files = self.disk(disk).files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.rsplit_once('/').unwrap().0 == dir).collect()
    }

    /// The newest of them.
    fn newest(&self, disk: usize, dir: &str) -> String {
        self.files(disk, dir).pop().unwrap()
    }
}

use crate::error::Result;

/// A journal of a few commits: its rig and its state after each of them, the newest last.
fn written(rig: Rig) -> (Rig, Vec<State>) {
    let mut journal = rig.create();
    let mut states = vec![first_state()];
    for n in 1..6 {
        let state = states.last().unwrap();
        assert_eq!(journal.commit(&step(n)).unwrap().generation, n + 1);
        let next = after(state, &step(n));
        states.push(next);
        if n == 2 {
            journal.rotate(states.last().unwrap()).unwrap();
            states = states.split_off(states.len() - 1);
        }
    }
    (rig, states)
}

#[test]
fn what_was_committed_is_there_again() {
    for rig in [
        Rig::single(),
        Rig::of(3, 2),
        Rig::of(3, 2).with(sealed(2, 1)),
        Rig::of(3, 2).with(Settings { inline: false, ..sealed(2, 1) }),
    ] {
        let (rig, states) = written(rig);
        assert_eq!(&rig.state(), states.last().unwrap());
        let (mut journal, state, report) = rig.open(true).unwrap();
        assert_eq!((report.generation, report.stale.len(), report.lost.len()), (6, 0, 0));
        assert_eq!(&state, states.last().unwrap());
        assert_eq!(journal.commit(&[]).unwrap().generation, 7);
        assert_eq!(&rig.state(), states.last().unwrap());
        assert_eq!(rig.disk(0).files().len(), rig.copies_per_disk);
    }
}

#[test]
fn opening_twice_without_a_commit_changes_nothing() {
    let (rig, states) = written(Rig::single());
    for _ in 0..3 {
        let (_, state, report) = rig.open(true).unwrap();
        assert_eq!((&state, report.stale), (states.last().unwrap(), vec![]));
        assert_eq!(rig.disk(0).files().len(), 2);
    }
}

#[test]
fn a_reader_changes_nothing_and_can_commit_nothing() {
    let (rig, states) = written(Rig::single());
    let path = rig.newest(0, "journal");
    let bytes = rig.disk(0).read_raw(&path).unwrap();
    rig.disk(0).truncate(&path, bytes.len() as u64 - 9000).unwrap();
    let changes = rig.world.ops();
    let (mut journal, state, report) = rig.open(false).unwrap();
    assert_eq!(&state, states.last().unwrap());
    assert_eq!(report.stale.len(), 1);
    assert!(matches!(journal.commit(&step(9)), Err(Error::ReadOnly { .. })));
    assert!(matches!(journal.rotate(&state), Err(Error::ReadOnly { .. })));
    assert_eq!(rig.world.ops(), changes);
}

#[test]
fn a_large_state_is_written_in_parts() {
    let rig = Rig::single().with(sealed(1, 3));
    let mut journal = rig.create();
    let mut state = first_state();
    let mut rotations = 0;
    for batch in 0..4u64 {
        let mut ops: Vec<Op> = (0..20_000).flat_map(|n| step(batch * 20_000 + n)).collect();
        if let Some(Op::PutRoot(root)) = ops.last_mut() {
            root.meta = vec![7; 3 << 20];
            root.id = RootId([batch as u8; 16]);
        }
        journal.commit(&ops).unwrap();
        ops.into_iter().for_each(|op| state.apply(op));
        if journal.wants_rotation() {
            journal.rotate(&state).unwrap();
            assert!(!journal.wants_rotation());
            rotations += 1;
        }
    }
    assert!((1..4).contains(&rotations));
    assert_eq!(rig.state(), state);
    journal.rotate(&state).unwrap();
    assert_eq!(rig.state(), state);
}

#[test]
fn a_commit_that_is_too_long_is_refused_and_harms_nothing() {
    let rig = Rig::single();
    let mut journal = rig.create();
    let mut ops = step(1);
    if let Some(Op::PutRoot(root)) = ops.last_mut() {
        root.meta = vec![0; 16 << 20];
    }
    assert!(matches!(journal.commit(&ops), Err(Error::Invalid(_))));
    journal.commit(&step(1)).unwrap();
    assert_eq!(rig.state(), after(&first_state(), &step(1)));
}

#[test]
fn a_sealed_journal_opens_with_its_own_key_only_and_shows_nothing() {
    let (rig, _) = written(Rig::single().with(sealed(1, 1)));
    for (path, _) in rig.disk(0).files() {
        let bytes = rig.disk(0).read_raw(&path).unwrap();
        assert!(!bytes.windows(10).any(|w| w == b"a name in "));
    }
    for wrong in [sealed(1, 2), settings(1)] {
        for for_write in [false, true] {
            let result = rig.clone().with(wrong.clone()).open(for_write);
            assert!(matches!(result, Err(Error::Damaged { .. })));
        }
    }
    let other = Settings { pool: PoolId([9; 16]), ..sealed(1, 1) };
    assert!(matches!(rig.clone().with(other).open(true), Err(Error::Damaged { .. })));
    rig.state();
}

#[test]
fn a_plain_journal_is_not_taken_for_a_sealed_one() {
    let (rig, _) = written(Rig::single());
    assert!(matches!(rig.with(sealed(1, 1)).open(false), Err(Error::Damaged { .. })));
}

#[test]
fn readers_keep_up_with_a_writer_that_rotates() {
    let rig = Rig::single();
    let mut journal = rig.create();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut state = first_state();
            for n in 1..200 {
                journal.commit(&step(n)).unwrap();
                state = after(&state, &step(n));
                if n % 3 == 0 {
                    journal.rotate(&state).unwrap();
                }
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let (journal, state, _) = match rig.open(false) {
                Ok(opened) => opened,
                // Sixteen rotations in one opening: the disk is memory.
                Err(Error::Io { .. }) => continue,
                Err(why) => panic!("{why}"),
            };
            assert!(journal.generation() >= last);
            last = journal.generation();
            assert_eq!(state.packs.len() as u64, last - 1);
        }
        writer.join().unwrap();
    });
}
