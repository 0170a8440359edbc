//! Walking the tree: finds what there is, compares it with the parent image, and says in order
//! what goes into the new one.

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{OFlags, major, minor};
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::MapRef;

use super::Shared;
use super::content::{Found, Job, LARGE, Task};
use super::opened::is_racy;
use super::scout::{Listing, Order, Scouts, Seen};
use crate::entry::{Body, Entry, Xattr};
use crate::folder::{Folder, Kind, Meta, Names};
use crate::image::components;
use crate::tree::{Dir, Entries};
use crate::xattrs::Which;
use crate::{Error, Result};

/// What a file holding the mark of a cache directory begins with (bford.info/cachedir).
const CACHE_MARK: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
pub(super) const CACHE_NAME: &[u8] = b"CACHEDIR.TAG";
/// How many small files are read together at most, and from how many directories.
const BATCH_FILES: usize = 128;
const BATCH_FOLDERS: usize = 16;
const BATCH_BYTES: u64 = 1 << 20;
/// How many events are passed on together.
const EVENTS: usize = 256;

/// What goes into the image next.
#[derive(Debug)]
pub(super) enum Event {
    /// A directory begins; what follows goes into it.
    Enter { name: Vec<u8>, device: u32 },
    /// The directory ends; its entry is whole but for its node.
    Leave(Box<Entry>),
    /// An entry that is whole. `keep`: more names of its inode follow.
    Ready { entry: Box<Entry>, keep: Option<Inode> },
    /// A file whose content comes next from the batches.
    File { entry: Box<Entry>, keep: Option<Inode> },
    /// A file whose content comes by itself.
    Large { entry: Box<Entry>, keep: Option<Inode>, found: Receiver<Vec<Found>> },
    /// One more name of a file that was kept; `last`: the last one.
    Link { name: Vec<u8>, inode: Inode, last: bool },
    /// Something went wrong here.
    Trouble { name: Vec<u8>, what: String },
}

/// Device and inode number.
pub(super) type Inode = (u64, u64);

/// Events, and where the content of the small files among them will come from.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) batch: Option<Receiver<Vec<Found>>>,
    pub(super) events: Vec<Event>,
}

/// The paths that were asked for, as a tree.
#[derive(Debug, Default)]
pub(super) struct Plan {
    children: BTreeMap<Vec<u8>, Plan>,
    whole: bool,
}

impl Plan {
    /// The tree of these absolute paths.
    pub(super) fn new(paths: &[Vec<u8>]) -> Result<Self> {
        let mut plan = Self::default();
        for path in paths {
            let mut at = &mut plan;
            for name in components(path)? {
                at = at.children.entry(name.to_vec()).or_default();
            }
            at.whole = true;
        }
        Ok(plan)
    }
}

struct Frame<'s, 'p> {
    folder: Arc<Folder>,
    names: Names,
    /// What a scout has found out about the first of them.
    metas: Vec<Option<Seen>>,
    next: usize,
    order: Order,
    parent: Option<Peekable<Entries<'s>>>,
    entry: Box<Entry>,
    /// For a directory that is only passed through: what is wanted in it.
    plan: Option<&'p Plan>,
    path_len: usize,
    /// The device that must not be left.
    device: u64,
    /// Only the mark of a cache directory is taken.
    cache: bool,
}

/// The walk.
pub(super) struct Walk<'s> {
    shared: &'s Shared<'s>,
    scouts: &'s Scouts<'s>,
    /// None when nothing is stored: a trial.
    out: Option<SyncSender<Parcel>>,
    parcel: Parcel,
    batch: Vec<Task>,
    batch_bytes: u64,
    batch_folders: usize,
    path: Vec<u8>,
    devices: Vec<u64>,
    /// How many names are still to be expected of files with several.
    links: HashMap<Inode, u32>,
    ids: Vec<ChunkId>,
}

/// The walk was stopped from outside; why is known there.
struct Stopped;

