//! Workloads: what a user may do to a pool, in steps that can be taken again.

use std::sync::{Arc, Mutex};

use strongroom_engine::disk::Disk;
use strongroom_engine::error::Result;
use strongroom_engine::keys::Stretch;
use strongroom_engine::pool::{GcOptions, Meter, OpenMode, OpenOptions, Pool, ScrubOptions};
use strongroom_engine::state::Root;

use super::{
    AWAY, Bed, EXACT, Image, LONG, Model, Pending, Rng, UNREAD, are_of, back_up, compare, root_id,
    store_nodes, store_pieces,
};

/// One step.
#[derive(Clone, Debug)]
pub enum Act {
    Backup(Image),
    /// Stores, makes that durable, stores more, and ends without a commit.
    Abandon(Image),
    /// The oldest images, so many.
    Forget(usize),
    Gc(f64),
    Scrub,
    Check,
    /// The newest image gets another tag.
    Tag(u8),
    Rekey,
    AddSlot,
    RemoveSlot,
    RebuildIndex,
    Reader,
    ReaderReads,
    ReaderEnds,
    Reopen,
    /// The disk is put out of use and replaced by an empty one.
    Replace(usize),
}

/// What is open while a workload goes on.
#[derive(Debug)]
pub struct Run<'b> {
    pub bed: &'b Bed,
    pub model: Model,
    pub pending: Pending,
    pub pool: Option<Pool>,
    pub reader: Option<(Pool, Vec<(Root, Image)>)>,
    /// What is to be in the pool and what is going on, for others to see.
    pub board: Arc<Mutex<(Model, Pending)>>,
    /// Reads may fail: the disks err.
    pub lenient: bool,
}

impl<'b> Run<'b> {
    pub fn new(bed: &'b Bed, mut model: Model) -> Self {
        model.commit();
        let board = Arc::new(Mutex::new((model.clone(), Pending::Nothing)));
        let pending = Pending::Nothing;
        Self { bed, model, pending, pool: None, reader: None, board, lenient: false }
    }

    /// Says what is about to be, or was, done.
    fn tell(&mut self, pending: Pending) {
        self.pending = pending;
        *self.board.lock().unwrap() = (self.model.clone(), self.pending.clone());
    }

    /// What a reader or a check finds must be right, while there is power and disks don't err.
    fn excused(&self) -> bool {
        self.lenient || self.bed.world.is_off()
    }

    /// Opens the pool and takes all steps; stops at the first error.
    pub fn all(&mut self, acts: &[Act]) -> Result<()> {
        self.pool = Some(self.bed.open(OpenMode::Write)?);
        acts.iter().try_for_each(|act| self.act(act))
    }

    pub fn act(&mut self, act: &Act) -> Result<()> {
        let result = self.take(act);
        if result.is_ok() {
            match std::mem::replace(&mut self.pending, Pending::Nothing) {
                Pending::Nothing => {}
                Pending::Put(id, image) => drop(self.model.images.insert(id, image)),
                Pending::Drop(ids) => {
                    ids.iter().for_each(|id| drop(self.model.images.remove(id)));
                }
                Pending::Tag(id, tag) => drop(self.model.tags.insert(id, tag)),
                Pending::Second(on) => self.model.second = on,
            }
            self.model.commit();
            self.tell(Pending::Nothing);
        }
        result
    }

    fn take(&mut self, act: &Act) -> Result<()> {
        let bed = self.bed;
        if let Act::Reopen | Act::Replace(_) = act {
            self.pool = None;
        }
        match act {
            Act::Reopen => {
                self.pool = Some(bed.open(OpenMode::Write)?);
                return Ok(());
            }
            Act::Replace(place) => {
                let options = bed.options(OpenMode::Write, 0);
                let fresh: Arc<dyn Disk> = Arc::new(bed.world.add_disk());
                let pool = Pool::replace_disk(options, bed.used(0), *place, fresh)?;
                self.pool.insert(pool).scrub(ScrubOptions::default(), &Meter::new())?;
                return Ok(());
            }
            Act::RebuildIndex => {
                self.pool = None;
                let options = bed.options(OpenMode::Write, 0);
                let pool = Pool::open(OpenOptions { without_index: true, ..options }, bed.used(0))?;
                self.pool.insert(pool).rebuild_index(&Meter::new())?;
                return Ok(());
            }
            _ => {}
        }
        // It is taken out and put back, so that what is going on can be told.
        let pool = self.pool.take().expect("a pool is open");
        let result = self.take_open(act, &pool);
        self.pool = Some(pool);
        result
    }

