//! Who a client is, and which volumes it may have.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use strongroom_appliance::tls::{common_name, facts};
use strongroom_nbd::{Address, Peer};

/// Letters of what clients say of themselves that are shown.
const MAX_SHOWN: usize = 200;

/// As much of what a client said as is shown.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// For people: whose certificate it has, or whose process it is.
    pub(super) shown: String,
    /// Where it is; None: on this machine, at the socket.
    pub(super) address: Option<SocketAddr>,
    /// The common name in its certificate, if there is just one.
    name: Option<String>,
}

impl Who {
    pub(super) fn of(peer: &Peer) -> Self {
        let certificate = peer.certificate.as_deref();
        let (shown, address) = match peer.address {
            Address::Local { uid: Some(uid) } => (format!("user {uid}"), None),
            Address::Local { uid: None } => ("a user".to_owned(), None),
            Address::Network(address) => {
                let subject = certificate.and_then(facts).map(|facts| facts.subject);
                let subject = subject.filter(|subject| !subject.is_empty());
                (subject.unwrap_or_else(|| "without a name".to_owned()), Some(address))
            }
        };
        Self { shown: cut(&shown), address, name: certificate.and_then(common_name) }
    }
}

/// Which volumes clients on the network may have, by the common names in their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::up) struct Access(Option<BTreeMap<String, Vec<Pattern>>>);

impl Access {
    /// As is configured; who isn't named has nothing then. Without it everybody may have all.
    pub(in crate::up) fn of(configured: Option<&BTreeMap<String, Vec<String>>>) -> Result<Self> {
        let Some(configured) = configured else { return Ok(Self(None)) };
        let mut all = BTreeMap::new();
        for (name, patterns) in configured {
            ensure!(!name.is_empty(), "nbd_access: a common name is empty");
            let patterns = patterns.iter().map(|text| Pattern::parse(text));
            all.insert(name.clone(), patterns.collect::<Result<_>>()?);
        }
        Ok(Self(Some(all)))
    }

    /// Whether this client may have this export. Who is on this machine may have all.
    pub(super) fn allows(&self, who: &Who, export: &str) -> bool {
        let (Some(all), Some(_)) = (&self.0, who.address) else { return true };
        let patterns = who.name.as_ref().and_then(|name| all.get(name));
        patterns.into_iter().flatten().any(|pattern| pattern.fits(export))
    }
}

/// `POOL/VOLUME`, with its snapshots, or `POOL/VOLUME@SNAPSHOT`; `*` stands for any letters of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    pool: String,
    volume: String,
    snapshot: Option<String>,
}

/// Pool, volume and snapshot in the name of an export, which may have any letters.
fn parts(name: &str) -> Option<(&str, &str, Option<&str>)> {
    let (pool, rest) = name.split_once('/')?;
    let (volume, snapshot) = rest.split_once('@').unzip();
    Some((pool, volume.unwrap_or(rest), snapshot))
}

impl Pattern {
    fn parse(text: &str) -> Result<Self> {
        let whole = |part: &str| !part.is_empty() && !part.contains(['/', '@']);
        let parts = parts(text).filter(|(pool, volume, snapshot)| {
            whole(pool) && whole(volume) && snapshot.is_none_or(whole)
        });
        let Some((pool, volume, snapshot)) = parts else {
            anyhow::bail!(
                "nbd_access: `{text}` is no pattern: it is POOL/VOLUME or POOL/VOLUME@SNAPSHOT, where * \
                 stands for any letters"
            );
        };
        let snapshot = snapshot.map(str::to_owned);
        Ok(Self { pool: pool.to_owned(), volume: volume.to_owned(), snapshot })
    }

    fn fits(&self, export: &str) -> bool {
        let Some((pool, volume, snapshot)) = parts(export) else { return false };
        let snapshot_fits = match (&self.snapshot, snapshot) {
            (None, _) => true,
            (Some(pattern), Some(snapshot)) => is_like(snapshot, pattern),
            (Some(_), None) => false,
        };
        is_like(pool, &self.pool) && is_like(volume, &self.volume) && snapshot_fits
    }
}

/// Whether a name is like a pattern in which `*` stands for any letters, or none.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    // The first place where a piece is found leaves the most for those after it.
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn access(text: &str) -> Result<Access> {
        Access::of(Some(&toml::from_str(text).unwrap()))
    }

    fn client(name: Option<&str>) -> Who {
        let address = Some("192.0.2.1:5".parse().unwrap());
        Who { shown: String::new(), address, name: name.map(str::to_owned) }
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        for (name, pattern) in [
            ("vm1", "vm1"),
            ("vm1", "*"),
            ("", "*"),
            ("vm1", "vm*"),
            ("vm", "vm*"),
            ("vm1-data", "*-data"),
            ("vm1-data", "vm*-*a"),
            ("aab", "*ab"),
            ("abcabc", "a*b*c"),
        ] {
            assert!(is_like(name, pattern), "{name} is like {pattern}");
        }
        for (name, pattern) in [
            ("vm1", "vm"),
            ("vm", "vm1"),
            ("vm", "vm*m"),
            ("xvm1", "vm*"),
            ("a", "a*a"),
            ("vm1", ""),
            ("abc", "a*b"),
        ] {
            assert!(!is_like(name, pattern), "{name} is not like {pattern}");
        }
    }

    #[test]
    fn who_is_named_has_what_is_said_and_others_have_nothing() {
        let access = access("vm7 = [\"main/vm7\", \"main/db*@night-*\"]\nnone = []").unwrap();
        let vm7 = client(Some("vm7"));
        for name in ["main/vm7", "main/vm7@monday", "main/db1@night-1"] {
            assert!(access.allows(&vm7, name), "{name}");
        }
        for name in [
            "",
            "main",
            "main/",
            "main/vm70",
            "other/vm7",
            "main/db1",
            "main/db1@day",
            "vm7",
            "/",
            "@",
        ] {
            assert!(!access.allows(&vm7, name), "{name}");
        }
        for other in [Some("VM7"), Some("none"), Some("main/vm7"), Some(""), None] {
            assert!(!access.allows(&client(other), "main/vm7"), "{other:?}");
        }
        let local = Who { address: None, ..client(None) };
        assert!(access.allows(&local, "main/other"), "the socket is the appliance's user's");
        assert!(Access::default().allows(&client(None), "main/other"), "nothing is said");
    }

    #[test]
    fn patterns_are_of_pools_and_volumes() {
        for wrong in ["", "vm7", "main/", "/vm7", "main/a/b", "main/a@", "main@a/b", "main/a@b@c"] {
            let error = access(&format!("c = [\"{wrong}\"]")).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("POOL/VOLUME"), "{error}");
        }
        assert!(access("\"\" = [\"a/b\"]").unwrap_err().to_string().contains("empty"));
    }
}
