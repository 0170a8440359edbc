//! Several nodes on one PostgreSQL, one of them killed in the middle.
//!
//! A pool belongs to the machine that its disks are on. Jobs on it are done by the processes of
//! that machine: when one is killed another takes them up. When there is no other, they wait.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::jobs::{Asked, Dice, Wishes, number};
use crate::process::{Plan, make_pool, until};
use crate::support::database::Database;
use crate::support::noise;

fn plan(dir: &Path, name: &str, host: &'static str, database: &Database) -> Plan {
    let data = dir.join(name);
    fs::create_dir(&data).unwrap();
    fs::write(data.join("strongroom.toml"), "takeover = 2\n").unwrap();
    if let Ok(key) = fs::read(dir.join("data/appliance.key")) {
        // All nodes of a catalogue have one key.
        fs::write(data.join("appliance.key"), key).unwrap();
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(data.join("appliance.key"), private).unwrap();
    }
    Plan { data, database: Some(database.url()), host: Some(host) }
}

#[test]
fn what_a_killed_node_was_at_is_done_once() {
    let total = number("STRONGROOM_APPLIANCE_JOBS", 30) as usize;
    let seed = number("STRONGROOM_SEED", u64::from(std::process::id()));
    eprintln!("STRONGROOM_SEED={seed}");
    let mut dice = Dice(seed ^ 0x0DE5);
    let dir = tempfile::Builder::new().prefix("strongroom-test-").tempdir().unwrap();
    let database = Database::new();
    let first = plan(dir.path(), "data", "alpha", &database).start();
    let pool = dir.path().join("pool");
    let id = make_pool(&first, &pool);
    let second_plan = plan(dir.path(), "second", "alpha", &database);
    let second = second_plan.start();
    let far_plan = plan(dir.path(), "far", "beta", &database);
    let far = far_plan.start();

    // The far machine has a pool of its own; it is killed while it works on it.
    let body = json!({"name": "far", "path": dir.path().join("farpool"), "encrypted": false});
    let far_pool = far.post("/v1/pools", &body)["pool"]["id"].as_i64().unwrap();
    let source = dir.path().join("far source");
    fs::create_dir(&source).unwrap();
    for number in 0..3 {
        fs::write(source.join(number.to_string()), noise(number, 30_000_000)).unwrap();
    }
    let body = json!({"paths": [source], "name": "far"});
    let far_job = far.post(&format!("/v1/pools/{far_pool}/backups"), &body)["id"].as_i64().unwrap();
    let state = |served: &crate::process::Served| {
        served.get(&format!("/v1/jobs/{far_job}"))["state"].as_str().unwrap().to_owned()
    };
    until("the far node's job", || (state(&far) == "running").then_some(()));
    far.kill();

    let mut wishes = Wishes::new(dir.path(), id, seed, total);
    let killed_at = total / 3 + dice.below(total as u64 / 3) as usize;
    let mut first = Some(first);
    let data = dir.path().join("data");
    until("all jobs asked for", || {
        let asked = match &first {
            Some(_) => wishes.ask_next(&data),
            None => wishes.ask_next(&second_plan.data),
        };
        if wishes.asked() == killed_at
            && let Some(first) = first.take()
        {
            first.kill();
        }
        (asked == Asked::All && wishes.all_asked()).then_some(())
    });
    // Only the far machine's job is left, and nobody else has touched it.
    until("the other jobs", || {
        let left = second.get("/v1/jobs?filter=state:==queued&filter=state:==running&count=true");
        (left["count"] == 1).then_some(())
    });
    until("that job to be given back", || (state(&second) == "queued").then_some(()));
    assert_eq!(
        second.get(&format!("/v1/images?filter=pool_id:=={far_pool}&count=true"))["count"],
        0
    );
    let far = far_plan.start();
    until("the far node's job", || (state(&second) == "succeeded").then_some(()));
    let images = far.get(&format!("/v1/images?filter=pool_id:=={far_pool}&count=true"));
    assert_eq!(images["count"], 1, "{images}");

    wishes.judge(&second, &[far_job]);
    far.stop();
    second.stop();
    wishes.judge_pool(&pool);
}
