//! Images sealed under a key that whoever keeps the pool doesn't have.

use std::fs;

use serde_json::{Value, json};

use crate::ingest::{document, log_in};
use crate::support::images::{files, mounted, spoil, unmounted};
use crate::support::served::{Served, ask};
use crate::support::{Lab, assert_same, make_tree, noise, output, tool};
use crate::up::run;

const KEY: &str = "--client-key-file own.key";

fn lab() -> Lab {
    let lab = Lab::new();
    fs::write(lab.path("own.key"), noise(70, 32)).unwrap();
    fs::write(lab.path("other.key"), noise(71, 40)).unwrap();
    make_tree(&lab.path("src"));
    lab
}

#[test]
fn a_sealed_image_comes_back_whole_and_only_to_its_owner() {
    let lab = lab();
    // Not even encrypted by the pool, so that what lies there can be looked through.
    lab.run("pool create pool").code(0);
    let first = lab.run(&format!("backup src --name tree {KEY} --json")).code(0).json();
    let second = lab.run(&format!("backup src --name tree {KEY} --json")).code(0).json();
    assert_eq!(second["parent"], first["image"]);
    assert!(second["reused_files"].as_u64() > Some(300), "{second}");
    assert_eq!(second["bytes_read"], 0, "{second}");
    let again = lab.run(&format!("backup src --name tree --read-all {KEY} --json")).code(0).json();
    assert!(again["new_bytes"].as_u64() < Some(20_000), "{again}");

    lab.run(&format!("restore tree --to out --verify {KEY}")).code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    fs::create_dir(lab.path("mnt")).unwrap();
    let line = format!("mount tree mnt {KEY}");
    let child = mounted(lab.command(line.split_whitespace()));
    assert_same(&lab.path("src"), &lab.inside("mnt", "src"));
    unmounted(child);
    let small = format!("cat tree:{} {KEY}", lab.path("src/small").display());
    assert_eq!(lab.run(&small).code(0).out, b"small\n");
    let shown = lab.run(&format!("images show tree {KEY} --json")).code(0).json();
    assert_eq!(shown["paths"], json!([lab.path("src")]));

    // Who has the pool alone sees that there is something, and nothing of what.
    let shown = lab.run("images show tree --json").code(0).json();
    assert_eq!(shown["paths"], json!([]));
    assert_eq!(shown["client_key"].as_str().map(str::len), Some(16), "{shown}");
    for line in ["ls tree", "restore tree --to no", "dump tree", "images diff tree tree"] {
        let refused = lab.run(line).code(1);
        assert!(refused.err.contains("give it with --client-key-file"), "{line}: {}", refused.err);
    }
    assert!(lab.run("backup src --name tree").code(2).err.contains("--client-key-file"));
    let found = lab.run("images find --name tree *.c").code(3);
    assert!(found.err.contains("sealed under the client's key"), "{}", found.err);
    let mut child = mounted(lab.command(["mount", "mnt"]));
    assert!(!lab.path("mnt/by-name/tree").exists());
    // It tells that there are some.
    output(tool("kill").args(["-INT", &child.id().to_string()]));
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(lab.run("ls tree --client-key-file other.key").code(1).err.contains("no image"));
    assert!(lab.run("ls tree --client-key-file pw").code(1).err.contains("32 random"));
    let secrets = [&noise(1, 64)[..], b"file123.c", b"small-again", b"the same line"];
    for file in files(&lab.path("pool")) {
        let bytes = fs::read(&file).unwrap();
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{}: {}", file.display(), String::from_utf8_lossy(secret));
        }
    }

    // Checked, collected and mended without the key; what was lost is told of as far as can be.
    lab.run("pool check --read-data").code(0);
    lab.run("forget --keep-last 1").code(0);
    lab.run("pool gc --max-unused 0").code(0);
    fs::remove_dir_all(lab.path("out")).unwrap();
    lab.run(&format!("restore tree --to out --verify {KEY}")).code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    assert!(spoil(&lab.path("pool")) > 0);
    let lost = lab.run("pool check --read-data").code(3);
    assert!(lost.text().contains("sealed under the client's key"), "{}", lost.text());
    lab.run("pool scrub").code(3);
    let mended = lab.run(&format!("backup src --name tree --read-all {KEY} --json")).code(0).json();
    assert!(mended["healed_chunks"].as_u64() > Some(0), "{mended}");
    fs::remove_dir_all(lab.path("out")).unwrap();
    lab.run(&format!("restore tree --to out --verify {KEY}")).code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
}

