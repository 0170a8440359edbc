//! Looking into images without restoring them: ls, cat, diff, find, dump, mount; and retention.

use std::fs;
use std::io::Write;

use serde_json::{Value, json};

use crate::support::images::{ids, mounted, two_images, unmounted};
use crate::support::{Lab, assert_same, at, make_tree, noise, output, tool};

#[test]
fn what_differs_is_found_from_metadata() {
    let lab = two_images();
    let ids = ids(&lab);
    let line = format!("images diff {} {}", ids[0], ids[1]);
    let src = format!("{}/", lab.path("src").display());
    let mut found: Vec<(String, String)> = Vec::new();
    for difference in lab.run(&format!("{line} --json")).code(0).json_lines() {
        let path = difference["path"].as_str().unwrap().to_owned();
        let Some(path) = path.strip_prefix(&src) else { continue };
        let how = match difference["change"].as_str().unwrap() {
            "changed" if difference["content"] == true => "content",
            "changed" if difference["metadata"] == true => "metadata",
            "changed" => "time",
            other => other,
        };
        found.push((path.to_owned(), how.to_owned()));
    }
    found.retain(|(_, how)| how != "time");
    let expected = [
        ("goes", "removed"),
        ("grows", "content"),
        ("new", "added"),
        ("new/thing", "added"),
        ("sub/mode", "metadata"),
        ("turns", "replaced"),
    ];
    let expected = expected.map(|(path, how)| (path.to_owned(), how.to_owned()));
    assert_eq!(found, expected);
    let text = lab.run(&line).code(0).text();
    assert!(text.contains(&format!("- {src}goes\n")) && text.contains("2 added"), "{text}");
    let same = lab.run(&format!("images diff {0} {0}", ids[0])).code(0).text();
    assert_eq!(same, "0 added, 0 removed, 0 changed\n");
}

#[test]
fn files_are_found_in_all_images() {
    let lab = two_images();
    let count =
        |line: &str| lab.run(&format!("images find {line} --json")).code(0).json_lines().len();
    assert_eq!(count("same"), 2);
    assert_eq!(count("goes"), 1);
    assert_eq!(count("same --image latest"), 1);
    assert_eq!(count("--type f --min-size 50K"), 1);
    assert_eq!(count("turns --type d"), 1);
    assert_eq!(count("same --newer 2001-01-01"), 2);
    assert_eq!(count("same --older 2001-01-01"), 0);
    assert_eq!(count("same --name other"), 0);
    let found = lab.run("images find goes --json").code(0).json_lines();
    assert_eq!(found[0]["image"], ids(&lab)[0]);
    lab.run("images find same --newer soon").code(2);
}

#[test]
fn directories_are_listed() {
    let lab = two_images();
    let src = lab.path("src");
    let listed = |args: &[&str]| -> Vec<Value> {
        let what = at("tree", &src);
        let args = [vec!["ls".into(), what], args.iter().map(Into::into).collect()].concat();
        lab.run_args(args).code(0).json_lines()
    };
    let flat = listed(&["--json"]);
    assert_eq!(flat.len(), 5);
    let all = listed(&["--json", "--recursive"]);
    let paths: Vec<_> = all.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    let mut found = output(tool("find").arg(&src).args(["-mindepth", "1"]));
    found.pop();
    let mut found: Vec<_> =
        found.split(|b| *b == b'\n').map(|l| std::str::from_utf8(l).unwrap()).collect();
    let mut sorted = paths.clone();
    sorted.sort();
    found.sort();
    assert_eq!(sorted, found);
    let grows = all.iter().find(|e| e["path"].as_str().unwrap().ends_with("/grows")).unwrap();
    assert_eq!(
        (&grows["size"], &grows["kind"], &grows["user"]),
        (&json!(6), &json!("file"), &json!("root"))
    );
    let cat = [std::ffi::OsString::from("cat"), at("tree", &src.join("grows"))];
    assert_eq!(lab.run_args(cat).code(0).out, b"longer");
    lab.run("cat tree").code(1);
    lab.run("ls tree:/nowhere").code(1);
}

