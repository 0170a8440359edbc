//! The volumes of one open pool: which are open, and for whom.
//!
//! There is one owner for each open pool, and it alone opens volumes. One that nobody uses any more is
//! settled and let go of by the owner's threads ([`settling`](super::settling)); another does
//! ahead what those who write would wait for ([`tending`](super::tending)).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use strongroom_block::BlockDevice;
use strongroom_block::volume::{Limits, Volume, VolumeId, Volumes};
use strongroom_engine::content::Cache;
use strongroom_engine::pool::Pool;

use crate::{Error, Result};

/// How long the end waits for what is being settled; what isn't then is by the next who opens the pool.
const LAST: Duration = Duration::from_secs(10);

/// When volumes are settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes of a log that is not waited with any longer.
    pub(crate) log: u64,
    /// How long nothing must have been written before a shorter one is settled.
    pub(crate) idle: Duration,
    /// How often it is looked.
    pub(crate) look: Duration,
    /// How long it is waited after it failed, at first and at most.
    pub(crate) pause: (Duration, Duration),
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // A quarter of a log's usual limit; of a smaller one the volume tells.
            log: 2 << 30,
            idle: Duration::from_secs(5),
            look: Duration::from_secs(1),
            pause: (Duration::from_secs(5), Duration::from_secs(600)),
        }
    }
}

/// Who serves a volume to others.
#[derive(Clone)]
pub struct Server {
    /// What it is called, for people: `target t1`, say.
    pub name: String,
    /// Whether anybody is connected to it that may use the volume.
    pub in_use: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

/// That a volume can't be settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why.
    pub why: String,
    /// Since when, by this machine's clock.
    pub since: Timestamp,
    pub(super) next: Instant,
    pub(super) pause: Duration,
}

/// An open volume.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) volume: Arc<Volume>,
    /// How many operations use it.
    pub(super) users: usize,
    pub(super) servers: HashMap<u64, Server>,
    /// Bytes of its log when it was last looked at, and since when there are so many.
    pub(super) seen: (u64, Instant),
    /// Bytes of its log when it was last settled.
    pub(super) settled: Option<u64>,
    /// Whether one of the owner's threads settles it.
    pub(super) is_settling: bool,
    pub(super) trouble: Option<Trouble>,
    /// Nothing can be written to it any more: it is let go of once nobody uses it, and opened anew.
    pub(super) is_dead: bool,
}

impl Entry {
    pub(super) fn is_used(&self) -> bool {
        self.users > 0 || !self.servers.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) open: HashMap<VolumeId, Entry>,
    /// How many threads live that settle.
    pub(super) settling: usize,
    /// Whether the one that tends lives.
    pub(super) tending: bool,
    pub(super) ended: bool,
    next: u64,
    /// Those that are being removed.
    removing: HashSet<VolumeId>,
    /// Those that were changed since they were measured.
    pub(super) changed: HashSet<VolumeId>,
    /// When they were last measured, and how long that took.
    measured: HashMap<VolumeId, (Instant, Duration)>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Owner {
    pool: Arc<Pool>,
    /// The pool's name, for the log.
    pub(super) name: String,
    pub(super) pace: Pace,
    /// What is read of volumes, of all pools.
    cache: Arc<Cache>,
    /// None until somebody wants one, and once the pool is to be closed. Held by who makes them.
    volumes: Mutex<Option<Arc<Volumes>>>,
    table: Mutex<Table>,
    pub(super) wake: Condvar,
}

/// Why a volume was not removed.
#[derive(Debug)]
pub(super) enum Unremoved {
    /// These serve it.
    Served(Vec<String>),
    /// The pool said no.
    Failed(strongroom_block::Error),
    /// The pool's volumes can't be had.
    Other(Box<Error>),
}

/// What is known of a volume that is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) log_bytes: Option<u64>,
    pub(crate) served_by: Vec<String>,
    pub(crate) trouble: Option<Trouble>,
}

impl Owner {
    pub(crate) fn new(pool: Arc<Pool>, name: &str, pace: Pace, cache: &Arc<Cache>) -> Self {
        Self {
            pool,
            name: name.to_owned(),
            pace,
            cache: Arc::clone(cache),
            volumes: Mutex::default(),
            table: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool's volumes. It reads disks the first time.
    ///
    /// # Errors
    /// When the pool can't be written, or a disk can't be listed.
    pub(crate) fn volumes(&self) -> Result<Arc<Volumes>> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volumes) = &*volumes {
            return Ok(Arc::clone(volumes));
        }
        let made = Volumes::with_cache(Arc::clone(&self.pool), Limits::default(), &self.cache)?;
        let made = Arc::new(made);
        *volumes = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Lets go of the pool's volumes if nobody has them, with all that they have of the pool.
    fn let_go_of_all(&self) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = volumes.as_ref().is_some_and(|all| Arc::strong_count(all) == 1);
        // The threads may still have one that is no longer in the table.
        let table = self.table();
        if is_idle && table.open.is_empty() && table.settling == 0 && !table.tending {
            *volumes = None;
        }
    }

