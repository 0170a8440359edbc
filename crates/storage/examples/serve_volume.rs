//! Serves a volume of a pool of its own by iSCSI and NBD, until its standard input ends:
//!
//!     cargo run --release -p strongroom-storage --example serve_volume -- DIR SIZE CACHE
//!
//! `DIR` has to be empty or not there; `SIZE` is in bytes, and so is `CACHE`, what is
//! kept of chunks for who reads. The pool is encrypted and on one disk, and the volume
//! has everything else as it is by default.
//!
//! It is what `cargo xtask bench block` measures. A line of JSON says where the volume is served; then each line
//! of standard input is a command, answered by one line: see [`Serving::answer`].
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_block::volume::{Limits, NewVolume, Settings, Volume, Volumes, stand_back};
use strongroom_block::{BlockDevice, Durability};
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::SystemClock;
use strongroom_engine::content::Cache;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::keys::{Secret, Stretch};
use strongroom_engine::pool::{CreateOptions, Pool, Use};
use strongroom_iscsi::scsi::{Identity, LogicalUnit};
use strongroom_iscsi::{Server as Iscsi, Target};
use strongroom_nbd::{Denied, Export, Exports, Listed, Options, Peer, Server as Nbd};

type Failed = Box<dyn Error + Send + Sync>;

/// The name of the target.
const TARGET: &str = "iqn.2026-11.org.example:volume";
/// Bytes of a chunk: the default of volumes.
const CHUNK: u32 = 64 << 10;
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often what comes next is done ahead.
const TEND: Duration = Duration::from_millis(20);
/// Bytes that are written at once when the volume is filled.
const PIECE: usize = 1 << 20;

/// The one export, of any name.
#[derive(Debug)]
struct Only(Arc<dyn BlockDevice>);

impl Exports for Only {
    fn list(&self, _: &Peer) -> Result<Vec<Listed>, Denied> {
        Ok(vec![Listed { name: String::new(), description: String::new() }])
    }

    fn open(&self, name: &str, _: &Peer) -> Result<Export, Denied> {
        let device = Arc::clone(&self.0);
        Ok(Export {
            name: name.to_owned(),
            description: String::new(),
            device,
            read_only: false,
            watch: None,
        })
    }
}

/// What is served.
#[derive(Debug)]
struct Serving {
    volumes: Volumes,
    volume: Arc<Volume>,
    settled: Arc<Mutex<Settled>>,
}

