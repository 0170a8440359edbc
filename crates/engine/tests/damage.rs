//! Every byte of every file damaged in turn, every file cut at every length, every set of disks
//! lost: never a wrong byte, never a panic; the right data, or an error that names what is wrong.
//!
//! By default a part of the bytes is taken; `STRONGROOM_DAMAGE_ALL=1` takes all of them.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{
    Bed, LONG, Layout, Model, Rng, back_up, compare, piece, reachable, restore, root_id, setting,
};
use strongroom_engine::disk::{Disk, Fault, SimDisk, Snapshot};
use strongroom_engine::error::Error;
use strongroom_engine::id::ChunkKind;
use strongroom_engine::pool::{Meter, OpenMode, OpenOptions, Pool, ScrubOptions};

/// How many damages of each layout are tried.
const SOME: u64 = 400;

/// A pool with a few images on it.
struct Scene {
    bed: Bed,
    model: Model,
    whole: Snapshot,
}

impl Scene {
    fn new(layout: Layout, images: &[Vec<u64>]) -> Self {
        let bed = Bed::new(layout, 5);
        let mut model = Model::default();
        let pool = bed.create().unwrap();
        for (n, image) in images.iter().enumerate() {
            back_up(&pool, n as u64, image, None).unwrap();
            model.images.insert(root_id(n as u64), image.clone());
        }
        drop(pool);
        // Each opening begins a new journal; this leaves one on each disk.
        drop(bed.write());
        let whole = bed.world.snapshot();
        Self { bed, model, whole }
    }

    /// Reads everything. With `must` everything must be there, else errors are welcome; never
    /// anything wrong.
    fn read_all(&self, pool: &Pool, must: bool, what: &str) {
        let roots = pool.roots();
        let found: Vec<_> = roots.iter().map(|root| root.id).collect();
        let want: BTreeSet<_> = self.model.images.keys().copied().collect();
        assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), want, "{what}");
        for root in &roots {
            let image = &self.model.images[&root.id];
            match restore(pool, root) {
                Ok(back) => {
                    let want: Vec<_> = image.iter().map(|n| piece(*n)).collect();
                    assert!(back == want, "{what}: wrong bytes in {}", root.id);
                }
                Err(e) => assert!(!must && is_named(&e), "{what}: {e}"),
            }
        }
    }

    /// Damages the pool and looks at what becomes of it.
    fn survives(&self, disk: usize, path: &str, what: &str, damage: impl FnOnce(&SimDisk)) {
        self.bed.world.restore(&self.whole);
        damage(&self.bed.world.disks()[disk]);
        let must = self.bed.layout.parity > 0 || path.starts_with("journal");
        let open = |mode| match self.bed.open(mode) {
            Ok(pool) => Some(pool),
            Err(e) => {
                assert!(!must && is_named(&e), "{what}: {e}");
                None
            }
        };
        if let Some(pool) = open(OpenMode::Read) {
            self.read_all(&pool, must, what);
        }
        let Some(pool) = open(OpenMode::Write) else {
            return self.rebuild(path, what);
        };
        let report = pool.check(true, &Meter::new());
        if must {
            let report = report.unwrap();
            assert!(report.is_clean(), "{what}: {report:?}");
        }
        self.read_all(&pool, must, what);
        if self.bed.layout.parity == 0 {
            drop(pool);
            return self.rebuild(path, what);
        }
        let outcome = pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
        assert!(outcome.complete && outcome.lost.is_empty(), "{what}: {outcome:?}");
        // A disk whose superblock is gone is out until that is written anew.
        let all = pool.disks().iter().all(Option::is_some);
        assert!(all || path.starts_with("pool."), "{what}: {:?}", pool.take_notices());
        drop(pool);
        let mended =
            Pool::mend_superblocks(&self.bed.options(OpenMode::Write, 0), &self.bed.used(0));
        assert_eq!(mended.unwrap(), if all { Vec::new() } else { vec![disk] }, "{what}");
        if !all {
            let pool = self.bed.write();
            let outcome = pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
            assert!(outcome.complete && outcome.lost.is_empty(), "{what}: {outcome:?}");
        }
        // What was damaged is as good as new: another disk may go.
        let other = (disk + 1) % self.bed.layout.disks;
        self.bed.world.disks()[other].remove_all();
        let pool = self.bed.open(OpenMode::Read).unwrap_or_else(|e| panic!("{what}: {e}"));
        self.read_all(&pool, true, what);
    }

    /// An index that is beyond use comes back from the packs.
    fn rebuild(&self, path: &str, what: &str) {
        if !path.starts_with("index") {
            return;
        }
        let options = OpenOptions { without_index: true, ..self.bed.options(OpenMode::Write, 0) };
        let pool = Pool::open(options, self.bed.used(0)).unwrap();
        pool.rebuild_index(&Meter::new()).unwrap();
        assert!(pool.check(true, &Meter::new()).unwrap().is_clean(), "{what}");
        self.read_all(&pool, true, what);
    }

    fn files(&self) -> Vec<(usize, String, u64)> {
        let disks = self.bed.world.disks();
        let files = disks.iter().enumerate();
        files
            .flat_map(|(i, disk)| disk.files().into_iter().map(move |(path, len)| (i, path, len)))
            .filter(|(_, path, len)| *len > 0 && path != "pool.holder")
            .collect()
    }
}

