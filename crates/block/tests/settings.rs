//! What can be set of a volume, and what it does.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Bed, LAYOUTS, Layout, Rng, small};
use strongroom_block::volume::{NewVolume, Priority, Settings, Volumes};
use strongroom_block::{BlockDevice, Content, Durability, Error, Zeroing};
use strongroom_engine::id::{ChunkKind, RootId};
use strongroom_engine::map::NodeStore;
use strongroom_engine::node::Node;
use strongroom_engine::pool::{GcOptions, Meter, NewRoot};

const LATER: Durability = Durability::Later;
const MIB: usize = 1 << 20;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut bytes = vec![0; length];
    bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
    bytes
}

/// Bytes that are easily compressed, and different in each block.
fn plain(length: usize) -> Vec<u8> {
    let mut bytes = vec![b'x'; length];
    for (number, block) in bytes.chunks_mut(4096).enumerate() {
        block[..8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    bytes
}

fn with(settings: Settings, size: usize) -> NewVolume {
    let name = format!("{settings:?}");
    let name = name.chars().filter(char::is_ascii_alphabetic).collect::<String>();
    NewVolume { settings, ..small(&name[..name.len().min(200)], size as u64) }
}

fn packs(volumes: &Volumes) -> u64 {
    volumes.pool().state().packs.values().map(|pack| pack.len).sum()
}

fn read(device: &dyn BlockDevice, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    device.read_at(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn without_compression_bytes_are_stored_as_they_are() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let content = plain(2 * MIB);
    let mut sizes = Vec::new();
    for compression in [true, false] {
        let settings = Settings { compression, deduplication: false, ..Settings::default() };
        let volume = volumes.open(volumes.create(with(settings, 2 * MIB)).unwrap()).unwrap();
        volume.write_at(0, &content, LATER).unwrap();
        let before = packs(&volumes);
        volume.settle().unwrap();
        sizes.push(packs(&volumes) - before);
        assert!(read(&*volume, 0, content.len()) == content);
        // A collection that copies the rest of its frames leaves them as they are.
        volume.discard(0, MIB as u64 / 2).unwrap();
        volume.settle().unwrap();
        volumes.pool().gc(GcOptions { dry_run: false, max_unused: 0.0 }).unwrap();
        assert!(read(&*volume, MIB as u64 / 2, MIB) == content[MIB / 2..][..MIB]);
    }
    assert!(sizes[0] < MIB as u64 / 4 && sizes[1] >= 2 * MIB as u64, "{sizes:?}");
    let all = packs(&volumes);
    assert!(all >= (3 * MIB / 2) as u64, "{all}");
}

#[test]
fn without_deduplication_what_is_the_same_is_stored_again() {
    let bed = Bed::new(LAYOUTS[1], 1);
    let volumes = bed.create();
    let content = noise(1, MIB);
    let settings = |deduplication| Settings { deduplication, ..Settings::default() };
    let first = volumes.open(volumes.create(with(settings(true), 2 * MIB)).unwrap()).unwrap();
    first.write_at(0, &content, LATER).unwrap();
    assert_eq!(first.settle().unwrap().new_bytes, MIB as u64);
    first.write_at(MIB as u64, &content, LATER).unwrap();
    assert_eq!(first.settle().unwrap().new_bytes, 0);
    let other = volumes.open(volumes.create(with(settings(false), 3 * MIB)).unwrap()).unwrap();
    for at in 0..2 {
        other.write_at((at * MIB) as u64, &content, LATER).unwrap();
        let done = other.settle().unwrap();
        assert!(done.new_bytes > MIB as u64, "{done:?}");
    }
    // Nor does anybody find it; and a clone that is set so shares what it begins with.
    let snapshot = other.snapshot("one").unwrap();
    let clone = volumes.clone_with(&other, snapshot, "clone", settings(true)).unwrap();
    let clone = volumes.open(clone).unwrap();
    clone.write_at(2 * MIB as u64, &content, LATER).unwrap();
    let before = packs(&volumes);
    clone.settle().unwrap();
    // The first volume has it.
    assert!(packs(&volumes) - before < MIB as u64 / 8);
    let all = [&content[..], &content[..], &content[..]].concat();
    assert!(read(&*clone, 0, 3 * MIB) == all);
    // Part of such a chunk is written anew, and set anew.
    let id = other.volume_id();
    volumes.change(id, settings(true)).unwrap();
    other.write_at(512, &[9; 512], LATER).unwrap();
    other.settle().unwrap();
    let mut model = [&content[..], &content[..]].concat();
    model[512..1024].fill(9);
    assert!(read(&*other, 0, 2 * MIB) == model);
    drop((first, other, clone, volumes));
    let volumes = bed.open().unwrap();
    assert!(read(&*volumes.open(id).unwrap(), 0, 2 * MIB) == model);
    let report = volumes.pool().check(true, &Meter::new()).unwrap();
    assert!(report.lost.is_empty(), "{report:?}");
}

#[test]
fn without_cache_what_was_read_is_not_kept() {
    let bed = Bed::new(LAYOUTS[0], 1);
    let volumes = bed.create();
    let opened = |cache| {
        let settings = Settings { cache, ..Settings::default() };
        let volume = volumes.open(volumes.create(with(settings, MIB)).unwrap()).unwrap();
        volume.write_at(0, &noise(cache.into(), MIB), LATER).unwrap();
        volume.settle().unwrap();
        volume
    };
    let (kept, other) = (opened(true), opened(false));
    drop((kept, other, volumes));
    let volumes = bed.open().unwrap();
    let opened = |cache| {
        let metas = volumes.list();
        let meta = metas.iter().find(|meta| meta.settings.cache == cache).unwrap();
        volumes.open(meta.volume).unwrap()
    };
    let (kept, other) = (opened(true), opened(false));
    for (volume, cache) in [(&kept, 1), (&other, 0)] {
        assert!(read(&**volume, 0, 4096) == noise(cache, MIB)[..4096]);
    }
    bed.world.disks()[0].set_lost(true);
    assert!(read(&*kept, 0, 4096) == noise(1, MIB)[..4096]);
    let gone = other.read_at(0, &mut [0; 4096]);
    assert!(matches!(gone, Err(Error::Unreadable { offset: 0, .. })), "{gone:?}");
}

#[test]
fn what_is_set_is_there_after_a_crash_and_in_lists() {
    let bed = Bed::new(LAYOUTS[1], 1);
    let volumes = bed.create();
    let id = volumes.create(small("vol", 1 << 20)).unwrap();
    let settings = Settings {
        thin: false,
        priority: Priority::new(128).unwrap(),
        origin: "image 7".into(),
        ..Settings::default()
    };
    let volume = volumes.open(id).unwrap();
    assert!(volume.geometry().thin);
    volumes.change(id, settings.clone()).unwrap();
    assert_eq!(volume.settings(), settings);
    assert!(!volume.geometry().thin);
    let bad = Settings { origin: "\n".into(), ..Settings::default() };
    assert!(matches!(volumes.change(id, bad), Err(Error::Invalid(_))));
    drop((volume, volumes));
    bed.world.power_cut(3);
    let volumes = bed.open().unwrap();
    assert_eq!(volumes.list()[0].settings, settings);
    assert_eq!(volumes.open(id).unwrap().settings(), settings);
    // One that isn't open is set, too.
    volumes.change(id, Settings::default()).unwrap();
    drop(volumes);
    let volumes = bed.open().unwrap();
    assert_eq!(volumes.open(id).unwrap().settings(), Settings::default());
}

const RESERVED: Layout = Layout { disks: 1, parity: 0, encrypted: false };

/// Fills the pool with a backup, as it were, until it is refused.
fn fill(volumes: &Volumes, seed: u64) -> (u64, RootId) {
    let session = volumes.pool().session().unwrap();
    let (mut stored, mut data) = (0, Vec::new());
    loop {
        let bytes = noise(seed << 32 | stored, 256 << 10);
        match session.store(ChunkKind::Data, &[&bytes], &mut data) {
            Ok(_) => stored += 1,
            Err(e) => {
                assert!(e.to_string().contains("set aside"), "{e}");
                break;
            }
        }
        assert!(stored < 4096, "nothing was refused");
    }
    data.truncate(stored as usize);
    session.may_take_all();
    let (node, _) = session.put_node(&Node { data, ..Node::default() }).unwrap();
    let root = NewRoot {
        id: RootId::random(),
        kind: 1,
        name: "backup".into(),
        immutable_for: None,
        nodes: vec![node],
        meta: vec![],
    };
    (stored << 18, session.commit(root).unwrap().id)
}

#[test]
fn what_is_reserved_can_be_written_when_others_have_filled_the_pool() {
    let mut bed = Bed::new(RESERVED, 1);
    bed.limits.segment = 256 << 10;
    bed.limits.log = 2 << 20;
    let volumes = bed.create();
    let disk = &bed.world.disks()[0];
    disk.set_capacity(256 << 20);
    let reserved = Settings { thin: false, ..Settings::default() };
    let thin = volumes.create(NewVolume { chunk: 65536, ..small("thin", 1 << 30) }).unwrap();
    let huge = NewVolume { settings: reserved.clone(), ..small("huge", 300 << 20) };
    assert!(matches!(volumes.create(huge), Err(Error::NoSpace)));
    let size = 48 << 20;
    let new = NewVolume { chunk: 65536, settings: reserved.clone(), ..small("vol", size) };
    let id = volumes.create(new.clone()).unwrap();
    let volume = volumes.open(id).unwrap();
    // Not twice, nor by changing another.
    let second = NewVolume { name: "second".into(), size: 200 << 20, ..new };
    assert!(matches!(volumes.create(second), Err(Error::NoSpace)));
    assert!(matches!(volumes.change(thin, reserved), Err(Error::NoSpace)));
    assert!(volumes.list().iter().any(|meta| meta.name == "thin" && meta.settings.thin));
    let thin = volumes.open(thin).unwrap();
    let (filled, backup) = fill(&volumes, 1);
    assert!(filled > 64 << 20, "{filled}");
    // Nothing is left for who has reserved nothing.
    let mut at = 0;
    let refused = loop {
        match thin.write_at(at, &noise(at, 65536), LATER) {
            Ok(()) => at += 65536,
            Err(e) => break e,
        }
        assert!(at < 200 << 20);
    };
    assert!(matches!(refused, Error::NoSpace), "{refused}");
    for at in (0..size).step_by(65536) {
        volume.write_at(at, &noise(at ^ 7, 65536), LATER).unwrap();
    }
    volume.flush().unwrap();
    volume.settle().unwrap();
    for at in (0..size).step_by(65536) {
        assert!(read(&*volume, at, 65536) == noise(at ^ 7, 65536), "{at}");
    }
    // Overwriting it makes garbage, which is collected when nothing else is left.
    for round in 0..4 {
        for at in (0..size).step_by(65536) {
            volume.write_at(at, &noise(at ^ round << 40, 65536), LATER).unwrap();
        }
    }
    for at in (0..size).step_by(65536) {
        assert!(read(&*volume, at, 65536) == noise(at ^ 3 << 40, 65536), "{at}");
    }
    // What is forgotten is room again.
    volumes.pool().forget(&[backup]).unwrap();
    // A snapshot would have all of it be written to new room.
    assert!(matches!(volume.snapshot("one"), Err(Error::NoSpace)));
    assert!(matches!(volume.grow(size * 3), Err(Error::NoSpace)));
    assert_eq!(volume.geometry().size, size);
    // What is given back for good is there for others.
    drop(volume);
    volumes.remove(id).unwrap();
    volumes.pool().gc(GcOptions { dry_run: false, max_unused: 0.0 }).unwrap();
    thin.write_at(at, &noise(at, 65536), LATER).unwrap();
}

#[test]
fn what_is_reserved_follows_what_is_written_and_survives_the_process() {
    let mut bed = Bed::new(RESERVED, 1);
    bed.limits.log = 2 << 20;
    let volumes = bed.create();
    bed.world.disks()[0].set_capacity(1 << 30);
    let settings = Settings { thin: false, ..Settings::default() };
    let new = NewVolume { chunk: 65536, settings: settings.clone(), ..small("vol", 64 << 20) };
    let id = volumes.create(new).unwrap();
    let reserve = |volumes: &Volumes| volumes.list()[0].reserve;
    assert_eq!(reserve(&volumes), 64 << 20);
    let volume = volumes.open(id).unwrap();
    let one = noise(1, MIB);
    volume.write_at(0, &one, LATER).unwrap();
    volume.settle().unwrap();
    assert_eq!(reserve(&volumes), 63 << 20);
    volume.write_at(MIB as u64 / 2, &one, LATER).unwrap();
    volume.write_zeroes(0, 65536, Zeroing::Keep, LATER).unwrap();
    volume.discard(0, MIB as u64).unwrap();
    volume.settle().unwrap();
    assert_eq!(reserve(&volumes), (64 << 20) - (3 << 19) + 65536);
    // It keeps its room: so it says, and nothing is given back.
    assert_eq!(read(&*volume, MIB as u64 / 2, MIB), one);
    let extents = volume.extents(0, 64 << 20, 9).unwrap();
    let contents: Vec<Content> = extents.iter().map(|extent| extent.content).collect();
    assert_eq!(contents, [Content::Zeroes, Content::Data, Content::Zeroes]);
    let snapshot = volume.snapshot("one").unwrap();
    volume.grow(65 << 20).unwrap();
    volume.write_at(0, &one, LATER).unwrap();
    volume.settle().unwrap();
    assert_eq!(reserve(&volumes), 65 << 20);
    volume.delete_snapshot(snapshot).unwrap();
    volume.settle().unwrap();
    assert_eq!(reserve(&volumes), (65 << 20) - (3 << 19));
    drop((volume, volumes));
    bed.world.power_cut(1);
    let volumes = bed.open().unwrap();
    assert_eq!(reserve(&volumes), (65 << 20) - (3 << 19));
    let volume = volumes.open(id).unwrap();
    volume.write_at(32 << 20, &one, LATER).unwrap();
    volume.settle().unwrap();
    assert_eq!(reserve(&volumes), (65 << 20) - (5 << 19));
    volumes.change(id, Settings::default()).unwrap();
    assert_eq!(reserve(&volumes), 0);
    volumes.change(id, settings).unwrap();
    volume.write_at(32 << 20, &one[..512], LATER).unwrap();
    volume.write_at(34 << 20, &one[..512], LATER).unwrap();
    volume.settle().unwrap();
    assert_eq!(reserve(&volumes), (65 << 20) - (5 << 19) - 65536);
}

#[test]
fn a_thin_volume_that_is_open_can_be_reserved() {
    let bed = Bed::new(RESERVED, 1);
    let volumes = bed.create();
    let size = 8 << 20;
    let id = volumes.create(NewVolume { chunk: 65536, ..small("vol", size) }).unwrap();
    let volume = volumes.open(id).unwrap();
    volumes.change(id, Settings { thin: false, ..Settings::default() }).unwrap();
    volume.write_at(0, &noise(1, 1 << 20), LATER).unwrap();
    volume.settle().unwrap();
    assert_eq!(volumes.list()[0].reserve, size - (1 << 20));
}
