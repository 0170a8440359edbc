//! The unit of systemd: understood by systemd, and shut in as far as it says.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging");
const DROP_INS: [&str; 5] = [
    "attach-storage",
    "backup-this-machine",
    "change-the-network",
    "pools-elsewhere",
    "restore-to-this-machine",
];

/// The unit in a directory of its own, with a program that is there, and one more drop-in.
fn unit(drop_in: Option<&str>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(format!("{PACKAGING}/systemd/strongroom.service")).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/strongroom up "));
    let text = text.replace("/usr/bin/strongroom", "/bin/true");
    fs::write(dir.path().join("strongroom.service"), text).unwrap();
    if let Some(name) = drop_in {
        let more = dir.path().join("strongroom.service.d");
        fs::create_dir(&more).unwrap();
        fs::copy(format!("{PACKAGING}/systemd/{name}.conf"), more.join("more.conf")).unwrap();
    }
    dir
}

fn analyze(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).arg(dir.join("strongroom.service"));
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", dir.display())).output().unwrap()
}

#[test]
fn systemd_understands_the_unit_and_what_may_be_added() {
    for drop_in in std::iter::once(None).chain(DROP_INS.map(Some)) {
        let dir = unit(drop_in);
        let told = analyze(dir.path(), &["verify", "--man=no"]);
        let text = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.status.success() && text.is_empty(), "{drop_in:?}: {text}");
    }
    // The check notices what it is for.
    let dir = unit(None);
    let path = dir.path().join("strongroom.service");
    let text = fs::read_to_string(&path).unwrap().replace("ProtectSystem=", "ProtectSytem=");
    fs::write(path, text).unwrap();
    let told = analyze(dir.path(), &["verify", "--man=no"]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("ProtectSytem"));
}

#[test]
fn the_service_is_shut_in() {
    // In tenths: 1.5 of 10 is what it is; 9.6 is a service that isn't shut in at all.
    let exposed = |dir: &Path| {
        let told = analyze(dir, &["security", "--offline=true", "--no-pager", "--threshold=15"]);
        (!told.status.success(), String::from_utf8_lossy(&told.stdout).into_owned())
    };
    let dir = unit(None);
    let (too_much, text) = exposed(dir.path());
    assert!(!too_much, "{text}");
    let path = dir.path().join("strongroom.service");
    let text = fs::read_to_string(&path).unwrap();
    let open = text.lines().filter(|line| !line.starts_with("CapabilityBoundingSet="));
    fs::write(path, open.collect::<Vec<_>>().join("\n")).unwrap();
    assert!(exposed(dir.path()).0, "the threshold notices nothing");
}

#[test]
fn it_has_the_time_that_it_needs_to_stop() {
    let text = fs::read_to_string(format!("{PACKAGING}/systemd/strongroom.service")).unwrap();
    let up = concat!(env!("CARGO_MANIFEST_DIR"), "/../strongroom/src/up/mod.rs");
    let up = fs::read_to_string(up).unwrap();
    let seconds = |name: &str| -> u64 {
        let (_, rest) =
            up.split_once(&format!("const {name}: Duration = Duration::from_secs(")).unwrap();
        rest.split_once(')').unwrap().0.parse().unwrap()
    };
    let (_, rest) = text.split_once("\nTimeoutStopSec=").unwrap();
    let stop: u64 = rest.split_once("s\n").unwrap().0.parse().unwrap();
    assert!(stop > seconds("DRAIN") + seconds("GRACE"), "systemd would kill it while it stops");
}
