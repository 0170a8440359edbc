//! Nodes and chunks that were read lately.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Chunks;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::lru::Lru;
use crate::map::MapNode;
use crate::node::Node;

/// What an entry weighs beside its bytes.
const ENTRY: usize = 128;
/// So many bytes of one read are worth the threads of a fetch.
const FETCH: u64 = 512 << 10;

/// A data chunk that is wanted, and how long it must be.
pub type Wanted = (ChunkId, u32);
/// The bytes of a chunk.
pub type Bytes = Arc<Vec<u8>>;

/// The content of a chunk that must have `len` bytes, and may have a tail; `None` when it has others.
pub fn cut(bytes: &[u8], len: u32, tail: u32) -> Option<&[u8]> {
    let len = len as usize;
    let fits = bytes.len() == len || bytes.len() == len + tail as usize;
    bytes.get(..len).filter(|_| fits)
}

/// Which source, and which of its chunks: one id may be other bytes behind another key.
type Key = (u32, ChunkId);

/// A bounded number of bytes of nodes and chunks, for any number of readers.
pub struct Cache {
    nodes: Mutex<Lru<Key, Kept>>,
    chunks: Mutex<State>,
    /// A chunk arrived, or could not be read.
    changed: Condvar,
    /// How many bytes of chunks it keeps.
    room: usize,
    sources: AtomicU32,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({} bytes of chunks)", self.room)
    }
}

#[derive(Clone)]
enum Kept {
    Node(Arc<Node>),
    Map(Arc<MapNode>),
}

struct State {
    kept: Lru<Key, Bytes>,
    /// Each is being read by one thread; others that want it wait. Who reads waits for nobody.
    reading: HashSet<Key>,
}

/// Locks, also after a thread panicked: nothing behind these locks is ever half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// For so many bytes in all; a fifth of them is for nodes.
    pub fn new(bytes: usize) -> Arc<Self> {
        let nodes = bytes / 5;
        let room = bytes - nodes;
        Arc::new(Self {
            nodes: Mutex::new(Lru::new(nodes)),
            chunks: Mutex::new(State { kept: Lru::new(room), reading: HashSet::new() }),
            changed: Condvar::new(),
            room,
            sources: AtomicU32::new(0),
        })
    }

    /// How many bytes of chunks it keeps.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// A number for a source.
    pub(super) fn enter(&self) -> u32 {
        self.sources.fetch_add(1, Ordering::Relaxed)
    }
}

/// One source, through a cache.
pub(super) struct Cached<'c> {
    pub(super) cache: &'c Cache,
    pub(super) number: u32,
    pub(super) source: &'c (dyn Chunks + Send + Sync),
}

/// Chunks that this thread reads.
struct Claim<'c> {
    cached: &'c Cached<'c>,
    wanted: Vec<Wanted>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        let mut state = lock(&self.cached.cache.chunks);
        for (id, _) in &self.wanted {
            state.reading.remove(&(self.cached.number, *id));
        }
        drop(state);
        self.cached.cache.changed.notify_all();
    }
}

