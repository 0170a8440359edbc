//! The Debian package: made, judged by lintian, installed for real, run as its service would be,
//! and removed again. The system that it is installed on is this machine's own, below an overlay
//! that forgets everything afterwards.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the command wrote, or why it failed.
fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{text}");
    text
}

/// Makes the package of the program that is tested.
fn package() -> PathBuf {
    let text = output(Command::new(env!("CARGO_BIN_EXE_xtask")).args(["deb", "--profile", "dev"]));
    text.lines().find(|line| line.ends_with(".deb")).map(PathBuf::from).unwrap()
}

#[test]
fn it_is_installed_run_removed_and_purged() {
    let package = package();
    let described = output(Command::new("dpkg-deb").arg("--info").arg(&package));
    assert!(described.contains("libc6 (>= "), "its libraries are not named: {described}");
    // Nobody asked Debian for it.
    output(
        Command::new("lintian")
            .args(["--fail-on", "error,warning", "--allow-root"])
            .args(["--suppress-tags", "initial-upload-closes-no-bugs"])
            .arg(&package),
    );

    assert!(
        rustix::process::geteuid().is_root(),
        "installing packages needs root: run this test as root"
    );
    let dir = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deb");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-eu"]);
    unshare.arg(scripts.join("overlay.sh")).arg(dir.path()).arg(&package);
    let told = output(unshare.arg(scripts.join("inside.sh")));
    for step in ["installed", "served", "removed", "purged", "nothing is left"] {
        assert!(told.lines().any(|line| line == step), "no `{step}` in:\n{told}");
    }
}
