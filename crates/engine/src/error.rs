//! What can go wrong in a pool, and what the user can do about it.

use std::io;

use crate::codec::DecodeError;
use crate::id::{ChunkId, PackId, RootId};

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a pool. Each message says what failed; where the user can act, also how.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk or filesystem said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and where.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something on disk is not what was written, and no copy or parity could mend it.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Which file or record.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A chunk that is referred to is not in the pool.
    #[error("chunk {id} is not in the pool; run `pool check` for the list of what it affects")]
    ChunkMissing {
        /// Its content address.
        id: ChunkId,
    },
    /// A chunk is there, but can be read from no disk.
    #[error("chunk {id} in pack {pack} can't be read: {why}")]
    ChunkUnreadable {
        /// Its content address.
        id: ChunkId,
        /// The pack that should hold it.
        pack: PackId,
        /// What was wrong.
        why: String,
    },
    /// A chunk was handed in under an id that its content doesn't have.
    #[error(
        "what was sent as chunk {id} has other content than that id says; nothing of it was taken"
    )]
    Forged {
        /// What it was said to be.
        id: ChunkId,
    },
    /// Another process has the pool.
    #[error("the pool is in use: {holder}")]
    InUse {
        /// Who, doing what, since when.
        holder: String,
    },
    /// The pool can't be opened for writing.
    #[error("the pool is open for reading only: {why}")]
    ReadOnly {
        /// Why that is.
        why: String,
    },
    /// The pool is encrypted and no secret was given.
    #[error("the pool is encrypted: give its secret with --password-file or --password-command")]
    SecretNeeded,
    /// No key slot opens with the secret given.
    #[error("wrong password or key: no key slot of the pool opens with it")]
    WrongSecret,
    /// What was found is not a pool.
    #[error("{path} is not a pool: {why}")]
    NotAPool {
        /// Where it was looked for.
        path: String,
        /// What is missing.
        why: String,
    },
    /// The pool was written by a version that knows more.
    #[error("the pool needs {feature}, which this version does not know; use a newer one")]
    Unsupported {
        /// What it needs.
        feature: String,
    },
    /// Too many disks are missing.
    #[error("{missing} of {total} disks are missing or failed, the layout survives {tolerated}")]
    TooFewDisks {
        /// How many are not to be had.
        missing: usize,
        /// How many the pool has.
        total: usize,
        /// How many may be lost.
        tolerated: usize,
    },
    /// Disks of the same pool have histories that contradict each other.
    #[error(
        "disks disagree: {why}; each was written without the other. Import the one to keep alone, \
         then `pool disk-replace` the other"
    )]
    Diverged {
        /// Which disks, and where their histories part.
        why: String,
    },
    /// A root may not be removed or shortened yet.
    #[error("image {id} is immutable until pool time {until}; nothing can remove it before")]
    Immutable {
        /// Which.
        id: RootId,
        /// Until when, as text.
        until: String,
    },
    /// No such root.
    #[error("there is no image {id} in the pool")]
    NoSuchRoot {
        /// Which.
        id: String,
    },
    /// The request contradicts itself or the pool.
    #[error("{0}")]
    Invalid(String),
    /// An earlier write failed; what is on disk is whole, but this process must not go on writing.
    #[error(
        "the pool stopped writing after an error ({why}); nothing that was confirmed is lost. \
             Mend the cause and run the command again"
    )]
    Stopped {
        /// The first error.
        why: String,
    },
    /// The pool is elsewhere, and can't be reached any more.
    #[error("the pool can't be reached any more: {why}")]
    Unreachable {
        /// Why.
        why: String,
    },
    /// The caller asked to stop.
    #[error("canceled")]
    Canceled,
}

impl Error {
    /// An [`Error::Io`] that names what was being done.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// An [`Error::Damaged`].
    pub fn damaged(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Damaged { what: what.into(), why: why.to_string() }
    }

    /// Whether all further work is in vain, and not only that on one file.
    pub fn ends_all(&self) -> bool {
        matches!(self, Self::Canceled | Self::Unreachable { .. })
    }

    /// Of reading: whether it was read and is wrong, or is not there, so that no other try makes it
    /// good. A disk that is missing or gave an error says nothing of what is on it.
    pub(crate) fn is_for_good(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::ChunkUnreadable { .. })
    }

    /// For `map_err`: a record that can't be decoded.
    pub fn decoding(what: &str) -> impl FnOnce(DecodeError) -> Self + '_ {
        move |why| Self::damaged(what, why)
    }
}
