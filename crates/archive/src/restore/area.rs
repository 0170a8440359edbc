//! The assembly area: files are put together in memory, in whatever order the pool gives their
//! chunks, and each window is written once, when all of it is there, by threads that do nothing
//! else.
//!
//! An area is a bounded number of *windows* of one buffer each: either an aligned piece of a large
//! file, or many small files. All chunks of an area are asked for at once, so that the pool can
//! read its packs in order and open each frame once; a chunk that is wanted in several places is
//! asked for once. A window may be written to several files: what they have in common ([`Layout`]
//! finds it) is read once and written everywhere.
//!
//! [`Layout`]: super::layout::Layout

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_engine::buf::{BufPool, PooledBuf};
use strongroom_engine::id::ChunkId;
use strongroom_engine::{Error, Result};

use super::Shared;
use super::file::OutFile;
use crate::folder::Folder;

/// The size of a window, in bytes.
pub(super) const WINDOW: usize = 2 << 20;
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
pub(super) struct Place {
    pub(super) window: u32,
    pub(super) at: u32,
    /// Where the part begins in the chunk.
    pub(super) from: u32,
    pub(super) len: u32,
    /// How long the chunk is.
    pub(super) chunk: u32,
    /// The next place of the same chunk.
    next: Option<NonZeroU32>,
}

impl Place {
    pub(super) fn new(window: usize, at: usize, from: usize, len: usize, chunk: u32) -> Self {
        let [window, at, from, len] = [window, at, from, len].map(|n| n as u32);
        Self { window, at, from, len, chunk, next: None }
    }

