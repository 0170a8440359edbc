//! What a pool keeps of a volume.
//!
//! # A volume
//!
//! A root of kind 2 whose only node is its *top*. Each time a volume is settled there is another root in the
//! place of the one before, by one record of the journal; what makes it the same volume is the id in `meta`.
//!
//! ## Format of `meta`
//! | field | type | meaning |
//! |---|---|---|
//! | version | 1 byte | 2; version 1 ends before `settings`, and they are thin, all on, transactional, 16 |
//! | volume | 16 bytes | its id |
//! | name | byte string | UTF-8, at most 255 bytes |
//! | created | zigzag varint | when, by the pool's own clock |
//! | size | varint | bytes, as settled; the log may have it grow |
//! | chunk | varint | bytes of its chunks: a power of two, 4 KiB to 1 MiB |
//! | sector | varint | bytes of a logical block: 512 or 4096 |
//! | run | 32 bytes | salt of the run of its log that counts; files of any other are left-overs |
//! | epoch | varint | the data key that this run is sealed with; 0 in a pool that isn't encrypted |
//! | settled | varint | the sequence number up to which the log is in the maps |
//! | settings | 1 byte | bits from the lowest: thin, deduplication, compression, cache |
//! | … io type | 1 byte | 0: transactional, 1: sequential |
//! | … priority | 1 byte | 4, 8, 16, 32, 64 or 128 |
//! | … origin | byte string | UTF-8, at most 255 bytes: what it was made from, for people |
//! | reserve | varint | bytes for which room is set aside, as settled; 0 for a thin volume |
//! | parent | 1 byte, then for 1: | 1: it is a clone that wasn't settled yet, and what is below its log is a snapshot of another volume; its root has no node then. Otherwise 0 |
//! | … volume | 16 bytes | the other volume |
//! | … snapshot | 16 bytes | |
//!
//! ## Format of the top node
//! | field | type | meaning |
//! |---|---|---|
//! | tag | 1 byte | 33 |
//! | version | 1 byte | 1 |
//! | content | map | what the volume has |
//! | snapshots | varint count, at most 4096, then for each: | in the order in which they were made |
//! | … id | 16 bytes | |
//! | … name | byte string | |
//! | … created | zigzag varint | when, by the pool's own clock |
//! | … size | varint | bytes of the volume then |
//! | … content | map | |
//!
//! A map is a byte 1 and its length as a varint, and its top node is the next id of `nodes`; or a byte 0, the
//! number of its extents, at most 64, and each one's length and whether it is a hole as in a map node, and
//! the chunks are the next ids of `data`. A chunk may have 16 bytes more than its extent says: they are no part of the
//! content, and make it a chunk of its own where what is the same is not to be stored once.

use strongroom_engine::clock::PoolTime;
use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{Extent, INLINE_ITEMS, MapRef};
use strongroom_engine::node::Node;

use super::record::name;
use super::{Settings, SnapshotId, VolumeId};

/// `Root::kind` of a volume.
pub const ROOT_KIND: u8 = 2;
/// The first payload byte of a top node.
pub const TOP_TAG: u8 = 33;
/// The most snapshots of a volume.
pub const MAX_SNAPSHOTS: usize = 4096;
/// The bounds of a volume's chunks, in bytes.
pub const CHUNKS: std::ops::RangeInclusive<u32> = 4096..=1 << 20;
/// The largest volume, in bytes.
pub const MAX_SIZE: u64 = 1 << 56;
const VERSION: u8 = 1;
const META_VERSION: u8 = 2;

/// A snapshot that a clone begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Whose.
    pub volume: VolumeId,
    /// Which.
    pub snapshot: SnapshotId,
}

/// What a list shows of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its id.
    pub volume: VolumeId,
    /// Its name.
    pub name: String,
    /// When it was made, by the pool's own clock.
    pub created: PoolTime,
    /// Its size in bytes, as settled.
    pub size: u64,
    /// Bytes of its chunks.
    pub chunk: u32,
    /// Bytes of a logical block.
    pub sector: u32,
    /// The salt of the run of its log that counts.
    pub run: [u8; 32],
    /// The data key of that run.
    pub epoch: u32,
    /// Up to which sequence number the log is in the maps.
    pub settled: u64,
    /// What is set.
    pub settings: Settings,
    /// Bytes for which room is set aside, as settled; 0 for a thin volume.
    pub reserve: u64,
    /// What is below its log, while the pool has no map of its own for it.
    pub parent: Option<Parent>,
}

