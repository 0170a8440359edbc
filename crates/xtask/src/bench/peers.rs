//! `cargo xtask bench peers`: all programs in turn on the same data.
//!
//! How it is measured, the same for everybody:
//! - A step begins with nothing dirty and nothing in the page cache (as root; otherwise a remark
//!   says that it was warm), but for the step that is called warm.
//! - It ends when what was written is on disk: after the program a `sync` is timed with it, since
//!   some sync what they write and some don't. The time of the program alone is kept too.
//! - CPU and memory are the kernel's account of the process and its children.
//! - Every restore is compared with the source, file by file, before its time counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::corpora::{self, Corpus};
use super::install;
use super::measure::{self, Measured};
use super::random::Random;
use super::report::{Record, Report, Step};
use super::tools::{self, Act, Place, Tool};
use crate::{packages, run, workspace};

/// What to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only these steps (first backups are always made: the others build on them).
    #[arg(long, value_enum, num_args = 1.., value_name = "STEP")]
    only: Vec<Step>,
    /// Only these corpora.
    #[arg(long, value_enum, num_args = 1.., value_name = "NAME")]
    corpus: Vec<Corpus>,
    /// Only these programs.
    #[arg(long, value_enum, num_args = 1.., value_name = "NAME")]
    tool: Vec<Tool>,
    /// The size of every corpus, as a part of its full size.
    #[arg(long, default_value_t = 1.0, value_name = "F")]
    scale: f64,
    /// An eighth of the full size: `--scale 0.125`.
    #[arg(long, conflicts_with = "scale")]
    quick: bool,
    /// Where corpora, repositories and restored files go [default: target/bench/work]. The full
    /// size needs 20 GB there at a time, and more with --keep.
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// Take no command that runs longer than this, in seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    limit: u64,
    /// Keep the corpora for the next run instead of removing them.
    #[arg(long)]
    keep: bool,
}

/// How the benchmark is run.
#[derive(Debug)]
struct Bench {
    dir: PathBuf,
    only: Vec<Step>,
    limit: Duration,
    report: Report,
    /// How many directories were put away.
    cleared: u32,
}

/// Where what programs have left waits to be removed.
const ATTIC: &str = "attic";

/// Runs the benchmark and writes its report.
pub(crate) fn peers(options: &Options) -> Result<()> {
    let scale = if options.quick { 0.125 } else { options.scale };
    anyhow::ensure!(scale > 0.0 && scale <= 4.0, "--scale must be more than 0 and at most 4");
    let bench_dir = workspace::target_dir()?.join("bench");
    let dir = options.dir.clone().unwrap_or_else(|| bench_dir.join("work"));
    corpora::create_dir(&dir.join("logs"))?;
    corpora::create_dir(&bench_dir)?;
    let dir = dir.canonicalize().context("can't resolve the work directory")?;
    let all = [Corpus::Small, Corpus::Versions, Corpus::Million, Corpus::Images, Corpus::Random];
    let corpora: Vec<Corpus> = all
        .into_iter()
        .filter(|corpus| options.corpus.is_empty() || options.corpus.contains(corpus))
        .collect();
    let room = corpora.iter().map(|corpus| corpus.room());
    let need = scale * if options.keep { room.sum() } else { room.fold(0.0, f64::max) };
    let disk = rustix::fs::statvfs(&dir).context("can't ask for the room on the disk")?;
    let free = (disk.f_bavail * disk.f_frsize) as f64;
    anyhow::ensure!(free > need, "{:.0} GB must be free in {}", need / 1e9, dir.display());

    packages::ensure(packages::FOR_PEERS)?;
    let mut bench = Bench {
        dir,
        only: options.only.clone(),
        limit: Duration::from_secs(options.limit),
        report: Report { scale, ..Report::default() },
        cleared: 0,
    };
    corpora::remove(&bench.dir.join(ATTIC))?;
    bench.describe_machine();
    let all = [Tool::Cp, Tool::Restic, Tool::Rustic, Tool::Borg, Tool::Bupstash, Tool::Strongroom];
    let chosen = all.into_iter().filter(|t| options.tool.is_empty() || options.tool.contains(t));
    let mut programs = Vec::new();
    for tool in chosen {
        let program = install::program(tool);
        match program.and_then(|program| Ok((install::version(tool, &program)?, program))) {
            Ok((version, program)) => {
                bench.report.versions.push((tool, version));
                programs.push((tool, program));
            }
            Err(error) => bench.remark(format!("{} is not to be had: {error:#}", tool.name())),
        }
    }
    for corpus in corpora {
        bench.corpus(corpus, &programs)?;
        if !options.keep {
            corpora::remove(&bench.dir.join(corpus.name()))?;
        }
        // After every corpus, so that a run that is broken off has told something.
        let (text, json) = (bench.report.markdown(), bench.report.json());
        let write = |name: &str, content: String| {
            let path = bench_dir.join(name);
            fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))
        };
        write("peers.md", text)?;
        write("peers.json", format!("{json:#}\n"))?;
    }
    println!("\n{}", bench.report.markdown());
    Ok(())
}

