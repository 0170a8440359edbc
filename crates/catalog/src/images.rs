//! Images as the catalogue mirrors them. The roots in the pools are the truth; these rows are for
//! lists, and can be made again from the roots at any time.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::db::{Catalog, Tx};
use crate::events::{self, NewEvent, Severity};
use crate::list::Scope;
use crate::sql::Sql;
use crate::value::{Record, Row};
use crate::{Error, Result};

/// The kinds of images.
pub const KINDS: &[&str] = &["files", "block", "stream"];
/// Rows that are written or removed with one transaction.
const BATCH: usize = 500;

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its number in the catalogue.
    pub id: i64,
    /// The pool that has it.
    pub pool_id: i64,
    /// Whose it is.
    pub organisation_id: i64,
    /// The root in the pool: 32 hexadecimal digits.
    pub root: String,
    /// The root that it was compared with.
    pub parent: Option<String>,
    /// The series that it belongs to.
    pub name: String,
    /// One of [`KINDS`].
    pub kind: String,
    /// The machine that it was made of.
    pub host: String,
    /// Who made it.
    pub user_name: String,
    /// What was asked for.
    pub paths: Vec<String>,
    /// Its labels.
    pub tags: Vec<String>,
    /// Whether nothing failed to be read.
    pub complete: bool,
    /// When it was begun, by its machine's clock.
    pub started_at: Timestamp,
    /// When it was made, by the pool's clock.
    pub created_at: Timestamp,
    /// When it is to be forgotten, by the pool's clock; None: when somebody asks for it.
    pub expires_at: Option<Timestamp>,
    /// Until when nothing may remove it, by the pool's clock.
    pub immutable_until: Option<Timestamp>,
    /// Regular files.
    pub files: u64,
    /// Bytes of content.
    pub size: u64,
    /// Bytes that the pool did not have.
    pub new_size: u64,
    /// Bytes that those take in packs.
    pub stored_size: u64,
    /// The job that made it.
    pub job_id: Option<i64>,
    /// How often its row was changed, from 1.
    pub version: i64,
}

impl Record for Image {
    const COLUMNS: &'static str = "id, pool_id, organisation_id, root, parent, name, kind, host, \
        user_name, paths, tags, complete, started_at, created_at, expires_at, immutable_until, \
        files, size, new_size, stored_size, job_id, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            pool_id: row.take()?,
            organisation_id: row.take()?,
            root: row.take()?,
            parent: row.take()?,
            name: row.take()?,
            kind: row.take()?,
            host: row.take()?,
            user_name: row.take()?,
            paths: lines(row.take()?),
            tags: lines(row.take()?),
            complete: row.take()?,
            started_at: row.take()?,
            created_at: row.take()?,
            expires_at: row.take()?,
            immutable_until: row.take()?,
            files: row.take()?,
            size: row.take()?,
            new_size: row.take()?,
            stored_size: row.take()?,
            job_id: row.take()?,
            version: row.take()?,
        })
    }
}

fn lines(text: String) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl Image {
    /// What words are looked for in: one field per line, in lower case.
    fn search(&self) -> String {
        let Self { name, host, user_name, paths, tags, .. } = self;
        let (paths, tags) = (paths.join("\n"), tags.join("\n"));
        format!("{name}\n{host}\n{user_name}\n{paths}\n{tags}").to_lowercase()
    }
}

/// What a row says that can change in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub id: i64,
    /// The root.
    pub root: String,
    /// Its labels.
    pub tags: Vec<String>,
    /// When it is to be forgotten.
    pub expires_at: Option<Timestamp>,
    /// Until when nothing may remove it.
    pub immutable_until: Option<Timestamp>,
}

impl Record for Known {
    const COLUMNS: &'static str = "id, root, tags, expires_at, immutable_until";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            root: row.take()?,
            tags: lines(row.take()?),
            expires_at: row.take()?,
            immutable_until: row.take()?,
        })
    }
}

