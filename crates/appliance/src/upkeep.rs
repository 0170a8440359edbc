//! What the appliance forgets: rows that have had their time, as the settings say.
//!
//! One node of a catalogue does it at a time, some rows in a transaction, so that nobody waits long.
//! The audit trail is never shortened: a chain without its beginning proves nothing.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::old::{self, Old};
use strongroom_catalog::{Catalog, leases};

use crate::{Result, Settings, Values};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(60);
/// Rows in one transaction.
const BATCH: u32 = 500;
/// How long one who took the turn is believed to be at it without saying so again.
const LEASE: Duration = Duration::from_secs(120);
/// The name of the turn.
const TURN: &str = "upkeep";

/// Forgets what is old.
pub struct Upkeep {
    catalog: Catalog,
    settings: Settings,
    holder: String,
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upkeep({})", self.holder)
    }
}

impl Upkeep {
    /// Of this catalogue; `holder` is a name that no other node has.
    pub fn new(catalog: Catalog, settings: Settings, holder: impl Into<String>) -> Self {
        Self { catalog, settings, holder: holder.into() }
    }

    /// Works for as long as it is polled.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            match self.turn(Timestamp::now()).await {
                Ok(removed) => {
                    for (what, count) in removed {
                        tracing::info!("{count} old {} were removed", what.name());
                    }
                }
                Err(error) => tracing::warn!("what is old can't be removed: {error}"),
            }
        }
    }

    /// Removes what is old at this time, if no other node is at it; what there was, and how much.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn turn(&self, now: Timestamp) -> Result<Vec<(Old, u64)>> {
        let mut all = Vec::new();
        let values = self.settings.current();
        for what in Old::ALL {
            let Some(before) = before(what, &values, now) else { continue };
            let mut count = 0;
            loop {
                if !leases::take(&self.catalog, TURN, &self.holder, LEASE).await? {
                    return Ok(all);
                }
                let removed = old::remove(&self.catalog, what, before, BATCH).await?;
                count += removed;
                if removed < u64::from(BATCH) {
                    break;
                }
            }
            if count > 0 {
                all.push((what, count));
            }
        }
        Ok(all)
    }
}

/// Before when something is old; None: never.
fn before(what: Old, values: &Values, now: Timestamp) -> Option<Timestamp> {
    let kept = match what {
        Old::Lines | Old::Jobs => Some(values.jobs_kept).filter(|kept| !kept.is_zero())?,
        Old::Events => Some(values.events_kept).filter(|kept| !kept.is_zero())?,
        Old::Idempotency => values.idempotency_kept,
        // These say themselves when they end.
        Old::Sessions | Old::Nonces => Duration::ZERO,
        Old::Approvals => values.approvals_kept,
        Old::Hours => values.stats_hours_kept,
        Old::Days => values.stats_days_kept,
    };
    now.checked_sub(SignedDuration::try_from(kept).ok()?).ok()
}
