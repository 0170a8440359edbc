//! Getting the programs to compare with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::tools::Tool;
use crate::{packages, run, workspace};

/// The releases that are measured. They are changed here, and the table measured again.
const RUSTIC: &str = "0.11.4";
const BORG: &str = "1.4.5";
const BUPSTASH: &str = "0.12.0";

/// Where the program is, installing or building it when it is missing.
pub(crate) fn program(tool: Tool) -> Result<PathBuf> {
    let cache = workspace::cache_dir()?.join("peers");
    match tool {
        Tool::Cp => Ok("cp".into()),
        Tool::Strongroom => {
            let build = ["build", "--release", "--package", "strongroom"];
            run::run(workspace::cargo().args(build))?;
            Ok(workspace::target_dir()?.join("release/strongroom"))
        }
        Tool::Restic => {
            packages::ensure(packages::FOR_PEERS)?;
            Ok("restic".into())
        }
        // What it can do beside (a terminal browser, WebDAV, telemetry) would only be built longer.
        Tool::Rustic => from_crates("rustic-rs", RUSTIC, "rustic", &["--no-default-features"]),
        Tool::Bupstash => {
            if !cache.join("bupstash/bin/bupstash").is_file() {
                packages::ensure(packages::FOR_BUPSTASH)?;
            }
            from_crates("bupstash", BUPSTASH, "bupstash", &[])
        }
        Tool::Borg => {
            let venv = cache.join("borg");
            let borg = venv.join("bin/borg");
            if borg.is_file() {
                return Ok(borg);
            }
            let build = || {
                packages::ensure(packages::FOR_BORG)?;
                run::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
                let release = format!("borgbackup=={BORG}");
                run::run(Command::new(venv.join("bin/pip")).args(["install", "-q", &release]))
            };
            match build() {
                Ok(()) => Ok(borg),
                Err(error) => {
                    println!("Borg {BORG} can't be built ({error:#}); taking Debian's");
                    packages::ensure(packages::BORG)?;
                    Ok("borg".into())
                }
            }
        }
    }
}

/// A program built from crates.io into the cache, unless it is there.
fn from_crates(name: &str, version: &str, program: &str, more: &[&str]) -> Result<PathBuf> {
    let cache = workspace::cache_dir()?.join("peers");
    let root = cache.join(program);
    let built = root.join("bin").join(program);
    if !built.is_file() {
        println!("building {name} {version}: this takes a few minutes, once");
        let mut cargo = workspace::cargo();
        cargo.args(["install", name, "--version", version, "--locked", "--quiet", "--root"]);
        cargo.arg(&root).args(more).env("CARGO_TARGET_DIR", cache.join("target"));
        // Flags for our own code are not meant for theirs.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        run::run(&mut cargo)?;
    }
    Ok(built)
}

/// What the program says it is.
pub(crate) fn version(tool: Tool, program: &PathBuf) -> Result<String> {
    let option = match tool {
        Tool::Restic | Tool::Bupstash => "version",
        _ => "--version",
    };
    let said = run::capture(Command::new(program).arg(option))?;
    Ok(said.lines().next().context("the program names no version")?.trim().to_owned())
}