impl<'s> Walk<'s> {
    pub(super) fn new(scouts: &'s Scouts<'s>, out: Option<SyncSender<Parcel>>) -> Self {
        Self {
            shared: scouts.shared(),
            scouts,
            out,
            parcel: Parcel::default(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_folders: 0,
            path: Vec::new(),
            devices: Vec::new(),
            links: HashMap::new(),
            ids: Vec::new(),
        }
    }

    /// Walks everything in the plan; gives the devices that were met.
    pub(super) fn run(mut self, plan: &Plan, parent: Option<&Entry>) -> Result<Vec<(u32, u32)>> {
        let _ending = self.scouts.ending();
        let top = Folder::open(b"/").and_then(|folder| match plan.whole {
            true => Listing::of(folder),
            false => Listing::passed(folder),
        });
        let top = top.map_err(|e| Error::local("/", e))?;
        let whole = if plan.whole { None } else { Some(plan) };
        if self.walk(top, whole, parent).is_err() {
            // Whoever stopped it has said why.
            return Ok(Vec::new());
        }
        Ok(self.devices.iter().map(|device| (major(*device), minor(*device))).collect())
    }

    fn walk(
        &mut self,
        top: Listing,
        plan: Option<&Plan>,
        parent: Option<&Entry>,
    ) -> Result<(), Stopped> {
        let mut stack: Vec<Frame<'_, '_>> = Vec::new();
        let device = top.seen.0.device;
        stack.push(self.enter(Vec::new(), top, Order::new(), plan, parent.cloned(), device)?);
        while let Some(frame) = stack.last_mut() {
            if self.shared.is_stopped() {
                return Err(Stopped);
            }
            self.path.truncate(frame.path_len);
            let Some(name) = frame.names.get(frame.next) else {
                if let Some(frame) = stack.pop() {
                    self.scouts.leave(&frame.order);
                    self.shared.progress.add_dir();
                    self.send(Event::Leave(frame.entry))?;
                }
                continue;
            };
            let place = frame.next;
            frame.next += 1;
            let bytes = name.to_bytes();
            if frame.cache && bytes != CACHE_NAME {
                continue;
            }
            let child = frame.plan.and_then(|plan| plan.children.get(bytes));
            let passed = child.is_some_and(|child| !child.whole);
            let seen = match frame.metas.get_mut(place).and_then(Option::take) {
                Some(seen) => Ok(seen),
                None if passed => frame.folder.stat_behind(bytes).map(|meta| (meta, true)),
                None => frame.folder.stat(name).map(|meta| (meta, is_racy(&meta))),
            };
            let (meta, racy) = match seen {
                Ok(seen) => seen,
                Err(e) => {
                    let name = bytes.to_vec();
                    self.trouble(name, e)?;
                    continue;
                }
            };
            self.path.push(b'/');
            self.path.extend_from_slice(bytes);
            // What was asked for by name is taken, whatever the rules say.
            let asked = child.is_some();
            if !asked && self.shared.rules.fit(&self.path, meta.kind == Kind::Dir) {
                continue;
            }
            let before = before(&mut frame.parent, bytes);
            let name = bytes.to_vec();
            if meta.kind != Kind::Dir {
                let folder = Arc::clone(&frame.folder);
                self.leaf(&folder, name, (meta, racy), before)?;
                continue;
            }
            let order = [&frame.order[..], &[place as u32]].concat();
            let listing = match self.scouts.take(&order) {
                Some(listing) => listing,
                None if passed => frame.folder.dir_behind(bytes).and_then(Listing::passed),
                None => Listing::read(&frame.folder, bytes),
            };
            match listing {
                Ok(listing) => {
                    let device = if asked { listing.seen.0.device } else { frame.device };
                    let plan = if passed { child } else { None };
                    stack.push(self.enter(name, listing, order, plan, before, device)?);
                }
                Err(e) => {
                    // Its name and metadata are known at least.
                    let seen = (meta, racy);
                    let entry = self.entry(name.clone(), seen, NO_DIR, Vec::new());
                    let device = entry.device;
                    self.send(Event::Enter { name: name.clone(), device })?;
                    self.send(Event::Leave(Box::new(entry)))?;
                    self.trouble(name, e)?;
                }
            }
        }
        self.flush()
    }

    /// Begins a directory that is open.
    fn enter<'p>(
        &mut self,
        name: Vec<u8>,
        listing: Listing,
        order: Order,
        plan: Option<&'p Plan>,
        before: Option<Entry>,
        device: u64,
    ) -> Result<Frame<'s, 'p>, Stopped> {
        if plan.is_none() && !listing.spread {
            self.scouts.spread(&listing, &order, &self.path);
        }
        let Listing { folder, seen, names, metas, .. } = listing;
        let meta = seen.0;
        let path_len = self.path.len();
        self.shared.progress.at(&self.path);
        let same = before.as_ref().filter(|before| {
            before.is_dir()
                && !before.racy
                && before.ctime == meta.ctime
                && before.inode == meta.inode
        });
        let xattrs = match same {
            Some(before) => Some(before.xattrs.clone()).filter(|xattrs| self.reuse(None, xattrs)),
            None => None,
        };
        let xattrs = match xattrs {
            Some(xattrs) => xattrs,
            None => self.attributes(&name, Which::open(&*folder))?,
        };
        let mut entry = self.entry(name.clone(), seen, NO_DIR, xattrs);
        entry.passed = plan.is_some();
        entry.links = 1;
        self.send(Event::Enter { name: name.clone(), device: entry.device })?;
        let other = self.shared.one_file_system && meta.device != device;
        let names = match plan {
            Some(plan) => Ok(plan.children.keys().map(Vec::as_slice).collect()),
            None if other => Ok(Names::default()),
            None => names,
        };
        let names = match names {
            Ok(names) => names,
            Err(e) => {
                self.trouble(Vec::new(), e)?;
                Names::default()
            }
        };
        let cache = self.shared.exclude_caches && plan.is_none() && is_cache(&folder);
        let parent = match before.map(|before| before.body) {
            Some(Body::Dir { node, .. }) => {
                Some(Dir::new(self.shared.source, node).entries().peekable())
            }
            _ => None,
        };
        let entry = Box::new(entry);
        let next = 0;
        Ok(Frame {
            folder,
            names,
            metas,
            next,
            order,
            parent,
            entry,
            plan,
            path_len,
            device,
            cache,
        })
    }

