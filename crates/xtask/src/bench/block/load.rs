//! What a client does to a disk, and what came of it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run;

/// What a step does, for as long as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// It writes, or reads.
    pub(crate) writes: bool,
    /// Anywhere, or in order.
    pub(crate) random: bool,
    /// Bytes of a request.
    pub(crate) bytes: u32,
    /// Requests at once.
    pub(crate) depth: u32,
    /// Requests in a second, each of which is late from the moment on at which it is due; as many as are taken
    /// when there is no number.
    pub(crate) rate: Option<u32>,
}

const fn load(writes: bool, random: bool, bytes: u32, depth: u32) -> Load {
    Load { writes, random, bytes, depth, rate: None }
}

/// The rows of the tables. Reads come first: they find what was settled.
pub(crate) const LOADS: [Load; 6] = [
    load(false, true, 4 << 10, 1),
    load(false, true, 4 << 10, 32),
    load(false, false, 1 << 20, 4),
    load(true, true, 4 << 10, 1),
    load(true, true, 4 << 10, 32),
    load(true, false, 1 << 20, 4),
];

impl Load {
    /// Its name in tables.
    pub(crate) fn name(self) -> String {
        let size = match self.bytes >> 20 {
            0 => format!("{} KiB", self.bytes >> 10),
            mib => format!("{mib} MiB"),
        };
        let order = if self.random { "random" } else { "in order" };
        let act = if self.writes { "write" } else { "read" };
        format!("{size} {act} {order}, depth {}", self.depth)
    }

    /// How its speed is told: requests or megabytes in a second.
    pub(crate) fn speed(self, done: &Done) -> f64 {
        match self.random {
            true => done.rate,
            false => done.rate * f64::from(self.bytes) / 1e6,
        }
    }

    /// The unit of [`Load::speed`].
    pub(crate) fn unit(self) -> &'static str {
        if self.random { "IOPS" } else { "MB/s" }
    }
}

/// What a client saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Requests in a second.
    pub(crate) rate: f64,
    /// Seconds that requests took: half of them at most the first, all but one of a thousand at most the second.
    pub(crate) median: f64,
    pub(crate) slow: f64,
    /// The one that took longest.
    pub(crate) longest: f64,
}

impl Done {
    /// Of the seconds that each request took, in a time of so many seconds.
    pub(crate) fn of(mut took: Vec<f32>, seconds: f64) -> Result<Self> {
        ensure!(!took.is_empty(), "no request was done in {seconds:.1} s");
        took.sort_by(f32::total_cmp);
        let at = |part: f64| {
            let place = ((took.len() - 1) as f64 * part).ceil() as usize;
            f64::from(took.get(place).copied().unwrap_or_default())
        };
        let rate = took.len() as f64 / seconds;
        Ok(Self { rate, median: at(0.5), slow: at(0.999), longest: at(1.0) })
    }
}

/// Has fio do it over NBD.
pub(crate) fn fio(uri: &str, load: Load, size: u64, time: Duration) -> Result<Done> {
    let act = match (load.writes, load.random) {
        (false, true) => "randread",
        (false, false) => "read",
        (true, true) => "randwrite",
        (true, false) => "write",
    };
    let mut fio = Command::new("fio");
    fio.args(["--name=load", "--ioengine=nbd", "--output-format=json", "--time_based=1"]);
    fio.args(["--norandommap=1", "--randrepeat=0", "--randseed=7", "--refill_buffers=1"]);
    fio.args(["--buffer_compress_percentage=50", "--percentile_list=50:99.9"]);
    fio.arg(format!("--uri={uri}")).arg(format!("--rw={act}")).arg(format!("--bs={}", load.bytes));
    fio.arg(format!("--iodepth={}", load.depth)).arg(format!("--size={size}"));
    fio.arg(format!("--runtime={}ms", time.as_millis()));
    let said = run::capture(&mut fio)?;
    // It may say something before.
    let json = said.find('{').and_then(|at| said.get(at..)).context("fio tells nothing")?;
    let told: Value = serde_json::from_str(json).context("fio tells something else than JSON")?;
    let job = &told["jobs"][0];
    ensure!(job["error"] == 0, "fio met error {}", job["error"]);
    let side = if load.writes { &job["write"] } else { &job["read"] };
    let seconds = |value: &Value| value.as_f64().map(|ns| ns / 1e9).unwrap_or_default();
    let time = &side["clat_ns"];
    let rate = side["iops"].as_f64().filter(|rate| *rate > 0.0).context("fio did nothing")?;
    Ok(Done {
        rate,
        median: seconds(&time["percentile"]["50.000000"]),
        slow: seconds(&time["percentile"]["99.900000"]),
        longest: seconds(&time["max"]),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_thousandth_is_the_slowest_that_counts() {
        let took: Vec<f32> = (0..2000).map(|n| n as f32).collect();
        let done = Done::of(took, 10.0).unwrap();
        assert_eq!((done.rate, done.median, done.slow), (200.0, 1000.0, 1998.0));
        assert_eq!(done.longest, 1999.0);
        assert!(Done::of(Vec::new(), 1.0).is_err());
    }

    #[test]
    fn rows_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = LOADS.iter().map(|load| load.name()).collect();
        assert_eq!(names.len(), LOADS.len());
        assert!(names.contains("1 MiB read in order, depth 4"), "{names:?}");
    }
}