/// What settling took that nobody asked for.
#[derive(Debug, Default)]
struct Settled {
    times: u64,
    seconds: f64,
    bytes: u64,
    most_log: u64,
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, size, cache] = &arguments[..] else {
        return Err("usage: serve_volume DIR SIZE CACHE".into());
    };
    let dir = Path::new(dir);
    let place = dir.join("disk");
    std::fs::create_dir_all(&place)?;
    let secret = Secret::passphrase(b"of a pool that is thrown away")?;
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(&place)?);
    let options = CreateOptions {
        disks: vec![disk],
        parity: 0,
        secret: Some((&secret, Stretch::CHEAP)),
        chunking: Params::default(),
        level: 1,
        pack_size: 128 << 20,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let used = Use { clock: Arc::new(SystemClock::new()?), threads, holder: "bench".into() };
    let pool = Arc::new(Pool::create(options, used)?);
    let volumes = Volumes::with_cache(pool, Limits::default(), &Cache::new(cache.parse()?))?;
    let new = NewVolume {
        name: "bench".into(),
        size: size.parse()?,
        chunk: CHUNK,
        sector: 512,
        settings: Settings::default(),
    };
    let volume = volumes.open(volumes.create(new)?)?;

    let device: Arc<dyn BlockDevice> = volume.clone();
    let iscsi = Iscsi::new(strongroom_iscsi::Limits::default());
    let target = Target::new(TARGET)?;
    let unit = LogicalUnit::new(Arc::clone(&device), Identity::default(), None)?;
    target.map(0, Arc::new(unit))?;
    iscsi.add(target)?;
    let portal = iscsi.listen(([127, 0, 0, 1], 0).into())?;
    let nbd = Nbd::new(Arc::new(Only(device)), Options::default());
    let tcp = nbd.listen_tcp(TcpListener::bind(("127.0.0.1", 0))?)?;
    let unix = dir.join("nbd.sock");
    nbd.listen_unix(UnixListener::bind(&unix)?)?;

    let settled = Arc::<Mutex<Settled>>::default();
    let is_done = Arc::new(AtomicBool::new(false));
    let settler = std::thread::spawn({
        let (volume, settled) = (Arc::clone(&volume), Arc::clone(&settled));
        let is_done = Arc::clone(&is_done);
        move || settle(&volume, &settled, &is_done)
    });
    let tender = std::thread::spawn({
        let (volume, is_done) = (Arc::clone(&volume), Arc::clone(&is_done));
        let settled = Arc::clone(&settled);
        move || {
            while !is_done.load(Ordering::Acquire) {
                // Also while it is settled.
                let log = volume.log_bytes();
                {
                    let mut settled = locked(&settled);
                    settled.most_log = settled.most_log.max(log);
                }
                if let Err(e) = volume.tend() {
                    eprintln!("tending failed: {e}");
                }
                std::thread::sleep(TEND);
            }
        }
    });
    let serving = Serving { volumes, volume, settled };
    say(&json!({ "iscsi": portal.to_string(), "nbd": tcp.to_string(), "unix": unix }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        say(&serving.answer(&words).unwrap_or_else(|e| json!({ "error": e.to_string() })))?;
    }
    is_done.store(true, Ordering::Release);
    settler.join().map_err(|_| "the thread that settles panicked")?;
    tender.join().map_err(|_| "the thread that tends panicked")?;
    Ok(())
}

fn say(value: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

fn locked(settled: &Mutex<Settled>) -> std::sync::MutexGuard<'_, Settled> {
    settled.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settles as whoever owns a volume does.
fn settle(volume: &Volume, settled: &Mutex<Settled>, is_done: &AtomicBool) {
    stand_back();
    while !is_done.load(Ordering::Acquire) {
        if !volume.is_due() {
            std::thread::sleep(LOOK);
            continue;
        }
        let begun = Instant::now();
        match volume.settle() {
            Ok(done) => {
                let mut settled = locked(settled);
                settled.times += 1;
                settled.seconds += begun.elapsed().as_secs_f64();
                settled.bytes += done.bytes;
            }
            Err(e) => {
                eprintln!("settling failed: {e}");
                std::thread::sleep(LOOK);
            }
        }
    }
}

impl Serving {
    /// Does a command, and tells how long it took and how the log stands: `settle`; `snapshot NAME`; `clone NAME`
    /// of the snapshot of that name; `fill BYTES`, which writes so many from the start on, the same gibibyte
    /// again and again, and settles; `status`, which does nothing.
    fn answer(&self, words: &[&str]) -> Result<Value, Failed> {
        let begun = Instant::now();
        match words {
            ["settle"] => drop(self.volume.settle()?),
            ["snapshot", name] => drop(self.volume.snapshot(name)?),
            ["clone", name] => {
                let snapshots = self.volume.snapshots();
                let found = snapshots.iter().find(|one| one.name == *name);
                let id = found.ok_or("there is no such snapshot")?.id;
                let id = self.volumes.clone_snapshot(&self.volume, id, &format!("of {name}"))?;
                // Whoever makes one wants to use it.
                drop(self.volumes.open(id)?);
            }
            ["fill", bytes] => self.fill(bytes.parse()?)?,
            ["status"] => {}
            _ => return Err("there is no such command".into()),
        }
        let seconds = begun.elapsed().as_secs_f64();
        let settled = locked(&self.settled);
        Ok(json!({
            "seconds": seconds,
            "log": self.volume.log_bytes(),
            "most_log": settled.most_log,
            "settled": settled.times,
            "settle_seconds": settled.seconds,
            "settle_bytes": settled.bytes,
        }))
    }

    fn fill(&self, bytes: u64) -> Result<(), Failed> {
        let mut piece = vec![0_u8; PIECE];
        for at in (0..bytes).step_by(PIECE) {
            let mut state = at % (1 << 30) + 1;
            for word in piece.chunks_exact_mut(8) {
                // Xorshift64*.
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                word.copy_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
            }
            self.volume.write_at(at, &piece, Durability::Later)?;
        }
        Ok(self.volume.settle().map(drop)?)
    }
}
