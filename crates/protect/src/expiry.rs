//! Images that have been kept for as long as they say are forgotten by jobs that nobody asks for.

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::jobs::{self, Job};

use crate::service::{Asker, ITSELF};
use crate::works::{FORGET, ForgetParameters};
use crate::{Protect, Result};

/// After a job that failed or was canceled a pool is left alone for so long, and after one that
/// went well.
const QUIET: SignedDuration = SignedDuration::from_hours(1);
const PACE: SignedDuration = SignedDuration::from_mins(2);

impl Protect {
    /// Queues a job for each pool of this machine that has images which are expired by the pool's
    /// own clock, unless something is being forgotten there, couldn't be lately, or was a moment
    /// ago.
    ///
    /// # Errors
    /// Those of [`crate::Engine::submit`]; those of the database.
    pub async fn forget_expired(&self) -> Result<Vec<Job>> {
        let mut queued = Vec::new();
        for pool in self.storage.pools_with_expired().await? {
            let (catalog, now) = (self.storage.catalog(), Timestamp::now());
            let own = (ITSELF, now - PACE);
            if jobs::is_tried(catalog, FORGET, pool.id, now - QUIET, own).await? {
                continue;
            }
            let asker = Asker::itself(pool.organisation_id);
            let what = ForgetParameters { expired: true, ..ForgetParameters::default() };
            queued.push(self.forget(asker, pool.id, what).await?);
        }
        Ok(queued)
    }
}