impl Meta {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.byte(META_VERSION);
        w.raw(&self.volume.0);
        w.bytes(self.name.as_bytes());
        w.int(self.created.0);
        w.uint(self.size);
        w.uint(self.chunk.into());
        w.uint(self.sector.into());
        w.raw(&self.run);
        w.uint(self.epoch.into());
        w.uint(self.settled);
        self.settings.encode(&mut w);
        w.uint(self.reserve);
        w.byte(self.parent.is_some().into());
        if let Some(Parent { volume, snapshot }) = self.parent {
            w.raw(&volume.0);
            w.raw(&snapshot.0);
        }
        w.finish()
    }

    /// Reads what [`Meta::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let version = r.byte()?;
        if !(1..=META_VERSION).contains(&version) {
            return Err(DecodeError::Unknown("the version of a volume"));
        }
        let mut meta = Self {
            volume: VolumeId(r.array()?),
            name: name(r.bytes()?)?,
            created: PoolTime(r.int()?),
            size: r.uint()?,
            chunk: r.uint32()?,
            sector: r.uint32()?,
            run: r.array()?,
            epoch: r.uint32()?,
            settled: r.uint()?,
            settings: Settings::default(),
            reserve: 0,
            parent: None,
        };
        if version > 1 {
            meta.settings = Settings::decode(&mut r)?;
            meta.reserve = r.uint()?;
            meta.parent = match r.byte()? {
                0 => None,
                1 => {
                    let volume = VolumeId(r.array()?);
                    Some(Parent { volume, snapshot: SnapshotId(r.array()?) })
                }
                _ => return Err(DecodeError::Unknown("the parent of a volume")),
            };
        }
        r.end()?;
        let is_sound = CHUNKS.contains(&meta.chunk)
            && meta.chunk.is_power_of_two()
            && [512, 4096].contains(&meta.sector)
            && meta.size <= MAX_SIZE
            && meta.size.is_multiple_of(meta.sector.into())
            && meta.reserve <= meta.size
            && meta.settled < u64::MAX >> 1;
        if is_sound { Ok(meta) } else { Err(DecodeError::Unknown("a measure of a volume")) }
    }
}

/// A snapshot that is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// When it was made, by the pool's own clock.
    pub created: PoolTime,
    /// The volume's size then, in bytes.
    pub size: u64,
    /// What the volume had then.
    pub map: MapRef,
}

/// What a volume has, as far as it is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// Its content.
    pub map: MapRef,
    /// Its snapshots, in the order in which they were made.
    pub snapshots: Vec<Settled>,
}

impl Top {
    /// The node.
    pub fn encode(&self) -> Node {
        let mut node = Node::default();
        let mut w = Writer::new();
        w.byte(TOP_TAG);
        w.byte(VERSION);
        put_map(&self.map, &mut w, &mut node);
        w.uint(self.snapshots.len() as u64);
        for snapshot in &self.snapshots {
            w.raw(&snapshot.id.0);
            w.bytes(snapshot.name.as_bytes());
            w.int(snapshot.created.0);
            w.uint(snapshot.size);
            put_map(&snapshot.map, &mut w, &mut node);
        }
        node.payload = w.finish();
        node
    }

    /// Reads what [`Top::encode`] made.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else.
    pub fn decode(node: &Node) -> Result<Self, DecodeError> {
        let mut r = Reader::new(&node.payload);
        if (r.byte()?, r.byte()?) != (TOP_TAG, VERSION) {
            return Err(DecodeError::Unknown("the top node of a volume"));
        }
        let (mut nodes, mut data) = (node.nodes.iter(), node.data.iter());
        let mut ids = Ids { nodes: &mut nodes, data: &mut data };
        let map = take_map(&mut r, &mut ids)?;
        let count = r.count(16)?;
        if count > MAX_SNAPSHOTS {
            return Err(DecodeError::Unknown("the number of a volume's snapshots"));
        }
        let mut snapshots = Vec::with_capacity(count);
        for _ in 0..count {
            let snapshot = Settled {
                id: SnapshotId(r.array()?),
                name: name(r.bytes()?)?,
                created: PoolTime(r.int()?),
                size: r.uint()?,
                map: take_map(&mut r, &mut ids)?,
            };
            if snapshot.size > MAX_SIZE || snapshot.map.len() > snapshot.size {
                return Err(DecodeError::Unknown("the size of a snapshot"));
            }
            snapshots.push(snapshot);
        }
        r.end()?;
        Ok(Self { map, snapshots })
    }
}

fn put_map(map: &MapRef, w: &mut Writer, node: &mut Node) {
    match map {
        MapRef::Inline(extents) => {
            w.byte(0);
            w.uint(extents.len() as u64);
            for extent in extents {
                extent.encode(w);
                if let Extent::Data { id, .. } = extent {
                    node.data.push(*id);
                }
            }
        }
        MapRef::Tree(id, len) => {
            w.byte(1);
            w.uint(*len);
            node.nodes.push(*id);
        }
    }
}