    fn take_open(&mut self, act: &Act, pool: &Pool) -> Result<()> {
        let bed = self.bed;
        match act {
            Act::Backup(image) => {
                let n = self.model.next;
                self.model.next += 1;
                self.tell(Pending::Put(root_id(n), image.clone()));
                back_up(pool, n, image, None)?;
            }
            Act::Tag(value) => {
                let Some(id) = self.model.images.keys().next_back().copied() else { return Ok(()) };
                let tag = vec![*value; 1 + usize::from(*value)];
                self.tell(Pending::Tag(id, tag.clone()));
                pool.update_root(id, Some(tag), None)?;
            }
            Act::Abandon(image) => {
                let session = pool.session()?;
                let (first, rest) = image.split_at(image.len() / 2);
                let mut data = store_pieces(&session, first)?;
                session.checkpoint()?;
                data.extend(store_pieces(&session, rest)?);
                store_nodes(&session, &data)?;
            }
            Act::Forget(count) => {
                let ids: Vec<_> = self.model.images.keys().copied().take(*count).collect();
                self.tell(Pending::Drop(ids.clone()));
                pool.forget(&ids)?;
            }
            Act::Gc(max_unused) => {
                pool.gc(GcOptions { max_unused: *max_unused, ..EXACT })?;
            }
            Act::Scrub => {
                pool.scrub(ScrubOptions::default(), &Meter::new())?;
            }
            Act::Check => {
                let report = pool.check(true, &Meter::new())?;
                assert!(self.excused() || report.is_clean(), "{report:?}");
            }
            Act::Rekey if bed.layout.encrypted => {
                pool.rekey()?;
            }
            Act::AddSlot if bed.layout.encrypted && !self.model.second => {
                self.tell(Pending::Second(true));
                pool.add_slot(bed.secret(1).unwrap(), "second", Stretch::CHEAP)?;
            }
            Act::RemoveSlot if bed.layout.encrypted && self.model.second => {
                self.tell(Pending::Second(false));
                let slot = pool.slots().into_iter().find(|slot| slot.label == "second").unwrap();
                pool.remove_slot(slot.id)?;
            }
            Act::Reader => {
                let reader = bed.open(OpenMode::Read)?;
                // Where what was committed last can't be read, a reader may see what was there before,
                // and then it says so.
                let is_away = reader.disks().iter().any(Option::is_none);
                let may_be_old = reader
                    .take_notices()
                    .iter()
                    .any(|notice| notice.starts_with(UNREAD) || is_away && notice.as_str() == AWAY);
                assert!(!may_be_old || self.lenient, "nothing failed that would be behind");
                let roots = reader.roots();
                let committed = &self.model.committed;
                let shown = committed.iter().rposition(|then| are_of(&roots, then));
                let Some(shown) = shown else {
                    panic!("a reader sees {roots:?}, which never was there: {committed:?}")
                };
                assert!(
                    shown + 1 == committed.len() || may_be_old,
                    "a reader sees {roots:?}, not {:?}",
                    self.model.images
                );
                let images = &committed[shown].0;
                let seen = roots.into_iter().map(|root| (root.clone(), images[&root.id].clone()));
                self.reader = Some((reader, seen.collect()));
            }
            Act::ReaderReads => {
                // Reading isn't counted, so the power never fails here; but it may be off.
                if let Some((reader, seen)) = &self.reader {
                    for (root, image) in seen {
                        let same = compare(reader, root, image);
                        let wrong = same.as_ref().is_err_and(|why| why.contains("not what was"));
                        assert!(!wrong, "a reader was given {same:?}");
                        assert!(self.excused() || same.is_ok(), "a reader lost {same:?}");
                    }
                }
            }
            Act::ReaderEnds => self.reader = None,
            _ => {}
        }
        Ok(())
    }
}

