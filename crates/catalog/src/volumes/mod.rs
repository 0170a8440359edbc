//! Volumes, their snapshots and schedules, as the catalogue mirrors them. What the pools have is the
//! truth; these rows are for lists. What only they say is which snapshots a schedule made, and the schedules.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::db::{Catalog, Tx};
use crate::events::{self, NewEvent, Severity};
use crate::sql::Sql;
use crate::value::{Record, Row};
use crate::{Error, Result};

/// What a volume may be used for.
pub const IO_TYPES: &[&str] = &["transactional", "sequential"];

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Its number in the catalogue.
    pub id: i64,
    /// The pool that has it.
    pub pool_id: i64,
    /// Whose it is.
    pub organisation_id: i64,
    /// What the pool calls it: 32 hexadecimal digits.
    pub uuid: String,
    /// 40 hexadecimal digits that follow from that.
    pub public_id: String,
    /// Its name, which no other volume of the pool has.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of its chunks.
    pub block_size: u32,
    /// Bytes of a logical block.
    pub sector_size: u32,
    /// Whether it takes only the room of what was written.
    pub thin: bool,
    /// Whether what is settled is looked for in the pool first.
    pub deduplicated: bool,
    /// Whether what is settled is compressed.
    pub compressed: bool,
    /// Whether what is read of it is kept in memory for a while.
    pub cached: bool,
    /// One of [`IO_TYPES`].
    pub io_type: String,
    /// Its share of the bandwidth beside others, 4 to 128.
    pub priority: u32,
    /// What it was made from; empty: nothing.
    pub origin: String,
    /// When it was made, by the pool's clock.
    pub created_at: Timestamp,
    /// Bytes that it holds; None: not measured yet.
    pub used: Option<u64>,
    /// Bytes that only its snapshots hold; None: not measured yet.
    pub snapshots_used: Option<u64>,
    /// When that was.
    pub measured_at: Option<Timestamp>,
    /// How often its row was changed, from 1.
    pub version: i64,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// How many targets have it.
    pub targets: u64,
}

impl Record for Volume {
    const COLUMNS: &'static str = "id, pool_id, organisation_id, uuid, public_id, name, size, \
        block_size, sector_size, thin, deduplicated, compressed, cached, io_type, priority, origin, \
        created_at, used, snapshots_used, measured_at, version, \
        (SELECT COUNT(*) FROM snapshots WHERE snapshots.volume_id = volumes.id), \
        (SELECT COUNT(*) FROM luns WHERE luns.volume_id = volumes.id)";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            pool_id: row.take()?,
            organisation_id: row.take()?,
            uuid: row.take()?,
            public_id: row.take()?,
            name: row.take()?,
            size: row.take()?,
            block_size: row.take()?,
            sector_size: row.take()?,
            thin: row.take()?,
            deduplicated: row.take()?,
            compressed: row.take()?,
            cached: row.take()?,
            io_type: row.take()?,
            priority: row.take()?,
            origin: row.take()?,
            created_at: row.take()?,
            used: row.take()?,
            snapshots_used: row.take()?,
            measured_at: row.take()?,
            version: row.take()?,
            snapshots: row.take()?,
            targets: row.take()?,
        })
    }
}

impl Volume {
    /// Whether a pool says the same of it.
    fn is_as(&self, other: &Self) -> bool {
        let said = |v: &Self| {
            let flags = (v.thin, v.deduplicated, v.compressed, v.cached);
            let texts = (v.name.clone(), v.io_type.clone(), v.origin.clone());
            (v.size, v.block_size, v.sector_size, flags, v.priority, texts, v.created_at)
        };
        said(self) == said(other)
    }
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its number in the catalogue.
    pub id: i64,
    /// The volume that it is of.
    pub volume_id: i64,
    /// The pool that has it.
    pub pool_id: i64,
    /// Whose it is.
    pub organisation_id: i64,
    /// What the pool calls it: 32 hexadecimal digits.
    pub uuid: String,
    /// 40 hexadecimal digits that follow from that.
    pub public_id: String,
    /// Its name, which no other snapshot of the volume has.
    pub name: String,
    /// Bytes of the volume then.
    pub size: u64,
    /// When it was made, by the pool's clock.
    pub created_at: Timestamp,
    /// Bytes that neither its neighbours nor the volume hold; None: not measured yet.
    pub reserved: Option<u64>,
    /// Whether a schedule made it, which removes it again.
    pub scheduled: bool,
}

