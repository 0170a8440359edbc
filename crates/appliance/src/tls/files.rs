//! The certificate's two files, which change together or not at all.
//!
//! The old ones get a second name, the new ones are written beside them, then a note with the SHA-256
//! of each: from then on they are the certificate, and whoever finds the note puts them in place, or,
//! when that can't be done, the old ones back. Without a note, what stands beside the files was never
//! decided on.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

use super::MAX_PEM;
use super::check::{Checked, pair};
use super::facts::{CertificateFacts, facts};
use crate::{Error, Result};

/// Where a new file is until it is in its place, and the old one until all are.
const NEW: &str = ".replacing";
const OLD: &str = ".replaced";
/// The note beside the certificate, and what it is called until it is whole.
pub(crate) const NOTE: &str = ".replace";
const DRAFT: &str = ".replace.new";

/// Shows the certificate that is in the files; why it can't, else.
pub type Show = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The files. Cheap to clone.
#[derive(Clone)]
pub struct TlsFiles {
    /// Whoever has it may change them.
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    show: Option<Show>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsFiles")
    }
}

/// As PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl TlsFiles {
    /// Of the certificate with its chain and of its key. Ends a replacement that was cut off; what
    /// is in the way of that is logged, for the files may be somebody else's.
    pub fn open(certificate: &Path, key: &Path) -> Self {
        let inner = Inner { certificate: certificate.into(), key: key.into(), show: None };
        inner.tidy();
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The certificate's file, and its key's.
    pub(crate) fn paths(&self) -> (PathBuf, PathBuf) {
        let inner = self.lock();
        (inner.certificate.clone(), inner.key.clone())
    }

    /// The certificate is in other files from now on.
    pub fn take(&self, certificate: &Path, key: &Path) {
        let mut inner = self.lock();
        (inner.certificate, inner.key) = (certificate.into(), key.into());
        inner.tidy();
    }

    /// Says who shows the certificate: called whenever it was replaced.
    pub fn show_with(&self, show: Show) {
        self.lock().show = Some(show);
    }

    /// What the certificate says that is there.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Certificate`].
    pub fn facts(&self) -> Result<CertificateFacts> {
        let inner = self.lock();
        let pair = pair(&read(&inner.certificate)?, &read(&inner.key)?)?;
        let said = pair.cert.first().and_then(|der| facts(der));
        said.ok_or(Error::Certificate {
            what: "the certificate",
            why: "it is not understood".into(),
        })
    }

    /// Looks at both files while nobody replaces them through this.
    pub(crate) fn while_still<T>(&self, look: impl FnOnce() -> T) -> T {
        let _inner = self.lock();
        look()
    }

    /// When the certificate was put where it is; None: nobody knows.
    pub(crate) fn changed_at(&self) -> Option<std::time::SystemTime> {
        self.lock().certificate.metadata().and_then(|meta| meta.modified()).ok()
    }

    /// Puts a certificate in the place of the one that is there, and shows it.
    ///
    /// # Errors
    /// [`Error::File`] when the files can't be replaced: then what was there still is.
    /// [`Error::Certificate`] for links, which somebody else made and changes.
    pub fn replace(&self, by: &Checked) -> Result<()> {
        let inner = self.lock();
        inner.end()?;
        inner.own()?;
        if let Err(error) = inner.decide(by) {
            inner.tidy();
            return Err(error);
        }
        inner.end()?;
        match &inner.show {
            Some(show) => show().map_err(|why| Error::Certificate { what: "the certificate", why }),
            None => Ok(()),
        }
    }

    /// Whether [`TlsFiles::replace`] could replace them, as far as can be told before.
    ///
    /// # Errors
    /// As of that.
    pub(crate) fn can_replace(&self) -> Result<()> {
        let inner = self.lock();
        inner.end()?;
        inner.own()?;
        let tried = inner.link().and_then(|()| {
            let files = [&inner.key, &inner.certificate];
            files.into_iter().try_for_each(|path| write(&beside(path, NEW), b"", 0o600))
        });
        // What was tried is removed as what was not decided on.
        inner.end()?;
        tried
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&self) -> PathBuf {
        beside(&self.certificate, NOTE)
    }

    /// Whether they are files of the appliance's own.
    fn own(&self) -> Result<()> {
        for path in [&self.certificate, &self.key] {
            if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
                let why = format!(
                    "{} is a link, kept by another program: change it there, or name another file \
                     in the configuration",
                    path.display()
                );
                return Err(Error::Certificate { what: "the certificate", why });
            }
        }
        Ok(())
    }

    /// Gives the old files a second name. That it can be done tells that they can be replaced: not so
    /// where one is mounted by itself, or must not be changed.
    fn link(&self) -> Result<()> {
        for path in [&self.key, &self.certificate] {
            match fs::hard_link(path, beside(path, OLD)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed(path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the old files a second name, writes the new ones, then the note.
    fn decide(&self, by: &Checked) -> Result<()> {
        self.link()?;
        write(&beside(&self.key, NEW), &by.key, 0o600)?;
        write(&beside(&self.certificate, NEW), by.certificate.as_bytes(), 0o644)?;
        let sums = format!("{}\n{}\n", sum(by.certificate.as_bytes()), sum(&by.key));
        let draft = beside(&self.certificate, DRAFT);
        write(&draft, sums.as_bytes(), 0o600)?;
        for path in [&self.key, &self.certificate] {
            sync_dir(path)?;
        }
        let note = self.note();
        fs::rename(&draft, &note).map_err(failed(&note))?;
        sync_dir(&note)
    }

    /// As [`Inner::end`], for who can't do anything about it.
    fn tidy(&self) {
        if let Err(error) = self.end() {
            tracing::error!("the certificate's files can't be put in order: {error}");
        }
    }

    /// Ends what was decided, or takes it back; removes what was not.
    fn end(&self) -> Result<()> {
        let note = self.note();
        let done = match fs::read_to_string(&note) {
            Ok(sums) => {
                let done = self.put(&sums);
                if done.is_err() {
                    self.put_back()?;
                }
                remove(&note)?;
                sync_dir(&note)?;
                done
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => return Err(failed(&note)(error)),
        };
        for path in [&self.key, &self.certificate] {
            remove(&beside(path, NEW))?;
            remove(&beside(path, OLD))?;
        }
        remove(&beside(&self.certificate, DRAFT))?;
        done
    }

    /// Puts the new files in their places.
    fn put(&self, sums: &str) -> Result<()> {
        for (path, sum_told) in [&self.certificate, &self.key].into_iter().zip(sums.lines()) {
            let new = beside(path, NEW);
            match fs::read(&new).map(Zeroizing::new) {
                Ok(bytes) if sum(&bytes) == sum_told => {
                    fs::rename(&new, path).map_err(failed(path))?;
                    sync_dir(path)?;
                }
                Ok(_) => return Err(failed(&new)(ErrorKind::InvalidData.into())),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let there = fs::read(path).map(Zeroizing::new).map_err(failed(path))?;
                    if sum(&there) != sum_told {
                        return Err(failed(&new)(error));
                    }
                    // It is in its place already.
                }
                Err(error) => return Err(failed(&new)(error)),
            }
        }
        Ok(())
    }

    /// Puts the old files back in their places.
    fn put_back(&self) -> Result<()> {
        for path in [&self.certificate, &self.key] {
            let old = beside(path, OLD);
            // Of two names of one file, renaming leaves both.
            match fs::rename(&old, path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed(path)(error));
                }
                _ => sync_dir(path)?,
            }
        }
        Ok(())
    }
}

fn sum(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let length = path.metadata().map_err(failed(path))?.len();
    if length > MAX_PEM as u64 {
        let why = format!("it may have {MAX_PEM} bytes");
        return Err(Error::Certificate { what: "the certificate", why });
    }
    fs::read(path).map(Zeroizing::new).map_err(failed(path))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    remove(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(failed(path))
}

/// Removes what is there. Where nothing is, nothing is asked of a filesystem that can't be written.
fn remove(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    fs::remove_file(path).map_err(failed(path))
}

/// Makes what was renamed within the directory of a file durable.
fn sync_dir(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use jiff::Timestamp;
    use rcgen::{CertificateParams, KeyPair};

    use super::super::NewCertificate;
    use super::*;

    fn new(name: &str) -> Checked {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key);
        let new = NewCertificate {
            certificate: made.unwrap().pem().into_bytes(),
            key: Zeroizing::new(key.serialize_pem().into_bytes()),
            chain: Vec::new(),
        };
        new.check(Timestamp::now()).unwrap()
    }

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn files(&self) -> TlsFiles {
            TlsFiles::open(&self.path("cert.pem"), &self.path("key.pem"))
        }

        fn inner(&self) -> Inner {
            Inner { certificate: self.path("cert.pem"), key: self.path("key.pem"), show: None }
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_replacement_is_shown_and_leaves_nothing_beside() {
        let place = Place::new();
        let files = place.files();
        let shown = Arc::new(Mutex::new(0));
        let count = Arc::clone(&shown);
        files.show_with(Arc::new(move || {
            *count.lock().unwrap() += 1;
            Ok(())
        }));
        for name in ["one", "two"] {
            files.replace(&new(name)).unwrap();
            assert_eq!(files.facts().unwrap().names, [name]);
        }
        assert_eq!(*shown.lock().unwrap(), 2);
        assert_eq!(place.names(), ["cert.pem", "key.pem"]);
        let mode = place.path("key.pem").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Every state of the directory between two steps, then a start: the old pair or the new.
    #[test]
    fn cut_off_anywhere_it_is_the_old_one_or_the_new() {
        let place = Place::new();
        place.files().replace(&new("old")).unwrap();
        let by = new("new");
        let inner = place.inner();
        let (cert, key) = (&inner.certificate, &inner.key);
        let (new_cert, new_key) = (beside(cert, NEW), beside(key, NEW));
        // Before the note: written whole, in part, or not at all.
        for (cert_there, key_there) in [("", "whole"), ("part", "whole"), ("whole", "whole")] {
            fs::hard_link(key, beside(key, OLD)).unwrap();
            for (path, bytes, how) in [
                (&new_cert, by.certificate.as_bytes(), cert_there),
                (&new_key, &by.key[..], key_there),
            ] {
                match how {
                    "whole" => fs::write(path, bytes).unwrap(),
                    "part" => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                    _ => {}
                }
            }
            fs::write(beside(cert, DRAFT), "half a").unwrap();
            assert_eq!(place.files().facts().unwrap().names, ["old"]);
            assert_eq!(place.names(), ["cert.pem", "key.pem"]);
        }
        // After it: with none, one or both in their place.
        let old = [fs::read(cert).unwrap(), fs::read(key).unwrap()];
        for done in 0..=2 {
            inner.decide(&by).unwrap();
            for (from, to) in [(&new_cert, cert), (&new_key, key)].into_iter().take(done) {
                fs::rename(from, to).unwrap();
            }
            assert_eq!(place.files().facts().unwrap().names, ["new"], "{done}");
            assert_eq!(place.names(), ["cert.pem", "key.pem"]);
            for (path, bytes) in [cert, key].into_iter().zip(&old) {
                fs::remove_file(path).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    }

    #[test]
    fn what_can_not_be_put_in_its_place_leaves_the_old_one() {
        let place = Place::new();
        let files = place.files();
        files.replace(&new("old")).unwrap();
        // A directory takes no file's place: it stands for a mount, which can't be linked either.
        let aside = place.path("aside");
        fs::rename(place.path("key.pem"), &aside).unwrap();
        fs::create_dir(place.path("key.pem")).unwrap();
        assert!(matches!(files.replace(&new("new")), Err(Error::File { .. })));
        fs::remove_dir(place.path("key.pem")).unwrap();
        fs::rename(&aside, place.path("key.pem")).unwrap();
        assert_eq!(files.facts().unwrap().names, ["old"]);
        assert_eq!(place.names(), ["cert.pem", "key.pem"]);
        // As if that had come about after the note was written: the certificate goes back too.
        let inner = place.inner();
        inner.decide(&new("new")).unwrap();
        fs::remove_file(place.path("key.pem.replacing")).unwrap();
        fs::create_dir(place.path("key.pem.replacing")).unwrap();
        assert!(inner.end().is_err());
        fs::remove_dir(place.path("key.pem.replacing")).unwrap();
        assert_eq!(place.files().facts().unwrap().names, ["old"]);
        assert_eq!(place.names(), ["cert.pem", "key.pem"]);
        // Or a new file was damaged, or is gone and not in its place.
        for damage in [|path: &Path| fs::write(path, "x"), |path: &Path| fs::remove_file(path)] {
            inner.decide(&new("new")).unwrap();
            damage(&place.path("key.pem.replacing")).unwrap();
            assert!(inner.end().is_err());
            assert_eq!(place.files().facts().unwrap().names, ["old"]);
            assert_eq!(place.names(), ["cert.pem", "key.pem"]);
        }
    }

    #[test]
    fn links_are_left_to_who_made_them() {
        let place = Place::new();
        let files = place.files();
        files.replace(&new("old")).unwrap();
        fs::rename(place.path("cert.pem"), place.path("live.pem")).unwrap();
        std::os::unix::fs::symlink("live.pem", place.path("cert.pem")).unwrap();
        let error = files.replace(&new("new")).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        assert_eq!(files.facts().unwrap().names, ["old"]);
        assert!(place.path("cert.pem").symlink_metadata().unwrap().is_symlink());
    }
}
