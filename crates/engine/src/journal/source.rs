//! One journal file of one copy, as it is read.

use std::io;

use super::record::{BLOCK, Chain, FILE_HEADER, FileHeader, HeaderFault, RECORD_HEADER};
use super::record::{RecordHeader, Salt, span};
use crate::disk::{Caching, Disk, DiskFile};
use crate::error::{Error, Result};

/// How much is read at once, in bytes.
const WINDOW: usize = 1 << 20;
/// How far after a damaged record others are looked for, in bytes: many times the longest record,
/// and yet an end to the work that a forged file length can make.
const SCAN_LIMIT: u64 = 1 << 30;

/// How many reads of a file may fail before it is left alone.
const PATIENCE: u32 = 16;

/// A file that is read from front to back, a window at a time.
#[derive(Debug)]
pub(super) struct Source {
    /// The place it lies in, as an index into the caller's list.
    pub(super) place: usize,
    /// The generation in its name.
    pub(super) base: u64,
    /// Its header, when that is whole and agrees with the name.
    pub(super) header: Option<FileHeader>,
    /// Why reading failed, once it has.
    pub(super) failed: Option<String>,
    failures: u32,
    file: Box<dyn DiskFile>,
    len: u64,
    start: u64,
    window: Vec<u8>,
}

impl Source {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// The disk's, when it can't be opened; [`Error::Unsupported`] inside when it is of a version
    /// that isn't known.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &str,
        place: usize,
        base: u64,
    ) -> io::Result<Result<Self>> {
        let file = disk.open(path, Caching::Cached, false)?;
        let len = file.len()?;
        let mut source = Self {
            place,
            base,
            header: None,
            failed: None,
            failures: 0,
            file,
            len,
            start: 0,
            window: Vec::new(),
        };
        if let Some(bytes) = source.get(0, FILE_HEADER) {
            let bytes: [u8; FILE_HEADER] = bytes.try_into().expect("as many as were asked for");
            match FileHeader::decode(&bytes) {
                Ok(header) if header.base == base => source.header = Some(header),
                Ok(_) | Err(HeaderFault::Damaged) => {}
                Err(HeaderFault::Version(version)) => {
                    let feature = format!("journal version {version}");
                    return Ok(Err(Error::Unsupported { feature }));
                }
                Err(HeaderFault::Hash(hash)) => {
                    let feature = format!("journal checksum algorithm {hash}");
                    return Ok(Err(Error::Unsupported { feature }));
                }
            }
        }
        Ok(Ok(source))
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// `n` bytes from `at`; none when the file ends before or can't be read there.
    fn get(&mut self, at: u64, n: usize) -> Option<&[u8]> {
        let end = at.checked_add(n as u64).filter(|end| *end <= self.len)?;
        if at < self.start || end > self.start + self.window.len() as u64 {
            let more = (self.len - at).min(WINDOW as u64) as usize;
            // One bad sector must not take the readable ones around it along.
            if self.failures >= PATIENCE {
                return None;
            }
            if let Err(why) = self.fill(at, more.max(n)).or_else(|_| self.fill(at, n)) {
                self.failures += 1;
                self.failed.get_or_insert(why.to_string());
                return None;
            }
        }
        let from = (at - self.start) as usize;
        Some(&self.window[from..from + n])
    }

    fn fill(&mut self, at: u64, n: usize) -> io::Result<()> {
        let mut window = std::mem::take(&mut self.window);
        window.resize(n, 0);
        self.file.read_exact_at(&mut window, at)?;
        (self.window, self.start) = (window, at);
        Ok(())
    }

    /// The record at `offset` of the file with this salt, if the chain goes on with it: its
    /// header, the chain value after it, and its stored payload.
    pub(super) fn record(
        &mut self,
        offset: u64,
        salt: &Salt,
        before: Chain,
    ) -> Option<(RecordHeader, Chain, &[u8])> {
        let (header, claimed) = self.record_header(offset)?;
        if header.salt != *salt {
            return None;
        }
        let stored = self.get(offset + RECORD_HEADER as u64, header.len as usize)?;
        let chain = header.chain(before, stored);
        (chain == claimed).then_some((header, chain, stored))
    }

    fn record_header(&mut self, offset: u64) -> Option<(RecordHeader, Chain)> {
        let bytes = self.get(offset, RECORD_HEADER)?;
        RecordHeader::decode(bytes.try_into().expect("as many as were asked for"), offset)
    }

    /// Whether the bytes after `used` ones at `offset`, to the end of their block or of the file,
    /// are zero, as they were written.
    pub(super) fn padding_is_clean(&mut self, offset: u64, used: usize) -> bool {
        let from = offset + used as u64;
        let to = from.next_multiple_of(BLOCK as u64).min(self.len);
        let n = to.saturating_sub(from) as usize;
        self.get(from, n).is_some_and(|bytes| bytes.iter().all(|b| *b == 0))
    }

    /// The highest generation of which the file holds a record header at or after `offset`,
    /// whether the record is whole or not. With no salt given, that of any file will do.
    pub(super) fn highest_after(&mut self, offset: u64, salt: Option<&Salt>) -> Option<u64> {
        let end = self.len.min(offset.saturating_add(SCAN_LIMIT));
        let mut highest = None;
        let mut at = offset;
        while at < end {
            let header = self.record_header(at).map(|(header, _)| header);
            match header.filter(|header| salt.is_none_or(|salt| *salt == header.salt)) {
                // A forged length can only skip what a forged file would not hold anyway; the step
                // is at least a block.
                Some(header) => {
                    highest = highest.max(Some(header.generation));
                    at += span(header.len as usize) as u64;
                }
                None => at += BLOCK as u64,
            }
        }
        highest
    }
}
