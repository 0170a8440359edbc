//! Files of the machine: what was there before is known, and each is there whole.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// Who is asked for names (resolv.conf(5)).
pub(super) const RESOLV: &str = "etc/resolv.conf";
/// The name of the host (hostname(5)).
pub(super) const HOSTNAME: &str = "etc/hostname";
/// Who chrony asks for the time, beside what its own configuration says: Debian's has a directory of
/// sources that are read again without a restart.
pub(super) const CHRONY: &str = "etc/chrony/sources.d/strongroom.sources";
/// Bytes of such a file.
const MOST: u64 = 64 << 10;

/// What was at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    path: String,
    was: Was,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Was {
    Absent,
    File {
        content: String,
        mode: u32,
        /// Whose it is: user and group.
        owner: (u32, u32),
    },
    Link {
        to: PathBuf,
    },
}

impl Before {
    /// What is there now.
    pub(super) fn of(root: &Path, path: &str) -> Result<Self, String> {
        Ok(Self { path: path.to_owned(), was: look(&root.join(path))? })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Makes it so again; whether it was otherwise.
    pub(super) fn put_back(&self, root: &Path) -> Result<bool, String> {
        let path = root.join(&self.path);
        // What can't be read any more is no reason not to put it back.
        if look(&path).is_ok_and(|now| now == self.was) {
            return Ok(false);
        }
        match &self.was {
            Was::Absent => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(told(&path)(error)),
                _ => sync(&path).map(|()| true),
            },
            Was::File { content, mode, owner } => {
                let content = BASE64.decode(content.as_bytes());
                let content = content.map_err(|error| format!("what was kept of it: {error}"))?;
                let replace =
                    |owner| crate::files::replace_by(&draft(&path), &path, &content, *mode, owner);
                let Err(error) = replace(Some(*owner)) else { return Ok(true) };
                replace(None).map_err(told(&path))?;
                let (user, group) = owner;
                let path = path.display();
                Err(format!("{path} is back, but not the file of {user}:{group} again: {error}"))
            }
            Was::Link { to } => {
                let draft = draft(&path);
                let _ = fs::remove_file(&draft);
                let made = std::os::unix::fs::symlink(to, &draft);
                let put = made.and_then(|()| fs::rename(&draft, &path));
                put.map_err(told(&path))?;
                sync(&path).map(|()| true)
            }
        }
    }
}

fn look(path: &Path) -> Result<Was, String> {
    let failed = told(path);
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Was::Absent),
        Err(error) => return Err(failed(error)),
    };
    if meta.is_symlink() {
        return Ok(Was::Link { to: fs::read_link(path).map_err(&failed)? });
    }
    let content = crate::files::read(path, MOST).map_err(&failed)?;
    let mode = meta.permissions().mode() & 0o7777;
    let owner = (meta.uid(), meta.gid());
    Ok(Was::File { content: BASE64.encode(&content), mode, owner })
}

fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".strongroom");
    name.into()
}

/// What went wrong with a file.
pub(super) fn told(path: &Path) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

fn sync(path: &Path) -> Result<(), String> {
    crate::files::sync(path).map_err(told(path))
}

/// Writes a file that everybody may read, in the place of what is there, be it a link.
pub(super) fn put(path: &Path, content: &[u8]) -> Result<(), String> {
    crate::files::replace_by(&draft(path), path, content, 0o644, None).map_err(told(path))
}

/// Removes a file of ours; whether there was one.
pub(super) fn remove(path: &Path) -> Result<bool, String> {
    match fs::remove_file(path) {
        Ok(()) => sync(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(told(path)(error)),
    }
}

/// Whether a file can be put there: its directory is, and takes one.
pub(super) fn may_write(path: &Path) -> Result<(), String> {
    let draft = draft(path);
    let _ = fs::remove_file(&draft);
    let made = OpenOptions::new().write(true).create_new(true).open(&draft);
    let _ = fs::remove_file(&draft);
    made.map_err(|error| format!("{} can't be written: {error}", path.display()))?;
    // One that is mounted by itself can't be replaced.
    let is_mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = path.to_string_lossy();
    match is_mounted.lines().any(|line| line.split(' ').nth(4) == Some(&*path)) {
        true => Err(format!("{path} is mounted by itself, and can't be replaced")),
        false => Ok(()),
    }
}

/// The name that the kernel has for the host.
pub(super) fn kernel_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Gives the kernel another.
pub(super) fn set_kernel_name(name: &str) -> Result<(), String> {
    let set = rustix::system::sethostname(name.as_bytes());
    set.map_err(|error| format!("the kernel does not take the name: {error}"))
}

/// What stands at the front of files that are made.
pub(super) const MADE: &str =
    "# Made by Strongroom; `strongroom system network set` changes what is said here.\n";

/// The text of a `resolv.conf`.
pub(super) fn resolv<'a>(servers: impl IntoIterator<Item = &'a std::net::IpAddr>) -> String {
    let lines = servers.into_iter().map(|server| format!("nameserver {server}\n"));
    MADE.to_owned() + &lines.collect::<String>()
}

/// The text of chrony's sources.
pub(super) fn chrony(servers: &[String]) -> String {
    let lines = servers.iter().map(|server| format!("server {server} iburst\n"));
    MADE.to_owned() + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_there_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("etc")).unwrap();
        let path = root.join(RESOLV);
        let other = root.join("stub");
        fs::write(&other, "stub").unwrap();
        for case in 0..3 {
            let _ = fs::remove_file(&path);
            match case {
                0 => {}
                1 => {
                    fs::write(&path, b"old\xff").unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
                    if rustix::process::geteuid().is_root() {
                        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
                    }
                }
                _ => symlink("../stub", &path).unwrap(),
            }
            let before = Before::of(root, RESOLV).unwrap();
            let text = serde_json::to_string(&before).unwrap();
            let before: Before = serde_json::from_str(&text).unwrap();
            assert!(!before.put_back(root).unwrap());
            put(&path, b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert!(path.symlink_metadata().unwrap().is_file());
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
            assert!(before.put_back(root).unwrap());
            assert_eq!(Before::of(root, RESOLV).unwrap(), before);
            assert_eq!(fs::read(&other).unwrap(), b"stub", "a link is not written through");
        }
        assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 1);
    }

    #[test]
    fn where_nothing_can_be_written_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = may_write(&dir.path().join(CHRONY)).unwrap_err();
        assert!(error.contains("sources.d"), "{error}");
        fs::create_dir(dir.path().join("etc")).unwrap();
        may_write(&dir.path().join(RESOLV)).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 0);
        fs::write(dir.path().join(RESOLV), vec![b'#'; MOST as usize + 1]).unwrap();
        assert!(Before::of(dir.path(), RESOLV).is_err());
    }

    #[test]
    fn files_say_what_is_set() {
        let servers = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let text = resolv(&servers);
        assert!(text.ends_with("\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), "{text}");
        let text = chrony(&["a.example".into(), "192.0.2.1".into()]);
        assert!(text.ends_with("\nserver a.example iburst\nserver 192.0.2.1 iburst\n"), "{text}");
    }
}
