//! Where everything of the files goes: each gets its windows, and windows are gathered in areas.
//!
//! Areas with pieces of large files are kept back for a while: when a later file repeats what such
//! a piece has, it needs no place of its own. It is written from the same window, if it lies on the
//! page as the first does, as copies of a disk or of a file in it do. Only whole pages are written
//! so; the edges of what is repeated are read again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use strongroom_engine::buf::PAGE;
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{Extent, MapReader};
use strongroom_engine::{Error, Result};

use super::Shared;
use super::area::{Area, Place, WINDOW};
use super::file::OutFile;
use crate::entry::Body;
use crate::folder::Folder;

/// Files up to this size share windows, in bytes.
const SMALL: u64 = 512 << 10;
/// How many chunks, and pieces that are repeated, areas that are kept back may have. That is a few
/// GiB of files, and takes some 80 bytes for each.
const MAX_PLANNED: usize = 112 << 10;
/// How many large files; each is open, twice.
const MAX_LARGE: usize = 32;
/// What is repeated is written with the first as soon as it is this long, in chunks.
const MAX_REPEAT: usize = 512;
/// Shorter pieces than this are not worth a write of their own, in bytes.
const MIN_REPEAT: u64 = 64 << 10;

/// Where something lies in a large file: the file's number in the plan, and the offset.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Spot {
    file: usize,
    offset: u64,
}

/// Areas that are kept back.
#[derive(Default)]
struct Plan {
    areas: Vec<Area>,
    /// Where each chunk of a large file is wanted first.
    first: HashMap<ChunkId, Spot>,
    /// For each large file, the areas and windows of its pieces of [`WINDOW`] bytes: number of the
    /// piece, area, window. Ascending.
    pieces: Vec<Vec<(u64, usize, usize)>>,
    /// Chunks and pieces that are repeated, so far.
    load: usize,
}

/// Chunks one after the other of a file that come in the same order earlier in the plan.
struct Repeat {
    spot: Spot,
    offset: u64,
    len: u64,
    chunks: Vec<(ChunkId, u32)>,
}

/// A large file that is being laid out.
struct Sheet<'f> {
    file: &'f Arc<OutFile>,
    /// Its number in the plan.
    number: usize,
    /// The piece that comes now, and its window.
    current: Option<(u64, usize)>,
    repeat: Option<Repeat>,
}

/// Lays files out in areas and passes full areas on.
pub(super) struct Layout<'s, F: FnMut(Area) -> Result<()>> {
    shared: &'s Shared<'s>,
    area: Area,
    /// The window that small files go to, and how far it is full.
    small: Option<(usize, usize)>,
    plan: Plan,
    pass_on: F,
}

impl<'s, F: FnMut(Area) -> Result<()>> Layout<'s, F> {
    pub(super) fn new(shared: &'s Shared<'s>, pass_on: F) -> Self {
        Self { shared, area: Area::default(), small: None, plan: Plan::default(), pass_on }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, folder: &Arc<Folder>, file: &Arc<OutFile>) -> Result<()> {
        let Body::File(map) = &file.entry.body else { return Ok(()) };
        let large = map.len() > SMALL;
        if self.area.is_full() {
            self.end_area()?;
        }
        if large && self.plan.pieces.len() >= MAX_LARGE {
            self.flush()?;
        }
        self.area.begin_file(folder);
        let done = if large { self.add_large(file) } else { self.add_small(folder, file) };
        if let Err(error) = done {
            if error.ends_all() {
                return Err(error);
            }
            // Its list of chunks can't be read.
            file.fail(self.shared, error);
        }
        Ok(())
    }

    fn add_small(&mut self, folder: &Arc<Folder>, file: &Arc<OutFile>) -> Result<()> {
        let Body::File(map) = &file.entry.body else { return Ok(()) };
        let len = map.len() as usize;
        let (window, base) = match self.small {
            Some((window, full)) if full + len <= WINDOW => (window, full),
            _ => {
                if self.area.is_full() {
                    self.end_area()?;
                    self.area.begin_file(folder);
                }
                (self.area.add_window(), 0)
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
                self.area.add_run(window, file, at, length, offset);
                self.area.add_place(id, Place::new(window, at, 0, length, len));
            }
        }
        self.area.add_file(window, file);
        Ok(())
    }

    fn add_large(&mut self, file: &Arc<OutFile>) -> Result<()> {
        let Body::File(map) = &file.entry.body else { return Ok(()) };
        let shared = self.shared;
        file.prepare(shared, map);
        self.plan.pieces.push(Vec::new());
        let number = self.plan.pieces.len() - 1;
        let mut sheet = Sheet { file, number, current: None, repeat: None };
        let mut lay_out = || -> Result<()> {
            for step in MapReader::new(shared.source, map, 0) {
                if shared.progress.is_canceled() {
                    return Err(Error::Canceled);
                }
                let (offset, extent) = step?;
                if let Extent::Data { id, len } = extent {
                    self.add_chunk(&mut sheet, id, len, offset)?;
                }
            }
            Ok(())
        };
        let done = lay_out();
        // What was found before the list could not be read any more is restored.
        let ended = self.end_repeat(&mut sheet);
        let done = done.and(ended);
        if let Err(error) = &done
            && !error.ends_all()
        {
            file.fail(shared, error);
        }
        file.release(shared);
        match done {
            Err(error) if error.ends_all() => Err(error),
            _ => Ok(()),
        }
    }