#[test]
fn an_appliance_keeps_what_it_can_not_read() {
    let lab = lab();
    let data = lab.path("data");
    let served = Served::start(&data);
    let user = lab.path("elsewhere/user");
    log_in(&user, &served, served.told["urls"][0].as_str().unwrap());
    let elsewhere = lab.path("elsewhere");
    output(tool("cp").arg(lab.path("own.key")).arg(&elsewhere));
    output(tool("cp").arg("-a").arg(lab.path("src")).arg(&elsewhere));

    let first = document(&user, &format!("backup src --name tree {KEY}"));
    let second = document(&user, &format!("backup src --name tree {KEY}"));
    assert_eq!(second["parent"], first["image"]);
    assert_eq!(second["bytes_read"], 0, "{second}");
    assert_eq!(document(&user, &format!("backup src --name tree -n {KEY}"))["new_bytes"], 0);

    // The appliance has the image, and can neither browse nor restore it.
    let (_, images) = ask(&data, "GET", "/v1/images?sort=id:desc", None);
    let image = &images["items"][0];
    assert_eq!((&image["name"], &image["paths"]), (&json!("tree"), &json!([])));
    let (code, told) = ask(&data, "GET", &format!("/v1/images/{}/entries", image["id"]), None);
    assert_eq!(code, 422, "{told}");
    assert!(told["detail"].as_str().unwrap().contains("client's key"), "{told}");
    let (code, _, err) = run(&data, "restore tree --to back");
    assert!(code == 1 && err.contains("client's key"), "{code} {err}");
    let (code, _, err) = run(&data, "pool check --pool main --read-data");
    assert_eq!(code, 0, "{err}");

    // Its owner can, from elsewhere; and on the appliance's own machine with the key.
    let (code, _, err) = run(&user, &format!("restore tree --to back --verify {KEY}"));
    assert_eq!(code, 0, "{err}");
    let inside = elsewhere.join("src");
    let inside = inside.strip_prefix("/").unwrap();
    assert_same(&lab.path("src"), &elsewhere.join("back").join(inside));
    let (code, _, err) = run(&data, &format!("restore tree --to here --verify {KEY}"));
    assert_eq!(code, 0, "{err}");
    assert_same(&lab.path("src"), &data.parent().unwrap().join("here").join(inside));
    // Beside it, a backup by the appliance itself stays open, if that is wanted.
    let (code, _, err) = run(&data, "backup src --name tree");
    assert!(code == 1 && err.contains("`in_clear`"), "{code} {err}");
    let (code, _, err) = run(&data, "backup src --name tree --in-clear");
    assert_eq!(code, 0, "{err}");
    let third = document(&user, &format!("backup src --name tree {KEY}"));
    assert_eq!(third["parent"], second["image"]);
    let (code, _, err) = run(&data, "backup src --name tree --here");
    assert!(code == 2 && err.contains("--in-clear"), "{code} {err}");
    let (code, _, err) = run(&data, "backup src --name tree --here --in-clear");
    assert_eq!(code, 0, "{err}");
    let fourth = document(&user, &format!("backup src --name tree {KEY}"));
    assert_eq!((&fourth["parent"], &fourth["troubles"]), (&third["image"], &Value::from(0)));

    // Nor does anything else that it keeps tell what was backed up.
    document(&user, &format!("backup src/src/deep {KEY}"));
    for path in ["/v1/jobs", "/v1/events", "/v1/images", "/v1/audit"] {
        let (code, told) = ask(&data, "GET", path, None);
        assert_eq!(code, 200);
        assert!(!told.to_string().contains("src/src"), "{path}: {told}");
    }
    served.stop();
}
