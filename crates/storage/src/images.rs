//! Images: finding and showing them, labels, immutability, forgetting.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use strongroom_archive::image::{self, Image};
use strongroom_archive::show;
use strongroom_catalog::images::Removed;
use strongroom_catalog::list::{Count, List, Page, Scope};
use strongroom_catalog::{images, pools};
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::RootId;
use strongroom_engine::pool::Pool;
use tokio::sync::OwnedMutexGuard;

use crate::expiry::to_come;
use crate::mirror::time;
use crate::{Error, Result, Storage};

/// The longest label, in bytes, and how many an image may have.
pub(crate) const MAX_TAG: usize = 256;
pub(crate) const MAX_TAGS: usize = 100;

/// All that is known of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageDetails {
    /// What the catalogue knows.
    #[serde(flatten)]
    pub image: images::Image,
    /// The program that made it.
    pub program: String,
    /// What was left out.
    pub excludes: Vec<String>,
    /// When it was done, by its machine's clock.
    pub ended_at: Timestamp,
    /// Directories.
    pub dirs: u64,
    /// Links, devices and the like.
    pub others: u64,
    /// Files that were taken over from the parent unread.
    pub reused_files: u64,
    /// Files and directories with trouble.
    pub troubles: u64,
}

/// Labels to be added and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagChange {
    /// To be there afterwards.
    pub add: Vec<String>,
    /// Not to be there afterwards.
    pub remove: Vec<String>,
}

/// The rows whose images this process is forgetting, and how many times over: that they are gone is
/// told by whoever forgets them.
#[derive(Debug, Default)]
pub(crate) struct Forgetting(Mutex<HashMap<i64, usize>>);

/// Rows that are being forgotten until this is dropped.
#[derive(Debug)]
pub(crate) struct Forgotten<'f>(&'f Forgetting, Vec<i64>);

impl Forgetting {
    pub(crate) fn begin(&self, ids: &[i64]) -> Forgotten<'_> {
        let mut forgetting = self.ids();
        ids.iter().for_each(|id| *forgetting.entry(*id).or_default() += 1);
        Forgotten(self, ids.to_vec())
    }

    /// Those that nobody is forgetting.
    pub(crate) fn others(&self, ids: &[i64]) -> Vec<i64> {
        let forgetting = self.ids();
        ids.iter().copied().filter(|id| !forgetting.contains_key(id)).collect()
    }

    fn ids(&self) -> MutexGuard<'_, HashMap<i64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        let mut forgetting = self.0.ids();
        for id in &self.1 {
            if let Entry::Occupied(mut times) = forgetting.entry(*id) {
                *times.get_mut() -= 1;
                if *times.get() == 0 {
                    times.remove();
                }
            }
        }
    }
}

/// An image with the pool that has it, open.
pub(crate) struct Opened {
    pub(crate) row: images::Image,
    pub(crate) known: pools::Pool,
    pub(crate) pool: Arc<Pool>,
    pub(crate) image: Image,
}

