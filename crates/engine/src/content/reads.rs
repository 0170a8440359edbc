//! Reading contents, and reading ahead of who reads in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::Chunks;
use super::cache::{Bytes, Cache, Cached, Wanted, lock};
use super::pace::{AHEAD, Pace};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::map::{Extent, MapNode, MapReader, MapRef, Nodes};
use crate::node::Node;

/// So many bytes of a read are under way at a time, and in so many extents.
const WINDOW: u64 = 4 << 20;
const WINDOW_ITEMS: usize = 1024;
/// Stretches that wait to be read ahead; more are left to who reads there.
const WAITING: usize = 4;
/// Buffers that are kept for replies.
const BUFFERS: usize = 8;

/// A source that many threads read.
pub type Shared = Arc<dyn Chunks + Send + Sync>;
/// What could not be read: at which offset of the content, and the error.
pub type Misread = (u64, Error);

/// The content of a map, and how it is being read.
#[derive(Debug)]
pub struct Content {
    top: Arc<MapNode>,
    len: u64,
    pace: Mutex<Pace>,
}

impl Content {
    /// That of a map.
    ///
    /// # Errors
    /// [`Error::Damaged`] for one that is longer than 64 bits can count.
    pub fn new(map: &MapRef) -> Result<Self> {
        let top = MapNode::top(map)?;
        Ok(Self { top, len: map.len(), pace: Mutex::default() })
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Reads contents of one source through a cache, with threads that read ahead until it is dropped.
pub struct Reader {
    core: Arc<Core>,
    ahead: Option<SyncSender<Stretch>>,
    threads: Vec<JoinHandle<()>>,
    /// Buffers for replies.
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({}, {:?})", self.core.number, self.core.cache)
    }
}

/// Bytes that will be read soon.
struct Stretch {
    content: Arc<Content>,
    from: u64,
    to: u64,
}

struct Core {
    cache: Arc<Cache>,
    source: Shared,
    number: u32,
    /// Nobody reads any more.
    ended: AtomicBool,
}

/// Extents that follow each other, each with its offset, as far as one step goes.
struct Part {
    extents: Vec<(u64, Extent)>,
    /// Where the last of them ends, or the read does.
    to: u64,
}

impl Part {
    /// The chunks of the extents, and where each begins.
    fn chunks(&self) -> (Vec<u64>, Vec<Wanted>) {
        let data = self.extents.iter().filter_map(|(at, extent)| match extent {
            Extent::Data { id, len } => Some((*at, (*id, *len))),
            Extent::Hole { .. } => None,
        });
        data.unzip()
    }
}

impl Nodes for Core {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        self.cached().node(id)
    }

    fn map_node(&self, id: &ChunkId, len: u64, below: u8) -> Result<Arc<MapNode>> {
        self.cached().map_node(id, len, below)
    }
}

impl Core {
    fn cached(&self) -> Cached<'_> {
        Cached { cache: &self.cache, number: self.number, source: &*self.source }
    }

    /// The extents of `from..to`, or of its beginning.
    fn part(&self, content: &Content, from: u64, to: u64) -> Result<Part, Misread> {
        let goal = to.min(from.saturating_add(WINDOW));
        let mut part = Part { extents: Vec::new(), to: from };
        for item in MapReader::within(self, &content.top, from) {
            let (at, extent) = item.map_err(|error| (part.to, error))?;
            part.extents.push((at, extent));
            part.to = at.saturating_add(extent.len()).min(to);
            if part.to >= goal || part.extents.len() == WINDOW_ITEMS {
                return Ok(part);
            }
        }
        Err((part.to, Error::damaged("a map", "it ends before its content does")))
    }

    /// Fills the buffer with what is at `from`; all of it lies within the content.
    fn fill(&self, content: &Content, mut from: u64, buffer: &mut [u8]) -> Result<(), Misread> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let part = self.part(content, from, from.saturating_add(rest.len() as u64))?;
            let (places, wanted) = part.chunks();
            let failed = |(i, error): (usize, Error)| {
                (places.get(i).copied().unwrap_or(from).max(from), error)
            };
            let chunks = self.cached().get(&wanted).map_err(failed)?;
            let mut chunks = chunks.iter();
            for (at, extent) in &part.extents {
                let begin = from.max(*at);
                let len = part.to.min(at.saturating_add(extent.len())) - begin;
                let (now, later) = rest.split_at_mut(len as usize);
                match extent {
                    Extent::Hole { .. } => now.fill(0),
                    Extent::Data { .. } => {
                        let chunk = chunks.next().expect("one chunk was asked for by data extent");
                        let start = (begin - at) as usize;
                        now.copy_from_slice(&chunk[start..start + now.len()]);
                    }
                }
                (rest, from) = (later, begin + len);
            }
        }
        Ok(())
    }

    /// The one chunk that all of `from..to` lies in, and where in it that begins.
    fn single(
        &self,
        content: &Content,
        from: u64,
        to: u64,
    ) -> Result<Option<(Bytes, usize)>, Misread> {
        match MapReader::within(self, &content.top, from).next() {
            Some(Ok((at, Extent::Data { id, len }))) if at + u64::from(len) >= to => {
                let mut got = self.cached().get(&[(id, len)]).map_err(|(_, e)| (from, e))?;
                let bytes = got.pop().expect("one chunk was asked for, and there was no error");
                Ok(Some((bytes, (from - at) as usize)))
            }
            _ => Ok(None),
        }
    }

    /// Errors are left to who reads there.
    fn prepare(&self, stretch: &Stretch) {
        let mut from = stretch.from;
        while from < stretch.to && !self.ended.load(Ordering::Relaxed) {
            let Ok(part) = self.part(&stretch.content, from, stretch.to) else { return };
            self.cached().prepare(&part.chunks().1);
            from = part.to;
        }
    }
}

