//! Organisations: a tree with one root, which is the owner of the appliance.

use jiff::Timestamp;

use super::{changed, there};
use crate::list::{Field, Kind, Resource, Search};
use crate::{Record, Result, Row, Sql, Tx};

/// Organisations, as a list.
pub static ORGANISATIONS: Resource = Resource {
    name: "organisation",
    from: "organisations",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "The organisation's number."),
        Field::new("parent_id", Kind::Integer, "The one it is part of.").nullable(),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("description", Kind::Text, "What it is.").searched(),
        Field::new("created_at", Kind::Time, "When it was made."),
    ],
    order: ("name", false),
    organisation: Some("id"),
    search: Some(Search { column: "(LOWER(name) || ' ' || LOWER(description))", trigrams: None }),
    counted: None,
};

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organisation {
    /// Its number.
    pub id: i64,
    /// The one it is part of; the root has none.
    pub parent_id: Option<i64>,
    /// Its name, unique among its siblings.
    pub name: String,
    /// What it is.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: i64,
}

impl Record for Organisation {
    const COLUMNS: &'static str = "id, parent_id, name, description, created_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            parent_id: row.take()?,
            name: row.take()?,
            description: row.take()?,
            created_at: row.take()?,
            version: row.take()?,
        })
    }
}

impl Organisation {
    /// The organisation of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM organisations WHERE id = ?").bind(id)
    }

    /// The one that is part of no other.
    pub fn root() -> Sql {
        Sql::new("FROM organisations WHERE parent_id IS NULL ORDER BY id LIMIT 1")
    }

    /// Makes an organisation; gives its number.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) for a name that a sibling has;
    /// [`Error::Referenced`](crate::Error::Referenced) for no such parent; those of the database.
    pub async fn insert(
        tx: &mut Tx,
        parent: Option<i64>,
        name: &str,
        description: &str,
        at: Timestamp,
    ) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO organisations (parent_id, name, description, created_at) \
             VALUES (?, ?, ?, ?) RETURNING id",
        );
        tx.insert(sql.bind(parent).bind(name).bind(description).bind(at)).await
    }

    /// Writes what can be changed, unless somebody else did since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`](crate::Error::Changed); those of the database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "UPDATE organisations SET parent_id = ?, name = ?, description = ?, \
             version = version + 1 WHERE id = ? AND version = ?",
        );
        let sql = sql.bind(self.parent_id).bind(&self.name).bind(&self.description);
        changed(tx.execute(sql.bind(self.id).bind(self.version)).await?, "organisation")
    }

    /// Removes an organisation that has nothing.
    ///
    /// # Errors
    /// [`Error::Referenced`](crate::Error::Referenced) when something belongs to it;
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        let sql = Sql::new("DELETE FROM organisations WHERE id = ?").bind(id);
        there(tx.execute(sql).await?, "organisation")
    }
}

/// An edge of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// An organisation.
    pub id: i64,
    /// The one it is part of.
    pub parent_id: Option<i64>,
}

impl Record for Parent {
    const COLUMNS: &'static str = "id, parent_id";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { id: row.take()?, parent_id: row.take()? })
    }
}

impl Parent {
    /// The whole tree.
    pub fn all() -> Sql {
        Sql::new("FROM organisations")
    }
}
