//! The power is cut at every change that is made to a disk.

use super::disk::{Dice, Power, Unsynced};
use super::*;

/// What a run got to.
#[derive(Debug)]
struct Progress {
    confirmed: State,
    /// The state of a commit that was under way.
    pending: Option<State>,
}

impl Progress {
    fn commit(&mut self, journal: &mut Journal, n: u64) -> Result<()> {
        let next = after(&self.confirmed, &step(n));
        self.pending = Some(next.clone());
        journal.commit(&step(n))?;
        *self = Self { confirmed: next, pending: None };
        Ok(())
    }

    fn allows(&self, state: &State) -> bool {
        *state == self.confirmed || self.pending.as_ref() == Some(state)
    }
}

/// Two runs of a writer, with rotations.
fn work(rig: &Rig, progress: &mut Progress) -> Result<()> {
    for run in [10, 20] {
        let (mut journal, state, _) = rig.open(true)?;
        assert!(progress.allows(&state));
        *progress = Progress { confirmed: state, pending: None };
        for n in 0..4 {
            progress.commit(&mut journal, run + n)?;
            if n == 1 {
                journal.rotate(&progress.confirmed)?;
            }
        }
    }
    Ok(())
}

fn cut(rig: &Rig, unsynced: &mut Unsynced, power: &Arc<Power>) -> Rig {
    let disks = rig.disks.iter().map(|disk| disk.after_cut(unsynced, power)).collect();
    Rig { disks, ..rig.clone() }
}

fn cut_everywhere(make: impl Fn(&Arc<Power>) -> Rig) {
    let start = |power: &Arc<Power>| {
        let first = Power::new();
        let rig = make(&first);
        rig.create();
        cut(&rig, &mut Unsynced::Lost, power)
    };
    let counted = Power::new();
    let mut progress = Progress { confirmed: first_state(), pending: None };
    work(&start(&counted), &mut progress).unwrap();
    let all = counted.changes();
    assert!(all > 40);
    for at in 1..=all {
        for fate in 0..8 {
            let unsynced = || match fate {
                0 => Unsynced::Lost,
                1 => Unsynced::Kept,
                seed => Unsynced::Dice(Dice(at * 100 + seed)),
            };
            let power = Power::new();
            let rig = start(&power);
            power.cut_at(at);
            let mut progress = Progress { confirmed: first_state(), pending: None };
            // With its last change cut, one copy can be enough to have got through.
            let _ = work(&rig, &mut progress);

            // Once more while it recovers.
            let power = Power::new();
            let rig = cut(&rig, &mut unsynced(), &power);
            power.cut_at(1 + (at * 7 + fate * 3) % 24);
            let seen = rig.open(true).map(|(_, state, _)| state).ok();
            let power = Power::new();
            let rig = cut(&rig, &mut unsynced(), &power);

            let (_, read, _) = rig.open(false).unwrap();
            assert!(progress.allows(&read), "cut at {at}, fate {fate}");
            let (mut journal, state, report) = rig.open(true).unwrap();
            assert_eq!(state, read, "cut at {at}, fate {fate}");
            assert!(report.lost.is_empty());
            // What a writer has seen must not go away again.
            assert!(seen.is_none_or(|seen| seen == state), "cut at {at}, fate {fate}");
            // Nothing is left over.
            assert_eq!(rig.disks[0].paths().len(), rig.copies_per_disk);
            journal.commit(&step(99)).unwrap();
            let power = Power::new();
            let rig = cut(&rig, &mut unsynced(), &power);
            assert_eq!(rig.state(), after(&state, &step(99)));
        }
    }
}

#[test]
fn one_disk() {
    cut_everywhere(Rig::single);
}

#[test]
fn one_copy() {
    cut_everywhere(Rig::lone);
}

#[test]
fn a_mirror() {
    cut_everywhere(|power| Rig::disks(2, 1, power));
}

#[test]
fn two_and_one_disks_sealed() {
    cut_everywhere(|power| Rig::disks(3, 2, power).with(sealed(2, 1)));
}

#[test]
fn creating_a_journal() {
    let power = Power::new();
    let rig = Rig::disks(2, 1, &power);
    rig.create();
    for at in 1..=power.changes() {
        let power = Power::new();
        let rig = Rig::disks(2, 1, &power);
        power.cut_at(at);
        let created = Journal::create(&rig.places(), rig.settings.clone(), &first_state());
        let power = Power::new();
        let rig = cut(&rig, &mut Unsynced::Dice(Dice(at)), &power);
        // The superblock is not there yet, so it is simply done again.
        assert!(created.is_err());
        rig.create();
        assert_eq!(rig.state(), first_state());
    }
}
