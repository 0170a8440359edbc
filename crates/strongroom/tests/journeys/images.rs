//! Lists of images, and forgetting them.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Lab, assert_same, noise};

fn ids(list: &Value) -> Vec<String> {
    let images = list["images"].as_array().unwrap();
    images.iter().map(|image| image["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn images_are_listed_shown_and_labelled() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/file"), b"x").unwrap();
    lab.make_pool();
    lab.run("backup src --name one --tag a --tag b").code(0);
    lab.run("backup src --name two --host other").code(0);
    let all = lab.run("images list --json").code(0).json();
    assert_eq!(all["images"][0]["name"], "one");
    assert_eq!(all["images"][1]["host"], "other");
    assert_eq!(ids(&lab.run("images list --name one --json").json()).len(), 1);
    assert_eq!(ids(&lab.run("images list --tag b --json").json()).len(), 1);
    assert_eq!(ids(&lab.run("images list --tag c --json").json()).len(), 0);
    let id = &ids(&all)[0];
    for name in [&id[..], &id[..6], "one", "one@2200-01-01", "one@2200-01-01T00:00:00Z"] {
        assert_eq!(lab.run(&format!("images show {name} --json")).code(0).json()["id"], **id);
    }
    assert_eq!(lab.run("images show latest --json").json()["name"], "two");
    lab.run("images show one@2001-01-01").code(1);
    lab.run("images tag one --add c --remove a").code(0);
    assert_eq!(lab.run("images show one --json").json()["tags"], json!(["b", "c"]));
    assert!(lab.run("images list").code(0).text().contains("b c"));
    let shown = lab.run("images show one").code(0).text();
    assert!(shown.contains("b, c") && shown.contains(id), "{shown}");
}

#[test]
fn immutable_images_can_not_be_forgotten() {
    let lab = Lab::new();
    fs::write(lab.path("file"), b"x").unwrap();
    lab.make_pool();
    lab.run("backup file --name kept --immutable 30d").code(0);
    lab.run("backup file --name free").code(0);
    let run = lab.run("images forget kept --yes").code(1);
    assert!(run.err.contains("immutable until"), "{}", run.err);
    // All or none.
    lab.run("images forget free kept --yes").code(1);
    assert_eq!(ids(&lab.run("images list --json").json()).len(), 2);
    lab.run("images forget free --yes").code(0);
    lab.run("images tag kept --add still-there").code(0);
    lab.run("pool gc --max-unused 0").code(0);
    lab.run("images forget kept --yes").code(1);
    lab.run("restore kept --to out --verify").code(0);
}

#[test]
fn gc_frees_what_only_forgotten_images_needed() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/shared"), noise(1, 4 << 20)).unwrap();
    fs::write(lab.path("src/own"), noise(2, 8 << 20)).unwrap();
    lab.make_pool();
    lab.run("backup src --name one").code(0);
    fs::write(lab.path("src/own"), noise(3, 8 << 20)).unwrap();
    lab.run("backup src --name two").code(0);
    lab.run("images forget one --yes").code(0);
    let would = lab.run("pool gc --dry-run --max-unused 0 --json").code(0).json();
    let before = lab.run("pool stats --json").json()["stored_bytes"].as_u64().unwrap();
    let freed = would["bytes_freed"].as_u64().unwrap();
    assert!((8 << 20..9 << 20).contains(&freed), "{would}");
    assert_eq!(would["bytes_before"], before);
    let did = lab.run("pool gc --max-unused 0 --json").code(0).json();
    assert_eq!(did["bytes_freed"], would["bytes_freed"]);
    let after = lab.run("pool stats --json").json()["stored_bytes"].as_u64().unwrap();
    assert!(after < before - (8 << 20) + (1 << 18), "{before} {after}");
    lab.run("restore two --to out --verify").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    lab.run("pool check --read-data").code(0);
}

#[test]
fn images_are_kept_for_as_long_as_they_say() {
    let lab = Lab::new();
    fs::write(lab.path("file"), b"x").unwrap();
    lab.make_pool();
    let json = |line: &str| lab.run(&format!("{line} --json")).code(0).json();
    lab.run("backup file --name long --keep-for 30d").code(0);
    lab.run("backup file --name over --keep-for 0s").code(0);
    lab.run("backup file --name held --keep-for 0s --immutable 1d").code(0);
    lab.run("backup file --name ever").code(0);
    let names = || -> Vec<String> {
        let list = json("images list");
        let images = list["images"].as_array().unwrap();
        images.iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect()
    };
    let shown = json("images show long");
    let time = |key: &str| shown[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let days = time("expires_at").duration_since(time("created")).as_hours() / 24;
    assert_eq!(days, 30);
    assert!(lab.run("images list").code(0).text().contains("(kept until "));

    // Rules leave it alone; its time does not.
    lab.run("forget --keep-tag none --name long").code(0);
    lab.run("forget --expired --keep-last 1").code(2);
    lab.run("forget --expired --dry-run").code(0);
    assert_eq!(names(), ["long", "over", "held", "ever"]);
    lab.run("forget --expired").code(0);
    assert_eq!(names(), ["long", "held", "ever"]);
    lab.run("images retention ever --until 1h").code(0);
    assert!(json("images show ever")["expires_at"].is_string());
    lab.run("images retention long --unlimited").code(0);
    assert!(json("images show long")["expires_at"].is_null());
    lab.run("images retention long").code(2);
    lab.run("images retention long --until 2020-01-01").code(2);
    lab.run("images tag long --add x").code(0);
    lab.run("forget --keep-tag none").code(0);
    assert_eq!(names(), ["held", "ever"]);
}
