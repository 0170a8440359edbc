//! Volumes made of others, of snapshots, and of what was backed up. They are there at once, and take no
//! room but for what is written to them.

use std::sync::Arc;

use strongroom_archive::entry::Body;
use strongroom_archive::show;
use strongroom_archive::store::Source as _;
use strongroom_block::volume::top::CHUNKS;
use strongroom_block::volume::{self, Settings, VolumeId};
use strongroom_catalog::{pools, volumes};
use strongroom_engine::map::MapRef;
use strongroom_engine::pool::Pool;

use super::snapshots::uuid;
use super::{BLOCK_SIZE, Owner, SECTOR_SIZE, checked_name};
use crate::images::Opened;
use crate::{Error, Result, Storage};

/// How what a volume was made from begins: texts of it have at most 255 bytes.
const MAX_ORIGIN: usize = 255;

/// A volume that is to be made of something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewClone {
    /// Its name, which no other volume of the pool has.
    pub name: String,
    /// Bytes, at least those of what it is made of; as many when it isn't said.
    pub size: Option<u64>,
}

/// A text that says what a volume was made from, cut to what the pool keeps.
fn origin(text: String) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    while text.len() > MAX_ORIGIN {
        text.pop();
    }
    text
}

impl Storage {
    /// Makes a volume with the content of a snapshot.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::Exists`] for a name that is taken; [`Error::Invalid`], also for a
    /// size that is less; [`Error::Block`].
    pub async fn clone_snapshot(&self, id: i64, new: NewClone) -> Result<volumes::Volume> {
        let name = checked_name(&new.name)?;
        let row = self.snapshot(id).await?;
        let known = self.known_volume(row.volume_id).await?;
        self.volume_name_is_free(known.pool.id, &name).await?;
        enough(new.size, row.size)?;
        let held = self.held(&known, None).await?;
        let owner = Arc::clone(held.owner());
        let snapshot = uuid(&row)?;
        let from = origin(format!("snapshot {}@{}", known.row.name, row.name));
        let made = self.blocking(move || {
            let settings = Settings { origin: from, ..held.settings() };
            let volumes = held.owner().volumes()?;
            Ok(volumes.clone_with(held.volume(), snapshot, &name, settings)?)
        });
        self.made(&known.pool, &owner, made.await?, new.size).await
    }

    /// Makes a volume with what another has now: of a snapshot that is removed again.
    ///
    /// # Errors
    /// As [`Storage::clone_snapshot`].
    pub async fn clone_volume(&self, id: i64, new: NewClone) -> Result<volumes::Volume> {
        let name = checked_name(&new.name)?;
        let _turn = self.inner.volume_turns.of(id).await;
        let known = self.known_volume(id).await?;
        self.volume_name_is_free(known.pool.id, &name).await?;
        enough(new.size, known.row.size)?;
        let held = self.held(&known, None).await?;
        let owner = Arc::clone(held.owner());
        let from = origin(format!("volume {}", known.row.name));
        let made = self.blocking(move || {
            // No user can give that name, for it has an `@`.
            let snapshot = held.snapshot(&format!("@{}", VolumeId::random()))?;
            let settings = Settings { origin: from, ..held.settings() };
            let volumes = held.owner().volumes()?;
            let made = volumes.clone_with(held.volume(), snapshot, &name, settings);
            if let Err(error) = held.delete_snapshot(snapshot) {
                tracing::warn!("the snapshot for a clone of {} stays: {error}", held.name());
            }
            Ok(made?)
        });
        self.made(&known.pool, &owner, made.await?, new.size).await
    }

    /// Makes a volume with the content of an image of a disk, or of a file of another image, at `path`
    /// (bytes, from its top; empty: the disk itself). Its blocks are those of the pool's disks.
    ///
    /// # Errors
    /// As [`Storage::clone_snapshot`]; [`strongroom_archive::Error::NoPath`]; [`Error::Invalid`] for what
    /// is no file; [`Error::Gone`]; for images that are sealed under a client's own key.
    pub async fn clone_image(
        &self,
        id: i64,
        path: Vec<u8>,
        new: NewClone,
    ) -> Result<volumes::Volume> {
        let name = checked_name(&new.name)?;
        let Opened { known, pool, image, row } = self.opened(id).await?;
        self.volume_name_is_free(known.id, &name).await?;
        let owner = self.volumes_of(known.id).await?;
        let on = Arc::clone(&owner);
        let at = if path.is_empty() { String::new() } else { format!(":{}", show(&path)) };
        let settings = Settings {
            origin: origin(format!(
                "image {} of {}{at}",
                &row.root[..8.min(row.root.len())],
                row.name
            )),
            ..Settings::default()
        };
        let size = new.size;
        let made = self.blocking(move || {
            let _hold = pool.hold(image.id)?;
            let map = content(&pool, &image, &path)?;
            let least = map.len().max(1).next_multiple_of(SECTOR_SIZE.into());
            enough(size, least)?;
            let chunk = pool.chunking().fixed;
            let fits = CHUNKS.contains(&chunk) && chunk.is_power_of_two();
            let new = volume::NewVolume {
                name,
                size: size.unwrap_or(least),
                chunk: if fits { chunk } else { BLOCK_SIZE },
                sector: SECTOR_SIZE,
                settings,
            };
            Ok(on.volumes()?.create_over(new, map, image.id)?)
        });
        self.made(&known, &owner, made.await?, None).await
    }

    /// Enters a volume that was made, of that size at last.
    async fn made(
        &self,
        known: &pools::Pool,
        owner: &Arc<Owner>,
        id: VolumeId,
        size: Option<u64>,
    ) -> Result<volumes::Volume> {
        owner.note_change(id);
        let row = self.record_volume(known, owner, id).await?;
        let message = format!("the volume {} was made of the {}", row.name, row.origin);
        self.tell_of(&row, "volume.created", &message).await?;
        match size.filter(|size| *size > row.size) {
            Some(size) => self.grow_volume(row.id, size, None).await,
            None => Ok(row),
        }
    }
}

fn enough(size: Option<u64>, least: u64) -> Result<()> {
    match size {
        Some(size) if size < least => Err(Error::Invalid(format!(
            "a volume made of {least} bytes can't have {size}: what is behind would be lost"
        ))),
        _ => Ok(()),
    }
}

/// The content of a disk, or of a file.
fn content(pool: &Pool, image: &strongroom_archive::image::Image, path: &[u8]) -> Result<MapRef> {
    let entry = image.entry(pool, path)?;
    match entry.body {
        Body::File(map) => Ok(map),
        _ => {
            let what = match path.is_empty() {
                true => format!("the image {}", image.name),
                false => show(path),
            };
            Err(Error::Invalid(format!(
                "{what} is no disk: name an image of a disk, or with its path a file of one that is a \
                 disk's image"
            )))
        }
    }
}
