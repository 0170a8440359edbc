//! What the machine can: the kernel's support, the tools, and the process's rights.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::settings::StorageKind;

/// How long a tool may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked whether it is done.
const LOOK: Duration = Duration::from_millis(20);
/// How long one that is killed may take to end.
const END: Duration = Duration::from_secs(2);
/// Bytes that are kept of what it says.
const SAID: u64 = 400;
/// The number of the capability to mount.
const SYS_ADMIN: u32 = 21;
/// Where tools are beside those of `PATH`, which a service often has without them.
const MORE: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A machine: its root directory, and where its tools are.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
    tools: Vec<PathBuf>,
    patience: Duration,
}

/// Whether it ends in that time. Else it is left to a thread: the kernel may hold it for as long as a
/// server doesn't answer, and no signal ends it then.
fn ends(mut child: Child, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK),
            Ok(None) => {
                std::thread::spawn(move || child.wait());
                return false;
            }
            _ => return true,
        }
    }
}

impl Machine {
    /// The one that this runs on.
    pub(super) fn here() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut tools: Vec<_> = std::env::split_paths(&path).filter(|p| p.is_absolute()).collect();
        tools.extend(MORE.map(PathBuf::from));
        Self { root: PathBuf::from("/"), tools, patience: PATIENCE }
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path, tools: &[&Path]) -> Self {
        let tools = tools.iter().map(|dir| dir.to_path_buf()).collect();
        Self { root: root.to_owned(), tools, patience: PATIENCE }
    }

    #[cfg(test)]
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// A path from the machine's root.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Why this kind can't be attached here; nothing: it can.
    pub(super) fn why_not(&self, kind: StorageKind) -> Vec<String> {
        let mut why = Vec::new();
        let mut kernel = |can: bool, what: &str, module: &str| {
            if !can {
                why.push(format!("the kernel has no {what}: load the module {module}"));
            }
        };
        let tools: &[(&str, &str)] = match kind {
            StorageKind::Local => return why,
            StorageKind::Nfs => {
                let can = ["nfs", "nfs4"].iter().any(|name| self.has_filesystem(name));
                kernel(can || self.has_module("nfs"), "NFS", "nfs");
                &[("mount.nfs", "nfs-common"), ("umount", "mount"), ("test", "coreutils")]
            }
            StorageKind::Aoe => {
                kernel(self.has_module("aoe"), "ATA over Ethernet", "aoe");
                &[("mount", "mount"), ("umount", "mount"), ("test", "coreutils")]
            }
            StorageKind::Iscsi => {
                kernel(self.has_module("iscsi_tcp"), "iSCSI", "iscsi_tcp");
                &[
                    ("iscsiadm", "open-iscsi"),
                    ("mount", "mount"),
                    ("umount", "mount"),
                    ("test", "coreutils"),
                ]
            }
            StorageKind::Nbd => {
                kernel(self.has_module("nbd"), "network block devices", "nbd");
                &[
                    ("nbd-client", "nbd-client"),
                    ("mount", "mount"),
                    ("umount", "mount"),
                    ("test", "coreutils"),
                ]
            }
        };
        for (tool, package) in tools {
            if self.tool(tool).is_none() {
                why.push(format!("there is no {tool}: install the package {package}"));
            }
        }
        if !self.may_mount() {
            why.push(
                "this process may not mount: run it as root with CAP_SYS_ADMIN, see docs/storage-options.md"
                    .into(),
            );
        }
        why
    }

    fn has_filesystem(&self, name: &str) -> bool {
        let known = fs::read_to_string(self.path("/proc/filesystems")).unwrap_or_default();
        known.lines().any(|line| line.split_whitespace().last() == Some(name))
    }

    /// Whether it is loaded, built in, or there to be loaded.
    fn has_module(&self, name: &str) -> bool {
        if self.path("/sys/module").join(name).is_dir() {
            return true;
        }
        let release = fs::read_to_string(self.path("/proc/sys/kernel/osrelease"));
        let dir = self.path("/lib/modules").join(release.unwrap_or_default().trim());
        let (file, packed) = (format!("/{name}.ko"), format!("/{name}.ko."));
        ["modules.dep", "modules.builtin"].iter().any(|list| {
            let list = fs::read_to_string(dir.join(list)).unwrap_or_default();
            list.lines().any(|line| {
                let path = line.split(':').next().unwrap_or_default();
                path.ends_with(&file) || path.contains(&packed)
            })
        })
    }

    /// Whether this process has the capability to mount; mount(8) serves root alone.
    fn may_mount(&self) -> bool {
        let status = fs::read_to_string(self.path("/proc/self/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let effective = user.and_then(|ids| ids.split_whitespace().nth(1));
        effective == Some("0") && bits.is_some_and(|bits| bits >> SYS_ADMIN & 1 == 1)
    }

    pub(super) fn tool(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let runs = |path: &PathBuf| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        self.tools.iter().map(|dir| dir.join(name)).find(runs)
    }

    /// Runs a tool to its end, without a shell; why it failed.
    pub(super) fn run(&self, words: &[OsString]) -> Result<(), String> {
        let name = words.first().and_then(|name| name.to_str()).unwrap_or_default();
        let tool = self.tool(name).ok_or_else(|| format!("there is no {name}"))?;
        self.run_within(&tool, name, &words[1..], self.patience)
    }

    fn run_within(
        &self,
        tool: &Path,
        name: &str,
        words: &[OsString],
        patience: Duration,
    ) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{name}: {error}");
        // Not a pipe: what it leaves running may keep that open for ever.
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let said = rustix::fs::memfd_create("said", flags).map_err(|error| failed(error.into()))?;
        let mut said = File::from(said);
        let path = std::env::join_paths(&self.tools).unwrap_or_default();
        let mut command = Command::new(tool);
        command.args(words).env_clear().env("PATH", path).env("LC_ALL", "C").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child =
            command.stderr(said.try_clone().map_err(failed)?).spawn().map_err(failed)?;
        let end = Instant::now() + patience;
        let status = loop {
            match child.try_wait().map_err(failed)? {
                Some(status) => break status,
                None if Instant::now() < end => std::thread::sleep(LOOK),
                None => {
                    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                    let mut why = format!("{name} was not done after {} s", patience.as_secs());
                    if !ends(child, END) {
                        why.push_str(", and can't be ended: what it waits for does not answer");
                    }
                    return Err(why);
                }
            }
        };
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        said.seek(SeekFrom::Start(0)).map_err(failed)?;
        said.take(SAID).read_to_end(&mut text).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let text = lines.join("; ").escape_debug().to_string();
        match text.is_empty() {
            true => Err(format!("{name}: {status}")),
            false => Err(format!("{name}: {text}")),
        }
    }

    /// Which start of the machine this is; what an earlier one attached is gone.
    pub(super) fn boot(&self) -> String {
        let id = fs::read_to_string(self.path("/proc/sys/kernel/random/boot_id"));
        id.unwrap_or_default().trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_kind_says_all_that_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let (root, bin) = (dir.path().join("root"), dir.path().join("bin"));
        let machine = Machine::at(&root, &[&bin]);
        assert!(machine.why_not(StorageKind::Local).is_empty());
        assert!(machine.why_not(StorageKind::Nfs).iter().any(|why| why.contains("no test")));
        write(&bin.join("test"), "#!/bin/sh\n", 0o755);
        for (kind, words) in [
            (StorageKind::Nfs, &["module nfs", "no mount.nfs", "no umount", "CAP_SYS_ADMIN"][..]),
            (StorageKind::Aoe, &["module aoe", "no mount", "no umount", "CAP_SYS_ADMIN"]),
            (
                StorageKind::Iscsi,
                &["module iscsi_tcp", "open-iscsi", "no mount", "no umount", "CAP_SYS_ADMIN"],
            ),
            (
                StorageKind::Nbd,
                &["module nbd", "nbd-client", "no mount", "no umount", "CAP_SYS_ADMIN"],
            ),
        ] {
            let why = machine.why_not(kind);
            assert_eq!(why.len(), words.len(), "{why:?}");
            for (why, word) in why.iter().zip(words) {
                assert!(why.contains(word), "{why}");
            }
        }
        // One after the other is put right.
        write(&bin.join("umount"), "#!/bin/sh\n", 0o755);
        write(&root.join("proc/filesystems"), "nodev\ttmpfs\n\text4\nnodev\tnfs4\n", 0o644);
        assert_eq!(machine.why_not(StorageKind::Nfs).len(), 2);
        write(&bin.join("mount.nfs"), "#!/bin/sh\n", 0o644);
        assert_eq!(machine.why_not(StorageKind::Nfs).len(), 2, "it can't be run");
        write(&bin.join("mount.nfs"), "#!/bin/sh\n", 0o755);
        assert_eq!(machine.why_not(StorageKind::Nfs).len(), 1);
        let status = root.join("proc/self/status");
        write(&status, "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t00000000ffdfffff\n", 0o644);
        assert_eq!(machine.why_not(StorageKind::Nfs).len(), 1);
        write(&status, "Uid:\t0\t9\t0\t0\nCapEff:\t0000000000200000\n", 0o644);
        assert_eq!(machine.why_not(StorageKind::Nfs).len(), 1);
        write(&status, "Name:\tx\nUid:\t9\t0\t9\t9\nCapEff:\t0000000000200000\n", 0o644);
        assert!(machine.why_not(StorageKind::Nfs).is_empty());
        // Modules: loaded, to be loaded, and of another kernel.
        fs::create_dir_all(root.join("sys/module/nbd")).unwrap();
        assert_eq!(machine.why_not(StorageKind::Nbd).len(), 2);
        write(&root.join("proc/sys/kernel/osrelease"), "6.1.0-9\n", 0o644);
        let list = "kernel/drivers/block/aoe/aoe.ko.xz:\nkernel/x/iscsi_tcp.ko: a.ko\n";
        write(&root.join("lib/modules/6.2.0/modules.dep"), list, 0o644);
        assert_eq!(machine.why_not(StorageKind::Aoe).len(), 2);
        write(&root.join("lib/modules/6.1.0-9/modules.dep"), list, 0o644);
        assert_eq!(machine.why_not(StorageKind::Aoe).len(), 1);
        assert_eq!(machine.why_not(StorageKind::Iscsi).len(), 2);
    }

    #[test]
    fn a_tool_is_given_words_and_not_a_line_and_ends_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        write(
            &bin.join("say"),
            "#!/bin/sh\nprintf '[%s]' \"$@\" >&2\necho $HOME >&2\nexit 3\n",
            0o755,
        );
        write(&bin.join("hang"), "#!/bin/sh\n/bin/sleep 1000 &\n/bin/sleep 1000\n", 0o755);
        write(&bin.join("leave"), "#!/bin/sh\n/bin/sleep 5 &\nexit 0\n", 0o755);
        let machine = Machine::at(dir.path(), &[&bin]);
        let words = ["say", "a b", "$(reboot)", ";", ""].map(OsString::from);
        assert_eq!(machine.run(&words).unwrap_err(), "say: [a b][$(reboot)][;][]");
        let error = machine.run(&["none".into()]).unwrap_err();
        assert_eq!(error, "there is no none");
        let hang = machine.tool("hang").unwrap();
        let error = machine.run_within(&hang, "hang", &[], Duration::from_millis(100));
        assert!(error.unwrap_err().contains("not done"));
        // Whoever it leaves is not waited for.
        let begun = Instant::now();
        machine.run(&["leave".into()]).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn one_that_does_not_end_is_not_waited_for() {
        let child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let begun = Instant::now();
        assert!(!ends(child, Duration::from_millis(50)));
        assert!(begun.elapsed() < Duration::from_secs(100));
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let child = Command::new("/bin/true").spawn().unwrap();
        assert!(ends(child, Duration::from_secs(60)));
    }
}
