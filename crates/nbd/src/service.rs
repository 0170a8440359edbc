//! Requests are done here: a device on one side, replies on the other (`doc/proto.md`, "Simple reply
//! message" and "Structured reply types").

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use strongroom_block::{BlockDevice, Content, Durability, Extent};

use crate::buffers::{Buffer, Buffers};
use crate::negotiation::cut;
use crate::protocol::{
    ALLOCATION_ID, MAX_PAYLOAD, SIMPLE_REPLY, STRUCTURED_REPLY, chunk, error, state,
};
use crate::request::{Command, Header, Refusal, Terms};

/// Bytes of a simple reply, and of what stands before a structured one's payload.
const SIMPLE: usize = 16;
const STRUCTURED: usize = 20;
/// Bytes before the data in a chunk of data, and of a chunk that is a hole.
const DATA: usize = STRUCTURED + 8;
const HOLE: usize = STRUCTURED + 12;
/// Reads of so many bytes are looked through for holes.
const HOLES_FROM: u32 = 64 << 10;
/// Reads that are not looked through, at most, before one is again: as often as none had holes, twice as
/// many. Not every device finds it easy to tell.
const MAX_SKIPPED: u32 = 256;
/// Extents of one read; what comes after the last is read as it is.
const MAX_HOLES: usize = 32;
/// Extents of one answer of `NBD_CMD_BLOCK_STATUS`.
const MAX_EXTENTS: usize = 4096;
/// Bytes of an error's words.
const MAX_WORDS: usize = 512;
/// Bytes that are read at once for `NBD_CMD_CACHE`.
const CACHED: u64 = 1 << 20;

/// Serves one device on agreed terms.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) terms: Terms,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) holes: Holes,
}

/// Which reads are looked through for holes.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    /// How many are not, after one that had none.
    skipped: AtomicU32,
    /// How many of these are left.
    left: AtomicU32,
}

impl Holes {
    fn is_worth_a_look(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        left == 0
    }

    fn note(&self, found: bool) {
        let skipped = self.skipped.load(Ordering::Relaxed);
        let skipped = if found { 0 } else { (skipped * 2).clamp(1, MAX_SKIPPED) };
        self.skipped.store(skipped, Ordering::Relaxed);
        self.left.store(skipped, Ordering::Relaxed);
    }
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Reply {
    buffer: Buffer,
    length: usize,
}

impl Reply {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Bytes of its buffer.
    pub(crate) fn room(&self) -> usize {
        self.buffer.len()
    }
}

/// Writes one thing after the other into a buffer that has room for all.
struct Filling {
    buffer: Buffer,
    at: usize,
}

impl Filling {
    fn put(&mut self, bytes: &[u8]) {
        self.next(bytes.len()).copy_from_slice(bytes);
    }

    /// The next bytes, to be filled.
    fn next(&mut self, length: usize) -> &mut [u8] {
        let from = self.at;
        self.at += length;
        self.buffer.get_mut(from..from + length).expect("the buffer was made for all of it")
    }

    fn chunk(&mut self, cookie: u64, done: bool, kind: u16, length: usize) {
        self.put(&STRUCTURED_REPLY.to_be_bytes());
        self.put(&(if done { chunk::DONE } else { 0 }).to_be_bytes());
        self.put(&kind.to_be_bytes());
        self.put(&cookie.to_be_bytes());
        // Bounded by the largest payload and eight bytes.
        self.put(&(length as u32).to_be_bytes());
    }

    fn simple(&mut self, cookie: u64, number: u32) {
        self.put(&SIMPLE_REPLY.to_be_bytes());
        self.put(&number.to_be_bytes());
        self.put(&cookie.to_be_bytes());
    }

    fn reply(self) -> Reply {
        Reply { buffer: self.buffer, length: self.at }
    }
}

impl Service {
    /// Does what is asked, and says how it went.
    pub(crate) fn answer(&self, header: &Header, payload: &[u8]) -> Reply {
        self.perform(header, payload).unwrap_or_else(|refusal| self.refuse(header, &refusal))
    }

