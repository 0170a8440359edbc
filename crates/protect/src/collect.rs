//! Garbage is collected by jobs that nobody asks for: when there is likely much of it, when room is short,
//! and now and then.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::jobs::{self, Job};
use strongroom_engine::pool::Standing;
use strongroom_storage::PoolGarbage;

use crate::service::{Asker, ITSELF};
use crate::works::{GC, GcParameters};
use crate::{Protect, Result};

/// Pools that store less are left alone, in bytes: there is nothing to be had there.
const LEAST: u64 = 64 << 20;
/// Of the whole time a pool is collected in such a part at most.
const SHARE: u32 = 5;
/// A collection has freed little when it is less than such a part of what was stored.
const LITTLE: u64 = 50;
/// After one that has it is so many times as long until the next.
const PATIENCE: u32 = 12;
/// The same for the one that comes now and then.
const SELDOM: u32 = 7;
/// The part of a pool that may stay as garbage when room is short.
const SHORT: f64 = 0.05;
/// After one that failed or was canceled a pool is left alone for so long.
const QUIET: SignedDuration = SignedDuration::from_hours(1);

/// When garbage of a pool is collected unasked: for each of three reasons, unless it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collecting {
    /// So many percent of the pool's chunks were overwritten in volumes since the last collection.
    pub overwritten: u32,
    /// Less than so many percent of the fullest disk are free, and anything was let go.
    pub free: u32,
    /// The last one was so long ago, and anything was let go.
    pub every: Duration,
    /// But no sooner than so long after the last one.
    pub pause: Duration,
}

/// Why it is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Room,
    Overwritten,
    Time,
}

impl Reason {
    /// In words, behind "because".
    fn words(self) -> &'static str {
        match self {
            Self::Room => "room is short",
            Self::Overwritten => "much of it was overwritten",
            Self::Time => "the last time is long ago",
        }
    }

    fn parameters(self) -> GcParameters {
        match self {
            Self::Room => GcParameters { max_unused: SHORT, ..GcParameters::default() },
            Self::Overwritten | Self::Time => GcParameters::default(),
        }
    }
}

/// What is known of a pool.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Bytes, and chunks, in packs.
    bytes: u64,
    chunks: u64,
    /// Roots that ended, and chunks that were overwritten, since the last collection.
    roots: u64,
    overwritten: u64,
    /// How many percent of the fullest disk are free.
    free: Option<u64>,
    /// How long ago the last collection ended, or the pool was opened; and how long that collection took.
    ago: Duration,
    took: Duration,
    /// Whether that collection freed little.
    was_little: bool,
}

impl Known {
    fn of(garbage: &PoolGarbage) -> Self {
        let Standing { since, let_go, collections, chunks, bytes } = garbage.standing;
        let (at, took, was_little) = match collections.last {
            None => (since, Duration::ZERO, false),
            Some(last) => {
                let freed = last.report.bytes_freed();
                let was_little = freed.saturating_mul(LITTLE) < last.report.bytes_before;
                (last.at, last.took, was_little)
            }
        };
        Self {
            bytes,
            chunks,
            roots: let_go.roots,
            overwritten: let_go.chunks,
            free: garbage.percent_free(),
            ago: at.elapsed(),
            took,
            was_little,
        }
    }
}

impl Collecting {
    /// Why garbage is to be collected now, if it is.
    fn decide(&self, known: &Known) -> Option<Reason> {
        if known.roots == 0 || known.bytes < LEAST {
            return None;
        }
        let patience = if known.was_little { PATIENCE } else { 1 };
        let pause = self.pause.max(known.took.saturating_mul(SHARE - 1));
        if known.ago < pause.saturating_mul(patience) {
            return None;
        }
        let seldom = if known.was_little { SELDOM } else { 1 };
        let part = u128::from(known.overwritten) * 100;
        if known.free.is_some_and(|free| free < self.free.into()) {
            Some(Reason::Room)
        } else if self.overwritten > 0
            && part >= u128::from(known.chunks) * u128::from(self.overwritten)
        {
            Some(Reason::Overwritten)
        } else if !self.every.is_zero() && known.ago >= self.every.saturating_mul(seldom) {
            Some(Reason::Time)
        } else {
            None
        }
    }
}

