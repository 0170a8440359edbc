//! A kernel for machines that tests start: Debian's for clouds, which has all in itself that such a machine
//! needs. It is unpacked, and not installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, workspace};

/// The variable that tells tests where it is.
pub(crate) const KERNEL: &str = "STRONGROOM_TEST_KERNEL";
/// The package that depends on that of the newest.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Fetches it where it is missing; gives its file.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::cache_dir()?.join("kernel");
    let kernel = dir.join("vmlinuz");
    if kernel.exists() {
        return Ok(kernel);
    }
    run::heading("fetch a kernel for machines of tests");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let depends = run::capture(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let newest = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let newest = newest.with_context(|| format!("Debian has no package {PACKAGE}"))?;
    let mut download = Command::new("apt-get");
    run::run(download.args(["download", "-q", newest]).current_dir(&dir))?;
    let package = only(&dir, ".deb")?;
    let all = dir.join("all");
    run::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&all))?;
    fs::remove_file(package)?;
    // Last, so that what is half there is fetched again.
    fs::rename(only(&all.join("boot"), "")?, &kernel)?;
    fs::remove_dir_all(&all)?;
    Ok(kernel)
}

/// The kernel, or the package, in a directory.
fn only(dir: &std::path::Path, end: &str) -> Result<PathBuf> {
    let begin = if end.is_empty() { "vmlinuz" } else { "" };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(begin) && name.ends_with(end) {
            return Ok(entry.path());
        }
    }
    bail!("{} has no {begin}…{end}", dir.display())
}
