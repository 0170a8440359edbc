//! Volumes that are nearly full: looked for from time to time, and told when one becomes so.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use strongroom_catalog::events::{self, NewEvent, Severity};
use strongroom_catalog::{pools, volumes};

use crate::{Result, Storage};

/// A volume that is nearly full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overloaded {
    /// The volume, as it was measured last.
    pub volume: volumes::Volume,
    /// Its pool's name.
    pub pool: String,
    /// Bytes that were written to it.
    pub used: u64,
}

/// What was found when it was looked for them last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// When that was; None: not yet.
    pub at: Option<Timestamp>,
    /// Those that were nearly full, by pool and name.
    pub volumes: Vec<Overloaded>,
}

/// The last check of this process.
#[derive(Debug, Default)]
pub(crate) struct LastCheck(Mutex<Check>);

impl LastCheck {
    fn get(&self) -> Check {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, check: Check) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = check;
    }
}

/// Whether so many bytes of so many are that many percent, or more.
fn is_nearly_full(used: u64, size: u64, percent: u32) -> bool {
    size > 0 && u128::from(used) * 100 >= u128::from(size) * u128::from(percent)
}

impl Storage {
    /// What was found when it was looked for volumes that are nearly full.
    pub fn overloaded_volumes(&self) -> Check {
        self.inner.overloaded.get()
    }

    /// Looks for volumes of this machine's pools of which so many percent are written, as they were measured
    /// last, and tells of those that were not found the time before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn check_volumes(&self, percent: u32) -> Result<Check> {
        let before = self.inner.overloaded.get();
        let known: BTreeSet<i64> = before.volumes.iter().map(|one| one.volume.id).collect();
        let mut found = Vec::new();
        for pool in pools::all(&self.inner.catalog).await? {
            if !self.is_here(&pool) {
                continue;
            }
            for volume in volumes::of_pool(&self.inner.catalog, pool.id).await? {
                let Some(used) = volume.used else { continue };
                if is_nearly_full(used, volume.size, percent) {
                    found.push(Overloaded { volume, pool: pool.name.clone(), used });
                }
            }
        }
        for one in found.iter().filter(|one| !known.contains(&one.volume.id)) {
            let Overloaded { volume, pool, used } = one;
            let event = NewEvent {
                severity: Severity::Warning,
                kind: "volume.overloaded",
                organisation_id: volume.organisation_id,
                object: format!("{pool}/{}", volume.name),
                job_id: None,
                message: format!(
                    "of the {} bytes of the volume {} in {pool} {used} are written: make it larger, or \
                     free some",
                    volume.size, volume.name
                ),
            };
            events::tell(&self.inner.catalog, event).await?;
        }
        let check = Check { at: Some(Timestamp::now()), volumes: found };
        self.inner.overloaded.put(check.clone());
        Ok(check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_full_is_so_many_percent_or_more() {
        assert!(is_nearly_full(90, 100, 90) && is_nearly_full(u64::MAX, u64::MAX, 100));
        assert!(!is_nearly_full(899, 1000, 90) && !is_nearly_full(0, 0, 1));
        // The document's example: 97.06 %.
        assert!(is_nearly_full(1_042_223_104, 1_073_741_824, 90));
    }
}
