//! What happens when bytes on disk are not what was written.

use std::fs;

use serde_json::json;

use crate::support::images::{files, spoil};
use crate::support::{Lab, assert_same, make_tree, noise};

#[test]
fn rot_on_one_disk_is_mended() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool_of("2+1", 3);
    lab.run("backup src --name tree").code(0);
    assert!(spoil(&lab.path("d1")) > 0);
    lab.run("restore tree --to out").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    let mended = lab.run("pool scrub --json").code(0).json();
    assert!(mended["healed"].as_u64().unwrap() > 0, "{mended}");
    assert!(spoil(&lab.path("d0")) > 0);
    lab.run("pool check --read-data").code(0);
    lab.run("pool scrub").code(0);
    let clean = lab.run("pool scrub --json").code(0).json();
    assert_eq!((&clean["bad_units"], &clean["bad_shards"]), (&0.into(), &0.into()));
    lab.run("pool check --read-data").code(0);
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
