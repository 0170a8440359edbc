//! Measures the index at scale: builds one of many chunks by flushes and merges, opens it again,
//! and looks up chunks that are there and chunks that are not.
//!
//!     cargo run --release -p strongroom-engine --example index_scale -- [CHUNKS] [DIR]
//!
//! 10 million chunks in a temporary directory by default. Reopening is done by a second process,
//! so that its memory is that of an index just opened.
#![allow(clippy::print_stdout, reason = "it reports to the terminal")]
#![allow(clippy::unwrap_used, reason = "a measurement ends at its first error")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use strongroom_engine::disk::{Caching, Disk, DiskFile, DiskLock, Entry, Space};
use strongroom_engine::id::{ChunkId, ChunkKind, Location, PackId, PoolId, SegmentId};
use strongroom_engine::index::{DIR, FLUSH_AT, Index, Options, Valid, remove};
use strongroom_engine::state::SegmentInfo;

/// Plain files in a directory: just what the index needs of a disk.
#[derive(Debug)]
struct PlainDisk(PathBuf);

#[derive(Debug)]
struct PlainFile(File);

impl DiskFile for PlainFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Disk for PlainDisk {
    fn open(&self, path: &str, _: Caching, write: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = File::options().read(true).write(write).open(self.0.join(path))?;
        Ok(Box::new(PlainFile(file)))
    }
    fn create(&self, path: &str, _: Caching) -> io::Result<Box<dyn DiskFile>> {
        let file =
            File::options().read(true).write(true).create_new(true).open(self.0.join(path))?;
        Ok(Box::new(PlainFile(file)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(path))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let entry = |e: io::Result<fs::DirEntry>| {
            let (name, meta) = e.and_then(|e| Ok((e.file_name(), e.metadata()?)))?;
            let name = name.to_string_lossy().into_owned();
            Ok(Entry { name, len: meta.len(), is_dir: meta.is_dir() })
        };
        fs::read_dir(self.0.join(dir))?.map(entry).collect()
    }
    fn make_dir(&self, dir: &str) -> io::Result<()> {
        fs::create_dir_all(self.0.join(dir))
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.0.join(dir))?.sync_all()
    }
    fn space(&self) -> io::Result<Space> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn lock(&self, _: &str, _: bool) -> io::Result<Box<dyn DiskLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}

const POOL: PoolId = PoolId([7; 16]);
const PER_PACK: u64 = 1000;
const ALL: Valid<'static> = &|_, _| true;

/// An id as a hash would give it: four rounds of SplitMix64.
fn id(n: u64) -> ChunkId {
    let mut id = [0; 32];
    for (k, part) in (0..).zip(id.chunks_exact_mut(8)) {
        let mut z = (n * 4 + k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(z ^ z >> 31).to_be_bytes());
    }
    ChunkId(id)
}

fn at(n: u64) -> Location {
    let ordinal = (n % PER_PACK) as u32;
    Location {
        pack: PackId(n / PER_PACK),
        ordinal,
        frame_offset: ordinal * 30_000,
        frame_len: 120_000,
        offset: ordinal % 4 * 60_000,
        len: 60_000,
        kind: ChunkKind::Data,
    }
}

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    let number = found.trim_start_matches(':').split_whitespace().next().unwrap();
    number.parse::<u64>().unwrap() * 1024
}

/// Forgets the peak so far, so that the next one is of what comes after.
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn build(disks: &[Option<Arc<dyn Disk>>], chunks: u64) -> BTreeMap<SegmentId, SegmentInfo> {
    let disk = disks[0].as_ref().unwrap();
    let index = Index::open(disks, &BTreeMap::new(), POOL, Options::default()).unwrap();
    let mut used = BTreeMap::new();
    let (mut next, mut merged, mut merge_peak) = (1, 0u64, 0);
    let (mut claiming, mut flushing, mut merging) = (0.0, 0.0, 0.0);
    let (all, busy) = (Instant::now(), cpu());
    let mut begun = 0;
    let mut timer = cpu();
    for n in 0..chunks {
        let new = index.claim(&id(n), ALL).unwrap();
        assert_eq!(new, strongroom_engine::index::Claim::New);
        index.memtable().fill(&id(n), at(n));
        if index.memtable().len() < FLUSH_AT && n + 1 < chunks {
            continue;
        }
        claiming += cpu() - timer;
        timer = cpu();
        let segment = SegmentId(next);
        next += 1;
        let written = index.flush(segment, &|_| true).unwrap().unwrap();
        disk.sync_dir(DIR).unwrap();
        index.adopt_flush(segment, &written.info).unwrap();
        used.insert(segment, written.info);
        flushing += cpu() - timer;
        timer = cpu();
        let last = n + 1 == chunks;
        loop {
            // At the end all becomes one: the largest merge there can be.
            let everything = || (last && used.len() > 1).then(|| used.keys().copied().collect());
            let Some(from): Option<Vec<_>> = index.plan_merge().or_else(everything) else { break };
            reset_peak();
            let to = SegmentId(next);
            next += 1;
            let written = index.merge(&from, to, ALL).unwrap().unwrap();
            disk.sync_dir(DIR).unwrap();
            index.replace(&from, Some((to, &written.info))).unwrap();
            for id in &from {
                used.remove(id);
                remove(&**disk, *id).unwrap();
            }
            merged += written.info.entries;
            used.insert(to, written.info);
            merge_peak = merge_peak.max(memory("VmHWM"));
        }
        merging += cpu() - timer;
        timer = cpu();
        if last || (n + 1) / (chunks / 10).max(1) > begun {
            begun = (n + 1) / (chunks / 10).max(1);
            let rss = mib(memory("VmRSS"));
            println!("  {:>9} chunks, {:>2} segments, RSS {rss:.1} MiB", n + 1, used.len());
        }
    }
    println!(
        "built in {:.1} s, {:.1} s on the processor:",
        all.elapsed().as_secs_f64(),
        cpu() - busy
    );
    let claims = claiming / chunks as f64 * 1e9;
    println!("  claim (of a chunk not there) and fill: {claims:.0} ns each, id included");
    println!("  flushes {flushing:.1} s");
    let rate = merged as f64 / merging / 1e6;
    println!("  merges {merging:.1} s, {merged} entries written again, {rate:.1} million/s");
    println!("  peak RSS while merging {:.1} MiB", mib(merge_peak));
    used
}

