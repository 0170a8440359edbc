//! Making, naming and removing pools.

use std::fmt;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use strongroom_catalog::events::{self, NewEvent, Severity};
use strongroom_catalog::list::{Count, List, Page, Scope};
use strongroom_catalog::{pools, volumes};
use strongroom_engine::chunker::Params;
use strongroom_engine::compress::DEFAULT_LEVEL;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::keys::Stretch;
use strongroom_engine::pool::{CreateOptions, Place, Pool};
use zeroize::Zeroizing;

use crate::volumes::Force;
use crate::{Error, Layout, PoolSecret, Result, Storage};

/// The longest name of a pool, in bytes.
const MAX_NAME: usize = 128;
/// Bytes of randomness in a passphrase that is made for a pool.
const RANDOM: usize = 20;

/// Whether a new pool is encrypted, and what opens it.
#[derive(Debug, Default)]
pub enum Encryption {
    /// It isn't.
    None,
    /// With this.
    Given(PoolSecret),
    /// With a passphrase that is made for it.
    #[default]
    Generated,
}

/// A pool to be made.
#[derive(Debug)]
pub struct NewPool {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// Its directory; it is made when it isn't there.
    pub path: PathBuf,
    /// How it lies on its disks.
    pub layout: Layout,
    /// Directories on disks of their own; none: the pool lies in its directory.
    pub disks: Vec<PathBuf>,
    /// Whether it is encrypted.
    pub encryption: Encryption,
    /// How data is cut.
    pub chunking: Params,
    /// The zstd level, 1 to 19.
    pub level: i32,
    /// A pack is closed once it has so many bytes.
    pub pack_size: u32,
}

impl NewPool {
    /// One in this directory, as most are.
    pub fn new(name: impl Into<String>, organisation_id: i64, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            organisation_id,
            path: path.into(),
            layout: Layout::Single,
            disks: Vec::new(),
            encryption: Encryption::default(),
            chunking: Params::default(),
            level: DEFAULT_LEVEL,
            pack_size: 32 << 20,
        }
    }

    /// Has data cut like this: chunks of files (smallest, average, largest) and of disks, in bytes;
    /// what isn't said stays.
    ///
    /// # Errors
    /// The engine's `Invalid`.
    pub fn cut(&mut self, files: Option<[u32; 3]>, fixed: Option<u32>) -> Result<()> {
        let old = self.chunking;
        let [min, avg, max] = files.unwrap_or([old.min, old.avg, old.max]);
        self.chunking = Params::new(min, avg, max, fixed.unwrap_or(old.fixed))?;
        Ok(())
    }
}

/// A pool that was made.
pub struct Created {
    /// The pool.
    pub pool: pools::Pool,
    /// The passphrase that was made for it: nothing else opens the pool without this appliance.
    pub passphrase: Option<Zeroizing<String>>,
}

