//! Replacing the certificate.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};
use zeroize::Zeroizing;

use super::CERTIFICATE;
use crate::administration::Parts;
use crate::staged::Staged;
use crate::tls::NewCertificate;

/// Its files among the staged.
pub(crate) const PUBLIC: &str = "certificate.pem";
pub(crate) const PRIVATE: &str = "key.pem";
pub(crate) const CHAIN: &str = "chain.pem";

/// Where its files are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateParameters {
    /// The name of the staged files.
    pub(crate) staged: String,
}

#[derive(Debug)]
pub(super) struct CertificateWork {
    pub(super) parts: Parts,
}

impl Work for CertificateWork {
    fn kind(&self) -> &'static str {
        CERTIFICATE
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let read = CertificateParameters::deserialize(parameters).map_err(|e| e.to_string())?;
        match Staged::is_name(&read.staged) {
            true => Ok(()),
            false => Err("the certificate's files have no such name".into()),
        }
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let CertificateParameters { staged } = run.parameters()?;
        let files = &self.parts.staged;
        run.log(Severity::Info, "Validating and adding TLS certificates");
        let Some(certificate) = files.read(&staged, PUBLIC)? else {
            return Err(Failure::Refused("its files are gone: send them again".into()));
        };
        let new = NewCertificate {
            certificate: certificate.to_vec(),
            key: files.read(&staged, PRIVATE)?.unwrap_or_default(),
            chain: files.read(&staged, CHAIN)?.unwrap_or(Zeroizing::default()).to_vec(),
        };
        let done = new.check(Timestamp::now()).and_then(|checked| {
            for warning in &checked.warnings {
                run.log(Severity::Warning, format!("Certificate: {warning}"));
            }
            self.parts.tls.replace(&checked)?;
            Ok(checked)
        });
        // Before it is told, so that a retry of one that was done finds its files.
        let checked = match done {
            Ok(checked) => checked,
            Err(error) => {
                let failure = Failure::from(error);
                run.log(Severity::Error, "TLS certificates were not changed");
                if matches!(failure, Failure::Refused(_)) {
                    files.remove(&staged);
                }
                return Err(failure);
            }
        };
        files.remove(&staged);
        run.log(Severity::Info, "TLS certificates were updated successfully");
        let warnings = !checked.warnings.is_empty();
        let result = json!({"sha256": checked.facts.sha256, "names": checked.facts.names});
        Ok(Outcome { result, warnings })
    }
}
