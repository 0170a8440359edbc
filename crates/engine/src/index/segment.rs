//! Reading a segment, from whichever disk has it whole.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::cache::PageCache;
use super::damage::{DamageLog, damaged, unreadable};
use super::filter::Filter;
use super::format::{
    BLOCK, BLOCKS_PER_PAGE, Binding, ENTRY, FENCES_PER_PAGE, Layout, PAGE, PER_PAGE, id_at,
    location, prefix, unknown_version,
};
use super::writer::{RUN, path};
use crate::disk::{Caching, Disk, DiskFile, patiently};
use crate::error::{Error, Result};
use crate::id::{ChunkId, Location, PoolId, SegmentId};
use crate::state::SegmentInfo;

/// One disk's copy.
#[derive(Debug)]
struct Copy {
    /// The disk's place among the pool's disks.
    index: usize,
    disk: Arc<dyn Disk>,
    /// Opened when first needed; nothing when it isn't there.
    file: OnceLock<Option<Box<dyn DiskFile>>>,
}

impl Copy {
    fn file(&self, path: &str) -> Result<&dyn DiskFile, Fault> {
        if self.file.get().is_none() {
            let opened = match self.disk.open(path, Caching::Cached, false) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Fault::Io(e)),
                opened => opened.ok(),
            };
            drop(self.file.set(opened));
        }
        self.file.get().and_then(Option::as_deref).ok_or(Fault::Missing)
    }
}

/// Why one copy could not give a page.
enum Fault {
    /// The disk said no.
    Io(io::Error),
    /// What it gave is not what was written.
    Bad(&'static str),
    /// The file is not there.
    Missing,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Bad(why) => f.write_str(why),
            Self::Missing => f.write_str("its file is missing"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => Self::Bad("its file is cut short"),
            _ => Self::Io(e),
        }
    }
}

/// An open segment. It never changes; its files may be removed while it is in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) layout: Layout,
    binding: Binding,
    copies: Vec<Copy>,
    /// The copy to read from first.
    preferred: AtomicUsize,
    fences: Vec<u64>,
    filter: Option<Filter>,
    damage: Arc<DamageLog>,
    /// Whether it is out of use, so that what is wrong with it no longer matters.
    pub(super) retired: AtomicBool,
}

impl Segment {
    /// Opens the segment that the pool's state describes so, reading its fences, and its filter
    /// when `with_filter` is set. What is wrong with copies goes to `damage`.
    pub(super) fn open(
        disks: &[Option<Arc<dyn Disk>>],
        pool: PoolId,
        id: SegmentId,
        info: &SegmentInfo,
        with_filter: bool,
        damage: &Arc<DamageLog>,
    ) -> Result<Self> {
        let layout = Layout::of(info.entries)
            .filter(|layout| layout.len() == info.len)
            .ok_or_else(|| damaged(id, "its recorded length does not fit its entries"))?;
        let copies = disks.iter().enumerate().filter_map(|(index, disk)| {
            let disk = Arc::clone(disk.as_ref()?);
            Some(Copy { index, disk, file: OnceLock::new() })
        });
        let mut segment = Self {
            id,
            layout,
            binding: Binding::new(pool, id),
            copies: copies.collect(),
            preferred: AtomicUsize::new(0),
            fences: Vec::new(),
            filter: None,
            damage: Arc::clone(damage),
            retired: AtomicBool::new(false),
        };
        segment.choose_copy(info.len)?;
        segment.check_header()?;
        let fences = segment.read_fences();
        let filter = if with_filter { segment.read_filter().map(Some) } else { Ok(None) };
        match (fences, filter) {
            (Ok(fences), Ok(filter)) => (segment.fences, segment.filter) = (fences, filter),
            // They follow from the entries.
            (Err(Error::Damaged { .. } | Error::Io { .. }), _)
            | (_, Err(Error::Damaged { .. } | Error::Io { .. })) => {
                segment.derive(with_filter)?;
            }
            (Err(e), _) | (_, Err(e)) => return Err(e),
        }
        Ok(segment)
    }