/// What this thread has had of a processor, in seconds: on a busy machine the truer measure.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() * 1e-9
}

fn rate(name: &str, count: u64, mut one: impl FnMut(u64)) {
    let (timer, busy) = (Instant::now(), cpu());
    (0..count).for_each(&mut one);
    let wall = timer.elapsed().as_secs_f64() / count as f64;
    let busy = (cpu() - busy) / count as f64;
    let million = 1e-6 / busy;
    println!(
        "{name}: {:.0} ns each, {:.0} ns on the processor ({million:.2} million/s)",
        wall * 1e9,
        busy * 1e9
    );
}

/// Opens and measures; the process has done nothing else before.
fn measure(disks: &[Option<Arc<dyn Disk>>], used: &BTreeMap<SegmentId, SegmentInfo>) {
    let chunks: u64 = used.values().map(|info| info.entries).sum();
    let before = memory("VmRSS");
    let timer = Instant::now();
    let index = Index::open(disks, used, POOL, Options::default()).unwrap();
    let open = timer.elapsed();
    let (after, peak) = (memory("VmRSS"), memory("VmHWM"));
    println!("opened {} segments in {:.3} s", used.len(), open.as_secs_f64());
    let each = (after - before) as f64 / chunks as f64;
    println!("RSS {:.1} -> {:.1} MiB: {each:.3} B per chunk", mib(before), mib(after));
    println!("peak RSS of opening: {:.1} MiB", mib(peak));

    const LOOKUPS: u64 = 2_000_000;
    let some = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % chunks;
    let mut sum = 0u64;
    rate("(making an id)", LOOKUPS, |n| sum = sum.wrapping_add(id(some(n)).prefix()));
    rate("hits, first", LOOKUPS / 4, |n| {
        assert_eq!(index.lookup(&id(some(n)), ALL).unwrap(), Some(at(some(n))));
    });
    rate("hits, warm", LOOKUPS, |n| {
        assert_eq!(index.lookup(&id(some(n)), ALL).unwrap(), Some(at(some(n))));
    });
    rate("hits on 1,000 pages", LOOKUPS, |n| {
        assert!(index.lookup(&id(some(n % 500)), ALL).unwrap().is_some());
    });
    rate("misses", LOOKUPS, |n| {
        assert_eq!(index.lookup(&id(chunks + n), ALL).unwrap(), None);
    });
    let mut ids: Vec<_> = (0..LOOKUPS / 2).map(|n| id(some(n))).collect();
    ids.sort_unstable();
    let busy = cpu();
    let found = index.lookup_many(&ids, ALL).unwrap();
    let each = (cpu() - busy) / ids.len() as f64;
    assert!(found.iter().all(Option::is_some));
    println!("batch of {}: {:.0} ns each on the processor", ids.len(), each * 1e9);
    drop((ids, found));
    let busy = cpu();
    let walked = index.entries().filter(|e| e.is_ok()).count();
    let each = (cpu() - busy) / walked as f64;
    println!("walked all {walked} entries: {:.0} ns each on the processor", each * 1e9);
    println!("RSS at the end {:.1} MiB", mib(memory("VmRSS")));
    assert_eq!((index.faults(), sum == 1), (0, false));
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let chunks = args.get(1).map_or(10_000_000, |n| n.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let dir = args.get(2).map_or(temporary.path().to_path_buf(), PathBuf::from);
    let disks: Vec<Option<Arc<dyn Disk>>> = vec![Some(Arc::new(PlainDisk(dir.clone())))];
    if let Some(list) = args.get(3) {
        let number = |n: &str| n.parse::<u64>().unwrap();
        let segment = |item: &str| {
            let mut n = item.split(':').map(number);
            let mut next = || n.next().unwrap();
            (SegmentId(next()), SegmentInfo { entries: next(), len: next() })
        };
        return measure(&disks, &list.split(',').map(segment).collect());
    }
    disks[0].as_ref().unwrap().make_dir(DIR).unwrap();
    let used = build(&disks, chunks);
    let len: u64 = used.values().map(|info| info.len).sum();
    println!("on disk: {:.2} B per entry", len as f64 / chunks as f64);
    let item =
        |(id, info): (&SegmentId, &SegmentInfo)| format!("{}:{}:{}", id.0, info.entries, info.len);
    let list = used.iter().map(item).collect::<Vec<_>>().join(",");
    let again = Command::new(&args[0]).arg(chunks.to_string()).arg(&dir).arg(list).status();
    assert!(again.unwrap().success());
}
