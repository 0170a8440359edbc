//! Layouts, lost disks, other machines.

use std::fs;

use serde_json::json;

use crate::support::{Lab, assert_same, make_tree, noise};

/// Backs up, loses disks, restores, goes on writing, replaces the disks, loses others.
fn lose_disks(layout: &str, disks: usize, first: &[usize], then: &[usize]) {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool_of(layout, disks);
    lab.run("backup src --name tree").code(0);
    for disk in first {
        fs::remove_dir_all(lab.path(&format!("d{disk}"))).unwrap();
    }
    let run = lab.run("restore tree --to one").code(0);
    assert!(run.err.contains("is missing"), "{}", run.err);
    assert_same(&lab.path("src"), &lab.inside("one", "src"));
    let shown = lab.run("pool show --json").code(0).json();
    for disk in 0..disks {
        let state = if first.contains(&disk) { "missing" } else { "ok" };
        assert_eq!(shown["disks"][disk]["state"], state);
    }
    // Writing goes on without them.
    fs::write(lab.path("src/later"), noise(9, 500_000)).unwrap();
    lab.run("backup src --name tree").code(0);
    for disk in first {
        lab.run(&format!("pool disk-replace {disk} new{disk}")).code(0);
    }
    let shown = lab.run("pool show --json").code(0).json();
    let states = shown["disks"].as_array().unwrap();
    assert!(states.iter().all(|disk| disk["state"] == "ok"), "{states:?}");
    // What was rebuilt carries the pool alone now.
    for disk in then {
        fs::remove_dir_all(lab.path(&format!("d{disk}"))).unwrap();
    }
    lab.run("restore tree --to two --verify").code(0);
    assert_same(&lab.path("src"), &lab.inside("two", "src"));
    lab.run("pool check --read-data").code(0);
}

#[test]
fn a_mirror_survives_the_loss_of_all_disks_but_one() {
    lose_disks("mirror", 3, &[0, 2], &[1]);
}

#[test]
fn two_and_one_survive_the_loss_of_any_disk() {
    lose_disks("2+1", 3, &[1], &[0]);
}

#[test]
fn four_and_two_survive_the_loss_of_two_disks() {
    lose_disks("4+2", 6, &[0, 4], &[1, 5]);
}

#[test]
fn a_pool_is_complete_in_itself_on_another_machine() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool_of("2+1", 3);
    lab.run("backup src --name tree --tag kept --immutable 30d").code(0);
    let before = lab.run("images list --json").code(0).json();
    fs::create_dir(lab.path("elsewhere")).unwrap();
    for disk in ["d0", "d2"] {
        fs::rename(lab.path(disk), lab.path("elsewhere").join(disk)).unwrap();
    }
    fs::remove_dir_all(lab.path("pool")).unwrap();
    lab.run("pool import pool --disk d1").code(1);
    let line = "pool import pool --disk elsewhere/d2 --disk d1 --disk elsewhere/d0";
    assert_eq!(lab.run(&format!("{line} --json")).code(0).json()["missing"], 0);
    lab.run(line).code(0);
    let after = lab.run("images list --json").code(0).json();
    assert_eq!(before["images"], after["images"]);
    lab.run("restore tree --to out").code(0);
    assert_same(&lab.path("src"), &lab.inside("out", "src"));
    // Two of three are enough; disks of another pool are not taken.
    lab.run("pool import other --disk d1 --disk elsewhere/d0").code(0);
    lab.run("images list --pool other").code(0);
    lab.run("pool create third --disk d9 --layout single").code(0);
    lab.run("pool import fourth --disk d1 --disk d9").code(2);
}

#[test]
fn a_pool_says_what_it_is() {
    let lab = Lab::new();
    let line = "pool create pool --encrypt --password-file pw --layout mirror --disk a --disk b \
                --chunk-size 32K,128K,1M --image-chunk-size 128K --compression 3 --pack-size 8M";
    let made = lab.run(&format!("{line} --json")).code(0).json();
    lab.run(line).code(1);
    lab.run("pool create q --disk a").code(1);
    let shown = lab.run("pool show --json").code(0).json();
    assert_eq!(shown["pool"], made["pool"]);
    assert_eq!(shown["layout"], "mirror of 2");
    assert_eq!(shown["encrypted"], true);
    assert_eq!(shown["chunk_size"], json!({ "min": 32 << 10, "avg": 128 << 10, "max": 1 << 20 }));
    assert_eq!(shown["image_chunk_size"], 128 << 10);
    assert_eq!((&shown["compression"], &shown["pack_size"]), (&3.into(), &(8 << 20).into()));
    assert_eq!(shown["last_scrub"], json!(null));
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/one"), noise(1, 3 << 20)).unwrap();
    fs::write(lab.path("src/two"), noise(1, 3 << 20)).unwrap();
    lab.run("backup src").code(0);
    let scrubbed = lab.run("pool scrub --json").code(0).json();
    assert_eq!((&scrubbed["complete"], &scrubbed["bad_units"]), (&true.into(), &0.into()));
    let shown = lab.run("pool show --json").code(0).json();
    assert!(shown["last_scrub"].is_string() && shown["images"] == 1);
    let stats = lab.run("pool stats --json").code(0).json();
    assert_eq!(stats["logical_bytes"], 6 << 20);
    let reduction = stats["reduction"].as_f64().unwrap();
    assert!((1.9..2.01).contains(&reduction), "{stats}");
    // What people see tells the same.
    let text = lab.run("pool show").code(0).text();
    assert!(text.contains("mirror of 2") && text.contains("AES-256-GCM"), "{text}");
    lab.run("pool stats").code(0);
}

#[test]
fn a_scrub_goes_on_where_it_was() {
    let lab = Lab::new();
    lab.run("pool create pool --encrypt --password-file pw --pack-size 1M").code(0);
    fs::write(lab.path("file"), noise(1, 6 << 20)).unwrap();
    lab.run("backup file").code(0);
    let first = lab.run("pool scrub --packs 2 --json").code(0).json();
    assert_eq!((&first["complete"], &first["packs"]), (&false.into(), &2.into()));
    assert!(lab.run("pool show --json").json()["scrub_under_way_since"].is_string());
    let rest = lab.run("pool scrub --json --rate 100M").code(0).json();
    assert_eq!(rest["complete"], true);
    let all = lab.run("pool scrub --restart --json").code(0).json();
    assert_eq!(all["packs"].as_u64().unwrap(), rest["packs"].as_u64().unwrap() + 2);
}
