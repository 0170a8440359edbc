//! What the appliance tells of itself and its machine, compared with what other tools say.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::served::Served;
use crate::support::{output, tool};
use crate::up::run;

fn text(data: &Path, line: &str) -> String {
    let (code, out, err) = run(data, line);
    assert_eq!(code, 0, "{line}: {err}");
    out
}

fn json(data: &Path, line: &str) -> Value {
    serde_json::from_str(&text(data, &format!("{line} --json"))).unwrap()
}

/// Within a tenth of the whole: others use the machine meanwhile.
fn near(told: &Value, is: u64, whole: u64) {
    let told = told.as_u64().unwrap();
    assert!(told.abs_diff(is) <= whole / 10, "{told} is not {is}");
}

/// Bytes of a path's filesystem: all, used, free.
fn df(path: &Path) -> [u64; 3] {
    let told = output(tool("df").args(["-B1", "--output=size,used,avail"]).arg(path));
    let told = String::from_utf8(told).unwrap();
    let numbers = told.lines().nth(1).unwrap().split_whitespace();
    numbers.map(|number| number.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap()
}

/// A field of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_machine_is_as_other_tools_say() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);

    let health = json(&data, "system health");
    let [size, used, free] = df(&data);
    let (disk, pool) = (&health["disk"], &health["pool_disks"][0]);
    near(&disk["used_bytes"], used, size);
    near(&disk["percent"], used * 100 / (used + free), 100);
    for disk in [disk, pool] {
        assert_eq!(disk["total_bytes"], size, "{health}");
        near(&disk["free_bytes"], free, size);
    }
    assert_eq!((&pool["pool"], &pool["state"]), (&json!("main"), &json!("ok")));
    let memory = &health["memory"];
    assert_eq!(memory["total_bytes"], meminfo("MemTotal:"));
    near(&memory["free_bytes"], meminfo("MemAvailable:"), meminfo("MemTotal:"));
    let known = fs::read_to_string("/proc/cpuinfo").unwrap();
    let cores = known.lines().filter(|line| line.starts_with("processor")).count();
    assert_eq!(health["cpu"]["cores"], cores);
    let loads = fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = loads.split(' ').nth(2).unwrap().parse().unwrap();
    let told = health["cpu"]["load_15"].as_f64().unwrap();
    assert!((told - load).abs() < 1.0 + load / 5.0, "{told} is not {load}");
    let table = text(&data, "system health");
    assert!(table.contains("data directory") && table.contains("pool main, disk 0"), "{table}");

    served.stop();
}

#[test]
fn it_tells_what_it_is_and_where_it_listens_to_those_who_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("strongroom.toml"), "redirect = \"127.0.0.1:0\"\n").unwrap();
    let served = Served::start(&data);

    let build = json(&data, "system version");
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    assert!(build["target"].as_str().unwrap().contains(std::env::consts::ARCH), "{build}");
    let changelog = concat!(env!("CARGO_MANIFEST_DIR"), "/../../CHANGELOG.md");
    assert_eq!(text(&data, "system changelog"), fs::read_to_string(changelog).unwrap());

    let told = text(&data, "system services --json");
    let services: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = services.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["https", "http-redirect", "control", "nbd"]);
    assert!(services.iter().all(|one| one["state"] == "listening"), "{told}");
    let address = |place: usize| services[place]["address"].as_str().unwrap();
    assert_eq!(served.told["urls"], json!([format!("https://{}", address(0))]));
    TcpStream::connect(address(1)).unwrap();
    UnixStream::connect(address(2)).unwrap();
    UnixStream::connect(address(3)).unwrap();
    assert!(text(&data, "system services").contains(address(1)));

    fs::write(dir.path().join("pw"), "correct horse battery\n").unwrap();
    text(&data, "users create seer --password-file pw --role viewer");
    text(&data, "users create nobody --password-file pw");
    for (user, code) in [("seer", 0), ("nobody", 6)] {
        text(&data, &format!("{} --user {user}", served.login()));
        for what in ["health", "version", "changelog", "services"] {
            let (ended, _, err) = run(&data, &format!("system {what}"));
            assert_eq!(ended, code, "{user}, {what}: {err}");
        }
    }
    served.stop();
}

#[test]
fn services_of_the_machine_are_told_where_systemd_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let units = ["systemd-journald.service", "no-such-thing.service"];
    let config = format!("service_units = {units:?}\nlisten = [\"127.0.0.1:0\"]\n");
    fs::write(data.join("strongroom.toml"), config).unwrap();
    let served = Served::start(&data);
    let told = text(&data, "system services --json");
    let all: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind = |kind: &str| all.iter().filter(|one| one["kind"] == kind).collect::<Vec<_>>();
    let names: Vec<_> = of_kind("server").iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["https", "control", "nbd"]);
    // What systemd itself says, where it is the init of the machine.
    match Path::new("/run/systemd/system").is_dir() {
        true => {
            let told = of_kind("unit");
            let named: Vec<_> = told.iter().map(|one| one["name"].as_str().unwrap()).collect();
            assert_eq!(named, units);
            let is_active = tool("systemctl").args(["is-active", units[0]]).output().unwrap();
            let is_running = told[0]["state"] == "running";
            assert_eq!(is_running, is_active.stdout == b"active\n");
            assert_eq!(told[1]["state"], "not_found");
        }
        false => assert!(of_kind("unit").is_empty(), "{told}"),
    }
    served.stop();
}
