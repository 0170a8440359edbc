//! Users.

use std::fmt;

use jiff::Timestamp;

use super::{changed, there};
use crate::list::{Field, Kind, Resource, Search};
use crate::{Record, Result, Row, Sql, Tx};

/// Users, as a list.
pub static USERS: Resource = Resource {
    name: "user",
    from: "users",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "The user's number."),
        Field::new("name", Kind::Text, "The name to log in with.").searched(),
        Field::new("full_name", Kind::Text, "The person's name.").searched(),
        Field::new("email", Kind::Text, "The person's address.").searched(),
        Field::new("source", Kind::Enum(&["local", "ldap", "oidc"]), "Who checks the password."),
        Field::new("organisation_id", Kind::Integer, "The organisation the user belongs to."),
        Field::new("delegate_of", Kind::Integer, "The user for whom this one acts.").nullable(),
        Field::new("enabled", Kind::Bool, "Whether the user may log in."),
        Field::new("created_at", Kind::Time, "When the user was made."),
        Field::new("last_login_at", Kind::Time, "The last login.").nullable(),
    ],
    order: ("name", false),
    organisation: Some("organisation_id"),
    search: Some(Search {
        column: "(folded || ' ' || LOWER(full_name) || ' ' || LOWER(email))",
        trigrams: None,
    }),
    counted: None,
};

/// A user, with nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: i64,
    /// The organisation it belongs to.
    pub organisation_id: i64,
    /// The name to log in with; names that differ in case alone are one name.
    pub name: String,
    /// The person's name.
    pub full_name: String,
    /// The person's address.
    pub email: String,
    /// `local`, or the directory that knows it.
    pub source: String,
    /// The directory or issuer that it came from.
    pub source_id: Option<i64>,
    /// Its name there, which never changes.
    pub external_id: Option<String>,
    /// It must choose another password first.
    pub must_change: bool,
    /// It has a second factor, confirmed by a code.
    pub second_factor: bool,
    /// The user for whom it acts.
    pub delegate_of: Option<i64>,
    /// Whether it may log in.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// The last login.
    pub last_login_at: Option<Timestamp>,
    /// Counts changes.
    pub version: i64,
}

impl Record for User {
    const COLUMNS: &'static str = "id, organisation_id, name, full_name, email, source, \
        source_id, external_id, must_change, totp_confirmed, delegate_of, enabled, created_at, last_login_at, \
        version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            organisation_id: row.take()?,
            name: row.take()?,
            full_name: row.take()?,
            email: row.take()?,
            source: row.take()?,
            source_id: row.take()?,
            external_id: row.take()?,
            must_change: row.take()?,
            second_factor: row.take()?,
            delegate_of: row.take()?,
            enabled: row.take()?,
            created_at: row.take()?,
            last_login_at: row.take()?,
            version: row.take()?,
        })
    }
}

/// What is needed to make a user.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// See [`User`].
    pub organisation_id: i64,
    /// See [`User`].
    pub name: String,
    /// See [`User`].
    pub full_name: String,
    /// See [`User`].
    pub email: String,
    /// See [`User`].
    pub source: &'static str,
    /// See [`User`].
    pub source_id: Option<i64>,
    /// See [`User`].
    pub external_id: Option<String>,
    /// See [`User`].
    pub must_change: bool,
    /// See [`User`].
    pub delegate_of: Option<i64>,
    /// See [`User`].
    pub enabled: bool,
}

/// The name by which names are compared.
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}

