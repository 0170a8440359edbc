//! Putting the image together: takes events in order, waits for the content of files, and writes
//! the directories.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::mpsc::Receiver;

use strongroom_engine::id::ChunkId;

use super::Shared;
use super::content::{Content, Found};
use super::walk::{Event, Inode, Parcel};
use crate::Result;
use crate::entry::{Body, Entry};
use crate::tree::DirBuilder;

/// The top directory and what was seen in it.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The directory `/`.
    pub(super) entry: Option<Entry>,
    /// Owners of anything.
    pub(super) users: BTreeSet<u32>,
    /// Groups of anything.
    pub(super) groups: BTreeSet<u32>,
}

pub(super) struct Gather<'s> {
    shared: &'s Shared<'s>,
    open: Vec<DirBuilder>,
    path: Vec<Vec<u8>>,
    batches: VecDeque<Receiver<Vec<Found>>>,
    found: VecDeque<Found>,
    kept: HashMap<Inode, Option<Entry>>,
    out: Gathered,
}

/// A worker ended without a word; why is known where it was stopped.
struct Stopped;

impl<'s> Gather<'s> {
    pub(super) fn new(shared: &'s Shared<'s>) -> Self {
        Self {
            shared,
            open: Vec::new(),
            path: Vec::new(),
            batches: VecDeque::new(),
            found: VecDeque::new(),
            kept: HashMap::new(),
            out: Gathered::default(),
        }
    }

    /// Takes all events. An image without a top was not finished.
    pub(super) fn run(mut self, parcels: &Receiver<Parcel>) -> Result<Gathered> {
        for parcel in parcels {
            self.batches.extend(parcel.batch);
            for event in parcel.events {
                match self.take(event) {
                    Ok(Ok(())) => {}
                    Ok(Err(Stopped)) => return Ok(Gathered::default()),
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(self.out)
    }

    fn take(&mut self, event: Event) -> strongroom_engine::Result<Result<(), Stopped>> {
        match event {
            Event::Enter { name, device } => {
                self.open.push(DirBuilder::new(device));
                self.path.push(name);
            }
            Event::Leave(mut entry) => {
                let Some(builder) = self.open.pop() else { return Ok(Ok(())) };
                let entries = builder.entries();
                let node: ChunkId = builder.finish(&self.shared.nodes())?;
                entry.body = Body::Dir { node, entries };
                self.path.pop();
                if self.open.is_empty() {
                    self.owners(&entry);
                    self.out.entry = Some(*entry);
                } else {
                    self.push(&entry)?;
                }
            }
            Event::Ready { entry, keep } => {
                self.push(&entry)?;
                self.keep(keep, Some(*entry));
            }
            Event::File { entry, keep } => {
                if self.found.is_empty() {
                    let batch = self.batches.pop_front().and_then(|batch| batch.recv().ok());
                    let Some(batch) = batch else { return Ok(Err(Stopped)) };
                    self.found.extend(batch);
                }
                let Some(found) = self.found.pop_front() else { return Ok(Err(Stopped)) };
                self.file(*entry, keep, found)?;
            }
            Event::Large { entry, keep, found } => {
                let Ok(found) = found.recv() else { return Ok(Err(Stopped)) };
                let Some(found) = found.into_iter().next() else { return Ok(Err(Stopped)) };
                self.file(*entry, keep, found)?;
            }
            Event::Link { name, inode, last } => {
                let kept = match last {
                    true => self.kept.remove(&inode).flatten(),
                    false => self.kept.get(&inode).cloned().flatten(),
                };
                match kept {
                    Some(entry) => self.push(&Entry { name, ..entry })?,
                    None => self.trouble(&name, "another name of this file could not be read"),
                }
            }
            Event::Trouble { name, what } => self.trouble(&name, what),
        }
        Ok(Ok(()))
    }

    fn file(
        &mut self,
        entry: Entry,
        keep: Option<Inode>,
        found: Found,
    ) -> strongroom_engine::Result<()> {
        let entry = match found {
            Found::Read(content) => {
                let Content { map, xattrs, meta, racy, trouble } = *content;
                if let Some(what) = trouble {
                    self.trouble(&entry.name, what);
                }
                // What was read belongs to what was open then, not to what was seen before.
                let same = meta.inode == entry.inode;
                Entry {
                    body: Body::File(map),
                    mode: meta.mode,
                    uid: meta.uid,
                    gid: meta.gid,
                    mtime: meta.mtime,
                    ctime: meta.ctime,
                    inode: meta.inode,
                    links: if same { meta.links.max(1) } else { 1 },
                    racy,
                    xattrs,
                    ..entry
                }
            }
            Found::Failed(why) => {
                self.trouble(&entry.name, why);
                self.keep(keep, None);
                return Ok(());
            }
        };
        self.push(&entry)?;
        self.keep(keep, Some(entry));
        Ok(())
    }

    fn keep(&mut self, keep: Option<Inode>, entry: Option<Entry>) {
        if let Some(inode) = keep {
            self.kept.insert(inode, entry);
        }
    }

    fn push(&mut self, entry: &Entry) -> strongroom_engine::Result<()> {
        self.owners(entry);
        match self.open.last_mut() {
            Some(builder) => builder.push(&self.shared.nodes(), entry),
            None => Ok(()),
        }
    }

    fn owners(&mut self, entry: &Entry) {
        self.out.users.insert(entry.uid);
        self.out.groups.insert(entry.gid);
    }

    fn trouble(&self, name: &[u8], what: impl ToString) {
        let mut path = self.path.join(&b'/');
        if !name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        self.shared.trouble(&path, what);
    }
}