impl Bench {
    fn remark(&mut self, remark: String) {
        println!("{remark}");
        self.report.remarks.push(remark);
    }

    fn describe_machine(&mut self) {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = rustix::system::uname();
        let kernel = kernel.release().to_string_lossy().into_owned();
        let model = model.trim_start_matches(['\t', ' ', ':']).to_owned();
        self.remark(format!("machine: {cores} cores of {model}, Linux {kernel}"));
        self.remark(format!("scale: {} of the full size", self.report.scale));
        if measure::cool_down() {
            self.remark("every step began with nothing in the page cache".to_owned());
        } else {
            self.remark("page cache warm: only root can empty it".to_owned());
        }
    }

    fn wants(&self, step: Step) -> bool {
        self.only.is_empty() || self.only.contains(&step)
    }

    /// All programs on one corpus.
    fn corpus(&mut self, corpus: Corpus, programs: &[(Tool, PathBuf)]) -> Result<()> {
        run::heading(&format!("corpus {}", corpus.name()));
        let source = corpora::make(corpus, &self.dir, self.report.scale)?;
        self.report.sizes.push((corpus, size_of(&source)?));
        let out = self.dir.join("restored");
        for (tool, program) in programs {
            let base = self.dir.join(format!("{}-{}", tool.name(), corpus.name()));
            corpora::remove(&base)?;
            corpora::remove(&out)?;
            if *tool == Tool::Cp {
                if matches!(corpus, Corpus::Images | Corpus::Small) {
                    self.copy(corpus, &source, &out)?;
                }
            } else {
                let place = Place {
                    program: program.clone(),
                    repo: base.join("repo"),
                    home: base.join("home"),
                    password: base.join("password"),
                    key: base.join("key"),
                };
                corpora::create_dir(&place.home)?;
                let mut key = [0; 64];
                Random::new(1).fill(&mut key);
                fs::write(&place.key, key).context("can't write the key file")?;
                fs::write(&place.password, "correct horse battery staple\n")
                    .context("can't write the password file")?;
                // What failed is in the report; the others go on.
                let _: Option<()> = self.program(corpus, *tool, &place, &source, &out)?;
            }
            self.clear(corpus, &base)?;
            self.clear(corpus, &out)?;
        }
        corpora::remove(&self.dir.join(ATTIC))
    }

    /// Puts away what a program has left. Many files are removed only after the last program has
    /// had its turn: ext4 looks for inodes that were not freed lately, so whoever makes files after
    /// many were removed pays for that.
    fn clear(&mut self, corpus: Corpus, what: &Path) -> Result<()> {
        if !matches!(corpus, Corpus::Small | Corpus::Versions) || !what.exists() {
            return corpora::remove(what);
        }
        let attic = self.dir.join(ATTIC);
        corpora::create_dir(&attic)?;
        self.cleared += 1;
        let to = attic.join(self.cleared.to_string());
        fs::rename(what, &to).with_context(|| format!("can't move {}", what.display()))
    }

    fn copy(&mut self, corpus: Corpus, source: &Path, out: &Path) -> Result<()> {
        let script = "cp -r \"$0\" \"$1\" && sync";
        let copy: Vec<std::ffi::OsString> =
            vec!["sh".into(), "-c".into(), script.into(), source.into(), out.into()];
        measure::cool_down();
        let log = self.log(corpus, Tool::Cp, Step::Backup);
        let outcome = measure::measure(&[copy], &[], &self.dir, &log, self.limit);
        self.record(corpus, Step::Backup, Tool::Cp, outcome, None);
        Ok(())
    }

    /// One program on one corpus; `None` when a step failed that later ones need.
    fn program(
        &mut self,
        corpus: Corpus,
        tool: Tool,
        place: &Place,
        source: &Path,
        out: &Path,
    ) -> Result<Option<()>> {
        let name = corpus.name();
        let init = tools::commands(tool, place, Act::Init);
        let environment = tools::environment(tool, place);
        let log = self.log(corpus, tool, Step::Backup);
        let initial = measure::measure(&init, &environment, &place.home, &log, self.limit);
        if let Err(error) = initial {
            let error = error.context("can't make a repository");
            self.record(corpus, Step::Backup, tool, Err(error), None);
            return Ok(None);
        }
        let backup = Act::Backup { source, name };
        if corpus == Corpus::Versions {
            return self.versions(tool, place, backup, source);
        }
        if self.step(corpus, Step::Backup, tool, place, backup).is_none() {
            return Ok(None);
        }
        if matches!(corpus, Corpus::Small | Corpus::Million) {
            for step in [Step::Unchanged, Step::UnchangedWarm] {
                if self.wants(step) {
                    self.step(corpus, step, tool, place, backup);
                }
            }
        }
        if corpus == Corpus::Million {
            return Ok(Some(()));
        }
        if self.wants(Step::Restore) {
            corpora::create_dir(out)?;
            let act = Act::Restore { name, to: out };
            let done = self.step(corpus, Step::Restore, tool, place, act).is_some();
            if done && let Err(error) = same(source, out) {
                println!("restored wrongly: {error:#}");
                let found = self.report.records.last_mut().expect("the step was recorded");
                found.outcome = Err(format!("restored wrongly: {error:#}"));
            }
            self.clear(corpus, out)?;
        }
        if corpus != Corpus::Random {
            if self.wants(Step::Check) {
                self.step(corpus, Step::Check, tool, place, Act::Check);
            }
            if self.wants(Step::Reread) {
                let reread = Act::Reread { source, name };
                self.step(corpus, Step::Reread, tool, place, reread);
            }
        }
        Ok(Some(()))
    }

