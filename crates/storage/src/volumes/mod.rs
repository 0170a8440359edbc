//! Volumes, as their users name them: disks whose content a pool keeps, with snapshots, clones and
//! schedules.
//!
//! What a volume is lies in the pool; the catalogue's rows follow it, as those of images do. Each open
//! pool has one [`Owner`], which alone opens its volumes. Who serves a volume to others asks
//! [`Storage::serve_volume`], and the volume is open for as long as what that gives is kept.
//!
//! | operation | on a volume that is served |
//! |---|---|
//! | change, rename, grow, snapshot, clone, remove a snapshot | at once, under whoever uses it |
//! | roll back | refused while somebody is connected, unless it is forced |
//! | remove | refused; by force clients of exports are let go, and targets are not |
//!
//! A clone needs nothing of what it was made from: a snapshot or a volume can be removed whatever was
//! cloned from it.

mod clients;
mod clone;
mod exports;
mod mirror;
mod operations;
mod overloaded;
mod owner;
mod schedule;
mod serve;
mod settling;
mod snapshots;
mod tending;
#[cfg(test)]
mod tests;
mod usage;

use aws_lc_rs::digest;
use serde::Serialize;
use strongroom_catalog::{pools, volumes};

pub use self::clients::{Entered, ExportClient, NewClient};
pub use self::clone::NewClone;
pub use self::exports::Exported;
pub use self::operations::{OpenVolume, VolumeChange};
pub use self::overloaded::{Check, Overloaded};
pub use self::owner::{Server, Trouble};
pub use self::schedule::{NewSchedule, Snapped};
pub use self::serve::Served;
pub use self::snapshots::Force;
pub use strongroom_block::volume::top::MAX_SNAPSHOTS;
pub use strongroom_block::volume::{IoType, Priority, Settings};

pub(crate) use self::clients::Clients;
pub(crate) use self::overloaded::LastCheck;
pub(crate) use self::owner::{Owner, Pace};

use crate::{Error, Result};

/// The longest name of a volume or a snapshot, in bytes.
const MAX_NAME: usize = 128;
/// Bytes of a volume's chunks when nobody says: ADR 0025 tells why.
pub const BLOCK_SIZE: u32 = 64 << 10;
/// Bytes of a volume's logical blocks when nobody says.
pub const SECTOR_SIZE: u32 = 512;

/// Bytes that are kept of what is read of volumes: an eighth of the memory, 64 MiB to 1 GiB.
pub(crate) fn cache_bytes() -> usize {
    let info = rustix::system::sysinfo();
    let memory = info.totalram.saturating_mul(info.mem_unit.into());
    usize::try_from(memory / 8).unwrap_or(usize::MAX).clamp(64 << 20, 1 << 30)
}

/// A volume to be made.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// The pool that gets it.
    pub pool_id: i64,
    /// Its name, which no other volume of the pool has.
    pub name: String,
    /// Bytes; a multiple of `sector_size`.
    pub size: u64,
    /// Bytes of its chunks: a power of two, 4 KiB to 1 MiB.
    pub block_size: u32,
    /// Bytes of a logical block: 512 or 4096.
    pub sector_size: u32,
    /// What is set; all of it can be changed later.
    pub settings: Settings,
}

impl NewVolume {
    /// One as most are.
    pub fn new(pool_id: i64, name: impl Into<String>, size: u64) -> Self {
        Self {
            pool_id,
            name: name.into(),
            size,
            block_size: BLOCK_SIZE,
            sector_size: SECTOR_SIZE,
            settings: Settings::default(),
        }
    }
}

/// All that is known of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeDetails {
    /// What the catalogue knows.
    #[serde(flatten)]
    pub volume: volumes::Volume,
    /// Its pool's name.
    pub pool: String,
    /// Bytes in its log; None while it isn't open.
    pub log_bytes: Option<u64>,
    /// Who serves it.
    pub served_by: Vec<String>,
    /// Clients that are connected to its exports.
    pub clients: Vec<ExportClient>,
    /// The targets that have it.
    pub mapped_to: Vec<String>,
    /// Why it can't be settled, and since when; None: it can, or isn't open.
    pub trouble: Option<(String, jiff::Timestamp)>,
    /// When snapshots of it are made by themselves; None: they aren't.
    pub schedule: Option<volumes::Schedule>,
}

/// 40 hexadecimal digits that follow from what the pool calls something.
fn public_id(kind: &str, uuid: &str) -> String {
    let digest = digest::digest(&digest::SHA256, format!("{kind}:{uuid}").as_bytes());
    data_encoding::HEXLOWER.encode(&digest.as_ref()[..20])
}

/// A name that can be shown, and told from a pool's, or a snapshot's from its volume's.
fn checked_name(name: &str) -> Result<String> {
    let name = name.trim();
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | '@');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(Error::Invalid(format!(
            "the name of a volume or a snapshot has 1 to {MAX_NAME} bytes, and no `/`, `@` or control \
             characters"
        )));
    }
    Ok(name.to_owned())
}

fn is_version(row: &volumes::Volume, version: Option<i64>) -> Result<()> {
    match version {
        Some(version) if version != row.version => {
            Err(strongroom_catalog::Error::Changed { what: "volume" }.into())
        }
        _ => Ok(()),
    }
}

/// A volume's row with its pool's.
#[derive(Clone, Debug)]
struct Known {
    row: volumes::Volume,
    pool: pools::Pool,
}
