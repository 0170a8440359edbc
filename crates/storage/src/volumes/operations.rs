//! Making, showing, changing and removing volumes.

use std::sync::Arc;

use strongroom_block::volume::{self, IoType, Priority, Settings, VolumeId};
use strongroom_catalog::events::{self, NewEvent, Severity};
use strongroom_catalog::list::{Count, List, Page, Scope};
use strongroom_catalog::{pools, volumes};

use super::owner::{Held, Owner, Server, Standing, Unremoved};
use super::serve::no_volume;
use super::snapshots::Force;
use super::{Known, NewVolume, VolumeDetails, checked_name, is_version};
use crate::opening::LettingGo;
use crate::{Error, Result, Storage};

/// What is to be changed of a volume; what isn't named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeChange {
    /// Its name.
    pub name: Option<String>,
    /// Whether it takes only the room of what was written.
    pub thin: Option<bool>,
    /// Whether what is settled is looked for in the pool first.
    pub deduplicated: Option<bool>,
    /// Whether what is settled is compressed.
    pub compressed: Option<bool>,
    /// Whether what is read is kept in memory for a while.
    pub cached: Option<bool>,
    /// What it is used for.
    pub io_type: Option<IoType>,
    /// Its share of the bandwidth beside others.
    pub priority: Option<Priority>,
}

impl VolumeChange {
    fn settings(&self, old: Settings) -> Settings {
        Settings {
            thin: self.thin.unwrap_or(old.thin),
            deduplication: self.deduplicated.unwrap_or(old.deduplication),
            compression: self.compressed.unwrap_or(old.compression),
            cache: self.cached.unwrap_or(old.cache),
            io_type: self.io_type.unwrap_or(old.io_type),
            priority: self.priority.unwrap_or(old.priority),
            origin: old.origin,
        }
    }
}

impl Known {
    pub(super) fn uuid(&self) -> Result<VolumeId> {
        VolumeId::parse(&self.row.uuid).ok_or_else(no_volume)
    }
}

impl Owner {
    /// What the pool has of a volume.
    fn settings_of(&self, id: VolumeId) -> Result<Settings> {
        let found = self.volumes()?.list().into_iter().find(|meta| meta.volume == id);
        found.map(|meta| meta.settings).ok_or_else(no_volume)
    }
}

