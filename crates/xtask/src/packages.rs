//! Programs of the operating system that tests and benchmarks call.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// A Debian package, and a program or file by which to know that it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    name: &'static str,
    probe: &'static str,
}

const fn package(name: &'static str, probe: &'static str) -> Package {
    Package { name, probe }
}

/// What the tests need. This is the one list.
pub(crate) const FOR_TESTS: &[Package] = &[
    package("acl", "setfacl"),
    package("attr", "setfattr"),
    package("binutils", "strip"),
    package("busybox-static", "/usr/share/doc/busybox-static"),
    package("chromium", "chromium"),
    package("chromium-driver", "chromedriver"),
    package("curl", "curl"),
    package("dnsmasq-base", "/usr/sbin/dnsmasq"),
    package("dpkg-dev", "dpkg-shlibdeps"),
    package("e2fsprogs", "mkfs.ext4"),
    package("fio", "fio"),
    package("fuse3", "fusermount3"),
    package("iproute2", "ip"),
    package("isc-dhcp-client", "/usr/sbin/dhclient"),
    package("ldap-utils", "ldapmodify"),
    package("libcap2-bin", "setcap"),
    package("libiscsi-bin", "iscsi-test-cu"),
    package("libnbd-bin", "nbdinfo"),
    package("lintian", "lintian"),
    package("mount", "losetup"),
    package("openssl", "openssl"),
    package("postgresql", "/usr/lib/postgresql"),
    package("python3", "python3"),
    package("prometheus", "promtool"),
    package("python3-venv", "/usr/share/doc/python3-venv"),
    package("pebble", "pebble"),
    package("qemu-block-extra", "/usr/share/doc/qemu-block-extra"),
    package("qemu-system-x86", "qemu-system-x86_64"),
    package("qemu-utils", "qemu-img"),
    package("rsync", "rsync"),
    package("slapd", "/usr/sbin/slapd"),
    package("systemd", "systemd-analyze"),
    package("tar", "tar"),
    package("udhcpc", "/usr/sbin/udhcpc"),
    package("unzip", "unzip"),
];

/// What making the Debian package needs.
pub(crate) const FOR_DEB: &[Package] =
    &[package("binutils", "strip"), package("dpkg-dev", "dpkg-shlibdeps"), package("gzip", "gzip")];

/// What the catalogue needs to be measured on PostgreSQL.
pub(crate) const POSTGRES: &[Package] = &[package("postgresql", "/usr/lib/postgresql")];

/// What fuzzing needs: libFuzzer is C++.
pub(crate) const FOR_FUZZING: &[Package] = &[package("g++", "c++")];

/// What the benchmark needs to measure with, and the peers that Debian has in a version worth
/// measuring.
pub(crate) const FOR_PEERS: &[Package] = &[package("time", "time"), package("restic", "restic")];

/// What volumes are measured with and against.
pub(crate) const FOR_BLOCK: &[Package] = &[
    package("fio", "fio"),
    package("nbdkit", "nbdkit"),
    package("qemu-utils", "qemu-nbd"),
    package("tgt", "/usr/sbin/tgtd"),
];

/// What building Borg needs.
pub(crate) const FOR_BORG: &[Package] = &[
    package("gcc", "cc"),
    package("libacl1-dev", "/usr/include/sys/acl.h"),
    package("liblz4-dev", "/usr/include/lz4.h"),
    package("libssl-dev", "/usr/include/openssl/ssl.h"),
    package("libxxhash-dev", "/usr/include/xxhash.h"),
    package("libzstd-dev", "/usr/include/zstd.h"),
    package("pkg-config", "pkg-config"),
    package("python3-dev", "python3-config"),
    package("python3-venv", "python3"),
];

/// Debian's own Borg, where none can be built.
pub(crate) const BORG: &[Package] = &[package("borgbackup", "borg")];

/// What building bupstash needs.
pub(crate) const FOR_BUPSTASH: &[Package] =
    &[package("libsodium-dev", "/usr/include/sodium.h"), package("pkg-config", "pkg-config")];

/// Installs those packages that are missing; needs neither network nor root when none is.
///
/// # Errors
/// When something is missing and can't be installed; the message names it.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|p| !is_there(p.probe)).map(|p| p.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !run::is_installed("apt-get") {
        bail!("please install (names of Debian's packages): {names}");
    }
    println!("installing with apt-get: {names}");
    let install = || {
        let install = ["install", "-y", "-q", "--no-install-recommends"];
        run::run(apt_get()?.args(install).args(&missing))
    };
    install()
        .or_else(|_| run::run(apt_get()?.args(["update", "-q"])).and_then(|()| install()))
        .with_context(|| format!("apt-get can't install what is missing; please install {names}"))
}

fn is_there(probe: &str) -> bool {
    if probe.starts_with('/') {
        std::path::Path::new(probe).exists()
    } else {
        run::is_installed(probe)
    }
}

/// `apt-get`, as root, asking nothing.
fn apt_get() -> Result<Command> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("env")
    } else if run::is_installed("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.args(["--non-interactive", "env"]);
        sudo
    } else {
        bail!("installing needs root, and there is no sudo");
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_needs_no_package_manager() {
        assert!(ensure(&[package("no-such-package", "sh")]).is_ok());
    }

    #[test]
    fn a_program_that_is_not_there_is_noticed() {
        assert!(!is_there("no-such-program-anywhere"));
        assert!(!is_there("/no/such/header.h"));
    }
}
