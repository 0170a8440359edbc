//! Replacing the certificate.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};

use super::CERTIFICATE;
use crate::administration::Parts;
use crate::staged::Staged;
use crate::tls::{Checked, NewCertificate, TlsFiles};

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
        Staged::check(&read.staged)
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let CertificateParameters { staged } = run.parameters()?;
        let (files, tls) = (&self.parts.staged, &self.parts.tls);
        run.log(Severity::Info, "Validating and adding TLS certificates");
        let done = self.replace(run, &staged);
        // There is no other try.
        files.remove(&staged);
        let checked = match done {
            Ok(checked) => checked,
            // Whoever was at it before was cut off behind that step.
            Err(_) if was_done(run, tls) => None,
            Err(failure) => {
                run.log(Severity::Error, "TLS certificates were not changed");
                return Err(failure);
            }
        };
        let warnings = checked.is_some_and(|checked| !checked.warnings.is_empty());
        let facts = tls.facts()?;
        run.log(Severity::Info, "TLS certificates were updated successfully");
        let result = json!({"sha256": facts.sha256, "names": facts.names});
        Ok(Outcome { result, warnings })
    }
}

impl CertificateWork {
    fn replace(&self, run: &Run, staged: &str) -> Result<Option<Checked>, Failure> {
        let files = &self.parts.staged;
        let Some(certificate) = files.read(staged, PUBLIC)? else {
            return Err(Failure::Refused("its files are gone: send them again".into()));
        };
        let new = NewCertificate {
            certificate: certificate.to_vec(),
            key: files.read(staged, PRIVATE)?.unwrap_or_default(),
            chain: files.read(staged, CHAIN)?.unwrap_or_default().to_vec(),
        };
        let checked = new.check(Timestamp::now())?;
        for warning in &checked.warnings {
            run.log(Severity::Warning, format!("Certificate: {warning}"));
        }
        let since = self.parts.tls.changed_at().and_then(|at| Timestamp::try_from(at).ok());
        if since.is_some_and(|since| since > run.job().queued_at) {
            let why = "the certificate was replaced since that was asked for: send it again";
            return Err(Failure::Refused(why.into()));
        }
        run.store_checkpoint(&json!({"sha256": checked.facts.sha256}))?;
        self.parts.tls.replace(&checked)?;
        Ok(Some(checked))
    }
}

/// Whether the certificate that is shown is the one that somebody was about to show.
fn was_done(run: &Run, tls: &TlsFiles) -> bool {
    let wanted = run.checkpoint().and_then(|kept| kept["sha256"].as_str());
    wanted.is_some() && tls.facts().is_ok_and(|facts| Some(facts.sha256.as_str()) == wanted)
}
