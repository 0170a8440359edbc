//! The database under the catalogue: SQLite in a file, or PostgreSQL.

mod indexes;
pub mod latency;
mod postgres;
mod sizes;
mod sqlite;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use self::indexes::Indexes;
use self::latency::Latencies;
pub(crate) use self::sizes::Sizes;
use crate::sql::Sql;
use crate::value::{Record, Row, single};
use crate::{Error, Result};
use crate::{migrate, transfer};

/// Where the catalogue is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// In an SQLite file.
    Sqlite(PathBuf),
    /// In a PostgreSQL database, `postgres://user:password@host/database`.
    Postgres(String),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(text.to_owned())),
            Some(("sqlite", path)) => Ok(Self::Sqlite(path.into())),
            None if !text.is_empty() => Ok(Self::Sqlite(text.into())),
            _ => Err(Error::Address(
                "a database is postgres://USER:PASSWORD@HOST/DATABASE, or the path of a file"
                    .into(),
            )),
        }
    }
}

/// Without the password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => {
                let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
                let place = place.split('?').next().unwrap_or(place);
                write!(f, "postgres://{place}")
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which database it is; statements differ in a few places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

#[derive(Clone)]
enum Db {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// The catalogue: an open database whose schema is the program's. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    db: Db,
    indexes: Arc<Indexes>,
    sizes: Arc<Sizes>,
    latencies: Arc<Latencies>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalog({:?})", self.engine())
    }
}

/// A transaction that may write. Dropped without [`Tx::commit`] it leaves nothing.
pub struct Tx {
    inner: TxInner,
    began: Instant,
    latencies: Arc<Latencies>,
}

enum TxInner {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>, sqlite::Changes),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tx({:?})", self.engine())
    }
}

impl Catalog {
    /// Opens the database, makes it when it is an SQLite file that isn't there, and brings its
    /// schema up to date. Before that changes an existing SQLite file, a copy of it is put beside
    /// it (`NAME.schema-N`).
    ///
    /// # Errors
    /// [`Error::Newer`] when another version wrote it; those of the database.
    pub async fn open(address: &Address) -> Result<Self> {
        let mut catalog = Self::connect(address).await?;
        let file: Option<&Path> = match address {
            Address::Sqlite(path) => Some(path),
            Address::Postgres(_) => None,
        };
        migrate::run(&catalog, file).await?;
        catalog.indexes = Arc::new(Indexes::read(&catalog).await?);
        Ok(catalog)
    }

    /// As [`Catalog::open`], with whatever schema it has.
    pub(crate) async fn connect(address: &Address) -> Result<Self> {
        let db = match address {
            Address::Sqlite(path) => Db::Sqlite(sqlite::Sqlite::open(path).await?),
            Address::Postgres(url) => Db::Postgres(postgres::Postgres::open(url).await?),
        };
        let (indexes, sizes, latencies) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { db, indexes, sizes, latencies })
    }

    /// Which database it is.
    pub fn engine(&self) -> Engine {
        match &self.db {
            Db::Sqlite(_) => Engine::Sqlite,
            Db::Postgres(_) => Engine::Postgres,
        }
    }

    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// Runs a statement that only reads.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rows(&self, sql: Sql) -> Result<Vec<Row>> {
        let began = Instant::now();
        let rows = match &self.db {
            Db::Sqlite(db) => db.rows(sql).await,
            Db::Postgres(db) => db.rows(sql).await,
        };
        self.latencies.reads.took(began.elapsed());
        rows
    }

    /// How long it took so far.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Reads something that is always stored: the database answers, and its files can be read.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn answers(&self) -> Result<()> {
        self.rows(Sql::new("SELECT number FROM schema_steps LIMIT 1")).await.map(drop)
    }

    /// The records that a statement finds: `SELECT`, the columns of `R`, then `rest`.
    ///
    /// # Errors
    /// Those of the database; [`Error::Damaged`].
    pub async fn find<R: Record>(&self, rest: Sql) -> Result<Vec<R>> {
        read_all(self.rows(select::<R>(rest)).await?)
    }

    /// As [`Catalog::find`], of which there is one at most.
    ///
    /// # Errors
    /// Those of the database; [`Error::Damaged`].
    pub async fn find_one<R: Record>(&self, rest: Sql) -> Result<Option<R>> {
        Ok(self.find(rest).await?.into_iter().next())
    }

    /// As [`Catalog::find`], by the number that `of` tells of each; those with the same are in order.
    ///
    /// # Errors
    /// Those of the database; [`Error::Damaged`].
    pub async fn find_by<R: Record>(
        &self,
        rest: Sql,
        of: fn(&R) -> i64,
    ) -> Result<HashMap<i64, Vec<R>>> {
        let mut all: HashMap<i64, Vec<R>> = HashMap::new();
        for one in self.find::<R>(rest).await? {
            all.entry(of(&one)).or_default().push(one);
        }
        Ok(all)
    }

    /// Counts the changes that were made through this; the same number means that nothing was
    /// changed. None where others change it too.
    pub fn changes(&self) -> Option<u64> {
        match &self.db {
            Db::Sqlite(db) => Some(db.changes()),
            Db::Postgres(_) => None,
        }
    }

    /// Begins a transaction that may write. On SQLite there is one at a time; others wait.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn begin(&self) -> Result<Tx> {
        let began = Instant::now();
        let inner = match &self.db {
            Db::Sqlite(db) => TxInner::Sqlite(db.begin().await?, db.counter()),
            Db::Postgres(db) => TxInner::Postgres(db.begin().await?),
        };
        Ok(Tx { inner, began, latencies: Arc::clone(&self.latencies) })
    }

    /// Runs one statement that writes, in a transaction of its own; gives the number of rows.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn execute(&self, sql: Sql) -> Result<u64> {
        let mut tx = self.begin().await?;
        let rows = tx.execute(sql).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Copies it to a new file of SQLite, whole, as it is at one moment, while it is in use.
    ///
    /// # Errors
    /// Those of the database; [`Error::Local`].
    pub async fn copy_to(&self, path: &str) -> Result<()> {
        match &self.db {
            Db::Sqlite(db) => db.copy_to(path).await,
            // Boxed: it opens the copy, and an old file is copied when it is opened.
            Db::Postgres(_) => Box::pin(transfer::copy_out(self, Path::new(path))).await,
        }
    }

    /// About how many bytes it has.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn bytes(&self) -> Result<u64> {
        let sql = match self.engine() {
            Engine::Sqlite => {
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            }
            Engine::Postgres => "SELECT pg_database_size(current_database())",
        };
        single(self.rows(Sql::new(sql)).await?)
    }

    /// Opens a copy of an SQLite catalogue as it is, after looking whether it is whole and of a schema
    /// that this program knows. Nobody else may use the file.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Damaged`]; those of the database.
    pub async fn open_copy(path: &Path) -> Result<Self> {
        let catalog = Self::connect(&Address::Sqlite(path.to_owned())).await?;
        let looked = async {
            let found: String = single(catalog.rows(Sql::new("PRAGMA integrity_check(1)")).await?)?;
            if found != "ok" {
                return Err(Error::Damaged { what: "file".into(), why: found });
            }
            migrate::known(&catalog).await
        };
        match looked.await {
            Ok(()) => Ok(catalog),
            Err(error) => {
                catalog.close().await;
                Err(error)
            }
        }
    }

    /// Ends all connections. Writes the log of SQLite back into its file.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite(db) => db.close().await,
            Db::Postgres(db) => db.close().await,
        }
    }
}