impl fmt::Debug for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Created").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Storage {
    /// Makes a pool.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what contradicts itself, or for a directory that isn't empty;
    /// [`strongroom_catalog::Error::Exists`] for a name that is taken; those of the disks.
    pub async fn create_pool(&self, new: NewPool) -> Result<Created> {
        let name = checked_name(&new.name)?;
        self.name_is_free(&name).await?;
        let (secret, passphrase) = match new.encryption {
            Encryption::None => (None, None),
            Encryption::Given(secret) => (Some(secret), None),
            Encryption::Generated => {
                let text = passphrase()?;
                let bytes = Zeroizing::new(text.as_bytes().to_vec());
                (Some(PoolSecret::Passphrase(bytes)), Some(text))
            }
        };
        let parity = new.layout.parity(new.disks.len().max(1))?;
        let used = self.inner.used.clone();
        let (path, disks, mounts) = (new.path, new.disks, self.inner.mounts.clone());
        let (chunking, level, pack_size) = (new.chunking, new.level, new.pack_size);
        let (pool, dir, place, secret) = self
            .blocking(move || {
                let opened = secret.as_ref().map(PoolSecret::open).transpose()?;
                let (dir, place) = room(&path, &disks, &mounts)?;
                let options = CreateOptions {
                    disks: open_all(&place.disks)?,
                    parity,
                    secret: opened.as_ref().map(|secret| (secret, Stretch::DEFAULT)),
                    chunking,
                    level,
                    pack_size,
                };
                let pool = Arc::new(Pool::create(options, used)?);
                place.write(&dir)?;
                Ok((pool, dir, place, secret))
            })
            .await?;
        let uuid = pool.id().to_string();
        let known = match self.enter(name, new.organisation_id, &dir, &uuid, secret).await {
            Ok(known) => known,
            Err(error) => {
                // Nobody may have the passphrase, and the directories must be empty the next time.
                drop(pool);
                self.blocking(move || clear(&dir, &place)).await?;
                return Err(error);
            }
        };
        self.keep(&known, pool).await;
        self.tell(&known, "pool.created", "was made").await?;
        Ok(Created { pool: known, passphrase })
    }

    /// Enters a pool in the catalogue.
    pub(crate) async fn enter(
        &self,
        name: String,
        organisation_id: i64,
        dir: &Path,
        uuid: &str,
        secret: Option<PoolSecret>,
    ) -> Result<pools::Pool> {
        let seal = |secret: PoolSecret| secret.seal(&*self.inner.sealer, &name, uuid);
        let secret = secret.map(seal).transpose()?;
        let path = dir.to_str().ok_or_else(|| {
            Error::Invalid(format!("{}: a pool's directory has a name in UTF-8", dir.display()))
        })?;
        let (path, uuid) = (path.to_owned(), uuid.to_owned());
        let node = self.inner.node.clone();
        let new = pools::NewPool { uuid, name, organisation_id, node, path, secret };
        Ok(pools::insert(&self.inner.catalog, new).await?)
    }

    pub(crate) async fn name_is_free(&self, name: &str) -> Result<()> {
        match pools::named(&self.inner.catalog, name).await {
            Ok(_) => {
                let what = format!("pool called {name}");
                Err(strongroom_catalog::Error::Exists { what }.into())
            }
            Err(strongroom_catalog::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A pool as the catalogue knows it.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`].
    pub async fn pool(&self, id: i64) -> Result<pools::Pool> {
        Ok(pools::find(&self.inner.catalog, id).await?)
    }

    /// The pool of that name.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`].
    pub async fn pool_named(&self, name: &str) -> Result<pools::Pool> {
        Ok(pools::named(&self.inner.catalog, name).await?)
    }

    /// Pools, by a list of the resource of pools.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn pools(&self, list: &List, scope: &Scope) -> Result<Page<pools::Pool>> {
        Ok(list.page(&self.inner.catalog, scope).await?)
    }

    /// How many [`Storage::pools`] there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_pools(&self, list: &List, scope: &Scope) -> Result<Count> {
        Ok(list.count(&self.inner.catalog, scope).await?)
    }

    /// Gives a pool another name, if its row has that version still (None: whatever it has).
    ///
    /// # Errors
    /// [`Error::Invalid`]; those of [`pools::rename`].
    pub async fn rename_pool(
        &self,
        id: i64,
        name: &str,
        version: Option<i64>,
    ) -> Result<pools::Pool> {
        let name = checked_name(name)?;
        Ok(pools::rename(&self.inner.catalog, id, &name, version).await?)
    }

    /// Removes a pool from the catalogue. What is in it stays on its disks, and can be imported.
    ///
    /// # Errors
    /// Those of [`pools::remove`]; [`Error::Used`]; [`Error::Serving`] while targets have volumes of it, or
    /// somebody serves them. By force clients of their exports are let go.
    pub async fn remove_pool(&self, id: i64, force: Force) -> Result<()> {
        let known = pools::find(&self.inner.catalog, id).await?;
        let mapped = volumes::mapped_in(&self.inner.catalog, id).await?;
        if !mapped.is_empty() {
            let (pool, volumes) = (known.name, mapped.join(", "));
            return Err(Error::Serving { pool, volumes });
        }
        let _bar = self.close_by(id, "it is being removed", force).await?;
        pools::remove(&self.inner.catalog, id).await?;
        self.inner.quiet.end(id);
        self.tell(&known, "pool.removed", "was removed; its data is on its disks still").await
    }

    pub(crate) async fn tell(
        &self,
        pool: &pools::Pool,
        kind: &'static str,
        what: &str,
    ) -> Result<()> {
        let event = NewEvent {
            severity: Severity::Info,
            kind,
            organisation_id: pool.organisation_id,
            object: pool.name.clone(),
            job_id: None,
            message: format!("the pool {} {what}", pool.name),
        };
        events::tell(&self.inner.catalog, event).await?;
        Ok(())
    }
}

/// A name that can be shown, and told from an image's.
pub(crate) fn checked_name(name: &str) -> Result<String> {
    let name = name.trim();
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | ':' | '@');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(Error::Invalid(format!(
            "a pool's name has 1 to {MAX_NAME} bytes, and no `/`, `:`, `@` or control characters"
        )));
    }
    Ok(name.to_owned())
}

/// A passphrase that can be read aloud and typed: groups of five letters and digits.
fn passphrase() -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0u8; RANDOM]);
    getrandom::fill(&mut bytes[..]).map_err(|e| {
        Error::Invalid(format!("the system gives no random numbers for a passphrase: {e}"))
    })?;
    let digits = Zeroizing::new(data_encoding::BASE32_NOPAD.encode(&bytes[..]).to_lowercase());
    let mut text = Zeroizing::new(String::with_capacity(digits.len() + digits.len() / 4));
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && place % 5 == 0 {
            text.push('-');
        }
        text.push(digit);
    }
    Ok(text)
}

