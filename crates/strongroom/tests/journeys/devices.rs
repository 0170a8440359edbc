//! Disks that were backed up, served over NBD and judged by its clients.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::remote::Behind;
use crate::support::exported::Exported;
use crate::support::images::spoil;
use crate::support::{Lab, noise, output, tool};

/// Bytes of the disks of these tests.
pub(crate) const SIZE: u64 = 96 << 20;

/// A disk with a filesystem of some files, mostly empty.
pub(crate) fn disk(lab: &Lab) -> PathBuf {
    let tree = lab.path("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    for (i, len) in [(1, 3_000_000), (2, 40_000), (3, 700_000)] {
        fs::write(tree.join(format!("etc/file{i}")), noise(i, len)).unwrap();
    }
    let disk = lab.path("disk.img");
    fs::File::create(&disk).unwrap().set_len(SIZE).unwrap();
    output(tool("mkfs.ext4").arg("-q").arg("-d").arg(&tree).arg(&disk));
    disk
}

/// A pool in which `vm` is the image of a disk; that disk.
pub(crate) fn backed_up() -> (Lab, PathBuf) {
    let lab = Lab::new();
    lab.make_pool();
    let disk = disk(&lab);
    lab.run("backup --image disk.img --name vm").code(0);
    (lab, disk)
}

