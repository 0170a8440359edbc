//! Pools and images, as their users name them.
//!
//! [`Storage`] is the one place where the appliance's pools are open: every job and every reader
//! shares the same [`Pool`](strongroom_engine::pool::Pool). The catalogue's rows of images only
//! mirror the pools' roots; where the two differ, the roots are right.
//!
//! All of it may be called from any task; what touches a disk runs on blocking threads, of which
//! there is a bounded number.

mod browse;
mod content;
mod details;
mod disks;
mod error;
mod expiry;
mod garbage;
mod images;
mod import;
pub mod ingest;
mod layout;
mod mending;
mod mirror;
mod opening;
mod pools;
mod readers;
mod retention;
mod sealer;
mod slots;
mod stats;
mod targets;
#[cfg(test)]
mod tests;
mod turns;
pub mod volumes;

use std::path::PathBuf;
use std::sync::Arc;

use strongroom_catalog::Catalog;
use strongroom_engine::clock::SystemClock;
use strongroom_engine::content::Cache;
use strongroom_engine::pool::Use;
use tokio::sync::Semaphore;

pub use browse::{Change, Entries, Entry, Found, Query, path_bytes};
pub use content::{Format, OpenFile};
pub use details::{Disk, PoolDetails, Ratios};
pub use error::{Error, Result};
pub use expiry::Retaining;
pub use garbage::PoolGarbage;
pub use images::{ImageDetails, TagChange};
pub use import::Import;
pub use layout::Layout;
pub use mending::Mended;
pub use mirror::Mirrored;
pub use opening::Bar;
pub use pools::{Created, Encryption, NewPool};
pub use readers::{OpenedReader, ReaderRef, Reading};
pub use retention::{Rules, Selection, Verdict};
pub use sealer::{PoolSecret, Sealer};
pub use stats::{Growth, PoolStats};
pub use targets::{
    AuthGroupChange, AuthGroupDetails, AuthGroupSecrets, Chap, Guard, MAX_LUNS, NewAuthGroup,
    NewTarget, PortalDetails, PortalGroupDetails, RefusedLogin, TARGET_PREFIX, TargetChange,
    TargetDetails, TargetFigures, TargetSession, TargetState, TargetWatch,
};

use images::Forgetting;
use ingest::Ingests;
use opening::Openings;
use readers::Readers;
use targets::Targets;
use turns::{Quiet, Turns};

/// How many calls read disks at once; more wait.
const READERS: usize = 16;
/// How many downloads there are at once; they take as long as who listens. More wait.
const STREAMS: usize = 64;

/// The service: see the crate's text. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    catalog: Catalog,
    sealer: Arc<dyn Sealer>,
    used: Use,
    /// The machine that this is.
    node: String,
    openings: Openings,
    remote: Readers,
    readers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// What clients send is checked and stored by so many threads at once.
    intake: Arc<Semaphore>,
    ingests: Ingests,
    forgetting: Forgetting,
    /// Images are looked through for a reference by one reader at a time.
    searching: Arc<Semaphore>,
    /// A pool's roots and key slots are read, changed and written back by one at a time.
    changing: Turns,
    /// Pools that could not be opened lately.
    quiet: Quiet,
    mounts: pools::Mounts,
    targets: Targets,
    /// Each volume is changed by one at a time.
    volume_turns: Turns,
    /// When volumes are settled.
    pace: volumes::Pace,
    /// What is read of volumes.
    volume_cache: Arc<Cache>,
    /// Volumes that are nearly full.
    overloaded: volumes::LastCheck,
    /// Who is connected to exports.
    clients: volumes::Clients,
}

impl Storage {
    /// The service over a catalogue. `holder` tells other processes who has the pools open.
    ///
    /// # Errors
    /// When the kernel doesn't say which boot this is.
    pub fn new(
        catalog: Catalog,
        sealer: Arc<dyn Sealer>,
        holder: impl Into<String>,
    ) -> Result<Self> {
        let used = Use {
            clock: Arc::new(SystemClock::new()?),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            holder: holder.into(),
        };
        let inner = Inner {
            catalog,
            sealer,
            node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            openings: Openings::default(),
            remote: Readers::new(readers::IDLE),
            readers: Arc::new(Semaphore::new(READERS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            intake: Arc::new(Semaphore::new(used.threads + 2)),
            ingests: Ingests::default(),
            forgetting: Forgetting::default(),
            searching: Arc::new(Semaphore::new(1)),
            changing: Turns::default(),
            quiet: Quiet::default(),
            mounts: pools::Mounts::default(),
            targets: Targets::default(),
            volume_turns: Turns::default(),
            pace: volumes::Pace::default(),
            volume_cache: Cache::new(volumes::cache_bytes()),
            overloaded: volumes::LastCheck::default(),
            clients: volumes::Clients::default(),
            used,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Says where disks are mounted that may be away: a pool gets no directory there then. Once, at
    /// the start.
    pub fn mounted_at(&self, places: Vec<PathBuf>) {
        self.inner.mounts.set(places);
    }

    /// The machine that this is, as pools and jobs name it.
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// The catalogue that it stands on.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Runs what touches a disk, when a thread is free for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        on_thread(&self.inner.readers, work).await
    }

    /// As [`Storage::blocking`], for what may wait for a client.
    async fn streaming<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        on_thread(&self.inner.streams, work).await
    }
}

async fn on_thread<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| Error::Ended)?;
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    task.await.map_err(|_| Error::Ended)?
}
