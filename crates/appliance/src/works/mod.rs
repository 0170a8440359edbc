//! What the box does as jobs.

mod certificate;

use std::sync::Arc;

use strongroom_protect::{Failure, Work};

use crate::Error;
use crate::administration::Parts;

pub(crate) use certificate::CertificateParameters;

/// The names of the certificate's files among the staged.
pub(crate) mod certificate_files {
    pub(crate) use super::certificate::{CHAIN, PRIVATE, PUBLIC};
}

/// Replacing the certificate.
pub const CERTIFICATE: &str = "certificate";

/// All works of this crate.
pub(crate) fn all(parts: &Parts) -> Vec<Arc<dyn Work>> {
    vec![Arc::new(certificate::CertificateWork { parts: parts.clone() })]
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::File { .. } | Error::Catalog(_) => Self::Failed(text),
            _ => Self::Refused(text),
        }
    }
}
