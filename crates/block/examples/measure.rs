//! What volumes take, on a real disk:
//!
//!     cargo run --release -p strongroom-block --example measure -- WHAT DIR [GIB]
//!
//! `DIR` has to be empty or not there; it is removed at the end. `WHAT` is one of
//!
//! * `instants`: how long snapshots and clones of a volume of 1 TiB take of which so many GiB are written, and
//!   the longest that writers and readers wait meanwhile, and while the volume is settled;
//! * `shares`: what two volumes get that both want more, with priorities of 128 and 16, in a burst and in the long
//!   run;
//! * `blocks`: how much is stored for random writes of 4 KiB in volumes with blocks of 4, 16 and 64 KiB, how fast
//!   they are taken in the long run, and how long the log gets;
//! * `memory`: what the process has resident with a volume open of which so many GiB are written, when idle.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strongroom_block::volume::{Limits, NewVolume, Priority, Settings, Volume, Volumes};
use strongroom_block::{BlockDevice, Durability};
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::SystemClock;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::pool::{CreateOptions, OpenMode, OpenOptions, Pool, Use};

type Failed = Box<dyn Error + Send + Sync>;

const TIB: u64 = 1 << 40;
const LATER: Durability = Durability::Later;
/// A log that is so long is settled, as an appliance does.
const LONG: u64 = 64 << 20;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_le_bytes()));
    }
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, dir, rest @ ..] = &arguments[..] else {
        return Err("say what to measure, and where".into());
    };
    let gib: u64 = rest.first().map_or(Ok(1), |text| text.parse())?;
    let dir = PathBuf::from(dir);
    std::fs::create_dir_all(&dir)?;
    if std::fs::read_dir(&dir)?.next().is_some() {
        return Err("the directory is not empty".into());
    }
    let measured = match what.as_str() {
        "instants" => instants(&dir, gib),
        "shares" => shares(&dir),
        "blocks" => blocks(&dir, gib),
        "memory" => memory(&dir, gib),
        other => Err(format!("nothing is known of {other}").into()),
    };
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn used() -> Result<Use, Failed> {
    let threads = std::thread::available_parallelism()?.get();
    Ok(Use { clock: Arc::new(SystemClock::new()?), threads, holder: "the measurement".into() })
}

fn disk(dir: &Path) -> Result<Arc<dyn Disk>, Failed> {
    Ok(Arc::new(FsDisk::open(dir)?))
}

fn create(dir: &Path, limits: Limits) -> Result<Volumes, Failed> {
    let options = CreateOptions {
        disks: vec![disk(dir)?],
        parity: 0,
        secret: None,
        chunking: Params::default(),
        level: 1,
        pack_size: 128 << 20,
    };
    Ok(Volumes::new(Arc::new(Pool::create(options, used()?)?), limits)?)
}

fn new(name: &str, size: u64, chunk: u32, settings: Settings) -> NewVolume {
    NewVolume { name: name.into(), size, chunk, sector: 512, settings }
}

/// Writes so many GiB that nothing makes smaller, in order, and settles them.
fn fill(volume: &Volume, gib: u64) -> Result<(), Failed> {
    let mut rng = Rng(1);
    let mut bytes = vec![0; 1 << 20];
    for at in 0..gib << 10 {
        rng.fill(&mut bytes);
        volume.write_at(at << 20, &bytes, LATER)?;
        if volume.log_bytes() > LONG {
            volume.settle()?;
        }
    }
    volume.settle()?;
    Ok(())
}

/// How long each took.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn time<R>(&mut self, act: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let result = act();
        self.0.push(begun.elapsed());
        result
    }

    /// Median, 99.9th percentile and the longest, in milliseconds.
    fn told(&mut self) -> String {
        self.0.sort_unstable();
        let at = |part: f64| {
            let place = ((self.0.len() as f64 * part) as usize).min(self.0.len().saturating_sub(1));
            self.0.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        let count = self.0.len();
        format!("{:.2} | {:.2} | {:.2} | {count}", at(0.5), at(0.999), at(1.0))
    }
}

