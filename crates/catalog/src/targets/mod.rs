//! Targets: by which initiators reach volumes, where, and who may log in.
//!
//! Records and statements, no rules; secrets are sealed before they come here, and are in a record of
//! their own.

mod auth_groups;
mod portal_groups;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::Serialize;

pub use self::auth_groups::{AuthGroup, ChapSecrets, Initiator, NewAuthGroup};
pub use self::portal_groups::{Portal, PortalGroup};
use crate::{Error, Record, Result, Row, Sql, Tx};

/// A target as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its number.
    pub id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    pub public_id: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// What users call it; initiators are told.
    pub name: String,
    /// Its name in iSCSI, which never changes.
    pub iqn: String,
    /// Who may log in; None: everybody.
    pub auth_group_id: Option<i64>,
    /// That group's name.
    pub auth_group: Option<String>,
    /// Where it is reached.
    pub portal_group_id: i64,
    /// That group's name.
    pub portal_group: String,
    /// Whether it is served.
    pub enabled: bool,
    /// Volumes that are mapped.
    pub luns: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: i64,
}

impl Record for Target {
    // What is selected below has a name of its own: PostgreSQL would find two to order by.
    const COLUMNS: &'static str = "id, public_id, organisation_id, name, iqn, auth_group_id, \
        (SELECT g.name FROM auth_groups g WHERE g.id = targets.auth_group_id) AS auth_group, \
        portal_group_id, \
        (SELECT g.name FROM portal_groups g WHERE g.id = targets.portal_group_id) AS portal_group, \
        enabled, \
        (SELECT COUNT(*) FROM luns WHERE luns.target_id = targets.id), created_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            public_id: row.take()?,
            organisation_id: row.take()?,
            name: row.take()?,
            iqn: row.take()?,
            auth_group_id: row.take()?,
            auth_group: row.take()?,
            portal_group_id: row.take()?,
            portal_group: row.take()?,
            enabled: row.take()?,
            luns: row.take()?,
            created_at: row.take()?,
            version: row.take()?,
        })
    }
}

/// What is needed to enter a target.
#[derive(Clone, Debug)]
pub struct NewTarget {
    /// See [`Target`].
    pub public_id: String,
    /// See [`Target`].
    pub organisation_id: i64,
    /// See [`Target`].
    pub name: String,
    /// See [`Target`].
    pub iqn: String,
    /// See [`Target`].
    pub auth_group_id: Option<i64>,
    /// See [`Target`].
    pub portal_group_id: i64,
    /// See [`Target`].
    pub enabled: bool,
}

impl Target {
    /// The target of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM targets WHERE id = ?").bind(id)
    }

    /// The target that dialects call so.
    pub fn by_public_id(public_id: &str) -> Sql {
        Sql::new("FROM targets WHERE public_id = ?").bind(public_id)
    }

    /// All of them.
    pub fn all() -> Sql {
        Sql::new("FROM targets ORDER BY id")
    }

    /// Those that an auth group lets in to.
    pub fn of_auth_group(id: i64) -> Sql {
        Sql::new("FROM targets WHERE auth_group_id = ? ORDER BY id").bind(id)
    }

    /// Those that are reached at a portal group.
    pub fn of_portal_group(id: i64) -> Sql {
        Sql::new("FROM targets WHERE portal_group_id = ? ORDER BY id").bind(id)
    }

    /// Those that a volume is mapped to.
    pub fn of_volume(id: i64) -> Sql {
        let sql =
            "FROM targets WHERE id IN (SELECT target_id FROM luns WHERE volume_id = ?) ORDER BY id";
        Sql::new(sql).bind(id)
    }

    /// Those that can be reached from another machine than this, and by whoever does not prove who
    /// it is.
    pub fn open_to_the_network() -> Sql {
        Sql::new(
            "FROM targets WHERE portal_group_id IN (SELECT portal_group_id FROM portals \
             WHERE address NOT LIKE '127.%' AND address NOT LIKE '[::1]%') \
             AND (auth_group_id IS NULL OR auth_group_id IN \
             (SELECT id FROM auth_groups WHERE chap_user IS NULL)) ORDER BY id",
        )
    }

    /// Enters a target; gives its number.
    ///
    /// # Errors
    /// [`Error::Exists`] for a name or an IQN that is taken; those of the database.
    pub async fn insert(tx: &mut Tx, new: NewTarget) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO targets (organisation_id, public_id, name, iqn, auth_group_id, \
             portal_group_id, enabled, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        );
        let sql = sql.bind(new.organisation_id).bind(new.public_id).bind(new.name).bind(new.iqn);
        let sql = sql.bind(new.auth_group_id).bind(new.portal_group_id).bind(new.enabled);
        tx.insert(sql.bind(Timestamp::now())).await
    }

    /// Writes what can be changed, unless somebody else did since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`], [`Error::Exists`]; those of the database.
    pub async fn update(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "UPDATE targets SET name = ?, auth_group_id = ?, portal_group_id = ?, enabled = ?, \
             version = version + 1 WHERE id = ? AND version = ?",
        );
        let sql = sql.bind(&self.name).bind(self.auth_group_id).bind(self.portal_group_id);
        let sql = sql.bind(self.enabled).bind(self.id).bind(self.version);
        changed(tx.execute(sql).await?, "target")
    }

    /// Removes a target, and what is mapped to it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        there(tx.execute(Sql::new("DELETE FROM targets WHERE id = ?").bind(id)).await?, "target")
    }
}

