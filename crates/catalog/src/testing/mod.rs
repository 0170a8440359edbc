//! Fresh catalogues for tests, on both databases: what holds on one must hold on the other.
//!
//! ```no_run
//! # use strongroom_catalog::{Sql, testing};
//! # async fn test() {
//! testing::each(|catalog| async move {
//!     assert!(catalog.rows(Sql::new("SELECT id FROM users")).await.is_ok());
//! })
//! .await;
//! # }
//! ```
//!
//! PostgreSQL is a real one: that of the environment variable [`SERVER`], or one that is started
//! for this process and ends with it. A test is never skipped for the lack of one; it fails and
//! says what to install.

mod server;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

pub use self::server::{SERVER, Server};
use crate::{Address, Catalog, Engine};

/// Both databases.
pub const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];

/// A database that no other test knows, and that is gone after [`Fresh::remove`].
#[derive(Debug)]
pub struct Fresh {
    address: Address,
    /// Where the file is, or the server and the name of the database.
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(tempfile::TempDir),
    Database { server: String, name: String },
}

impl Fresh {
    /// An address at which there is nothing yet.
    ///
    /// # Panics
    /// When there can't be one.
    pub async fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let dir = tempfile::tempdir().expect("tests have a temporary directory");
                let address = Address::Sqlite(dir.path().join("catalog.db"));
                Self { address, place: Place::Directory(dir) }
            }
            Engine::Postgres => {
                let server = Server::url();
                static NEXT: AtomicU64 = AtomicU64::new(0);
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let now = jiff::Timestamp::now().as_microsecond();
                let name = format!("test_{}_{now}_{number}", std::process::id());
                order(server, format!("CREATE DATABASE {name}")).await;
                let address = Address::Postgres(server::with_database(server, &name));
                Self { address, place: Place::Database { server: server.to_owned(), name } }
            }
        }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Opens it.
    ///
    /// # Panics
    /// When that fails.
    pub async fn open(&self) -> Catalog {
        let catalog = Catalog::open(&self.address).await;
        catalog.unwrap_or_else(|e| panic!("a fresh catalogue at {}: {e:?}", self.address))
    }

    /// Removes it, whoever still uses it.
    ///
    /// # Panics
    /// When that fails.
    pub async fn remove(self) {
        match self.place {
            Place::Directory(dir) => dir.close().expect("a test's directory can be removed"),
            Place::Database { server, name } => {
                order(&server, format!("DROP DATABASE {name} WITH (FORCE)")).await;
            }
        }
    }
}

/// Runs a test with a fresh catalogue on SQLite, then with one on PostgreSQL.
///
/// # Panics
/// When the test does, after saying on which of them.
pub async fn each<F: Future<Output = ()>>(test: impl Fn(Catalog) -> F) {
    for engine in ENGINES {
        let fresh = Fresh::new(engine).await;
        let catalog = fresh.open().await;
        guarded(engine, fresh, test(catalog.clone()), Some(catalog)).await;
    }
}

/// Runs a test with an address at which there is nothing yet, for SQLite, then for PostgreSQL.
///
/// # Panics
/// When the test does, after saying on which of them.
pub async fn each_address<F: Future<Output = ()>>(test: impl Fn(Address) -> F) {
    for engine in ENGINES {
        let fresh = Fresh::new(engine).await;
        let address = fresh.address.clone();
        guarded(engine, fresh, test(address), None).await;
    }
}

/// Runs a test and removes its database whatever comes of it.
async fn guarded(
    engine: Engine,
    fresh: Fresh,
    test: impl Future<Output = ()>,
    open: Option<Catalog>,
) {
    let outcome = AssertUnwindSafe(test).catch_unwind().await;
    if let (Some(catalog), true) = (open, outcome.is_ok()) {
        catalog.close().await;
    }
    fresh.remove().await;
    if let Err(panic) = outcome {
        eprintln!("that was on {engine:?}");
        std::panic::resume_unwind(panic);
    }
}

/// Runs one statement on the server itself.
async fn order(server: &str, text: String) {
    let outcome = async {
        let mut connection = PgConnection::connect(server).await?;
        connection.execute(AssertSqlSafe(text.clone())).await?;
        connection.close().await
    };
    if let Err(error) = outcome.await {
        panic!("the tests' PostgreSQL refuses `{text}`: {error}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Mutex;

    use super::*;
    use crate::Sql;

    #[tokio::test]
    async fn a_test_runs_on_both_and_nothing_stays() {
        let seen = Mutex::new(Vec::new());
        each_address(|address| {
            seen.lock().unwrap().push(address.clone());
            async move {
                let catalog = Catalog::open(&address).await.unwrap();
                let rows = catalog.rows(Sql::new("SELECT id FROM images")).await.unwrap();
                assert!(rows.is_empty());
            }
        })
        .await;
        let seen = seen.into_inner().unwrap();
        let [Address::Sqlite(path), Address::Postgres(url)] = &seen[..] else {
            panic!("{seen:?}");
        };
        assert!(!path.exists());
        assert!(PgConnection::connect(url).await.is_err());
    }

    #[tokio::test]
    #[should_panic(expected = "as it should")]
    async fn a_test_that_fails_fails() {
        each(|_| async { panic!("as it should") }).await;
    }
}