/// An error that says what is wrong with the pool, and not that this process is.
fn is_named(e: &Error) -> bool {
    matches!(
        e,
        Error::Damaged { .. }
            | Error::ChunkMissing { .. }
            | Error::ChunkUnreadable { .. }
            | Error::NotAPool { .. }
            | Error::Unsupported { .. }
            | Error::TooFewDisks { .. }
            | Error::WrongSecret
            | Error::SecretNeeded
            | Error::Io { .. }
    )
}

/// Who may not write.
fn not_now() -> Result<Pool, Error> {
    Err(Error::ReadOnly { why: "it is asked not to".into() })
}

/// Damages of one kind, as many as there is time for, spread over all.
fn sample(total: u64, some: u64) -> impl Iterator<Item = u64> {
    let step = if setting("STRONGROOM_DAMAGE_ALL").is_some() { 1 } else { total.div_ceil(some) };
    let mut rng = Rng(total);
    (0..total.div_ceil(step)).map(move |i| (i * step + rng.below(step)).min(total - 1))
}

fn small() -> Vec<Vec<u64>> {
    vec![(1..8).collect(), (5..12).collect()]
}

fn flip_bytes(layout: Layout) {
    let scene = Scene::new(layout, &small());
    let files = scene.files();
    for (disk, path, len) in &files {
        for at in sample(*len, SOME / files.len() as u64 + 1) {
            let bit = (at * 7 + 3) as u8 % 8;
            let what = format!("byte {at} of {len} of {path} on disk {disk} of {layout:?}");
            scene.survives(*disk, path, &what, |disk| disk.flip_bit(path, at, bit).unwrap());
        }
    }
}

#[test]
fn any_byte_of_a_pool_on_one_disk_may_change() {
    flip_bytes(Layout::new(1, 0, false));
    flip_bytes(Layout::new(1, 0, true));
}

#[test]
fn any_byte_of_a_mirror_may_change() {
    flip_bytes(Layout::new(2, 1, false));
    flip_bytes(Layout::new(2, 1, true));
}

#[test]
fn any_byte_of_a_striped_pool_may_change() {
    flip_bytes(Layout::new(3, 1, false));
    flip_bytes(Layout::new(3, 1, true));
}

#[test]
fn any_file_may_be_cut_at_any_length_or_be_gone() {
    for layout in [Layout::new(1, 0, false), Layout::new(2, 1, true), Layout::new(3, 1, false)] {
        let scene = Scene::new(layout, &small());
        let mut kinds = BTreeSet::new();
        for (disk, path, len) in scene.files() {
            let what = format!("{path} gone from disk {disk} of {layout:?}");
            scene.survives(disk, &path, &what, |disk| disk.remove(&path).unwrap());
            // One of each kind, of the packs one of data and one of nodes.
            let kind = match path.split('/').next().unwrap() {
                "packs" => path.rsplit_once('/').unwrap().1[..12].to_owned(),
                other => other.to_owned(),
            };
            if !kinds.insert(kind) {
                continue;
            }
            for at in sample(len, SOME / 12) {
                let what = format!("{path} cut at {at} on disk {disk} of {layout:?}");
                scene.survives(disk, &path, &what, |disk| disk.truncate(&path, at).unwrap());
            }
        }
    }
}