impl Nodes for Reader {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        self.core.node(id)
    }

    fn map_node(&self, id: &ChunkId, len: u64, below: u8) -> Result<Arc<MapNode>> {
        self.core.map_node(id, len, below)
    }
}

impl Reader {
    /// Of a source, with so many threads that read ahead.
    pub fn new(cache: &Arc<Cache>, source: Shared, threads: usize) -> Self {
        let core = Core {
            cache: Arc::clone(cache),
            source,
            number: cache.enter(),
            ended: AtomicBool::new(false),
        };
        let core = Arc::new(core);
        let (ahead, stretches) = sync_channel(WAITING);
        let stretches = Arc::new(Mutex::new(stretches));
        let work = |_| {
            let (core, stretches) = (Arc::clone(&core), Arc::clone(&stretches));
            let thread = std::thread::Builder::new().name("read-ahead".into());
            // Without threads, all is read when it is asked for.
            thread.spawn(move || read_ahead(&core, &stretches)).ok()
        };
        let threads = (0..threads).filter_map(work).collect();
        Self { core, ahead: Some(ahead), threads, buffers: Mutex::default() }
    }

    /// Fills the buffer with the bytes at `offset`; what is behind the content's end is zeroes.
    ///
    /// # Errors
    /// Those of the pool, with the place; the buffer may then hold anything.
    pub fn read_at(
        &self,
        content: &Arc<Content>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Misread> {
        let to = offset.saturating_add(buffer.len() as u64).min(content.len);
        let inside = to.saturating_sub(offset) as usize;
        let (inside, behind) = buffer.split_at_mut(inside);
        behind.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        self.core.fill(content, offset, inside)?;
        self.note(content, offset, to);
        Ok(())
    }

    /// Hands the bytes at `offset` to `reply`, `size` of them or up to the content's end.
    pub fn read(
        &self,
        content: &Arc<Content>,
        offset: u64,
        size: u32,
        reply: impl FnOnce(Result<&[u8], Misread>),
    ) {
        let to = offset.saturating_add(size.into()).min(content.len);
        if offset >= to {
            return reply(Ok(&[]));
        }
        let len = (to - offset) as usize;
        match self.core.single(content, offset, to) {
            Ok(Some((bytes, begin))) => reply(Ok(&bytes[begin..begin + len])),
            Err(failed) => return reply(Err(failed)),
            Ok(None) => {
                let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
                buffer.resize(len, 0);
                reply(self.core.fill(content, offset, &mut buffer).map(|()| &buffer[..]));
                let mut buffers = lock(&self.buffers);
                if buffers.len() < BUFFERS {
                    buffers.push(buffer);
                }
            }
        }
        self.note(content, offset, to);
    }

    /// Has read ahead what comes next.
    fn note(&self, content: &Arc<Content>, from: u64, to: u64) {
        let most = AHEAD.min(self.core.cache.room() as u64 / 6);
        let wanted = lock(&content.pace).note(from, to, content.len, most);
        if let (Some((from, to)), Some(ahead)) = (wanted, &self.ahead)
            && ahead.try_send(Stretch { content: Arc::clone(content), from, to }).is_err()
        {
            lock(&content.pace).missed(from, to);
        }
    }

    /// The extents of a content from the one on that holds `offset`.
    pub fn extents(&self, content: &Content, offset: u64) -> MapReader<'_> {
        MapReader::within(&*self.core, &content.top, offset)
    }

