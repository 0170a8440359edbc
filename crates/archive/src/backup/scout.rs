//! Scouts: threads that list the directories which the walk comes to next.
//!
//! On a disk that has nothing in memory, a walk waits for every directory and every inode. Scouts
//! go ahead of it, in the order in which it will come, and read several at once. What they know is
//! what the walk would find a moment later; whatever they lack it looks up itself.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use super::Shared;
use super::opened::is_racy;
use super::walk::CACHE_NAME;
use crate::folder::{Folder, Kind, Meta, Names};

/// How many directories may be listed and not yet walked; each has a descriptor.
const AHEAD: usize = 128;
/// How many entries may be known of directories that were not walked yet: that bounds the memory.
const KNOWN: usize = 32 << 10;
/// Of how many entries of a directory the metadata is looked up in advance.
const LOOK_UP: usize = 4096;

/// What the system said of an entry, and whether it could have changed since without a sign.
pub(super) type Seen = (Meta, bool);

/// Where a directory comes in the walk: the places of it and of those above it, from the top.
pub(super) type Order = Vec<u32>;

/// A directory that is open, and what is in it.
pub(super) struct Listing {
    pub(super) folder: Arc<Folder>,
    pub(super) seen: Seen,
    pub(super) names: io::Result<Names>,
    /// What is known of the first of the names.
    pub(super) metas: Vec<Option<Seen>>,
    /// Whether the directories in it were named to the scouts.
    pub(super) spread: bool,
}

/// A directory that is still to be listed.
struct Task {
    parent: Arc<Folder>,
    name: Vec<u8>,
    path: Vec<u8>,
}

enum Found {
    /// A scout is there.
    Busy,
    Listed(io::Result<Listing>),
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<Order, Task>,
    found: BTreeMap<Order, Found>,
    /// Entries that are known of the directories in `found`.
    known: usize,
    /// Whether the scouts rest, until the walk has come half of the way to where they are: else
    /// they would be woken for every directory.
    resting: bool,
    /// Scouts with nothing to do.
    idle: usize,
    /// What the walk waits for.
    awaited: Option<Order>,
    ended: bool,
}

impl Found {
    fn known(&self) -> usize {
        match self {
            Self::Listed(Ok(listing)) => listing.metas.len(),
            Self::Listed(Err(_)) | Self::Busy => 0,
        }
    }
}

impl Inner {
    /// Whether scouts may go further ahead.
    fn has_room(&mut self) -> bool {
        let part = if self.resting { 2 } else { 1 };
        self.resting = self.found.len() >= AHEAD / part || self.known >= KNOWN / part;
        !self.resting
    }

    /// Whether scouts that rested have something to do again.
    fn may_wake(&mut self) -> bool {
        self.resting && self.has_room() && self.idle > 0 && !self.tasks.is_empty()
    }

    fn forget(&mut self, order: &[u32]) -> Option<Found> {
        let found = self.found.remove(order)?;
        self.known -= found.known();
        Some(found)
    }
}

/// What scouts and the walk share.
pub(super) struct Scouts<'s> {
    shared: &'s Shared<'s>,
    inner: Mutex<Inner>,
    /// There is something to list, or room for it.
    todo: Condvar,
    /// What the walk waits for is there.
    done: Condvar,
}

impl Listing {
    /// Opens a directory in another one and lists it.
    pub(super) fn read(parent: &Folder, name: &[u8]) -> io::Result<Self> {
        Self::of(parent.dir(name)?)
    }

    /// Lists a directory that nobody else uses yet.
    pub(super) fn of(mut folder: Folder) -> io::Result<Self> {
        let meta = folder.meta()?;
        let seen = (meta, is_racy(&meta));
        let names = folder.names();
        let mut metas = Vec::new();
        if let Ok(names) = &names {
            let known = (0..LOOK_UP).map_while(|i| names.get(i));
            let look = |name| folder.stat(name).map(|meta| (meta, is_racy(&meta))).ok();
            metas.extend(known.map(look));
        }
        Ok(Self { folder: Arc::new(folder), seen, names, metas, spread: false })
    }

    /// A directory that is only passed through: not all that is in it is wanted.
    pub(super) fn passed(folder: Folder) -> io::Result<Self> {
        let meta = folder.meta()?;
        let (names, metas) = (Ok(Names::default()), Vec::new());
        Ok(Self { folder: Arc::new(folder), seen: (meta, true), names, metas, spread: true })
    }
}