    fn range(&self) -> Range<usize> {
        self.at as usize..(self.at + self.len) as usize
    }
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Area {
    windows: Vec<Window>,
    wanted: Vec<ChunkId>,
    /// For each wanted chunk, its first place, counted from 1.
    first: Vec<Option<NonZeroU32>>,
    places: Vec<Place>,
    /// While it is laid out.
    known: HashMap<ChunkId, usize>,
    files: usize,
    folders: usize,
    last_folder: Option<Arc<Folder>>,
}

impl Area {
    pub(super) fn is_full(&self) -> bool {
        self.windows.len() >= WINDOWS
            || self.wanted.len() >= MAX_CHUNKS
            || self.files >= MAX_FILES
            || self.folders >= MAX_FOLDERS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// How many chunks it wants.
    pub(super) fn chunks(&self) -> usize {
        self.wanted.len()
    }

    /// A file in this directory comes next.
    pub(super) fn begin_file(&mut self, folder: &Arc<Folder>) {
        self.files += 1;
        if !self.last_folder.as_ref().is_some_and(|last| Arc::ptr_eq(last, folder)) {
            self.folders += 1;
            self.last_folder = Some(Arc::clone(folder));
        }
    }

    /// One more window; its number.
    pub(super) fn add_window(&mut self) -> usize {
        self.windows.push(Window::default());
        self.windows.len() - 1
    }

    /// Once this window is written, a part of the file is done.
    pub(super) fn add_file(&mut self, window: usize, file: &Arc<OutFile>) {
        self.windows[window].files.push(Arc::clone(file));
    }

    /// Notes that bytes of a window go to a file, next to what is noted already where that fits.
    pub(super) fn add_run(
        &mut self,
        window: usize,
        file: &Arc<OutFile>,
        at: usize,
        len: usize,
        offset: u64,
    ) {
        let runs = &mut self.windows[window].runs;
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

    /// A part of this chunk is wanted there.
    pub(super) fn add_place(&mut self, id: ChunkId, mut place: Place) {
        // An area has few windows, and a chunk is longer than nothing: there are far fewer places.
        let number = NonZeroU32::new(self.places.len() as u32 + 1);
        match self.known.get(&id) {
            Some(wanted) => place.next = std::mem::replace(&mut self.first[*wanted], number),
            None => {
                self.known.insert(id, self.wanted.len());
                self.wanted.push(id);
                self.first.push(number);
            }
        }
        let filling = self.windows[place.window as usize].filling.get_mut();
        filling.unwrap_or_else(PoisonError::into_inner).left += place.len as usize;
        self.places.push(place);
    }

    /// Nothing more is added.
    pub(super) fn close(&mut self) {
        self.known = HashMap::new();
        self.last_folder = None;
    }

    /// Reads all chunks, and hands over each window when it is full.
    pub(super) fn run(
        self: &Arc<Self>,
        shared: &Shared<'_>,
        buffers: &BufPool,
        full: &SyncSender<Full>,
    ) -> Result<()> {
        let hand_over = |window: usize, filling: Filling| {
            let done = Full { area: Arc::clone(self), window, filling };
            // Writers are there for as long as anybody has this end of the channel.
            full.send(done).map_err(|_| Error::Canceled)
        };
        for (number, window) in self.windows.iter().enumerate() {
            let filling = window.filling.lock().unwrap_or_else(PoisonError::into_inner);
            let empty = filling.left == 0;
            drop(filling);
            if empty {
                hand_over(number, Filling::default())?;
            }
        }
        let place = |number: Option<NonZeroU32>| number.map(|n| self.places[n.get() as usize - 1]);
        let places = |i: usize| {
            let first = place(self.first.get(i).copied().flatten());
            std::iter::successors(first, |before| place(before.next))
        };
        let lose = |place: Place, why: &str| {
            let number = place.window as usize;
            match self.windows[number].lose(shared, place, why) {
                Some(filling) => hand_over(number, filling),
                None => Ok(()),
            }
        };
        let sink = |i: usize, bytes: &[u8]| {
            if shared.progress.is_canceled() {
                return Err(Error::Canceled);
            }
            for place in places(i) {
                let number = place.window as usize;
                if bytes.len() != place.chunk as usize {
                    let why = format!("a chunk has {} bytes, not {}", bytes.len(), place.chunk);
                    lose(place, &why)?;
                } else if let Some(filling) = self.windows[number].fill(buffers, place, bytes) {
                    hand_over(number, filling)?;
                }
            }
            Ok(())
        };
        let failed = |i: usize, error: Error| {
            let why = error.to_string();
            // Without writers there is nothing left to do.
            let _ = places(i).try_for_each(|place| lose(place, &why));
        };
        shared.source.fetch(&self.wanted, &sink, &failed)
    }
}

/// A window that has all it will get.
pub(super) struct Full {
    area: Arc<Area>,
    window: usize,
    filling: Filling,
}

impl Full {
    /// Writes it to its files.
    pub(super) fn write(&self, shared: &Shared<'_>) {
        self.area.windows[self.window].write(shared, &self.filling);
    }
}

impl Window {
    /// Puts a part of a chunk in its place. With the last one, gives what is to be written.
    fn fill(&self, buffers: &BufPool, place: Place, chunk: &[u8]) -> Option<Filling> {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        // There are buffers for all windows of the areas that are at work and one more, and the
        // others are being written: this never waits for itself.
        let buf = filling.buf.get_or_insert_with(|| buffers.take());
        let from = place.from as usize;
        buf[place.range()].copy_from_slice(&chunk[from..from + place.len as usize]);
        filling.left -= place.len as usize;
        (filling.left == 0).then(|| std::mem::take(&mut *filling))
    }

    /// A part of a chunk will not come. As [`Window::fill`].
    fn lose(&self, shared: &Shared<'_>, place: Place, why: &str) -> Option<Filling> {
        let lost = place.range();
        for run in &self.runs {
            let start = run.at.max(lost.start);
            let end = (run.at + run.len).min(lost.end);
            if start < end {
                let from = run.offset + (start - run.at) as u64;
                let to = from + (end - start) as u64;
                run.file.lose(shared, from, to, why);
            }
        }
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        filling.bad.push((lost.start, lost.len()));
        filling.left -= lost.len();
        (filling.left == 0).then(|| std::mem::take(&mut *filling))
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
