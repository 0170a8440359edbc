//! What can go wrong with a block device.

/// The errors of a device. Protocols tell them in their own words: RFC 7143 and SPC-4 as sense data, NBD
/// as the numbers of its errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Part of it lies behind the end, or is not a whole number of blocks.
    #[error("{length} bytes at {offset} are not within the device's {size}")]
    OutOfRange {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// Those of the device.
        size: u64,
    },
    /// It may only be read.
    #[error("the device may only be read")]
    ReadOnly,
    /// There is no room for what is written; what was there stays.
    #[error("there is no room for it: free some in the pool, or add a disk")]
    NoSpace,
    /// The bytes can't be had: they are damaged, or a disk that has them is missing.
    #[error("bytes at {offset} can't be read: {why}")]
    Unreadable {
        /// Where the first of them is.
        offset: u64,
        /// Why.
        why: String,
    },
    /// Nothing can be written, or made durable, any more.
    #[error("the device failed: {0}")]
    Failed(String),
    /// It does not do that.
    #[error("the device can't {0}")]
    Unsupported(&'static str),
    /// It was taken away.
    #[error("the device is gone")]
    Gone,
    /// The request contradicts itself or what is there.
    #[error("{0}")]
    Invalid(String),
    /// There is no such volume or snapshot.
    #[error("there is no {0}")]
    NotFound(String),
    /// The pool said no.
    #[error(transparent)]
    Pool(strongroom_engine::Error),
}

impl From<strongroom_engine::Error> for Error {
    fn from(error: strongroom_engine::Error) -> Self {
        match error {
            strongroom_engine::Error::Io { source, .. }
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Self::NoSpace
            }
            error => Self::Pool(error),
        }
    }
}

/// A result of a device.
pub type Result<T, E = Error> = std::result::Result<T, E>;
