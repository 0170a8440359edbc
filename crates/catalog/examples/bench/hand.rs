//! The same questions, written by hand for the driver.

use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, PgPool, Row, SqlitePool};
use strongroom_catalog::Address;

/// A value of a question.
#[derive(Clone, Debug)]
pub(crate) enum Bind {
    Int(i64),
    Text(String),
}

/// A question: SQL with `?` for its values.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) binds: Vec<Bind>,
    pub(crate) table: Table,
}

/// Which of the two tables is asked, and so what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Images,
    Events,
}

impl Table {
    /// All that the catalogue reads of it as well.
    pub(crate) fn columns(self) -> &'static str {
        match self {
            Self::Images => {
                "id, pool_id, organisation_id, root, parent, name, kind, host, user_name, paths, \
                 tags, complete, started_at, created_at, expires_at, immutable_until, files, size, \
                 new_size, stored_size, job_id, version"
            }
            Self::Events => "id, at, severity, kind, organisation_id, object, job_id, message",
        }
    }
}

/// Connections like the catalogue's own.
#[derive(Debug)]
pub(crate) enum Hand {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Hand {
    pub(crate) async fn open(address: &Address) -> Result<Self, sqlx::Error> {
        Ok(match address {
            Address::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .journal_mode(SqliteJournalMode::Wal)
                    .pragma("temp_store", "memory")
                    .pragma("cache_size", "-16384")
                    .pragma("mmap_size", "2147418112");
                Self::Sqlite(
                    SqlitePoolOptions::new().max_connections(4).connect_with(options).await?,
                )
            }
            Address::Postgres(url) => {
                Self::Postgres(PgPoolOptions::new().max_connections(16).connect(url).await?)
            }
        })
    }

    /// Asks, and reads every row into a record; gives their number.
    pub(crate) async fn ask(&self, question: &Question) -> Result<usize, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => {
                let mut query = sqlx::query(AssertSqlSafe(question.text.clone()));
                for bind in &question.binds {
                    query = match bind {
                        Bind::Int(v) => query.bind(*v),
                        Bind::Text(v) => query.bind(v.clone()),
                    };
                }
                let rows = query.fetch_all(pool).await?;
                read(question.table, &rows)
            }
            Self::Postgres(pool) => {
                let mut parts = question.text.split('?');
                let mut text = parts.next().unwrap_or_default().to_owned();
                for (number, part) in (1..).zip(parts) {
                    text.push_str(&format!("${number}{part}"));
                }
                let mut query = sqlx::query(AssertSqlSafe(text));
                for bind in &question.binds {
                    query = match bind {
                        Bind::Int(v) => query.bind(*v),
                        Bind::Text(v) => query.bind(v.clone()),
                    };
                }
                let rows = query.fetch_all(pool).await?;
                read(question.table, &rows)
            }
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

fn read<R: Row>(table: Table, rows: &[R]) -> Result<usize, sqlx::Error>
where
    usize: sqlx::ColumnIndex<R>,
    for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> Option<i64>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let texts: &[usize] = match table {
        Table::Images => &[3, 5, 6, 7, 8, 9, 10],
        Table::Events => &[2, 3, 5, 7],
    };
    let (numbers, nullable): (&[usize], &[usize]) = match table {
        Table::Images => (&[0, 1, 2, 11, 12, 13, 16, 17, 18, 19, 21], &[14, 15, 20]),
        Table::Events => (&[0, 1, 4], &[6]),
    };
    for row in rows {
        for place in texts {
            std::hint::black_box(row.try_get::<String, _>(*place)?);
        }
        for place in numbers {
            std::hint::black_box(row.try_get::<i64, _>(*place)?);
        }
        for place in nullable {
            std::hint::black_box(row.try_get::<Option<i64>, _>(*place)?);
        }
        if table == Table::Images {
            std::hint::black_box(row.try_get::<Option<String>, _>(4)?);
        }
    }
    Ok(rows.len())
}
