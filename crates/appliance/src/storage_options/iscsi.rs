//! What of iSCSI goes past its tool: the login, which as a word of a command everybody on the machine
//! could read, and which disk came of it.

use std::fs;
use std::path::{Path, PathBuf};

use strongroom_identity::Secret;
use zeroize::Zeroizing;

use super::machine::Machine;
use crate::files;

/// Where open-iscsi keeps what it knows of targets, in one distribution or another.
const RECORDS: [&str; 2] = ["/etc/iscsi/nodes", "/var/lib/iscsi/nodes"];
/// Bytes of such a record.
const SIZE: u64 = 256 << 10;
/// Files and directories of one target.
const MANY: usize = 256;

/// The files with the records of a target.
pub(super) fn records(machine: &Machine, target: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in RECORDS {
        below(&machine.path(dir).join(target), 2, &mut found);
    }
    found
}

fn below(dir: &Path, deep: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().take(MANY) {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && deep > 0 => below(&entry.path(), deep - 1, found),
            _ => {}
        }
    }
}

/// Sets how one logs in at a target, in the records that the tool has made.
pub(super) fn set_login(
    machine: &Machine,
    target: &str,
    username: &str,
    password: &Secret,
) -> Result<(), String> {
    let found = records(machine, target);
    if found.is_empty() {
        let [one, other] = RECORDS;
        return Err(format!("iscsiadm has no record of the target in {one} or {other}"));
    }
    for path in found {
        let failed = |error| format!("{}: {error}", path.display());
        let text = Zeroizing::new(files::read(&path, SIZE).map_err(failed)?);
        let text = std::str::from_utf8(&text).map_err(|_| failed_text(&path))?;
        let new = with_login(text, username, password);
        files::replace(&path, new.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

/// Removes what of a record was being written when that was cut off; the tool doesn't know it.
pub(super) fn remove_begun(machine: &Machine, target: &str) -> Result<(), String> {
    for path in records(machine, target) {
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(())
}

fn failed_text(path: &Path) -> String {
    format!("{}: it is no text", path.display())
}

/// The record with these values in the place of those that it has.
fn with_login(record: &str, username: &str, password: &Secret) -> Zeroizing<String> {
    let new = [
        ("node.session.auth.authmethod", "CHAP"),
        ("node.session.auth.username", username),
        ("node.session.auth.password", password.expose()),
    ];
    let mut out = Zeroizing::new(String::with_capacity(record.len() + 1024));
    let is_old = |line: &str| {
        let name = line.split('=').next().unwrap_or_default().trim();
        new.iter().any(|(known, _)| *known == name)
    };
    let mut written = false;
    let mut write = |out: &mut String| {
        if !std::mem::replace(&mut written, true) {
            for (name, value) in new {
                for part in [name, " = ", value, "\n"] {
                    out.push_str(part);
                }
            }
        }
    };
    for line in record.lines() {
        if line.trim() == "# END RECORD" {
            write(&mut out);
        }
        if !is_old(line) {
            out.push_str(line);
            out.push('\n');
        }
    }
    write(&mut out);
    out
}

/// The sessions with a target.
fn sessions(machine: &Machine, target: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(machine.path("/sys/class/iscsi_session")) else {
        return Vec::new();
    };
    let is_of = |path: &PathBuf| {
        fs::read(path.join("targetname")).is_ok_and(|name| super::attach::text(name) == target)
    };
    entries.flatten().map(|entry| entry.path()).filter(is_of).collect()
}

/// Whether it is logged in.
pub(super) fn is_there(machine: &Machine, target: &str) -> bool {
    !sessions(machine, target).is_empty()
}

/// The name of the first disk of a target: that of the lowest logical unit.
pub(super) fn disk(machine: &Machine, target: &str) -> Option<String> {
    let mut disks = Vec::new();
    for session in sessions(machine, target) {
        for channel in names(&session.join("device"), "target") {
            for unit in names(&channel, "") {
                let name = unit.file_name()?.to_string_lossy().into_owned();
                let number = name.rsplit(':').next().and_then(|lun| lun.parse::<u64>().ok());
                let Some(number) = number else { continue };
                for disk in names(&unit.join("block"), "") {
                    disks.push((number, disk.file_name()?.to_string_lossy().into_owned()));
                }
            }
        }
    }
    disks.sort();
    disks.into_iter().next().map(|(_, name)| name)
}

fn names(dir: &Path, begin: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let entries = entries.flatten().take(MANY);
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(begin))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TARGET: &str = "iqn.2016-01.com.example:storage.lun1";

    #[test]
    fn the_login_is_in_the_record_alone() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::at(dir.path(), &[]);
        let secret = Secret::new("pa=ss#1");
        let error = set_login(&machine, TARGET, "user", &secret).unwrap_err();
        assert!(error.contains("/etc/iscsi/nodes") && !error.contains("pa=ss"), "{error}");
        let record =
            dir.path().join("etc/iscsi/nodes").join(TARGET).join("10.0.0.1,3260,1/default");
        fs::create_dir_all(record.parent().unwrap()).unwrap();
        let text = "# BEGIN RECORD 2.1.8\nnode.name = x\nnode.session.auth.authmethod = None\n\
                    node.session.auth.username = old\nnode.startup = manual\n# END RECORD\n";
        fs::write(&record, text).unwrap();
        set_login(&machine, TARGET, "user", &secret).unwrap();
        let expected = "# BEGIN RECORD 2.1.8\nnode.name = x\nnode.startup = manual\n\
                        node.session.auth.authmethod = CHAP\nnode.session.auth.username = user\n\
                        node.session.auth.password = pa=ss#1\n# END RECORD\n";
        assert_eq!(fs::read_to_string(&record).unwrap(), expected);
        assert_eq!(record.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // Once more, and one without an end.
        set_login(&machine, TARGET, "user", &secret).unwrap();
        assert_eq!(fs::read_to_string(&record).unwrap(), expected);
        let password = "node.session.auth.password = p\n";
        assert!(with_login("a = b", "user", &Secret::new("p")).ends_with(password));
    }

    #[test]
    fn the_disk_is_that_of_the_lowest_unit() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::at(dir.path(), &[]);
        assert_eq!(disk(&machine, TARGET), None);
        let class = dir.path().join("sys/class/iscsi_session");
        let session = |number: u32, target: &str, units: &[(&str, &str)]| {
            let session = class.join(format!("session{number}"));
            fs::create_dir_all(session.join("device")).unwrap();
            fs::write(session.join("targetname"), format!("{target}\n")).unwrap();
            for (unit, disk) in units {
                let unit = session.join("device/target3:0:0").join(unit);
                fs::create_dir_all(unit.join("block").join(disk)).unwrap();
            }
        };
        session(1, "iqn.2016-01.com.example:other", &[("2:0:0:0", "sda")]);
        assert!(!is_there(&machine, TARGET));
        session(2, TARGET, &[]);
        assert!(is_there(&machine, TARGET));
        assert_eq!(disk(&machine, TARGET), None);
        session(2, TARGET, &[("3:0:0:10", "sdb"), ("3:0:0:2", "sdc")]);
        assert_eq!(disk(&machine, TARGET).unwrap(), "sdc");
    }
}
