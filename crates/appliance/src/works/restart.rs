//! Restarting the process, after a backup.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};

use super::APPLIANCE_RESTART;
use super::backup::back_up;
use crate::administration::Parts;
use crate::staged::Staged;

/// What is done before.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestartParameters {
    /// The name of the staged files of a backup; none: there is none.
    pub(crate) staged: Option<String>,
}

#[derive(Debug)]
pub(super) struct RestartWork {
    pub(super) parts: Parts,
}

impl Work for RestartWork {
    fn kind(&self) -> &'static str {
        APPLIANCE_RESTART
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let read = RestartParameters::deserialize(parameters).map_err(|e| e.to_string())?;
        read.staged.as_deref().map_or(Ok(()), Staged::check)
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let RestartParameters { staged } = run.parameters()?;
        if run.checkpoint().is_some() {
            // The restart came before this was written down.
            return Ok(Outcome { result: json!({ "restarted": true }), warnings: false });
        }
        let mut warnings = false;
        let mut backup = Value::Null;
        if let Some(staged) = &staged {
            let made = back_up(&self.parts, run, staged);
            if !run.is_draining() {
                self.parts.staged.remove(staged);
            }
            match made {
                Ok(file) => backup = json!({"bytes": file.bytes, "sha256": file.sha256}),
                Err(Failure::Canceled) => return Err(Failure::Canceled),
                // A restart may be what is needed for the next one to come about.
                Err(Failure::Refused(why) | Failure::Failed(why) | Failure::Elsewhere(why)) => {
                    warnings = true;
                    run.log(Severity::Warning, format!("There is no backup: {why}"));
                }
            }
        }
        run.go_on()?;
        run.store_checkpoint(&json!({ "restarting": true }))?;
        run.log(Severity::Info, "Restarting");
        self.parts.restart.notify_one();
        Ok(Outcome { result: json!({ "restarted": true, "backup": backup }), warnings })
    }
}
