//! What can go wrong in identity.

use std::path::PathBuf;
use std::time::Duration;

use strongroom_catalog as catalog;

/// The errors of identity. None of them shows a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The catalogue refuses, or can't be used.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The one who asks may not do that.
    #[error("you may not do that: {why}")]
    Forbidden {
        /// Why not, and what would be needed.
        why: String,
    },
    /// There is no such thing, or not for the one who asks.
    #[error("there is no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// The catalogue belongs to another key.
    #[error(
        "this catalogue was made with another appliance's key: put that key's file back; nodes that share a catalogue share the key"
    )]
    OtherKey,
    /// A value can't be taken.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// Nobody could administer the appliance any more.
    #[error(
        "that would leave no administrator who can log in: make another user one first, with the role `administrator` in the topmost organisation"
    )]
    LastAdministrator,
    /// A role that came with the appliance.
    #[error("the role `{name}` came with the appliance and can't be changed: make one of your own")]
    Builtin {
        /// Which.
        name: String,
    },
    /// Something still depends on it.
    #[error("{what} is still in use: {by}")]
    InUse {
        /// What was to be removed.
        what: &'static str,
        /// By what, and what to do.
        by: &'static str,
    },
    /// It isn't in a state in which that can be done.
    #[error("{0}")]
    State(&'static str),
    /// The file with the appliance's key can't be used.
    #[error("the appliance's key {path}: {why}")]
    Key {
        /// Where it is.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// What was sealed can't be opened.
    #[error(
        "the sealed {purpose} can't be opened: it is damaged, or was sealed with another appliance's key; put the right key file back, or enter the secret again"
    )]
    Sealed {
        /// What it is.
        purpose: String,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// A hash could not be made.
    #[error("a password could not be hashed: {0}")]
    Hash(String),
    /// Too many passwords are being checked at once.
    #[error("too many passwords are being checked at once: try again in a moment")]
    Busy,
}

/// A result of identity.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why somebody isn't let in. The texts tell nothing that the one who asks could not know.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Wrong name, password, key, token or signature.
    #[error("these credentials are not valid: check the name, password, key or token")]
    Credentials,
    /// The password was right; a code of the second factor is needed too.
    #[error("a code of the second factor is needed: send it with the name and password")]
    SecondFactor,
    /// Too many failures.
    #[error("too many failed logins: try again in {} seconds", wait.as_secs().max(1))]
    Blocked {
        /// How long to wait.
        wait: Duration,
    },
    /// It was valid once.
    #[error("this session or key has ended: log in again, or have the key renewed")]
    Ended,
    /// The user, the one acted for, or the key is switched off.
    #[error("this user or key is switched off: ask an administrator")]
    Disabled,
    /// A key of a dialect opens that alone, and nothing else opens one.
    #[error("this key or session is for another interface: make a key for this one")]
    OtherInterface,
    /// The renewing token was used before.
    #[error("this refresh token was used before, so its session was ended: log in again")]
    Reused,
    /// The signed request is too old, from the future, or was seen before.
    #[error("this signed request can't be taken: {0}")]
    Stale(&'static str),
    /// It is known who it is, by a directory or issuer, and that this one has no role here.
    #[error("you have no role here: have a group of yours given one by an administrator")]
    NoRole,
    /// It is a passphrase for setting a token, or there is one to be set first.
    #[error("the administration token must be set first, with the passphrase of the first run")]
    FirstRun,
    /// Another has the name.
    #[error("another user has your name already, who didn't come from there: ask an administrator")]
    NameTaken,
    /// The directory or issuer can't be asked.
    #[error("who knows you can't be asked at the moment: try again, or as a user of the appliance")]
    Unreachable,
    /// Something else failed.
    #[error(transparent)]
    Internal(#[from] Error),
}

impl From<catalog::Error> for AuthError {
    fn from(error: catalog::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl AuthError {
    /// What the audit trail calls it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Credentials => "wrong credentials",
            Self::SecondFactor => "second factor missing",
            Self::Blocked { .. } => "blocked",
            Self::Ended => "ended",
            Self::Disabled => "disabled",
            Self::OtherInterface => "another interface",
            Self::Reused => "reused token",
            Self::Stale(_) => "stale",
            Self::NoRole => "no role",
            Self::FirstRun => "first run",
            Self::NameTaken => "name taken",
            Self::Unreachable => "directory can't be asked",
            Self::Internal(_) => "error",
        }
    }
}
