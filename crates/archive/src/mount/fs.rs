//! The kernel's requests, and their answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use strongroom_engine::clock::PoolTime;
use strongroom_engine::content::{Cache, Content, Reader};
use strongroom_engine::map::Nodes;

use super::inodes::{FIRST, Inode, Inodes, Key, Place};
use super::runs::Runs;
use super::views::{Kind, Views, file_name};
use super::{Options, Report, Shared, attrs, lock};
use crate::entry::{Body, Entry, XattrValue};
use crate::image::Top;
use crate::{Error, show};

/// Nothing ever changes: the kernel may remember what it was told for as long as it likes.
const TTL: Duration = Duration::from_secs(7 * 86_400);
/// So many different things that could not be read are told of.
const REPORTS: usize = 10_000;
/// Bytes of nodes and of content that are kept: several windows of read-ahead.
const KEPT: usize = 60 << 20;
/// Of lseek(2), as the kernel passes them on.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// The filesystem.
pub(super) struct Tree {
    reads: Reader,
    views: Views,
    inodes: Inodes,
    runs: Runs,
    files: Mutex<HashMap<u64, OpenFile>>,
    dirs: Mutex<HashMap<u64, Arc<OpenDir>>>,
    next_handle: AtomicU64,
    /// Who mounts.
    owner: (u32, u32),
    check_permissions: bool,
    report: Report,
    reported: Mutex<HashSet<String>>,
}

/// What a directory's entries are.
#[derive(Clone, Copy)]
enum Folder {
    /// Those of the view with this number.
    Views(u32),
    /// Those of an image.
    Image(Home),
}

/// A directory of an image.
#[derive(Clone, Copy)]
struct Home {
    image: u32,
    key: Key,
    /// Where its entries are read from; [`Place::Top`] has but one.
    place: Place,
}

#[derive(Clone)]
struct OpenFile {
    inode: u64,
    content: Arc<Content>,
}

struct OpenDir {
    folder: Folder,
    number: u64,
    parent: u64,
    /// The entries that come next, and the place of the first of them.
    batch: Mutex<(u64, VecDeque<Arc<Entry>>)>,
}

/// What one line of a directory is.
enum Item<'d> {
    /// The directory itself or the one above, by number.
    Dots(u64),
    View(u32),
    Entry(&'d Home, Arc<Entry>),
}

type Answer<T> = Result<T, Errno>;

impl Tree {
    pub(super) fn new(source: Shared, views: Views, ahead: usize, options: &Options) -> Self {
        Self {
            reads: Reader::new(&Cache::new(KEPT), source, ahead),
            views,
            inodes: Inodes::new(),
            runs: Runs::new(),
            files: Mutex::default(),
            dirs: Mutex::default(),
            next_handle: AtomicU64::new(1),
            owner: (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
            check_permissions: !options.ignore_permissions,
            report: Arc::clone(&options.report),
            reported: Mutex::default(),
        }
    }

    /// Tells what could not be read; `EIO` for who asked.
    fn trouble(&self, number: u64, place: &str, error: impl Into<Error>) -> Errno {
        let line = format!("{}{place}: {}", show(&self.path(number)), error.into());
        let mut reported = lock(&self.reported);
        if reported.len() < REPORTS && reported.insert(line.clone()) {
            drop(reported);
            (self.report)(&line);
        }
        Errno::EIO
    }

    /// The path of an inode from the top of the mount, as far as it is known.
    fn path(&self, mut number: u64) -> Vec<u8> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        // Longer than any path; a forged image can't make it go round.
        for _ in 0..4096 {
            if number >= FIRST {
                let Some(inode) = self.inodes.get(number) else { break };
                names.push(inode.name.to_vec());
                number = inode.parent;
                continue;
            }
            let Some(view) = self.view(number) else { break };
            if view == 0 {
                break;
            }
            let parent = self.views.list[view as usize].parent;
            if let Kind::Dir(items) = &self.views.list[parent as usize].kind {
                let name = items.iter().find(|(_, child)| *child == view);
                names.extend(name.map(|(name, _)| name.clone()));
            }
            number = number_of(parent);
        }
        names.iter().rev().flat_map(|name| [&b"/"[..], name].concat()).collect()
    }

    fn view(&self, number: u64) -> Option<u32> {
        let view = u32::try_from(number.checked_sub(1)?).ok()?;
        ((view as usize) < self.views.list.len()).then_some(view)
    }

