//! How a pool is: its disks, its room, and what deduplication and compression save, as measured.

use jiff::Timestamp;
use serde::Serialize;
use strongroom_catalog::list::Scope;
use strongroom_catalog::pools;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::pool::Pool;
use strongroom_engine::state::State;
use strongroom_engine::superblock::Superblock;

use crate::mirror::time;
use crate::{Layout, Result, Storage};

/// A disk of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its number in the layout.
    pub number: usize,
    /// Where it is, if it is there.
    pub path: Option<String>,
    /// `ok`, `missing`, `outdated` (it was away when the pool was changed) or `damaged`.
    pub state: &'static str,
    /// Its room, in bytes.
    pub total: Option<u64>,
    /// Bytes of it that are free.
    pub free: Option<u64>,
}

/// What is saved, as measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratios {
    /// Bytes of all images as if each were restored, by bytes that the pool stores for them.
    pub reduction: Option<f64>,
    /// Bytes of all images, by those of them that were new to the pool when they came.
    pub deduplication: Option<f64>,
    /// Bytes that were new, by what they take compressed.
    pub compression: Option<f64>,
}

impl Ratios {
    /// Of these bytes: of all images; those that were new; what those take; what all packs take.
    pub fn of(logical: u64, unique: u64, unique_stored: u64, stored: u64) -> Self {
        Self {
            reduction: ratio(logical, stored),
            deduplication: ratio(logical, unique),
            compression: ratio(unique, unique_stored),
        }
    }
}

/// All that a pool tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolDetails {
    /// What the catalogue knows.
    #[serde(flatten)]
    pub pool: pools::Pool,
    /// `ok`; `degraded`: disks are missing or bad, all data is there; `damaged`: chunks are lost.
    pub state: &'static str,
    /// How it lies on its disks.
    pub layout: String,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// When it was made, by that machine's clock.
    pub made_at: Timestamp,
    /// The pool's own time.
    pub pool_time: Timestamp,
    /// The smallest, average and largest chunk of files, in bytes.
    pub chunk_sizes: [u32; 3],
    /// The chunks of disks, in bytes.
    pub block_size: u32,
    /// The zstd level.
    pub level: i32,
    /// A pack is closed once it has so many bytes.
    pub pack_size: u32,
    /// Images in it.
    pub images: u64,
    /// Their files.
    pub files: u64,
    /// Their bytes, as if each were restored.
    pub logical_bytes: u64,
    /// Those of them that were new to the pool when they came.
    pub unique_bytes: u64,
    /// What those take, compressed.
    pub unique_stored_bytes: u64,
    /// Bytes in packs, before redundancy.
    pub stored_bytes: u64,
    /// Bytes in packs, with redundancy.
    pub disk_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Packs that were given up and will be removed.
    pub packs_to_remove: u64,
    /// Chunks in packs.
    pub chunks: u64,
    /// Bytes of the index on each disk.
    pub index_bytes: u64,
    /// Copies of chunks that are known to be bad.
    pub bad_copies: u64,
    /// What is saved.
    pub ratios: Ratios,
    /// When a scrub last came to its end.
    pub scrubbed_at: Option<Timestamp>,
    /// Since when one is under way.
    pub scrub_since: Option<Timestamp>,
}

impl Storage {
    /// How a pool is. It is opened for that.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub async fn show_pool(&self, id: i64) -> Result<PoolDetails> {
        let known = pools::find(&self.inner.catalog, id).await?;
        let pool = self.open(id).await?;
        self.blocking(move || Ok(details(known, &pool))).await
    }

    /// As [`Storage::show_pool`], of a pool that is open here; None of others.
    ///
    /// # Errors
    /// None that are the pool's.
    pub(crate) async fn details_if_open(&self, known: &pools::Pool) -> Result<Option<PoolDetails>> {
        let Some(pool) = self.if_open(known.id) else { return Ok(None) };
        let known = known.clone();
        self.blocking(move || Ok(Some(details(known, &pool)))).await
    }

    /// The disks of the pools that are open here, as far as they are in the scope; of these only
    /// some when they are named.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn disks(
        &self,
        scope: &Scope,
        only: Option<&[i64]>,
    ) -> Result<Vec<(pools::Pool, Disk)>> {
        let mut all = Vec::new();
        for known in self.known(scope, only).await? {
            let Some(pool) = self.if_open(known.id) else { continue };
            let found = self.blocking(move || Ok(disks(&pool, pool.superblock().generation)));
            all.extend(found.await?.into_iter().map(|disk| (known.clone(), disk)));
        }
        Ok(all)
    }
}

