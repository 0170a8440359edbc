//! The copy of the catalogue as it was before an update, which the program of then may need.
//!
//! It lies beside the catalogue, which may be on another file system than `releases`:
//! `catalogue.db.before`; what was in its place when it came back is `catalogue.db.aside`. There is one
//! of each at most.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Releases, is_there, remove_all, sync};
use crate::{Error, Result};

/// What the directories of the catalogue's copy, and of what was in its place, end with.
const BEFORE: &str = ".before";
const ASIDE: &str = ".aside";
/// The file there.
const COPY: &str = "catalogue.db";

fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// Where the copy of a catalogue is.
pub(super) fn copy_of(catalogue: &Path) -> PathBuf {
    beside(catalogue, BEFORE).join(COPY)
}

impl Releases {
    /// none that may be.
    pub(crate) fn need_catalogue(&self) -> Result<bool> {
        if !is_there(&self.file()) {
            return Ok(false);
        }
        self.change(|state| {
            let Some(returning) = state.returning.as_mut() else { return Ok(false) };
            let first = !returning.decided;
            returning.decided = true;
            Ok(first)
        })
    }

    /// The catalogue could be opened as it is.
    pub(crate) fn catalogue_fits(&self) -> Result<()> {
        if !is_there(&self.file()) || self.read()?.returning.is_none() {
            return Ok(());
        }
        self.change(|state| {
            state.returning = None;
            Ok(())
        })
    }

    /// The catalogue and what it is sealed with are others now, those of a backup: the copy of before
    /// the update does not belong to them, and is not put back any more.
    fn forget_copy(&self) -> Result<()> {
        if !is_there(&self.file()) {
            return Ok(());
        }
        let state = self.read()?;
        if state.copy.is_none() && state.returning.is_none() {
            return Ok(());
        }
        self.change(|state| {
            (state.copy, state.returning) = (None, None);
            Ok(())
        })
    }

    /// Copies the catalogue, which nobody has open.
    pub(super) fn copy_catalogue(&self, catalogue: &Path) -> Result<()> {
        let before = beside(catalogue, BEFORE);
        remove_all(&before)?;
        DirBuilder::new().mode(0o700).create(&before).map_err(Error::file(&before))?;
        for more in ["", "-wal"] {
            let (from, to) = (beside(catalogue, more), before.join(format!("{COPY}{more}")));
            self.step()?;
            match fs::copy(&from, &to) {
                Ok(_) => {
                    let done = File::open(&to).and_then(|file| file.sync_all());
                    done.map_err(Error::file(&to))?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file(&from)(error)),
            }
        }
        sync(&before)?;
        before.parent().map_or(Ok(()), sync)
    }

    /// Puts the copy in the place of the catalogue, which nobody has open.
    pub(super) fn put_back(&self, catalogue: &Path) -> Result<()> {
        let (before, aside) = (beside(catalogue, BEFORE), beside(catalogue, ASIDE));
        let copy = copy_of(catalogue);
        // It is the last that goes to its place.
        if !is_there(&copy) {
            return Ok(());
        }
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(&aside).map_err(Error::file(&aside))?;
        let rename = |from: &Path, to: &Path| -> Result<()> {
            self.step()?;
            match fs::rename(from, to) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(from)(error)),
                _ => {
                    for dir in [from, to].into_iter().filter_map(Path::parent) {
                        sync(dir)?;
                    }
                    Ok(())
                }
            }
        };
        let wal = before.join(format!("{COPY}-wal"));
        // The one of the copy may be in its place already; then the new one's was moved.
        let moved = before.join("moved");
        if !is_there(&moved) {
            for more in ["-wal", "-shm", ""] {
                rename(&beside(catalogue, more), &aside.join(format!("{COPY}{more}")))?;
            }
            self.step()?;
            File::create(&moved).and_then(|file| file.sync_all()).map_err(Error::file(&moved))?;
            sync(&before)?;
        }
        if is_there(&wal) {
            rename(&wal, &beside(catalogue, "-wal"))?;
        }
        rename(&copy, catalogue)
    }
}

/// The catalogue is newer than this program: whether the next start puts the one of before the update
/// back.
///
/// # Errors
/// [`Error::File`].
pub fn need_catalogue(data: &Path) -> Result<bool> {
    Releases::of(data).need_catalogue()
}

