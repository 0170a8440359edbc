//! What an open volume is: a map, layers over it, and the snapshots that were made of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use strongroom_engine::clock::PoolTime;
use strongroom_engine::map::MapRef;

use super::layer::{Layer, What, find};
use super::record::Change;
use super::room::Room;
use super::segment::Place;
use super::top::Meta;
use super::{SnapshotId, locked};
use crate::{Error, Result};

/// The content at some moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) base: Arc<MapRef>,
    /// What was written after, the oldest first. None of them changes any more.
    pub(crate) layers: Vec<Arc<Layer>>,
}

impl View {
    pub(crate) fn new(base: MapRef) -> Self {
        Self { base: Arc::new(base), layers: Vec::new() }
    }

    /// Whether `other` is this and more.
    fn begins(&self, other: &Self) -> bool {
        let own = self.layers.iter();
        let same = |(own, other): (&Arc<Layer>, &Arc<Layer>)| Arc::ptr_eq(own, other);
        Arc::ptr_eq(&self.base, &other.base)
            && self.layers.len() <= other.layers.len()
            && own.zip(&other.layers).all(same)
    }

    /// The same of a volume of that size, with as many layers as were folded into maps replaced by these.
    /// A volume that was rolled back has the layers of its snapshot, and may be larger: maps that are longer
    /// than the size are not its own.
    pub(crate) fn rebased(&self, size: u64, folded: &[(Self, Arc<MapRef>)]) -> Self {
        let fitting = folded.iter().filter(|(view, map)| view.begins(self) && map.len() <= size);
        match fitting.max_by_key(|(view, map)| (view.layers.len(), map.len())) {
            Some((view, map)) => Self {
                base: Arc::clone(map),
                layers: self.layers.iter().skip(view.layers.len()).cloned().collect(),
            },
            None => self.clone(),
        }
    }
}

impl View {
    /// The same, where what it begins with has become something else.
    pub(crate) fn moved(&self, old: &Self, new: &Self) -> Self {
        if !old.begins(self) {
            return self.clone();
        }
        let own = self.layers.iter().skip(old.layers.len());
        let layers = new.layers.iter().chain(own).cloned().collect();
        Self { base: Arc::clone(&new.base), layers }
    }
}

/// A snapshot of a volume.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: SnapshotId,
    pub(crate) name: String,
    pub(crate) created: PoolTime,
    /// The volume's size then, in bytes.
    pub(crate) size: u64,
    pub(crate) view: View,
}

impl Snapshot {
    /// It was deleted, and is there for clones alone: then it has no name.
    pub(crate) fn is_hidden(&self) -> bool {
        self.name.is_empty()
    }
}

/// What is at some place.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Bytes of a record in the log.
    Log {
        place: Place,
        /// How much of its payload comes before.
        skip: usize,
    },
    /// Zeroes that were written.
    Zeroes,
    /// What the map has.
    Base,
}

/// The state of an open volume.
#[derive(Debug)]
pub(crate) struct Live {
    /// In bytes.
    pub(crate) size: u64,
    chunk: u64,
    room: Arc<Room>,
    pub(crate) current: View,
    /// What is written now.
    active: Layer,
    /// In the order in which they were made.
    pub(crate) snapshots: Vec<Snapshot>,
    /// With which of them clones begin, and how many.
    pins: HashMap<SnapshotId, usize>,
    /// Up to which sequence number.
    pub(crate) applied: u64,
    /// Grows when maps are replaced.
    pub(crate) generation: u64,
}

impl Live {
    /// Nothing is written from here on but what comes after.
    pub(crate) fn freeze(&mut self) {
        if !self.active.is_empty() {
            let next = Layer::new(self.chunk, &self.room);
            self.current.layers.push(Arc::new(std::mem::replace(&mut self.active, next)));
        }
    }

    fn apply(&mut self, change: Change, place: Place) {
        match change {
            Change::Data { offset, length } => {
                let range = offset..offset.saturating_add(length.into());
                self.active.insert(range, What::Log { place, skip: 0 });
            }
            Change::Zeroes { offset, length } => {
                self.active.insert(offset..offset.saturating_add(length), What::Zeroes);
            }
            Change::Snapshot { id, created, name } => {
                self.freeze();
                let (size, view) = (self.size, self.current.clone());
                self.snapshots.push(Snapshot { id, name, created, size, view });
            }
            Change::Deleted(id) if self.pins.contains_key(&id) => {
                let all = self.snapshots.iter_mut().filter(|snapshot| snapshot.id == id);
                all.for_each(|snapshot| snapshot.name.clear());
            }
            Change::Deleted(id) => self.snapshots.retain(|snapshot| snapshot.id != id),
            Change::Grown(size) => self.size = self.size.max(size),
            Change::RolledBack(id) => {
                if let Some(snapshot) = self.snapshots.iter().find(|snapshot| snapshot.id == id) {
                    self.current = snapshot.view.clone();
                    self.active = Layer::new(self.chunk, &self.room);
                }
            }
        }
    }

    /// What it begins with has become something else. What was there before.
    pub(crate) fn follow(&mut self, old: &View, new: &View) -> Vec<View> {
        self.generation += 1;
        let views = self.snapshots.iter_mut().map(|snapshot| &mut snapshot.view);
        let views = views.chain([&mut self.current]);
        views.map(|view| std::mem::replace(view, view.moved(old, new))).collect()
    }

