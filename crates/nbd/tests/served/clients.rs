//! Clients that others wrote: libnbd's tools, QEMU's, and fio.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::support::{Named, limits, outcome, run, tcp, unix, with_limits};
use strongroom_block::testing::MemoryDevice;
use strongroom_block::{BlockDevice, Durability, Geometry};

const SIZE: u64 = 64 << 20;

fn served() -> (Arc<MemoryDevice>, strongroom_nbd::Server, SocketAddr) {
    let device = Arc::new(MemoryDevice::new(SIZE));
    let exports = Named::one(device.clone()).read_only("cast", device.clone());
    let (server, address) = tcp(exports, with_limits(limits()));
    (device, server, address)
}

fn url(address: SocketAddr, export: &str) -> String {
    format!("nbd://{address}/{export}")
}

/// A disk with data, holes, and data to its end.
fn image(path: &Path) -> Vec<u8> {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    let data: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    file.write_all_at(&data, 1 << 20).unwrap();
    file.write_all_at(&data[..4096], SIZE - 4096).unwrap();
    fs::read(path).unwrap()
}

fn contents(device: &MemoryDevice) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    device.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn nbdinfo_tells_what_is_served() {
    let (device, _server, address) = served();
    device.write_at(1 << 20, &[1; 8192], Durability::Later).unwrap();
    let told = run("nbdinfo", &["--json", &url(address, "disk")]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["protocol"], &told["structured"]), (&"newstyle-fixed".into(), &true.into()));
    let export = &told["exports"][0];
    assert_eq!((&export["export-name"], &export["export-size"]), (&"disk".into(), &SIZE.into()));
    assert_eq!(export["description"], "the disk disk");
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    for can in
        ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_cache", "can_df"]
    {
        assert_eq!(export[can], true, "{can}");
    }
    assert_eq!((&export["is_read_only"], &export["can_fast_zero"]), (&false.into(), &false.into()));
    assert_eq!(export["block_size_minimum"], 512);
    assert_eq!(export["block_size_maximum"], 32 << 20);

    let told = run("nbdinfo", &["--list", "--json", &format!("nbd://{address}")]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let exports = told["exports"].as_array().unwrap();
    assert_eq!(
        (&exports[0]["export-name"], &exports[0]["is_read_only"]),
        (&"cast".into(), &true.into())
    );
    assert_eq!(exports.len(), 2);

    let map = run("nbdinfo", &["--map", "--json", &url(address, "disk")]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let extents = map.as_array().unwrap().iter();
    let extents = extents.map(|extent| {
        (extent["offset"].as_u64(), extent["length"].as_u64(), extent["type"].as_u64())
    });
    let expected =
        [(0, 1 << 20, 3), (1 << 20, 8192, 0), ((1 << 20) + 8192, SIZE - (1 << 20) - 8192, 3)];
    let expected = expected.map(|(offset, length, kind)| (Some(offset), Some(length), Some(kind)));
    assert_eq!(extents.collect::<Vec<_>>(), expected);

    let none = outcome("nbdinfo", &["--size", &url(address, "none")]);
    assert!(!none.status.success());
    assert!(String::from_utf8_lossy(&none.stderr).contains("no export named"), "{none:?}");
}

#[test]
fn nbdcopy_brings_a_disk_there_and_back() {
    let (device, _server, address) = served();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let sent = image(&from);
    let export = url(address, "disk");
    run("nbdcopy", &["--flush", from.to_str().unwrap(), &export]);
    assert!(contents(&device) == sent);
    assert!(device.flushes() > 0);
    // Holes stayed holes.
    assert!(device.extents(0, SIZE, 99).unwrap().len() >= 4);
    run("nbdcopy", &["--connections=4", "--requests=32", &export, to.to_str().unwrap()]);
    assert!(fs::read(&to).unwrap() == sent);
    // Without structured replies too, as old clients have it.
    run("nbdcopy", &["--no-extents", &export, to.to_str().unwrap()]);
    assert!(fs::read(&to).unwrap() == sent);
    // From one export to another, over ours on both sides.
    let other = Arc::new(MemoryDevice::new(SIZE));
    let path = dir.path().join("socket");
    let _server = unix(Named::one(other.clone()), with_limits(limits()), &path);
    run("nbdcopy", &[&export, &format!("nbd+unix:///disk?socket={}", path.display())]);
    assert!(contents(&other) == sent);
}

#[test]
fn qemu_img_converts_both_ways_and_compares() {
    let (device, _server, address) = served();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to.qcow2"));
    let sent = image(&from);
    let (from, to, export) = (from.to_str().unwrap(), to.to_str().unwrap(), url(address, "disk"));
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8", from, &export]);
    assert!(contents(&device) == sent);
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &url(address, "cast"), to]);
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", to, from]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &export, from]);
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &export]);
    assert!(map.contains("\"zero\": true") && map.contains("\"data\": true"), "{map}");
}