#[test]
fn archives_have_everything() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    let what = at("tree", &lab.path("src"));
    let dump = ["dump".into(), what.clone(), "--output".into(), "tree.tar".into()];
    lab.run_args(dump).code(0);
    fs::create_dir(lab.path("out")).unwrap();
    let mut tar = tool("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf"]);
    output(tar.arg(lab.path("tree.tar")).arg("-C").arg(lab.path("out")));
    assert_same(&lab.path("src"), &lab.path("out/src"));
    // The same through a pipe.
    let piped = lab.run_args(["dump".into(), what.clone()]).code(0);
    assert_eq!(piped.out, fs::read(lab.path("tree.tar")).unwrap());
    // A zip has less, and says so.
    let args =
        ["dump".into(), what, "--format".into(), "zip".into(), "-o".into(), "tree.zip".into()];
    let run = lab.run_args(args).code(3);
    assert!(run.err.contains("fifo"), "{}", run.err);
    output(tool("unzip").args(["-tq"]).arg(lab.path("tree.zip")));
    let one = tool("unzip").arg("-p").arg(lab.path("tree.zip")).arg("src/large").output().unwrap();
    assert_eq!(one.stdout, noise(1, 3_000_000));
}

#[test]
fn a_mounted_image_is_the_tree() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    fs::create_dir(lab.path("mnt")).unwrap();
    let child = mounted(lab.command(["mount", "tree", "mnt"]));
    assert_same(&lab.path("src"), &lab.inside("mnt", "src"));
    assert!(fs::write(lab.inside("mnt", "src").join("small"), b"no").is_err());
    // Another backup may be made meanwhile.
    lab.run("backup src --name tree").code(0);
    unmounted(child);
    assert_eq!(fs::read_dir(lab.path("mnt")).unwrap().count(), 0);
    let child = mounted(lab.command(["mount", "mnt"]));
    assert_same(
        &lab.path("src"),
        &lab.path("mnt/by-name/tree/latest").join(lab.path("src").strip_prefix("/").unwrap()),
    );
    unmounted(child);
}

#[test]
fn retention_keeps_what_it_says() {
    let lab = Lab::new();
    fs::write(lab.path("file"), b"x").unwrap();
    lab.make_pool();
    for round in 0..4u64 {
        let mut file = fs::OpenOptions::new().append(true).open(lab.path("file")).unwrap();
        file.write_all(&noise(round, 100_000)).unwrap();
        let tag = if round == 0 { "--tag first" } else { "" };
        lab.run(&format!("backup file --name a {tag}")).code(0);
    }
    lab.run("backup file --name b --immutable 1d").code(0);
    lab.run("backup file --name b").code(0);
    lab.run("forget").code(2);
    let before = ids(&lab);
    let trial = lab.run("forget --keep-last 1 --keep-tag first --dry-run --json").code(0).json();
    assert_eq!(ids(&lab), before);
    let gone = |run: &Value| -> Vec<Value> {
        run["forgotten"].as_array().unwrap().iter().map(|image| image["id"].clone()).collect()
    };
    let did = lab.run("forget --keep-last 1 --keep-tag first --prune --json").code(0).json();
    assert_eq!(gone(&did), gone(&trial));
    assert_eq!(gone(&did), [before[2].clone(), before[1].clone()]);
    assert!(did["gc"]["dead_chunks"].is_u64(), "{did}");
    let left = ids(&lab);
    assert_eq!(left, [&before[0], &before[3], &before[4], &before[5]].map(Clone::clone));
    let text = lab.run("forget --keep-last 1 --keep-tag first --dry-run").code(0).text();
    assert!(text.contains("immutable") && text.contains("tag first"), "{text}");
    lab.run("pool check --read-data").code(0);
    lab.run(&format!("restore {} --to out --verify", before[0])).code(0);
}