/// Does something beside a thread that settles, as an appliance has one, one that writes and one that reads
/// 4 KiB at random; how long these waited.
fn beside(
    volume: &Volume,
    within: u64,
    pause: Duration,
    act: impl FnOnce() -> Result<(), Failed>,
) -> Result<[Times; 2], Failed> {
    let (ended, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let is_on = || !ended.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let settling = scope.spawn(|| -> Result<(), Failed> {
            while is_on() {
                match volume.log_bytes() > LONG {
                    true => drop(volume.settle()?),
                    false => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            Ok(())
        });
        let load = |writes: bool| {
            let (is_on, written) = (&is_on, &written);
            move || -> Result<Times, Failed> {
                let mut times = Times::default();
                let mut rng = Rng(7 + u64::from(writes));
                let mut bytes = [0; 4096];
                while is_on() {
                    let at = rng.next() % (within / 4096) * 4096;
                    if writes {
                        rng.fill(&mut bytes);
                        times.time(|| volume.write_at(at, &bytes, LATER))?;
                        written.fetch_add(4096, Ordering::Relaxed);
                        std::thread::sleep(pause);
                    } else {
                        times.time(|| volume.read_at(at, &mut bytes))?;
                    }
                }
                Ok(times)
            }
        };
        let (writer, reader) = (scope.spawn(load(true)), scope.spawn(load(false)));
        let result = act();
        ended.store(true, Ordering::Relaxed);
        let [writes, reads] = [writer, reader].map(|thread| thread.join());
        let settled = settling.join();
        result?;
        settled.map_err(|_| "it panicked")??;
        Ok([writes.map_err(|_| "it panicked")??, reads.map_err(|_| "it panicked")??])
    })
}

fn instants(dir: &Path, gib: u64) -> Result<(), Failed> {
    let volumes = create(dir, Limits::default())?;
    let id = volumes.create(new("large", TIB, 64 << 10, Settings::default()))?;
    let volume = volumes.open(id)?;
    fill(&volume, gib)?;
    println!("1 TiB, of which {gib} GiB are written; milliseconds\n");
    println!("| what | median | p99.9 | longest | count |\n|---|---|---|---|---|");
    let table = |what: &str, times: &mut Times| println!("| {what} | {} |", times.told());
    let within = gib << 30;
    let none = Duration::ZERO;
    let [mut writes, mut reads] = beside(&volume, within, none, || {
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    })?;
    table("writes of 4 KiB while it is settled", &mut writes);
    table("reads of 4 KiB while it is settled", &mut reads);
    let (mut snapshots, mut clones, mut deletions) =
        (Times::default(), Times::default(), Times::default());
    let [mut writes, mut reads] = beside(&volume, within, Duration::from_millis(1), || {
        for number in 0..40 {
            std::thread::sleep(Duration::from_millis(250));
            let id = snapshots.time(|| volume.snapshot(&format!("s{number}")))?;
            clones.time(|| volumes.clone_snapshot(&volume, id, &format!("c{number}")))?;
            if number % 2 == 0 {
                deletions.time(|| volume.delete_snapshot(id))?;
            }
        }
        Ok(())
    })?;
    table("snapshots beside writes", &mut snapshots);
    table("clones of them, not settled", &mut clones);
    table("deletions of those, with clones", &mut deletions);
    table("writes of 4 KiB meanwhile, about 1,000/s", &mut writes);
    table("reads of 4 KiB meanwhile", &mut reads);
    let mut opened = Times::default();
    let clones = volumes.list().into_iter().filter(|meta| meta.name.starts_with('c'));
    for meta in clones.take(20) {
        let clone = opened.time(|| volumes.open(meta.volume))?;
        clone.write_at(0, &[1; 4096], LATER)?;
        clone.settle()?;
    }
    table("opening clones", &mut opened);
    Ok(())
}

/// What volumes compete for.
struct Load {
    what: &'static str,
    /// Bytes of a request.
    bytes: usize,
    writes: bool,
    /// How large logs get. Settled is what has a quarter of that, as an appliance does.
    limits: Limits,
    settles: bool,
    /// How long before it is measured, and how long it is then, in seconds.
    time: [u64; 2],
}

fn shares(dir: &Path) -> Result<(), Failed> {
    // A burst goes to the log alone; in the long run logs are full, which takes a while of large ones.
    let burst = Limits::default();
    let small = Limits { segment: 1 << 20, log: 32 << 20, ..Limits::default() };
    let large = Limits { segment: 8 << 20, log: 256 << 20, ..Limits::default() };
    let load = |what, bytes, writes, limits, settles, time| Load {
        what,
        bytes,
        writes,
        limits,
        settles,
        time,
    };
    let loads = [
        load("written in a burst", 4096, true, burst, false, [0, 5]),
        load("written in a burst", 65536, true, burst, false, [0, 5]),
        load("written in the long run", 4096, true, small, true, [20, 40]),
        load("written in the long run", 65536, true, large, true, [8, 24]),
        load("read", 65536, false, burst, true, [0, 8]),
    ];
    println!(
        "| bytes of a request | 128, MB/s | 16, MB/s | ratio | one alone, MB/s |\n|---|---|---|---|---|"
    );
    for load in loads {
        let volumes = create(dir, load.limits)?;
        let mut opened = Vec::new();
        for weight in [128, 16] {
            let priority = Priority::new(weight).ok_or("there is none of that weight")?;
            let settings = Settings { priority, cache: false, ..Settings::default() };
            let new = new(&weight.to_string(), 4 << 30, 64 << 10, settings);
            let volume = volumes.open(volumes.create(new)?)?;
            if !load.writes {
                fill(&volume, 1)?;
            }
            opened.push(volume);
        }
        let alone = compete(&opened[..1], &load)?;
        opened[0].settle()?;
        let both = compete(&opened, &load)?;
        let rate = |bytes: u64| bytes as f64 / 1e6 / load.time[1] as f64;
        println!(
            "| {}, {} | {:.1} | {:.1} | {:.1} | {:.1} |",
            load.bytes,
            load.what,
            rate(both[0]),
            rate(both[1]),
            both[0] as f64 / both[1].max(1) as f64,
            rate(alone[0]),
        );
        drop((opened, volumes));
        std::fs::remove_dir_all(dir)?;
        std::fs::create_dir_all(dir)?;
    }
    Ok(())
}

/// How many bytes each volume gets done, with 32 requests at a time.
fn compete(volumes: &[Arc<Volume>], load: &Load) -> Result<Vec<u64>, Failed> {
    let done: Vec<AtomicU64> = volumes.iter().map(|_| AtomicU64::new(0)).collect();
    let begun = Instant::now();
    let [since, until] = [load.time[0], load.time.iter().sum()].map(Duration::from_secs);
    let is_on = || begun.elapsed() < until;
    // What is read is written before.
    let within: u64 = if load.writes { 4 << 30 } else { 1 << 30 };
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (volume, done) in volumes.iter().zip(&done) {
            threads.push(scope.spawn(move || -> Result<(), Failed> {
                while is_on() {
                    match load.settles && volume.log_bytes() > load.limits.log / 4 {
                        true => drop(volume.settle()?),
                        false => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
                Ok(())
            }));
            threads.push(scope.spawn(move || -> Result<(), Failed> {
                while is_on() {
                    volume.tend()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }));
            for thread in 0..32 {
                threads.push(scope.spawn(move || -> Result<(), Failed> {
                    let mut rng = Rng(thread);
                    let mut buffer = vec![0; load.bytes];
                    while is_on() {
                        let at = rng.next() % (within / load.bytes as u64) * load.bytes as u64;
                        match load.writes {
                            true => {
                                rng.fill(&mut buffer[..64]);
                                volume.write_at(at, &buffer, LATER)?;
                            }
                            false => volume.read_at(at, &mut buffer)?,
                        }
                        if (since..until).contains(&begun.elapsed()) {
                            done.fetch_add(load.bytes as u64, Ordering::Relaxed);
                        }
                    }
                    Ok(())
                }));
            }
        }
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "it panicked")?)
    })?;
    Ok(done.into_iter().map(AtomicU64::into_inner).collect())
}

