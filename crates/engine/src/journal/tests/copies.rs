//! Copies that are behind, fail, or contradict each other.

use super::*;
use crate::disk::{Fault, Operation};

fn flaws(report: &LoadReport) -> Vec<(usize, Flaw, Option<u64>)> {
    report.stale.iter().map(|s| (s.disk, s.why.clone(), s.generation)).collect()
}

#[test]
fn a_disk_that_was_away_is_brought_up() {
    let (rig, _) = written(Rig::of(2, 1));
    let mut last = State::clone(&rig.state());
    for n in 10..15 {
        last = rig.write_with(&[1], n);
    }
    let (_, state, report) = rig.open(false).unwrap();
    assert_eq!(state, last);
    assert_eq!(flaws(&report), [(0, Flaw::Behind, Some(6))]);
    let (_, state, report) = rig.open(true).unwrap();
    assert_eq!((state, flaws(&report).len()), (last.clone(), 1));
    assert_eq!(rig.state(), last);
    assert_eq!(rig.open_with(&[0], false).unwrap().1, last);
}

#[test]
fn a_disk_that_is_new_gets_a_copy() {
    let (rig, states) = written(Rig::of(3, 2));
    rig.disk(2).remove_all();
    let (mut journal, _, report) = rig.open(true).unwrap();
    assert_eq!(flaws(&report), [(2, Flaw::Missing, None)]);
    let mut state = states.last().unwrap().clone();
    assert_eq!(rig.state(), state);

    // And while the journal is open.
    rig.disk(1).remove_all();
    journal.dismiss(1).unwrap();
    assert_eq!(journal.live_disks().collect::<Vec<_>>(), [0, 2]);
    journal.commit(&step(7)).unwrap();
    state = after(&state, &step(7));
    assert!(journal.admit(&rig.places()[1..2], &state).unwrap().is_empty());
    journal.commit(&step(8)).unwrap();
    assert_eq!(rig.state(), after(&state, &step(8)));
    journal.dismiss(0).unwrap();
    assert!(matches!(journal.dismiss(1), Err(Error::Stopped { .. })));
}

#[test]
fn disks_written_without_each_other_have_diverged() {
    // The second one with the first, so that the common history is in files that are gone.
    for commits in [1, 4] {
        let (rig, _) = written(Rig::of(2, 1));
        for n in 0..commits {
            rig.write_with(&[0], 10 + n);
        }
        rig.write_with(&[1], 20);
        for for_write in [false, true] {
            let before = rig.disk(1).files();
            let Err(Error::Diverged { why }) = rig.open(for_write) else { panic!("it opened") };
            assert!(why.contains("sim0") && why.contains("sim1"), "{why}");
            assert_eq!(rig.disk(1).files(), before);
        }
        // Either can be had alone.
        rig.open_with(&[0], true).unwrap();
        rig.open_with(&[1], true).unwrap();
    }
}

#[test]
fn damage_does_not_hide_that_disks_have_diverged() {
    let (rig, _) = written(Rig::of(2, 1));
    let (mut journal, ..) = rig.open_with(&[0], true).unwrap();
    for n in 10..14 {
        journal.commit(&step(n)).unwrap();
    }
    for n in 20..26 {
        rig.write_with(&[1], n);
    }
    let path = rig.newest(0, "journal");
    rig.disk(0).flip_bit(&path, 3 * 4096 + 70, 0).unwrap();
    assert!(matches!(rig.open(false), Err(Error::Diverged { .. })));
}

#[test]
fn a_commit_that_cannot_have_been_confirmed_is_outvoted() {
    let (rig, states) = written(Rig::of(3, 2));
    let (mut journal, ..) = rig.open(true).unwrap();
    let path = rig.newest(1, "journal");
    let before = rig.disk(1).read_raw(&path).unwrap().len() as u64;
    let fault = Fault::io_error(Operation::Sync, "journal");
    for disk in [1, 2] {
        rig.world.inject(fault.clone().on_disk(disk));
    }
    assert!(matches!(journal.commit(&step(30)), Err(Error::Stopped { .. })));
    // Those two lose what they did not sync.
    for disk in [1, 2] {
        rig.disk(disk).truncate(&path, before).unwrap();
    }
    // Seen by all, it is there.
    let seen = rig.fork().open(true).unwrap().1;
    assert_eq!(seen, after(states.last().unwrap(), &step(30)));
    // Gone on without it, it isn't.
    let last = rig.write_with(&[1, 2], 31);
    let (_, state, report) = rig.open(true).unwrap();
    assert_eq!(state, last);
    assert_eq!(flaws(&report), [(0, Flaw::Unconfirmed, Some(7))]);
    assert_eq!(rig.state(), last);
}

