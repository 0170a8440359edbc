//! Giving a pool a new data key. Cut off, it may be given two: that does no harm.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_storage::Storage;

use super::{REKEY, open, understood};
use crate::{Alone, Failure, Outcome, Run, Work};

/// There is nothing to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RekeyParameters {}

#[derive(Debug)]
pub(super) struct RekeyWork {
    pub(super) storage: Storage,
}

impl Work for RekeyWork {
    fn kind(&self) -> &'static str {
        REKEY
    }

    fn alone(&self) -> Alone {
        Alone::OfItsKind
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<RekeyParameters>(parameters).map(|_| ())
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let pool = open(run, &self.storage)?;
        run.hold()?;
        let key = pool.rekey()?;
        Ok(Outcome { result: json!({ "data_key": key }), warnings: false })
    }
}