    /// The top entry of an image.
    fn top(&self, image: u32, number: u64) -> Answer<Arc<Entry>> {
        let shown = &self.views.images[image as usize];
        if let Some(top) = shown.top.get() {
            return Ok(Arc::clone(top));
        }
        let node = self.reads.node(&shown.node);
        let decoding = strongroom_engine::Error::decoding("the top of an image");
        let top = node.and_then(|node| Top::decode(&node).map_err(decoding));
        let mut top = top.map_err(|e| self.trouble(number, "", e))?;
        if top.entry.name.is_empty() && !top.entry.is_dir() {
            top.entry.name = file_name(&shown.name);
        }
        Ok(Arc::clone(shown.top.get_or_init(|| Arc::new(top.entry))))
    }

    /// The attributes of a view. An image whose top can't be read shows as a plain directory, and
    /// has its error when it is entered.
    fn view_attr(&self, view: u32) -> FileAttr {
        let number = number_of(view);
        let shown = &self.views.list[view as usize];
        match &shown.kind {
            Kind::Link(to) => attrs::of_view(number, Some(to.len()), shown.time, self.owner),
            Kind::Dir(_) => attrs::of_view(number, None, shown.time, self.owner),
            Kind::Image(image) => match self.top(*image, number) {
                Ok(top) if top.is_dir() => attrs::of_entry(number, &top),
                _ => attrs::of_view(number, None, shown.time, self.owner),
            },
        }
    }

    /// The entry of an inode that the kernel holds.
    fn entry(&self, number: u64) -> Answer<Arc<Entry>> {
        if let Some(entry) = self.inodes.recent(number) {
            return Ok(entry);
        }
        let inode = self.inodes.get(number).ok_or(Errno::ENOENT)?;
        let entry = match inode.place {
            Place::Top => self.top(inode.image, number)?,
            Place::In(node) => {
                let found = self.runs.find(&self.reads, node, &inode.name);
                found.map_err(|e| self.trouble(number, "", e))?.ok_or(Errno::EIO)?
            }
        };
        self.inodes.note(number, &entry);
        Ok(entry)
    }

    fn attr(&self, number: u64) -> Answer<FileAttr> {
        match self.view(number) {
            Some(view) => Ok(self.view_attr(view)),
            None => Ok(attrs::of_entry(number, &*self.entry(number)?)),
        }
    }

