//! Room that is set aside on every disk for what must not fail: other sessions store nothing more once
//! it would be touched.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::core::{Core, RESERVE};
use crate::error::{Error, Result};

/// After so many bytes disks are asked again.
const STEP: u64 = 64 << 20;

/// See [`super::Pool::set_aside`].
#[derive(Debug, Default)]
pub(crate) struct Aside {
    bytes: AtomicU64,
    /// What may be stored before disks are asked again.
    allowed: AtomicI64,
}

impl Aside {
    pub(crate) fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.allowed.store(0, Ordering::Relaxed);
    }
}

impl Core {
    /// Refuses to store so many bytes when that would take of what is set aside.
    pub(crate) fn admit(&self, bytes: usize) -> Result<()> {
        let aside = self.aside.bytes.load(Ordering::Relaxed);
        if aside == 0 {
            return Ok(());
        }
        let takes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.aside.allowed.fetch_sub(takes, Ordering::Relaxed) >= takes {
            return Ok(());
        }
        let mut least = u64::MAX;
        for disk in self.disks.iter().flatten() {
            // A disk that can't tell will say so when it is written.
            let Ok(space) = disk.space() else { continue };
            // What it is set aside for takes nodes, an index and packs that are not full beside it.
            let kept = aside.saturating_add(2 * RESERVE.min(space.total / 50));
            let free = space.free.saturating_sub(kept);
            if free < bytes as u64 {
                self.aside.allowed.store(0, Ordering::Relaxed);
                let what = format!(
                    "{} has {} MiB left, of which {} MiB are set aside for volumes that are fully \
                     reserved; give it room, or forget images and run `strongroom pool gc`",
                    disk.describe(),
                    space.free >> 20,
                    kept >> 20,
                );
                return Err(Error::io(what, std::io::ErrorKind::StorageFull.into()));
            }
            least = least.min(free);
        }
        self.aside.allowed.store((least / 2).min(STEP) as i64, Ordering::Relaxed);
        Ok(())
    }
}
