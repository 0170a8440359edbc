//! Rows that have had their time, removed some at a time so that nobody waits long for the database.
//! What that time is is decided above. The audit trail is not among them.

use jiff::Timestamp;

use crate::Result;
use crate::db::Catalog;
use crate::sql::Sql;

/// What can be removed because it is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Lines of the logs of jobs that were over before then.
    Lines,
    /// Jobs that were over before then, with what is left of their logs.
    Jobs,
    /// Events of before then.
    Events,
    /// Sessions that had ended by then.
    Sessions,
    /// Answers to requests with an `Idempotency-Key` of before then.
    Idempotency,
    /// What signed requests carried, and no request may carry before then.
    Nonces,
    /// Approvals that had lapsed before then.
    Approvals,
    /// Samples of hours before then.
    Hours,
    /// Samples of days before then.
    Days,
}

impl Old {
    /// All of them, in an order in which they can be removed.
    pub const ALL: [Self; 9] = [
        Self::Lines,
        Self::Jobs,
        Self::Events,
        Self::Sessions,
        Self::Idempotency,
        Self::Nonces,
        Self::Approvals,
        Self::Hours,
        Self::Days,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines of logs",
            Self::Jobs => "jobs",
            Self::Events => "events",
            Self::Sessions => "sessions",
            Self::Idempotency => "idempotency keys",
            Self::Nonces => "nonces",
            Self::Approvals => "approvals",
            Self::Hours => "hourly samples",
            Self::Days => "daily samples",
        }
    }

    /// The statement, with a place for the time and one for the number of rows.
    fn statement(self) -> &'static str {
        match self {
            Self::Lines => {
                "DELETE FROM job_log WHERE id IN (SELECT l.id FROM job_log l \
                 JOIN jobs j ON j.id = l.job_id WHERE j.ended_at < ? LIMIT ?)"
            }
            Self::Jobs => {
                "DELETE FROM jobs WHERE id IN \
                 (SELECT id FROM jobs WHERE ended_at < ? ORDER BY ended_at LIMIT ?)"
            }
            Self::Events => {
                "DELETE FROM events WHERE id IN \
                 (SELECT id FROM events WHERE at < ? ORDER BY at LIMIT ?)"
            }
            Self::Sessions => {
                "DELETE FROM sessions WHERE id IN (SELECT s.id FROM sessions s, \
                 (SELECT CAST(? AS BIGINT) AS before) b \
                 WHERE COALESCE(s.refresh_expires_at, s.expires_at) < b.before \
                 OR (s.idle IS NOT NULL AND s.used_at + s.idle < b.before) \
                 ORDER BY s.id LIMIT ?)"
            }
            Self::Idempotency => {
                "DELETE FROM idempotency WHERE (user_id, key) IN \
                 (SELECT user_id, key FROM idempotency WHERE created_at < ? \
                  ORDER BY created_at LIMIT ?)"
            }
            Self::Nonces => {
                "DELETE FROM nonces WHERE (key_id, nonce) IN \
                 (SELECT key_id, nonce FROM nonces WHERE expires_at < ? \
                  ORDER BY expires_at LIMIT ?)"
            }
            Self::Approvals => {
                "DELETE FROM approvals WHERE id IN \
                 (SELECT id FROM approvals WHERE expires_at < ? ORDER BY id LIMIT ?)"
            }
            Self::Hours => {
                "DELETE FROM pool_samples WHERE id IN (SELECT id FROM pool_samples \
                 WHERE grain = 'hour' AND at < ? ORDER BY at LIMIT ?)"
            }
            Self::Days => {
                "DELETE FROM pool_samples WHERE id IN (SELECT id FROM pool_samples \
                 WHERE grain = 'day' AND at < ? ORDER BY at LIMIT ?)"
            }
        }
    }
}

