//! Writing the journal.

use std::io;

use super::lineage::Lineage;
use super::load::{Stale, Trouble, base_of, load};
use super::record::{BLOCK, Chain, FileHeader, Kind, MAX_PAYLOAD, RecordHeader, Salt};
use super::sealing::FileKey;
use super::{Place, Settings};
use crate::codec::Writer;
use crate::disk::{Caching, DiskFile};
use crate::error::{Error, Result};
use crate::state::{Op, State};

/// The size of a snapshot record beyond which the next one is begun, in bytes. One
/// op may be longer.
const SNAPSHOT_RECORD: usize = 1 << 20;
/// The least number of bytes after the snapshot that make a new file worth while.
const ROTATE_AFTER: u64 = 1 << 20;
/// How often a reader looks again when a writer gets in its way.
const ATTEMPTS: usize = 16;

/// A copy that failed, and gets no more commits until the journal is opened again.
#[derive(Debug)]
pub struct Lost {
    /// The disk it lies on.
    pub disk: usize,
    /// Its directory.
    pub dir: String,
    /// What the disk said.
    pub why: io::Error,
}

/// A confirmed commit.
#[derive(Debug)]
pub struct Commit {
    /// The generation that it made.
    pub generation: u64,
    /// Copies that failed with this commit.
    pub lost: Vec<Lost>,
}

/// What was found when the journal was opened.
#[derive(Debug)]
pub struct LoadReport {
    /// The generation that was loaded.
    pub generation: u64,
    /// Copies that were not as they should be. When the journal was opened to write, all but those
    /// in `lost` have been written anew.
    pub stale: Vec<Stale>,
    /// Copies that could not be written anew.
    pub lost: Vec<Lost>,
    /// Copies that are there, and can't be read: what was committed last may be in them alone, so
    /// that what was loaded may be older. None when the journal was opened to write.
    pub hidden: Vec<String>,
}

/// A copy that is written to.
#[derive(Debug)]
struct Copy {
    place: Place,
    file: Option<Box<dyn DiskFile>>,
}

/// The file that is written to.
#[derive(Debug)]
struct Pen {
    key: FileKey,
    salt: Salt,
    chain: Chain,
    number: u32,
    end: u64,
}

impl Pen {
    /// Makes the next record: where it goes, and its bytes.
    fn record(
        &mut self,
        kind: Kind,
        generation: u64,
        mut payload: Vec<u8>,
    ) -> Result<(u64, Vec<u8>)> {
        let too_long = || Error::Invalid(format!("a commit of more than {MAX_PAYLOAD} bytes"));
        if payload.len() > MAX_PAYLOAD {
            return Err(too_long());
        }
        let len = u32::try_from(payload.len() + self.key.overhead()).map_err(|_| too_long())?;
        let header = RecordHeader { kind, len, number: self.number, generation, salt: self.salt };
        self.key.seal(&header, self.chain, &mut payload)?;
        self.chain = header.chain(self.chain, &payload);
        let bytes = header.encode(self.chain, &payload, self.end);
        let at = self.end;
        self.end += bytes.len() as u64;
        // Rotation comes long before there are 2^32 records of a block each.
        self.number += 1;
        Ok((at, bytes))
    }
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    settings: Settings,
    /// The copies that are written to; none when the journal was opened to read.
    copies: Vec<Copy>,
    lineage: Lineage,
    generation: u64,
    chain: Chain,
    pen: Option<Pen>,
    snapshot_end: u64,
    writable: bool,
    stopped: Option<String>,
}

impl Journal {
    /// Begins the journal of a new pool, whose generation 1 is `state`. Journal files that are
    /// found in the places are removed.
    ///
    /// # Errors
    /// [`Error::Stopped`] when fewer than `need` copies could be made, [`Error::Io`] when an old
    /// file can't be removed.
    pub fn create(places: &[Place], settings: Settings, state: &State) -> Result<Self> {
        for place in places {
            remove_files(place, |_| true).map_err(|why| Error::io(place.describe(), why))?;
        }
        let mut journal = Self::at(settings, Lineage::default(), 1, Chain([0; 16]));
        journal.write_to(places.iter().cloned());
        let lost = journal.begin_file(state)?;
        match lost.into_iter().next() {
            None => Ok(journal),
            Some(lost) => Err(Error::io(format!("creating {}", lost.dir), lost.why)),
        }
    }

