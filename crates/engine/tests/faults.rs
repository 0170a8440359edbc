//! Disks that fail and disks that are full: what was confirmed stays, what can't be done is said,
//! and work goes on as far as the layout allows.
//!
//! `STRONGROOM_FAULTS_ALL=1` lets every single operation fail; by default some do.
//! `STRONGROOM_FAULTS_SEEDS` says how many workloads run on disks that err now and then, and as many
//! on disks that err often; `STRONGROOM_FAULTS_SEED` runs one, from [`OFTEN`] on one of the latter.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::io::ErrorKind;
use std::sync::Arc;

use common::workload::{Act, Run, random_act};
use common::{
    Bed, EXACT, LAYOUTS, LONG, Layout, Model, Pending, Rng, back_up, check_roots, setting, verify,
};
use strongroom_engine::disk::{Fault, Operation};
use strongroom_engine::error::Error;
use strongroom_engine::pool::{OpenMode, Pool};

const CHANGES: [Operation; 8] = [
    Operation::Create,
    Operation::Write,
    Operation::SetLen,
    Operation::Sync,
    Operation::Rename,
    Operation::Remove,
    Operation::MakeDir,
    Operation::SyncDir,
];
const LOOKS: [Operation; 5] =
    [Operation::Open, Operation::Read, Operation::Len, Operation::List, Operation::Lock];

fn acts() -> Vec<Act> {
    vec![
        Act::Backup((0..20).collect()),
        Act::Backup((10..30).chain([LONG, LONG + 1]).collect()),
        Act::Forget(1),
        Act::Gc(0.0),
        Act::Reopen,
        Act::Backup((25..40).collect()),
        Act::Rekey,
        Act::Scrub,
        Act::Gc(0.05),
        Act::Check,
    ]
}

/// Whether an error tells that a disk failed, and not of damage that isn't there.
fn tells(e: &Error) -> bool {
    matches!(
        e,
        Error::Io { .. } | Error::Stopped { .. } | Error::TooFewDisks { .. } | Error::InUse { .. }
    ) || e.to_string().contains("nput/output")
}

/// Lets the `n`-th operation of each kind fail, on one disk; from then on every time, when
/// `forever`. What goes wrong is said, and after it everything that was confirmed is there.
fn fail(layout: Layout, disk: usize, operations: &[Operation], forever: bool, stride: u64) {
    let bed = Bed::new(layout, 3);
    drop(bed.create().unwrap());
    let mut model = Model::default();
    let mut first = Run::new(&bed, model.clone());
    first.all(&[Act::Backup((0..12).collect())]).unwrap();
    model = first.model.clone();
    drop(first);
    let before = bed.world.snapshot();
    for operation in operations {
        let mut n = disk as u64 % stride;
        loop {
            bed.world.restore(&before);
            let fault = Fault::io_error(*operation, "").on_disk(disk).after(n);
            bed.world.inject(if forever { fault.forever() } else { fault });
            let what =
                format!("{operation:?} {n} on disk {disk} of {layout:?}, forever: {forever}");
            let struck = bed.world.faults_struck();
            let mut run = Run::new(&bed, model.clone());
            let result = run.all(&acts());
            if bed.world.faults_struck() == struck {
                result.unwrap_or_else(|e| panic!("{what} did not fail, but: {e}"));
                break;
            }
            if let Err(e) = &result {
                assert!(tells(e), "{what}: {e}");
            }
            bed.world.clear_faults();
            let Run { mut model, pending, pool, reader, .. } = run;
            drop((pool, reader));
            // What failed to become durable may be gone after the next power cut.
            bed.world.power_cut(n);
            verify(&bed, &mut model, &pending)
                .unwrap_or_else(|e| panic!("{what}: {result:?}: {e}"));
            n += stride;
        }
    }
}

fn stride(some: u64) -> u64 {
    if setting("STRONGROOM_FAULTS_ALL").is_some() { 1 } else { some }
}

#[test]
fn any_operation_may_fail_once_on_one_disk_of_several() {
    fail(Layout::new(3, 1, false), 1, &CHANGES, false, stride(5));
    fail(Layout::new(2, 1, true), 0, &CHANGES, false, stride(5));
    fail(Layout::new(3, 1, true), 0, &LOOKS, false, stride(41));
}

