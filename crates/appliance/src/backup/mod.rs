//! A backup of the appliance itself: the catalogue, the configuration, the certificate and the keys, in
//! one sealed archive; and putting one in the place of what is there.
//!
//! Pools are not in it: they are where their disks are, and the catalogue knows them. ADR 0017.

mod archive;
mod database;
mod make;
mod operations;
mod restore;
mod schedule;
mod seal;
mod settle;
mod spool;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::{Address, Catalog};
use strongroom_protect::Job;

pub use archive::{Manifest, Member, Plan, Role};
pub use database::load;
pub(crate) use make::{Unmade, make};
pub use operations::{BackupStatus, Restored, Stopped};
pub use schedule::Scheduled;
pub(crate) use seal::{ArchiveKey, SALT, Sealing, sealed_length, unseal};
pub use settle::{Trial, settle};
pub use spool::{MAX_ARCHIVE, Spool};

use crate::{Error, Result, files};

/// Room that stays free on the filesystem of the data directory.
const RESERVE: u64 = 16 << 20;
/// Bytes of the log, of which the older half goes when it is full.
const LOG: u64 = 64 << 10;

/// What a backup has to know of the appliance.
#[derive(Clone, Debug)]
pub struct Belongings {
    /// The catalogue.
    pub catalog: Catalog,
    /// Where it is.
    pub address: Address,
    /// The command says where it is, whatever the configuration names.
    pub address_given: bool,
    /// The configuration file.
    pub configuration: PathBuf,
    /// The appliance's key.
    pub appliance_key: PathBuf,
    /// Keys of others that the configuration names: whoever restores must have them.
    pub named_keys: Vec<PathBuf>,
    /// Tells where the catalogue is by the text of a configuration file for this data directory, or what
    /// is wrong with that.
    pub check_configuration: fn(&str, &Path) -> std::result::Result<Address, String>,
}

impl Belongings {
    /// The catalogue's file; none with PostgreSQL.
    pub(crate) fn catalogue(&self) -> Option<&Path> {
        match &self.address {
            Address::Sqlite(path) => Some(path),
            Address::Postgres(_) => None,
        }
    }
}

/// The backup that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// When it was made.
    pub made_at: Timestamp,
    /// Its bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Whether it has all that the appliance made itself: the catalogue, configuration, certificate and
    /// keys.
    pub complete: bool,
    /// What belongs to the appliance and is not in it, and why.
    pub left_out: Vec<String>,
}

/// Where the backup is: `backup` in the data directory, for its owner alone.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    /// Held while the backup that there is becomes another, and while it is opened.
    turn: Arc<Mutex<()>>,
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn read_facts(path: &Path) -> Result<Option<BackupFile>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| failed(path)(error.into()))
}

impl Place {
    /// In the data directory. Removes what was left half made, and ends a replacement that was begun.
    pub(crate) fn of(data: &Path) -> Self {
        let place = Self { dir: data.join("backup"), turn: Arc::default() };
        if let Err(error) = place.end_put() {
            tracing::warn!(%error, "a backup that was made can't be put in its place");
        }
        place.sweep();
        place
    }

    /// Removes what is only there while a backup is made.
    fn sweep(&self) {
        let half = self.new_facts().with_extension("new");
        for path in [self.draft(), half, self.copy(), self.upload()] {
            for more in ["", "-wal", "-shm", "-journal"] {
                let mut path = path.clone().into_os_string();
                path.push(more);
                if let Err(error) = remove(Path::new(&path)) {
                    tracing::warn!(%error, "what is left of a backup can't be removed");
                }
            }
        }
    }

    fn directory(&self) -> Result<&Path> {
        settle::directory(&self.dir)?;
        Ok(&self.dir)
    }

