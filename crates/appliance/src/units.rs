//! Services of the machine beside our own: the units of systemd that the configuration names, as
//! `systemctl show` tells them where systemd runs; elsewhere there are none.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::command;

/// There is a directory where systemd is the init of the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// What is asked for.
const PROPERTIES: &str = "--property=LoadState,ActiveState,StateChangeTimestampMonotonic";
/// How many units may be named, and the bytes of a name (systemd.unit(5)).
const MOST: usize = 64;
const LONGEST: usize = 255;

/// How a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// It does its work.
    Running,
    /// It begins to.
    Starting,
    /// It ends.
    Stopping,
    /// It doesn't, and is not to.
    Stopped,
    /// It should.
    Failed,
    /// There is none of this name.
    NotFound,
}

impl UnitState {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::NotFound => "not_found",
        }
    }

    fn of(load: &str, active: &str) -> Option<Self> {
        Some(match (load, active) {
            ("not-found", _) => Self::NotFound,
            (_, "active" | "reloading" | "refreshing") => Self::Running,
            (_, "activating") => Self::Starting,
            (_, "deactivating") => Self::Stopping,
            (_, "inactive" | "maintenance") => Self::Stopped,
            (_, "failed") => Self::Failed,
            _ => return None,
        })
    }
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineUnit {
    /// As the configuration names it.
    pub name: String,
    /// How it is.
    pub state: UnitState,
    /// Since when; what never changed is as it is since the machine was started.
    pub since: Timestamp,
}

/// The units that the configuration names. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Units {
    names: Vec<String>,
}

impl Units {
    /// Of these names.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(names: Vec<String>) -> Result<Self, String> {
        if names.len() > MOST {
            return Err(format!("there may be {MOST}"));
        }
        let fits = |c: u8| c.is_ascii_alphanumeric() || b":-_.\\@".contains(&c);
        for name in &names {
            let is_name =
                name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
            let has_kind = name.rsplit_once('.').is_some_and(|(_, kind)| !kind.is_empty());
            if !is_name || !has_kind || name.len() > LONGEST || !name.bytes().all(fits) {
                return Err(format!("`{name}` is no unit of systemd, as ssh.service"));
            }
        }
        Ok(Self { names })
    }

    /// How they are now. What systemd does not tell is left out.
    pub fn list(&self) -> Vec<MachineUnit> {
        if self.names.is_empty() || !Path::new(BOOTED).is_dir() {
            return Vec::new();
        }
        let mut words = vec!["show", PROPERTIES, "--"];
        words.extend(self.names.iter().map(String::as_str));
        match command::run("systemctl", &words) {
            Ok(text) => self.told(&text, monotonic(), Timestamp::now()),
            Err(why) => {
                tracing::warn!("how the units of systemd are is not known: {why}");
                Vec::new()
            }
        }
    }

    /// What systemctl has told, at this time since the start of the machine, in microseconds.
    fn told(&self, text: &str, ticks: u64, now: Timestamp) -> Vec<MachineUnit> {
        let blocks: Vec<_> = text.trim().split("\n\n").collect();
        if blocks.len() != self.names.len() {
            tracing::warn!("systemctl tells of {} units, of {}", blocks.len(), self.names.len());
            return Vec::new();
        }
        let unit = |(name, block): (&String, &&str)| {
            let property = |name: &str| {
                let mut lines = block.lines().filter_map(|line| line.split_once('='));
                lines.find(|(key, _)| *key == name).map(|(_, value)| value).unwrap_or_default()
            };
            let state = UnitState::of(property("LoadState"), property("ActiveState"))?;
            let changed: u64 = property("StateChangeTimestampMonotonic").parse().unwrap_or(0);
            let ago = i64::try_from(ticks.saturating_sub(changed)).unwrap_or(i64::MAX);
            let since = now.checked_sub(SignedDuration::from_micros(ago)).unwrap_or(now);
            Some(MachineUnit { name: name.clone(), state, since })
        };
        self.names.iter().zip(&blocks).filter_map(unit).collect()
    }
}

/// Microseconds since the machine was started, without those in which it slept: systemd's clock.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_systemctl_says_is_told() {
        let text = "LoadState=loaded\nActiveState=active\nStateChangeTimestampMonotonic=5000000\n\n\
                    StateChangeTimestampMonotonic=0\nLoadState=not-found\nActiveState=inactive\n\n\
                    LoadState=loaded\nActiveState=failed\nStateChangeTimestampMonotonic=9000000\n\n\
                    LoadState=loaded\nActiveState=odd\nStateChangeTimestampMonotonic=0\n";
        let names = ["ssh.service", "no.service", "bad@1.service", "odd.timer"];
        let units = Units::new(names.map(str::to_owned).to_vec()).unwrap();
        let now: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        let told = units.told(text, 10_000_000, now);
        let since = |text: &str| text.parse::<Timestamp>().unwrap();
        let unit = |name: &str, state, since| MachineUnit { name: name.into(), state, since };
        assert_eq!(
            told,
            [
                unit("ssh.service", UnitState::Running, since("2026-03-01T09:59:55Z")),
                unit("no.service", UnitState::NotFound, since("2026-03-01T09:59:50Z")),
                unit("bad@1.service", UnitState::Failed, since("2026-03-01T09:59:59Z")),
            ]
        );
        // Of others than were asked for nothing is known.
        assert!(units.told("LoadState=loaded\nActiveState=active\n", 1, now).is_empty());
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", "ssh", "ssh.", "-x.service", "a b.service", "a/b.service", "*.service"] {
            assert!(Units::new(vec![name.into()]).is_err(), "{name}");
        }
        assert!(Units::new(vec!["x".repeat(250) + ".service"]).is_err());
        assert!(Units::new(vec!["a.service".into(); MOST + 1]).is_err());
        Units::new(vec!["getty@tty1.service".into(), "dev-sda\\x2d1.device".into()]).unwrap();
        assert!(Units::default().list().is_empty());
    }
}
