//! Pools of version 1 as they were first written: every later build opens them, restores from
//! them, finds them sound, and knows their content again.

use std::path::Path;

use crate::support::{Lab, output, tool};

/// Copies one of the pools to `pool` in the lab, with what it was made from in `tree`.
fn lab_with(name: &str) -> Lab {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pools-v1");
    let lab = Lab::new();
    let copy = |from: &str, to: &str| {
        output(tool("cp").arg("-r").arg(golden.join(from)).arg(lab.path(to)));
    };
    copy("tree", "tree");
    copy("password", "golden.pw");
    if name == "striped" {
        copy(name, "disks");
        let line = "pool import pool --disk disks/d0 --disk disks/d1 --disk disks/d2";
        lab.run(line).code(0);
    } else {
        copy(name, "pool");
    }
    lab
}

fn open_and_use(name: &str) {
    let lab = lab_with(name);
    let key = if name == "plain" { "" } else { "--password-file golden.pw" };
    let images = lab.run(&format!("images list --json {key}")).code(0).json();
    assert_eq!(images["images"].as_array().map(Vec::len), Some(2), "{images}");
    lab.run(&format!("restore golden:/tmp/golden/tree --to back {key}")).code(0);
    output(
        tool("diff").args(["-r", "--no-dereference"]).arg(lab.path("tree")).arg(lab.path("back")),
    );
    let image = lab.run(&format!("cat image {key}")).code(0).out;
    assert_eq!(image, std::fs::read(lab.path("tree/noise.bin")).unwrap());
    lab.run(&format!("pool check --read-data {key}")).code(0);
    // The same content is cut, named and found as it was then.
    let stored = lab.run(&format!("backup tree --json --name again {key}")).code(0).json();
    // Only the directories are new: their copies have times of their own.
    assert!(stored["new_bytes"].as_u64().unwrap() < 2000, "{stored}");
    lab.run(&format!("forget --keep-last 1 --prune {key}")).code(0);
    lab.run(&format!("pool check --read-data {key}")).code(0);
}

#[test]
fn a_clear_pool_of_version_1_opens() {
    open_and_use("plain");
}

#[test]
fn a_sealed_pool_of_version_1_opens() {
    open_and_use("sealed");
}

#[test]
fn a_striped_pool_of_version_1_opens() {
    open_and_use("striped");
}