/// Makes the directories of a new pool. Those that are there must be empty: what lies beside a
/// pool's files would some day be taken for them.
fn room(path: &Path, disks: &[PathBuf], mounts: &Mounts) -> Result<(PathBuf, Place)> {
    let dir = mounts.directory(path)?;
    if Place::find(&dir).is_ok() {
        let text = format!("there is a pool in {} already: import it", dir.display());
        return Err(Error::Invalid(text));
    }
    let disks: Vec<PathBuf> = match disks {
        [] => vec![dir.clone()],
        disks => disks.iter().map(|disk| mounts.directory(disk)).collect::<Result<_>>()?,
    };
    for (place, disk) in disks.iter().enumerate() {
        if disks[..place].contains(disk) {
            let text = format!("the disk {} is given twice", disk.display());
            return Err(Error::Invalid(text));
        }
        let mut names = fs::read_dir(disk).map_err(|e| Error::local(disk, e))?;
        if names.any(|name| name.is_ok_and(|name| name.file_name() != "lost+found")) {
            let text = format!("{} is not empty: a pool needs its own", disk.display());
            return Err(Error::Invalid(text));
        }
    }
    Ok((dir, Place { disks }))
}

/// Removes a pool that was just made from the directories that were made, or empty, for it.
fn clear(dir: &Path, place: &Place) -> Result<()> {
    for path in place.disks.iter().map(PathBuf::as_path).chain([dir]) {
        for entry in fs::read_dir(path).map_err(|e| Error::local(path, e))? {
            let entry = entry.map_err(|e| Error::local(path, e))?;
            if entry.file_name() == "lost+found" {
                continue;
            }
            let (path, kind) = (entry.path(), entry.file_type());
            let removed = match kind.map_err(|e| Error::local(&path, e))?.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.map_err(|e| Error::local(&path, e))?;
        }
    }
    Ok(())
}

/// Places where disks are mounted: while none is, nothing is made there, for that would be on the
/// filesystem below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts(Arc<OnceLock<Vec<PathBuf>>>);

impl Mounts {
    pub(crate) fn set(&self, places: Vec<PathBuf>) {
        let _ = self.0.set(places);
    }

    /// Makes a directory if it isn't there, and may be; its absolute path.
    pub(crate) fn directory(&self, path: &Path) -> Result<PathBuf> {
        self.check(&resolved(path))?;
        let made = directory(path)?;
        self.check(&made)?;
        Ok(made)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let places = self.0.get().map(Vec::as_slice).unwrap_or_default();
        let Some(place) = places.iter().find(|place| path.starts_with(place)) else {
            return Ok(());
        };
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        let below = place.parent().and_then(device);
        if device(place).is_some_and(|device| Some(device) != below) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "nothing is attached at {}: what is made there would lie on the appliance's own disk; \
             see `strongroom system storage show`",
            place.display()
        )))
    }
}

/// Where a path leads to, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    for there in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(there), path.strip_prefix(there)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

/// Makes a directory if it isn't there; its absolute path.
fn directory(path: &Path) -> Result<PathBuf> {
    if !path.is_absolute() {
        let text = format!("{}: give a directory from the root, like /srv/pool", path.display());
        return Err(Error::Invalid(text));
    }
    let mut make = fs::DirBuilder::new();
    make.recursive(true).mode(0o700).create(path).map_err(|e| Error::local(path, e))?;
    fs::canonicalize(path).map_err(|e| Error::local(path, e))
}

pub(crate) fn open_all(disks: &[PathBuf]) -> Result<Vec<Arc<dyn Disk>>> {
    let open = |path: &PathBuf| {
        let disk = FsDisk::open(path).map_err(|e| Error::local(path, e))?;
        Ok(Arc::new(disk) as Arc<dyn Disk>)
    };
    disks.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn nothing_is_made_where_nothing_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let data = fs::canonicalize(dir.path()).unwrap();
        let place = data.join("attached/nfs");
        let mounts = Mounts::default();
        // `/proc` is another filesystem than the one that it is on.
        mounts.set(vec![place.clone(), PathBuf::from("/proc")]);
        std::os::unix::fs::symlink(&data, data.join("link")).unwrap();
        let asked = ["attached/nfs/pool", "attached/nfs", "link/attached/nfs/pool"];
        for there in [false, true] {
            for path in asked {
                let error = mounts.directory(&data.join(path)).unwrap_err().to_string();
                assert!(error.contains("nothing is attached"), "{error}");
            }
            assert_eq!(place.exists(), there);
            fs::create_dir_all(&place).unwrap();
        }
        assert!(!place.join("pool").exists());
        mounts.directory(&data.join("attached/nfs-of-ours/pool")).unwrap();
        mounts.directory(Path::new("/proc/self")).unwrap();
    }
}
