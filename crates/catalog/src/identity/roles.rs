//! Roles, and who has which one where.

use jiff::Timestamp;

use super::{changed, there};
use crate::list::{Field, Kind, Resource, Search};
use crate::{Record, Result, Row, Sql, Tx};

/// Roles, as a list.
pub static ROLES: Resource = Resource {
    name: "role",
    from: "roles",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "The role's number."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("description", Kind::Text, "What it is for.").searched(),
        Field::new("builtin", Kind::Bool, "Whether it came with the appliance."),
        Field::new("created_at", Kind::Time, "When it was made."),
    ],
    order: ("name", false),
    organisation: None,
    search: Some(Search { column: "(LOWER(name) || ' ' || LOWER(description))", trigrams: None }),
    counted: None,
};

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The names of its rights, separated by spaces.
    pub rights: String,
    /// It came with the appliance and can't be changed.
    pub builtin: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: i64,
}

impl Record for Role {
    const COLUMNS: &'static str = "id, name, description, rights, builtin, created_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            name: row.take()?,
            description: row.take()?,
            rights: row.take()?,
            builtin: row.take()?,
            created_at: row.take()?,
            version: row.take()?,
        })
    }
}

impl Role {
    /// The role of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM roles WHERE id = ?").bind(id)
    }

    /// The role of this name.
    pub fn by_name(name: &str) -> Sql {
        Sql::new("FROM roles WHERE name = ?").bind(name)
    }

    /// Makes a role; gives its number.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) for a name that is taken; those of the database.
    pub async fn insert(
        tx: &mut Tx,
        name: &str,
        description: &str,
        rights: &str,
        builtin: bool,
        at: Timestamp,
    ) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO roles (name, description, rights, builtin, created_at) \
             VALUES (?, ?, ?, ?, ?) RETURNING id",
        );
        let sql = sql.bind(name).bind(description).bind(rights).bind(builtin).bind(at);
        tx.insert(sql).await
    }

    /// Writes what can be changed, unless somebody else did since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`](crate::Error::Changed); those of the database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "UPDATE roles SET name = ?, description = ?, rights = ?, version = version + 1 \
             WHERE id = ? AND version = ?",
        );
        let sql = sql.bind(&self.name).bind(&self.description).bind(&self.rights);
        changed(tx.execute(sql.bind(self.id).bind(self.version)).await?, "role")
    }

    /// Removes a role that nobody has.
    ///
    /// # Errors
    /// [`Error::Referenced`](crate::Error::Referenced) when somebody has it;
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        there(tx.execute(Sql::new("DELETE FROM roles WHERE id = ?").bind(id)).await?, "role")
    }
}

/// A user has a role in an organisation and in those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Who.
    pub user_id: i64,
    /// What.
    pub role_id: i64,
    /// Where.
    pub organisation_id: i64,
}

impl Record for Grant {
    const COLUMNS: &'static str = "user_id, role_id, organisation_id";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { user_id: row.take()?, role_id: row.take()?, organisation_id: row.take()? })
    }
}

impl Grant {
    /// What a user has, also by its groups.
    pub fn of_user(user: i64) -> Sql {
        Sql::new("FROM all_grants WHERE user_id = ? ORDER BY organisation_id, role_id").bind(user)
    }

    /// Who was granted a role here.
    pub fn of_role(role: i64) -> Sql {
        Sql::new("FROM grants WHERE role_id = ? ORDER BY user_id, organisation_id").bind(role)
    }

    /// Gives it; false when it was given before.
    ///
    /// # Errors
    /// [`Error::Referenced`](crate::Error::Referenced) when one of the three isn't there; those
    /// of the database.
    pub async fn insert(self, tx: &mut Tx) -> Result<bool> {
        let sql = Sql::new(
            "INSERT INTO grants (user_id, role_id, organisation_id) VALUES (?, ?, ?) \
             ON CONFLICT DO NOTHING",
        );
        let sql = sql.bind(self.user_id).bind(self.role_id).bind(self.organisation_id);
        Ok(tx.execute(sql).await? == 1)
    }

    /// Takes it away; false when there was none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn remove(self, tx: &mut Tx) -> Result<bool> {
        let sql = Sql::new(
            "DELETE FROM grants WHERE user_id = ? AND role_id = ? AND organisation_id = ?",
        );
        let sql = sql.bind(self.user_id).bind(self.role_id).bind(self.organisation_id);
        Ok(tx.execute(sql).await? == 1)
    }
}

/// The rights that a user has by one grant.
#[derive(Clone, Debug)]
pub struct GrantedRights {
    /// Where, and in those below it.
    pub organisation_id: i64,
    /// The names of the rights, separated by spaces.
    pub rights: String,
}

impl Record for GrantedRights {
    const COLUMNS: &'static str = "g.organisation_id, r.rights";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { organisation_id: row.take()?, rights: row.take()? })
    }
}

impl GrantedRights {
    /// Those of a user.
    pub fn of_user(user: i64) -> Sql {
        Sql::new("FROM all_grants g JOIN roles r ON r.id = g.role_id WHERE g.user_id = ?")
            .bind(user)
    }
}
