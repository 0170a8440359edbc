//! Entries of directories that were decoded lately.
//!
//! To find one entry, the thousand or so of its node are decoded. Programs ask for one name after
//! the other, so a stretch of each directory that was used last is kept.

use std::sync::{Arc, Mutex};

use strongroom_engine::Result;
use strongroom_engine::id::ChunkId;
use strongroom_engine::lru::Lru;
use strongroom_engine::map::Nodes;

use super::inodes::weight;
use super::lock;
use crate::entry::Entry;
use crate::tree::Dir;

/// Entries of a run, at most.
const LONGEST: usize = 1024;
/// Bytes of entries that are kept.
const KEPT: usize = 12 << 20;

/// Entries of a directory, one after the other.
#[derive(Debug)]
pub(super) struct Run {
    /// The place of the first of them in the directory.
    start: u64,
    /// Whether the directory ends with them.
    last: bool,
    pub(super) entries: Vec<Arc<Entry>>,
}

/// Where a name is.
enum Found {
    Here(Arc<Entry>),
    /// In no run of the directory.
    Nowhere,
    Before,
    Behind,
}

impl Run {
    fn find(&self, name: &[u8]) -> Found {
        match self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)) {
            Ok(at) => Found::Here(Arc::clone(&self.entries[at])),
            Err(0) if self.start > 0 => Found::Before,
            Err(at) if at == self.entries.len() && !self.last => Found::Behind,
            Err(_) => Found::Nowhere,
        }
    }
}

/// The run of each directory that was used last.
#[derive(Debug)]
pub(super) struct Runs {
    kept: Mutex<Lru<ChunkId, Arc<Run>>>,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::new(Lru::new(KEPT)) }
    }

    /// Reads the entries of a directory from the one with that number on: some, or none when the
    /// directory has no more.
    ///
    /// # Errors
    /// Those of the pool for the first entry; a run ends before one that can't be read.
    pub(super) fn read(&self, nodes: &dyn Nodes, dir: ChunkId, start: u64) -> Result<Arc<Run>> {
        let run = Arc::new(decode(nodes, dir, start)?);
        self.keep(dir, &run);
        Ok(run)
    }

    fn keep(&self, dir: ChunkId, run: &Arc<Run>) {
        if run.entries.is_empty() && run.start > 0 {
            return;
        }
        let weight = 100 + run.entries.iter().map(|entry| weight(entry)).sum::<usize>();
        lock(&self.kept).insert(dir, Arc::clone(run), weight);
    }

    /// The entry of that name in a directory.
    ///
    /// # Errors
    /// Those of the pool.
    pub(super) fn find(
        &self,
        nodes: &dyn Nodes,
        dir: ChunkId,
        name: &[u8],
    ) -> Result<Option<Arc<Entry>>> {
        let kept = lock(&self.kept).get(&dir);
        let next = match kept {
            None => Some(0),
            Some(run) => match run.find(name) {
                Found::Here(entry) => return Ok(Some(entry)),
                Found::Nowhere => return Ok(None),
                Found::Before => None,
                Found::Behind => Some(run.start + run.entries.len() as u64),
            },
        };
        // Who goes through a directory finds the name in the next run. When that can't be read,
        // the name may still lie behind it.
        if let Some(Ok(run)) = next.map(|start| decode(nodes, dir, start)) {
            let found = run.find(name);
            if let Found::Here(_) | Found::Nowhere = found {
                self.keep(dir, &Arc::new(run));
            }
            match found {
                Found::Here(entry) => return Ok(Some(entry)),
                Found::Nowhere => return Ok(None),
                Found::Before | Found::Behind => {}
            }
        }
        Ok(Dir::new(nodes, dir).lookup(name)?.map(Arc::new))
    }
}

fn decode(nodes: &dyn Nodes, dir: ChunkId, start: u64) -> Result<Run> {
    let mut run = Run { start, last: false, entries: Vec::new() };
    for entry in Dir::new(nodes, dir).entries_from(start) {
        match entry {
            Ok(entry) => run.entries.push(Arc::new(entry)),
            Err(error) if run.entries.is_empty() => return Err(error),
            Err(_) => return Ok(run),
        }
        if run.entries.len() == LONGEST {
            return Ok(run);
        }
    }
    run.last = true;
    Ok(run)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::entry::{Body, Time};
    use crate::memory::Memory;
    use crate::tree::DirBuilder;

    fn entry(name: String) -> Entry {
        Entry {
            name: name.into_bytes(),
            body: Body::Fifo,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { sec: 5, nsec: 6 },
            ctime: Time { sec: 5, nsec: 6 },
            inode: 77,
            device: 0,
            links: 1,
            racy: false,
            passed: false,
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn every_name_is_found_in_any_order_and_no_other() {
        let store = Memory::default();
        for count in [0usize, 1, 700, LONGEST, 9000] {
            let mut builder = DirBuilder::new(0);
            // Only even numbers, so that there are names between all.
            let name = |i: usize| format!("{i:06}");
            (0..count).for_each(|i| builder.push(&store, &entry(name(2 * i + 2))).unwrap());
            let dir = builder.finish(&store).unwrap();
            let runs = Runs::new();
            let check = |i: usize| {
                let found = runs.find(&store, dir, name(i).as_bytes()).unwrap();
                let there = i > 0 && i.is_multiple_of(2) && i <= 2 * count;
                assert_eq!(found.is_some(), there, "{i} of {count}");
                assert!(found.is_none_or(|entry| entry.name == name(i).as_bytes()));
            };
            (0..2 * count + 4).step_by(5).for_each(check);
            (0..2 * count + 4).rev().step_by(131).for_each(check);
            (0..100).for_each(|i| check(i * 7919 % (2 * count + 4)));
            runs.read(&store, dir, count as u64 / 2).unwrap();
            (0..100).for_each(|i| check(i * 7919 % (2 * count + 4)));
            runs.read(&store, dir, count as u64).unwrap();
            check(2 * count);
        }
    }
}
