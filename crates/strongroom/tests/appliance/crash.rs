//! The appliance is killed at random moments while it does jobs of many kinds.
//!
//! `STRONGROOM_APPLIANCE_KILLS` says how often (4 unless told), `STRONGROOM_APPLIANCE_JOBS` how
//! many jobs there are (30), `STRONGROOM_SEED` where the dice begin.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::jobs::{Asked, Dice, Wishes, number, unfinished};
use crate::process::{Plan, until};

/// All files below a directory: a step of the program shows as another listing.
fn listing(dir: &Path) -> BTreeMap<PathBuf, (u64, u64, i64)> {
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
                    let seen = (meta.len(), meta.blocks(), meta.mtime_nsec());
                    found.insert(entry.path(), seen);
                }
            }
        }
    }
    found
}

#[test]
fn what_was_acknowledged_survives_kills_and_happens_once() {
    let kills = number("STRONGROOM_APPLIANCE_KILLS", 4);
    let total = number("STRONGROOM_APPLIANCE_JOBS", 30) as usize;
    let seed = number("STRONGROOM_SEED", u64::from(std::process::id()));
    eprintln!("STRONGROOM_SEED={seed}");
    let mut dice = Dice(seed ^ 0x5EED);
    let dir = tempfile::Builder::new().prefix("strongroom-test-").tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    let pool = dir.path().join("pool");
    let mut served = plan.start();
    let disks = [pool.join("disk-a"), pool.join("disk-b")];
    let body = json!({"name": "work", "path": pool, "encrypted": false, "layout": "mirror",
                      "disks": disks});
    let id = served.post("/v1/pools", &body)["pool"]["id"].as_i64().unwrap();
    let mut wishes = Wishes::new(dir.path(), id, seed, total).mixed();
    // So that there is something to do at each of them.
    let each = total.div_ceil(kills.max(1) as usize) + 1;
    let mut bound = 150;
    for round in 0..kills {
        let (over, all_asked) = (AtomicBool::new(false), AtomicBool::new(false));
        let (wished, lot) = (&mut wishes, dice.below(bound));
        let seen = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let enough = wished.asked() + each;
                while !over.load(Ordering::Acquire) {
                    let asked = wished.ask_next(&plan.data);
                    if asked == Asked::All || asked == Asked::Yes && wished.asked() >= enough {
                        all_asked.store(true, Ordering::Release);
                        break;
                    }
                }
            });
            let places = [&plan.data, &pool];
            let look = || places.map(|place| listing(place));
            let (mut last, mut seen) = (look(), 0);
            let began = std::time::Instant::now();
            while seen < lot && began.elapsed() < crate::process::PATIENCE {
                let now = look();
                if now != last {
                    (last, seen) = (now, seen + 1);
                } else if all_asked.load(Ordering::Acquire) && unfinished(&plan.data) == Some(0) {
                    break;
                }
            }
            served.kill();
            over.store(true, Ordering::Release);
            asking.join().unwrap();
            seen
        });
        eprintln!("kill {round} after {seen} of {lot} steps");
        // How many steps there are depends on the machine.
        bound = if seen < lot { seen.max(20) } else { bound + 10 };
        served = plan.start();
    }
    until("all jobs asked for", || {
        wishes.ask_next(&plan.data);
        wishes.all_asked().then_some(())
    });
    until("all jobs over", || (unfinished(&plan.data) == Some(0)).then_some(()));
    wishes.judge(&served, &[]);
    served.stop();
    wishes.judge_pool(&pool);
}
