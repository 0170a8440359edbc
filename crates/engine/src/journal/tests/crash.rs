//! The power is cut at every change that is made to a disk.

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

/// What is left after a cut, by its number: everything, or what a seed says.
fn cut(rig: &Rig, fate: u64) {
    match fate {
        0 => rig.world.kill(),
        seed => rig.world.power_cut(seed),
    }
}

fn cut_everywhere(rig: Rig) {
    rig.create();
    rig.world.power_cut(1);
    let start = rig.world.snapshot();
    let first = rig.world.ops();
    let mut progress = Progress { confirmed: first_state(), pending: None };
    work(&rig, &mut progress).unwrap();
    let end = rig.world.ops();
    assert!(end - first > 40);
    for at in first..end {
        for fate in 0..10 {
            rig.world.restore(&start);
            rig.world.set_crash_at(at);
            let mut progress = Progress { confirmed: first_state(), pending: None };
            // With its last change cut, one copy can be enough to have got through.
            let _ = work(&rig, &mut progress);
            assert!(rig.world.is_off());
            cut(&rig, fate * at);

            // Once more while it recovers.
            rig.world.set_crash_at(rig.world.ops() + (at * 7 + fate * 3) % 24);
            let seen = rig.open(true).map(|(_, state, _)| state).ok();
            cut(&rig, fate * (at + 1));

            let (_, read, _) = rig.open(false).unwrap();
            assert!(progress.allows(&read), "cut at {at}, fate {fate}");
            let (mut journal, state, report) = rig.open(true).unwrap();
            assert_eq!(state, read, "cut at {at}, fate {fate}");
            assert!(report.lost.is_empty());
            // What a writer has seen must not go away again.
            assert!(seen.is_none_or(|seen| seen == state), "cut at {at}, fate {fate}");
            // Nothing is left over.
            assert_eq!(rig.disk(0).files().len(), rig.copies_per_disk);
            journal.commit(&step(99)).unwrap();
            cut(&rig, fate * (at + 2));
            assert_eq!(rig.state(), after(&state, &step(99)));
        }
    }
}

#[test]
fn one_disk() {
    cut_everywhere(Rig::single());
}

#[test]
fn one_copy() {
    cut_everywhere(Rig::lone());
}

#[test]
fn a_mirror() {
    cut_everywhere(Rig::of(2, 1));
}

#[test]
fn two_and_one_disks_sealed() {
    cut_everywhere(Rig::of(3, 2).with(sealed(2, 1)));
}

#[test]
fn creating_a_journal() {
    let rig = Rig::of(2, 1);
    let start = rig.world.snapshot();
    rig.create();
    for at in 0..rig.world.ops() {
        rig.world.restore(&start);
        rig.world.set_crash_at(at);
        let created = Journal::create(&rig.places(), rig.settings.clone(), &first_state());
        assert!(created.is_err() || rig.world.is_off());
        rig.world.power_cut(at);
        // The superblock is not there yet, so it is simply done again.
        rig.create();
        assert_eq!(rig.state(), first_state());
    }
}

#[test]
fn running_out_of_room_at_each_change() {
    let rig = Rig::of(2, 2);
    rig.create();
    let start = rig.world.snapshot();
    let room = |rig: &Rig| rig.disk(0).files().iter().map(|(_, len)| len).sum::<u64>();
    for spare in (0..60_000).step_by(1000) {
        rig.world.restore(&start);
        rig.disk(0).set_capacity(room(&rig) + spare);
        let mut progress = Progress { confirmed: first_state(), pending: None };
        let ended = work(&rig, &mut progress);
        assert!(matches!(ended, Ok(()) | Err(Error::Stopped { .. })), "{ended:?}");
        rig.disk(0).set_capacity(1 << 30);
        let (_, state, _) = rig.open(true).unwrap();
        assert!(progress.allows(&state));
        assert_eq!(rig.state(), state);
    }
}