impl Storage {
    /// Images, by a list of the resource of images.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn images(&self, list: &List, scope: &Scope) -> Result<Page<images::Image>> {
        Ok(list.page(&self.inner.catalog, scope).await?)
    }

    /// How many [`Storage::images`] there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_images(&self, list: &List, scope: &Scope) -> Result<Count> {
        Ok(list.count(&self.inner.catalog, scope).await?)
    }

    /// An image as the catalogue knows it.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`].
    pub async fn image(&self, id: i64) -> Result<images::Image> {
        Ok(images::find(&self.inner.catalog, id).await?)
    }

    /// The image that a user calls so: by its name (its latest image), `NAME@TIME` (its latest not
    /// after then), `latest`, or four or more digits of its id.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; [`Error::Ambiguous`].
    pub async fn choose_image(
        &self,
        text: &str,
        pool: Option<i64>,
        scope: &Scope,
    ) -> Result<images::Image> {
        let catalog = &self.inner.catalog;
        let latest = async |name: &str, until: Option<Timestamp>| {
            let found = images::latest(catalog, pool, Some(name), until, scope).await?;
            match found {
                None if name == "latest" => images::latest(catalog, pool, None, until, scope).await,
                found => Ok(found),
            }
        };
        if let Some(image) = latest(text, None).await? {
            return Ok(image);
        }
        if let Some((name, at)) = text.rsplit_once('@')
            && let Ok(until) = image::parse_time(at)
            && let Some(image) = latest(name, Some(time(until))).await?
        {
            return Ok(image);
        }
        let digits = text.to_ascii_lowercase();
        if (4..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found = images::by_digits(catalog, pool, &digits, scope, 2).await?;
            if found.len() > 1 {
                return Err(Error::Ambiguous { what: text.to_owned() });
            }
            if let Some(image) = found.pop() {
                return Ok(image);
            }
        }
        Err(strongroom_catalog::Error::NotFound { what: "image" }.into())
    }

    /// An image with its pool. The catalogue may not know yet that it is gone.
    pub(crate) async fn opened(&self, id: i64) -> Result<Opened> {
        let row = images::find(&self.inner.catalog, id).await?;
        let known = pools::find(&self.inner.catalog, row.pool_id).await?;
        let pool = self.open(row.pool_id).await?;
        let root = RootId::parse(&row.root).and_then(|root| pool.root(root));
        let Some(image) = root.map(|root| Image::of(&root)).transpose()?.flatten() else {
            self.unlist(row.pool_id, &row.root).await?;
            return Err(Error::Gone { root: row.root });
        };
        Ok(Opened { row, known, pool, image })
    }

    /// Waits for the caller's turn with the pool of an image.
    pub(crate) async fn turn_of(&self, id: i64) -> Result<OwnedMutexGuard<()>> {
        let row = images::find(&self.inner.catalog, id).await?;
        Ok(self.inner.changing.of(row.pool_id).await)
    }

    /// The image as the archive takes it, and its pool.
    ///
    /// # Errors
    /// [`Error::Gone`]; those of [`Storage::open`].
    pub async fn open_image(&self, id: i64) -> Result<(Arc<Pool>, Image)> {
        let opened = self.opened(id).await?;
        Ok((opened.pool, opened.image))
    }

    /// All that is known of an image.
    ///
    /// # Errors
    /// [`Error::Gone`]; those of [`Storage::open`].
    pub async fn show_image(&self, id: i64) -> Result<ImageDetails> {
        let Opened { row, image, .. } = self.opened(id).await?;
        let (stats, meta) = (image.meta.stats, image.meta);
        Ok(ImageDetails {
            image: row,
            program: meta.program,
            excludes: meta.excludes.iter().map(|rule| show(rule.as_bytes())).collect(),
            ended_at: time(PoolTime(meta.ended)),
            dirs: stats.dirs,
            others: stats.others,
            reused_files: stats.reused,
            troubles: stats.troubles,
        })
    }

    /// Changes an image's labels, if its row has that version still (None: whatever it has).
    ///
    /// # Errors
    /// [`Error::Invalid`] for labels that can't be; [`strongroom_catalog::Error::Changed`].
    pub async fn retag_image(
        &self,
        id: i64,
        change: TagChange,
        version: Option<i64>,
    ) -> Result<images::Image> {
        for tag in &change.add {
            if tag.is_empty() || tag.len() > MAX_TAG || tag.chars().any(char::is_control) {
                return Err(Error::Invalid(format!(
                    "a label has 1 to {MAX_TAG} bytes and no control characters"
                )));
            }
        }
        let _turn = self.turn_of(id).await?;
        let Opened { row, known, pool, mut image } = self.opened(id).await?;
        is_version(&row, version)?;
        let tags = &mut image.meta.tags;
        tags.retain(|tag| !change.remove.contains(tag));
        for tag in change.add {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if tags.len() > MAX_TAGS {
            return Err(Error::Invalid(format!("an image has {MAX_TAGS} labels at most")));
        }
        let (meta, root) = (image.meta.encode(), image.id);
        let on = Arc::clone(&pool);
        self.blocking(move || Ok(on.update_root(root, Some(meta), None)?)).await?;
        self.record(&known, &pool, root, None).await
    }

    /// Makes an image immutable until then, by the pool's clock, if its row has that version still.
    ///
    /// # Errors
    /// [`strongroom_engine::Error::Immutable`] when that would be earlier than it is now;
    /// [`Error::Invalid`] for a time that is over; [`strongroom_catalog::Error::Changed`].
    pub async fn keep_image_until(
        &self,
        id: i64,
        until: Timestamp,
        version: Option<i64>,
    ) -> Result<images::Image> {
        let _turn = self.turn_of(id).await?;
        let Opened { row, known, pool, image } = self.opened(id).await?;
        is_version(&row, version)?;
        // The catalogue cuts to microseconds: asking for what it shows is no shortening.
        let old = image.immutable_until.filter(|old| time(*old) == until && *old > pool.now());
        let wanted = match old {
            Some(old) => old,
            None => to_come(until, pool.now())?,
        };
        let (on, root) = (Arc::clone(&pool), image.id);
        self.blocking(move || Ok(on.update_root(root, None, Some(wanted))?)).await?;
        self.record(&known, &pool, root, None).await
    }

    /// Forgets images of one pool that rules had decided on some time ago, but for those that were
    /// kept for longer or made immutable since, or are gone; what went.
    ///
    /// # Errors
    /// As [`Storage::forget_images`].
    pub async fn forget_decided(&self, pool_id: i64, ids: &[i64]) -> Result<Vec<images::Image>> {
        let _turn = self.inner.changing.of(pool_id).await;
        let pool = self.open(pool_id).await?;
        self.sync_images(pool_id).await?;
        let stays = self.blocking(move || {
            let (images, _) = image::images(&*pool)?;
            let now = pool.now();
            let stays = images.iter().filter(|image| {
                let later = |at: Option<PoolTime>| at.is_some_and(|at| at > now);
                later(image.expires()) || later(image.immutable_until)
            });
            Ok(stays.map(|image| image.id.to_string()).collect::<BTreeSet<_>>())
        });
        let stays = stays.await?;
        let mut going = images::with_ids(&self.inner.catalog, ids).await?;
        going.retain(|row| row.pool_id == pool_id && !stays.contains(&row.root));
        self.forget_rows(going).await
    }

    /// Forgets images of one pool, all or none. What only they had is freed by the next collection.
    ///
    /// # Errors
    /// [`strongroom_engine::Error::Immutable`] when one of them may not go yet; [`Error::Invalid`]
    /// when they are of several pools.
    pub async fn forget_images(&self, ids: &[i64]) -> Result<Vec<images::Image>> {
        let rows = images::with_ids(&self.inner.catalog, ids).await?;
        let wanted: BTreeSet<i64> = ids.iter().copied().collect();
        if rows.len() < wanted.len() {
            return Err(strongroom_catalog::Error::NotFound { what: "image" }.into());
        }
        self.forget_rows(rows).await
    }

    /// As [`Storage::forget_images`], of rows that were just read.
    pub(crate) async fn forget_rows(&self, rows: Vec<images::Image>) -> Result<Vec<images::Image>> {
        let Some(first) = rows.first() else { return Ok(rows) };
        if rows.iter().any(|row| row.pool_id != first.pool_id) {
            let text = "images of several pools can't be forgotten at once: one pool at a time";
            return Err(Error::Invalid(text.into()));
        }
        let pool = self.open(first.pool_id).await?;
        let gone: Vec<i64> = rows.iter().map(|row| row.id).collect();
        // From before the first root is gone until the last row is.
        let _forgetting = self.inner.forgetting.begin(&gone);
        let (on, wanted) = (Arc::clone(&pool), rows.clone());
        self.blocking(move || {
            // Those that are gone already need not be forgotten.
            let roots = wanted.iter().filter_map(|row| RootId::parse(&row.root));
            let roots: Vec<RootId> = roots.filter(|root| on.root(*root).is_some()).collect();
            if roots.is_empty() { Ok(()) } else { Ok(on.forget(&roots)?) }
        })
        .await?;
        images::remove(&self.inner.catalog, &gone, Removed::Forgotten).await?;
        Ok(rows)
    }
}

pub(crate) fn is_version(row: &images::Image, version: Option<i64>) -> Result<()> {
    match version {
        Some(version) if version != row.version => {
            Err(strongroom_catalog::Error::Changed { what: "image" }.into())
        }
        _ => Ok(()),
    }
}
