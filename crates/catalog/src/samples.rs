//! Samples: how pools were from time to time.

use jiff::Timestamp;

use crate::Result;
use crate::db::{Catalog, Tx};
use crate::list::{Field, Kind, Resource, Search};
use crate::sql::Sql;
use crate::value::{Record, Row};

/// Samples of pools, as a list.
pub static SAMPLES: Resource = Resource {
    name: "sample",
    from: "(SELECT s.*, p.organisation_id AS organisation_id, p.name AS pool_name FROM pool_samples s \
           JOIN pools p ON p.id = s.pool_id) AS samples",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("pool_id", Kind::Integer, "Of which pool."),
        Field::new("pool_name", Kind::Text, "That pool's name.").searched(),
        Field::new("grain", Kind::Enum(Grain::WORDS), "The newest of an hour, or of a day."),
        Field::new("at", Kind::Time, "When it was measured."),
        Field::new("images", Kind::Integer, "Images."),
        Field::new("logical_bytes", Kind::Integer, "Their bytes, as if each were restored."),
        Field::new("stored_bytes", Kind::Integer, "Bytes in packs, before redundancy."),
        Field::new("disk_bytes", Kind::Integer, "Bytes in packs, with redundancy."),
        Field::new("free_bytes", Kind::Integer, "Bytes that are free on its disks.").nullable(),
    ],
    order: ("at", true),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "LOWER(pool_name)", trigrams: None }),
    counted: None,
};

/// What a sample stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Grain {
    /// Its words in the database.
    pub const WORDS: &'static [&'static str] = &["hour", "day"];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// When the hour or day (of UTC) of this time began.
    fn bucket(self, at: Timestamp) -> i64 {
        let length = match self {
            Self::Hour => 3_600_000_000,
            Self::Day => 86_400_000_000,
        };
        at.as_microsecond().div_euclid(length) * length
    }
}

/// How a pool was at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// When it was measured.
    pub at: Timestamp,
    /// Images.
    pub images: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes of all images, as if each were restored.
    pub logical_bytes: u64,
    /// Those of them that were new to the pool when they came.
    pub unique_bytes: u64,
    /// What those take, compressed.
    pub unique_stored_bytes: u64,
    /// Bytes in packs, before redundancy.
    pub stored_bytes: u64,
    /// Bytes in packs, with redundancy.
    pub disk_bytes: u64,
    /// The room of the filesystems that it lies on; none: one of them didn't say.
    pub capacity_bytes: Option<u64>,
    /// What is free of that.
    pub free_bytes: Option<u64>,
    /// How much more fits into the pool, with redundancy, until its fullest disk is full.
    pub room_bytes: Option<u64>,
    /// Disks that are missing, outdated or damaged.
    pub missing_disks: u64,
    /// Copies of chunks that are known to be bad.
    pub bad_copies: u64,
}

impl Record for Figures {
    const COLUMNS: &'static str = "at, images, chunks, logical_bytes, unique_bytes, \
        unique_stored_bytes, stored_bytes, disk_bytes, capacity_bytes, free_bytes, room_bytes, \
        missing_disks, bad_copies";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            at: row.take()?,
            images: row.take()?,
            chunks: row.take()?,
            logical_bytes: row.take()?,
            unique_bytes: row.take()?,
            unique_stored_bytes: row.take()?,
            stored_bytes: row.take()?,
            disk_bytes: row.take()?,
            capacity_bytes: row.take()?,
            free_bytes: row.take()?,
            room_bytes: row.take()?,
            missing_disks: row.take()?,
            bad_copies: row.take()?,
        })
    }
}

/// A sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its number.
    pub id: i64,
    /// Of which pool.
    pub pool_id: i64,
    /// `hour` or `day`.
    pub grain: String,
    /// How it was.
    pub figures: Figures,
}

impl Record for Sample {
    const COLUMNS: &'static str = "id, pool_id, grain, at, images, chunks, logical_bytes, \
        unique_bytes, unique_stored_bytes, stored_bytes, disk_bytes, capacity_bytes, free_bytes, \
        room_bytes, missing_disks, bad_copies";

