//! Power cuts at every operation of workloads on simulated disks.
//!
//! `STRONGROOM_CRASH_SEEDS` says how many workloads are run, cut at every operation;
//! `STRONGROOM_CRASH_SEED` runs one. Without either, the first workload of each layout is cut at
//! some of its operations.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::workload::{Act, Run, chapters};
use common::{Bed, LAYOUTS, Model, Rng, setting, verify};
use strongroom_engine::disk::Snapshot;
use strongroom_engine::pool::OpenMode;

const NAME_ONE: &str = "STRONGROOM_CRASH_SEED";
const NAME_ALL: &str = "STRONGROOM_CRASH_SEEDS";

/// Where a run was cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    seed: u64,
    chapter: usize,
    op: u64,
}

/// Cuts one chapter at one operation, then perhaps its recovery at another one, and verifies.
fn cut(
    bed: &Bed,
    before: &Snapshot,
    model: &Model,
    acts: &[Act],
    at: Cut,
    again: bool,
) -> Result<(), String> {
    let mut rng = Rng(at.seed ^ at.op << 20 ^ (at.chapter as u64) << 50 ^ u64::from(again) << 60);
    bed.world.restore(before);
    bed.world.set_seed(rng.next());
    bed.world.set_recording(true);
    bed.world.set_crash_at(bed.world.ops() + at.op);
    let mut run = Run::new(bed, model.clone());
    if let Err(e) = run.all(acts)
        && !bed.world.is_off()
    {
        return Err(format!("before the power failed: {e}"));
    }
    let Run { mut model, pending, pool, reader, .. } = run;
    drop((pool, reader));
    if rng.chance(4) {
        bed.world.kill()
    } else {
        bed.world.power_cut(rng.next())
    }
    if again {
        let snapshot = bed.world.snapshot();
        let begin = bed.world.ops();
        drop(bed.open(OpenMode::Write).map_err(|e| format!("opening: {e}"))?);
        let ops = bed.world.ops() - begin;
        bed.world.restore(&snapshot);
        bed.world.set_crash_at(begin + rng.below(ops.max(1)));
        drop(bed.open(OpenMode::Write));
        bed.world.power_cut(rng.next());
    }
    verify(bed, &mut model, &pending)
}

/// Runs the workload of a seed, cut at every `stride`-th operation. How many cuts that were.
fn run_seed(seed: u64, stride: u64) -> Result<u64, String> {
    let layout = LAYOUTS[(seed % LAYOUTS.len() as u64) as usize];
    let chapters = chapters(seed, LAYOUTS.len() as u64, layout.encrypted, layout.disks);
    let bed = Bed::new(layout, seed);
    drop(bed.create().map_err(|e| format!("creating: {e}"))?);
    let mut model = Model::default();
    let mut cuts = 0;
    for (chapter, acts) in chapters.iter().enumerate() {
        let before = bed.world.snapshot();
        let begin = bed.world.ops();
        let mut run = Run::new(&bed, model.clone());
        run.all(acts).map_err(|e| format!("chapter {chapter} of {layout:?} {acts:?}: {e}"))?;
        let after_model = run.model.clone();
        drop(run);
        let ops = bed.world.ops() - begin;
        let after = bed.world.snapshot();
        let mut op = seed % stride;
        while op < ops {
            for again in [false, true] {
                let at = Cut { seed, chapter, op };
                let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    cut(&bed, &before, &model, acts, at, again)
                }));
                let held = held.unwrap_or_else(|_| Err("a panic, see above".into()));
                held.map_err(|why| {
                    format!(
                        "{at:?} of {ops}, twice: {again}, {layout:?}, {acts:?}: {why}\n\
                         run it again: {NAME_ONE}={seed} cargo test -p strongroom-engine --test crash"
                    )
                })?;
                cuts += 1;
            }
            op += stride;
        }
        bed.world.restore(&after);
        model = after_model;
    }
    Ok(cuts)
}

/// Runs many seeds on all processors.
fn run_seeds(seeds: std::ops::Range<u64>, stride: u64) {
    let next = AtomicU64::new(seeds.start);
    let cuts = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().unwrap().len() > 3 {
                        break;
                    }
                    match run_seed(seed, stride) {
                        Ok(count) => drop(cuts.fetch_add(count, Ordering::Relaxed)),
                        Err(why) => failures.lock().unwrap().push(why),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    eprintln!("{} power cuts, everything that was confirmed was there", cuts.into_inner());
}

#[test]
fn no_power_cut_takes_what_was_confirmed() {
    let stride = setting("STRONGROOM_CRASH_STRIDE");
    match (setting(NAME_ONE), setting(NAME_ALL)) {
        (Some(seed), _) => run_seeds(seed..seed + 1, stride.unwrap_or(1)),
        (None, Some(seeds)) => run_seeds(0..seeds, stride.unwrap_or(1)),
        (None, None) => run_seeds(0..LAYOUTS.len() as u64 + 6, stride.unwrap_or(23)),
    }
}
