//! Index segments, of which one disk has a copy that was changed and the other has none.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use strongroom_engine::disk::{Disk, SimDisk};
use strongroom_engine::id::{ChunkId, ChunkKind, Location, PackId, PoolId, SegmentId};
use strongroom_engine::index::{self, Index, Options, SegmentWriter};
use strongroom_engine::state::SegmentInfo;
use strongroom_fuzz::{edited, put};

const POOL: PoolId = PoolId([7; 16]);
const SEGMENT: SegmentId = SegmentId(3);

fn id(number: u32) -> ChunkId {
    let mut id = [3; 32];
    id[..4].copy_from_slice(&(number << 20).to_be_bytes());
    ChunkId(id)
}

fn good() -> &'static (SegmentInfo, String, Vec<u8>) {
    static GOOD: OnceLock<(SegmentInfo, String, Vec<u8>)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let disk = SimDisk::new(1);
        disk.make_dir(index::DIR).expect("a directory");
        let disks = [Some(Arc::new(disk.clone()) as Arc<dyn Disk>)];
        let mut writer = SegmentWriter::create(&disks, POOL, SEGMENT).expect("a writer");
        for number in 0..500 {
            let at = Location {
                pack: PackId(number.into()),
                ordinal: number,
                frame_offset: number * 100,
                frame_len: 100,
                offset: 0,
                len: 50,
                kind: ChunkKind::Data,
            };
            writer.push(&id(number), &at).expect("in order");
        }
        let written = writer.finish().expect("room").expect("entries");
        let (path, _) = disk.files().into_iter().next().expect("one file");
        let bytes = disk.read_raw(&path).expect("it is there");
        (written.info, path, bytes)
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (info, path, content) = good();
    let disk = SimDisk::new(1);
    disk.make_dir(index::DIR).expect("a directory");
    put(&disk, path, &edited(content, bytes));
    let disks = [Some(Arc::new(disk) as Arc<dyn Disk>), None];
    let segments = BTreeMap::from([(SEGMENT, *info)]);
    for with_filters in [false, true] {
        let options = Options { with_filters, cache_pages: 4 };
        let Ok(index) = Index::open(&disks, &segments, POOL, options) else { continue };
        for number in [0, 1, 250, 499, 500] {
            if let Ok(Some(found)) = index.lookup(&id(number), &|_, _| true) {
                assert_eq!(found.ordinal, number, "a changed entry got past its checksum");
            }
        }
        index.entries().take(1000).for_each(drop);
    }
});
