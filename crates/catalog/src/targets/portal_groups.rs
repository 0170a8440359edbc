//! Where targets are reached.

use jiff::Timestamp;
use serde::Serialize;

use super::{changed, there};
use crate::{Record, Result, Row, Sql, Tx};

/// Addresses at which the same targets are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortalGroup {
    /// Its number.
    pub id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    pub public_id: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// Its name.
    pub name: String,
    /// Targets that are reached there.
    pub targets: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: i64,
}

impl Record for PortalGroup {
    const COLUMNS: &'static str = "id, public_id, organisation_id, name, \
        (SELECT COUNT(*) FROM targets t WHERE t.portal_group_id = portal_groups.id), created_at, \
        version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            public_id: row.take()?,
            organisation_id: row.take()?,
            name: row.take()?,
            targets: row.take()?,
            created_at: row.take()?,
            version: row.take()?,
        })
    }
}

impl PortalGroup {
    /// The group of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM portal_groups WHERE id = ?").bind(id)
    }

    /// The group that dialects call so.
    pub fn by_public_id(public_id: &str) -> Sql {
        Sql::new("FROM portal_groups WHERE public_id = ?").bind(public_id)
    }

    /// The organisation's group of that name.
    pub fn named(organisation: i64, name: &str) -> Sql {
        let sql = "FROM portal_groups WHERE organisation_id = ? AND name = ?";
        Sql::new(sql).bind(organisation).bind(name)
    }

    /// All of them.
    pub fn all() -> Sql {
        Sql::new("FROM portal_groups ORDER BY id")
    }

    /// Enters a group without portals; gives its number.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) for a name that is taken; those of the database.
    pub async fn insert(
        tx: &mut Tx,
        organisation: i64,
        public_id: &str,
        name: &str,
    ) -> Result<i64> {
        let sql = "INSERT INTO portal_groups (organisation_id, public_id, name, created_at) \
                   VALUES (?, ?, ?, ?) RETURNING id";
        let sql = Sql::new(sql).bind(organisation).bind(public_id).bind(name);
        tx.insert(sql.bind(Timestamp::now())).await
    }

    /// Writes its name, unless somebody else changed it since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`](crate::Error::Changed), [`Error::Exists`](crate::Error::Exists); those of the
    /// database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = "UPDATE portal_groups SET name = ?, version = version + 1 \
                   WHERE id = ? AND version = ?";
        let sql = Sql::new(sql).bind(&self.name).bind(self.id).bind(self.version);
        changed(tx.execute(sql).await?, "portal group")
    }

    /// Removes a group, and its portals.
    ///
    /// # Errors
    /// [`Error::Referenced`](crate::Error::Referenced) while a target is reached there;
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        let sql = Sql::new("DELETE FROM portal_groups WHERE id = ?").bind(id);
        there(tx.execute(sql).await?, "portal group")
    }
}

/// An address of a portal group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Portal {
    /// Its number.
    pub id: i64,
    /// The group.
    pub portal_group_id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    pub public_id: String,
    /// An IP address and a port.
    pub address: String,
}

impl Record for Portal {
    const COLUMNS: &'static str = "id, portal_group_id, public_id, address";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            portal_group_id: row.take()?,
            public_id: row.take()?,
            address: row.take()?,
        })
    }
}

impl Portal {
    /// Those of a group.
    pub fn of(portal_group: i64) -> Sql {
        Sql::new("FROM portals WHERE portal_group_id = ? ORDER BY id").bind(portal_group)
    }

    /// All of them.
    pub fn all() -> Sql {
        Sql::new("FROM portals ORDER BY id")
    }

    /// Gives a group an address.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) when a group has it; those of the database.
    pub async fn insert(
        tx: &mut Tx,
        portal_group: i64,
        public_id: &str,
        address: &str,
    ) -> Result<i64> {
        let sql = "INSERT INTO portals (portal_group_id, public_id, address) \
                   VALUES (?, ?, ?) RETURNING id";
        tx.insert(Sql::new(sql).bind(portal_group).bind(public_id).bind(address)).await
    }

    /// Takes an address from a group.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, portal_group: i64, address: &str) -> Result<()> {
        let sql = "DELETE FROM portals WHERE portal_group_id = ? AND address = ?";
        there(tx.execute(Sql::new(sql).bind(portal_group).bind(address)).await?, "portal")
    }
}