/// Removes what is from before then, so many rows at most, in one short transaction; how many there
/// were.
///
/// # Errors
/// Those of the database.
pub async fn remove(catalog: &Catalog, what: Old, before: Timestamp, limit: u32) -> Result<u64> {
    catalog.execute(Sql::new(what.statement()).bind(before).bind(limit)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{Value, testing};

    const ROWS: &[&str] = &[
        "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)",
        "INSERT INTO users (id, organisation_id, name, folded, source, enabled, created_at) \
         VALUES (1, 1, 'jo', 'jo', 'local', 1, 0)",
        "INSERT INTO pools (id, uuid, name, organisation_id, path, created_at) \
         VALUES (1, '00', 'p', 1, '/p', 0)",
        "INSERT INTO api_keys (id, user_id, organisation_id, name, prefix, hash, enabled, \
         created_at) SELECT 1, 1, 1, 'k', 'k', hash, 1, 0 FROM audit_head",
    ];

    /// Three rows of each kind: of the times 10, 20 and 30.
    const KINDS: &[(&str, &str)] = &[
        (
            "jobs",
            "INSERT INTO jobs (id, kind, state, priority, organisation_id, user_name, parameters, \
             queued_at, run_at, changed_at, ended_at) \
             VALUES (?, 'gc', 'failed', 0, 1, '', '{}', 0, 0, 0, ?)",
        ),
        ("job_log", "INSERT INTO job_log (job_id, level, message, at) VALUES (?, 'info', 'x', ?)"),
        (
            "events",
            "INSERT INTO events (id, severity, kind, organisation_id, message, search, at) \
             VALUES (?, 'info', 'x', 1, 'x', 'x', ?)",
        ),
        (
            "idempotency",
            "INSERT INTO idempotency (user_id, key, request, created_at) \
             SELECT CAST(? AS BIGINT), 'k', hash, CAST(? AS BIGINT) FROM audit_head",
        ),
        ("nonces", "INSERT INTO nonces (key_id, nonce, expires_at) SELECT 1, CAST(? AS TEXT), ?"),
        (
            "approvals",
            "INSERT INTO approvals (id, organisation_id, operation, object, request, asker, \
             asked_at, state, expires_at) VALUES (?, 1, 'x', 'x', 'x', 'x', 0, 'asked', ?)",
        ),
        (
            "pool_samples",
            "INSERT INTO pool_samples (bucket, at, pool_id, grain, images, chunks, logical_bytes, \
             unique_bytes, unique_stored_bytes, stored_bytes, disk_bytes, missing_disks, \
             bad_copies) VALUES (?, ?, 1, 'hour', 0, 0, 0, 0, 0, 0, 0, 0, 0)",
        ),
    ];

    #[tokio::test]
    async fn what_is_old_goes_in_pieces_and_the_rest_stays() {
        testing::each(|catalog| async move {
            for sql in ROWS {
                catalog.execute(Sql::new(sql)).await.unwrap();
            }
            for (table, sql) in KINDS {
                for (id, at) in [(1i64, 10i64), (2, 20), (3, 30)] {
                    let text = Value::from(id.to_string());
                    let id = if *table == "nonces" { text } else { Value::from(id) };
                    catalog.execute(Sql::new(sql).bind(id).bind(at)).await.unwrap();
                }
            }
            let before = Timestamp::from_microsecond(25).unwrap();
            let gone = |what, limit| {
                let catalog = catalog.clone();
                async move { remove(&catalog, what, before, limit).await.unwrap() }
            };
            for what in Old::ALL {
                let there = if matches!(what, Old::Sessions | Old::Days) { 0 } else { 2 };
                let (one, rest) = (gone(what, 1).await, gone(what, 10).await);
                assert_eq!(one + rest, there, "{}", what.name());
                assert!(one <= 1);
            }
            for (table, _) in KINDS {
                let mut sql = Sql::new("SELECT COUNT(*) FROM ");
                sql.push(table);
                let count: i64 = catalog.rows(sql).await.unwrap().remove(0).take().unwrap();
                assert_eq!(count, 1, "{table}");
            }
        })
        .await;
    }
}
