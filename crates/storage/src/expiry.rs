//! How long images are kept, when they say so themselves, and forgetting those whose time is over.
//! It is counted by the pool's own clock, and kept in the image's record in the pool.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use strongroom_archive::image;
use strongroom_catalog::{images, pools};
use strongroom_engine::clock::PoolTime;

use crate::images::{Opened, is_version};
use crate::mirror::time;
use crate::{Error, Result, Selection, Storage};

/// A time of the pool that is to come.
///
/// # Errors
/// [`Error::Invalid`] when it is over, or further away than a pool can count.
pub(crate) fn to_come(at: Timestamp, now: PoolTime) -> Result<PoolTime> {
    let wrong = |why: &str| Err(Error::Invalid(format!("{at} {why}: the pool's time is {now}")));
    match i64::try_from(at.as_nanosecond()) {
        Ok(nanos) if PoolTime(nanos) > now => Ok(PoolTime(nanos)),
        Err(_) if at > Timestamp::UNIX_EPOCH => wrong("is too far away"),
        _ => wrong("is over"),
    }
}

/// What may become of the time that an image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retaining {
    /// It may only become longer.
    Longer,
    /// It may become shorter, too.
    Either,
}

impl Storage {
    /// Keeps an image until then, by the pool's clock, or (None) until somebody forgets it, if its
    /// row has that version still.
    ///
    /// # Errors
    /// [`Error::Shortens`] when it would be kept for less long than now, which was not allowed;
    /// [`Error::Invalid`] for a time that is over; [`strongroom_catalog::Error::Changed`].
    pub async fn retain_image(
        &self,
        id: i64,
        until: Option<Timestamp>,
        how: Retaining,
        version: Option<i64>,
    ) -> Result<images::Image> {
        let _turn = self.turn_of(id).await?;
        let Opened { row, known, pool, mut image } = self.opened(id).await?;
        is_version(&row, version)?;
        let old = image.expires();
        // The catalogue cuts to microseconds: asking for what it shows changes nothing.
        if old.map(time) == until {
            return Ok(row);
        }
        let end = until.map(|until| to_come(until, pool.now())).transpose()?;
        let shorter = match (old.map(time), until) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(until)) => until < old,
        };
        if shorter && how == Retaining::Longer {
            return Err(Error::Shortens);
        }
        image.meta.kept_for = end.map(|end| end.since(image.created));
        let (meta, root, on) = (image.meta.encode(), image.id, Arc::clone(&pool));
        self.blocking(move || Ok(on.update_root(root, Some(meta), None)?)).await?;
        self.record(&known, &pool, root, None).await
    }

    /// The pools of this machine with images that are to be forgotten now, by the pools' own
    /// clocks. Pools that another process has are its own affair; those that can't be opened are left
    /// alone for a while, for longer each time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn pools_with_expired(&self) -> Result<Vec<pools::Pool>> {
        let catalog = &self.inner.catalog;
        let mut found = Vec::new();
        for known in pools::all(catalog).await? {
            let id = known.id;
            let quiet = &self.inner.quiet;
            // Who asks for a pool is not kept waiting, and may have opened it meanwhile.
            let is_left_alone = self.if_open(id).is_none() && quiet.holds(id, Instant::now());
            if is_left_alone || !self.is_here(&known) || !images::any_expiring(catalog, id).await? {
                continue;
            }
            let now = match self.open(id).await {
                Ok(pool) => {
                    quiet.end(id);
                    time(pool.now())
                }
                Err(error) => {
                    if !error.is_elsewhere() {
                        let (name, pause) = (&known.name, quiet.begin(id, Instant::now()));
                        tracing::warn!(
                            "what is expired in {name} is not looked for; it is tried again in {} \
                             minutes: {error}",
                            pause.as_secs().div_ceil(60)
                        );
                    }
                    continue;
                }
            };
            if images::any_expired(catalog, id, now).await? {
                found.push(known);
            }
        }
        Ok(found)
    }

    /// The images of a pool that have been kept for as long as they say, and may go.
    ///
    /// # Errors
    /// As [`Storage::open`]; those of the database.
    pub async fn expired_images(
        &self,
        pool_id: i64,
        selection: &Selection,
    ) -> Result<Vec<images::Image>> {
        let pool = self.open(pool_id).await?;
        self.sync_images(pool_id).await?;
        let selection = selection.clone();
        let roots = self.blocking(move || {
            let (images, _) = image::images(&*pool)?;
            let now = pool.now();
            let expired = images.iter().filter(|i| i.is_expired(now) && selection.fits(i));
            Ok(expired.map(|image| image.id.to_string()).collect::<BTreeSet<_>>())
        });
        let roots = roots.await?;
        if roots.is_empty() {
            return Ok(Vec::new());
        }
        let rows = images::of_pool(&self.inner.catalog, pool_id).await?;
        Ok(rows.into_iter().filter(|row| roots.contains(&row.root)).collect())
    }

    /// Forgets [`Storage::expired_images`]; what went. Nobody can keep one of them for longer in
    /// between.
    ///
    /// # Errors
    /// As [`Storage::forget_images`].
    pub async fn forget_expired(
        &self,
        pool_id: i64,
        selection: &Selection,
    ) -> Result<Vec<images::Image>> {
        let _turn = self.inner.changing.of(pool_id).await;
        let expired = self.expired_images(pool_id, selection).await?;
        self.forget_rows(expired).await
    }
}
