//! The audit trail. Every line holds the hash of the one before; what is hashed, and how, is the
//! business of the crate above.

use std::fmt;

use jiff::Timestamp;

use crate::list::{Field, Kind, Resource, Search};
use crate::{Engine, Error, Record, Result, Row, Sql, Tx};

/// The audit trail, as a list.
pub static AUDIT: Resource = Resource {
    name: "audit line",
    from: "audit",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "The line's number, without gaps."),
        Field::new("at", Kind::Time, "When it was done."),
        Field::new("user_id", Kind::Integer, "Who did it.").nullable(),
        Field::new("user_name", Kind::Text, "The name of who did it, as it was then.").searched(),
        Field::new("organisation_id", Kind::Integer, "Where it was done.").nullable(),
        Field::new("via", Kind::Text, "How the user was known: by a password, a key, ..."),
        Field::new("address", Kind::Text, "From where.").searched(),
        Field::new("operation", Kind::Text, "What was done.").searched(),
        Field::new("object", Kind::Text, "To what.").searched(),
        Field::new("result", Kind::Text, "What came of it: ok, or why not.").searched(),
    ],
    order: ("id", true),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "search", trigrams: Some("audit_trigrams") }),
    counted: None,
};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Its number, from 1, without gaps.
    pub id: i64,
    /// When it was done.
    pub at: Timestamp,
    /// Who did it.
    pub user_id: Option<i64>,
    /// That one's name then.
    pub user_name: String,
    /// The organisation of what it was done to.
    pub organisation_id: Option<i64>,
    /// How the user was known.
    pub via: String,
    /// From where.
    pub address: String,
    /// What was done.
    pub operation: String,
    /// To what.
    pub object: String,
    /// What came of it.
    pub result: String,
    /// More of it.
    pub detail: String,
    /// The hash of the line before.
    pub previous: Vec<u8>,
    /// The hash of this line.
    pub hash: Vec<u8>,
}

impl Record for AuditLine {
    const COLUMNS: &'static str = "id, at, user_id, user_name, organisation_id, via, address, \
        operation, object, result, detail, previous, hash";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            at: row.take()?,
            user_id: row.take()?,
            user_name: row.take()?,
            organisation_id: row.take()?,
            via: row.take()?,
            address: row.take()?,
            operation: row.take()?,
            object: row.take()?,
            result: row.take()?,
            detail: row.take()?,
            previous: row.take()?,
            hash: row.take()?,
        })
    }
}

impl AuditLine {
    /// So many lines behind this number.
    pub fn after(id: i64, limit: i64) -> Sql {
        Sql::new("FROM audit WHERE id > ? ORDER BY id LIMIT ?").bind(id).bind(limit)
    }

    /// Lines that the head doesn't know of, or that no chain has.
    pub fn strays(limit: i64) -> Sql {
        let sql = Sql::new(
            "FROM audit WHERE id < 1 OR id > (SELECT last FROM audit_head WHERE id = 1) \
             ORDER BY id LIMIT ?",
        );
        sql.bind(limit)
    }

    /// Writes the line.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn insert(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "INSERT INTO audit (id, at, user_id, user_name, organisation_id, via, address, \
             operation, object, result, detail, previous, hash) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        );
        let sql = sql.bind(self.id).bind(self.at).bind(self.user_id).bind(&self.user_name);
        let sql = sql.bind(self.organisation_id).bind(&self.via).bind(&self.address);
        let sql = sql.bind(&self.operation).bind(&self.object).bind(&self.result);
        let sql = sql.bind(&self.detail).bind(&self.previous[..]).bind(&self.hash[..]);
        tx.execute(sql).await.map(drop)
    }
}

/// Where the chain ends.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// The number of the last line; 0: there is none.
    pub last: i64,
    /// Its hash.
    pub hash: Vec<u8>,
    /// What proves that this program wrote both.
    pub mac: Option<Vec<u8>>,
}

impl fmt::Debug for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditHead").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Record for AuditHead {
    const COLUMNS: &'static str = "last, hash, mac";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { last: row.take()?, hash: row.take()?, mac: row.take()? })
    }
}

impl AuditHead {
    /// The head.
    pub fn only() -> Sql {
        Sql::new("FROM audit_head WHERE id = 1")
    }

    /// The head; nobody else, on whichever node, gets it until the transaction ends.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it was removed; those of the database.
    pub async fn lock(tx: &mut Tx) -> Result<Self> {
        let sql = match tx.engine() {
            // A transaction that may write is alone there.
            Engine::Sqlite => Self::only(),
            Engine::Postgres => Self::only().and(" FOR UPDATE"),
        };
        tx.find_one(sql).await?.ok_or(Error::NotFound { what: "head of the audit trail" })
    }

    /// Writes the head.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new("UPDATE audit_head SET last = ?, hash = ?, mac = ? WHERE id = 1");
        let sql = sql.bind(self.last).bind(&self.hash[..]).bind(self.mac.clone());
        tx.execute(sql).await.map(drop)
    }
}
