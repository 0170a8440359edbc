//! Restoring to this machine. One that was cut off begins again, and by default passes over what is
//! there already.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_archive::restore::{self, Progress as Counters, Restore};
use strongroom_archive::rules::Rules;
use strongroom_storage::Storage;

use super::{RESTORE, absolute, log_notices, log_troubles, understood};
use crate::{Failure, Outcome, Progress, Run, Work};

/// What happens to files that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// They stay.
    Never,
    /// They are replaced unless size and time are those of the image.
    #[default]
    Changed,
    /// They are replaced.
    Always,
}

/// What to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestoreParameters {
    /// The image's number in the catalogue.
    pub image: i64,
    /// The path in it whose content goes to the target; empty for the top.
    pub from: String,
    /// Only these paths below it; all if empty.
    pub paths: Vec<String>,
    /// Where to, from the root.
    pub to: String,
    /// Only what these rules fit; all if empty.
    pub include: Vec<String>,
    /// Not what these rules fit.
    pub exclude: Vec<String>,
    /// What happens to files that are there.
    pub overwrite: Overwrite,
    /// Everything is read back and compared.
    pub verify: bool,
    /// Owners by number, not by name.
    pub numeric_owner: bool,
    /// Owners are not set.
    pub no_owner: bool,
}

impl RestoreParameters {
    fn check(&self) -> Result<(), String> {
        absolute(&self.to)?;
        for rules in [&self.include, &self.exclude] {
            Rules::new(rules).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct RestoreWork {
    pub(super) storage: Storage,
}

impl Work for RestoreWork {
    fn kind(&self) -> &'static str {
        RESTORE
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<RestoreParameters>(parameters)?.check()
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: RestoreParameters = run.parameters()?;
        parameters.check().map_err(Failure::Refused)?;
        let (pool, image) = run.wait(self.storage.open_image(parameters.image))?;
        let whole = parameters.from.is_empty()
            && parameters.paths.is_empty()
            && parameters.include.is_empty()
            && parameters.exclude.is_empty();
        let stats = image.meta.stats;
        let totals = whole.then_some((stats.bytes, stats.files + stats.dirs + stats.others));
        let restore = Restore {
            image,
            from: parameters.from.into_bytes(),
            paths: parameters.paths.into_iter().map(String::into_bytes).collect(),
            to: parameters.to.into(),
            include: parameters.include,
            exclude: parameters.exclude,
            overwrite: match parameters.overwrite {
                Overwrite::Never => restore::Overwrite::Never,
                Overwrite::Changed => restore::Overwrite::Changed,
                Overwrite::Always => restore::Overwrite::Always,
            },
            verify: parameters.verify,
            numeric_owner: parameters.numeric_owner,
            no_owner: parameters.no_owner,
        };
        let counters = Arc::new(Counters::default());
        let (sampled, stopped) = (Arc::clone(&counters), Arc::clone(&counters));
        run.sample(move || {
            let counts = sampled.counts();
            Progress {
                phase: if counts.verified > 0 { "verifying" } else { "writing" }.into(),
                bytes_done: counts.bytes,
                bytes_total: totals.map(|(bytes, _)| bytes),
                items_done: counts.files + counts.dirs + counts.others + counts.skipped,
                items_total: totals.map(|(_, items)| items),
            }
        });
        run.on_stop(move || stopped.cancel());
        let outcome = restore.run(&*pool, &counters)?;
        run.end_sampling();
        log_troubles(run, &outcome.troubles);
        log_notices(run, &pool);
        let counts = outcome.counts;
        let result = json!({
            "to": restore.to.to_string_lossy(),
            "files": counts.files,
            "dirs": counts.dirs,
            "others": counts.others,
            "bytes": counts.bytes,
            "skipped": counts.skipped,
            "sockets": counts.sockets,
            "verified": counts.verified,
            "troubles": outcome.troubles.count,
        });
        Ok(Outcome { result, warnings: !outcome.troubles.is_empty() })
    }
}