    fn folder(&self, number: u64) -> Answer<Folder> {
        if let Some(view) = self.view(number) {
            return match &self.views.list[view as usize].kind {
                Kind::Dir(_) => Ok(Folder::Views(view)),
                Kind::Link(_) => Err(Errno::ENOTDIR),
                Kind::Image(image) => {
                    let key = Key::of_image(self.views.images[*image as usize].id);
                    let place = match self.top(*image, number)?.body {
                        Body::Dir { node, .. } => Place::In(node),
                        _ => Place::Top,
                    };
                    Ok(Folder::Image(Home { image: *image, key, place }))
                }
            };
        }
        let inode = self.inodes.get(number).ok_or(Errno::ENOENT)?;
        match self.entry(number)?.body {
            Body::Dir { node, .. } => {
                let place = Place::In(node);
                Ok(Folder::Image(Home { image: inode.image, key: inode.key, place }))
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn find(&self, parent: u64, name: &[u8]) -> Answer<FileAttr> {
        let home = match self.folder(parent)? {
            Folder::Image(home) => home,
            Folder::Views(view) => {
                let items = self.items(view);
                let found = items.binary_search_by(|(item, _)| item[..].cmp(name));
                return Ok(self.view_attr(items[found.map_err(|_| Errno::ENOENT)?].1));
            }
        };
        let entry = match home.place {
            Place::In(node) => {
                let found = self.runs.find(&self.reads, node, name);
                found.map_err(|e| self.trouble(parent, "", e))?.ok_or(Errno::ENOENT)?
            }
            Place::Top => {
                let top = self.top(home.image, parent)?;
                if top.name == name { top } else { return Err(Errno::ENOENT) }
            }
        };
        Ok(self.enter(&home, parent, &entry))
    }

    /// What a directory of views has.
    fn items(&self, view: u32) -> &[(Vec<u8>, u32)] {
        match &self.views.list[view as usize].kind {
            Kind::Dir(items) => items,
            _ => &[],
        }
    }

    /// Gives the kernel an inode for an entry.
    fn enter(&self, home: &Home, parent: u64, entry: &Arc<Entry>) -> FileAttr {
        let Home { image, place, .. } = *home;
        let key = self.key(home, entry);
        let name = entry.name.as_slice().into();
        let number = self.inodes.enter(Inode { key, image, parent, place, name }, entry);
        attrs::of_entry(number, entry)
    }

    fn key(&self, home: &Home, entry: &Entry) -> Key {
        Key::of_entry(home.key, self.views.images[home.image as usize].id, entry)
    }

    fn handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    fn open_dir(&self, number: u64) -> Answer<OpenDir> {
        let folder = self.folder(number)?;
        let parent = match self.view(number) {
            Some(view) => number_of(self.views.list[view as usize].parent),
            None => self.inodes.get(number).ok_or(Errno::ENOENT)?.parent,
        };
        Ok(OpenDir { folder, number, parent, batch: Mutex::default() })
    }

    /// Hands lines of a directory to `add`, from the one with that number on, until it says that
    /// there is no more room. Line 0 is `.`, line 1 is `..`.
    fn list(
        &self,
        dir: &OpenDir,
        from: u64,
        mut add: impl FnMut(u64, &[u8], Item<'_>) -> bool,
    ) -> Answer<()> {
        for (line, name, number) in [(0, &b"."[..], dir.number), (1, b"..", dir.parent)] {
            if from <= line && add(line, name, Item::Dots(number)) {
                return Ok(());
            }
        }
        let mut line = from.max(2);
        let home = match &dir.folder {
            Folder::Image(home) => home,
            Folder::Views(view) => {
                let behind = usize::try_from(line - 2).unwrap_or(usize::MAX);
                for (name, view) in self.items(*view).get(behind..).unwrap_or_default() {
                    if add(line, name, Item::View(*view)) {
                        break;
                    }
                    line += 1;
                }
                return Ok(());
            }
        };
        let Place::In(node) = home.place else {
            if line == 2 {
                let top = self.top(home.image, dir.number)?;
                add(line, &top.name.clone(), Item::Entry(home, top));
            }
            return Ok(());
        };
        // Out of the lock while directories are read.
        let (at, mut batch) = std::mem::take(&mut *lock(&dir.batch));
        if at != line {
            batch.clear();
        }
        loop {
            if batch.is_empty() {
                match self.runs.read(&self.reads, node, line - 2) {
                    Ok(run) => batch = run.entries.iter().cloned().collect(),
                    // What was found so far is shown first.
                    Err(_) if line > from.max(2) => break,
                    Err(error) => return Err(self.trouble(dir.number, "", error)),
                }
            }
            let Some(entry) = batch.front() else { break };
            if add(line, &entry.name, Item::Entry(home, Arc::clone(entry))) {
                break;
            }
            batch.pop_front();
            line += 1;
        }
        *lock(&dir.batch) = (line, batch);
        Ok(())
    }

    fn value(&self, number: u64, name: &[u8]) -> Answer<Vec<u8>> {
        let entry = self.with_attributes(number)?.ok_or(Errno::ENODATA)?;
        let found = entry.xattrs.iter().find(|xattr| xattr.name == name);
        match &found.ok_or(Errno::ENODATA)?.value {
            XattrValue::Inline(value) => Ok(value.clone()),
            XattrValue::Chunk(id, len) => {
                let value = self.reads.chunk((*id, *len));
                let place = format!(" (attribute {})", show(name));
                Ok(value.map_err(|e| self.trouble(number, &place, e))?.to_vec())
            }
        }
    }

    /// The entry that has the extended attributes of an inode.
    fn with_attributes(&self, number: u64) -> Answer<Option<Arc<Entry>>> {
        let Some(view) = self.view(number) else { return self.entry(number).map(Some) };
        match self.views.list[view as usize].kind {
            Kind::Image(image) => {
                let top = self.top(image, number)?;
                Ok(top.is_dir().then_some(top))
            }
            _ => Ok(None),
        }
    }
}

/// The inode number of a view.
fn number_of(view: u32) -> u64 {
    u64::from(view) + 1
}

/// Answers with a value, or how long it is when that is asked.
fn reply_value(reply: ReplyXattr, size: u32, value: Answer<Vec<u8>>) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Tree {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_ASYNC_DIO;
        if self.check_permissions {
            // The kernel then reads ACLs and goes by them.
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        // What this kernel doesn't know it does without.
        for flag in wanted {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent.0, name.as_bytes()) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.inodes.forget(number.0, count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(number.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        if let Some(view) = self.view(number.0) {
            return match &self.views.list[view as usize].kind {
                Kind::Link(to) => reply.data(to),
                _ => reply.error(Errno::EINVAL),
            };
        }
        match self.entry(number.0) {
            Ok(entry) => match &entry.body {
                Body::Symlink(to) => reply.data(to),
                _ => reply.error(Errno::EINVAL),
            },
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.view(number.0).is_some() {
            return reply.error(Errno::EISDIR);
        }
        match self.entry(number.0).as_deref() {
            Ok(Entry { body: Body::File(map), .. }) => {
                let handle = self.handle();
                let content = match Content::new(map) {
                    Ok(content) => Arc::new(content),
                    Err(error) => return reply.error(self.trouble(number.0, "", error)),
                };
                lock(&self.files).insert(handle, OpenFile { inode: number.0, content });
                let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                reply.opened(FileHandle(handle), flags);
            }
            Ok(_) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(*errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = lock(&self.files).get(&handle.0).cloned();
        let Some(file) = file else { return reply.error(Errno::EBADF) };
        self.reads.read(&file.content, offset, size, |got| match got {
            Ok(bytes) => reply.data(bytes),
            Err((at, error)) => {
                reply.error(self.trouble(file.inode, &format!(" at byte {at}"), error));
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.files).remove(&handle.0);
        reply.ok();
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let file = lock(&self.files).get(&handle.0).cloned();
        let Some(file) = file else { return reply.error(Errno::EBADF) };
        let data = match whence {
            SEEK_DATA => true,
            SEEK_HOLE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.reads.seek(&file.content, from, data) {
            Ok(Some(to)) => reply.offset(i64::try_from(to).unwrap_or(i64::MAX)),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(e) => reply.error(self.trouble(file.inode, &format!(" at byte {from}"), e)),
        }
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_dir(number.0) {
            Ok(dir) => {
                let handle = self.handle();
                lock(&self.dirs).insert(handle, Arc::new(dir));
                // Not FOPEN_CACHE_DIR: from its cache the kernel would list names alone, and ask for
                // the attributes of each in turn.
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let dir = lock(&self.dirs).get(&handle.0).cloned();
        let Some(dir) = dir else { return reply.error(Errno::EBADF) };
        let listed = self.list(&dir, offset, |line, name, item| {
            let (number, kind) = match &item {
                Item::Dots(number) => (*number, FileType::Directory),
                Item::View(view) => {
                    let link = matches!(self.views.list[*view as usize].kind, Kind::Link(_));
                    let kind = if link { FileType::Symlink } else { FileType::Directory };
                    (number_of(*view), kind)
                }
                Item::Entry(home, entry) => {
                    (self.inodes.number(self.key(home, entry)), attrs::kind(entry))
                }
            };
            reply.add(INodeNo(number), line + 1, kind, OsStr::from_bytes(name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let dir = lock(&self.dirs).get(&handle.0).cloned();
        let Some(dir) = dir else { return reply.error(Errno::EBADF) };
        let listed = self.list(&dir, offset, |line, name, item| {
            let attr = match &item {
                // The kernel takes no more than the number from these two.
                Item::Dots(number) => attrs::of_view(*number, None, PoolTime(0), self.owner),
                Item::View(view) => self.view_attr(*view),
                Item::Entry(home, entry) => self.enter(home, dir.number, entry),
            };
            let name = OsStr::from_bytes(name);
            let full = reply.add(attr.ino, line + 1, name, &TTL, &attr, Generation(0));
            if full && matches!(item, Item::Entry(..)) {
                // The kernel was not given this one after all.
                self.inodes.forget(attr.ino.0, 1);
            }
            full
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.dirs).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        let (mut bytes, mut files) = (0u64, 0u64);
        for image in &self.views.images {
            let stats = &image.stats;
            bytes = bytes.saturating_add(stats.bytes);
            for count in [stats.files, stats.dirs, stats.others] {
                files = files.saturating_add(count);
            }
        }
        reply.statfs(bytes.div_ceil(BLOCK.into()), 0, 0, files, 0, BLOCK, 255, BLOCK);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_value(reply, size, self.value(number.0, name.as_bytes()));
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.with_attributes(number.0).map(|entry| {
            let mut names = Vec::new();
            for xattr in entry.iter().flat_map(|entry| &entry.xattrs) {
                // As other filesystems do: these are not for everybody to see.
                if request.uid() == 0 || !xattr.name.starts_with(b"trusted.") {
                    names.extend_from_slice(&xattr.name);
                    names.push(0);
                }
            }
            names
        });
        reply_value(reply, size, names);
    }
}
