//! The assembly area: files are put together in memory, in whatever order the pool gives their
//! chunks, and each window is written once, when all of it is there.
//!
//! An area is a bounded number of *windows* of one buffer each: either an aligned piece of a large
//! file, or many small files. All chunks of an area are asked for at once, so that the pool can
//! read its packs in order and open each frame once; a chunk that is wanted in several places is
//! asked for once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_engine::buf::{BufPool, PooledBuf};
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{Extent, MapReader};
use strongroom_engine::{Error, Result};

use super::Shared;
use super::file::OutFile;
use crate::entry::Body;
use crate::folder::Folder;

/// The size of a window, in bytes.
pub(super) const WINDOW: usize = 2 << 20;
/// Files up to this size share windows, in bytes.
const SMALL: u64 = 512 << 10;
/// How many windows an area has at most.
pub(super) const WINDOWS: usize = 5;
const MAX_CHUNKS: usize = 16 << 10;
const MAX_FILES: usize = 2048;
/// Directories that an area keeps open at most.
const MAX_FOLDERS: usize = 96;

/// A run of bytes of a window that goes to one place of one file.
struct Run {
    file: Arc<OutFile>,
    at: usize,
    len: usize,
    offset: u64,
}

#[derive(Default)]
struct Filling {
    buf: Option<PooledBuf>,
    /// Bytes still to come.
    left: usize,
    /// What will not come: place and length.
    bad: Vec<(usize, usize)>,
}

#[derive(Default)]
struct Window {
    runs: Vec<Run>,
    /// Files that are whole with this window, or a window less of them is missing.
    files: Vec<Arc<OutFile>>,
    filling: Mutex<Filling>,
}

/// Where a part of a chunk is wanted.
#[derive(Clone, Copy)]
struct Place {
    window: usize,
    at: usize,
    /// Where the part begins in the chunk.
    from: usize,
    len: usize,
    /// How long the chunk is.
    chunk: u32,
    /// The next place of the same chunk.
    next: Option<usize>,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Area {
    windows: Vec<Window>,
    wanted: Vec<ChunkId>,
    /// For each wanted chunk, its first place.
    first: Vec<usize>,
    places: Vec<Place>,
    known: HashMap<ChunkId, usize>,
    files: usize,
    folders: usize,
    last_folder: Option<Arc<Folder>>,
}

impl Area {
    fn is_full(&self) -> bool {
        self.windows.len() >= WINDOWS
            || self.wanted.len() >= MAX_CHUNKS
            || self.files >= MAX_FILES
            || self.folders >= MAX_FOLDERS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn add(&mut self, id: ChunkId, mut place: Place) {
        let places = self.places.len();
        match self.known.get(&id) {
            Some(wanted) => place.next = Some(std::mem::replace(&mut self.first[*wanted], places)),
            None => {
                self.known.insert(id, self.wanted.len());
                self.wanted.push(id);
                self.first.push(places);
            }
        }
        let filling = self.windows[place.window].filling.get_mut();
        filling.unwrap_or_else(PoisonError::into_inner).left += place.len;
        self.places.push(place);
    }

    /// Reads all chunks and writes all windows.
    pub(super) fn run(&self, shared: &Shared<'_>, buffers: &BufPool) -> Result<()> {
        for window in &self.windows {
            let filling = window.filling.lock().unwrap_or_else(PoisonError::into_inner);
            let empty = filling.left == 0;
            drop(filling);
            if empty {
                window.write(shared, &Filling::default());
            }
        }
        let places = |i: usize| {
            std::iter::successors(self.first.get(i).map(|first| self.places[*first]), |place| {
                place.next.map(|next| self.places[next])
            })
        };
        let lose = |i: usize, why: &dyn Fn() -> String| {
            for place in places(i) {
                let window = &self.windows[place.window];
                window.lose(shared, place, &why());
            }
        };
        let sink = |i: usize, bytes: &[u8]| {
            if shared.progress.is_canceled() {
                return Err(Error::Canceled);
            }
            for place in places(i) {
                let window = &self.windows[place.window];
                if bytes.len() == place.chunk as usize {
                    window.fill(shared, buffers, place, bytes);
                } else {
                    let why = format!("a chunk has {} bytes, not {}", bytes.len(), place.chunk);
                    window.lose(shared, place, &why);
                }
            }
            Ok(())
        };
        let failed = |i: usize, error: Error| lose(i, &|| error.to_string());
        shared.source.fetch(&self.wanted, &sink, &failed)
    }
}

impl Window {
    fn fill(&self, shared: &Shared<'_>, buffers: &BufPool, place: Place, chunk: &[u8]) {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        // There is a buffer for every window of the areas that are at work: this never waits.
        let buf = filling.buf.get_or_insert_with(|| buffers.take());
        buf[place.at..place.at + place.len]
            .copy_from_slice(&chunk[place.from..place.from + place.len]);
        filling.left -= place.len;
        let done = (filling.left == 0).then(|| std::mem::take(&mut *filling));
        drop(filling);
        if let Some(filling) = done {
            self.write(shared, &filling);
        }
    }

    fn lose(&self, shared: &Shared<'_>, place: Place, why: &str) {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        filling.bad.push((place.at, place.len));
        filling.left -= place.len;
        let done = (filling.left == 0).then(|| std::mem::take(&mut *filling));
        drop(filling);
        for run in &self.runs {
            let start = run.at.max(place.at);
            let end = (run.at + run.len).min(place.at + place.len);
            if start < end {
                let from = run.offset + (start - run.at) as u64;
                let to = from + (end - start) as u64;
                run.file.lose(shared, from, to, why);
            }
        }
        if let Some(filling) = done {
            self.write(shared, &filling);
        }
    }

