//! The certificate that the appliance shows: what it says, whether another can take its place, and
//! putting that in its place, whole or not at all.

mod check;
mod facts;
mod files;

pub use check::{Checked, NewCertificate, pair};
pub use facts::{CertificateFacts, common_name, facts};
pub(crate) use files::NOTE;
pub use files::{Show, TlsFiles};

/// Bytes of a file with certificates or a key, at most.
pub const MAX_PEM: usize = 1 << 20;
