//! Backing up: from files, block devices and streams to an image.
//!
//! Four kinds of threads work together, each with bounded memory:
//! - the *scouts* ([`scout`]) list the directories that come next;
//! - the *walk* ([`walk`]) goes through the tree in the order of names, compares what it finds with
//!   the parent image, and says what goes into the image and which files must be read;
//! - the *workers* ([`content`]) read, cut and store;
//! - the caller's thread *gathers* ([`gather`]): it takes what the walk says in order, waits for
//!   the content of each file, and writes the directories.

mod content;
mod cut;
mod gather;
mod opened;
mod progress;
mod queue;
mod scout;
mod walk;

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use strongroom_engine::chunker::{Chunker, Params};
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::map::{NodeStore, Nodes};
use strongroom_engine::node::Node;
use strongroom_engine::pool::{NewRoot, Stored};
use strongroom_engine::state::Root;

pub use progress::{Counts, Progress};

use crate::entry::{Body, Entry, Time};
use crate::folder::{Folder, Kind, Meta};
use crate::image::{Image, ImageKind, ImageMeta, ROOT_KIND, Stats, Top, images};
use crate::names::Names;
use crate::rules::Rules;
use crate::store::{Source, Store};
use crate::{Error, Result, Troubles};
use content::{Found, Job, Stream, Task};
use cut::Cut;
use gather::Gather;
use queue::Queue;
use scout::Scouts;
use walk::{Plan, Walk};

/// Which image a new one is compared with, so that unchanged files need not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// The latest one of the same name, host and paths.
    #[default]
    Latest,
    /// That one.
    Image(RootId),
    /// None: everything is read.
    None,
}

/// What to back up.
#[derive(Default)]
pub enum Input {
    /// Files and directories; relative paths start at the working directory.
    Paths(Vec<PathBuf>),
    /// A disk, or a file that holds one: fixed-size chunks, holes and zeroes cost nothing.
    Block(PathBuf),
    /// What comes in by a pipe.
    Stream(Box<dyn Read + Send>),
    /// Nothing yet.
    #[default]
    Missing,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Paths(paths) => f.debug_tuple("Paths").field(paths).finish(),
            Self::Block(path) => f.debug_tuple("Block").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Missing => f.write_str("Missing"),
        }
    }
}

/// How to make an image.
#[derive(Debug, Default)]
pub struct Backup {
    /// The series it belongs to; by default the last name of the first path.
    pub name: Option<String>,
    /// What to back up.
    pub input: Input,
    /// Labels.
    pub tags: Vec<String>,
    /// Rules for what is left out ([`crate::rules`]); those of files of rules are appended here.
    pub excludes: Vec<String>,
    /// Directories marked by a `CACHEDIR.TAG` are kept without their content.
    pub exclude_caches: bool,
    /// Directories where another filesystem is mounted are kept without their content.
    pub one_file_system: bool,
    /// How long nothing may remove the image, in nanoseconds.
    pub immutable_for: Option<i64>,
    /// How long it is kept, in nanoseconds; then it may be forgotten unasked.
    pub keep_for: Option<i64>,
    /// What it is compared with.
    pub parent: Parent,
    /// The machine's name, for the image's record; by default what the system says.
    pub host: Option<String>,
    /// The user's name, for the image's record; by default by the process's user id.
    pub user: Option<String>,
}

/// What came of a backup.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The image; None for a trial.
    pub image: Option<Image>,
    /// What it took. For a trial: `new_bytes` is what would be read.
    pub stats: Stats,
    /// What went wrong with single files. When there is any, the command's exit code is 3.
    pub troubles: Troubles,
}

/// How many scouts there are: enough for a disk to have something to do, whatever the processors.
const SCOUTS: usize = 6;

/// What all threads of a backup share.
pub(crate) struct Shared<'s> {
    store: &'s dyn Store,
    source: &'s dyn Source,
    progress: &'s Progress,
    rules: Rules,
    one_file_system: bool,
    exclude_caches: bool,
    cut: Cut,
    /// How large a worker's buffer is, without its front.
    block: usize,
    queue: Queue<Job>,
    stopped: Mutex<Option<Error>>,
    troubles: Mutex<Troubles>,
}

