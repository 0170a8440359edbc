//! Scrubbing. The pool itself remembers how far a scrub came.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_catalog::events::Severity;
use strongroom_engine::pool::{Pool, ScrubOptions};
use strongroom_storage::Storage;

use super::{SCRUB, log_notices, metered, open, understood};
use crate::{Alone, Failure, Outcome, Run, Work};

/// How to scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubParameters {
    /// Bytes a second that are read at most.
    pub rate: Option<u64>,
    /// Stop after so many packs; the next scrub goes on from there.
    pub packs: Option<usize>,
    /// Begin with the first pack, even if another scrub stopped half way.
    pub restart: bool,
}

#[derive(Debug)]
pub(super) struct ScrubWork {
    pub(super) storage: Storage,
}

impl Work for ScrubWork {
    fn kind(&self) -> &'static str {
        SCRUB
    }

    fn alone(&self) -> Alone {
        Alone::OfItsKind
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let parameters = understood::<ScrubParameters>(parameters)?;
        match parameters.rate == Some(0) {
            true => Err("a rate of 0 bytes a second would never end".into()),
            false => Ok(()),
        }
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: ScrubParameters = run.parameters()?;
        let pool = open(run, &self.storage)?;
        let ScrubParameters { rate, packs, restart } = parameters;
        let (result, lost) = scrub(run, &pool, ScrubOptions { restart, rate, packs }, "scrubbing")?;
        Ok(Outcome { result, warnings: lost })
    }
}

/// Scrubs; what came of it, and whether something is lost. One that is to begin anew does so once,
/// however often its job is taken up.
pub(super) fn scrub(
    run: &Run,
    pool: &Pool,
    options: ScrubOptions,
    phase: &'static str,
) -> Result<(Value, bool), Failure> {
    let begun = run.checkpoint().is_some_and(|value| value["scrubbing"] == true);
    // A scrub that has no mark yet begins with the first pack anyway.
    let restart = options.restart && !begun;
    let meter = metered(run, phase);
    if restart {
        // One pack from the first on puts the mark there; only then may the job be taken up.
        let first = ScrubOptions { restart: true, packs: Some(0), ..options };
        pool.scrub(first, &meter)?;
    }
    run.store_checkpoint(&json!({ "scrubbing": true }))?;
    let outcome = pool.scrub(ScrubOptions { restart: false, ..options }, &meter)?;
    run.end_sampling();
    log_notices(run, pool);
    for (pack, why) in outcome.lost.iter().chain(&outcome.unreadable) {
        run.log(Severity::Warning, format!("pack {pack}: {why}"));
    }
    if !outcome.lost.is_empty() {
        run.log(Severity::Warning, "run a check for the files that this affects");
    }
    if !outcome.complete {
        run.go_on()?;
    }
    let result = json!({
        "complete": outcome.complete,
        "packs": outcome.packs,
        "bytes_read": outcome.bytes_read,
        "bad_units": outcome.bad_units,
        "bad_shards": outcome.bad_shards,
        "healed": outcome.healed,
        "lost_packs": outcome.lost.len(),
        "unreadable_packs": outcome.unreadable.len(),
        "bad_copies": outcome.bad_copies.len(),
    });
    Ok((result, !outcome.lost.is_empty() || !outcome.unreadable.is_empty()))
}
