//! `cargo xtask fuzz`: libFuzzer with AddressSanitizer over every parser.
//!
//! The targets are built by cargo itself with the flags below (those of cargo-fuzz), so nothing
//! has to be installed but a C++ compiler. `RUSTC_BOOTSTRAP` lets the stable compiler take
//! `-Zsanitizer`; nothing else is built that way.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{packages, run, workspace};

/// Instrument for coverage feedback, check addresses, and let the code know.
const RUSTFLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Zsanitizer=address",
    "--cfg=fuzzing",
];

/// A target may not need more memory than this, in MiB, nor allocate more than half at once.
const MEMORY_MIB: u64 = 1024;

/// Targets that bring the whole appliance along, which takes minutes to build: they are not part of the
/// short run.
const OF_THE_APPLIANCE: &[&str] = &["appliance_backup", "licence", "update_package"];

/// What to fuzz.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The target to run; all of them when none is named. Each is a file in fuzz/src/bin.
    target: Option<String>,
    /// How long to run each target, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Run one input (a crash that was found) instead of searching.
    #[arg(long, requires = "target", value_name = "FILE")]
    input: Option<std::path::PathBuf>,
    /// Only what is quickly built.
    #[arg(skip)]
    short: bool,
}

impl Options {
    /// All targets that are quickly built, that many seconds each.
    pub(crate) fn short(seconds: u64) -> Self {
        Self { target: None, seconds, input: None, short: true }
    }
}

/// Builds the targets and runs them in turn. What is found beyond the committed seeds, and inputs
/// that crash, are kept below the target directory.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    packages::ensure(packages::FOR_FUZZING)?;
    let fuzz = workspace::root().join("fuzz");
    let all = targets(&fuzz.join("src/bin"))?;
    let chosen = match &options.target {
        None if options.short => {
            all.into_iter().filter(|one| !OF_THE_APPLIANCE.contains(&one.as_str())).collect()
        }
        None => all,
        Some(target) if all.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no target `{target}`; there are: {}", all.join(", ")),
    };

    // The very versions that the product uses; only libFuzzer's own crates are added.
    std::fs::copy(workspace::root().join("Cargo.lock"), fuzz.join("Cargo.lock"))
        .context("can't copy Cargo.lock into fuzz/")?;
    let kept = workspace::target_dir()?.join("fuzz");
    let triple = host()?;
    let mut build = workspace::cargo();
    build
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &triple])
        .env("CARGO_TARGET_DIR", kept.join("build"))
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"))
        .env("RUSTC_BOOTSTRAP", "1");
    for target in &chosen {
        build.args(["--bin", target]);
        if OF_THE_APPLIANCE.contains(&target.as_str()) {
            build.args(["--features", "appliance"]);
        }
    }
    run::run(&mut build)?;

    for target in &chosen {
        let program = kept.join("build").join(&triple).join("release").join(target);
        let mut command = std::process::Command::new(program);
        // SQLite is one file with several statics of one name, which the sanitizer takes for doubles.
        command.env("ASAN_OPTIONS", "detect_odr_violation=0");
        command.args([
            format!("-rss_limit_mb={MEMORY_MIB}"),
            format!("-malloc_limit_mb={}", MEMORY_MIB / 2),
            "-timeout=10".to_owned(),
        ]);
        if let Some(input) = &options.input {
            run::run(command.arg(input))?;
            continue;
        }
        run::heading(&format!("fuzz {target}: {} s", options.seconds));
        let found = kept.join("corpus").join(target);
        let crashes = kept.join("crashes").join(target);
        for dir in [&found, &crashes] {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("can't create {}", dir.display()))?;
        }
        command
            .args([
                format!("-max_total_time={}", options.seconds),
                "-print_final_stats=1".to_owned(),
                "-verbosity=0".to_owned(),
                "-print_funcs=0".to_owned(),
                format!("-artifact_prefix={}/", crashes.display()),
            ])
            .arg(&found);
        let seeds = fuzz.join("corpus").join(target);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        let log = kept.join(format!("{target}.log"));
        let file = std::fs::File::create(&log)
            .with_context(|| format!("can't create {}", log.display()))?;
        let status = command
            .stderr(file)
            .status()
            .with_context(|| format!("can't start `{}`", run::show(&command)))?;
        let said = std::fs::read(&log).map(|said| String::from_utf8_lossy(&said).into_owned());
        let said = said.with_context(|| format!("can't read {}", log.display()))?;
        if !status.success() {
            eprintln!("{said}");
            bail!(
                "`{target}` was broken; replay: cargo xtask fuzz {target} --input {}/...",
                crashes.display()
            );
        }
        let stat = |name: &str| {
            let lines = said.lines().filter_map(|line| line.strip_prefix("stat::"));
            let mut values = lines.filter_map(|line| line.split_once(':'));
            values.find(|(n, _)| *n == name).map_or("?", |(_, value)| value.trim()).to_owned()
        };
        let (inputs, memory) = (stat("number_of_executed_units"), stat("peak_rss_mb"));
        println!("{inputs} inputs, at most {memory} MiB");
    }
    println!("{} fuzz targets held", chosen.len());
    Ok(())
}

/// The names of the targets, in order.
fn targets(dir: &Path) -> Result<Vec<String>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("can't list {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// The triple of this machine. Naming it keeps the flags away from build scripts.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let about = run::capture(std::process::Command::new(rustc).arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