struct Ids<'i> {
    nodes: &'i mut dyn Iterator<Item = &'i ChunkId>,
    data: &'i mut dyn Iterator<Item = &'i ChunkId>,
}

fn take_map(r: &mut Reader<'_>, ids: &mut Ids<'_>) -> Result<MapRef, DecodeError> {
    let map = match r.byte()? {
        0 => {
            let count = r.count(1)?;
            if count > INLINE_ITEMS {
                return Err(DecodeError::Unknown("the number of extents of a map"));
            }
            let mut extent =
                || Extent::decode(r, || ids.data.next().copied().ok_or(DecodeError::Short));
            let extents: Result<Vec<Extent>, DecodeError> = (0..count).map(|_| extent()).collect();
            MapRef::Inline(extents?)
        }
        1 => {
            let len = r.uint()?;
            MapRef::Tree(*ids.nodes.next().ok_or(DecodeError::Short)?, len)
        }
        _ => return Err(DecodeError::Unknown("a map of a volume")),
    };
    if map.len() > MAX_SIZE {
        return Err(DecodeError::Unknown("the length of a map"));
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::super::{IoType, Priority};
    use super::*;

    fn top() -> Top {
        let data = Extent::Data { id: ChunkId([1; 32]), len: 4096 };
        let snapshot = |n: u8, map| Settled {
            id: SnapshotId([n; 16]),
            name: format!("daily {n}"),
            created: PoolTime(-7),
            size: 1 << 30,
            map,
        };
        Top {
            map: MapRef::Tree(ChunkId([2; 32]), 1 << 30),
            snapshots: vec![
                snapshot(1, MapRef::Inline(vec![data, Extent::Hole { len: 4096 }])),
                snapshot(2, MapRef::Tree(ChunkId([3; 32]), 1 << 29)),
            ],
        }
    }

    fn meta() -> Meta {
        Meta {
            volume: VolumeId([5; 16]),
            name: "vol1".into(),
            created: PoolTime(9),
            size: 1 << 40,
            chunk: 65536,
            sector: 512,
            run: [6; 32],
            epoch: 2,
            settled: 77,
            settings: Settings {
                thin: false,
                cache: false,
                io_type: IoType::Sequential,
                priority: Priority::new(128).unwrap(),
                origin: "image 7".into(),
                ..Settings::default()
            },
            reserve: 4096,
            parent: Some(Parent { volume: VolumeId([7; 16]), snapshot: SnapshotId([8; 16]) }),
        }
    }

    /// As bytes on a disk are: none of them changes its meaning.
    #[test]
    fn volumes_of_all_versions_are_read() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (volume, run) = ("05".repeat(16), "06".repeat(32));
        let common = format!("{volume}04766f6c31128080808080208080048004{run}024d");
        let parent = ["07", "08"].map(|byte| byte.repeat(16)).concat();
        let second = format!("02{common}06018007696d6167652037802001{parent}");
        assert_eq!(hex(&meta().encode()), second);
        let bytes = |text: &str| -> Vec<u8> {
            let digits: Vec<char> = text.chars().collect();
            let byte = |two: &[char]| u8::from_str_radix(&two.iter().collect::<String>(), 16);
            digits.chunks(2).map(|two| byte(two).unwrap()).collect()
        };
        let first = Meta { settings: Settings::default(), reserve: 0, parent: None, ..meta() };
        assert_eq!(Meta::decode(&bytes(&format!("01{common}"))), Ok(first));
        assert_eq!(Meta::decode(&bytes(&second)), Ok(meta()));
    }

    #[test]
    fn volumes_survive_their_bytes() {
        let node = top().encode();
        assert_eq!((node.nodes.len(), node.data.len()), (2, 1));
        assert_eq!(Top::decode(&node), Ok(top()));
        assert_eq!(Meta::decode(&meta().encode()), Ok(meta()));
        for len in 0..meta().encode().len() {
            assert!(Meta::decode(&meta().encode()[..len]).is_err());
        }
        for bad in [
            Meta { chunk: 3 << 12, ..meta() },
            Meta { sector: 1, ..meta() },
            Meta { size: 100, ..meta() },
        ] {
            assert!(Meta::decode(&bad.encode()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(
            rest in proptest::collection::vec(any::<u8>(), 0..80),
            nodes in 0..3usize,
        ) {
            let payload = [&[TOP_TAG, VERSION][..], &rest].concat();
            let ids = vec![ChunkId([0; 32]); nodes];
            let _ = Top::decode(&Node { nodes: ids.clone(), data: ids, payload });
            let _ = Meta::decode(&[&[META_VERSION][..], &rest].concat());
        }
    }
}
