//! What a volume alone must keep: a large one, with much written to it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::initiator::{self, Disk};
use super::load::{Done, Load};
use super::servers::{At, Ours, Told};

/// Bytes of the volume.
const SIZE: u64 = 1 << 40;
/// Bytes of the cache: small, so that what is resident beside it can be told.
const CACHE: u64 = 64 << 20;
/// Snapshots, and clones.
const TIMES: usize = 20;
/// What runs meanwhile: what can be settled for as long as it runs.
const BESIDE: Load =
    Load { writes: true, random: true, bytes: 4 << 10, depth: 4, rate: Some(RATE) };
pub(super) const RATE: u32 = 1000;
const READS: Load = Load { writes: false, ..BESIDE };
/// As fast as can be.
const OVERWRITES: Load = Load { depth: 32, rate: None, ..BESIDE };
/// How long the loads run by themselves.
const QUIET: Duration = Duration::from_secs(5);
/// Longer than anything takes: they are told to end.
const LONG: Duration = Duration::from_secs(3600);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alone {
    pub(crate) filled: u64,
    /// Seconds to write that.
    pub(crate) fill_seconds: f64,
    /// MiB that the process has resident, before and after.
    pub(crate) resident: [f64; 2],
    /// Seconds that each took.
    pub(crate) snapshots: Vec<f64>,
    pub(crate) clones: Vec<f64>,
    /// Writes and reads beside them: with nothing else, with snapshots, with clones, while it is settled.
    pub(crate) beside: Vec<(&'static str, [Done; 2])>,
    pub(crate) overwrites: Done,
    pub(crate) overwritten: Told,
}

/// Measures with so many GiB written.
pub(crate) fn alone(program: &Path, dir: &Path, filled: u64, overwritten: f64) -> Result<Alone> {
    let mut ours = Ours::start(program, &dir.join("large"), SIZE, CACHE)?;
    let before = ours.resident()?;
    println!("writing {filled} GiB of a volume of 1 TiB");
    let bytes = filled << 30;
    let fill_seconds = ours.tell(&format!("fill {bytes}"))?.seconds;
    let mut told =
        Alone { filled, fill_seconds, resident: [before, ours.resident()?], ..Alone::default() };
    let At::Iscsi(disk) = ours.iscsi.clone() else { bail!("its portal is of another protocol") };
    println!("snapshots and clones beside writes and reads");
    let ((), beside) = beside(&disk, bytes, || {
        std::thread::sleep(QUIET);
        Ok(())
    })?;
    told.beside.push(("nothing", beside));
    let mut times = |what: &str| -> Result<Vec<f64>> {
        let mut seconds = Vec::new();
        for time in 0..TIMES {
            std::thread::sleep(Duration::from_millis(250));
            seconds.push(ours.tell(&format!("{what} s{time}"))?.seconds);
        }
        Ok(seconds)
    };
    for what in ["snapshot", "clone"] {
        let (seconds, beside) = self::beside(&disk, bytes, || times(what))?;
        match what {
            "snapshot" => {
                told.snapshots = seconds;
                told.beside.push(("snapshots", beside));
            }
            _ => {
                told.clones = seconds;
                told.beside.push(("clones", beside));
            }
        }
    }
    let ((), beside) = self::beside(&disk, bytes, || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_secs(1));
            ours.tell("settle")?;
        }
        Ok(())
    })?;
    told.beside.push(("settling", beside));
    println!("overwriting at random for {overwritten} s");
    let time = Duration::from_secs_f64(overwritten);
    told.overwrites =
        initiator::drive(&disk, OVERWRITES, bytes.min(4 << 30), time, &AtomicBool::new(false))?;
    told.overwritten = ours.tell("status")?;
    Ok(told)
}

/// Does something while one client writes and another reads; what they saw.
fn beside<R>(disk: &Disk, size: u64, act: impl FnOnce() -> Result<R>) -> Result<(R, [Done; 2])> {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = [BESIDE, READS].map(|load| {
            let end = &end;
            scope.spawn(move || initiator::drive(disk, load, size, LONG, end))
        });
        let result = act();
        end.store(true, Ordering::Relaxed);
        let [writes, reads] =
            clients.map(|client| client.join().map_err(|_| anyhow!("it panicked")));
        Ok((result?, [writes??, reads??]))
    })
}
