//! `cargo xtask bench block`: a volume beside plain files behind other servers, on the same disk, in turn; and what
//! a volume alone must keep: snapshots at once, no stalls, a bounded log, little memory.

mod alone;
mod initiator;
mod load;
mod servers;
mod table;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use self::load::{Done, LOADS, Load};
use self::servers::{At, Ours, Peer};
use super::corpora;
use super::random::Random;
use crate::{packages, run, workspace};

/// Bytes of the cache of ours: others have the system's, which is as large as there is memory.
const CACHE: u64 = 3 << 30;

/// How much to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// One short turn and little data: whether it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Turns; minimum, median and maximum are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Seconds of each step.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The size of the disks that are compared, in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..))]
    size: u64,
    /// What is written of the volume of 1 TiB that is measured alone, in GiB.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1024))]
    filled: u64,
    /// Seconds for which it is then overwritten at random.
    #[arg(long, default_value_t = 60.0)]
    overwritten: f64,
    /// Only this part.
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<Part>,
    /// Where disks and pools go [default: target/bench/work/block].
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// iSCSI beside tgt.
    Iscsi,
    /// NBD over TCP beside qemu-nbd and nbdkit.
    Tcp,
    /// The same through Unix sockets.
    Unix,
    /// What a volume alone must keep.
    Alone,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Iscsi => "iSCSI",
            Self::Tcp => "NBD, TCP",
            Self::Unix => "NBD, Unix",
            Self::Alone => "alone",
        }
    }
}

/// Speeds of a load by one protocol: of ours, and of each peer, one for each turn.
struct Row {
    part: Part,
    load: Load,
    ours: Vec<Done>,
    peers: Vec<(&'static str, Vec<Done>)>,
}

/// Measures; the tables are also written to target/bench/block.md.
pub(crate) fn block(options: &Options) -> Result<()> {
    let options = match options.quick {
        false => options.clone(),
        true => Options {
            turns: 1,
            seconds: 0.3,
            size: 64,
            filled: 1,
            overwritten: 2.0,
            ..options.clone()
        },
    };
    packages::ensure(packages::FOR_BLOCK)?;
    let program = servers::build()?;
    let bench = workspace::target_dir()?.join("bench");
    let dir = options.dir.clone().unwrap_or_else(|| bench.join("work/block"));
    let _ = fs::remove_dir_all(&dir);
    corpora::create_dir(&dir)?;
    let mut text = String::new();
    let parts = [Part::Iscsi, Part::Tcp, Part::Unix];
    let parts: Vec<Part> =
        parts.into_iter().filter(|part| options.only.is_none_or(|only| only == *part)).collect();
    if !parts.is_empty() {
        text += &table::compared(&compare(&options, &parts, &program, &dir)?);
    }
    if options.only.is_none_or(|only| only == Part::Alone) {
        let told = alone::alone(&program, &dir, options.filled, options.overwritten)?;
        text += &table::alone(&told);
    }
    fs::remove_dir_all(&dir).with_context(|| format!("can't remove {}", dir.display()))?;
    run::heading("block");
    println!("{text}");
    corpora::create_dir(&bench)?;
    let path = bench.join("block.md");
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// Runs all loads against all servers, in turn.
fn compare(options: &Options, parts: &[Part], program: &Path, dir: &Path) -> Result<Vec<Row>> {
    let size = options.size << 20;
    let time = Duration::from_secs_f64(options.seconds);
    let mut ours = Ours::start(program, &dir.join("pool"), size, CACHE)?;
    ours.tell(&format!("fill {size}"))?;
    let mut rows = Vec::new();
    for part in parts {
        let peers = peers(*part, size, dir)?;
        let of_part = LOADS.map(|load| Row {
            part: *part,
            load,
            ours: Vec::new(),
            peers: peers.iter().map(|peer| (peer.name, Vec::new())).collect(),
        });
        rows.extend(of_part.map(|row| (row, peers.clone())));
    }
    for turn in 1..=options.turns {
        for (row, peers) in &mut rows {
            println!("turn {turn}: {}, {}", row.part.name(), row.load.name());
            let at = match row.part {
                Part::Iscsi | Part::Alone => ours.iscsi.clone(),
                Part::Tcp => ours.tcp.clone(),
                Part::Unix => ours.unix.clone(),
            };
            row.ours.push(drive(&at, row.load, size, time)?);
            // Else it would be settled while the others are measured.
            if row.load.writes {
                ours.tell("settle")?;
            }
            for (peer, (_, done)) in peers.iter().zip(&mut row.peers) {
                done.push(drive(&peer.at, row.load, size, time)?);
            }
        }
    }
    Ok(rows.into_iter().map(|(row, _)| row).collect())
}

/// Does it to the disk that a server has there, with nothing left of what was done before.
fn drive(at: &At, load: Load, size: u64, time: Duration) -> Result<Done> {
    rustix::fs::sync();
    match at {
        At::Iscsi(disk) => initiator::drive(disk, load, size, time, &AtomicBool::new(false)),
        At::Nbd(uri) => load::fio(uri, load, size, time),
    }
}

/// Starts the others, each with a file of its own.
fn peers(part: Part, size: u64, dir: &Path) -> Result<Vec<std::rc::Rc<Peer>>> {
    let file = |name: &str| {
        let path = dir.join(format!("{name}.{part:?}.img"));
        fill(&path, size)?;
        Ok::<PathBuf, anyhow::Error>(path)
    };
    let peers = match part {
        Part::Iscsi => vec![servers::tgt(&file("tgt")?, dir)?],
        Part::Tcp | Part::Unix => {
            let unix = part == Part::Unix;
            vec![
                servers::qemu_nbd(&file("qemu-nbd")?, dir, unix)?,
                servers::nbdkit(&file("nbdkit")?, dir, unix)?,
            ]
        }
        Part::Alone => Vec::new(),
    };
    Ok(peers.into_iter().map(std::rc::Rc::new).collect())
}

/// A file of random bytes.
fn fill(path: &Path, size: u64) -> Result<()> {
    let mut file =
        File::create(path).with_context(|| format!("can't create {}", path.display()))?;
    let (mut random, mut bytes) = (Random::new(size), vec![0; 1 << 20]);
    for _ in 0..size >> 20 {
        random.fill(&mut bytes);
        file.write_all(&bytes)?;
    }
    Ok(file.sync_all()?)
}