/// Stores nodes and counts what that takes.
struct Tally<'s>(&'s Shared<'s>);

impl NodeStore for Tally<'_> {
    fn put_node(&self, node: &Node) -> strongroom_engine::Result<(ChunkId, Stored)> {
        let (id, stored) = self.0.store.put_node(node)?;
        self.0.progress.stored(&stored);
        Ok((id, stored))
    }
}

impl Shared<'_> {
    fn nodes(&self) -> Tally<'_> {
        Tally(self)
    }

    /// Stops everything; the first reason counts.
    fn abort(&self, error: Error) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert(error);
        drop(stopped);
        self.queue.stop();
    }

    fn is_stopped(&self) -> bool {
        if self.progress.is_canceled() {
            self.abort(strongroom_engine::Error::Canceled.into());
        }
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn trouble(&self, path: &[u8], what: impl ToString) {
        self.progress.add_trouble();
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).add(path, what);
    }
}

impl Backup {
    /// Makes an image. Trouble with single files ends nothing; it is in the outcome.
    ///
    /// # Errors
    /// What the pool says, [`Error::Local`] when nothing that was asked for is there, and
    /// [`Error::Invalid`] for contradictory options. No image is then in the pool.
    pub fn run<S: Store>(self, store: S, progress: &Progress) -> Result<Outcome> {
        let made = self.make(&store, false, progress)?;
        let (mut meta, name, immutable_for) = (made.meta, made.name, made.immutable_for);
        let top = store.put_node(&made.top.ok_or(strongroom_engine::Error::Canceled)?)?;
        progress.stored(&top.1);
        progress.stored(&store.settle()?);
        meta.stats = progress.stats();
        meta.ended = now();
        let root = NewRoot {
            id: RootId::random(),
            kind: ROOT_KIND,
            name,
            immutable_for,
            nodes: vec![top.0],
            meta: meta.encode(),
        };
        let root = store.commit(root)?;
        Ok(Outcome { image: Image::of(&root)?, stats: meta.stats, troubles: made.troubles })
    }

    /// Looks what would be read, and stores nothing.
    ///
    /// # Errors
    /// As [`Backup::run`].
    pub fn trial(self, source: &dyn Source, progress: &Progress) -> Result<Outcome> {
        let made = self.make(&Trial(source), true, progress)?;
        let stats = Stats { new_bytes: progress.counts().unread, ..progress.stats() };
        Ok(Outcome { image: None, stats, troubles: made.troubles })
    }

    /// Which series the image will belong to.
    fn series(&self) -> Result<Series> {
        let (kind, paths) = match &self.input {
            Input::Paths(paths) if paths.is_empty() => {
                return Err(Error::Invalid("no path to back up was given".into()));
            }
            Input::Missing => return Err(Error::Invalid("nothing to back up was given".into())),
            Input::Paths(paths) => {
                let paths: Result<Vec<_>> = paths.iter().map(|path| absolute(path)).collect();
                (ImageKind::Files, outermost(paths?))
            }
            Input::Block(path) => (ImageKind::Block, vec![absolute(path)?]),
            Input::Stream(_) => (ImageKind::Stream, Vec::new()),
        };
        let host = self.host.clone().unwrap_or_else(host_name);
        let name = match (&self.name, kind) {
            (Some(name), _) if !name.is_empty() => name.clone(),
            (_, ImageKind::Stream) => {
                return Err(Error::Invalid("a stream needs a name: give --name".into()));
            }
            _ => default_name(&paths[0], &host),
        };
        Ok(Series { kind, paths, host, name })
    }