impl User {
    /// The user of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM users WHERE id = ?").bind(id)
    }

    /// The user of this name, in any case.
    pub fn by_name(name: &str) -> Sql {
        Sql::new("FROM users WHERE folded = ?").bind(fold(name))
    }

    /// The user that a source knows by this name.
    pub fn by_external(source: i64, external_id: &str) -> Sql {
        let sql = Sql::new("FROM users WHERE source_id = ? AND external_id = ?");
        sql.bind(source).bind(external_id)
    }

    /// Those who act for a user.
    pub fn delegates_of(id: i64) -> Sql {
        Sql::new("FROM users WHERE delegate_of = ? ORDER BY id").bind(id)
    }

    /// Those who are administrators of everything, and may log in with no one else's rights nor
    /// anybody's help: no directory need be up for it.
    pub fn administrators() -> Sql {
        Sql::new(
            "FROM users WHERE enabled = 1 AND delegate_of IS NULL AND source = 'local' AND id IN (\
             SELECT g.user_id FROM grants g JOIN roles r ON r.id = g.role_id \
             JOIN organisations o ON o.id = g.organisation_id \
             WHERE r.builtin = 1 AND r.name = 'administrator' AND o.parent_id IS NULL) ORDER BY id",
        )
    }

    /// Those who may log in, for nobody else, and have this right in the topmost organisation.
    pub fn with_right(right: &str) -> Sql {
        Sql::new(
            "FROM users WHERE enabled = 1 AND delegate_of IS NULL AND id IN (\
             SELECT g.user_id FROM all_grants g JOIN roles r ON r.id = g.role_id \
             JOIN organisations o ON o.id = g.organisation_id WHERE o.parent_id IS NULL AND (\
             (r.builtin = 1 AND r.name = 'administrator') \
             OR (' ' || r.rights || ' ') LIKE ('% ' || ? || ' %'))) ORDER BY id",
        )
        .bind(right)
    }

    /// Makes a user; gives its number.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) for a name that is taken; those of the database.
    pub async fn insert(
        tx: &mut Tx,
        new: &NewUser,
        password: Option<&str>,
        at: Timestamp,
    ) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO users (organisation_id, name, folded, full_name, email, source, \
             source_id, external_id, password, must_change, delegate_of, enabled, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        );
        let sql = sql.bind(new.organisation_id).bind(&new.name).bind(fold(&new.name));
        let sql = sql.bind(&new.full_name).bind(&new.email).bind(new.source);
        let sql = sql
            .bind(new.source_id)
            .bind(new.external_id.clone())
            .bind(password)
            .bind(new.must_change);
        tx.insert(sql.bind(new.delegate_of).bind(new.enabled).bind(at)).await
    }

    /// Writes what can be changed, unless somebody else did since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`](crate::Error::Changed); those of the database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "UPDATE users SET organisation_id = ?, full_name = ?, email = ?, must_change = ?, \
             delegate_of = ?, enabled = ?, version = version + 1 WHERE id = ? AND version = ?",
        );
        let sql = sql.bind(self.organisation_id).bind(&self.full_name).bind(&self.email);
        let sql = sql.bind(self.must_change).bind(self.delegate_of).bind(self.enabled);
        changed(tx.execute(sql.bind(self.id).bind(self.version)).await?, "user")
    }

    /// Writes what a directory or issuer says of a user now.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) for a name that is taken; those of the database.
    pub async fn follow(
        tx: &mut Tx,
        id: i64,
        name: &str,
        full_name: &str,
        email: &str,
    ) -> Result<()> {
        let sql = Sql::new(
            "UPDATE users SET name = ?, folded = ?, full_name = ?, email = ?, \
             version = version + 1 WHERE id = ?",
        );
        let sql = sql.bind(name).bind(fold(name)).bind(full_name).bind(email);
        there(tx.execute(sql.bind(id)).await?, "user")
    }

    /// Removes a user with its grants, keys and sessions.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        there(tx.execute(Sql::new("DELETE FROM users WHERE id = ?").bind(id)).await?, "user")
    }
}

/// What a login is checked against.
#[derive(Clone)]
pub struct UserSecrets {
    /// The user's number.
    pub id: i64,
    /// The hash of the password, in the PHC form.
    pub password: Option<String>,
    /// The secret of the second factor, sealed.
    pub totp: Option<Vec<u8>>,
    /// Whether it was confirmed by a code.
    pub totp_confirmed: bool,
    /// Failed logins since the last good one.
    pub failures: u32,
    /// No login before then.
    pub blocked_until: Option<Timestamp>,
}