#[test]
fn a_disk_may_fail_for_good_at_any_operation() {
    fail(Layout::new(3, 1, true), 2, &CHANGES, true, stride(9));
    fail(Layout::new(2, 1, false), 1, &CHANGES, true, stride(9));
    fail(Layout::new(3, 1, false), 0, &LOOKS, true, stride(61));
}

#[test]
fn any_operation_may_fail_on_the_only_disk() {
    fail(Layout::new(1, 0, false), 0, &CHANGES, false, stride(5));
    fail(Layout::new(1, 0, true), 0, &[Operation::Sync, Operation::SyncDir], false, stride(3));
    fail(Layout::new(1, 0, true), 0, &CHANGES, true, stride(11));
}

#[test]
fn a_disk_that_is_gone_does_not_stop_the_others() {
    for layout in [Layout::new(2, 1, true), Layout::new(3, 1, false)] {
        let bed = Bed::new(layout, 3);
        let pool = bed.create().unwrap();
        let mut model = Model::default();
        let mut put = |pool: &_, n: u64, image: Vec<u64>| {
            let root = back_up(pool, n, &image, None).unwrap();
            model.images.insert(root.id, image);
        };
        put(&pool, 0, (0..20).collect());
        bed.world.disks()[0].set_lost(true);
        put(&pool, 1, (10..40).chain([LONG]).collect());
        pool.gc(EXACT).unwrap();
        put(&pool, 2, (35..50).collect());
        assert!(!pool.take_notices().is_empty());
        drop(pool);
        bed.world.disks()[0].set_lost(false);
        verify(&bed, &mut model, &Pending::Nothing).unwrap();
    }
}

/// The content of a pack on one disk and its name on the other are no pack.
#[test]
fn what_one_disk_failed_to_take_must_be_durable_on_another() {
    for (content, name) in [("packs/", "packs/"), ("index/", "index")] {
        let bed = Bed::new(Layout::new(2, 1, false), 3);
        let pool = bed.create().unwrap();
        let image: Vec<u64> = (0..20).collect();
        bed.world.inject(Fault::io_error(Operation::Create, content).on_disk(0).forever());
        bed.world.inject(Fault::io_error(Operation::SyncDir, name).on_disk(1).forever());
        let refused = back_up(&pool, 0, &image, None).unwrap_err();
        assert!(tells(&refused), "{refused}");
        drop(pool);
        bed.world.clear_faults();
        bed.world.power_cut(1);
        let pending = Pending::Put(common::root_id(0), image);
        verify(&bed, &mut Model::default(), &pending).unwrap();
    }
}

