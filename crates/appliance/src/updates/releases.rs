//! The releases that this appliance has beside the program that it was installed with, and which of
//! them is in force.
//!
//! Each lies in a directory of its own, `releases/NAME`, that never changes once it has that name. One
//! file, `releases/state.json`, says which is in force, which was before, and what is on trial; it is
//! replaced as a whole, so that a process that is cut off anywhere leaves the old or the new. Who
//! changes it holds `releases/state.lock`.
//!
//! | state | what the next start does |
//! |---|---|
//! | nothing is on trial | starts the release that is in force, else the installed program |
//! | a trial that was not begun | copies the catalogue, and begins it |
//! | a trial that was begun | it died without a word: the release before is in force again |
//! | the catalogue is to come back | puts the copy of before the update in its place |
//!
//! A release that is not what was installed is not started. Neither is one that is not newer than the
//! installed program, where that is another than the one that it was installed over.
//!
//! The copy of the catalogue lies beside the catalogue, which may be on another file system than
//! `releases`: `catalogue.db.before`; what was in its place when it came back is
//! `catalogue.db.aside`. There is one of each at most.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::Version;
use super::package::Summing;
use crate::files;
use crate::{Error, Result};

/// The format of the state.
const FORMAT: u32 = 1;
/// Bytes of the state, and entries of the history.
const STATE: u64 = 1 << 20;
const HISTORY: usize = 200;
/// How long a process that is killed may take to be gone.
const DYING: Duration = Duration::from_secs(3);
/// Files of a release.
pub(super) const PROGRAM: &str = "strongroom";
pub(super) const CHANGELOG: &str = "changelog";
const FACTS: &str = "release.json";
/// What a directory is called until it is whole.
const DRAFT: &str = "draft-";
/// What a state that nobody understands is called.
const BROKEN: &str = "state.json.broken";
/// What the directories of the catalogue's copy, and of what was in its place, end with.
const BEFORE: &str = ".before";
const ASIDE: &str = ".aside";
/// The file there.
const COPY: &str = "catalogue.db";

/// What a release says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Its version.
    pub(crate) version: String,
    /// When it was built.
    pub(crate) built_at: Option<Timestamp>,
    /// When it was installed.
    pub(crate) installed_at: Timestamp,
    /// The bytes of its program.
    pub(crate) bytes: u64,
    /// The SHA-256 of that.
    pub(crate) sha256: String,
    /// The SHA-256 of the installed program that it was chosen over.
    #[serde(default)]
    pub(crate) over: Option<String>,
}

/// A release that can be gone back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Previous {
    /// Its directory; none: the installed program.
    pub(crate) release: Option<String>,
    /// Its version.
    pub(crate) version: String,
    /// The schema of its catalogue.
    pub(crate) schema: i64,
}

/// A release that is on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Its directory.
    pub(crate) release: String,
    /// What was before it.
    pub(crate) previous: Previous,
    /// The catalogue's file; none with PostgreSQL.
    pub(crate) catalogue: Option<PathBuf>,
    /// Whether that was copied.
    #[serde(default)]
    pub(crate) copied: bool,
    /// Whether a process of it was begun that has not ended well.
    #[serde(default)]
    pub(crate) begun: bool,
    /// Seconds until it answers.
    pub start: u64,
    /// Seconds that it is healthy after that.
    pub trial: u64,
}

/// A copy of the catalogue that may be needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Returning {
    catalogue: PathBuf,
    /// It is needed.
    decided: bool,
}

/// A copy of the catalogue that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Copied {
    catalogue: PathBuf,
    /// Whose catalogue it is.
    of: Previous,
}

/// How it went with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateResult {
    /// It is on trial.
    Trial,
    /// It is in force.
    Installed,
    /// What was before is in force again.
    RolledBack,
}

impl UpdateResult {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Installed => "installed",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What was done once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRecord {
    /// The version that came.
    pub version: String,
    /// The version that was there before.
    pub from_version: String,
    /// Its directory; none: the installed program.
    pub(crate) release: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// The job that did it; none: somebody went back by hand.
    pub job: Option<i64>,
    /// When it was put in force.
    pub at: Timestamp,
    /// When it was decided how that went.
    pub ended_at: Option<Timestamp>,
    /// How it went.
    pub result: UpdateResult,
    /// Why it was rolled back.
    pub reason: Option<String>,
}

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    /// The release in force; none: the installed program.
    pub(crate) active: Option<String>,
    pub(crate) previous: Option<Previous>,
    pub(crate) trial: Option<Trial>,
    returning: Option<Returning>,
    /// The copy of the latest trial.
    #[serde(default)]
    copy: Option<Copied>,
    /// The release that watches over another, or did: it may be started anew.
    #[serde(default)]
    watcher: Option<String>,
    /// The latest last.
    pub(crate) history: Vec<UpdateRecord>,
}

impl State {
    fn end(&mut self, release: &str, result: UpdateResult, reason: Option<String>) {
        let mine = |one: &&mut UpdateRecord| {
            one.release.as_deref() == Some(release) && one.result == UpdateResult::Trial
        };
        if let Some(record) = self.history.iter_mut().rev().find(mine) {
            record.result = result;
            record.ended_at = Some(Timestamp::now());
            record.reason = reason;
        }
    }

    fn told(&mut self, record: UpdateRecord) {
        self.history.push(record);
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }
}

/// The releases of a data directory. A test lets its steps end after some.
#[derive(Debug)]
pub(crate) struct Releases {
    data: PathBuf,
    dir: PathBuf,
    left: Cell<Option<u32>>,
}

