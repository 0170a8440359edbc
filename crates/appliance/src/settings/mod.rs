//! Settings: what an administrator may change while the appliance runs.
//!
//! Each is declared once ([`declared`]), kept in the catalogue, and known in memory, so that asking
//! for it costs nothing. A change is audited in the same transaction. Other nodes on the same
//! catalogue see it within [`OFTEN`]. A setting that was put back to its default keeps its row, so
//! that its versions never repeat.

mod declared;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use strongroom_catalog::{Catalog, Engine, settings as known};
use strongroom_identity::{Deed, Identity, Principal};
use tokio::sync::watch;

pub use self::declared::{DEFINITIONS, Definition, Unit, Values};
use crate::{Error, Result};

/// How often changes of other nodes are looked for.
pub(crate) const OFTEN: Duration = Duration::from_secs(2);
/// What is kept of a setting that was put back.
const PUT_BACK: &str = "null";

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said otherwise.
    Default,
    /// Somebody set it.
    Set,
}

/// A setting, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What is known of it.
    pub definition: &'static Definition,
    /// What it is.
    pub value: u64,
    /// Where that comes from.
    pub source: Source,
    /// When it was last changed.
    pub changed_at: Option<Timestamp>,
    /// Counts changes.
    pub version: i64,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Settings {
    identity: Identity,
    values: Arc<watch::Sender<Arc<Values>>>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({:?})", self.values.borrow())
    }
}

impl Settings {
    /// Reads what is set.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn open(identity: Identity) -> Result<Self> {
        let values = Arc::new(read(identity.catalog()).await?);
        Ok(Self { identity, values: Arc::new(watch::Sender::new(values)) })
    }

    /// All values, as they are now.
    pub fn current(&self) -> Arc<Values> {
        Arc::clone(&self.values.borrow())
    }

    /// All values, and whenever one of them changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Values>> {
        self.values.subscribe()
    }

    /// Looks for changes of other nodes, for as long as it is polled. A catalogue in a file has
    /// only one node: then there is nothing to do.
    pub async fn follow(&self) {
        if self.identity.catalog().engine() == Engine::Sqlite {
            return;
        }
        loop {
            tokio::time::sleep(OFTEN).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!("settings of other nodes can't be read: {error}");
            }
        }
    }

    /// Reads what is set again.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn refresh(&self) -> Result<()> {
        let values = read(self.identity.catalog()).await?;
        self.values.send_if_modified(|current| {
            let differs = **current != values;
            if differs {
                *current = Arc::new(values);
            }
            differs
        });
        Ok(())
    }

    /// All settings, by their keys.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn list(&self) -> Result<Vec<Setting>> {
        let rows = rows(self.identity.catalog()).await?;
        Ok(DEFINITIONS.iter().map(|one| setting(one, rows.get(one.key))).collect())
    }

    /// One setting.
    ///
    /// # Errors
    /// [`Error::Unknown`]; those of the catalogue.
    pub async fn show(&self, key: &str) -> Result<Setting> {
        let one = definition(key)?;
        let row = known::Setting::by_name(one.key);
        Ok(setting(one, self.identity.catalog().find_one(row).await?.as_ref()))
    }

    /// Changes a setting, if it has that version still (None: whichever it has).
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Value`], [`strongroom_catalog::Error::Changed`]; those of the
    /// catalogue.
    pub async fn change(
        &self,
        by: &Principal,
        key: &str,
        value: i64,
        version: Option<i64>,
    ) -> Result<Setting> {
        let one = definition(key)?;
        let fits = u64::try_from(value).is_ok_and(|value| (one.least..=one.most).contains(&value));
        if !fits {
            let Definition { key, unit, least, most, .. } = *one;
            return Err(Error::Value { key, unit: unit.name(), least, most });
        }
        self.put(by, "settings.change", one, &value.to_string(), version).await
    }

    /// Puts a setting back to its default, if it has that version still.
    ///
    /// # Errors
    /// As [`Settings::change`].
    pub async fn reset(&self, by: &Principal, key: &str, version: Option<i64>) -> Result<Setting> {
        self.put(by, "settings.reset", definition(key)?, PUT_BACK, version).await
    }

    async fn put(
        &self,
        by: &Principal,
        operation: &str,
        one: &'static Definition,
        value: &str,
        version: Option<i64>,
    ) -> Result<Setting> {
        let mut tx = self.identity.catalog().begin().await?;
        known::Setting::put(&mut tx, one.key, value, Timestamp::now(), version).await?;
        let deed = Deed::new(operation, one.key).detail(value).within(by.root());
        self.identity.append(&mut tx, by, deed).await?;
        tx.commit().await?;
        self.refresh().await?;
        self.show(one.key).await
    }
}

fn definition(key: &str) -> Result<&'static Definition> {
    DEFINITIONS.iter().find(|one| one.key == key).ok_or_else(|| Error::Unknown {
        key: key.to_owned(),
        known: DEFINITIONS.iter().map(|one| one.key).collect::<Vec<_>>().join(", "),
    })
}

async fn rows(catalog: &Catalog) -> Result<HashMap<String, known::Setting>> {
    let rows = catalog.find::<known::Setting>(known::Setting::all()).await?;
    Ok(rows.into_iter().map(|row| (row.name.clone(), row)).collect())
}

async fn read(catalog: &Catalog) -> Result<Values> {
    let rows = rows(catalog).await?;
    let all: HashMap<_, _> =
        DEFINITIONS.iter().map(|one| (one.key, setting(one, rows.get(one.key)).value)).collect();
    Ok(Values::of(|key| all.get(key).copied().unwrap_or_default()))
}

/// What a row says. One that an older or newer version wrote, and that can't be taken, is as good as
/// none.
fn setting(one: &'static Definition, row: Option<&known::Setting>) -> Setting {
    let value = row.and_then(|row| row.value.parse().ok());
    let value = value.filter(|value| (one.least..=one.most).contains(value));
    Setting {
        definition: one,
        value: value.unwrap_or(one.default),
        source: if value.is_some() { Source::Set } else { Source::Default },
        changed_at: row.map(|row| row.changed_at),
        version: row.map_or(0, |row| row.version),
    }
}
