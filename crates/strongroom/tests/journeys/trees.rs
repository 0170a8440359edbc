//! Trees of files, there and back.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::support::{Lab, assert_same, at, make_tree, noise, output, tool};

#[test]
fn every_kind_of_file_comes_back() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    lab.run("restore tree --to out --verify").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    // Holes are holes again.
    for file in ["sparse", "hole"] {
        let restored = lab.inside("out", "src").join(file).metadata().unwrap();
        let original = lab.path("src").join(file).metadata().unwrap();
        assert!(restored.blocks() <= original.blocks() + 64, "{file} is not sparse");
    }
    let caps = output(tool("getcap").arg(lab.inside("out", "src").join("capable")));
    assert!(String::from_utf8(caps).unwrap().contains("cap_net_raw=ep"));
    // The content of a directory can go anywhere, and a second restore finds everything there.
    let what = at("tree", &lab.path("src"));
    let args = [what, "--to".into(), "flat".into(), "--json".into()];
    lab.run_args([&["restore".into()][..], &args].concat()).code(0);
    assert_same(&lab.path("src"), &lab.path("flat"));
    let again = lab.run_args([&["restore".into()][..], &args].concat()).code(0).json();
    assert!(again["skipped"].as_u64().unwrap() > 300, "{again}");
    assert_eq!(again["bytes"], 0);
    assert_same(&lab.path("src"), &lab.path("flat"));
}

#[test]
fn a_part_of_an_image_can_be_restored() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("src/a/b")).unwrap();
    for file in ["a/one.txt", "a/two.log", "a/b/three.txt", "four.txt"] {
        fs::write(lab.path("src").join(file), file).unwrap();
    }
    lab.make_pool();
    lab.run("backup src --name part").code(0);
    let what = at("part", &lab.path("src"));
    let restore = |more: &[&str]| {
        let mut args = vec!["restore".into(), what.clone()];
        args.extend(more.iter().map(Into::into));
        lab.run_args(args).code(0);
    };
    restore(&["a/b", "four.txt", "--to", "one"]);
    assert!(lab.path("one/a/b/three.txt").exists() && lab.path("one/four.txt").exists());
    assert!(!lab.path("one/a/one.txt").exists());
    restore(&["--exclude", "*.log", "--to", "two"]);
    assert!(lab.path("two/a/one.txt").exists() && !lab.path("two/a/two.log").exists());
    restore(&["--include", "*.log", "--to", "three"]);
    assert!(lab.path("three/a/two.log").exists() && !lab.path("three/four.txt").exists());
    // What is there stays with --overwrite never, and goes with always.
    fs::write(lab.path("two/four.txt"), "mine").unwrap();
    restore(&["--overwrite", "never", "--to", "two"]);
    assert_eq!(fs::read(lab.path("two/four.txt")).unwrap(), b"mine");
    restore(&["--overwrite", "always", "--to", "two"]);
    assert_eq!(fs::read(lab.path("two/four.txt")).unwrap(), b"four.txt");
    lab.run("restore part nowhere --to out").code(1);
    lab.run("restore nobody --to out").code(1);
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool();
    let first = lab.run("backup src --name tree --json").code(0).json();
    let second = lab.run("backup src --name tree --json").code(0).json();
    assert_eq!(second["parent"], first["image"]);
    assert_eq!(second["files"], first["files"]);
    // Files that changed shortly before the first backup are read again, to be sure; by now only
    // those with names that are equal in everything else can be left.
    let third = lab.run("backup src --name tree --json").code(0).json();
    assert_eq!(third["bytes_read"], 0, "{third}");
    assert_eq!(third["new_bytes"].as_u64().unwrap() / 100_000, 0, "{third}");
    // A file that changed is read, and that only.
    let large = fs::OpenOptions::new().write(true).open(lab.path("src/large")).unwrap();
    large.write_all_at(b"changed", 1_500_000).unwrap();
    drop(large);
    let fourth = lab.run("backup src --name tree --json").code(0).json();
    assert_eq!(fourth["bytes_read"], 3_000_000, "{fourth}");
    assert!(fourth["new_bytes"].as_u64().unwrap() < 600_000, "{fourth}");
    lab.run("restore tree --to out").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    // With --read-all everything is read, and nothing is new.
    let all = lab.run("backup src --name tree --read-all --json").code(0).json();
    assert!(all["bytes_read"].as_u64().unwrap() > 3_000_000, "{all}");
    assert_eq!(all["reused_files"], 0);
    assert_eq!(all["new_bytes"].as_u64().unwrap() / 100_000, 0, "{all}");
}

