//! Where the catalogue of a test's appliance is: a file in its data directory, or a database on the
//! tests' PostgreSQL for those in `postgres/`, which are the journeys of the other directories.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use strongroom_catalog::{Address, Engine, testing::Fresh};

thread_local! {
    /// Those of this test, by the data directory; gone when its thread is.
    static OF: RefCell<BTreeMap<PathBuf, Database>> = const { RefCell::new(BTreeMap::new()) };
}

/// A database of its own on the tests' PostgreSQL; gone afterwards.
pub(crate) struct Database(Option<Fresh>);

impl Database {
    pub(crate) fn new() -> Self {
        Self(Some(wait(Fresh::new(Engine::Postgres))))
    }

    pub(crate) fn url(&self) -> String {
        match self.0.as_ref().unwrap().address() {
            Address::Postgres(url) => url.clone(),
            Address::Sqlite(_) => unreachable!("it was made on PostgreSQL"),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let fresh = self.0.take().unwrap();
        // The thread that ends has nothing left of what a runtime wants.
        let _ = std::thread::spawn(|| wait(fresh.remove())).join();
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

/// On which database these tests run.
pub(crate) fn engine() -> Engine {
    if module_path!().starts_with("postgres::") { Engine::Postgres } else { Engine::Sqlite }
}

/// The URL of the database for this data directory, the same whenever it is asked for; none where
/// it is a file.
pub(crate) fn of(data: &Path) -> Option<String> {
    (engine() == Engine::Postgres).then(|| {
        OF.with_borrow_mut(|all| all.entry(data.to_owned()).or_insert_with(Database::new).url())
    })
}

/// Tells a command that runs the appliance of this data directory where its catalogue is.
pub(crate) fn tell(command: &mut Command, data: &Path) {
    const NAME: &str = "STRONGROOM_DATABASE";
    let is_said = command.get_envs().any(|(name, value)| name == NAME && value.is_some());
    match of(data) {
        Some(url) => command.env(NAME, url),
        None if is_said => command,
        None => command.env_remove(NAME),
    };
}

/// Loses the catalogue of an appliance that doesn't run: the next start finds an empty one.
pub(crate) fn lose(data: &Path) {
    match engine() {
        Engine::Postgres => drop(OF.with_borrow_mut(|all| all.remove(data)).unwrap()),
        Engine::Sqlite => {
            for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
                let _ = std::fs::remove_file(data.join(name));
            }
        }
    }
}