/// All sets of `count` of `of` things.
fn sets(of: usize, count: usize) -> Vec<Vec<usize>> {
    (0..1u32 << of)
        .filter(|set| set.count_ones() as usize == count)
        .map(|set| (0..of).filter(|i| set >> i & 1 == 1).collect())
        .collect()
}

/// Opens what is left after disks were lost, in another order than they were created in.
fn open_rest(bed: &Bed, lost: &[usize], mode: OpenMode) -> strongroom_engine::Result<Pool> {
    let handles = bed.handles().into_iter().enumerate();
    let mut disks: Vec<Option<Arc<dyn Disk>>> =
        handles.map(|(i, disk)| (!lost.contains(&i)).then_some(disk)).collect();
    disks.reverse();
    Pool::open(OpenOptions { disks, ..bed.options(mode, 0) }, bed.used(0))
}

#[test]
fn the_disks_that_the_layout_can_spare_may_go() {
    for layout in [Layout::new(2, 1, true), Layout::new(3, 1, true), Layout::new(6, 2, false)] {
        let images = [(1..40).chain(LONG..LONG + 12).collect(), (30..60).collect::<Vec<_>>()];
        let scene = Scene::new(layout, &images);
        for lost in sets(layout.disks, layout.parity.into()) {
            for mode in [OpenMode::Read, OpenMode::Write] {
                scene.bed.world.restore(&scene.whole);
                let pool = open_rest(&scene.bed, &lost, mode).unwrap();
                let what = format!("{layout:?} without {lost:?}");
                scene.read_all(&pool, true, &what);
                assert!(pool.check(true, &Meter::new()).unwrap().is_clean(), "{what}");
                if mode == OpenMode::Write {
                    let root = back_up(&pool, 100, &[LONG + 50, 900], None).unwrap();
                    assert_eq!(restore(&pool, &root).unwrap(), [piece(LONG + 50), piece(900)]);
                    pool.forget(&[root.id]).unwrap();
                    pool.gc(common::EXACT).unwrap();
                    scene.read_all(&pool, true, &what);
                }
            }
        }
    }
}

#[test]
fn a_disk_that_is_alone_says_that_the_other_may_be_ahead() {
    let scene = Scene::new(Layout::new(2, 1, false), &small());
    let pool = open_rest(&scene.bed, &[1], OpenMode::Write).unwrap();
    back_up(&pool, 9, &[1, 2, 3], None).unwrap();
    drop(pool);
    let pool = open_rest(&scene.bed, &[0], OpenMode::Read).unwrap();
    assert!(pool.root(root_id(9)).is_none());
    let notices = pool.take_notices().join("; ");
    assert!(notices.contains("the newest images are only there"), "{notices}");
    drop(pool);
    let pool = scene.bed.open(OpenMode::Read).unwrap();
    assert!(pool.root(root_id(9)).is_some());
    let notices = pool.take_notices().join("; ");
    assert!(notices.contains("is behind") && !notices.contains("only there"), "{notices}");
}

