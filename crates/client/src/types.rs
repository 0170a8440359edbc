//! What the native API says, as far as the command line shows it. Fields that aren't needed are
//! left out, and new ones do no harm.

use serde::{Deserialize, Serialize};

/// A page of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether there are more behind them.
    #[serde(default)]
    pub more: bool,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The number.
    pub count: u64,
    /// Whether it is exact; else it is at least that.
    pub exact: bool,
}

/// A job.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What it does.
    pub kind: String,
    /// How it is: `queued`, `running`, or how it ended.
    pub state: String,
    /// What it is about.
    pub object: String,
    /// Who asked for it.
    pub user_name: String,
    /// When it was asked for.
    pub queued_at: String,
    /// When it was begun.
    pub started_at: Option<String>,
    /// When it was over.
    pub ended_at: Option<String>,
    /// The job that does this one's work again.
    pub retried_as: Option<i64>,
    /// How far it is.
    pub progress: Progress,
    /// Why it failed.
    pub error: Option<String>,
    /// What came of it.
    pub result: Option<serde_json::Value>,
}

impl Job {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "queued" | "running")
    }
}

/// What is told of all jobs.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum JobEvent {
    /// A job that changed.
    Job(Box<Job>),
    /// Changes were missed: what there is must be read anew.
    Resync {
        /// Why.
        resync: String,
    },
}

/// How far a job is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Progress {
    /// What it is at.
    pub phase: String,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all, when that is known.
    pub bytes_total: Option<u64>,
    /// Items done.
    pub items_done: u64,
    /// Items in all, when that is known.
    pub items_total: Option<u64>,
    /// In percent, when that is known.
    pub percent: Option<f64>,
    /// Bytes a second.
    pub rate: Option<f64>,
    /// When it will be over if it goes on like that.
    pub estimated_end: Option<String>,
}

/// A line of a job's log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: String,
    /// How grave.
    pub level: String,
    /// What.
    pub message: String,
}

/// A session that was opened.
#[derive(Deserialize)]
pub struct OpenedSession {
    /// What to send with each request.
    pub token: String,
    /// When the token ends at the latest.
    pub expires_at: String,
}

impl std::fmt::Debug for OpenedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenedSession(until {})", self.expires_at)
    }
}

/// What a list can be asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ListMetadata {
    /// Its fields.
    pub fields: Vec<Field>,
    /// The order when none is asked for.
    pub order: String,
}

/// A field of a list.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it means.
    pub description: String,
    /// The operators that filters may use with it.
    pub operators: Vec<String>,
    /// The values that it may have, if it doesn't take any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Whether lists can be sorted by it.
    pub sortable: bool,
    /// Whether keywords are looked for in it.
    pub searched: bool,
}

/// What has a number, a name and a version.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Named {
    /// Its number.
    pub id: i64,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A role.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Role {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The rights that it gives.
    pub rights: Vec<String>,
    /// Counts changes.
    pub version: i64,
}

/// A role that a user has in an organisation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Granted {
    /// The role.
    pub role_id: i64,
    /// The organisation.
    pub organisation_id: i64,
}

/// What a user was granted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Grants {
    /// The roles.
    pub grants: Vec<Granted>,
}

/// Which operations need a second administrator.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApprovalSettings {
    /// Those that were named, by id.
    pub operations: Vec<String>,
    /// Those that do together.
    pub classes: Vec<ApprovalClass>,
    /// In how many hours it must be decided and done.
    pub hours: u32,
    /// Counts changes.
    pub version: i64,
}

/// Operations that are put on the list together.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApprovalClass {
    /// Its name.
    pub name: String,
    /// What its operations do.
    pub meaning: String,
    /// Their ids.
    pub operations: Vec<String>,
    /// Whether they need a second administrator.
    pub on: bool,
}

/// What checking the audit trail came to.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Verdict {
    /// Whether all is as it was written.
    pub sound: bool,
    /// Lines that were checked.
    pub lines: u64,
    /// How much is wrong.
    pub faults: u64,
    /// The first of it.
    pub first: Vec<Fault>,
}

/// Something wrong with a line of the trail.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fault {
    /// The line's number.
    pub line: i64,
    /// What is wrong.
    pub kind: String,
}

/// A pool.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pool {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
}

/// A setting.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// What it is, a whole number of its unit.
    pub value: i64,
    /// What it counts.
    pub unit: String,
    /// Counts changes.
    pub version: i64,
}
