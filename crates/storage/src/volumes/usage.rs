//! What volumes and their snapshots hold, as maps tell it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use strongroom_block::volume::VolumeId;
use strongroom_catalog::volumes;

use crate::{Result, Storage};

/// How long a volume is left alone after it was measured: this, and so many times as long as it took.
const AGAIN: Duration = Duration::from_secs(300);
const TIMES: u32 = 20;

impl Storage {
    /// Measures a volume and its snapshots now, with all that was written so far, and keeps the figures.
    /// It takes as long as its maps are large.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; [`crate::Error::Block`] when it can't be settled, or a map
    /// can't be read.
    pub async fn measure_volume(&self, id: i64) -> Result<volumes::Volume> {
        let known = self.known_volume(id).await?;
        let held = self.held(&known, None).await?;
        let usage = self.blocking(move || {
            let begun = Instant::now();
            held.owner().take_change(held.volume_id());
            held.settle()?;
            let usage = held.usage()?;
            held.owner().note_measured(held.volume_id(), begun.elapsed());
            Ok(usage)
        });
        let usage = usage.await?;
        let all = usage.snapshots.iter().map(|(id, bytes)| (id.to_string(), *bytes));
        let all: Vec<(String, u64)> = all.collect();
        let (now, held) = (Timestamp::now(), (usage.volume, usage.in_snapshots));
        volumes::measured(&self.inner.catalog, id, held, &all, now).await?;
        self.volume(id).await
    }

    /// Measures the volumes of open pools that were changed since, or never measured; how many. One that
    /// can't be is passed over.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn measure_volumes(&self) -> Result<usize> {
        let mut count = 0;
        for pool in strongroom_catalog::pools::all(&self.inner.catalog).await? {
            let Some(owner) = self.volumes_if_open(pool.id) else { continue };
            for row in volumes::of_pool(&self.inner.catalog, pool.id).await? {
                let Some(id) = VolumeId::parse(&row.uuid) else { continue };
                let last = owner.last_measured(id);
                let is_fresh = last.is_some_and(|(ago, took)| ago < AGAIN.max(took * TIMES));
                // What was changed before this process had the pool is not known.
                let is_unknown = last.is_none() || row.measured_at.is_none();
                let is_due = !is_fresh && (owner.take_change(id) || is_unknown);
                if !is_due {
                    continue;
                }
                match self.measure_volume(row.id).await {
                    Ok(_) => count += 1,
                    Err(error) => {
                        // Not again at once.
                        owner.note_measured(id, Duration::ZERO);
                        tracing::warn!("the volume {} can't be measured: {error}", row.name);
                    }
                }
            }
        }
        Ok(count)
    }
}
