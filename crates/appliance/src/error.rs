//! What can go wrong with the box.

use std::path::{Path, PathBuf};

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The catalogue refuses, or can't be used.
    #[error(transparent)]
    Catalog(#[from] strongroom_catalog::Error),
    /// The audit trail can't be written.
    #[error(transparent)]
    Identity(#[from] strongroom_identity::Error),
    /// A certificate, its key or its chain can't be taken.
    #[error("{what} can't be used: {why}")]
    Certificate {
        /// Which of them.
        what: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// Settings of the network can't be meant.
    #[error("{field}: {why}")]
    Network {
        /// Which of them.
        field: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// Settings of the application can't be kept.
    #[error("the application's settings can't be kept: {0}")]
    Application(String),
    /// Nothing is sealed under that.
    #[error("the passphrase has {least} to {most} bytes")]
    Passphrase {
        /// The least that it has.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A backup of the appliance can't be restored.
    #[error("the archive can't be restored: {0}")]
    Archive(String),
    /// A file that is sent has too much.
    #[error("the file may have {most} bytes")]
    TooLarge {
        /// What it may have.
        most: u64,
    },
    /// There is no room for it.
    #[error(
        "it has {bytes} bytes, and {room} are free beside those that stay free: make room in the data directory's filesystem"
    )]
    Room {
        /// What it needs.
        bytes: u64,
        /// What there is.
        room: u64,
    },
    /// A piece does not follow what was sent.
    #[error("{there} bytes were sent so far: go on there, or begin anew at 0")]
    Offset {
        /// How much was sent.
        there: u64,
    },
    /// A backup is being restored.
    #[error("a backup is being restored: wait until the appliance has started again")]
    Restoring,
    /// A package of an update can't be taken, or what it brings could not be put in force.
    #[error("{why}")]
    Package {
        /// What is wrong.
        flaw: crate::updates::Flaw,
        /// In words.
        why: String,
    },
    /// There is nothing to be installed.
    #[error("no package was sent")]
    NoPackage,
    /// There is none.
    #[error("there is no backup of the appliance")]
    NoBackup,
    /// It is not known what belongs to this appliance.
    #[error("this process can't back itself up")]
    NotItself,
    /// Another one is at it.
    #[error("job {job} ({kind}) is not over: wait for it, or cancel it")]
    Busy {
        /// What it does.
        kind: &'static str,
        /// Its number.
        job: i64,
    },
    /// A job can't be begun.
    #[error(transparent)]
    Protect(#[from] strongroom_protect::Error),
    /// There is no such setting.
    #[error("there is no setting `{key}`; there are: {known}")]
    Unknown {
        /// What was asked for.
        key: String,
        /// What there is.
        known: String,
    },
    /// A value can't be taken.
    #[error("{key} takes a whole number of {unit} from {least} to {most}")]
    Value {
        /// Of which setting.
        key: &'static str,
        /// What it counts.
        unit: &'static str,
        /// The least that it takes.
        least: u64,
        /// The most.
        most: u64,
    },
    /// That is no licence, or nobody vouches for it.
    #[error("the licence can't be taken: {0}")]
    Licence(String),
    /// The licence that is kept can't be believed.
    #[error("the licence that is kept can't be believed: {0}")]
    LicenceKept(String),
    /// The authority gives no certificate, or can't be asked for one.
    #[error("no certificate by ACME: {0}")]
    Acme(String),
    /// Storage can't be such.
    #[error("storage can't be set so: {0}")]
    Storage(String),
    /// It can't be done as this appliance is set up, or at this moment.
    #[error("{0}")]
    State(String),
    /// A file can't be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The system gives no random bytes, or refuses a key.
    #[error("cryptography fails: {0}")]
    Crypto(&'static str),
}

impl Error {
    /// For `map_err`, with the file that it is about.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