    /// What was settled has become maps. What was there before, of the volume and each snapshot; and what of
    /// snapshots became what.
    pub(crate) fn rebase(
        &mut self,
        folded: &[(View, Arc<MapRef>)],
    ) -> (View, Vec<(SnapshotId, View, View)>) {
        self.generation += 1;
        let new = self.current.rebased(self.size, folded);
        let gone = std::mem::replace(&mut self.current, new);
        let mut moved = Vec::new();
        for Snapshot { id, size, view, .. } in &mut self.snapshots {
            let old = std::mem::replace(view, view.rebased(*size, folded));
            moved.push((*id, old, view.clone()));
        }
        (gone, moved)
    }

    /// What is in a range, in order.
    fn find(&self, range: Range<u64>) -> Vec<(Range<u64>, Source)> {
        let below = self.current.layers.iter().rev().map(Arc::as_ref);
        let layers: Vec<&Layer> = std::iter::once(&self.active).chain(below).collect();
        gather(&layers, range)
    }
}

fn gather(layers: &[&Layer], range: Range<u64>) -> Vec<(Range<u64>, Source)> {
    let mut found = Vec::new();
    find(layers, range, &mut |range, what| {
        let source = match what {
            None => Source::Base,
            Some((What::Zeroes, _)) => Source::Zeroes,
            Some((What::Log { place, skip }, after)) => {
                Source::Log { place: place.clone(), skip: *skip as usize + after as usize }
            }
        };
        found.push((range, source));
    });
    found
}

impl View {
    /// What is in a range, in order.
    pub(crate) fn find(&self, range: Range<u64>) -> Vec<(Range<u64>, Source)> {
        let layers: Vec<&Layer> = self.layers.iter().rev().map(Arc::as_ref).collect();
        gather(&layers, range)
    }
}

/// What was found at some moment: pieces, the map below them, and the generation.
pub(crate) type Looked = (Vec<(Range<u64>, Source)>, Arc<MapRef>, u64);

/// The state of an open volume, shared.
#[derive(Debug)]
pub(crate) struct Lives {
    live: RwLock<Live>,
    /// Clones that stand on its snapshots, and are open.
    pub(crate) above: Mutex<Vec<(SnapshotId, Weak<Lives>)>>,
}

impl Lives {
    pub(crate) fn new(
        meta: &Meta,
        room: &Arc<Room>,
        current: View,
        snapshots: Vec<Snapshot>,
    ) -> Self {
        let chunk = u64::from(meta.chunk);
        let live = Live {
            size: meta.size,
            chunk,
            room: Arc::clone(room),
            current,
            active: Layer::new(chunk, room),
            snapshots,
            pins: HashMap::new(),
            applied: meta.settled,
            generation: 0,
        };
        Self { live: RwLock::new(live), above: Mutex::default() }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it; nobody does so while it reads or writes a disk.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Live) -> R) -> R {
        change(&mut self.live.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it begins with has become something else, and so it has for all that begin with its snapshots.
    /// What was there before is added to `gone`.
    pub(crate) fn follow(&self, old: &View, new: &View, gone: &mut Vec<View>) {
        let above = locked(&self.above);
        gone.extend(self.change(|live| live.follow(old, new)));
        for lives in above.iter().filter_map(|(_, lives)| lives.upgrade()) {
            lives.follow(old, new, gone);
        }
    }

    /// Enters records of the log, in their order.
    pub(crate) fn apply(&self, records: Vec<(u64, Change, Place)>) {
        self.change(|live| {
            for (sequence, change, place) in records {
                live.apply(change, place);
                live.applied = sequence;
            }
        });
    }

    /// What is in a range of the volume, or of a snapshot; `None` when there is no such snapshot.
    pub(crate) fn look(&self, of: Option<SnapshotId>, range: Range<u64>) -> Option<Looked> {
        let live = self.read();
        let Some(id) = of else {
            return Some((live.find(range), Arc::clone(&live.current.base), live.generation));
        };
        let mut all = live.snapshots.iter();
        let view = &all.find(|snapshot| snapshot.id == id && !snapshot.is_hidden())?.view;
        Some((view.find(range), Arc::clone(&view.base), live.generation))
    }

    /// A clone begins with a snapshot.
    pub(crate) fn pin(&self, id: SnapshotId) {
        self.change(|live| *live.pins.entry(id).or_default() += 1);
    }

    /// As [`Lives::pin`], if there is such a snapshot.
    pub(crate) fn pin_if_there(&self, id: SnapshotId) -> bool {
        self.change(|live| {
            let is_one = |snapshot: &Snapshot| snapshot.id == id && !snapshot.is_hidden();
            let is_there = live.snapshots.iter().any(is_one);
            if is_there {
                *live.pins.entry(id).or_default() += 1;
            }
            is_there
        })
    }

    /// A clone doesn't begin with it any more. If it was deleted it goes with the last one.
    pub(crate) fn unpin(&self, id: SnapshotId) {
        self.change(|live| {
            let Some(count) = live.pins.get_mut(&id) else { return };
            *count -= 1;
            if *count == 0 {
                live.pins.remove(&id);
                live.snapshots.retain(|snapshot| snapshot.id != id || !snapshot.is_hidden());
            }
        });
    }

    /// A snapshot with which clones begin.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn pinned(&self, id: SnapshotId) -> Result<Snapshot> {
        let live = self.read();
        let snapshot = live.snapshots.iter().find(|snapshot| snapshot.id == id).cloned();
        snapshot.ok_or_else(|| Error::NotFound(format!("snapshot {id}")))
    }
}
