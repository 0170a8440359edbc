//! What is left of a client's backup when the process ended that received it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_engine::id::RootId;
use strongroom_storage::Storage;

use super::{INGEST, open, understood};
use crate::{Failure, Outcome, Run, Work};

/// What a client makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestParameters {
    /// The id that its image has.
    pub root: String,
}

#[derive(Debug)]
pub(super) struct IngestWork {
    pub(super) storage: Storage,
}

impl Work for IngestWork {
    fn kind(&self) -> &'static str {
        INGEST
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<IngestParameters>(parameters).map(|_| ())
    }

    /// It comes here only when a process ended in which a client was making the image.
    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: IngestParameters = run.parameters()?;
        let gone = "the appliance ended while the client sent; the client must begin anew, what it \
                    sent is found again";
        let pool = open(run, &self.storage)?;
        let root = RootId::parse(&parameters.root).filter(|root| pool.root(*root).is_some());
        let root = root.ok_or_else(|| Failure::Refused(gone.into()))?;
        let recorded = self.storage.record_image(run.pool_id()?, root, Some(run.job().id));
        let image = run.wait(recorded)?;
        let result = json!({ "image": image.id, "root": image.root, "name": image.name });
        Ok(Outcome { result, warnings: !image.complete })
    }
}
