//! Making pools, and opening them.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};

use crate::chunker;
use crate::clock::{Clock, ClockMark};
use crate::disk::{Caching, Disk, DiskLock, is_dead, patiently, read_file};
use crate::error::{Error, Result};
use crate::id::{DiskId, PoolId};
use crate::index::{self, Index};
use crate::journal::{self, Journal, Settings};
use crate::keys::{Keyring, Protection, Secret, Stretch};
use crate::pool::core::{Core, Parts};
use crate::pool::nodes::Nodes;
use crate::pool::read::{Reading, unknown_key};
use crate::pool::writer::Writer;
use crate::pool::{HOLDER, Pool, READERS_LOCK, WRITER_LOCK};
use crate::seal::Aead;
use crate::shard;
use crate::state::State;
use crate::superblock::Superblock;

/// The longest text that tells who holds the writer's lock.
const MAX_HOLDER: u64 = 4096;
/// How often, and how long, a reader tries to get past a collector that is removing files.
const READER_TRIES: u32 = 600;
const READER_WAIT: std::time::Duration = std::time::Duration::from_millis(50);

/// What an open pool may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading, beside other readers and one writer. Nothing on the disks is changed.
    Read,
    /// Reading and writing, as the only writer.
    Write,
}

/// How a process uses a pool.
#[derive(Clone, Debug)]
pub struct Use {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Worker threads; 0 does everything in the caller's thread and in one order, for simulations.
    pub threads: usize,
    /// Who this is, for others that find the pool in use: host, process, command, since when.
    pub holder: String,
}

/// How to make a pool.
#[derive(Clone, Debug)]
pub struct CreateOptions<'a> {
    /// Its disks, in the order of the layout: data and parity shards together.
    pub disks: Vec<Arc<dyn Disk>>,
    /// How many disks' loss it survives; all but one is a mirror.
    pub parity: u8,
    /// The first secret of an encrypted pool, and how it is stretched.
    pub secret: Option<(&'a Secret, Stretch)>,
    /// How streams and images are cut.
    pub chunking: chunker::Params,
    /// The zstd level, 1 to 19.
    pub level: i32,
    /// A pack of data is closed once it has this many bytes.
    pub pack_size: u32,
}

/// How to open a pool.
#[derive(Clone, Debug)]
pub struct OpenOptions<'a> {
    /// The disks that may belong to it, in any order; `None` for one that is known to be missing.
    pub disks: Vec<Option<Arc<dyn Disk>>>,
    /// What for.
    pub mode: OpenMode,
    /// The secret, for an encrypted pool.
    pub secret: Option<&'a Secret>,
    /// Open with an empty index, whatever is on the disks: for [`Pool::rebuild_index`] alone.
    pub without_index: bool,
}

/// The disks of a pool as they were found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) superblock: Superblock,
    /// In the order of the layout.
    pub(crate) disks: Vec<Option<Arc<dyn Disk>>>,
    /// Disks whose superblock is out of date or damaged.
    pub(crate) outdated: Vec<usize>,
    /// Disks that are there, and may be of the pool, but whose superblock can't be read.
    pub(crate) unread: Vec<String>,
    pub(crate) notices: Vec<String>,
}

impl Pool {
    /// Makes a pool on empty disks.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a layout that doesn't fit the disks, or disks that have a pool;
    /// those of the disks.
    pub fn create(options: CreateOptions<'_>, used: Use) -> Result<Self> {
        let CreateOptions { disks, parity, secret, chunking, level, pack_size } = options;
        let total = u8::try_from(disks.len()).unwrap_or(u8::MAX);
        let Some(data) = total.checked_sub(parity).filter(|data| *data > 0) else {
            return Err(Error::Invalid(format!(
                "a pool on {total} disks can't survive the loss of {parity}: give more disks"
            )));
        };
        shard::Shape::new(data, parity)?;
        for disk in &disks {
            if Superblock::exists(&**disk) {
                return Err(Error::Invalid(format!(
                    "{} is part of a pool already",
                    disk.describe()
                )));
            }
        }
        let mut locks = Vec::new();
        for disk in &disks {
            locks.push(lock_to_write(&**disk, &used.holder)?);
        }
        let pool = PoolId::random();
        let aead = if secret.is_some() { Aead::Aes256Gcm } else { Aead::None };
        let keyring = Keyring::generate(aead);
        let protection = match &secret {
            None => Protection::Clear(keyring.clone()),
            Some((secret, stretch)) => Protection::seal(&keyring, pool, secret, "first", *stretch)?,
        };
        let members: Vec<DiskId> = disks.iter().map(|_| DiskId::random()).collect();
        let superblock = Superblock::new(
            pool,
            used.clock.wall(),
            members,
            (data, parity),
            chunking,
            level,
            pack_size,
            protection,
        )?;
        for disk in &disks {
            make_room(&**disk)?;
        }
        let all: Vec<_> = disks.iter().cloned().map(Some).collect();
        let state = State::new(ClockMark::now(None, &*used.clock).0);
        let places: Vec<_> = places(&all).into_iter().flatten().collect();
        Journal::create(&places, settings(&superblock, &keyring, &used), &state)?;
        // The superblocks come last: before them there is no pool.
        for (place, disk) in disks.iter().enumerate() {
            superblock.for_disk(place).write(&**disk)?;
        }
        drop(locks);
        let secret = secret.map(|(secret, _)| secret);
        let options =
            OpenOptions { disks: all, mode: OpenMode::Write, secret, without_index: false };
        Self::open(options, used)
    }