    /// The next offset from `from` on that has data, or that has none; the content's end counts as
    /// a hole. None when there is no such data.
    ///
    /// # Errors
    /// Those of the pool.
    pub fn seek(&self, content: &Content, from: u64, data: bool) -> Result<Option<u64>> {
        if from >= content.len {
            return Ok(None);
        }
        for item in self.extents(content, from) {
            let (at, extent) = item?;
            if matches!(extent, Extent::Data { .. }) == data {
                return Ok(Some(at.max(from)));
            }
        }
        Ok((!data).then_some(content.len))
    }

    /// The bytes of chunks, in the order wanted; where there are many, several threads read them.
    ///
    /// # Errors
    /// Those of the pool for the first that can't be read, with its place in the list.
    pub fn chunks(&self, wanted: &[Wanted]) -> Result<Vec<Bytes>, (usize, Error)> {
        self.core.cached().get(wanted)
    }

    /// Has the bytes of a chunk at hand that was stored just now: whoever stored them may want them next.
    pub fn keep(&self, id: ChunkId, bytes: &[u8]) {
        self.core.cached().keep(id, bytes);
    }

    /// The bytes of one chunk.
    ///
    /// # Errors
    /// Those of the pool.
    pub fn chunk(&self, wanted: Wanted) -> Result<Bytes> {
        let mut got = self.core.cached().get(&[wanted]).map_err(|(_, e)| e)?;
        Ok(got.pop().expect("one chunk was asked for, and there was no error"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.core.ended.store(true, Ordering::Relaxed);
        self.ahead = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn read_ahead(core: &Core, stretches: &Mutex<Receiver<Stretch>>) {
    loop {
        let next = lock(stretches).recv();
        match next {
            Ok(stretch) => core.prepare(&stretch),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::content::testing::Memory;
    use crate::map::MapBuilder;

    /// A content of data and holes, its bytes and the ids of its chunks.
    fn content(memory: &Memory, parts: &[(bool, u16)]) -> (Arc<Content>, Vec<u8>, Vec<ChunkId>) {
        let (mut bytes, mut ids) = (Vec::new(), Vec::new());
        let mut map = MapBuilder::new();
        for (i, (hole, len)) in parts.iter().enumerate() {
            let len = usize::from(*len) + 1;
            if *hole {
                bytes.resize(bytes.len() + len, 0);
                map.push(memory, Extent::Hole { len: len as u64 }).unwrap();
            } else {
                let piece: Vec<u8> = (0..len).map(|at| (at * 7 + i * 31 + 1) as u8).collect();
                let id = memory.put(&piece);
                map.push(memory, Extent::Data { id, len: len as u32 }).unwrap();
                ids.push(id);
                bytes.extend(piece);
            }
        }
        let map = map.finish(memory).unwrap();
        (Arc::new(Content::new(&map).unwrap()), bytes, ids)
    }

    fn reader(memory: &Arc<Memory>) -> Reader {
        Reader::new(&Cache::new(1 << 20), Arc::clone(memory) as Shared, 1)
    }

    fn read(r: &Reader, content: &Arc<Content>, offset: u64, size: u32) -> Result<Vec<u8>, u64> {
        let mut out = None;
        r.read(content, offset, size, |got| {
            out = Some(got.map(<[u8]>::to_vec).map_err(|(at, _)| at));
        });
        out.unwrap()
    }

    proptest! {
        #[test]
        fn any_read_gives_the_bytes_that_are_there(
            parts in prop::collection::vec((any::<bool>(), 0u16..3000), 0..200),
            asked in prop::collection::vec((0u64..300_000, 0u32..70_000), 1..20),
            in_order in any::<bool>(),
        ) {
            let memory = Arc::new(Memory::default());
            let (content, bytes, _) = content(&memory, &parts);
            let reader = reader(&memory);
            let mut next = 0;
            for (offset, size) in asked {
                let offset = if in_order { next } else { offset };
                next = offset + u64::from(size);
                let from = (offset as usize).min(bytes.len());
                let to = (next as usize).min(bytes.len());
                prop_assert_eq!(read(&reader, &content, offset, size).unwrap(), &bytes[from..to]);
                let mut buffer = vec![7; size as usize];
                reader.read_at(&content, offset, &mut buffer).unwrap();
                prop_assert_eq!(&buffer[..to - from], &bytes[from..to]);
                prop_assert!(buffer[to - from..].iter().all(|b| *b == 0));
            }
            for from in [0, bytes.len() / 3, bytes.len()] {
                let mut at = from as u64;
                let mut data = false;
                // Walks over data and holes in turn, as copying programs do.
                while let Some(next) = reader.seek(&content, at, data).unwrap() {
                    if data {
                        prop_assert!(bytes[at as usize..next as usize].iter().all(|b| *b == 0));
                    }
                    if next >= bytes.len() as u64 { break; }
                    (at, data) = (next, !data);
                }
            }
        }
    }

    #[test]
    fn a_lost_chunk_is_an_error_at_its_place_and_nowhere_else() {
        let memory = Arc::new(Memory::default());
        let (content, bytes, ids) = content(&memory, &[(false, 999), (false, 1999), (false, 999)]);
        memory.lose(ids[1]);
        let reader = reader(&memory);
        assert_eq!(read(&reader, &content, 0, 1000).unwrap(), &bytes[..1000]);
        assert_eq!(read(&reader, &content, 500, 1000), Err(1000));
        assert_eq!(read(&reader, &content, 1500, 10), Err(1500));
        assert_eq!(read(&reader, &content, 3000, 9000).unwrap(), &bytes[3000..]);
        let mut buffer = [0; 600];
        assert_eq!(reader.read_at(&content, 900, &mut buffer).unwrap_err().0, 1000);
        reader.read_at(&content, 0, &mut buffer).unwrap();
    }

    #[test]
    fn a_node_that_is_lost_is_an_error_at_its_place_and_nowhere_else() {
        let memory = Arc::new(Memory::default());
        let mut builder = MapBuilder::fixed(512);
        let pieces: Vec<Vec<u8>> =
            (0..2048u32).map(|i| (i + 1).to_le_bytes().repeat(128)).collect();
        for piece in &pieces {
            let id = memory.put(piece);
            builder.push(&*memory, Extent::Data { id, len: 512 }).unwrap();
        }
        let map = builder.finish(&*memory).unwrap();
        let MapRef::Tree(top, _) = map else { panic!("it has more than an inline map holds") };
        memory.lose(memory.node(&top).unwrap().nodes[1]);
        let content = Arc::new(Content::new(&map).unwrap());
        let reader = reader(&memory);
        let step = 512 * 512;
        assert_eq!(read(&reader, &content, step - 1000, 2000), Err(step));
        assert_eq!(read(&reader, &content, step + 7, 9), Err(step + 7));
        assert_eq!(read(&reader, &content, step - 512, 512).unwrap(), pieces[511]);
        assert_eq!(read(&reader, &content, 2 * step, 512).unwrap(), pieces[1024]);
    }

    #[test]
    fn reading_in_order_reads_all_chunks_once_and_holes_never() {
        let memory = Arc::new(Memory::default());
        let parts: Vec<_> = (0..400).map(|i| (i % 3 == 0, 1000 + i)).collect();
        let (content, bytes, ids) = content(&memory, &parts);
        let reader = reader(&memory);
        let mut at = 0;
        while at < bytes.len() {
            let got = read(&reader, &content, at as u64, 4096).unwrap();
            assert_eq!(got, &bytes[at..at + got.len()]);
            at += got.len();
        }
        drop(reader);
        assert_eq!(memory.most_reads(), 1);
        let nodes = memory.read() - ids.len();
        assert!(nodes <= 4, "{nodes} more than the content has chunks");
    }

    #[test]
    fn a_hostile_map_is_refused() {
        let holes = vec![Extent::Hole { len: u64::MAX }, Extent::Hole { len: 1 }];
        assert!(Content::new(&MapRef::Inline(holes.clone())).is_err());
        let memory = Memory::default();
        let items: Vec<_> = MapReader::new(&memory, &MapRef::Inline(holes), 0).collect();
        assert!(matches!(items[..], [Err(Error::Damaged { .. })]));
    }
}