    /// Reads the journal; see the module's text for how copies are judged. `places` has an entry
    /// for every copy that the pool should have; those on disks that are not there are `None`.
    ///
    /// With `for_write`, all copies are then written anew from the state that was found; the
    /// caller must be the only one who does so.
    ///
    /// # Errors
    /// [`Error::Diverged`] when copies contradict each other, [`Error::Damaged`] when what was
    /// committed can't be read from any copy, [`Error::Unsupported`] for a newer format,
    /// [`Error::TooFewDisks`] when fewer than `need` copies are readable and `for_write` is set,
    /// [`Error::Io`] when so many can't be read then that they may hide a commit,
    /// [`Error::Stopped`] when fewer than `need` could be written.
    pub fn open(
        places: &[Option<Place>],
        settings: Settings,
        for_write: bool,
    ) -> Result<(Self, State, LoadReport)> {
        let mut attempt = 0;
        let loaded = loop {
            attempt += 1;
            match load(places, &settings) {
                Ok(loaded) => break loaded,
                Err(Trouble::Raced(_)) if attempt < ATTEMPTS => {}
                Err(Trouble::Raced(why)) => return Err(Error::io("reading the journal", why)),
                // Copies are read one after the other; a writer may have been at work in between.
                Err(Trouble::Failed(Error::Damaged { .. } | Error::Diverged { .. }))
                    if !for_write && attempt < 3 => {}
                Err(Trouble::Failed(why)) => return Err(why),
            }
        };
        let (history, stale) = (loaded.history, loaded.stale);
        let state = history.state;
        let generation = history.tip;
        let name = |place: usize| places[place].as_ref().map_or_else(String::new, Place::describe);
        let hidden = loaded.hidden.iter().map(|(place, why)| format!("{}: {why}", name(*place)));
        let mut report =
            LoadReport { generation, stale, lost: Vec::new(), hidden: hidden.collect() };
        let need = settings.need;
        let mut journal = Self::at(settings, history.lineage, generation, history.chain);
        if for_write {
            if loaded.readable < need {
                return Err(Error::TooFewDisks {
                    missing: places.len() - loaded.readable,
                    total: places.len(),
                    tolerated: places.len().saturating_sub(need),
                });
            }
            // What it may have would be written over.
            if let Some((place, why)) = loaded.hidden.first() {
                let of = |place: &Option<Place>| place.as_ref().map(|place| place.disk);
                let way_out = match places.iter().all(|place| of(place) == of(&places[0])) {
                    true => {
                        "move it elsewhere, and the other copy on this disk is used: what only it \
                         had is then not in the pool"
                    }
                    false => {
                        "take that disk away; then `pool disk-replace` can put another in its place"
                    }
                };
                let what = format!(
                    "{} can't be read, and what was committed last may be there alone, where it would \
                     be written over: try again, and if it stays so {way_out}",
                    name(*place)
                );
                return Err(Error::io(what, io::Error::other(why.clone())));
            }
            journal.write_to(places.iter().flatten().cloned());
            report.lost = journal.begin_file(&state)?;
        }
        Ok((journal, state, report))
    }

    fn at(settings: Settings, lineage: Lineage, generation: u64, chain: Chain) -> Self {
        Self {
            settings,
            copies: Vec::new(),
            lineage,
            generation,
            chain,
            pen: None,
            snapshot_end: 0,
            writable: false,
            stopped: None,
        }
    }

    fn write_to(&mut self, places: impl Iterator<Item = Place>) {
        self.copies = places.map(|place| Copy { place, file: None }).collect();
        self.writable = true;
    }

    /// The generation of the last confirmed commit.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The disks with a copy that gets commits; a disk with two copies is there twice.
    pub fn live_disks(&self) -> impl Iterator<Item = usize> {
        self.copies.iter().map(|copy| copy.place.disk)
    }

