//! What lost chunks mean: which images and files are no longer whole.

use std::collections::{BTreeSet, HashSet};

use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::map::{Extent, MapReader, MapRef};

use crate::entry::{Body, Entry, XattrValue};
use crate::image::{Image, images};
use crate::store::Source;
use crate::tree::{Dir, Entries};
use crate::{Result, show};

/// A path that is not whole, and what of it is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which, as text, from the top of the image.
    pub path: String,
    /// What is lost.
    pub what: String,
}

/// An image that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Its identifier.
    pub id: RootId,
    /// Its name.
    pub name: String,
    /// Every path in it that is affected, in order of the walk.
    pub paths: Vec<Hit>,
}

/// A directory that is being looked through.
struct Level<'s> {
    node: ChunkId,
    entries: Entries<'s>,
    /// The length of its own path.
    path: usize,
    /// How many hits there were before it.
    hits: usize,
}

/// Which images and files need one of these chunks, of data or of nodes. Directories that images
/// share and that are whole are looked through once.
///
/// # Errors
/// Those of the pool, but for what can't be read: that is in the result.
pub fn affected(source: &dyn Source, lost: &BTreeSet<ChunkId>) -> Result<Vec<Affected>> {
    let mut found = Vec::new();
    if lost.is_empty() {
        return Ok(found);
    }
    let mut whole = HashSet::new();
    for image in images(source)?.0 {
        let paths = hits(source, lost, &image, &mut whole);
        if !paths.is_empty() {
            found.push(Affected { id: image.id, name: image.name, paths });
        }
    }
    Ok(found)
}

fn hits(
    source: &dyn Source,
    lost: &BTreeSet<ChunkId>,
    image: &Image,
    whole: &mut HashSet<ChunkId>,
) -> Vec<Hit> {
    let mut hits = Vec::new();
    let mut hit = |path: &[u8], what: String| hits.push(Hit { path: show(path), what });
    let top = match image.top(source) {
        Ok(top) => top,
        Err(e) => {
            hit(b"/", format!("nothing of the image can be read ({e})"));
            return hits;
        }
    };
    if top.names.is_some_and(|id| lost.contains(&id)) {
        hit(b"/", "the names of owners and groups (their numbers are there)".into());
    }
    let mut path = Vec::new();
    look(source, lost, &top.entry, &top.entry.name, &mut hit);
    let mut levels = Vec::new();
    if let Body::Dir { node, .. } = top.entry.body {
        levels.push(Level { node, entries: Dir::new(source, node).entries(), path: 0, hits: 0 });
    }
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path);
        match level.entries.next() {
            Some(Ok(entry)) => {
                path.push(b'/');
                path.extend_from_slice(&entry.name);
                let mut hit = |path: &[u8], what| hits.push(Hit { path: show(path), what });
                look(source, lost, &entry, &path, &mut hit);
                if let Body::Dir { node, .. } = entry.body
                    && !whole.contains(&node)
                {
                    let entries = Dir::new(source, node).entries();
                    levels.push(Level { node, entries, path: path.len(), hits: hits.len() });
                }
            }
            Some(Err(e)) => {
                let shown = if path.is_empty() { "/".into() } else { show(&path) };
                let what = format!("entries of this directory can't be read ({e})");
                hits.push(Hit { path: shown, what });
            }
            None => {
                if hits.len() == level.hits {
                    whole.insert(level.node);
                }
                levels.pop();
            }
        }
    }
    hits
}

/// What of an entry itself is lost.
fn look(
    source: &dyn Source,
    lost: &BTreeSet<ChunkId>,
    entry: &Entry,
    path: &[u8],
    hit: &mut impl FnMut(&[u8], String),
) {
    if let Body::File(map) = &entry.body
        && let Some(what) = lost_content(source, lost, map)
    {
        hit(path, what);
    }
    for xattr in &entry.xattrs {
        if matches!(&xattr.value, XattrValue::Chunk(id, _) if lost.contains(id)) {
            hit(path, format!("its extended attribute {}", show(&xattr.name)));
        }
    }
}

fn lost_content(source: &dyn Source, lost: &BTreeSet<ChunkId>, map: &MapRef) -> Option<String> {
    let (mut bytes, mut first) = (0, None);
    for extent in MapReader::new(source, map, 0) {
        match extent {
            Ok((at, Extent::Data { id, len })) if lost.contains(&id) => {
                bytes += u64::from(len);
                first.get_or_insert(at);
            }
            Ok(_) => {}
            Err(e) => return Some(format!("the list of its content can't be read ({e})")),
        }
    }
    let (len, first) = (map.len(), first?);
    Some(format!("{bytes} of its {len} bytes, the first at {first}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::backup::{Backup, Input, Progress};
    use crate::memory::Memory;

    #[test]
    fn a_lost_chunk_names_the_files_that_need_it_in_every_image() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/one"), b"the same content").unwrap();
        std::fs::write(folder.path().join("two"), b"the same content").unwrap();
        std::fs::write(folder.path().join("three"), b"another content").unwrap();
        let store = Memory::default();
        for _ in 0..2 {
            let input = Input::Paths(vec![folder.path().into()]);
            let backup = Backup { name: Some("x".into()), input, ..Backup::default() };
            backup.run(&store, &Progress::default()).unwrap();
        }
        let id = store.id_of(b"the same content");
        assert_eq!(affected(&store, &BTreeSet::new()).unwrap(), []);
        let found = affected(&store, &BTreeSet::from([id])).unwrap();
        assert_eq!(found.len(), 2);
        for image in found {
            let ends: Vec<_> = image
                .paths
                .iter()
                .map(|hit| hit.path.rsplit('/').next().unwrap().to_owned())
                .collect();
            assert_eq!(ends, ["one", "two"]);
            assert!(image.paths[0].what.starts_with("16 of its 16 bytes"));
        }
    }
}
