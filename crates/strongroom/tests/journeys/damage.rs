//! What happens when bytes on disk are not what was written.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;

use crate::support::images::{files, mounted, spoil};
use crate::support::{Lab, assert_same, make_tree, must_be_root, noise, output, tool};

#[test]
fn rot_on_one_disk_is_mended() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool_of("2+1", 3);
    lab.run("backup src --name tree").code(0);
    assert!(spoil(&lab.path("d1")) > 0);
    lab.run("restore tree --to out").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    assert!(spoil(&lab.path("d1")) > 0);
    let mended = lab.run("pool scrub --json").code(0).json();
    assert!(mended["healed"].as_u64().unwrap() > 0, "{mended}");
    assert!(spoil(&lab.path("d0")) > 0);
    lab.run("pool check --read-data").code(0);
    lab.run("pool scrub").code(0);
    let clean = lab.run("pool scrub --json").code(0).json();
    assert_eq!((&clean["bad_units"], &clean["bad_shards"]), (&0.into(), &0.into()));
    lab.run("pool check --read-data").code(0);
}

/// A pool of several disks with one file in it; one disk has rot where it is read first. The disk,
/// the file with the rot, and what it should be.
struct Rotten {
    lab: Lab,
    disk: String,
    file: PathBuf,
    good: Vec<u8>,
}

impl Rotten {
    fn new(layout: &str, disks: usize) -> Self {
        let lab = Lab::new();
        fs::create_dir(lab.path("src")).unwrap();
        fs::write(lab.path("src/large"), noise(1, 3_000_000)).unwrap();
        lab.make_pool_of(layout, disks);
        lab.run("backup src --name tree").code(0);
        let first = |path: &&PathBuf| {
            path.extension().is_some_and(|shard| shard == "00")
                && path.metadata().unwrap().len() > 500_000
        };
        let (disk, file) = (0..disks)
            .find_map(|disk| {
                let disk = format!("d{disk}");
                let file = files(&lab.path(&disk)).iter().find(first).cloned()?;
                Some((disk, file))
            })
            .unwrap();
        let good = fs::read(&file).unwrap();
        let rotten = Self { lab, disk, file, good };
        rotten.rot();
        rotten
    }

    fn rot(&self) {
        assert_eq!(spoil(&self.lab.path(&self.disk)), 1);
        assert!(!self.is_whole());
    }

    fn is_whole(&self) -> bool {
        fs::read(&self.file).unwrap() == self.good
    }

    fn restore(&self, to: &str) -> String {
        let run = self.lab.run(&format!("restore tree --to {to}")).code(0);
        assert_same(&self.lab.path("src"), &self.lab.inside(to, "src"));
        run.err
    }
}

fn reading_mends(layout: &str, disks: usize) {
    let rotten = Rotten::new(layout, disks);
    let (lab, disk) = (&rotten.lab, &rotten.disk);
    let mended = format!("mended 1 unit on {}", lab.path(disk).display());
    let said = rotten.restore("out");
    assert!(said.contains(&mended), "{said}");
    assert!(rotten.is_whole());
    assert_eq!(rotten.restore("quiet"), "");
    // So do all others that read.
    let large = format!("tree:{}/src/large", lab.path("").display());
    for line in [format!("cat {large}"), "dump tree".into(), "pool check --read-data".into()] {
        rotten.rot();
        let run = lab.run(&line).code(0);
        assert!(run.err.contains(&mended), "{line}: {}", run.err);
        assert!(rotten.is_whole(), "{line}");
    }
    rotten.rot();
    let notes = lab.run("restore tree --to again --json").code(0).json()["notes"].to_string();
    assert!(notes.contains(&mended), "{notes}");
    rotten.rot();
    fs::create_dir(lab.path("mnt")).unwrap();
    let mut mount = mounted(lab.command(["mount", "tree", "mnt"]));
    assert_same(&lab.path("src"), &lab.inside("mnt", "src"));
    output(tool("umount").arg(lab.path("mnt")));
    assert_eq!(mount.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    mount.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains(&mended), "{said}");
    // The disk counts again: another one may go.
    let other = (0..disks).map(|disk| format!("d{disk}")).find(|other| other != disk).unwrap();
    fs::remove_dir_all(lab.path(&other)).unwrap();
    let said = rotten.restore("without");
    assert!(!said.contains("unit"), "{said}");
}

#[test]
fn who_reads_a_striped_pool_mends_it() {
    reading_mends("2+1", 3);
}

#[test]
fn who_reads_a_mirror_mends_it() {
    reading_mends("mirror", 2);
}

