//! systemd-networkd: one file (systemd.network(5)) and a word to it. What it says of name servers goes
//! to systemd-resolved, of time servers to systemd-timesyncd.

use std::fmt::Write as _;

use super::super::settings::{Mode, NetworkSettings};
use super::files::{self, MADE};
use super::ip::told;
use super::{Captured, Host, Part, Step};
use crate::command;

/// Before the files that images of machines come with.
pub(super) const FILE: &str = "etc/systemd/network/05-strongroom.network";
const TELL: &str = "networkctl";

/// The file.
pub(super) fn text(settings: &NetworkSettings) -> String {
    let mut text = format!("{MADE}[Match]\nName={}\n", settings.interface);
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{key}={value}");
    };
    if let Some(mtu) = settings.mtu {
        line("\n[Link]\nMTUBytes", &mtu);
    }
    let dhcp = match settings.mode {
        Mode::Dhcp => "ipv4",
        Mode::Static => "no",
    };
    line("\n[Network]\nDHCP", &dhcp);
    settings.addresses.iter().for_each(|address| line("Address", address));
    settings.gateways.iter().for_each(|gateway| line("Gateway", gateway));
    settings.dns.iter().for_each(|server| line("DNS", server));
    settings.ntp.iter().for_each(|server| line("NTP", server));
    if settings.mode == Mode::Dhcp && !(settings.dns.is_empty() && settings.ntp.is_empty()) {
        // What is said wins over what the server says.
        text.push_str("\n[DHCPv4]\n");
        if !settings.dns.is_empty() {
            text.push_str("UseDNS=no\n");
        }
        if !settings.ntp.is_empty() {
            text.push_str("UseNTP=no\n");
        }
    }
    text
}

impl Host {
    pub(super) fn networkd_preflight(&self, interface: &str) -> Vec<Step> {
        let mut wrong = Vec::new();
        if command::find(TELL).is_none() {
            let why = "`networkctl` is not installed: is systemd-networkd?";
            wrong.push(Step::failed(Part::Interface, why));
        }
        // Who can say so need not be there.
        if command::find("ip").is_some()
            && let Err(why) = told(interface)
        {
            wrong.push(Step::failed(Part::Interface, why));
        }
        if let Err(why) = files::may_write(&self.file(FILE)) {
            wrong.push(Step::failed(Part::Addresses, why));
        }
        wrong
    }

    pub(super) fn networkd_apply(&self, settings: &NetworkSettings) -> Vec<Step> {
        let mut steps = Vec::new();
        let named = Step::of(Part::Hostname, self.name(settings));
        let is_failed = named.is_failed();
        steps.push(named);
        if is_failed {
            return steps;
        }
        let path = self.file(FILE);
        let written = files::put(&path, text(settings).as_bytes());
        let told = written.and_then(|()| tell(&settings.interface));
        let done = match told {
            Ok(()) => Ok(format!("networkd has read {}", path.display())),
            Err(why) => Err(why),
        };
        for part in [Part::Interface, Part::Addresses, Part::Gateways, Part::Dns, Part::Ntp] {
            steps.push(Step::of(part, done.clone()));
            if done.is_err() {
                break;
            }
        }
        steps
    }

    /// Always: who put the file back may have ended before it said so.
    pub(super) fn networkd_restore(before: &Captured) -> Vec<Step> {
        let told = tell(&before.interface).err();
        told.map(|why| Step::failed(Part::Addresses, why)).into_iter().collect()
    }
}

/// Has networkd read its files, and go by them.
fn tell(interface: &str) -> Result<(), String> {
    command::run(TELL, &["reload"])?;
    command::run(TELL, &["reconfigure", interface]).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::super::settings::WantedNetwork;
    use super::super::super::settings::tests::{good, leased};
    use super::*;

    #[test]
    fn files_are_those_of_the_goldens() {
        let full = WantedNetwork { mtu: Some(9000), ntp: vec!["pool.example".into()], ..good() };
        let dhcp = leased();
        let over = WantedNetwork { dns: full.dns.clone(), ntp: full.ntp.clone(), ..dhcp.clone() };
        for (name, wanted) in [("static", full), ("dhcp", dhcp), ("dhcp-own-servers", over)] {
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/networkd");
            let path = format!("{dir}/{name}.network");
            let made = text(&wanted.check().unwrap());
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            assert_eq!(made, std::fs::read_to_string(&path).unwrap(), "{path}: UPDATE=1 renews it");
        }
    }
}
