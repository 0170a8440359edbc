//! Listing: entries of an image with their paths, by name, as deep as wanted.

use strongroom_engine::map::Nodes;

use crate::entry::{Body, Entry};
use crate::tree::{Dir, Entries};

/// Walks what is below an entry, in the order of names, a directory before what is in it. Memory
/// is bounded by the depth.
pub struct List<'s> {
    source: &'s dyn Nodes,
    stack: Vec<(Entries<'s>, usize)>,
    path: Vec<u8>,
    depth: usize,
    /// The directory that is entered with the next step.
    enter: Option<Dir<'s>>,
}

impl std::fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "List({})", crate::show(&self.path))
    }
}

impl<'s> List<'s> {
    /// What is below `top`, which lies at `path`, so many directories deep at most (1: only what
    /// is in it itself). Of something that isn't a directory: nothing.
    pub fn new(source: &'s dyn Nodes, top: &Entry, path: &[u8], depth: usize) -> Self {
        let enter = match top.body {
            Body::Dir { node, .. } => Some(Dir::new(source, node)),
            _ => None,
        };
        let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        Self { source, stack: Vec::new(), path, depth, enter }
    }

    /// Leaves out what is in the directory that was given last.
    pub fn pass_over(&mut self) {
        self.enter = None;
    }

    /// The path of the entry that was given last.
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl Iterator for List<'_> {
    type Item = strongroom_engine::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(dir) = self.enter.take()
            && self.stack.len() < self.depth
        {
            self.stack.push((dir.entries(), self.path.len()));
        }
        loop {
            let (entries, len) = self.stack.last_mut()?;
            self.path.truncate(*len);
            match entries.next() {
                None => {
                    self.stack.pop();
                }
                // After an error a directory has no more entries; the list goes on behind it.
                Some(Err(e)) => return Some(Err(e)),
                Some(Ok(entry)) => {
                    self.path.push(b'/');
                    self.path.extend_from_slice(&entry.name);
                    if let Body::Dir { node, .. } = entry.body {
                        self.enter = Some(Dir::new(self.source, node));
                    }
                    return Some(Ok(entry));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::backup::{Backup, Input, Progress};
    use crate::memory::Memory;

    #[test]
    fn entries_come_by_name_with_their_paths() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("b/c")).unwrap();
        for name in ["a", "b/x", "b/c/y", "z"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let pool = Memory::default();
        let backup = Backup { input: Input::Paths(vec![dir.path().into()]), ..Backup::default() };
        let image = backup.run(&pool, &Progress::default()).unwrap().image.unwrap();
        let top = image.entry(&pool, dir.path().as_os_str().as_bytes()).unwrap();
        let paths = |depth: usize, skip: &[u8]| {
            let mut list = List::new(&pool, &top, b"", depth);
            let mut out = Vec::new();
            while let Some(entry) = list.next() {
                let entry = entry.unwrap();
                assert!(list.path().ends_with(&entry.name));
                out.push(String::from_utf8(list.path().to_vec()).unwrap());
                if list.path() == skip {
                    list.pass_over();
                }
            }
            out
        };
        assert_eq!(paths(usize::MAX, b""), ["/a", "/b", "/b/c", "/b/c/y", "/b/x", "/z"]);
        assert_eq!(paths(1, b""), ["/a", "/b", "/z"]);
        assert_eq!(paths(9, b"/b/c"), ["/a", "/b", "/b/c", "/b/x", "/z"]);
    }
}
