//! The server's certificate: read from files, made when there is none, replaced without a restart.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use strongroom_appliance::tls::{self, MAX_PEM};

use super::addresses;
use crate::{Error, Result};

/// The certificate that is shown to clients at the moment, and where it came from.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate's file, and its key's.
    files: Mutex<[PathBuf; 2]>,
    current: RwLock<Arc<CertifiedKey>>,
    looked: Mutex<Looked>,
}

/// By what a file that was replaced is told: when it was changed, its length and its number.
type Stamp = Option<(SystemTime, u64, u64)>;

/// The files as they were when they were last read, and when they were last looked at.
#[derive(Debug)]
struct Looked {
    read: [Stamp; 2],
    last: [Stamp; 2],
}

impl Certificate {
    /// Reads a certificate with its chain, and its private key, both as PEM.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Certificate`] also when they don't belong together.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self> {
        let now = [stamp(certificate), stamp(key)];
        let current = RwLock::new(read(certificate, key)?);
        let looked = Mutex::new(Looked { read: now, last: now });
        let files = Mutex::new([certificate.to_owned(), key.to_owned()]);
        Ok(Self { files, current, looked })
    }

    /// As [`Certificate::open`]; when there are no such files, they are made: a certificate signed
    /// by itself, for this machine's names and addresses, `localhost`, and `names`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Certificate`].
    pub fn open_or_make(certificate: &Path, key: &Path, names: &[String]) -> Result<Self> {
        // Whoever made them may have been cut off between the two.
        for (one, other) in [(key, certificate), (certificate, key)] {
            if one.exists() && !other.exists() && new(other).exists() {
                rename(other)?;
            }
        }
        if !certificate.exists() && !key.exists() {
            make(certificate, key, names)?;
        }
        Self::open(certificate, key)
    }

    /// Reads the files again. New connections see what they hold; when they can't be used, the
    /// certificate stays as it was.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Certificate`].
    pub fn reload(&self) -> Result<()> {
        let [certificate, key] = self.files().clone();
        let now = [stamp(&certificate), stamp(&key)];
        *self.looked() = Looked { read: now, last: now };
        let new = read(&certificate, &key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Takes these files from now on, which must be there; when they can't be used, all stays as it
    /// was.
    ///
    /// # Errors
    /// As [`Certificate::reload`].
    pub fn take(&self, certificate: &Path, key: &Path) -> Result<()> {
        read(certificate, key)?;
        *self.files() = [certificate.to_owned(), key.to_owned()];
        self.reload()
    }

    fn files(&self) -> std::sync::MutexGuard<'_, [PathBuf; 2]> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called now and then: reads the files again when they were replaced, and are since the
    /// last call as they are now: there are two, which nobody replaces at once. Whether it did.
    ///
    /// # Errors
    /// As [`Certificate::reload`], once for each change.
    pub fn refresh(&self) -> Result<bool> {
        let now = self.files().each_ref().map(|file| stamp(file));
        let settled = {
            let mut looked = self.looked();
            let last = std::mem::replace(&mut looked.last, now);
            now != looked.read && now == last
        };
        if settled {
            self.reload()?;
        }
        Ok(settled)
    }

    fn looked(&self) -> std::sync::MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the certificate is valid; None: it doesn't say so in a way that is understood.
    pub fn not_after(&self) -> Option<jiff::Timestamp> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.cert.first().and_then(|der| tls::facts(der)?.not_after)
    }

    /// The SHA-256 of the certificate, by which a person can tell it.
    pub fn fingerprint(&self) -> String {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let facts = current.cert.first().and_then(|der| tls::facts(der));
        facts.map(|facts| facts.sha256).unwrap_or_default()
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = path.metadata().ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>> {
    let pair = tls::pair(&bytes(certificate)?, &bytes(key)?);
    pair.map_err(|error| Error::Certificate {
        path: certificate.display().to_string(),
        why: error.to_string(),
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    if path.metadata().map_err(failed(path))?.len() > MAX_PEM as u64 {
        let why = format!("it is larger than {MAX_PEM} bytes");
        return Err(Error::Certificate { path: path.display().to_string(), why });
    }
    std::fs::read(path).map_err(failed(path))
}

fn make(certificate: &Path, key: &Path, names: &[String]) -> Result<()> {
    let wrong = |error: rcgen::Error| Error::Certificate {
        path: certificate.display().to_string(),
        why: error.to_string(),
    };
    let host = addresses::host_name();
    let mut all: Vec<String> = [host.clone(), "localhost".to_owned()].into();
    all.extend(addresses::all().iter().map(ToString::to_string));
    all.extend(names.iter().cloned());
    all.sort();
    all.dedup();
    let mut params = CertificateParams::new(all).map_err(wrong)?;
    params.distinguished_name.push(DnType::CommonName, format!("Strongroom on {host}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let zoned = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let day = |year: i16| {
        rcgen::date_time_ymd(
            year.into(),
            zoned.month().unsigned_abs(),
            zoned.day().min(28).unsigned_abs(),
        )
    };
    params.not_before = day(zoned.year() - 1);
    params.not_after = day(zoned.year() + 10);
    let pair = KeyPair::generate().map_err(wrong)?;
    let made = params.self_signed(&pair).map_err(wrong)?;
    write(key, &pair.serialize_pem(), 0o600)?;
    write(certificate, &made.pem(), 0o644)?;
    rename(key)?;
    rename(certificate)
}

/// Where a file is until it is whole.
fn new(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    |source| Error::File { path: path.display().to_string(), source }
}

/// Writes what a file will be; it is one with [`rename`].
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(new(path));
    let mut file = file.map_err(failed(path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(path))
}

fn rename(path: &Path) -> Result<()> {
    std::fs::rename(new(path), path).map_err(failed(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let first = Certificate::open_or_make(&cert, &key, &[]).unwrap();
        let again = Certificate::open_or_make(&cert, &key, &[]).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let before = first.fingerprint();
        make(&cert, &key, &["backup.example".into()]).unwrap();
        first.reload().unwrap();
        assert_ne!(first.fingerprint(), before);
    }

    #[test]
    fn what_was_cut_off_between_the_two_is_completed() {
        for late in ["cert.pem", "key.pem"] {
            let dir = tempfile::tempdir().unwrap();
            let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            let made = Certificate::open_or_make(&cert, &key, &[]).unwrap().fingerprint();
            let late = dir.path().join(late);
            std::fs::rename(&late, new(&late)).unwrap();
            let found = Certificate::open_or_make(&cert, &key, &[]).unwrap();
            assert_eq!(found.fingerprint(), made);
            std::fs::remove_file(&late).unwrap();
            Certificate::open_or_make(&cert, &key, &[]).unwrap_err();
        }
    }

    #[test]
    fn files_that_were_replaced_are_noticed_when_both_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let shown = Certificate::open_or_make(&cert, &key, &[]).unwrap();
        assert!(!shown.refresh().unwrap());
        let (before, new) = (shown.fingerprint(), dir.path().join("new"));
        make(&new, &dir.path().join("new.key"), &[]).unwrap();
        std::fs::rename(&new, &cert).unwrap();
        assert!(!shown.refresh().unwrap(), "the key may be on its way");
        std::fs::rename(dir.path().join("new.key"), &key).unwrap();
        assert!(!shown.refresh().unwrap());
        assert!(shown.refresh().unwrap());
        assert_ne!(shown.fingerprint(), before);
        assert!(!shown.refresh().unwrap());
        // What can't be used is told of once.
        std::fs::write(&cert, "nothing").unwrap();
        shown.refresh().unwrap();
        shown.refresh().unwrap_err();
        assert!(!shown.refresh().unwrap());
    }

    #[test]
    fn what_can_not_be_used_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let one = Certificate::open_or_make(&path("cert"), &path("key"), &[]).unwrap();
        let before = one.fingerprint();
        make(&path("other"), &path("key"), &[]).unwrap();
        let error = one.reload().unwrap_err();
        assert!(matches!(error, Error::Certificate { .. }), "{error}");
        std::fs::write(path("cert"), "nothing").unwrap();
        assert!(one.reload().unwrap_err().to_string().contains("no certificate"));
        assert_eq!(one.fingerprint(), before);
    }
}
