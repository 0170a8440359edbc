//! Jobs by what they do and how they are.

use jiff::Timestamp;

use super::{State, damaged};
use crate::Result;
use crate::db::Catalog;
use crate::list::Scope;
use crate::sql::Sql;
use crate::value::{Record, Row};

/// Jobs that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What they do.
    pub kind: String,
    /// How they are.
    pub state: State,
    /// How many.
    pub count: u64,
    /// What they did, in bytes.
    pub bytes: u64,
    /// How long they took, in microseconds: from when each was begun the last time.
    pub micros: u64,
    /// When the first of them was asked for.
    pub oldest: Timestamp,
}

impl Record for Tally {
    const COLUMNS: &'static str = "kind, state, COUNT(*), CAST(SUM(bytes_done) AS BIGINT), \
        CAST(SUM(CASE WHEN ended_at > started_at THEN ended_at - started_at ELSE 0 END) \
        AS BIGINT), MIN(queued_at)";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            kind: row.take()?,
            state: {
                let word: String = row.take()?;
                let why = || format!("there is none called {word:?}");
                State::of(&word).ok_or_else(|| damaged("state", why()))?
            },
            count: row.take()?,
            bytes: row.take()?,
            micros: row.take()?,
            oldest: row.take()?,
        })
    }
}

/// Which jobs are counted.
#[derive(Clone, Debug)]
pub struct Counted<'a> {
    /// Whose.
    pub scope: &'a Scope,
    /// Only on these pools.
    pub pools: Option<Vec<i64>>,
}

impl Counted<'_> {
    fn narrow(&self, sql: &mut Sql) {
        if let Scope::Organisations(ids) = self.scope {
            sql.push(" AND organisation_id IN ").push_set(ids.iter().copied());
        }
        if let Some(pools) = &self.pools {
            sql.push(" AND pool_id IN ").push_set(pools.iter().copied());
        }
        sql.push(" GROUP BY kind, state ORDER BY kind, state");
    }
}

/// Jobs that were over within this time, from its first moment to before its end.
///
/// # Errors
/// Those of the database.
pub async fn ended(
    catalog: &Catalog,
    counted: &Counted<'_>,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Tally>> {
    let mut sql = Sql::new("FROM jobs WHERE ended_at >= ? AND ended_at < ?").bind(from).bind(to);
    counted.narrow(&mut sql);
    catalog.find(sql).await
}

/// Jobs that are not over.
///
/// # Errors
/// Those of the database.
pub async fn open(catalog: &Catalog, counted: &Counted<'_>) -> Result<Vec<Tally>> {
    let mut sql = Sql::new("FROM jobs WHERE state IN ('queued', 'running')");
    counted.narrow(&mut sql);
    catalog.find(sql).await
}

/// The last job of this kind on a pool that came to a good end: when that was, and what came of
/// it, in JSON.
///
/// # Errors
/// Those of the database.
pub async fn last_good(
    catalog: &Catalog,
    kind: &str,
    pool: i64,
) -> Result<Option<(Timestamp, Option<String>)>> {
    let sql = "SELECT ended_at, result FROM jobs WHERE pool_id = ? AND kind = ? \
               AND state IN ('succeeded', 'warnings') AND ended_at IS NOT NULL \
               ORDER BY ended_at DESC LIMIT 1";
    match catalog.rows(Sql::new(sql).bind(pool).bind(kind)).await?.into_iter().next() {
        Some(mut row) => Ok(Some((row.take()?, row.take()?))),
        None => Ok(None),
    }
}
