//! Mending a pool beyond what a scrub does: superblocks, and an index that is beyond use.

use std::path::Path;
use std::sync::Arc;

use strongroom_catalog::pools;
use strongroom_engine::keys::Secret;
use strongroom_engine::pool::{Meter, OpenMode, OpenOptions, Place, Pool};

use crate::opening::present_disks;
use crate::{Error, Result, Storage};

/// A pool that was mended, and what that took.
#[derive(Debug)]
pub struct Mended {
    /// The pool, open.
    pub pool: Arc<Pool>,
    /// The disks whose superblocks were written anew.
    pub superblocks: Vec<usize>,
    /// How many entries the index has that was built anew.
    pub index_entries: Option<u64>,
}

impl Storage {
    /// Writes superblocks anew that can't be read though their disks are there, and if it is wanted
    /// builds the index again from the packs. Nobody has the pool meanwhile.
    ///
    /// # Errors
    /// [`crate::Error::Used`] while somebody uses the pool; the engine's `Canceled` when the meter
    /// says so; those of opening it.
    pub async fn mend_pool(
        &self,
        id: i64,
        rebuild_index: bool,
        meter: Arc<Meter>,
    ) -> Result<Mended> {
        let known = pools::find(&self.inner.catalog, id).await?;
        let bar = self.close(id, "it is being mended").await?;
        let secrets = self.secrets(&known).await?;
        let used = self.inner.used.clone();
        let (path, uuid) = (known.path.clone(), known.uuid.clone());
        let mended = self.blocking(move || {
            let place = Place::find(Path::new(&path))?;
            let open = |secret: Option<&Secret>| {
                let options = || OpenOptions {
                    disks: present_disks(&place),
                    mode: OpenMode::Write,
                    secret,
                    without_index: rebuild_index,
                };
                let superblocks = Pool::mend_superblocks(&options(), &used)?;
                Ok((superblocks, Arc::new(Pool::open(options(), used.clone())?)))
            };
            let ((superblocks, pool), _) = secrets.open(open)?;
            if pool.id().to_string() != uuid {
                let found = pool.id();
                return Err(Error::Invalid(format!(
                    "{path} holds the pool {found}, and no longer {uuid}: bring back its disks"
                )));
            }
            let index_entries = match rebuild_index {
                true => Some(pool.rebuild_index(&meter)?),
                false => None,
            };
            Ok(Mended { pool, superblocks, index_entries })
        });
        let mended = mended.await?;
        bar.open_as(&known, Arc::clone(&mended.pool)).await;
        self.mirror(&known, &mended.pool).await?;
        self.tell(&known, "pool.mended", "was mended as far as its disks allow").await?;
        Ok(mended)
    }
}