/// The catalogue could be opened: the copy is not needed.
///
/// # Errors
/// [`Error::File`].
pub fn catalogue_fits(data: &Path) -> Result<()> {
    Releases::of(data).catalogue_fits()
}

/// The state of a backup of the appliance is in force: no copy belongs to it.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn forget_copy(data: &Path) -> Result<()> {
    Releases::of(data).forget_copy()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fixture::{Place, is_watch};
    use super::super::launch::Launch;
    use super::super::undo;
    use super::*;

    #[test]
    fn a_catalogue_that_was_changed_comes_back_whatever_it_is_cut_off_at() {
        for left in 0.. {
            let place = Place::new();
            let release = place.install("0.2.0");
            let releases = place.releases(None);
            assert!(!need_catalogue(&place.data()).unwrap());
            releases.decide(place.trial(&release, None), "me", Some(1)).unwrap();
            place.launch();
            place.migrate();
            let steps = place.releases(Some(left));
            let done = steps.undo(&release, "it crashed").and_then(|()| {
                // The old program finds that it doesn't know it.
                steps.need_catalogue()?;
                place.launch_of(&steps, &place.installed)
            });
            // Whatever was done by then, the next starts end it.
            let found = releases.read().unwrap();
            let launch = place.launch();
            if found.returning.as_ref().is_some_and(|returning| !returning.decided) {
                assert!(need_catalogue(&place.data()).unwrap());
                assert!(!need_catalogue(&place.data()).unwrap(), "it is asked for once");
                place.launch();
            } else if found.trial.is_some() {
                assert_eq!(launch, Launch::Stay);
                assert!(need_catalogue(&place.data()).unwrap());
                place.launch();
            }
            assert_eq!(place.catalogue(), Place::old(), "{left}");
            assert!(!need_catalogue(&place.data()).unwrap());
            assert_eq!(place.launch(), Launch::Stay);
            if done.is_ok() {
                break;
            }
        }
        // One that is known stays as it is.
        let place = Place::new();
        let release = place.install("0.2.0");
        place.releases(None).decide(place.trial(&release, None), "me", Some(1)).unwrap();
        place.launch();
        place.migrate();
        undo(&place.data(), &release, "it crashed").unwrap();
        place.launch();
        catalogue_fits(&place.data()).unwrap();
        assert!(!need_catalogue(&place.data()).unwrap());
        place.launch();
        assert_eq!(place.catalogue()[0].as_deref(), Some("new"));
    }

    #[test]
    fn a_copy_of_another_update_is_not_put_back() {
        let place = Place::new();
        let releases = place.releases(None);
        let first = place.install("0.2.0");
        releases.decide(place.trial(&first, None), "me", None).unwrap();
        place.launch();
        place.migrate();
        releases.confirm(&first).unwrap();
        // The copy is that of the first one's catalogue.
        let second = place.install("0.3.0");
        let mut trial = place.trial(&second, Some(&first));
        trial.previous.schema = 8;
        releases.decide(trial, "me", None).unwrap();
        assert!(is_watch(&place.launch_of(&releases, &place.program(&first)).unwrap(), &second));
        releases.undo(&second, "it crashed").unwrap();
        releases.catalogue_fits().unwrap();
        let refused = releases.go_back(8, true, "me").unwrap_err().to_string();
        assert!(refused.contains("no copy of the one that it had"), "{refused}");
        assert_eq!(place.catalogue()[0].as_deref(), Some("new"));
        assert_eq!(releases.read().unwrap().active, Some(first));
    }

    #[test]
    fn a_catalogue_on_another_file_system_comes_back() {
        let shm = tempfile::tempdir_in("/dev/shm").unwrap();
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        let catalogue = shm.path().join("catalogue.db");
        fs::write(&catalogue, "old").unwrap();
        let mut trial = place.trial(&release, None);
        trial.catalogue = Some(catalogue.clone());
        releases.decide(trial, "me", None).unwrap();
        place.launch();
        fs::write(&catalogue, "new").unwrap();
        releases.undo(&release, "it crashed").unwrap();
        assert!(releases.need_catalogue().unwrap());
        assert_eq!(place.launch(), Launch::Stay);
        assert_eq!(fs::read_to_string(&catalogue).unwrap(), "old");
        let aside = shm.path().join("catalogue.db.aside/catalogue.db");
        assert_eq!(fs::read_to_string(aside).unwrap(), "new");
    }
}
