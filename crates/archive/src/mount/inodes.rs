//! Inode numbers, and what lies behind those that the kernel holds.

use std::collections::HashMap;
use std::collections::hash_map;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::lru::Lru;

use super::lock;
use crate::entry::Entry;

/// Numbers of entries begin here; below are those of views: their places in the list, plus 1.
pub(super) const FIRST: u64 = 1 << 62;
/// So many bytes of entries that were used last are kept.
const RECENT: usize = 8 << 20;

/// What tells an inode from all others of the mount. It follows from the path (or, for a file with
/// several names, from what they have in common), so that an inode has the same number whenever
/// it is looked up again, and in every mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, u64);

impl Key {
    fn of(what: impl Hash) -> Self {
        let half = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            what.hash(&mut hasher);
            hasher.finish()
        };
        Self(half(1), half(2))
    }

    /// Of the top of an image.
    pub(super) fn of_image(image: RootId) -> Self {
        Self::of(("image", image))
    }

    /// Of an entry in the directory with the key `parent`.
    pub(super) fn of_entry(parent: Self, image: RootId, entry: &Entry) -> Self {
        match entry.link_key() {
            Some(link) => Self::of(("link", image, link)),
            None => Self::of(("name", parent, &entry.name)),
        }
    }

    fn number(self) -> u64 {
        FIRST | (self.0 & (FIRST - 1))
    }
}

/// Where an inode's entry is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The directory with this node; the entry has the inode's name.
    In(ChunkId),
    /// The image's top: a block image or stream.
    Top,
}

/// An inode that the kernel holds. About a hundred bytes, a tenth of what it costs the kernel.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) key: Key,
    /// The image's place in the list.
    pub(super) image: u32,
    /// The number of the directory it was found in.
    pub(super) parent: u64,
    pub(super) place: Place,
    pub(super) name: Box<[u8]>,
}

/// All inodes that the kernel holds, with how often it was given each.
#[derive(Debug)]
pub(super) struct Inodes {
    held: Mutex<HashMap<u64, (Arc<Inode>, u64)>>,
    recent: Mutex<Lru<u64, Arc<Entry>>>,
}

impl Inodes {
    pub(super) fn new() -> Self {
        Self { held: Mutex::default(), recent: Mutex::new(Lru::new(RECENT)) }
    }

    /// Notes that the kernel is given this inode once more; its number.
    pub(super) fn enter(&self, inode: Inode, entry: &Arc<Entry>) -> u64 {
        let number = {
            let mut held = lock(&self.held);
            let mut number = inode.key.number();
            loop {
                match held.entry(number) {
                    hash_map::Entry::Vacant(slot) => {
                        slot.insert((Arc::new(inode), 1));
                        break number;
                    }
                    hash_map::Entry::Occupied(mut slot) if slot.get().0.key == inode.key => {
                        slot.get_mut().1 += 1;
                        break number;
                    }
                    // Two inodes with one number: the later one gets the next that is free.
                    hash_map::Entry::Occupied(_) => number = next(number),
                }
            }
        };
        self.note(number, entry);
        number
    }

    /// The number that an inode has or would get.
    pub(super) fn number(&self, key: Key) -> u64 {
        let held = lock(&self.held);
        let mut number = key.number();
        while held.get(&number).is_some_and(|(inode, _)| inode.key != key) {
            number = next(number);
        }
        number
    }

    /// An inode that the kernel holds.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Inode>> {
        lock(&self.held).get(&number).map(|(inode, _)| Arc::clone(inode))
    }

    /// Takes back `count` times that the kernel was given a number.
    pub(super) fn forget(&self, number: u64, count: u64) {
        let mut held = lock(&self.held);
        let gone = match held.get_mut(&number) {
            Some((_, refs)) => {
                *refs = refs.saturating_sub(count);
                *refs == 0
            }
            None => false,
        };
        if gone {
            held.remove(&number);
            drop(held);
            lock(&self.recent).remove(&number);
        }
    }

    /// The entry of an inode, if it was used lately.
    pub(super) fn recent(&self, number: u64) -> Option<Arc<Entry>> {
        lock(&self.recent).get(&number)
    }

    /// Keeps the entry of an inode at hand.
    pub(super) fn note(&self, number: u64, entry: &Arc<Entry>) {
        lock(&self.recent).insert(number, Arc::clone(entry), weight(entry));
    }
}

fn next(number: u64) -> u64 {
    FIRST | (number.wrapping_add(1) & (FIRST - 1))
}

/// About how many bytes an entry takes.
pub(super) fn weight(entry: &Entry) -> usize {
    let values = entry.xattrs.iter().map(|xattr| match &xattr.value {
        crate::entry::XattrValue::Inline(value) => 96 + value.len(),
        crate::entry::XattrValue::Chunk(..) => 96,
    });
    let body = match &entry.body {
        crate::entry::Body::File(map) => 48 * map.ids().count(),
        crate::entry::Body::Symlink(to) => to.len(),
        _ => 0,
    };
    400 + entry.name.len() + body + values.sum::<usize>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::entry::{Body, Time};

    fn entry(name: &str, links: u32) -> Arc<Entry> {
        Arc::new(Entry {
            name: name.into(),
            body: Body::Fifo,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { sec: 1, nsec: 2 },
            ctime: Time { sec: 1, nsec: 2 },
            inode: 9,
            device: 0,
            links,
            racy: false,
            passed: false,
            xattrs: Vec::new(),
        })
    }

    fn inode(key: Key, name: &str) -> Inode {
        Inode { key, image: 0, parent: 1, place: Place::Top, name: name.as_bytes().into() }
    }

    #[test]
    fn a_number_lasts_as_long_as_the_kernel_holds_it_and_comes_back() {
        let image = RootId([1; 16]);
        let (root, file) = (Key::of_image(image), entry("a", 1));
        let key = Key::of_entry(root, image, &file);
        let inodes = Inodes::new();
        let number = inodes.number(key);
        assert_eq!(inodes.enter(inode(key, "a"), &file), number);
        assert_eq!(inodes.enter(inode(key, "a"), &file), number);
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_some() && inodes.recent(number).is_some());
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_none() && inodes.recent(number).is_none());
        inodes.forget(number, 1);
        assert_eq!(inodes.enter(inode(key, "a"), &file), number);
    }

    #[test]
    fn names_of_one_file_share_a_number_within_an_image() {
        let (image, other) = (RootId([1; 16]), RootId([2; 16]));
        let key = |image, entry: &Entry| Key::of_entry(Key::of_image(image), image, entry);
        assert_eq!(key(image, &entry("a", 2)), key(image, &entry("b", 2)));
        assert_ne!(key(image, &entry("a", 1)), key(image, &entry("b", 1)));
        assert_ne!(key(image, &entry("a", 2)), key(other, &entry("a", 2)));
    }

    #[test]
    fn two_inodes_never_have_one_number() {
        let inodes = Inodes::new();
        let (one, two) = (Key(5, 1), Key(5, 2));
        let first = inodes.enter(inode(one, "a"), &entry("a", 1));
        let second = inodes.enter(inode(two, "b"), &entry("b", 1));
        assert_ne!(first, second);
        assert_eq!(inodes.number(two), second);
        assert_eq!(inodes.get(second).unwrap().key, two);
        assert_eq!(next(u64::MAX >> 1), FIRST);
    }
}