/// What a start does.
#[derive(Debug, PartialEq, Eq)]
pub enum Launch {
    /// It goes on as it is.
    Stay,
    /// It becomes this program.
    Become {
        /// The program.
        program: PathBuf,
        /// Its release; none: the installed one.
        release: Option<String>,
    },
    /// It starts this program, and watches over it.
    Watch {
        /// The program.
        program: PathBuf,
        /// Its release.
        release: String,
        /// Its version.
        version: String,
        /// How long it is on trial.
        trial: Trial,
    },
}

/// What decides what a start does.
#[derive(Clone, Debug)]
pub struct Launcher<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// This program.
    pub program: &'a Path,
    /// The program that was installed, where this one is of a release.
    pub installed: Option<&'a Path>,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// Where the copy of a catalogue is.
fn copy_of(catalogue: &Path) -> PathBuf {
    beside(catalogue, BEFORE).join(COPY)
}

/// Held while the state is changed.
struct Turn {
    _file: File,
}

impl Releases {
    pub(crate) fn of(data: &Path) -> Self {
        Self { data: data.to_owned(), dir: data.join("releases"), left: Cell::new(None) }
    }

    /// Before each step.
    fn step(&self) -> Result<()> {
        let Some(left) = self.left.get() else { return Ok(()) };
        let Some(left) = left.checked_sub(1) else {
            return Err(Error::State("cut off by a test".into()));
        };
        self.left.set(Some(left));
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Makes the directory, for its owner alone.
    fn directory(&self) -> Result<()> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(&self.dir).map_err(failed(&self.dir))
    }

