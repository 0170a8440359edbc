//! Keeping other storage options.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};

use super::STORAGE_OPTIONS;
use crate::administration::Parts;
use crate::staged::Staged;

/// The file with the settings among the staged, which is sealed: a password may be among them.
pub(crate) const SETTINGS: &str = "storage.sealed";

/// Where they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StorageParameters {
    /// The name of the staged files.
    pub(crate) staged: String,
}

#[derive(Debug)]
pub(super) struct StorageWork {
    pub(super) parts: Parts,
}

impl Work for StorageWork {
    fn kind(&self) -> &'static str {
        STORAGE_OPTIONS
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let read = StorageParameters::deserialize(parameters).map_err(|e| e.to_string())?;
        Staged::check(&read.staged)
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let StorageParameters { staged } = run.parameters()?;
        run.log(Severity::Info, "Validating and updating storage settings");
        let done = self.keep(run, &staged);
        // There is no other try.
        self.parts.staged.remove(&staged);
        if done.is_err() {
            run.log(Severity::Error, "Storage settings were not changed");
        }
        done
    }
}

impl StorageWork {
    fn keep(&self, run: &Run, staged: &str) -> Result<Outcome, Failure> {
        let Some(sealed) = self.parts.staged.read(staged, SETTINGS)? else {
            if run.checkpoint().is_some() {
                // Whoever was at it before was cut off behind that step.
                return Ok(Outcome { result: json!({ "kept": true }), warnings: false });
            }
            return Err(Failure::Refused("they are gone: send them again".into()));
        };
        let storage = self.parts.storage()?;
        let settings = storage.unseal(&sealed)?;
        let kind = settings.kind();
        // They are kept as they were said, as scripts expect; what won't come of them is told.
        let mut warnings = storage.lacks(kind);
        warnings.extend(settings.check().err().map(|error| error.to_string()));
        for warning in &warnings {
            run.log(Severity::Warning, format!("It can't be attached: {warning}"));
        }
        storage.keep(settings)?;
        run.store_checkpoint(&json!({ "kept": true }))?;
        run.log(Severity::Info, "Storage settings were updated: the next start applies them");
        let result = json!({ "kept": true, "type": kind.word() });
        Ok(Outcome { result, warnings: !warnings.is_empty() })
    }
}
