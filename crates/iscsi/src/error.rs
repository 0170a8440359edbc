//! What can go wrong with a target or a server of targets.

/// The errors of this crate. What initiators do wrong is told to them, and is none of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No name of iSCSI.
    #[error(
        "`{0}` is no iSCSI name: it begins with iqn., eui. or naa. and has at most 223 letters, digits, `-`, `.` and `:`"
    )]
    Name(String),
    /// A user or secret of CHAP that can't be used.
    #[error("CHAP: {0}")]
    Chap(&'static str),
    /// The number is above [`crate::Lun::MAX`].
    #[error("a LUN is a number from 0 to 16383")]
    Lun,
    /// The number is in use.
    #[error("LUN {0} of {1} is mapped already: unmap it first, or take another")]
    LunInUse(u16, String),
    /// There is a target of that name.
    #[error("there is a target {0} already")]
    TargetInUse(String),
    /// An address can't be listened at.
    #[error("can't listen at {address}: {source}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// What was kept of a unit's reservations can't be used.
    #[error("the unit's kept reservations can't be used: {0}")]
    Reservations(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