    /// Why the journal takes no more commits, if it doesn't.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    fn check_writable(&self) -> Result<()> {
        if let Some(why) = &self.stopped {
            return Err(Error::Stopped { why: why.clone() });
        }
        if !self.writable {
            return Err(Error::ReadOnly { why: "its journal was opened to read".into() });
        }
        Ok(())
    }

    /// Drops the copies that failed; stops when too few are left.
    fn settle(&mut self, what: &str, results: Vec<io::Result<()>>) -> Result<Vec<Lost>> {
        let mut lost = Vec::new();
        let mut results = results.into_iter();
        let copies = std::mem::take(&mut self.copies);
        for copy in copies {
            match results.next().unwrap_or(Ok(())) {
                Ok(()) => self.copies.push(copy),
                Err(why) => {
                    lost.push(Lost { disk: copy.place.disk, dir: copy.place.dir, why });
                }
            }
        }
        if self.copies.len() < self.settings.need.max(1) {
            let why = match lost.first() {
                Some(lost) => format!("{what} on disk {}: {}", lost.disk, lost.why),
                None => format!("{what}: no disk is there"),
            };
            self.stopped = Some(why.clone());
            return Err(Error::Stopped { why });
        }
        Ok(lost)
    }

    /// Does something for all copies, at the same time unless told otherwise.
    fn on_all(&self, work: impl Fn(&Copy) -> io::Result<()> + Sync) -> Vec<io::Result<()>> {
        if self.settings.inline || self.copies.len() < 2 {
            return self.copies.iter().map(work).collect();
        }
        let work = &work;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.copies.iter().map(|copy| scope.spawn(move || work(copy))).collect();
            let gone = || Err(io::Error::other("the thread that wrote it ended early"));
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| gone())).collect()
        })
    }

    /// Makes the ops the next generation of the pool, durably. The caller applies them to the
    /// state when this has returned.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they take more than 16 MiB (nothing is changed then);
    /// [`Error::Stopped`] when fewer than `need` copies have it durably, now or before: it
    /// may or may not be there when the journal is opened again, and this one takes no more.
    pub fn commit(&mut self, ops: &[Op]) -> Result<Commit> {
        self.check_writable()?;
        let mut w = Writer::new();
        ops.iter().for_each(|op| op.encode(&mut w));
        let generation = self
            .generation
            .checked_add(1)
            .ok_or_else(|| Error::Invalid("the pool has no generations left".into()))?;
        let pen = self.pen.as_mut().expect("a writable journal has a file");
        let (at, bytes) = pen.record(Kind::Commit, generation, w.finish())?;
        let chain = pen.chain;
        let results = self.on_all(|copy| {
            let file = copy.file.as_ref().expect("a writable journal has a file");
            file.write_all_at(&bytes, at)?;
            file.sync()
        });
        let lost = self.settle("writing the journal", results)?;
        (self.generation, self.chain) = (generation, chain);
        Ok(Commit { generation, lost })
    }

    /// Whether so much came after the snapshot that [`Journal::rotate`] is worth its while.
    pub fn wants_rotation(&self) -> bool {
        self.pen.as_ref().is_some_and(|pen| {
            pen.end - self.snapshot_end > ROTATE_AFTER.max(2 * self.snapshot_end)
        })
    }

    /// Begins a new file with a snapshot of `state`, which must be that of the last commit, and
    /// removes the old one. Says which copies failed.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub fn rotate(&mut self, state: &State) -> Result<Vec<Lost>> {
        self.check_writable()?;
        self.begin_file(state)
    }

    /// Takes places into use, as for a disk that was replaced: begins a new file in them and in all
    /// other copies. One that is in use already is taken anew. Says which copies failed.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub fn admit(&mut self, places: &[Place], state: &State) -> Result<Vec<Lost>> {
        self.check_writable()?;
        self.copies.retain(|copy| !places.iter().any(|place| place.is(&copy.place)));
        self.copies.extend(places.iter().cloned().map(|place| Copy { place, file: None }));
        self.begin_file(state)
    }

    /// Stops using a disk. What it has stays there, as a copy that is behind.
    ///
    /// # Errors
    /// [`Error::Stopped`] when fewer than `need` copies are left.
    pub fn dismiss(&mut self, disk: usize) -> Result<()> {
        self.check_writable()?;
        self.copies.retain(|copy| copy.place.disk != disk);
        self.settle("writing the journal", Vec::new()).map(drop)
    }

    fn begin_file(&mut self, state: &State) -> Result<Vec<Lost>> {
        let base = self.generation;
        let mut salt = Salt::default();
        getrandom::fill(&mut salt)
            .map_err(|why| Error::io("getting random bytes", io::Error::other(why)))?;
        let header = FileHeader {
            sealing: self.settings.sealing.algorithm(),
            pool: self.settings.pool,
            base,
            salt,
            before: self.chain,
        };
        let key = self.settings.sealing.file_key(&salt);
        let mut pen = Pen { key, salt, chain: header.chain(), number: 0, end: BLOCK as u64 };
        let lineage = self.lineage.continued(base, salt);

        let mut draft = Draft { files: Vec::new() };
        draft.files = self.copies.iter().map(|copy| create_new(&copy.place, base)).collect();
        let mut first = header.encode().to_vec();
        first.resize(BLOCK, 0);
        draft.write(0, &first);
        let mut w = Writer::new();
        lineage.encode(&mut w);
        draft.append(&mut pen, Kind::Lineage, base, w)?;
        let mut w = Writer::new();
        for op in state.snapshot() {
            let mut one = Writer::new();
            op.encode(&mut one);
            if !w.is_empty() && w.len() + one.len() > SNAPSHOT_RECORD {
                draft.append(&mut pen, Kind::Snapshot, base, std::mem::take(&mut w))?;
            }
            w.raw(&one.finish());
        }
        draft.append(&mut pen, Kind::SnapshotEnd, base, w)?;

        let mut results = Vec::new();
        for (copy, file) in self.copies.iter_mut().zip(draft.files) {
            copy.file = None;
            results.push(file.map(|file| copy.file = Some(file)));
        }
        // Those that failed so far are left out of what follows.
        let finished = self.on_all(|copy| match &copy.file {
            Some(file) => finish_new(&copy.place, base, &**file),
            None => Ok(()),
        });
        let results = results.into_iter().zip(finished).map(|(drafted, done)| drafted.and(done));
        let lost = self.settle("writing a new journal file", results.collect())?;
        (self.chain, self.lineage, self.snapshot_end) = (pen.chain, lineage, pen.end);
        self.pen = Some(pen);
        // What can't be removed now is removed next time, and does no harm.
        self.on_all(|copy| remove_files(&copy.place, |name| base_of(name) != Some(base)));
        Ok(lost)
    }
}