/// What the catalogue knows of a pool's images.
///
/// # Errors
/// Those of the database.
pub async fn known(catalog: &Catalog, pool: i64) -> Result<Vec<Known>> {
    catalog.find(Sql::new("FROM images WHERE pool_id = ?").bind(pool)).await
}

/// An image.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn find(catalog: &Catalog, id: i64) -> Result<Image> {
    let image = catalog.find_one(Sql::new("FROM images WHERE id = ?").bind(id)).await?;
    image.ok_or(Error::NotFound { what: "image" })
}

/// The images with these numbers, each once, by their numbers; those that are there.
///
/// # Errors
/// Those of the database.
pub async fn with_ids(catalog: &Catalog, ids: &[i64]) -> Result<Vec<Image>> {
    let ids: Vec<i64> = ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let mut found = Vec::new();
    for batch in ids.chunks(BATCH) {
        let mut sql = Sql::new("FROM images WHERE id IN ");
        sql.push_set(batch.iter().copied());
        sql.push(" ORDER BY id");
        found.extend(catalog.find::<Image>(sql).await?);
    }
    Ok(found)
}

/// The image with this root.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn of_root(catalog: &Catalog, pool: i64, root: &str) -> Result<Image> {
    let sql = Sql::new("FROM images WHERE pool_id = ? AND root = ?").bind(pool).bind(root);
    catalog.find_one(sql).await?.ok_or(Error::NotFound { what: "image" })
}

/// The images of this name in a pool that a job has made for this asker, who is no user, the latest first.
///
/// # Errors
/// Those of the database.
pub async fn made_for(catalog: &Catalog, pool: i64, name: &str, asker: &str) -> Result<Vec<Image>> {
    let sql = "FROM images WHERE pool_id = ? AND name = ? AND job_id IN \
               (SELECT id FROM jobs WHERE user_name = ? AND user_id IS NULL \
               AND state IN ('succeeded', 'warnings')) ORDER BY job_id DESC";
    catalog.find(Sql::new(sql).bind(pool).bind(name).bind(asker)).await
}

/// All images of a pool.
///
/// # Errors
/// Those of the database.
pub async fn of_pool(catalog: &Catalog, pool: i64) -> Result<Vec<Image>> {
    catalog.find(Sql::new("FROM images WHERE pool_id = ?").bind(pool)).await
}

/// Whether a pool has images that are to be forgotten some day.
///
/// # Errors
/// Those of the database.
pub async fn any_expiring(catalog: &Catalog, pool: i64) -> Result<bool> {
    let sql = "SELECT 1 FROM images WHERE pool_id = ? AND expires_at IS NOT NULL LIMIT 1";
    Ok(!catalog.rows(Sql::new(sql).bind(pool)).await?.is_empty())
}

/// Whether a pool has an image that is to be forgotten by this time, and may be.
///
/// # Errors
/// Those of the database.
pub async fn any_expired(catalog: &Catalog, pool: i64, now: Timestamp) -> Result<bool> {
    let sql = "SELECT 1 FROM images WHERE pool_id = ? AND expires_at <= ? \
               AND (immutable_until IS NULL OR immutable_until <= ?) LIMIT 1";
    let sql = Sql::new(sql).bind(pool).bind(now).bind(now);
    Ok(!catalog.rows(sql).await?.is_empty())
}

/// Those of one pool or of all, as far as they exist for the one who asks.
fn narrow(sql: &mut Sql, pool: Option<i64>, scope: &Scope) {
    if let Some(pool) = pool {
        sql.push(" AND pool_id = ?").value(pool);
    }
    if let Scope::Organisations(ids) = scope {
        sql.push(" AND organisation_id IN ").push_set(ids.iter().copied());
    }
}

/// The latest image: of a name if one is given, not made after a time if one is given.
///
/// # Errors
/// Those of the database.
pub async fn latest(
    catalog: &Catalog,
    pool: Option<i64>,
    name: Option<&str>,
    until: Option<Timestamp>,
    scope: &Scope,
) -> Result<Option<Image>> {
    let mut sql = Sql::new("FROM images WHERE 1 = 1");
    narrow(&mut sql, pool, scope);
    if let Some(name) = name {
        sql.push(" AND name = ?").value(name);
    }
    if let Some(until) = until {
        sql.push(" AND created_at <= ?").value(until);
    }
    sql.push(" ORDER BY created_at DESC, id DESC LIMIT 1");
    catalog.find_one(sql).await
}