    /// A volume, open for as long as this is kept.
    ///
    /// # Errors
    /// When it isn't there, or can't be opened; [`Error::Ended`].
    pub(crate) fn hold(self: &Arc<Self>, id: VolumeId) -> Result<Held> {
        self.hold_for(id, None)
    }

    /// As [`Owner::hold`], for who serves it.
    pub(crate) fn hold_for(self: &Arc<Self>, id: VolumeId, by: Option<Server>) -> Result<Held> {
        let volumes = self.volumes()?;
        let volume = volumes.open(id)?;
        let mut table = self.table();
        if table.ended {
            return Err(Error::Ended);
        }
        if table.removing.contains(&id) {
            return Err(strongroom_block::Error::NotFound(format!("volume {id}")).into());
        }
        self.begin_settling(&mut table)?;
        if !table.tending {
            self.begin_tending()?;
            table.tending = true;
        }
        let number = table.next;
        table.next += 1;
        let entry = table.open.entry(id).or_insert_with(|| Entry {
            volume: Arc::clone(&volume),
            users: 0,
            servers: HashMap::new(),
            seen: (0, Instant::now()),
            settled: None,
            is_settling: false,
            trouble: None,
            is_dead: false,
        });
        let server = match by {
            None => {
                entry.users += 1;
                None
            }
            Some(by) => {
                entry.servers.insert(number, by);
                Some(number)
            }
        };
        drop(table);
        Ok(Held { volume, owner: Arc::clone(self), id, server })
    }

    /// What is known of a volume.
    pub(crate) fn standing(&self, id: VolumeId) -> Standing {
        let table = self.table();
        let Some(entry) = table.open.get(&id) else { return Standing::default() };
        let mut served_by: Vec<String> =
            entry.servers.values().map(|server| server.name.clone()).collect();
        served_by.sort();
        Standing {
            log_bytes: Some(entry.volume.log_bytes()),
            served_by,
            trouble: entry.trouble.clone(),
        }
    }

    /// Who serves a volume that somebody is connected to.
    pub(crate) fn used_through(&self, id: VolumeId) -> Vec<String> {
        let servers: Vec<Server> = match self.table().open.get(&id) {
            Some(entry) => entry.servers.values().cloned().collect(),
            None => return Vec::new(),
        };
        // What they are asked is theirs: nothing is held meanwhile.
        let used = servers.iter().filter(|server| (server.in_use)());
        used.map(|server| server.name.clone()).collect()
    }

    /// All that are open, with the bytes of their logs and whether they can't be settled.
    pub(crate) fn open_ones(&self) -> Vec<(VolumeId, u64, bool)> {
        let table = self.table();
        let one = |(id, entry): (&VolumeId, &Entry)| {
            (*id, entry.volume.log_bytes(), entry.trouble.is_some())
        };
        table.open.iter().map(one).collect()
    }

    /// Has it measured when that is next looked for.
    pub(crate) fn note_change(&self, id: VolumeId) {
        self.table().changed.insert(id);
    }

    /// Whether it was changed since this was last asked.
    pub(crate) fn take_change(&self, id: VolumeId) -> bool {
        self.table().changed.remove(&id)
    }

    /// Whether nothing can be written any more to a volume that is open.
    pub(super) fn is_dead(&self, id: VolumeId) -> bool {
        self.table().open.get(&id).is_some_and(|entry| entry.is_dead)
    }

    /// The names of those that are served, in order.
    pub(crate) fn served(&self) -> Vec<String> {
        let served: Vec<Arc<Volume>> = {
            let table = self.table();
            let served = table.open.values().filter(|entry| !entry.servers.is_empty());
            served.map(|entry| Arc::clone(&entry.volume)).collect()
        };
        // A name may have to wait for who settles.
        let mut names: Vec<String> = served.iter().map(|volume| volume.name()).collect();
        names.sort();
        names
    }

    /// Notes that a volume was measured, which took so long.
    pub(super) fn note_measured(&self, id: VolumeId, took: Duration) {
        self.table().measured.insert(id, (Instant::now(), took));
    }

    /// How long ago a volume was measured here, and how long that took.
    pub(super) fn last_measured(&self, id: VolumeId) -> Option<(Duration, Duration)> {
        self.table().measured.get(&id).map(|(at, took)| (at.elapsed(), *took))
    }