#[test]
fn with_one_disk_more_gone_what_is_lost_is_named_exactly() {
    for layout in [Layout::new(3, 1, true), Layout::new(4, 2, false), Layout::new(6, 2, false)] {
        let images = [(1..40).chain(LONG..LONG + 12).collect(), (30..60).collect::<Vec<_>>()];
        let scene = Scene::new(layout, &images);
        let data: BTreeSet<_> = {
            let pool = scene.bed.open(OpenMode::Read).unwrap();
            let all = reachable(&pool).unwrap();
            all.into_iter().filter(|id| pool.read(ChunkKind::Data, id).is_ok()).collect()
        };
        let (mut some, mut none) = (0, 0);
        for lost in sets(layout.disks, usize::from(layout.parity) + 1) {
            scene.bed.world.restore(&scene.whole);
            let what = format!("{layout:?} without {lost:?}");
            let write = open_rest(&scene.bed, &lost, OpenMode::Write);
            assert!(matches!(write, Err(Error::TooFewDisks { .. })), "{what}: {write:?}");
            drop(write);
            let pool = open_rest(&scene.bed, &lost, OpenMode::Read).unwrap();
            // Nodes are on every disk: the pool knows all that was there.
            let all = reachable(&pool).unwrap();
            assert!(data.is_subset(&all), "{what}");
            let gone: BTreeSet<_> = data
                .iter()
                .filter(|id| match pool.read(ChunkKind::Data, id) {
                    Ok(_) => false,
                    Err(e) => {
                        assert!(matches!(e, Error::ChunkUnreadable { .. }), "{what}: {e}");
                        true
                    }
                })
                .copied()
                .collect();
            let report = pool.check(true, &Meter::new()).unwrap();
            assert_eq!(report.lost, gone, "{what}");
            assert_eq!(report.roots, 2, "{what}");
            some += u32::from(!gone.is_empty());
            none += u32::from(gone.len() < data.len());
            scene.read_all(&pool, false, &what);
            assert_eq!(pool.state(), open_rest(&scene.bed, &lost, OpenMode::Read).unwrap().state());
        }
        assert!(some > 0, "nothing was ever lost in {layout:?}");
        eprintln!("{layout:?}: something lost {some} times, something left {none} times");
    }
}

#[test]
fn what_a_broken_pack_had_is_healed_by_the_next_backup() {
    for encrypted in [false, true] {
        let scene = Scene::new(Layout::new(1, 0, encrypted), &[(1..30).collect()]);
        // Its header: without it nothing in an encrypted pack can be opened.
        let disk = &scene.bed.world.disks()[0];
        let packs = disk.files().into_iter().filter(|(path, _)| path.starts_with("packs/"));
        let (path, _) = packs.max_by_key(|(_, len)| *len).unwrap();
        let len = disk.files().iter().find(|(other, _)| *other == path).unwrap().1;
        disk.write_raw(&path, &vec![0; len as usize]).unwrap();
        for scrub in [false, true] {
            let pool = scene.bed.write();
            if scrub {
                assert!(pool.state().bad.len() >= 29);
                let outcome = pool.scrub(ScrubOptions::default(), &Meter::new()).unwrap();
                assert!(!outcome.lost.is_empty());
            } else {
                let report = pool.check(true, &Meter::new()).unwrap();
                assert_eq!((report.lost.len(), report.bad_packs.len()), (29, 1));
            }
            drop(pool);
        }
        let pool = scene.bed.write();
        back_up(&pool, 9, &(1..30).collect::<Vec<_>>(), None).unwrap();
        let root = pool.root(root_id(0)).unwrap();
        common::compare(&pool, &root, &(1..30).collect::<Vec<_>>()).unwrap();
        pool.gc(common::EXACT).unwrap();
        assert!(pool.check(true, &Meter::new()).unwrap().is_clean());
    }
}

/// The disk and the path of the first shard of the data, which is read first, and its content.
fn first_shard(scene: &Scene) -> (SimDisk, String, Vec<u8>) {
    let first = scene.files().into_iter().filter(|(_, path, _)| path.ends_with(".00"));
    let (disk, path, _) = first.max_by_key(|(_, _, len)| *len).unwrap();
    let disk = scene.bed.world.disks()[disk].clone();
    let content = disk.read_raw(&path).unwrap();
    (disk, path, content)
}

#[test]
fn what_a_reader_finds_bad_it_mends() {
    for layout in [Layout::new(2, 1, true), Layout::new(3, 1, false), Layout::new(5, 2, true)] {
        let scene = Scene::new(layout, &[(1..30).collect()]);
        let (disk, path, good) = first_shard(&scene);
        let rot = || disk.flip_bit(&path, 4096 + 100, 3).unwrap();
        let is_whole = || disk.read_raw(&path).unwrap() == good;
        let what = format!("{layout:?}");
        rot();
        let reader = scene.bed.open(OpenMode::Read).unwrap();
        scene.read_all(&reader, true, &what);
        assert!(reader.take_notices().is_empty() && !is_whole());
        // Not beside somebody who writes.
        let writer = scene.bed.write();
        reader.mend(not_now);
        let notices = reader.take_notices().join("; ");
        assert!(
            notices.contains("can't be mended now") && notices.contains("pool scrub"),
            "{notices}"
        );
        assert!(!is_whole(), "{what}");
        drop(writer);
        scene.read_all(&reader, true, &what);
        reader.mend(not_now);
        assert_eq!(reader.take_notices(), Vec::<String>::new(), "what was read is kept in memory");
        drop(reader);
        let reader = scene.bed.open(OpenMode::Read).unwrap();
        scene.read_all(&reader, true, &what);
        reader.mend(not_now);
        let mended = format!("mended 1 unit on {} that was not what was written", disk.describe());
        assert_eq!(reader.take_notices(), [mended], "{what}");
        assert!(is_whole(), "{what}");
    }
}

