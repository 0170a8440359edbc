//! A directory with very many entries, there and back.
//!
//! `STRONGROOM_ENTRIES` says how many (50,000 unless told).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use support::{Lab, assert_same};

#[test]
fn a_directory_with_very_many_entries_comes_back() {
    let entries: usize =
        std::env::var("STRONGROOM_ENTRIES").map_or(50_000, |text| text.parse().unwrap());
    let lab = Lab::new();
    let src = lab.path("src");
    fs::create_dir(&src).unwrap();
    let name = |number: usize| format!("entry-{number:07}");
    for number in 0..entries {
        let path = src.join(name(number));
        match number % 20 {
            0 => fs::write(path, format!("{number}\n")).unwrap(),
            1 => symlink("nowhere", path).unwrap(),
            _ => drop(fs::File::create(path).unwrap()),
        }
    }
    lab.make_pool();
    let timed = |line: &str| {
        let begun = Instant::now();
        let run = lab.run(line).code(0);
        eprintln!("{entries} entries: {line}: {:.1} s", begun.elapsed().as_secs_f64());
        run
    };
    let made = timed("backup src --name many --json").json();
    assert_eq!(made["files"].as_u64(), Some((entries - entries.div_ceil(20)) as u64), "{made}");
    let again = timed("backup src --name many --json").json();
    assert_eq!((&again["files"], &again["parent"]), (&made["files"], &made["image"]));
    let listed = timed(&format!("ls many:{} -1", src.display())).text();
    assert_eq!(listed.lines().count(), entries);
    // In the order of their names, each once.
    assert!(listed.lines().enumerate().all(|(number, line)| line == name(number)));
    timed("restore many --to out");
    assert_same(&src, &lab.inside("out", "src"));
}
