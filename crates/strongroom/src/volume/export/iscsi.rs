//! Serving it over iSCSI: as LUN 0 of a target.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use strongroom_iscsi::scsi::{Identity, LogicalUnit};
use strongroom_iscsi::{AuthGroup, Credential, Limits, Server, Target};
use strongroom_storage::{Guard, TARGET_PREFIX};
use zeroize::Zeroizing;

use super::Subject;
use super::nbd::{addresses, is_reached};
use crate::ask;
use crate::exit::usage;

/// The number of its unit.
const LUN: u16 = 0;

/// How it is served over iSCSI.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct IscsiArgs {
    /// The target's name [default: iqn.2026-11.io.strongroom: and the name of what is served]
    #[arg(long, value_name = "NAME", requires = "iscsi", help_heading = "iSCSI")]
    pub(super) iqn: Option<String>,
    /// Initiators prove by CHAP that they are who this file's first line says, `USER:SECRET`; the secret
    /// has at least 12 letters
    #[arg(long, value_name = "FILE", requires = "iscsi", help_heading = "iSCSI")]
    pub(super) chap_file: Option<PathBuf>,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Portal(String);

impl FromStr for Portal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':').map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(_)) => Ok(Self(text.to_owned())),
            _ => Err("write ADDRESS:PORT, like 127.0.0.1:3260".to_owned()),
        }
    }
}

/// It is served over iSCSI, until this is dropped.
#[derive(Debug)]
pub(super) struct Iscsi {
    server: Server,
    address: SocketAddr,
    target: String,
    user: Option<String>,
}

impl Iscsi {
    /// Serves it here.
    pub(super) fn serve(
        subject: &Subject,
        portal: &Portal,
        args: &IscsiArgs,
        in_clear: bool,
    ) -> Result<Self> {
        let Portal(place) = portal;
        let addresses = addresses(place)?;
        let user = args.chap_file.as_deref().map(credential).transpose()?;
        if user.is_none() && !in_clear && is_reached(&addresses) {
            bail!(
                "other machines reach {place}, and anybody there could use the disk: name an address \
                 of this machine alone, like 127.0.0.1:3260, have initiators prove who they are \
                 (--chap-file), or say --in-clear"
            );
        }
        let target = match &args.iqn {
            Some(name) => Target::new(name).map_err(|error| usage(format!("--iqn: {error}")))?,
            None => Target::new(&usual_name(&subject.name))?,
        };
        target.set_alias(Some(&subject.name));
        let name = user.as_ref().map(|user| user.name().to_owned());
        let auth = AuthGroup::open().users(user.into_iter().collect())?;
        target.set_auth(auth.clone());
        let device = Arc::clone(&subject.device);
        target.map(LUN, Arc::new(LogicalUnit::new(device, Identity::default(), None)?))?;
        let server = Server::new(Limits::default());
        server.set_doorkeeper(Arc::new(Guard::default()));
        server.set_discovery(auth);
        let iqn = target.name().to_owned();
        server.add(target)?;
        let address = listen(&server, &addresses)?;
        Ok(Self { server, address, target: iqn, user: name })
    }

    /// Its address for clients (the form of libiscsi, without who logs in).
    pub(super) fn uri(&self) -> String {
        format!("iscsi://{}/{}/{LUN}", self.address, self.target)
    }

    pub(super) fn told(&self) -> Value {
        json!({
            "uri": self.uri(),
            "address": self.address.to_string(),
            "target": self.target,
            "lun": LUN,
            "chap_user": self.user,
        })
    }

    /// Does what came, and ends.
    pub(super) fn stop(&self) {
        self.server.stop();
    }
}

/// At the first of them that can be listened at.
fn listen(server: &Server, addresses: &[SocketAddr]) -> Result<SocketAddr> {
    let mut failed = None;
    for address in addresses {
        match server.listen(*address) {
            Ok(address) => return Ok(address),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.map_or_else(|| anyhow::anyhow!("it has no address"), Into::into))
}

/// A target's name of any name: what names of targets don't hold becomes `-`.
fn usual_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let letters = name.chars().map(|c| if fits(c) { c.to_ascii_lowercase() } else { '-' });
    let prefix = TARGET_PREFIX.chars().chain([':']);
    prefix.chain(letters).take(strongroom_iscsi::name::LONGEST).collect()
}

/// Who may log in. What the file says is not told when it is wrong.
fn credential(path: &Path) -> Result<Credential> {
    let text = ask::from_file(Some(path))?.map(Zeroizing::new).unwrap_or_default();
    let wrong = || usage(format!("{}: its first line is USER:SECRET", path.display()));
    let (user, secret) = text.split_once(':').ok_or_else(wrong)?;
    Credential::new(user, secret.as_bytes()).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_of_targets_are_made_of_any_name() {
        assert_eq!(usual_name("vm 1@Monday"), format!("{TARGET_PREFIX}:vm-1-monday"));
        assert!(Target::new(&usual_name(&"ä/".repeat(300))).is_ok());
    }

    #[test]
    fn portals_have_a_port() {
        assert!("127.0.0.1:0".parse::<Portal>().is_ok());
        for wrong in ["", "127.0.0.1", "unix:/run/x", "localhost:iscsi"] {
            assert!(wrong.parse::<Portal>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_are_read_and_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap");
        std::fs::write(&path, "anna:secret:secret12\n").unwrap();
        assert_eq!(credential(&path).unwrap().name(), "anna");
        for wrong in ["hunter2hunter2", "anna:hunter2", ":hunter2hunter2", ""] {
            std::fs::write(&path, wrong).unwrap();
            let error = format!("{:#}", credential(&path).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
