//! `cargo xtask bench ingest`: a backup through an appliance beside one to a pool of one's own, on
//! the same data, and many clients at once.
//!
//! A first backup begins with nothing in the page cache, as far as root can bring that about, and
//! ends when what was written is on disk. The second is of the same data, unchanged.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use super::corpora::{self, Corpus};
use super::install;
use super::measure::{self, Measured};
use super::random::Random;
use super::tools::Tool;
use crate::{packages, workspace};

/// How much to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The size of the corpus, as a part of its full size (6 GiB).
    #[arg(long, default_value_t = 1.0, value_name = "F")]
    scale: f64,
    /// An eighth of the full size: `--scale 0.125`.
    #[arg(long, conflicts_with = "scale")]
    quick: bool,
    /// How often each is measured, in turn; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Clients at once, each with a file of its own.
    #[arg(long, default_value_t = 100)]
    clients: u32,
    /// The size of a client's file, in MiB.
    #[arg(long, default_value_t = 8)]
    file: u64,
    /// Where corpora and pools go [default: target/bench/work].
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
}

/// The longest that a command may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// What the issue asks for.
const RATIO: f64 = 1.25;
const MEMORY: f64 = 1024.0;

/// How a backup gets into its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Socket,
    Tls,
}

const WAYS: [Way; 3] = [Way::Direct, Way::Socket, Way::Tls];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "pool of one's own",
            Self::Socket => "control socket",
            Self::Tls => "TLS on loopback",
        }
    }
}

/// Two backups, one after the other.
struct Run {
    way: Way,
    client: [Measured; 2],
    /// Seconds of all cores that the appliance took.
    server: [f64; 2],
}

struct Bench {
    program: PathBuf,
    dir: PathBuf,
    source: PathBuf,
}

/// An appliance of its own.
struct Appliance {
    child: Child,
    told: Value,
    /// The home directory of who uses it.
    home: PathBuf,
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Appliance {
    fn start(program: &Path, home: &Path) -> Result<Self> {
        corpora::create_dir(home)?;
        let mut up = Command::new(program);
        up.args(["--json", "up", "--listen", "127.0.0.1:0", "--data"]).arg(home.join("data"));
        up.envs(environment(home)).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = up.spawn().context("can't start the appliance")?;
        let out = child.stdout.take().context("its output is a pipe")?;
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        let told = serde_json::from_str(&line);
        let appliance = Self { child, told: told.unwrap_or_default(), home: home.to_owned() };
        read.context("the appliance says nothing")?;
        ensure!(appliance.told.is_object(), "the appliance did not start");
        Ok(appliance)
    }

    /// Logs in at its address.
    fn log_in(&self, program: &Path) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        fs::write(self.home.join("pw"), text(&self.told["passphrase"]))?;
        let mut login = Command::new(program);
        login.args(["--quiet", "login", &text(&self.told["urls"][0]), "--password-file", "pw"]);
        login.args(["--fingerprint", &text(&self.told["certificate_sha256"])]);
        login.envs(environment(&self.home)).current_dir(&self.home);
        crate::run::run(&mut login)
    }

    /// Seconds of all cores so far, and the most memory it had, in MiB.
    fn usage(&self) -> Result<(f64, f64)> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = fs::read_to_string(proc.join("stat")).context("the appliance is gone")?;
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
        let status = fs::read_to_string(proc.join("status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<f64>().ok());
        let second = rustix::param::clock_ticks_per_second() as f64;
        Ok((ticks as f64 / second, kib.unwrap_or_default() / 1024.0))
    }
}

fn environment(home: &Path) -> Vec<(&'static str, OsString)> {
    let mut all = vec![("HOME", home.as_os_str().to_owned())];
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "STRONGROOM_APPLIANCE"] {
        // An empty value is as good as none.
        all.push((name, OsString::new()));
    }
    all
}

/// Measures; the table says what was missed.
pub(crate) fn ingest(options: &Options) -> Result<()> {
    let scale = if options.quick { 0.125 } else { options.scale };
    ensure!(scale > 0.0 && scale <= 4.0, "--scale must be more than 0 and at most 4");
    for name in ["STRONGROOM_POOL", "STRONGROOM_CLIENT_KEY_FILE"] {
        ensure!(
            std::env::var_os(name).is_none(),
            "{name} is set: it would change what is measured"
        );
    }
    packages::ensure(packages::FOR_PEERS)?;
    let program = install::program(Tool::Strongroom)?;
    let bench_dir = workspace::target_dir()?.join("bench");
    let dir = options.dir.clone().unwrap_or_else(|| bench_dir.join("work"));
    corpora::create_dir(&dir)?;
    let dir = dir.canonicalize().context("can't resolve the work directory")?;
    let source = corpora::make(Corpus::Images, &dir, scale)?;
    let bench = Bench { program, dir, source };
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        for way in WAYS {
            println!("round {}: {}", round + 1, way.name());
            runs.push(bench.twice(way)?);
        }
    }
    let mut text = table(&runs);
    if options.clients > 0 {
        println!("{} clients at once", options.clients);
        text.push_str(&bench.crowd(options)?);
    }
    fs::write(bench_dir.join("ingest.md"), &text)?;
    println!("\n{text}");
    Ok(())
}

