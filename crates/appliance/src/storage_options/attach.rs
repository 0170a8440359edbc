//! Attaching and detaching, in a start of the process that has nothing open yet.
//!
//! A note is written before anything is done, and removed when all of it was undone: whoever finds it
//! knows what may be attached. It holds no secret.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::iscsi;
use super::machine::Machine;
use super::settings::StorageKind;
use super::target::Target;
use crate::files;

/// The directory with the places where it is attached, in the data directory.
pub(super) const DIR: &str = "attached";
/// The note.
const NOTE: &str = "attached.json";
const NOTE_SIZE: u64 = 64 << 10;
/// How long a disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// Filesystems one over the other that are detached from one place.
const STACKED: usize = 8;
/// What is said of every filesystem: programs and devices on it are nobody's.
const SAFE: &str = "nosuid,nodev,noexec";
/// Network block devices that are looked at.
const NBD_DEVICES: u32 = 64;

type Done<T = ()> = std::result::Result<T, String>;

/// What may be attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// Which settings it came of.
    id: String,
    kind: StorageKind,
    /// In which start of the machine.
    boot: String,
    /// Of iSCSI: the target and where it is.
    #[serde(default)]
    target: Option<(String, String)>,
    /// Of a network block device.
    #[serde(default)]
    device: Option<PathBuf>,
}

