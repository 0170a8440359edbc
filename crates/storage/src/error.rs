//! What can go wrong with pools and images.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// This crate's errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The catalogue said no.
    #[error(transparent)]
    Catalog(#[from] strongroom_catalog::Error),
    /// The archive said no.
    #[error(transparent)]
    Archive(#[from] strongroom_archive::Error),
    /// The pool said no.
    #[error(transparent)]
    Pool(#[from] strongroom_engine::Error),
    /// The request contradicts itself, or what is there.
    #[error("{0}")]
    Invalid(String),
    /// The pool is closed for a while.
    #[error("the pool {pool} is closed: {why}; try again when that is over")]
    Closed {
        /// Which.
        pool: String,
        /// What is going on.
        why: &'static str,
    },
    /// The pool can't be closed, because somebody uses it.
    #[error("the pool {pool} is being used by somebody who reads or writes; try again later")]
    Used {
        /// Which.
        pool: String,
    },
    /// The pool can't be closed, because volumes of it are served.
    #[error(
        "volumes of the pool {pool} are served: {volumes}; take them off their targets and exports \
         first"
    )]
    Serving {
        /// Which pool.
        pool: String,
        /// Which volumes.
        volumes: String,
    },
    /// The pool stopped writing after an error, and can't begin anew while volumes of it are served.
    #[error(
        "the pool {pool} stopped writing after an error; it is opened anew once nobody serves its \
         volumes any more: {volumes}"
    )]
    Stopped {
        /// Which pool.
        pool: String,
        /// Which volumes.
        volumes: String,
    },
    /// A volume said no.
    #[error(transparent)]
    Block(strongroom_block::Error),
    /// The volume can't be removed, because targets have it or somebody serves it.
    #[error(
        "the volume {volume} is served by {by}: take it off there first; clients of NBD alone are let \
         go by force (--force)"
    )]
    VolumeServed {
        /// Which volume.
        volume: String,
        /// By whom.
        by: String,
    },
    /// The volume would change under those that are connected to it.
    #[error(
        "initiators are logged in that use the volume {volume} ({by}), and would not notice that it \
         becomes another: have them log out, or force it"
    )]
    VolumeInUse {
        /// Which volume.
        volume: String,
        /// Through what.
        by: String,
    },
    /// The pool's disks are on another machine.
    #[error("the disks of the pool {pool} are on {node}: ask there")]
    OtherNode {
        /// Which pool.
        pool: String,
        /// Which machine.
        node: String,
    },
    /// A secret can't be sealed or unsealed.
    #[error("the secret of the pool {pool} can't be {what}: {why}")]
    Seal {
        /// Whose.
        pool: String,
        /// `sealed` or `unsealed`.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A secret of an auth group can't be sealed or unsealed.
    #[error("the secret of the auth group {group} can't be {what}: {why}")]
    Sealed {
        /// Whose.
        group: String,
        /// `sealed` or `unsealed`.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Others depend on it.
    #[error("{0}")]
    InUse(String),
    /// The image was forgotten, or its pool doesn't have it any more.
    #[error("the image {root} is no longer in its pool")]
    Gone {
        /// Which.
        root: String,
    },
    /// The image would be kept for less long, which was not allowed.
    #[error("that would shorten how long the image is kept")]
    Shortens,
    /// There is no such reader.
    #[error(
        "there is no such reader of the pool: it was closed, or idle for too long; open another"
    )]
    NoReader,
    /// Too many are open.
    #[error("too many readers are open: close some, or try again later")]
    TooManyReaders,
    /// A chunk was asked for that this reader was not shown.
    #[error("there is no such chunk for this reader: it was shown no reference to it")]
    NotShown,
    /// Several images fit what was asked for.
    #[error("{what} fits several images; give more digits of the id")]
    Ambiguous {
        /// What was asked for.
        what: String,
    },
    /// A session that a client fills is over.
    #[error("the session is over: {why}; begin another, what was sent is found again")]
    IngestOver {
        /// Why.
        why: &'static str,
    },
    /// There are too many sessions that clients fill.
    #[error("too many clients send their backups at the moment; try again later")]
    Crowded,
    /// A file or directory of this machine can't be used.
    #[error("{path}: {source}")]
    Local {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The work was ended because the program ends, or by a fault in it.
    #[error("the work on the pool was ended; the log of the appliance says why")]
    Ended,
}

impl From<strongroom_block::Error> for Error {
    fn from(error: strongroom_block::Error) -> Self {
        match error {
            strongroom_block::Error::Invalid(text) => Self::Invalid(text),
            strongroom_block::Error::Pool(error) => Self::Pool(error),
            error => Self::Block(error),
        }
    }
}

impl Error {
    /// Whether another process has the pool.
    pub fn is_elsewhere(&self) -> bool {
        use strongroom_engine::Error as Pool;
        let pool = match self {
            Self::Pool(pool) | Self::Archive(strongroom_archive::Error::Pool(pool)) => pool,
            _ => return false,
        };
        matches!(pool, Pool::InUse { .. })
    }

    /// Whether the work was asked to stop.
    pub fn is_canceled(&self) -> bool {
        match self {
            Self::Pool(strongroom_engine::Error::Canceled) => true,
            Self::Archive(error) => error.is_canceled(),
            _ => false,
        }
    }

    pub(crate) fn local(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Local { path: path.display().to_string(), source }
    }
}