    fn read(row: &mut Row) -> Result<Self> {
        let (id, pool_id, grain) = (row.take()?, row.take()?, row.take()?);
        Ok(Self { id, pool_id, grain, figures: Figures::read(row)? })
    }
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Keeps how a pool is, for its hour and its day, in place of what was kept for them.
///
/// # Errors
/// Those of the database.
pub async fn keep(catalog: &Catalog, pool: i64, figures: &Figures) -> Result<()> {
    let mut tx = catalog.begin().await?;
    for grain in [Grain::Hour, Grain::Day] {
        write(&mut tx, pool, grain, figures).await?;
    }
    tx.commit().await
}

async fn write(tx: &mut Tx, pool: i64, grain: Grain, figures: &Figures) -> Result<()> {
    let sql = "INSERT INTO pool_samples (pool_id, grain, bucket, at, images, chunks, \
               logical_bytes, unique_bytes, unique_stored_bytes, stored_bytes, disk_bytes, \
               capacity_bytes, free_bytes, room_bytes, missing_disks, bad_copies) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
               ON CONFLICT (pool_id, grain, bucket) DO UPDATE SET at = excluded.at, \
               images = excluded.images, chunks = excluded.chunks, \
               logical_bytes = excluded.logical_bytes, unique_bytes = excluded.unique_bytes, \
               unique_stored_bytes = excluded.unique_stored_bytes, \
               stored_bytes = excluded.stored_bytes, disk_bytes = excluded.disk_bytes, \
               capacity_bytes = excluded.capacity_bytes, free_bytes = excluded.free_bytes, \
               room_bytes = excluded.room_bytes, missing_disks = excluded.missing_disks, \
               bad_copies = excluded.bad_copies";
    let sql = Sql::new(sql).bind(pool).bind(grain.word()).bind(grain.bucket(figures.at));
    let mut sql = sql.bind(figures.at);
    for count in [
        figures.images,
        figures.chunks,
        figures.logical_bytes,
        figures.unique_bytes,
        figures.unique_stored_bytes,
        figures.stored_bytes,
        figures.disk_bytes,
    ] {
        sql.value(int(count));
    }
    for known in [figures.capacity_bytes, figures.free_bytes, figures.room_bytes] {
        sql.value(known.map(int));
    }
    sql.value(int(figures.missing_disks)).value(int(figures.bad_copies));
    tx.execute(sql).await.map(drop)
}

/// The newest sample of a pool.
///
/// # Errors
/// Those of the database.
pub async fn newest(catalog: &Catalog, pool: i64) -> Result<Option<Figures>> {
    let sql = "FROM pool_samples WHERE pool_id = ? AND grain = 'hour' \
               ORDER BY bucket DESC LIMIT 1";
    match catalog.find_one(Sql::new(sql).bind(pool)).await? {
        Some(hour) => Ok(Some(hour)),
        None => Ok(days(catalog, pool, Timestamp::UNIX_EPOCH).await?.pop()),
    }
}

/// The samples of a pool's days since then, the oldest first.
///
/// # Errors
/// Those of the database.
pub async fn days(catalog: &Catalog, pool: i64, since: Timestamp) -> Result<Vec<Figures>> {
    let sql = "FROM pool_samples WHERE pool_id = ? AND grain = 'day' AND bucket >= ? \
               ORDER BY bucket";
    catalog.find(Sql::new(sql).bind(pool).bind(since)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing;

    fn figures(second: i64, disk_bytes: u64) -> Figures {
        Figures {
            at: Timestamp::from_second(second).unwrap(),
            images: 1,
            chunks: 2,
            logical_bytes: u64::MAX,
            unique_bytes: 4,
            unique_stored_bytes: 5,
            stored_bytes: 6,
            disk_bytes,
            capacity_bytes: Some(100),
            free_bytes: None,
            room_bytes: Some(50),
            missing_disks: 0,
            bad_copies: 0,
        }
    }

    #[tokio::test]
    async fn the_newest_of_an_hour_and_of_a_day_is_kept() {
        testing::each(|catalog| async move {
            for sql in [
                "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)",
                "INSERT INTO pools (id, uuid, name, organisation_id, path, created_at) \
                 VALUES (1, '00', 'p', 1, '/p', 0)",
            ] {
                catalog.execute(Sql::new(sql)).await.unwrap();
            }
            assert_eq!(newest(&catalog, 1).await.unwrap(), None);
            let hour = 3600;
            for (second, bytes) in [(10, 1), (20, 2), (hour, 3), (23 * hour, 4), (25 * hour, 5)] {
                keep(&catalog, 1, &figures(second, bytes)).await.unwrap();
            }
            let count = "SELECT COUNT(*) FROM pool_samples WHERE grain = 'hour'";
            let hours: i64 = catalog.rows(Sql::new(count)).await.unwrap().remove(0).take().unwrap();
            assert_eq!(hours, 4);
            let days = days(&catalog, 1, Timestamp::UNIX_EPOCH).await.unwrap();
            assert_eq!(days.iter().map(|day| day.disk_bytes).collect::<Vec<_>>(), [4, 5]);
            let newest = newest(&catalog, 1).await.unwrap().unwrap();
            let told = Figures { logical_bytes: i64::MAX as u64, ..figures(25 * hour, 5) };
            assert_eq!(newest, told);
        })
        .await;
    }
}
