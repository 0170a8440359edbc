//! What can go wrong with jobs.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// This crate's errors. What goes wrong within a job is a [`crate::Failure`] of that job instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The catalogue said no.
    #[error(transparent)]
    Catalog(#[from] strongroom_catalog::Error),
    /// The storage said no.
    #[error(transparent)]
    Storage(#[from] strongroom_storage::Error),
    /// There is no such work.
    #[error("no job is called {kind}; there are: {known}")]
    Unknown {
        /// What was asked for.
        kind: String,
        /// What there is.
        known: String,
    },
    /// The parameters are not what that work takes.
    #[error("{0}")]
    Invalid(String),
    /// The engine is stopping.
    #[error("the appliance is stopping and takes no new jobs; ask again when it is up")]
    Stopping,
}
