//! Directories and issuers of tokens: who else knows users, and which roles their groups have.

use std::fmt;

use jiff::Timestamp;

use super::{changed, there};
use crate::list::{Field, Kind, Resource, Search};
use crate::{Record, Result, Row, Sql, Tx};

const FIELDS: &[Field] = &[
    Field::new("id", Kind::Integer, "Its number."),
    Field::new("name", Kind::Text, "Its name.").searched(),
    Field::new("organisation_id", Kind::Integer, "Where its users belong."),
    Field::new("enabled", Kind::Bool, "Whether its users may log in."),
    Field::new("created_at", Kind::Time, "When it was made."),
];

const SEARCH: Option<Search> = Some(Search { column: "LOWER(name)", trigrams: None });

/// Directories, as a list.
pub static DIRECTORIES: Resource = Resource {
    name: "directory",
    from: "directories",
    key: "id",
    fields: FIELDS,
    order: ("name", false),
    organisation: None,
    search: SEARCH,
    counted: None,
};

/// Issuers of tokens, as a list.
pub static ISSUERS: Resource = Resource { name: "issuer", from: "issuers", ..DIRECTORIES };

/// A directory or an issuer, with nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its number.
    pub id: i64,
    /// `ldap` or `oidc`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Where its users belong.
    pub organisation_id: i64,
    /// Whether its users may log in.
    pub enabled: bool,
    /// How it is asked, as JSON.
    pub settings: String,
    /// Whether a secret is kept for it.
    pub has_secret: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: i64,
}

impl Record for Source {
    const COLUMNS: &'static str = "id, kind, name, organisation_id, enabled, settings, \
        CASE WHEN secret IS NULL THEN 0 ELSE 1 END, created_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            kind: row.take()?,
            name: row.take()?,
            organisation_id: row.take()?,
            enabled: row.take()?,
            settings: row.take()?,
            has_secret: row.take()?,
            created_at: row.take()?,
            version: row.take()?,
        })
    }
}

/// What the appliance itself logs in with there, sealed.
#[derive(Clone)]
pub struct SourceSecret(pub Option<Vec<u8>>);

impl fmt::Debug for SourceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceSecret")
    }
}

impl Record for SourceSecret {
    const COLUMNS: &'static str = "secret";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self(row.take()?))
    }
}

impl Source {
    /// The one of this kind and number.
    pub fn by_id(kind: &'static str, id: i64) -> Sql {
        Sql::new("FROM sources WHERE kind = ? AND id = ?").bind(kind).bind(id)
    }

    /// The one of this number, of whichever kind.
    pub fn of_any_kind(id: i64) -> Sql {
        Sql::new("FROM sources WHERE id = ?").bind(id)
    }

    /// Those of a kind that are not switched off, the oldest first.
    pub fn enabled(kind: &'static str) -> Sql {
        Sql::new("FROM sources WHERE kind = ? AND enabled = 1 ORDER BY id").bind(kind)
    }

    /// Writes a new one, whose number is not looked at, with its secret; gives its number.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) for a name that is taken; those of the database.
    pub async fn insert(&self, tx: &mut Tx) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO sources (kind, name, organisation_id, enabled, settings, created_at) \
             VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        );
        let sql = sql.bind(&self.kind).bind(&self.name).bind(self.organisation_id);
        tx.insert(sql.bind(self.enabled).bind(&self.settings).bind(self.created_at)).await
    }

    /// Writes what can be changed, unless somebody else did since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`](crate::Error::Changed); those of the database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "UPDATE sources SET name = ?, organisation_id = ?, enabled = ?, settings = ?, \
             version = version + 1 WHERE id = ? AND version = ?",
        );
        let sql = sql.bind(&self.name).bind(self.organisation_id).bind(self.enabled);
        let sql = sql.bind(&self.settings).bind(self.id).bind(self.version);
        changed(tx.execute(sql).await?, "source")
    }

    /// Writes its secret, sealed, or none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_secret(tx: &mut Tx, id: i64, sealed: Option<Vec<u8>>) -> Result<()> {
        let sql = Sql::new("UPDATE sources SET secret = ? WHERE id = ?").bind(sealed).bind(id);
        there(tx.execute(sql).await?, "source")
    }

    /// Removes it with the roles of its groups.
    ///
    /// # Errors
    /// [`Error::Referenced`](crate::Error::Referenced) while there are users of it;
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        there(tx.execute(Sql::new("DELETE FROM sources WHERE id = ?").bind(id)).await?, "source")
    }

    /// Ends the sessions of its users.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn end_sessions(tx: &mut Tx, id: i64) -> Result<()> {
        let sql = Sql::new(
            "DELETE FROM sessions WHERE user_id IN (SELECT id FROM users WHERE source_id = ?)",
        );
        tx.execute(sql.bind(id)).await.map(drop)
    }
}

/// Whoever is in a group there has a role here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceGrant {
    /// The group, as it was written.
    pub group: String,
    /// The group, as it is compared.
    pub folded: String,
    /// The role.
    pub role_id: i64,
    /// Where, and in those below it.
    pub organisation_id: i64,
}

impl Record for SourceGrant {
    const COLUMNS: &'static str = "group_name, folded, role_id, organisation_id";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            group: row.take()?,
            folded: row.take()?,
            role_id: row.take()?,
            organisation_id: row.take()?,
        })
    }
}

impl SourceGrant {
    /// Those of a source.
    pub fn of_source(source: i64) -> Sql {
        Sql::new("FROM source_grants WHERE source_id = ? ORDER BY folded, organisation_id, role_id")
            .bind(source)
    }

    /// Replaces those of a source.
    ///
    /// # Errors
    /// [`Error::Referenced`](crate::Error::Referenced) when a role or organisation isn't there;
    /// those of the database.
    pub async fn replace(tx: &mut Tx, source: i64, grants: &[Self]) -> Result<()> {
        tx.execute(Sql::new("DELETE FROM source_grants WHERE source_id = ?").bind(source)).await?;
        for grant in grants {
            let sql = Sql::new(
                "INSERT INTO source_grants (source_id, group_name, folded, role_id, \
                 organisation_id) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            );
            let sql = sql.bind(source).bind(&grant.group).bind(&grant.folded);
            tx.execute(sql.bind(grant.role_id).bind(grant.organisation_id)).await?;
        }
        Ok(())
    }
}

/// A group that a user was in at the last login, as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserGroup(pub String);

impl Record for UserGroup {
    const COLUMNS: &'static str = "folded";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self(row.take()?))
    }
}

impl UserGroup {
    /// Those of a user.
    pub fn of_user(user: i64) -> Sql {
        Sql::new("FROM user_groups WHERE user_id = ? ORDER BY folded").bind(user)
    }

    /// Replaces those of a user.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn replace<'a>(
        tx: &mut Tx,
        user: i64,
        groups: impl IntoIterator<Item = &'a String>,
    ) -> Result<()> {
        tx.execute(Sql::new("DELETE FROM user_groups WHERE user_id = ?").bind(user)).await?;
        for group in groups {
            let sql = Sql::new("INSERT INTO user_groups (user_id, folded) VALUES (?, ?)");
            tx.execute(sql.bind(user).bind(group)).await?;
        }
        Ok(())
    }
}
