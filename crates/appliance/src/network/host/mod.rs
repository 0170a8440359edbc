//! What of the settings is done to the machine, and how: by one of the drivers, step by step, and with
//! what there was before at hand.

mod dhcp;
mod files;
mod ip;
mod networkd;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::dhcp::Asks;
use self::files::Before;
use super::settings::{Mode, NetworkSettings};
use crate::command::{self, Capability};

/// Who brings the settings to the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostDriver {
    /// Nobody: they are looked at, kept and shown.
    #[default]
    None,
    /// `ip`, the kernel's name of the host, `resolv.conf`, and chrony's sources.
    Ip,
    /// Files of systemd-networkd.
    Networkd,
}

impl HostDriver {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Ip, Self::Networkd];

    /// As it is configured.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ip => "ip",
            Self::Networkd => "networkd",
        }
    }
}

impl fmt::Display for HostDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for HostDriver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.word() == text);
        found.ok_or_else(|| format!("there is no driver `{text}`: it is none, ip or networkd"))
    }
}

/// A part of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// That the interface is there, is up, and how large its packets are.
    Interface,
    /// Its addresses.
    Addresses,
    /// Through whom others are reached.
    Gateways,
    /// Who is asked for names.
    Dns,
    /// The name of the host.
    Hostname,
    /// Who is asked for the time.
    Ntp,
}

impl Part {
    pub(super) const ALL: [Self; 6] =
        [Self::Interface, Self::Addresses, Self::Gateways, Self::Dns, Self::Hostname, Self::Ntp];

    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Addresses => "addresses",
            Self::Gateways => "gateways",
            Self::Dns => "dns",
            Self::Hostname => "hostname",
            Self::Ntp => "ntp",
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// The machine is as it was wanted.
    Done,
    /// Nothing was done, and nothing had to be.
    NotApplied,
    /// It could not be done.
    Failed,
}

impl StepState {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotApplied => "not_applied",
            Self::Failed => "failed",
        }
    }
}

/// A step, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is about.
    pub part: Part,
    /// What came of it.
    pub state: StepState,
    /// What was done, or why not.
    pub detail: String,
}

impl Step {
    fn new(part: Part, state: StepState, detail: impl AsRef<str>) -> Self {
        // It is kept, and goes into jobs.
        Self { part, state, detail: command::short(detail.as_ref()) }
    }

    fn done(part: Part, detail: impl AsRef<str>) -> Self {
        Self::new(part, StepState::Done, detail)
    }

    pub(super) fn not_applied(part: Part, detail: impl AsRef<str>) -> Self {
        Self::new(part, StepState::NotApplied, detail)
    }

    fn failed(part: Part, detail: impl AsRef<str>) -> Self {
        Self::new(part, StepState::Failed, detail)
    }

    fn of(part: Part, done: Result<String, String>) -> Self {
        match done {
            Ok(detail) => Self::done(part, detail),
            Err(why) => Self::failed(part, why),
        }
    }

    /// Whether it could not be done.
    pub fn is_failed(&self) -> bool {
        self.state == StepState::Failed
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            StepState::Done => "",
            StepState::NotApplied => "not applied: ",
            StepState::Failed => "failed: ",
        };
        write!(f, "{}: {state}{}", self.part.word(), self.detail)
    }
}

/// What there was before a change: enough to put it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Captured {
    driver: HostDriver,
    interface: String,
    /// The kernel's name of the host; none when it stays.
    name: Option<String>,
    files: Vec<Before>,
    link: Option<ip::Link>,
}

/// How much of what could not be put back is told.
const WRONG: usize = 32;

/// What a file is about.
fn part_of(path: &str) -> Part {
    match path {
        files::RESOLV => Part::Dns,
        files::CHRONY => Part::Ntp,
        networkd::FILE => Part::Addresses,
        _ => Part::Hostname,
    }
}

/// The machine, as far as the settings go.
#[derive(Clone, Debug)]
pub(super) struct Host {
    driver: HostDriver,
    /// Below which its files are: `/`.
    root: PathBuf,
    /// For what the drivers need themselves.
    dir: PathBuf,
}

