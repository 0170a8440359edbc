//! Writing a segment.
//!
//! Steps, in order, on every disk alike:
//! 1. `index/<id>.new` is created (one left over from before is removed first);
//! 2. entry pages are written, then read back to make the filter, then fences and filter;
//! 3. the header page is written last;
//! 4. the file is synced, and renamed to `index/<id>`.
//!
//! The *caller* then syncs the directory [`super::DIR`] of every disk, and only after that commits
//! `Op::AddSegment`. Until the commit the file is nothing but a left-over to remove.
//!
//! Memory: a run of pages and one fence per page; no filter.

use std::io;
use std::sync::Arc;

use super::damage::damaged;
use super::filter::InOrder;
use super::format::{
    BLOCK, BLOCKS_PER_PAGE, Binding, ENTRY, FENCES_PER_PAGE, Layout, PAGE, PAYLOAD, PER_PAGE,
    id_at, prefix, put_entry,
};
use crate::disk::{Caching, Disk, DiskFile};
use crate::error::{Error, Result};
use crate::id::{ChunkId, Location, PackId, PoolId, SegmentId};
use crate::state::SegmentInfo;

/// Pages written or read at once.
pub(super) const RUN: usize = 64;

/// A segment that is complete on at least one disk.
#[derive(Debug)]
pub struct Written {
    /// What goes in the pool's state.
    pub info: SegmentInfo,
    /// Disks (their places among the pool's disks) that could not take a copy, and why.
    pub failed: Vec<(usize, io::Error)>,
}

/// Where the segment's file lies on a disk.
pub(super) fn path(id: SegmentId) -> String {
    format!("{}/{id}", super::DIR)
}

#[derive(Debug)]
struct Sink {
    index: usize,
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
}

/// The copies being written. A disk that fails is dropped; the last one to fail ends the writing.
#[derive(Debug)]
struct Sinks {
    id: SegmentId,
    live: Vec<Sink>,
    failed: Vec<(usize, io::Error)>,
}

impl Sinks {
    fn temporary(&self) -> String {
        format!("{}.new", path(self.id))
    }

    fn create(&mut self, disks: &[Option<Arc<dyn Disk>>]) -> Result<()> {
        let path = self.temporary();
        for (index, disk) in disks.iter().enumerate() {
            let Some(disk) = disk else { continue };
            let create = || {
                match disk.remove(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                disk.create(&path, Caching::Cached)
            };
            match create() {
                Ok(file) => self.live.push(Sink { index, disk: Arc::clone(disk), file }),
                Err(e) => self.failed.push((index, e)),
            }
        }
        self.some_left()
    }

    /// Does the same on every disk that is left.
    fn each(&mut self, act: impl Fn(&Sink) -> io::Result<()>) -> Result<()> {
        let path = self.temporary();
        let failed = &mut self.failed;
        self.live.retain(|sink| match act(sink) {
            Ok(()) => true,
            Err(e) => {
                // It may be full: give back what was taken. Nothing depends on the success.
                drop(sink.disk.remove(&path));
                failed.push((sink.index, e));
                false
            }
        });
        self.some_left()
    }

    fn some_left(&mut self) -> Result<()> {
        if !self.live.is_empty() {
            return Ok(());
        }
        let what = format!("writing index segment {}", self.id);
        let none = || io::Error::new(io::ErrorKind::NotFound, "no disk is there");
        Err(Error::io(what, self.failed.pop().map_or_else(none, |(_, e)| e)))
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        let path = self.temporary();
        for sink in &self.live {
            // A left-over is harmless and is removed when the pool is opened next.
            drop(sink.disk.remove(&path));
        }
    }
}

/// Gathers pages and writes them in runs.
#[derive(Debug)]
struct Pages {
    sinks: Sinks,
    binding: Binding,
    /// The number of the first page in `run`.
    first: u64,
    run: Vec<u8>,
}

impl Pages {
    /// A fresh page, all zero, to be filled and then closed.
    fn open(&mut self) -> &mut [u8] {
        let at = self.run.len();
        self.run.resize(at + PAGE, 0);
        &mut self.run[at..]
    }

    fn close(&mut self) -> Result<()> {
        let number = self.first + (self.run.len() / PAGE) as u64 - 1;
        let at = self.run.len() - PAGE;
        self.binding.seal(number, &mut self.run[at..]);
        if self.run.len() == RUN * PAGE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let (run, at) = (&self.run, self.first * PAGE as u64);
        self.sinks.each(|sink| sink.file.write_all_at(run, at))?;
        self.first += (self.run.len() / PAGE) as u64;
        self.run.clear();
        Ok(())
    }

