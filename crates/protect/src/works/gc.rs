//! Collecting garbage. One that was cut off has freed what it came to; the next goes on.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_catalog::events::Severity;
use strongroom_engine::pool::{GcOptions, Pool};
use strongroom_storage::Storage;

use super::{GC, log_notices, metered, open, understood};
use crate::{Alone, Failure, Outcome, Run, Work};

/// How to collect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcParameters {
    /// Only say what would be freed.
    pub dry_run: bool,
    /// The part of the pool, 0 to 1, that may stay as garbage inside of packs in use.
    pub max_unused: f64,
}

impl Default for GcParameters {
    fn default() -> Self {
        let options = GcOptions::default();
        Self { dry_run: options.dry_run, max_unused: options.max_unused }
    }
}

impl GcParameters {
    fn check(&self) -> Result<(), String> {
        match (0.0..=1.0).contains(&self.max_unused) {
            true => Ok(()),
            false => Err("max_unused is a part of the pool: 0 to 1".into()),
        }
    }
}

#[derive(Debug)]
pub(super) struct GcWork {
    pub(super) storage: Storage,
}

impl Work for GcWork {
    fn kind(&self) -> &'static str {
        GC
    }

    fn alone(&self) -> Alone {
        Alone::OfItsKind
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<GcParameters>(parameters)?.check()
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: GcParameters = run.parameters()?;
        parameters.check().map_err(Failure::Refused)?;
        let pool = open(run, &self.storage)?;
        let GcParameters { dry_run, max_unused } = parameters;
        let (result, missing) = collect(run, &pool, GcOptions { dry_run, max_unused })?;
        Ok(Outcome { result, warnings: missing })
    }
}

/// Collects; what came of it, and whether chunks are missing.
pub(super) fn collect(
    run: &Run,
    pool: &Pool,
    options: GcOptions,
) -> Result<(Value, bool), Failure> {
    let meter = metered(run, "collecting");
    let report = pool.gc_with(options, &meter)?;
    run.end_sampling();
    log_notices(run, pool);
    if report.missing_chunks > 0 {
        let text = format!("{} chunks are missing: run a check", report.missing_chunks);
        run.log(Severity::Warning, text);
    }
    let result = json!({
        "dry_run": options.dry_run,
        "live_chunks": report.live_chunks,
        "dead_chunks": report.dead_chunks,
        "bytes_before": report.bytes_before,
        "bytes_freed": report.bytes_freed(),
        "bytes_removed": report.bytes_removed,
        "bytes_copied": report.bytes_copied,
        "bytes_unused": report.bytes_unused,
        "packs_removed": report.packs_removed,
        "packs_waiting": report.packs_waiting,
        "missing_chunks": report.missing_chunks,
    });
    Ok((result, report.missing_chunks > 0))
}