#[test]
fn what_no_disk_can_make_good_is_stored_again() {
    for encrypted in [false, true] {
        let image: Vec<u64> = (1..30).collect();
        let scene = Scene::new(Layout::new(1, 0, encrypted), std::slice::from_ref(&image));
        let (disk, path, _) = first_shard(&scene);
        let root = scene.bed.write().root(root_id(0)).unwrap();
        let rot = || disk.flip_bit(&path, 4096 + 100, 3).unwrap();
        let read_all = |pool: &Pool| {
            let data = reachable(pool).unwrap();
            let bad = data.iter().filter(|id| {
                matches!(pool.read(ChunkKind::Data, id), Err(Error::ChunkUnreadable { .. }))
            });
            assert!(bad.count() > 0);
        };
        // A process that writes knows it from then on.
        rot();
        let pool = scene.bed.write();
        read_all(&pool);
        back_up(&pool, 9, &image, None).unwrap();
        compare(&pool, &root, &image).unwrap();
        drop(pool);
        // One that reads hands it on.
        scene.bed.world.restore(&scene.whole);
        rot();
        let reader = scene.bed.open(OpenMode::Read).unwrap();
        read_all(&reader);
        reader.mend(|| scene.bed.open(OpenMode::Write));
        let notices = reader.take_notices().join("; ");
        assert!(notices.contains("left the index"), "{notices}");
        drop(reader);
        let pool = scene.bed.write();
        assert!(!pool.state().bad.is_empty());
        back_up(&pool, 9, &image, None).unwrap();
        compare(&pool, &root, &image).unwrap();
    }
}

#[test]
fn reads_that_go_wrong_on_the_way_give_nothing_up() {
    let image: Vec<u64> = (1..30).collect();
    let scene = Scene::new(Layout::new(1, 0, true), std::slice::from_ref(&image));
    let pool = scene.bed.write();
    let root = pool.root(root_id(0)).unwrap();
    let data = pool.node(&pool.node(&root.nodes[0]).unwrap().nodes[0]).unwrap().data;
    scene.bed.world.inject(Fault::flipped_read("packs/", 50, 1).forever());
    pool.read(ChunkKind::Data, &data[0]).unwrap_err();
    scene.bed.world.clear_faults();
    back_up(&pool, 9, &image, None).unwrap();
    assert!(pool.state().bad.is_empty());
    compare(&pool, &root, &image).unwrap();
}

#[test]
fn an_index_that_is_built_again_keeps_what_only_the_old_one_knows() {
    let image: Vec<u64> = (1..30).collect();
    let scene = Scene::new(Layout::new(1, 0, false), std::slice::from_ref(&image));
    let (disk, path, content) = first_shard(&scene);
    // The trailer of the shard has the sums of its units; the directory is in the last of them.
    disk.write_raw(&path, &[&content[..content.len() - 4096], &[0; 4096]].concat()).unwrap();
    let options = OpenOptions { without_index: true, ..scene.bed.options(OpenMode::Write, 0) };
    let pool = Pool::open(options, scene.bed.used(0)).unwrap();
    pool.rebuild_index(&Meter::new()).unwrap();
    let notices = pool.take_notices().join("; ");
    assert!(notices.contains("does not tell what is in it"), "{notices}");
    let root = pool.root(root_id(0)).unwrap();
    compare(&pool, &root, &image).unwrap();
    drop(pool);
    compare(&scene.bed.write(), &root, &image).unwrap();
}
