//! What the appliance does by itself: it forgets what is old, and measures its pools.

use std::time::Duration;

use jiff::Timestamp;
use strongroom_appliance::Upkeep;
use strongroom_storage::Storage;
use tokio::task::JoinHandle;

/// How often it looks whether an hour has begun in which the pools were not measured.
const LOOK: Duration = Duration::from_secs(60);

/// Does it until the task is aborted.
pub(super) fn chores(upkeep: Upkeep, storage: Storage) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::join!(upkeep.run(), measure(&storage));
    })
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
