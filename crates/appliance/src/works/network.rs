//! Changing the settings of the network.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};

use super::NETWORK;
use crate::administration::Parts;
use crate::network::{Begun, ChangeOutcome, PendingChange, REQUEST, Request, Step};
use crate::staged::Staged;

/// Where the request is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkParameters {
    /// The name of the staged file.
    pub(crate) staged: String,
}

#[derive(Debug)]
pub(super) struct NetworkWork {
    pub(super) parts: Parts,
}

impl Work for NetworkWork {
    fn kind(&self) -> &'static str {
        NETWORK
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let read = NetworkParameters::deserialize(parameters).map_err(|e| e.to_string())?;
        match Staged::is_name(&read.staged) {
            true => Ok(()),
            false => Err("the settings have no such name".into()),
        }
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let NetworkParameters { staged } = run.parameters()?;
        if run.checkpoint().is_some() {
            self.parts.staged.remove(&staged);
            return self.cut_off(run);
        }
        let files = &self.parts.staged;
        let Some(text) = files.read(&staged, REQUEST)? else {
            return Err(Failure::Refused("the settings are gone: send them again".into()));
        };
        let request: Result<Request, _> = serde_json::from_slice(&text);
        let request = request.map_err(|error| Failure::Refused(error.to_string()))?;
        run.log(Severity::Info, "Validating and changing network settings");
        run.go_on()?;
        // Whoever asked is answered while the appliance is still where it was.
        run.wait(async { tokio::time::sleep(crate::network::ANSWER).await });
        run.store_checkpoint(&json!({ "begun": true }))?;
        let begun = self.parts.network.begin(run.job().id, run.job().queued_at, request);
        files.remove(&staged);
        match begun? {
            Begun::Waits(until, steps) => {
                tell(run, &steps);
                run.log(Severity::Info, format!("It is taken back at {until} unless confirmed"));
                let result = json!({ "state": "waits", "confirm_until": until, "steps": steps });
                Ok(Outcome { result, warnings: false })
            }
            Begun::Over(last) => {
                tell(run, &last.steps);
                let outcome = last.outcome;
                let result = json!({ "state": outcome.word(), "steps": last.steps });
                match outcome {
                    ChangeOutcome::Applied | ChangeOutcome::Stored => {
                        run.log(Severity::Info, "Network settings were updated successfully");
                        Ok(Outcome { result, warnings: false })
                    }
                    ChangeOutcome::Failed | ChangeOutcome::Reverted => {
                        run.log(Severity::Error, "Network settings were not changed");
                        let failed = last.steps.iter().filter(|step| step.is_failed());
                        let failed: Vec<_> = failed.map(ToString::to_string).collect();
                        let why = last.why.unwrap_or_default();
                        Err(Failure::Refused(format!("{why}: {}", failed.join("; "))))
                    }
                }
            }
        }
    }
}

impl NetworkWork {
    /// Whoever was at it died; what was done is settled by now.
    fn cut_off(&self, run: &Run) -> Result<Outcome, Failure> {
        let status = self.parts.network.status()?;
        let this = (run.job().id, Some(run.job().queued_at));
        let waits = |change: &PendingChange| {
            (change.job, change.asked_at) == this && change.until.is_some()
        };
        if status.pending.as_ref().is_some_and(waits) {
            return Ok(Outcome { result: json!({ "state": "waits" }), warnings: false });
        }
        match status.last {
            Some(last) if (last.job, last.asked_at) == this && last.why.is_none() => {
                let result = json!({ "state": last.outcome.word(), "steps": last.steps });
                Ok(Outcome { result, warnings: false })
            }
            _ => {
                let why = "the process ended while it was being applied: ask again";
                Err(Failure::Refused(why.into()))
            }
        }
    }
}

fn tell(run: &Run, steps: &[Step]) {
    for step in steps {
        let severity = match step.is_failed() {
            true => Severity::Error,
            false => Severity::Info,
        };
        run.log(severity, step.to_string());
    }
}
