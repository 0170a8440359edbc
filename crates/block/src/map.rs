//! The content of a map as a device.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_engine::content;
use strongroom_engine::map::{self, MapRef};

use crate::{BlockDevice, Content, Durability, Error, Extent, Geometry, Result, Zeroing};

/// Bytes of a block.
const BLOCK: u32 = 512;
/// The largest device: protocols have signed 64-bit offsets.
const LARGEST: u64 = (i64::MAX as u64) / BLOCK as u64 * BLOCK as u64;
/// So many extents of a map are looked at for one answer.
const LOOKED_AT: usize = 1 << 16;
/// So many places that can't be read are told of.
const TOLD: usize = 10_000;

/// The content of a map, to be read: a disk as it was backed up, or any other file or stream.
///
/// It has blocks of 512 bytes; a content that ends within one is followed by zeroes up to its end.
/// Whoever makes one sees to it that what the map refers to is kept: the pool's lease of its root.
pub struct MapDevice {
    reader: Arc<content::Reader>,
    content: Arc<content::Content>,
    geometry: Geometry,
    id: [u8; 16],
    report: Option<Report>,
    /// Places that were told of.
    told: Mutex<HashSet<u64>>,
}

/// Hears of what can't be read, and where: each place once.
pub type Report = Arc<dyn Fn(u64, &str) + Send + Sync>;

impl std::fmt::Debug for MapDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapDevice")
            .field("reader", &self.reader)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

impl MapDevice {
    /// A device of that map. Any number of devices may share a reader, and its cache.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for a damaged map, [`Error::Unsupported`] for one of more than 8 EiB.
    pub fn new(reader: Arc<content::Reader>, map: &MapRef, id: [u8; 16]) -> Result<Self> {
        let damaged = |error: strongroom_engine::Error| Error::Unreadable {
            offset: 0,
            why: error.to_string(),
        };
        let content = content::Content::new(map).map_err(damaged)?;
        if content.len() > LARGEST {
            return Err(Error::Unsupported("be as large as that: 8 EiB are the most"));
        }
        let geometry = Geometry {
            size: content.len().next_multiple_of(BLOCK.into()),
            block: BLOCK,
            physical: 4096,
            optimal: 64 << 10,
            read_only: true,
            thin: true,
        };
        let (content, told) = (Arc::new(content), Mutex::default());
        Ok(Self { reader, content, geometry, id, report: None, told })
    }

    /// Has somebody hear of what can't be read; who asks for it has its error all the same.
    #[must_use]
    pub fn reporting(self, report: Report) -> Self {
        Self { report: Some(report), ..self }
    }

    /// How many bytes the content has: the device has up to 511 zeroes more.
    pub fn content(&self) -> u64 {
        self.content.len()
    }

    fn unreadable(&self, (offset, error): content::Misread) -> Error {
        let why = error.to_string();
        if let Some(report) = &self.report {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = told.len() < TOLD && told.insert(offset);
            drop(told);
            if is_new {
                report(offset, &why);
            }
        }
        Error::Unreadable { offset, why }
    }
}

