//! Entering pools that are there already, from their directory or from their disks alone.

use std::fs;
use std::path::{Path, PathBuf};

use strongroom_catalog::pools;
use strongroom_engine::disk::FsDisk;
use strongroom_engine::keys::Protection;
use strongroom_engine::pool::{Meter, Place};
use strongroom_engine::superblock::Superblock;

use crate::pools::{Mounts, checked_name};
use crate::{Error, PoolSecret, Result, Storage};

/// A pool to be entered.
#[derive(Debug)]
pub struct Import {
    /// The name that it gets.
    pub name: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// Its directory.
    pub path: PathBuf,
    /// Its disks; none: the directory says where they are, or is the disk.
    pub disks: Vec<PathBuf>,
    /// What opens it, if it is encrypted.
    pub secret: Option<PoolSecret>,
}

/// What the disks say.
struct Found {
    dir: PathBuf,
    uuid: String,
    encrypted: bool,
}

impl Storage {
    /// Whether a pool can be called so.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`strongroom_catalog::Error::Exists`].
    pub async fn may_be_named(&self, name: &str) -> Result<()> {
        self.name_is_free(&checked_name(name)?).await
    }

    /// Enters a pool that is there already. All images in it are in the catalogue afterwards; the
    /// meter counts them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for disks that don't belong together;
    /// [`strongroom_catalog::Error::Exists`] for a pool or a name that is in the catalogue; those
    /// of opening it, and the engine's `Canceled` when the meter says so, after which it isn't
    /// entered. One that was entered before, by who was cut off, stays entered, and its images are
    /// brought up to date when it is next opened.
    pub async fn import_pool(&self, import: Import, meter: &Meter) -> Result<pools::Pool> {
        let name = checked_name(&import.name)?;
        let (path, disks, mounts) = (import.path, import.disks, self.inner.mounts.clone());
        let found = self.blocking(move || find(&path, &disks, &mounts)).await?;
        let known = pools::all(&self.inner.catalog).await?;
        if let Some(same) = known.into_iter().find(|pool| pool.uuid == found.uuid) {
            // A job that was taken up again comes here twice.
            let is_same = same.name == name && Path::new(&same.path) == found.dir;
            if is_same {
                return self.entered_before(same, import.secret, meter).await;
            }
            let what = format!("pool: {} is {} already", found.dir.display(), same.name);
            return Err(strongroom_catalog::Error::Exists { what }.into());
        }
        self.name_is_free(&name).await?;
        let secret = match (found.encrypted, import.secret) {
            (true, None) => return Err(strongroom_engine::Error::SecretNeeded.into()),
            (true, secret) => secret,
            (false, _) => None,
        };
        let known =
            self.enter(name, import.organisation_id, &found.dir, &found.uuid, secret).await?;
        if let Err(error) = self.open_imported(&known, meter).await {
            if let Err(left) = pools::remove(&self.inner.catalog, known.id).await {
                let name = &known.name;
                tracing::warn!("{name} was not imported and stays in the catalogue: {left}");
            }
            return Err(error);
        }
        self.tell(&known, "pool.imported", "was imported").await?;
        Ok(known)
    }

    /// A pool that is in the catalogue: whoever entered it may have been cut off before it was seen
    /// that it can be opened. One that is open stays as it is.
    async fn entered_before(
        &self,
        known: pools::Pool,
        secret: Option<PoolSecret>,
        meter: &Meter,
    ) -> Result<pools::Pool> {
        let wrong =
            |error: &Error| matches!(error, Error::Pool(strongroom_engine::Error::WrongSecret));
        if self.if_open(known.id).is_some() {
            return Ok(known);
        }
        match self.open_imported(&known, meter).await {
            // The one that is given now is the one to be tried.
            Err(error) if wrong(&error) && secret.is_some() => {
                let sealed = secret.map(|s| s.seal(&*self.inner.sealer, &known.name, &known.uuid));
                if let Some(sealed) = sealed.transpose()? {
                    pools::begin_secret(&self.inner.catalog, known.id, sealed).await?;
                }
                self.open_imported(&known, meter).await?;
            }
            opened => opened?,
        }
        Ok(known)
    }

    /// Opens the pool, and enters its images. Nobody else has it before all of them are there.
    async fn open_imported(&self, known: &pools::Pool, meter: &Meter) -> Result<()> {
        let bar = self.close(known.id, "it is being imported").await?;
        let pool = self.open_disks(known).await?;
        self.mirror_counted(known, &pool, meter).await?;
        bar.open_as(known, pool).await;
        Ok(())
    }
}

fn find(path: &Path, disks: &[PathBuf], mounts: &Mounts) -> Result<Found> {
    if disks.is_empty() {
        let dir = fs::canonicalize(path).map_err(|e| Error::local(path, e))?;
        let place = Place::find(&dir)?;
        let read: Vec<_> = place.disks.iter().map(|disk| superblock(disk)).collect();
        let newest = Superblock::newest(&read)?;
        return Ok(found(dir, newest));
    }
    let mut read = Vec::new();
    let mut paths = Vec::new();
    for disk in disks {
        let disk = fs::canonicalize(disk).map_err(|e| Error::local(disk, e))?;
        read.push(superblock(&disk));
        paths.push(disk);
    }
    let newest = Superblock::newest(&read)?.clone();
    let mut members: Vec<(usize, PathBuf)> = Vec::new();
    for (disk, superblock) in paths.into_iter().zip(read) {
        let (shown, superblock) = (disk.display().to_string(), superblock?);
        if superblock.pool != newest.pool {
            return Err(Error::Invalid(format!(
                "{shown} belongs to the pool {}, others to {}: import one pool at a time",
                superblock.pool, newest.pool
            )));
        }
        let Some(place) = newest.disks.iter().position(|member| *member == superblock.disk) else {
            return Err(Error::Invalid(format!(
                "{shown} was replaced by another disk and is no longer part of the pool"
            )));
        };
        if members.iter().any(|(other, _)| *other == place) {
            return Err(Error::Invalid(format!(
                "{shown} is disk {place} of the pool, which is given twice"
            )));
        }
        members.push((place, disk));
    }
    let missing = newest.disks.len() - members.len();
    if missing > usize::from(newest.parity_shards) {
        return Err(strongroom_engine::Error::TooFewDisks {
            missing,
            total: newest.disks.len(),
            tolerated: newest.parity_shards.into(),
        }
        .into());
    }
    members.sort();
    let dir = mounts.directory(path)?;
    let place = Place { disks: members.into_iter().map(|(_, disk)| disk).collect() };
    if Place::find(&dir).is_ok_and(|there| there != place) {
        let text = format!("{} is the directory of a pool already", dir.display());
        return Err(Error::Invalid(text));
    }
    place.write(&dir)?;
    Ok(found(dir, &newest))
}

fn superblock(disk: &Path) -> strongroom_engine::Result<Superblock> {
    let opened = FsDisk::open(disk);
    let what = || format!("opening the disk {}", disk.display());
    Superblock::read(&opened.map_err(|e| strongroom_engine::Error::io(what(), e))?)
}

fn found(dir: PathBuf, superblock: &Superblock) -> Found {
    let encrypted = matches!(superblock.protection, Protection::Sealed { .. });
    Found { dir, uuid: superblock.pool.to_string(), encrypted }
}