    fn add_chunk(&mut self, sheet: &mut Sheet<'_>, id: ChunkId, len: u32, at: u64) -> Result<()> {
        let Some(spot) = self.plan.first.get(&id).copied() else {
            self.end_repeat(sheet)?;
            self.add_part(sheet, id, len, at, 0..u64::from(len))?;
            // Unless its beginning was passed on.
            let begin = self.plan.pieces[sheet.number].first();
            if begin.is_some_and(|(piece, ..)| *piece <= at / WINDOW as u64) {
                self.plan.first.insert(id, Spot { file: sheet.number, offset: at });
            }
            return Ok(());
        };
        if !sheet.repeat.as_ref().is_some_and(|repeat| repeat.goes_on(spot, at)) {
            self.end_repeat(sheet)?;
        }
        // Ending the one before may have passed on where this one's first is.
        if !self.plan.first.contains_key(&id) {
            return self.add_chunk(sheet, id, len, at);
        }
        let new = || Repeat { spot, offset: at, len: 0, chunks: Vec::new() };
        let repeat = sheet.repeat.get_or_insert_with(new);
        repeat.len += u64::from(len);
        repeat.chunks.push((id, len));
        Ok(())
    }

    /// Adds bytes `part` of a chunk that begins at `start` in the file.
    fn add_part(
        &mut self,
        sheet: &mut Sheet<'_>,
        id: ChunkId,
        chunk: u32,
        start: u64,
        part: Range<u64>,
    ) -> Result<()> {
        let mut from = part.start;
        while from < part.end {
            let offset = start + from;
            let piece = offset / WINDOW as u64;
            let at = (offset % WINDOW as u64) as usize;
            let len = ((part.end - from) as usize).min(WINDOW - at);
            let window = match sheet.current {
                Some((number, window)) if number == piece => window,
                _ => {
                    if self.area.is_full() {
                        self.end_area()?;
                        if self.plan.pieces.is_empty() {
                            self.plan.pieces.push(Vec::new());
                            sheet.number = 0;
                        }
                    }
                    let window = self.area.add_window();
                    sheet.file.hold();
                    self.area.add_file(window, sheet.file);
                    self.plan.pieces[sheet.number].push((piece, self.plan.areas.len(), window));
                    sheet.current = Some((piece, window));
                    window
                }
            };
            self.area.add_run(window, sheet.file, at, len, offset);
            self.area.add_place(id, Place::new(window, at, from as usize, len, chunk));
            from += len as u64;
        }
        Ok(())
    }

    /// Lays out what is repeated: whole pages of it are written from where they are read first.
    fn end_repeat(&mut self, sheet: &mut Sheet<'_>) -> Result<()> {
        let Some(repeat) = sheet.repeat.take() else { return Ok(()) };
        let whole = repeat.whole_pages();
        if !whole.is_empty() {
            self.write_along(sheet.file, repeat.spot, repeat.offset, whole.clone());
        }
        let mut start = repeat.offset;
        for (id, len) in repeat.chunks {
            let end = start + u64::from(len);
            for part in [start..end.min(whole.start), start.max(whole.end)..end] {
                if part.start < part.end {
                    self.add_part(sheet, id, len, start, part.start - start..part.end - start)?;
                }
            }
            start = end;
        }
        Ok(())
    }

    /// Bytes `range` of a file are written from the windows of what lies at `spot`, which begins as
    /// `offset` in the file does.
    fn write_along(&mut self, file: &Arc<OutFile>, spot: Spot, offset: u64, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let source = spot.offset + (at - offset);
            let piece = source / WINDOW as u64;
            let within = (source % WINDOW as u64) as usize;
            let len = (WINDOW - within).min((range.end - at) as usize);
            let pieces = &self.plan.pieces[spot.file];
            let found = pieces.binary_search_by_key(&piece, |(number, ..)| *number);
            let (_, area, window) = pieces[found.expect("its chunks are in the plan")];
            let area = self.plan.areas.get_mut(area).unwrap_or(&mut self.area);
            file.hold();
            area.add_file(window, file);
            area.add_run(window, file, within, len, at);
            self.plan.load += 1;
            at += len as u64;
        }
    }

    /// Begins a new area. What is full goes to the plan, or on when it has small files.
    fn end_area(&mut self) -> Result<()> {
        if self.small.is_some() {
            return self.flush();
        }
        let mut area = std::mem::take(&mut self.area);
        area.close();
        self.plan.load += area.chunks();
        self.plan.areas.push(area);
        if self.plan.load >= MAX_PLANNED { self.flush() } else { Ok(()) }
    }

    /// Passes on what there is.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.small = None;
        let plan = std::mem::take(&mut self.plan);
        let mut last = std::mem::take(&mut self.area);
        last.close();
        for area in plan.areas.into_iter().chain([last]) {
            if !area.is_empty() {
                (self.pass_on)(area)?;
            }
        }
        Ok(())
    }
}

impl Repeat {
    /// Whether a chunk that is found at `spot` first, and comes at `offset` in the file, is more of
    /// it.
    fn goes_on(&self, spot: Spot, offset: u64) -> bool {
        self.chunks.len() < MAX_REPEAT
            && spot == Spot { offset: self.spot.offset + self.len, ..self.spot }
            && offset == self.offset + self.len
    }

    /// The pages of the file that are repeated from edge to edge, if that is worth a write.
    fn whole_pages(&self) -> Range<u64> {
        let page = PAGE as u64;
        let start = self.offset.next_multiple_of(page);
        let end = (self.offset + self.len) / page * page;
        let fits = self.offset % page == self.spot.offset % page;
        if fits && start + MIN_REPEAT <= end { start..end } else { self.offset..self.offset }
    }
}