impl Tx {
    /// Which database it is.
    pub fn engine(&self) -> Engine {
        match &self.inner {
            TxInner::Sqlite(..) => Engine::Sqlite,
            TxInner::Postgres(_) => Engine::Postgres,
        }
    }

    /// Runs a statement; gives the number of rows that it changed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn execute(&mut self, sql: Sql) -> Result<u64> {
        match &mut self.inner {
            TxInner::Sqlite(tx, _) => sqlite::execute(tx, sql).await,
            TxInner::Postgres(tx) => postgres::execute(tx, sql).await,
        }
    }

    /// Runs a statement; gives its rows.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rows(&mut self, sql: Sql) -> Result<Vec<Row>> {
        match &mut self.inner {
            TxInner::Sqlite(tx, _) => sqlite::rows(tx, sql).await,
            TxInner::Postgres(tx) => postgres::rows(tx, sql).await,
        }
    }

    /// As [`Catalog::find`].
    ///
    /// # Errors
    /// Those of the database; [`Error::Damaged`].
    pub async fn find<R: Record>(&mut self, rest: Sql) -> Result<Vec<R>> {
        read_all(self.rows(select::<R>(rest)).await?)
    }

    /// As [`Catalog::find_one`].
    ///
    /// # Errors
    /// Those of the database; [`Error::Damaged`].
    pub async fn find_one<R: Record>(&mut self, rest: Sql) -> Result<Option<R>> {
        Ok(self.find(rest).await?.into_iter().next())
    }

    /// Runs an `INSERT ... RETURNING id`; gives the id.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn insert(&mut self, sql: Sql) -> Result<i64> {
        let row = self.rows(sql).await?.into_iter().next();
        row.ok_or(Error::NotFound { what: "row" })?.take()
    }

    pub(crate) async fn script(&mut self, text: String) -> Result<()> {
        match &mut self.inner {
            TxInner::Sqlite(tx, _) => sqlite::script(tx, text).await,
            TxInner::Postgres(tx) => postgres::script(tx, text).await,
        }
    }

    /// Makes all of it durable and visible.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn commit(self) -> Result<()> {
        match self.inner {
            TxInner::Sqlite(tx, changes) => {
                // Not to be stopped half way: whatever comes of it must be counted after it.
                let done = tokio::spawn(async move {
                    let done = tx.commit().await;
                    changes.count();
                    done
                });
                done.await.map_err(|_| sqlx::Error::WorkerCrashed)??;
            }
            TxInner::Postgres(tx) => tx.commit().await?,
        }
        self.latencies.writes.took(self.began.elapsed());
        Ok(())
    }
}

/// The time that nodes share, in microseconds since 1970: the database's, where it has one.
pub(crate) async fn clock(tx: &mut Tx) -> Result<i64> {
    match tx.engine() {
        Engine::Sqlite => Ok(jiff::Timestamp::now().as_microsecond()),
        Engine::Postgres => {
            let sql = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT";
            single(tx.rows(Sql::new(sql)).await?)
        }
    }
}

fn select<R: Record>(rest: Sql) -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(R::COLUMNS).push(" ").push_statement(rest);
    sql
}

fn read_all<R: Record>(rows: Vec<Row>) -> Result<Vec<R>> {
    rows.into_iter().map(|mut row| R::read(&mut row)).collect()
}
