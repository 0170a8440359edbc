//! What jobs do with pools and images.

mod backup;
mod check;
mod disk;
mod fenced;
mod forget;
mod gc;
mod import;
mod ingest;
mod rekey;
mod repair;
mod restore;
mod scrub;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use strongroom_archive::Troubles;
use strongroom_catalog::events::Severity;
use strongroom_engine::pool::{Meter, Pool};
use strongroom_storage::Storage;

pub use backup::BackupParameters;
pub use check::CheckParameters;
pub use disk::DiskParameters;
pub use forget::ForgetParameters;
pub use gc::GcParameters;
pub use import::ImportParameters;
pub use ingest::IngestParameters;
pub use rekey::RekeyParameters;
pub use repair::RepairParameters;
pub use restore::{Overwrite, RestoreParameters};
pub use scrub::ScrubParameters;

use crate::{Failure, Progress, Run, Work};

/// A backup of paths of this machine.
pub const BACKUP: &str = "backup";
/// A restore to this machine.
pub const RESTORE: &str = "restore";
/// A collection of garbage.
pub const GC: &str = "gc";
/// A scrub of the disks.
pub const SCRUB: &str = "scrub";
/// A check that all images are whole.
pub const CHECK: &str = "check";
/// Forgetting images by rules.
pub const FORGET: &str = "forget";
/// Replacing a disk.
pub const REPLACE_DISK: &str = "disk_replace";
/// Mending a pool.
pub const REPAIR: &str = "repair";
/// A new data key.
pub const REKEY: &str = "rekey";
/// Entering a pool that is there.
pub const IMPORT: &str = "import";
/// A backup that a client elsewhere makes.
pub const INGEST: &str = "ingest";

/// All works of this crate.
pub fn all(storage: &Storage) -> Vec<Arc<dyn Work>> {
    vec![
        Arc::new(backup::BackupWork { storage: storage.clone() }),
        Arc::new(restore::RestoreWork { storage: storage.clone() }),
        Arc::new(gc::GcWork { storage: storage.clone() }),
        Arc::new(scrub::ScrubWork { storage: storage.clone() }),
        Arc::new(check::CheckWork { storage: storage.clone() }),
        Arc::new(forget::ForgetWork { storage: storage.clone() }),
        Arc::new(disk::DiskWork { storage: storage.clone() }),
        Arc::new(repair::RepairWork { storage: storage.clone() }),
        Arc::new(rekey::RekeyWork { storage: storage.clone() }),
        Arc::new(import::ImportWork { storage: storage.clone() }),
        Arc::new(ingest::IngestWork { storage: storage.clone() }),
    ]
}

/// Parameters as anybody may see them who sees the job: without secrets, also sealed ones.
pub fn shown(mut parameters: Value) -> Value {
    if let Some(secret) = parameters.get_mut("secret").filter(|secret| !secret.is_null()) {
        *secret = Value::Null;
    }
    parameters
}

/// Reads parameters as their work will.
fn understood<T: DeserializeOwned>(parameters: &Value) -> Result<T, String> {
    T::deserialize(parameters).map_err(|e| format!("the parameters are not understood: {e}"))
}

/// Paths must be absolute: nobody knows where the appliance was started.
fn absolute(path: &str) -> Result<(), String> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(()),
        false => Err(format!("{path:?} is not a path from the root, like /srv/data")),
    }
}

/// A meter that the job's progress is read from and that ends with the job.
fn metered(run: &Run, phase: &'static str) -> Arc<Meter> {
    meter(run, move |(done, total)| Progress {
        phase: phase.into(),
        bytes_done: done,
        bytes_total: (total > 0).then_some(total),
        ..Progress::default()
    })
}

/// As [`metered`], for what isn't counted in bytes.
fn meter(run: &Run, told: impl Fn((u64, u64)) -> Progress + Send + 'static) -> Arc<Meter> {
    let meter = Arc::new(Meter::new());
    let (sampled, stopped) = (Arc::clone(&meter), Arc::clone(&meter));
    run.sample(move || told(sampled.read()));
    run.on_stop(move || stopped.cancel());
    meter
}

/// Tells what went wrong with single paths.
fn log_troubles(run: &Run, troubles: &Troubles) {
    for trouble in &troubles.first {
        run.log(Severity::Warning, format!("{}: {}", trouble.path, trouble.what));
    }
    let more = troubles.count.saturating_sub(troubles.first.len() as u64);
    if more > 0 {
        run.log(Severity::Warning, format!("{more} more paths had trouble"));
    }
}

/// Tells what the pool has to say, though it went well.
fn log_notices(run: &Run, pool: &Pool) {
    for notice in pool.take_notices() {
        run.log(Severity::Info, notice);
    }
}

/// The job's pool, open.
fn open(run: &Run, storage: &Storage) -> Result<Arc<Pool>, Failure> {
    Ok(run.wait(storage.open(run.pool_id()?))?)
}
