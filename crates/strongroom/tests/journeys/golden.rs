//! Pools of version 1 as they were first written: every later build opens them, restores from
//! them, finds them sound, and knows their content again. So it does with pools of its own.
//! `tests/golden/README.md` tells what they are and how one is added.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{Lab, must_be_root, noise, output, tool};

/// Where the pools lie.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pools-v1")
}

/// Where what is in them lay when they were made.
const ORIGIN: &str = "/tmp/golden";

fn copy(from: &Path, to: &Path) {
    output(tool("cp").arg("-r").arg(from).arg(to));
}

/// Copies one of the pools to `pool` in the lab, with what it was made from in `tree`.
fn lab_with(name: &str) -> Lab {
    let lab = Lab::new();
    copy(&golden().join("tree"), &lab.path("tree"));
    copy(&golden().join("password"), &lab.path("golden.pw"));
    let disks = fs::read_dir(golden().join(name)).unwrap();
    let mut disks: Vec<_> = disks.map(|disk| disk.unwrap().file_name()).collect();
    disks.retain(|name| name.as_bytes()[0] == b'd' && name.len() == 2);
    disks.sort();
    if disks.is_empty() {
        copy(&golden().join(name), &lab.path("pool"));
    } else {
        copy(&golden().join(name), &lab.path("disks"));
        let mut line = "pool import pool".to_owned();
        disks.iter().for_each(|disk| line += &format!(" --disk disks/{}", disk.display()));
        lab.run(&line).code(0);
    }
    lab
}

fn same_content(left: &Path, right: &Path) {
    output(tool("diff").args(["-r", "--no-dereference"]).arg(left).arg(right));
}

fn open_and_use(name: &str, key: &str) -> Lab {
    let lab = lab_with(name);
    use_tree(&lab, ORIGIN, key);
    lab
}

fn use_tree(lab: &Lab, origin: &str, key: &str) {
    let images = lab.run(&format!("images list --json {key}")).code(0).json();
    assert_eq!(images["images"].as_array().map(Vec::len), Some(2), "{images}");
    lab.run(&format!("restore golden:{origin}/tree --to back {key}")).code(0);
    same_content(&lab.path("tree"), &lab.path("back"));
    let image = lab.run(&format!("cat image {key}")).code(0).out;
    assert_eq!(image, fs::read(lab.path("tree/noise.bin")).unwrap());
    lab.run(&format!("pool check --read-data {key}")).code(0);
    // The same content is cut, named and found as it was then.
    let stored = lab.run(&format!("backup tree --json --name again {key}")).code(0).json();
    // Only the directories are new: their copies have times of their own.
    assert!(stored["new_bytes"].as_u64().unwrap() < 2000, "{stored}");
    lab.run(&format!("forget --keep-last 1 --prune {key}")).code(0);
    lab.run(&format!("pool check --read-data {key}")).code(0);
}

const PASSWORD: &str = "--password-file golden.pw";
const OWN_KEY: &str = "--client-key-file own.key";

#[test]
fn a_clear_pool_of_version_1_opens() {
    open_and_use("plain", "");
}

#[test]
fn a_sealed_pool_of_version_1_opens() {
    open_and_use("sealed", PASSWORD);
}

#[test]
fn a_striped_pool_of_version_1_opens() {
    open_and_use("striped", PASSWORD);
}

#[test]
fn a_mirror_of_version_1_opens() {
    use_mirror(&open_and_use("mirror", ""));
}

/// Each disk alone has all of it.
fn use_mirror(lab: &Lab) {
    for gone in ["d0", "d1"] {
        let away = lab.path("away");
        fs::rename(lab.path("disks").join(gone), &away).unwrap();
        lab.run(&format!("restore again --to without-{gone} --verify")).code(0);
        let inside = lab.inside(&format!("without-{gone}"), "tree");
        same_content(&lab.path("tree"), &inside);
        fs::rename(&away, lab.path("disks").join(gone)).unwrap();
    }
}

#[test]
fn images_of_version_1_sealed_under_a_clients_own_key_open() {
    let lab = lab_with("client-key");
    copy(&golden().join("own.key"), &lab.path("own.key"));
    use_own_key(&lab, ORIGIN);
}

fn use_own_key(lab: &Lab, origin: &str) {
    lab.run(&format!("restore golden:{origin}/tree --to back --verify {OWN_KEY}")).code(0);
    same_content(&lab.path("tree"), &lab.path("back"));
    let image = lab.run(&format!("cat image {OWN_KEY}")).code(0).out;
    assert_eq!(image, fs::read(lab.path("tree/noise.bin")).unwrap());
    let refused = lab.run("ls golden").code(1);
    assert!(refused.err.contains("--client-key-file"), "{}", refused.err);
    lab.run("pool check --read-data").code(0);
    // Content is cut, sealed and named as it was then: under the same key it is known again.
    let stored = lab.run(&format!("backup tree --json --name again {OWN_KEY}")).code(0).json();
    assert!(stored["new_bytes"].as_u64().unwrap() < 2000, "{stored}");
    lab.run("forget --keep-last 1 --prune").code(0);
    lab.run(&format!("restore again --to again --verify {OWN_KEY}")).code(0);
    same_content(&lab.path("tree"), &lab.inside("again", "tree"));
}

