//! Where the audit trail is sent as it grows.

use jiff::Timestamp;

use super::changed;
use crate::{Record, Result, Row, Sql, Tx};

/// Where the audit trail is sent, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSender {
    /// Where, as JSON.
    pub settings: String,
    /// The number of the last line that was sent.
    pub last: i64,
    /// When.
    pub sent_at: Option<Timestamp>,
    /// Why it can't be sent at the moment.
    pub trouble: Option<String>,
    /// Counts changes of where.
    pub version: i64,
}

impl Record for AuditSender {
    const COLUMNS: &'static str = "settings, last, sent_at, trouble, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            settings: row.take()?,
            last: row.take()?,
            sent_at: row.take()?,
            trouble: row.take()?,
            version: row.take()?,
        })
    }
}

impl AuditSender {
    /// It; there may be none.
    pub fn only() -> Sql {
        Sql::new("FROM audit_sender WHERE id = 1")
    }

    /// Writes where, and from behind which line; another version than the one that was there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set(tx: &mut Tx, settings: &str, last: i64, version: i64) -> Result<()> {
        tx.execute(Sql::new("DELETE FROM audit_sender WHERE id = 1")).await?;
        let sql =
            Sql::new("INSERT INTO audit_sender (id, settings, last, version) VALUES (1, ?, ?, ?)");
        changed(tx.execute(sql.bind(settings).bind(last).bind(version)).await?, "audit sender")
    }

    /// Sends it nowhere any more; false when it went nowhere.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn remove(tx: &mut Tx) -> Result<bool> {
        Ok(tx.execute(Sql::new("DELETE FROM audit_sender WHERE id = 1")).await? == 1)
    }

    /// Takes it, or keeps it, for a while; false when another node has it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take(tx: &mut Tx, worker: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
        let sql = Sql::new(
            "UPDATE audit_sender SET worker = ?, lease_until = ? WHERE id = 1 \
             AND (worker IS NULL OR worker = ? OR lease_until < ?)",
        );
        Ok(tx.execute(sql.bind(worker).bind(until).bind(worker).bind(now)).await? == 1)
    }

    /// Lines up to this one were sent by this node.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn sent(&self, tx: &mut Tx, worker: &str, last: i64, at: Timestamp) -> Result<()> {
        let sql = Sql::new(
            "UPDATE audit_sender SET last = ?, sent_at = ?, trouble = NULL \
             WHERE id = 1 AND version = ? AND worker = ? AND last < ?",
        );
        let sql = sql.bind(last).bind(at).bind(self.version).bind(worker).bind(last);
        tx.execute(sql).await.map(drop)
    }

    /// It can't be sent.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn failed(&self, tx: &mut Tx, worker: &str, why: &str) -> Result<()> {
        let sql = Sql::new(
            "UPDATE audit_sender SET trouble = ? WHERE id = 1 AND version = ? AND worker = ?",
        );
        tx.execute(sql.bind(why).bind(self.version).bind(worker)).await.map(drop)
    }
}
