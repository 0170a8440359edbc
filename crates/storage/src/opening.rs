//! Open pools: each is opened once, and shared.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strongroom_catalog::pools;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::keys::Secret;
use strongroom_engine::pool::{OpenMode, OpenOptions, Place, Pool};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::volumes::{Force, Owner};
use crate::{Error, PoolSecret, Result, Storage};

/// How often, and how long each time, it is waited for who uses a pool that is to be closed.
const PASSING: u32 = 20;
const MOMENT: Duration = Duration::from_millis(50);
/// How often it is waited for clients that are let go: what they asked for is answered first.
const LEAVING: u32 = 200;

/// Waiting for clients of exports that are let go, where that is wanted.
#[derive(Debug)]
pub(crate) struct LettingGo(u32);

impl LettingGo {
    pub(crate) fn by(force: Force) -> Self {
        Self(if force == Force::Yes { LEAVING } else { 0 })
    }

    /// Whether they are waited for once more.
    pub(crate) fn goes_on(&mut self) -> bool {
        let goes_on = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        goes_on
    }

    pub(crate) async fn wait(&self) {
        tokio::time::sleep(MOMENT).await;
    }
}

/// An open pool, and the one who has its volumes.
#[derive(Clone, Debug)]
struct Open {
    pool: Arc<Pool>,
    volumes: Arc<Owner>,
}

/// A pool that is open, or being opened by the first who asked for it.
type Cell = Arc<OnceCell<Open>>;

/// The open pools, by their number.
#[derive(Debug, Default)]
pub(crate) struct Openings(Mutex<HashMap<i64, Opening>>);

#[derive(Debug)]
enum Opening {
    Cell(Cell),
    /// Nobody may open it, because of this.
    Barred(&'static str),
}

impl Openings {
    fn with<R>(&self, look: impl FnOnce(&mut HashMap<i64, Opening>) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The pool's cell, or why it may not be opened.
    fn cell(&self, id: i64) -> Result<Cell, &'static str> {
        self.with(|all| match all.entry(id).or_insert_with(|| Opening::Cell(Cell::default())) {
            Opening::Cell(cell) => Ok(Arc::clone(cell)),
            Opening::Barred(why) => Err(*why),
        })
    }

    /// Lets go of a pool, if it is this one.
    fn drop_if(&self, id: i64, old: &Arc<Pool>) {
        self.with(|all| {
            if let Entry::Occupied(entry) = all.entry(id)
                && let Opening::Cell(cell) = entry.get()
                && cell.get().is_some_and(|open| Arc::ptr_eq(&open.pool, old))
            {
                entry.remove();
            }
        });
    }
}

/// What may open a pool.
pub(crate) struct Secrets {
    now: Option<PoolSecret>,
    /// What it was getting when somebody was cut off.
    next: Option<PoolSecret>,
}

impl Secrets {
    /// What opens it with one of them, and whether that was the next one.
    pub(crate) fn open<T>(&self, open: impl Fn(Option<&Secret>) -> Result<T>) -> Result<(T, bool)> {
        let now = self.now.as_ref().map(PoolSecret::open).transpose()?;
        match (open(now.as_ref()), &self.next) {
            (Err(Error::Pool(strongroom_engine::Error::WrongSecret)), Some(next)) => {
                Ok((open(Some(&next.open()?))?, true))
            }
            (opened, _) => Ok((opened?, false)),
        }
    }
}

/// Keeps a pool closed until it is dropped.
#[derive(Debug)]
pub struct Bar {
    storage: Storage,
    id: i64,
    /// The pool, once it is open and the bar is to end.
    opened: Option<Open>,
}

impl Bar {
    /// Ends it with the pool open: nobody else can open or bar it in between.
    pub(crate) async fn open_as(mut self, known: &pools::Pool, pool: Arc<Pool>) {
        self.opened = Some(self.storage.with_volumes(known, pool).await);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(open) = self.opened.take() {
            return self.storage.keep_open(self.id, open);
        }
        self.storage.inner.openings.with(|all| {
            if let Entry::Occupied(entry) = all.entry(self.id)
                && let Opening::Barred(_) = entry.get()
            {
                entry.remove();
            }
        });
    }
}

impl Storage {
    /// The pool, open to write; it is opened if it isn't, and stays open.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`strongroom_engine::Error::InUse`] when another process has it
    /// ([`Error::is_elsewhere`]); whatever keeps it from being opened.
    pub async fn open(&self, id: i64) -> Result<Arc<Pool>> {
        Ok(self.open_both(id).await?.pool)
    }