/// Images whose root begins with these digits, so many at most.
///
/// # Errors
/// Those of the database.
pub async fn by_digits(
    catalog: &Catalog,
    pool: Option<i64>,
    digits: &str,
    scope: &Scope,
    limit: u32,
) -> Result<Vec<Image>> {
    // Of hexadecimal digits `g` is the next.
    let mut sql = Sql::new("FROM images WHERE root >= ? AND root < ?");
    sql.value(digits).value(format!("{digits}g"));
    narrow(&mut sql, pool, scope);
    sql.push(" ORDER BY root LIMIT ?").value(limit);
    catalog.find(sql).await
}

/// Enters images, or brings their rows up to date: the `id` and `version` of those given don't
/// count. A row keeps the job that is known to have made it.
///
/// # Errors
/// Those of the database.
pub async fn put(catalog: &Catalog, images: &[Image]) -> Result<()> {
    for batch in images.chunks(BATCH) {
        let mut tx = catalog.begin().await?;
        for image in batch {
            put_one(&mut tx, image).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

async fn put_one(tx: &mut Tx, image: &Image) -> Result<()> {
    let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let sql = "INSERT INTO images (pool_id, organisation_id, root, parent, name, kind, host, \
               user_name, paths, tags, complete, started_at, created_at, expires_at, \
               immutable_until, files, size, new_size, stored_size, job_id, search) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT (pool_id, root) DO UPDATE SET tags = excluded.tags, \
               expires_at = excluded.expires_at, \
               immutable_until = excluded.immutable_until, search = excluded.search, \
               job_id = COALESCE(images.job_id, excluded.job_id), version = images.version + 1";
    let sql = Sql::new(sql).bind(image.pool_id).bind(image.organisation_id).bind(&image.root);
    let sql = sql.bind(image.parent.clone()).bind(&image.name).bind(&image.kind).bind(&image.host);
    let sql = sql.bind(&image.user_name).bind(image.paths.join("\n")).bind(image.tags.join("\n"));
    let sql = sql.bind(image.complete).bind(image.started_at).bind(image.created_at);
    let sql = sql.bind(image.expires_at).bind(image.immutable_until).bind(int(image.files));
    let sql = sql.bind(int(image.size)).bind(int(image.new_size)).bind(int(image.stored_size));
    tx.execute(sql.bind(image.job_id).bind(image.search())).await.map(|_| ())
}

/// Why rows are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The images were forgotten.
    Forgotten,
    /// Their roots are no longer in the pool.
    Gone,
}

/// Removes rows, those that are there; each with an event.
///
/// # Errors
/// Those of the database.
pub async fn remove(catalog: &Catalog, ids: &[i64], why: Removed) -> Result<()> {
    let (kind, what) = match why {
        Removed::Forgotten => ("image.forgotten", "was forgotten"),
        Removed::Gone => ("image.gone", "is no longer in its pool"),
    };
    for batch in ids.chunks(BATCH) {
        let mut tx = catalog.begin().await?;
        let mut sql = Sql::new("FROM images WHERE id IN ");
        sql.push_set(batch.iter().copied());
        sql.push(" ORDER BY id");
        for image in tx.find::<Image>(sql).await? {
            let delete = Sql::new("DELETE FROM images WHERE id = ?").bind(image.id);
            // Another node may have been there first.
            if tx.execute(delete).await? == 0 {
                continue;
            }
            let (name, root) = (&image.name, &image.root);
            let event = NewEvent {
                severity: Severity::Info,
                kind,
                organisation_id: image.organisation_id,
                object: name.clone(),
                job_id: None,
                message: format!("the image {root} of {name} {what}"),
            };
            events::write(&mut tx, event).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