    /// Opens a pool. Opening it to write first puts right what a crash or an absent disk left:
    /// superblocks, journals and segments are copied where they are behind, whole packs of a
    /// session that did not end are taken in, left-overs are removed.
    ///
    /// # Errors
    /// [`Error::NotAPool`], [`Error::InUse`], [`Error::SecretNeeded`], [`Error::WrongSecret`],
    /// [`Error::TooFewDisks`] (to write), [`Error::Diverged`], [`Error::Damaged`],
    /// [`Error::Unsupported`].
    pub fn open(options: OpenOptions<'_>, used: Use) -> Result<Self> {
        let OpenOptions { disks, mode, secret, without_index } = options;
        let writes = mode == OpenMode::Write;
        let Locked { locks, disks, dead, unread: unlocked } = lock_all(&disks, mode, &used.holder)?;
        let found = find(&disks)?;
        let Found { superblock, disks, outdated, mut unread, notices } = found;
        unread.extend(unlocked);
        let tolerated = usize::from(superblock.parity_shards);
        let missing = disks.iter().filter(|disk| disk.is_none()).count();
        if writes && missing > tolerated {
            return Err(Error::TooFewDisks { missing, total: disks.len(), tolerated });
        }
        // So many may have been written without the others.
        if writes && missing >= usize::from(superblock.data_shards) {
            refuse_unread(&unread, "what was committed last may be there alone")?;
        }
        let unlocked = superblock.protection.unlock(superblock.pool, secret)?;
        let settings = settings(&superblock, &unlocked.keyring, &used);
        if writes && missing > 0 {
            // Before anything is changed: not even a journal file is begun.
            let (_, state, _) = Journal::open(&places(&disks), settings.clone(), false)?;
            refuse_unknown_keys(&state, &unlocked.keyring)?;
        }
        if writes {
            for disk in disks.iter().flatten().filter(|disk| !has_room(&***disk)) {
                make_room(&**disk)?;
            }
            for place in outdated {
                if let Some(disk) = &disks[place] {
                    make_room(&**disk)?;
                    superblock.for_disk(place).write(&**disk)?;
                }
            }
        }
        let mut tried = None;
        let (journal, mut state, report, index) = loop {
            let (journal, state, report) =
                Journal::open(&places(&disks), settings.clone(), writes)?;
            let options = index::Options { with_filters: writes, ..index::Options::default() };
            let none = BTreeMap::new();
            let segments = if without_index { &none } else { &state.segments };
            match Index::open(&disks, segments, superblock.pool, options) {
                Ok(index) => break (journal, state, report, index),
                // A writer may have merged segments, and removed them, since the journal was read.
                Err(_) if !writes && tried.as_ref() != Some(&state.segments) => {
                    tried = Some(state.segments);
                }
                Err(e) => return Err(e),
            }
        };
        let stale: Vec<usize> = report.stale.iter().map(|stale| stale.disk).collect();
        // From here on the time since this boot counts, whatever becomes of the wall clock.
        let clock_warning;
        (state.clock, clock_warning) = ClockMark::now(Some(&state.clock), &*used.clock);
        let parts = Parts {
            superblock,
            keyring: unlocked.keyring,
            master: unlocked.opened,
            disks,
            index,
            clock: used.clock,
            state,
            journal: writes.then_some(journal),
        };
        let core = Arc::new(Core::new(parts)?);
        dead.into_iter().chain(notices).for_each(|text| core.notice(text));
        report.stale.iter().for_each(|stale| {
            core.notice(format!("a copy of the journal on disk {} {}", stale.disk, stale.why));
        });
        if !report.hidden.is_empty() {
            let hidden = report.hidden.join("; ");
            core.notice(format!(
                "the newest images may be missing from what is shown, for the journal can't be read \
                 where they may be alone ({hidden}): try again"
            ));
        }
        clock_warning.into_iter().for_each(|warning| core.notice(warning.to_string()));
        let inline = used.threads == 0;
        let pool = Self {
            writer: writes.then(|| Writer::start(Arc::clone(&core), inline)),
            reading: Reading::new(core.level),
            core,
            nodes: Nodes::default(),
            benches: Mutex::default(),
            leases: Mutex::new(HashMap::new()),
            flushing: AtomicBool::new(false),
            upkeep: Mutex::default(),
            upkeep_ended: Condvar::new(),
            threads: used.threads,
            holder: used.holder,
            _locks: locks,
        };
        if writes {
            pool.recover(&stale)?;
        }
        Ok(pool)
    }
}

