//! What tests of volumes share.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use strongroom_engine::disk::{Disk, SimDisk};
use strongroom_engine::id::PoolId;
use strongroom_engine::keys::Keyring;
use strongroom_engine::seal::{Aead, LogSealer};

use super::VolumeId;
use super::record::SegmentHeader;
use super::segment::{Place, Prepared, Segment};

/// A sealer of a run.
pub(crate) fn sealer(sealed: bool) -> LogSealer {
    let aead = if sealed { Aead::Aes256Gcm } else { Aead::None };
    let ring = Keyring::generate(aead);
    ring.log(ring.epoch(), &[5; 32]).unwrap()
}

/// The place of a record in a segment that nobody reads.
pub(crate) fn place(at: u64) -> Place {
    let header = SegmentHeader {
        pool: PoolId([0; 16]),
        volume: VolumeId([0; 16]),
        salt: [0; 32],
        number: 0,
        first: 0,
    };
    let disk = SimDisk::new(1);
    let disks = std::iter::once((0, &disk as &dyn Disk));
    let (files, _) = Prepared::make(disks, 1, header.volume, header.number).unwrap();
    let (segment, _) = Segment::begin(files, header, &Arc::new(sealer(false)));
    Place { segment: Arc::new(segment), at, payload: 0 }
}
