//! Snapshots of volumes.

use std::sync::Arc;

use strongroom_block::volume::SnapshotId;
use strongroom_catalog::list::{Count, List, Page, Scope};
use strongroom_catalog::volumes;

use super::mirror::Made;
use super::owner::Held;
use super::{Known, checked_name};
use crate::{Error, Result, Storage};

/// Whether something is done although somebody is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// No: it is refused then.
    No,
    /// Yes.
    Yes,
}

impl From<bool> for Force {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// What the pool calls a snapshot.
pub(super) fn uuid(row: &volumes::Snapshot) -> Result<SnapshotId> {
    SnapshotId::parse(&row.uuid).ok_or_else(no_snapshot)
}

pub(super) fn no_snapshot() -> Error {
    strongroom_catalog::Error::NotFound { what: "snapshot" }.into()
}

impl Storage {
    /// Snapshots, by a list of the resource of snapshots.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn snapshots(&self, list: &List, scope: &Scope) -> Result<Page<volumes::Snapshot>> {
        Ok(list.page(&self.inner.catalog, scope).await?)
    }

    /// How many [`Storage::snapshots`] there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_snapshots(&self, list: &List, scope: &Scope) -> Result<Count> {
        Ok(list.count(&self.inner.catalog, scope).await?)
    }

    /// A snapshot as the catalogue knows it.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`].
    pub async fn snapshot(&self, id: i64) -> Result<volumes::Snapshot> {
        Ok(volumes::snapshot(&self.inner.catalog, id).await?)
    }

    /// Makes a snapshot of what was written to a volume so far: at once, and durable when this returns.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::Exists`] for a name that is taken; [`Error::Invalid`];
    /// [`Error::Block`].
    pub async fn create_snapshot(&self, volume: i64, name: &str) -> Result<volumes::Snapshot> {
        let name = checked_name(name)?;
        let _turn = self.inner.volume_turns.of(volume).await;
        let known = self.known_volume(volume).await?;
        self.snap(&known, name, false).await
    }

    /// As [`Storage::create_snapshot`], in the turn of the volume.
    pub(super) async fn snap(
        &self,
        known: &Known,
        name: String,
        scheduled: bool,
    ) -> Result<volumes::Snapshot> {
        let there = volumes::snapshots_of(&self.inner.catalog, known.row.id).await?;
        if there.iter().any(|one| one.name == name) {
            let what = format!("snapshot called {name} of the volume {}", known.row.name);
            return Err(strongroom_catalog::Error::Exists { what }.into());
        }
        let held = self.held(known, None).await?;
        let made = self.blocking(move || {
            let id = held.snapshot(&name)?;
            held.owner().note_change(held.volume_id());
            Ok((id, held.snapshots(), held))
        });
        let (id, snapshots, _held) = made.await?;
        self.record_snapshots(&known.row, &snapshots, Some(Made { id, scheduled })).await?;
        let rows = volumes::snapshots_of(&self.inner.catalog, known.row.id).await?;
        rows.into_iter().find(|row| row.uuid == id.to_string()).ok_or_else(no_snapshot)
    }

    /// Removes a snapshot. What only it held is freed by the pool's next collection. Clones that were made
    /// of it stay what they are.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; [`Error::Block`].
    pub async fn remove_snapshot(&self, id: i64) -> Result<()> {
        let row = self.snapshot(id).await?;
        let _turn = self.inner.volume_turns.of(row.volume_id).await;
        let known = self.known_volume(row.volume_id).await?;
        self.unsnap(&known, std::slice::from_ref(&row)).await?;
        let message = format!("the snapshot {}@{} was removed", known.row.name, row.name);
        self.tell_of(&known.row, "snapshot.removed", &message).await
    }

    /// Removes snapshots of one volume, in its turn.
    pub(super) async fn unsnap(&self, known: &Known, rows: &[volumes::Snapshot]) -> Result<()> {
        let held = self.held(known, None).await?;
        let ids = rows.iter().map(uuid).collect::<Result<Vec<_>>>()?;
        let left = self.blocking(move || {
            for id in ids {
                match held.delete_snapshot(id) {
                    // Somebody was cut off before its row was gone.
                    Ok(()) | Err(strongroom_block::Error::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            held.owner().note_change(held.volume_id());
            Ok((held.snapshots(), held))
        });
        let (left, _held) = left.await?;
        self.record_snapshots(&known.row, &left, None).await
    }

    /// Makes a volume what it was at a snapshot of it; what was written since is lost, but for what other
    /// snapshots have. It stays as large as it is, and all snapshots stay.
    ///
    /// # Errors
    /// [`Error::VolumeInUse`] when somebody is connected to it, unless it is forced: they have what they
    /// read in memory, and would write over what is there then. [`Error::Block`].
    pub async fn roll_back(&self, id: i64, force: Force) -> Result<volumes::Volume> {
        let row = self.snapshot(id).await?;
        let _turn = self.inner.volume_turns.of(row.volume_id).await;
        let known = self.known_volume(row.volume_id).await?;
        let held = self.held(&known, None).await?;
        self.check_unused(&known, &held, force).await?;
        let snapshot = uuid(&row)?;
        let rolled = self.blocking(move || {
            held.roll_back(snapshot)?;
            held.owner().note_change(held.volume_id());
            Ok(held)
        });
        let _held = rolled.await?;
        let message = format!("the volume {} is what it was at {}", known.row.name, row.name);
        self.tell_of(&known.row, "volume.rolled_back", &message).await?;
        Ok(known.row)
    }

    async fn check_unused(&self, known: &Known, held: &Held, force: Force) -> Result<()> {
        if force == Force::Yes {
            return Ok(());
        }
        let (owner, id) = (Arc::clone(held.owner()), known.uuid()?);
        let by = self.blocking(move || Ok(owner.used_through(id))).await?;
        match by.is_empty() {
            true => Ok(()),
            false => Err(Error::VolumeInUse { volume: known.row.name.clone(), by: by.join(", ") }),
        }
    }
}
