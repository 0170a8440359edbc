//! Finding entries in one, several or all images, from metadata alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Candidate, GlobBuilder, GlobMatcher};

use crate::diff::{self, Change};
use crate::entry::{Entry, Time};
use crate::image::Image;
use crate::list::{Legend, Row, kind};
use crate::scan::{Step, Walk, dir, locate};
use crate::store::Source;
use crate::{Error, Result, Troubles};

/// What is looked for: all that is said here must be so.
#[derive(Clone, Debug, Default)]
pub struct Query {
    patterns: Vec<Pattern>,
    kinds: Vec<String>,
    /// The least and the greatest size in bytes, both included.
    pub size: (Option<u64>, Option<u64>),
    /// The earliest and the latest modification time, both included.
    pub mtime: (Option<Time>, Option<Time>),
}

#[derive(Clone, Debug)]
struct Pattern {
    glob: GlobMatcher,
    /// It fits the whole path, not the name.
    whole: bool,
}

impl Query {
    /// A query for anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pattern, of which one must fit: `*`, `?`, `[a-z]`, `{a,b}`, and `**` for any number
    /// of directories. With a `/` in it, it must fit the whole path from the top of the image;
    /// without one, the name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no pattern.
    pub fn pattern(mut self, text: &str, ignore_case: bool) -> Result<Self> {
        let whole = text.contains('/');
        let glob = GlobBuilder::new(text.strip_prefix('/').unwrap_or(text))
            .literal_separator(true)
            .backslash_escape(true)
            .case_insensitive(ignore_case)
            .build()
            .map_err(|e| {
                let why = e.kind();
                Error::Invalid(format!("the pattern {text:?} is no good: {why}"))
            })?
            .compile_matcher();
        self.patterns.push(Pattern { glob, whole });
        Ok(self)
    }

    /// Adds a kind, of which it must be one: as [`Row::kind`] names them, or the letter that
    /// `find -type` has for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another.
    pub fn kind(mut self, text: &str) -> Result<Self> {
        let name = match text {
            "f" | "file" => "file",
            "d" | "dir" => "dir",
            "l" | "symlink" => "symlink",
            "p" | "fifo" => "fifo",
            "c" | "char" => "char",
            "b" | "block" => "block",
            "s" | "socket" => "socket",
            _ => {
                let known = "file, dir, symlink, fifo, char, block and socket";
                return Err(Error::Invalid(format!("{text:?} is no kind; there are {known}")));
            }
        };
        self.kinds.push(name.into());
        Ok(self)
    }

    /// Whether an entry at this path is what is looked for.
    pub fn fits(&self, path: &[u8], entry: &Entry) -> bool {
        let within = |size: u64| {
            self.size.0.is_none_or(|least| size >= least)
                && self.size.1.is_none_or(|most| size <= most)
        };
        let during = |time: Time| {
            self.mtime.0.is_none_or(|first| time >= first)
                && self.mtime.1.is_none_or(|last| time <= last)
        };
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        let fits = |pattern: &Pattern| {
            let text = if pattern.whole { path } else { name };
            pattern.glob.is_match_candidate(&Candidate::new(Path::new(OsStr::from_bytes(text))))
        };
        (self.kinds.is_empty() || self.kinds.iter().any(|name| name == kind(&entry.body)))
            && within(entry.size())
            && during(entry.mtime)
            && (self.patterns.is_empty() || self.patterns.iter().any(fits))
    }
}

/// Which of the versions of an entry are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// Only where it is new or not as it was in the image before of the same name: unchanged
    /// directories are not read again.
    #[default]
    Changed,
    /// In every image that has it.
    All,
}

/// Looks through images in the order given (the oldest first, as [`crate::image::images`] has
/// them) below a path, and tells `each` what fits, in the order of paths. Images without the path
/// are passed over. Memory is bounded.
///
/// # Errors
/// [`Error::Invalid`] for a bad path, and those of `each`, which end all. An image or directory
/// that can't be read is a trouble.
pub fn find(
    source: &dyn Source,
    images: &[Image],
    path: &[u8],
    query: &Query,
    versions: Versions,
    each: &mut dyn FnMut(&Image, Row) -> Result<()>,
) -> Result<Troubles> {
    crate::image::components(path)?;
    let mut troubles = Troubles::default();
    for (at, image) in images.iter().enumerate() {
        let _hold = source.hold(image.id)?;
        let before = images[..at]
            .iter()
            .rev()
            .find(|before| versions == Versions::Changed && before.name == image.name);
        let mut own = Troubles::default();
        let found = one(source, image, before, path, query, &mut own, each);
        let name = |path: &str| format!("{}:{path}", image.id);
        match found {
            Err(Error::NoPath { .. }) => {}
            Err(Error::Pool(error @ strongroom_engine::Error::Canceled)) => {
                return Err(error.into());
            }
            Err(Error::Pool(error)) => troubles.add(name("").as_bytes(), error),
            other => other?,
        }
        troubles.count += own.count;
        let room = Troubles::KEPT.saturating_sub(troubles.first.len());
        troubles.first.extend(own.first.into_iter().take(room).map(|mut trouble| {
            trouble.path = name(&trouble.path);
            trouble
        }));
    }
    Ok(troubles)
}