    /// Anything but a directory.
    fn leaf(
        &mut self,
        folder: &Arc<Folder>,
        name: Vec<u8>,
        seen: Seen,
        before: Option<Entry>,
    ) -> Result<(), Stopped> {
        let meta = seen.0;
        let progress = self.shared.progress;
        if meta.kind == Kind::File {
            progress.add_file(meta.size)
        } else {
            progress.add_other()
        }
        let mut keep = None;
        if meta.links > 1 {
            let inode = (meta.device, meta.inode);
            match self.links.get_mut(&inode) {
                Some(left) => {
                    *left -= 1;
                    let last = *left == 0;
                    if last {
                        self.links.remove(&inode);
                    }
                    return self.send(Event::Link { name, inode, last });
                }
                None => {
                    self.links.insert(inode, meta.links - 1);
                    keep = Some(inode);
                }
            }
        }
        if let Some(mut entry) = before.filter(|before| unchanged(before, &meta)) {
            let content = match &entry.body {
                Body::File(map) => Some(map),
                _ => None,
            };
            if self.reuse(content, &entry.xattrs) {
                if meta.kind == Kind::File {
                    progress.add_reused(meta.size);
                }
                entry.device = self.device(meta.device);
                entry.links = meta.links;
                entry.name = name;
                return self.send(Event::Ready { entry: Box::new(entry), keep });
            }
        }
        let body = match meta.kind {
            Kind::File => return self.file(folder, name, seen, keep),
            Kind::Symlink => match folder.link(&name) {
                Ok(target) => Body::Symlink(target),
                Err(e) => return self.trouble(name, e),
            },
            Kind::Fifo => Body::Fifo,
            Kind::Char => Body::Char(major(meta.rdev), minor(meta.rdev)),
            Kind::Block => Body::Block(major(meta.rdev), minor(meta.rdev)),
            Kind::Socket | Kind::Dir => Body::Socket,
        };
        let xattrs = self.attributes(&name, Which::named(&**folder, &name))?;
        let entry = Box::new(self.entry(name, seen, body, xattrs));
        self.send(Event::Ready { entry, keep })
    }

    /// A file that must be read.
    fn file(
        &mut self,
        folder: &Arc<Folder>,
        name: Vec<u8>,
        seen: Seen,
        keep: Option<Inode>,
    ) -> Result<(), Stopped> {
        let meta = seen.0;
        self.shared.progress.add_unread(meta.size);
        if self.out.is_none() {
            return Ok(());
        }
        let entry =
            Box::new(self.entry(name.clone(), seen, Body::File(MapRef::default()), Vec::new()));
        let folder = Arc::clone(folder);
        if meta.size > LARGE {
            // What was found before comes before.
            self.flush()?;
            let (done, found) = sync_channel(1);
            if !self.shared.queue.push_stream(Job::Open(Task { folder, name, meta }, done)) {
                return Err(Stopped);
            }
            return self.send(Event::Large { entry, keep, found });
        }
        let same = self.batch.last().is_some_and(|last| Arc::ptr_eq(&last.folder, &folder));
        self.batch_folders += usize::from(!same);
        self.batch_bytes += meta.size;
        self.batch.push(Task { folder, name, meta });
        self.send(Event::File { entry, keep })?;
        let full = self.batch.len() >= BATCH_FILES
            || self.batch_folders >= BATCH_FOLDERS
            || self.batch_bytes >= BATCH_BYTES;
        if full { self.flush() } else { Ok(()) }
    }

    fn entry(&mut self, name: Vec<u8>, seen: Seen, body: Body, xattrs: Vec<Xattr>) -> Entry {
        let (meta, racy) = seen;
        Entry {
            name,
            body,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            ctime: meta.ctime,
            inode: meta.inode,
            device: self.device(meta.device),
            links: meta.links.max(1),
            racy,
            passed: false,
            xattrs,
        }
    }

    /// The device's place in the table.
    fn device(&mut self, device: u64) -> u32 {
        let found = self.devices.iter().position(|known| *known == device);
        let index = found.unwrap_or_else(|| {
            self.devices.push(device);
            self.devices.len() - 1
        });
        index as u32
    }

