//! Journeys of whole packs over disks that live in memory and fail on command.
#![allow(clippy::unwrap_used, reason = "tests")]

mod damage;
mod journeys;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::buf::{AlignedBuf, PAGE};
use crate::disk::{Caching, Disk, DiskFile, DiskLock, Entry, Space};
use crate::id::{ChunkKind, PackId, PoolId};

const POOL: PoolId = PoolId([3; 16]);
const PACK: PackId = PackId(0x00ab_cdef_0107);

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
struct Memory {
    files: BTreeMap<String, Bytes>,
    /// How many more writes, syncs and renames succeed.
    budget: Option<usize>,
    /// Pages that can't be read, by path.
    unreadable: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default)]
struct MemDisk(Arc<Mutex<Memory>>);

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    path: String,
    bytes: Bytes,
}

impl MemDisk {
    fn spend(&self) -> io::Result<()> {
        match &mut self.0.lock().unwrap().budget {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let memory = self.0.lock().unwrap();
        memory.files.iter().map(|(path, b)| (path.clone(), b.lock().unwrap().clone())).collect()
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(&mut self.0.lock().unwrap().files[path].lock().unwrap());
    }
}

impl DiskFile for MemFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + buf.len() as u64;
        let bad = |(path, page): &(String, u64)| {
            let start = page * PAGE as u64;
            *path == self.path && start < range.end && range.start < start + PAGE as u64
        };
        if self.disk.0.lock().unwrap().unreadable.iter().any(bad) {
            return Err(io::Error::other("bad sector"));
        }
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.spend()?;
        assert_eq!(data.as_ptr() as usize % PAGE, 0, "direct writes are from aligned memory");
        assert_eq!((data.len() % PAGE, offset % PAGE as u64), (0, 0), "and of whole pages");
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.spend()
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &str, _: Caching, _: bool) -> io::Result<Box<dyn DiskFile>> {
        let bytes = self.0.lock().unwrap().files.get(path).cloned();
        let bytes = bytes.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile { disk: self.clone(), path: path.into(), bytes }))
    }

    fn create(&self, path: &str, _: Caching) -> io::Result<Box<dyn DiskFile>> {
        self.spend()?;
        let bytes = Bytes::default();
        let files = &mut self.0.lock().unwrap().files;
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(path.into(), Arc::clone(&bytes));
        Ok(Box::new(MemFile { disk: self.clone(), path: path.into(), bytes }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.spend()?;
        let files = &mut self.0.lock().unwrap().files;
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.into(), bytes);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let removed = self.0.lock().unwrap().files.remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let content = self.content();
        Ok(content
            .iter()
            .filter_map(|(path, bytes)| {
                let name = path.strip_prefix(dir)?.strip_prefix('/')?.to_owned();
                Some(Entry { name, len: bytes.len() as u64, is_dir: false })
            })
            .collect())
    }

    fn make_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: 0, free: 0 })
    }

    fn lock(&self, _: &str, _: bool) -> io::Result<Box<dyn DiskLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

/// The disks of a pool with one pack on them.
struct Bench {
    disks: Vec<MemDisk>,
    shape: Shape,
    bytes: Vec<u8>,
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

fn shape(data: u8, parity: u8) -> Shape {
    Shape::with_unit(data, parity, 4096).unwrap()
}

fn header(shape: Shape) -> PackHeader {
    let salt = [0x5a; 32];
    PackHeader { pool: POOL, pack: PACK, kind: ChunkKind::Data, shape, epoch: 1, salt }
}

fn as_dyn(disks: &[MemDisk]) -> Vec<Option<Arc<dyn Disk>>> {
    disks.iter().map(|disk| Some(Arc::new(disk.clone()) as Arc<dyn Disk>)).collect()
}

impl Bench {
    fn new(shape: Shape, len: usize) -> Self {
        let disks = vec![(); shape.shards()].iter().map(|()| MemDisk::default()).collect();
        let bench = Self { disks, shape, bytes: noise(len, 11) };
        let mut writer =
            ShardWriter::create(&as_dyn(&bench.disks), header(shape), Lanes::default()).unwrap();
        bench.bytes.chunks(5_003).for_each(|piece| writer.append(piece).unwrap());
        assert_eq!(writer.len(), len as u64);
        let sealed = writer.finish().unwrap().publish().unwrap();
        assert_eq!((sealed.len, sealed.disks.len()), (len as u64, shape.shards()));
        assert!(sealed.failed.is_empty());
        bench
    }

    fn geometry(&self) -> Geometry {
        Geometry::new(self.shape, self.bytes.len() as u64).unwrap()
    }

    fn disk(&self, shard: usize) -> &MemDisk {
        &self.disks[disk_of(PACK, shard, self.disks.len())]
    }

    fn content(&self) -> Vec<BTreeMap<String, Vec<u8>>> {
        self.disks.iter().map(MemDisk::content).collect()
    }

    fn put_back(&self, content: &[BTreeMap<String, Vec<u8>>]) {
        for (disk, content) in self.disks.iter().zip(content) {
            let files = content
                .iter()
                .map(|(path, bytes)| (path.clone(), Arc::new(Mutex::new(bytes.clone()))));
            disk.0.lock().unwrap().files = files.collect();
        }
    }

    /// The disks, without those of the shards in the bits of `lost`.
    fn without(&self, lost: u32) -> Vec<Option<Arc<dyn Disk>>> {
        let mut disks = as_dyn(&self.disks);
        for shard in (0..self.disks.len()).filter(|shard| lost >> shard & 1 == 1) {
            disks[disk_of(PACK, shard, self.disks.len())] = None;
        }
        disks
    }

    fn set(&self, lost: u32) -> ShardSet {
        ShardSet::open(&self.without(lost), POOL, PACK, self.geometry()).unwrap()
    }

    fn check(&self, set: &ShardSet, offset: usize, len: usize) {
        let mut buf = AlignedBuf::default();
        let report = set.read(offset as u64, len, &mut buf).unwrap();
        assert!(buf[report.range] == self.bytes[offset..offset + len]);
    }

    fn scrub(&self, repair: bool) -> ScrubReport {
        let (disks, mut buffers) = (as_dyn(&self.disks), ScrubBuffers::default());
        let mut read = 0;
        let report = scrub_pack(
            &disks,
            POOL,
            PACK,
            Some(self.geometry()),
            repair,
            &mut buffers,
            &mut |bytes| {
                read += bytes;
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(report.bytes_read, read);
        report
    }
}
