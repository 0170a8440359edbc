//! Threads that store, forget, read and collect garbage in one pool at once: no image is ever hurt.
//! `STRONGROOM_RACE_ROUNDS` says how many rounds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::{
    Bed, EXACT, Image, LONG, Layout, Model, Pending, Rng, back_up, check_exact, check_roots,
    compare, new_root, root_id, setting, store_nodes, store_pieces,
};
use strongroom_engine::clock::VirtualClock;
use strongroom_engine::disk::{Caching, Disk, DiskFile, DiskLock, Entry, FsDisk, Space};
use strongroom_engine::error::Error;
use strongroom_engine::id::RootId;
use strongroom_engine::pool::{CreateOptions, GcOptions, Meter, OpenMode, OpenOptions, Pool, Use};

fn rounds(default: u64) -> u64 {
    setting("STRONGROOM_RACE_ROUNDS").unwrap_or(default)
}

/// The images that are there, and a count to name them by. Whoever works with one takes it out.
#[derive(Default)]
struct Shelf {
    images: Mutex<BTreeMap<RootId, Image>>,
    next: AtomicU64,
}

impl Shelf {
    fn take(&self, rng: &mut Rng) -> Option<(RootId, Image)> {
        let mut images = self.images.lock().unwrap();
        let count = images.len() as u64;
        let id = *images.keys().nth((count > 0).then(|| rng.below(count) as usize)?).unwrap();
        images.remove_entry(&id)
    }

    fn put(&self, id: RootId, image: Image) {
        self.images.lock().unwrap().insert(id, image);
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

fn image(rng: &mut Rng) -> Image {
    let count = 1 + rng.below(25);
    (0..count).map(|_| if rng.chance(25) { LONG + rng.below(4) } else { rng.below(60) }).collect()
}

/// One thread's part: backs up, leans on images that it forgets, forgets, reads.
fn work(pool: &Pool, shelf: &Shelf, seed: u64, rounds: u64) {
    let mut rng = Rng(seed);
    for _ in 0..rounds {
        match rng.below(6) {
            0 | 1 => {
                let (n, image) = (shelf.number(), image(&mut rng));
                let root = back_up(pool, n, &image, None).unwrap();
                compare(pool, &root, &image).unwrap();
                shelf.put(root.id, image);
            }
            2 | 3 => {
                let Some((parent, old)) = shelf.take(&mut rng) else { continue };
                let session = pool.session().unwrap();
                session.lean_on(parent).unwrap();
                let top = pool.root(parent).unwrap().nodes[0];
                pool.forget(&[parent]).unwrap();
                let mut data = Vec::new();
                for leaf in pool.node(&top).unwrap().nodes {
                    data.extend(pool.node(&leaf).unwrap().data);
                }
                assert!(session.reuse(&data).unwrap());
                let more = image(&mut rng);
                data.extend(store_pieces(&session, &more).unwrap());
                let whole: Image = old.into_iter().chain(more).collect();
                let n = shelf.number();
                let top = store_nodes(&session, &data).unwrap();
                let root = session.commit(new_root(n, top, None)).unwrap();
                compare(pool, &root, &whole).unwrap();
                // Images don't grow for ever.
                if whole.len() < 100 {
                    shelf.put(root.id, whole);
                } else {
                    pool.forget(&[root_id(n)]).unwrap();
                }
            }
            4 => {
                let Some((id, image)) = shelf.take(&mut rng) else { continue };
                compare(pool, &pool.root(id).unwrap(), &image).unwrap();
                pool.forget(&[id]).unwrap();
            }
            _ => {
                let Some((id, image)) = shelf.take(&mut rng) else { continue };
                compare(pool, &pool.root(id).unwrap(), &image).unwrap();
                shelf.put(id, image);
            }
        }
    }
}

/// Collects until told to end.
fn collect(pool: &Pool, end: &AtomicBool) -> u64 {
    let mut collections = 0;
    while !end.load(Ordering::Relaxed) {
        let max_unused = if collections % 3 == 0 { 0.1 } else { 0.0 };
        let report = pool.gc(GcOptions { max_unused, ..EXACT }).unwrap();
        assert_eq!(report.missing_chunks, 0);
        collections += 1;
    }
    collections
}

fn everything_at_once(bed: &Bed, threads: u64) {
    let shelf = Shelf::default();
    let pool = bed.create_with(2).unwrap();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| collect(&pool, &end));
        let workers: Vec<_> = (0..threads)
            .map(|seed| {
                let (pool, shelf) = (&pool, &shelf);
                scope.spawn(move || work(pool, shelf, seed, rounds(40)))
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        end.store(true, Ordering::Relaxed);
        assert!(collector.join().unwrap() > 0);
        assert!(results.iter().all(Result::is_ok));
    });
    let images = shelf.images.into_inner().unwrap();
    let mut model = Model { images, ..Model::default() };
    pool.gc(EXACT).unwrap();
    check_exact(&pool).unwrap();
    check_roots(&pool, &mut model, &Pending::Nothing).unwrap();
    drop(pool);
    common::verify(bed, &mut model, &Pending::Nothing).unwrap();
}

#[test]
fn collections_race_backups_and_forgets_on_one_disk() {
    everything_at_once(&Bed::new(Layout::new(1, 0, true), 1), 3);
}

#[test]
fn collections_race_backups_and_forgets_on_three_disks() {
    everything_at_once(&Bed::new(Layout::new(3, 1, false), 1), 3);
}

#[test]
fn sessions_that_store_the_same_at_once_all_have_it() {
    let bed = Bed::new(Layout::new(2, 1, true), 1);
    let pool = bed.create_with(2).unwrap();
    let mut model = Model::default();
    for round in 0..rounds(12) {
        let image: Image = (round * 50..round * 50 + 60).chain([LONG + round]).collect();
        let roots: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|i| {
                    let (pool, image) = (&pool, &image);
                    scope.spawn(move || back_up(pool, round * 4 + i, image, None).unwrap())
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for root in roots {
            compare(&pool, &root, &image).unwrap();
            model.images.insert(root.id, image.clone());
        }
    }
    // Nothing was stored twice.
    check_exact(&pool).unwrap();
    drop(pool);
    common::verify(&bed, &mut model, &Pending::Nothing).unwrap();
}

/// The same on a real filesystem, with the readers as other processes would be: they see a pool
/// as it was when they opened it, and everything in it, whatever is collected meanwhile.
#[test]
fn readers_keep_what_they_saw_while_a_writer_collects() {
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let disks = || -> Vec<Arc<dyn Disk>> {
        let open = |dir: &tempfile::TempDir| Arc::new(FsDisk::open(dir.path()).unwrap()) as _;
        dirs.iter().map(open).collect()
    };
    let clock = VirtualClock::new(common::START);
    let used = |threads| Use { clock: Arc::new(clock.clone()), threads, holder: "test".into() };
    let options = CreateOptions {
        disks: disks(),
        parity: 1,
        secret: None,
        chunking: Default::default(),
        level: 1,
        pack_size: 1 << 20,
    };
    let pool = Pool::create(options, used(2)).unwrap();
    let images: Mutex<BTreeMap<RootId, Image>> = Mutex::default();
    let end = AtomicBool::new(false);
    let read = || {
        let mut count = 0u64;
        while !end.load(Ordering::Relaxed) || count == 0 {
            let options = OpenOptions {
                disks: disks().into_iter().map(Some).collect(),
                mode: OpenMode::Read,
                secret: None,
                without_index: false,
            };
            let reader = match Pool::open(options, used(1)) {
                Ok(reader) => reader,
                Err(Error::InUse { .. }) => continue,
                Err(e) => panic!("{e}"),
            };
            for root in reader.roots() {
                let image = images.lock().unwrap()[&root.id].clone();
                compare(&reader, &root, &image).unwrap();
            }
            if count.is_multiple_of(4) {
                let report = reader.check(true, &Meter::new()).unwrap();
                assert!(report.is_clean(), "{report:?}");
            }
            count += 1;
        }
        count
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(read)).collect();
        let writer = scope.spawn(|| {
            let mut rng = Rng(3);
            for n in 0..rounds(60) {
                let image = image(&mut rng);
                images.lock().unwrap().insert(root_id(n), image.clone());
                let root = back_up(&pool, n, &image, None).unwrap();
                compare(&pool, &root, &image).unwrap();
                if n >= 5 {
                    pool.forget(&[root_id(n - 5)]).unwrap();
                }
                if n % 2 == 0 {
                    pool.gc(EXACT).unwrap();
                }
            }
        });
        let written = writer.join();
        end.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        written.unwrap();
    });
    assert_eq!(pool.gc(EXACT).unwrap().packs_waiting, 0);
    check_exact(&pool).unwrap();
    assert!(pool.check(true, &Meter::new()).unwrap().is_clean());
}

