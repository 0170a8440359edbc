//! Checking that all images are whole.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_archive::affected::losses;
use strongroom_archive::image::images;
use strongroom_archive::show;
use strongroom_catalog::events::Severity;
use strongroom_engine::pool::Pool;
use strongroom_storage::Storage;

use super::{CHECK, log_notices, metered, open, understood};
use crate::{Failure, Outcome, Run, Work};

/// Affected paths that the result names; the log names more.
const NAMED: usize = 100;

/// How to check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckParameters {
    /// All data is read, and each chunk compared with its id.
    pub read_data: bool,
}

#[derive(Debug)]
pub(super) struct CheckWork {
    pub(super) storage: Storage,
}

impl Work for CheckWork {
    fn kind(&self) -> &'static str {
        CHECK
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<CheckParameters>(parameters).map(|_| ())
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let CheckParameters { read_data } = run.parameters()?;
        let (result, damaged) = check(run, &open(run, &self.storage)?, read_data)?;
        Ok(Outcome { result, warnings: damaged })
    }
}

/// Checks; what came of it, and whether anything is damaged.
pub(super) fn check(
    run: &Run,
    pool: &Arc<Pool>,
    read_data: bool,
) -> Result<(Value, bool), Failure> {
    let meter = metered(run, "checking");
    let report = pool.check(read_data, &meter)?;
    run.end_sampling();
    for (pack, why) in &report.bad_packs {
        run.log(Severity::Warning, format!("pack {pack}: {why}"));
    }
    let mut affected = 0u64;
    let mut named = Vec::new();
    if !report.lost.is_empty() {
        losses(&**pool, &images(&**pool)?.0, &report.lost, &mut |image, path, loss| {
            if run.is_canceled() {
                return Err(strongroom_engine::Error::Canceled.into());
            }
            let (path, what) = (show(path), loss.describe());
            let id = image.id.to_string();
            run.log(Severity::Warning, format!("{} {id}: {path}: {what}", image.name));
            affected += 1;
            if named.len() < NAMED {
                let (name, root) = (&image.name, &id);
                named.push(json!({
                    "name": name, "root": root, "path": path, "what": what,
                }));
            }
            Ok(())
        })?;
    }
    log_notices(run, pool);
    let clean = report.is_clean();
    let result = json!({
        "clean": clean,
        "images": report.roots,
        "nodes": report.nodes,
        "data_chunks": report.data_chunks,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "chunks_read": report.chunks_read,
        "bad_copies": report.bad_copies.len(),
        "unreadable_copies": report.unreadable.len(),
        "lost_chunks": report.lost.len(),
        "bad_packs": report.bad_packs.len(),
        "affected_paths": affected,
        "affected": named,
    });
    Ok((result, !clean))
}
