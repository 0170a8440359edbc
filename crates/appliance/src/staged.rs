//! Files that a job will work with: what is secret or large does not stand in its parameters.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// After so long the job that will come for it is in the catalogue.
const SETTLED: Duration = Duration::from_secs(600);
/// Digits of the name of a directory.
const DIGITS: usize = 32;

/// Where they are, each job's in a directory of its own, for their owner alone.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    dir: PathBuf,
}

impl Staged {
    /// In the data directory.
    pub(crate) fn of(data: &Path) -> Self {
        Self { dir: data.join("staged") }
    }

    /// Writes them; gives the name by which they are found.
    pub(crate) fn put(&self, files: &[(&str, &[u8])]) -> Result<String> {
        let mut bytes = [0u8; DIGITS / 2];
        getrandom::fill(&mut bytes).map_err(strongroom_identity::Error::Random)?;
        let name = HEXLOWER.encode(&bytes);
        let dir = self.dir.join(&name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { path, source }
        };
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700).create(&dir).map_err(failed(&dir))?;
        for (file, bytes) in files {
            let path = dir.join(file);
            let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let written = made.and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
            if let Err(error) = written {
                self.remove(&name);
                return Err(failed(&path)(error));
            }
        }
        Ok(name)
    }

    /// Takes a file that is in the data directory; gives the name by which it is found.
    pub(crate) fn adopt(&self, path: &Path, file: &str) -> Result<String> {
        let name = self.put(&[])?;
        let to = self.dir.join(&name).join(file);
        let moved = fs::rename(path, &to).and_then(|()| {
            fs::File::open(&to)?.sync_all()?;
            fs::File::open(self.dir.join(&name))?.sync_all()
        });
        match moved {
            Ok(()) => Ok(name),
            Err(source) => {
                self.remove(&name);
                Err(Error::File { path: path.to_owned(), source })
            }
        }
    }

    /// Opens one of them, with its bytes; None: it is not there.
    pub(crate) fn open(&self, name: &str, file: &str) -> Result<Option<(fs::File, u64)>> {
        let path = self.dir.join(name).join(file);
        let opened = fs::File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) => Ok(Some((file, length))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Whether that can be such a name.
    pub(crate) fn is_name(name: &str) -> bool {
        name.len() == DIGITS && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// As [`Staged::is_name`], for the parameters of a job.
    pub(crate) fn check(name: &str) -> std::result::Result<(), String> {
        match Self::is_name(name) {
            true => Ok(()),
            false => Err("staged files have no such name".into()),
        }
    }

    /// Reads one of them; None: it is not there.
    pub(crate) fn read(&self, name: &str, file: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.dir.join(name).join(file);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Removes them. That they can't be is told of; nobody finds them, and they are swept.
    pub(crate) fn remove(&self, name: &str) {
        let dir = self.dir.join(name);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "{} can't be removed", dir.display());
            }
            _ => {}
        }
    }

    /// The names of those whose job must be in the catalogue by now, if there is to be one.
    pub(crate) fn settled(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let is_settled = |entry: &fs::DirEntry| {
            let changed = entry.metadata().and_then(|meta| meta.modified());
            let age = changed.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            age.is_ok_and(|age| age >= SETTLED)
        };
        let names = entries.flatten().filter(is_settled);
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_gone_when_they_are_removed_or_old() {
        let dir = tempfile::tempdir().unwrap();
        let staged = Staged::of(dir.path());
        assert!(staged.settled().is_empty());
        let name = staged.put(&[("a", b"one"), ("b", b"")]).unwrap();
        assert!(Staged::is_name(&name) && !Staged::is_name("../../etc") && !Staged::is_name(""));
        assert_eq!(**staged.read(&name, "a").unwrap().unwrap(), *b"one");
        assert!(staged.read(&name, "c").unwrap().is_none());
        let path = dir.path().join("staged").join(&name);
        assert_eq!(path.join("a").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(staged.settled().is_empty());
        let old = SystemTime::now() - SETTLED - Duration::from_secs(1);
        fs::File::open(&path).unwrap().set_modified(old).unwrap();
        assert_eq!(staged.settled(), std::slice::from_ref(&name));
        for _ in 0..2 {
            staged.remove(&name);
            assert!(!path.exists());
        }
    }
}
