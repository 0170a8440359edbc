//! Asking an authority for a certificate.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};

use super::CERTIFICATE_ACME;
use crate::administration::Parts;

/// What is set says all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcmeParameters {}

#[derive(Debug)]
pub(super) struct AcmeWork {
    pub(super) parts: Parts,
}

impl Work for AcmeWork {
    fn kind(&self) -> &'static str {
        CERTIFICATE_ACME
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        AcmeParameters::deserialize(parameters).map(drop).map_err(|error| error.to_string())
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        run.go_on()?;
        let acme = self.parts.acme()?;
        run.log(Severity::Info, "Asking the authority for a certificate");
        match run.wait(acme.renew(&self.parts.tls)) {
            Ok(checked) => {
                // That it is signed by one whom nobody knows is what a private authority is.
                for warning in &checked.warnings {
                    run.log(Severity::Info, format!("Certificate: {warning}"));
                }
                let facts = checked.facts;
                let names = facts.names.join(", ");
                run.log(Severity::Info, format!("The certificate is one of {names} now"));
                let result = json!({"sha256": facts.sha256, "names": facts.names});
                Ok(Outcome { result, warnings: false })
            }
            Err(error) => {
                run.log(Severity::Error, "The certificate stays as it was");
                Err(error.into())
            }
        }
    }
}