    /// Looks at every disk's copy and prefers the first that has the right length.
    fn choose_copy(&mut self, len: u64) -> Result<()> {
        let mut best: Option<(usize, bool)> = None;
        let mut failed = None;
        for (place, copy) in self.copies.iter().enumerate() {
            let open = || {
                let file = copy.disk.open(&path(self.id), Caching::Cached, false)?;
                Ok((file.len()?, file))
            };
            match patiently(open) {
                Ok((found, file)) => {
                    let right = found == len;
                    if !right {
                        self.report(copy, &format!("its file has {found} bytes instead of {len}"));
                    }
                    if best.is_none_or(|(_, best_right)| right && !best_right) {
                        best = Some((place, right));
                        drop(copy.file.set(Some(file)));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.report(copy, "its file is missing");
                    drop(copy.file.set(None));
                }
                Err(e) => {
                    self.report(copy, &format!("its file can't be opened: {e}"));
                    failed = Some(e);
                }
            }
        }
        let (place, _) = best.ok_or_else(|| match failed {
            Some(e) => unreadable(self.id, e),
            None => damaged(self.id, "no disk has its file"),
        })?;
        self.preferred = AtomicUsize::new(place);
        Ok(())
    }

    fn report(&self, copy: &Copy, why: &str) {
        if !self.retired.load(Ordering::Relaxed) {
            self.damage.add(self.id, copy.index, why);
        }
    }

    fn check_header(&self) -> Result<()> {
        let mut page = [0; PAGE];
        match self.read(0, &mut page) {
            // A header tells nothing that the state did not; damage to it is noted and survived.
            Err(Error::Damaged { .. } | Error::Io { .. }) => return Ok(()),
            read => read?,
        }
        if let Some(version) = unknown_version(&page) {
            let feature = format!("index segments of version {version}");
            return Err(Error::Unsupported { feature });
        }
        if page != self.binding.header(&self.layout) {
            return Err(damaged(self.id, "its header contradicts the state of the pool"));
        }
        Ok(())
    }

    fn read_fences(&self) -> Result<Vec<u64>> {
        let mut fences = Vec::with_capacity(self.layout.pages as usize);
        self.read_run(self.layout.fences_at(), self.layout.fence_pages, |_, page| {
            let left = (self.layout.pages as usize - fences.len()).min(FENCES_PER_PAGE);
            let numbers = page.chunks_exact(8).take(left);
            fences.extend(numbers.map(|n| u64::from_le_bytes(n.try_into().expect("eight bytes"))));
            Ok(())
        })?;
        if !fences.is_sorted() {
            return Err(damaged(self.id, "its fences are not in order"));
        }
        Ok(fences)
    }

    fn read_filter(&self) -> Result<Filter> {
        let mut filter = Filter::new(self.layout.blocks);
        self.read_run(self.layout.filter_at(), self.layout.filter_pages, |_, page| {
            filter.load(&page[..BLOCKS_PER_PAGE * BLOCK]);
            Ok(())
        })?;
        Ok(filter)
    }

    /// Makes fences and filter from the entries.
    fn derive(&mut self, with_filter: bool) -> Result<()> {
        let mut filter = with_filter.then(|| Filter::new(self.layout.blocks));
        let mut fences = Vec::with_capacity(self.layout.pages as usize);
        self.read_run(1, self.layout.pages, |n, page| {
            fences.push(prefix(id_at(page, 0)));
            for entry in 0..self.layout.entries_in(n - 1) {
                let hash = prefix(id_at(page, entry));
                filter.iter_mut().for_each(|filter| filter.insert(hash));
            }
            Ok(())
        })?;
        if !fences.is_sorted() {
            return Err(damaged(self.id, "its entries are not in order"));
        }
        (self.fences, self.filter) = (fences, filter);
        Ok(())
    }

    /// Reads many pages in a row through a bounded buffer.
    fn read_run(
        &self,
        first: u64,
        count: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buf = vec![0; count.min(RUN as u64) as usize * PAGE];
        let mut at = first;
        while at < first + count {
            let run = (first + count - at).min(RUN as u64);
            let buf = &mut buf[..run as usize * PAGE];
            self.read(at, buf)?;
            for (n, page) in (at..).zip(buf.chunks_exact(PAGE)) {
                each(n, page)?;
            }
            at += run;
        }
        Ok(())
    }

    /// Reads whole pages, from file page `first` on, and checks them.
    pub(super) fn read(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        match self.read_copy(&self.copies[preferred], first, buf) {
            Ok(()) => Ok(()),
            Err(_) => self.rescue(first, buf),
        }
    }

    fn read_copy(&self, copy: &Copy, first: u64, buf: &mut [u8]) -> Result<(), Fault> {
        copy.file(&path(self.id))?.read_exact_at(buf, first * PAGE as u64)?;
        let mut pages = (first..).zip(buf.chunks_exact(PAGE));
        if pages.all(|(n, page)| self.binding.holds(n, page)) {
            Ok(())
        } else {
            Err(Fault::Bad("a checksum does not match"))
        }
    }

    /// Reads page by page, each from any copy that has it.
    #[cold]
    fn rescue(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        for (n, page) in (first..).zip(buf.chunks_exact_mut(PAGE)) {
            let mut fault = Fault::Missing;
            let mut places = (preferred..self.copies.len()).chain(0..preferred);
            let good = places.find(|place| {
                let copy = &self.copies[*place];
                let Err(e) = self.read_copy(copy, n, page).or_else(|e| match e {
                    Fault::Io(_) => self.read_copy(copy, n, page),
                    e => Err(e),
                }) else {
                    return true;
                };
                self.report(copy, &format!("page {n}: {e}"));
                // One that can't be read may have it.
                if !matches!(fault, Fault::Io(_)) {
                    fault = e;
                }
                false
            });
            match (good, fault) {
                (Some(place), _) => self.preferred.store(place, Ordering::Relaxed),
                (None, Fault::Io(e)) => return Err(unreadable(self.id, e)),
                (None, e) => return Err(damaged(self.id, format_args!("page {n}: {e}"))),
            }
        }
        Ok(())
    }

    /// Reads every page of every copy, so that all damage becomes known. Gives the number of pages
    /// that were bad.
    pub(super) fn scrub(&self) -> u64 {
        let mut buf = vec![0; RUN * PAGE];
        let mut bad = 0;
        for copy in &self.copies {
            let file = || copy.file(&path(self.id));
            if let Err(e) = file().or_else(|_| file()) {
                self.report(copy, &format!("none of its pages: {e}"));
                bad += self.layout.all_pages();
                continue;
            }
            let mut at = 0;
            while at < self.layout.all_pages() {
                let run = (self.layout.all_pages() - at).min(RUN as u64);
                let whole = self.read_copy(copy, at, &mut buf[..run as usize * PAGE]);
                // Only to find out which pages of the run are bad.
                let single = if whole.is_err() { at..at + run } else { 0..0 };
                for n in single {
                    if let Err(e) = self.read_copy(copy, n, &mut buf[..PAGE]) {
                        self.report(copy, &format!("page {n}: {e}"));
                        bad += 1;
                    }
                }
                at += run;
            }
        }
        bad
    }

    /// Whether the id may be here; `false` is certain.
    #[inline]
    pub(super) fn may_contain(&self, id: &ChunkId) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(id.prefix()))
    }

    /// The entry pages (from 0) that may hold ids with this prefix.
    pub(super) fn pages_for(&self, prefix: u64) -> std::ops::Range<u64> {
        let start = lower_bound(&self.fences, prefix);
        let end = start + self.fences[start..].iter().take_while(|f| **f == prefix).count();
        start.saturating_sub(1) as u64..end as u64
    }

    /// Appends all locations of an id, by pack number rising.
    pub(super) fn find(
        &self,
        id: &ChunkId,
        cache: &PageCache,
        found: &mut Vec<Location>,
    ) -> Result<()> {
        for page in self.pages_for(id.prefix()) {
            let name = (self.id, page);
            let known = cache.look(name, |bytes| self.find_in(page, bytes, id, found));
            if let Some(result) = known {
                result?;
                continue;
            }
            let mut bytes = [0; PAGE];
            self.read(1 + page, &mut bytes)?;
            cache.keep(name, &bytes);
            self.find_in(page, &bytes, id, found)?;
        }
        Ok(())
    }

    /// Appends the locations of an id that one entry page has.
    pub(super) fn find_in(
        &self,
        page: u64,
        bytes: &[u8],
        id: &ChunkId,
        found: &mut Vec<Location>,
    ) -> Result<()> {
        let count = self.layout.entries_in(page);
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = (low + high) / 2;
            if *id_at(bytes, middle) < id.0 { low = middle + 1 } else { high = middle }
        }
        while low < count && *id_at(bytes, low) == id.0 {
            found.push(self.location(bytes, low)?);
            low += 1;
        }
        Ok(())
    }

    fn location(&self, page: &[u8], entry: usize) -> Result<Location> {
        location(&page[entry * ENTRY..][..ENTRY])
            .ok_or_else(|| damaged(self.id, "an entry has an unknown kind"))
    }
}

