//! Bytes of the journal are altered.

use proptest::prelude::*;

use super::*;
use crate::disk::{Caching, Fault, Operation};
use crate::journal::record::{BLOCK, FILE_HEADER, RECORD_HEADER, RecordHeader};

/// The bytes of a file that mean something, and some of the padding.
fn interesting(bytes: &[u8]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..FILE_HEADER).chain((0..bytes.len()).step_by(211)).collect();
    for at in (BLOCK..bytes.len()).step_by(BLOCK) {
        let first = bytes[at..at + RECORD_HEADER].try_into().unwrap();
        if let Some((header, _)) = RecordHeader::decode(&first, at as u64) {
            places.extend(at..at + RECORD_HEADER + header.len as usize + 1);
        }
    }
    places
}

/// Runs `check` with each interesting byte flipped: its place, and the file's length.
fn flip_each(rig: &Rig, dir: &str, mut check: impl FnMut(usize, usize)) {
    let path = rig.newest(0, dir);
    let good = rig.disk(0).read_raw(&path).unwrap();
    for at in interesting(&good) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        rig.disk(0).write_raw(&path, &bad).unwrap();
        check(at, good.len());
    }
    rig.disk(0).write_raw(&path, &good).unwrap();
}

#[test]
fn with_two_copies_no_flipped_byte_matters() {
    for rig in [Rig::single(), Rig::single().with(sealed(1, 1))] {
        let (rig, states) = written(rig);
        for (place, dir) in ["journal", "journal.2"].into_iter().enumerate() {
            flip_each(&rig, dir, |at, len| {
                let (_, state, report) = rig.open(false).unwrap();
                assert_eq!(&state, states.last().unwrap(), "byte {at}");
                let flaws: Vec<_> = report.stale.iter().map(|s| (s.place, &s.why)).collect();
                let torn = at >= len - BLOCK && flaws == [(place, &Flaw::Torn)];
                assert!(torn || flaws == [(place, &Flaw::Damaged)], "byte {at}: {flaws:?}");
            });
        }
    }
}

#[test]
fn damage_is_mended_by_opening_to_write() {
    let (rig, states) = written(Rig::single());
    let mut count = 0;
    flip_each(&rig, "journal", |_, _| {
        count += 1;
        if count % 29 == 0 {
            let rig = rig.fork();
            assert_eq!(&rig.open(true).unwrap().1, states.last().unwrap());
            assert_eq!(&rig.state(), states.last().unwrap());
        }
    });
}

#[test]
fn with_one_copy_a_flipped_byte_costs_the_last_commit_at_most_or_is_named() {
    for rig in [Rig::lone(), Rig::lone().with(sealed(1, 1))] {
        let (rig, states) = written(rig);
        let [.., before, last] = &states[..] else { panic!("commits were made") };
        flip_each(&rig, "journal", |at, len| match rig.open(false) {
            Ok((_, state, report)) => {
                assert_eq!(report.stale.len(), 1, "byte {at}");
                let in_last = at >= len - BLOCK;
                assert!(state == *last || in_last && state == *before, "byte {at}");
            }
            Err(Error::Damaged { .. }) => assert!(at < len - BLOCK, "byte {at}"),
            Err(why) => panic!("byte {at}: {why}"),
        });
    }
}

#[test]
fn every_length_a_file_can_be_cut_to() {
    for lone in [false, true] {
        let rig = if lone { Rig::lone() } else { Rig::single() };
        let (rig, states) = written(rig);
        let path = rig.newest(0, "journal");
        let good = rig.disk(0).read_raw(&path).unwrap();
        let mut lengths = interesting(&good);
        lengths.extend((0..good.len()).step_by(BLOCK));
        for len in lengths {
            rig.disk(0).write_raw(&path, &good[..len]).unwrap();
            match rig.open(false) {
                Ok((_, state, _)) if lone => assert!(states.contains(&state), "length {len}"),
                Err(Error::Damaged { .. }) if lone => {
                    assert!(len < 4 * BLOCK, "length {len}: the snapshot was whole");
                }
                result => assert_eq!(&result.unwrap().1, states.last().unwrap(), "length {len}"),
            }
        }
    }
}

#[test]
fn copies_damaged_in_different_places_make_up_for_each_other() {
    let (rig, states) = written(Rig::single());
    // The header in one, the snapshot in the other, and a commit in each.
    for (dir, places) in
        [("journal", [3, 4 * BLOCK + 70]), ("journal.2", [2 * BLOCK + 70, 3 * BLOCK + 5])]
    {
        let path = rig.newest(0, dir);
        let mut bytes = rig.disk(0).read_raw(&path).unwrap();
        places.into_iter().for_each(|at| bytes[at] ^= 4);
        rig.disk(0).write_raw(&path, &bytes).unwrap();
    }
    let (_, state, report) = rig.open(false).unwrap();
    assert_eq!(&state, states.last().unwrap());
    assert_eq!(report.stale.len(), 2);
    rig.open(true).unwrap();
    assert_eq!(&rig.state(), states.last().unwrap());
}

