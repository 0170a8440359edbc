//! Which images stay: the archive's rules, over a choice of a pool's images.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use strongroom_archive::image::{self, Image};
use strongroom_archive::retention::Policy;
use strongroom_catalog::images;

use crate::{Result, Storage};

/// Seconds to nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// How many images are kept; the rules hold for each name and host by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The latest so many.
    pub last: u64,
    /// The latest of each of so many hours.
    pub hourly: u64,
    /// The latest of each of so many days.
    pub daily: u64,
    /// The latest of each of so many weeks.
    pub weekly: u64,
    /// The latest of each of so many months.
    pub monthly: u64,
    /// The latest of each of so many years.
    pub yearly: u64,
    /// All that are not older than so many seconds before the latest.
    pub within_seconds: Option<u64>,
    /// All with any of these labels.
    pub tags: Vec<String>,
}

impl Rules {
    fn policy(&self) -> Policy {
        let nanos = |s: u64| i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(SECOND);
        Policy {
            last: self.last,
            hourly: self.hourly,
            daily: self.daily,
            weekly: self.weekly,
            monthly: self.monthly,
            yearly: self.yearly,
            within: self.within_seconds.map(nanos),
            tags: self.tags.clone(),
        }
    }
}

/// Which images are looked at; everything that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Of this name.
    pub name: Option<String>,
    /// Of this host.
    pub host: Option<String>,
    /// With all of these labels.
    pub tags: Vec<String>,
}

impl Selection {
    pub(crate) fn fits(&self, image: &Image) -> bool {
        self.name.as_ref().is_none_or(|name| *name == image.name)
            && self.host.as_ref().is_none_or(|host| *host == image.meta.host)
            && self.tags.iter().all(|tag| image.meta.tags.contains(tag))
    }
}

/// What would happen to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which.
    #[serde(flatten)]
    pub image: images::Image,
    /// Why it stays; it goes when there is no reason.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// Whether it stays.
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

impl Storage {
    /// What the rules would keep and forget of a pool's images. Nothing is changed.
    ///
    /// # Errors
    /// [`strongroom_archive::Error::Invalid`] for rules that keep nothing; those of
    /// [`Storage::open`].
    pub async fn judge_images(
        &self,
        pool_id: i64,
        selection: Selection,
        rules: &Rules,
    ) -> Result<Vec<Verdict>> {
        let pool = self.open(pool_id).await?;
        self.sync_images(pool_id).await?;
        let policy = rules.policy();
        let judged = self
            .blocking(move || {
                let (images, _) = image::images(&*pool)?;
                let chosen = images.iter().filter(|image| selection.fits(image));
                let verdicts = policy.judge(chosen, pool.now())?;
                let told = |verdict: &strongroom_archive::retention::Verdict<'_>| {
                    let reasons: Vec<_> = verdict.reasons.iter().map(ToString::to_string).collect();
                    (verdict.image.id.to_string(), reasons)
                };
                Ok(verdicts.iter().map(told).collect::<Vec<_>>())
            })
            .await?;
        let rows = images::of_pool(&self.inner.catalog, pool_id).await?;
        let mut rows: HashMap<String, images::Image> =
            rows.into_iter().map(|row| (row.root.clone(), row)).collect();
        // An image that was made or forgotten in between is left to the next time.
        let verdict = |(root, reasons): (String, Vec<String>)| {
            rows.remove(&root).map(|image| Verdict { image, reasons })
        };
        Ok(judged.into_iter().filter_map(verdict).collect())
    }
}
