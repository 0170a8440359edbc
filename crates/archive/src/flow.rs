//! Content in order: chunks are fetched in windows by several threads while the window before is
//! being written.
//!
//! One thread says what is to come (items, and the content that belongs to them) and fetches; the
//! caller's thread takes it in that very order. Two windows exist at most, so memory is bounded
//! whatever the size and number of files; small files share windows.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use strongroom_engine::Error as PoolError;
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{Extent, MapReader, MapRef};

use crate::scan::passing;
use crate::store::Source;
use crate::{Error, Result};

/// How many bytes a window holds.
const WINDOW: usize = 16 << 20;
/// How many parts a window has at most.
const PARTS: usize = 8192;
/// Zeroes to write from.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What comes, in order.
enum Part<T> {
    Item(T),
    /// A place in the window.
    Bytes(Range<usize>),
    Zeros(u64),
    Lost(u64, String),
}

struct Window<T> {
    parts: Vec<Part<T>>,
    bytes: Vec<u8>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { parts: Vec::new(), bytes: Vec::new() }
    }
}

/// Takes what comes.
pub(crate) trait Taker<T> {
    /// The next item; the content that belongs to it follows.
    fn item(&mut self, item: T) -> Result<()>;
    /// Content.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()>;
    /// So many bytes of content can't be read, for this reason.
    fn lost(&mut self, len: u64, why: &str) -> Result<()>;

    /// Content that is zero.
    fn zeros(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            let part = len.min(ZEROS.len() as u64);
            self.bytes(&ZEROS[..part as usize])?;
            len -= part;
        }
        Ok(())
    }
}

/// What a window needs: where a part of a chunk goes is told by its place in the list.
struct Want {
    part: usize,
    from: usize,
    len: usize,
    chunk: usize,
}

/// Says what is to come.
pub(crate) struct Giver<'s, T> {
    source: &'s dyn Source,
    window: Window<T>,
    /// Bytes of the window that are taken.
    full: usize,
    /// Bytes that items hold, about.
    held: usize,
    wanted: Vec<ChunkId>,
    wants: Vec<Want>,
    out: SyncSender<Window<T>>,
    spare: Receiver<Window<T>>,
}