impl<'s> Scouts<'s> {
    pub(super) fn new(shared: &'s Shared<'s>) -> Self {
        Self { shared, inner: Mutex::default(), todo: Condvar::new(), done: Condvar::new() }
    }

    pub(super) fn shared(&self) -> &'s Shared<'s> {
        self.shared
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists directories until the walk has ended.
    pub(super) fn work(&self) {
        let mut inner = self.lock();
        loop {
            if inner.ended {
                return;
            }
            if inner.may_wake() {
                self.todo.notify_all();
            }
            let next = if inner.has_room() { inner.tasks.pop_first() } else { None };
            let Some((order, task)) = next else {
                inner.idle += 1;
                inner = self.todo.wait(inner).unwrap_or_else(PoisonError::into_inner);
                inner.idle -= 1;
                continue;
            };
            inner.found.insert(order.clone(), Found::Busy);
            drop(inner);
            let mut listing = Listing::read(&task.parent, &task.name);
            if let Ok(listing) = &mut listing {
                self.spread(listing, &order, &task.path);
                listing.spread = true;
            }
            inner = self.lock();
            let found = Found::Listed(listing);
            // The walk may have left the place meanwhile.
            if let Some(place) = inner.found.get_mut(&order) {
                let known = found.known();
                *place = found;
                inner.known += known;
            }
            if inner.awaited.as_ref() == Some(&order) {
                self.done.notify_one();
            }
        }
    }

    /// Names what is to be listed after this directory: the directories in it.
    pub(super) fn spread(&self, listing: &Listing, order: &[u32], path: &[u8]) {
        let Ok(names) = &listing.names else { return };
        // Most of a cache directory is left out, which only its content tells.
        if self.shared.exclude_caches && listing.folder.file(CACHE_NAME, OFlags::empty()).is_ok() {
            return;
        }
        let mut tasks = Vec::new();
        for (i, meta) in listing.metas.iter().enumerate() {
            let (Some((meta, _)), Some(name)) = (meta, names.get(i)) else { continue };
            if meta.kind != Kind::Dir
                || (self.shared.one_file_system && meta.device != listing.seen.0.device)
            {
                continue;
            }
            let name = name.to_bytes();
            let path = [path, b"/", name].concat();
            if self.shared.rules.fit(&path, true) {
                continue;
            }
            let order = [order, &[i as u32]].concat();
            let parent = Arc::clone(&listing.folder);
            tasks.push((order, Task { parent, name: name.to_vec(), path }));
        }
        if tasks.is_empty() {
            return;
        }
        let count = tasks.len();
        let mut inner = self.lock();
        inner.tasks.extend(tasks);
        let wake = if inner.resting { 0 } else { count.min(inner.idle) };
        drop(inner);
        for _ in 0..wake {
            self.todo.notify_one();
        }
    }

    /// The listing of a directory, if a scout has made it or is making it. Otherwise none will.
    pub(super) fn take(&self, order: &[u32]) -> Option<io::Result<Listing>> {
        let mut inner = self.lock();
        inner.tasks.remove(order);
        while matches!(inner.found.get(order), Some(Found::Busy)) {
            inner.awaited = Some(order.to_vec());
            inner = self.done.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.awaited = None;
        }
        let found = inner.forget(order);
        let wake = inner.may_wake();
        drop(inner);
        if wake {
            self.todo.notify_all();
        }
        match found {
            Some(Found::Listed(listing)) => Some(listing),
            Some(Found::Busy) | None => None,
        }
    }

    /// Forgets what was to be listed or is known below a directory that the walk leaves.
    pub(super) fn leave(&self, order: &[u32]) {
        let mut inner = self.lock();
        let below = |other: &&Order| other.starts_with(order);
        let from = order.to_vec();
        let tasks: Vec<Order> =
            inner.tasks.range(from.clone()..).map(|(o, _)| o).take_while(below).cloned().collect();
        for order in tasks {
            inner.tasks.remove(&order);
        }
        let found: Vec<Order> =
            inner.found.range(from..).map(|(o, _)| o).take_while(below).cloned().collect();
        for order in found {
            inner.forget(&order);
        }
        if inner.may_wake() {
            self.todo.notify_all();
        }
    }

    /// Until this is dropped the scouts work.
    pub(super) fn ending(&self) -> Ending<'_> {
        Ending(self)
    }
}

/// Sends the scouts home when dropped.
pub(super) struct Ending<'s>(&'s Scouts<'s>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.todo.notify_all();
    }
}
