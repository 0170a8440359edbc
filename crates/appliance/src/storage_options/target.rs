//! What settings mean, once all of them were looked at: only this reaches the machine.

use std::net::IpAddr;

use strongroom_identity::Secret;

use super::settings::{StorageKind, StorageSettings};
use crate::{Error, Result};

/// What is to be attached.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Local,
    Nfs { options: Vec<String>, ip: IpAddr, share: String },
    Aoe { shelf: u16, slot: u8 },
    Iscsi { target: String, ip: IpAddr, username: String, password: Secret },
    Nbd { export: String, ip: IpAddr, port: u16 },
}

/// Options of mount(8) and nfs(5) that say how a share is used. What would make another thing be
/// mounted (`bind`, `remount`), or give rights (`suid`, `dev`, `exec`), is not among them.
const NFS_OPTIONS: &[&str] = &[
    "ac",
    "acdirmax",
    "acdirmin",
    "acl",
    "acregmax",
    "acregmin",
    "actimeo",
    "async",
    "atime",
    "clientaddr",
    "cto",
    "diratime",
    "dirsync",
    "fg",
    "fsc",
    "hard",
    "intr",
    "local_lock",
    "lock",
    "lookupcache",
    "minorversion",
    "mountport",
    "mountproto",
    "mountvers",
    "namlen",
    "nconnect",
    "nfsvers",
    "noac",
    "noacl",
    "noatime",
    "nocto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofsc",
    "nointr",
    "nolock",
    "norelatime",
    "noresvport",
    "nosharecache",
    "nosuid",
    "port",
    "proto",
    "rdirplus",
    "nordirplus",
    "relatime",
    "resvport",
    "retrans",
    "retry",
    "rsize",
    "rw",
    "sec",
    "sharecache",
    "soft",
    "softerr",
    "softreval",
    "sync",
    "tcp",
    "timeo",
    "udp",
    "v3",
    "v4",
    "v4.0",
    "v4.1",
    "v4.2",
    "vers",
    "wsize",
];

fn wrong<T>(name: &str, why: impl std::fmt::Display) -> Result<T> {
    Err(Error::Storage(format!("{name}: {why}")))
}

impl StorageSettings {
    /// Whether all of it means something.
    ///
    /// # Errors
    /// [`Error::Storage`], with what is wrong first.
    pub fn check(&self) -> Result<()> {
        self.target().map(drop)
    }

    fn needed(&self, name: &str) -> Result<String> {
        match self.text(name) {
            Some(text) => Ok(text),
            None => wrong(name, format!("{} needs it", self.kind().word())),
        }
    }

    fn ip(&self) -> Result<IpAddr> {
        let text = self.needed("ip")?;
        match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(ip),
            _ => wrong("ip", "it is not the address of a server: give one as 192.168.1.100"),
        }
    }

    /// Letters and digits of ASCII, and these.
    fn plain(&self, name: &str, more: &str, least: usize) -> Result<String> {
        let text = self.needed(name)?;
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c)) {
            return wrong(name, format!("it has letters, digits and {more} alone"));
        }
        if text.len() < least {
            return wrong(name, format!("it has {least} characters at least"));
        }
        Ok(text)
    }

    fn printable(&self, name: &str) -> Result<String> {
        let text = self.needed(name)?;
        if !text.bytes().all(|c| c.is_ascii_graphic()) {
            return wrong(name, "it has visible ASCII characters without spaces alone");
        }
        if text.len() < 3 {
            return wrong(name, "it has 3 characters at least");
        }
        Ok(text)
    }

    pub(super) fn target(&self) -> Result<Target> {
        Ok(match self.kind() {
            StorageKind::Local => Target::Local,
            StorageKind::Nfs => {
                let options = nfs_options(&self.needed("mount_options")?)?;
                let ip = self.ip()?;
                let share = self.plain("share", ".-_/", 1)?;
                let climbs = share.split('/').any(|part| part == "..");
                if !share.starts_with('/') || climbs {
                    return wrong("share", "it is a path from the root, as /nfs/storage");
                }
                Target::Nfs { options, ip, share }
            }
            StorageKind::Aoe => {
                let device = self.needed("device")?;
                let parts = device.strip_prefix('e').and_then(|rest| rest.split_once('.'));
                let number = |text: &str| match text.starts_with('+') {
                    true => None,
                    false => text.parse::<u32>().ok(),
                };
                let parts = parts.and_then(|(a, b)| Some((number(a)?, number(b)?)));
                // The largest of each stands for all of them.
                match parts {
                    Some((shelf @ 0..0xffff, slot @ 0..0xff)) => {
                        Target::Aoe { shelf: shelf as u16, slot: slot as u8 }
                    }
                    _ => return wrong("device", "it is e, a shelf and a slot, as e0.1"),
                }
            }
            StorageKind::Iscsi => {
                let target = self.plain("target", ".-:", 3)?;
                if !is_iscsi_name(&target) {
                    let why = "it is a name of iSCSI, as iqn.2016-01.com.example:storage.lun1";
                    return wrong("target", why);
                }
                Target::Iscsi {
                    target,
                    ip: self.ip()?,
                    username: self.printable("username")?,
                    password: Secret::new(self.printable("password")?),
                }
            }
            StorageKind::Nbd => {
                let export = self.plain("export_name", ".-_/", 3)?;
                let ip = self.ip()?;
                let digits = self.plain("port", "", 1)?;
                match digits.parse::<u16>() {
                    Ok(port) if port > 0 => Target::Nbd { export, ip, port },
                    _ => return wrong("port", "it is a number from 1 to 65535"),
                }
            }
        })
    }
}

