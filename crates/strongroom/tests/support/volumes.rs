//! Volumes of a pool that no process has open, by the library: there is no command for them.

use std::sync::Arc;

use strongroom_block::volume::{Limits, NewVolume, Settings, SnapshotId, Volume, Volumes};
use strongroom_engine::clock::SystemClock;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::keys::Secret;
use strongroom_engine::pool::{OpenMode, OpenOptions, Place, Pool, Use};

use super::Lab;

/// The volumes of the lab's pool; the pool is closed with them.
pub(crate) fn volumes(lab: &Lab) -> Volumes {
    let place = Place::find(&lab.path("pool")).unwrap();
    let disks = place.disks.iter().map(|disk| FsDisk::open(disk).ok());
    let disks = disks.map(|disk| disk.map(|disk| Arc::new(disk) as Arc<dyn Disk>)).collect();
    let secret = Secret::passphrase_from_file(&lab.path("pw")).unwrap();
    let mode = OpenMode::Write;
    let options = OpenOptions { disks, mode, secret: Some(&secret), without_index: false };
    let clock = Arc::new(SystemClock::new().unwrap());
    let used = Use { clock, threads: 1, holder: "a test".into() };
    Volumes::new(Arc::new(Pool::open(options, used).unwrap()), Limits::default()).unwrap()
}

/// Makes a volume.
pub(crate) fn make_volume(lab: &Lab, name: &str, size: u64) {
    let settings = Settings::default();
    let name = name.into();
    let new = NewVolume { name, size, chunk: 64 << 10, sector: 512, settings };
    volumes(lab).create(new).unwrap();
}

/// An open volume.
pub(crate) fn open_volume(volumes: &Volumes, name: &str) -> Arc<Volume> {
    let all = volumes.list();
    let id = all.iter().find(|meta| meta.name == name).unwrap().volume;
    volumes.open(id).unwrap()
}

/// Makes a snapshot.
pub(crate) fn snap(lab: &Lab, volume: &str, name: &str) -> SnapshotId {
    let volumes = volumes(lab);
    open_volume(&volumes, volume).snapshot(name).unwrap()
}

/// Makes a volume of a snapshot.
pub(crate) fn clone(lab: &Lab, volume: &str, snapshot: SnapshotId, name: &str) {
    let volumes = volumes(lab);
    let volume = open_volume(&volumes, volume);
    volumes.clone_snapshot(&volume, snapshot, name).unwrap();
}