    fn turn(&self) -> Result<Turn> {
        self.directory()?;
        let path = self.dir.join("state.lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(&path)(e.into()))?;
        Ok(Turn { _file: file })
    }

    /// What is known; nothing was installed where there is no file.
    pub(crate) fn read(&self) -> Result<State> {
        let path = self.file();
        let text = match files::read(&path, STATE) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(failed(&path)(error)),
        };
        // What a newer program has written may be anything but for its number.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let read = serde_json::from_slice(&text).and_then(|Format { format }| match format {
            FORMAT => serde_json::from_slice(&text).map(Ok),
            other => Ok(Err(other)),
        });
        match read {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(other)) => {
                let text = format!("it has format {other}, which this program does not know");
                Err(failed(&path)(io::Error::other(text)))
            }
            Err(error) => Err(failed(&path)(io::Error::new(ErrorKind::InvalidData, error))),
        }
    }

    /// Moves a state that nobody understands out of the way. One of a newer program stays.
    fn set_aside(&self, error: &Error) -> Result<bool> {
        let Error::File { source, .. } = error else { return Ok(false) };
        if source.kind() != ErrorKind::InvalidData {
            return Ok(false);
        }
        let path = self.file();
        fs::rename(&path, self.dir.join(BROKEN)).map_err(failed(&path))?;
        sync(&self.dir)?;
        Ok(true)
    }

    fn write(&self, state: &State) -> Result<()> {
        self.step()?;
        let state = State { format: FORMAT, ..state.clone() };
        let text = serde_json::to_vec_pretty(&state).map_err(|e| failed(&self.file())(e.into()))?;
        files::replace(&self.file(), &text).map_err(failed(&self.file()))?;
        sync(&self.data)
    }

    /// Changes what is known, as a whole.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _turn = self.turn()?;
        let mut state = self.read()?;
        let done = change(&mut state)?;
        self.write(&state)?;
        Ok(done)
    }

    fn path(&self, release: &str) -> PathBuf {
        self.dir.join(release)
    }

    /// What a release says of itself.
    pub(crate) fn facts(&self, release: &str) -> Result<Facts> {
        let path = self.path(release).join(FACTS);
        let text = files::read(&path, STATE).map_err(failed(&path))?;
        serde_json::from_slice(&text).map_err(|error| failed(&path)(error.into()))
    }

    /// The release that this program is of.
    pub(crate) fn is_of(&self, program: &Path) -> Option<String> {
        let dir = program.parent().filter(|_| program.file_name() == Some(PROGRAM.as_ref()))?;
        let dir = dir.strip_prefix(fs::canonicalize(&self.dir).ok()?).ok()?;
        let name = dir.to_str().filter(|name| !name.is_empty() && !name.contains('/'))?;
        self.facts(name).is_ok().then(|| name.to_owned())
    }

    /// What is new in a release.
    pub(crate) fn changelog(&self, release: &str) -> Result<Option<String>> {
        let path = self.path(release).join(CHANGELOG);
        match files::read(&path, STATE) {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// A directory for what is unpacked. Removes what was left half made.
    pub(crate) fn draft(&self) -> Result<PathBuf> {
        self.sweep()?;
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(strongroom_identity::Error::Random)?;
        let path = self.dir.join(format!("{DRAFT}{}", HEXLOWER.encode(&name)));
        DirBuilder::new().mode(0o700).create(&path).map_err(failed(&path))?;
        Ok(path)
    }

    /// Removes the releases that nobody can go back to, and drafts.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.directory()?;
        let state = self.read()?;
        let trial = state.trial.as_ref();
        let kept = [
            state.active.as_ref(),
            state.previous.as_ref().and_then(|previous| previous.release.as_ref()),
            trial.and_then(|trial| trial.previous.release.as_ref()),
            state.watcher.as_ref(),
        ];
        for entry in fs::read_dir(&self.dir).map_err(failed(&self.dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_kept = kept.iter().flatten().any(|kept| **kept == name);
            if entry.path().is_dir() && !is_kept {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Gives a draft with a program its name: it is a release now, which is not in force. It is
    /// chosen over the installed program, whether that is newer or not, until that is another.
    pub(crate) fn finish(
        &self,
        draft: &Path,
        version: &Version,
        built_at: Option<Timestamp>,
        installed: Option<&Path>,
    ) -> Result<String> {
        let program = draft.join(PROGRAM);
        let (bytes, sha256) = sum(&program).map_err(failed(&program))?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&program, mode).map_err(failed(&program))?;
        let file = File::open(&program).and_then(|file| file.sync_all());
        file.map_err(failed(&program))?;
        let facts = Facts {
            version: version.to_string(),
            built_at,
            installed_at: Timestamp::now(),
            bytes,
            sha256,
            // Without it, the newer one wins.
            over: installed.and_then(|program| sum(program).ok()).map(|(_, sha256)| sha256),
        };
        let path = draft.join(FACTS);
        let text = serde_json::to_vec_pretty(&facts).map_err(|e| failed(&path)(e.into()))?;
        files::replace(&path, &text).map_err(failed(&path))?;
        sync(draft)?;
        let draft_name = draft.file_name().unwrap_or_default().to_string_lossy();
        let random = draft_name.strip_prefix(DRAFT).unwrap_or(&draft_name);
        let name = format!("{version}-{random}");
        self.step()?;
        fs::rename(draft, self.path(&name)).map_err(failed(draft))?;
        sync(&self.dir)?;
        Ok(name)
    }

    /// Puts a release in force, on trial. It is begun by the next start.
    pub(crate) fn decide(&self, trial: Trial, by: &str, job: Option<i64>) -> Result<()> {
        let version = self.facts(&trial.release)?.version;
        self.change(|state| {
            if state.trial.is_some() {
                return Err(on_trial());
            }
            state.told(UpdateRecord {
                version,
                from_version: trial.previous.version.clone(),
                release: Some(trial.release.clone()),
                by: by.to_owned(),
                job,
                at: Timestamp::now(),
                ended_at: None,
                result: UpdateResult::Trial,
                reason: None,
            });
            state.active = Some(trial.release.clone());
            state.returning = None;
            state.trial = Some(trial);
            Ok(())
        })
    }

    /// It has proven itself.
    pub(crate) fn confirm(&self, release: &str) -> Result<()> {
        self.change(|state| {
            if let Some(trial) = state.trial.take_if(|trial| trial.release == release) {
                state.previous = Some(trial.previous);
                state.end(release, UpdateResult::Installed, None);
            }
            Ok(())
        })
    }

    /// What was before is in force again, and its catalogue comes back if it needs that.
    pub(crate) fn undo(&self, release: &str, reason: &str) -> Result<()> {
        self.change(|state| {
            let Some(trial) = state.trial.take_if(|trial| trial.release == release) else {
                return Ok(());
            };
            state.active = trial.previous.release;
            let copied = trial.catalogue.filter(|_| trial.copied);
            state.returning = copied.map(|catalogue| Returning { catalogue, decided: false });
            let reason: String = reason.chars().take(500).collect();
            state.end(release, UpdateResult::RolledBack, Some(reason));
            Ok(())
        })
    }

    /// A process of it was told to end, and did: the next start goes on with the trial.
    pub(crate) fn suspend(&self, release: &str) -> Result<()> {
        self.change(|state| {
            if let Some(trial) = state.trial.as_mut().filter(|trial| trial.release == release) {
                trial.begun = false;
            }
            Ok(())
        })
    }

    /// Goes back to what was before, because somebody says so; which version that is. The next
    /// start does it.
    pub(crate) fn go_back(&self, schema: i64, put_back: bool, by: &str) -> Result<String> {
        self.change(|state| {
            let trial = state.trial.clone();
            let previous = match &trial {
                Some(trial) => trial.previous.clone(),
                None => state.previous.clone().ok_or_else(|| {
                    Error::State("there is no earlier release to go back to".into())
                })?,
            };
            if let Some(release) = &previous.release {
                let program = self.path(release).join(PROGRAM);
                self.sound(release).map_err(|why| {
                    Error::State(format!("{} can't be gone back to: {why}", program.display()))
                })?;
            }
            if previous.schema < schema {
                if !put_back {
                    return Err(Error::State(format!(
                        "version {} does not know the catalogue as it is now: it can be gone back \
                         to with the catalogue of before the update (`put_catalogue_back`), \
                         without what was done since",
                        previous.version
                    )));
                }
                // One of another update would be of a schema that it doesn't know either, or of long
                // ago.
                let copy = state.copy.as_ref().filter(|copy| copy.of == previous);
                let copy = copy.filter(|copy| is_there(&copy_of(&copy.catalogue)));
                let catalogue = copy.map(|copy| copy.catalogue.clone()).ok_or_else(|| {
                    Error::State(format!(
                        "version {} does not know the catalogue as it is now, and there is no copy \
                         of the one that it had",
                        previous.version
                    ))
                })?;
                state.returning = Some(Returning { catalogue, decided: true });
            }
            let now = Timestamp::now();
            let from = state.active.clone();
            let facts = from.as_deref().map(|release| self.facts(release)).transpose()?;
            let from_version =
                facts.map_or_else(|| Version::of_program().to_string(), |f| f.version);
            if let Some(trial) = &trial {
                let reason = format!("{by} went back");
                state.end(&trial.release, UpdateResult::RolledBack, Some(reason));
            }
            state.told(UpdateRecord {
                version: previous.version.clone(),
                from_version,
                release: previous.release.clone(),
                by: by.to_owned(),
                job: None,
                at: now,
                ended_at: Some(now),
                result: UpdateResult::Installed,
                reason: None,
            });
            state.trial = None;
            state.active = previous.release;
            // Going back twice would be going on.
            state.previous = None;
            Ok(previous.version)
        })
    }

    /// The catalogue of before the update is needed: the next start puts it back. False: there is
    /// none that may be.
    pub(crate) fn need_catalogue(&self) -> Result<bool> {
        if !is_there(&self.file()) {
            return Ok(false);
        }
        self.change(|state| {
            let Some(returning) = state.returning.as_mut() else { return Ok(false) };
            let first = !returning.decided;
            returning.decided = true;
            Ok(first)
        })
    }

    /// The catalogue could be opened as it is.
    pub(crate) fn catalogue_fits(&self) -> Result<()> {
        if !is_there(&self.file()) || self.read()?.returning.is_none() {
            return Ok(());
        }
        self.change(|state| {
            state.returning = None;
            Ok(())
        })
    }

    /// Copies the catalogue, which nobody has open.
    fn copy_catalogue(&self, catalogue: &Path) -> Result<()> {
        let before = beside(catalogue, BEFORE);
        remove_all(&before)?;
        DirBuilder::new().mode(0o700).create(&before).map_err(failed(&before))?;
        for more in ["", "-wal"] {
            let (from, to) = (beside(catalogue, more), before.join(format!("{COPY}{more}")));
            self.step()?;
            match fs::copy(&from, &to) {
                Ok(_) => {
                    let done = File::open(&to).and_then(|file| file.sync_all());
                    done.map_err(failed(&to))?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&from)(error)),
            }
        }
        sync(&before)?;
        before.parent().map_or(Ok(()), sync)
    }

    /// Puts the copy in the place of the catalogue, which nobody has open.
    fn put_back(&self, catalogue: &Path) -> Result<()> {
        let (before, aside) = (beside(catalogue, BEFORE), beside(catalogue, ASIDE));
        let copy = copy_of(catalogue);
        // It is the last that goes to its place.
        if !is_there(&copy) {
            return Ok(());
        }
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(&aside).map_err(failed(&aside))?;
        let rename = |from: &Path, to: &Path| -> Result<()> {
            self.step()?;
            match fs::rename(from, to) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(from)(error)),
                _ => {
                    for dir in [from, to].into_iter().filter_map(Path::parent) {
                        sync(dir)?;
                    }
                    Ok(())
                }
            }
        };
        let wal = before.join(format!("{COPY}-wal"));
        // The one of the copy may be in its place already; then the new one's was moved.
        let moved = before.join("moved");
        if !is_there(&moved) {
            for more in ["-wal", "-shm", ""] {
                rename(&beside(catalogue, more), &aside.join(format!("{COPY}{more}")))?;
            }
            self.step()?;
            File::create(&moved).and_then(|file| file.sync_all()).map_err(failed(&moved))?;
            sync(&before)?;
        }
        if is_there(&wal) {
            rename(&wal, &beside(catalogue, "-wal"))?;
        }
        rename(&copy, catalogue)
    }

    /// Whether a release is what was installed.
    fn sound(&self, release: &str) -> Result<Facts, String> {
        let facts = self.facts(release).map_err(|error| error.to_string())?;
        let dir = self.path(release).symlink_metadata().map_err(|error| error.to_string())?;
        // A program that is elsewhere would not be known for this release's own.
        if !dir.is_dir() {
            return Err("it has no directory of its own".into());
        }
        let path = self.path(release).join(PROGRAM);
        let meta = path.symlink_metadata().map_err(|error| error.to_string())?;
        if !meta.is_file() || meta.permissions().mode() & 0o100 == 0 {
            return Err("its program is no program".into());
        }
        match sum(&path) {
            Ok((bytes, sha256)) if (bytes, &sha256) == (facts.bytes, &facts.sha256) => Ok(facts),
            Ok(_) => Err("its program is not the one that was installed".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What this start does. Nobody else has the data directory. What is odd is told to `notes`.
    fn launch(&self, launcher: &Launcher<'_>, notes: &mut Vec<String>) -> Result<Launch> {
        let mut state = self.read()?;
        if let Some(returning) = state.returning.clone().filter(|returning| returning.decided) {
            self.put_back(&returning.catalogue)?;
            self.change(|state| {
                (state.returning, state.copy) = (None, None);
                Ok(())
            })?;
            notes.push("the catalogue of before the update is back".into());
        }
        if let Some(trial) = state.trial.clone() {
            let release = trial.release.clone();
            let refused = match self.sound(&release) {
                _ if trial.begun => Some("it died without a word".to_owned()),
                Err(why) => Some(why),
                Ok(facts) => match self.begin(&trial, self.is_of(launcher.program)) {
                    Ok(trial) => {
                        let program = self.path(&release).join(PROGRAM);
                        let version = facts.version;
                        return Ok(Launch::Watch { program, release, version, trial });
                    }
                    Err(error) => Some(format!("it can't be begun: {error}")),
                },
            };
            let why = refused.unwrap_or_default();
            notes.push(format!("{release} is rolled back: {why}"));
            match self.undo(&release, &why).and_then(|()| self.read()) {
                Ok(undone) => state = undone,
                // The next start does it again; nothing of the trial is started meanwhile.
                Err(error) => {
                    notes.push(format!("that can't be written down: {error}"));
                    state.active = trial.previous.release;
                }
            }
        }
        let own = self.is_of(launcher.program);
        if let Some(release) = &state.active {
            if own.as_ref() == Some(release) {
                return Ok(Launch::Stay);
            }
            match self.sound(release) {
                Ok(facts) => {
                    let newer =
                        facts.version.parse().is_ok_and(|v: Version| v > Version::of_program());
                    let chosen = || {
                        let own = sum(launcher.program).ok().map(|(_, sha256)| sha256);
                        own.is_some() && own == facts.over
                    };
                    if newer || own.is_some() || chosen() {
                        let program = self.path(release).join(PROGRAM);
                        return Ok(Launch::Become { program, release: Some(release.clone()) });
                    }
                    notes.push(format!("{release} is not newer than the installed program"));
                }
                Err(why) => notes.push(format!("{release} is not started: {why}")),
            }
        }
        match (own, launcher.installed) {
            (Some(_), Some(program)) if program.exists() => {
                Ok(Launch::Become { program: program.to_owned(), release: None })
            }
            (Some(own), _) => {
                notes.push(format!("{own} goes on: the installed program is not there"));
                Ok(Launch::Stay)
            }
            _ => Ok(Launch::Stay),
        }
    }

    /// Copies what the trial may change, and begins it.
    fn begin(&self, trial: &Trial, watcher: Option<String>) -> Result<Trial> {
        let mut trial = trial.clone();
        let catalogue = trial.catalogue.clone().filter(|_| !trial.copied);
        if let Some(catalogue) = &catalogue {
            // What is told of the copy of before is no longer so.
            self.change(|state| {
                state.copy = None;
                Ok(())
            })?;
            self.copy_catalogue(catalogue)?;
            trial.copied = true;
        }
        trial.begun = true;
        self.change(|state| {
            if let Some(catalogue) = catalogue {
                state.copy = Some(Copied { catalogue, of: trial.previous.clone() });
            }
            state.watcher = watcher;
            state.trial = Some(trial.clone());
            Ok(())
        })?;
        Ok(trial)
    }
}

/// Refuses what can't be done meanwhile.
pub(crate) fn on_trial() -> Error {
    Error::State("an update is on trial: wait until that is over, or roll it back".into())
}

/// The bytes of a file, and their SHA-256.
fn sum(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut to = Summing::new(io::sink());
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, to.sha256()));
        }
        to.write_all(&buffer[..count])?;
        bytes += count as u64;
    }
}

