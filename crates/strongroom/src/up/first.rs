//! The first start, which may be cut off before what it shows once was shown: then the next one
//! makes it good.
//!
//! A file in the data directory holds a mark, which the catalogue keeps too until the passphrase was
//! told, and in its second line how far that start came ([`Step`]).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use strongroom_engine::id::RootId;

/// The file's name.
const NAME: &str = "first-start";

/// How far a first start came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Nobody knows whether it is the first.
    Begun,
    /// It is: the catalogue was made.
    First,
    /// The directory of the first pool was free, and that pool was begun: what is found there later,
    /// and no catalogue knows, was left half made.
    Pool,
}

impl Step {
    const ALL: [(Self, &str); 3] =
        [(Self::Begun, ""), (Self::First, "first"), (Self::Pool, "pool")];
}

/// A start of which not all was told yet.
#[derive(Debug)]
pub(super) struct FirstStart {
    data: PathBuf,
    mark: String,
    step: Step,
}

impl FirstStart {
    /// Takes up the one that was cut off, or begins one. The catalogue knows by its mark whether it
    /// was the first.
    pub(super) fn begin(data: &Path) -> Result<Self> {
        let data = data.to_owned();
        let found = fs::read_to_string(data.join(NAME)).unwrap_or_default();
        let mut lines = found.lines();
        if let Some(mark) = lines.next().filter(|mark| RootId::parse(mark).is_some()) {
            let word = lines.next().unwrap_or_default();
            let step = Step::ALL.iter().find(|(_, name)| *name == word);
            let step = step.map_or(Step::Begun, |(step, _)| *step);
            return Ok(Self { data, mark: mark.to_owned(), step });
        }
        let start = Self { data, mark: RootId::random().to_string(), step: Step::Begun };
        start.write()?;
        Ok(start)
    }

    fn write(&self) -> Result<()> {
        let path = self.data.join(NAME);
        let (_, word) = Step::ALL[self.step as usize];
        let text = format!("{}\n{word}\n", self.mark);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            sync(&self.data)
        });
        written.with_context(|| format!("noting the first start in {}", path.display()))
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// How far it came.
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// Notes that it came so far.
    pub(super) fn came_to(&mut self, step: Step) -> Result<()> {
        if self.step < step {
            self.step = step;
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
        assert_eq!((begin().mark(), begin().step()), (first.mark(), Step::Begun));
        first.came_to(Step::Pool).unwrap();
        first.came_to(Step::First).unwrap();
        assert_eq!((begin().mark(), begin().step()), (first.mark(), Step::Pool));
        begin().end().unwrap();
        first.end().unwrap();
        assert_eq!(begin().step(), Step::Begun);
        // A torn one is none.
        fs::write(dir.path().join(NAME), "ab").unwrap();
        assert_eq!(begin().mark().len(), 32);
    }
}