    fn perform(&self, header: &Header, payload: &[u8]) -> Result<Reply, Refusal> {
        let command = header.command(self.terms, &self.device.geometry())?;
        let (offset, length) = (header.offset, u64::from(header.length));
        let failed = |error: strongroom_block::Error| Refusal::of_device(&error);
        match command {
            Command::Read { whole } => return self.read(header, whole),
            Command::Status { one } => return self.status(header, one),
            Command::Write(durability) => {
                self.device.write_at(offset, payload, durability).map_err(failed)?;
            }
            Command::Flush => self.device.flush().map_err(failed)?,
            Command::Trim(durability) => {
                self.device.discard(offset, length).map_err(failed)?;
                if durability == Durability::Now {
                    self.device.flush().map_err(failed)?;
                }
            }
            Command::Zero(zeroing, durability) => {
                self.device.write_zeroes(offset, length, zeroing, durability).map_err(failed)?;
            }
            Command::Cache => self.cache(offset, length)?,
        }
        let mut reply = self.small();
        reply.simple(header.cookie, 0);
        Ok(reply.reply())
    }

    fn read(&self, header: &Header, whole: bool) -> Result<Reply, Refusal> {
        let length = header.length as usize;
        let failed = |error: strongroom_block::Error| Refusal::of_device(&error);
        if !self.terms.structured {
            let mut reply = self.room(SIMPLE + length)?;
            reply.simple(header.cookie, 0);
            self.device.read_at(header.offset, reply.next(length)).map_err(failed)?;
            return Ok(reply.reply());
        }
        if length == 0 {
            let mut reply = self.small();
            reply.chunk(header.cookie, true, chunk::NONE, 0);
            return Ok(reply.reply());
        }
        let may_have_holes = !whole && header.length >= HOLES_FROM && self.device.geometry().thin;
        let runs = match may_have_holes && self.holes.is_worth_a_look() {
            true => self.runs(header),
            false => vec![(header.offset, length, false)],
        };
        let room = |(_, length, is_hole): &(u64, usize, bool)| match is_hole {
            true => HOLE,
            false => DATA + length,
        };
        let mut reply = self.room(runs.iter().map(room).sum())?;
        let last = runs.len() - 1;
        for (n, &(offset, length, is_hole)) in runs.iter().enumerate() {
            // Nothing is sent before all of it is read, so that no chunk is followed by an error.
            let done = n == last;
            if is_hole {
                reply.chunk(header.cookie, done, chunk::OFFSET_HOLE, HOLE - STRUCTURED);
                reply.put(&offset.to_be_bytes());
                reply.put(&(length as u32).to_be_bytes());
            } else {
                reply.chunk(header.cookie, done, chunk::OFFSET_DATA, 8 + length);
                reply.put(&offset.to_be_bytes());
                self.device.read_at(offset, reply.next(length)).map_err(failed)?;
            }
        }
        Ok(reply.reply())
    }

    /// What is read: offset, length, and whether it is a hole. At least one, and the whole range.
    fn runs(&self, header: &Header) -> Vec<(u64, usize, bool)> {
        let extents = self.extents(header, MAX_HOLES).unwrap_or_default();
        let mut runs: Vec<(u64, usize, bool)> = Vec::new();
        let (mut at, end) = (header.offset, header.offset + u64::from(header.length));
        let rest = Extent { offset: at, length: u64::MAX, content: Content::Data };
        for extent in extents.iter().chain([&rest]) {
            // It fits: the range does.
            let length = extent.length.min(end - at) as usize;
            let is_hole = extent.content != Content::Data;
            match runs.last_mut() {
                _ if length == 0 => continue,
                Some((_, before, was_hole)) if *was_hole == is_hole => *before += length,
                _ => runs.push((at, length, is_hole)),
            }
            at += length as u64;
        }
        self.holes.note(runs.iter().any(|run| run.2));
        runs
    }

