//! Block images and streams.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::support::{Lab, disk_usage, noise, output, tool};

#[test]
fn a_stream_comes_back_as_it_was() {
    let lab = Lab::new();
    lab.make_pool();
    let dump: Vec<u8> = [noise(1, 5_000_000), vec![0; 3_000_000], noise(2, 1_000_001)].concat();
    let made = lab.run_with_input("backup --stdin --name db.sql --json", &dump).code(0).json();
    assert_eq!(made["bytes"], dump.len());
    assert_eq!(lab.run("cat db.sql").code(0).out, dump);
    let part = lab.run("cat db.sql --offset 4999990 --length 20").code(0).out;
    assert_eq!(part, &dump[4_999_990..5_000_010]);
    lab.run("restore db.sql --to out").code(0);
    assert_eq!(fs::read(lab.path("out/db.sql")).unwrap(), dump);
    // The next one is nearly the same, and so costs nearly nothing.
    let more = [&dump[..], b"more"].concat();
    let made = lab.run_with_input("backup --stdin --name db.sql --json", &more).code(0).json();
    assert!(made["new_bytes"].as_u64().unwrap() < 400_000, "{made}");
    assert_eq!(lab.run("cat db.sql").code(0).out, more);
    // Nothing at all is content, too.
    lab.run_with_input("backup --stdin --name nothing", b"").code(0);
    assert_eq!(lab.run("cat nothing").code(0).out, b"");
    lab.run("images show nothing").code(0);
}

#[test]
fn a_disk_image_comes_back_sparse() {
    let lab = Lab::new();
    lab.make_pool();
    let disk = fs::File::create(lab.path("disk.img")).unwrap();
    disk.set_len(2 << 30).unwrap();
    for (at, len) in [(0, 1 << 20), (700 << 20, 3 << 20), ((2 << 30) - 4096, 4096)] {
        disk.write_all_at(&noise(at + 1, len), at).unwrap();
    }
    let made = lab.run("backup --image disk.img --name vm --json").code(0).json();
    assert_eq!(made["bytes"], 2u64 << 30);
    assert!(made["new_bytes"].as_u64().unwrap() < 5 << 20, "{made}");
    lab.run("restore vm --to out").code(0);
    let names: Vec<_> = fs::read_dir(lab.path("out")).unwrap().map(|e| e.unwrap().path()).collect();
    output(tool("cmp").arg(lab.path("disk.img")).arg(&names[0]));
    let (before, after) = (disk_usage(&lab.path("disk.img")), disk_usage(&names[0]));
    assert!(after <= before + (1 << 20), "{before} bytes became {after}");
    assert_eq!(names[0].metadata().unwrap().len(), 2 << 30);
    // A changed sector stores one chunk again.
    disk.write_all_at(b"changed", (700 << 20) + 5000).unwrap();
    let made = lab.run("backup --image disk.img --name vm --json").code(0).json();
    let chunk = lab.run("pool show --json").json()["image_chunk_size"].as_u64().unwrap();
    assert!(made["new_bytes"].as_u64().unwrap() < chunk + 20_000, "{made}");
}

#[test]
fn a_block_device_is_a_source() {
    let lab = Lab::new();
    lab.make_pool();
    fs::write(lab.path("backing"), noise(1, 8 << 20)).unwrap();
    let device =
        output(tool("losetup").args(["--find", "--show", "--read-only"]).arg(lab.path("backing")));
    let device = String::from_utf8(device).unwrap().trim().to_owned();
    let made = lab.run_args(["backup", "--image", &device, "--name", "disk", "--json"]);
    output(tool("losetup").args(["--detach", &device]));
    assert_eq!(made.code(0).json()["bytes"], 8 << 20);
    assert_eq!(lab.run("cat disk").code(0).out, noise(1, 8 << 20));
}

#[test]
fn a_file_with_holes_costs_only_its_data() {
    let lab = Lab::new();
    lab.make_pool();
    fs::create_dir(lab.path("src")).unwrap();
    let file = fs::File::create(lab.path("src/sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"far out", (1 << 40) - 100).unwrap();
    lab.run("backup src").code(0);
    lab.run("restore src --to out").code(0);
    let restored = lab.inside("out", "src").join("sparse");
    assert_eq!(restored.metadata().unwrap().len(), 1 << 40);
    assert!(restored.metadata().unwrap().blocks() < 1000);
    let mut end = [0; 7];
    fs::File::open(&restored).unwrap().read_exact_at(&mut end, (1 << 40) - 100).unwrap();
    assert_eq!(&end, b"far out");
}
