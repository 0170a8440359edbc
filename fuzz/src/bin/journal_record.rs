//! The journal: two copies, each changed in its own way.
#![no_main]

use std::sync::{Arc, OnceLock};

use strongroom_engine::clock::ClockMark;
use strongroom_engine::codec::Reader;
use strongroom_engine::disk::{Disk, SimDisk};
use strongroom_engine::id::{ChunkKind, PackId, PoolId};
use strongroom_engine::journal::{Journal, Place, Sealing, Settings};
use strongroom_engine::state::{Op, PackInfo, State};
use strongroom_fuzz::{edited, put};

const DIRS: [&str; 2] = ["journal", "journal.2"];

fn settings() -> Settings {
    Settings { pool: PoolId([7; 16]), sealing: Sealing::Plain, need: 1, inline: true }
}

fn places(disk: &SimDisk) -> Vec<Place> {
    let place = |dir: &str| {
        disk.make_dir(dir).expect("a directory");
        Place { disk: 0, handle: Arc::new(disk.clone()), dir: dir.to_owned() }
    };
    DIRS.map(place).to_vec()
}

fn good() -> &'static [(String, Vec<u8>)] {
    static GOOD: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let disk = SimDisk::new(1);
        let clock = ClockMark::decode(&mut Reader::new(&[0; 18])).expect("a mark of zeros");
        let state = State::new(clock);
        let mut journal = Journal::create(&places(&disk), settings(), &state).expect("a journal");
        for number in 1..5 {
            let info = PackInfo {
                kind: ChunkKind::Data,
                chunks: 10,
                len: 1000,
                data_shards: 1,
                parity_shards: 0,
                epoch: 0,
            };
            journal.commit(&[Op::AddPack(PackId(number), info)]).expect("a commit");
        }
        let read = |path: String| {
            let bytes = disk.read_raw(&path).expect("it is there");
            (path, bytes)
        };
        disk.files().into_iter().map(|(path, _)| read(path)).collect()
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let disk = SimDisk::new(1);
    let places: Vec<_> = places(&disk).into_iter().map(Some).collect();
    let halves = bytes.split_at(bytes.len() / 2);
    for ((path, content), edits) in good().iter().zip([halves.0, halves.1]) {
        put(&disk, path, &edited(content, edits));
    }
    for for_write in [false, true] {
        if let Ok((_, state, _)) = Journal::open(&places, settings(), for_write) {
            assert!(state.packs.len() <= 4, "a changed record got past its chain");
        }
    }
});