/// One process at a time decides, or watches over another.
#[derive(Debug)]
pub struct Watchman {
    _file: File,
}

/// Decides what this start does, before anything is opened; with what is odd. None: nothing was ever
/// installed, or another process serves the data directory, which whoever goes on finds.
///
/// # Errors
/// [`Error::File`] when the catalogue of before an update can't be put back: nothing may be opened.
/// [`Error::State`] while another process decides, or watches over one that is about to serve.
pub fn launch(launcher: &Launcher<'_>) -> Result<Option<(Launch, Watchman, Vec<String>)>> {
    let releases = Releases::of(launcher.data);
    if !is_there(&releases.file()) {
        return Ok(None);
    }
    let lock = |path: &Path| -> Result<Option<File>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(failed(path))?;
        let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(taken.is_ok().then_some(file))
    };
    // Those that were killed may be about to die.
    let wait = |path: PathBuf| -> Result<Option<File>> {
        let end = Instant::now() + DYING;
        loop {
            match lock(&path)? {
                None if Instant::now() < end => std::thread::sleep(DYING / 100),
                found => return Ok(found),
            }
        }
    };
    let Some(file) = wait(releases.dir.join("launch.lock"))? else {
        let data = launcher.data.display();
        let text = format!("another process serves {data}, or is about to: stop it first");
        return Err(Error::State(text));
    };
    // Whoever serves holds this. Nobody may begin to while the catalogue is copied or put back.
    let Some(_nobody) = wait(launcher.data.join("serve.lock"))? else { return Ok(None) };
    let mut notes = Vec::new();
    if let Err(error) = releases.read() {
        notes.push(format!("nothing is known of releases: {error}"));
        match releases.set_aside(&error) {
            Ok(true) => notes.push(format!("that file is {BROKEN} now, and is not read again")),
            Ok(false) => {}
            Err(error) => notes.push(error.to_string()),
        }
        return Ok(Some((Launch::Stay, Watchman { _file: file }, notes)));
    }
    let launch = releases.launch(launcher, &mut notes)?;
    Ok(Some((launch, Watchman { _file: file }, notes)))
}