fn details(known: pools::Pool, pool: &Pool) -> PoolDetails {
    let superblock = pool.superblock();
    let state = pool.state();
    let disks = disks(pool, superblock.generation);
    let sums = Sums::of(&state, pool);
    let bad_copies = state.bad.len() as u64;
    let whole = disks.iter().all(|disk| disk.state == "ok");
    PoolDetails {
        pool: known,
        state: match (bad_copies, whole) {
            (0, true) => "ok",
            (0, false) => "degraded",
            _ => "damaged",
        },
        layout: Layout::of_shards(superblock.data_shards, superblock.parity_shards).to_string(),
        disks,
        made_at: time(PoolTime(superblock.created)),
        pool_time: time(pool.now()),
        chunk_sizes: {
            let cut = superblock.chunking;
            [cut.min, cut.avg, cut.max]
        },
        block_size: superblock.chunking.fixed,
        level: superblock.compression_level,
        pack_size: superblock.pack_size,
        images: sums.images,
        files: sums.files,
        logical_bytes: sums.logical,
        unique_bytes: sums.new,
        unique_stored_bytes: sums.new_stored,
        stored_bytes: sums.stored,
        disk_bytes: sums.on_disk,
        packs: state.packs.len() as u64,
        packs_to_remove: state.condemned.len() as u64,
        chunks: state.packs.values().map(|pack| u64::from(pack.chunks)).sum(),
        index_bytes: state.segments.values().map(|segment| segment.len).sum(),
        bad_copies,
        ratios: Ratios::of(sums.logical, sums.new, sums.new_stored, sums.stored),
        scrubbed_at: state.scrubbed.map(time),
        scrub_since: state.scrub.map(|mark| time(mark.started)),
    }
}

fn disks(pool: &Pool, newest: u64) -> Vec<Disk> {
    let row =
        |(number, disk): (usize, &Option<std::sync::Arc<dyn strongroom_engine::disk::Disk>>)| {
            let Some(disk) = disk else {
                return Disk { number, path: None, state: "missing", total: None, free: None };
            };
            let state = match Superblock::read(&**disk) {
                Ok(superblock) if superblock.generation < newest => "outdated",
                Ok(_) => "ok",
                Err(_) => "damaged",
            };
            let space = disk.space().ok();
            let (total, free) = (space.map(|space| space.total), space.map(|space| space.free));
            Disk { number, path: Some(disk.describe()), state, total, free }
        };
    pool.disks().iter().enumerate().map(row).collect()
}

#[derive(Default)]
struct Sums {
    images: u64,
    files: u64,
    logical: u64,
    new: u64,
    new_stored: u64,
    stored: u64,
    on_disk: u64,
}

impl Sums {
    fn of(state: &State, pool: &Pool) -> Self {
        let mut sums = Self::default();
        for root in pool.roots() {
            let Ok(Some(image)) = strongroom_archive::image::Image::of(&root) else { continue };
            let stats = image.meta.stats;
            sums.images += 1;
            sums.files = sums.files.saturating_add(stats.files);
            sums.logical = sums.logical.saturating_add(stats.bytes);
            sums.new = sums.new.saturating_add(stats.new_bytes);
            sums.new_stored = sums.new_stored.saturating_add(stats.stored_bytes);
        }
        for pack in state.packs.values() {
            sums.stored += pack.len;
            let (data, parity) = (u64::from(pack.data_shards), u64::from(pack.parity_shards));
            sums.on_disk += pack.len.div_ceil(data.max(1)) * (data + parity);
        }
        sums
    }
}

fn ratio(whole: u64, part: u64) -> Option<f64> {
    (part > 0).then(|| (whole as f64 / part as f64 * 100.0).round() / 100.0)
}