    fn extents(&self, header: &Header, most: usize) -> Result<Vec<Extent>, Refusal> {
        let extents = self.device.extents(header.offset, u64::from(header.length), most);
        extents.map_err(|error| Refusal::of_device(&error))
    }

    fn status(&self, header: &Header, one: bool) -> Result<Reply, Refusal> {
        if header.length == 0 {
            let why = "there is nothing to be told of 0 bytes".to_owned();
            return Err(Refusal { number: error::EINVAL, why, offset: None });
        }
        let most = if one { 1 } else { MAX_EXTENTS };
        let extents = self.extents(header, most)?;
        let mut left = header.length;
        let mut told: Vec<(u32, u32)> = Vec::with_capacity(extents.len().min(MAX_EXTENTS));
        for extent in extents {
            let length = u32::try_from(extent.length).unwrap_or(u32::MAX).min(left);
            let flags = match extent.content {
                Content::Data => 0,
                Content::Hole => state::HOLE | state::ZERO,
                Content::Zeroes => state::ZERO,
            };
            let is_full = told.len() == most;
            match told.last_mut() {
                _ if length == 0 => break,
                Some((before, as_before)) if *as_before == flags => *before += length,
                _ if is_full => break,
                _ => told.push((length, flags)),
            }
            left -= length;
        }
        if told.is_empty() {
            told.push((header.length, 0));
        }
        let payload = 4 + told.len() * 8;
        let mut reply = self.room(STRUCTURED + payload)?;
        reply.chunk(header.cookie, true, chunk::BLOCK_STATUS, payload);
        reply.put(&ALLOCATION_ID.to_be_bytes());
        for (length, flags) in told {
            reply.put(&length.to_be_bytes());
            reply.put(&flags.to_be_bytes());
        }
        Ok(reply.reply())
    }

    /// Reads, so that what keeps the device has it near; of what is asked for as much as one read may
    /// be, since nothing hangs on it.
    fn cache(&self, offset: u64, length: u64) -> Result<(), Refusal> {
        let mut left = length.min(u64::from(MAX_PAYLOAD));
        let mut at = offset;
        let mut piece = self.room(CACHED.min(left) as usize)?;
        while left > 0 {
            let now = left.min(CACHED);
            piece.at = 0;
            let read = self.device.read_at(at, piece.next(now as usize));
            read.map_err(|error| Refusal::of_device(&error))?;
            (at, left) = (at + now, left - now);
        }
        Ok(())
    }

    /// Says no.
    pub(crate) fn refuse(&self, header: &Header, refusal: &Refusal) -> Reply {
        let mut reply = self.small();
        if !self.terms.structured {
            reply.simple(header.cookie, refusal.number);
            return reply.reply();
        }
        let words = cut(&refusal.why);
        let mut end = words.len().min(MAX_WORDS);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        let words = words.as_bytes().get(..end).unwrap_or_default();
        let range = header.offset..header.offset.saturating_add(u64::from(header.length));
        let offset = refusal.offset.filter(|offset| header.reads() && range.contains(offset));
        let (kind, length) = match offset {
            Some(_) => (chunk::ERROR_OFFSET, 6 + words.len() + 8),
            None => (chunk::ERROR, 6 + words.len()),
        };
        reply.chunk(header.cookie, true, kind, length);
        reply.put(&refusal.number.to_be_bytes());
        reply.put(&(words.len() as u16).to_be_bytes());
        reply.put(words);
        if let Some(offset) = offset {
            reply.put(&offset.to_be_bytes());
        }
        reply.reply()
    }

    fn small(&self) -> Filling {
        Filling { buffer: self.buffers.small(), at: 0 }
    }

    fn room(&self, length: usize) -> Result<Filling, Refusal> {
        let Some(buffer) = self.buffers.take(length, true) else {
            let why = "too many large requests are under way".to_owned();
            return Err(Refusal { number: error::ENOMEM, why, offset: None });
        };
        Ok(Filling { buffer, at: 0 })
    }
}
