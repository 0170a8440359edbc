//! Making a backup.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use strongroom_catalog::{Address, SCHEMA};

use super::archive::{self, Head, Role, Source, is_path};
use super::{ArchiveKey, BackupFile, Belongings, Place, failed, remove};
use crate::administration::Parts;
use crate::files::sum;
use crate::licence::NAME as LICENCE;
use crate::{Error, Result, acme, storage_options};

/// Bytes of a file beside the catalogue, at most.
const SMALL: u64 = 2 << 20;

/// The name of a catalogue in an archive that comes from a database.
const CATALOGUE: &str = "catalogue.db";

/// What goes wrong while one is made, and whether it was told to stop.
pub(crate) enum Unmade {
    Canceled,
    Failed(Error),
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Makes a backup and puts it in the place of the one that there is. `copy` copies the catalogue, and
/// `size` tells about how many bytes it has.
pub(crate) fn make(
    parts: &Parts,
    key: &ArchiveKey,
    go_on: &dyn Fn() -> bool,
    copy: &dyn Fn(&Belongings, &str) -> Result<()>,
    size: &dyn Fn(&Belongings) -> Result<u64>,
) -> Result<BackupFile, Unmade> {
    let place = &parts.backup;
    let made = in_place(parts, key, go_on, copy, size);
    let clean = || {
        remove(&place.copy())?;
        remove(&place.draft())
    };
    if let Err(error) = clean() {
        tracing::warn!(%error, "what is left of a backup can't be removed");
    }
    match &made {
        Ok(file) => {
            let (path, bytes, sha256) = (place.file(), file.bytes, &file.sha256);
            let path = path.display();
            place.append(&format!("Created file: {path} - size: {bytes} - hash: {sha256}\n"));
            place.tell("Backup complete");
        }
        Err(Unmade::Canceled) => place.tell("Backup stopped"),
        Err(Unmade::Failed(error)) => place.tell(&format!("Backup failed: {error}")),
    }
    made
}

fn in_place(
    parts: &Parts,
    key: &ArchiveKey,
    go_on: &dyn Fn() -> bool,
    copy: &dyn Fn(&Belongings, &str) -> Result<()>,
    size: &dyn Fn(&Belongings) -> Result<u64>,
) -> Result<BackupFile, Unmade> {
    let place = &parts.backup;
    let belongings = parts.belongings()?;
    let made_at = Timestamp::now();
    place.tell("Validating backup file size");
    // The copy of the catalogue and the archive are there at once.
    place.fits(size(belongings)?.saturating_mul(2).saturating_add(SMALL))?;
    place.tell("Starting backup");
    let mut left_out = Vec::new();
    let mut sources = Vec::new();
    let (database, path) = match &belongings.address {
        Address::Sqlite(path) => ("sqlite", within(&parts.data, path)),
        // As a file, which can be restored into either.
        Address::Postgres(_) => ("postgresql", Ok(CATALOGUE.into())),
    };
    match path {
        Ok(path) => {
            let at = place.copy();
            remove(&at)?;
            let name = at.to_str().ok_or_else(|| failed(&at)(ErrorKind::InvalidFilename.into()))?;
            copy(belongings, name)?;
            let file = File::open(&at).map_err(failed(&at))?;
            let bytes = file.metadata().map_err(failed(&at))?.len();
            sources.push(Source { role: Role::Catalogue, path, bytes, from: Box::new(file) });
        }
        Err(why) => left_out.push(format!("the catalogue: {why}")),
    }
    let (certificate, certificate_key) = parts.tls.paths();
    // The certificate and its key are those of one moment.
    let files = [
        (Role::Configuration, "the configuration", belongings.configuration.as_path()),
        (Role::ApplianceKey, "the appliance's key", &belongings.appliance_key),
        (Role::Certificate, "the certificate", &certificate),
        (Role::CertificateKey, "the certificate's key", &certificate_key),
    ];
    let mut read = Vec::new();
    parts.tls.while_still(|| {
        for (role, what, path) in files {
            match within(&parts.data, path) {
                Ok(name) => read.push(small(role, name, path)?),
                Err(why) => left_out.push(format!("{what}: {why}")),
            }
        }
        Ok::<_, Error>(())
    })?;
    sources.extend(read);
    // What others gave can be had of them again.
    for (role, name) in [
        (Role::Licence, LICENCE),
        (Role::StorageOptions, storage_options::NAME),
        (Role::Acme, acme::NAME),
    ] {
        match small(role, name.to_owned(), &parts.data.join(name)) {
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            read => sources.push(read?),
        }
    }
    let complete = left_out.is_empty();
    if parts.data.join("network").exists() {
        let what = "the settings of the network and of the application: they are this machine's";
        left_out.push(what.into());
    }
    for path in &belongings.named_keys {
        left_out.push(format!("{}: the configuration names it, have it at hand", path.display()));
    }
    let draft = place.draft();
    remove(&draft)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&draft);
    let file = file.map_err(failed(&draft))?;
    let head = Head { schema: SCHEMA, database, made_at, left_out };
    let watch = || match go_on() {
        true => Ok(()),
        false => Err(io::Error::other("canceled")),
    };
    let written = archive::write(&file, key, head, sources, &watch);
    if !go_on() {
        return Err(Unmade::Canceled);
    }
    let manifest = written.map_err(failed(&draft))?;
    let (bytes, sha256) = sum(&draft).map_err(failed(&draft))?;
    if !go_on() {
        return Err(Unmade::Canceled);
    }
    let facts = BackupFile { made_at, bytes, sha256, complete, left_out: manifest.left_out };
    place.put(&facts)?;
    Ok(facts)
}

/// The path of a file from the data directory.
pub(super) fn within(data: &Path, path: &Path) -> Result<String, String> {
    let inside = path.strip_prefix(data).map_err(|_| format!("{} is elsewhere", path.display()))?;
    let text = inside.to_str().filter(|text| is_path(text));
    text.map(str::to_owned).ok_or_else(|| format!("{} is no plain path", inside.display()))
}

/// A small file as it is now.
fn small(role: Role, path: String, at: &Path) -> Result<Source> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let read = File::open(at).and_then(|file| file.take(SMALL + 1).read_to_end(&mut bytes));
    read.map_err(failed(at))?;
    if bytes.len() as u64 > SMALL {
        return Err(failed(at)(ErrorKind::FileTooLarge.into()));
    }
    let from = Box::new(io::Cursor::new(bytes.to_vec()));
    Ok(Source { role, path, bytes: bytes.len() as u64, from })
}

impl Place {
    /// Tells that there is none any more.
    pub(super) fn tell_deleted(&self) {
        self.tell("Deleting backup archive");
    }
}
