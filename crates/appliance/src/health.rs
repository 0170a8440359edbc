//! How the machine fares, measured when somebody asks: room, memory, load. What the system doesn't
//! tell is not known, and nothing is put in its place.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;

/// How much there is of something, and how much of that is used, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All that there is.
    pub total: u64,
    /// What is used of it.
    pub used: u64,
    /// What can still be had. A filesystem may keep something back, which is neither.
    pub free: u64,
}

impl Usage {
    /// None when that makes no sense, as where a filesystem says that it has no room at all.
    fn new(total: u64, used: u64, free: u64) -> Option<Self> {
        let sum = used.checked_add(free)?;
        (0 < sum && sum <= total).then_some(Self { total, used, free })
    }

    /// What is used of all that can be had, in percent, rounded: 100 when nothing is left.
    pub fn percent(self) -> u32 {
        (self.used as f64 / (self.used + self.free) as f64 * 100.0).round() as u32
    }
}

/// What the processors have to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cpu {
    /// How many cores are in use.
    pub cores: Option<u32>,
    /// How many processes ran or wanted to, on average over 1, 5 and 15 minutes.
    pub loads: Option<[f64; 3]>,
}

impl Cpu {
    /// The load of five minutes by the cores, in percent, rounded; more than 100 when processes
    /// have to wait.
    pub fn percent(self) -> Option<u32> {
        let [_, five, _] = self.loads?;
        Some((five / f64::from(self.cores?) * 100.0).round() as u32)
    }
}

/// How the machine was at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// When.
    pub at: Timestamp,
    /// The filesystem of the data directory.
    pub disk: Option<Usage>,
    /// Memory. What could be had at once is free, like the memory of caches.
    pub memory: Option<Usage>,
    /// Processors.
    pub cpu: Cpu,
}

/// Measures the machine.
#[derive(Clone, Debug)]
pub struct Health {
    data: PathBuf,
}

impl Health {
    /// Of the machine with this data directory.
    pub fn of(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// How it is now. It waits for the filesystem.
    pub fn measure(&self) -> Measured {
        let read = |path: &str| fs::read_to_string(path).ok();
        Measured {
            at: Timestamp::now(),
            disk: self.disk(),
            memory: read("/proc/meminfo").as_deref().and_then(memory),
            cpu: Cpu {
                cores: read("/proc/stat").as_deref().and_then(cores),
                loads: read("/proc/loadavg").as_deref().and_then(loads),
            },
        }
    }

    fn disk(&self) -> Option<Usage> {
        let stat = rustix::fs::statvfs(&self.data).ok()?;
        let bytes = |blocks: u64| blocks.checked_mul(stat.f_frsize);
        let used = stat.f_blocks.checked_sub(stat.f_bfree)?;
        Usage::new(bytes(stat.f_blocks)?, bytes(used)?, bytes(stat.f_bavail)?)
    }
}

/// What `/proc/meminfo` says, see proc_meminfo(5).
fn memory(text: &str) -> Option<Usage> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    let (total, free) = (field("MemTotal")?, field("MemAvailable")?);
    Usage::new(total, total.checked_sub(free)?, free)
}

/// The cores that `/proc/stat` has a line for: those that are online, see proc_stat(5).
fn cores(text: &str) -> Option<u32> {
    let is_core = |line: &&str| {
        let number = line.strip_prefix("cpu").and_then(|rest| rest.split(' ').next());
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let count = u32::try_from(text.lines().filter(is_core).count()).ok()?;
    (count > 0).then_some(count)
}

/// The three averages in `/proc/loadavg`, see proc_loadavg(5).
fn loads(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split(' ');
    let mut next = || {
        let load: f64 = words.next()?.parse().ok()?;
        (load.is_finite() && load.is_sign_positive()).then_some(load)
    };
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_only_where_it_makes_sense() {
        let percent = |total, used, free| Usage::new(total, used, free).map(Usage::percent);
        assert_eq!(percent(0, 0, 0), None);
        assert_eq!(percent(1, 0, 2), None);
        assert_eq!(percent(1, 0, 0), None);
        assert_eq!(percent(u64::MAX, u64::MAX, 1), None);
        assert_eq!(percent(3, 2, 1), Some(67));
        assert_eq!(percent(1000, 4, 996), Some(0));
        // The rest is kept back.
        assert_eq!(percent(100, 95, 0), Some(100));
        assert_eq!(percent(u64::MAX, u64::MAX, 0), Some(100));
    }

    #[test]
    fn memory_is_what_the_kernel_says() {
        let text = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    4096 kB\n";
        assert_eq!(memory(text), Usage::new(16 << 20, 12 << 20, 4 << 20));
        for hostile in [
            "",
            "\0\0\0",
            "MemTotal: 16384 kB",
            "MemTotal: 16384 kB\nMemAvailable: kB",
            "MemTotal: 16384 kB\nMemAvailable: -1 kB",
            "MemTotal: 16384 kB\nMemAvailable: 4096 MB",
            "MemTotal: 16384 kB\nMemAvailable: 16385 kB",
            "MemTotal: 0 kB\nMemAvailable: 0 kB",
            "MemTotalled: 16384 kB\nMemAvailable: 4096 kB",
            "MemTotal: 18446744073709551615 kB\nMemAvailable: 4096 kB",
            "MemTotal: 99999999999999999999 kB\nMemAvailable: 4096 kB",
        ] {
            assert_eq!(memory(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn cores_are_counted_and_their_sum_is_none() {
        assert_eq!(cores("cpu  9 9 9\ncpu0 1 2\ncpu1 1 2\ncpu7 1 2\nintr 5\ncpufreq 3\n"), Some(3));
        for hostile in ["", "cpu  1 2 3\n", "cpu-1 5\ncpu9999999999 5\ncpux 1", "xcpu0 1"] {
            assert_eq!(cores(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn loads_are_three_numbers() {
        assert_eq!(loads("0.20 1.18 12.12 1/80 11206\n"), Some([0.2, 1.18, 12.12]));
        for hostile in ["", "1 2", "1 2 x", "nan 1 1", "1 inf 1", "1 1e999 1", "-1 1 1", "  1 1"] {
            assert_eq!(loads(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn the_load_may_be_more_than_the_cores_can_do() {
        let percent = |cores, loads| Cpu { cores, loads }.percent();
        assert_eq!(percent(Some(2), Some([9.0, 0.333, 9.0])), Some(17));
        assert_eq!(percent(Some(4), Some([0.0, 10.0, 0.0])), Some(250));
        assert_eq!(percent(Some(1), Some([0.0, 1e300, 0.0])), Some(u32::MAX));
        assert_eq!(percent(None, Some([1.0, 1.0, 1.0])), None);
        assert_eq!(percent(Some(1), None), None);
    }

    #[test]
    fn this_machine_is_measured_and_what_is_not_there_is_not() {
        let measured = Health::of("/").measure();
        assert!(measured.disk.is_some() && measured.memory.is_some(), "{measured:?}");
        assert!(measured.cpu.percent().is_some(), "{measured:?}");
        assert_eq!(Health::of("/no/such/directory").measure().disk, None);
    }
}
