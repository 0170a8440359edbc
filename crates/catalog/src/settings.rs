//! Settings: values in JSON under names. What they mean, and which there are, is not known here.

use jiff::Timestamp;

use crate::{Error, Record, Result, Row, Sql, Tx};

/// A setting that was written at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value, in JSON.
    pub value: String,
    /// When it was last written.
    pub changed_at: Timestamp,
    /// Counts changes, from 1.
    pub version: i64,
}

impl Record for Setting {
    const COLUMNS: &'static str = "name, value, changed_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            name: row.take()?,
            value: row.take()?,
            changed_at: row.take()?,
            version: row.take()?,
        })
    }
}

impl Setting {
    /// All settings.
    pub fn all() -> Sql {
        Sql::new("FROM settings ORDER BY name")
    }

    /// The setting of this name.
    pub fn by_name(name: &str) -> Sql {
        Sql::new("FROM settings WHERE name = ?").bind(name)
    }

    /// Removes the setting of this name, if there is one.
    pub fn remove(name: &str) -> Sql {
        Sql::new("DELETE FROM settings WHERE name = ?").bind(name)
    }

    /// Writes a setting, if it has that version still: 0 for one that was never written, None for
    /// whichever it has.
    ///
    /// # Errors
    /// [`Error::Changed`]; those of the database.
    pub async fn put(
        tx: &mut Tx,
        name: &str,
        value: &str,
        at: Timestamp,
        version: Option<i64>,
    ) -> Result<()> {
        let insert = "INSERT INTO settings (name, value, changed_at) VALUES (?, ?, ?) \
                      ON CONFLICT (name) DO ";
        let insert = Sql::new(insert).bind(name).bind(value).bind(at);
        let sql = match version {
            Some(0) => insert.and("NOTHING"),
            None => insert.and(
                "UPDATE SET value = excluded.value, changed_at = excluded.changed_at, \
                 version = settings.version + 1",
            ),
            Some(version) => Sql::new(
                "UPDATE settings SET value = ?, changed_at = ?, version = version + 1 \
                 WHERE name = ? AND version = ?",
            )
            .bind(value)
            .bind(at)
            .bind(name)
            .bind(version),
        };
        match tx.execute(sql).await? {
            0 => Err(Error::Changed { what: "setting" }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn who_read_an_older_version_writes_nothing() {
        testing::each(|catalog| async move {
            let put = |value: &'static str, version| {
                let catalog = catalog.clone();
                async move {
                    let mut tx = catalog.begin().await.unwrap();
                    Setting::put(&mut tx, "a", value, Timestamp::UNIX_EPOCH, version).await?;
                    tx.commit().await
                }
            };
            let is_changed = |result| matches!(result, Err(Error::Changed { .. }));
            assert!(is_changed(put("0", Some(1)).await), "there is none yet");
            put("1", Some(0)).await.unwrap();
            assert!(is_changed(put("2", Some(0)).await));
            put("2", Some(1)).await.unwrap();
            assert!(is_changed(put("3", Some(1)).await));
            put("3", None).await.unwrap();
            let found = catalog.find_one::<Setting>(Setting::by_name("a")).await.unwrap().unwrap();
            assert_eq!((found.value.as_str(), found.version), ("3", 3));
            assert_eq!(catalog.find::<Setting>(Setting::all()).await.unwrap(), [found]);
        })
        .await;
    }
}