fn nfs_options(text: &str) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for option in text.split(',') {
        let (name, value) = option.split_once('=').unwrap_or((option, "x"));
        let fine = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if !NFS_OPTIONS.contains(&name) || value.is_empty() || !value.chars().all(fine) {
            let option = option.escape_debug();
            return wrong("mount_options", format!("`{option:.40}` is no option of an NFS share"));
        }
        options.push(option.to_owned());
    }
    Ok(options)
}

/// RFC 7143, section 4.2.7: what may be in it was looked at.
fn is_iscsi_name(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|c| c.is_ascii_hexdigit());
    match name.split_once('.') {
        Some(("iqn", rest)) => {
            let date = rest.split('.').next().unwrap_or_default().as_bytes();
            let is_date = matches!(date, [y @ .., b'-', _, _] if y.len() == 4)
                && date.iter().all(|c| c.is_ascii_digit() || *c == b'-');
            is_date && rest.len() > 8 && name.len() <= 223
        }
        Some(("eui", rest)) => rest.len() == 16 && hex(rest),
        Some(("naa", rest)) => matches!(rest.len(), 16 | 32) && hex(rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn checked(text: &str) -> Result<Target> {
        serde_json::from_str::<StorageSettings>(text).unwrap().target()
    }

    #[test]
    fn the_examples_of_the_document_mean_something() {
        for text in [
            r#"{"type":"local"}"#,
            r#"{"type":"nfs","mount_options":"noacl,sync","ip":"192.168.1.100","share":"/nfs/storage"}"#,
            r#"{"type":"aoe","device":"e0.1"}"#,
            r#"{"type":"iscsi","target":"iqn.2016-01.com.example:storage.lun1","ip":"192.168.1.100","username":"user","password":"pass"}"#,
            r#"{"type":"nbd","export_name":"otherexport","ip":"192.168.1.100","port":"1043"}"#,
            r#"{"type":"nbd","export_name":"otherexport","ip":"fe80::1","port":1043}"#,
            r#"{"type":"iscsi","target":"eui.02004567A425678D","ip":"::1","username":"user","password":"pass"}"#,
        ] {
            checked(text).unwrap();
        }
        let nfs = r#"{"type":"nfs","mount_options":"vers=4.2,timeo=50","ip":"::1","share":"/"}"#;
        match checked(nfs).unwrap() {
            Target::Nfs { options, .. } => assert_eq!(options, ["vers=4.2", "timeo=50"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_means_nothing_or_harm_is_refused() {
        let nfs = |options: &str, ip: &str, share: &str| {
            format!(r#"{{"type":"nfs","mount_options":"{options}","ip":"{ip}","share":"{share}"}}"#)
        };
        let iscsi = |target: &str, user: &str| {
            format!(
                r#"{{"type":"iscsi","target":"{target}","ip":"::1","username":"{user}","password":"hunter2"}}"#
            )
        };
        let nbd = |export: &str, port: &str| {
            format!(r#"{{"type":"nbd","export_name":"{export}","ip":"::1","port":{port}}}"#)
        };
        let aoe = |device: &str| format!(r#"{{"type":"aoe","device":"{device}"}}"#);
        let iqn = "iqn.2016-01.com.example:a";
        for (field, text) in [
            ("ip", nfs("sync", "999.999.999.999", "/a")),
            ("ip", nfs("sync", "0.0.0.0", "/a")),
            ("ip", nfs("sync", "ff02::1", "/a")),
            ("ip", nfs("sync", "box.example", "/a")),
            ("share", nfs("sync", "10.0.0.1", "a")),
            ("share", nfs("sync", "10.0.0.1", "/a/../b")),
            ("share", nfs("sync", "10.0.0.1", "/a b")),
            ("share", nfs("sync", "10.0.0.1", "-o")),
            ("mount_options", nfs("bind", "10.0.0.1", "/a")),
            ("mount_options", nfs("sync,suid", "10.0.0.1", "/a")),
            ("mount_options", nfs("sync,,", "10.0.0.1", "/a")),
            ("mount_options", nfs("rsize=", "10.0.0.1", "/a")),
            ("mount_options", nfs("", "10.0.0.1", "/a")),
            ("target", iscsi("iqn.2016.com", "user")),
            ("target", iscsi("-oupdate", "user")),
            ("target", iscsi("eui.zz", "user")),
            ("username", iscsi(iqn, "a b c")),
            ("username", iscsi(iqn, "")),
            ("port", nbd("export", "0")),
            ("port", nbd("export", "65536")),
            ("port", nbd("export", "\"+80\"")),
            ("export_name", nbd("ab", "80")),
            ("export_name", nbd("$(reboot)", "80")),
            ("device", aoe("e0.255")),
            ("device", aoe("e65535.0")),
            ("device", aoe("e+1.0")),
            ("device", aoe("../sda")),
        ] {
            let error = checked(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("{field}: ")), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let lacks = checked(r#"{"type":"aoe"}"#).unwrap_err().to_string();
        assert!(lacks.contains("device: aoe needs it"), "{lacks}");
    }
}