#[test]
fn every_kind_of_file_comes_back_from_a_pool_of_version_1() {
    must_be_root();
    let lab = lab_with("kinds");
    let line = format!("ls kinds:{ORIGIN}/kinds --recursive --json {PASSWORD}");
    let listed = lab.run(&line).code(0).text();
    assert_eq!(listed, fs::read_to_string(golden().join("kinds.ls")).unwrap());
    use_kinds(&lab, ORIGIN);
}

fn use_kinds(lab: &Lab, origin: &str) {
    let line =
        format!("restore kinds:{origin}/kinds --to back --verify --numeric-owner {PASSWORD}");
    lab.run(&line).code(0);
    let told = as_tools_tell(&lab.path("back"));
    let expected = fs::read_to_string(golden().join("kinds.txt")).unwrap();
    for (now, then) in told.lines().zip(expected.lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(told, expected);
    for file in ["sparse", "hole"] {
        let blocks = lab.path("back").join(file).metadata().unwrap().blocks();
        assert!(blocks < 256, "{file} is not sparse: {blocks} blocks");
    }
    lab.run(&format!("pool check --read-data {PASSWORD}")).code(0);
}

/// All that other people's tools tell of a tree: kind, mode, owner, times, devices, links, content,
/// attributes, ACLs. What filesystems do each in their own way (the size and the links of
/// directories) is left out.
fn as_tools_tell(dir: &Path) -> String {
    let found = output(tool("find").current_dir(dir).args([".", "-print0"]));
    let mut paths: Vec<&OsStr> =
        found.split(|b| *b == 0).filter(|path| !path.is_empty()).map(OsStr::from_bytes).collect();
    paths.sort();
    let mut text = String::new();
    let mut tell = |name: &str, args: &[&str], path: &OsStr| {
        let mut command = tool(name);
        command.current_dir(dir).env("LC_ALL", "C").env("TZ", "UTC").args(args).arg("--");
        let told = output(command.arg(path));
        text += &String::from_utf8_lossy(&told);
    };
    for path in paths {
        let meta = dir.join(path).symlink_metadata().unwrap();
        let format = match meta.is_dir() {
            true => "%N, %F, %a, %u:%g, %.9Y",
            false => "%N, %F, %a, %u:%g, %.9Y, %s bytes, device %t:%T, %h links",
        };
        tell("stat", &["-c", format], path);
        if meta.is_file() {
            tell("sha256sum", &[], path);
        }
        tell("getfattr", &["-h", "-d", "-m", "-", "-e", "hex"], path);
        if !meta.is_symlink() {
            tell("getfacl", &["-n", "-c", "-p"], path);
        }
    }
    text
}

/// The tree in the pool `kinds`. It must stay as it is: it says what is in there.
fn make_kinds(dir: &Path) {
    must_be_root();
    let sub = |path: &str| dir.join(path);
    fs::create_dir_all(sub("dir/below")).unwrap();
    fs::write(sub("attributes"), "with attributes\n").unwrap();
    fs::write(sub("acl"), "with an ACL\n").unwrap();
    fs::write(sub("capable"), "with capabilities\n").unwrap();
    fs::write(sub("setuid"), "with an owner\n").unwrap();
    fs::write(sub("linked"), "once\n").unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"not\xffutf8\n")), "a name of bytes\n").unwrap();
    fs::write(sub("dir/below/default"), "has what its directory gave it\n").unwrap();
    fs::hard_link(sub("linked"), sub("dir/linked-again")).unwrap();
    symlink("linked", sub("link")).unwrap();
    symlink(OsStr::from_bytes(b"no\xff/where"), sub("dangling")).unwrap();
    let sparse = fs::File::create(sub("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    sparse.write_all_at(&noise(2, 5000), 1_000_000).unwrap();
    fs::File::create(sub("hole")).unwrap().set_len((1 << 20) + 1).unwrap();
    output(tool("mkfifo").arg(sub("fifo")));
    output(tool("mknod").arg(sub("char")).args(["c", "1", "3"]));
    output(tool("mknod").arg(sub("block")).args(["b", "259", "70000"]));
    std::os::unix::net::UnixListener::bind(sub("socket")).unwrap();
    for (mode, path) in [("4755", "setuid"), ("0000", "linked"), ("1777", "dir"), ("640", "fifo")] {
        output(tool("chmod").arg(mode).arg(sub(path)));
    }
    output(tool("chown").args(["70000:70001"]).arg(sub("acl")).arg(sub("dir/below")));
    output(tool("chown").args(["-h", "33:44"]).arg(sub("link")).arg(sub("fifo")));
    let attribute = |path: &str, name: &str, value: &str| {
        output(tool("setfattr").args(["-n", name, "-v", value]).arg(sub(path)));
    };
    attribute("attributes", "user.note", "0x00ff01");
    attribute("attributes", "user.long", &format!("0x{}", "a5".repeat(2500)));
    attribute("attributes", "trusted.empty", "");
    attribute("dir", "user.of-a-directory", "yes");
    output(tool("setfacl").args(["-m", "u:1234:rw,g:99:r,m::rw"]).arg(sub("acl")));
    output(tool("setfacl").args(["-d", "-m", "u:1234:rx,g:99:---"]).arg(sub("dir")));
    output(tool("setcap").arg("cap_net_raw,cap_chown+ep").arg(sub("capable")));
    for (time, path) in [
        ("1969-07-20 20:17:40.123456789 UTC", "attributes"),
        ("1901-12-14 00:00:00 UTC", "acl"),
        ("2040-01-01 00:00:00.000000001 UTC", "capable"),
        ("2100-02-28 23:59:59.999999999 UTC", "link"),
        ("2020-02-02 02:02:02.020202020 UTC", "fifo"),
    ] {
        output(tool("touch").args(["-h", "-d", time]).arg(sub(path)));
    }
    let found = output(tool("find").arg(dir).args(["-newermt", "2026-01-01", "-print0"]));
    for path in found.split(|b| *b == 0).filter(|path| !path.is_empty()) {
        let late = dir.join(OsStr::from_bytes(path));
        if !["capable", "link"].iter().any(|name| late == sub(name)) {
            output(tool("touch").args(["-h", "-d", "2026-01-01 00:00:00.5 UTC"]).arg(late));
        }
    }
}

/// Makes a pool as the golden one of this name, of what it puts in `origin`.
fn make(name: &str, origin: &str) -> Lab {
    let lab = Lab::new();
    fs::create_dir(origin).unwrap();
    let sources = Path::new(origin);
    copy(&golden().join("tree"), &sources.join("tree"));
    copy(&golden().join("tree"), &lab.path("tree"));
    let backups = |key: &str| {
        lab.run(&format!("backup {origin}/tree --name golden {key}")).code(0);
        lab.run(&format!("backup --image {origin}/tree/noise.bin --name image {key}")).code(0);
    };
    match name {
        "mirror" => {
            lab.run("pool create pool --layout mirror --disk disks/d0 --disk disks/d1").code(0);
            backups("");
        }
        "client-key" => {
            fs::write(lab.path("own.key"), noise(77, 32)).unwrap();
            lab.run("pool create pool").code(0);
            backups(OWN_KEY);
        }
        _ => {
            make_kinds(&sources.join("kinds"));
            copy(&golden().join("password"), &lab.path("golden.pw"));
            lab.run(&format!("pool create pool --encrypt {PASSWORD}")).code(0);
            lab.run(&format!("backup {origin}/kinds --name kinds {PASSWORD}")).code(0);
        }
    }
    lab
}

/// Adds what was made to the golden files, where it is not there yet.
fn keep(lab: &Lab, name: &str) {
    if golden().join(name).exists() {
        return;
    }
    let pool = lab.path(if name == "mirror" { "disks" } else { "pool" });
    for disk in ["d0", "d1", "."] {
        for file in ["pool.lock", "pool.readers", "pool.holder"] {
            let _ = fs::remove_file(pool.join(disk).join(file));
        }
    }
    output(tool("cp").arg("-r").arg(pool).arg(golden().join(name)));
    match name {
        "client-key" => copy(&lab.path("own.key"), &golden().join("own.key")),
        "kinds" => {
            let line = format!("ls kinds:{ORIGIN}/kinds --recursive --json {PASSWORD}");
            fs::write(golden().join("kinds.ls"), lab.run(&line).code(0).out).unwrap();
            // As it was: what comes back of it is compared with this.
            let kinds = Path::new(ORIGIN).join("kinds");
            fs::remove_file(kinds.join("socket")).unwrap();
            output(tool("touch").args(["-d", "2026-01-01 00:00:00.5 UTC"]).arg(&kinds));
            fs::write(golden().join("kinds.txt"), as_tools_tell(&kinds)).unwrap();
        }
        _ => {}
    }
}

#[test]
fn pools_of_this_build_are_as_those_of_version_1() {
    let kept = std::env::var_os("STRONGROOM_KEEP_GOLDEN").is_some();
    for name in ["mirror", "client-key", "kinds"] {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("origin");
        let origin = if kept { ORIGIN } else { own.to_str().unwrap() };
        let lab = make(name, origin);
        if kept {
            keep(&lab, name);
        }
        fs::remove_dir_all(origin).unwrap();
        match name {
            "mirror" => {
                use_tree(&lab, origin, "");
                use_mirror(&lab);
            }
            "client-key" => use_own_key(&lab, origin),
            _ => use_kinds(&lab, origin),
        }
    }
}
