//! Where things of this user are: the appliance that runs here, and where one is logged in.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A directory by one of its usual names.
fn dir(variable: &str, below_home: &str) -> Result<PathBuf> {
    let given = std::env::var_os(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(below_home));
    match given.or_else(home) {
        Some(dir) if dir.is_absolute() => Ok(dir.join("strongroom")),
        _ => bail!("neither {variable} nor HOME names a directory"),
    }
}

/// The file with the logins.
pub(crate) fn logins() -> Result<PathBuf> {
    Ok(dir("XDG_CONFIG_HOME", ".config")?.join("logins.json"))
}

/// The file with the data directory of the appliance that was started last.
fn noted() -> Result<PathBuf> {
    Ok(dir("XDG_STATE_HOME", ".local/state")?.join("appliance"))
}

/// Notes the data directory of an appliance that is up, for the commands of the same user.
pub(crate) fn note(data: &Path) -> Result<()> {
    let path = noted()?;
    let dir = path.parent().context("the file is in a directory")?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("making {}", dir.display()))?;
    let new = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&new, data.as_os_str().as_encoded_bytes())
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("writing {}", path.display()))
}

/// Takes the note back, if it is still about this one.
pub(crate) fn forget(data: &Path) -> Result<()> {
    match running()? {
        Some(noted_dir) if noted_dir == data => {
            let path = noted()?;
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The data directory that was noted last.
pub(crate) fn running() -> Result<Option<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    let path = noted()?;
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(std::ffi::OsString::from_vec(bytes).into())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}
