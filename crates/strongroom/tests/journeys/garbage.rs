//! Garbage of an appliance's pools, which nobody collects but the appliance.

use std::path::Path;

use serde_json::{Value, json};

use crate::cut::Small;
use crate::nbd::{asked, uri};
use crate::support::served::{Served, of_user, text};
use crate::support::{Lab, output, tool};
use crate::up::until;

/// The size of the filesystem that the pool lies on, in MiB.
const ROOM: u64 = 256;
/// The size of the volume, in MiB.
const SIZE: u64 = 72;

/// Overwrites all of a volume in random order, and reads it again.
fn overwrite(uri: &str, seed: u64) {
    let mut fio = tool("fio");
    fio.args(["--name=overwrite", "--ioengine=nbd", "--rw=randwrite", "--bs=64k", "--iodepth=8"]);
    fio.args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--refill_buffers"]);
    fio.arg(format!("--size={SIZE}m")).arg(format!("--randseed={seed}"));
    output(fio.arg(format!("--uri={uri}")));
}

fn items(data: &Path, path: &str) -> Vec<Value> {
    asked(data, "GET", path, None)["items"].as_array().unwrap().clone()
}

/// Collections that jobs have done.
fn jobs(data: &Path) -> Vec<Value> {
    items(data, "/v1/jobs?filter=kind:==gc&filter=state:==succeeded")
}

/// A figure of the pool `small` among the metrics.
fn metric(data: &Path, name: &str) -> f64 {
    let told = text(data, "/metrics");
    let begin = format!("strongroom_{name}{{pool=\"small\"}} ");
    let value = told.lines().find_map(|line| line.strip_prefix(&begin));
    value.unwrap_or_else(|| panic!("no {begin}: {told}")).parse().unwrap()
}

#[test]
fn a_volume_is_overwritten_for_ever_though_nobody_collects() {
    let lab = Lab::new();
    let Some(_small) = Small::mount(&lab, ROOM) else { return };
    let data = lab.path("data");
    let served = Served::start(&data);
    let create = "pool create small/pool --name small --unencrypted --pack-size 4M";
    output(of_user(&data).args(create.split(' ')));
    asked(&data, "PATCH", "/v1/settings/gc.pause", Some(json!({"value": 1})));
    let size = format!("{SIZE}M");
    output(of_user(&data).args(["volume", "create", "vol", "--pool", "small", "--size", &size]));
    let vol = uri(&data, "small/vol");
    let mut round = 0;
    // Three times what there is room for, and then until a job has collected, too.
    while round * SIZE < 3 * ROOM || jobs(&data).is_empty() {
        overwrite(&vol, round);
        round += 1;
        assert!(round < 200, "no job collects");
    }
    let job = &jobs(&data)[0];
    assert_eq!((&job["user_name"], &job["user_id"]), (&json!("appliance"), &Value::Null), "{job}");
    assert!(metric(&data, "pool_collections") >= 1.0);
    let freed = metric(&data, "pool_collected_bytes");
    assert!(freed > (ROOM << 20) as f64, "{freed}");
    // Those that writes waited for are told of, too.
    if metric(&data, "pool_urgent_collections") > 0.0 {
        until("an event tells of it", || {
            !items(&data, "/v1/events?filter=kind:==pool.collected").is_empty()
        });
    }
    served.stop();
}
