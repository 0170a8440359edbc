//! Entering a pool that is there already.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_storage::{Import, Storage};

use super::{IMPORT, absolute, understood};
use crate::{Failure, Outcome, Progress, Run, Work};

/// Which pool to enter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportParameters {
    /// The name that it gets.
    pub name: String,
    /// Whose it is; that of the job when it isn't said.
    pub organisation_id: Option<i64>,
    /// Its directory, from the root.
    pub path: String,
    /// Its disks; none: the directory says where they are.
    pub disks: Vec<String>,
    /// What opens it, sealed ([`Storage::seal_waiting`]).
    pub secret: Option<String>,
}

#[derive(Debug)]
pub(super) struct ImportWork {
    pub(super) storage: Storage,
}

impl Work for ImportWork {
    fn kind(&self) -> &'static str {
        IMPORT
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let parameters = understood::<ImportParameters>(parameters)?;
        absolute(&parameters.path)?;
        parameters.disks.iter().try_for_each(|disk| absolute(disk))
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: ImportParameters = run.parameters()?;
        let secret = parameters.secret.map(|text| self.storage.unseal_waiting(&text));
        let import = Import {
            name: parameters.name,
            organisation_id: parameters.organisation_id.unwrap_or(run.job().organisation_id),
            path: parameters.path.into(),
            disks: parameters.disks.into_iter().map(Into::into).collect(),
            secret: secret.transpose()?,
        };
        let meter = super::meter(run, |(done, total)| Progress {
            phase: if total > 0 { "entering images" } else { "opening" }.into(),
            items_done: done,
            items_total: (total > 0).then_some(total),
            ..Progress::default()
        });
        run.hold()?;
        let pool = run.wait(self.storage.import_pool(import, &meter))?;
        run.end_sampling();
        let images = meter.read().0;
        let result =
            json!({ "pool": pool.id, "uuid": pool.uuid, "name": pool.name, "images": images });
        Ok(Outcome { result, warnings: false })
    }
}