    /// Twenty backups of a tree that changes, then half of them forgotten.
    fn versions(
        &mut self,
        tool: Tool,
        place: &Place,
        backup: Act<'_>,
        source: &Path,
    ) -> Result<Option<()>> {
        let corpus = Corpus::Versions;
        corpora::make(corpus, &self.dir, self.report.scale)?;
        let environment = tools::environment(tool, place);
        let log = self.log(corpus, tool, Step::Backup);
        let mut sum = Measured::default();
        for version in 1..=corpora::VERSIONS {
            corpora::next_version(source, version)?;
            measure::cool_down();
            let commands = tools::commands(tool, place, backup);
            let one = measure::measure(&commands, &environment, &place.home, &log, self.limit);
            match one {
                Ok(one) => {
                    sum.alone += one.alone;
                    sum.wall += one.wall;
                    sum.cpu += one.cpu;
                    sum.peak = sum.peak.max(one.peak);
                }
                Err(error) => {
                    let error = error.context(format!("version {version}"));
                    self.record(corpus, Step::Backup, tool, Err(error), None);
                    return Ok(None);
                }
            }
        }
        self.record(corpus, Step::Backup, tool, Ok(sum), size_of(&place.repo).ok());
        if self.wants(Step::Gc) {
            let prune = Act::Prune { keep: corpora::VERSIONS / 2 };
            self.step(corpus, Step::Gc, tool, place, prune);
        }
        Ok(Some(()))
    }

    /// Takes one step and records it. `None` when it failed or the program can't do it.
    fn step(
        &mut self,
        corpus: Corpus,
        step: Step,
        tool: Tool,
        place: &Place,
        act: Act<'_>,
    ) -> Option<()> {
        let commands = tools::commands(tool, place, act);
        if commands.is_empty() {
            return None;
        }
        if step != Step::UnchangedWarm {
            measure::cool_down();
        }
        let environment = tools::environment(tool, place);
        let log = self.log(corpus, tool, step);
        let outcome = measure::measure(&commands, &environment, &place.home, &log, self.limit);
        let stored = match step {
            Step::Backup | Step::Gc => size_of(&place.repo).ok(),
            _ => None,
        };
        let done = outcome.is_ok();
        self.record(corpus, step, tool, outcome, stored);
        done.then_some(())
    }

    fn record(
        &mut self,
        corpus: Corpus,
        step: Step,
        tool: Tool,
        outcome: Result<Measured>,
        stored: Option<u64>,
    ) {
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        let told = match &outcome {
            Ok(m) => format!("{:.2} s, {:.1} CPU-s, {:.0} MiB", m.wall, m.cpu, m.peak),
            Err(error) => format!("FAILED: {error}"),
        };
        let size = stored.map_or(String::new(), |b| format!(", {:.1} MB stored", b as f64 / 1e6));
        println!("{:10} {:9} {}: {told}{size}", tool.name(), corpus.name(), step.name());
        self.report.records.push(Record { corpus, step, tool, outcome, stored });
    }

    fn log(&self, corpus: Corpus, tool: Tool, step: Step) -> PathBuf {
        let name = format!("{}-{}-{step:?}.log", tool.name(), corpus.name());
        self.dir.join("logs").join(name.to_lowercase())
    }
}

/// The sum of the lengths of all files below a directory, in bytes.
fn size_of(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in corpora::files_below(dir)? {
        sum += fs::metadata(&file).map_or(0, |m| m.len());
    }
    Ok(sum)
}

/// Compares what was restored with its source: all names and all bytes. Programs differ in how
/// much of the source's path they bring back, so the tree is looked for.
fn same(source: &Path, out: &Path) -> Result<()> {
    let path = source.strip_prefix("/").unwrap_or(source);
    let name = source.file_name().context("a corpus has a name")?;
    let candidates = [out.join(path), out.join(name), out.to_owned()];
    let tree = candidates.iter().find(|dir| dir.is_dir()).context("nothing was restored")?;
    let mut diff = std::process::Command::new("diff");
    diff.args(["--recursive", "--brief", "--no-dereference"]).arg(source).arg(tree);
    let output = diff.output().context("can't start diff")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        bail!("{}", said.lines().next().unwrap_or("diff failed"));
    }
    Ok(())
}