#[test]
fn what_can_not_be_mended_now_is_said() {
    let rotten = Rotten::new("2+1", 3);
    let lab = &rotten.lab;
    // While another process writes.
    let mut writer = lab
        .command(["backup", "--stdin", "--name", "slow"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    lab.wait_for_writer("d0", &mut writer);
    let process = format!("process {}", writer.id());
    let said = rotten.restore("beside");
    for part in ["1 unit on", "can't be mended now", &process, "strongroom pool scrub"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!rotten.is_whole());
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());

    // On disks that can't be written.
    must_be_root();
    let disks: Vec<_> = ["d0", "d1", "d2"].iter().map(|disk| lab.path(disk)).collect();
    let mount = |disk: &PathBuf| {
        let bound = tool("mount").arg("--bind").args([disk, disk]).status().unwrap();
        let locked = tool("mount").args(["-o", "remount,bind,ro"]).arg(disk).status().unwrap();
        bound.success() && locked.success()
    };
    if disks.iter().all(mount) {
        let said = rotten.restore("read-only");
        for part in ["can't be mended now", "Read-only file system", "strongroom pool scrub"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    } else {
        eprintln!("NOT TESTED: disks that can't be written: nothing can be mounted here");
    }
    for disk in &disks {
        let _ = tool("umount").arg(disk).status();
    }
    assert!(!rotten.is_whole());
    rotten.restore("after");
    assert!(rotten.is_whole());
}

#[test]
fn what_a_restore_finds_lost_is_stored_again_by_the_next_backup() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/large"), noise(1, 5_000_000)).unwrap();
    lab.make_pool();
    lab.run("backup src --name one").code(0);
    assert!(spoil(&lab.path("pool")) > 0);
    let run = lab.run("restore one --to out").code(3);
    assert!(run.err.contains("no disk can make good left the index"), "{}", run.err);
    let healed = lab.run("backup src --name two --read-all --json").code(0).json();
    assert!(healed["healed_chunks"].as_u64().unwrap() > 0, "{healed}");
    lab.run("restore one --to again --verify").code(0);
    assert_same(&lab.path("src"), &lab.inside("again", "src"));
}

#[test]
fn what_is_lost_is_named_and_the_next_backup_brings_it_back() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/good"), b"good").unwrap();
    fs::write(lab.path("src/large"), noise(1, 5_000_000)).unwrap();
    lab.make_pool();
    lab.run("backup src --name one").code(0);
    lab.run("backup src --name two").code(0);
    assert!(spoil(&lab.path("pool")) > 0);
    let check = lab.run("pool check --read-data --json").code(3).json();
    assert_eq!((&check["clean"], &check["left_index"]), (&json!(false), &json!(true)));
    let affected = check["affected"].as_array().unwrap();
    assert_eq!(affected.len(), 2);
    for image in affected {
        let paths = image["files"].as_array().unwrap();
        assert_eq!(paths.len(), 1);
        assert!(paths[0]["path"].as_str().unwrap().ends_with("/src/large"), "{image}");
    }
    let text = lab.run("pool check --read-data").code(3).text();
    assert!(text.contains("/src/large: ") && !text.contains("/src/good"), "{text}");
    // The rest is restored; what is lost is named.
    let run = lab.run("restore one --to out").code(3);
    assert!(run.err.contains("/src/large"), "{}", run.err);
    assert_eq!(fs::read(lab.inside("out", "src").join("good")).unwrap(), b"good");
    // The check took the bad copies out of the index, the next backup has the data: all images are
    // whole again.
    let healed = lab.run("backup src --name three --read-all --json").code(0).json();
    assert!(healed["healed_chunks"].as_u64().unwrap() > 0, "{healed}");
    lab.run("restore one --to again --verify").code(0);
    assert_same(&lab.path("src"), &lab.inside("again", "src"));
}

#[test]
fn the_index_can_be_built_again_from_the_packs() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    let segments: Vec<_> = files(&lab.path("pool"))
        .into_iter()
        .filter(|path| path.parent().unwrap().ends_with("index"))
        .collect();
    assert!(!segments.is_empty());
    segments.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_ne!(lab.run("restore tree --to out").code, 0);
    let repaired = lab.run("pool repair --rebuild-index --json").code(0).json();
    assert!(repaired["index_entries"].as_u64().unwrap() > 100, "{repaired}");
    lab.run("restore tree --to out --overwrite always --verify").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
}

#[test]
fn losing_too_many_disks_says_so() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/large"), noise(1, 5_000_000)).unwrap();
    lab.make_pool_of("2+1", 3);
    lab.run("backup src").code(0);
    fs::remove_dir_all(lab.path("d0")).unwrap();
    fs::remove_dir_all(lab.path("d1")).unwrap();
    let run = lab.run("backup src").code(1);
    assert!(run.err.contains("2 of 3 disks"), "{}", run.err);
    // Directories are on every disk, so what is lost can be told, file by file.
    let check = lab.run("pool check --read-data --json").code(3).json();
    let files = check["affected"][0]["files"].as_array().unwrap();
    assert!(files[0]["path"].as_str().unwrap().ends_with("/src/large"), "{check}");
    assert_eq!(lab.run("ls src --json").code(0).json_lines().len(), 1);
}