impl Record for Snapshot {
    const COLUMNS: &'static str = "id, volume_id, pool_id, organisation_id, uuid, public_id, name, \
        size, created_at, reserved, scheduled";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            volume_id: row.take()?,
            pool_id: row.take()?,
            organisation_id: row.take()?,
            uuid: row.take()?,
            public_id: row.take()?,
            name: row.take()?,
            size: row.take()?,
            created_at: row.take()?,
            reserved: row.take()?,
            scheduled: row.take()?,
        })
    }
}

/// When snapshots of a volume are made and removed by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// The volume.
    pub volume_id: i64,
    /// Whether it is in force.
    pub enabled: bool,
    /// Seconds from one to the next.
    pub every: u64,
    /// So many snapshots of it stay.
    pub keep: u32,
    /// When the next one is due, by the pool's clock.
    pub next_at: Timestamp,
    /// How often it was changed, from 1.
    pub version: i64,
}

impl Record for Schedule {
    const COLUMNS: &'static str = "volume_id, enabled, every / 1000000, keep, next_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            volume_id: row.take()?,
            enabled: row.take()?,
            every: row.take()?,
            keep: row.take()?,
            next_at: row.take()?,
            version: row.take()?,
        })
    }
}

/// A number that is no larger than the database can have.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A volume.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn find(catalog: &Catalog, id: i64) -> Result<Volume> {
    let volume = catalog.find_one(Sql::new("FROM volumes WHERE id = ?").bind(id)).await?;
    volume.ok_or(Error::NotFound { what: "volume" })
}

/// The volume of that name in a pool.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn named(catalog: &Catalog, pool: i64, name: &str) -> Result<Volume> {
    let sql = Sql::new("FROM volumes WHERE pool_id = ? AND name = ?").bind(pool).bind(name);
    catalog.find_one(sql).await?.ok_or(Error::NotFound { what: "volume" })
}

/// The volume that the pool calls so.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn of_uuid(catalog: &Catalog, pool: i64, uuid: &str) -> Result<Volume> {
    let sql = Sql::new("FROM volumes WHERE pool_id = ? AND uuid = ?").bind(pool).bind(uuid);
    catalog.find_one(sql).await?.ok_or(Error::NotFound { what: "volume" })
}

/// The volume with this public id, as dialects name it.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn of_public_id(catalog: &Catalog, public_id: &str) -> Result<Volume> {
    let sql = Sql::new("FROM volumes WHERE public_id = ?").bind(public_id);
    catalog.find_one(sql).await?.ok_or(Error::NotFound { what: "volume" })
}

/// All volumes of a pool, by name.
///
/// # Errors
/// Those of the database.
pub async fn of_pool(catalog: &Catalog, pool: i64) -> Result<Vec<Volume>> {
    catalog.find(Sql::new("FROM volumes WHERE pool_id = ? ORDER BY name").bind(pool)).await
}

/// A snapshot.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn snapshot(catalog: &Catalog, id: i64) -> Result<Snapshot> {
    let snapshot = catalog.find_one(Sql::new("FROM snapshots WHERE id = ?").bind(id)).await?;
    snapshot.ok_or(Error::NotFound { what: "snapshot" })
}

/// The snapshot with this public id, as dialects name it.
///
/// # Errors
/// [`Error::NotFound`]; those of the database.
pub async fn snapshot_of_public_id(catalog: &Catalog, public_id: &str) -> Result<Snapshot> {
    let sql = Sql::new("FROM snapshots WHERE public_id = ?").bind(public_id);
    catalog.find_one(sql).await?.ok_or(Error::NotFound { what: "snapshot" })
}

/// All snapshots of a volume, the oldest first.
///
/// # Errors
/// Those of the database.
pub async fn snapshots_of(catalog: &Catalog, volume: i64) -> Result<Vec<Snapshot>> {
    let sql = Sql::new("FROM snapshots WHERE volume_id = ? ORDER BY created_at, id").bind(volume);
    catalog.find(sql).await
}

