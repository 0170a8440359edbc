//! Which volumes a target has, under which numbers.

use strongroom_catalog::Error as CatalogError;
use strongroom_catalog::targets::{Lun, Target};

use super::names;
use super::operations::{find, not_found};
use crate::{Error, Result, Storage};

/// The highest number (RFC 7143 by SAM-5 4.7.7.3: flat addressing has 14 bits).
const MAX_NUMBER: u32 = 16_383;
/// Volumes that a target has at most: as many as REPORT LUNS is asked for by usual initiators.
pub const MAX_LUNS: usize = 256;

impl Storage {
    /// Maps a volume to a target under a number: the lowest free one when none is said. Initiators that are
    /// logged in find it.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`strongroom_catalog::Error::Exists`] for a number that is taken, or a volume
    /// that the target has; what keeps the volume from being opened; those of the database.
    pub async fn map_volume(
        &self,
        target: i64,
        volume: i64,
        number: Option<u32>,
    ) -> Result<Vec<Lun>> {
        if number.is_some_and(|number| number > MAX_NUMBER) {
            return Err(Error::Invalid(format!("a LUN is a number from 0 to {MAX_NUMBER}")));
        }
        let named: Option<Target> = self.inner.catalog.find_one(Target::by_id(target)).await?;
        let named = named.ok_or_else(not_found)?;
        // What can't be served is not mapped: it would keep initiators from the target. And as long as
        // it is open, nobody removes it.
        let open = self.serve_volume(volume, self.server(target, &named.name)).await?;
        let mapped = self.map_open(target, volume, number).await;
        // The last who has a volume closes it.
        tokio::task::spawn_blocking(move || drop(open)).await.map_err(|_| Error::Ended)?;
        mapped
    }

    async fn map_open(&self, target: i64, volume: i64, number: Option<u32>) -> Result<Vec<Lun>> {
        let mut tx = self.inner.catalog.begin().await?;
        let row = find(&mut tx, target).await?;
        let mapped: Vec<Lun> = tx.find(Lun::of_target(target)).await?;
        if let Some(lun) = mapped.iter().find(|lun| lun.volume_id == volume) {
            let what = format!("volume in the target {}, as LUN {}", row.name, lun.number);
            return Err(CatalogError::Exists { what }.into());
        }
        if mapped.len() >= MAX_LUNS {
            return Err(Error::Invalid(format!("a target has {MAX_LUNS} volumes at most")));
        }
        let is_free = |number: &u32| mapped.iter().all(|lun| lun.number != *number);
        let number = match number {
            Some(number) if !is_free(&number) => {
                let what = format!("LUN {number} in the target {}", row.name);
                return Err(CatalogError::Exists { what }.into());
            }
            Some(number) => number,
            None => (0..=MAX_NUMBER).find(is_free).unwrap_or_default(),
        };
        names::unique("LUN", Lun::insert(&mut tx, target, number, volume).await)?;
        tx.commit().await?;
        self.follow_targets().await;
        self.luns(target).await
    }

    /// Unmaps a volume. When it returns, no initiator of this target uses it.
    ///
    /// # Errors
    /// [`Error::InUse`] while initiators are logged in, unless `force`;
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn unmap_volume(&self, target: i64, number: u32, force: bool) -> Result<Vec<Lun>> {
        let mut tx = self.inner.catalog.begin().await?;
        let row = find(&mut tx, target).await?;
        Lun::remove(&mut tx, target, number).await?;
        self.is_idle(target, &row.name, force, "unmap it")?;
        tx.commit().await?;
        self.follow_targets().await;
        self.luns(target).await
    }

    /// The volumes that a target has.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn luns(&self, target: i64) -> Result<Vec<Lun>> {
        let catalog = &self.inner.catalog;
        let found: Option<Target> = catalog.find_one(Target::by_id(target)).await?;
        found.ok_or_else(not_found)?;
        Ok(catalog.find(Lun::of_target(target)).await?)
    }

    /// The targets that a volume is mapped to.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn luns_of_volume(&self, volume: i64) -> Result<Vec<Lun>> {
        Ok(self.inner.catalog.find(Lun::of_volume(volume)).await?)
    }
}
