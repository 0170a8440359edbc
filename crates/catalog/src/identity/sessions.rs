//! Sessions, and the tokens that stand for them.

use std::fmt;

use jiff::Timestamp;

use super::there;
use crate::list::{Field, Kind, Resource, Search};
use crate::value::single;
use crate::{Catalog, Record, Result, Row, Sql, Tx};

/// Sessions, as a list.
pub static SESSIONS: Resource = Resource {
    name: "session",
    from: "(SELECT s.*, u.name AS user_name, u.organisation_id AS organisation_id \
           FROM sessions s JOIN users u ON u.id = s.user_id) AS sessions",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "The session's number."),
        Field::new("user_id", Kind::Integer, "Whose session it is."),
        Field::new("user_name", Kind::Text, "That user's name.").searched(),
        Field::new("kind", Kind::Enum(&["session", "pair", "jwt"]), "What stands for it."),
        Field::new("address", Kind::Text, "From where it was opened.").searched(),
        Field::new("agent", Kind::Text, "With which program.").searched(),
        Field::new("created_at", Kind::Time, "When it was opened."),
        Field::new("used_at", Kind::Time, "When it was last used."),
        Field::new("expires_at", Kind::Time, "When it ends."),
    ],
    order: ("used_at", true),
    organisation: Some("organisation_id"),
    search: Some(Search {
        column: "LOWER(user_name || ' ' || address || ' ' || agent)",
        trigrams: None,
    }),
    counted: None,
};

/// A session, with nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub user_id: i64,
    /// The key that opened it; it narrows the session, and ends it with itself.
    pub key_id: Option<i64>,
    /// `session`, `pair` or `jwt`.
    pub kind: String,
    /// From where it was opened.
    pub address: String,
    /// With which program.
    pub agent: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last used, to within seconds.
    pub used_at: Timestamp,
    /// Microseconds without use after which it ends.
    pub idle: Option<i64>,
    /// When the token ends whatever happens.
    pub expires_at: Timestamp,
    /// When the token that renews it ends.
    pub refresh_expires_at: Option<Timestamp>,
}

impl Record for Session {
    const COLUMNS: &'static str = "id, user_id, key_id, kind, address, agent, created_at, used_at, \
        idle, expires_at, refresh_expires_at";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            user_id: row.take()?,
            key_id: row.take()?,
            kind: row.take()?,
            address: row.take()?,
            agent: row.take()?,
            created_at: row.take()?,
            used_at: row.take()?,
            idle: row.take()?,
            expires_at: row.take()?,
            refresh_expires_at: row.take()?,
        })
    }
}

/// What is needed to open a session.
#[derive(Clone)]
pub struct NewSession {
    /// See [`Session`].
    pub user_id: i64,
    /// See [`Session`].
    pub key_id: Option<i64>,
    /// See [`Session`].
    pub kind: &'static str,
    /// The hashes of its tokens.
    pub tokens: SessionTokens,
    /// See [`Session`].
    pub address: String,
    /// See [`Session`].
    pub agent: String,
    /// See [`Session`].
    pub idle: Option<i64>,
    /// See [`Session`].
    pub expires_at: Timestamp,
    /// See [`Session`].
    pub refresh_expires_at: Option<Timestamp>,
}

impl fmt::Debug for NewSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSession").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// The SHA-256 hashes of a session's tokens.
#[derive(Clone)]
pub struct SessionTokens {
    /// Of the token that is shown with each request.
    pub hash: Vec<u8>,
    /// Of the one that renews it.
    pub refresh: Option<Vec<u8>>,
    /// Of the part that all tokens which ever renewed it have.
    pub family: Option<Vec<u8>>,
}

impl fmt::Debug for SessionTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionTokens")
    }
}

impl Record for SessionTokens {
    const COLUMNS: &'static str = "hash, refresh_hash, family";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { hash: row.take()?, refresh: row.take()?, family: row.take()? })
    }
}

impl Session {
    /// The session of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM sessions WHERE id = ?").bind(id)
    }

    /// The session whose token has this hash.
    pub fn by_hash(hash: &[u8; 32]) -> Sql {
        Sql::new("FROM sessions WHERE hash = ?").bind(&hash[..])
    }

    /// The session whose renewing tokens have a part of this hash.
    pub fn by_family(hash: &[u8; 32]) -> Sql {
        Sql::new("FROM sessions WHERE family = ?").bind(&hash[..])
    }

    /// A user's sessions, the one used longest ago first.
    pub fn of_user(user: i64) -> Sql {
        Sql::new("FROM sessions WHERE user_id = ? ORDER BY used_at, id").bind(user)
    }

    /// Opens a session; gives its number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn insert(tx: &mut Tx, new: &NewSession, at: Timestamp) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO sessions (user_id, key_id, kind, hash, refresh_hash, family, address, \
             agent, created_at, used_at, idle, expires_at, refresh_expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        );
        let tokens = new.tokens.clone();
        let sql = sql.bind(new.user_id).bind(new.key_id).bind(new.kind).bind(tokens.hash);
        let sql = sql.bind(tokens.refresh).bind(tokens.family).bind(&new.address);
        let sql = sql.bind(&new.agent).bind(at).bind(at).bind(new.idle).bind(new.expires_at);
        tx.insert(sql.bind(new.refresh_expires_at)).await
    }

    /// Gives it new tokens instead of those it has; false when another was faster.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn renew(
        &self,
        tx: &mut Tx,
        old_refresh: &[u8; 32],
        tokens: &SessionTokens,
        at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<bool> {
        let sql = Sql::new(
            "UPDATE sessions SET hash = ?, refresh_hash = ?, used_at = ?, expires_at = ? \
             WHERE id = ? AND refresh_hash = ?",
        );
        let sql = sql.bind(tokens.hash.clone()).bind(tokens.refresh.clone()).bind(at);
        let sql = sql.bind(expires_at).bind(self.id).bind(&old_refresh[..]);
        Ok(tx.execute(sql).await? == 1)
    }

    /// Tells that it was used.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn used(tx: &mut Tx, id: i64, at: Timestamp) -> Result<()> {
        let sql = Sql::new("UPDATE sessions SET used_at = ? WHERE id = ? AND used_at < ?");
        tx.execute(sql.bind(at).bind(id).bind(at)).await.map(drop)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        there(tx.execute(Sql::new("DELETE FROM sessions WHERE id = ?").bind(id)).await?, "session")
    }

    /// Ends all sessions of a user but one; gives how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn remove_of_user(tx: &mut Tx, user: i64, but: Option<i64>) -> Result<u64> {
        let sql = Sql::new("DELETE FROM sessions WHERE user_id = ? AND id <> ?");
        tx.execute(sql.bind(user).bind(but.unwrap_or(0))).await
    }

    /// How many can be used still, but for those that were not used for too long.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_open(catalog: &Catalog, now: Timestamp) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM sessions \
                   WHERE COALESCE(refresh_expires_at, expires_at) >= ? \
                   AND (idle IS NULL OR used_at + idle >= ?)";
        single(catalog.rows(Sql::new(sql).bind(now).bind(now)).await?)
    }
}