fn one(
    source: &dyn Source,
    image: &Image,
    before: Option<&Image>,
    path: &[u8],
    query: &Query,
    troubles: &mut Troubles,
    each: &mut dyn FnMut(&Image, Row) -> Result<()>,
) -> Result<()> {
    let (entry, path) = locate(source, image, path)?;
    let legend = Legend::of(source, image, troubles)?;
    // An image before that can't be read, or doesn't have the path, is none.
    let before = match before {
        Some(before) => match (source.hold(before.id), locate(source, before, &path)) {
            (Ok(hold), Ok((entry, _))) => Some((hold, entry)),
            _ => None,
        },
        None => None,
    };
    if let Some((_hold, before)) = before {
        let mut full = path.clone();
        let found = diff::between(source, &before, &entry, &mut |below, change| {
            let (Change::Added(new) | Change::Changed { new, .. }) = change else { return Ok(()) };
            full.truncate(path.len());
            full.extend_from_slice(below);
            if query.fits(&full, new) { each(image, legend.row(&full, new)) } else { Ok(()) }
        })?;
        troubles.count += found.troubles.count;
        let path = crate::show(&path);
        troubles.first.extend(found.troubles.first.into_iter().map(|mut trouble| {
            trouble.path.insert_str(0, &path);
            trouble
        }));
        return Ok(());
    }
    if query.fits(&path, &entry) {
        each(image, legend.row(&path, &entry))?;
    }
    let Some(node) = dir(&entry) else { return Ok(()) };
    let mut walk = Walk::new(source, node, path);
    while let Some(step) = walk.step() {
        match step {
            Step::Entry(entry) => {
                if query.fits(walk.path(), &entry) {
                    each(image, legend.row(walk.path(), &entry))?;
                }
                if let Some(node) = dir(&entry) {
                    walk.enter(node);
                }
            }
            Step::Lost(lost) => troubles.add(walk.path(), lost.tell()?),
            Step::Left(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;
    use crate::image::images;
    use crate::memory::Memory;
    use crate::scan::testing::{backup, inside};

    fn found(store: &Memory, path: &[u8], query: &Query, versions: Versions) -> Vec<String> {
        let (images, _) = images(store).unwrap();
        let mut found = Vec::new();
        let troubles = find(store, &images, path, query, versions, &mut |image, row| {
            let number = images.iter().position(|other| other.id == image.id).unwrap();
            let name = row.path.rsplit(|b| *b == b'/').next().unwrap();
            found.push(format!("{number}:{}", String::from_utf8_lossy(name)));
            Ok(())
        });
        assert!(troubles.unwrap().is_empty());
        found
    }

    #[test]
    fn versions_are_told_once_or_for_every_image() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/a.log"), b"12345").unwrap();
        fs::write(dir.join("b.log"), b"1").unwrap();
        let store = Memory::default();
        backup(&store, &dir, "x");
        backup(&store, &dir, "x");
        fs::write(dir.join("b.log"), b"123").unwrap();
        fs::write(dir.join("c.LOG"), b"").unwrap();
        backup(&store, &dir, "x");
        let at = inside(&dir);
        let logs = Query::new().pattern("*.log", false).unwrap();
        let changed = found(&store, &at, &logs, Versions::Changed);
        assert_eq!(changed, ["0:b.log", "0:a.log", "2:b.log"]);
        let all = found(&store, &at, &logs, Versions::All);
        assert_eq!(all, ["0:b.log", "0:a.log", "1:b.log", "1:a.log", "2:b.log", "2:a.log"]);
        let any_case = Query::new().pattern("*.log", true).unwrap();
        assert_eq!(found(&store, &at, &any_case, Versions::Changed).len(), 4);
        let mut large = logs.clone();
        large.size = (Some(3), Some(4));
        assert_eq!(found(&store, &at, &large, Versions::All), ["2:b.log"]);
        let dirs = Query::new().kind("d").unwrap().pattern("s*", false).unwrap();
        assert_eq!(found(&store, &at, &dirs, Versions::Changed), ["0:sub"]);
        let whole = Query::new().pattern("/**/sub/*.log", false).unwrap();
        assert_eq!(found(&store, b"", &whole, Versions::Changed), ["0:a.log"]);
        let mut old = logs;
        old.mtime = (None, Some(Time { sec: 5, nsec: 0 }));
        assert!(found(&store, b"", &old, Versions::All).is_empty());
        assert!(Query::new().kind("x").is_err());
        assert!(Query::new().pattern("[", false).is_err());
    }
}