/// The release that a program is of.
pub fn release_of(data: &Path, program: &Path) -> Option<String> {
    Releases::of(data).is_of(program)
}

/// A release on trial has proven itself.
///
/// # Errors
/// [`Error::File`].
pub fn confirm(data: &Path, release: &str) -> Result<()> {
    Releases::of(data).confirm(release)
}

/// A release on trial has failed: what was before is in force.
///
/// # Errors
/// [`Error::File`].
pub fn undo(data: &Path, release: &str, reason: &str) -> Result<()> {
    Releases::of(data).undo(release, reason)
}

/// A release on trial was told to end, and did.
///
/// # Errors
/// [`Error::File`].
pub fn suspend(data: &Path, release: &str) -> Result<()> {
    Releases::of(data).suspend(release)
}

/// Whether this release is on trial still.
///
/// # Errors
/// [`Error::File`].
pub fn is_on_trial(data: &Path, release: &str) -> Result<bool> {
    let state = Releases::of(data).read()?;
    Ok(state.trial.is_some_and(|trial| trial.release == release))
}

/// The catalogue is newer than this program: whether the next start puts the one of before the update
/// back.
///
/// # Errors
/// [`Error::File`].
pub fn need_catalogue(data: &Path) -> Result<bool> {
    Releases::of(data).need_catalogue()
}