    /// Whether content and attributes of the parent may be used again.
    fn reuse(&mut self, content: Option<&MapRef>, xattrs: &[Xattr]) -> bool {
        if self.out.is_none() {
            return true;
        }
        self.ids.clear();
        self.ids.extend(content.into_iter().flat_map(MapRef::ids));
        self.ids.extend(xattrs.iter().filter_map(Xattr::chunk));
        self.ids.is_empty() || matches!(self.shared.store.reuse(&self.ids), Ok(true))
    }

    fn attributes(&mut self, name: &[u8], which: Which<'_>) -> Result<Vec<Xattr>, Stopped> {
        if self.out.is_none() {
            return Ok(Vec::new());
        }
        match super::content::attributes(self.shared, which) {
            Ok((xattrs, None)) => Ok(xattrs),
            Ok((xattrs, Some(why))) => {
                self.trouble(name.to_vec(), why)?;
                Ok(xattrs)
            }
            Err(e) => {
                self.shared.abort(e.into());
                Err(Stopped)
            }
        }
    }

    fn trouble(&mut self, name: Vec<u8>, what: impl ToString) -> Result<(), Stopped> {
        let what = what.to_string();
        self.send(Event::Trouble { name, what })
    }

    fn send(&mut self, event: Event) -> Result<(), Stopped> {
        if self.out.is_none() {
            // A trial still tells what went wrong.
            if let Event::Trouble { name, what } = event {
                let mut path = self.path.clone();
                if !name.is_empty() && !path.ends_with(&name) {
                    path.push(b'/');
                    path.extend(name);
                }
                self.shared.trouble(&path, what);
            }
            return Ok(());
        }
        self.parcel.events.push(event);
        if self.parcel.events.len() >= EVENTS { self.flush() } else { Ok(()) }
    }

    /// Passes on what was gathered: the work first, so that whoever waits for its result does not
    /// wait for something that nobody knows of.
    fn flush(&mut self) -> Result<(), Stopped> {
        let mut parcel = std::mem::take(&mut self.parcel);
        if !self.batch.is_empty() {
            let (done, found) = sync_channel(1);
            let batch = std::mem::take(&mut self.batch);
            (self.batch_bytes, self.batch_folders) = (0, 0);
            parcel.batch = Some(found);
            if !self.shared.queue.push(Job::Small(batch, done)) {
                return Err(Stopped);
            }
        }
        match &self.out {
            Some(out) if !parcel.events.is_empty() => out.send(parcel).map_err(|_| Stopped),
            _ => Ok(()),
        }
    }
}

/// Stands for the node of a directory until that is known.
const NO_DIR: Body = Body::Dir { node: ChunkId([0; 32]), entries: 0 };

impl Xattr {
    /// The chunk that holds the value, if one does.
    fn chunk(&self) -> Option<ChunkId> {
        match &self.value {
            crate::entry::XattrValue::Chunk(id, _) => Some(*id),
            crate::entry::XattrValue::Inline(_) => None,
        }
    }
}

/// The entry of that name in the parent image; both are walked in the same order. A parent that
/// can't be read is no parent: everything is then read again, which heals it.
fn before(parent: &mut Option<Peekable<Entries<'_>>>, name: &[u8]) -> Option<Entry> {
    let entries = parent.as_mut()?;
    loop {
        match entries.peek() {
            Some(Ok(entry)) if entry.name.as_slice() < name => {
                entries.next();
            }
            Some(Ok(entry)) if entry.name == name => return entries.next()?.ok(),
            Some(Ok(_)) | None => return None,
            Some(Err(_)) => {
                *parent = None;
                return None;
            }
        }
    }
}

fn unchanged(before: &Entry, now: &Meta) -> bool {
    let kind = match before.body {
        Body::File(_) => Kind::File,
        Body::Dir { .. } => Kind::Dir,
        Body::Symlink(_) => Kind::Symlink,
        Body::Fifo => Kind::Fifo,
        Body::Char(..) => Kind::Char,
        Body::Block(..) => Kind::Block,
        Body::Socket => Kind::Socket,
    };
    !before.racy
        && kind == now.kind
        && before.mtime == now.mtime
        && before.ctime == now.ctime
        && before.inode == now.inode
        && before.mode == now.mode
        && before.uid == now.uid
        && before.gid == now.gid
        && (kind != Kind::File || before.size() == now.size)
}

fn is_cache(folder: &Folder) -> bool {
    let Ok(fd) = folder.file(CACHE_NAME, OFlags::empty()) else { return false };
    let mut head = [0u8; CACHE_MARK.len()];
    rustix::io::pread(&fd, &mut head[..], 0).is_ok_and(|n| n == head.len() && head == *CACHE_MARK)
}
