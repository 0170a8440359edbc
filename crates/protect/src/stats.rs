//! Pools and jobs in figures.

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::jobs::{self, Counted, Tally};
use strongroom_catalog::list::Scope;
use strongroom_engine::pool::{Collected, Collections};
use strongroom_storage::PoolStats;

use crate::{Protect, Result, works};

/// What the last collection left of a pool's garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// When that was.
    pub at: Timestamp,
    /// Bytes in packs in use that nothing needs.
    pub bytes: u64,
}

/// A pool in figures.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolFigures {
    /// What its storage knows.
    pub stats: PoolStats,
    /// What the last collection left; none: there was none, or it is forgotten.
    pub garbage: Option<Garbage>,
    /// What was collected since it was opened here, by whatever; none: it isn't open.
    pub collections: Option<Collections>,
    /// When a backup to it last came to a good end.
    pub last_backup: Option<Timestamp>,
}

/// Pools, and jobs within a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// From when.
    pub from: Timestamp,
    /// To before when.
    pub to: Timestamp,
    /// The pools.
    pub pools: Vec<PoolFigures>,
    /// Jobs that were over within that time.
    pub ended: Vec<Tally>,
    /// Jobs that are not over now.
    pub open: Vec<Tally>,
}

/// Whose figures are wanted.
#[derive(Clone, Debug)]
pub struct StatsOf {
    /// Whose pools and jobs.
    pub scope: Scope,
    /// Only these pools, and jobs on them.
    pub pools: Option<Vec<i64>>,
}

impl Protect {
    /// Pools as they are, and jobs within a time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn stats(&self, of: StatsOf, from: Timestamp, to: Timestamp) -> Result<Stats> {
        let mut pools = Vec::new();
        for stats in self.storage().stats(&of.scope, of.pools.as_deref()).await? {
            pools.push(self.figures(stats).await?);
        }
        let catalog = self.storage().catalog();
        let counted = Counted { scope: &of.scope, pools: of.pools };
        let ended = jobs::ended(catalog, &counted, from, to).await?;
        let open = jobs::open(catalog, &counted).await?;
        Ok(Stats { from, to, pools, ended, open })
    }

    /// A pool in figures.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn pool_stats(&self, id: i64) -> Result<PoolFigures> {
        self.figures(self.storage().pool_stats(id).await?).await
    }

    async fn figures(&self, stats: PoolStats) -> Result<PoolFigures> {
        let (catalog, pool) = (self.storage().catalog(), stats.pool.id);
        let garbage = jobs::last_good(catalog, works::GC, pool).await?;
        let garbage = garbage.and_then(|(at, result)| garbage_of(at, result.as_deref()?));
        let collections = self.storage().collections(pool);
        // Not all collections are jobs.
        let here = collections.and_then(|all| left_by(&all.last?));
        let garbage = garbage.into_iter().chain(here).max_by_key(|garbage| garbage.at);
        let last_backup = jobs::last_good(catalog, works::BACKUP, pool).await?.map(|(at, _)| at);
        Ok(PoolFigures { stats, garbage, collections, last_backup })
    }
}

/// What a collection says that it left; one that only looked leaves what it found, too.
fn garbage_of(at: Timestamp, result: &str) -> Option<Garbage> {
    let result: serde_json::Value = serde_json::from_str(result).ok()?;
    let mut bytes = result["bytes_unused"].as_u64()?;
    if result["dry_run"] == true {
        bytes = bytes.saturating_add(result["bytes_freed"].as_u64()?);
    }
    Some(Garbage { at, bytes })
}

/// What a collection of this process left.
fn left_by(last: &Collected) -> Option<Garbage> {
    let ago = SignedDuration::try_from(last.at.elapsed()).ok()?;
    let at = Timestamp::now().checked_sub(ago).ok()?;
    Some(Garbage { at, bytes: last.report.bytes_unused })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_what_the_last_collection_left() {
        let at = Timestamp::UNIX_EPOCH;
        let bytes = |text| garbage_of(at, text).map(|garbage| garbage.bytes);
        assert_eq!(bytes(r#"{"bytes_unused":5,"bytes_freed":7,"dry_run":false}"#), Some(5));
        assert_eq!(bytes(r#"{"bytes_unused":5,"bytes_freed":7,"dry_run":true}"#), Some(12));
        assert_eq!(bytes(r#"{"other":5}"#), None);
        assert_eq!(bytes("not JSON"), None);
    }
}
