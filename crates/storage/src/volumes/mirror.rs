//! Keeping the catalogue's rows of volumes and snapshots as the pools have them.

use std::sync::Arc;

use strongroom_block::BlockDevice;
use strongroom_block::volume::{IoType, Meta, SnapshotId, SnapshotInfo, VolumeId};
use strongroom_catalog::{pools, volumes};

use super::{Owner, public_id};
use crate::mirror::time;
use crate::{Error, Result, Storage};

/// What a pool has of a volume.
struct Found {
    meta: Meta,
    size: u64,
    /// None: they can't be had.
    snapshots: Option<Vec<SnapshotInfo>>,
}

/// The row of a volume; nothing is measured of it.
fn row(pool: &pools::Pool, meta: &Meta, size: u64) -> volumes::Volume {
    let (uuid, settings) = (meta.volume.to_string(), &meta.settings);
    volumes::Volume {
        id: 0,
        pool_id: pool.id,
        organisation_id: pool.organisation_id,
        public_id: public_id("volume", &uuid),
        uuid,
        name: meta.name.clone(),
        size,
        block_size: meta.chunk,
        sector_size: meta.sector,
        thin: settings.thin,
        deduplicated: settings.deduplication,
        compressed: settings.compression,
        cached: settings.cache,
        io_type: match settings.io_type {
            IoType::Transactional => "transactional",
            IoType::Sequential => "sequential",
        }
        .into(),
        priority: settings.priority.weight().into(),
        origin: settings.origin.clone(),
        created_at: time(meta.created),
        used: None,
        snapshots_used: None,
        measured_at: None,
        version: 0,
        snapshots: 0,
        targets: 0,
    }
}

/// A snapshot that was made just now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) id: SnapshotId,
    /// Whether a schedule made it.
    pub(super) scheduled: bool,
}

/// The row of a snapshot, and what is known if it was `made` just now.
fn snapshot_row(
    of: &volumes::Volume,
    info: &SnapshotInfo,
    made: Option<Made>,
) -> volumes::Snapshot {
    let uuid = info.id.to_string();
    let made = made.filter(|made| made.id == info.id);
    volumes::Snapshot {
        id: 0,
        volume_id: of.id,
        pool_id: of.pool_id,
        organisation_id: of.organisation_id,
        public_id: public_id("snapshot", &uuid),
        uuid,
        name: info.name.clone(),
        size: info.size,
        created_at: time(info.created),
        // It is what the volume is, which holds all of it too.
        reserved: made.map(|_| 0),
        scheduled: made.is_some_and(|made| made.scheduled),
    }
}

/// All volumes of a pool that was just opened. Those with something in their logs are opened.
fn find_all(owner: &Arc<Owner>) -> Result<Vec<Found>> {
    // Of a clone of a volume that was cut off: nobody else gives such names.
    let is_left = |one: &SnapshotInfo| one.name.starts_with('@');
    let mut all = Vec::new();
    for look in owner.volumes()?.look()? {
        let meta = look.meta;
        if let Some(snapshots) = look.snapshots.filter(|all| !all.iter().any(is_left)) {
            all.push(Found { size: meta.size, meta, snapshots: Some(snapshots) });
            continue;
        }
        match owner.hold(meta.volume) {
            Ok(held) => {
                for left in held.snapshots().iter().filter(|one| is_left(one)) {
                    if let Err(error) = held.delete_snapshot(left.id) {
                        tracing::warn!("a snapshot that was left can't be removed: {error}");
                    }
                }
                let (size, snapshots) = (held.geometry().size, Some(held.snapshots()));
                all.push(Found { meta, size, snapshots });
            }
            Err(error) => {
                let (name, pool) = (&meta.name, &owner.name);
                tracing::error!("the volume {name} of the pool {pool} can't be opened: {error}");
                all.push(Found { size: meta.size, meta, snapshots: None });
            }
        }
    }
    Ok(all)
}

impl Storage {
    /// Brings the rows of a pool's volumes and snapshots up to date.
    pub(crate) async fn mirror_volumes(
        &self,
        known: &pools::Pool,
        owner: &Arc<Owner>,
    ) -> Result<()> {
        let catalog = &self.inner.catalog;
        let on = Arc::clone(owner);
        let found = self.blocking(move || find_all(&on)).await?;
        let rows: Vec<_> = found.iter().map(|one| row(known, &one.meta, one.size)).collect();
        volumes::mirror(catalog, known.id, &rows).await?;
        for one in found {
            let Some(snapshots) = one.snapshots else { continue };
            let uuid = one.meta.volume.to_string();
            let volume = volumes::of_uuid(catalog, known.id, &uuid).await?;
            let rows: Vec<_> =
                snapshots.iter().map(|info| snapshot_row(&volume, info, None)).collect();
            volumes::mirror_snapshots(catalog, volume.id, &rows).await?;
        }
        Ok(())
    }

    /// Brings the row of one volume up to date, and gives it.
    pub(super) async fn record_volume(
        &self,
        known: &pools::Pool,
        owner: &Arc<Owner>,
        id: VolumeId,
    ) -> Result<volumes::Volume> {
        let on = Arc::clone(owner);
        let found = self.blocking(move || {
            let meta = on.volumes()?.list().into_iter().find(|meta| meta.volume == id);
            let meta = meta.ok_or(strongroom_catalog::Error::NotFound { what: "volume" })?;
            let size = on.open_size(id).unwrap_or(meta.size);
            Ok::<_, Error>((meta, size))
        });
        let (meta, size) = found.await?;
        Ok(volumes::put(&self.inner.catalog, &row(known, &meta, size)).await?)
    }

    /// Brings the rows of a volume's snapshots up to date, of which one may have been made just now.
    pub(super) async fn record_snapshots(
        &self,
        volume: &volumes::Volume,
        snapshots: &[SnapshotInfo],
        made: Option<Made>,
    ) -> Result<()> {
        let rows: Vec<_> = snapshots.iter().map(|info| snapshot_row(volume, info, made)).collect();
        Ok(volumes::mirror_snapshots(&self.inner.catalog, volume.id, &rows).await?)
    }
}