/// A new file while it is written to all copies.
struct Draft {
    files: Vec<io::Result<Box<dyn DiskFile>>>,
}

impl Draft {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        for slot in &mut self.files {
            if let Ok(file) = slot
                && let Err(why) = file.write_all_at(bytes, at)
            {
                *slot = Err(why);
            }
        }
    }

    fn append(&mut self, pen: &mut Pen, kind: Kind, base: u64, w: Writer) -> Result<()> {
        let (at, bytes) = pen.record(kind, base, w.finish())?;
        self.write(at, &bytes);
        Ok(())
    }
}

/// Creates the unfinished file, and the copy's directory when there is none.
fn create_new(place: &Place, base: u64) -> io::Result<Box<dyn DiskFile>> {
    let disk = &place.handle;
    if let Err(why) = disk.list(&place.dir) {
        if why.kind() != io::ErrorKind::NotFound {
            return Err(why);
        }
        disk.make_dir(&place.dir)?;
        disk.sync_dir(place.dir.rsplit_once('/').map_or("", |(parent, _)| parent))?;
    }
    let path = place.path(base) + ".new";
    match disk.remove(&path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => disk.create(&path, Caching::Cached),
    }
}

/// Makes the finished file the copy's newest.
fn finish_new(place: &Place, base: u64, file: &dyn DiskFile) -> io::Result<()> {
    file.sync()?;
    let path = place.path(base);
    place.handle.rename(&(path.clone() + ".new"), &path)?;
    place.handle.sync_dir(&place.dir)
}

/// Removes the journal files, finished or not, that `which` picks by name.
fn remove_files(place: &Place, which: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match place.handle.list(&place.dir) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry.name.strip_suffix(".new").unwrap_or(&entry.name);
        if base_of(name).is_some() && which(&entry.name) {
            match place.handle.remove(&format!("{}/{}", place.dir, entry.name)) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                _ => {}
            }
        }
    }
    Ok(())
}
