//! An archive on its way in: kept on the disk, where nobody else finds it, and bounded.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use tokio::sync::OwnedSemaphorePermit;

use super::{Place, enough, failed, remove};
use crate::{Error, Result};

/// Bytes of an archive that is sent, at most.
pub const MAX_ARCHIVE: u64 = 16 << 30;
/// After so many bytes the room is looked at again.
const LOOK: u64 = 8 << 20;

/// A file without a name; it goes with this.
#[derive(Debug)]
pub struct Spool {
    place: Place,
    file: File,
    bytes: u64,
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
        Ok(Self { place: place.clone(), file, bytes: 0, looked: 0, _turn: turn })
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`Error::Archive`] when it has too many; [`Error::Room`]; [`Error::File`].
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

fn too_large() -> Error {
    Error::Archive(format!("it may have {MAX_ARCHIVE} bytes"))
}

impl Place {
    /// Adds a piece to what a client hands over, which begins anew at 0; how much there is then.
    pub(super) fn append_upload(&self, offset: u64, piece: &[u8]) -> Result<u64> {
        self.directory()?;
        let path = self.upload();
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(failed(&path))?;
        let there = file.metadata().map_err(failed(&path))?.len();
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
        written.map_err(failed(&path))?;
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
        assert!(matches!(spool.write(b"x"), Err(Error::Archive(_))));
        assert!(matches!(spool.expect(MAX_ARCHIVE + 1), Err(Error::Archive(_))));
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
