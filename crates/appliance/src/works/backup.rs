//! A backup of the appliance itself.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};

use super::APPLIANCE_BACKUP;
use crate::administration::Parts;
use crate::backup::{ArchiveKey, BackupFile, Unmade, make};
use crate::staged::Staged;

/// The file with the key among the staged.
pub(crate) const KEY: &str = "archive.key";

/// Where its key is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupOfAppliance {
    /// The name of the staged files.
    pub(crate) staged: String,
}

#[derive(Debug)]
pub(super) struct BackupWork {
    pub(super) parts: Parts,
}

impl Work for BackupWork {
    fn kind(&self) -> &'static str {
        APPLIANCE_BACKUP
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let read = BackupOfAppliance::deserialize(parameters).map_err(|e| e.to_string())?;
        Staged::check(&read.staged)
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let BackupOfAppliance { staged } = run.parameters()?;
        let made = back_up(&self.parts, run, &staged);
        // One that is drained or failed is tried again.
        if !run.is_draining() && !matches!(made, Err(Failure::Failed(_))) {
            self.parts.staged.remove(&staged);
        }
        let file = made?;
        Ok(outcome(&file))
    }
}

fn outcome(file: &BackupFile) -> Outcome {
    let result = json!({
        "bytes": file.bytes,
        "sha256": file.sha256,
        "made_at": file.made_at,
        "left_out": file.left_out,
    });
    Outcome { result, warnings: !file.complete }
}

/// Makes one with the staged key.
pub(super) fn back_up(parts: &Parts, run: &Run, staged: &str) -> Result<BackupFile, Failure> {
    let Some(key) = parts.staged.read(staged, KEY)? else {
        return Err(Failure::Refused("its key is gone: ask for another backup".into()));
    };
    let key = ArchiveKey::of_bytes(&key);
    let key = key.ok_or_else(|| Failure::Refused("its key is none".into()))?;
    run.log(Severity::Info, "Backing up the appliance");
    let copy = |belongings: &crate::backup::Belongings, path: &str| {
        Ok(run.wait(belongings.catalog.copy_to(path))?)
    };
    let size = |belongings: &crate::backup::Belongings| Ok(run.wait(belongings.catalog.bytes())?);
    match make(parts, &key, &|| !run.is_canceled(), &copy, &size) {
        Ok(file) => {
            let severity = if file.complete { Severity::Info } else { Severity::Warning };
            for what in &file.left_out {
                run.log(severity, format!("Not in it: {what}"));
            }
            run.log(Severity::Info, format!("It has {} bytes", file.bytes));
            Ok(file)
        }
        Err(Unmade::Canceled) => Err(Failure::Canceled),
        Err(Unmade::Failed(error)) => Err(error.into()),
    }
}