type Meddler = Box<dyn Fn() + Send + Sync>;

/// A disk on which something happens just before a file is opened for the first time.
struct Meddled {
    disk: Arc<dyn Disk>,
    prefix: &'static str,
    meddler: Mutex<Option<Meddler>>,
}

impl std::fmt::Debug for Meddled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Meddled {
    fn open(&self, path: &str, caching: Caching, write: bool) -> io::Result<Box<dyn DiskFile>> {
        let meddler =
            if path.starts_with(self.prefix) { self.meddler.lock().unwrap().take() } else { None };
        if let Some(meddler) = meddler {
            meddler();
        }
        self.disk.open(path, caching, write)
    }

    fn create(&self, path: &str, caching: Caching) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(path, caching)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.make_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn lock(&self, path: &str, exclusive: bool) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path, exclusive)
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

#[test]
fn a_reader_may_be_opened_while_segments_are_merged_and_packs_given_up() {
    for prefix in ["pool.superblock", "journal/", "index/", "packs/"] {
        let bed = Bed::new(Layout::new(1, 0, true), 1);
        let pool = Arc::new(bed.create().unwrap());
        let first: Image = (0..30).collect();
        let root = back_up(&pool, 0, &first, None).unwrap();
        back_up(&pool, 1, &(20..50).collect::<Vec<_>>(), None).unwrap();
        let meddle = {
            let pool = Arc::clone(&pool);
            move || {
                pool.forget(&[root_id(1)]).unwrap();
                (2..20).for_each(|n| drop(back_up(&pool, n, &[n * 9, n * 9 + 1], None).unwrap()));
                pool.gc(EXACT).unwrap();
            }
        };
        let disk = bed.handles().remove(0);
        let meddler: Mutex<Option<Meddler>> = Mutex::new(Some(Box::new(meddle)));
        let disk = Arc::new(Meddled { disk, prefix, meddler }) as Arc<dyn Disk>;
        let options = OpenOptions { disks: vec![Some(disk)], ..bed.options(OpenMode::Read, 0) };
        let reader = Pool::open(options, bed.used(0)).unwrap_or_else(|e| panic!("{prefix}: {e}"));
        compare(&reader, &root, &first).unwrap();
        for seen in reader.roots() {
            common::restore(&reader, &seen).unwrap_or_else(|e| panic!("{prefix}: {e}"));
        }
        assert!(pool.root(root_id(1)).is_none(), "nothing happened at {prefix}");
    }
}
