//! The first start, which may be cut off before what it shows once was shown: then the next one
//! makes it good.
//!
//! A file in the data directory holds a mark that the catalogue keeps too, until all was told. Its
//! second line says that the first pool was begun where nothing was: what is found there later, and
//! the catalogue does not know, was left half made.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use strongroom_engine::id::RootId;

/// The file's name, and what it is called until it is whole.
const NAME: &str = "first-start";
const NEW: &str = "first-start.new";
/// The second line.
const POOL: &str = "pool";

/// A start of which not all was told yet.
#[derive(Debug)]
pub(super) struct FirstStart {
    data: PathBuf,
    mark: String,
    began_pool: bool,
}

impl FirstStart {
    /// Takes up the one that was cut off, or begins one. The catalogue knows by its mark whether it
    /// was the first.
    pub(super) fn begin(data: &Path) -> Result<Self> {
        let path = data.join(NAME);
        let found = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            read => Some(read.with_context(|| format!("reading {}", path.display()))?),
        };
        let data = data.to_owned();
        let Some(found) = found else {
            let start = Self { data, mark: RootId::random().to_string(), began_pool: false };
            start.write()?;
            return Ok(start);
        };
        let lines: Vec<&str> = found.lines().collect();
        let (mark, began_pool) = match lines[..] {
            [mark, ""] => (mark, false),
            [mark, POOL] => (mark, true),
            _ => bail!("{} is not what was written there: remove it", path.display()),
        };
        Ok(Self { data, mark: mark.to_owned(), began_pool })
    }

    /// The whole file, or what was there before.
    fn write(&self) -> Result<()> {
        let path = self.data.join(NAME);
        let new = self.data.join(NEW);
        let second = if self.began_pool { POOL } else { "" };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = file.and_then(|mut file| {
            writeln!(file, "{}\n{second}", self.mark)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync(&self.data)
        });
        written.with_context(|| format!("noting the first start in {}", path.display()))
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Whether the first pool was begun where nothing was.
    pub(super) fn began_pool(&self) -> bool {
        self.began_pool
    }

    /// Notes that, or that it is not so.
    pub(super) fn set_began_pool(&mut self, began: bool) -> Result<()> {
        if self.began_pool != began {
            self.began_pool = began;
            self.write()?;
        }
        Ok(())
    }

    /// All was told, or there was nothing to tell.
    pub(super) fn end(self) -> Result<()> {
        let path = self.data.join(NAME);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => sync(&self.data),
        };
        removed.with_context(|| format!("removing {}", path.display()))
    }
}

fn sync(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_that_did_not_end_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || FirstStart::begin(dir.path()).unwrap();
        let mut first = begin();
        assert_eq!((begin().mark(), begin().began_pool()), (first.mark(), false));
        first.set_began_pool(true).unwrap();
        assert_eq!((begin().mark(), begin().began_pool()), (first.mark(), true));
        begin().set_began_pool(false).unwrap();
        assert!(!begin().began_pool());
        begin().end().unwrap();
        first.end().unwrap();
        assert_eq!(begin().mark().len(), 32);
        fs::write(dir.path().join(NAME), "").unwrap();
        assert!(FirstStart::begin(dir.path()).unwrap_err().to_string().contains("remove it"));
    }
}
