//! Garbage of an appliance's pools, which nobody collects but the appliance.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cut::Small;
use crate::nbd::{asked, uri};
use crate::support::served::{Served, of_user, text};
use crate::support::{Lab, output, tool};
use crate::up::{until, within};

/// The size of the filesystem that the pool lies on, in MiB.
const ROOM: u64 = 256;
/// The size of the volume, in MiB.
const SIZE: u64 = 72;

/// Overwrites so many MiB of a volume in random order, and reads them again.
fn overwrite(uri: &str, size: u64, seed: u64) {
    let mut fio = tool("fio");
    fio.args(["--name=overwrite", "--ioengine=nbd", "--rw=randwrite", "--bs=64k", "--iodepth=8"]);
    fio.args([
        "--verify=crc32c",
        "--do_verify=1",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--refill_buffers",
    ]);
    fio.arg(format!("--size={size}m")).arg(format!("--randseed={seed}"));
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
    let size = format!("{SIZE}M");
    output(of_user(&data).args(["volume", "create", "vol", "--pool", "small", "--size", &size]));
    let vol = uri(&data, "small/vol");
    let set = |name: &str, value: u64| {
        asked(&data, "PATCH", &format!("/v1/settings/{name}"), Some(json!({ "value": value })));
    };
    // Where no job is to be begun, writes that find no room make it.
    for name in ["gc.overwritten", "gc.free", "gc.every"] {
        set(name, 0);
    }
    let mut round = 0;
    while round * SIZE < 3 * ROOM {
        overwrite(&vol, SIZE, round);
        round += 1;
    }
    assert!(metric(&data, "pool_urgent_collections") >= 1.0);
    assert!(metric(&data, "pool_collections") >= 1.0);
    let freed = metric(&data, "pool_collected_bytes");
    assert!(freed > (ROOM << 20) as f64, "{freed}");
    until("an event tells of it", || {
        !items(&data, "/v1/events?filter=kind:==pool.collected").is_empty()
    });
    assert_eq!(jobs(&data), [] as [Value; 0]);
    // Where one is, it is begun without being asked for. Less is written at a time than would take all room, so that no
    // write has garbage collected before.
    set("gc.overwritten", 20);
    set("gc.pause", 1);
    let is_collected = (0..5).any(|more| {
        overwrite(&vol, SIZE / 3, round + more);
        within(Duration::from_secs(60), || !jobs(&data).is_empty())
    });
    assert!(is_collected, "no job collects");
    let job = &jobs(&data)[0];
    assert_eq!((&job["user_name"], &job["user_id"]), (&json!("appliance"), &Value::Null), "{job}");
    served.stop();
}
