//! Volumes for those who serve them to others: targets, exports.

use std::sync::Arc;

use strongroom_block::BlockDevice;
use strongroom_block::volume::{SnapshotId, VolumeId};
use strongroom_catalog::volumes;

use super::owner::{Held, Server};
use crate::{Error, Result, Storage};

/// A volume or a snapshot that is served: it is open for as long as this is kept. Whoever has the device
/// beyond that keeps its pool from being closed.
#[derive(Debug)]
pub struct Served {
    device: Arc<dyn BlockDevice>,
    volume: volumes::Volume,
    pool: String,
    /// The row of the snapshot that this is.
    snapshot: Option<i64>,
    held: Held,
}

impl Served {
    /// The device. There is one for each volume, however often it is served.
    pub fn device(&self) -> Arc<dyn BlockDevice> {
        Arc::clone(&self.device)
    }

    /// The volume, as the catalogue knew it when this was made.
    pub fn volume(&self) -> &volumes::Volume {
        &self.volume
    }

    /// Whether nothing can be written to it any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.held.is_dead()
    }

    /// What the pool calls the volume.
    pub(super) fn volume_uuid(&self) -> VolumeId {
        self.held.volume_id()
    }

    /// The number of the snapshot, if this is one.
    pub(super) fn snapshot(&self) -> Option<i64> {
        self.snapshot
    }

    /// The pool's name, as it was then.
    pub fn pool(&self) -> &str {
        &self.pool
    }
}

impl Storage {
    /// Opens a volume for somebody who serves it to others. Its pool is opened for that, and can't be
    /// closed before this is dropped, outside of async code, for that may wait for a disk.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of [`Storage::open`]; [`Error::Block`] when its log
    /// can't be read.
    pub async fn serve_volume(&self, id: i64, by: Server) -> Result<Served> {
        let known = self.known_volume(id).await?;
        let held = self.held(&known, Some(by)).await?;
        let device: Arc<dyn BlockDevice> = Arc::clone(held.volume()) as _;
        Ok(Served { device, volume: known.row, pool: known.pool.name, snapshot: None, held })
    }

    /// As [`Storage::serve_volume`], a snapshot, which can only be read.
    ///
    /// # Errors
    /// As [`Storage::serve_volume`].
    pub async fn serve_snapshot(&self, id: i64, by: Server) -> Result<Served> {
        let snapshot = volumes::snapshot(&self.inner.catalog, id).await?;
        let known = self.known_volume(snapshot.volume_id).await?;
        let held = self.held(&known, Some(by)).await?;
        let uuid = SnapshotId::parse(&snapshot.uuid)
            .ok_or(strongroom_catalog::Error::NotFound { what: "snapshot" })?;
        let device = Arc::new(held.volume().snapshot_device(uuid)?);
        let (volume, pool, snapshot) = (known.row, known.pool.name, Some(id));
        Ok(Served { device, volume, pool, snapshot, held })
    }
}

/// What is wrong with a row that names nothing of the pool.
pub(super) fn no_volume() -> Error {
    strongroom_catalog::Error::NotFound { what: "volume" }.into()
}
