//! The binary is killed at random moments, again and again; what it confirmed must be there.
//!
//! `STRONGROOM_KILLS` says how often (15 unless told), `STRONGROOM_SEED` where the dice begin.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{Lab, assert_same, noise, output, tool};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// All files of the pool: a step of the program shows as another listing.
fn listing(dir: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut found = BTreeMap::new();
    let mut stack = vec![dir.to_owned()];
    while let Some(dir) = stack.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            // What is gone meanwhile is not there.
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            match meta.is_dir() {
                true => stack.push(entry.path()),
                false => {
                    found.insert(entry.path(), (meta.len(), meta.blocks()));
                }
            }
        }
    }
    found
}

/// Runs a command and kills it after so many steps: its exit code when it was done before, and how
/// many steps were seen.
fn kill_after(lab: &Lab, line: &str, steps: u64) -> (Option<i32>, u64) {
    let mut child = lab
        .command(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = listing(&lab.path("pool"));
    let mut seen = 0;
    while seen < steps {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), seen);
        }
        let now = listing(&lab.path("pool"));
        if now != last {
            last = now;
            seen += 1;
        }
    }
    child.kill().unwrap();
    (child.wait().unwrap().code(), seen)
}

/// The names of all images.
fn names(lab: &Lab) -> BTreeSet<String> {
    let list = lab.run("images list --json --key-file key").code(0).json();
    assert_eq!(list["unreadable"], 0, "{list}");
    let images = list["images"].as_array().unwrap().iter();
    images.map(|image| image["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_confirmed_survives_sigkill() {
    let kills = number("STRONGROOM_KILLS", 15);
    let seed = number("STRONGROOM_SEED", u64::from(std::process::id()));
    eprintln!("STRONGROOM_SEED={seed}");
    let mut dice = Dice(seed);
    let lab = Lab::new();
    fs::write(lab.path("key"), noise(1, 32)).unwrap();
    lab.run("pool create pool --encrypt --key-file key --pack-size 1M").code(0);
    let run = |line: &str| lab.run(&format!("{line} --key-file key"));
    // A copy of what each image that is expected to be there holds.
    let mut copies: BTreeMap<String, PathBuf> = BTreeMap::new();
    let src = lab.path("src");
    fs::create_dir(&src).unwrap();
    for number in 0..200 {
        fs::write(src.join(format!("file{number}")), noise(number, 3000)).unwrap();
    }
    run("backup src --name kept --immutable 1d").code(0);
    copies.insert("kept".into(), lab.path("copy-kept"));
    output(tool("cp").arg("-a").arg(&src).arg(lab.path("copy-kept")));
    let (mut done, mut bound) = (0, 20);
    for round in 0..kills {
        let large = format!("large{}", dice.below(3));
        let len = 1_000_000 + dice.below(9_000_000) as usize;
        fs::write(src.join(large), noise(seed ^ round, len)).unwrap();
        fs::write(src.join(format!("file{}", dice.below(200))), noise(round, 5000)).unwrap();
        let name = format!("round{round}");
        let line = format!("backup src --name {name} --key-file key");
        let (code, seen) = kill_after(&lab, &line, dice.below(bound));
        // How many steps can be seen depends on the machine: aim at the whole of a run.
        bound = if code == Some(0) { seen.max(2) } else { bound + 1 };
        // What ends with SIGKILL has no exit code.
        if code == Some(0) {
            done += 1;
            let copy = lab.path(&format!("copy-{name}"));
            output(tool("cp").arg("-a").arg(&src).arg(&copy));
            copies.insert(name.clone(), copy);
        }
        run("pool check --read-data").code(0);
        // A command that was killed may have been done all the same.
        if names(&lab).contains(&name) && !copies.contains_key(&name) {
            let copy = lab.path(&format!("copy-{name}"));
            output(tool("cp").arg("-a").arg(&src).arg(&copy));
            copies.insert(name, copy);
        }
        if round % 3 == 2 {
            // Something is forgotten, and garbage collected; that, too, is killed.
            let gone = copies.keys().filter(|name| *name != "kept").nth(dice.below(4) as usize);
            if let Some(gone) = gone.cloned() {
                let line = format!("images forget {gone} --yes --key-file key");
                kill_after(&lab, &line, dice.below(6));
                let copy = copies.remove(&gone).unwrap();
                if names(&lab).contains(&gone) {
                    copies.insert(gone, copy);
                } else {
                    fs::remove_dir_all(copy).unwrap();
                }
            }
            kill_after(&lab, "pool gc --max-unused 0 --key-file key", dice.below(12));
            run("pool check --read-data").code(0);
        }
        assert_eq!(names(&lab), copies.keys().cloned().collect());
        for (name, copy) in &copies {
            // All of them at the end; now and then one.
            if dice.below(copies.len() as u64) == 0 {
                compare(&lab, name, copy);
            }
        }
    }
    eprintln!("{done} of {kills} backups were done before they were killed");
    run("backup src --name last").code(0);
    run("pool gc --max-unused 0").code(0);
    run("pool check --read-data").code(0);
    let scrubbed = run("pool scrub --json").code(0).json();
    assert_eq!(scrubbed["bad_shards"], 0, "{scrubbed}");
    for (name, copy) in &copies {
        compare(&lab, name, copy);
    }
    // Nothing but what is needed is left: the pool is as large as its packs say.
    let shown = run("pool show --json").json();
    let needed = shown["disk_bytes"].as_u64().unwrap();
    let packs: u64 = listing(&lab.path("pool")).values().map(|(len, _)| len).sum();
    assert!(packs < needed + needed / 10 + (4 << 20), "{packs} bytes for {needed}");
}

fn compare(lab: &Lab, name: &str, copy: &Path) {
    let to = lab.path("restored");
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    lab.run(&format!("restore {name} --to restored --key-file key")).code(0);
    assert_same(copy, &lab.inside("restored", "src"));
}

/// Bytes in packs that are whole, and in packs that are being written.
fn packed(lab: &Lab) -> (u64, u64) {
    let (mut whole, mut open) = (0, 0);
    for (path, (len, _)) in listing(&lab.path("pool/packs")) {
        if path.extension().is_some_and(|end| end == "open") {
            open += len;
        } else {
            whole += len;
        }
    }
    (whole, open)
}

/// What a backup that was killed has in whole packs isn't stored again; what is lost are the packs
/// that were open, one of data and one of nodes.
#[test]
fn a_backup_that_was_killed_costs_no_more_than_the_packs_that_were_open() {
    const PACK: u64 = 1 << 20;
    let lab = Lab::new();
    fs::write(lab.path("key"), noise(1, 32)).unwrap();
    let src = lab.path("src");
    fs::create_dir(&src).unwrap();
    let mut all = 0;
    for number in 0..60 {
        fs::write(src.join(format!("file{number}")), noise(number, 500_000)).unwrap();
        all += 500_000;
    }
    let mut killed = 0;
    for steps in [5, 9, 14, 20, 27] {
        if lab.path("pool").exists() {
            fs::remove_dir_all(lab.path("pool")).unwrap();
        }
        lab.run("pool create pool --encrypt --key-file key --pack-size 1M").code(0);
        if kill_after(&lab, "backup src --name cut --key-file key", steps).0.is_some() {
            continue;
        }
        let (whole, open) = packed(&lab);
        // A pack is closed by the frame that fills it; others may be waiting to be sealed.
        assert!(open <= 4 * (PACK + (2 << 20)), "{open} bytes in open packs");
        let last = lab.run("backup src --name cut --json --key-file key").code(0).json();
        let stored = last["new_bytes"].as_u64().unwrap();
        // Noise can't be compressed, so what packs have more than their content is little: headers,
        // directories, and nodes.
        let known = whole - whole / 16;
        assert!(stored + known <= all + PACK / 4, "{stored} stored of {all}, {whole} were whole");
        eprintln!(
            "{whole} bytes in whole packs, {open} in open ones; {stored} of {all} stored then"
        );
        killed += u64::from(whole > 2 * PACK);
        lab.run("pool check --read-data --key-file key").code(0);
        compare(&lab, "cut", &src);
    }
    assert!(killed > 0, "no backup was killed when it had whole packs");
}
