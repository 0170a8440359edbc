//! Power cuts at every operation of workloads on volumes, on simulated disks.
//!
//! `STRONGROOM_CRASH_SEEDS` says how many workloads are run, cut at every operation;
//! `STRONGROOM_CRASH_SEED` runs one; `STRONGROOM_CRASH_STRIDE` takes one operation of so many.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::model::{Act, Model, Run, create, random_act, verify};
use common::{Bed, LAYOUTS, Rng, setting};
use strongroom_block::Error;
use strongroom_engine::Error as PoolError;
use strongroom_engine::disk::Snapshot;
use strongroom_engine::pool::Meter;

fn acts(seed: u64, count: u64) -> Vec<(u64, Act)> {
    let mut rng = Rng(seed ^ 0x5eed);
    (0..count).map(|_| random_act(&mut rng)).collect()
}

/// Disks that the layout can do without, by a seed.
fn away(bed: &Bed, rng: &mut Rng) -> Vec<usize> {
    let count = rng.below(u64::from(bed.layout.parity) + 1);
    let mut away: Vec<usize> =
        (0..count).map(|_| rng.below(bed.layout.disks as u64) as usize).collect();
    away.dedup();
    away
}

/// Cuts a workload at one operation, then perhaps its recovery at another one, and verifies; then goes on
/// with other work, perhaps without a disk.
fn cut(
    bed: &Bed,
    before: &Snapshot,
    model: &Model,
    acts: &[(u64, Act)],
    op: u64,
    seed: u64,
) -> Result<(), String> {
    let mut rng = Rng(seed ^ op << 20);
    bed.world.restore(before);
    bed.world.set_seed(rng.next());
    bed.world.set_crash_at(bed.world.ops() + op);
    let mut run = Run::new(bed, model.clone(), &[]);
    if let Err(e) = run.all(acts)
        && !bed.world.is_off()
    {
        return Err(format!("before the power failed: {e}"));
    }
    run.close();
    let mut model = run.model;
    let cut = |rng: &mut Rng| match rng.chance(4) {
        true => bed.world.kill(),
        false => bed.world.power_cut(rng.next()),
    };
    cut(&mut rng);
    let away = away(bed, &mut rng);
    if rng.chance(2) {
        // The power fails while it recovers, too.
        let snapshot = bed.world.snapshot();
        let begin = bed.world.ops();
        verify(bed, &mut model.clone(), &away)
            .map_err(|why| format!("the first time, without disks {away:?}: {why}"))?;
        let ops = bed.world.ops() - begin;
        bed.world.restore(&snapshot);
        bed.world.set_crash_at(begin + rng.below(ops.max(1)));
        drop(verify(bed, &mut model.clone(), &away));
        cut(&mut rng);
    }
    verify(bed, &mut model, &away).map_err(|why| format!("without disks {away:?}: {why}"))?;
    if rng.chance(3) {
        let more = crate::acts(rng.next(), 12);
        let mut run = Run::new(bed, model, &away);
        run.all(&more).map_err(|e| format!("going on: {e}, {more:?}"))?;
        run.close();
        model = run.model;
        verify(bed, &mut model, &away).map_err(|why| format!("after {more:?}: {why}"))?;
        // A commit that was cut off may be on a disk that was away alone: that is told.
        if !away.is_empty()
            && let Err(Error::Pool(PoolError::Diverged { .. })) = bed.open()
        {
            return Ok(());
        }
        verify(bed, &mut model, &[]).map_err(|why| format!("with all disks: {why}"))?;
    }
    if rng.chance(6) {
        let volumes = bed.open_without(&away).map_err(|e| e.to_string())?;
        let report = volumes.pool().check(true, &Meter::new()).map_err(|e| e.to_string())?;
        if !report.lost.is_empty() || !report.bad_packs.is_empty() {
            return Err(format!("the pool is damaged: {report:?}"));
        }
    }
    Ok(())
}

/// Runs the workload of a seed, cut at every `stride`-th operation. How many cuts that were.
fn run_seed(seed: u64, stride: u64) -> Result<u64, String> {
    let layout = LAYOUTS[(seed % LAYOUTS.len() as u64) as usize];
    let bed = Bed::new(layout, seed);
    let model = create(&bed);
    let acts = acts(seed, 30);
    let before = bed.world.snapshot();
    let begin = bed.world.ops();
    let mut run = Run::new(&bed, model.clone(), &[]);
    run.all(&acts).map_err(|e| format!("{layout:?} {acts:?}: {e}"))?;
    run.close();
    let mut after = run.model;
    let ops = bed.world.ops() - begin;
    verify(&bed, &mut after, &[]).map_err(|why| format!("{layout:?} {acts:?}: {why}"))?;
    let mut cuts = 0;
    let only = setting("STRONGROOM_CRASH_OP");
    for op in
        (only.unwrap_or(seed % stride)..only.map_or(ops, |op| op + 1)).step_by(stride as usize)
    {
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cut(&bed, &before, &model, &acts, op, seed)
        }));
        let held = held.unwrap_or_else(|_| Err("a panic, see above".into()));
        held.map_err(|why| {
            format!(
                "cut at {op} of {ops}, {layout:?}, {acts:?}: {why}\nrun it again: \
                 STRONGROOM_CRASH_SEED={seed} cargo test -p strongroom-block --test crash"
            )
        })?;
        cuts += 1;
    }
    Ok(cuts)
}

#[test]
fn a_volume_is_a_prefix_of_its_changes_after_any_power_cut() {
    let (one, all) = (setting("STRONGROOM_CRASH_SEED"), setting("STRONGROOM_CRASH_SEEDS"));
    let (seeds, usual) = match (one, all) {
        (Some(seed), _) => (seed..seed + 1, 1),
        (None, Some(seeds)) => (0..seeds, 1),
        (None, None) => (0..2 * LAYOUTS.len() as u64, 17),
    };
    let stride = setting("STRONGROOM_CRASH_STRIDE").unwrap_or(usual);
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
                    match run_seed(seed, stride) {
                        Ok(count) => drop(sum.fetch_add(count, Ordering::Relaxed)),
                        Err(why) => failures.lock().unwrap().push(why),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let cuts = sum.into_inner();
    assert!(cuts > 0);
    eprintln!("{cuts} power cuts, each volume was a prefix of its changes");
}
