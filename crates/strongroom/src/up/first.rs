//! The first start, which may be cut off before what it shows once was shown: then the next one
//! makes it good.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use strongroom_engine::id::RootId;

/// The file's name.
const NAME: &str = "first-start";

/// A start of which nobody was told yet.
#[derive(Debug)]
pub(super) struct FirstStart {
    path: PathBuf,
    mark: String,
    cut_off: bool,
}

impl FirstStart {
    /// Takes up the one that was cut off, or begins one. The catalogue knows by its mark whether it
    /// was the first.
    pub(super) fn begin(data: &Path) -> Result<Self> {
        let path = data.join(NAME);
        let what = || format!("noting the first start in {}", path.display());
        let found = fs::read_to_string(&path).unwrap_or_default();
        if found.len() == 32 {
            return Ok(Self { path, mark: found, cut_off: true });
        }
        let mark = RootId::random().to_string();
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let mut file = file.with_context(what)?;
        file.write_all(mark.as_bytes()).and_then(|()| file.sync_all()).with_context(what)?;
        File::open(data).and_then(|dir| dir.sync_all()).with_context(what)?;
        Ok(Self { path, mark, cut_off: false })
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Whether it is one that was cut off.
    pub(super) fn was_cut_off(&self) -> bool {
        self.cut_off
    }

    /// All was told, or there was nothing to tell.
    pub(super) fn end(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_that_did_not_end_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let mark = FirstStart::begin(dir.path()).unwrap().mark;
        assert_eq!(mark.len(), 32);
        let again = FirstStart::begin(dir.path()).unwrap();
        assert!(again.was_cut_off());
        assert_eq!(again.mark(), mark);
        again.end().unwrap();
        let next = FirstStart::begin(dir.path()).unwrap();
        assert!(!next.was_cut_off());
        assert_ne!(next.mark(), mark);
        // A torn one is none.
        fs::write(dir.path().join(NAME), "ab").unwrap();
        assert_eq!(FirstStart::begin(dir.path()).unwrap().mark().len(), 32);
    }
}
