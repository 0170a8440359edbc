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
