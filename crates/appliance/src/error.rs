//! What can go wrong with the box.

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
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
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
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
