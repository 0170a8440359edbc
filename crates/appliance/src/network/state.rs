//! What is kept of the settings, in one file that is replaced whole: cut off anywhere, a change is not
//! there yet, waits to be confirmed, or is over.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::host::{Captured, Step};
use super::settings::NetworkSettings;
use crate::{Error, Result, files};

/// Its bytes at most: two documents, and what there was before.
const MOST: u64 = 4 << 20;
/// How many changes that were taken back are kept for the audit trail.
const UNTOLD: usize = 16;

/// The settings of the network, as they were set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetNetwork {
    /// What they say.
    pub settings: NetworkSettings,
    /// As a dialect's script has written them, with what it said beside.
    pub given: Option<Document>,
    /// When they were.
    pub set_at: Timestamp,
}

/// A change that is not over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    /// The job that makes it.
    pub(super) job: i64,
    /// When that was asked for: a catalogue before this one may have had a job of the same number.
    pub(super) asked_at: Option<Timestamp>,
    /// Who asked for it.
    pub(super) by: String,
    /// Whether the next call of the dialect confirms it.
    pub(super) by_dialect: bool,
    pub(super) network: SetNetwork,
    /// Set together with it; none: that stays as it is.
    pub(super) application: Option<Document>,
    /// Whether somebody may no longer reach the appliance after it.
    pub(super) moves: bool,
    pub(super) before: Captured,
    pub(super) steps: Vec<Step>,
    /// The start of the machine in which it was begun.
    pub(super) boot: String,
    /// None: it is being applied.
    pub(super) until: Option<Until>,
}

/// Until when it can be confirmed, by the clock that nobody sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Until {
    /// For people.
    pub(super) at: Timestamp,
    /// The start of the machine that the rest is about.
    pub(super) boot: String,
    /// Milliseconds since then.
    pub(super) ticks: u64,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    /// It is kept, and the machine is as it says.
    Applied,
    /// It is kept; nobody brings it to the machine.
    Stored,
    /// It could not be applied; what there was is back.
    Failed,
    /// Nobody confirmed it; what there was is back.
    Reverted,
}

impl ChangeOutcome {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Stored => "stored",
            Self::Failed => "failed",
            Self::Reverted => "reverted",
        }
    }
}

/// The last change that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastChange {
    /// The job that made it.
    pub job: i64,
    /// When that was asked for: a catalogue before this one may have had a job of the same number.
    pub asked_at: Option<Timestamp>,
    /// What came of it.
    pub outcome: ChangeOutcome,
    /// When.
    pub at: Timestamp,
    /// Why it was not kept.
    pub why: Option<String>,
    /// What was done, and what was not.
    pub steps: Vec<Step>,
}

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) network: Option<SetNetwork>,
    pub(super) application: Option<Document>,
    pub(super) pending: Option<Pending>,
    pub(super) last: Option<LastChange>,
    /// The start of the machine since which it is as it is set.
    pub(super) boot: Option<String>,
    /// Why changes were taken back, where the audit trail doesn't say so yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) untold: Vec<String>,
}

impl State {
    /// The audit trail is to say that a change was taken back.
    pub(super) fn add_untold(&mut self, why: &str) {
        let more = (self.untold.len() + 1).saturating_sub(UNTOLD);
        self.untold.drain(..more);
        self.untold.push(why.to_owned());
    }
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("settings.json")
    }

    pub(super) fn read(&self) -> Result<State> {
        let path = self.path();
        match files::read(&path, MOST) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::file(&path)(std::io::Error::other(error))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }

    pub(super) fn write(&self, state: &State) -> Result<()> {
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700).create(&self.dir).map_err(Error::file(&self.dir))?;
        let path = self.path();
        let text = serde_json::to_vec(state)
            .map_err(|error| Error::file(&path)(std::io::Error::other(error)))?;
        files::replace(&path, &text).map_err(Error::file(&path))
    }
}