    /// Whether it may be made with what can be read of `source`: whoever forgets a client's key once
    /// must not store in clear, unless that is wanted, what is sealed otherwise. To be asked before
    /// anything is begun.
    ///
    /// # Errors
    /// [`Error::SealedBefore`] when the latest image of the series is sealed and was not opened;
    /// those of the pool, and as [`Backup::run`].
    pub fn must_not_be_sealed(&self, source: &dyn Source, in_clear: bool) -> Result<()> {
        if in_clear {
            return Ok(());
        }
        let Series { host, name, .. } = self.series()?;
        let (images, _) = images(source)?;
        let of_series = |image: &&Image| image.name == name && image.meta.host == host;
        let latest = images.iter().rev().find(of_series);
        match latest.and_then(|latest| latest.meta.closed()) {
            None => Ok(()),
            Some(key) => Err(Error::SealedBefore { key }),
        }
    }

    fn make(self, store: &dyn Store, trial: bool, progress: &Progress) -> Result<Made> {
        let started = now();
        let source = store.source();
        let params = store.chunking();
        let Series { kind, paths, host, name } = self.series()?;
        let parent = self.parent(source, kind, &name, &host, &paths)?;
        if let (Some(parent), false) = (&parent, trial) {
            store.lean_on(parent.id)?;
        }
        let cut = match kind {
            ImageKind::Block => Cut::Fixed(params.fixed as usize),
            _ => Cut::Content(Chunker::new(params)),
        };
        let workers = store.workers();
        let shared = Shared {
            store,
            source,
            progress,
            rules: Rules::new(&self.excludes)?,
            one_file_system: self.one_file_system,
            exclude_caches: self.exclude_caches,
            block: Stream::block_len(&cut, store.at_once()),
            cut,
            queue: Queue::new(2 * workers),
            stopped: Mutex::default(),
            troubles: Mutex::default(),
        };
        let top = match self.input {
            Input::Stream(input) => {
                let meta = stream_meta(started);
                one(&shared, workers, &name, |done| Ok(pipe_job(&shared, input, meta, done)))?
            }
            Input::Block(path) if trial => {
                let len = std::fs::metadata(&path)
                    .map_err(|e| Error::local(path.as_os_str().as_bytes(), e))?
                    .len();
                progress.add_file(len);
                progress.add_unread(len);
                None
            }
            Input::Block(_) => {
                let (folder, leaf) = at(&paths[0]).map_err(|e| Error::local(&paths[0], e))?;
                let meta = folder.stat_behind(&leaf).map_err(|e| Error::local(&paths[0], e))?;
                let task = Task { folder: Arc::new(folder), name: leaf, meta };
                one(&shared, workers, &name, |done| {
                    match Stream::open(task, shared.cut.clone(), shared.block, false, done) {
                        Ok(stream) => Ok(Job::Block(Arc::new(stream), content::Cursor::start())),
                        Err((e, _)) => Err(Error::local(&paths[0], e)),
                    }
                })?
            }
            _ => tree(&shared, workers, trial, &paths, parent.as_ref())?,
        };
        if let Some(error) = shared.stopped.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let troubles = shared.troubles.into_inner().unwrap_or_else(PoisonError::into_inner);
        let meta = ImageMeta {
            kind,
            complete: troubles.is_empty(),
            host,
            user: self.user.unwrap_or_else(user_name),
            program: concat!("strongroom ", env!("CARGO_PKG_VERSION")).into(),
            paths,
            tags: self.tags,
            excludes: self.excludes,
            started,
            ended: started,
            parent: parent.map(|parent| parent.id),
            stats: Stats::default(),
            sealing: None,
            kept_for: self.keep_for,
        };
        Ok(Made { top, meta, name, immutable_for: self.immutable_for, troubles })
    }

    fn parent(
        &self,
        source: &dyn Source,
        kind: ImageKind,
        name: &str,
        host: &str,
        paths: &[Vec<u8>],
    ) -> Result<Option<Image>> {
        if kind != ImageKind::Files {
            return Ok(None);
        }
        let (images, _) = images(source)?;
        match self.parent {
            Parent::None => Ok(None),
            Parent::Image(id) => {
                let missing = || Error::NoImage { what: id.to_string() };
                images.into_iter().find(|image| image.id == id).map(Some).ok_or_else(missing)
            }
            Parent::Latest => Ok(images.into_iter().rev().find(|image| {
                image.meta.kind == ImageKind::Files
                    && image.name == name
                    && image.meta.host == host
                    && image.meta.paths == paths
            })),
        }
    }
}