/// The first fence that is not below `prefix`. Fences are spread evenly, so a guess by proportion
/// lands near; from there the steps double until they enclose it.
fn lower_bound(fences: &[u64], prefix: u64) -> usize {
    let len = fences.len();
    let guess = ((u128::from(prefix) * len as u128) >> 64) as usize;
    let (mut low, mut high) = (guess, guess);
    let mut step = 4;
    while low > 0 && fences[low - 1] >= prefix {
        high = low;
        low = low.saturating_sub(step);
        step *= 2;
    }
    while high < len && fences[high] < prefix {
        low = high + 1;
        high = len.min(high + step);
        step *= 2;
    }
    low + fences[low..high].partition_point(|fence| *fence < prefix)
}

/// Reads a segment's entries in order.
#[derive(Debug)]
pub(super) struct Entries {
    segment: Arc<Segment>,
    buf: Vec<u8>,
    /// The first entry page in `buf`, and the one after its last.
    first: u64,
    end: u64,
    /// The next entry: its page and its number there.
    page: u64,
    entry: usize,
}

/// Pages read at once while walking.
const WALK: u64 = 32;

impl Entries {
    pub(super) fn new(segment: Arc<Segment>) -> Self {
        let buf = vec![0; WALK.min(segment.layout.pages) as usize * PAGE];
        Self { segment, buf, first: 0, end: 0, page: 0, entry: 0 }
    }