#[test]
fn too_few_copies_are_read_but_not_written() {
    let (rig, states) = written(Rig::of(3, 2));
    assert_eq!(&rig.open_with(&[1], false).unwrap().1, states.last().unwrap());
    let result = rig.open_with(&[1], true);
    assert!(matches!(result, Err(Error::TooFewDisks { missing: 2, total: 3, tolerated: 1 })));
    let result = rig.open_with(&[], false);
    assert!(matches!(result, Err(Error::Damaged { .. })));
}

#[test]
fn a_copy_that_fails_is_dropped_and_the_rest_goes_on() {
    for inline in [true, false] {
        let rig = Rig::of(3, 2).with(Settings { inline, ..settings(2) });
        let (rig, states) = written(rig);
        let (mut journal, mut state, _) = rig.open(true).unwrap();
        assert_eq!(&state, states.last().unwrap());
        rig.world.inject(Fault::io_error(Operation::Sync, "journal").on_disk(1));
        let commit = journal.commit(&step(40)).unwrap();
        assert_eq!(commit.lost.iter().map(|l| l.disk).collect::<Vec<_>>(), [1]);
        state = after(&state, &step(40));
        // No more goes there, though it would work again.
        let untouched = rig.disk(1).read_raw(&rig.newest(1, "journal")).unwrap();
        assert!(journal.commit(&step(41)).unwrap().lost.is_empty());
        state = after(&state, &step(41));
        assert_eq!(rig.disk(1).read_raw(&rig.newest(1, "journal")).unwrap(), untouched);
        assert_eq!(rig.open(false).unwrap().1, state);

        rig.disk(0).set_lost(true);
        assert!(matches!(journal.commit(&step(42)), Err(Error::Stopped { .. })));
        rig.disk(0).set_lost(false);
        assert!(matches!(journal.commit(&step(43)), Err(Error::Stopped { .. })));
        assert!(matches!(journal.rotate(&state), Err(Error::Stopped { .. })));
        assert!(journal.stopped().unwrap().contains("disk 0"));
        // One of the two states, and disk 1 is back.
        let (_, reopened, _) = rig.open(true).unwrap();
        assert!(reopened == state || reopened == after(&state, &step(42)));
        assert_eq!(rig.state(), reopened);
    }
}

#[test]
fn a_copy_that_fails_in_a_rotation_is_dropped() {
    let (rig, _) = written(Rig::of(2, 1));
    let (mut journal, mut state, _) = rig.open(true).unwrap();
    journal.commit(&step(50)).unwrap();
    state = after(&state, &step(50));
    rig.disk(1).set_lost(true);
    let lost = journal.rotate(&state).unwrap();
    assert_eq!(lost.iter().map(|l| l.disk).collect::<Vec<_>>(), [1]);
    journal.commit(&step(51)).unwrap();
    state = after(&state, &step(51));
    let (_, read, report) = rig.open(false).unwrap();
    assert_eq!(read, state);
    assert!(matches!(report.stale[..], [Stale { place: 1, why: Flaw::Unreadable(_), .. }]));
    // It might be the one that is ahead, for all that the other tells.
    assert_eq!(report.hidden.len(), 1);
    assert!(matches!(rig.open(true), Err(Error::Io { .. })));
    // When it is left out, that is for who does so to know.
    rig.open_with(&[0], true).unwrap();
    rig.disk(1).set_lost(false);
    let (_, read, report) = rig.open(true).unwrap();
    assert_eq!((read, report.lost.len()), (state.clone(), 0));
    assert!(report.hidden.is_empty());
    assert_eq!(rig.state(), state);
}

#[test]
fn a_disk_that_fails_at_opening_stops_a_pool_that_needs_it() {
    let (rig, _) = written(Rig::of(2, 2));
    rig.world.inject(Fault::io_error(Operation::Sync, "journal").on_disk(0));
    assert!(matches!(rig.open(true), Err(Error::Stopped { .. })));
    rig.state();
}