impl Bench {
    /// Backs the corpus up twice.
    fn twice(&self, way: Way) -> Result<Run> {
        let home = self.dir.join("ingest");
        corpora::remove(&home)?;
        corpora::create_dir(&home)?;
        let appliance = match way {
            Way::Direct => {
                fs::write(home.join("pw"), "correct horse battery staple")?;
                let mut create = Command::new(&self.program);
                create.args(["--quiet", "pool", "create", "pool", "--encrypt"]);
                create.args(["--password-file", "pw"]).envs(environment(&home));
                crate::run::run(create.current_dir(&home))?;
                None
            }
            Way::Socket | Way::Tls => Some(Appliance::start(&self.program, &home)?),
        };
        if let (Some(appliance), Way::Tls) = (&appliance, way) {
            appliance.log_in(&self.program)?;
        }
        let mut words: Vec<OsString> =
            vec![self.program.clone().into(), "--quiet".into(), "backup".into()];
        words.push(self.source.clone().into());
        let options: &[&str] = match way {
            Way::Direct => &["--pool", "pool", "--password-file", "pw"],
            Way::Socket => &["--here"],
            Way::Tls => &[],
        };
        words.extend(options.iter().map(OsString::from));
        let mut client = [Measured::default(); 2];
        let mut server = [0.0; 2];
        for (this, server) in client.iter_mut().zip(&mut server) {
            measure::cool_down();
            let cpu = |a: &Option<Appliance>| a.as_ref().map_or(Ok(0.0), |a| Ok(a.usage()?.0));
            let before: Result<f64> = cpu(&appliance);
            let commands = [words.clone()];
            let log = home.join("log");
            let environment = match way {
                // Words of another program's pool have no meaning here.
                Way::Direct => vec![("HOME", home.clone().into_os_string())],
                Way::Socket | Way::Tls => environment(&home),
            };
            *this = measure::measure(&commands, &environment, &home, &log, LIMIT)?;
            *server = cpu(&appliance)? - before?;
        }
        drop(appliance);
        corpora::remove(&home)?;
        Ok(Run { way, client, server })
    }

    /// Many clients at once, each with a file of its own of which half is everybody's.
    fn crowd(&self, options: &Options) -> Result<String> {
        let home = self.dir.join("ingest");
        corpora::remove(&home)?;
        corpora::create_dir(&home)?;
        let half = (options.file << 20) as usize / 2;
        let mut common = vec![0; half];
        Random::new(1).fill(&mut common);
        for client in 0..options.clients {
            let mut own = vec![0; half];
            Random::new(u64::from(client) + 2).fill(&mut own);
            own.extend_from_slice(&common);
            fs::write(home.join(format!("file{client}")), own)?;
        }
        let appliance = Appliance::start(&self.program, &home)?;
        appliance.log_in(&self.program)?;
        let start = Instant::now();
        let spawn = |client: u32| {
            let file = format!("file{client}");
            let mut backup = Command::new(&self.program);
            backup.args(["--quiet", "backup", &file]).envs(environment(&home)).current_dir(&home);
            let log = fs::File::create(home.join(format!("log{client}")))?;
            backup.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
        };
        let children: Vec<_> = (0..options.clients).map(spawn).collect();
        let mut failed = 0;
        for (client, child) in children.into_iter().enumerate() {
            if !child?.wait()?.success() {
                failed += 1;
                let log = fs::read_to_string(home.join(format!("log{client}")))?;
                println!("client {client}: {}", log.trim());
            }
        }
        let wall = start.elapsed().as_secs_f64();
        let (cpu, peak) = appliance.usage()?;
        drop(appliance);
        corpora::remove(&home)?;
        let (clients, file) = (options.clients, options.file);
        let verdict = if failed == 0 && peak <= MEMORY { "held" } else { "**missed**" };
        Ok(format!(
            "\n{clients} clients at once over TLS, each with a file of {file} MiB of which half is \
             everybody's: {failed} failed, {wall:.1} s, the appliance took {cpu:.1} s of processors \
             and {peak:.0} MiB at most (aim {MEMORY:.0}): {verdict}.\n"
        ))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn table(runs: &[Run]) -> String {
    let of = |way: Way, value: &dyn Fn(&Run) -> f64| {
        median(runs.iter().filter(|run| run.way == way).map(value).collect())
    };
    let mut text = String::from(
        "| way | backup | wall, s | beside the pool | client's processors, s | appliance's, s | aim |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (which, name) in ["first", "second, unchanged"].into_iter().enumerate() {
        let own = of(Way::Direct, &|run| run.client[which].wall);
        for way in WAYS {
            let wall = of(way, &|run| run.client[which].wall);
            let (cpu, server) =
                (of(way, &|run| run.client[which].cpu), of(way, &|run| run.server[which]));
            let ratio = wall / own;
            let aim = match way {
                Way::Direct => "",
                _ if ratio <= RATIO => "held",
                _ => "**missed**",
            };
            let way = way.name();
            text.push_str(&format!(
                "| {way} | {name} | {wall:.2} | {ratio:.2} | {cpu:.2} | {server:.2} | {aim} |\n"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_with_the_pool() {
        let run = |way, wall| {
            let measured = Measured { wall, ..Measured::default() };
            Run { way, client: [measured; 2], server: [0.5; 2] }
        };
        let text = table(&[
            run(Way::Direct, 2.0),
            run(Way::Direct, 9.0),
            run(Way::Direct, 1.0),
            run(Way::Socket, 2.4),
            run(Way::Tls, 3.0),
        ]);
        assert!(text.contains("| control socket | first | 2.40 | 1.20 | 0.00 | 0.50 | held |"));
        assert!(text.contains(
            "| TLS on loopback | second, unchanged | 3.00 | 1.50 | 0.00 | 0.50 | **missed** |"
        ));
    }
}