    /// Reads pages back; a disk that doesn't give what it was given is dropped.
    fn read_back(&mut self, first: u64, buf: &mut [u8]) -> Result<()> {
        loop {
            let sink = self.sinks.live.first().expect("an error tells when none is left");
            let read = sink.file.read_exact_at(buf, first * PAGE as u64).and_then(|()| {
                let mut pages = (first..).zip(buf.chunks_exact(PAGE));
                match pages.find(|(n, page)| !self.binding.holds(*n, page)) {
                    None => Ok(()),
                    Some((n, _)) => {
                        let why = format!("page {n} does not read back as it was written");
                        Err(io::Error::new(io::ErrorKind::InvalidData, why))
                    }
                }
            });
            let Err(e) = read else { return Ok(()) };
            let bad = self.sinks.live.remove(0);
            drop(bad.disk.remove(&self.sinks.temporary()));
            self.sinks.failed.push((bad.index, e));
            self.sinks.some_left()?;
        }
    }
}

/// Writes a segment from entries in order. Dropped before [`SegmentWriter::finish`], it removes
/// what it wrote.
#[derive(Debug)]
pub struct SegmentWriter {
    pages: Pages,
    /// Entries in the page being filled.
    in_page: usize,
    page: Box<[u8; PAGE]>,
    fences: Vec<u64>,
    entries: u64,
    last: Option<(ChunkId, PackId)>,
}

impl SegmentWriter {
    /// Begins a segment with a copy on every disk that is there; [`super::DIR`] must exist on them.
    ///
    /// # Errors
    /// [`Error::Io`] when it can be begun on none.
    pub fn create(
        disks: &[Option<Arc<dyn Disk>>],
        pool: PoolId,
        id: SegmentId,
    ) -> Result<SegmentWriter> {
        let mut sinks = Sinks { id, live: Vec::new(), failed: Vec::new() };
        sinks.create(disks)?;
        let binding = Binding::new(pool, id);
        Ok(Self {
            // Room for more than a run is never needed.
            pages: Pages { sinks, binding, first: 1, run: Vec::with_capacity(RUN * PAGE) },
            in_page: 0,
            page: Box::new([0; PAGE]),
            fences: Vec::new(),
            entries: 0,
            last: None,
        })
    }

    /// Adds an entry. Entries come sorted by id, then by pack, each pair once.
    ///
    /// # Errors
    /// [`Error::Io`] when no disk takes it, [`Error::Damaged`] when it is out of order or has a
    /// number that the format has no room for.
    pub fn push(&mut self, id: &ChunkId, at: &Location) -> Result<()> {
        let segment = self.pages.sinks.id;
        let this = (*id, at.pack);
        if self.last.is_some_and(|last| last >= this) {
            return Err(damaged(segment, "its entries are not in order"));
        }
        if !put_entry(&mut self.page[self.in_page * ENTRY..], id, at) {
            return Err(damaged(segment, format!("a number of chunk {id} is out of range")));
        }
        self.last = Some(this);
        self.entries += 1;
        if self.in_page == 0 {
            self.fences.push(id.prefix());
        }
        self.in_page += 1;
        if self.in_page == PER_PAGE { self.close_page() } else { Ok(()) }
    }

    fn close_page(&mut self) -> Result<()> {
        self.pages.open()[..PAYLOAD].copy_from_slice(&self.page[..PAYLOAD]);
        self.page.fill(0);
        self.in_page = 0;
        self.pages.close()
    }

    /// Completes the segment; nothing (and no file) when there was no entry. What the caller must
    /// do then is in the module's text.
    ///
    /// # Errors
    /// [`Error::Io`] when no disk could take it.
    pub fn finish(mut self) -> Result<Option<Written>> {
        let Some(layout) = Layout::of(self.entries) else {
            return Ok(None);
        };
        if self.in_page > 0 {
            self.close_page()?;
        }
        if !self.pages.run.is_empty() {
            self.pages.write()?;
        }
        for fences in self.fences.chunks(FENCES_PER_PAGE) {
            let page = self.pages.open();
            for (to, fence) in page.chunks_exact_mut(8).zip(fences) {
                to.copy_from_slice(&fence.to_le_bytes());
            }
            self.pages.close()?;
        }
        self.fences = Vec::new();
        self.write_filter(&layout)?;
        if !self.pages.run.is_empty() {
            self.pages.write()?;
        }
        let header = self.pages.binding.header(&layout);
        let sinks = &mut self.pages.sinks;
        sinks.each(|sink| sink.file.write_all_at(&header, 0))?;
        sinks.each(|sink| sink.file.sync())?;
        let (from, to) = (sinks.temporary(), path(sinks.id));
        sinks.each(|sink| sink.disk.rename(&from, &to))?;
        sinks.live.clear();
        let info = SegmentInfo { entries: self.entries, len: layout.len() };
        Ok(Some(Written { info, failed: std::mem::take(&mut sinks.failed) }))
    }

    /// Reads the entry pages back in order, and appends the filter that they give.
    fn write_filter(&mut self, layout: &Layout) -> Result<()> {
        let mut filter = InOrder::new(layout.blocks);
        let pages = &mut self.pages;
        let mut in_page = 0;
        let mut back = vec![0; RUN.min(layout.pages as usize) * PAGE];
        let mut page = 0;
        while page < layout.pages {
            let count = (layout.pages - page).min(RUN as u64);
            let back = &mut back[..count as usize * PAGE];
            pages.read_back(1 + page, back)?;
            for (n, bytes) in (page..).zip(back.chunks_exact(PAGE)) {
                for entry in 0..layout.entries_in(n) {
                    filter.insert(prefix(id_at(bytes, entry)), &mut |block| {
                        put_block(pages, &mut in_page, &block)
                    })?;
                }
            }
            page += count;
        }
        filter.finish(&mut |block| put_block(pages, &mut in_page, &block))?;
        if in_page > 0 { pages.close() } else { Ok(()) }
    }
}

fn put_block(pages: &mut Pages, in_page: &mut usize, block: &[u8; BLOCK]) -> Result<()> {
    if *in_page == 0 {
        pages.open();
    }
    let at = pages.run.len() - PAGE + *in_page * BLOCK;
    pages.run[at..at + BLOCK].copy_from_slice(block);
    *in_page += 1;
    if *in_page == BLOCKS_PER_PAGE {
        *in_page = 0;
        return pages.close();
    }
    Ok(())
}
