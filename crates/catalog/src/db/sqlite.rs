//! SQLite: one connection writes, several read; all changes are synced before they are told.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous, SqliteValueRef,
};
use sqlx::{AssertSqlSafe, Decode, Row as _, Transaction, TypeInfo, ValueRef};

use crate::sql::Sql;
use crate::value::{Row, Value};
use crate::{Error, Result};

/// Connections that read.
const READERS: u32 = 4;
/// How long one waits for another process that has the file.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Sqlite {
    read: SqlitePool,
    write: SqlitePool,
    changes: Changes,
}

/// Counts what was changed.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<AtomicU64>);

impl Changes {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .pragma("temp_store", "memory")
            .pragma("cache_size", "-16384")
            .pragma("mmap_size", "2147418112")
            .pragma("trusted_schema", "off");
        let write = SqlitePoolOptions::new().max_connections(1).idle_timeout(None);
        let write = write.max_lifetime(None).connect_with(options.clone()).await?;
        private(path)?;
        let read = SqlitePoolOptions::new().max_connections(READERS).max_lifetime(None);
        let read = read.connect_with(options.pragma("query_only", "on")).await?;
        Ok(Self { read, write, changes: Changes::default() })
    }

    /// How many changes there were.
    pub(super) fn changes(&self) -> u64 {
        self.changes.0.load(Ordering::Acquire)
    }

    /// What counts them.
    pub(super) fn counter(&self) -> Changes {
        self.changes.clone()
    }

    pub(super) async fn rows(&self, sql: Sql) -> Result<Vec<Row>> {
        let (text, values) = sql.for_sqlite()?;
        let rows = bound(text, values).fetch_all(&self.read).await?;
        rows.iter().map(decode).collect()
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, sqlx::Sqlite>> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    pub(super) async fn copy_to(&self, path: &str) -> Result<()> {
        sqlx::query("VACUUM INTO ?").bind(path.to_owned()).execute(&self.write).await?;
        private(Path::new(path))
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Only its owner may read the file, which was made by the rules of the process.
fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode)
        .map_err(|source| Error::Local { path: path.display().to_string(), source })
}

pub(super) async fn execute(tx: &mut Transaction<'_, sqlx::Sqlite>, sql: Sql) -> Result<u64> {
    let (text, values) = sql.for_sqlite()?;
    Ok(bound(text, values).execute(&mut **tx).await?.rows_affected())
}

pub(super) async fn rows(tx: &mut Transaction<'_, sqlx::Sqlite>, sql: Sql) -> Result<Vec<Row>> {
    let (text, values) = sql.for_sqlite()?;
    let rows = bound(text, values).fetch_all(&mut **tx).await?;
    rows.iter().map(decode).collect()
}

pub(super) async fn script(tx: &mut Transaction<'_, sqlx::Sqlite>, text: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut **tx).await?;
    Ok(())
}

/// The text is this program's own, see [`Sql`].
fn bound(text: String, values: Vec<Value>) -> Query<'static, sqlx::Sqlite, SqliteArguments> {
    let mut query = sqlx::query(AssertSqlSafe(text));
    for value in values {
        query = match value {
            Value::Int(v) => query.bind(v),
            Value::Text(v) => query.bind(v),
            Value::Bytes(v) => query.bind(v),
            Value::Real(v) => query.bind(v),
        };
    }
    query
}

fn decode(row: &SqliteRow) -> Result<Row> {
    let values = (0..row.len()).map(|i| {
        let raw = row.try_get_raw(i)?;
        if raw.is_null() {
            return Ok(Value::Int(None));
        }
        let kind = raw.type_info();
        match kind.name() {
            "TEXT" => read::<String>(raw),
            "BLOB" => read::<Vec<u8>>(raw),
            "REAL" => read::<f64>(raw),
            _ => read::<i64>(raw),
        }
    });
    Ok(Row::new(values.collect::<Result<_, sqlx::Error>>()?))
}

fn read<'r, T>(raw: SqliteValueRef<'r>) -> Result<Value, sqlx::Error>
where
    T: Decode<'r, sqlx::Sqlite>,
    Value: From<T>,
{
    T::decode(raw).map(Value::from).map_err(sqlx::Error::Decode)
}
