//! Mending a pool: its superblocks, its index if that is wanted, its disks; then all data is checked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_catalog::events::Severity;
use strongroom_engine::pool::ScrubOptions;
use strongroom_storage::{Mended, Storage};

use super::check::check;
use super::scrub::scrub;
use super::{REPAIR, log_notices, understood};
use crate::{Alone, Failure, Outcome, Progress, Run, Work};

/// How to mend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepairParameters {
    /// First the index is built again from the packs alone.
    pub rebuild_index: bool,
}

#[derive(Debug)]
pub(super) struct RepairWork {
    pub(super) storage: Storage,
}

impl Work for RepairWork {
    fn kind(&self) -> &'static str {
        REPAIR
    }

    fn alone(&self) -> Alone {
        Alone::Wholly
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<RepairParameters>(parameters).map(|_| ())
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let RepairParameters { rebuild_index } = run.parameters()?;
        // Whoever had the job before got as far as the scrub: the index is whole.
        let again = run.checkpoint().is_some_and(|value| value["scrubbing"] == true);
        let meter = super::meter(run, |(done, total)| Progress {
            phase: "building the index".into(),
            items_done: done,
            items_total: (total > 0).then_some(total),
            ..Progress::default()
        });
        run.hold()?;
        let mended = self.storage.mend_pool(run.pool_id()?, rebuild_index && !again, meter);
        let Mended { pool, superblocks, index_entries } = run.wait(mended)?;
        run.end_sampling();
        for disk in &superblocks {
            run.log(Severity::Info, format!("the superblock of disk {disk} was written anew"));
        }
        log_notices(run, &pool);
        let options = ScrubOptions { restart: true, ..ScrubOptions::default() };
        let (scrub, lost) = scrub(run, &pool, options, "scrubbing")?;
        let (check, damaged) = check(run, &Arc::clone(&pool), true)?;
        let result = json!({
            "superblocks": superblocks,
            "index_entries": index_entries,
            "scrub": scrub,
            "check": check,
        });
        Ok(Outcome { result, warnings: lost || damaged })
    }
}
