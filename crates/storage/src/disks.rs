//! Replacing a disk of a pool.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_catalog::pools;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::keys::Secret;
use strongroom_engine::pool::{OpenMode, OpenOptions, Place, Pool};
use strongroom_engine::superblock::Superblock;

use crate::opening::present_disks;
use crate::{Bar, Error, Result, Storage};

impl Storage {
    /// Puts an empty disk in the place of a lost one. What was on that one is rebuilt by the next
    /// scrub, which must be begun anew. Called again with the same disk it does nothing, so that
    /// work that was interrupted can be taken up.
    ///
    /// # Errors
    /// [`Error::Used`] while somebody uses the pool; [`Error::Invalid`] for a pool in one
    /// directory, and for a disk that isn't empty; those of the disks.
    pub async fn replace_disk(&self, id: i64, number: usize, disk: &Path) -> Result<Arc<Pool>> {
        let known = pools::find(&self.inner.catalog, id).await?;
        let bar = self.close(id, "one of its disks is being replaced").await?;
        let secrets = self.secrets(&known).await?;
        let used = self.inner.used.clone();
        let (dir, disk) = (PathBuf::from(&known.path), disk.to_owned());
        let mounts = self.inner.mounts.clone();
        let replaced = self.blocking(move || {
            let old = Place::find(&dir)?;
            if old.disks.contains(&dir) {
                return Err(Error::Invalid(
                    "the pool lies in its own directory on one disk; copy the directory, or make \
                     a pool with several disks"
                        .into(),
                ));
            }
            let new = mounts.directory(&disk)?;
            if old.disks.get(number) == Some(&new) && Superblock::exists(&*open(&new)?) {
                return Ok(None);
            }
            // The signpost comes first: should the process die in between, the pool is found with
            // every disk that is part of it, and the same can be asked for again.
            let mut place = old.clone();
            match place.disks.get_mut(number) {
                Some(path) => *path = new.clone(),
                None => place.disks.push(new.clone()),
            }
            place.write(&dir)?;
            let replace = |secret: Option<&Secret>| {
                let (disks, mode) = (present_disks(&old), OpenMode::Write);
                let options = OpenOptions { disks, mode, secret, without_index: false };
                Ok(Pool::replace_disk(options, used.clone(), number, open(&new)?)?)
            };
            match secrets.open(replace) {
                Ok((pool, _)) => Ok(Some(Arc::new(pool))),
                Err(error) => {
                    if !Superblock::exists(&*open(&new)?) {
                        old.write(&dir)?;
                    }
                    Err(error)
                }
            }
        });
        let replaced = replaced.await;
        self.reopen(bar, &known, replaced?).await
    }

    /// Opens the pool again, or takes it as it was opened.
    async fn reopen(
        &self,
        bar: Bar,
        known: &pools::Pool,
        pool: Option<Arc<Pool>>,
    ) -> Result<Arc<Pool>> {
        let Some(pool) = pool else {
            drop(bar);
            return self.open(known.id).await;
        };
        bar.open_as(known, Arc::clone(&pool)).await;
        self.mirror(known, &pool).await?;
        self.tell(known, "pool.disk_replaced", "has a new disk, which is to be rebuilt").await?;
        Ok(pool)
    }
}

fn open(path: &Path) -> Result<Arc<dyn Disk>> {
    Ok(Arc::new(FsDisk::open(path).map_err(|e| Error::local(path, e))?))
}
