//! What can go wrong between a client and an appliance.

use std::path::PathBuf;

use serde::Deserialize;

use crate::Fingerprint;

/// What an appliance says when it refuses: problem details (RFC 9457).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Problem {
    /// The status of the answer.
    #[serde(default)]
    pub status: u16,
    /// What it is; never changes its meaning.
    #[serde(default)]
    pub code: String,
    /// In a few words.
    #[serde(default)]
    pub title: String,
    /// What was wrong with this request.
    #[serde(default)]
    pub detail: Option<String>,
    /// By what name the appliance knows the request.
    #[serde(default)]
    pub request_id: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.detail {
            Some(detail) => f.write_str(detail),
            None if self.title.is_empty() => write!(f, "it answered {}", self.status),
            None => f.write_str(&self.title),
        }
    }
}

/// The client's errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody is there.
    #[error("no appliance answers at {place}: {source}")]
    Unreachable {
        /// Where.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// It has another certificate than it should.
    #[error(
        "{place} has a certificate with the fingerprint {found}, and not the one that was trusted \
         when you logged in: if it was replaced on purpose, log in again"
    )]
    OtherCertificate {
        /// Who.
        place: String,
        /// What it has.
        found: Fingerprint,
    },
    /// The appliance refused.
    #[error("{0}")]
    Refused(Problem),
    /// The request can't be sent.
    #[error("the request can't be sent: {0}")]
    Unsendable(String),
    /// The connection broke, or what came is no answer.
    #[error("the appliance at {place} gave no proper answer: {why}")]
    Broken {
        /// Who.
        place: String,
        /// What was wrong.
        why: String,
    },
    /// What was given is no address of an appliance.
    #[error("`{0}` is not the address of an appliance: give https://HOST:PORT")]
    Address(String),
    /// A file of this machine can't be used.
    #[error("{}: {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of this machine has the wrong content.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// Whether the appliance said that this caller may not do that.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 403)
    }
}

/// A result of the client.
pub type Result<T, E = Error> = std::result::Result<T, E>;
