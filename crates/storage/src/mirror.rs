//! Keeping the catalogue's rows as the pools' roots are.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use strongroom_archive::image::{Image, ImageKind};
use strongroom_archive::show;
use strongroom_catalog::images::{self, Known, Removed};
use strongroom_catalog::pools;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::RootId;
use strongroom_engine::pool::{Meter, Pool};
use strongroom_engine::state::Root;

use crate::{Error, Result, Storage};

/// Images that are entered between two looks whether that is to end.
const ENTERED: usize = 500;

/// What bringing the catalogue up to date came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mirrored {
    /// Images that the catalogue did not know.
    pub added: u64,
    /// Images that were other than it knew.
    pub changed: u64,
    /// Images that it knew and that are gone.
    pub removed: u64,
    /// Roots that say they are images, and can't be read.
    pub unreadable: u64,
}

/// A moment of the pool's clock, or of a client's, in the catalogue: cut to microseconds.
pub(crate) fn time(time: PoolTime) -> Timestamp {
    Timestamp::from_microsecond(time.0.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The row of a root; None for a root that is no image.
pub(crate) fn row(
    pool: &pools::Pool,
    root: &Root,
    job_id: Option<i64>,
) -> Result<Option<images::Image>> {
    let Some(image) = Image::of(root)? else { return Ok(None) };
    let expires_at = image.expires().map(time);
    let (stats, meta) = (image.meta.stats, image.meta);
    Ok(Some(images::Image {
        id: 0,
        pool_id: pool.id,
        organisation_id: pool.organisation_id,
        root: root.id.to_string(),
        parent: meta.parent.map(|parent| parent.to_string()),
        name: image.name,
        kind: match meta.kind {
            ImageKind::Files => "files",
            ImageKind::Block => "block",
            ImageKind::Stream => "stream",
        }
        .into(),
        host: meta.host,
        user_name: meta.user,
        paths: meta.paths.iter().map(|path| show(path)).collect(),
        tags: meta.tags.iter().map(|tag| show(tag.as_bytes())).collect(),
        complete: meta.complete,
        started_at: time(PoolTime(meta.started)),
        created_at: time(root.created),
        expires_at,
        immutable_until: root.immutable_until.map(time),
        files: stats.files,
        size: stats.bytes,
        new_size: stats.new_bytes,
        stored_size: stats.stored_bytes,
        job_id,
        version: 0,
    }))
}

fn is_as_known(row: &images::Image, known: &Known) -> bool {
    let changing = (&row.tags, row.expires_at, row.immutable_until);
    changing == (&known.tags, known.expires_at, known.immutable_until)
}

impl Storage {
    /// Brings the catalogue's rows of a pool's images up to date.
    ///
    /// # Errors
    /// As [`Storage::open`]; those of the database.
    pub async fn sync_images(&self, id: i64) -> Result<Mirrored> {
        let known = pools::find(&self.inner.catalog, id).await?;
        let pool = self.open(id).await?;
        self.mirror(&known, &pool).await
    }

    /// As [`Storage::sync_images`], of a pool that is open.
    ///
    /// It may run beside backups and forgets. Rows are read before roots: so a row without a root
    /// is one that is gone. What is entered is looked at once more afterwards, for it may have been
    /// forgotten in between.
    pub(crate) async fn mirror(&self, known: &pools::Pool, pool: &Arc<Pool>) -> Result<Mirrored> {
        self.mirror_counted(known, pool, &Meter::new()).await
    }

    /// As [`Storage::mirror`]; the meter counts what is entered, and may end it.
    pub(crate) async fn mirror_counted(
        &self,
        known: &pools::Pool,
        pool: &Arc<Pool>,
        meter: &Meter,
    ) -> Result<Mirrored> {
        let catalog = &self.inner.catalog;
        let rows = images::known(catalog, known.id).await?;
        let (of, from) = (known.clone(), Arc::clone(pool));
        let (fresh, gone, done) = self.blocking(move || Ok(compare(&of, &from, rows))).await?;
        self.unlist_gone(&gone).await?;
        meter.begin(fresh.len() as u64);
        for some in fresh.chunks(ENTERED) {
            meter.check()?;
            images::put(catalog, some).await?;
            meter.add(some.len() as u64);
        }
        for image in fresh {
            let root = RootId::parse(&image.root);
            if root.is_none_or(|root| pool.root(root).is_none()) {
                self.unlist(known.id, &image.root).await?;
            }
        }
        Ok(done)
    }

    /// Removes the row of a root that is gone, if there is one.
    pub(crate) async fn unlist(&self, pool: i64, root: &str) -> Result<()> {
        match images::of_root(&self.inner.catalog, pool, root).await {
            Ok(image) => self.unlist_gone(&[image.id]).await,
            Err(strongroom_catalog::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes rows whose roots are gone, but for those that whoever forgets them removes.
    async fn unlist_gone(&self, ids: &[i64]) -> Result<()> {
        let gone = self.inner.forgetting.others(ids);
        Ok(images::remove(&self.inner.catalog, &gone, Removed::Gone).await?)
    }

    /// Enters an image that was just made, with the job that made it.
    ///
    /// # Errors
    /// [`Error::Gone`] when the pool has no such image (any more); those of the database.
    pub async fn record_image(
        &self,
        pool_id: i64,
        root: RootId,
        job: Option<i64>,
    ) -> Result<images::Image> {
        let known = pools::find(&self.inner.catalog, pool_id).await?;
        let pool = self.open(pool_id).await?;
        self.record(&known, &pool, root, job).await
    }

    /// Brings the row of one root up to date.
    pub(crate) async fn record(
        &self,
        known: &pools::Pool,
        pool: &Pool,
        root: RootId,
        job: Option<i64>,
    ) -> Result<images::Image> {
        let gone = || Error::Gone { root: root.to_string() };
        let found = pool.root(root).ok_or_else(gone)?;
        let row = row(known, &found, job)?.ok_or_else(gone)?;
        images::put(&self.inner.catalog, std::slice::from_ref(&row)).await?;
        if pool.root(root).is_none() {
            self.unlist(known.id, &row.root).await?;
            return Err(gone());
        }
        Ok(images::of_root(&self.inner.catalog, known.id, &row.root).await?)
    }
}

/// Rows to be written, rows to be removed, and the sum of it.
fn compare(
    known: &pools::Pool,
    pool: &Pool,
    rows: Vec<Known>,
) -> (Vec<images::Image>, Vec<i64>, Mirrored) {
    let mut done = Mirrored::default();
    let mut rows: HashMap<String, Known> =
        rows.into_iter().map(|row| (row.root.clone(), row)).collect();
    let mut fresh = Vec::new();
    for root in pool.roots() {
        let old = rows.remove(&root.id.to_string());
        match (row(known, &root, None), old) {
            (Ok(Some(row)), None) => {
                done.added += 1;
                fresh.push(row);
            }
            (Ok(Some(row)), Some(old)) if !is_as_known(&row, &old) => {
                done.changed += 1;
                fresh.push(row);
            }
            (Err(error), _) => {
                done.unreadable += 1;
                tracing::warn!("a root of the pool {} can't be read: {error}", known.name);
            }
            _ => {}
        }
    }
    done.removed = rows.len() as u64;
    (fresh, rows.into_values().map(|row| row.id).collect(), done)
}