impl Storage {
    /// Volumes, by a list of the resource of volumes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn volumes(&self, list: &List, scope: &Scope) -> Result<Page<volumes::Volume>> {
        Ok(list.page(&self.inner.catalog, scope).await?)
    }

    /// How many [`Storage::volumes`] there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_volumes(&self, list: &List, scope: &Scope) -> Result<Count> {
        Ok(list.count(&self.inner.catalog, scope).await?)
    }

    /// A volume as the catalogue knows it.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`].
    pub async fn volume(&self, id: i64) -> Result<volumes::Volume> {
        Ok(volumes::find(&self.inner.catalog, id).await?)
    }

    pub(super) async fn known_volume(&self, id: i64) -> Result<Known> {
        let row = volumes::find(&self.inner.catalog, id).await?;
        let pool = pools::find(&self.inner.catalog, row.pool_id).await?;
        Ok(Known { row, pool })
    }

    /// The volume, open.
    pub(super) async fn held(&self, known: &Known, by: Option<Server>) -> Result<Held> {
        let owner = self.volumes_of(known.pool.id).await?;
        let (id, on) = (known.uuid()?, Arc::clone(&owner));
        match self.blocking(move || on.hold_for(id, by)).await {
            // The catalogue does not know yet that it is gone.
            Err(Error::Block(strongroom_block::Error::NotFound(_))) => {
                volumes::gone(&self.inner.catalog, &known.row).await?;
                Err(no_volume())
            }
            held => held,
        }
    }

    /// What this process knows of a volume.
    pub(super) fn standing(&self, known: &Known) -> Standing {
        match (self.volumes_if_open(known.pool.id), known.uuid()) {
            (Some(owner), Ok(id)) => owner.standing(id),
            _ => Standing::default(),
        }
    }

    /// All that is known of a volume.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`].
    pub async fn show_volume(&self, id: i64) -> Result<VolumeDetails> {
        let known = self.known_volume(id).await?;
        let Standing { log_bytes, served_by, trouble } = self.standing(&known);
        Ok(VolumeDetails {
            pool: known.pool.name,
            log_bytes,
            served_by,
            clients: self.export_clients(id),
            mapped_to: volumes::mapped_to(&self.inner.catalog, id).await?,
            trouble: trouble.map(|trouble| (trouble.why, trouble.since)),
            schedule: volumes::schedule(&self.inner.catalog, id).await?,
            volume: known.row,
        })
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::Exists`] for a name that is taken; [`Error::Invalid`],
    /// [`Error::Block`] for measures out of bounds, or no room; those of [`Storage::open`].
    pub async fn create_volume(&self, new: NewVolume) -> Result<volumes::Volume> {
        let name = checked_name(&new.name)?;
        let pool = pools::find(&self.inner.catalog, new.pool_id).await?;
        self.volume_name_is_free(pool.id, &name).await?;
        let owner = self.volumes_of(pool.id).await?;
        let on = Arc::clone(&owner);
        let new = volume::NewVolume {
            name,
            size: new.size,
            chunk: new.block_size,
            sector: new.sector_size,
            settings: new.settings,
        };
        let id = self.blocking(move || Ok(on.volumes()?.create(new)?)).await?;
        let row = self.record_volume(&pool, &owner, id).await?;
        self.tell_of(&row, "volume.created", &format!("the volume {} was made", row.name)).await?;
        // It is empty.
        let now = jiff::Timestamp::now();
        volumes::measured(&self.inner.catalog, row.id, (0, 0), &[], now).await?;
        self.volume(row.id).await
    }

    pub(super) async fn tell_of(
        &self,
        row: &volumes::Volume,
        kind: &'static str,
        message: &str,
    ) -> Result<()> {
        let event = NewEvent {
            severity: Severity::Info,
            kind,
            organisation_id: row.organisation_id,
            object: row.name.clone(),
            job_id: None,
            message: message.to_owned(),
        };
        events::tell(&self.inner.catalog, event).await?;
        Ok(())
    }

    pub(super) async fn volume_name_is_free(&self, pool: i64, name: &str) -> Result<()> {
        match volumes::named(&self.inner.catalog, pool, name).await {
            Ok(_) => {
                let what = format!("volume called {name} in that pool");
                Err(strongroom_catalog::Error::Exists { what }.into())
            }
            Err(strongroom_catalog::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes a volume, if its row has that version still (None: whatever it has).
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::Changed`], [`strongroom_catalog::Error::Exists`]; [`Error::Invalid`],
    /// [`Error::Block`] for what can't be.
    pub async fn change_volume(
        &self,
        id: i64,
        change: VolumeChange,
        version: Option<i64>,
    ) -> Result<volumes::Volume> {
        let name = change.name.as_deref().map(checked_name).transpose()?;
        let _turn = self.inner.volume_turns.of(id).await;
        let known = self.known_volume(id).await?;
        is_version(&known.row, version)?;
        let name = name.filter(|name| *name != known.row.name);
        if let Some(name) = &name {
            self.volume_name_is_free(known.pool.id, name).await?;
        }
        let owner = self.volumes_of(known.pool.id).await?;
        let (on, uuid) = (Arc::clone(&owner), known.uuid()?);
        self.blocking(move || {
            let old = on.settings_of(uuid)?;
            let new = change.settings(old.clone());
            if new != old {
                on.volumes()?.change(uuid, new)?;
            }
            if let Some(name) = name {
                on.volumes()?.rename(uuid, &name)?;
            }
            Ok(())
        })
        .await?;
        self.record_volume(&known.pool, &owner, uuid).await
    }

    /// Makes a volume larger, if its row has that version still. Those who use it see it at once, where
    /// what serves it tells them.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::Changed`]; [`Error::Block`] when that would make it smaller, or part
    /// of a sector.
    pub async fn grow_volume(
        &self,
        id: i64,
        size: u64,
        version: Option<i64>,
    ) -> Result<volumes::Volume> {
        let _turn = self.inner.volume_turns.of(id).await;
        let known = self.known_volume(id).await?;
        is_version(&known.row, version)?;
        let held = self.held(&known, None).await?;
        let owner = Arc::clone(held.owner());
        let held = self.blocking(move || {
            held.grow(size)?;
            Ok(held)
        });
        // It is open until its row has the size that isn't settled.
        let _held = held.await?;
        let row = self.record_volume(&known.pool, &owner, known.uuid()?).await?;
        self.tell_size(id);
        Ok(row)
    }

    /// Removes a volume with its snapshots, if its row has that version still. What only they held is
    /// freed by the pool's next collection.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::Changed`]; [`Error::VolumeServed`] while a target has it, or somebody
    /// serves it. By force clients of its exports are let go; those that don't go keep it.
    pub async fn remove_volume(&self, id: i64, version: Option<i64>, force: Force) -> Result<()> {
        let _turn = self.inner.volume_turns.of(id).await;
        let known = self.known_volume(id).await?;
        is_version(&known.row, version)?;
        let mapped = volumes::mapped_to(&self.inner.catalog, id).await?;
        let served = |by: Vec<String>| Error::VolumeServed {
            volume: known.row.name.clone(),
            by: by.join(", "),
        };
        if !mapped.is_empty() {
            let by = mapped.iter().map(|name| format!("target {name}")).collect();
            return Err(served(by));
        }
        let owner = self.volumes_of(known.pool.id).await?;
        let uuid = known.uuid()?;
        let mut letting_go = LettingGo::by(force);
        let removed = loop {
            let on = Arc::clone(&owner);
            match self.blocking(move || Ok(on.remove(uuid))).await? {
                Err(Unremoved::Served(_)) if letting_go.goes_on() => {
                    self.inner.clients.end_of_volume(id);
                    letting_go.wait().await;
                }
                removed => break removed,
            }
        };
        match removed {
            Ok(()) => {}
            Err(Unremoved::Served(by)) => return Err(served(by)),
            // Somebody was cut off before its row was gone.
            Err(Unremoved::Failed(strongroom_block::Error::NotFound(_))) => {}
            Err(Unremoved::Failed(error)) => return Err(error.into()),
            Err(Unremoved::Other(error)) => return Err(*error),
        }
        Ok(volumes::remove(&self.inner.catalog, &known.row).await?)
    }

    /// The volumes that are open here.
    pub fn open_volumes(&self) -> Vec<OpenVolume> {
        let mut all = Vec::new();
        for (pool_id, owner) in self.owners() {
            let of = |(id, log_bytes, failing): (VolumeId, u64, bool)| OpenVolume {
                pool_id,
                uuid: id.to_string(),
                log_bytes,
                failing,
            };
            all.extend(owner.open_ones().into_iter().map(of));
        }
        all
    }
}

/// A volume that is open here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenVolume {
    /// Its pool.
    pub pool_id: i64,
    /// What the pool calls it.
    pub uuid: String,
    /// Bytes in its log.
    pub log_bytes: u64,
    /// Whether it can't be settled.
    pub failing: bool,
}