/// An image of `count` pieces from a few, so that images share some.
fn image(rng: &mut Rng, count: u64) -> Image {
    (0..count)
        .map(|_| match rng.below(40) {
            0 => LONG + rng.below(6),
            _ => rng.below(120),
        })
        .collect()
}

/// The workload of a seed: chapters, each with its own opening of the pool. The first of each
/// layout have everything; later ones are random.
pub fn chapters(seed: u64, layouts: u64, encrypted: bool, disks: usize) -> Vec<Vec<Act>> {
    let mut rng = Rng(seed);
    if seed >= layouts {
        let chapters = 1 + rng.below(3);
        return (0..chapters)
            .map(|_| {
                let count = 3 + rng.below(6);
                (0..count).map(|_| random_act(&mut rng, disks)).collect()
            })
            .collect();
    }
    let long = |range: std::ops::Range<u64>| range.map(|n| LONG + n).collect::<Image>();
    let mut chapters = vec![
        vec![
            Act::Backup((0..30).collect()),
            Act::Backup((20..45).chain(LONG..LONG + 7).collect()),
            Act::Reader,
            Act::Forget(1),
            Act::Backup((40..60).collect()),
            Act::ReaderReads,
            Act::Tag(1),
            Act::Gc(0.0),
            Act::ReaderReads,
            Act::Tag(2),
            Act::ReaderEnds,
            Act::Gc(0.05),
        ],
        vec![
            Act::Abandon((100..130).chain(long(2..9)).collect()),
            Act::Backup((50..70).chain([LONG + 3]).collect()),
            Act::Scrub,
            Act::Forget(1),
            Act::Gc(0.05),
            Act::Backup(vec![7; 3]),
            Act::Reopen,
            Act::Gc(0.0),
            Act::Check,
        ],
        vec![Act::Forget(1), Act::RebuildIndex, Act::Backup((0..9).collect()), Act::Gc(0.0)],
        // Enough commits for index segments to be merged.
        (0..9).map(|n| Act::Backup((n * 5..n * 5 + 8).collect())).collect(),
    ];
    if encrypted {
        chapters.push(vec![
            Act::AddSlot,
            Act::Rekey,
            Act::Backup((60..75).collect()),
            Act::RemoveSlot,
            Act::Gc(0.0),
        ]);
    }
    if disks > 1 {
        chapters.push(vec![
            Act::Replace(disks - 1),
            Act::Backup((75..90).collect()),
            Act::Forget(2),
            Act::Gc(0.0),
        ]);
    }
    chapters
}

pub fn random_act(rng: &mut Rng, disks: usize) -> Act {
    match rng.below(26) {
        24 | 25 => Act::Tag(rng.below(250) as u8),
        0..8 => {
            let count = 1 + rng.below(30);
            Act::Backup(image(rng, count))
        }
        8 => Act::Abandon(image(rng, 12)),
        9..12 => Act::Forget(1 + rng.below(2) as usize),
        12..15 => Act::Gc(0.0),
        15 => Act::Gc(0.05),
        16 => Act::Scrub,
        17 => Act::Rekey,
        18 => {
            if rng.chance(2) {
                Act::AddSlot
            } else {
                Act::RemoveSlot
            }
        }
        19 => Act::RebuildIndex,
        20 => Act::Reader,
        21 => {
            if rng.chance(2) {
                Act::ReaderReads
            } else {
                Act::ReaderEnds
            }
        }
        22 => Act::Reopen,
        _ if disks > 1 => Act::Replace(rng.below(disks as u64) as usize),
        _ => Act::Check,
    }
}
