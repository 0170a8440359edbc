//! Power cuts at every operation of workloads on simulated disks.
//!
//! `STRONGROOM_CRASH_SEEDS` says how many workloads are run, cut at every operation;
//! `STRONGROOM_CRASH_SEED` runs one. Without either, the first workload of each layout is cut at
//! some of its operations.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::watch::Watch;
use common::workload::{Act, Run, chapters};
use common::{Bed, LAYOUTS, Model, Pending, Rng, back_up, check_roots, root_id, setting, verify};
use strongroom_engine::disk::Snapshot;
use strongroom_engine::error::Error;
use strongroom_engine::pool::{OpenMode, Pool};

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

/// Runs many seeds on all processors; the sum of what they count.
fn run_seeds(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> Result<u64, String> + Sync) -> u64 {
    let next = AtomicU64::new(seeds.start);
    let sum = AtomicU64::new(0);
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
                    match run(seed) {
                        Ok(count) => drop(sum.fetch_add(count, Ordering::Relaxed)),
                        Err(why) => failures.lock().unwrap().push(why),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    sum.into_inner()
}

/// Which seeds to run, and of how many operations one is taken.
fn asked_for(more: u64, stride: u64) -> (std::ops::Range<u64>, u64) {
    let (seeds, usual) = match (setting(NAME_ONE), setting(NAME_ALL)) {
        (Some(seed), _) => (seed..seed + 1, 1),
        (None, Some(seeds)) => (0..seeds, 1),
        (None, None) => (0..LAYOUTS.len() as u64 + more, stride),
    };
    (seeds, setting("STRONGROOM_CRASH_STRIDE").unwrap_or(usual))
}

#[test]
fn no_power_cut_takes_what_was_confirmed() {
    let (seeds, stride) = asked_for(6, 23);
    let cuts = run_seeds(seeds, |seed| run_seed(seed, stride));
    eprintln!("{cuts} power cuts, everything that was confirmed was there");
}

/// Runs the workload of a seed with a reader who comes before every `every`-th operation and
/// compares all that is there. How often that was.
fn readers_between(seed: u64, every: u64) -> u64 {
    let layout = LAYOUTS[(seed % LAYOUTS.len() as u64) as usize];
    let chapters = chapters(seed, LAYOUTS.len() as u64, layout.encrypted, layout.disks);
    let mut bed = Bed::new(layout, seed);
    drop(bed.create().unwrap());
    let board = Arc::new(Mutex::new((Model::default(), Pending::Nothing)));
    let look = {
        let (other, board) = (bed.beside(), Arc::clone(&board));
        move || {
            let (mut model, pending) = board.lock().unwrap().clone();
            let reader = other.open(OpenMode::Read).unwrap_or_else(|e| panic!("{pending:?}: {e}"));
            check_roots(&reader, &mut model, &pending)
                .unwrap_or_else(|why| panic!("{pending:?}: {why}"));
        }
    };
    let watch = Watch::new(every, Box::new(look));
    bed.watch = Some(Arc::clone(&watch));
    let mut model = Model::default();
    for acts in &chapters {
        let mut run = Run::new(&bed, model.clone());
        run.board = Arc::clone(&board);
        run.all(acts).unwrap_or_else(|e| panic!("{layout:?} {acts:?}: {e}"));
        model = run.model.clone();
    }
    watch.looks.load(Ordering::Relaxed)
}

/// What is being done is there or not there for a reader, everything else as it was: at every
/// operation of whoever writes.
#[test]
fn readers_may_come_between_any_two_operations() {
    let (seeds, every) = asked_for(4, 29);
    let looks = run_seeds(seeds, |seed| {
        std::panic::catch_unwind(|| readers_between(seed, every)).map_err(|_| {
            format!("run it again: {NAME_ONE}={seed} cargo test -p strongroom-engine --test crash")
        })
    });
    assert!(looks > 0);
    eprintln!("{looks} readers came while the pool was written, and found what they should");
}

/// A pool that was being created is there and empty, or not there, and can be created then; or some
/// of its disks have a superblock and must be emptied first, as the errors say.
#[test]
fn a_power_cut_while_a_pool_is_created_leaves_a_pool_or_none() {
    let all = setting(NAME_ALL).is_some();
    for layout in LAYOUTS {
        let bed = Bed::new(layout, 1);
        let empty = bed.world.snapshot();
        drop(bed.create().unwrap());
        let ops = bed.world.ops();
        let (mut whole, mut none, mut halves) = (0, 0, 0);
        // The last steps are the interesting ones; most of the others make directories.
        let often = ops - 120;
        let steps = (0..often).step_by(if all { 1 } else { 37 });
        for op in steps.chain((often..ops).step_by(if all { 1 } else { 3 })) {
            bed.world.restore(&empty);
            bed.world.set_seed(op);
            bed.world.set_crash_at(op);
            drop(bed.create());
            bed.world.power_cut(op);
            match bed.open(OpenMode::Write) {
                Ok(pool) => {
                    assert!(pool.roots().is_empty());
                    drop(pool);
                    whole += 1;
                }
                Err(Error::NotAPool { .. }) => {
                    drop(bed.create().unwrap_or_else(|e| panic!("{layout:?} {op}: {e}")));
                    none += 1;
                }
                Err(Error::TooFewDisks { .. }) => {
                    let again = bed.create();
                    assert!(matches!(again, Err(Error::Invalid(_))), "{layout:?} {op}: {again:?}");
                    bed.world.disks().iter().for_each(|disk| disk.remove_all());
                    drop(bed.create().unwrap());
                    halves += 1;
                }
                Err(e) => panic!("{layout:?} {op}: {e}"),
            }
            verify(&bed, &mut Model::default(), &Pending::Nothing)
                .unwrap_or_else(|why| panic!("{layout:?} {op}: {why}"));
        }
        eprintln!("{layout:?}: {whole} pools, {none} without one, {halves} half made");
    }
}

/// A change of the keys that reached one disk only, which then was away while the keys were changed
/// again: the keys that data was sealed with win.
#[test]
fn keys_of_a_change_that_was_cut_off_do_not_come_back() {
    let layout = LAYOUTS[1];
    let bed = Bed::new(layout, 1);
    let model = {
        let pool = bed.create().unwrap();
        back_up(&pool, 0, &[1, 2, 3], None).unwrap();
        Model { images: [(root_id(0), vec![1, 2, 3])].into(), ..Model::default() }
    };
    let before = bed.world.snapshot();
    let begin = bed.world.ops();
    bed.write().rekey().unwrap();
    let ops = bed.world.ops() - begin;
    for away in 0..2 {
        for op in 0..ops {
            bed.world.restore(&before);
            bed.world.set_crash_at(begin + op);
            if let Ok(pool) = bed.open(OpenMode::Write) {
                drop(pool.rekey());
            }
            bed.world.power_cut(op);
            let mut model = model.clone();
            let mut options = bed.options(OpenMode::Write, 0);
            options.disks[away] = None;
            let pool = Pool::open(options, bed.used(0)).unwrap();
            pool.rekey().unwrap();
            back_up(&pool, 1, &[2, 3, 4], None).unwrap();
            model.images.insert(root_id(1), vec![2, 3, 4]);
            drop(pool);
            let mut options = bed.options(OpenMode::Read, 0);
            options.disks.reverse();
            let pool = Pool::open(options, bed.used(0)).unwrap();
            check_roots(&pool, &mut model, &Pending::Nothing)
                .unwrap_or_else(|why| panic!("{op} of {ops}, {away} away: {why}"));
            drop(pool);
            verify(&bed, &mut model, &Pending::Nothing)
                .unwrap_or_else(|why| panic!("{op} of {ops}, {away} away: {why}"));
        }
    }
}
