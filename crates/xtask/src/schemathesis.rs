//! Schemathesis, which asks the API what its document allows and what it does not: in a virtual
//! environment of its own, with all that it needs in the versions of a list.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{run, workspace};

/// The variable that tells tests where it is.
pub(crate) const PROGRAM: &str = "STRONGROOM_SCHEMATHESIS";
/// It and all that it needs.
const VERSIONS: &str = include_str!("schemathesis.txt");

/// Installs it where it is missing or another version; gives the program.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::cache_dir()?.join("schemathesis");
    let (program, installed) = (dir.join("bin/schemathesis"), dir.join("versions.txt"));
    if fs::read_to_string(&installed).is_ok_and(|versions| versions == VERSIONS) {
        return Ok(program);
    }
    run::heading("install schemathesis");
    run::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    let wanted = dir.join("wanted.txt");
    fs::write(&wanted, VERSIONS)?;
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run::run(pip.arg(&wanted))?;
    // Last, so that a half-made environment is made again.
    fs::rename(&wanted, &installed)?;
    Ok(program)
}
