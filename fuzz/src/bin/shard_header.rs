//! Shard files: header, units, trailer; read, put together, and mended.
#![no_main]

use std::sync::{Arc, OnceLock};

use strongroom_engine::disk::{Disk, SimDisk, SimWorld};
use strongroom_engine::id::{ChunkKind, PackId, PoolId};
use strongroom_engine::shard::{
    self, Lanes, PackHeader, ScrubBuffers, Shape, ShardSet, ShardWriter, scrub_pack, shard_path,
};
use strongroom_fuzz::{edited, put};

const POOL: PoolId = PoolId([7; 16]);
const PACK: PackId = PackId(5);

/// The files of a pack of two shards of data and one of parity, by disk.
fn good() -> &'static [(String, Vec<u8>)] {
    static GOOD: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let (sims, disks) = disks();
        let shape = Shape::with_unit(2, 1, 4096).expect("a shape");
        let header = PackHeader {
            pool: POOL,
            pack: PACK,
            kind: ChunkKind::Data,
            epoch: 1,
            salt: [9; 32],
            shape,
        };
        let mut writer = ShardWriter::create(&disks, header, Lanes::default()).expect("a writer");
        let content: Vec<u8> = (0..30_000u32).map(|n| (n * n >> 3) as u8).collect();
        writer.append(&content).expect("room");
        writer.finish().expect("room").publish().expect("room");
        let file = |disk: usize, sim: &SimDisk| {
            let shard = (0..3).find(|s| shard::disk_of(PACK, *s, 3) == disk).expect("each has one");
            let path = shard_path(PACK, shard);
            let bytes = sim.read_raw(&path).expect("it was written");
            (path, bytes)
        };
        sims.iter().enumerate().map(|(disk, sim)| file(disk, sim)).collect()
    })
}

fn disks() -> (Vec<SimDisk>, Vec<Option<Arc<dyn Disk>>>) {
    let world = SimWorld::new(1);
    let sims: Vec<SimDisk> = (0..3).map(|_| world.add_disk()).collect();
    for sim in &sims {
        shard::create_directories(sim).expect("directories");
    }
    let disks = sims.iter().map(|sim| Some(Arc::new(sim.clone()) as Arc<dyn Disk>)).collect();
    (sims, disks)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (sims, disks) = disks();
    let share = bytes.len() / 3;
    for (place, (path, content)) in good().iter().enumerate() {
        let edits = &bytes[place * share..(place + 1) * share];
        put(&sims[place], path, &edited(content, edits));
    }
    if let Ok(set) = ShardSet::discover(&disks, POOL, PACK) {
        let len = set.geometry().len().min(1 << 20) as usize;
        let _ = set.read(0, len, &mut Default::default());
        let _ = set.header();
    }
    let mut buffers = ScrubBuffers::default();
    let _ = scrub_pack(&disks, POOL, PACK, None, true, &mut buffers, &mut |_| Ok(()));
});
