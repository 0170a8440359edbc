//! Replacing a disk, and rebuilding what was on it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strongroom_engine::pool::ScrubOptions;
use strongroom_storage::Storage;

use super::scrub::scrub;
use super::{REPLACE_DISK, absolute, understood};
use crate::{Alone, Failure, Outcome, Run, Work};

/// Which disk to replace, and by which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskParameters {
    /// The number of the disk that is replaced.
    pub number: usize,
    /// The new disk's directory, from the root.
    pub disk: String,
}

#[derive(Debug)]
pub(super) struct DiskWork {
    pub(super) storage: Storage,
}

impl Work for DiskWork {
    fn kind(&self) -> &'static str {
        REPLACE_DISK
    }

    fn alone(&self) -> Alone {
        Alone::Wholly
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        absolute(&understood::<DiskParameters>(parameters)?.disk)
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let DiskParameters { number, disk } = run.parameters()?;
        run.hold()?;
        let replaced = self.storage.replace_disk(run.pool_id()?, number, Path::new(&disk));
        let pool = run.wait(replaced)?;
        let options = ScrubOptions { restart: true, ..ScrubOptions::default() };
        let (result, lost) = scrub(run, &pool, options, "rebuilding")?;
        Ok(Outcome { result, warnings: lost })
    }
}
