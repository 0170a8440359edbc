//! What the machine can: the kernel's support, the tools, and the process's rights.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use super::settings::StorageKind;
use crate::command::{Capability, Ended, Programs};

/// A machine: its root directory, and where its tools are.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
    tools: Programs,
}

impl Machine {
    /// The one that this runs on.
    pub(super) fn here() -> Self {
        Self { root: PathBuf::from("/"), tools: Programs::here() }
    }

    #[cfg(test)]
    pub(super) fn at(root: &std::path::Path, tools: &[&std::path::Path]) -> Self {
        Self { root: root.to_owned(), tools: Programs::of(tools) }
    }

    #[cfg(test)]
    pub(super) fn patient(self, patience: std::time::Duration) -> Self {
        Self { tools: self.tools.patient(patience), ..self }
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
            if self.tools.find(tool).is_none() {
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
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let effective = user.and_then(|ids| ids.split_whitespace().nth(1));
        effective == Some("0") && Capability::SysAdmin.is_in(&status) == Some(true)
    }

    /// Runs a tool to its end; why it failed.
    pub(super) fn run(&self, words: &[OsString]) -> Result<(), String> {
        let name = words.first().and_then(|name| name.to_str()).unwrap_or_default();
        let tool = self.tools.program(name);
        let ended = tool.ok_or_else(|| format!("there is no {name}"))?.args(&words[1..]).run();
        // What else is among the words may be secret.
        let done = ended.map_err(|why| why.to_string()).and_then(Ended::done);
        done.map(drop).map_err(|why| format!("{name}: {why}"))
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
    use std::path::Path;
    use std::time::Duration;

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
        let machine = Machine::at(dir.path(), &[&bin]);
        let words = ["say", "a b", "$(reboot)", ";", ""].map(OsString::from);
        assert_eq!(machine.run(&words).unwrap_err(), "say: [a b][$(reboot)][;][]");
        let error = machine.run(&["none".into()]).unwrap_err();
        assert_eq!(error, "there is no none");
        let error = machine.patient(Duration::from_millis(100)).run(&["hang".into()]);
        assert!(error.unwrap_err().contains("not done"));
    }
}
