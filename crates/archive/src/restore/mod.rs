//! Restoring: from an image to files.
//!
//! Two passes over the tree. The first makes directories, links and devices, and lays files out in
//! areas of bounded memory ([`area`]) that are read in the pool's order and written in parallel. The
//! second, from the leaves to the top, makes further names of files that have several, and gives
//! directories their owners, modes and times, which the first would have spoilt.
//!
//! Nothing outside of the target is ever written: every name is checked when the image is read
//! ([`crate::entry::is_plain_name`]), every step is made from the directory's descriptor, and no
//! link that was there is followed. The target itself may be reached by links.

mod area;
mod attributes;
mod file;
mod layout;
mod progress;
mod verify;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, makedev};
use rustix::io::Errno;
use strongroom_engine::buf::BufPool;
use strongroom_engine::map::MapRef;

pub use progress::{Counts, Progress};

use crate::entry::{Body, Entry, LinkKey};
use crate::folder::{Folder, Kind, Meta};
use crate::image::{Image, components};
use crate::names::{Names, Owners};
use crate::rules::Rules;
use crate::scan::passing;
use crate::store::Source;
use crate::tree::{Dir, Entries};
use crate::{Error, Result, Troubles};
use area::{WINDOW, WINDOWS};
use attributes::Attributes;
use file::OutFile;
use layout::Layout;

/// How many areas are at work at once: while one is waiting for its last chunks, the others read.
const AREAS: usize = 3;
/// How many windows are written at once.
const WRITERS: usize = 4;

/// What happens to files that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// They stay.
    Never,
    /// They stay when size and modification time are those of the image, else they are replaced:
    /// this resumes a restore that was interrupted.
    #[default]
    Changed,
    /// They are replaced.
    Always,
}

/// How to restore an image.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Which.
    pub image: Image,
    /// The path in the image (bytes) whose content goes to the target; empty for the top. When it
    /// is not a directory, it goes into the target under its own name.
    pub from: Vec<u8>,
    /// Only these paths below it, with everything in them; all if empty.
    pub paths: Vec<Vec<u8>>,
    /// Where to; it is made when it is not there.
    pub to: PathBuf,
    /// Only what these rules fit, and everything in directories that they fit; all if empty. Paths
    /// are those in the image.
    pub include: Vec<String>,
    /// Not what these rules fit.
    pub exclude: Vec<String>,
    /// What happens to files that are there.
    pub overwrite: Overwrite,
    /// Read everything back and compare it.
    pub verify: bool,
    /// Owners by number; otherwise by name, where this machine knows the name.
    pub numeric_owner: bool,
    /// Owners are not set; so it is anyway when this process may not set them.
    pub no_owner: bool,
}

/// What came of a restore.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was restored.
    pub counts: Counts,
    /// What went wrong with single files. When there is any, the command's exit code is 3.
    pub troubles: Troubles,
}

/// What all threads of a restore share.
pub(crate) struct Shared<'s> {
    source: &'s dyn Source,
    progress: &'s Progress,
    attributes: Attributes<'s>,
    troubles: Mutex<Troubles>,
}

impl Shared<'_> {
    fn trouble(&self, path: &[u8], what: impl ToString) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).add(path, what);
    }
}

/// Which entries are wanted.
struct Choice {
    include: Rules,
    exclude: Rules,
    plan: Option<Plan>,
}

/// Paths as a tree; a leaf stands for everything below it.
#[derive(Debug, Default)]
struct Plan(BTreeMap<Vec<u8>, Plan>);

/// A directory that is being restored, in either pass.
struct Frame<'s, 'p> {
    entry: Entry,
    entries: Entries<'s>,
    /// Made when the first thing in it is.
    folder: Option<Arc<Folder>>,
    path_len: usize,
    /// It, or one above it, was included.
    included: bool,
    plan: Option<&'p Plan>,
    /// Whether anything of it is restored.
    touched: bool,
}

