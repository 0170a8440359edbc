//! What the native API says, as far as the command line shows it. Fields that aren't needed are
//! left out, and new ones do no harm.

use serde::{Deserialize, Serialize};

/// A page of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
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
}

/// A line of a job's log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line {
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
