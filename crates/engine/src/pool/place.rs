//! Where the disks of a pool are: what the pool's directory says.
//!
//! A pool of one disk may lie in the directory itself. Any other has a text file `pool.disks` in
//! its directory, with one line for each disk in the order of the layout:
//!
//! ```text
//! strongroom disks 1
//! disk /srv/disk1
//! disk /srv/disk2
//! ```
//!
//! Paths are absolute; bytes other than printable ASCII, and `%`, are written `%XX`. The file is
//! only a signpost: everything that matters is on the disks, and `import` writes it anew.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::superblock;

/// The signpost's name.
const FILE: &str = "pool.disks";
const FIRST_LINE: &str = "strongroom disks 1";
/// More disks than any layout has.
const MAX_LINES: usize = 64;
const MAX_LEN: u64 = 1 << 20;

/// The directories of a pool's disks, in the order of the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// One path for each disk.
    pub disks: Vec<PathBuf>,
}

impl Place {
    /// Reads where the pool at `dir` lies.
    ///
    /// # Errors
    /// [`Error::NotAPool`] when nothing there says so.
    pub fn find(dir: &Path) -> Result<Self> {
        let not_a_pool =
            |why: &str| Error::NotAPool { path: dir.display().to_string(), why: why.to_owned() };
        let path = dir.join(FILE);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_LEN => return Err(not_a_pool("pool.disks is too long")),
            Ok(_) => {}
            Err(_) if dir.join(superblock::FILE).exists() => {
                return Ok(Self { disks: vec![dir.to_owned()] });
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(not_a_pool(
                    "it has neither pool.disks nor a superblock; `strongroom pool create` makes \
                     a pool, `strongroom pool import` finds one on its disks",
                ));
            }
            Err(e) => return Err(Error::io(format!("reading {}", path.display()), e)),
        }
        let text = fs::read_to_string(&path)
            .map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(not_a_pool("pool.disks does not begin as it should"));
        }
        let disks: Option<Vec<PathBuf>> =
            lines.take(MAX_LINES).map(|line| unescape(line.strip_prefix("disk ")?)).collect();
        match disks {
            Some(disks) if !disks.is_empty() => Ok(Self { disks }),
            _ => Err(not_a_pool("pool.disks has a line that is not «disk PATH»")),
        }
    }

    /// Writes where the pool at `dir` lies; nothing when it is the directory itself.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn write(&self, dir: &Path) -> Result<()> {
        if self.disks == [dir.to_owned()] {
            return Ok(());
        }
        let mut text = format!("{FIRST_LINE}\n");
        for disk in &self.disks {
            text.push_str(&format!("disk {}\n", escape(disk)));
        }
        let new = dir.join(format!("{FILE}.new"));
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, dir.join(FILE))?;
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(|e| Error::io(format!("writing {}", dir.join(FILE).display()), e))
    }
}

fn escape(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | 0..=0x20 | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    (!bytes.is_empty()).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn odd_paths_survive_the_signpost() {
        let dir = tempfile::tempdir().unwrap();
        let odd = PathBuf::from(OsString::from_vec(b"/a b/100%/\xff\n".to_vec()));
        let place = Place { disks: vec![odd, PathBuf::from("/srv/d2")] };
        place.write(dir.path()).unwrap();
        assert_eq!(Place::find(dir.path()).unwrap(), place);
    }

    #[test]
    fn what_is_no_pool_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Place::find(dir.path()).unwrap_err().to_string();
        assert!(error.contains("pool create"), "{error}");
        fs::write(dir.path().join(FILE), "strongroom disks 1\nnonsense\n").unwrap();
        assert!(Place::find(dir.path()).is_err());
    }
}