/// Bytes that this process had written to disks.
fn io_written() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn blocks(dir: &Path, gib: u64) -> Result<(), Failed> {
    println!("random writes of 4 KiB for 20 s in {gib} GiB that are written, depth 32\n");
    println!(
        "| block | writes/s | MB/s | chunks stored per byte | written to the disk per byte | longest log, MiB | \
         sequential write, MB/s | sequential read, MB/s |\n|---|---|---|---|---|---|---|---|"
    );
    for chunk in [4u32 << 10, 16 << 10, 64 << 10] {
        let volumes = create(dir, Limits::default())?;
        let volume =
            volumes.open(volumes.create(new("vol", 1 << 40, chunk, Settings::default()))?)?;
        let begun = Instant::now();
        fill(&volume, gib)?;
        let filled = (gib << 30) as f64 / 1e6 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let mut buffer = vec![0; 1 << 20];
        for at in 0..gib << 10 {
            volume.read_at(at << 20, &mut buffer)?;
        }
        let read = (gib << 30) as f64 / 1e6 / begun.elapsed().as_secs_f64();
        let (done, stored, most) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let before = io_written();
        let begun = Instant::now();
        let until = begun + Duration::from_secs(20);
        std::thread::scope(|scope| {
            let mut threads = vec![scope.spawn(|| -> Result<(), Failed> {
                while Instant::now() < until {
                    most.fetch_max(volume.log_bytes(), Ordering::Relaxed);
                    match volume.log_bytes() > LONG {
                        true => {
                            let settled = volume.settle()?;
                            stored.fetch_add(settled.bytes, Ordering::Relaxed);
                        }
                        false => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
                Ok(())
            })];
            for thread in 0..32 {
                let (volume, done, most) = (&volume, &done, &most);
                threads.push(scope.spawn(move || -> Result<(), Failed> {
                    let mut rng = Rng(thread);
                    let mut bytes = [0; 4096];
                    while Instant::now() < until {
                        rng.fill(&mut bytes);
                        let at = rng.next() % ((gib << 30) / 4096) * 4096;
                        volume.write_at(at, &bytes, LATER)?;
                        done.fetch_add(1, Ordering::Relaxed);
                        most.fetch_max(volume.log_bytes(), Ordering::Relaxed);
                    }
                    Ok(())
                }));
            }
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "it panicked")?)
        })?;
        stored.fetch_add(volume.settle()?.bytes, Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        let done = done.into_inner();
        let bytes = (done * 4096) as f64;
        println!(
            "| {} KiB | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} | {filled:.0} | {read:.0} |",
            chunk >> 10,
            done as f64 / seconds,
            bytes / 1e6 / seconds,
            stored.into_inner() as f64 / bytes,
            (io_written() - before) as f64 / bytes,
            most.into_inner() as f64 / f64::from(1 << 20),
        );
        drop((volume, volumes));
        std::fs::remove_dir_all(dir)?;
        std::fs::create_dir_all(dir)?;
    }
    Ok(())
}

/// What the process has resident, in MiB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn memory(dir: &Path, gib: u64) -> Result<(), Failed> {
    let volumes = create(dir, Limits::default())?;
    let id = volumes.create(new("vol", TIB, 64 << 10, Settings::default()))?;
    let volume = volumes.open(id)?;
    // What is the same is stored once: the map is as long as if it weren't.
    let mut rng = Rng(3);
    let mut bytes = vec![0; 1 << 20];
    rng.fill(&mut bytes);
    let mut chunks = 0;
    for at in 0..gib << 10 {
        volume.write_at(at << 20, &bytes, LATER)?;
        chunks += 16;
        if volume.log_bytes() > LONG {
            volume.settle()?;
        }
    }
    volume.settle()?;
    let usage = volume.usage()?;
    drop((volume, volumes));
    let empty = resident();
    let options = OpenOptions {
        disks: vec![Some(disk(dir)?)],
        mode: OpenMode::Write,
        secret: None,
        without_index: false,
    };
    let volumes = Volumes::new(Arc::new(Pool::open(options, used()?)?), Limits::default())?;
    let opened = resident();
    let volume = volumes.open(id)?;
    let idle = resident();
    let mut buffer = vec![0; 4096];
    let mut rng = Rng(5);
    for _ in 0..200_000 {
        volume.read_at(rng.next() % (gib << 18) * 4096, &mut buffer)?;
    }
    println!("{gib} GiB mapped in {chunks} chunks, {} bytes by its map", usage.volume);
    println!("| resident, MiB | |\n|---|---|");
    for (what, mib) in [
        ("without the pool", empty),
        ("with the pool", opened),
        ("with the volume open and idle", idle),
        ("after 200,000 random reads", resident()),
    ] {
        println!("| {what} | {mib:.0} |");
    }
    Ok(())
}