    /// The volumes of a pool, which is opened if it isn't.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub(crate) async fn volumes_of(&self, id: i64) -> Result<Arc<Owner>> {
        Ok(self.open_both(id).await?.volumes)
    }

    async fn open_both(&self, id: i64) -> Result<Open> {
        let openings = &self.inner.openings;
        let known = pools::find(&self.inner.catalog, id).await?;
        if !self.is_here(&known) {
            let (pool, node) = (known.name, known.node);
            return Err(Error::OtherNode { pool, node });
        }
        for _ in 0..2 {
            let closed = |why| Error::Closed { pool: known.name.clone(), why };
            let cell = openings.cell(id).map_err(closed)?;
            let open = cell.get_or_try_init(|| self.open_now(&known)).await?;
            // A pool that stopped writing after an error begins anew when it is opened again.
            if open.pool.check_writable().is_ok() {
                return Ok(open.clone());
            }
            let owner = Arc::clone(&open.volumes);
            let let_go = self.blocking(move || Ok(owner.let_go())).await?;
            if let Err(volumes) = let_go {
                let pool = known.name.clone();
                return Err(Error::Stopped { pool, volumes: volumes.join(", ") });
            }
            openings.drop_if(id, &open.pool);
        }
        let why = "it stopped writing after an error, twice".into();
        Err(strongroom_engine::Error::Stopped { why }.into())
    }

    /// The pool, if it is open.
    pub(crate) fn if_open(&self, id: i64) -> Option<Arc<Pool>> {
        self.inner.openings.with(|all| match all.get(&id) {
            Some(Opening::Cell(cell)) => cell.get().map(|open| Arc::clone(&open.pool)),
            _ => None,
        })
    }

    /// The volumes of a pool, if it is open.
    pub(crate) fn volumes_if_open(&self, id: i64) -> Option<Arc<Owner>> {
        self.inner.openings.with(|all| match all.get(&id) {
            Some(Opening::Cell(cell)) => cell.get().map(|open| Arc::clone(&open.volumes)),
            _ => None,
        })
    }

    /// Those who have the volumes of the pools that are open, with the pools' numbers.
    pub(crate) fn owners(&self) -> Vec<(i64, Arc<Owner>)> {
        self.inner.openings.with(|all| {
            let open = all.iter().filter_map(|(id, opening)| match opening {
                Opening::Cell(cell) => cell.get().map(|open| (*id, Arc::clone(&open.volumes))),
                Opening::Barred(_) => None,
            });
            open.collect()
        })
    }

    /// Lets go of a pool that is open, if it is; who uses it has it for as long as that lasts.
    pub(crate) fn forget_open(&self, id: i64) -> bool {
        let gone = self.inner.openings.with(|all| match all.entry(id) {
            Entry::Occupied(entry) if matches!(entry.get(), Opening::Cell(_)) => {
                Some(entry.remove())
            }
            _ => None,
        });
        // Closing it may wait for a disk.
        gone.map(|gone| tokio::task::spawn_blocking(move || drop(gone))).is_some()
    }

    /// Whether the disks of a pool are on this machine.
    pub fn is_here(&self, known: &pools::Pool) -> bool {
        known.node.is_empty() || known.node == self.inner.node
    }