/// The first target, by name, of each volume that targets have.
///
/// # Errors
/// Those of the database.
pub async fn first_targets(catalog: &Catalog) -> Result<HashMap<i64, String>> {
    let sql = "SELECT l.volume_id, MIN(t.name) FROM luns l JOIN targets t ON t.id = l.target_id \
               GROUP BY l.volume_id";
    let rows = catalog.rows(Sql::new(sql)).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

/// The names of the targets that have a volume.
///
/// # Errors
/// Those of the database.
pub async fn mapped_to(catalog: &Catalog, volume: i64) -> Result<Vec<String>> {
    let sql = "SELECT name FROM targets WHERE id IN \
               (SELECT target_id FROM luns WHERE volume_id = ?) ORDER BY name";
    let rows = catalog.rows(Sql::new(sql).bind(volume)).await?;
    rows.into_iter().map(|mut row| row.take()).collect()
}

/// The names of the volumes of a pool that targets have.
///
/// # Errors
/// Those of the database.
pub async fn mapped_in(catalog: &Catalog, pool: i64) -> Result<Vec<String>> {
    let sql = "SELECT name FROM volumes WHERE pool_id = ? \
               AND EXISTS (SELECT 1 FROM luns WHERE luns.volume_id = volumes.id) ORDER BY name";
    let rows = catalog.rows(Sql::new(sql).bind(pool)).await?;
    rows.into_iter().map(|mut row| row.take()).collect()
}

/// What became of rows that were brought up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Volumes that the catalogue did not know.
    pub added: u64,
    /// Volumes that were other than it knew.
    pub changed: u64,
    /// Volumes that it knew and that are gone.
    pub removed: u64,
}

/// Makes the rows of a pool's volumes those that the pool has: `id`, `version` and what was measured of
/// the ones given don't count. Those that are gone are taken off their targets.
///
/// # Errors
/// Those of the database.
pub async fn mirror(catalog: &Catalog, pool: i64, all: &[Volume]) -> Result<Changed> {
    let mut tx = catalog.begin().await?;
    let known: Vec<Volume> = tx.find(Sql::new("FROM volumes WHERE pool_id = ?").bind(pool)).await?;
    let mut known: HashMap<String, Volume> =
        known.into_iter().map(|volume| (volume.uuid.clone(), volume)).collect();
    let mut done = Changed::default();
    let mut fresh = Vec::new();
    for volume in all {
        match known.remove(&volume.uuid) {
            Some(old) if old.is_as(volume) => {}
            old => fresh.push((volume, old)),
        }
    }
    for gone in known.into_values() {
        done.removed += 1;
        remove_row(&mut tx, &gone, "volume.gone", "is no longer in its pool").await?;
    }
    // Names may have gone from one to another.
    for (_, old) in &fresh {
        if let Some(old) = old {
            let sql = "UPDATE volumes SET name = uuid WHERE id = ?";
            tx.execute(Sql::new(sql).bind(old.id)).await?;
        }
    }
    for (volume, old) in fresh {
        match old {
            None => done.added += 1,
            Some(_) => done.changed += 1,
        }
        put_row(&mut tx, volume).await?;
    }
    tx.commit().await?;
    Ok(done)
}

/// Enters a volume, or brings its row up to date, as [`mirror`] does; the row.
///
/// # Errors
/// Those of the database.
pub async fn put(catalog: &Catalog, volume: &Volume) -> Result<Volume> {
    let mut tx = catalog.begin().await?;
    put_row(&mut tx, volume).await?;
    tx.commit().await?;
    of_uuid(catalog, volume.pool_id, &volume.uuid).await
}