impl<T> Giver<'_, T> {
    /// An item that holds about so many bytes itself.
    pub(crate) fn item(&mut self, item: T, weight: usize) -> Result<()> {
        self.room(0)?;
        self.held += weight;
        self.window.parts.push(Part::Item(item));
        Ok(())
    }

    /// Content from one offset to another.
    pub(crate) fn content(&mut self, map: &MapRef, offset: u64, end: u64) -> Result<()> {
        let mut at = offset;
        let mut reader = MapReader::new(self.source, map, offset);
        while at < end {
            let stop = match reader.next() {
                None => {
                    self.lost(end - at, "the list of its chunks is too short".into())?;
                    end
                }
                Some(Err(error)) => {
                    let error = passing(error)?;
                    let stop = reader.position().min(end).max(at);
                    self.lost(stop - at, error.to_string())?;
                    stop
                }
                Some(Ok((start, extent))) => {
                    let stop = start.saturating_add(extent.len()).min(end).max(at);
                    match extent {
                        _ if stop == at => {}
                        Extent::Hole { .. } => self.zeros(stop - at)?,
                        Extent::Data { id, len } => {
                            // Both are within one extent, which is at most 8 MiB long.
                            let (from, part) = ((at - start) as usize, (stop - at) as usize);
                            self.data(id, from, part, len as usize)?;
                        }
                    }
                    stop
                }
            };
            at = stop;
        }
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> Result<()> {
        self.room(0)?;
        self.window.parts.push(Part::Zeros(len));
        Ok(())
    }

    fn lost(&mut self, len: u64, why: String) -> Result<()> {
        if len > 0 {
            self.room(0)?;
            self.held += why.len();
            self.window.parts.push(Part::Lost(len, why));
        }
        Ok(())
    }

    fn data(&mut self, id: ChunkId, from: usize, len: usize, chunk: usize) -> Result<()> {
        self.room(len)?;
        self.wants.push(Want { part: self.window.parts.len(), from, len, chunk });
        self.wanted.push(id);
        self.window.parts.push(Part::Bytes(self.full..self.full + len));
        self.full += len;
        Ok(())
    }

    /// Makes room for that many bytes and one part.
    fn room(&mut self, len: usize) -> Result<()> {
        let parts = self.window.parts.len();
        if parts > 0 && (parts >= PARTS || self.full + self.held + len > WINDOW) {
            self.flush()?;
        }
        Ok(())
    }

    /// Fetches what the window wants and passes it on.
    fn flush(&mut self) -> Result<()> {
        let mut window = std::mem::take(&mut self.window);
        if window.bytes.len() < self.full {
            window.bytes.resize(self.full, 0);
        }
        let mut slots = Vec::with_capacity(self.wants.len());
        let mut rest = &mut window.bytes[..];
        for want in &self.wants {
            let (slot, behind) = rest.split_at_mut(want.len);
            slots.push(Mutex::new(slot));
            rest = behind;
        }
        let lost = Mutex::new(Vec::new());
        let lose = |i: usize, why: String| {
            lost.lock().unwrap_or_else(PoisonError::into_inner).push((i, why));
        };
        let canceled = Mutex::new(None);
        let sink = |i: usize, bytes: &[u8]| {
            let want = &self.wants[i];
            if bytes.len() == want.chunk {
                let mut slot = slots[i].lock().unwrap_or_else(PoisonError::into_inner);
                slot.copy_from_slice(&bytes[want.from..want.from + want.len]);
            } else {
                lose(i, format!("a chunk has {} bytes, not {}", bytes.len(), want.chunk));
            }
            Ok(())
        };
        let failed = |i: usize, error: PoolError| {
            if error.ends_all() {
                *canceled.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            } else {
                lose(i, error.to_string());
            }
        };
        self.source.fetch(&self.wanted, &sink, &failed)?;
        if let Some(error) = canceled.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.into());
        }
        drop(slots);
        for (i, why) in lost.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let want = &self.wants[i];
            window.parts[want.part] = Part::Lost(want.len as u64, why);
        }
        self.wants.clear();
        self.wanted.clear();
        (self.full, self.held) = (0, 0);
        // Who takes has gone when it failed; its error is the one that counts.
        let gone = || Error::Pool(PoolError::Canceled);
        self.out.send(window).map_err(|_| gone())?;
        self.window = self.spare.recv().map_err(|_| gone())?;
        Ok(())
    }
}

/// Runs `give` on a thread of its own and hands what it gives to `take`.
///
/// # Errors
/// Those of `take`, which end all; then those of `give`.
pub(crate) fn run<'s, T: Send>(
    source: &'s dyn Source,
    give: impl FnOnce(&mut Giver<'s, T>) -> Result<()> + Send,
    take: &mut dyn Taker<T>,
) -> Result<()> {
    let (out, windows) = sync_channel::<Window<T>>(1);
    let (back, spare) = sync_channel(2);
    std::thread::scope(|scope| {
        let giving = scope.spawn(move || {
            let mut giver = Giver {
                source,
                window: Window::default(),
                full: 0,
                held: 0,
                wanted: Vec::new(),
                wants: Vec::new(),
                out,
                spare,
            };
            give(&mut giver)?;
            if giver.window.parts.is_empty() { Ok(()) } else { giver.flush() }
        });
        // The second window: one is filled while the other is taken. Who gives may have gone
        // already, when there was nothing (more) to give.
        let _ = back.send(Window::default());
        let mut taken = Ok(());
        for mut window in &windows {
            taken = hand_out(&mut window, take);
            if taken.is_err() {
                break;
            }
            let _ = back.send(window);
        }
        drop((windows, back));
        let given = giving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(given)
    })
}

fn hand_out<T>(window: &mut Window<T>, take: &mut dyn Taker<T>) -> Result<()> {
    for part in window.parts.drain(..) {
        match part {
            Part::Item(item) => take.item(item),
            Part::Bytes(range) => take.bytes(&window.bytes[range]),
            Part::Zeros(len) => take.zeros(len),
            Part::Lost(len, why) => take.lost(len, &why),
        }?;
    }
    Ok(())
}