/// The series that an image belongs to, and what it is of.
struct Series {
    kind: ImageKind,
    paths: Vec<Vec<u8>>,
    host: String,
    name: String,
}

/// An image that only lacks its root.
struct Made {
    top: Option<Node>,
    meta: ImageMeta,
    name: String,
    immutable_for: Option<i64>,
    troubles: Troubles,
}

fn tree(
    shared: &Shared<'_>,
    workers: usize,
    trial: bool,
    paths: &[Vec<u8>],
    parent: Option<&Image>,
) -> Result<Option<Node>> {
    let plan = Plan::new(paths)?;
    if !paths.iter().any(|path| std::fs::symlink_metadata(OsStr::from_bytes(path)).is_ok()) {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::local(paths.first().map_or(&b""[..], Vec::as_slice), missing));
    }
    // A parent that can't be read is no parent.
    let before = parent.and_then(|parent| parent.top(shared.source).ok()).map(|top| top.entry);
    let scouts = &Scouts::new(shared);
    if trial {
        std::thread::scope(|scope| {
            for _ in 0..SCOUTS {
                scope.spawn(|| scouts.work());
            }
            Walk::new(scouts, None).run(&plan, before.as_ref())
        })?;
        return Ok(None);
    }
    let (out, parcels) = sync_channel(16);
    let (devices, gathered) = std::thread::scope(|scope| {
        for _ in 0..SCOUTS {
            scope.spawn(|| scouts.work());
        }
        for _ in 0..workers {
            scope.spawn(|| content::work(shared));
        }
        let walk = scope.spawn(|| {
            let devices = Walk::new(scouts, Some(out)).run(&plan, before.as_ref());
            match &devices {
                Ok(_) => shared.queue.close(),
                Err(_) => shared.queue.stop(),
            }
            devices
        });
        let gathered = Gather::new(shared).run(&parcels);
        // Whoever still wants to say something must not wait for ever.
        drop(parcels);
        match &gathered {
            Ok(gathered) if gathered.entry.is_some() => {}
            _ => shared.queue.stop(),
        }
        (walk.join(), gathered)
    });
    let gathered = gathered?;
    let devices = match devices {
        Ok(devices) => devices?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let Some(entry) = gathered.entry else { return Ok(None) };
    let names = Names::of_this_machine()
        .only(|id| gathered.users.contains(&id), |id| gathered.groups.contains(&id));
    let names = Some(shared.nodes().put_node(&names.encode())?.0);
    Ok(Some(Top { devices, names, entry }.encode()))
}

/// A block image or stream: one file at the top.
fn one(
    shared: &Shared<'_>,
    workers: usize,
    name: &str,
    job: impl FnOnce(std::sync::mpsc::SyncSender<Vec<Found>>) -> Result<Job>,
) -> Result<Option<Node>> {
    let (done, found) = sync_channel(1);
    let job = job(done)?;
    let found = std::thread::scope(|scope| {
        shared.queue.push_stream(job);
        shared.queue.close();
        for _ in 0..workers {
            scope.spawn(|| content::work(shared));
        }
        found.recv().ok()
    });
    let content = match found.and_then(|found| found.into_iter().next()) {
        Some(Found::Read(content)) => content,
        Some(Found::Failed(why)) => {
            let source = std::io::Error::other(why);
            return Err(Error::Local { path: name.into(), source });
        }
        None => return Ok(None),
    };
    if let Some(what) = content.trouble {
        shared.trouble(name.as_bytes(), what);
    }
    let meta = content.meta;
    shared.progress.add_file(content.map.len());
    let entry = Entry {
        name: file_name(name),
        body: Body::File(content.map),
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        ctime: meta.ctime,
        inode: meta.inode,
        device: 0,
        links: 1,
        racy: content.racy,
        passed: false,
        xattrs: Vec::new(),
    };
    Ok(Some(Top { devices: Vec::new(), names: None, entry }.encode()))
}