/// Attaches to one machine, for one data directory.
#[derive(Clone, Debug)]
pub(super) struct Attacher {
    data: PathBuf,
    machine: Machine,
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

/// How a server is written before a path or a port.
fn host(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn mount_nfs(options: &[String], ip: std::net::IpAddr, share: &str, at: &Path) -> Vec<OsString> {
    // What is said last wins.
    let options = format!("{},retry=0,{SAFE}", options.join(","));
    let mut all = words(["mount.nfs", &format!("{}:{share}", host(ip))]);
    all.push(at.into());
    all.extend(words(["-o", &options]));
    all
}

fn mount_disk(device: &Path, at: &Path) -> Vec<OsString> {
    let mut all = words(["mount", "-o", SAFE]);
    all.extend([device.into(), at.into()]);
    all
}

fn nbd_client(export: &str, ip: std::net::IpAddr, port: u16, device: &Path) -> Vec<OsString> {
    let mut all = words(["nbd-client", &ip.to_string(), &port.to_string()]);
    all.push(device.into());
    all.extend(words(["-name", export, "-timeout", "30"]));
    all
}

fn nbd_end(device: &Path) -> Vec<OsString> {
    let mut all = words(["nbd-client", "-d"]);
    all.push(device.into());
    all
}

fn iscsiadm(target: &str, portal: &str, more: &[&str]) -> Vec<OsString> {
    let mut all = words(["iscsiadm", "-m", "node", "-T", target, "-p", portal]);
    all.extend(more.iter().map(OsString::from));
    all
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}

/// Waits for what appears when the kernel has got to it.
fn appears<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Done<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(format!("{what} did not appear within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether something is mounted exactly there, as this process sees it.
fn is_mounted(path: &Path) -> Done<bool> {
    let mounts = Path::new("/proc/self/mountinfo");
    let text = fs::read(mounts).map_err(failed(mounts))?;
    let mut lines = text.split(|c| *c == b'\n');
    Ok(lines.any(|line| {
        let place = line.split(|c| *c == b' ').nth(4).unwrap_or_default();
        unescaped(place) == path.as_os_str().as_bytes()
    }))
}

/// Spaces and the like stand there as `\040`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        match more.split_first_chunk::<3>() {
            Some((digits, after))
                if *first == b'\\' && digits.iter().all(|c| (b'0'..=b'7').contains(c)) =>
            {
                let value = digits.iter().fold(0u32, |sum, c| sum * 8 + u32::from(c - b'0'));
                out.push(value as u8);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

impl Attacher {
    pub(super) fn new(data: &Path, machine: Machine) -> Self {
        Self { data: data.to_owned(), machine }
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where a kind is attached.
    pub(super) fn place(&self, kind: StorageKind) -> PathBuf {
        self.data.join(DIR).join(kind.word())
    }

    fn note_path(&self) -> PathBuf {
        self.data.join(NOTE)
    }

    fn note(&self) -> Done<Option<Note>> {
        let path = self.note_path();
        let text = match files::read(&path, NOTE_SIZE) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let wrong = |error| {
            format!(
                "{} is not understood, so nobody knows what is attached: umount what is below {}, end its \
                 session (iscsiadm, nbd-client -d), and remove that file ({error})",
                path.display(),
                self.data.join(DIR).display()
            )
        };
        serde_json::from_slice(&text).map(Some).map_err(wrong)
    }

    fn write(&self, note: &Note) -> Done {
        let path = self.note_path();
        let text = serde_json::to_vec(note).map_err(|error| error.to_string())?;
        files::replace(&path, &text).map_err(failed(&path))
    }

    /// Attaches what is wanted, under this name of its settings, after what is no longer wanted was
    /// detached; where it is then.
    pub(super) fn become_such(&self, wanted: Option<(&str, &Target)>) -> Done<Option<PathBuf>> {
        if let Some(note) = self.note()? {
            let same = wanted.is_some_and(|(id, _)| id == note.id);
            if same && note.boot == self.machine.boot() && is_mounted(&self.place(note.kind))? {
                match self.usable(note.kind) {
                    Ok(place) => return Ok(Some(place)),
                    Err(why) => tracing::warn!("it is attached again: {why}"),
                }
            }
            self.detach(&note).map_err(|why| {
                format!("what was attached before ({}) can't be detached: {why}", note.kind.word())
            })?;
        }
        let Some((id, target)) = wanted else { return Ok(None) };
        let kind = target.kind();
        let lacks = self.machine.why_not(kind);
        if !lacks.is_empty() {
            return Err(lacks.join("; "));
        }
        if let Target::Local = target {
            self.directory(kind)?;
            return self.usable(kind).map(Some);
        }
        let place = self.place(kind);
        if is_mounted(&place)? {
            return Err(format!("something else is mounted at {}: umount it", place.display()));
        }
        self.directory(kind)?;
        if fs::read_dir(&place).map_err(failed(&place))?.next().is_some() {
            return Err(format!(
                "{} is not empty, and would be hidden: move what is in it elsewhere",
                place.display()
            ));
        }
        let boot = self.machine.boot();
        let mut note = Note { id: id.to_owned(), kind, boot, target: None, device: None };
        let attached = self.attach(target, &mut note);
        if let Err(why) = attached.and_then(|()| self.usable(kind).map(drop)) {
            // Nothing half done.
            let undone = self.detach(&note);
            return Err(match undone {
                Ok(()) => why,
                Err(more) => format!("{why}; and what was begun can't be undone: {more}"),
            });
        }
        Ok(Some(place))
    }

    /// Whether anything is mounted where a kind is attached.
    pub(super) fn is_any_mounted(&self) -> Done<bool> {
        for kind in StorageKind::ALL {
            if is_mounted(&self.place(kind))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn directory(&self, kind: StorageKind) -> Done {
        let place = self.place(kind);
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700).create(&place).map_err(failed(&place))
    }

    /// Whether a pool could be there. Another process looks where a server must answer: the kernel
    /// holds whoever asks one that doesn't.
    fn usable(&self, kind: StorageKind) -> Done<PathBuf> {
        let place = self.place(kind);
        let looked = match kind {
            StorageKind::Local => {
                let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
                rustix::fs::access(&place, access).map_err(|error| error.to_string())
            }
            _ => ["-w", "-x"].into_iter().try_for_each(|how| {
                let mut all = words(["test", how]);
                all.push(place.clone().into());
                self.machine.run(&all)
            }),
        };
        match looked {
            Ok(()) => Ok(place),
            Err(error) => Err(format!("this process can't write there: {error}")),
        }
    }

    fn attach(&self, target: &Target, note: &mut Note) -> Done {
        let place = self.place(target.kind());
        match target {
            Target::Local => Ok(()),
            Target::Nfs { options, ip, share } => {
                self.write(note)?;
                self.machine.run(&mount_nfs(options, *ip, share, &place))
            }
            Target::Aoe { shelf, slot } => {
                self.write(note)?;
                self.load("aoe")?;
                let discover = self.machine.path("/dev/etherd/discover");
                fs::write(&discover, "\n").map_err(failed(&discover))?;
                let device = self.machine.path(&format!("/dev/etherd/e{shelf}.{slot}"));
                let name = format!("the disk e{shelf}.{slot}");
                appears(&name, || device.exists().then_some(()))?;
                self.machine.run(&mount_disk(&device, &place))
            }
            Target::Iscsi { target, ip, username, password } => {
                let portal = format!("{}:3260", host(*ip));
                // Before the note, by which it would be taken for our own.
                if iscsi::is_there(&self.machine, target) {
                    return Err(format!(
                        "this machine is logged in at {target} already: log out, or mount it by /etc/fstab"
                    ));
                }
                if let Some(record) = iscsi::records(&self.machine, target).first() {
                    return Err(format!(
                        "open-iscsi has a record of {target} that is not this appliance's, {}: \
                         delete it (iscsiadm -m node -T TARGET -o delete)",
                        record.display()
                    ));
                }
                note.target = Some((target.clone(), portal.clone()));
                self.write(note)?;
                let run = |more: &[&str]| self.machine.run(&iscsiadm(target, &portal, more));
                run(&["-o", "new"])?;
                iscsi::set_login(&self.machine, target, username, password)?;
                run(&["--login"])?;
                let disk =
                    appears("the disk of the target", || iscsi::disk(&self.machine, target))?;
                let device = self.machine.path("/dev").join(disk);
                appears("the device of the disk", || device.exists().then_some(()))?;
                self.machine.run(&mount_disk(&device, &place))
            }
            Target::Nbd { export, ip, port } => {
                self.load("nbd")?;
                let device = self.free_nbd()?;
                note.device = Some(device.clone());
                self.write(note)?;
                self.machine.run(&nbd_client(export, *ip, *port, &device))?;
                self.machine.run(&mount_disk(&device, &place))
            }
        }
    }

    fn load(&self, module: &str) -> Done {
        match self.machine.path("/sys/module").join(module).is_dir() {
            true => Ok(()),
            false => self.machine.run(&words(["modprobe", module])),
        }
    }

    /// A device that nobody uses.
    fn free_nbd(&self) -> Done<PathBuf> {
        let is_free = |number: &u32| {
            let block = self.machine.path(&format!("/sys/block/nbd{number}"));
            let size = fs::read_to_string(block.join("size")).unwrap_or_default();
            size.trim() == "0" && !block.join("pid").exists()
        };
        let free = (0..NBD_DEVICES).find(is_free);
        let free = free.ok_or("no network block device is free: load nbd with more of them")?;
        Ok(self.machine.path(&format!("/dev/nbd{free}")))
    }

    /// Undoes what the note says, as far as it was done.
    fn detach(&self, note: &Note) -> Done {
        let place = self.place(note.kind);
        for _ in 0..STACKED {
            if !is_mounted(&place)? {
                break;
            }
            // Never by force: somebody may be writing.
            let mut all = words(["umount"]);
            all.push(place.clone().into());
            self.machine.run(&all)?;
        }
        // Its device is not to go from under it.
        if is_mounted(&place)? {
            return Err(format!("{} is mounted still", place.display()));
        }
        if let Some((target, portal)) = &note.target {
            let run = |more: &[&str]| self.machine.run(&iscsiadm(target, portal, more));
            if iscsi::is_there(&self.machine, target) {
                run(&["--logout"])?;
            }
            iscsi::remove_begun(&self.machine, target)?;
            // With what was set of it, the password among it.
            if !iscsi::records(&self.machine, target).is_empty() {
                run(&["-o", "delete"])?;
            }
        }
        if let Some(device) = &note.device {
            // After a start of the machine it may be somebody else's.
            let same = note.boot == self.machine.boot();
            let name = device.file_name().unwrap_or_default();
            let used = self.machine.path("/sys/block").join(name).join("pid").exists();
            if same && used {
                self.machine.run(&nbd_end(device))?;
            }
        }
        // Nobody is to take it for what was attached there.
        if note.kind != StorageKind::Local
            && let Err(error) = fs::remove_dir(&place)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("{}", failed(&place)(error));
        }
        let path = self.note_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&path)(error)),
            _ => Ok(()),
        }
    }
}

impl Target {
    pub(super) fn kind(&self) -> StorageKind {
        match self {
            Self::Local => StorageKind::Local,
            Self::Nfs { .. } => StorageKind::Nfs,
            Self::Aoe { .. } => StorageKind::Aoe,
            Self::Iscsi { .. } => StorageKind::Iscsi,
            Self::Nbd { .. } => StorageKind::Nbd,
        }
    }
}

/// What a text of `sysfs` or of a path is as a word.
pub(super) fn text(bytes: Vec<u8>) -> String {
    OsString::from_vec(bytes).to_string_lossy().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use strongroom_identity::Secret;

    use super::*;

    fn spoken(all: &[OsString]) -> String {
        all.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tools_are_asked_as_their_manuals_say() {
        let at = Path::new("/data/attached/x");
        let ip = "192.168.1.100".parse().unwrap();
        let six = "fd00::1".parse().unwrap();
        let options = ["noacl".to_owned(), "sync".to_owned()];
        for (words, line) in [
            (
                mount_nfs(&options, ip, "/nfs/storage", at),
                "mount.nfs 192.168.1.100:/nfs/storage /data/attached/x -o \
                 noacl,sync,retry=0,nosuid,nodev,noexec",
            ),
            (
                mount_nfs(&options, six, "/a", at),
                "mount.nfs [fd00::1]:/a /data/attached/x -o \
                 noacl,sync,retry=0,nosuid,nodev,noexec",
            ),
            (
                mount_disk(Path::new("/dev/etherd/e0.1"), at),
                "mount -o nosuid,nodev,noexec /dev/etherd/e0.1 /data/attached/x",
            ),
            (
                nbd_client("otherexport", ip, 1043, Path::new("/dev/nbd0")),
                "nbd-client 192.168.1.100 1043 /dev/nbd0 -name otherexport -timeout 30",
            ),
            (nbd_end(Path::new("/dev/nbd0")), "nbd-client -d /dev/nbd0"),
            (
                iscsiadm("iqn.2016-01.com.example:a", "192.168.1.100:3260", &["--login"]),
                "iscsiadm -m node -T iqn.2016-01.com.example:a -p 192.168.1.100:3260 --login",
            ),
        ] {
            assert_eq!(spoken(&words), line);
        }
        assert_eq!(unescaped(br"/a\040b\134c\11"), b"/a b\\c\\11");
    }

    /// A machine whose kernel can all of it, as its files say, and whose tools are these scripts. What
    /// they mount is mounted: the tests must run as root.
    struct Lab {
        dir: tempfile::TempDir,
        attacher: Attacher,
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            for kind in StorageKind::ALL {
                let place = self.attacher.place(kind);
                if is_mounted(&place).unwrap_or_default() {
                    let _ = Command::new("umount").arg(&place).status();
                }
            }
        }
    }

    impl Lab {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            let data = at("data dir");
            fs::create_dir(&data).unwrap();
            let machine =
                Machine::at(&at("root"), &[&at("bin"), Path::new("/usr/bin"), Path::new("/bin")]);
            let machine = machine.patient(Duration::from_secs(5));
            let attacher = Attacher::new(&data, machine);
            let lab = Self { dir, attacher };
            lab.file("root/proc/filesystems", "nodev\tnfs4\n");
            lab.file("root/proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\tffffffffffffffff\n");
            lab.file("root/proc/sys/kernel/random/boot_id", "one\n");
            lab
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn file(&self, name: &str, text: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// A tool; `LAB` is the lab.
        fn tool(&self, name: &str, script: &str) {
            let name = format!("bin/{name}");
            let lab = self.dir.path().display();
            self.file(
                &name,
                &format!("#!/bin/sh\nLAB='{lab}'\necho \"$0 $*\" >>\"$LAB/said\"\n{script}\n"),
            );
            fs::set_permissions(self.path(&name), fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn said(&self) -> String {
            fs::read_to_string(self.path("said")).unwrap_or_default()
        }

        /// That nothing is attached, and nothing left of it.
        fn is_bare(&self, kind: StorageKind) {
            let place = self.attacher.place(kind);
            assert!(!is_mounted(&place).unwrap() && !place.exists());
            assert_eq!(self.attacher.note().unwrap(), None);
        }
    }

    fn nfs() -> Target {
        let (ip, share) = ("192.168.1.100".parse().unwrap(), "/nfs/storage".to_owned());
        Target::Nfs { options: vec!["sync".into()], ip, share }
    }

    /// What the tool of NFS does, with another filesystem.
    const TMPFS: &str = "exec /bin/mount -t tmpfs -o size=1m none \"$2\"";

    #[test]
    fn a_share_is_attached_kept_over_starts_and_detached() {
        let lab = Lab::new();
        lab.tool("mount.nfs", TMPFS);
        let attacher = &lab.attacher;
        let place = attacher.become_such(Some(("a", &nfs()))).unwrap().unwrap();
        assert_eq!(place, attacher.place(StorageKind::Nfs));
        assert!(is_mounted(&place).unwrap());
        fs::write(place.join("kept"), "kept").unwrap();
        // Another start with the same settings leaves it as it is.
        assert_eq!(attacher.become_such(Some(("a", &nfs()))).unwrap(), Some(place.clone()));
        assert!(place.join("kept").exists());
        assert_eq!(lab.said().lines().count(), 1, "{}", lab.said());
        // Other settings, of which somebody's open file keeps it.
        let open = fs::File::open(place.join("kept")).unwrap();
        let error = attacher.become_such(Some(("b", &Target::Local))).unwrap_err();
        assert!(error.contains("before (nfs)"), "{error}");
        assert!(is_mounted(&place).unwrap() && attacher.note().unwrap().is_some());
        assert!(!attacher.place(StorageKind::Local).exists(), "nothing half done");
        drop(open);
        let local = attacher.become_such(Some(("b", &Target::Local))).unwrap().unwrap();
        lab.is_bare(StorageKind::Nfs);
        fs::write(local.join("kept"), "kept").unwrap();
        // What is local stays, whatever is attached then.
        attacher.become_such(Some(("c", &nfs()))).unwrap().unwrap();
        assert_eq!(attacher.become_such(None).unwrap(), None);
        lab.is_bare(StorageKind::Nfs);
        assert!(local.join("kept").exists());
    }

    #[test]
    fn a_share_that_does_not_answer_holds_nobody_and_is_attached_again() {
        let lab = Lab::new();
        lab.tool("mount.nfs", TMPFS);
        let attacher = &lab.attacher;
        let place = attacher.become_such(Some(("a", &nfs()))).unwrap().unwrap();
        fs::write(place.join("old"), "old").unwrap();
        // What asks it, waits.
        lab.tool("test", "exec /bin/sleep 1000");
        let error = attacher.become_such(Some(("a", &nfs()))).unwrap_err();
        assert!(error.contains("test: it was not done"), "{error}");
        lab.is_bare(StorageKind::Nfs);
        // The first doesn't answer, and the next that is attached does.
        fs::remove_file(lab.path("bin/test")).unwrap();
        let place = attacher.become_such(Some(("a", &nfs()))).unwrap().unwrap();
        fs::write(place.join("old"), "old").unwrap();
        lab.tool("test", "[ ! -e \"$2/old\" ]");
        attacher.become_such(Some(("a", &nfs()))).unwrap().unwrap();
        assert!(is_mounted(&place).unwrap() && !place.join("old").exists());
    }

    #[test]
    fn nothing_is_left_under_what_is_mounted_twice() {
        let lab = Lab::new();
        lab.tool("mount.nfs", &format!("{}\n{TMPFS}", TMPFS.replace("exec ", "")));
        let attacher = &lab.attacher;
        attacher.become_such(Some(("a", &nfs()))).unwrap().unwrap();
        attacher.become_such(None).unwrap();
        lab.is_bare(StorageKind::Nfs);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let lab = Lab::new();
        let attacher = &lab.attacher;
        let ask = || attacher.become_such(Some(("a", &nfs()))).unwrap_err();
        assert!(ask().contains("nfs-common"), "{}", ask());
        lab.is_bare(StorageKind::Nfs);
        lab.tool("mount.nfs", "echo 'mount.nfs: Connection refused' >&2; exit 32");
        assert!(ask().contains("Connection refused"), "{}", ask());
        lab.is_bare(StorageKind::Nfs);
        // It says that it failed, and did it.
        lab.tool("mount.nfs", &format!("{}\nexit 32", TMPFS.replace("exec ", "")));
        ask();
        lab.is_bare(StorageKind::Nfs);
        // What would be hidden.
        lab.tool("mount.nfs", TMPFS);
        let place = attacher.place(StorageKind::Nfs);
        lab.file("data dir/attached/nfs/file", "x");
        assert!(ask().contains("not empty"), "{}", ask());
        assert!(place.join("file").exists() && !is_mounted(&place).unwrap());
        fs::remove_file(place.join("file")).unwrap();
        attacher.become_such(Some(("a", &nfs()))).unwrap();
    }

    #[test]
    fn a_start_that_was_cut_off_anywhere_is_made_good() {
        let lab = Lab::new();
        lab.tool("mount.nfs", TMPFS);
        let attacher = &lab.attacher;
        let note = Note {
            id: "a".into(),
            kind: StorageKind::Nfs,
            boot: "one".into(),
            target: None,
            device: None,
        };
        let place = attacher.place(StorageKind::Nfs);
        for (there, mounted) in [(false, false), (true, false), (true, true)] {
            for (wanted, expected) in [(Some(("a", &nfs())), true), (None, false)] {
                attacher.write(&note).unwrap();
                if there {
                    attacher.directory(StorageKind::Nfs).unwrap();
                }
                if mounted {
                    attacher.attach(&nfs(), &mut note.clone()).unwrap();
                }
                let done = attacher.become_such(wanted).unwrap();
                assert_eq!((done.is_some(), is_mounted(&place).unwrap()), (expected, expected));
                attacher.become_such(None).unwrap();
                lab.is_bare(StorageKind::Nfs);
            }
        }
        lab.file("data dir/attached.json", "nonsense");
        let error = attacher.become_such(None).unwrap_err();
        assert!(error.contains("attached.json") && error.contains("remove that file"), "{error}");
    }

    /// A filesystem in a file, which stands for a disk.
    fn disk(lab: &Lab, name: &str) {
        lab.file(name, "");
        let file = lab.path(name);
        fs::File::options().write(true).open(&file).unwrap().set_len(8 << 20).unwrap();
        let made = Command::new("/sbin/mkfs.ext4").arg("-q").arg(&file).status().unwrap();
        assert!(made.success());
    }

    #[test]
    fn a_network_block_device_is_connected_mounted_and_given_back() {
        let lab = Lab::new();
        lab.tool(
            "nbd-client",
            "case $1 in -d) rm \"$LAB/root/sys/block/nbd1/pid\" ;; \
             *) echo 1 >\"$LAB/root/sys/block/nbd1/pid\" ;; esac",
        );
        fs::create_dir_all(lab.path("root/sys/module/nbd")).unwrap();
        let (ip, export) = ("fd00::1".parse().unwrap(), "otherexport".to_owned());
        let target = Target::Nbd { export, ip, port: 1043 };
        let attacher = &lab.attacher;
        let error = attacher.become_such(Some(("a", &target))).unwrap_err();
        assert!(error.contains("no network block device is free"), "{error}");
        // The first is somebody's.
        for (number, size) in [(0, "8"), (1, "0")] {
            lab.file(&format!("root/sys/block/nbd{number}/size"), size);
        }
        // No filesystem: nothing is made on it.
        lab.file("root/dev/nbd1", &"x".repeat(1 << 20));
        attacher.become_such(Some(("a", &target))).unwrap_err();
        assert_eq!(fs::read(lab.path("root/dev/nbd1")).unwrap(), vec![b'x'; 1 << 20]);
        lab.is_bare(StorageKind::Nbd);
        assert!(!lab.path("root/sys/block/nbd1/pid").exists());
        disk(&lab, "root/dev/nbd1");
        let place = attacher.become_such(Some(("a", &target))).unwrap().unwrap();
        assert!(place.join("lost+found").exists());
        assert!(lab.said().contains("nbd-client fd00::1 1043 "), "{}", lab.said());
        // After a start of the machine the device may be another's.
        lab.file("root/proc/sys/kernel/random/boot_id", "two\n");
        let before = lab.said();
        attacher.become_such(None).unwrap();
        lab.is_bare(StorageKind::Nbd);
        assert_eq!(lab.said(), before);
    }

    #[test]
    fn a_target_is_logged_in_at_and_forgotten_with_its_password() {
        let lab = Lab::new();
        let name = "iqn.2016-01.com.example:storage.lun1";
        lab.tool(
            "iscsiadm",
            "N=\"$LAB/root/etc/iscsi/nodes/$4\"; S=\"$LAB/root/sys/class/iscsi_session/session1\"\n\
             case \"$7 $8\" in\n\
             '-o new') mkdir -p \"$N/ip,1\"; echo 'node.startup = manual' >\"$N/ip,1/default\" ;;\n\
             '-o delete') rm -r \"$N\" ;;\n\
             '--login ') grep -q 'password = hunter2' \"$N/ip,1/default\" || exit 24\n\
               mkdir -p \"$S/device/target1:0:0/1:0:0:0/block/sdx\"; echo \"$4\" >\"$S/targetname\" ;;\n\
             '--logout ') rm -r \"$S\" ;;\n\
             *) exit 7 ;;\n\
             esac",
        );
        fs::create_dir_all(lab.path("root/sys/module/iscsi_tcp")).unwrap();
        disk(&lab, "root/dev/sdx");
        let target = |password: &str| Target::Iscsi {
            target: name.to_owned(),
            ip: "192.168.1.100".parse().unwrap(),
            username: "user".into(),
            password: Secret::new(password),
        };
        let attacher = &lab.attacher;
        let error = attacher.become_such(Some(("a", &target("wrong-one")))).unwrap_err();
        assert!(error.contains("iscsiadm") && !error.contains("wrong-one"), "{error}");
        let records = lab.path("root/etc/iscsi/nodes").join(name);
        assert!(!records.exists());
        lab.is_bare(StorageKind::Iscsi);
        let place = attacher.become_such(Some(("a", &target("hunter2")))).unwrap().unwrap();
        assert!(place.join("lost+found").exists() && records.exists());
        attacher.become_such(None).unwrap();
        assert!(!records.exists());
        lab.is_bare(StorageKind::Iscsi);
        let note = fs::read_dir(lab.path("data dir")).unwrap().count();
        assert_eq!(note, 1, "the directory of places alone");
        assert!(!lab.said().contains("hunter2"), "{}", lab.said());
        // A record and a session that somebody else has made stay as they are.
        let other = format!("root/etc/iscsi/nodes/{name}/ip,1/default");
        lab.file(&other, "theirs");
        let before = lab.said();
        let error = attacher.become_such(Some(("a", &target("hunter2")))).unwrap_err();
        assert!(error.contains("not this appliance's"), "{error}");
        assert_eq!(fs::read_to_string(lab.path(&other)).unwrap(), "theirs");
        fs::remove_dir_all(&records).unwrap();
        let session = "root/sys/class/iscsi_session/session1/targetname";
        lab.file(session, name);
        let error = attacher.become_such(Some(("a", &target("hunter2")))).unwrap_err();
        assert!(error.contains("logged in"), "{error}");
        assert!(lab.path(session).exists());
        assert_eq!(lab.said(), before);
        lab.is_bare(StorageKind::Iscsi);
        fs::remove_file(lab.path(session)).unwrap();
        // A login that was cut off while it was written.
        lab.file(&format!("root/etc/iscsi/nodes/{name}/ip,1/default.new"), "password = hunter2");
        let note = Note {
            id: "a".into(),
            kind: StorageKind::Iscsi,
            boot: "one".into(),
            target: Some((name.to_owned(), "192.168.1.100:3260".to_owned())),
            device: None,
        };
        attacher.write(&note).unwrap();
        attacher.become_such(None).unwrap();
        assert!(!records.join("ip,1/default.new").exists());
    }

    #[test]
    fn a_disk_of_ata_over_ethernet_is_looked_for() {
        let lab = Lab::new();
        fs::create_dir_all(lab.path("root/sys/module/aoe")).unwrap();
        let target = Target::Aoe { shelf: 0, slot: 1 };
        let error = lab.attacher.become_such(Some(("a", &target))).unwrap_err();
        assert!(error.contains("discover"), "{error}");
        lab.is_bare(StorageKind::Aoe);
        fs::create_dir_all(lab.path("root/dev/etherd")).unwrap();
        disk(&lab, "root/dev/etherd/e0.1");
        lab.attacher.become_such(Some(("a", &target))).unwrap().unwrap();
        assert_eq!(fs::read(lab.path("root/dev/etherd/discover")).unwrap(), b"\n");
        lab.attacher.become_such(None).unwrap();
        lab.is_bare(StorageKind::Aoe);
    }
}
