//! Which paths are left out, or which alone are taken.
//!
//! A rule is a pattern in the manner of gitignore(5):
//! - `*` and `?` stand for characters but `/`, `[a-z]` for one of a set, `**` for any number of
//!   directories, `{a,b}` for alternatives, `\` takes the next character as it is;
//! - a pattern without `/` (but at its end) fits that name in any directory;
//! - a pattern that begins with `/` fits the whole path from the top;
//! - any other pattern with `/` inside fits at the end of a path, from any directory on
//!   (unlike in gitignore, as there is no file here that it could be relative to);
//! - a `/` at the end makes it fit directories alone;
//! - `!` in front takes back what an earlier rule excluded; the last rule that fits decides;
//! - what lies in an excluded directory can't be taken back: the directory is never read.
//!
//! In a file of rules, empty lines and lines that begin with `#` say nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::{Error, Result};

/// An ordered list of rules.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Patterns that fit names; then those that fit paths.
    names: GlobSet,
    paths: GlobSet,
    /// For each pattern of a set: its place in the order, whether it takes back, and whether it
    /// fits directories alone.
    name_rules: Vec<Rule>,
    path_rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    order: usize,
    back: bool,
    dirs: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            names: GlobSet::empty(),
            paths: GlobSet::empty(),
            name_rules: Vec::new(),
            path_rules: Vec::new(),
        }
    }
}

impl Rules {
    /// Compiles patterns, in order.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the pattern that isn't one.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        let (mut name_rules, mut path_rules) = (Vec::new(), Vec::new());
        for (order, text) in patterns.into_iter().enumerate() {
            let text = text.as_ref();
            let bad =
                |why: String| Error::Invalid(format!("the pattern {text:?} is no good: {why}"));
            let (back, pattern) = match text.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            let (dirs, pattern) = match pattern.strip_suffix('/') {
                Some(rest) => (true, rest),
                None => (false, pattern),
            };
            if pattern.is_empty() {
                return Err(bad("it is empty".into()));
            }
            let rule = Rule { order, back, dirs };
            let glob = |pattern: &str| {
                GlobBuilder::new(pattern)
                    .literal_separator(true)
                    .backslash_escape(true)
                    .build()
                    .map_err(|e| bad(e.kind().to_string()))
            };
            if let Some(rooted) = pattern.strip_prefix('/') {
                paths.add(glob(rooted)?);
                path_rules.push(rule);
            } else if pattern.contains('/') {
                paths.add(glob(&format!("**/{pattern}"))?);
                path_rules.push(rule);
            } else {
                names.add(glob(pattern)?);
                name_rules.push(rule);
            }
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|e| Error::Invalid(e.to_string()));
        Ok(Self { names: build(names)?, paths: build(paths)?, name_rules, path_rules })
    }

    /// The patterns in the text of a file of rules.
    pub fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.name_rules.is_empty() && self.path_rules.is_empty()
    }

    /// Whether any rule looks at more than the name.
    pub fn need_path(&self) -> bool {
        !self.path_rules.is_empty()
    }

    /// Whether the rules fit that path: bytes, `/` between names, with or without one in front.
    pub fn fit(&self, path: &[u8], is_dir: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        let mut last: Option<Rule> = None;
        let mut look = |set: &GlobSet, rules: &[Rule], text: &[u8]| {
            if rules.is_empty() {
                return;
            }
            let candidate = Candidate::new(Path::new(OsStr::from_bytes(text)));
            for index in set.matches_candidate(&candidate) {
                let rule = rules[index];
                if (!rule.dirs || is_dir) && last.is_none_or(|last| last.order < rule.order) {
                    last = Some(rule);
                }
            }
        };
        look(&self.names, &self.name_rules, name);
        look(&self.paths, &self.path_rules, path);
        last.is_some_and(|rule| !rule.back)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fits(patterns: &[&str], path: &str) -> bool {
        let (path, is_dir) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        Rules::new(patterns).unwrap().fit(path.as_bytes(), is_dir)
    }

    #[test]
    fn rules_read_as_documented() {
        assert!(fits(&["*.o"], "/src/deep/a.o"));
        assert!(!fits(&["*.o"], "/src/a.o/x"));
        assert!(fits(&["/tmp"], "/tmp/"));
        assert!(!fits(&["/tmp"], "/var/tmp/"));
        assert!(fits(&["target/"], "/a/target/"));
        assert!(!fits(&["target/"], "/a/target"));
        assert!(fits(&["a/b"], "/x/a/b"));
        assert!(fits(&["a/b"], "/a/b"));
        assert!(!fits(&["a/b"], "/xa/b"));
        assert!(fits(&["/a/**/z"], "/a/b/c/z"));
        assert!(fits(&["/a/**/z"], "/a/z"));
        assert!(!fits(&["/a/*"], "/a/b/c"));
        assert!(fits(&["*.log", "!keep.log"], "/x.log"));
        assert!(!fits(&["*.log", "!keep.log"], "/keep.log"));
        assert!(fits(&["*.log", "!keep.log", "/keep.log"], "/keep.log"));
        assert!(fits(&["\\*"], "/*"));
        assert!(!fits(&["\\*"], "/a"));
        assert!(fits(&["*.{tmp,bak}"], "/a.bak"));
        assert!(!fits(&[], "/a"));
    }

    #[test]
    fn names_that_are_not_utf8_fit_too() {
        assert!(Rules::new(["*.o"]).unwrap().fit(b"/a/\xff\xfe.o", false));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Rules::new(["[a"]).unwrap_err().to_string();
        assert!(error.contains("[a"), "{error}");
        assert!(Rules::new(["!/"]).is_err());
    }

    #[test]
    fn files_of_rules_have_comments() {
        let lines: Vec<_> = Rules::lines("# no\n\n*.o  \n/tmp\n").collect();
        assert_eq!(lines, ["*.o", "/tmp"]);
    }
}
