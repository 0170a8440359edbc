//! Finding entries over images, by name, size, time and kind, from the metadata alone.

use strongroom_engine::map::Nodes;

use crate::Result;
use crate::entry::{Body, Entry, Time};
use crate::image::Image;
use crate::list::List;
use crate::rules::Rules;
use crate::scan::passing;

/// What is looked for; everything that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Patterns ([`crate::rules`]); any of them; all if empty.
    pub patterns: Vec<String>,
    /// At least so many bytes.
    pub min_size: Option<u64>,
    /// At most so many bytes.
    pub max_size: Option<u64>,
    /// Changed at or after this.
    pub newer: Option<Time>,
    /// Changed at or before this.
    pub older: Option<Time>,
    /// The letter of the kind, as `ls -l` writes it: `-`, `d`, `l`, `p`, `c`, `b` or `s`.
    pub kind: Option<char>,
}

/// Looks through one image; `tell` gets the path and entry of each find, in order of names. A
/// directory that can't be read is told to `failed` with the path of what was looked at last.
///
/// # Errors
/// [`crate::Error::Invalid`] for a bad pattern, those of the pool for the top of the image, and
/// those of `tell`, which end the search.
pub fn find_in(
    source: &dyn Nodes,
    image: &Image,
    query: &Query,
    tell: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
    failed: &mut dyn FnMut(&[u8], strongroom_engine::Error),
) -> Result<()> {
    let rules = Rules::new(&query.patterns)?;
    let top = image.top(source)?.entry;
    if let Body::File(_) = top.body {
        // A block image or stream is one file.
        return match query.fits(&rules, &top.name, &top) {
            true => tell(&top.name.clone(), &top),
            false => Ok(()),
        };
    }
    let mut list = List::new(source, &top, b"", usize::MAX);
    while let Some(step) = list.next() {
        match step {
            Err(e) => failed(list.path(), passing(e)?),
            Ok(entry) if query.fits(&rules, list.path(), &entry) => tell(list.path(), &entry)?,
            Ok(_) => {}
        }
    }
    Ok(())
}

impl Query {
    fn fits(&self, rules: &Rules, path: &[u8], entry: &Entry) -> bool {
        let size = entry.size();
        !entry.passed
            && self.min_size.is_none_or(|min| size >= min)
            && self.max_size.is_none_or(|max| size <= max)
            && self.newer.is_none_or(|newer| entry.mtime >= newer)
            && self.older.is_none_or(|older| entry.mtime <= older)
            && self.kind.is_none_or(|kind| entry.body.letter() == kind)
            && (rules.is_empty() || rules.fit(path, entry.is_dir()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::backup::{Backup, Input, Progress};
    use crate::memory::Memory;

    #[test]
    fn all_that_is_given_must_fit() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d.txt")).unwrap();
        for (name, len) in [("a.txt", 5), ("d.txt/b.txt", 500), ("c", 50)] {
            std::fs::write(dir.path().join(name), vec![0; len]).unwrap();
        }
        let pool = Memory::default();
        let input = Input::Paths(vec![dir.path().into()]);
        let backup = Backup { input, ..Backup::default() };
        let image = backup.run(&pool, &Progress::default()).unwrap().image.unwrap();
        let names = |query: Query| {
            let mut names = Vec::new();
            let mut tell = |_: &[u8], entry: &Entry| {
                names.push(crate::show(&entry.name));
                Ok(())
            };
            find_in(&pool, &image, &query, &mut tell, &mut |_, e| panic!("{e}")).unwrap();
            names
        };
        let text = Query { patterns: vec!["*.txt".into()], ..Query::default() };
        assert_eq!(names(text.clone()), ["a.txt", "d.txt", "b.txt"]);
        assert_eq!(names(Query { kind: Some('-'), min_size: Some(6), ..text.clone() }), ["b.txt"]);
        assert_eq!(names(Query { max_size: Some(6), kind: Some('-'), ..text.clone() }), ["a.txt"]);
        assert!(names(Query { older: Some(Time { sec: 5, nsec: 0 }), ..text }).is_empty());
    }
}
