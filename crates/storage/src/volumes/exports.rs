//! Volumes and snapshots by the names of exports: `POOL/VOLUME`, and `POOL/VOLUME@SNAPSHOT`.

use strongroom_catalog::{pools, volumes};

use super::owner::Server;
use super::serve::{Served, no_volume};
use super::snapshots::no_snapshot;
use crate::{Result, Storage};

/// Something that can be served, by the name of its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The name.
    pub name: String,
    /// Whether it is a snapshot, which can only be read.
    pub is_snapshot: bool,
}

/// What a name of an export is made of.
fn parts(name: &str) -> Option<(&str, &str, Option<&str>)> {
    let (pool, rest) = name.split_once('/')?;
    Some(match rest.split_once('@') {
        Some((volume, snapshot)) => (pool, volume, Some(snapshot)),
        None => (pool, rest, None),
    })
}

impl Storage {
    /// All volumes and snapshots of the pools whose disks are on this machine, by the names of their
    /// exports, in their order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn exports(&self) -> Result<Vec<Exported>> {
        let catalog = &self.inner.catalog;
        let mut all = Vec::new();
        for pool in pools::all(catalog).await?.iter().filter(|pool| self.is_here(pool)) {
            for volume in volumes::of_pool(catalog, pool.id).await? {
                let name = format!("{}/{}", pool.name, volume.name);
                let snapshots = match volume.snapshots {
                    0 => Vec::new(),
                    _ => volumes::snapshots_of(catalog, volume.id).await?,
                };
                all.push(Exported { name: name.clone(), is_snapshot: false });
                all.extend(snapshots.iter().map(|snapshot| Exported {
                    name: format!("{name}@{}", snapshot.name),
                    is_snapshot: true,
                }));
            }
        }
        Ok(all)
    }

    /// Opens what an export's name names, as [`Storage::serve_volume`] and [`Storage::serve_snapshot`] do.
    ///
    /// # Errors
    /// As these; [`strongroom_catalog::Error::NotFound`] also for what is no such name.
    pub async fn serve_export(&self, name: &str, by: Server) -> Result<Served> {
        let catalog = &self.inner.catalog;
        let (pool, volume, snapshot) = parts(name).ok_or_else(no_volume)?;
        let pool = pools::named(catalog, pool).await?;
        let volume = volumes::named(catalog, pool.id, volume).await?;
        let Some(snapshot) = snapshot else { return self.serve_volume(volume.id, by).await };
        let all = volumes::snapshots_of(catalog, volume.id).await?;
        let found = all.iter().find(|one| one.name == snapshot).ok_or_else(no_snapshot)?;
        self.serve_snapshot(found.id, by).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_a_pool_a_volume_and_a_snapshot() {
        assert_eq!(parts("main/vm"), Some(("main", "vm", None)));
        assert_eq!(parts("main/vm@monday"), Some(("main", "vm", Some("monday"))));
        assert_eq!(parts("main/@"), Some(("main", "", Some(""))));
        assert_eq!(parts("vm"), None);
    }
}
