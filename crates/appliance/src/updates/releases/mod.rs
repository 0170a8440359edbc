//! The releases that this appliance has beside the program that it was installed with, and which of
//! them is in force.
//!
//! Each lies in a directory of its own, `releases/NAME`, that never changes once it has that name. One
//! file, `releases/state.json`, says which is in force, which was before, and what is on trial; it is
//! replaced as a whole, so that a process that is cut off anywhere leaves the old or the new. Who
//! changes it holds `releases/state.lock`.
//!
//! | state | what the next start does |
//! |---|---|
//! | nothing is on trial | starts the release that is in force, else the installed program |
//! | a trial that was not begun | copies the catalogue, and begins it |
//! | a trial that was begun | it died without a word: the release before is in force again |
//! | the catalogue is to come back | puts the copy of before the update in its place |
//!
//! A release that is not what was installed is not started. Neither is one that is not newer than the
//! installed program, where that is another than the one that it was installed over.

mod catalogue;
mod directory;
#[cfg(test)]
pub(crate) mod fixture;
mod launch;
mod state;
mod trial;

use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(crate) use catalogue::forget_copy;
pub use catalogue::{catalogue_fits, need_catalogue};
pub use directory::release_of;
pub use launch::{Launch, Launcher, Watchman, launch};
pub(crate) use state::Previous;
pub use state::{Trial, UpdateRecord, UpdateResult};
pub(super) use trial::on_trial;
pub use trial::{confirm, is_on_trial, suspend, undo};

use crate::{Error, Result};

/// The releases of a data directory. A test lets its steps end after some.
#[derive(Debug)]
pub(crate) struct Releases {
    data: PathBuf,
    dir: PathBuf,
    left: Cell<Option<u32>>,
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::file(dir))
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

impl Releases {
    pub(crate) fn of(data: &Path) -> Self {
        Self { data: data.to_owned(), dir: data.join("releases"), left: Cell::new(None) }
    }

    /// Before each step.
    fn step(&self) -> Result<()> {
        let Some(left) = self.left.get() else { return Ok(()) };
        let Some(left) = left.checked_sub(1) else {
            return Err(Error::State("cut off by a test".into()));
        };
        self.left.set(Some(left));
        Ok(())
    }

    /// Makes the directory, for its owner alone.
    pub(super) fn directory(&self) -> Result<()> {
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(&self.dir).map_err(Error::file(&self.dir))
    }

    fn path(&self, release: &str) -> PathBuf {
        self.dir.join(release)
    }
}
