//! How pools are and how they grow, in figures: as they are now where this machine has them open,
//! else as they were last measured.

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::list::Scope;
use strongroom_catalog::samples::{self, Figures};
use strongroom_catalog::{Sql, pools};

use crate::{PoolDetails, Ratios, Result, Storage};

/// How far back growth is looked at.
const BACK: SignedDuration = SignedDuration::from_hours(24 * 30);
/// How long it must have been watched before it is told.
const LEAST: SignedDuration = SignedDuration::from_hours(24);

/// How a pool grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Bytes in packs a day, with redundancy; less than 0 when it shrinks. The slope of the line
    /// that lies nearest to what was measured.
    pub bytes_per_day: f64,
    /// Since when it was measured.
    pub since: Timestamp,
    /// In how many days the pool's fullest disk is full if that goes on; none: never, or nobody
    /// knows.
    pub full_in_days: Option<f64>,
}

/// A pool in figures.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStats {
    /// What the catalogue knows of it.
    pub pool: pools::Pool,
    /// All that it tells of itself, where this machine has it open.
    pub details: Option<PoolDetails>,
    /// How it is; none: it was never measured.
    pub figures: Option<Figures>,
    /// What is saved.
    pub ratios: Option<Ratios>,
    /// How it grows; none: it was not watched for long enough.
    pub growth: Option<Growth>,
}

impl Storage {
    /// A pool in figures.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn pool_stats(&self, id: i64) -> Result<PoolStats> {
        let known = pools::find(&self.inner.catalog, id).await?;
        let details = self.details_if_open(&known).await?;
        self.stats_of(known, details).await
    }

    /// Pools in figures: those in the scope, and of these only some when they are named.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn stats(&self, scope: &Scope, only: Option<&[i64]>) -> Result<Vec<PoolStats>> {
        let mut all = Vec::new();
        for known in self.known(scope, only).await? {
            let details = self.details_if_open(&known).await?;
            all.push(self.stats_of(known, details).await?);
        }
        Ok(all)
    }

    /// What the catalogue knows of the pools in the scope, by name; of these only some when they
    /// are named.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn known(&self, scope: &Scope, only: Option<&[i64]>) -> Result<Vec<pools::Pool>> {
        let mut sql = Sql::new("FROM pools WHERE 1 = 1");
        if let Scope::Organisations(ids) = scope {
            sql.push(" AND organisation_id IN ").push_set(ids.iter().copied());
        }
        if let Some(ids) = only {
            sql.push(" AND id IN ").push_set(ids.iter().copied());
        }
        sql.push(" ORDER BY name");
        Ok(self.inner.catalog.find(sql).await?)
    }

    /// A pool in figures, of which all that it tells of itself is at hand (None: it can't be opened here).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn stats_of(
        &self,
        known: pools::Pool,
        details: Option<PoolDetails>,
    ) -> Result<PoolStats> {
        let catalog = &self.inner.catalog;
        let figures = match &details {
            Some(details) => Some(figures(details)),
            None => samples::newest(catalog, known.id).await?,
        };
        let Some(figures) = figures else {
            let (figures, ratios, growth) = (None, None, None);
            return Ok(PoolStats { pool: known, details, figures, ratios, growth });
        };
        let since = figures.at.saturating_sub(BACK).unwrap_or(Timestamp::UNIX_EPOCH);
        let days = samples::days(catalog, known.id, since).await?;
        let ratios = Some(Ratios::of(
            figures.logical_bytes,
            figures.unique_bytes,
            figures.unique_stored_bytes,
            figures.stored_bytes,
        ));
        let growth = growth(days, &figures);
        Ok(PoolStats { pool: known, details, figures: Some(figures), ratios, growth })
    }

    /// Measures every pool of this machine, opening those that are not open, and keeps the figures.
    /// One that can't be opened is passed over. How many were measured.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn sample_pools(&self) -> Result<usize> {
        let mut count = 0;
        for known in pools::all(&self.inner.catalog).await? {
            if !self.is_here(&known) {
                continue;
            }
            match self.show_pool(known.id).await {
                Ok(details) => {
                    let measured = figures(&details);
                    match samples::keep(&self.inner.catalog, known.id, &measured).await {
                        Ok(()) => count += 1,
                        // It was removed meanwhile.
                        Err(strongroom_catalog::Error::Referenced { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => tracing::warn!("the pool {} can't be measured: {error}", known.name),
            }
        }
        Ok(count)
    }
}

fn figures(details: &PoolDetails) -> Figures {
    let disks = &details.disks;
    let sum = |of: fn(&crate::Disk) -> Option<u64>| disks.iter().map(of).sum::<Option<u64>>();
    let fullest = disks.iter().map(|disk| disk.free).min().flatten();
    Figures {
        at: Timestamp::now(),
        images: details.images,
        chunks: details.chunks,
        logical_bytes: details.logical_bytes,
        unique_bytes: details.unique_bytes,
        unique_stored_bytes: details.unique_stored_bytes,
        stored_bytes: details.stored_bytes,
        disk_bytes: details.disk_bytes,
        capacity_bytes: sum(|disk| disk.total),
        free_bytes: sum(|disk| disk.free),
        room_bytes: fullest.and_then(|free| free.checked_mul(disks.len() as u64)),
        missing_disks: disks.iter().filter(|disk| disk.state != "ok").count() as u64,
        bad_copies: details.bad_copies,
    }
}

/// How it grew, from the days before and how it is now.
fn growth(mut days: Vec<Figures>, now: &Figures) -> Option<Growth> {
    days.retain(|day| day.at < now.at);
    days.push(now.clone());
    let since = days.first()?.at;
    if now.at.duration_since(since) < LEAST {
        return None;
    }
    let day = |at: Timestamp| at.duration_since(since).as_secs_f64() / 86_400.0;
    let points: Vec<_> = days.iter().map(|d| (day(d.at), d.disk_bytes as f64)).collect();
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let over = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
    let under = points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    let bytes_per_day = over / under;
    let full = now.room_bytes.filter(|_| bytes_per_day > 0.0);
    let full_in_days = full.map(|room| room as f64 / bytes_per_day);
    Some(Growth { bytes_per_day, since, full_in_days })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(hour: i64, disk_bytes: u64) -> Figures {
        Figures {
            at: Timestamp::from_second(hour * 3600).unwrap(),
            images: 0,
            chunks: 0,
            logical_bytes: 0,
            unique_bytes: 0,
            unique_stored_bytes: 0,
            stored_bytes: 0,
            disk_bytes,
            capacity_bytes: None,
            free_bytes: None,
            room_bytes: Some(1000),
            missing_disks: 0,
            bad_copies: 0,
        }
    }

    #[test]
    fn growth_is_the_slope_of_what_was_measured() {
        assert_eq!(growth(vec![at(0, 0)], &at(23, 100)), None, "a day must have passed");
        let grown = growth(vec![at(0, 100), at(24, 200), at(48, 300)], &at(72, 400)).unwrap();
        assert!((grown.bytes_per_day - 100.0).abs() < 1e-9, "{grown:?}");
        assert!((grown.full_in_days.unwrap() - 10.0).abs() < 1e-9);
        assert_eq!(grown.since.as_second(), 0);
        let shrunk = growth(vec![at(0, 400)], &at(48, 200)).unwrap();
        assert!((shrunk.bytes_per_day + 100.0).abs() < 1e-9 && shrunk.full_in_days.is_none());
        let still = growth(vec![at(0, 400)], &at(48, 400)).unwrap();
        assert_eq!((still.bytes_per_day, still.full_in_days), (0.0, None));
    }
}
