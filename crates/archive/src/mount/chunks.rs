//! Chunks and nodes that were read lately, shared by all open files of a mount.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use strongroom_engine::id::ChunkId;
use strongroom_engine::map::Nodes;
use strongroom_engine::node::Node;
use strongroom_engine::{Error, Result};

use super::lock;
use super::lru::Lru;
use crate::store::Source;

/// The pool of a mount.
pub(super) type Shared = Arc<dyn Source + Send + Sync>;

/// Bytes of content that are kept: several windows of read-ahead.
const KEPT_CHUNKS: usize = 48 << 20;
/// Bytes of nodes that are kept.
const KEPT_NODES: usize = 12 << 20;
/// So many bytes of one read are worth the threads of a fetch.
const FETCH: u64 = 512 << 10;

/// A pool with its nodes that were read last at hand.
pub(super) struct NodeCache {
    source: Shared,
    kept: Mutex<Lru<ChunkId, Arc<Node>>>,
}

impl NodeCache {
    pub(super) fn new(source: Shared) -> Self {
        Self { source, kept: Mutex::new(Lru::new(KEPT_NODES)) }
    }
}

impl Nodes for NodeCache {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        let kept = lock(&self.kept).get(id);
        if let Some(node) = kept {
            return Ok((*node).clone());
        }
        let node = self.source.node(id)?;
        let weight = 128 + node.payload.len() + 32 * (node.nodes.len() + node.data.len());
        lock(&self.kept).insert(*id, Arc::new(node.clone()), weight);
        Ok(node)
    }
}

/// A data chunk that is wanted, and how long it must be.
pub(super) type Wanted = (ChunkId, u32);
/// The bytes of a chunk.
pub(super) type Bytes = Arc<Vec<u8>>;

/// Data chunks: those that were used last, and those that some thread is reading right now.
pub(super) struct ChunkCache {
    source: Shared,
    state: Mutex<State>,
    /// A chunk arrived, or could not be read.
    changed: Condvar,
}

struct State {
    kept: Lru<ChunkId, Bytes>,
    /// Each is being read by one thread; others that want it wait. Who reads waits for nobody.
    reading: HashSet<ChunkId>,
}

/// Chunks that this thread reads.
struct Claim<'c> {
    cache: &'c ChunkCache,
    wanted: Vec<Wanted>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.cache.state);
        for (id, _) in &self.wanted {
            state.reading.remove(id);
        }
        drop(state);
        self.cache.changed.notify_all();
    }
}

impl ChunkCache {
    pub(super) fn new(source: Shared) -> Self {
        let state = State { kept: Lru::new(KEPT_CHUNKS), reading: HashSet::new() };
        Self { source, state: Mutex::new(state), changed: Condvar::new() }
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
        let claim = self.claim(wanted, |i, bytes| got[i] = Some(bytes));
        if !claim.wanted.is_empty() {
            let total: u64 = claim.wanted.iter().map(|(_, len)| u64::from(*len)).sum();
            let arrived = Mutex::new(Vec::with_capacity(claim.wanted.len()));
            self.read(&claim, total >= FETCH, &|id, bytes| lock(&arrived).push((id, bytes)));
            drop(claim);
            let arrived = arrived.into_inner().unwrap_or_else(PoisonError::into_inner);
            let arrived: std::collections::HashMap<_, _> = arrived.into_iter().collect();
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

    /// Hands out what is kept, and claims what nobody reads yet.
    fn claim(&self, wanted: &[Wanted], mut kept: impl FnMut(usize, Bytes)) -> Claim<'_> {
        let mut mine = Vec::new();
        let mut state = lock(&self.state);
        for (i, (id, len)) in wanted.iter().enumerate() {
            match state.kept.get(id).filter(|bytes| bytes.len() == *len as usize) {
                Some(bytes) => kept(i, bytes),
                None if state.reading.insert(*id) => mine.push((*id, *len)),
                None => {}
            }
        }
        Claim { cache: self, wanted: mine }
    }

    /// Reads what was claimed; each chunk is seen by others as soon as it is there.
    fn read(&self, claim: &Claim<'_>, many: bool, got: &(dyn Fn(ChunkId, Bytes) + Sync)) {
        let arrived = |i: usize, bytes: &[u8]| {
            let (id, len) = claim.wanted[i];
            // Another length is an error of whoever asks next.
            if bytes.len() == len as usize {
                let bytes = Arc::new(bytes.to_vec());
                got(id, Arc::clone(&bytes));
                let mut state = lock(&self.state);
                let weight = bytes.len() + 128;
                state.kept.insert(id, bytes, weight);
                state.reading.remove(&id);
                drop(state);
                self.changed.notify_all();
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
        let mut state = lock(&self.state);
        while state.reading.contains(id) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(bytes) = state.kept.get(id).filter(|bytes| bytes.len() == *len as usize) {
            return Ok(bytes);
        }
        drop(state);
        let mut bytes = Vec::with_capacity(*len as usize);
        self.source.chunk(id, &mut bytes)?;
        if bytes.len() != *len as usize {
            let why = format!("it has {} bytes instead of {len}", bytes.len());
            return Err(Error::damaged(format!("chunk {id}"), why));
        }
        Ok(Arc::new(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::memory::Memory;
    use crate::store::Store;

    fn filled(count: u32) -> (Arc<Memory>, Vec<Wanted>, Vec<Vec<u8>>) {
        let memory = Arc::new(Memory::default());
        let pieces: Vec<Vec<u8>> =
            (0..count).map(|i| i.to_le_bytes().repeat(1000 + i as usize)).collect();
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let mut ids = Vec::new();
        (&*memory).store(&slices, &mut ids).unwrap();
        let wanted = ids.into_iter().zip(&pieces).map(|(id, p)| (id, p.len() as u32)).collect();
        (memory, wanted, pieces)
    }

    #[test]
    fn threads_that_want_the_same_all_get_it() {
        let (memory, wanted, pieces) = filled(300);
        let cache = ChunkCache::new(memory);
        std::thread::scope(|scope| {
            for start in 0..6 {
                let (cache, wanted, pieces) = (&cache, &wanted, &pieces);
                scope.spawn(move || {
                    for from in (start * 7..280).step_by(11) {
                        let range = from..from + 20;
                        if from % 3 == 0 {
                            cache.prepare(&wanted[range.clone()]);
                        }
                        let got = cache.get(&wanted[range.clone()]).unwrap();
                        assert!(got.iter().zip(&pieces[range]).all(|(got, piece)| **got == *piece));
                    }
                });
            }
        });
        assert!(lock(&cache.state).reading.is_empty());
    }

    #[test]
    fn a_chunk_that_is_lost_or_of_another_length_is_an_error_and_the_rest_is_not() {
        let (memory, mut wanted, pieces) = filled(10);
        memory.lost.lock().unwrap().insert(wanted[4].0);
        wanted[7].1 += 1;
        let cache = ChunkCache::new(memory);
        cache.prepare(&wanted);
        assert_eq!(cache.get(&wanted).unwrap_err().0, 4);
        assert_eq!(cache.get(&wanted[5..]).unwrap_err().0, 2);
        assert_eq!(*cache.get(&wanted[3..4]).unwrap()[0], pieces[3]);
        // The same chunk twice in one read.
        let twice = [wanted[2], wanted[2]];
        assert_eq!(*cache.get(&twice).unwrap()[1], pieces[2]);
        assert!(lock(&cache.state).reading.is_empty());
    }
}