impl Host {
    /// Driven by this, with its files below `root`, and a directory of the drivers' own.
    pub(super) fn new(driver: HostDriver, root: &Path, dir: &Path) -> Self {
        Self { driver, root: root.to_owned(), dir: dir.to_owned() }
    }

    pub(super) fn driver(&self) -> HostDriver {
        self.driver
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What stands in the way of these settings; nothing is touched.
    pub(super) fn preflight(&self, settings: &NetworkSettings) -> Vec<Step> {
        let mut wrong = match self.driver {
            HostDriver::None => return Vec::new(),
            HostDriver::Ip => self.ip_preflight(settings),
            HostDriver::Networkd => self.networkd_preflight(&settings.interface),
        };
        if files::kernel_name() != settings.kernel_name()
            && let Err(why) = command::may(Capability::SysAdmin)
        {
            wrong.push(Step::failed(Part::Hostname, why));
        }
        if let Err(why) = files::may_write(&self.file(files::HOSTNAME)) {
            wrong.push(Step::failed(Part::Hostname, why));
        }
        wrong
    }

    /// What there is.
    pub(super) fn capture(&self, settings: &NetworkSettings) -> Result<Captured, Step> {
        let (driver, interface) = (self.driver, settings.interface.clone());
        let (paths, link): (&[&str], _) = match driver {
            HostDriver::None => (&[], None),
            HostDriver::Ip => {
                let link = self.link(&interface);
                let link = link.map_err(|why| Step::failed(Part::Interface, why))?;
                (&[files::RESOLV, files::CHRONY], Some(link))
            }
            // Who was asked where the interface has its addresses may be gone.
            HostDriver::Networkd => (&[networkd::FILE], self.link(&interface).ok()),
        };
        let mut kept = Vec::new();
        for path in paths.iter().chain(&[files::HOSTNAME]) {
            let before = Before::of(&self.root, path);
            kept.push(before.map_err(|why| Step::failed(part_of(path), why))?);
        }
        let name = files::kernel_name();
        let name = (name != settings.kernel_name()).then_some(name);
        Ok(Captured { driver, interface, name, files: kept, link })
    }

    /// Brings the settings to the machine, and stops at the first step that fails.
    pub(super) fn apply(&self, settings: &NetworkSettings) -> Vec<Step> {
        match self.driver {
            HostDriver::None => Part::ALL
                .into_iter()
                .map(|part| Step::not_applied(part, "host_driver is `none`"))
                .collect(),
            HostDriver::Ip => {
                let mut steps = Vec::new();
                for part in Part::ALL {
                    let step = self.ip_apply(settings, part, Asks::ForNow);
                    let is_failed = step.is_failed();
                    steps.push(step);
                    if is_failed {
                        break;
                    }
                }
                steps
            }
            HostDriver::Networkd => self.networkd_apply(settings),
        }
    }

    /// Puts back what there was, by these settings if by any; tells what could not be. After another
    /// start of the machine nothing is there of before but files and the name.
    pub(super) fn restore(
        &self,
        before: &Captured,
        old: Option<&NetworkSettings>,
        same_boot: bool,
    ) -> Vec<Step> {
        let mut wrong = Vec::new();
        if before.driver == HostDriver::Ip {
            // It would write its own over what is put back.
            self.end_client(&before.interface);
        }
        for file in &before.files {
            if let Err(why) = file.put_back(&self.root) {
                wrong.push(Step::failed(part_of(file.path()), why));
            }
        }
        if let Some(name) = &before.name
            && let Err(why) = files::set_kernel_name(name)
        {
            wrong.push(Step::failed(Part::Hostname, why));
        }
        match before.driver {
            HostDriver::None => {}
            HostDriver::Ip => {
                if same_boot {
                    wrong.extend(Self::ip_restore(before));
                    let leased =
                        old.filter(|old| old.mode == Mode::Dhcp && Self::was_leased(before));
                    if let Some(Err(why)) = leased.map(|old| self.lease(old, Asks::On)) {
                        wrong.push(Step::failed(Part::Addresses, why));
                    }
                }
                Self::chrony_restore();
            }
            HostDriver::Networkd => wrong.extend(Self::networkd_restore(before)),
        }
        let more = wrong.len().saturating_sub(WRONG);
        if more > 0 {
            wrong.truncate(WRONG);
            wrong.push(Step::failed(Part::Interface, format!("{more} steps more failed")));
        }
        wrong
    }

    /// Brings parts of what is set to a machine where nobody else does, each as far as that goes.
    pub(super) fn bring(&self, settings: &NetworkSettings, parts: &[Part]) -> Vec<Step> {
        match self.driver {
            HostDriver::Ip => {
                let parts = Part::ALL.into_iter().filter(|part| parts.contains(part));
                parts.map(|part| self.ip_apply(settings, part, Asks::On)).collect()
            }
            HostDriver::None | HostDriver::Networkd => Vec::new(),
        }
    }

    /// Whether the client that renews the lease is gone, where there is to be one.
    pub(super) fn wants_client(&self, settings: &NetworkSettings) -> bool {
        self.driver == HostDriver::Ip && !self.is_leased(settings)
    }

    /// Whether nothing is to be done for the machine to be as these settings say.
    pub(super) fn is_as(&self, settings: &NetworkSettings, before: &Captured) -> bool {
        let is_named = || {
            let text = std::fs::read_to_string(self.file(files::HOSTNAME)).unwrap_or_default();
            before.name.is_none() && text == format!("{}\n", settings.hostname)
        };
        let link = before.link.as_ref();
        let is_there = || match settings.mode {
            Mode::Static => link.is_some_and(|link| link.is_as(settings)),
            Mode::Dhcp => {
                let has = link
                    .is_some_and(|link| link.has_mtu_of(settings) && !link.reached_at().is_empty());
                has && (self.driver != HostDriver::Ip || self.is_leased(settings))
            }
        };
        let is_written = || match self.driver {
            HostDriver::None => false,
            HostDriver::Ip => self.ip_files_are(settings),
            HostDriver::Networkd => std::fs::read_to_string(self.file(networkd::FILE))
                .is_ok_and(|there| there == networkd::text(settings)),
        };
        is_written() && is_named() && is_there()
    }

    /// Whether others see the machine otherwise now, with these settings applied, than before.
    pub(super) fn moves(
        &self,
        settings: &NetworkSettings,
        before: &Captured,
        old: Option<&NetworkSettings>,
    ) -> bool {
        let Some(link) = &before.link else { return true };
        let is_other = old.is_some_and(|old| old.interface != settings.interface);
        is_other
            || match (settings.mode, self.driver) {
                (Mode::Static, _) => !link.is_as(settings),
                // It is told at once, and asks later.
                (Mode::Dhcp, HostDriver::Networkd) => true,
                (Mode::Dhcp, _) => {
                    !self.link(&settings.interface).is_ok_and(|now| now.looks_like(link))
                }
            }
    }

    /// The addresses that the interface has now, whoever gave them, but for those of its link.
    pub(super) fn addresses(&self, interface: &str) -> Vec<IpAddr> {
        ip::reached_at(interface)
    }

    /// Whether the machine itself has that address.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || ip::is_own(address)
    }

    /// The name of the host, in the kernel and in the file that is read at its start.
    fn name(&self, settings: &NetworkSettings) -> Result<String, String> {
        let name = settings.kernel_name();
        if files::kernel_name() != name {
            files::set_kernel_name(name)?;
        }
        let text = format!("{}\n", settings.hostname);
        files::put(&self.file(files::HOSTNAME), text.as_bytes())?;
        Ok(settings.hostname.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn drivers_are_named_as_they_are_configured() {
        for driver in HostDriver::ALL {
            assert_eq!(driver.to_string().parse::<HostDriver>().unwrap(), driver);
            assert_eq!(serde_json::to_value(driver).unwrap(), driver.word());
        }
        assert!("netplan".parse::<HostDriver>().unwrap_err().contains("networkd"));
    }
}
