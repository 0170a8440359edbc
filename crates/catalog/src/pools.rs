//! The pools that the appliance knows.

use jiff::Timestamp;
use serde::Serialize;

use crate::db::Catalog;
use crate::sql::Sql;
use crate::value::{Record, Row};
use crate::{Error, Result};

/// A pool as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Its number.
    pub id: i64,
    /// What the pool calls itself: 32 hexadecimal digits.
    pub uuid: String,
    /// The user's name for it.
    pub name: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// The machine that its disks are on; empty for any.
    pub node: String,
    /// Its directory there.
    pub path: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Since when the catalogue knows it.
    pub created_at: Timestamp,
    /// How often its row was changed, from 1.
    pub version: i64,
}

impl Record for Pool {
    const COLUMNS: &'static str = "id, uuid, name, organisation_id, node, path, \
        CASE WHEN secret IS NULL THEN 0 ELSE 1 END, created_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            uuid: row.take()?,
            name: row.take()?,
            organisation_id: row.take()?,
            node: row.take()?,
            path: row.take()?,
            encrypted: row.take()?,
            created_at: row.take()?,
            version: row.take()?,
        })
    }
}

/// A pool to be entered.
#[derive(Clone, Debug)]
pub struct NewPool {
    /// See [`Pool::uuid`].
    pub uuid: String,
    /// See [`Pool::name`].
    pub name: String,
    /// See [`Pool::organisation_id`].
    pub organisation_id: i64,
    /// See [`Pool::node`].
    pub node: String,
    /// See [`Pool::path`].
    pub path: String,
    /// What opens it, sealed.
    pub secret: Option<Vec<u8>>,
}

/// Enters a pool.
///
/// # Errors
/// [`Error::Exists`] for a name or a pool that is there already; those of the database.
pub async fn insert(catalog: &Catalog, new: NewPool) -> Result<Pool> {
    let mut tx = catalog.begin().await?;
    let sql = "INSERT INTO pools (uuid, name, organisation_id, node, path, secret, created_at) \
               VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id";
    let sql = Sql::new(sql).bind(new.uuid).bind(new.name).bind(new.organisation_id);
    let sql = sql.bind(new.node);
    let id = tx.insert(sql.bind(new.path).bind(new.secret).bind(Timestamp::now())).await?;
    let pool = tx.find_one(Sql::new("FROM pools WHERE id = ?").bind(id)).await?;
    tx.commit().await?;
    pool.ok_or(Error::NotFound { what: "pool" })
}

/// A pool.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn find(catalog: &Catalog, id: i64) -> Result<Pool> {
    let pool = catalog.find_one(Sql::new("FROM pools WHERE id = ?").bind(id)).await?;
    pool.ok_or(Error::NotFound { what: "pool" })
}

/// The pool of that name.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn named(catalog: &Catalog, name: &str) -> Result<Pool> {
    let pool = catalog.find_one(Sql::new("FROM pools WHERE name = ?").bind(name)).await?;
    pool.ok_or(Error::NotFound { what: "pool" })
}

/// All pools, by name.
///
/// # Errors
/// Those of the database.
pub async fn all(catalog: &Catalog) -> Result<Vec<Pool>> {
    catalog.find(Sql::new("FROM pools ORDER BY name")).await
}

/// What opens a pool, sealed; None for one that isn't encrypted.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn secret(catalog: &Catalog, id: i64) -> Result<Option<Vec<u8>>> {
    let rows = catalog.rows(Sql::new("SELECT secret FROM pools WHERE id = ?").bind(id)).await?;
    rows.into_iter().next().ok_or(Error::NotFound { what: "pool" })?.take()
}

/// The secret that a pool was getting when somebody was cut off, sealed; None: there was none.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn next_secret(catalog: &Catalog, id: i64) -> Result<Option<Vec<u8>>> {
    let sql = Sql::new("SELECT secret_next FROM pools WHERE id = ?").bind(id);
    let rows = catalog.rows(sql).await?;
    rows.into_iter().next().ok_or(Error::NotFound { what: "pool" })?.take()
}

/// Notes the secret that a pool is getting, sealed: from now on either may open it.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn begin_secret(catalog: &Catalog, id: i64, next: Vec<u8>) -> Result<()> {
    let sql = Sql::new("UPDATE pools SET secret_next = ? WHERE id = ?").bind(next).bind(id);
    match catalog.execute(sql).await? {
        0 => Err(Error::NotFound { what: "pool" }),
        _ => Ok(()),
    }
}

/// Ends what [`begin_secret`] began: the new secret is in the place of the old one, or is dropped.
///
/// # Errors
/// Those of the database.
pub async fn end_secret(catalog: &Catalog, id: i64, took: bool) -> Result<()> {
    let sql = match took {
        true => {
            "UPDATE pools SET secret = secret_next, secret_next = NULL \
             WHERE id = ? AND secret_next IS NOT NULL"
        }
        false => "UPDATE pools SET secret_next = NULL WHERE id = ?",
    };
    catalog.execute(Sql::new(sql).bind(id)).await.map(drop)
}

/// Gives a pool another name, if its row has that version (whatever it has, for None).
///
/// # Errors
/// [`Error::NotFound`], [`Error::Changed`], [`Error::Exists`]; those of the database.
pub async fn rename(catalog: &Catalog, id: i64, name: &str, version: Option<i64>) -> Result<Pool> {
    let sql = "UPDATE pools SET name = ?, version = version + 1 WHERE id = ?";
    let mut sql = Sql::new(sql).bind(name).bind(id);
    if let Some(version) = version {
        sql.push(" AND version = ?").value(version);
    }
    let changed = catalog.execute(sql).await?;
    let pool = find(catalog, id).await?;
    if changed > 0 { Ok(pool) } else { Err(Error::Changed { what: "pool" }) }
}

/// Removes a pool's row and those of its images. Refused while a job of it is queued or running.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Referenced`] while there are jobs; those of the database.
pub async fn remove(catalog: &Catalog, id: i64) -> Result<()> {
    let mut tx = catalog.begin().await?;
    let sql = "SELECT COUNT(*) FROM jobs WHERE pool_id = ? AND state IN ('queued', 'running')";
    let row = tx.rows(Sql::new(sql).bind(id)).await?.into_iter().next();
    let jobs: i64 = row.ok_or(Error::NotFound { what: "count" })?.take()?;
    if jobs > 0 {
        return Err(Error::Referenced { what: format!("{jobs} jobs of the pool are not over") });
    }
    if tx.execute(Sql::new("DELETE FROM pools WHERE id = ?").bind(id)).await? == 0 {
        return Err(Error::NotFound { what: "pool" });
    }
    tx.commit().await
}
