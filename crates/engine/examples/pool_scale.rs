//! Measures how long it takes to open a pool of very many chunks, and what memory that needs.
//!
//!     cargo run --release -p strongroom-engine --example pool_scale -- [CHUNKS] [DIR]
//!
//! 10 million chunks of 24 bytes in 100 images, encrypted, in a temporary directory by default.
//! Each opening is done by a process of its own.
#![allow(clippy::print_stdout, reason = "it reports to the terminal")]
#![allow(clippy::unwrap_used, reason = "a measurement ends at its first error")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use strongroom_engine::chunker::Params;
use strongroom_engine::clock::{Clock, SystemClock};
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::id::{ChunkId, ChunkKind, RootId};
use strongroom_engine::keys::{Secret, Stretch};
use strongroom_engine::node::Node;
use strongroom_engine::pool::{CreateOptions, NewRoot, OpenMode, OpenOptions, Pool, Use};

const IMAGES: u64 = 100;
/// Pieces that are stored by one call.
const AT_ONCE: u64 = 20_000;
/// Chunks that hang on one node.
const FAN: usize = 10_000;

fn disk(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(FsDisk::open(dir).unwrap())
}

fn used() -> Use {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new().unwrap());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Use { clock, threads, holder: "pool_scale".into() }
}

fn secret() -> Secret {
    Secret::passphrase(b"of no worth").unwrap()
}

fn piece(number: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (n, part) in (0..).zip(bytes.chunks_exact_mut(8)) {
        let mixed = (number ^ n << 61).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        part.copy_from_slice(&(mixed ^ number).to_le_bytes());
    }
    bytes
}

fn build(dir: &Path, chunks: u64) {
    let secret = secret();
    let pool = Pool::create(
        CreateOptions {
            disks: vec![disk(dir)],
            parity: 0,
            secret: Some((&secret, Stretch::CHEAP)),
            chunking: Params::default(),
            level: 1,
            pack_size: 64 << 20,
        },
        used(),
    )
    .unwrap();
    for image in 0..IMAGES {
        let session = pool.session().unwrap();
        let mut ids: Vec<ChunkId> = Vec::new();
        let (mut at, end) = (chunks * image / IMAGES, chunks * (image + 1) / IMAGES);
        while at < end {
            let next = end.min(at + AT_ONCE);
            let pieces: Vec<[u8; 24]> = (at..next).map(piece).collect();
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            session.store(ChunkKind::Data, &pieces, &mut ids).unwrap();
            at = next;
        }
        let mut nodes = Vec::new();
        for data in ids.chunks(FAN) {
            let node = Node { nodes: Vec::new(), data: data.to_vec(), payload: Vec::new() };
            session.store(ChunkKind::Node, &[&node.encode()], &mut nodes).unwrap();
        }
        let top = Node { nodes, data: Vec::new(), payload: Vec::new() };
        let mut tops = Vec::new();
        session.store(ChunkKind::Node, &[&top.encode()], &mut tops).unwrap();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&image.to_be_bytes());
        let root = NewRoot {
            id: RootId(id),
            kind: 1,
            name: "scale".into(),
            immutable_for: None,
            nodes: tops,
            meta: Vec::new(),
        };
        session.commit(root).unwrap();
    }
}

/// Opens the pool and finds a chunk in it.
fn open(dir: &Path, mode: OpenMode, chunks: u64) {
    let secret = secret();
    let begun = Instant::now();
    let options = OpenOptions {
        disks: vec![Some(disk(dir))],
        mode,
        secret: Some(&secret),
        without_index: false,
    };
    let pool = Pool::open(options, used()).unwrap();
    let opened = begun.elapsed();
    let id = pool.id_of(ChunkKind::Data, &piece(chunks / 2));
    assert_eq!(*pool.read(ChunkKind::Data, &id).unwrap(), piece(chunks / 2));
    let read = begun.elapsed();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let (packs, segments) = (pool.state().packs.len(), pool.state().segments.len());
    println!(
        "opened to {mode:?} in {:.3} s, a chunk read after {:.3} s, peak memory {peak} \
         ({packs} packs, {segments} index segments, {} roots)",
        opened.as_secs_f64(),
        read.as_secs_f64(),
        pool.roots().len(),
    );
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let chunks = args.first().map_or(10_000_000, |text| text.parse().unwrap());
    if let [_, dir, mode] = &args[..] {
        let mode = if mode == "write" { OpenMode::Write } else { OpenMode::Read };
        return open(Path::new(dir), mode, chunks);
    }
    let temporary = std::env::temp_dir().join(format!("pool-scale-{}", std::process::id()));
    let dir = args.get(1).map_or(temporary, Into::into);
    fs::create_dir_all(&dir).unwrap();
    let begun = Instant::now();
    build(&dir, chunks);
    println!("{chunks} chunks stored in {:.1} s", begun.elapsed().as_secs_f64());
    for mode in ["read", "write", "read"] {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let status = again.arg(chunks.to_string()).arg(&dir).arg(mode).status().unwrap();
        assert!(status.success());
    }
    fs::remove_dir_all(&dir).unwrap();
}
