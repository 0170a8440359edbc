//! Looking at a backup that is to be restored, and preparing it. Nothing of the appliance changes until
//! all of it was found right.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use strongroom_catalog::{Address, Catalog, restored, transfer};
use strongroom_identity::{ApplianceKey, Secret, check_key};

use super::archive::{Manifest, Plan, Role};
use super::database::LOAD;
use super::make::within;
use super::seal::ArchiveKey;
use super::settle::{self, Entry};
use super::{Belongings, failed};
use crate::administration::{Parts, blocking};
use crate::licence::SignedLicence;
use crate::{Error, Result, acme, storage_options, tls};

/// Configurations and certificates have fewer bytes.
const SMALL: u64 = 2 << 20;

fn unfit(why: impl std::fmt::Display) -> Error {
    Error::Archive(why.to_string())
}

/// Looks at it, and decides that it is in force from the next start on; what it says of itself.
pub(super) async fn restore(
    parts: &Parts,
    archive: File,
    length: u64,
    secret: &Secret,
    by: &str,
) -> Result<Manifest> {
    let data = parts.data.clone();
    if settle::is_decided(&data)? {
        return Err(Error::Restoring);
    }
    let prepared = prepare(parts, archive, length, secret).await;
    match prepared {
        Ok((manifest, entries)) => {
            let told = format!(
                "by {by}: the backup of {}; the trail until then is in before-restore",
                manifest.made_at
            );
            blocking(move || settle::decide(&data, entries, told)).await?;
            Ok(manifest)
        }
        Err(error) => {
            // Nobody knows of it without a note.
            let dir = data.join(settle::DIR);
            if let Err(error) = fs::remove_dir_all(&dir) {
                tracing::debug!(%error, "{} can't be removed", dir.display());
            }
            Err(error)
        }
    }
}

async fn prepare(
    parts: &Parts,
    mut archive: File,
    length: u64,
    secret: &Secret,
) -> Result<(Manifest, Vec<Entry>)> {
    let belongings = parts.belongings()?.clone();
    let new = parts.data.join(settle::DIR).join("new");
    let (place, secret, at) = (parts.backup.clone(), secret.clone(), new.clone());
    let extracted = blocking(move || {
        let plan = Plan::read(&mut archive, length)?;
        let key = ArchiveKey::with_salt(&secret, plan.salt()?)?;
        let opened = plan.open(&key)?;
        let total = plan.manifest().files.iter().map(|file| file.bytes).sum();
        place.fits(total)?;
        settle::directory(&at)?;
        let mut entries = Vec::new();
        for (number, file) in plan.manifest().files.iter().enumerate() {
            // What is left beside the old one would be taken for the new one's: the log of SQLite, the
            // note of a replacement.
            let beside: &[&str] = match file.role {
                Role::Catalogue => &["-wal", "-shm"],
                Role::Certificate => &[tls::NOTE],
                _ => &[],
            };
            for beside in beside {
                let path = format!("{}{beside}", file.path);
                entries.push(Entry { path, is_new: false });
            }
            let path = at.join(entries.len().to_string());
            let mut options = OpenOptions::new();
            let out = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
            let mut out = out.map_err(failed(&path))?;
            opened.extract(&mut archive, number, &mut out)?;
            out.sync_all().map_err(failed(&path))?;
            entries.push(Entry { path: file.path.clone(), is_new: true });
        }
        // What was set later is not of that state, and sealed with a key that may be another.
        for (role, name) in
            [(Role::StorageOptions, storage_options::NAME), (Role::Acme, acme::NAME)]
        {
            if !plan.manifest().files.iter().any(|file| file.role == role) {
                entries.push(Entry { path: name.into(), is_new: false });
            }
        }
        Ok((plan.manifest().clone(), entries))
    });
    let (manifest, mut entries) = extracted.await?;
    let place_of = |role: Role| -> Option<PathBuf> {
        let path = &manifest.files.iter().find(|file| file.role == role)?.path;
        let number = entries.iter().position(|entry| entry.path == *path)?;
        Some(new.join(number.to_string()))
    };
    let key = appliance_key(place_of(Role::ApplianceKey).as_deref())?;
    let configured = match place_of(Role::Configuration) {
        Some(path) => Some(configuration(&belongings, &path, &parts.data)?),
        None => None,
    };
    if let (Some(certificate), Some(key)) =
        (place_of(Role::Certificate), place_of(Role::CertificateKey))
    {
        tls::pair(&small(&certificate)?, &small(&key)?)?;
    }
    if let Some(path) = place_of(Role::Licence) {
        // Whether it is believed may depend on keys that are put there later.
        SignedLicence::parse(&small(&path)?).map_err(unfit)?;
    }
    if let Some(path) = place_of(Role::StorageOptions) {
        storage_options::check(&key, &small(&path)?).map_err(unfit)?;
    }
    if let Some(path) = place_of(Role::Acme) {
        acme::check(&key, &small(&path)?).map_err(unfit)?;
    }
    if let Some(path) = place_of(Role::Catalogue) {
        let to = destination(&belongings, &parts.data, configured).await?;
        catalogue(&path, &key).await?;
        let from = manifest.files.iter().find(|file| file.role == Role::Catalogue);
        for entry in &mut entries {
            let beside = from.and_then(|from| entry.path.strip_prefix(&from.path));
            if let Some(beside) = beside.filter(|text| ["", "-wal", "-shm"].contains(text)) {
                entry.path = format!("{to}{beside}");
            }
        }
    }
    Ok((manifest, entries))
}

