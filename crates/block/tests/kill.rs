//! SIGKILL at any moment of a process that writes to volumes on a real filesystem: what it was told to be
//! durable is there, and no more than it wrote.
//!
//! `STRONGROOM_KILLS` says how many times it is killed.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "proofs that take long tell what they did")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{Rng, setting};
use strongroom_block::volume::{Limits, NewVolume, Settings, Volume, Volumes};
use strongroom_block::{BlockDevice, Durability};
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::{Clock, SystemClock};
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::pool::{CreateOptions, Meter, OpenMode, OpenOptions, Pool, Use};

const SIZE: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Where the process that is to be killed finds its pool.
const DIRECTORY: &str = "STRONGROOM_KILLED_IN";

fn used() -> Use {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
    Use { clock, threads: 2, holder: "the test".into() }
}

fn disks(directory: &Path) -> Vec<Arc<dyn Disk>> {
    let disk = |n: usize| {
        let path = directory.join(n.to_string());
        std::fs::create_dir_all(&path).unwrap();
        Arc::new(FsDisk::open(&path).unwrap()) as Arc<dyn Disk>
    };
    (0..2).map(disk).collect()
}

const LIMITS: Limits = Limits { segment: 256 << 10, log: 1 << 20, long: 4096 };

fn create(directory: &Path) {
    let options = CreateOptions {
        disks: disks(directory),
        parity: 1,
        secret: None,
        chunking: Params::default(),
        level: 1,
        pack_size: 1 << 20,
    };
    let pool = Arc::new(Pool::create(options, used()).unwrap());
    let volumes = Volumes::new(pool, LIMITS).unwrap();
    let settings = Settings::default();
    let new = NewVolume { name: "vol".into(), size: SIZE, chunk: 4096, sector: 512, settings };
    volumes.create(new).unwrap();
}

fn open(directory: &Path) -> Volumes {
    let disks = disks(directory).into_iter().map(Some).collect();
    let options = OpenOptions { disks, mode: OpenMode::Write, secret: None, without_index: false };
    Volumes::new(Arc::new(Pool::open(options, used()).unwrap()), LIMITS).unwrap()
}

fn vol(volumes: &Volumes) -> Arc<Volume> {
    let id = volumes.list().iter().find(|meta| meta.name == "vol").unwrap().volume;
    volumes.open(id).unwrap()
}

/// The write of that number: where, and which bytes. They follow from the seed, so that both processes know.
fn write(seed: u64, number: u64) -> (u64, Vec<u8>) {
    let mut rng = Rng(seed ^ number << 20);
    let length = SECTOR * (1 + rng.below(24));
    let offset = rng.below((SIZE - length) / SECTOR + 1) * SECTOR;
    let mut bytes = vec![0; length as usize];
    bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    (offset, bytes)
}

/// Not a test of its own: what [`acknowledged_writes_survive_sigkill`] starts, and kills.
#[test]
fn the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let seed = setting("STRONGROOM_KILLED_SEED").unwrap();
    let volumes = Arc::new(open(&directory));
    let volume = vol(&volumes);
    std::thread::spawn({
        let volume = Arc::clone(&volume);
        move || {
            loop {
                volume.settle().unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let mut out = std::io::stdout();
    let mut rng = Rng(seed);
    writeln!(out, "ready").unwrap();
    for number in 0u64.. {
        let (offset, bytes) = write(seed, number);
        volume.write_at(offset, &bytes, Durability::Later).unwrap();
        if rng.chance(6) {
            volume.flush().unwrap();
            // Up to here all is durable.
            writeln!(out, "durable {}", number + 1).unwrap();
            out.flush().unwrap();
        }
        if rng.chance(40) {
            let name = format!("s{number}");
            let id = volume.snapshot(&name).unwrap();
            writeln!(out, "durable {}", number + 1).unwrap();
            if rng.chance(3) {
                volumes.clone_snapshot(&volume, id, &format!("c{number}")).unwrap();
                writeln!(out, "clone {}", number + 1).unwrap();
            }
            if volume.snapshots().len() > 4 {
                volume.delete_snapshot(volume.snapshots()[0].id).unwrap();
            }
        }
    }
}

fn content(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; device.geometry().size as usize];
    device.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let kills = setting("STRONGROOM_KILLS").unwrap_or(12);
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let mut before = vec![0; SIZE as usize];
    let (mut writes, mut clones) = (0, 0);
    for kill in 0..kills {
        let seed = 0x51_6b11 ^ kill;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env("STRONGROOM_KILLED_SEED", seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut durable, mut cloned) = (0, None);
        let mut rng = Rng(seed);
        let most = 3 + rng.below(60);
        let take = |line: String, durable: &mut u64, cloned: &mut Option<u64>| {
            let mut words = line.split(' ');
            let (word, count) = (words.next(), words.next().and_then(|text| text.parse().ok()));
            match (word, count) {
                (Some("durable"), Some(count)) => *durable = count,
                (Some("clone"), count) => *cloned = count,
                _ => {}
            }
        };
        for _ in 0..most {
            let line = lines.next().expect("it writes until it is killed").unwrap();
            take(line, &mut durable, &mut cloned);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts, too.
        for line in lines.map_while(Result::ok) {
            take(line, &mut durable, &mut cloned);
        }
        let volumes = open(directory.path());
        let volume = vol(&volumes);
        let found = content(&*volume);
        let mut state = before.clone();
        let mut number = 0;
        let apply = |state: &mut Vec<u8>, number: u64| {
            let (offset, bytes) = write(seed, number);
            state[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        };
        let mut as_cloned = None;
        while number < durable {
            if cloned == Some(number) {
                as_cloned = Some(state.clone());
            }
            apply(&mut state, number);
            number += 1;
        }
        if cloned == Some(number) {
            as_cloned = Some(state.clone());
        }
        while state != found {
            assert!(number < durable + 1000, "kill {kill}: nothing behind {durable} writes");
            apply(&mut state, number);
            number += 1;
        }
        if let Some(expected) = as_cloned {
            clones += 1;
            let name = format!("c{}", cloned.unwrap() - 1);
            let id = volumes.list().iter().find(|meta| meta.name == name).unwrap().volume;
            assert!(content(&*volumes.open(id).unwrap()) == expected, "kill {kill}: {name}");
        }
        writes += number;
        for meta in volumes.list() {
            if meta.name != "vol" {
                volumes.remove(meta.volume).unwrap();
            }
        }
        for snapshot in volume.snapshots() {
            volume.delete_snapshot(snapshot.id).unwrap();
        }
        before = found;
    }
    let volumes = open(directory.path());
    let report = volumes.pool().check(true, &Meter::new()).unwrap();
    assert!(report.lost.is_empty() && report.bad_packs.is_empty(), "{report:?}");
    eprintln!("{kills} kills, {writes} writes, {clones} clones compared");
}
