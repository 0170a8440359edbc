//! Random histories of a pool, held against a model of what must be in it: images come and go,
//! sessions are held open across collections, the clock jumps, the power fails, processes are
//! killed, a disk goes away and comes back or is replaced, keys change.
//!
//! `STRONGROOM_MODEL_SEEDS` says how many histories; `STRONGROOM_MODEL_SEED` runs one.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{
    Bed, DAY, EXACT, Image, LAYOUTS, LONG, Model, Pending, Rng, check_exact, compare, new_root,
    root_id, setting, store_nodes, store_pieces, verify,
};
use strongroom_engine::clock::{Clock, PoolTime};
use strongroom_engine::disk::Disk;
use strongroom_engine::error::{Error, Result};
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::pool::{GcOptions, Meter, OpenMode, Pool, ScrubOptions, Session};

const NAME_ONE: &str = "STRONGROOM_MODEL_SEED";

/// Everything that must hold, whatever process is gone.
struct World {
    bed: Bed,
    rng: Rng,
    model: Model,
    pending: Pending,
    /// Until when images can't be removed, as the pool said.
    immutable: BTreeMap<RootId, PoolTime>,
    /// Every disk has all it should: one may go away.
    whole: bool,
    /// The disk that can't be used.
    lost: Option<usize>,
    log: Vec<String>,
}

/// A session, and what it will commit.
struct Held<'p> {
    session: Session<'p>,
    image: Image,
    data: Vec<ChunkId>,
}

impl World {
    fn image(&mut self) -> Image {
        let rng = &mut self.rng;
        let count = 1 + rng.below(20);
        (0..count)
            .map(|_| if rng.chance(30) { LONG + rng.below(5) } else { rng.below(80) })
            .collect()
    }

    fn known(&mut self) -> Option<RootId> {
        let count = self.model.images.len() as u64;
        let at = (count > 0).then(|| self.rng.below(count) as usize)?;
        self.model.images.keys().nth(at).copied()
    }

    /// What is read must be right, while there is power: it may have failed in a step whose errors
    /// don't matter, as when left-overs are removed.
    fn must(&self, held: std::result::Result<(), String>) -> Result<()> {
        match held {
            Err(_) if self.bed.world.is_off() => Err(Error::Canceled),
            held => {
                held.unwrap();
                Ok(())
            }
        }
    }

    /// What one process does, until it ends or the power fails.
    fn process(&mut self) -> Result<()> {
        let pool = self.bed.open(OpenMode::Write)?;
        let mut held: Vec<Held<'_>> = Vec::new();
        for _ in 0..3 + self.rng.below(12) {
            self.step(&pool, &mut held)?;
        }
        // Sessions that are still open come to nothing.
        Ok(())
    }