#[test]
fn a_disk_that_alone_took_a_segment_is_not_replaced() {
    let bed = Bed::new(Layout::new(2, 1, false), 3);
    let pool = bed.create().unwrap();
    let image: Vec<u64> = (0..20).collect();
    bed.world.inject(Fault::io_error(Operation::Create, "index/").on_disk(0).forever());
    let root = back_up(&pool, 0, &image, None).unwrap();
    let mut model = Model { images: [(root.id, image)].into(), ..Model::default() };
    drop(pool);
    bed.world.clear_faults();
    let replace = || {
        let options = bed.options(OpenMode::Write, 0);
        Pool::replace_disk(options, bed.used(0), 1, Arc::new(bed.world.add_disk()))
    };
    let refused = replace().unwrap_err();
    assert!(refused.to_string().contains("segments of the index are on disk 1"), "{refused}");
    // Opening the pool to write puts a copy on the other.
    drop(bed.write());
    drop(replace().unwrap());
    verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

#[test]
fn a_disk_that_does_not_answer_is_as_good_as_missing() {
    for layout in [Layout::new(2, 1, true), Layout::new(3, 1, false)] {
        let bed = Bed::new(layout, 3);
        let pool = bed.create().unwrap();
        let mut model = Model::default();
        for n in 0..2 {
            let image: Vec<u64> = (n * 10..n * 10 + 20).chain([LONG + n]).collect();
            let root = back_up(&pool, n, &image, None).unwrap();
            model.images.insert(root.id, image);
        }
        drop(pool);
        let disk = bed.world.disks()[1].clone();
        disk.set_lost(true);
        for mode in [OpenMode::Read, OpenMode::Write] {
            let pool = bed.open(mode).unwrap();
            let notices = pool.take_notices().join("; ");
            assert!(notices.contains("sim1 is not used: lock sim1"), "{notices}");
            check_roots(&pool, &mut model, &Pending::Nothing).unwrap();
        }
        // When it fails with the pool open, what it has to let go waits for it.
        disk.set_lost(false);
        let pool = bed.write();
        pool.forget(&[common::root_id(0)]).unwrap();
        model.images.remove(&common::root_id(0));
        disk.set_lost(true);
        assert!(pool.gc(EXACT).unwrap().packs_waiting > 0);
        disk.set_lost(false);
        assert_eq!(pool.gc(EXACT).unwrap().packs_waiting, 0);
        drop(pool);
        verify(&bed, &mut model, &Pending::Nothing).unwrap();
    }
    // The only one is not.
    let bed = Bed::new(Layout::new(1, 0, false), 3);
    drop(bed.create().unwrap());
    bed.world.disks()[0].set_lost(true);
    let refused = bed.open(OpenMode::Read).unwrap_err();
    assert!(matches!(&refused, Error::Io { .. }), "{refused}");
}

/// From this seed on disks err so often that trying again does not help, and some places always.
const OFTEN: u64 = 1 << 32;

/// What errs in a chapter.
fn let_err(bed: &Bed, rng: &mut Rng, often: bool) -> String {
    let which = rng.below(3) as usize;
    let kind = rng.below(4);
    // Bits that are read wrongly time and again are wrong, for all one can know.
    let one_in = if often && kind < 3 { [2, 4, 10][which] } else { [20, 60, 250][which] };
    let world = &bed.world;
    match kind {
        0 => CHANGES.iter().for_each(|change| world.set_error_rate(*change, one_in)),
        1 => LOOKS.iter().for_each(|look| world.set_error_rate(*look, one_in)),
        2 => [Operation::Create, Operation::Write, Operation::SetLen, Operation::MakeDir]
            .iter()
            .for_each(|change| world.set_no_space_rate(*change, one_in)),
        // Not the journal: two copies of its end that are read wrongly at once look like the end of
        // a journal that a power cut tore, which they are when they stay so.
        _ => ["packs/", "index/"].iter().for_each(|of| world.set_flip_rate(of, one_in)),
    }
    let what = ["changes", "looks", "room", "bits"][kind as usize];
    let what = format!("{what} err once in {one_in}");
    if !often || rng.chance(2) {
        return what;
    }
    // And one place is bad for good.
    let all = [&CHANGES[..], &LOOKS[..]].concat();
    let operation = all[rng.below(all.len() as u64) as usize];
    let of = ["journal", "packs/", "index", "pool.superblock"][rng.below(4) as usize];
    let disk = rng.below(bed.layout.disks as u64) as usize;
    world.inject(Fault::io_error(operation, of).on_disk(disk).forever());
    format!("{what}, each {operation:?} of {of} on disk {disk} fails")
}

/// A workload on disks of which each errs now and then, chapter by chapter; after each, with the
/// disks well again and perhaps after a power cut, all that was confirmed is there and whole. How
/// many errors there were.
fn err(seed: u64) -> u64 {
    let layout = LAYOUTS[(seed % LAYOUTS.len() as u64) as usize];
    let bed = Bed::new(layout, seed);
    drop(bed.create().unwrap());
    let mut rng = Rng(seed);
    let mut model = Model::default();
    let mut first = Run::new(&bed, model.clone());
    first.all(&[Act::Backup((0..12).collect())]).unwrap();
    model = first.model.clone();
    drop(first);
    for _ in 0..3 {
        let acts: Vec<Act> =
            (0..4 + rng.below(6)).map(|_| random_act(&mut rng, layout.disks)).collect();
        let what = format!("{layout:?}, {}, {acts:?}", let_err(&bed, &mut rng, seed >= OFTEN));
        let mut run = Run::new(&bed, model.clone());
        run.lenient = true;
        let result = run.all(&acts);
        bed.world.clear_faults();
        let Run { model: after, pending, pool, reader, .. } = run;
        model = after;
        drop((pool, reader));
        if rng.chance(2) {
            bed.world.kill();
        } else {
            bed.world.power_cut(rng.next());
        }
        verify(&bed, &mut model, &pending)
            .unwrap_or_else(|e| panic!("{what}: {:?}: {e}", result.map_err(|e| e.to_string())));
    }
    bed.world.faults_struck()
}

#[test]
fn disks_may_err_now_and_then() {
    let seeds = match setting("STRONGROOM_FAULTS_SEED") {
        Some(seed) => vec![seed],
        None => {
            let count = setting("STRONGROOM_FAULTS_SEEDS").unwrap_or(48);
            (0..count).chain(OFTEN..OFTEN + count).collect()
        }
    };
    let (mut struck, many) = (0, seeds.len() > 1);
    let mut failed = Vec::new();
    for seed in seeds {
        match std::panic::catch_unwind(|| err(seed)) {
            Ok(errors) => struck += errors,
            Err(_) => failed.push(seed),
        }
    }
    assert!(
        failed.is_empty(),
        "{failed:?} failed; run one again: STRONGROOM_FAULTS_SEED={} cargo test -p \
         strongroom-engine --test faults disks_may_err",
        failed[0]
    );
    assert!(struck > 0 || !many);
    eprintln!("{struck} errors of disks, everything that was confirmed is there");
}

fn is_full(e: &Error) -> bool {
    match e {
        Error::Io { source, .. } => source.kind() == ErrorKind::StorageFull,
        other => other.to_string().to_lowercase().contains("space"),
    }
}

#[test]
fn a_full_disk_is_said_and_survived_and_garbage_makes_room() {
    for layout in [Layout::new(1, 0, true), Layout::new(2, 1, false), Layout::new(3, 1, true)] {
        let mut refused = 0;
        for step in 0..stride_count() {
            let bed = Bed::new(layout, 3);
            let pool = bed.create().unwrap();
            let mut model = Model::default();
            for n in 0..4u64 {
                let image: Vec<u64> = (n * 8..n * 8 + 12).chain([LONG + n, LONG + n + 1]).collect();
                let root = back_up(&pool, n, &image, None).unwrap();
                model.images.insert(root.id, image);
            }
            // Every disk gets so much more room.
            let more = step * 2_600_000 / stride_count();
            let limit = |more: u64| {
                for disk in bed.world.disks() {
                    let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
                    disk.set_capacity(used + more);
                }
            };
            limit(more);
            let big: Vec<u64> = (100..110).chain(LONG + 100..LONG + 112).collect();
            let what = format!("{layout:?} with {more} bytes of room");
            let mut pending = Pending::Nothing;
            match back_up(&pool, 90, &big, None) {
                Ok(root) => drop(model.images.insert(root.id, big.clone())),
                Err(e) => {
                    refused += 1;
                    assert!(is_full(&e), "{what}: {e}");
                    pending = Pending::Put(common::root_id(90), big.clone());
                }
            }
            drop(pool);
            bed.world.kill();
            // A full disk can be read.
            let reader = bed.open(strongroom_engine::pool::OpenMode::Read).unwrap();
            check_roots(&reader, &mut model.clone(), &pending).unwrap();
            drop(reader);
            // With a little room (the administrator's, or what is kept for this) garbage goes, and
            // what goes is enough for what was refused.
            limit(more.max(1 << 20));
            let pool = bed.write();
            check_roots(&pool, &mut model, &pending).unwrap();
            let ids = [0, 1, 2].map(common::root_id);
            pool.forget(&ids).unwrap_or_else(|e| panic!("{what}: {e}"));
            ids.iter().for_each(|id| drop(model.images.remove(id)));
            pool.gc(EXACT).unwrap_or_else(|e| panic!("{what}: {e}"));
            limit(8 << 20);
            let root = back_up(&pool, 91, &big, None).unwrap();
            model.images.insert(root.id, big);
            drop(pool);
            limit(64 << 20);
            verify(&bed, &mut model, &Pending::Nothing).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        assert!(refused > 0);
    }
}

fn stride_count() -> u64 {
    24 / stride(4).min(4) * 2
}