impl Cached<'_> {
    /// A node, as it is stored.
    pub(super) fn node(&self, id: &ChunkId) -> Result<Node> {
        let key = (self.number, *id);
        let kept = lock(&self.cache.nodes).get(&key);
        if let Some(Kept::Node(node)) = kept {
            return Ok((*node).clone());
        }
        let node = self.source.node(id)?;
        let weight = ENTRY + node.payload.len() + 32 * (node.nodes.len() + node.data.len());
        lock(&self.cache.nodes).insert(key, Kept::Node(Arc::new(node.clone())), weight);
        Ok(node)
    }

    /// A node of a map.
    pub(super) fn map_node(&self, id: &ChunkId, len: u64, below: u8) -> Result<Arc<MapNode>> {
        let key = (self.number, *id);
        let kept = lock(&self.cache.nodes).get(&key);
        if let Some(Kept::Map(node)) = kept {
            return Ok(node);
        }
        let node = self.source.map_node(id, len, below)?;
        let weight = ENTRY + node.weight();
        lock(&self.cache.nodes).insert(key, Kept::Map(Arc::clone(&node)), weight);
        Ok(node)
    }

    /// Reads chunks so that they are at hand when they are wanted. What can't be read is told to
    /// whoever wants it then.
    pub(super) fn prepare(&self, wanted: &[Wanted]) {
        let claim = self.claim(wanted, |_, _| {});
        self.read(&claim, true, &|_, _| {});
    }

    /// The bytes of chunks, in the order wanted. The memory is that of these chunks, whatever else
    /// is read meanwhile.
    ///
    /// # Errors
    /// Those of the pool for the first that can't be read, with its place in the list.
    pub(super) fn get(&self, wanted: &[Wanted]) -> Result<Vec<Bytes>, (usize, Error)> {
        let mut got: Vec<Option<Bytes>> = vec![None; wanted.len()];
        let claim = self.claim(wanted, |i, bytes| {
            if let Some(slot) = got.get_mut(i) {
                *slot = Some(bytes);
            }
        });
        if !claim.wanted.is_empty() {
            let total: u64 = claim.wanted.iter().map(|(_, len)| u64::from(*len)).sum();
            let arrived = Mutex::new(HashMap::with_capacity(claim.wanted.len()));
            self.read(&claim, total >= FETCH, &|id, bytes| {
                lock(&arrived).insert(id, bytes);
            });
            drop(claim);
            let arrived = arrived.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (slot, (id, _)) in got.iter_mut().zip(wanted) {
                if slot.is_none() {
                    *slot = arrived.get(id).cloned();
                }
            }
        }
        let all = got.into_iter().zip(wanted).enumerate();
        all.map(|(i, (slot, want))| match slot {
            Some(bytes) => Ok(bytes),
            None => self.wait_for(want).map_err(|e| (i, e)),
        })
        .collect()
    }

    /// Keeps the bytes of a chunk, unless they are.
    pub(super) fn keep(&self, id: ChunkId, bytes: &[u8]) {
        let key = (self.number, id);
        if lock(&self.cache.chunks).kept.get(&key).is_some() {
            return;
        }
        let (bytes, weight) = (Arc::new(bytes.to_vec()), bytes.len() + ENTRY);
        lock(&self.cache.chunks).kept.insert(key, bytes, weight);
    }

    /// Hands out what is kept, and claims what nobody reads yet.
    fn claim(&self, wanted: &[Wanted], mut kept: impl FnMut(usize, Bytes)) -> Claim<'_> {
        let mut mine = Vec::new();
        let mut state = lock(&self.cache.chunks);
        for (i, (id, len)) in wanted.iter().enumerate() {
            let key = (self.number, *id);
            match state.kept.get(&key).filter(|bytes| bytes.len() == *len as usize) {
                Some(bytes) => kept(i, bytes),
                None if state.reading.insert(key) => mine.push((*id, *len)),
                None => {}
            }
        }
        Claim { cached: self, wanted: mine }
    }

    /// Reads what was claimed; each chunk is seen by others as soon as it is there.
    fn read(&self, claim: &Claim<'_>, many: bool, got: &(dyn Fn(ChunkId, Bytes) + Sync)) {
        let arrived = |i: usize, bytes: &[u8]| {
            // Another length is an error of whoever asks next.
            if let Some((id, len)) = claim.wanted.get(i)
                && let Some(bytes) = cut(bytes, *len, self.source.tail())
            {
                let bytes = Arc::new(bytes.to_vec());
                got(*id, Arc::clone(&bytes));
                let (key, weight) = ((self.number, *id), bytes.len() + ENTRY);
                let mut state = lock(&self.cache.chunks);
                state.kept.insert(key, bytes, weight);
                state.reading.remove(&key);
                drop(state);
                self.cache.changed.notify_all();
            }
            Ok(())
        };
        if many && claim.wanted.len() > 1 {
            let ids: Vec<ChunkId> = claim.wanted.iter().map(|(id, _)| *id).collect();
            // Errors come again, with their chunk, when it is asked for alone.
            let _ = self.source.fetch(&ids, &arrived, &|_, _| {});
            return;
        }
        for (i, (id, _)) in claim.wanted.iter().enumerate() {
            let mut bytes = Vec::new();
            if self.source.chunk(id, &mut bytes).is_ok() {
                let _ = arrived(i, &bytes);
            }
        }
    }

    /// A chunk that another thread reads; if that fails, it is read alone, with its error.
    fn wait_for(&self, (id, len): &Wanted) -> Result<Bytes> {
        let key = (self.number, *id);
        let mut state = lock(&self.cache.chunks);
        while state.reading.contains(&key) {
            state = self.cache.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(bytes) = state.kept.get(&key).filter(|bytes| bytes.len() == *len as usize) {
            return Ok(bytes);
        }
        drop(state);
        let mut bytes = Vec::with_capacity(*len as usize);
        self.source.chunk(id, &mut bytes)?;
        if cut(&bytes, *len, self.source.tail()).is_none() {
            let why = format!("it has {} bytes instead of {len}", bytes.len());
            return Err(Error::damaged(format!("chunk {id}"), why));
        }
        bytes.truncate(*len as usize);
        Ok(Arc::new(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::content::testing::Memory;

    fn filled(count: u32) -> (Memory, Vec<Wanted>, Vec<Vec<u8>>) {
        let memory = Memory::default();
        let pieces: Vec<Vec<u8>> =
            (0..count).map(|i| i.to_le_bytes().repeat(1000 + i as usize)).collect();
        let wanted = pieces.iter().map(|p| (memory.put(p), p.len() as u32)).collect();
        (memory, wanted, pieces)
    }

    #[test]
    fn threads_that_want_the_same_all_get_it() {
        let (memory, wanted, pieces) = filled(300);
        let cache = Cache::new(60 << 20);
        let cached = Cached { cache: &cache, number: 0, source: &memory };
        std::thread::scope(|scope| {
            for start in 0..6 {
                let (cached, wanted, pieces) = (&cached, &wanted, &pieces);
                scope.spawn(move || {
                    for from in (start * 7..280).step_by(11) {
                        let range = from..from + 20;
                        if from % 3 == 0 {
                            cached.prepare(&wanted[range.clone()]);
                        }
                        let got = cached.get(&wanted[range.clone()]).unwrap();
                        assert!(got.iter().zip(&pieces[range]).all(|(got, piece)| **got == *piece));
                    }
                });
            }
        });
        assert!(lock(&cache.chunks).reading.is_empty());
        assert!(memory.most_reads() <= 1, "a chunk that is kept was read again");
    }

    #[test]
    fn sources_of_one_cache_are_told_apart_and_share_its_room() {
        let (one, wanted, pieces) = filled(2);
        let other = Memory::default();
        other.put_as(wanted[0].0, &vec![9; pieces[0].len()]);
        let cache = Cache::new(60 << 20);
        let first = Cached { cache: &cache, number: cache.enter(), source: &one };
        let second = Cached { cache: &cache, number: cache.enter(), source: &other };
        assert_eq!(*first.get(&wanted[..1]).unwrap()[0], pieces[0]);
        assert_eq!(*second.get(&wanted[..1]).unwrap()[0], vec![9; pieces[0].len()]);
        assert!(second.get(&wanted[1..]).is_err());
        let small = Cache::new(20_000);
        let cached = Cached { cache: &small, number: 0, source: &one };
        for _ in 0..3 {
            cached.get(&wanted).unwrap();
        }
        assert!(one.most_reads() <= 4 && lock(&small.chunks).kept.weight() <= 16_000);
    }

    #[test]
    fn a_chunk_that_is_lost_or_of_another_length_is_an_error_and_the_rest_is_not() {
        let (memory, mut wanted, pieces) = filled(10);
        memory.lose(wanted[4].0);
        wanted[7].1 += 1;
        let cache = Cache::new(60 << 20);
        let cached = Cached { cache: &cache, number: 0, source: &memory };
        cached.prepare(&wanted);
        assert_eq!(cached.get(&wanted).unwrap_err().0, 4);
        assert_eq!(cached.get(&wanted[5..]).unwrap_err().0, 2);
        assert_eq!(*cached.get(&wanted[3..4]).unwrap()[0], pieces[3]);
        // The same chunk twice in one read.
        let twice = [wanted[2], wanted[2]];
        assert_eq!(*cached.get(&twice).unwrap()[1], pieces[2]);
        assert!(lock(&cache.chunks).reading.is_empty());
    }
}