/// A volume that is mapped to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lun {
    /// The target.
    pub target_id: i64,
    /// The number under which initiators find it.
    pub number: u32,
    /// The volume.
    pub volume_id: i64,
    /// The volume's name.
    pub volume: String,
    /// The volume's number for dialects.
    pub volume_public_id: String,
    /// What the pool calls the volume.
    pub volume_uuid: String,
    /// The volume's bytes.
    pub size: u64,
    /// The pool that has it.
    pub pool_id: i64,
    /// That pool's name.
    pub pool: String,
    /// The machine with the pool's disks; empty for any.
    pub node: String,
}

impl Record for Lun {
    const COLUMNS: &'static str = "l.target_id, l.number, l.volume_id, v.name, v.public_id, v.uuid, \
        v.size, v.pool_id, p.name, p.node";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            target_id: row.take()?,
            number: row.take()?,
            volume_id: row.take()?,
            volume: row.take()?,
            volume_public_id: row.take()?,
            volume_uuid: row.take()?,
            size: row.take()?,
            pool_id: row.take()?,
            pool: row.take()?,
            node: row.take()?,
        })
    }
}

impl Lun {
    fn from() -> Sql {
        Sql::new(
            "FROM luns l JOIN volumes v ON v.id = l.volume_id JOIN pools p ON p.id = v.pool_id",
        )
    }

    /// All of them.
    pub fn all() -> Sql {
        Self::from().and(" ORDER BY l.target_id, l.number")
    }

    /// Those of a target.
    pub fn of_target(id: i64) -> Sql {
        Self::from().and(" WHERE l.target_id = ? ORDER BY l.number").bind(id)
    }

    /// Those of a volume.
    pub fn of_volume(id: i64) -> Sql {
        Self::from().and(" WHERE l.volume_id = ? ORDER BY l.target_id, l.number").bind(id)
    }

    /// Maps a volume.
    ///
    /// # Errors
    /// [`Error::Exists`] for a number that is taken, or a volume that is mapped to the target;
    /// [`Error::Referenced`] for one that isn't there; those of the database.
    pub async fn insert(tx: &mut Tx, target: i64, number: u32, volume: i64) -> Result<()> {
        let sql = "INSERT INTO luns (target_id, number, volume_id) VALUES (?, ?, ?)";
        tx.execute(Sql::new(sql).bind(target).bind(number).bind(volume)).await.map(drop)
    }

    /// Maps it no more.
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of the database.
    pub async fn remove(tx: &mut Tx, target: i64, number: u32) -> Result<()> {
        let sql = "DELETE FROM luns WHERE target_id = ? AND number = ?";
        there(tx.execute(Sql::new(sql).bind(target).bind(number)).await?, "LUN")
    }
}

/// The persistent reservations of a volume, as the target keeps them.
///
/// # Errors
/// [`Error::NotFound`] for no such volume; those of the database.
pub async fn reservations(catalog: &crate::Catalog, volume: i64) -> Result<Option<Vec<u8>>> {
    let sql = Sql::new("SELECT reservations FROM volumes WHERE id = ?").bind(volume);
    let rows = catalog.rows(sql).await?;
    rows.into_iter().next().ok_or(Error::NotFound { what: "volume" })?.take()
}

/// Keeps them.
///
/// # Errors
/// [`Error::NotFound`] for no such volume; those of the database.
pub async fn keep_reservations(
    catalog: &crate::Catalog,
    volume: i64,
    reservations: Option<Vec<u8>>,
) -> Result<()> {
    let sql = Sql::new("UPDATE volumes SET reservations = ? WHERE id = ?");
    there(catalog.execute(sql.bind(reservations).bind(volume)).await?, "volume")
}

/// A change by version touched this many rows; it should be one.
fn changed(rows: u64, what: &'static str) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(Error::Changed { what }) }
}

/// A change by key touched this many rows; it should be one.
fn there(rows: u64, what: &'static str) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(Error::NotFound { what }) }
}