async fn put_row(tx: &mut Tx, volume: &Volume) -> Result<()> {
    let sql = "INSERT INTO volumes (pool_id, organisation_id, uuid, public_id, name, size, \
               block_size, sector_size, thin, deduplicated, compressed, cached, io_type, priority, \
               origin, created_at, used, snapshots_used, measured_at) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT (pool_id, uuid) DO UPDATE SET name = excluded.name, \
               size = excluded.size, block_size = excluded.block_size, \
               sector_size = excluded.sector_size, thin = excluded.thin, \
               deduplicated = excluded.deduplicated, compressed = excluded.compressed, \
               cached = excluded.cached, io_type = excluded.io_type, \
               priority = excluded.priority, origin = excluded.origin, \
               created_at = excluded.created_at, version = volumes.version + 1";
    let v = volume;
    let sql = Sql::new(sql).bind(v.pool_id).bind(v.organisation_id).bind(&v.uuid);
    let sql = sql.bind(&v.public_id).bind(&v.name).bind(int(v.size)).bind(v.block_size);
    let sql = sql.bind(v.sector_size).bind(v.thin).bind(v.deduplicated).bind(v.compressed);
    let sql = sql.bind(v.cached).bind(&v.io_type).bind(v.priority).bind(&v.origin);
    let sql = sql.bind(v.created_at).bind(v.used.map(int)).bind(v.snapshots_used.map(int));
    tx.execute(sql.bind(v.measured_at)).await.map(drop)
}

async fn remove_row(tx: &mut Tx, volume: &Volume, kind: &'static str, what: &str) -> Result<()> {
    tx.execute(Sql::new("DELETE FROM luns WHERE volume_id = ?").bind(volume.id)).await?;
    let delete = Sql::new("DELETE FROM volumes WHERE id = ?").bind(volume.id);
    if tx.execute(delete).await? == 0 {
        return Ok(());
    }
    let event = NewEvent {
        severity: Severity::Info,
        kind,
        organisation_id: volume.organisation_id,
        object: volume.name.clone(),
        job_id: None,
        message: format!("the volume {} {what}", volume.name),
    };
    events::write(tx, event).await.map(drop)
}

/// Removes the row of a volume that its pool no longer has, with an event.
///
/// # Errors
/// Those of the database.
pub async fn gone(catalog: &Catalog, volume: &Volume) -> Result<()> {
    let mut tx = catalog.begin().await?;
    remove_row(&mut tx, volume, "volume.gone", "is no longer in its pool").await?;
    tx.commit().await
}

/// Removes the row of a volume that was removed, with an event.
///
/// # Errors
/// Those of the database.
pub async fn remove(catalog: &Catalog, volume: &Volume) -> Result<()> {
    let mut tx = catalog.begin().await?;
    remove_row(&mut tx, volume, "volume.removed", "was removed with its snapshots").await?;
    tx.commit().await
}

/// Makes the rows of a volume's snapshots those that the pool has: `id`, `reserved` and `scheduled` of
/// the ones given don't count, but the latter two for those that are new.
///
/// # Errors
/// Those of the database.
pub async fn mirror_snapshots(catalog: &Catalog, volume: i64, all: &[Snapshot]) -> Result<()> {
    let mut tx = catalog.begin().await?;
    let sql = Sql::new("FROM snapshots WHERE volume_id = ?").bind(volume);
    let known: Vec<Snapshot> = tx.find(sql).await?;
    let is_there = |in_: &[Snapshot], uuid: &str| in_.iter().any(|one| one.uuid == uuid);
    for gone in known.iter().filter(|old| !is_there(all, &old.uuid)) {
        tx.execute(Sql::new("DELETE FROM snapshots WHERE id = ?").bind(gone.id)).await?;
    }
    for s in all.iter().filter(|new| !is_there(&known, &new.uuid)) {
        let sql = "INSERT INTO snapshots (volume_id, pool_id, organisation_id, uuid, public_id, \
                   name, size, created_at, reserved, scheduled) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (volume_id, uuid) DO NOTHING";
        let sql = Sql::new(sql).bind(volume).bind(s.pool_id).bind(s.organisation_id);
        let sql = sql.bind(&s.uuid).bind(&s.public_id).bind(&s.name).bind(int(s.size));
        let sql = sql.bind(s.created_at).bind(s.reserved.map(int));
        tx.execute(sql.bind(s.scheduled)).await?;
    }
    tx.commit().await
}

