//! What the appliance does by itself: it forgets what is old, measures its pools, has images forgotten
//! whose time is over and garbage collected, makes snapshots of volumes that are due, measures volumes and looks for
//! those that are nearly full, notes what the machine's disks do, removes files that no job will come for, backs itself up, has its certificate
//! renewed, tries again to attach storage, and takes changes of the network back that nobody confirms.

use std::time::Duration;

use jiff::Timestamp;
use strongroom_appliance::backup::Scheduled;
use strongroom_appliance::{Administration, Hardware, Settings, Upkeep};
use strongroom_identity::Identity;
use strongroom_protect::Protect;
use strongroom_storage::Storage;
use tokio::task::JoinHandle;

use super::follow;

/// How often it looks whether an hour has begun in which the pools were not measured.
const LOOK: Duration = Duration::from_secs(60);
/// How often it looks for files that nobody needs.
const SWEEP: Duration = Duration::from_secs(300);
/// How often it looks for images whose time is over.
const EXPIRED: Duration = Duration::from_secs(20);
/// How often it looks for pools whose garbage is worth collecting.
const GARBAGE: Duration = Duration::from_secs(15);
/// How often it looks for snapshots of volumes that are due.
const SNAPSHOTS: Duration = Duration::from_secs(10);
/// How often it notes what disks have done.
const TRAFFIC: Duration = Duration::from_secs(5);
/// How often it tries to attach storage that could not be attached.
const ATTACH: Duration = Duration::from_secs(300);

/// Does it until the task is aborted.
pub(super) fn chores(
    upkeep: Upkeep,
    protect: Protect,
    settings: Settings,
    identity: Identity,
    administration: Administration,
    hardware: Hardware,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::join!(
            upkeep.run(),
            measure(protect.storage()),
            forget(&protect),
            collect(&settings, &protect),
            snapshot(protect.storage()),
            measure_volumes(protect.storage()),
            sweep(&administration),
            back_up(&settings, &identity, &administration),
            administration.watch_network(&identity),
            renew(&identity, &administration),
            attach(&administration),
            watch(&settings, protect.storage()),
            note_traffic(&hardware),
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

/// Has garbage collected where that is worth it.
async fn collect(settings: &Settings, protect: &Protect) {
    loop {
        tokio::time::sleep(GARBAGE).await;
        let when = follow::collecting(&settings.current());
        if let Err(error) = protect.collect_garbage(&when).await {
            tracing::warn!("garbage is not collected: {error}");
        }
    }
}

/// Has snapshots of volumes made that are due, and those removed that are too many.
async fn snapshot(storage: &Storage) {
    loop {
        tokio::time::sleep(SNAPSHOTS).await;
        if let Err(error) = storage.run_snapshot_schedules().await {
            tracing::warn!("snapshots of volumes that are due are not made: {error}");
        }
    }
}

/// Measures the volumes that were changed.
async fn measure_volumes(storage: &Storage) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = storage.measure_volumes().await {
            tracing::warn!("what volumes hold is not measured: {error}");
        }
    }
}

/// Backs the appliance up whenever the settings say that it is time.
async fn back_up(settings: &Settings, identity: &Identity, administration: &Administration) {
    let mut warned = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let (values, now) = (settings.current(), Timestamp::now());
        match administration.back_up_when_due(identity, &values, now).await {
            Ok(Scheduled::NotDue) => {}
            Ok(Scheduled::Done) => tracing::info!("the appliance was backed up"),
            Ok(Scheduled::Failed(job)) => {
                tracing::error!("the scheduled backup of the appliance failed: see job {job}");
            }
            Ok(Scheduled::NoToken) if !warned => {
                warned = true;
                tracing::warn!(
                    "the appliance is not backed up: set a token, `strongroom system token set`"
                );
            }
            Ok(Scheduled::NoToken) => {}
            Err(error) => tracing::error!("the appliance can't be backed up: {error}"),
        }
    }
}

/// Has the certificate renewed when it is time.
async fn renew(identity: &Identity, administration: &Administration) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        match administration.renew_when_due(identity, Timestamp::now()).await {
            Ok(job) => {
                told.clear();
                if let Some(job) = job {
                    tracing::info!("a certificate is asked for by job {}", job.id);
                }
            }
            // As long as it is the same, once.
            Err(error) => {
                let error = error.to_string();
                if told != error {
                    tracing::warn!("no certificate can be asked for: {error}");
                    told = error;
                }
            }
        }
    }
}

/// Tries again to attach storage that could not be attached.
async fn attach(administration: &Administration) {
    loop {
        tokio::time::sleep(ATTACH).await;
        if let Err(error) = administration.attach_storage_again().await {
            tracing::warn!("storage is not attached: {error}");
        }
    }
}

/// Notes what disks have done, so that it can be told how much they do.
async fn note_traffic(hardware: &Hardware) {
    loop {
        let looking = hardware.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || looking.note_traffic()).await {
            tracing::warn!("what disks have done can't be noted: {error}");
        }
        tokio::time::sleep(TRAFFIC).await;
    }
}

/// Looks for volumes that are nearly full.
async fn watch(settings: &Settings, storage: &Storage) {
    loop {
        if let Err(error) = storage.check_volumes(settings.current().volumes_overloaded).await {
            tracing::warn!("it can't be looked for volumes that are nearly full: {error}");
        }
        tokio::time::sleep(LOOK).await;
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