/// The catalogue could be opened: the copy is not needed.
///
/// # Errors
/// [`Error::File`].
pub fn catalogue_fits(data: &Path) -> Result<()> {
    Releases::of(data).catalogue_fits()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        installed: PathBuf,
    }

    const CATALOGUE: [(&str, &str); 2] = [("catalogue.db", "old"), ("catalogue.db-wal", "old log")];

    impl Place {
        /// An appliance with a catalogue, and a program outside of its data directory.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let installed = dir.path().join("usr-bin-strongroom");
            fs::write(&installed, "installed").unwrap();
            fs::create_dir(dir.path().join("data")).unwrap();
            let place = Self { dir, installed };
            for (name, text) in CATALOGUE {
                fs::write(place.data().join(name), text).unwrap();
            }
            place
        }

        fn data(&self) -> PathBuf {
            fs::canonicalize(self.dir.path()).unwrap().join("data")
        }

        fn releases(&self, left: Option<u32>) -> Releases {
            let releases = Releases::of(&self.data());
            releases.left.set(left);
            releases
        }

        fn install(&self, version: &str) -> String {
            let releases = self.releases(None);
            let draft = releases.draft().unwrap();
            fs::write(draft.join(PROGRAM), format!("program {version}")).unwrap();
            fs::write(draft.join(CHANGELOG), "news").unwrap();
            let installed = Some(self.installed.as_path());
            releases.finish(&draft, &version.parse().unwrap(), None, installed).unwrap()
        }

        fn trial(&self, release: &str, from: Option<&str>) -> Trial {
            Trial {
                release: release.into(),
                previous: Previous {
                    release: from.map(str::to_owned),
                    version: "0.1.0".into(),
                    schema: 7,
                },
                catalogue: Some(self.data().join("catalogue.db")),
                copied: false,
                begun: false,
                start: 5,
                trial: 5,
            }
        }

        fn launch_of(&self, releases: &Releases, program: &Path) -> Result<Launch> {
            let data = self.data();
            let installed = Some(self.installed.as_path());
            releases.launch(&Launcher { data: &data, program, installed }, &mut Vec::new())
        }

        fn launch(&self) -> Launch {
            self.launch_of(&self.releases(None), &self.installed).unwrap()
        }

        fn program(&self, release: &str) -> PathBuf {
            self.data().join("releases").join(release).join(PROGRAM)
        }

        fn catalogue(&self) -> Vec<Option<String>> {
            let read = |name: &str| fs::read_to_string(self.data().join(name)).ok();
            ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"].map(read).into()
        }

        fn migrate(&self) {
            for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
                fs::write(self.data().join(name), "new").unwrap();
            }
        }

        fn old() -> Vec<Option<String>> {
            vec![Some("old".into()), Some("old log".into()), None]
        }
    }

    fn is_watch(launch: &Launch, of: &str) -> bool {
        matches!(launch, Launch::Watch { release, .. } if release == of)
    }

    fn becomes(launch: &Launch, of: Option<&str>) -> bool {
        matches!(launch, Launch::Become { release, .. } if release.as_deref() == of)
    }

    #[test]
    fn a_release_is_tried_and_stays() {
        let place = Place::new();
        assert!(
            launch(&Launcher { data: &place.data(), program: &place.installed, installed: None })
                .unwrap()
                .is_none()
        );
        let first = place.install("0.2.0");
        assert_eq!(place.launch(), Launch::Stay);
        let releases = place.releases(None);
        releases.decide(place.trial(&first, None), "me", Some(7)).unwrap();
        assert!(releases.decide(place.trial(&first, None), "me", Some(8)).is_err());
        assert!(is_watch(&place.launch(), &first));
        assert!(is_on_trial(&place.data(), &first).unwrap());
        releases.confirm(&first).unwrap();
        assert!(!is_on_trial(&place.data(), &first).unwrap());
        assert!(becomes(&place.launch(), Some(&first)));
        // It is what it is: no start goes round in circles.
        assert_eq!(place.launch_of(&releases, &place.program(&first)).unwrap(), Launch::Stay);
        assert_eq!(releases.is_of(&place.program(&first)), Some(first.clone()));
        assert_eq!(releases.is_of(&place.installed), None);
        let second = place.install("0.3.0");
        releases.decide(place.trial(&second, Some(&first)), "you", Some(9)).unwrap();
        assert!(is_watch(&place.launch_of(&releases, &place.program(&first)).unwrap(), &second));
        releases.confirm(&second).unwrap();
        let third = place.install("0.4.0");
        assert!(place.program(&first).exists() && place.program(&second).exists());
        let state = releases.read().unwrap();
        assert_eq!(state.active, Some(second.clone()));
        assert_eq!(state.previous.unwrap().release, Some(first.clone()));
        let told: Vec<_> =
            state.history.iter().map(|one| (&*one.version, one.result, one.job)).collect();
        let installed = UpdateResult::Installed;
        assert_eq!(told, [("0.2.0", installed, Some(7)), ("0.3.0", installed, Some(9))]);
        // What nobody goes back to goes.
        releases.decide(place.trial(&third, Some(&second)), "you", None).unwrap();
        place.launch();
        releases.confirm(&third).unwrap();
        releases.sweep().unwrap();
        assert!(!place.program(&first).exists() && place.program(&second).exists());
        assert_eq!(releases.changelog(&third).unwrap().unwrap(), "news");
    }

    #[test]
    fn killed_at_every_step_it_is_the_old_or_the_new() {
        let (mut old, mut new) = (0, 0);
        for left in 0.. {
            let place = Place::new();
            let release = place.install("0.2.0");
            let steps = place.releases(Some(left));
            let done = (|| {
                steps.decide(place.trial(&release, None), "me", Some(1))?;
                let launch = place.launch_of(&steps, &place.installed)?;
                assert!(steps.left.get() == Some(0) || is_watch(&launch, &release));
                steps.confirm(&release)
            })();
            let found = place.releases(None).read().unwrap();
            let begun = found.trial.as_ref().map(|trial| trial.begun);
            let launch = place.launch();
            match (found.active, begun) {
                (None, _) => {
                    old += 1;
                    assert!(done.is_err() || left < 9);
                    assert_eq!(launch, Launch::Stay);
                }
                // It died in its trial, and nobody saw why.
                (Some(_), Some(true)) => {
                    old += 1;
                    assert_eq!(launch, Launch::Stay);
                    let record = place.releases(None).read().unwrap().history[0].clone();
                    assert_eq!(record.result, UpdateResult::RolledBack);
                    assert!(record.reason.unwrap().contains("without a word"));
                }
                (Some(_), Some(false)) => {
                    new += 1;
                    assert!(is_watch(&launch, &release), "{left}");
                }
                (Some(_), None) => {
                    new += 1;
                    assert!(becomes(&launch, Some(&release)), "{left}");
                }
            }
            assert_eq!(place.catalogue(), Place::old());
            if done.is_ok() {
                break;
            }
        }
        assert!(old >= 2 && new >= 2, "{old} {new}");
    }

    #[test]
    fn a_catalogue_that_was_changed_comes_back_whatever_it_is_cut_off_at() {
        for left in 0.. {
            let place = Place::new();
            let release = place.install("0.2.0");
            let releases = place.releases(None);
            assert!(!need_catalogue(&place.data()).unwrap());
            releases.decide(place.trial(&release, None), "me", Some(1)).unwrap();
            place.launch();
            place.migrate();
            let steps = place.releases(Some(left));
            let done = steps.undo(&release, "it crashed").and_then(|()| {
                // The old program finds that it doesn't know it.
                steps.need_catalogue()?;
                place.launch_of(&steps, &place.installed)
            });
            // Whatever was done by then, the next starts end it.
            let found = releases.read().unwrap();
            let launch = place.launch();
            if found.returning.as_ref().is_some_and(|returning| !returning.decided) {
                assert!(need_catalogue(&place.data()).unwrap());
                assert!(!need_catalogue(&place.data()).unwrap(), "it is asked for once");
                place.launch();
            } else if found.trial.is_some() {
                assert_eq!(launch, Launch::Stay);
                assert!(need_catalogue(&place.data()).unwrap());
                place.launch();
            }
            assert_eq!(place.catalogue(), Place::old(), "{left}");
            assert!(!need_catalogue(&place.data()).unwrap());
            assert_eq!(place.launch(), Launch::Stay);
            if done.is_ok() {
                break;
            }
        }
        // One that is known stays as it is.
        let place = Place::new();
        let release = place.install("0.2.0");
        place.releases(None).decide(place.trial(&release, None), "me", Some(1)).unwrap();
        place.launch();
        place.migrate();
        undo(&place.data(), &release, "it crashed").unwrap();
        place.launch();
        catalogue_fits(&place.data()).unwrap();
        assert!(!need_catalogue(&place.data()).unwrap());
        place.launch();
        assert_eq!(place.catalogue()[0].as_deref(), Some("new"));
    }

    #[test]
    fn what_was_told_to_end_is_tried_on() {
        let place = Place::new();
        let release = place.install("0.2.0");
        place.releases(None).decide(place.trial(&release, None), "me", None).unwrap();
        assert!(is_watch(&place.launch(), &release));
        place.migrate();
        suspend(&place.data(), &release).unwrap();
        assert!(is_watch(&place.launch(), &release));
        // The copy is that of before the update.
        undo(&place.data(), &release, "x").unwrap();
        need_catalogue(&place.data()).unwrap();
        place.launch();
        assert_eq!(place.catalogue(), Place::old());
    }

    #[test]
    fn what_is_broken_does_not_keep_the_installed_program_from_starting() {
        type Breaking = fn(&Place, &str);
        let all: [Breaking; 7] = [
            |place, release| fs::remove_dir_all(place.program(release).parent().unwrap()).unwrap(),
            |place, release| fs::remove_file(place.program(release)).unwrap(),
            |place, release| fs::write(place.program(release), "changed").unwrap(),
            |place, release| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(place.program(release), mode).unwrap();
            },
            |place, release| {
                fs::write(place.program(release).with_file_name(FACTS), "{").unwrap();
            },
            |place, _| fs::write(place.releases(None).file(), "garbage").unwrap(),
            |place, _| fs::write(place.releases(None).file(), "{\"format\":2}").unwrap(),
        ];
        for (number, breaking) in all.into_iter().enumerate() {
            for on_trial in [false, true] {
                let place = Place::new();
                let release = place.install("0.2.0");
                let releases = place.releases(None);
                releases.decide(place.trial(&release, None), "me", None).unwrap();
                if !on_trial {
                    place.launch();
                    releases.confirm(&release).unwrap();
                }
                breaking(&place, &release);
                let data = place.data();
                let launcher = Launcher { data: &data, program: &place.installed, installed: None };
                let (found, watchman, notes) = launch(&launcher).unwrap().unwrap();
                assert_eq!(found, Launch::Stay, "{number}");
                assert!(!notes.is_empty());
                drop(watchman);
                // What no program understands is out of the way; that of a newer one stays.
                let broken = data.join("releases").join(BROKEN);
                assert_eq!(broken.exists(), number == 5);
                assert_eq!(releases.read().is_err(), number == 6);
                assert_eq!(launch(&launcher).unwrap().is_none(), number == 5);
            }
        }
        // A link to where a release is elsewhere would be started again and again.
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        releases.decide(place.trial(&release, None), "me", None).unwrap();
        place.launch();
        releases.confirm(&release).unwrap();
        let elsewhere = place.data().join("elsewhere");
        fs::rename(releases.path(&release), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, releases.path(&release)).unwrap();
        assert_eq!(place.launch(), Launch::Stay);
    }

    #[test]
    fn an_older_one_stays_until_the_installed_program_is_another() {
        let own = env!("CARGO_PKG_VERSION");
        for version in ["0.0.9", own] {
            let place = Place::new();
            let release = place.install(version);
            let releases = place.releases(None);
            releases.decide(place.trial(&release, None), "me", None).unwrap();
            assert!(is_watch(&place.launch(), &release));
            releases.confirm(&release).unwrap();
            assert!(becomes(&place.launch(), Some(&release)), "{version}");
            fs::write(&place.installed, "somebody has updated it").unwrap();
            assert_eq!(place.launch(), Launch::Stay);
        }
    }

    #[test]
    fn who_watches_over_another_stays() {
        let place = Place::new();
        let releases = place.releases(None);
        let mut all = Vec::new();
        // The first is in force, and watches over those that come.
        for version in ["0.2.0", "0.3.0", "0.4.0"] {
            let release = place.install(version);
            let before = all.last().map(String::as_str);
            releases.decide(place.trial(&release, before), "me", None).unwrap();
            let program = match all.first() {
                Some(first) => place.program(first),
                None => place.installed.clone(),
            };
            assert!(is_watch(&place.launch_of(&releases, &program).unwrap(), &release));
            releases.confirm(&release).unwrap();
            all.push(release);
        }
        releases.sweep().unwrap();
        assert!(all.iter().all(|release| place.program(release).exists()));
        // It becomes what is in force.
        let launch = place.launch_of(&releases, &place.program(&all[0])).unwrap();
        assert!(becomes(&launch, Some(&all[2])));
    }

    #[test]
    fn a_copy_of_another_update_is_not_put_back() {
        let place = Place::new();
        let releases = place.releases(None);
        let first = place.install("0.2.0");
        releases.decide(place.trial(&first, None), "me", None).unwrap();
        place.launch();
        place.migrate();
        releases.confirm(&first).unwrap();
        // The copy is that of the first one's catalogue.
        let second = place.install("0.3.0");
        let mut trial = place.trial(&second, Some(&first));
        trial.previous.schema = 8;
        releases.decide(trial, "me", None).unwrap();
        assert!(is_watch(&place.launch_of(&releases, &place.program(&first)).unwrap(), &second));
        releases.undo(&second, "it crashed").unwrap();
        releases.catalogue_fits().unwrap();
        let refused = releases.go_back(8, true, "me").unwrap_err().to_string();
        assert!(refused.contains("no copy of the one that it had"), "{refused}");
        assert_eq!(place.catalogue()[0].as_deref(), Some("new"));
        assert_eq!(releases.read().unwrap().active, Some(first));
    }

    #[test]
    fn a_catalogue_on_another_file_system_comes_back() {
        let shm = tempfile::tempdir_in("/dev/shm").unwrap();
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        let catalogue = shm.path().join("catalogue.db");
        fs::write(&catalogue, "old").unwrap();
        let mut trial = place.trial(&release, None);
        trial.catalogue = Some(catalogue.clone());
        releases.decide(trial, "me", None).unwrap();
        place.launch();
        fs::write(&catalogue, "new").unwrap();
        releases.undo(&release, "it crashed").unwrap();
        assert!(releases.need_catalogue().unwrap());
        assert_eq!(place.launch(), Launch::Stay);
        assert_eq!(fs::read_to_string(&catalogue).unwrap(), "old");
        let aside = shm.path().join("catalogue.db.aside/catalogue.db");
        assert_eq!(fs::read_to_string(aside).unwrap(), "new");
    }

    #[test]
    fn one_goes_back_by_hand() {
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        assert!(releases.go_back(7, false, "me").is_err());
        releases.decide(place.trial(&release, None), "me", None).unwrap();
        place.launch();
        releases.confirm(&release).unwrap();
        place.migrate();
        // The installed program does not know the new schema.
        let refused = releases.go_back(8, false, "me").unwrap_err().to_string();
        assert!(refused.contains("put_catalogue_back"), "{refused}");
        assert_eq!(releases.go_back(8, true, "me").unwrap(), "0.1.0");
        assert!(becomes(&place.launch_of(&releases, &place.program(&release)).unwrap(), None));
        assert_eq!(place.catalogue(), Place::old());
        assert_eq!(place.launch(), Launch::Stay);
        let history = releases.read().unwrap().history;
        assert_eq!((&*history[1].version, &*history[1].from_version), ("0.1.0", "0.2.0"));
        assert!(releases.go_back(7, false, "me").is_err(), "once");
        // While it is on trial, and with the schema as it was.
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        releases.decide(place.trial(&release, None), "me", None).unwrap();
        place.launch();
        releases.go_back(7, false, "me").unwrap();
        releases.confirm(&release).unwrap();
        let state = releases.read().unwrap();
        assert_eq!((state.active, state.history[0].result), (None, UpdateResult::RolledBack));
        assert_eq!(place.launch(), Launch::Stay);
    }

    #[test]
    fn one_process_decides() {
        let place = Place::new();
        let release = place.install("0.2.0");
        place.releases(None).decide(place.trial(&release, None), "me", None).unwrap();
        let data = place.data();
        let launcher = Launcher { data: &data, program: &place.installed, installed: None };
        let (first, watchman, _) = launch(&launcher).unwrap().unwrap();
        assert!(is_watch(&first, &release));
        let refused = launch(&launcher).unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
        assert!(is_on_trial(&data, &release).unwrap());
        drop(watchman);
        // It is served by somebody who knows nothing of it.
        let serve = File::create(data.join("serve.lock")).unwrap();
        flock(&serve, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(launch(&launcher).unwrap().is_none());
        drop(serve);
        assert_eq!(launch(&launcher).unwrap().unwrap().0, Launch::Stay);
    }
}
