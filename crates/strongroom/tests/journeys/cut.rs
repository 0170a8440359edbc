//! Commands that are cut short, and disks that are full: what was there stays, and the next run goes
//! on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{Lab, assert_same, must_be_root, noise, output, tool};

/// A small filesystem that is mounted for as long as this lives.
pub(crate) struct Small(PathBuf);

impl Small {
    /// ext4 in a file, or, where loop devices can't be had, a tmpfs.
    pub(crate) fn mount(lab: &Lab, mib: u64) -> Option<Self> {
        must_be_root();
        let (image, dir) = (lab.path("small.img"), lab.path("small"));
        fs::create_dir(&dir).unwrap();
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        output(tool("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let looped = tool("mount").args(["-o", "loop"]).args([&image, &dir]).output().unwrap();
        if looped.status.success() {
            return Some(Self(dir));
        }
        eprintln!("NOT TESTED: ext4: {}", String::from_utf8_lossy(&looped.stderr));
        let size = format!("size={mib}m");
        let tmpfs = tool("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&dir).output();
        let tmpfs = tmpfs.unwrap();
        if tmpfs.status.success() {
            return Some(Self(dir));
        }
        eprintln!("NOT TESTED: a full disk: {}", String::from_utf8_lossy(&tmpfs.stderr));
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = tool("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_work_goes_on_once_there_is_room() {
    let lab = Lab::new();
    let Some(_small) = Small::mount(&lab, 48) else { return };
    for (name, len) in [("first", 6 << 20), ("big", 90 << 20), ("other", 14 << 20)] {
        fs::create_dir(lab.path(name)).unwrap();
        fs::write(lab.path(name).join("file"), noise(len as u64, len)).unwrap();
    }
    let run = |line: &str| lab.run(&format!("{line} --pool small/pool"));
    lab.run("pool create small/pool --encrypt --password-file pw --pack-size 8M").code(0);
    run("backup first").code(0);
    let names = |count: usize| {
        let list = run("images list --json").code(0).json();
        assert_eq!(list["images"].as_array().map(Vec::len), Some(count), "{list}");
    };
    // Twice: what the first left doesn't change what the second says.
    for _ in 0..2 {
        let full = run("backup big").code(1);
        assert_eq!(full.err.lines().count(), 1, "{}", full.err);
        let said = ["No space left", "MiB left"].iter().any(|words| full.err.contains(words));
        assert!(said && full.err.starts_with("error: "), "{}", full.err);
        names(1);
        let check = run("pool check --read-data").code(0).text();
        assert!(check.contains("no damage found"), "{check}");
    }
    run("restore first --to full --verify").code(0);
    assert_same(&lab.path("first"), &lab.inside("full", "first"));
    // A full pool can be made to forget, and to free what nobody needs.
    run("pool gc --max-unused 0").code(0);
    run("backup other").code(0);
    names(2);
    run("images forget first --yes").code(0);
    run("pool gc --max-unused 0").code(0);
    run("pool check --read-data").code(0);
    run("restore other --to after --verify").code(0);
    assert_same(&lab.path("other"), &lab.inside("after", "other"));
    let scrubbed = run("pool scrub --json").code(0).json();
    assert_eq!((&scrubbed["bad_shards"], &scrubbed["bad_units"]), (&0.into(), &0.into()));
}

/// Files that are whole: their time is the last that is set.
fn whole(dir: &Path, times: &BTreeMap<OsString, (i64, i64)>) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let is_whole = |entry: &fs::DirEntry| {
        let meta = entry.metadata().ok();
        meta.map(|meta| (meta.mtime(), meta.mtime_nsec())).as_ref() == times.get(&entry.file_name())
    };
    entries.flatten().filter(is_whole).count() as u64
}

#[test]
fn a_restore_that_was_killed_does_not_write_whole_files_again() {
    const LEN: usize = 3_000_000;
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    for number in 0..60 {
        fs::write(lab.path("src").join(format!("file{number:02}")), noise(number, LEN)).unwrap();
    }
    let times: BTreeMap<_, _> = fs::read_dir(lab.path("src"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            (entry.file_name(), (meta.mtime(), meta.mtime_nsec()))
        })
        .collect();
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    let line = ["restore", "tree", "--to", "out"];
    let to = lab.inside("out", "src");
    let mut child = lab.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while whole(&to, &times) < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it could be killed");
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    let done = whole(&to, &times);
    assert!(done < 60, "it was done before it was killed");
    let inodes = |dir: &Path| -> BTreeMap<OsString, u64> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().ino())).collect()
    };
    let before = inodes(&to);
    let told = lab.run("restore tree --to out --verify --json").code(0).json();
    assert_eq!(told["skipped"].as_u64(), Some(done), "{told}");
    assert_eq!(told["bytes"].as_u64(), Some((60 - done) * LEN as u64), "{told}");
    let after = inodes(&to);
    let kept = before.iter().filter(|(name, inode)| after.get(*name) == Some(inode)).count();
    assert!(kept as u64 >= done, "{kept} files of {done} are the same");
    assert_same(&lab.path("src"), &to);
}
