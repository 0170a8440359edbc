//! Volumes that are served by a process which is killed: what was flushed is there.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::devices::SIZE;
use crate::support::exported::Exported;
use crate::support::fused::Fused;
use crate::support::volumes::make_volume;
use crate::support::{Lab, disk_usage, noise, output, tool};

const MIB: u64 = 1 << 20;

/// A job of fio for a part of the volume that goes through its blocks in any order, each once: `randwrite`
/// writes them, `randread` checks them.
fn fio(how: &str, uri: &str, offset: u64, pattern: u32) -> Command {
    let mut fio = tool("fio");
    fio.args(["--name=part", "--ioengine=nbd", "--bs=4k", "--iodepth=16"]);
    fio.arg(format!("--rw={how}"));
    fio.args(["--verify=pattern", "--verify_fatal=1", "--verify_state_save=0", "--size=16m"]);
    fio.arg(format!("--uri={uri}")).arg(format!("--offset={offset}"));
    fio.arg(format!("--verify_pattern=0x{pattern:08x}%o"));
    fio.stdout(Stdio::null());
    fio
}

#[test]
fn what_fio_flushed_is_there_after_every_kill() {
    let lab = Lab::new();
    lab.make_pool();
    make_volume(&lab, "vol", SIZE);
    for round in 1..=3 {
        let served = Exported::in_place(&lab, "vol");
        output(fio("randwrite", served.uri(), 0, round).args(["--do_verify=0", "--end_fsync=1"]));
        // Killed while somebody writes elsewhere.
        let before = disk_usage(&lab.path("pool"));
        let mut writer = fio("randwrite", served.uri(), 32 * MIB, round);
        writer.args(["--do_verify=0", "--loops=1000"]).stderr(Stdio::null());
        let mut writer = writer.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while disk_usage(&lab.path("pool")) < before + 4 * MIB {
            assert!(Instant::now() < end, "nothing is written");
            std::thread::sleep(Duration::from_millis(20));
        }
        served.kill();
        assert!(!writer.wait().unwrap().success(), "it had nobody to write to");
        fs::remove_file(lab.path("socket")).unwrap();
        let served = Exported::of(&lab, "vol");
        output(&mut fio("randread", served.uri(), 0, round));
        // What is seen of the round before would be an error.
        let other = fio("randread", served.uri(), 0, round + 1).output().unwrap();
        assert!(!other.status.success(), "fio checks nothing");
        assert_eq!(served.end().0, Some(0));
    }
    lab.run("pool check").code(0);
}

#[test]
fn a_filesystem_that_was_synced_is_clean_after_every_kill() {
    let lab = Lab::new();
    lab.make_pool();
    make_volume(&lab, "vol", SIZE);
    let copy = lab.path("copy.img");
    for round in 0_u64..4 {
        let served = Exported::in_place(&lab, "vol");
        let fused = Fused::new(&lab, served.uri());
        if round == 0 {
            output(tool("mkfs.ext4").arg("-q").arg(fused.file()));
        } else {
            let source = lab.path(&format!("file{round}"));
            fs::write(&source, noise(round, 3_000_000)).unwrap();
            let request = format!("write {} file{round}", source.display());
            output(tool("debugfs").args(["-w", "-R", &request]).arg(fused.file()));
        }
        fs::File::options().write(true).open(fused.file()).unwrap().sync_all().unwrap();
        served.kill();
        drop(fused);
        fs::remove_file(lab.path("socket")).unwrap();
        let served = Exported::of(&lab, "vol");
        output(tool("nbdcopy").arg(served.uri()).arg(&copy));
        output(tool("e2fsck").args(["-f", "-n"]).arg(&copy));
        for file in 1..=round {
            let mut cat = tool("debugfs");
            let read = output(cat.args(["-R", &format!("cat file{file}")]).arg(&copy));
            assert!(read == noise(file, 3_000_000), "file{file} in round {round}");
        }
        assert_eq!(served.end().0, Some(0));
    }
}