/// Fails when the pool has packs whose key isn't there: the superblock with it is on a disk that is
/// away, and what is written without it might begin the same epoch with another key.
pub(crate) fn refuse_unknown_keys(state: &State, keyring: &Keyring) -> Result<()> {
    let known: Vec<u32> = keyring.epochs().collect();
    let unknown = state.packs.values().find(|pack| pack.epoch != 0 && !known.contains(&pack.epoch));
    unknown.map_or(Ok(()), |pack| Err(unknown_key("the pool can't be written", pack.epoch)))
}

/// Fails when there are disks whose superblock can't be read.
pub(crate) fn refuse_unread(unread: &[String], because: &str) -> Result<()> {
    let Some(first) = unread.first() else { return Ok(()) };
    let what = format!(
        "a disk is there that can't be read, and {because}: try again; if it stays so run `strongroom \
         pool repair`, and if that doesn't help take the disk away"
    );
    Err(Error::io(what, std::io::Error::other(first.clone())))
}

/// The directories of a new disk.
pub(crate) fn make_room(disk: &dyn Disk) -> Result<()> {
    let make = || {
        shard::create_directories(disk)?;
        for dir in [index::DIR, JOURNALS[0], JOURNALS[1]] {
            disk.make_dir(dir)?;
        }
        disk.sync_dir("")
    };
    make().map_err(|e| Error::io(format!("preparing {}", disk.describe()), e))
}

/// Whether a disk has all its directories: whoever copied it may have left out empty ones.
fn has_room(disk: &dyn Disk) -> bool {
    let dirs = |dir| {
        let found = disk.list(dir).unwrap_or_default();
        found.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect::<Vec<_>>()
    };
    let top = dirs("");
    let own = [index::DIR, JOURNALS[0], JOURNALS[1]];
    own.iter().all(|dir| top.iter().any(|name| name == dir)) && dirs(shard::TOP).len() == 256
}

/// The directories of the journal; the second is used in a pool of one disk.
const JOURNALS: [&str; 2] = ["journal", "journal.2"];

/// Where the copies of the journal lie.
pub(crate) fn places(disks: &[Option<Arc<dyn Disk>>]) -> Vec<Option<journal::Place>> {
    let place = |disk: usize, dir: &str| {
        let handle = disks[disk].clone()?;
        Some(journal::Place { disk, handle, dir: dir.to_owned() })
    };
    match disks.len() {
        1 => JOURNALS.iter().map(|dir| place(0, dir)).collect(),
        _ => (0..disks.len()).map(|disk| place(disk, JOURNALS[0])).collect(),
    }
}

pub(crate) fn settings(superblock: &Superblock, keyring: &Keyring, used: &Use) -> Settings {
    Settings {
        pool: superblock.pool,
        sealing: keyring.journal(),
        need: usize::from(superblock.data_shards),
        inline: used.threads == 0,
    }
}

/// Finds which disks belong together, and the newest of their superblocks.
pub(crate) fn find(disks: &[Option<Arc<dyn Disk>>]) -> Result<Found> {
    let mut notices = Vec::new();
    let candidates: Vec<Arc<dyn Disk>> = disks.iter().flatten().cloned().collect();
    let read: Vec<Result<Superblock>> =
        candidates.iter().map(|disk| Superblock::read(&**disk)).collect();
    let newest = Superblock::newest(&read)?.clone();
    let mut members: Vec<Option<Arc<dyn Disk>>> = newest.disks.iter().map(|_| None).collect();
    let (mut outdated, mut unread) = (Vec::new(), Vec::new());
    for (disk, superblock) in candidates.into_iter().zip(read) {
        let name = disk.describe();
        let superblock = match superblock {
            Ok(superblock) => superblock,
            Err(e) => {
                notices.push(format!("{name} is not used: {e}"));
                if let Error::Io { .. } = e {
                    unread.push(e.to_string());
                }
                continue;
            }
        };
        let place = newest.disks.iter().position(|id| *id == superblock.disk);
        match place {
            Some(place) if superblock.pool == newest.pool => {
                if superblock.generation < newest.generation {
                    outdated.push(place);
                }
                if members[place].replace(disk).is_some() {
                    return Err(Error::Invalid(format!("disk {place} of the pool is given twice")));
                }
            }
            _ if superblock.pool == newest.pool => {
                notices.push(format!("{name} was replaced and is not used"));
            }
            _ => notices.push(format!("{name} belongs to another pool and is not used")),
        }
    }
    let missing = members.iter().enumerate().filter(|(_, disk)| disk.is_none());
    let missing: Vec<String> =
        missing.map(|(place, _)| format!("disk {place} is missing")).collect();
    // So many can be written without the others, which can't know of it.
    let could_be_ahead = missing.len() >= usize::from(newest.data_shards);
    notices.extend(missing);
    if could_be_ahead {
        notices.push(
            "if what is missing was written while the rest was away, the newest images are only \
             there: then connect it before anything is written"
                .into(),
        );
    }
    Ok(Found { superblock: newest, disks: members, outdated, unread, notices })
}