#[test]
fn a_commit_damaged_in_all_copies_is_named_and_nothing_is_dropped() {
    let (rig, _) = written(Rig::single());
    for dir in ["journal", "journal.2"] {
        let path = rig.newest(0, dir);
        let mut bytes = rig.disk(0).read_raw(&path).unwrap();
        let at = bytes.len() - 2 * BLOCK + 70;
        bytes[at] ^= 4;
        rig.disk(0).write_raw(&path, &bytes).unwrap();
    }
    for for_write in [false, true] {
        let Err(why @ Error::Damaged { .. }) = rig.open(for_write) else { panic!("it opened") };
        let why = why.to_string();
        assert!(why.contains("generation 5") && why.contains("generation 6"), "{why}");
    }
}

#[test]
fn an_older_file_does_not_stand_in_for_a_damaged_newer_one() {
    let (rig, _) = written(Rig::lone());
    let path = rig.newest(0, "journal");
    let old = rig.disk(0).read_raw(&path).unwrap();
    rig.write_with(&[0], 7);
    let disk = rig.disk(0);
    disk.create(&path, Caching::Cached).unwrap().write_all_at(&old, 0).unwrap();
    let newest = rig.newest(0, "journal");
    assert_ne!(newest, path);
    rig.state();
    let mut bytes = rig.disk(0).read_raw(&newest).unwrap();
    bytes[0] ^= 1;
    rig.disk(0).write_raw(&newest, &bytes).unwrap();
    assert!(matches!(rig.open(false), Err(Error::Damaged { .. })));
}

#[test]
fn what_cannot_be_read_is_taken_from_another_copy_and_never_for_the_end() {
    let (rig, states) = written(Rig::of(2, 1));
    let read = |there: &[usize], after, times| {
        rig.world.clear_faults();
        let fault = Fault::io_error(Operation::Read, "journal").on_disk(0);
        rig.world.inject(fault.after(after).times(times));
        let opened = rig.open_with(there, false);
        (opened, rig.world.faults_struck())
    };
    // One place that stays unreadable when it is read again, or the disk dies.
    for times in [2, u64::MAX] {
        for after in 0.. {
            let before = rig.world.faults_struck();
            let (opened, struck) = read(&[0, 1], after, times);
            let (_, state, report) = opened.unwrap();
            assert_eq!(&state, states.last().unwrap());
            if struck == before {
                break;
            }
            let of_first = |s: &Stale| s.place == 0 && matches!(s.why, Flaw::Unreadable(_));
            assert!(report.stale.iter().all(of_first));
            match read(&[0], after, times).0 {
                Ok((_, state, _)) => assert_eq!(&state, states.last().unwrap(), "read {after}"),
                Err(why) => assert!(matches!(why, Error::Damaged { .. }), "read {after}: {why}"),
            }
        }
    }
}

#[test]
fn a_newer_format_is_refused() {
    let (rig, _) = written(Rig::lone());
    let path = rig.newest(0, "journal");
    let mut bytes = rig.disk(0).read_raw(&path).unwrap();
    bytes[8] = 2;
    let mut check = blake3::Hasher::new_derive_key("strongroom 1 journal file header");
    check.update(&bytes[..80]);
    bytes[80..96].copy_from_slice(&check.finalize().as_bytes()[..16]);
    rig.disk(0).write_raw(&path, &bytes).unwrap();
    assert!(matches!(rig.open(true), Err(Error::Unsupported { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_are_no_journal(
        bytes in proptest::collection::vec(any::<u8>(), 0..20_000),
        name in any::<u64>(),
    ) {
        let rig = Rig::single();
        let disk = rig.disk(0);
        disk.make_dir("journal").unwrap();
        let file = disk.create(&format!("journal/{name:016x}.log"), Caching::Cached).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        prop_assert!(rig.open(false).is_err());
        prop_assert!(rig.open(true).is_err());
    }

    #[test]
    fn mangled_journals_never_lead_to_a_state_that_was_not(
        seed in any::<u64>(),
        cuts in 1usize..6,
        lone in any::<bool>(),
    ) {
        let rig = if lone { Rig::lone() } else { Rig::single() };
        let (rig, states) = written(rig);
        let mut seed = seed;
        let mut next = || {
            // A linear congruence will do to pick places.
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            seed >> 33
        };
        for (path, _) in rig.disk(0).files() {
            let mut bytes = rig.disk(0).read_raw(&path).unwrap();
            for _ in 0..cuts {
                let mut block = || {
                    let step = if next() % 4 == 0 { 1 } else { BLOCK as u64 };
                    (next() % (bytes.len() as u64 + 1) / step * step) as usize
                };
                let (from, to, other) = (block(), block(), block());
                let (from, to) = (from.min(to), from.max(to));
                let moved: Vec<u8> = bytes[from..to].to_vec();
                match next() % 4 {
                    0 => bytes[from..to].fill(0),
                    1 => drop(bytes.splice(other..other, moved)),
                    2 => drop(bytes.drain(from..to)),
                    _ => bytes.truncate(to),
                }
            }
            rig.disk(0).write_raw(&path, &bytes).unwrap();
        }
        if let Ok((_, state, _)) = rig.open(false) {
            prop_assert!(states.contains(&state));
        }
    }
}