    fn step<'p>(&mut self, pool: &'p Pool, held: &mut Vec<Held<'p>>) -> Result<()> {
        let what = self.rng.below(18);
        self.log.push(format!("step {what} with {} sessions", held.len()));
        match what {
            0..3 => self.begin(pool, held)?,
            3 | 4 => {
                if !held.is_empty() {
                    let i = self.rng.below(held.len() as u64) as usize;
                    let more = self.image();
                    let data = store_pieces(&held[i].session, &more)?;
                    held[i].data.extend(data);
                    held[i].image.extend(more);
                }
            }
            5 | 6 => {
                if !held.is_empty() {
                    let i = self.rng.below(held.len() as u64) as usize;
                    self.commit(pool, held.swap_remove(i))?;
                }
            }
            7 => {
                if !held.is_empty() {
                    let i = self.rng.below(held.len() as u64) as usize;
                    drop(held.swap_remove(i));
                }
            }
            8 | 9 => self.forget(pool)?,
            10 | 11 => {
                let max_unused = if self.rng.chance(2) { 0.0 } else { 0.05 };
                let report = pool.gc(GcOptions { max_unused, ..EXACT })?;
                // A disk that fails keeps what it should let go.
                let waiting = if self.whole { report.packs_waiting } else { 0 };
                if (report.missing_chunks, waiting) != (0, 0) {
                    self.must(Err(format!("{report:?}")))?;
                }
                if held.is_empty() && max_unused == 0.0 {
                    // Pins of the collection itself are gone with the next one.
                    pool.gc(EXACT)?;
                    self.must(check_exact(pool))?;
                }
            }
            12 => {
                if self.rng.chance(2) {
                    pool.scrub(ScrubOptions::default(), &Meter::new())?;
                } else {
                    let report = pool.check(true, &Meter::new())?;
                    if !report.is_clean() {
                        self.must(Err(format!("{report:?}")))?;
                    }
                }
            }
            13 => self.pass_time(),
            14 => self.lock_longer(pool)?,
            15 if self.bed.layout.encrypted => drop(pool.rekey()?),
            16 => self.lose_a_disk(pool),
            _ => {
                let id = self.known();
                if let Some((root, image)) = id.map(|id| (pool.root(id), &self.model.images[&id])) {
                    self.must(compare(pool, &root.expect("it was committed"), image))?;
                }
            }
        }
        Ok(())
    }

    /// A session begins; half of them take over a part of an image without storing it again.
    fn begin<'p>(&mut self, pool: &'p Pool, held: &mut Vec<Held<'p>>) -> Result<()> {
        let session = pool.session()?;
        let (mut image, mut data) = (Vec::new(), Vec::new());
        if self.rng.chance(2)
            && let Some(parent) = self.known()
        {
            session.lean_on(parent)?;
            let top = pool.root(parent).unwrap().nodes[0];
            let mut all = Vec::new();
            for leaf in pool.node(&top)?.nodes {
                all.extend(pool.node(&leaf)?.data);
            }
            assert_eq!(all.len(), self.model.images[&parent].len());
            let count = self.rng.below(all.len() as u64 + 1) as usize;
            if session.reuse(&all[..count])? {
                image = self.model.images[&parent][..count].to_vec();
                data = all[..count].to_vec();
            }
            if self.rng.chance(2) && !self.immutable.contains_key(&parent) {
                // The lease alone must keep what was taken over.
                self.pending = Pending::Drop(vec![parent]);
                pool.forget(&[parent])?;
                self.pending = Pending::Nothing;
                self.model.images.remove(&parent);
            }
        }
        let more = self.image();
        data.extend(store_pieces(&session, &more)?);
        image.extend(more);
        held.push(Held { session, image, data });
        Ok(())
    }

    fn commit(&mut self, pool: &Pool, held: Held<'_>) -> Result<()> {
        let n = self.model.next;
        self.model.next += 1;
        let immutable_for = self.rng.chance(4).then(|| 1 + self.rng.below(20) as i64 * DAY);
        self.pending = Pending::Put(root_id(n), held.image.clone());
        let top = store_nodes(&held.session, &held.data)?;
        let root = held.session.commit(new_root(n, top, immutable_for))?;
        self.pending = Pending::Nothing;
        self.immutable.extend(root.immutable_until.map(|until| (root.id, until)));
        let same = compare(pool, &root, &held.image);
        self.model.images.insert(root.id, held.image);
        self.must(same)
    }

    fn forget(&mut self, pool: &Pool) -> Result<()> {
        let Some(id) = self.known() else { return Ok(()) };
        let locked = self.immutable.get(&id).is_some_and(|until| *until > pool.now());
        self.pending = Pending::Drop(vec![id]);
        match pool.forget(&[id]) {
            Err(Error::Immutable { .. }) if locked => {}
            Err(e) => return Err(e),
            Ok(()) => {
                assert!(!locked, "an image was forgotten before its time");
                self.model.images.remove(&id);
                self.immutable.remove(&id);
            }
        }
        self.pending = Pending::Nothing;
        Ok(())
    }

    fn lock_longer(&mut self, pool: &Pool) -> Result<()> {
        let Some(id) = self.known() else { return Ok(()) };
        let until = pool.now().plus(self.rng.below(10) as i64 * DAY);
        let before = self.immutable.get(&id).copied();
        match pool.update_root(id, None, Some(until)) {
            Err(Error::Immutable { .. }) => assert!(before.is_some_and(|old| old > until)),
            // Whether it came to pass isn't known then; the pool is asked when it is opened.
            Err(e) => return Err(e),
            Ok(_) => {
                assert!(before.is_none_or(|old| old <= until));
                self.immutable.insert(id, until);
            }
        }
        Ok(())
    }

    /// A disk that the layout can spare fails, and is away from then on.
    fn lose_a_disk(&mut self, pool: &Pool) {
        if !self.whole || self.bed.layout.parity == 0 || !self.rng.chance(2) {
            return;
        }
        let place = self.rng.below(pool.disks().len() as u64) as usize;
        let Some(disk) = &pool.disks()[place] else { return };
        let disk = self.bed.sim(&**disk);
        disk.set_lost(true);
        // Nobody sees it, or it is seen and doesn't answer.
        self.lost = Some(disk.index());
        if self.rng.chance(2) {
            *self.bed.away.lock().unwrap() = self.lost;
        }
        self.whole = false;
        self.log.push(format!("disk {place} goes away"));
    }

    /// Between two processes: a disk that is away stays away, comes back as it was, or is replaced;
    /// or one that is there is replaced.
    fn attend_to_disks(&mut self) {
        let away = self.lost;
        let replace = match away {
            Some(_) if self.rng.chance(3) => return,
            Some(disk) if self.rng.chance(2) => {
                self.log.push("it comes back".into());
                self.bed.world.disks()[disk].set_lost(false);
                *self.bed.away.lock().unwrap() = None;
                self.lost = None;
                None
            }
            Some(_) => {
                let pool = self.bed.open(OpenMode::Read).unwrap();
                pool.disks().iter().position(Option::is_none)
            }
            None if self.whole && self.bed.layout.parity > 0 && self.rng.chance(6) => {
                Some(self.rng.below(self.bed.layout.disks as u64) as usize)
            }
            None if self.whole => return,
            None => None,
        };
        let pool = match replace {
            None => self.bed.write(),
            Some(place) => {
                self.log.push(format!("disk {place} is replaced"));
                let options = self.bed.options(OpenMode::Write, 0);
                let fresh: Arc<dyn Disk> = Arc::new(self.bed.world.add_disk());
                let pool = Pool::replace_disk(options, self.bed.used(0), place, fresh).unwrap();
                if let Some(disk) = away {
                    // Should it come back, nobody wants it; or it is there and doesn't answer.
                    self.bed.world.disks()[disk].set_lost(self.rng.chance(2));
                    *self.bed.away.lock().unwrap() = None;
                    self.lost = None;
                }
                pool
            }
        };
        // Only when all that is missing was rebuilt may another go.
        let outcome = pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
        assert!(outcome.complete && outcome.lost.is_empty(), "{outcome:?}");
        self.whole = true;
    }

    /// Time passes, or the wall clock is set.
    fn pass_time(&mut self) {
        let days = self.rng.below(12) as i64;
        match self.rng.below(3) {
            0 => self.bed.clock.advance(days * DAY / 4),
            1 => self.bed.clock.set_wall(self.bed.clock.wall() + days * 400 * DAY),
            _ => self.bed.clock.set_wall(self.bed.clock.wall() - days * 400 * DAY),
        }
    }

    /// Runs processes one after the other.
    fn run(&mut self) {
        for _ in 0..4 + self.rng.below(5) {
            let cut = self.rng.chance(2);
            if cut {
                let at = self.bed.world.ops() + self.rng.below(600);
                self.bed.world.set_crash_at(at);
            }
            match self.process() {
                Ok(()) => {}
                Err(e) => assert!(self.bed.world.is_off(), "{e}"),
            }
            let seed = self.rng.next();
            self.bed.world.set_crash_at(None);
            if cut || self.rng.chance(3) {
                self.log.push("the power fails".into());
                self.bed.world.power_cut(seed);
            } else {
                self.bed.world.kill();
            }
            if self.rng.chance(2) {
                if self.rng.chance(2) {
                    self.pass_time();
                }
                self.bed.clock.reboot();
            }
            self.attend_to_disks();
            let pool = self.bed.write();
            common::check_roots(&pool, &mut self.model, &self.pending).unwrap();
            self.pending = Pending::Nothing;
            let newest = pool.roots().iter().map(|root| root.created).max();
            assert!(newest.is_none_or(|newest| pool.now() >= newest), "the pool's clock went back");
            // What was about to be locked when the power failed may be locked.
            for root in pool.roots() {
                let known = self.immutable.get(&root.id).copied();
                assert!(root.immutable_until >= known, "an image became less immutable");
                self.immutable.extend(root.immutable_until.map(|until| (root.id, until)));
            }
            self.immutable.retain(|id, _| self.model.images.contains_key(id));
        }
        verify(&self.bed, &mut self.model, &Pending::Nothing).unwrap();
    }
}

fn history(seed: u64) {
    let layout = LAYOUTS[(seed % LAYOUTS.len() as u64) as usize];
    let bed = Bed::new(layout, seed);
    drop(bed.create().unwrap());
    let mut world = World {
        bed,
        rng: Rng(seed),
        model: Model::default(),
        pending: Pending::Nothing,
        immutable: BTreeMap::new(),
        whole: true,
        lost: None,
        log: Vec::new(),
    };
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    if run.is_err() {
        let log = world.log.join("\n");
        panic!(
            "{layout:?}:\n{log}\nrun it again: \
             {NAME_ONE}={seed} cargo test -p strongroom-engine --test model"
        );
    }
}

#[test]
fn every_history_leaves_what_it_should() {
    match setting(NAME_ONE) {
        Some(seed) => history(seed),
        None => (0..setting("STRONGROOM_MODEL_SEEDS").unwrap_or(60)).for_each(history),
    }
}
