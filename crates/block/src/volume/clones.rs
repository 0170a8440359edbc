//! Clones: volumes that begin with a snapshot of another.
//!
//! A clone is there with one record of the journal: its root says whose snapshot lies below its own log, and
//! has no map. So it makes no difference whether the snapshot is settled. From then on
//! that snapshot stays, *pinned*, until the clone has a map of its own: when it is first settled, or the volume below
//! it is removed. A pinned snapshot that is deleted has no name any more, and nobody sees it; it goes
//! with the last pin.
//!
//! While both are open the clone has the layers of the snapshot below its own. When the volume below is settled
//! these become a map, in the clone too: who settles holds `above`, so that nobody begins in between.
//! The turn of a clone's upkeep comes before that of the volume below it.

use std::sync::{Arc, Weak};

use strongroom_engine::pool::Pool;

use super::live::{Lives, View};
use super::top::{Meta, Parent, ROOT_KIND, Top};
use super::volumes::{Open, Volumes, meta_of, put_head};
use super::{Head, NewVolume, Settings, SnapshotId, Volume, VolumeId, locked};
use crate::{Error, Result};

/// Clones that begin with a snapshot of a clone that begins … at the most, before they are settled.
const MOST_BELOW: usize = 8;

/// The snapshots of a volume with which clones begin, as often as clones do.
pub(super) fn pinned(pool: &Pool, volume: VolumeId) -> Vec<SnapshotId> {
    let roots = pool.roots_of(ROOT_KIND);
    let parents = roots.iter().filter_map(meta_of).filter_map(|meta| meta.parent);
    parents.filter(|parent| parent.volume == volume).map(|parent| parent.snapshot).collect()
}

/// What a clone begins with.
#[derive(Debug)]
pub(super) struct Below {
    volume: Arc<Volume>,
    snapshot: SnapshotId,
}

impl Below {
    pub(super) fn open(volumes: &Volumes, open: &mut Open, parent: Parent) -> Result<Self> {
        let Parent { volume, snapshot } = parent;
        let volume = volumes.open_among(open, volume).map_err(|e| match e {
            Error::NotFound(what) => {
                Error::Failed(format!("what it begins with is not in the pool: {what}"))
            }
            e => e,
        })?;
        Ok(Self { volume, snapshot })
    }

    /// Makes what a clone is of the snapshot, in which from then on follows what becomes of it.
    pub(super) fn lend(&self, make: impl FnOnce(View) -> Lives) -> Result<Arc<Lives>> {
        let mut above = locked(&self.volume.lives.above);
        let view = self.volume.lives.pinned(self.snapshot)?.view;
        let lives = Arc::new(make(view));
        above.retain(|(_, lives)| lives.strong_count() > 0);
        above.push((self.snapshot, Arc::downgrade(&lives)));
        Ok(lives)
    }
}

impl Volumes {
    /// Makes a volume with the content of a snapshot, and with the settings of the snapshot's volume. That takes
    /// one record of the journal, whether the snapshot is settled or not.
    ///
    /// # Errors
    /// As [`Volumes::create`]; [`Error::NotFound`] when there is no such snapshot.
    pub fn clone_snapshot(&self, volume: &Volume, id: SnapshotId, name: &str) -> Result<VolumeId> {
        self.clone_with(volume, id, name, volume.settings())
    }

    /// As [`Volumes::clone_snapshot`], with settings of its own.
    ///
    /// # Errors
    /// As [`Volumes::clone_snapshot`].
    pub fn clone_with(
        &self,
        volume: &Volume,
        id: SnapshotId,
        name: &str,
        settings: Settings,
    ) -> Result<VolumeId> {
        let _turn = locked(&self.open);
        // Not of one that was removed while somebody held it.
        self.head(volume.id)?;
        if self.below(volume.id) >= MOST_BELOW {
            let _hurry = volume.shares.hurry(volume.id);
            volume.settle()?;
        }
        let snapshot = volume.snapshot_of(id)?;
        let new = NewVolume {
            name: name.to_owned(),
            size: snapshot.size,
            chunk: volume.chunk,
            sector: volume.sector,
            settings,
        };
        let meta = self.new_meta(new, Some(Parent { volume: volume.id, snapshot: id }))?;
        // Before its root is there, so that nobody deletes the snapshot in between.
        if !volume.lives.pin_if_there(id) {
            return Err(Error::NotFound(format!("snapshot {id}")));
        }
        if let Err(e) = self.make_bare(&meta) {
            volume.lives.unpin(id);
            return Err(e);
        }
        Ok(meta.volume)
    }

    /// On how many others a volume stands.
    fn below(&self, mut id: VolumeId) -> usize {
        let all = self.list();
        let parent = |id| all.iter().find(|meta| meta.volume == id).and_then(|meta| meta.parent);
        let mut count = 0;
        while let Some(below) = parent(id)
            && count < MOST_BELOW
        {
            (id, count) = (below.volume, count + 1);
        }
        count
    }

    /// Gives the clones that begin with a volume's snapshots maps of their own.
    pub(super) fn part_with_clones(&self, open: &mut Open, id: VolumeId) -> Result<()> {
        let is_above = |meta: &Meta| meta.parent.is_some_and(|parent| parent.volume == id);
        let clones: Vec<Meta> = self.list().into_iter().filter(is_above).collect();
        if clones.is_empty() {
            return Ok(());
        }
        let below = self.open_among(open, id)?;
        for clone in clones {
            match open.get(&clone.volume).and_then(Weak::upgrade) {
                Some(clone) => clone.part()?,
                None => {
                    let (root, meta) = self.head(clone.volume)?;
                    below.give_map(&mut Head { root: root.id, meta, held: None }, None)?;
                }
            }
        }
        Ok(())
    }
}

impl Volume {
    /// Has a clone stand on its own.
    fn part(&self) -> Result<()> {
        self.part_in_turn(&mut self.upkeep())
    }

    /// As [`Volume::part`], in its turn of upkeep.
    pub(super) fn part_in_turn(&self, head: &mut Head) -> Result<()> {
        let below = locked(&self.below).take();
        let Some(below) = below else { return Ok(()) };
        let parted = below.volume.give_map(head, Some(&self.lives));
        if parted.is_err() {
            *locked(&self.below) = Some(below);
        }
        parted
    }

    /// Gives a clone of a snapshot of this volume the snapshot's map.
    fn give_map(&self, head: &mut Head, lives: Option<&Arc<Lives>>) -> Result<()> {
        let Some(parent) = head.meta.parent else { return Ok(()) };
        if !self.lives.pinned(parent.snapshot)?.view.layers.is_empty() {
            let _hurry = self.shares.hurry(self.id);
            self.settle()?;
        }
        let session = self.pool.session()?;
        let map = {
            // So that nobody settles meanwhile, which would end the root that is leant on.
            let own = self.upkeep();
            session.lean_on(own.root)?;
            self.lives.pinned(parent.snapshot)?.view
        };
        if !map.layers.is_empty() {
            let what = format!("snapshot {} is not settled yet: try again", parent.snapshot);
            return Err(Error::Invalid(what));
        }
        session.may_take_all();
        let meta = Meta { parent: None, ..head.meta.clone() };
        let top = Top { map: (*map.base).clone(), snapshots: Vec::new() };
        let root = put_head(&session, Some(head.root), &meta, &top)?;
        (head.root, head.meta) = (root.id, meta);
        if let Some(lives) = lives {
            locked(&self.lives.above)
                .retain(|(_, one)| !std::ptr::eq(one.as_ptr(), Arc::as_ptr(lives)));
        }
        self.lives.unpin(parent.snapshot);
        Ok(())
    }
}