    async fn open_now(&self, known: &pools::Pool) -> Result<Open> {
        let pool = self.open_disks(known).await?;
        self.mirror(known, &pool).await?;
        Ok(self.with_volumes(known, pool).await)
    }

    /// An open pool with its volumes, whose rows are as the pool has them afterwards. Images can be had
    /// even when volumes can't: that is logged, and tried again by who wants one.
    async fn with_volumes(&self, known: &pools::Pool, pool: Arc<Pool>) -> Open {
        let volumes = Arc::new(Owner::new(
            Arc::clone(&pool),
            &known.name,
            self.inner.pace,
            &self.inner.volume_cache,
        ));
        if let Err(error) = self.mirror_volumes(known, &volumes).await {
            tracing::error!("the volumes of the pool {} can't be had: {error}", known.name);
        }
        Open { pool, volumes }
    }

    /// Opens a pool that isn't open.
    pub(crate) async fn open_disks(&self, known: &pools::Pool) -> Result<Arc<Pool>> {
        let secrets = self.secrets(known).await?;
        let changing = secrets.next.is_some();
        let used = self.inner.used.clone();
        let path = known.path.clone();
        let (pool, took) = self
            .blocking(move || {
                let place = Place::find(Path::new(&path))?;
                secrets.open(|secret| {
                    let disks = present_disks(&place);
                    let mode = OpenMode::Write;
                    let options = OpenOptions { disks, mode, secret, without_index: false };
                    Ok(Arc::new(Pool::open(options, used.clone())?))
                })
            })
            .await?;
        if pool.id().to_string() != known.uuid {
            let (path, uuid, found) = (&known.path, &known.uuid, pool.id());
            return Err(Error::Invalid(format!(
                "{path} holds the pool {found}, and no longer {uuid}: bring back its disks, or \
                 remove the pool {} from the catalogue and import the other one",
                known.name
            )));
        }
        // A disk that is away may have the new one, and would be the newest when it is back.
        if changing && (took || pool.disks().iter().all(Option::is_some)) {
            pools::end_secret(&self.inner.catalog, known.id, took).await?;
        }
        Ok(pool)
    }

    /// The passphrase of a pool of this node, if it has one: for who made it and was cut off before
    /// it told.
    ///
    /// # Errors
    /// [`Error::Seal`]; those of the database.
    pub async fn passphrase(&self, known: &pools::Pool) -> Result<Option<Zeroizing<String>>> {
        if known.node != self.inner.node {
            return Ok(None);
        }
        Ok(match self.secret(known).await? {
            Some(PoolSecret::Passphrase(bytes)) => {
                String::from_utf8(bytes.to_vec()).ok().map(Zeroizing::new)
            }
            _ => None,
        })
    }

    /// What may open the pool.
    pub(crate) async fn secrets(&self, known: &pools::Pool) -> Result<Secrets> {
        Ok(Secrets { now: self.secret(known).await?, next: self.next(known).await? })
    }

    /// What opens the pool.
    async fn secret(&self, known: &pools::Pool) -> Result<Option<PoolSecret>> {
        let sealed = pools::secret(&self.inner.catalog, known.id).await?;
        let unseal =
            |s: Vec<u8>| PoolSecret::unseal(&*self.inner.sealer, &known.name, &known.uuid, &s);
        sealed.map(unseal).transpose()
    }

    /// What the pool was getting in its place when somebody was cut off.
    async fn next(&self, known: &pools::Pool) -> Result<Option<PoolSecret>> {
        let sealed = pools::next_secret(&self.inner.catalog, known.id).await?;
        let unseal =
            |s: Vec<u8>| PoolSecret::unseal(&*self.inner.sealer, &known.name, &known.uuid, &s);
        sealed.map(unseal).transpose()
    }

    /// Keeps a pool that was just made, instead of opening it again.
    pub(crate) async fn keep(&self, known: &pools::Pool, pool: Arc<Pool>) {
        let open = self.with_volumes(known, pool).await;
        self.keep_open(known.id, open);
    }

