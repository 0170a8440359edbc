//! Long walks: one pool goes through many rounds of random work on volumes, each of which ends with a
//! power cut, a kill or in peace, and with some disks away; a model says what must be there.
//!
//! `STRONGROOM_WALKS` says how many walks are made, `STRONGROOM_WALK` makes one of that seed.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::model::{Act, Run, create, random_act, verify};
use common::{Bed, LAYOUTS, Rng, setting};
use strongroom_engine::pool::Meter;

const ROUNDS: u64 = 12;
const ACTS: u64 = 40;

fn walk(seed: u64) -> Result<u64, String> {
    let layout = LAYOUTS[(seed % LAYOUTS.len() as u64) as usize];
    let mut rng = Rng(seed ^ 0xa_1c00);
    let bed = Bed::new(layout, seed);
    let mut model = create(&bed);
    let mut cuts = 0;
    for round in 0..ROUNDS {
        let acts: Vec<(u64, Act)> = (0..ACTS).map(|_| random_act(&mut rng)).collect();
        // Long enough ago to be everywhere from the first operation to behind the last.
        let at = rng.below(3000);
        let told = |why: String| format!("round {round}, cut {at} operations in, {acts:?}: {why}");
        bed.world.set_seed(rng.next());
        if rng.chance(4) {
            bed.world.set_crash_at(None);
        } else {
            bed.world.set_crash_at(bed.world.ops() + at);
        }
        let mut run = Run::new(&bed, model, &[]);
        let worked = run.all(&acts);
        let is_off = bed.world.is_off();
        if let Err(e) = worked
            && !is_off
        {
            return Err(told(format!("before the power failed: {e}")));
        }
        run.close();
        model = run.model;
        if is_off || rng.chance(2) {
            cuts += 1;
            match rng.chance(4) {
                true => bed.world.kill(),
                false => bed.world.power_cut(rng.next()),
            }
        } else {
            bed.world.set_crash_at(None);
        }
        let mut away = Vec::new();
        if rng.chance(3) && layout.parity > 0 {
            away.push(rng.below(layout.disks as u64) as usize);
        }
        // What is looked at without a disk is not written then: the disk isn't behind when it comes back.
        let before = bed.world.snapshot();
        verify(&bed, &mut model.clone(), &away)
            .map_err(|why| told(format!("without disks {away:?}: {why}")))?;
        if !away.is_empty() {
            bed.world.restore(&before);
        }
        verify(&bed, &mut model, &[]).map_err(|why| told(format!("with all disks: {why}")))?;
    }
    let volumes = bed.open().map_err(|e| e.to_string())?;
    let report = volumes.pool().check(true, &Meter::new()).map_err(|e| e.to_string())?;
    match report.lost.is_empty() && report.bad_packs.is_empty() {
        true => Ok(cuts),
        false => Err(format!("the pool is damaged: {report:?}")),
    }
}

#[test]
fn volumes_are_what_was_done_to_them_however_often_they_were_cut_off() {
    let (one, all) = (setting("STRONGROOM_WALK"), setting("STRONGROOM_WALKS"));
    let seeds = match (one, all) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(4 * LAYOUTS.len() as u64),
    };
    let (next, sum) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().unwrap().len() > 2 {
                        break;
                    }
                    let held = std::panic::catch_unwind(|| walk(seed));
                    match held.unwrap_or_else(|_| Err("a panic, see above".into())) {
                        Ok(cuts) => drop(sum.fetch_add(cuts, Ordering::Relaxed)),
                        Err(why) => failures.lock().unwrap().push(format!(
                            "{why}\nrun it again: STRONGROOM_WALK={seed} cargo test -p \
                             strongroom-block --test walk"
                        )),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    eprintln!("{} cuts in {} walks", sum.into_inner(), seeds.end - seeds.start);
}
