//! A restored catalogue that belongs into a PostgreSQL database.
//!
//! It is put in place as a file, [`LOAD`], as all else that is restored; the start loads it before the
//! database is opened, and keeps what was there beside the old files. When the restored state does not
//! start, that comes back in the same way, as [`BACK`].

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use strongroom_catalog::{Address, Catalog, Error as Trouble, transfer};

use super::settle::{DIR, is_there, sync};
use super::{failed, remove};
use crate::Result;

/// The catalogue that is to be loaded, in the data directory.
pub(super) const LOAD: &str = "catalogue.load";
/// The one that is to come back.
pub(super) const BACK: &str = "catalogue.back";
/// How long it is waited for processes that have the database open: they may be ending.
const ENDING: Duration = Duration::from_secs(10);

/// Where the catalogue of before is kept while the restored state is on trial.
pub(super) fn before(dir: &Path) -> PathBuf {
    dir.join("old").join("catalogue.before")
}

/// Loads what waits in the data directory into the database at this address. To be called after
/// [`settle`](super::settle()) and before the database is opened; cut off anywhere, the next start does
/// it again.
///
/// # Errors
/// [`Error::File`](crate::Error::File); those of the catalogue, among them
/// [`Busy`](strongroom_catalog::Error::Busy) while another node has the database open.
pub async fn load(data: &Path, address: &Address) -> Result<()> {
    if matches!(address, Address::Sqlite(_)) {
        return Ok(());
    }
    let (back, waiting) = (data.join(BACK), data.join(LOAD));
    if is_there(&back)? {
        tracing::warn!("the catalogue of before the restore is loaded into {address}");
        take(address, &back).await?;
    }
    if is_there(&waiting)? {
        tracing::warn!("the restored catalogue is loaded into {address}");
        let before = before(&data.join(DIR));
        keep(address, &before).await?;
        if let Err(error) = take(address, &waiting).await {
            // Unless it can't be known: the database is as it was, and need not come back.
            if !matches!(error, crate::Error::Catalog(Trouble::Database(_))) {
                remove(&before)?;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Copies the catalogue of before, once.
async fn keep(address: &Address, before: &Path) -> Result<()> {
    if is_there(before)? {
        return Ok(());
    }
    let draft = before.with_extension("new");
    remove(&draft)?;
    let name = draft.to_str().ok_or_else(|| failed(&draft)(ErrorKind::InvalidFilename.into()))?;
    let catalog = Catalog::open(address).await?;
    let copied = catalog.copy_to(name).await;
    catalog.close().await;
    copied?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed(&draft))?;
    fs::rename(&draft, before).map_err(failed(before))?;
    sync(before.parent().unwrap_or(before))
}

/// Loads a file and removes it.
async fn take(address: &Address, file: &Path) -> Result<()> {
    let end = tokio::time::Instant::now() + ENDING;
    loop {
        match transfer::load(address, file).await {
            Err(Trouble::Busy { .. }) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            loaded => break loaded?,
        }
    }
    remove(file)?;
    sync(file.parent().unwrap_or(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use strongroom_catalog::testing::Fresh;
    use strongroom_catalog::{Engine, Sql};

    use super::super::settle::{self, Entry};
    use super::*;

    /// A catalogue in a database, and another one as a file.
    struct Place {
        dir: tempfile::TempDir,
        fresh: Fresh,
    }

    async fn name(catalog: &Catalog, name: &str) {
        let sql = "INSERT INTO settings (name, value, changed_at) VALUES (?, '1', 1)";
        catalog.execute(Sql::new(sql).bind(name)).await.unwrap();
    }

    impl Place {
        async fn new() -> Self {
            let place = Self {
                dir: tempfile::tempdir().unwrap(),
                fresh: Fresh::new(Engine::Postgres).await,
            };
            let catalog = place.fresh.open().await;
            name(&catalog, "old").await;
            catalog.close().await;
            let new = place.data().join("restore/new");
            settle::directory(&new).unwrap();
            let file = Catalog::open(&Address::Sqlite(new.join("0"))).await.unwrap();
            name(&file, "new").await;
            file.close().await;
            place
        }

        fn data(&self) -> &Path {
            self.dir.path()
        }

        /// What was prepared is decided, and in place.
        fn decided(&self) -> settle::Trial {
            let entry = Entry { path: LOAD.into(), is_new: true };
            settle::decide(self.data(), vec![entry], "by a test".into()).unwrap();
            settle::settle(self.data()).unwrap().unwrap()
        }

        async fn load(&self) -> Result<()> {
            load(self.data(), self.fresh.address()).await
        }

        async fn has(&self) -> String {
            let catalog = self.fresh.open().await;
            let sql = "SELECT name FROM settings WHERE name IN ('old', 'new')";
            let mut rows = catalog.rows(Sql::new(sql)).await.unwrap();
            catalog.close().await;
            assert_eq!(rows.len(), 1);
            rows[0].take().unwrap()
        }
    }

    #[tokio::test]
    async fn a_restored_one_takes_its_place_and_the_one_of_before_is_left() {
        let place = Place::new().await;
        let trial = place.decided();
        assert_eq!(place.has().await, "old");
        // Cut off after the old one was kept, or before the file was removed: again.
        keep(place.fresh.address(), &before(&place.data().join(DIR))).await.unwrap();
        let loaded = place.data().join(LOAD);
        std::fs::copy(&loaded, place.data().join("again")).unwrap();
        place.load().await.unwrap();
        assert!(!loaded.exists());
        std::fs::rename(place.data().join("again"), &loaded).unwrap();
        place.load().await.unwrap();
        place.load().await.unwrap();
        assert_eq!(place.has().await, "new");
        trial.keep().unwrap();
        let left = place.data().join("before-restore/old/catalogue.before");
        let left = Catalog::open(&Address::Sqlite(left)).await.unwrap();
        let sql = "SELECT name FROM settings WHERE name = 'old'";
        assert_eq!(left.rows(Sql::new(sql)).await.unwrap().len(), 1);
        left.close().await;
        place.fresh.remove().await;
    }

    #[tokio::test]
    async fn the_one_of_before_comes_back_when_it_does_not_start() {
        for is_loaded in [true, false] {
            let place = Place::new().await;
            let trial = place.decided();
            if is_loaded {
                place.load().await.unwrap();
                assert_eq!(place.has().await, "new");
            }
            trial.undo().unwrap();
            assert!(settle::settle(place.data()).unwrap().is_none());
            assert_eq!(place.data().join(BACK).exists(), is_loaded);
            place.load().await.unwrap();
            assert_eq!(place.has().await, "old");
            assert!(!place.data().join(BACK).exists() && !place.data().join(LOAD).exists());
            place.fresh.remove().await;
        }
    }

    #[tokio::test]
    async fn what_can_not_be_loaded_leaves_what_there_is() {
        let place = Place::new().await;
        let trial = place.decided();
        let file = Address::Sqlite(place.data().join(LOAD));
        let file = Catalog::open(&file).await.unwrap();
        let later = "INSERT INTO schema_steps (number, done_at) VALUES (99, 0)";
        file.execute(Sql::new(later)).await.unwrap();
        file.close().await;
        let error = place.load().await.unwrap_err().to_string();
        assert!(error.contains("schema 99"), "{error}");
        assert_eq!(place.has().await, "old");
        assert!(!before(&place.data().join(DIR)).exists(), "nothing has to come back");
        trial.undo().unwrap();
        assert!(settle::settle(place.data()).unwrap().is_none());
        place.load().await.unwrap();
        assert_eq!(place.has().await, "old");
        place.fresh.remove().await;
    }
}
