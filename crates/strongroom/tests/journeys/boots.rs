//! Machines that start from exports: Linux on an emulated processor, with its root on the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::exported::Exported;
use crate::support::volumes::make_volume;
use crate::support::{Lab, noise, output, tool};

const SIZE: u64 = 64 << 20;
/// What the machine says when all on its disk is as it was.
const GOOD: &str = "all of the disk is there";
/// The first process of the machine.
const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
cd /
if /bin/busybox sha256sum -c sums && /bin/busybox cp data written && /bin/busybox sync; then
    echo 'all of the disk is there'
fi
/bin/busybox mount -o remount,ro /
/bin/busybox poweroff -f
";

/// Where `cargo xtask test` puts it, unless this names another.
fn kernel() -> PathBuf {
    let named = std::env::var_os("STRONGROOM_TEST_KERNEL").map(PathBuf::from);
    let kernel = named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.filter(|dir| !dir.as_os_str().is_empty());
        let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
        cache.unwrap_or_default().join("strongroom/kernel/vmlinuz")
    });
    assert!(kernel.exists(), "`cargo xtask test` fetches {}", kernel.display());
    kernel
}

/// A disk that a machine can start from, and what is in the file `data` on it.
fn system(lab: &Lab) -> (PathBuf, Vec<u8>) {
    let tree = lab.path("system");
    for dir in ["bin", "dev", "proc"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    let data = noise(6, 2_000_000);
    fs::write(tree.join("data"), &data).unwrap();
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    fs::write(tree.join("init"), INIT).unwrap();
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let sums = output(tool("sha256sum").arg("data").current_dir(&tree));
    fs::write(tree.join("sums"), sums).unwrap();
    let disk = lab.path("system.img");
    fs::File::create(&disk).unwrap().set_len(SIZE).unwrap();
    output(tool("mkfs.ext4").arg("-q").arg("-d").arg(&tree).arg(&disk));
    (disk, data)
}

/// Starts a machine with this disk, and waits until it has switched itself off.
fn boot(lab: &Lab, uri: &str) {
    let console = lab.path("console");
    let mut qemu = tool("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).arg("-kernel").arg(kernel());
    qemu.args(["-append", "root=/dev/nvme0n1 rw console=ttyS0 init=/init panic=-1 quiet"]);
    qemu.arg("-drive").arg(format!("file={uri},format=raw,if=none,id=disk,cache=none"));
    qemu.args(["-device", "nvme,drive=disk,serial=1"]).stdin(Stdio::null());
    let mut machine = qemu.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(240);
    let ended = loop {
        match machine.try_wait().unwrap() {
            Some(ended) => break ended,
            None if Instant::now() > end => {
                machine.kill().unwrap();
                break machine.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let said = fs::read_to_string(&console).unwrap();
    assert!(ended.success() && said.contains(GOOD), "{ended}: {said}");
}

/// Fails unless a disk is a clean filesystem, and has what the machine wrote.
fn check(disk: &Path, written: &[u8]) {
    output(tool("e2fsck").args(["-f", "-n"]).arg(disk));
    let found = output(tool("debugfs").args(["-R", "cat written"]).arg(disk));
    assert!(found == written, "the machine's file");
}

#[test]
fn a_machine_starts_from_a_backup_that_stays_what_it_is() {
    let lab = Lab::new();
    lab.make_pool();
    let (disk, data) = system(&lab);
    lab.run("backup --image system.img --name vm").code(0);
    let served = Exported::of(&lab, "vm --writable");
    boot(&lab, served.uri());
    let copy = lab.path("copy.img");
    output(tool("nbdcopy").arg(served.uri()).arg(&copy));
    check(&copy, &data);
    assert_eq!(served.end().0, Some(0));
    let served = Exported::of(&lab, "vm");
    output(tool("nbdcopy").arg(served.uri()).arg(&copy));
    output(tool("cmp").arg(&disk).arg(&copy));
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn a_machine_starts_from_a_volume_by_iscsi_and_writes_to_it() {
    let lab = Lab::new();
    lab.make_pool();
    let (disk, data) = system(&lab);
    make_volume(&lab, "vm", SIZE);
    let served = Exported::of(&lab, "vm --in-place --iscsi 127.0.0.1:0");
    output(tool("nbdcopy").arg("--flush").arg(&disk).arg(served.uri()));
    boot(&lab, served.iscsi());
    // It was written, and the cache flushed: what the process does at its end is not needed for that.
    served.kill();
    fs::remove_file(lab.path("socket")).unwrap();
    let served = Exported::of(&lab, "vm");
    let copy = lab.path("copy.img");
    output(tool("nbdcopy").arg(served.uri()).arg(&copy));
    check(&copy, &data);
    assert_eq!(served.end().0, Some(0));
}
