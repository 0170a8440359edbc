//! `cargo xtask crash`: the proofs that take long.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::{packages, run, workspace};

/// Workloads on disks that err now and then, at most: the head of that test says what is open.
const ERRING: u64 = 240;
/// Jobs that the appliance does while it is killed.
const JOBS: u64 = 200;

/// How much to crash.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How many random workloads to run on simulated disks and to cut at every operation; and once
    /// more, with a reader who comes between any two operations.
    #[arg(long, default_value_t = 40)]
    seeds: u64,
    /// How many more to cut at every 37th operation; 0 leaves this out.
    #[arg(long, default_value_t = 2000)]
    sampled: u64,
    /// How many random histories with a clock that jumps, power cuts, kills and disks that go away
    /// to hold against a model, how many workloads to run on disks that err now and then, and how
    /// many rounds collections race with backups and forgets, and how many walks to make through
    /// volumes; 0 leaves all four out.
    #[arg(long, default_value_t = 1000)]
    histories: u64,
    /// Also change every byte of small pools, cut their files at every length, and let every
    /// operation of a disk fail, instead of some: hours.
    #[arg(long)]
    all_damage: bool,
    /// Run only the workload of this seed, as a failure printed it.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// How many entries to give a directory that is backed up, listed and restored; 0 leaves this
    /// out.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// How many times to kill the real binary, and a process that writes to volumes; 0 leaves both out.
    #[arg(long, default_value_t = 1000)]
    kills: u64,
    /// How many times to kill the appliance while it does 200 jobs (backups, restores, forgets,
    /// collections, scrubs, checks); then two of three nodes on PostgreSQL, once each, that do as
    /// many; 0 leaves both out.
    #[arg(long, default_value_t = 60)]
    appliance_kills: u64,
}

/// Runs the proofs, optimised, and prints what came of each.
pub(crate) fn crash(options: &Options) -> Result<ExitCode> {
    packages::ensure(packages::FOR_TESTS)?;
    let mut simulated = test("strongroom-engine", "crash");
    let workloads = match options.seed {
        Some(seed) => {
            simulated.env("STRONGROOM_CRASH_SEED", seed.to_string());
            format!("seed {seed}")
        }
        None => {
            simulated.env("STRONGROOM_CRASH_SEEDS", options.seeds.to_string());
            format!("{} seeds", options.seeds)
        }
    };
    let mut proofs =
        vec![("power cuts of simulated disks, at every operation", workloads, simulated)];
    if options.seed.is_none() {
        let mut volumes = test("strongroom-block", "crash");
        volumes.env("STRONGROOM_CRASH_SEEDS", options.seeds.to_string());
        let amount = format!("{} seeds", options.seeds);
        proofs.push(("power cuts of volumes, at every operation", amount, volumes));
    }
    if options.sampled > 0 && options.seed.is_none() {
        let mut sampled = test("strongroom-engine", "crash");
        sampled.env("STRONGROOM_CRASH_SEEDS", options.sampled.to_string());
        sampled.env("STRONGROOM_CRASH_STRIDE", "37");
        let amount = format!("{} seeds", options.sampled);
        proofs.push(("power cuts of simulated disks, at every 37th", amount, sampled));
    }
    if options.histories > 0 && options.seed.is_none() {
        let count = options.histories.to_string();
        let mut model = test("strongroom-engine", "model");
        model.env("STRONGROOM_MODEL_SEEDS", &count);
        proofs.push(("histories held against a model", format!("{count} histories"), model));
        let mut erring = test("strongroom-engine", "faults");
        let workloads = options.histories.min(ERRING);
        erring.arg("now_and_then").env("STRONGROOM_FAULTS_SEEDS", workloads.to_string());
        proofs.push(("disks that err now and then", format!("{workloads} workloads"), erring));
        let mut races = test("strongroom-engine", "races");
        races.env("STRONGROOM_RACE_ROUNDS", &count);
        proofs.push(("collections racing backups and forgets", format!("{count} rounds"), races));
        let mut walks = test("strongroom-block", "walk");
        walks.env("STRONGROOM_WALKS", &count);
        proofs.push(("walks through volumes, against a model", format!("{count} walks"), walks));
    }
    if options.all_damage && options.seed.is_none() {
        let mut damage = test("strongroom-engine", "damage");
        damage.env("STRONGROOM_DAMAGE_ALL", "1");
        proofs.push(("damage", "every byte and every length".to_owned(), damage));
        let mut faults = test("strongroom-engine", "faults");
        faults.env("STRONGROOM_FAULTS_ALL", "1");
        proofs.push(("failures of disks", "every operation".to_owned(), faults));
    }
    if options.entries > 0 && options.seed.is_none() {
        let mut many = test("strongroom", "many");
        many.env("STRONGROOM_ENTRIES", options.entries.to_string());
        let amount = format!("{} entries", options.entries);
        proofs.push(("a very large directory, there and back", amount, many));
    }
    if options.kills > 0 && options.seed.is_none() {
        let mut kill = test("strongroom", "kill");
        kill.env("STRONGROOM_KILLS", options.kills.to_string());
        proofs.push(("SIGKILL of the real binary", format!("{} kills", options.kills), kill));
        let mut volumes = test("strongroom-block", "kill");
        volumes.env("STRONGROOM_KILLS", options.kills.to_string());
        let amount = format!("{} kills", options.kills);
        proofs.push(("SIGKILL of a process that writes to volumes", amount, volumes));
    }
    if options.appliance_kills > 0 && options.seed.is_none() {
        let kills = options.appliance_kills;
        for (proof, name, kills) in [
            ("SIGKILL of the appliance", "crash::", kills),
            ("SIGKILL of two of three nodes", "nodes::", 2),
        ] {
            let mut appliance = test("strongroom", "appliance");
            appliance.arg(name);
            appliance.env("STRONGROOM_APPLIANCE_KILLS", kills.to_string());
            appliance.env("STRONGROOM_APPLIANCE_JOBS", JOBS.to_string());
            let amount = format!("{kills} kills, {JOBS} jobs");
            proofs.push((proof, amount, appliance));
        }
    }

    let mut rows = Vec::new();
    let mut all_held = true;
    for (proof, amount, mut command) in proofs {
        run::heading(&format!("{proof}: {amount}"));
        let start = Instant::now();
        let status =
            command.status().with_context(|| format!("can't start `{}`", run::show(&command)))?;
        all_held &= status.success();
        let verdict = if status.success() { "held" } else { "BROKEN" };
        let seconds = start.elapsed().as_secs_f64();
        rows.push(format!("| {proof} | {amount} | {seconds:.0} s | {verdict} |"));
    }
    println!("\n| proof | amount | time (with the build) | result |\n|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One test target, optimised, telling what it does.
fn test(package: &str, target: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--release", "--package", package, "--test", target, "--", "--nocapture"]);
    cargo
}