    fn keep_open(&self, id: i64, open: Open) {
        let cell = Arc::new(OnceCell::new_with(Some(open)));
        self.inner.openings.with(|all| all.insert(id, Opening::Cell(cell)));
    }

    /// Closes a pool and keeps it closed, for work that needs it to be. Nobody may be using it.
    ///
    /// # Errors
    /// [`Error::Used`] when somebody is, [`Error::Serving`] when volumes of it are served;
    /// [`Error::Closed`] when it is kept closed already.
    pub async fn close(&self, id: i64, why: &'static str) -> Result<Bar> {
        self.close_by(id, why, Force::No).await
    }

    /// As [`Storage::close`]; by force clients of exports are let go, also when it
    /// then turns out that somebody else uses it; those that don't go keep it open.
    ///
    /// # Errors
    /// As [`Storage::close`].
    pub(crate) async fn close_by(&self, id: i64, why: &'static str, force: Force) -> Result<Bar> {
        let known = pools::find(&self.inner.catalog, id).await?;
        let mut letting_go = LettingGo::by(force);
        // Who only measures it is done in a moment.
        for _ in 0..PASSING {
            while let Some(owner) = self.volumes_if_open(id) {
                let let_go = self.blocking(move || Ok(owner.let_go())).await?;
                let Err(volumes) = let_go else { break };
                if letting_go.goes_on() {
                    self.inner.clients.end_of_pool(id);
                    letting_go.wait().await;
                } else {
                    let pool = known.name.clone();
                    return Err(Error::Serving { pool, volumes: volumes.join(", ") });
                }
            }
            match self.close_now(&known, why) {
                Err(Error::Used { .. }) => tokio::time::sleep(MOMENT).await,
                closed => return closed,
            }
        }
        self.close_now(&known, why)
    }

    fn close_now(&self, known: &pools::Pool, why: &'static str) -> Result<Bar> {
        let id = known.id;
        // Closing may wait for a disk: the pool is let go of outside.
        let _old = self.inner.openings.with(|all| {
            let barred = match all.get(&id) {
                Some(Opening::Barred(why)) => {
                    return Err(Error::Closed { pool: known.name.clone(), why });
                }
                // Being opened right now.
                Some(Opening::Cell(cell)) if Arc::strong_count(cell) > 1 => false,
                // Whoever opens a volume has the owner, which has the pool, and so has each open volume.
                Some(Opening::Cell(cell)) => cell.get().is_none_or(|open| {
                    Arc::strong_count(&open.volumes) == 1 && Arc::strong_count(&open.pool) == 2
                }),
                None => true,
            };
            if !barred {
                return Err(Error::Used { pool: known.name.clone() });
            }
            Ok(all.insert(id, Opening::Barred(why)))
        })?;
        Ok(Bar { storage: self.clone(), id, opened: None })
    }

    /// Lets go of all pools. Those that somebody still uses close when that is over.
    pub async fn close_all(&self) {
        self.end_ingests().await;
        self.inner.remote.close_all();
        let all = self.inner.openings.with(std::mem::take);
        // Closing may wait for a disk.
        let end = move || {
            for opening in all.into_values() {
                if let Opening::Cell(cell) = opening
                    && let Some(open) = cell.get()
                {
                    open.volumes.end();
                }
            }
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }
}

/// The disks of a pool, as far as they can be opened; the engine says which are missing.
pub(crate) fn present_disks(place: &Place) -> Vec<Option<Arc<dyn Disk>>> {
    let open = |path: &std::path::PathBuf| match FsDisk::open(path) {
        Ok(disk) => Some(Arc::new(disk) as Arc<dyn Disk>),
        Err(e) => {
            if e.kind() != ErrorKind::NotFound {
                tracing::warn!("a disk of a pool can't be opened: {e}");
            }
            None
        }
    };
    place.disks.iter().map(open).collect()
}