    /// The next entry, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<(ChunkId, Location)>> {
        let layout = self.segment.layout;
        if self.entry == layout.entries_in(self.page) {
            (self.page, self.entry) = (self.page + 1, 0);
        }
        if self.page >= layout.pages {
            return Ok(None);
        }
        if self.page >= self.end {
            let run = (layout.pages - self.page).min(WALK);
            self.segment.read(1 + self.page, &mut self.buf[..run as usize * PAGE])?;
            (self.first, self.end) = (self.page, self.page + run);
        }
        let page = &self.buf[(self.page - self.first) as usize * PAGE..][..PAGE];
        let id = ChunkId(*id_at(page, self.entry));
        let at = self.segment.location(page, self.entry)?;
        self.entry += 1;
        Ok(Some((id, at)))
    }
}

/// Looks up many ids in order, reading every page at most once.
#[derive(Debug)]
pub(super) struct Walk<'s> {
    segment: &'s Segment,
    buf: Vec<u8>,
    first: u64,
    end: u64,
}

impl<'s> Walk<'s> {
    /// For about so many ids, spread evenly: where most pages will be visited they are read in
    /// runs, else one by one.
    pub(super) fn new(segment: &'s Segment, ids: usize) -> Self {
        let dense = ids as u64 >= segment.layout.pages / 4;
        let run = if dense { WALK.min(segment.layout.pages) as usize } else { 1 };
        Self { segment, buf: vec![0; run * PAGE], first: 0, end: 0 }
    }

    /// Appends all locations of an id, by pack number rising.
    pub(super) fn find(&mut self, id: &ChunkId, found: &mut Vec<Location>) -> Result<()> {
        for page in self.segment.pages_for(id.prefix()) {
            if !(self.first..self.end).contains(&page) {
                let room = (self.buf.len() / PAGE) as u64;
                let run = (self.segment.layout.pages - page).min(room);
                self.end = 0;
                self.segment.read(1 + page, &mut self.buf[..run as usize * PAGE])?;
                (self.first, self.end) = (page, page + run);
            }
            let bytes = &self.buf[(page - self.first) as usize * PAGE..][..PAGE];
            self.segment.find_in(page, bytes, id, found)?;
        }
        Ok(())
    }
}

const _: () = assert!(PER_PAGE * ENTRY <= PAGE - 8);

#[cfg(test)]
mod tests {
    use super::lower_bound;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_guess_finds_what_a_plain_search_finds(
            mut fences in proptest::collection::vec(prop_oneof![any::<u64>(), 0u64..20], 0..200),
            sought in prop_oneof![any::<u64>(), 0u64..20],
        ) {
            fences.sort_unstable();
            let plain = fences.partition_point(|f| *f < sought);
            prop_assert_eq!(lower_bound(&fences, sought), plain);
            if let Some(some) = fences.get(plain) {
                prop_assert_eq!(lower_bound(&fences, *some), plain);
            }
        }
    }
}
