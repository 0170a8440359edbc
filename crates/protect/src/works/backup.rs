//! Backing up paths of this machine.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_archive::backup::{Backup, Input, Parent, Progress as Counters};
use strongroom_archive::rules::Rules;
use strongroom_catalog::events::Severity;
use strongroom_engine::id::RootId;
use strongroom_engine::pool::Pool;
use strongroom_storage::Storage;

use super::fenced::Fenced;
use super::{BACKUP, absolute, log_notices, log_troubles, open, understood};
use crate::{Failure, Outcome, Progress, Run, Work};

const MAX_NAME: usize = 256;

/// What to back up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupParameters {
    /// Files and directories, from the root.
    pub paths: Vec<String>,
    /// Instead of paths: a disk, or a file that holds one.
    pub block: Option<String>,
    /// The series that the image belongs to; by default the last name of the first path.
    pub name: Option<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// Rules for what is left out.
    pub excludes: Vec<String>,
    /// Directories marked by a `CACHEDIR.TAG` are kept without their content.
    pub exclude_caches: bool,
    /// Other filesystems are not entered.
    pub one_file_system: bool,
    /// For how many seconds nothing may remove the image.
    pub immutable_seconds: Option<u64>,
    /// For how many seconds the image is kept; then it is forgotten unasked.
    pub keep_seconds: Option<u64>,
    /// All files are read, even those that did not change.
    pub read_all: bool,
    /// The image is stored open although the latest one of its series is sealed under a client's key.
    pub in_clear: bool,
    /// The user that is noted in the image.
    pub user: Option<String>,
}

impl BackupParameters {
    fn check(&self) -> Result<(), String> {
        match (self.paths.is_empty(), &self.block) {
            (true, None) => return Err("nothing to back up: give `paths`, or `block`".into()),
            (false, Some(_)) => return Err("give `paths` or `block`, not both".into()),
            _ => {}
        }
        self.paths.iter().chain(&self.block).try_for_each(|path| absolute(path))?;
        let plain = |text: &&String| {
            !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
        };
        if let Some(bad) = self.name.iter().chain(&self.tags).find(|text| !plain(text)) {
            return Err(format!(
                "{bad:?} is no name or label: they have 1 to {MAX_NAME} bytes, and no control \
                 characters"
            ));
        }
        Rules::new(&self.excludes).map(|_| ()).map_err(|e| e.to_string())
    }

    fn backup(self) -> Backup {
        let seconds = |s: u64| i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        Backup {
            name: self.name,
            input: match self.block {
                Some(path) => Input::Block(path.into()),
                None => Input::Paths(self.paths.into_iter().map(PathBuf::from).collect()),
            },
            tags: self.tags,
            excludes: self.excludes,
            exclude_caches: self.exclude_caches,
            one_file_system: self.one_file_system,
            immutable_for: self.immutable_seconds.map(seconds),
            keep_for: self.keep_seconds.map(seconds),
            parent: if self.read_all { Parent::None } else { Parent::Latest },
            host: None,
            user: self.user,
        }
    }
}

#[derive(Debug)]
pub(super) struct BackupWork {
    pub(super) storage: Storage,
}

impl Work for BackupWork {
    fn kind(&self) -> &'static str {
        BACKUP
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        understood::<BackupParameters>(parameters)?.check()
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: BackupParameters = run.parameters()?;
        parameters.check().map_err(Failure::Refused)?;
        let id = image_id(run)?;
        let pool = open(run, &self.storage)?;
        if pool.root(id).is_some() {
            // Whoever had the job before was cut off between the image and the end of the job. Were it
            // forgotten meanwhile, it would be made anew.
            run.log(Severity::Info, "the image was made already");
            return self.recorded(run, id, json!({}), false);
        }
        let in_clear = parameters.in_clear;
        let backup = parameters.backup();
        backup.must_not_be_sealed(&*pool, in_clear)?;
        let (result, warnings) = make(run, &pool, id, backup)?;
        log_notices(run, &pool);
        self.recorded(run, id, result, warnings)
    }
}

impl BackupWork {
    fn recorded(
        &self,
        run: &Run,
        id: RootId,
        mut result: Value,
        warnings: bool,
    ) -> Result<Outcome, Failure> {
        let recorded = self.storage.record_image(run.pool_id()?, id, Some(run.job().id));
        let image = run.wait(recorded)?;
        result["image"] = image.id.into();
        result["root"] = image.root.into();
        result["name"] = image.name.into();
        Ok(Outcome { result, warnings: warnings || !image.complete })
    }
}

/// The id that the job's image has, however often the job is taken up.
fn image_id(run: &Run) -> Result<RootId, Failure> {
    let known = run.checkpoint().and_then(|value| value["image"].as_str());
    if let Some(id) = known.and_then(RootId::parse) {
        return Ok(id);
    }
    let id = RootId::random();
    run.store_checkpoint(&json!({ "image": id.to_string() }))?;
    Ok(id)
}

fn make(run: &Run, pool: &Arc<Pool>, id: RootId, backup: Backup) -> Result<(Value, bool), Failure> {
    let counters = Arc::new(Counters::default());
    let (sampled, stopped) = (Arc::clone(&counters), Arc::clone(&counters));
    run.sample(move || {
        let counts = sampled.counts();
        Progress {
            phase: "reading".into(),
            bytes_done: counts.read,
            // As far as the walk has come; it is ahead of the reading.
            bytes_total: Some(counts.unread.max(counts.read)),
            items_done: counts.files + counts.dirs + counts.others,
            items_total: None,
        }
    });
    run.on_stop(move || stopped.cancel());
    let outcome = backup.run(Fenced::new(pool, id, run)?, &counters)?;
    run.end_sampling();
    log_troubles(run, &outcome.troubles);
    let (stats, counts) = (outcome.stats, counters.counts());
    let result = json!({
        "files": stats.files,
        "dirs": stats.dirs,
        "others": stats.others,
        "bytes": stats.bytes,
        "bytes_read": counts.read,
        "new_bytes": stats.new_bytes,
        "stored_bytes": stats.stored_bytes,
        "reused_files": stats.reused,
        "healed_chunks": counts.healed,
        "troubles": stats.troubles,
    });
    Ok((result, !outcome.troubles.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_looked_at_before_they_wait() {
        let wrong = |value: Value| {
            let understood = understood::<BackupParameters>(&value);
            understood.and_then(|parameters| parameters.check()).err().unwrap_or_default()
        };
        assert_eq!(wrong(json!({"paths": ["/etc"], "tags": ["a"], "excludes": ["*.o"]})), "");
        assert!(wrong(json!({})).contains("`paths`"));
        assert!(wrong(json!({"paths": ["etc"]})).contains("from the root"));
        assert!(wrong(json!({"paths": ["/etc"], "block": "/dev/sda"})).contains("not both"));
        assert!(wrong(json!({"paths": ["/etc"], "tags": ["a\nb"]})).contains("label"));
        assert!(wrong(json!({"paths": ["/etc"], "path": "/"})).contains("unknown field"));
        assert!(!wrong(json!({"paths": ["/etc"], "excludes": ["[" ]})).is_empty());
    }
}
