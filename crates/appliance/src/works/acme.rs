//! Asking an authority for a certificate.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};
use tokio::sync::Notify;

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
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        run.on_stop(move || stop.notify_one());
        // An authority takes minutes. What it gives to who no longer waits is given again.
        let asked = run.wait(async {
            tokio::select! {
                done = acme.renew(&self.parts.tls) => Some(done),
                () = stopped.notified() => None,
            }
        });
        match asked.ok_or(Failure::Canceled)? {
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