    /// Settles what nobody uses and lets go of it, so that the pool can be closed. What can't be settled
    /// stays in the log, where the next who opens the pool finds it.
    ///
    /// # Errors
    /// The names of those that are served, of which then none is let go.
    pub(crate) fn let_go(&self) -> Result<(), Vec<String>> {
        let served = self.served();
        if !served.is_empty() {
            return Err(served);
        }
        let idle: Vec<(VolumeId, Arc<Volume>)> = {
            let table = self.table();
            let idle = table.open.iter().filter(|(_, entry)| !entry.is_used());
            idle.map(|(id, entry)| (*id, Arc::clone(&entry.volume))).collect()
        };
        for (id, volume) in idle {
            if let Err(error) = volume.settle() {
                tracing::warn!(
                    "the volume {} of the pool {} is closed with what is in its log: {error}",
                    volume.name(),
                    self.name
                );
            }
            drop(volume);
            self.drop_if_idle(id);
        }
        self.let_go_of_all();
        self.wake.notify_all();
        Ok(())
    }

    /// Lets go of a volume that nobody uses.
    pub(super) fn drop_if_idle(&self, id: VolumeId) {
        let gone = {
            let mut table = self.table();
            match table.open.get(&id).is_some_and(|entry| !entry.is_used()) {
                true => table.open.remove(&id),
                false => None,
            }
        };
        // Outside: closing it may take a while.
        drop(gone);
    }

    /// Removes a volume, unless somebody serves it; nobody can begin to meanwhile.
    pub(super) fn remove(&self, id: VolumeId) -> Result<(), Unremoved> {
        let volumes = self.volumes().map_err(|error| Unremoved::Other(Box::new(error)))?;
        {
            let mut table = self.table();
            let servers = table.open.get(&id).map(|entry| &entry.servers);
            let mut served: Vec<String> =
                servers.into_iter().flatten().map(|(_, server)| server.name.clone()).collect();
            if !served.is_empty() {
                served.sort();
                return Err(Unremoved::Served(served));
            }
            table.removing.insert(id);
        }
        let removed = volumes.remove(id);
        let gone = {
            let mut table = self.table();
            table.removing.remove(&id);
            match removed {
                Ok(()) => {
                    table.changed.remove(&id);
                    table.measured.remove(&id);
                    table.open.remove(&id)
                }
                Err(_) => None,
            }
        };
        drop(gone);
        removed.map_err(Unremoved::Failed)
    }

    /// Bytes of a volume that is open.
    pub(super) fn open_size(&self, id: VolumeId) -> Option<u64> {
        let volume = self.table().open.get(&id).map(|entry| Arc::clone(&entry.volume));
        volume.map(|volume| volume.geometry().size)
    }

    /// Ends it with the process: what was acknowledged is made durable, and is settled by the next.
    pub(crate) fn end(&self) {
        let open = {
            let mut table = self.table();
            table.ended = true;
            std::mem::take(&mut table.open)
        };
        self.wake.notify_all();
        for entry in open.into_values() {
            if let Err(error) = entry.volume.flush() {
                let name = entry.volume.name();
                tracing::error!("the volume {name} can't be made durable at the end: {error}");
            }
        }
        // Whoever opens the pool next, in this process too, finds it closed.
        let until = Instant::now() + LAST;
        let mut table = self.table();
        while (table.settling > 0 || table.tending) && Instant::now() < until {
            let waited = self.wake.wait_timeout(table, Duration::from_millis(100));
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// An open volume, for as long as somebody uses it.
#[derive(Debug)]
pub(crate) struct Held {
    volume: Arc<Volume>,
    owner: Arc<Owner>,
    id: VolumeId,
    /// The number of who serves it.
    server: Option<u64>,
}

impl Held {
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Whether nothing can be written to it any more.
    pub(super) fn is_dead(&self) -> bool {
        self.owner.is_dead(self.id)
    }
}

impl Deref for Held {
    type Target = Volume;

    fn deref(&self) -> &Volume {
        &self.volume
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.owner.table();
        if let Some(entry) = table.open.get_mut(&self.id) {
            match self.server {
                Some(number) => {
                    entry.servers.remove(&number);
                }
                None => entry.users = entry.users.saturating_sub(1),
            }
            entry.seen.1 = Instant::now();
        }
        let is_over = table.open.get(&self.id).is_some_and(|one| one.is_dead && !one.is_used());
        let gone = if is_over { table.open.remove(&self.id) } else { None };
        drop(table);
        drop(gone);
        self.owner.wake.notify_all();
    }
}