    /// Writes what is there.
    fn write(&self, shared: &Shared<'_>, filling: &Filling) {
        if let Some(buf) = &filling.buf {
            for run in &self.runs {
                let mut parts = vec![(run.at, run.at + run.len)];
                for (at, len) in &filling.bad {
                    parts = parts
                        .into_iter()
                        .flat_map(|(start, end)| {
                            [(start, end.min(*at)), (start.max(at + len), end)]
                        })
                        .filter(|(start, end)| start < end)
                        .collect();
                }
                for (start, end) in parts {
                    let offset = run.offset + (start - run.at) as u64;
                    run.file.write(shared, &buf[start..end], offset);
                }
            }
        }
        for file in &self.files {
            file.release(shared);
        }
    }
}

/// Lays files out in areas and passes full areas on.
pub(super) struct Layout<'s, F: FnMut(Area) -> Result<()>> {
    shared: &'s Shared<'s>,
    area: Area,
    /// The window that small files go to, and how far it is full.
    small: Option<(usize, usize)>,
    pass_on: F,
}

impl<'s, F: FnMut(Area) -> Result<()>> Layout<'s, F> {
    pub(super) fn new(shared: &'s Shared<'s>, pass_on: F) -> Self {
        Self { shared, area: Area::default(), small: None, pass_on }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, folder: &Arc<Folder>, file: &Arc<OutFile>) -> Result<()> {
        let Body::File(map) = &file.entry.body else { return Ok(()) };
        if self.area.is_full() {
            self.flush()?;
        }
        self.area.files += 1;
        if !self.area.last_folder.as_ref().is_some_and(|last| Arc::ptr_eq(last, folder)) {
            self.area.folders += 1;
            self.area.last_folder = Some(Arc::clone(folder));
        }
        let done = if map.len() <= SMALL { self.add_small(file) } else { self.add_large(file) };
        if let Err(error) = done {
            if matches!(error, Error::Canceled) {
                return Err(error);
            }
            // Its list of chunks can't be read.
            file.fail(self.shared, error);
        }
        Ok(())
    }

    fn add_small(&mut self, file: &Arc<OutFile>) -> Result<()> {
        let Body::File(map) = &file.entry.body else { return Ok(()) };
        let len = map.len() as usize;
        let (window, base) = match self.small {
            Some((window, full)) if full + len <= WINDOW => (window, full),
            _ => {
                if self.area.is_full() {
                    self.flush()?;
                    self.area.files = 1;
                }
                self.area.windows.push(Window::default());
                (self.area.windows.len() - 1, 0)
            }
        };
        self.small = Some((window, (base + len).next_multiple_of(8)));
        let mut extents = Vec::new();
        for step in MapReader::new(self.shared.source, map, 0) {
            extents.push(step?);
        }
        for (offset, extent) in extents {
            if let Extent::Data { id, len } = extent {
                let at = base + offset as usize;
                let length = len as usize;
                self.run(window, file, at, length, offset);
                let place = Place { window, at, from: 0, len: length, chunk: len, next: None };
                self.area.add(id, place);
            }
        }
        self.area.windows[window].files.push(Arc::clone(file));
        Ok(())
    }

    /// Notes that bytes of a window go to a file, next to what is noted already where that fits.
    fn run(&mut self, window: usize, file: &Arc<OutFile>, at: usize, len: usize, offset: u64) {
        let runs = &mut self.area.windows[window].runs;
        match runs.last_mut() {
            Some(last)
                if Arc::ptr_eq(&last.file, file)
                    && last.at + last.len == at
                    && last.offset + last.len as u64 == offset =>
            {
                last.len += len;
            }
            _ => runs.push(Run { file: Arc::clone(file), at, len, offset }),
        }
    }

    fn add_large(&mut self, file: &Arc<OutFile>) -> Result<()> {
        let Body::File(map) = &file.entry.body else { return Ok(()) };
        let shared = self.shared;
        file.prepare(shared, map);
        let mut current: Option<(u64, usize)> = None;
        let mut lay_out = || -> Result<()> {
            for step in MapReader::new(shared.source, map, 0) {
                if shared.progress.is_canceled() {
                    return Err(Error::Canceled);
                }
                let (start, extent) = step?;
                let Extent::Data { id, len: chunk } = extent else { continue };
                let mut from = 0;
                while from < chunk as usize {
                    let offset = start + from as u64;
                    let piece = offset / WINDOW as u64;
                    let at = (offset % WINDOW as u64) as usize;
                    let len = (chunk as usize - from).min(WINDOW - at);
                    let window = match current {
                        Some((number, window)) if number == piece => window,
                        _ => {
                            if self.area.is_full() {
                                self.flush()?;
                            }
                            file.hold();
                            let files = vec![Arc::clone(file)];
                            self.area.windows.push(Window { files, ..Window::default() });
                            let window = self.area.windows.len() - 1;
                            current = Some((piece, window));
                            window
                        }
                    };
                    self.run(window, file, at, len, offset);
                    let place = Place { window, at, from, len, chunk, next: None };
                    self.area.add(id, place);
                    from += len;
                }
            }
            Ok(())
        };
        let done = lay_out();
        if let Err(error) = &done
            && !matches!(error, Error::Canceled)
        {
            file.fail(shared, error);
        }
        file.release(shared);
        match done {
            Err(Error::Canceled) => Err(Error::Canceled),
            _ => Ok(()),
        }
    }

    /// Passes on what there is.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.small = None;
        let area = std::mem::take(&mut self.area);
        if area.is_empty() { Ok(()) } else { (self.pass_on)(area) }
    }
}
