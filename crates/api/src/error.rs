//! What can go wrong when the interface is started.

use std::io;

/// The errors of the server. What goes wrong in a request is a [`crate::Problem`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}; is it in use by another program?")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The certificate or its key can't be used.
    #[error("the certificate {path} can't be used: {why}")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A result of the server.
pub type Result<T, E = Error> = std::result::Result<T, E>;