/// Disks that are locked.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) locks: Vec<Box<dyn DiskLock>>,
    /// Those that were given, without those that don't answer.
    pub(crate) disks: Vec<Option<Arc<dyn Disk>>>,
    /// What is to be said of those.
    pub(crate) dead: Vec<String>,
    /// What is to be said of those of them that can't be locked and yet are there.
    pub(crate) unread: Vec<String>,
}

/// Locks every disk that is there and answers.
pub(crate) fn lock_all(
    disks: &[Option<Arc<dyn Disk>>],
    mode: OpenMode,
    holder: &str,
) -> Result<Locked> {
    let mut locked =
        Locked { locks: Vec::new(), disks: disks.to_vec(), dead: Vec::new(), unread: Vec::new() };
    let mut last = None;
    for place in &mut locked.disks {
        let Some(disk) = place else { continue };
        let lock = match mode {
            OpenMode::Write => lock_to_write(&**disk, holder).map(Some),
            OpenMode::Read => lock_to_read(&**disk),
        };
        match lock {
            Ok(lock) => locked.locks.extend(lock),
            Err(Error::Io { what, source }) if is_dead(&source) => {
                locked.dead.push(format!("{} is not used: {source}", disk.describe()));
                // One that gives nothing at all is as good as missing.
                if Superblock::read(&**disk).is_ok() || patiently(|| disk.list("")).is_ok() {
                    locked.unread.push(format!("{}: {source}", disk.describe()));
                }
                last = Some(Error::Io { what, source });
                *place = None;
            }
            Err(e) => return Err(e),
        }
    }
    match last {
        Some(e) if locked.disks.iter().all(Option::is_none) => Err(e),
        _ => Ok(locked),
    }
}

fn lock_to_write(disk: &dyn Disk, holder: &str) -> Result<Box<dyn DiskLock>> {
    match patiently(|| disk.lock(WRITER_LOCK, true)) {
        Ok(lock) => {
            // Only for the message that others get; without it theirs is shorter.
            let _ = note_holder(disk, holder);
            // So that readers find it even when the disk is full.
            let _ = disk.lock(READERS_LOCK, false);
            Ok(lock)
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => {
            let holder = read_file(disk, HOLDER, MAX_HOLDER).unwrap_or_default();
            let holder = String::from_utf8_lossy(&holder).into_owned();
            let holder =
                if holder.is_empty() { "another process writes it".into() } else { holder };
            Err(Error::InUse { holder })
        }
        Err(e) => Err(Error::io(format!("locking {}", disk.describe()), e)),
    }
}

/// Says who holds the lock. What a power cut leaves of it is nobody's any more: it need not be
/// durable, nor whole.
fn note_holder(disk: &dyn Disk, holder: &str) -> std::io::Result<()> {
    let file = match disk.open(HOLDER, Caching::Cached, true) {
        Err(e) if e.kind() == ErrorKind::NotFound => disk.create(HOLDER, Caching::Cached)?,
        other => other?,
    };
    file.write_all_at(holder.as_bytes(), 0)?;
    file.set_len(holder.len() as u64)
}

/// Keeps collectors of other processes from removing files. On a disk that can't be written there
/// is no collector.
fn lock_to_read(disk: &dyn Disk) -> Result<Option<Box<dyn DiskLock>>> {
    for _ in 0..READER_TRIES {
        match patiently(|| disk.lock(READERS_LOCK, false)) {
            Ok(lock) => return Ok(Some(lock)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(READER_WAIT),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(Error::io(format!("locking {}", disk.describe()), e)),
        }
    }
    Err(Error::InUse { holder: "a collection is removing files".into() })
}
