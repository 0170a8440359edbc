//! Events: what happened, for people and for those who watch. Append-only.

use jiff::Timestamp;
use serde::Serialize;

use crate::db::{Catalog, Tx};
use crate::sql::Sql;
use crate::value::{Record, Row};
use crate::{Error, Result};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// All is well.
    Info,
    /// Somebody should look, some time.
    Warning,
    /// Something failed.
    Error,
}

impl Severity {
    /// Its words in the database, in order.
    pub const WORDS: &'static [&'static str] = &["info", "warning", "error"];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// The severity with that word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Error].into_iter().find(|s| s.word() == word)
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Its number; later ones have higher ones, but for those that are written at the same time.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// What kind of event, in words with points between, like `job.failed`.
    pub kind: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// What it is about, for people.
    pub object: String,
    /// The job that it is about.
    pub job_id: Option<i64>,
    /// What happened.
    pub message: String,
}

impl Record for Event {
    const COLUMNS: &'static str =
        "id, at, severity, kind, organisation_id, object, job_id, message";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            at: row.take()?,
            severity: {
                let word: String = row.take()?;
                Severity::of(&word).ok_or_else(|| Error::Damaged {
                    what: "severity of an event".into(),
                    why: format!("there is none called {word:?}"),
                })?
            },
            kind: row.take()?,
            organisation_id: row.take()?,
            object: row.take()?,
            job_id: row.take()?,
            message: row.take()?,
        })
    }
}

/// An event to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// See [`Event::severity`].
    pub severity: Severity,
    /// See [`Event::kind`].
    pub kind: &'static str,
    /// See [`Event::organisation_id`].
    pub organisation_id: i64,
    /// See [`Event::object`].
    pub object: String,
    /// See [`Event::job_id`].
    pub job_id: Option<i64>,
    /// See [`Event::message`].
    pub message: String,
}

/// Writes an event as part of a transaction: it is there if what it tells of is.
///
/// # Errors
/// Those of the database.
pub async fn write(tx: &mut Tx, event: NewEvent) -> Result<i64> {
    let NewEvent { severity, kind, organisation_id, object, job_id, message } = event;
    let search = format!("{kind}\n{object}\n{message}").to_lowercase();
    let sql = "INSERT INTO events \
               (at, severity, kind, organisation_id, object, job_id, message, search) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id";
    let sql = Sql::new(sql).bind(Timestamp::now()).bind(severity.word()).bind(kind);
    let sql = sql.bind(organisation_id).bind(object).bind(job_id).bind(message).bind(search);
    tx.insert(sql).await
}

/// Writes an event by itself.
///
/// # Errors
/// Those of the database.
pub async fn tell(catalog: &Catalog, event: NewEvent) -> Result<i64> {
    let mut tx = catalog.begin().await?;
    let id = write(&mut tx, event).await?;
    tx.commit().await?;
    Ok(id)
}

/// The events behind this one, the oldest first, so many at most.
///
/// # Errors
/// Those of the database.
pub async fn after(catalog: &Catalog, id: i64, limit: u32) -> Result<Vec<Event>> {
    let sql = Sql::new("FROM events WHERE id > ? ORDER BY id LIMIT ?").bind(id).bind(limit);
    catalog.find(sql).await
}

/// Removes events that are older, so many at most; how many there were.
///
/// # Errors
/// Those of the database.
pub async fn purge(catalog: &Catalog, before: Timestamp, limit: u32) -> Result<u64> {
    let sql = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ? LIMIT ?)";
    catalog.execute(Sql::new(sql).bind(before).bind(limit)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing;

    fn event(message: &str) -> NewEvent {
        NewEvent {
            severity: Severity::Warning,
            kind: "pool.full",
            organisation_id: 1,
            object: "main".into(),
            job_id: None,
            message: message.into(),
        }
    }

    #[tokio::test]
    async fn events_are_there_if_what_they_tell_of_is() {
        testing::each(|catalog| async move {
            let first = tell(&catalog, event("one")).await.unwrap();
            let mut tx = catalog.begin().await.unwrap();
            write(&mut tx, event("never")).await.unwrap();
            drop(tx);
            tell(&catalog, event("two")).await.unwrap();
            let told: Vec<_> = after(&catalog, 0, 10).await.unwrap();
            let texts: Vec<_> = told.iter().map(|event| event.message.as_str()).collect();
            assert_eq!(texts, ["one", "two"]);
            assert_eq!(told[0].severity, Severity::Warning);
            assert_eq!(after(&catalog, first, 10).await.unwrap(), told[1..]);
            let later = Timestamp::now() + jiff::SignedDuration::from_secs(1);
            assert_eq!(purge(&catalog, told[0].at, 10).await.unwrap(), 0);
            assert_eq!(purge(&catalog, later, 1).await.unwrap(), 1);
            assert_eq!(purge(&catalog, later, 10).await.unwrap(), 1);
        })
        .await;
    }
}
