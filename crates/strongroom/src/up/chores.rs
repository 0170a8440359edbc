//! What the appliance does by itself: it forgets what is old, measures its pools, has images forgotten
//! whose time is over, and removes files that no job will come for.

use std::time::Duration;

use jiff::Timestamp;
use strongroom_appliance::{Administration, Upkeep};
use strongroom_protect::Protect;
use strongroom_storage::Storage;
use tokio::task::JoinHandle;

/// How often it looks whether an hour has begun in which the pools were not measured.
const LOOK: Duration = Duration::from_secs(60);
/// How often it looks for files that nobody needs.
const SWEEP: Duration = Duration::from_secs(300);
/// How often it looks for images whose time is over.
const EXPIRED: Duration = Duration::from_secs(20);

/// Does it until the task is aborted.
pub(super) fn chores(
    upkeep: Upkeep,
    protect: Protect,
    administration: Administration,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::join!(
            upkeep.run(),
            measure(protect.storage()),
            forget(&protect),
            sweep(&administration),
        );
    })
}

/// Removes files that no job will come for.
async fn sweep(administration: &Administration) {
    loop {
        if let Err(error) = administration.sweep().await {
            tracing::warn!("files that nobody needs are not removed: {error}");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Has images forgotten whose time is over.
async fn forget(protect: &Protect) {
    loop {
        tokio::time::sleep(EXPIRED).await;
        if let Err(error) = protect.forget_expired().await {
            tracing::warn!("images whose time is over are not forgotten: {error}");
        }
    }
}

/// Measures the pools once in each hour that has begun.
async fn measure(storage: &Storage) {
    let mut measured = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let hour = Timestamp::now().as_second() / 3600;
        if measured == Some(hour) {
            continue;
        }
        match storage.sample_pools().await {
            Ok(_) => measured = Some(hour),
            Err(error) => tracing::warn!("what pools measure can't be kept: {error}"),
        }
    }
}