    /// The backup, which is there when its facts are.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("backup.tar")
    }

    fn facts(&self) -> PathBuf {
        self.dir.join("backup.json")
    }

    /// The facts of the draft, which are there when it is whole.
    fn new_facts(&self) -> PathBuf {
        self.dir.join("draft.json")
    }

    fn draft(&self) -> PathBuf {
        self.dir.join("backup.tar.new")
    }

    /// The catalogue's copy while it is sealed.
    fn copy(&self) -> PathBuf {
        self.dir.join("catalogue.copy")
    }

    /// What a client hands over piece by piece.
    fn upload(&self) -> PathBuf {
        self.dir.join("upload")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Bytes that may still be written here.
    fn room(&self) -> Result<u64> {
        let dir = self.directory()?;
        let stat = rustix::fs::statvfs(dir).map_err(|error| failed(dir)(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(free.saturating_sub(RESERVE))
    }

    /// Refuses what would not fit.
    pub(crate) fn fits(&self, bytes: u64) -> Result<()> {
        enough(bytes, self.room()?)
    }

    /// The backup that there is.
    pub(crate) fn found(&self) -> Result<Option<BackupFile>> {
        read_facts(&self.facts())
    }

    /// Opens the backup that there is, with its facts.
    fn open(&self) -> Result<Option<(File, BackupFile)>> {
        let _turn = self.turn();
        let Some(facts) = self.found()? else { return Ok(None) };
        let path = self.file();
        let file = File::open(&path).map_err(failed(&path))?;
        let length = file.metadata().map_err(failed(&path))?.len();
        Ok((length == facts.bytes).then_some((file, facts)))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the draft, which is whole, in the place of the backup that there is: cut off anywhere, the
    /// old or the new is there.
    fn put(&self, facts: &BackupFile) -> Result<()> {
        let _turn = self.turn();
        let new = self.new_facts();
        let written = serde_json::to_vec(facts).map_err(io::Error::from);
        written.and_then(|text| files::replace(&new, &text)).map_err(failed(&new))?;
        if let Err(error) = fs::rename(self.draft(), self.file()) {
            remove(&new)?;
            return Err(failed(&self.file())(error));
        }
        self.put_facts()
    }

    /// After the archive was put in its place.
    fn put_facts(&self) -> Result<()> {
        let path = self.facts();
        let sync = || File::open(&self.dir)?.sync_all();
        let put = sync().and_then(|()| fs::rename(self.new_facts(), &path));
        put.and_then(|()| sync()).map_err(failed(&path))
    }

    /// Ends what was cut off when the draft was put in place already.
    fn end_put(&self) -> Result<()> {
        let facts = read_facts(&self.new_facts()).ok().flatten();
        let there = fs::metadata(self.file()).map(|meta| meta.len());
        match (facts, there) {
            (Some(facts), Ok(bytes)) if bytes == facts.bytes && !self.draft().exists() => {
                self.put_facts()
            }
            _ => remove(&self.new_facts()),
        }
    }

    /// Removes the backup that there is; whether there was one.
    fn delete(&self) -> Result<bool> {
        let _turn = self.turn();
        let was = self.found()?.is_some();
        remove(&self.facts())?;
        remove(&self.file())?;
        Ok(was)
    }

    fn forgotten(&self) -> PathBuf {
        self.dir.join("forgotten.json")
    }

    /// Nothing is told of this job any more: what it made, or that it failed, was put aside.
    fn forget(&self, job: &Job) -> Result<()> {
        let path = self.forgotten();
        self.directory()?;
        let text = serde_json::to_vec(&(job.id, job.queued_at)).unwrap_or_default();
        fs::write(&path, text).map_err(failed(&path))
    }

    /// Whether it was forgotten. A catalogue that is restored counts its jobs anew.
    fn is_forgotten(&self, job: &Job) -> bool {
        let text = fs::read(self.forgotten()).unwrap_or_default();
        let told = serde_json::from_slice::<(i64, Timestamp)>(&text);
        told.is_ok_and(|told| told == (job.id, job.queued_at))
    }

    /// Writes a line to the log of backups and restores. That it can't be is told of in the log of
    /// the process.
    pub(crate) fn tell(&self, text: &str) {
        let line = format!("[{}][LIVE IMAGE] {text}\n", Timestamp::now().as_second());
        self.append(&line);
    }

    fn append(&self, line: &str) {
        let written = (|| {
            let path = self.log();
            self.directory()?;
            let mut options = OpenOptions::new();
            let file = options.read(true).append(true).create(true).mode(0o600).open(&path);
            let mut file = file.map_err(failed(&path))?;
            let length = file.metadata().map_err(failed(&path))?.len();
            if length + line.len() as u64 > LOG {
                let mut kept = String::new();
                file.seek(SeekFrom::Start(length.saturating_sub(LOG / 2)))
                    .map_err(failed(&path))?;
                (&file).take(LOG).read_to_string(&mut kept).unwrap_or_default();
                let kept = kept.split_once('\n').map_or("", |(_, rest)| rest);
                file.set_len(0).map_err(failed(&path))?;
                file.write_all(kept.as_bytes()).map_err(failed(&path))?;
            }
            file.write_all(line.as_bytes()).map_err(failed(&path))
        })();
        if let Err::<(), Error>(error) = written {
            tracing::warn!(%error, "the log of backups can't be written");
        }
    }

    /// The log; None: nothing was done yet.
    pub(crate) fn read_log(&self) -> Result<Option<String>> {
        let path = self.log();
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }
}

/// Whether so many bytes fit where there is so much room.
fn enough(bytes: u64, room: u64) -> Result<()> {
    match bytes < room {
        true => Ok(()),
        false => Err(Error::Room { bytes, room }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_would_not_fit_is_refused() {
        enough(9, 10).unwrap();
        let error = enough(10, 10).unwrap_err().to_string();
        assert!(error.contains("10 bytes") && error.contains("free"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path());
        place.fits(1).unwrap();
        assert!(matches!(place.fits(u64::MAX), Err(Error::Room { .. })));
    }

    #[test]
    fn the_log_is_bounded_and_keeps_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path());
        assert_eq!(place.read_log().unwrap(), None);
        for number in 0..4000 {
            place.append(&format!("line {number:05} of the log, which is long\n"));
        }
        let log = place.read_log().unwrap().unwrap();
        assert!(log.len() as u64 <= LOG && log.len() as u64 > LOG / 3, "{}", log.len());
        assert!(
            log.starts_with("line ") && log.ends_with("line 03999 of the log, which is long\n")
        );
        place.tell("Starting backup");
        assert!(place.read_log().unwrap().unwrap().ends_with("][LIVE IMAGE] Starting backup\n"));
    }

    #[test]
    fn a_backup_is_there_when_its_facts_are() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path());
        place.directory().unwrap();
        fs::write(place.draft(), "an archive").unwrap();
        let facts = BackupFile {
            complete: true,
            made_at: Timestamp::UNIX_EPOCH,
            bytes: 10,
            sha256: "aa".into(),
            left_out: Vec::new(),
        };
        place.put(&facts).unwrap();
        assert_eq!(place.found().unwrap().unwrap(), facts);
        // One that was not ended leaves it.
        fs::write(place.draft(), "half of").unwrap();
        fs::write(place.copy(), "half of").unwrap();
        let place = Place::of(dir.path());
        assert!(!place.draft().exists() && !place.copy().exists());
        assert_eq!(place.found().unwrap().unwrap(), facts);
        assert!(place.delete().unwrap() && !place.delete().unwrap());
        assert!(place.found().unwrap().is_none() && !place.file().exists());
    }

    #[test]
    fn a_replacement_that_was_cut_off_leaves_the_old_or_the_new() {
        let facts = |bytes: &str| BackupFile {
            complete: true,
            made_at: Timestamp::UNIX_EPOCH,
            bytes: bytes.len() as u64,
            sha256: bytes.into(),
            left_out: Vec::new(),
        };
        let (old, new) = ("the old one", "the new archive");
        // What had been done of it: nothing, half of the facts, all of them, the archive, all.
        for done in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let place = Place::of(dir.path());
            place.directory().unwrap();
            fs::write(place.draft(), old).unwrap();
            place.put(&facts(old)).unwrap();
            fs::write(place.draft(), new).unwrap();
            let text = serde_json::to_vec(&facts(new)).unwrap();
            match done {
                0 => {}
                1 => fs::write(place.new_facts().with_extension("new"), &text[..9]).unwrap(),
                _ => fs::write(place.new_facts(), &text).unwrap(),
            }
            if done > 2 {
                fs::rename(place.draft(), place.file()).unwrap();
                assert!(place.open().unwrap().is_none(), "these are not its facts");
            }
            if done > 3 {
                fs::rename(place.new_facts(), place.facts()).unwrap();
            }
            let place = Place::of(dir.path());
            let expected = if done > 2 { new } else { old };
            let (mut file, told) = place.open().unwrap().unwrap();
            assert_eq!(told, facts(expected), "{done}");
            let mut there = String::new();
            file.read_to_string(&mut there).unwrap();
            assert_eq!(there, expected, "{done}");
            assert!(!place.draft().exists() && !place.new_facts().exists(), "{done}");
        }
        // An archive that can't be put in place leaves the one before.
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path());
        place.directory().unwrap();
        fs::write(place.draft(), old).unwrap();
        place.put(&facts(old)).unwrap();
        place.put(&facts(new)).unwrap_err();
        assert!(!place.new_facts().exists());
        assert_eq!(place.open().unwrap().unwrap().1, facts(old));
    }
}
