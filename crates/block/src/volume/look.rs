//! Looking at all volumes of a pool without opening them.

use std::sync::Weak;

use super::replay::files;
use super::top::{Meta, ROOT_KIND, Top};
use super::volumes::{Volumes, meta_of};
use super::{SnapshotInfo, locked};
use crate::Result;

/// What a pool has of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// As it was last settled.
    pub meta: Meta,
    /// Its snapshots, the oldest first; `None` when that isn't all, because it is open or there is something
    /// in its log: then open it. Also when its top can't be read, which opening it tells.
    pub snapshots: Option<Vec<SnapshotInfo>>,
}

impl Volumes {
    /// All volumes, with the snapshots of those in whose logs nothing is.
    ///
    /// # Errors
    /// When a disk that is there can't be listed.
    pub fn look(&self) -> Result<Vec<Look>> {
        let open = locked(&self.open);
        let logs = files(self.pool.disks())?;
        let mut all = Vec::new();
        for root in self.pool.roots_of(ROOT_KIND) {
            let Some(meta) = meta_of(&root) else { continue };
            let is_open = open.get(&meta.volume).and_then(Weak::upgrade).is_some();
            let snapshots = match is_open || logs.contains_key(&meta.volume) {
                true => None,
                // One that has nothing of its own yet.
                false if meta.parent.is_some() => Some(Vec::new()),
                false => root.nodes.first().and_then(|top| {
                    let top = Top::decode(&self.pool.node(top).ok()?).ok()?;
                    let info = |settled: super::top::Settled| SnapshotInfo {
                        id: settled.id,
                        name: settled.name,
                        created: settled.created,
                        size: settled.size,
                    };
                    // One that was deleted is there for its clones alone.
                    let named = top.snapshots.into_iter().filter(|one| !one.name.is_empty());
                    Some(named.map(info).collect())
                }),
            };
            all.push(Look { meta, snapshots });
        }
        Ok(all)
    }
}