pub(crate) fn same(disk: &Path, uri: &str) {
    output(tool("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).arg(disk).arg(uri));
}

#[test]
fn a_disk_of_a_backup_is_what_was_backed_up() {
    let (lab, disk) = backed_up();
    let served = Exported::of(&lab, "vm");
    assert_eq!(served.told["export"], "vm");
    assert_eq!(served.told["size"], SIZE);
    assert_eq!(served.told["writable"], false);
    let mode = fs::metadata(lab.path("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may not connect");
    same(&disk, served.uri());
    let copy = lab.path("copy.img");
    output(tool("nbdcopy").arg(served.uri()).arg(&copy));
    output(tool("cmp").arg(&disk).arg(&copy));
    output(tool("fsck.ext4").args(["-f", "-n"]).arg(&copy));
    let listed = output(tool("nbdinfo").args(["--json", "--list"]).arg(served.uri()));
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed["exports"][0]["export-name"], "vm");
    assert_eq!(listed["exports"][0]["is_read_only"], true);
    assert_eq!(listed["exports"][0]["export-size"], SIZE);
    let wrote = tool("qemu-io").args(["-f", "raw", "-c", "write 0 4k"]).arg(served.uri()).output();
    assert!(!wrote.unwrap().status.success());
    let (code, said) = served.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!lab.path("socket").exists());
}

#[test]
fn its_holes_are_told_and_are_zeroes() {
    let (lab, disk) = backed_up();
    let served = Exported::of(&lab, "vm");
    let map = output(tool("nbdinfo").args(["--map", "--json"]).arg(served.uri()));
    let map: Value = serde_json::from_slice(&map).unwrap();
    let file = fs::File::open(&disk).unwrap();
    let (mut at, mut holes) = (0, 0);
    for extent in map.as_array().unwrap() {
        let (offset, length) =
            (extent["offset"].as_u64().unwrap(), extent["length"].as_u64().unwrap());
        assert_eq!(offset, at);
        at += length;
        if extent["type"] == 3 {
            holes += length;
            let mut bytes = vec![1; length as usize];
            file.read_exact_at(&mut bytes, offset).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "data at {offset} is told to be a hole");
        }
    }
    assert_eq!(at, SIZE);
    assert!(holes > SIZE / 2, "{holes} bytes of {SIZE} are holes");
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn any_range_is_what_cat_prints() {
    let (lab, _) = backed_up();
    let command = lab.command("volume export vm --nbd 127.0.0.1:0 --json".split_whitespace());
    let served = Exported::begin(command);
    assert!(served.uri().starts_with("nbd://127.0.0.1:"), "{}", served.uri());
    let numbers = noise(77, 8 * 16);
    for number in numbers.chunks_exact(16) {
        let half = |at: usize| u64::from_le_bytes(number[at..at + 8].try_into().unwrap());
        let (skip, count) = (half(0) % (SIZE / 512), half(8) % 3000 + 1);
        let count = count.min(SIZE / 512 - skip);
        let part = lab.path("part");
        let mut dd = tool("qemu-img");
        dd.args(["dd", "-f", "raw", "-O", "raw", "bs=512"]);
        // It counts blocks from the start of its input.
        dd.arg(format!("skip={skip}")).arg(format!("count={}", skip + count));
        dd.arg(format!("if={}", served.uri())).arg(format!("of={}", part.display()));
        output(&mut dd);
        let line = format!("cat vm --offset {} --length {}", skip * 512, count * 512);
        assert!(lab.run(&line).code(0).out == fs::read(&part).unwrap(), "{skip} {count}");
    }
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn a_disk_is_served_from_a_mirror_that_lost_one_of_its_own() {
    let lab = Lab::new();
    lab.make_pool_of("mirror", 2);
    let disk = disk(&lab);
    lab.run("backup --image disk.img --name vm").code(0);
    fs::rename(lab.path("d0"), lab.path("away")).unwrap();
    let served = Exported::of(&lab, "vm");
    assert!(served.told["notes"].to_string().contains("missing"), "{}", served.told);
    same(&disk, served.uri());
    let (code, said) = served.end();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_is_damaged_is_an_error_at_its_place_and_nowhere_else() {
    let lab = Lab::new();
    lab.make_pool();
    let bytes = noise(5, 24 << 20);
    fs::write(lab.path("disk.img"), &bytes).unwrap();
    lab.run("backup --image disk.img --name vm").code(0);
    assert!(spoil(&lab.path("pool")) > 0);
    let served = Exported::of(&lab, "vm");
    let (mut read, mut lost) = (0, 0);
    for (i, step) in bytes.chunks(1 << 20).enumerate() {
        let part = lab.path("part");
        let at = format!("offset={},size={}", i << 20, step.len());
        let mut convert = tool("qemu-img");
        convert.args(["convert", "-O", "raw", "--image-opts"]);
        convert.arg(format!(
            "driver=raw,{at},file.driver=nbd,file.export=vm,file.server.type=unix,\
             file.server.path={}",
            lab.path("socket").display()
        ));
        match convert.arg(&part).output().unwrap() {
            came if came.status.success() => {
                assert!(fs::read(&part).unwrap() == step, "MiB {i}");
                read += 1;
            }
            came => {
                let said = String::from_utf8_lossy(&came.stderr).into_owned();
                assert!(said.contains("Input/output error"), "{said}");
                lost += 1;
            }
        }
    }
    assert!(lost > 0 && read > lost, "{read} could be read, {lost} not");
    let (code, said) = served.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("warning: vm at byte "), "{said}");
}

#[test]
fn a_writable_export_takes_writes_and_leaves_the_backup_alone() {
    let (lab, disk) = backed_up();
    let scratch = lab.path("scratch");
    fs::create_dir(&scratch).unwrap();
    let served = Exported::of(&lab, "vm --writable --scratch scratch");
    assert_eq!(served.told["writable"], true);
    let changed = lab.path("changed.img");
    fs::copy(&disk, &changed).unwrap();
    // The same is done to a copy of the disk, by the same program.
    for commands in [
        &["write -P 7 1000k 300k", "write -z 2M 1M", "write -P 9 96632k 520k"][..],
        &["write -P 8 511 3", "discard 0 1M", "aio_write -P 1 40M 4M", "aio_flush", "flush"],
    ] {
        for target in [served.uri(), changed.to_str().unwrap()] {
            let mut io = tool("qemu-io");
            io.args(["-f", "raw", "-d", "unmap"]);
            for command in commands {
                io.args(["-c", command]);
            }
            output(io.arg(target));
        }
    }
    same(&changed, served.uri());
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "what is written lies under no name");
    assert_eq!(served.end().0, Some(0));
    let served = Exported::of(&lab, "vm");
    same(&disk, served.uri());
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn another_filesystem_can_be_copied_onto_a_writable_export() {
    let (lab, disk) = backed_up();
    let served = Exported::of(&lab, "vm --writable");
    let copy = lab.path("copy.img");
    output(tool("cp").arg("--sparse=always").arg(&disk).arg(&copy));
    output(tool("debugfs").args(["-w", "-R", "rm /etc/file1"]).arg(&copy));
    output(tool("nbdcopy").arg(&copy).arg(served.uri()));
    same(&copy, served.uri());
    let back = lab.path("back.img");
    output(tool("nbdcopy").arg(served.uri()).arg(&back));
    output(tool("fsck.ext4").args(["-f", "-n"]).arg(&back));
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn a_file_in_an_image_is_served_and_a_directory_is_not() {
    let lab = Lab::new();
    lab.make_pool();
    fs::create_dir(lab.path("vms")).unwrap();
    let bytes = noise(3, 1_000_001);
    fs::write(lab.path("vms/web.img"), &bytes).unwrap();
    lab.run("backup vms --name vms").code(0);
    let path = lab.path("vms/web.img");
    let served = Exported::of(&lab, &format!("vms:{}", path.display()));
    assert_eq!(served.told["export"], "web.img");
    assert_eq!((&served.told["size"], &served.told["padding"]), (&1_000_448.into(), &447.into()));
    let copy = lab.path("copy");
    output(tool("nbdcopy").arg(served.uri()).arg(&copy));
    let copied = fs::read(&copy).unwrap();
    assert!(copied[..bytes.len()] == bytes && copied[bytes.len()..] == [0; 447]);
    // Another can't take its socket.
    let said = lab.run(&format!("volume export vms:{} --nbd unix:socket", path.display()));
    assert!(said.code(1).err.contains("remove it"));
    assert_eq!(served.end().0, Some(0));
    let said = lab.run("volume export vms --nbd unix:socket").code(1).err;
    assert!(said.contains("IMAGE:PATH") && said.contains("strongroom mount"), "{said}");
    lab.run("volume export vms --nbd nowhere").code(2);
    let everywhere = format!("volume export vms:{} --nbd 0.0.0.0:0", path.display());
    assert!(lab.run(&everywhere).code(1).err.contains("--in-clear"));
    lab.run("volume export vms --nbd unix:socket --scratch .").code(2);
}

#[test]
fn a_disk_in_a_pool_of_an_appliance_is_served_here() {
    let (lab, disk) = backed_up();
    let behind = Behind::new(lab);
    let export = || Exported::begin(behind.command("volume export vm --nbd unix:s --json"));
    let exported = export();
    same(&disk, exported.uri());
    assert_eq!(exported.end().0, Some(0));
    behind.log_in(&behind.url());
    let exported = export();
    same(&disk, exported.uri());
    assert_eq!(exported.end().0, Some(0));
    behind.served.stop();
}
