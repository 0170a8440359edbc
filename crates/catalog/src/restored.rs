//! A catalogue that comes back from a backup: what was under way when that was made is over.

use crate::{Catalog, Result, Sql};

/// Ends in a catalogue that nobody works on what may have been done, taken back or used up since: jobs
/// that were not over, sessions, approvals, and answers that are kept for requests that come again.
///
/// # Errors
/// Those of the database.
pub async fn settle(catalog: &Catalog, why: &str) -> Result<()> {
    let mut tx = catalog.begin().await?;
    let now = jiff::Timestamp::now();
    let sql = "UPDATE jobs SET state = 'canceled', cancel = 1, ended_at = ?, changed_at = ?, \
               error = ?, worker = NULL, lease_until = NULL WHERE state IN ('queued', 'running')";
    tx.execute(Sql::new(sql).bind(now).bind(now).bind(why)).await?;
    for sql in [
        "DELETE FROM sessions",
        "DELETE FROM idempotency",
        "UPDATE approvals SET expires_at = 0 WHERE state IN ('asked', 'approved')",
    ] {
        tx.execute(Sql::new(sql)).await?;
    }
    tx.commit().await
}
