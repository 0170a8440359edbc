//! What the open pools know of their garbage.

use strongroom_catalog::pools;
use strongroom_engine::disk::Space;
use strongroom_engine::pool::{Collections, Standing};

use crate::{Result, Storage};

/// A pool of this machine, and how it stands with its garbage.
#[derive(Clone, Debug)]
pub struct PoolGarbage {
    /// What the catalogue knows of it.
    pub pool: pools::Pool,
    /// What it knows itself.
    pub standing: Standing,
    /// The room of the disk of which the smallest part is free; none: no disk tells.
    pub space: Option<Space>,
}

impl Storage {
    /// The pools that are open here in which anything was let go since the last collection, and where collections
    /// are told as events that writes waited for.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn garbage(&self) -> Result<Vec<PoolGarbage>> {
        let mut all = Vec::new();
        for known in pools::all(&self.inner.catalog).await? {
            let Some(pool) = self.if_open(known.id) else { continue };
            if let Some(urgent) = pool.take_urgent() {
                let what = format!(
                    "had garbage collected {} times because writes found no room; {} MiB were freed",
                    urgent.count,
                    urgent.bytes_freed >> 20
                );
                self.tell(&known, "pool.collected", &what).await?;
            }
            let standing = pool.standing();
            let is_busy = pool.is_collecting() || pool.check_writable().is_err();
            if standing.let_go.roots == 0 || is_busy {
                continue;
            }
            let space = self.blocking(move || {
                let disks = pool.disks().iter().flatten();
                let spaces = disks.filter_map(|disk| disk.space().ok());
                Ok(spaces.min_by_key(|space| percent_free(*space)))
            });
            all.push(PoolGarbage { pool: known, standing, space: space.await? });
        }
        Ok(all)
    }

    /// What was collected of a pool since it was opened here; none: it isn't open.
    pub fn collections(&self, pool: i64) -> Option<Collections> {
        Some(self.if_open(pool)?.standing().collections)
    }
}

impl PoolGarbage {
    /// How many percent are free, of what [`PoolGarbage::space`] is about.
    pub fn percent_free(&self) -> Option<u64> {
        self.space.map(percent_free)
    }
}

fn percent_free(space: Space) -> u64 {
    space.free.saturating_mul(100).checked_div(space.total).unwrap_or(0)
}
