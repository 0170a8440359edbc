//! Files: small ones that are there whole or not at all, and sums of any.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

/// Reads a file that has no more bytes than that.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // What isn't a file may have no end, or nobody at the other one.
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// The bytes of a file, and their SHA-256.
pub(crate) fn sum(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, HEXLOWER.encode(context.finish().as_ref())));
        }
        context.update(&buffer[..count]);
        bytes += count as u64;
    }
}

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Puts a file in the place of what is there, for its owner alone: cut off anywhere, the old or the
/// new is there. Callers take turns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by(&path.with_extension("new"), path, bytes, 0o600, None)
}

/// The same by a draft of that name, with that mode, and of that user and group; none: of whom it is
/// by itself.
pub(crate) fn replace_by(
    draft: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    // One that was cut off may have left anything.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    let mut put = || {
        let meta = file.metadata()?;
        if let Some((user, group)) = owner.filter(|owner| *owner != (meta.uid(), meta.gid())) {
            fchown(&file, Some(user), Some(group))?;
        }
        // Whatever the process takes away from new files.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(draft, path)
    };
    if let Err(error) = put() {
        let _ = fs::remove_file(draft);
        return Err(error);
    }
    sync(path)
}

/// Has the directory of a file keep what was done to that.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_cut_off_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.txt");
        replace(&path, b"old").unwrap();
        let other = dir.path().join("other");
        fs::write(&other, "other").unwrap();
        // A half, and a link that somebody laid.
        for trap in ["half", "link"] {
            let new = dir.path().join("file.new");
            match trap {
                "half" => fs::write(&new, "ne").unwrap(),
                _ => symlink(&other, &new).unwrap(),
            }
            // What is there is replaced, and not written over.
            let again = dir.path().join("again");
            fs::hard_link(&path, &again).unwrap();
            assert_eq!(read(&path, 10).unwrap(), b"old");
            replace(&path, trap.as_bytes()).unwrap();
            assert_eq!(read(&path, 10).unwrap(), trap.as_bytes());
            assert_eq!(read(&again, 10).unwrap(), b"old");
            fs::remove_file(&again).unwrap();
            replace(&path, b"old").unwrap();
        }
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_small_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(read(&path, 4).is_err());
        assert!(read(dir.path(), 5).is_err());
        assert!(read(Path::new("/dev/zero"), 5).is_err());
        assert!(read(&dir.path().join("none"), 5).is_err());
    }
}
