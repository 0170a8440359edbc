//! What the box does as jobs.

mod acme;
mod backup;
mod certificate;
mod network;
mod restart;
mod storage;
mod update;

use std::sync::Arc;

use strongroom_protect::{Failure, Work};

use crate::Error;
use crate::administration::Parts;

pub(crate) use acme::AcmeParameters;
pub(crate) use backup::{BackupOfAppliance, KEY as BACKUP_KEY};
pub(crate) use certificate::CertificateParameters;
pub(crate) use network::NetworkParameters;
pub(crate) use restart::RestartParameters;
pub(crate) use storage::{SETTINGS as STORAGE_SETTINGS, StorageParameters};
pub(crate) use update::{PACKAGE, UpdateParameters};

/// The names of the certificate's files among the staged.
pub(crate) mod certificate_files {
    pub(crate) use super::certificate::{CHAIN, PRIVATE, PUBLIC};
}

/// Replacing the certificate.
pub const CERTIFICATE: &str = "certificate";
/// Changing the settings of the network.
pub const NETWORK: &str = "network";
/// Asking an authority for a certificate.
pub const CERTIFICATE_ACME: &str = "certificate_acme";
/// A backup of the appliance itself.
pub const APPLIANCE_BACKUP: &str = "appliance_backup";
/// Restarting the process.
pub const APPLIANCE_RESTART: &str = "appliance_restart";
/// Keeping other storage options.
pub const STORAGE_OPTIONS: &str = "storage_options";

/// Installing an update of the program.
pub const UPDATE: &str = "update";

/// Those whose jobs work with staged files.
pub(crate) const STAGED: &[&str] =
    &[CERTIFICATE, NETWORK, APPLIANCE_BACKUP, APPLIANCE_RESTART, STORAGE_OPTIONS, UPDATE];

/// All works of this crate.
pub(crate) fn all(parts: &Parts) -> Vec<Arc<dyn Work>> {
    vec![
        Arc::new(acme::AcmeWork { parts: parts.clone() }),
        Arc::new(certificate::CertificateWork { parts: parts.clone() }),
        Arc::new(network::NetworkWork { parts: parts.clone() }),
        Arc::new(backup::BackupWork { parts: parts.clone() }),
        Arc::new(restart::RestartWork { parts: parts.clone() }),
        Arc::new(storage::StorageWork { parts: parts.clone() }),
        Arc::new(update::UpdateWork { parts: parts.clone() }),
    ]
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