impl Protect {
    /// Queues a job for each pool that is open here whose garbage is worth collecting, unless one is
    /// queued or running there, or one that was begun like this failed lately or was canceled.
    ///
    /// # Errors
    /// Those of [`crate::Engine::submit`]; those of the database.
    pub async fn collect_garbage(&self, when: &Collecting) -> Result<Vec<Job>> {
        let mut queued = Vec::new();
        for garbage in self.storage.garbage().await? {
            let Some(reason) = when.decide(&Known::of(&garbage)) else { continue };
            let (catalog, pool, now) = (self.storage.catalog(), garbage.pool, Timestamp::now());
            let open = jobs::open_of(catalog, GC, self.storage.node()).await?;
            if open.iter().any(|job| job.pool_id == Some(pool.id))
                || jobs::is_tried(catalog, GC, pool.id, now - QUIET, (ITSELF, now)).await?
            {
                continue;
            }
            let asker = Asker::itself(pool.organisation_id);
            let (name, why) = (pool.name, reason.words());
            let job = match self.gc(asker, pool.id, reason.parameters()).await {
                Ok(job) => job,
                // It may have been let go of; others wait for their turn.
                Err(error) => {
                    tracing::warn!("garbage of the pool {name} is not collected: {error}");
                    continue;
                }
            };
            tracing::info!("garbage of the pool {name} is collected by job {}: {why}", job.id);
            queued.push(job);
        }
        Ok(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEN: Collecting = Collecting {
        overwritten: 20,
        free: 10,
        every: Duration::from_secs(86_400),
        pause: Duration::from_secs(300),
    };
    const KNOWN: Known = Known {
        bytes: 1 << 30,
        chunks: 1000,
        roots: 1,
        overwritten: 0,
        free: Some(50),
        ago: Duration::from_secs(3600),
        took: Duration::from_secs(1),
        was_little: false,
    };

    #[test]
    fn it_is_time_for_any_of_three_reasons() {
        let why = |known: Known| WHEN.decide(&known);
        assert_eq!(why(KNOWN), None);
        assert_eq!(why(Known { overwritten: 199, ..KNOWN }), None);
        let overwritten = Known { overwritten: 200, ..KNOWN };
        assert_eq!(why(overwritten), Some(Reason::Overwritten));
        assert_eq!(why(Known { free: Some(10), ..KNOWN }), None);
        assert_eq!(why(Known { free: None, ..KNOWN }), None);
        // What is short comes before what is much.
        assert_eq!(why(Known { free: Some(9), ..overwritten }), Some(Reason::Room));
        let day = Duration::from_secs(86_400);
        assert_eq!(why(Known { ago: day, ..KNOWN }), Some(Reason::Time));
        assert_eq!(why(Known { ago: day - Duration::from_secs(1), ..KNOWN }), None);
        // Counts that are larger than any pool are no trouble.
        let huge = Known { overwritten: u64::MAX, chunks: u64::MAX, ..KNOWN };
        assert_eq!(why(huge), Some(Reason::Overwritten));
    }

    #[test]
    fn it_is_never_time_where_nothing_was_let_go_or_nothing_is_stored() {
        let full = Known { free: Some(0), overwritten: 1000, ..KNOWN };
        assert_eq!(WHEN.decide(&full), Some(Reason::Room));
        assert_eq!(WHEN.decide(&Known { roots: 0, ..full }), None);
        assert_eq!(WHEN.decide(&Known { bytes: LEAST - 1, ..full }), None);
        let off = Collecting { overwritten: 0, free: 0, every: Duration::ZERO, ..WHEN };
        assert_eq!(off.decide(&Known { ago: Duration::MAX, ..full }), None);
    }

    #[test]
    fn the_next_waits_longer_after_one_that_took_long_or_found_little() {
        let full = Known { free: Some(0), ..KNOWN };
        let after = |ago: u64, known: Known| {
            WHEN.decide(&Known { ago: Duration::from_secs(ago), ..known }).is_some()
        };
        assert!(after(300, full) && !after(299, full));
        let long = Known { took: Duration::from_secs(600), ..full };
        assert!(after(2400, long) && !after(2399, long));
        let little = Known { was_little: true, ..full };
        assert!(after(3600, little) && !after(3599, little));
        let calm = Known { was_little: true, ..KNOWN };
        assert!(after(7 * 86_400, calm) && !after(7 * 86_400 - 1, calm));
    }
}