fn pipe_job(
    shared: &Shared<'_>,
    input: Box<dyn Read + Send>,
    meta: Meta,
    done: std::sync::mpsc::SyncSender<Vec<Found>>,
) -> Job {
    let stream = Stream::pipe(input, meta, shared.cut.clone(), shared.block, done);
    Job::Block(Arc::new(stream), content::Cursor::start())
}

fn stream_meta(now: i64) -> Meta {
    let time = Time::from_nanos(now);
    Meta {
        kind: Kind::File,
        mode: 0o600,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        size: 0,
        mtime: time,
        ctime: time,
        inode: 0,
        device: 0,
        rdev: 0,
        links: 1,
        stored: 0,
    }
}

/// The directory that holds a path, and the name in it. Links on the way are followed.
fn at(path: &[u8]) -> std::io::Result<(Folder, Vec<u8>)> {
    let path = std::fs::canonicalize(OsStr::from_bytes(path))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or(OsStr::new(".")).as_bytes().to_vec();
    Ok((Folder::open(folder.as_os_str().as_bytes())?, name))
}

/// The absolute path, without `.`. With `..` in it, links are resolved: only the system knows
/// where it leads.
fn absolute(path: &Path) -> Result<Vec<u8>> {
    let up = path.components().any(|part| part == std::path::Component::ParentDir);
    let found = if up { std::fs::canonicalize(path) } else { std::path::absolute(path) };
    let found = found.map_err(|e| Error::local(path.as_os_str().as_bytes(), e))?;
    let bytes = found.as_os_str().as_bytes();
    let trimmed = bytes.strip_suffix(b"/").unwrap_or(bytes);
    Ok(if trimmed.is_empty() { b"/".to_vec() } else { trimmed.to_vec() })
}

/// Sorted, without those that lie in others.
fn outermost(mut paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| {
        !all.iter().any(|other| {
            other != path
                && (other == b"/"
                    || path.strip_prefix(&other[..]).is_some_and(|rest| rest.starts_with(b"/")))
        })
    });
    paths
}

fn default_name(path: &[u8], host: &str) -> String {
    match path.rsplit(|b| *b == b'/').next() {
        Some(name) if !name.is_empty() => crate::show(name),
        _ => host.to_owned(),
    }
}

/// A name that a file can have.
fn file_name(name: &str) -> Vec<u8> {
    let mut out: Vec<u8> =
        name.bytes().map(|b| if b == b'/' || b == 0 { b'_' } else { b }).take(255).collect();
    if !crate::entry::is_plain_name(&out) {
        out = b"content".to_vec();
    }
    out
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    match Names::of_this_machine().users.get(&uid) {
        Some(name) => crate::show(name),
        None => uid.to_string(),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Stands for a store when nothing is to be stored.
struct Trial<'s>(&'s dyn Source);

fn nothing<T>() -> strongroom_engine::Result<T> {
    Err(strongroom_engine::Error::Invalid("a trial stores nothing".into()))
}

impl NodeStore for Trial<'_> {
    fn put_node(&self, _: &Node) -> strongroom_engine::Result<(ChunkId, Stored)> {
        nothing()
    }
}

impl Nodes for Trial<'_> {
    fn node(&self, id: &ChunkId) -> strongroom_engine::Result<Node> {
        self.0.node(id)
    }
}

impl Store for Trial<'_> {
    fn source(&self) -> &dyn Source {
        self.0
    }

    fn chunking(&self) -> Params {
        Params::default()
    }

    fn store(&self, _: &[&[u8]], _: &mut Vec<ChunkId>) -> strongroom_engine::Result<Stored> {
        nothing()
    }

    fn reuse(&self, _: &[ChunkId]) -> strongroom_engine::Result<bool> {
        Ok(true)
    }

    fn lean_on(&self, _: RootId) -> strongroom_engine::Result<()> {
        Ok(())
    }

    fn commit(self, _: NewRoot) -> strongroom_engine::Result<Root> {
        nothing()
    }
}

#[cfg(test)]
mod tests;