impl fmt::Debug for UserSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSecrets").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Record for UserSecrets {
    const COLUMNS: &'static str = "id, password, totp, totp_confirmed, failures, blocked_until";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            password: row.take()?,
            totp: row.take()?,
            totp_confirmed: row.take()?,
            failures: row.take()?,
            blocked_until: row.take()?,
        })
    }
}

impl UserSecrets {
    /// Writes the hash of a password.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn set_password(tx: &mut Tx, id: i64, hash: &str, must_change: bool) -> Result<()> {
        let sql = Sql::new(
            "UPDATE users SET password = ?, must_change = ?, version = version + 1 WHERE id = ?",
        );
        there(tx.execute(sql.bind(hash).bind(must_change).bind(id)).await?, "user")
    }

    /// Writes the sealed secret of the second factor, or none.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn set_totp(tx: &mut Tx, id: i64, sealed: Option<Vec<u8>>) -> Result<()> {
        let sql = Sql::new(
            "UPDATE users SET totp = ?, totp_confirmed = 0, totp_step = NULL, \
             version = version + 1 WHERE id = ?",
        );
        there(tx.execute(sql.bind(sealed).bind(id)).await?, "user")
    }

    /// The second factor is confirmed.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn confirm_totp(tx: &mut Tx, id: i64) -> Result<()> {
        let sql = Sql::new(
            "UPDATE users SET totp_confirmed = 1, version = version + 1 \
             WHERE id = ? AND totp IS NOT NULL",
        );
        there(tx.execute(sql.bind(id)).await?, "user")
    }

    /// Uses a time step of the second factor; false when it, or a later one, was used before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn use_step(tx: &mut Tx, id: i64, step: i64) -> Result<bool> {
        let sql = Sql::new(
            "UPDATE users SET totp_step = ? WHERE id = ? AND (totp_step IS NULL OR totp_step < ?)",
        );
        Ok(tx.execute(sql.bind(step).bind(id).bind(step)).await? == 1)
    }

    /// Counts a failed login, and blocks further ones until then.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn failed(tx: &mut Tx, id: i64, until: Option<Timestamp>) -> Result<()> {
        let sql =
            Sql::new("UPDATE users SET failures = failures + 1, blocked_until = ? WHERE id = ?");
        tx.execute(sql.bind(until).bind(id)).await.map(drop)
    }

    /// Forgets the failed logins.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unblock(tx: &mut Tx, id: i64) -> Result<()> {
        let sql = Sql::new("UPDATE users SET failures = 0, blocked_until = NULL WHERE id = ?");
        tx.execute(sql.bind(id)).await.map(drop)
    }

    /// Tells of a good login.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn passed(tx: &mut Tx, id: i64, at: Timestamp) -> Result<()> {
        let sql = Sql::new(
            "UPDATE users SET failures = 0, blocked_until = NULL, last_login_at = ? WHERE id = ?",
        );
        tx.execute(sql.bind(at).bind(id)).await.map(drop)
    }
}

/// Codes for one who lost the second factor.
#[derive(Debug)]
pub struct RecoveryCode;

impl RecoveryCode {
    /// Replaces a user's codes by those of these hashes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn replace(tx: &mut Tx, user: i64, hashes: &[[u8; 32]]) -> Result<()> {
        tx.execute(Sql::new("DELETE FROM recovery_codes WHERE user_id = ?").bind(user)).await?;
        for hash in hashes {
            let sql = Sql::new("INSERT INTO recovery_codes (user_id, hash) VALUES (?, ?)");
            tx.execute(sql.bind(user).bind(&hash[..])).await?;
        }
        Ok(())
    }

    /// Uses up a code; false when there is none of this hash.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn consume(tx: &mut Tx, user: i64, hash: &[u8; 32]) -> Result<bool> {
        let sql = Sql::new("DELETE FROM recovery_codes WHERE user_id = ? AND hash = ?");
        Ok(tx.execute(sql.bind(user).bind(&hash[..])).await? == 1)
    }
}