impl BlockDevice for MapDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.geometry.check(offset, buffer.len() as u64)?;
        self.reader.read_at(&self.content, offset, buffer).map_err(|e| self.unreadable(e))
    }

    fn write_at(&self, _: u64, _: &[u8], _: Durability) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn write_zeroes(&self, _: u64, _: u64, _: Zeroing, _: Durability) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn compare_and_write(&self, _: u64, _: &[u8], _: &[u8], _: Durability) -> Result<Option<u64>> {
        Err(Error::ReadOnly)
    }

    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.geometry.check(offset, length)?;
        let (mut at, end) = (offset, offset + length);
        let mut extents: Vec<Extent> = Vec::new();
        if at == end {
            return Ok(extents);
        }
        for item in self.reader.extents(&self.content, offset).take(LOOKED_AT) {
            let (start, extent) = match item {
                Ok(item) => item,
                // What is known comes first; who asks for the rest hears of it.
                Err(_) if !extents.is_empty() => break,
                Err(error) => return Err(self.unreadable((at, error))),
            };
            let to = start.saturating_add(extent.len());
            // A block that has data is data; the zeroes behind the content are of its last block.
            let block = u64::from(BLOCK);
            let (content, to) = match extent {
                map::Extent::Data { .. } => (Content::Data, to.next_multiple_of(block)),
                map::Extent::Hole { .. } if to == self.content.len() => {
                    (Content::Hole, self.geometry.size)
                }
                map::Extent::Hole { .. } => (Content::Hole, to / block * block),
            };
            let length = to.min(end).saturating_sub(at);
            if length == 0 {
                continue;
            }
            let is_full = extents.len() == most.max(1);
            match extents.last_mut() {
                Some(last) if last.content == content => last.length += length,
                _ if is_full => break,
                _ => extents.push(Extent { offset: at, length, content }),
            }
            at += length;
            if at == end {
                break;
            }
        }
        Ok(extents)
    }

    fn id(&self) -> [u8; 16] {
        self.id
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use proptest::prelude::*;
    use strongroom_engine::chunker::Params;
    use strongroom_engine::clock::SystemClock;
    use strongroom_engine::disk::{Disk, FsDisk};
    use strongroom_engine::id::{ChunkKind, RootId};
    use strongroom_engine::map::MapBuilder;
    use strongroom_engine::pool::{CreateOptions, NewRoot, Pool, Use};

    use super::*;

    fn pool(dir: &Path) -> Arc<Pool> {
        let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(dir).unwrap());
        let options = CreateOptions {
            disks: vec![disk],
            parity: 0,
            secret: None,
            chunking: Params::default(),
            level: 1,
            pack_size: 1 << 20,
        };
        let clock = Arc::new(SystemClock::new().unwrap());
        let used = Use { clock, threads: 2, holder: "the test".into() };
        Arc::new(Pool::create(options, used).unwrap())
    }

    /// Stores parts of data (never zero) and holes as an image; its map and its bytes.
    fn stored(pool: &Pool, parts: &[(bool, u16)], fixed: Option<u32>) -> (MapRef, Vec<u8>) {
        let session = pool.session().unwrap();
        let mut bytes = Vec::new();
        let mut map = fixed.map_or_else(MapBuilder::new, MapBuilder::fixed);
        for (i, (hole, len)) in parts.iter().enumerate() {
            let len = fixed.unwrap_or(u32::from(*len) + 1);
            if *hole {
                bytes.resize(bytes.len() + len as usize, 0);
                map.push(&session, map::Extent::Hole { len: len.into() }).unwrap();
                continue;
            }
            let piece: Vec<u8> = (0..len).map(|at| (at * 7 + i as u32 * 31) as u8 | 1).collect();
            let mut ids = Vec::new();
            session.store(ChunkKind::Data, &[&piece], &mut ids).unwrap();
            map.push(&session, map::Extent::Data { id: ids[0], len }).unwrap();
            bytes.extend(piece);
        }
        let map = map.finish(&session).unwrap();
        // So that it is a root's, as any map that is read.
        let node = strongroom_engine::node::Node {
            nodes: match map {
                MapRef::Tree(node, _) => vec![node],
                MapRef::Inline(_) => Vec::new(),
            },
            data: match map {
                MapRef::Tree(..) => Vec::new(),
                MapRef::Inline(_) => map.ids().collect(),
            },
            payload: Vec::new(),
        };
        let mut nodes = Vec::new();
        session.store(ChunkKind::Node, &[&node.encode()], &mut nodes).unwrap();
        let root = NewRoot {
            id: RootId::random(),
            kind: 0,
            name: "disk".into(),
            immutable_for: None,
            nodes,
            meta: Vec::new(),
        };
        session.commit(root).unwrap();
        (map, bytes)
    }

    fn device(pool: &Arc<Pool>, map: &MapRef) -> MapDevice {
        let cache = content::Cache::new(1 << 20);
        let source: content::Shared = Arc::clone(pool) as _;
        let reader = Arc::new(content::Reader::new(&cache, source, 1));
        MapDevice::new(reader, map, [7; 16]).unwrap()
    }

    /// What a device says of all of it, when it is asked for a few at a time.
    fn all(device: &MapDevice, most: usize) -> Vec<Extent> {
        let (mut at, size) = (0, device.geometry().size);
        let mut all: Vec<Extent> = Vec::new();
        while at < size {
            let some = device.extents(at, size - at, most).unwrap();
            assert!((1..=most).contains(&some.len()));
            for extent in some {
                assert_eq!(extent.offset, at);
                assert!(extent.length > 0 && extent.length.is_multiple_of(512));
                at += extent.length;
                match all.last_mut() {
                    Some(last) if last.content == extent.content => last.length += extent.length,
                    _ => all.push(extent),
                }
            }
        }
        assert_eq!(at, size);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn any_range_is_what_was_stored_and_holes_are_told(
            parts in prop::collection::vec((any::<bool>(), 0u16..3000), 0..300),
            fixed in any::<bool>(),
            asked in prop::collection::vec((0u64..1 << 20, 0u64..70_000), 1..20),
            most in 1usize..5,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let pool = pool(dir.path());
            let (map, mut bytes) = stored(&pool, &parts, fixed.then_some(4096));
            let device = device(&pool, &map);
            prop_assert_eq!(device.content(), bytes.len() as u64);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            let size = bytes.len() as u64;
            prop_assert_eq!(device.geometry().size, size);
            for (offset, length) in asked {
                let offset = (offset % (size + 1)) / 512 * 512;
                let length = length.min(size - offset) / 512 * 512;
                let mut buffer = vec![9; length as usize];
                device.read_at(offset, &mut buffer).unwrap();
                let range = offset as usize..(offset + length) as usize;
                prop_assert!(buffer == bytes[range]);
            }
            for extent in all(&device, most) {
                let range = extent.offset as usize..(extent.offset + extent.length) as usize;
                for block in bytes[range].chunks(512) {
                    let is_zero = block.iter().all(|byte| *byte == 0);
                    prop_assert_eq!(is_zero, extent.content == Content::Hole);
                }
            }
        }
    }

    #[test]
    fn nothing_is_written_and_nothing_read_behind_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path());
        let (map, bytes) = stored(&pool, &[(false, 600), (true, 99)], None);
        let device = device(&pool, &map);
        assert_eq!((device.content(), device.geometry().size), (701, 1024));
        let mut buffer = [1; 1024];
        device.read_at(0, &mut buffer).unwrap();
        assert_eq!((&buffer[..701], &buffer[701..]), (&bytes[..], &[0; 323][..]));
        assert!(matches!(device.read_at(512, &mut buffer), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.extents(1024, 512, 1), Err(Error::OutOfRange { .. })));
        assert_eq!(device.extents(1024, 0, 1).unwrap(), []);
        let now = Durability::Now;
        for refused in [
            device.write_at(0, &[0; 512], now),
            device.write_zeroes(0, 512, Zeroing::Keep, now),
            device.discard(0, 512),
            device.compare_and_write(0, &[0; 512], &[0; 512], now).map(drop),
        ] {
            assert!(matches!(refused, Err(Error::ReadOnly)));
        }
        device.flush().unwrap();
        assert_eq!(device.id(), [7; 16]);
        let huge = MapRef::Inline(vec![map::Extent::Hole { len: 1 << 63 }]);
        let cache = content::Cache::new(1 << 20);
        let reader = content::Reader::new(&cache, Arc::clone(&pool) as _, 0);
        assert!(MapDevice::new(Arc::new(reader), &huge, [0; 16]).is_err());
    }

    #[test]
    fn what_is_lost_is_an_error_at_its_place_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path());
        let parts: Vec<_> = (0..200).map(|i| (i % 5 == 0, 0)).collect();
        let (map, bytes) = stored(&pool, &parts, Some(4096));
        let absent = strongroom_engine::id::ChunkId([1; 32]);
        let reader = strongroom_engine::map::MapReader::new(&*pool, &map, 0);
        let extents = reader.map(|item| match item.unwrap() {
            (8192, map::Extent::Data { len, .. }) => map::Extent::Data { id: absent, len },
            (_, extent) => extent,
        });
        let heard = Arc::new(Mutex::new(Vec::new()));
        let report = Arc::clone(&heard);
        let device = device(&pool, &MapRef::Inline(extents.collect()))
            .reporting(Arc::new(move |at, _| report.lock().unwrap().push(at)));
        let mut buffer = vec![0; 4096];
        for block in (0..bytes.len() as u64).step_by(4096) {
            match device.read_at(block, &mut buffer) {
                Ok(()) => assert!(buffer == bytes[block as usize..block as usize + 4096]),
                Err(Error::Unreadable { offset, .. }) => assert_eq!((offset, block), (8192, 8192)),
                Err(error) => panic!("{error}"),
            }
        }
        let error = device.read_at(0, &mut vec![0; 16384]).unwrap_err().to_string();
        assert!(error.contains("8192") && error.contains("not in the pool"), "{error}");
        assert_eq!(*heard.lock().unwrap(), [8192], "a place is told of once");
    }
}