#[test]
fn qemu_io_reads_what_it_wrote_discarded_and_zeroed() {
    let (device, _server, address) = served();
    let export = url(address, "disk");
    let io = |commands: &[&str]| {
        let mut arguments = vec!["-f", "raw", "-t", "writeback", "-d", "unmap"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        arguments.push(&export);
        let said = run("qemu-io", &arguments);
        assert!(!said.contains("failed"), "{said}");
    };
    io(&[
        "write -P 0x5a 1M 64k",
        "read -P 0x5a 1M 64k",
        "read -P 0 1088k 64k",
        "write -f -P 0x11 4k 4k",
        "write -z 1M 4k",
        "write -z -u 1028k 4k",
        "discard 1032k 8k",
        "flush",
        "read -P 0 1M 16k",
        "read -P 0x5a 1040k 48k",
        "aio_write -P 0x77 32M 16M",
        "aio_flush",
        "read -P 0x77 32M 16M",
        "truncate 64M",
    ]);
    assert!(device.durable() > 0, "FUA");
    assert!(device.flushes() > 0);
    // Kept and given back, each as it was asked.
    let extents = device.extents(1 << 20, 16 << 10, 9).unwrap();
    assert_eq!(extents[0].length, 4096, "{extents:?}");
    let denied = outcome("qemu-io", &["-f", "raw", "-c", "write 0 4k", &url(address, "cast")]);
    assert!(!denied.status.success() || !denied.stderr.is_empty());
    assert_eq!(contents(&device)[0], 0);
}

#[test]
fn fio_verifies_what_several_connections_wrote_at_depth_32() {
    let (_device, _server, address) = served();
    let arguments = [
        "--name=verify",
        "--ioengine=nbd",
        &format!("--uri={}", url(address, "disk")),
        "--rw=randwrite",
        "--bsrange=4k-256k",
        "--iodepth=32",
        "--numjobs=4",
        "--size=16m",
        "--offset_increment=16m",
        "--verify=crc32c",
        "--do_verify=1",
        // Else it leaves files where it was started.
        "--verify_state_save=0",
        "--fsync=64",
        "--output-format=json",
    ];
    let told = run("fio", &arguments);
    let told: serde_json::Value = serde_json::from_str(&told[told.find('{').unwrap()..]).unwrap();
    let jobs = told["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 4);
    for job in jobs {
        assert_eq!(job["error"], 0);
        assert_eq!(job["read"]["io_bytes"], 16 << 20);
    }
}

#[test]
fn blocks_of_4096_bytes_are_kept_to() {
    let geometry = Geometry {
        size: SIZE,
        block: 4096,
        physical: 4096,
        optimal: 65536,
        read_only: false,
        thin: true,
    };
    let device = Arc::new(MemoryDevice::with(geometry));
    let (_server, address) = tcp(Named::one(device.clone()), with_limits(limits()));
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let sent = image(&from);
    let export = url(address, "disk");
    run("nbdcopy", &[from.to_str().unwrap(), &export]);
    assert!(contents(&device) == sent);
    // QEMU knows the size of blocks, and reads and writes what is around 512 bytes.
    run("qemu-io", &["-f", "raw", "-c", "write -P 9 512 512", "-c", "read -P 9 512 512", &export]);
    assert_eq!(contents(&device)[512..1024], [9; 512]);
    assert_eq!(contents(&device)[1024..2048], sent[1024..2048]);
}