/// Where the start with the restored configuration has the catalogue from, in the data directory.
async fn destination(
    belongings: &Belongings,
    data: &Path,
    configured: Option<Address>,
) -> Result<String> {
    let current = &belongings.address;
    let address = configured.filter(|_| !belongings.address_given);
    match address.as_ref().unwrap_or(current) {
        Address::Sqlite(path) => within(data, path)
            .map_err(|why| unfit(format!("it can't put the catalogue in its place: {why}"))),
        address @ Address::Postgres(_) if address == current => {
            // They would go on with what they know, and write it.
            match transfer::others(&belongings.catalog).await? {
                0 => Ok(LOAD.into()),
                others => Err(Error::Catalog(strongroom_catalog::Error::Busy { others })),
            }
        }
        address => Err(unfit(format!(
            "its configuration has the catalogue at {address}, this appliance at {current}: start \
             this one with --database and the address where it is to be, then restore"
        ))),
    }
}

fn small(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    if path.metadata().map_err(failed(path))?.len() > SMALL {
        return Err(unfit(format!("a file in it has more than {SMALL} bytes")));
    }
    fs::read(path).map(zeroize::Zeroizing::new).map_err(failed(path))
}

fn appliance_key(path: Option<&Path>) -> Result<ApplianceKey> {
    let path = path.ok_or_else(|| unfit("the appliance's key is not in it"))?;
    let bytes = small(path)?;
    let key: Option<&[u8; 32]> = bytes[..].try_into().ok();
    Ok(ApplianceKey::from_bytes(key.ok_or_else(|| unfit("the appliance's key in it is none"))?))
}

fn configuration(belongings: &Belongings, path: &Path, data: &Path) -> Result<Address> {
    let text = small(path)?;
    let text = std::str::from_utf8(&text).map_err(|_| unfit("its configuration is no text"))?;
    (belongings.check_configuration)(text, data)
        .map_err(|why| unfit(format!("its configuration: {why}")))
}

/// Whether it is whole, known, and of that key. What was under way when it was made is ended in it: it may
/// have been done, taken back or used up since.
async fn catalogue(path: &Path, key: &ApplianceKey) -> Result<()> {
    let catalog = Catalog::open_copy(path).await.map_err(unfit)?;
    let looked = async {
        check_key(&catalog, key).await.map_err(unfit)?;
        Ok(restored::settle(&catalog, "the appliance was restored from a backup").await?)
    };
    let looked: Result<()> = looked.await;
    catalog.close().await;
    looked?;
    let path = path.to_owned();
    blocking(move || {
        // The log was written back when it was closed.
        for beside in ["-wal", "-shm"] {
            let mut name = path.clone().into_os_string();
            name.push(beside);
            if Path::new(&name).exists() {
                return Err(unfit("its catalogue can't be closed"));
            }
        }
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path))
    })
    .await
}
