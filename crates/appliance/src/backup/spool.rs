//! An archive on its way in: kept on the disk, where nobody else finds it, and bounded.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use super::{Place, enough, failed, remove, settle};
use crate::{Error, Result};

/// Bytes of an archive that is sent, at most.
pub const MAX_ARCHIVE: u64 = 16 << 30;
/// After so many bytes the room is looked at again.
const LOOK: u64 = 8 << 20;

/// A file that goes with this, unless it is handed over. Without a name where it can't be.
#[derive(Debug)]
pub struct Spool {
    place: Place,
    file: File,
    bytes: u64,
    /// Its name, until it is handed over.
    path: Mutex<Option<PathBuf>>,
    /// Up to here there was room.
    looked: u64,
    /// There is one at a time.
    _turn: OwnedSemaphorePermit,
}

impl Spool {
    /// An empty one.
    pub(super) fn new(place: &Place, turn: OwnedSemaphorePermit) -> Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(strongroom_identity::Error::Random)?;
        let path = place.directory()?.join(format!("incoming-{}", u64::from_ne_bytes(name)));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed(&path))?;
        remove(&path)?;
        let path = Mutex::default();
        Ok(Self { place: place.clone(), file, bytes: 0, path, looked: 0, _turn: turn })
    }

    /// An empty one in a directory, which can be handed over.
    pub(crate) fn named(place: &Place, dir: &Path, turn: OwnedSemaphorePermit) -> Result<Self> {
        settle::directory(dir)?;
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(strongroom_identity::Error::Random)?;
        let path = dir.join(format!("incoming-{}", u64::from_ne_bytes(name)));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed(&path))?;
        let path = Mutex::new(Some(path));
        Ok(Self { place: place.clone(), file, bytes: 0, path, looked: 0, _turn: turn })
    }

    /// Gives the file away.
    pub(crate) fn hand_over<T>(&self, to: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = to(path.as_deref().ok_or(Error::NoPackage)?)?;
        *path = None;
        Ok(taken)
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it has too many; [`Error::Room`]; [`Error::File`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.bytes + bytes.len() as u64;
        if end > MAX_ARCHIVE {
            return Err(too_large());
        }
        if end > self.looked {
            self.place.fits(LOOK.max(bytes.len() as u64))?;
            self.looked = end + LOOK;
        }
        let path = self.place.upload();
        self.file.write_all(bytes).map_err(failed(&path))?;
        self.bytes = end;
        Ok(())
    }

    /// Begins anew.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn clear(&mut self) -> Result<()> {
        let path = self.place.upload();
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(failed(&path))?;
        self.bytes = 0;
        Ok(())
    }

    /// Refuses what would be too large when it is told beforehand.
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn expect(&self, bytes: u64) -> Result<()> {
        match bytes <= MAX_ARCHIVE {
            true => enough(bytes, self.place.room()?),
            false => Err(too_large()),
        }
    }

    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn file(&self) -> Result<File> {
        self.file.try_clone().map_err(failed(&self.place.upload()))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let path = self.path.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = path.take()
            && let Err(error) = remove(&path)
        {
            tracing::warn!(%error, "a file that was sent can't be removed");
        }
    }
}

fn too_large() -> Error {
    Error::TooLarge { most: MAX_ARCHIVE }
}

impl Place {
    /// Adds a piece to what a client hands over, which begins anew at 0; how much there is then.
    pub(super) fn append_upload(&self, offset: u64, piece: &[u8]) -> Result<u64> {
        self.append_to(self.directory()?, &self.upload(), offset, piece)
    }

    /// As [`Place::append_upload`], to a file of a directory.
    pub(crate) fn append_to(
        &self,
        dir: &Path,
        path: &Path,
        offset: u64,
        piece: &[u8],
    ) -> Result<u64> {
        settle::directory(dir)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = file.map_err(failed(path))?;
        let there = file.metadata().map_err(failed(path))?.len();
        if offset != 0 && offset != there {
            return Err(Error::Offset { there });
        }
        let end = offset.saturating_add(piece.len() as u64);
        if end > MAX_ARCHIVE {
            return Err(too_large());
        }
        self.fits(piece.len() as u64)?;
        let written = file
            .set_len(offset)
            .and_then(|()| file.seek(SeekFrom::Start(offset)))
            .and_then(|_| file.write_all(piece));
        written.map_err(failed(path))?;
        Ok(end)
    }

    /// What a client handed over, and how much.
    pub(super) fn take_upload(&self) -> Result<Option<(File, u64)>> {
        let path = self.upload();
        match File::open(&path) {
            Ok(file) => {
                let length = file.metadata().map_err(failed(&path))?.len();
                Ok(Some((file, length)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// It is of no more use.
    pub(super) fn end_upload(&self) {
        if let Err(error) = remove(&self.upload()) {
            tracing::warn!(%error, "an archive that was sent can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;

    #[test]
    fn a_spool_has_no_name_and_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path());
        let turns = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let turn = turns.try_acquire_owned().unwrap();
        let mut spool = Spool::new(&place, turn).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("backup")).unwrap().count(), 0);
        spool.write(b"some").unwrap();
        spool.clear().unwrap();
        spool.write(b"other").unwrap();
        assert_eq!(spool.len(), 5);
        assert_eq!(spool.file().unwrap().metadata().unwrap().len(), 5);
        spool.bytes = MAX_ARCHIVE;
        assert!(matches!(spool.write(b"x"), Err(Error::TooLarge { .. })));
        assert!(matches!(spool.expect(MAX_ARCHIVE + 1), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn pieces_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path());
        assert!(place.take_upload().unwrap().is_none());
        assert_eq!(place.append_upload(0, b"old one").unwrap(), 7);
        assert_eq!(place.append_upload(0, b"new").unwrap(), 3);
        assert_eq!(place.append_upload(3, b" one").unwrap(), 7);
        let refused = place.append_upload(3, b"again").unwrap_err();
        assert!(matches!(refused, Error::Offset { there: 7 }));
        assert!(place.append_upload(MAX_ARCHIVE, b"x").is_err());
        let (mut file, length) = place.take_upload().unwrap().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!((text.as_str(), length), ("new one", 7));
        place.end_upload();
        assert!(place.take_upload().unwrap().is_none());
    }
}
