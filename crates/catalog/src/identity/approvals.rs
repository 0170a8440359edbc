//! Deeds that wait for a second administrator.

use jiff::Timestamp;

use crate::list::{Field, Kind, Resource, Search};
use crate::{Record, Result, Row, Sql, Tx};

/// Approvals, as a list.
pub static APPROVALS: Resource = Resource {
    name: "approval",
    from: "approvals",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "The approval's number."),
        Field::new("organisation_id", Kind::Integer, "Whose object it is about."),
        Field::new("operation", Kind::Text, "What is to be done.").searched(),
        Field::new("object", Kind::Text, "To what.").searched(),
        Field::new("asked_by", Kind::Integer, "Who asks.").nullable(),
        Field::new("asker", Kind::Text, "The name of who asks.").searched(),
        Field::new("asked_at", Kind::Time, "Since when."),
        Field::new("expires_at", Kind::Time, "Until when it can be decided and used."),
        Field::new("state", Kind::Enum(&["asked", "approved", "refused", "used"]), "How it is."),
        Field::new("decided_by", Kind::Integer, "Who decided.").nullable(),
        Field::new("decided_at", Kind::Time, "When.").nullable(),
    ],
    order: ("asked_at", true),
    organisation: Some("organisation_id"),
    search: Some(Search {
        column: "LOWER(operation || ' ' || object || ' ' || asker)",
        trigrams: None,
    }),
    counted: None,
};

/// A deed that waits, or waited, for a second administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its number.
    pub id: i64,
    /// Whose object it is about.
    pub organisation_id: i64,
    /// What is to be done.
    pub operation: String,
    /// To what.
    pub object: String,
    /// The request, as a hash: only the same passes.
    pub request: String,
    /// Who asks; none for one at the appliance itself.
    pub asked_by: Option<i64>,
    /// The name of who asks.
    pub asker: String,
    /// Since when.
    pub asked_at: Timestamp,
    /// Until when it can be decided and used.
    pub expires_at: Timestamp,
    /// `asked`, `approved`, `refused` or `used`.
    pub state: String,
    /// Who decided.
    pub decided_by: Option<i64>,
    /// When.
    pub decided_at: Option<Timestamp>,
}

impl Record for Approval {
    const COLUMNS: &'static str = "id, organisation_id, operation, object, request, asked_by, \
        asker, asked_at, expires_at, state, decided_by, decided_at";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            organisation_id: row.take()?,
            operation: row.take()?,
            object: row.take()?,
            request: row.take()?,
            asked_by: row.take()?,
            asker: row.take()?,
            asked_at: row.take()?,
            expires_at: row.take()?,
            state: row.take()?,
            decided_by: row.take()?,
            decided_at: row.take()?,
        })
    }
}

impl Approval {
    /// The approval of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM approvals WHERE id = ?").bind(id)
    }

    /// What this one asked for and nobody used, newest first.
    pub fn open(asker: &str, operation: &str, object: &str, request: &str, now: Timestamp) -> Sql {
        let sql = Sql::new(
            "FROM approvals WHERE asker = ? AND operation = ? AND object = ? AND request = ? \
             AND expires_at > ? AND state <> 'used' ORDER BY id DESC",
        );
        sql.bind(asker).bind(operation).bind(object).bind(request).bind(now)
    }

    /// What this one asked for and nobody decided.
    pub fn asked_by(asker: &str, now: Timestamp) -> Sql {
        let sql = Sql::new("FROM approvals WHERE asker = ? AND state = 'asked' AND expires_at > ?");
        sql.bind(asker).bind(now)
    }

    /// Writes a new one, whose number is not looked at; gives its number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn insert(&self, tx: &mut Tx) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO approvals (organisation_id, operation, object, request, asked_by, asker, \
             asked_at, expires_at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        );
        let sql = sql.bind(self.organisation_id).bind(&self.operation).bind(&self.object);
        let sql = sql.bind(&self.request).bind(self.asked_by).bind(&self.asker);
        tx.insert(sql.bind(self.asked_at).bind(self.expires_at).bind(&self.state)).await
    }

    /// Decides one that is asked for; false when it isn't any more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn decide(
        tx: &mut Tx,
        id: i64,
        state: &'static str,
        by: i64,
        at: Timestamp,
    ) -> Result<bool> {
        let sql = Sql::new(
            "UPDATE approvals SET state = ?, decided_by = ?, decided_at = ? \
             WHERE id = ? AND state = 'asked' AND expires_at > ?",
        );
        let sql = sql.bind(state).bind(by).bind(at).bind(id).bind(at);
        Ok(tx.execute(sql).await? == 1)
    }

    /// Forgets those of an organisation that nobody can use any more; the audit trail has them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn remove_ended(tx: &mut Tx, organisation: i64, now: Timestamp) -> Result<u64> {
        let sql = Sql::new(
            "DELETE FROM approvals WHERE organisation_id = ? \
             AND (state IN ('used', 'refused') OR expires_at <= ?)",
        );
        tx.execute(sql.bind(organisation).bind(now)).await
    }

    /// Uses up one that is approved; false when another was faster.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn consume(tx: &mut Tx, id: i64) -> Result<bool> {
        let sql =
            Sql::new("UPDATE approvals SET state = 'used' WHERE id = ? AND state = 'approved'");
        Ok(tx.execute(sql.bind(id)).await? == 1)
    }
}