#[test]
fn a_dry_run_stores_nothing() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/file"), noise(1, 100_000)).unwrap();
    lab.make_pool();
    let trial = lab.run("backup src --dry-run --json").code(0).json();
    assert_eq!((&trial["image"], &trial["bytes"]), (&serde_json::Value::Null, &100_000.into()));
    assert_eq!(lab.run("images list --json").code(0).json()["images"], serde_json::json!([]));
}

#[test]
fn rules_leave_things_out() {
    let lab = Lab::new();
    for dir in ["src/cache/deep", "src/keep", "src/tmp"] {
        fs::create_dir_all(lab.path(dir)).unwrap();
    }
    fs::write(lab.path("src/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n")
        .unwrap();
    for file in ["cache/deep/x", "keep/a.o", "keep/a.c", "tmp/y", "z.bak"] {
        fs::write(lab.path("src").join(file), file).unwrap();
    }
    fs::write(lab.path("rules"), "# rules\n*.bak\n\ntmp/\n").unwrap();
    lab.make_pool();
    lab.run("backup src --exclude *.o --exclude-file rules --exclude-caches").code(0);
    let listed = lab.run("ls src -1 --recursive").code(0).text();
    let has = |name: &str| listed.lines().any(|line| line.ends_with(name));
    assert!(has("keep/a.c") && has("/cache"));
    for name in ["a.o", "z.bak", "/y", "deep"] {
        assert!(!has(name), "{name} is in:\n{listed}");
    }
}

#[test]
fn files_that_can_not_be_read_are_named_and_the_rest_is_complete() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/good"), b"good").unwrap();
    fs::write(lab.path("src/cut"), noise(1, 100_000)).unwrap();
    lab.make_pool();
    // A path that isn't there, beside one that is.
    let run = lab.run("backup src gone --name x").code(3);
    assert!(run.err.contains("gone") && run.err.starts_with("warning: "), "{}", run.err);
    let run = lab.run("backup src gone --name x --json").code(3).json();
    assert_eq!(run["troubles"], 1);
    assert!(run["first_troubles"][0]["path"].as_str().unwrap().ends_with("/gone"));
    let image = lab.run("images show x --json").code(0).json();
    assert_eq!(image["complete"], false);
    lab.run("restore x --to out").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    // Nothing of what was asked for: no image.
    lab.run("backup gone --name y").code(1);
    lab.run("images show y").code(1);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/still"), b"still").unwrap();
    fs::write(lab.path("src/grows"), noise(1, 60_000_000)).unwrap();
    lab.make_pool();
    let over = std::sync::atomic::AtomicBool::new(false);
    let begun = std::sync::Barrier::new(2);
    let run = std::thread::scope(|scope| {
        let path = lab.path("src/grows");
        let (over, begun) = (&over, &begun);
        scope.spawn(move || {
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            begun.wait();
            // Bounded, whatever happens to the backup.
            for _ in 0..100_000_000 {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                std::io::Write::write_all(&mut file, b"x").unwrap();
            }
        });
        begun.wait();
        let run = lab.run("backup src --name x");
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        run
    });
    let run = run.code(3);
    assert!(run.err.contains("/src/grows: ") && !run.err.contains("/src/still"), "{}", run.err);
    lab.run("restore x --to out --verify").code(0);
    assert_eq!(fs::read(lab.inside("out", "src").join("still")).unwrap(), b"still");
    let grown = fs::read(lab.inside("out", "src").join("grows")).unwrap();
    assert_eq!(grown[..60_000_000], noise(1, 60_000_000));
    // Once it is still, it is read again and complete.
    lab.run("backup src --name x").code(0);
    lab.run("restore x --to again").code(0);
    assert_same(&lab.path("src"), &lab.inside("again", "src"));
}