/// Notes what a volume and its snapshots hold, each by what the pool calls it.
///
/// # Errors
/// Those of the database.
pub async fn measured(
    catalog: &Catalog,
    volume: i64,
    (used, snapshots_used): (u64, u64),
    snapshots: &[(String, u64)],
    at: Timestamp,
) -> Result<()> {
    let mut tx = catalog.begin().await?;
    let sql = "UPDATE volumes SET used = ?, snapshots_used = ?, measured_at = ? WHERE id = ?";
    let sql = Sql::new(sql).bind(int(used)).bind(int(snapshots_used)).bind(at).bind(volume);
    tx.execute(sql).await?;
    for (uuid, reserved) in snapshots {
        let sql = "UPDATE snapshots SET reserved = ? WHERE volume_id = ? AND uuid = ?";
        tx.execute(Sql::new(sql).bind(int(*reserved)).bind(volume).bind(uuid)).await?;
    }
    tx.commit().await
}

/// The schedule of a volume; None: it has none.
///
/// # Errors
/// Those of the database.
pub async fn schedule(catalog: &Catalog, volume: i64) -> Result<Option<Schedule>> {
    let sql = Sql::new("FROM snapshot_schedules WHERE volume_id = ?").bind(volume);
    catalog.find_one(sql).await
}

/// The schedules that are in force, the one that is due first in front.
///
/// # Errors
/// Those of the database.
pub async fn schedules(catalog: &Catalog) -> Result<Vec<Schedule>> {
    catalog.find(Sql::new("FROM snapshot_schedules WHERE enabled = 1 ORDER BY next_at")).await
}

/// Gives a volume a schedule, if it has that version (whatever it has, for None; 0 for none at all).
///
/// # Errors
/// [`Error::Changed`]; those of the database.
pub async fn set_schedule(
    catalog: &Catalog,
    schedule: &Schedule,
    version: Option<i64>,
) -> Result<Schedule> {
    let mut tx = catalog.begin().await?;
    let sql = Sql::new("FROM snapshot_schedules WHERE volume_id = ?").bind(schedule.volume_id);
    let old: Option<Schedule> = tx.find_one(sql).await?;
    if version.is_some_and(|version| version != old.map_or(0, |old| old.version)) {
        return Err(Error::Changed { what: "schedule" });
    }
    let sql = "INSERT INTO snapshot_schedules (volume_id, enabled, every, keep, next_at) \
               VALUES (?, ?, ?, ?, ?) ON CONFLICT (volume_id) DO UPDATE SET \
               enabled = excluded.enabled, every = excluded.every, keep = excluded.keep, \
               next_at = excluded.next_at, version = snapshot_schedules.version + 1";
    let every = int(schedule.every).saturating_mul(1_000_000);
    let sql = Sql::new(sql).bind(schedule.volume_id).bind(schedule.enabled).bind(every);
    tx.execute(sql.bind(schedule.keep).bind(schedule.next_at)).await?;
    let sql = Sql::new("FROM snapshot_schedules WHERE volume_id = ?").bind(schedule.volume_id);
    let new = tx.find_one(sql).await?.ok_or(Error::NotFound { what: "schedule" })?;
    tx.commit().await?;
    Ok(new)
}

/// Says when the next snapshot of a schedule is due, if it was due then; whether it was.
///
/// # Errors
/// Those of the database.
pub async fn move_schedule(catalog: &Catalog, old: &Schedule, next_at: Timestamp) -> Result<bool> {
    let sql = "UPDATE snapshot_schedules SET next_at = ? \
               WHERE volume_id = ? AND next_at = ? AND version = ?";
    let sql = Sql::new(sql).bind(next_at).bind(old.volume_id).bind(old.next_at);
    Ok(catalog.execute(sql.bind(old.version)).await? > 0)
}

/// Takes a volume's schedule away; whether it had one.
///
/// # Errors
/// Those of the database.
pub async fn remove_schedule(catalog: &Catalog, volume: i64) -> Result<bool> {
    let sql = Sql::new("DELETE FROM snapshot_schedules WHERE volume_id = ?").bind(volume);
    Ok(catalog.execute(sql).await? > 0)
}

#[cfg(test)]
mod tests;
