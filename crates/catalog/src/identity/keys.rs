//! API keys, and the numbers that signed requests use once.

use std::fmt;

use jiff::Timestamp;

use super::{changed, there};
use crate::list::{Field, Kind, Resource, Search};
use crate::{Record, Result, Row, Sql, Tx};

/// API keys, as a list.
pub static API_KEYS: Resource = Resource {
    name: "key",
    from: "api_keys",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "The key's number."),
        Field::new("user_id", Kind::Integer, "Whose key it is."),
        Field::new("organisation_id", Kind::Integer, "The organisation of that user."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("prefix", Kind::Text, "The part of it that is not secret.").searched(),
        Field::new("enabled", Kind::Bool, "Whether it can be used."),
        Field::new("dialect", Kind::Text, "The dialect that it is for; null: the native API.")
            .nullable(),
        Field::new("created_at", Kind::Time, "When it was made."),
        Field::new("expires_at", Kind::Time, "When it ends.").nullable(),
        Field::new("last_used_at", Kind::Time, "When it was last used.").nullable(),
    ],
    order: ("name", false),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "(LOWER(name) || ' ' || prefix)", trigrams: None }),
    counted: None,
};

/// An API key, with nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub user_id: i64,
    /// The organisation of that user.
    pub organisation_id: i64,
    /// Its name.
    pub name: String,
    /// The part of it that is not secret.
    pub prefix: String,
    /// Whether it can be used.
    pub enabled: bool,
    /// The names of its rights, separated by spaces; none: all of its user's.
    pub rights: Option<String>,
    /// The numbers of the pools it is for, separated by spaces; none: all.
    pub pools: Option<String>,
    /// The operations it is for, separated by spaces; none: all.
    pub operations: Option<String>,
    /// Whether it can be shown again.
    pub shown_again: bool,
    /// The dialect that it is for; none: the native API.
    pub dialect: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to within minutes.
    pub last_used_at: Option<Timestamp>,
    /// Counts changes.
    pub version: i64,
}

impl Record for ApiKey {
    const COLUMNS: &'static str = "id, user_id, organisation_id, name, prefix, enabled, rights, \
        pools, operations, CASE WHEN sealed IS NULL THEN 0 ELSE 1 END, dialect, created_at, \
        expires_at, last_used_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            user_id: row.take()?,
            organisation_id: row.take()?,
            name: row.take()?,
            prefix: row.take()?,
            enabled: row.take()?,
            rights: row.take()?,
            pools: row.take()?,
            operations: row.take()?,
            shown_again: row.take()?,
            dialect: row.take()?,
            created_at: row.take()?,
            expires_at: row.take()?,
            last_used_at: row.take()?,
            version: row.take()?,
        })
    }
}

/// What is needed to make a key.
#[derive(Clone)]
pub struct NewKey {
    /// See [`ApiKey`].
    pub user_id: i64,
    /// See [`ApiKey`].
    pub organisation_id: i64,
    /// See [`ApiKey`].
    pub name: String,
    /// See [`ApiKey`].
    pub prefix: String,
    /// The SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// The key itself, sealed, where it must be shown again.
    pub sealed: Option<Vec<u8>>,
    /// See [`ApiKey`].
    pub enabled: bool,
    /// See [`ApiKey`].
    pub rights: Option<String>,
    /// See [`ApiKey`].
    pub pools: Option<String>,
    /// See [`ApiKey`].
    pub operations: Option<String>,
    /// See [`ApiKey`].
    pub dialect: Option<String>,
    /// See [`ApiKey`].
    pub expires_at: Option<Timestamp>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl ApiKey {
    /// The key of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM api_keys WHERE id = ?").bind(id)
    }

    /// The key with this prefix.
    pub fn by_prefix(prefix: &str) -> Sql {
        Sql::new("FROM api_keys WHERE prefix = ?").bind(prefix)
    }

    /// A user's keys.
    pub fn of_user(user: i64) -> Sql {
        Sql::new("FROM api_keys WHERE user_id = ? ORDER BY id").bind(user)
    }

    /// Makes a key; gives its number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn insert(tx: &mut Tx, new: &NewKey, at: Timestamp) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO api_keys (user_id, organisation_id, name, prefix, hash, sealed, enabled, \
             rights, pools, operations, dialect, created_at, expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        );
        let sql = sql.bind(new.user_id).bind(new.organisation_id).bind(&new.name);
        let sql = sql.bind(&new.prefix).bind(&new.hash[..]).bind(new.sealed.clone());
        let sql = sql.bind(new.enabled).bind(new.rights.clone()).bind(new.pools.clone());
        let sql = sql.bind(new.operations.clone()).bind(new.dialect.clone());
        tx.insert(sql.bind(at).bind(new.expires_at)).await
    }

    /// Writes what can be changed, unless somebody else did since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`](crate::Error::Changed); those of the database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "UPDATE api_keys SET name = ?, enabled = ?, rights = ?, pools = ?, operations = ?, \
             expires_at = ?, version = version + 1 WHERE id = ? AND version = ?",
        );
        let sql = sql.bind(&self.name).bind(self.enabled).bind(self.rights.clone());
        let sql = sql.bind(self.pools.clone()).bind(self.operations.clone());
        let sql = sql.bind(self.expires_at).bind(self.id).bind(self.version);
        changed(tx.execute(sql).await?, "key")
    }

    /// A user's keys go with it to another organisation.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn move_with(tx: &mut Tx, user: i64, organisation: i64) -> Result<()> {
        let sql = Sql::new("UPDATE api_keys SET organisation_id = ? WHERE user_id = ?");
        tx.execute(sql.bind(organisation).bind(user)).await.map(drop)
    }

    /// Tells that it was used.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn used(tx: &mut Tx, id: i64, at: Timestamp) -> Result<()> {
        let sql = Sql::new("UPDATE api_keys SET last_used_at = ? WHERE id = ?");
        tx.execute(sql.bind(at).bind(id)).await.map(drop)
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        there(tx.execute(Sql::new("DELETE FROM api_keys WHERE id = ?").bind(id)).await?, "key")
    }
}

/// What a key is checked against.
#[derive(Clone)]
pub struct KeySecrets {
    /// The SHA-256 of the whole key.
    pub hash: Vec<u8>,
    /// The key itself, sealed.
    pub sealed: Option<Vec<u8>>,
}

impl fmt::Debug for KeySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecrets")
    }
}

impl Record for KeySecrets {
    const COLUMNS: &'static str = "hash, sealed";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { hash: row.take()?, sealed: row.take()? })
    }
}

/// The numbers that signed requests use once.
#[derive(Debug)]
pub struct Nonce;

impl Nonce {
    /// Uses a number; false when it was used before. Forgets those that have ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn consume(
        tx: &mut Tx,
        key: i64,
        nonce: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<bool> {
        tx.execute(Sql::new("DELETE FROM nonces WHERE expires_at < ?").bind(now)).await?;
        let sql = Sql::new(
            "INSERT INTO nonces (key_id, nonce, expires_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        );
        Ok(tx.execute(sql.bind(key).bind(nonce).bind(expires_at)).await? == 1)
    }
}
