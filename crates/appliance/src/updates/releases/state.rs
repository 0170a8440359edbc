//! What is known of releases: which is in force, which was before, what is on trial and what was done.
//! It is one file, which is replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{Releases, sync};
use crate::files;
use crate::{Error, Result};

/// The format of the state.
const FORMAT: u32 = 1;
/// Bytes of the state, and entries of the history.
const STATE: u64 = 1 << 20;
const HISTORY: usize = 200;
/// What a state that nobody understands is called.
pub(super) const BROKEN: &str = "state.json.broken";

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
pub(super) struct Returning {
    pub(super) catalogue: PathBuf,
    /// It is needed.
    pub(super) decided: bool,
}

/// A copy of the catalogue that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    pub(super) catalogue: PathBuf,
    /// Whose catalogue it is.
    pub(super) of: Previous,
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
    pub(super) returning: Option<Returning>,
    /// The copy of the latest trial.
    #[serde(default)]
    pub(super) copy: Option<Copied>,
    /// The release that watches over another, or did: it may be started anew.
    #[serde(default)]
    pub(super) watcher: Option<String>,
    /// The latest last.
    pub(crate) history: Vec<UpdateRecord>,
}

impl State {
    pub(super) fn end(&mut self, release: &str, result: UpdateResult, reason: Option<String>) {
        let mine = |one: &&mut UpdateRecord| {
            one.release.as_deref() == Some(release) && one.result == UpdateResult::Trial
        };
        if let Some(record) = self.history.iter_mut().rev().find(mine) {
            record.result = result;
            record.ended_at = Some(Timestamp::now());
            record.reason = reason;
        }
    }

    pub(super) fn told(&mut self, record: UpdateRecord) {
        self.history.push(record);
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }
}

/// Held while the state is changed.
struct Turn {
    _file: File,
}

impl Releases {
    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    fn turn(&self) -> Result<Turn> {
        self.directory()?;
        let path = self.dir.join("state.lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(Error::file(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::file(&path)(e.into()))?;
        Ok(Turn { _file: file })
    }

    /// What is known; nothing was installed where there is no file.
    pub(crate) fn read(&self) -> Result<State> {
        let path = self.file();
        let text = match files::read(&path, STATE) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(Error::file(&path)(error)),
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
                Err(Error::file(&path)(io::Error::other(text)))
            }
            Err(error) => Err(Error::file(&path)(io::Error::new(ErrorKind::InvalidData, error))),
        }
    }

    /// Moves a state that nobody understands out of the way. One of a newer program stays.
    pub(super) fn set_aside(&self, error: &Error) -> Result<bool> {
        let Error::File { source, .. } = error else { return Ok(false) };
        if source.kind() != ErrorKind::InvalidData {
            return Ok(false);
        }
        let path = self.file();
        fs::rename(&path, self.dir.join(BROKEN)).map_err(Error::file(&path))?;
        sync(&self.dir)?;
        Ok(true)
    }

    fn write(&self, state: &State) -> Result<()> {
        self.step()?;
        let state = State { format: FORMAT, ..state.clone() };
        let text =
            serde_json::to_vec_pretty(&state).map_err(|e| Error::file(&self.file())(e.into()))?;
        files::replace(&self.file(), &text).map_err(Error::file(&self.file()))?;
        sync(&self.data)
    }

    /// Changes what is known, as a whole.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _turn = self.turn()?;
        let mut state = self.read()?;
        let done = change(&mut state)?;
        self.write(&state)?;
        Ok(done)
    }
}