impl Restore {
    /// Restores. Trouble with single files ends nothing; it is in the outcome.
    ///
    /// # Errors
    /// What the pool says of the image as a whole, [`Error::NoPath`], and [`Error::Local`] when
    /// the target can't be used.
    pub fn run(&self, source: &dyn Source, progress: &Progress) -> Result<Outcome> {
        let _hold = source.hold(self.image.id)?;
        let top = self.image.entry(source, &self.from)?;
        for path in &self.paths {
            let mut whole = self.from.clone();
            whole.push(b'/');
            whole.extend_from_slice(path);
            self.image.entry(source, &whole)?;
        }
        let root = rustix::process::geteuid().is_root();
        let owners = match self.numeric_owner {
            true => Owners::default(),
            false => self.image.names(source)?.translate(&Names::of_this_machine()),
        };
        let attributes = Attributes { owner: root && !self.no_owner, owners, root, source };
        let shared = Shared { source, progress, attributes, troubles: Mutex::default() };
        let to = self.to.as_os_str().as_bytes();
        std::fs::create_dir_all(&self.to).map_err(|e| Error::local(to, e))?;
        let target = Arc::new(Folder::open(to).map_err(|e| Error::local(to, e))?);
        let choice = Choice {
            include: Rules::new(&self.include)?,
            exclude: Rules::new(&self.exclude)?,
            plan: Plan::new(&self.paths)?,
        };
        let skipped = self.contents(&shared, &choice, &target, &top)?;
        self.finish(&shared, &choice, &target, &top, &skipped)?;
        if self.verify {
            verify::run(self, &shared, &choice, &target, &top)?;
        }
        let troubles = shared.troubles.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Outcome { counts: progress.counts(), troubles })
    }

    /// The first pass.
    fn contents(
        &self,
        shared: &Shared<'_>,
        choice: &Choice,
        target: &Arc<Folder>,
        top: &Entry,
    ) -> Result<Skipped> {
        let buffers = BufPool::new(AREAS * WINDOWS + WRITERS + 1, WINDOW);
        let (pass_on, areas) = sync_channel::<area::Area>(0);
        let areas = Mutex::new(areas);
        let (full, to_write) = sync_channel::<area::Full>(WRITERS);
        let to_write = Mutex::new(to_write);
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    while let Some(full) = next(&to_write) {
                        full.write(shared);
                    }
                });
            }
            let runners: Vec<_> = (0..AREAS)
                .map(|_| {
                    let full = full.clone();
                    scope.spawn(|| {
                        let full = full;
                        let mut done = Ok(());
                        while let Some(area) = next(&areas) {
                            // After an error the areas that still come are let go.
                            if done.is_ok() {
                                done = Arc::new(area).run(shared, &buffers, &full);
                                stopped.fetch_or(done.is_err(), Ordering::Relaxed);
                            }
                        }
                        done
                    })
                })
                .collect();
            drop(full);
            let layout = Layout::new(shared, |area| match stopped.load(Ordering::Relaxed) {
                true => Err(strongroom_engine::Error::Canceled),
                false => pass_on.send(area).map_err(|_| strongroom_engine::Error::Canceled),
            });
            let walked = self.walk(shared, choice, target, top, layout);
            drop(pass_on);
            let mut first = None;
            for runner in runners {
                match runner.join() {
                    Ok(Err(error)) => first = first.or(Some(error)),
                    Ok(Ok(())) => {}
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            // What stopped a runner is why the walk could not go on.
            match first {
                Some(error) => Err(error.into()),
                None => walked,
            }
        })
    }

    fn walk(
        &self,
        shared: &Shared<'_>,
        choice: &Choice,
        target: &Arc<Folder>,
        top: &Entry,
        mut layout: Layout<'_, impl FnMut(area::Area) -> strongroom_engine::Result<()>>,
    ) -> Result<Skipped> {
        let mut skipped = Skipped::default();
        let mut seen: HashSet<LinkKey> = HashSet::new();
        let mut path = Vec::new();
        let mut stack = match self.begin(shared, choice, target, top) {
            Some(frame) => vec![frame],
            None => {
                let mut entry = top.clone();
                entry.links = 1;
                self.leaf(shared, target, entry, b"", &mut layout, &mut skipped)?;
                layout.flush()?;
                return Ok(skipped);
            }
        };
        while let Some(frame) = stack.last_mut() {
            if shared.progress.is_canceled() {
                return Err(strongroom_engine::Error::Canceled.into());
            }
            path.truncate(frame.path_len);
            let entry = match frame.entries.next() {
                None => {
                    stack.pop();
                    continue;
                }
                Some(Ok(entry)) => entry,
                Some(Err(e)) => {
                    let e = passing(e)?;
                    shared.trouble(&path, format!("its list of entries can't be read: {e}"));
                    continue;
                }
            };
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            let Some((included, plan)) = choice.look(frame, &entry, &path) else { continue };
            if let Body::Dir { node, .. } = entry.body {
                let entries = Dir::new(shared.source, node).entries();
                let path_len = path.len();
                let mut next = Frame {
                    entry,
                    entries,
                    folder: None,
                    path_len,
                    included,
                    plan,
                    touched: false,
                };
                let made = match included {
                    true => make_all(self.overwrite, &mut stack, &mut next),
                    false => Ok(()),
                };
                match made {
                    Ok(()) => stack.push(next),
                    Err(e) => shared.trouble(&path, e),
                }
                continue;
            }
            if !included {
                continue;
            }
            if let Some(key) = entry.link_key()
                && !seen.insert(key)
            {
                // Further names come in the second pass, when the file is whole.
                continue;
            }
            let folder = match folder_of(self.overwrite, &mut stack) {
                Ok(folder) => folder,
                Err(e) => {
                    shared.trouble(&path, e);
                    continue;
                }
            };
            self.leaf(shared, &folder, entry, &path, &mut layout, &mut skipped)?;
        }
        layout.flush()?;
        Ok(skipped)
    }

    fn begin<'s, 'p>(
        &self,
        shared: &Shared<'s>,
        choice: &'p Choice,
        target: &Arc<Folder>,
        top: &Entry,
    ) -> Option<Frame<'s, 'p>> {
        let Body::Dir { node, .. } = top.body else { return None };
        Some(Frame {
            entry: top.clone(),
            entries: Dir::new(shared.source, node).entries(),
            folder: Some(Arc::clone(target)),
            path_len: 0,
            included: choice.include.is_empty() && choice.plan.is_none(),
            plan: choice.plan.as_ref(),
            touched: false,
        })
    }

    /// Anything but a directory.
    fn leaf(
        &self,
        shared: &Shared<'_>,
        folder: &Arc<Folder>,
        entry: Entry,
        path: &[u8],
        layout: &mut Layout<'_, impl FnMut(area::Area) -> strongroom_engine::Result<()>>,
        skipped: &mut Skipped,
    ) -> Result<()> {
        let there = match folder.stat(entry.name.as_slice()) {
            Ok(meta) => Some(meta),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                shared.trouble(path, e);
                return Ok(());
            }
        };
        if let Some(meta) = there {
            let keep = match self.overwrite {
                Overwrite::Never => true,
                Overwrite::Always => false,
                Overwrite::Changed => is_same(&entry, &meta),
            };
            if keep {
                shared.progress.add(|p| &p.skipped, 1);
                if self.overwrite == Overwrite::Never
                    && let Some(key) = entry.link_key()
                {
                    skipped.0.insert(key);
                }
                return Ok(());
            }
            if meta.kind == Kind::Dir {
                // Emptied by hand or not at all: a tree is not deleted to make room for a file.
                match rustix::fs::unlinkat(folder, entry.name.as_slice(), AtFlags::REMOVEDIR) {
                    Ok(()) => {}
                    Err(e) => {
                        shared.trouble(path, format!("a directory is in its place: {e}"));
                        return Ok(());
                    }
                }
            }
        }
        if matches!(entry.body, Body::File(_)) {
            let file = OutFile::new(Arc::clone(folder), entry, path.to_vec());
            return Ok(layout.add(folder, &file)?);
        }
        special(shared, folder, &entry, path);
        Ok(())
    }

    /// The second pass.
    fn finish(
        &self,
        shared: &Shared<'_>,
        choice: &Choice,
        target: &Arc<Folder>,
        top: &Entry,
        skipped: &Skipped,
    ) -> Result<()> {
        let mut first: HashMap<LinkKey, Vec<u8>> = HashMap::new();
        let mut path = Vec::new();
        let Some(frame) = self.begin(shared, choice, target, top) else { return Ok(()) };
        let mut stack = vec![frame];
        while let Some(frame) = stack.last_mut() {
            if shared.progress.is_canceled() {
                return Err(strongroom_engine::Error::Canceled.into());
            }
            path.truncate(frame.path_len);
            let entry = match frame.entries.next() {
                Some(Ok(entry)) => entry,
                // It was told in the first pass.
                Some(Err(e)) => {
                    passing(e)?;
                    continue;
                }
                None => {
                    if let Some(done) = stack.pop() {
                        self.leave(shared, &mut stack, done, &path);
                    }
                    continue;
                }
            };
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            let Some((included, plan)) = choice.look(frame, &entry, &path) else { continue };
            if let Body::Dir { node, .. } = entry.body {
                let folder = frame.folder.as_ref().and_then(|folder| folder.dir(&entry.name).ok());
                let Some(folder) = folder else { continue };
                let entries = Dir::new(shared.source, node).entries();
                stack.push(Frame {
                    entry,
                    entries,
                    folder: Some(Arc::new(folder)),
                    path_len: path.len(),
                    included,
                    plan,
                    touched: included,
                });
                continue;
            }
            if !included {
                continue;
            }
            frame.touched = true;
            if let Some(key) = entry.link_key()
                && let Some(folder) = &frame.folder
            {
                match first.get(&key) {
                    None => {
                        first.insert(key, path.clone());
                    }
                    Some(from) if !skipped.0.contains(&key) => {
                        match self.link(target, from, folder, &entry.name) {
                            Ok(()) => shared.progress.add(|p| &p.files, 1),
                            Err(e) => shared.trouble(&path, format!("linking it: {e}")),
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// All in a directory is restored: it gets what it had.
    fn leave(
        &self,
        shared: &Shared<'_>,
        stack: &mut [Frame<'_, '_>],
        done: Frame<'_, '_>,
        path: &[u8],
    ) {
        if !done.touched {
            return;
        }
        let is_top = match stack.last_mut() {
            Some(above) => {
                above.touched = true;
                false
            }
            None => true,
        };
        // The target stands for the top of the image; it is only given that one's owner and mode
        // when that directory itself was backed up.
        let wanted = !is_top || (!done.entry.passed && self.paths.is_empty());
        let (Some(folder), true) = (&done.folder, wanted) else { return };
        shared.attributes.strip(folder.as_fd(), &done.entry);
        for what in shared.attributes.apply(folder.as_fd(), &done.entry) {
            shared.trouble(path, what);
        }
        shared.progress.add(|p| &p.dirs, 1);
    }

    /// Gives a file one more name.
    fn link(
        &self,
        target: &Arc<Folder>,
        from: &[u8],
        folder: &Folder,
        name: &[u8],
    ) -> std::io::Result<()> {
        let mut names: Vec<&[u8]> = from.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        let Some(old) = names.pop() else { return Ok(()) };
        let mut from = Arc::clone(target);
        for name in names {
            from = Arc::new(from.dir(name)?);
        }
        let meta = from.stat(old)?;
        if let Ok(there) = folder.stat(name) {
            if (there.device, there.inode) == (meta.device, meta.inode)
                || self.overwrite == Overwrite::Never
            {
                return Ok(());
            }
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        }
        Ok(rustix::fs::linkat(&*from, old, folder, name, AtFlags::empty())?)
    }
}

/// What comes next from a channel whose receivers take turns: one waits, the others for their turn.
fn next<T>(channel: &Mutex<Receiver<T>>) -> Option<T> {
    channel.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Files with several names that were left as they were.
#[derive(Debug, Default)]
struct Skipped(HashSet<LinkKey>);

impl Plan {
    /// None when everything is wanted.
    fn new(paths: &[Vec<u8>]) -> Result<Option<Self>> {
        let mut plan = Self::default();
        for path in paths {
            let names = components(path)?;
            if names.is_empty() {
                return Ok(None);
            }
            let mut at = &mut plan;
            for (i, name) in names.iter().enumerate() {
                let new = !at.0.contains_key(*name);
                at = at.0.entry(name.to_vec()).or_default();
                // What is above is wanted as a whole already.
                if !new && at.0.is_empty() {
                    break;
                }
                if i + 1 == names.len() {
                    at.0.clear();
                }
            }
        }
        Ok((!paths.is_empty()).then_some(plan))
    }
}

impl Choice {
    /// Whether something in a directory is to be looked at; if so, whether it is wanted itself,
    /// and what is wanted in it.
    fn look<'p>(
        &'p self,
        frame: &Frame<'_, 'p>,
        entry: &Entry,
        path: &[u8],
    ) -> Option<(bool, Option<&'p Plan>)> {
        let (reached, plan) = match frame.plan {
            None => (true, None),
            Some(plan) => {
                let next = plan.0.get(&entry.name)?;
                if next.0.is_empty() { (true, None) } else { (false, Some(next)) }
            }
        };
        let is_dir = entry.is_dir();
        if self.exclude.fit(path, is_dir) || (!reached && !is_dir) {
            return None;
        }
        let included = frame.included
            || (reached && (self.include.is_empty() || self.include.fit(path, is_dir)));
        (included || is_dir).then_some((included, plan))
    }
}

/// Whether what is there is what would be restored, as far as a look can tell.
fn is_same(entry: &Entry, meta: &Meta) -> bool {
    match (&entry.body, meta.kind) {
        (Body::File(map), Kind::File) => map.len() == meta.size && entry.mtime == meta.mtime,
        (Body::Symlink(target), Kind::Symlink) => {
            target.len() as u64 == meta.size && entry.mtime == meta.mtime
        }
        (Body::Fifo, Kind::Fifo) => entry.mtime == meta.mtime,
        (Body::Char(major, minor), Kind::Char) | (Body::Block(major, minor), Kind::Block) => {
            makedev(*major, *minor) == meta.rdev && entry.mtime == meta.mtime
        }
        _ => false,
    }
}

/// Makes links, FIFOs and devices.
fn special(shared: &Shared<'_>, folder: &Folder, entry: &Entry, path: &[u8]) {
    let name = entry.name.as_slice();
    let make = || -> rustix::io::Result<()> {
        let node =
            |kind, device| rustix::fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, device);
        match &entry.body {
            Body::Symlink(target) => rustix::fs::symlinkat(target.as_slice(), folder, name),
            Body::Fifo => node(FileType::Fifo, 0),
            Body::Char(a, b) => node(FileType::CharacterDevice, makedev(*a, *b)),
            Body::Block(a, b) => node(FileType::BlockDevice, makedev(*a, *b)),
            Body::Socket | Body::File(_) | Body::Dir { .. } => Ok(()),
        }
    };
    if entry.body == Body::Socket {
        shared.progress.add(|p| &p.sockets, 1);
        return;
    }
    let made = match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(folder, name, AtFlags::empty()).and_then(|()| make())
        }
        other => other,
    };
    if let Err(e) = made {
        return shared.trouble(path, format!("making it: {e}"));
    }
    let link = matches!(entry.body, Body::Symlink(_));
    for what in shared.attributes.apply_named(folder, entry, link) {
        shared.trouble(path, what);
    }
    shared.progress.add(|p| &p.others, 1);
}

/// The directory that is being filled, made when it is not there.
fn folder_of(overwrite: Overwrite, stack: &mut [Frame<'_, '_>]) -> Result<Arc<Folder>, String> {
    let from = stack.iter().rposition(|frame| frame.folder.is_some()).unwrap_or(0);
    for i in from + 1..stack.len() {
        let Some(above) = stack[i - 1].folder.clone() else { break };
        stack[i].folder = Some(make_dir(overwrite, &above, &stack[i].entry.name)?);
    }
    stack.last().and_then(|frame| frame.folder.clone()).ok_or_else(|| "it has no place".into())
}

fn make_all(
    overwrite: Overwrite,
    stack: &mut [Frame<'_, '_>],
    next: &mut Frame<'_, '_>,
) -> Result<(), String> {
    let above = folder_of(overwrite, stack)?;
    next.folder = Some(make_dir(overwrite, &above, &next.entry.name)?);
    Ok(())
}

fn make_dir(overwrite: Overwrite, above: &Folder, name: &[u8]) -> Result<Arc<Folder>, String> {
    let make = || rustix::fs::mkdirat(above, name, Mode::RWXU);
    match make() {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let there = above.stat(name).map_err(|e| e.to_string())?;
            if there.kind != Kind::Dir {
                if overwrite == Overwrite::Never {
                    return Err("something that is no directory is in its place".into());
                }
                rustix::fs::unlinkat(above, name, AtFlags::empty())
                    .and_then(|()| make())
                    .map_err(|e| format!("replacing what is in its place: {e}"))?;
            }
        }
        Err(e) => return Err(format!("making it: {e}")),
    }
    above.dir(name).map(Arc::new).map_err(|e| format!("opening it: {e}"))
}

/// The content of a file.
fn content(entry: &Entry) -> Option<&MapRef> {
    match &entry.body {
        Body::File(map) => Some(map),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
