//! Where things are in the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run;

/// The top directory of the workspace: as `cargo run` says it now, since a target directory that clones share has
/// programs that another one built.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let own = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let own = own.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = own.ancestors().nth(2);
        root.expect("crates/xtask lies two levels below the workspace").to_owned()
    });
    &ROOT
}

/// `cargo`, run in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// What `cargo metadata` says, without the packages that aren't ours unless `all` is set.
pub(crate) fn metadata(all: bool) -> Result<Value> {
    let mut cargo = cargo();
    cargo.args(["metadata", "--format-version", "1"]);
    if !all {
        cargo.arg("--no-deps");
    }
    serde_json::from_str(&run::capture(&mut cargo)?).context("cargo metadata wrote no JSON")
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or what its configuration says.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata(false)?;
    let dir = metadata["target_directory"].as_str();
    Ok(dir.context("cargo metadata names no target directory")?.into())
}

/// Where things are kept that are dear to make and outlive a clone: built peers of the benchmark.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => anyhow::bail!("set HOME or XDG_CACHE_HOME: there is no place to keep builds"),
    };
    Ok(cache.join("strongroom"))
}
