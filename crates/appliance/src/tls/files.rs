//! The certificate's two files, which change together or not at all.
//!
//! The new ones are written beside them, then a note with the SHA-256 of each: from then on they are
//! the certificate, and whoever finds the note puts them in place. Without a note, what stands beside
//! the files was never decided on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXLOWER};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::MAX_PEM;
use super::check::{Checked, pair};
use super::facts::{CertificateFacts, facts};
use crate::{Error, Result};

/// Where a new file is until it is in its place.
const NEW: &str = ".replacing";
/// The note beside the certificate.
const NOTE: &str = ".replace";

/// The files, and who is told when they were replaced. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    /// One at a time replaces them.
    turn: Mutex<()>,
    replaced: watch::Sender<u64>,
}

/// As PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl TlsFiles {
    /// Of the certificate with its chain and of its key. Ends a replacement that was cut off.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(certificate: &Path, key: &Path) -> Result<Self> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let turn = Mutex::default();
        let inner = Inner { certificate, key, turn, replaced: watch::Sender::new(0) };
        inner.end()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Tells whenever they were replaced.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.replaced.subscribe()
    }

    /// What the certificate says that is there.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Certificate`].
    pub fn show(&self) -> Result<CertificateFacts> {
        let Inner { certificate, key, .. } = &*self.inner;
        let pair = pair(&read(certificate)?, &read(key)?)?;
        let said = pair.cert.first().and_then(|der| facts(der));
        said.ok_or(Error::Certificate {
            what: "the certificate",
            why: "it is not understood".into(),
        })
    }

    /// Puts a certificate in the place of the one that is there.
    ///
    /// # Errors
    /// [`Error::File`]; then the one that was there still is, unless the note was written: then it
    /// is replaced at the next try or start.
    pub fn replace(&self, by: &Checked) -> Result<()> {
        let inner = &*self.inner;
        let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        inner.end()?;
        inner.decide(by)?;
        inner.end()?;
        inner.replaced.send_modify(|count| *count += 1);
        Ok(())
    }
}

impl Inner {
    fn note(&self) -> PathBuf {
        beside(&self.certificate, NOTE)
    }

    /// Writes the new files, then the note.
    fn decide(&self, by: &Checked) -> Result<()> {
        let new_key = beside(&self.key, NEW);
        let new_certificate = beside(&self.certificate, NEW);
        write(&new_key, &by.key, 0o600)?;
        write(&new_certificate, by.certificate.as_bytes(), 0o644)?;
        let sums = format!("{}\n{}\n", sum(by.certificate.as_bytes()), sum(&by.key));
        let draft = beside(&self.certificate, ".replace.new");
        write(&draft, sums.as_bytes(), 0o600)?;
        for path in [&self.key, &self.certificate] {
            sync_dir(path)?;
        }
        let note = self.note();
        fs::rename(&draft, &note).map_err(failed(&note))?;
        sync_dir(&note)
    }

    /// Ends what was decided; removes what was not.
    fn end(&self) -> Result<()> {
        let note = self.note();
        let sums = match fs::read_to_string(&note) {
            Ok(sums) => sums,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                for path in [&self.key, &self.certificate] {
                    remove(&beside(path, NEW))?;
                }
                return remove(&beside(&self.certificate, ".replace.new"));
            }
            Err(error) => return Err(failed(&note)(error)),
        };
        let mut sums = sums.lines();
        for path in [&self.certificate, &self.key] {
            let new = beside(path, NEW);
            let is_it = |bytes: &[u8]| sums.clone().next() == Some(sum(bytes).as_str());
            match fs::read(&new).map(Zeroizing::new) {
                Ok(bytes) if is_it(&bytes) => {
                    fs::rename(&new, path).map_err(failed(path))?;
                    sync_dir(path)?;
                }
                // It is in its place already, or somebody put another one there since.
                Ok(_) => remove(&new)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&new)(error)),
            }
            sums.next();
        }
        remove(&note)
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

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
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
        fn files(&self) -> TlsFiles {
            let path = |name| self.dir.path().join(name);
            TlsFiles::open(&path("cert.pem"), &path("key.pem")).unwrap()
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
    fn a_replacement_is_told_of_and_leaves_nothing_beside() {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        let files = place.files();
        let watch = files.watch();
        for name in ["one", "two"] {
            files.replace(&new(name)).unwrap();
            assert_eq!(files.show().unwrap().names, [name]);
        }
        assert_eq!(*watch.borrow(), 2);
        assert_eq!(place.names(), ["cert.pem", "key.pem"]);
        let mode = place.dir.path().join("key.pem").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Every state of the directory between two steps, then a start: the old pair or the new.
    #[test]
    fn cut_off_anywhere_it_is_the_old_one_or_the_new() {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        let files = place.files();
        files.replace(&new("old")).unwrap();
        let by = new("new");
        let inner = &files.inner;
        let (cert, key) = (&inner.certificate, &inner.key);
        let (new_cert, new_key) = (beside(cert, NEW), beside(key, NEW));
        // Before the note: written whole, in part, or not at all.
        for (cert_there, key_there) in [("", "whole"), ("part", "whole"), ("whole", "whole")] {
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
            fs::write(beside(cert, ".replace.new"), "half a").unwrap();
            assert_eq!(place.files().show().unwrap().names, ["old"]);
            assert_eq!(place.names(), ["cert.pem", "key.pem"]);
        }
        // After it: with none, one or both in their place.
        let old = [fs::read(cert).unwrap(), fs::read(key).unwrap()];
        for done in 0..=2 {
            inner.decide(&by).unwrap();
            for (from, to) in [(&new_cert, cert), (&new_key, key)].into_iter().take(done) {
                fs::rename(from, to).unwrap();
            }
            assert_eq!(place.files().show().unwrap().names, ["new"], "{done}");
            assert_eq!(place.names(), ["cert.pem", "key.pem"]);
            fs::write(cert, &old[0]).unwrap();
            fs::write(key, &old[1]).unwrap();
        }
    }
}
