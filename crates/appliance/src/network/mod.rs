//! The settings of the network, and those of whatever application runs beside: looked at, kept, and
//! brought to the machine by a driver ([`HostDriver`]).
//!
//! A change that could cut the appliance off reverts by itself. What there was is captured and kept
//! before the first step; when all steps are done the change waits, and is kept once somebody confirms
//! it who has reached the appliance where it is now. When nobody does in time, or the process finds at
//! its start that it died while a change was being applied, what there was is put back. ADR 0019.

mod document;
mod host;
mod operations;
mod settings;
mod state;

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

pub use self::document::{Document, Json, MAX_DEPTH, MAX_DOCUMENT};
use self::host::Host;
pub use self::host::{HostDriver, Part, Step, StepState};
pub use self::operations::{NetworkChange, NetworkStatus, PendingChange};
pub(crate) use self::operations::{REQUEST, Request};
pub use self::settings::{HostAddress, Mode, NetworkSettings, WantedNetwork, mask};
pub use self::state::{ChangeOutcome, LastChange, SetNetwork};
use self::state::{Pending, State, Store, Until};
use crate::{Error, Result};

/// Seconds in which a change is to be confirmed: at least, at most, and when nobody says.
pub const CONFIRM: (u64, u64, u64) = (5, 3600, 60);
/// How often it is looked whether the time for that is over, at least, and whether a change waits of
/// which nobody was told.
const LOOK: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
/// Before the first step: whoever asked is answered where the appliance still is.
pub(crate) const ANSWER: Duration = Duration::from_millis(300);

/// How the machine is driven.
#[derive(Clone, Debug)]
pub struct HostSetup {
    /// By whom.
    pub driver: HostDriver,
    /// Below which directory the files of the machine are; `/`.
    pub root: std::path::PathBuf,
    /// Seconds in which a change is to be confirmed when who asks for it doesn't say.
    pub confirm: u64,
}

impl Default for HostSetup {
    fn default() -> Self {
        Self { driver: HostDriver::None, root: "/".into(), confirm: CONFIRM.2 }
    }
}

/// The settings. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: Host,
    store: Store,
    confirm: u64,
    /// Whoever has it may change them, and the machine.
    turn: Mutex<Turn>,
    /// Whether a change waits: asked at each call of the dialect.
    waits: AtomicBool,
    /// A change waits, or no longer does.
    news: Notify,
    /// The audit trail is to say something.
    untold: Notify,
}

/// What whoever has the turn knows beside what is kept.
#[derive(Debug, Default)]
struct Turn {
    /// The job of a change that is taken back, where that could not be kept yet, and what could not be
    /// put back.
    restored: Option<(i64, Vec<Step>)>,
    /// What of the settings is set could not be brought to the machine.
    missing: Vec<Part>,
    /// All of it is brought, and that may have to be kept.
    brought: bool,
    /// When it is tried again, and how long is waited after that.
    next: Option<Instant>,
    pause: Duration,
}

/// What came of a change that was begun.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is over.
    Over(LastChange),
    /// It waits until then.
    Waits(Timestamp, Vec<Step>),
}

impl Network {
    /// Of the data directory.
    pub fn new(data: &Path, setup: &HostSetup) -> Self {
        let dir = data.join("network");
        let host = Host::new(setup.driver, &setup.root, &dir);
        let inner = Inner {
            host,
            store: Store::new(&dir),
            confirm: setup.confirm,
            turn: Mutex::default(),
            waits: AtomicBool::new(false),
            news: Notify::new(),
            untold: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.inner.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is so from now on.
    fn keep(&self, state: &State) -> Result<()> {
        self.inner.store.write(state)?;
        let waits = state.pending.as_ref().is_some_and(|pending| pending.until.is_some());
        self.inner.waits.store(waits, Ordering::Release);
        self.inner.news.notify_one();
        Ok(())
    }

    /// Brings the machine to where it belongs when the process starts: what was cut off, or was not
    /// confirmed in time, is put back; what is set is applied where nothing of it outlived a start of
    /// the machine. To be called before anything listens; [`Network::watch`] goes on with what could
    /// not be done.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn settle(&self) -> Result<()> {
        let mut turn = self.turn();
        self.look(&mut turn).map(drop)
    }

    /// Takes changes back that nobody confirms in time, and brings to the machine what could not be
    /// brought yet, for as long as it is polled.
    pub async fn watch(self) {
        loop {
            let network = self.clone();
            let looked = crate::administration::blocking(move || network.look(&mut network.turn()));
            let wait = looked.await.unwrap_or_else(|error| {
                tracing::error!("the network's settings can't be kept: {error}");
                IDLE
            });
            let _ = tokio::time::timeout(wait, self.inner.news.notified()).await;
        }
    }

    /// Takes a change back that is not over, since nobody will be there who could confirm it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn give_up(&self) -> Result<()> {
        let mut turn = self.turn();
        let mut state = self.inner.store.read()?;
        self.take_back(&mut turn, &mut state, GAVE_UP)
    }

    /// Puts back what there was before a change, if one is not over, since the appliance says so and
    /// nobody else: the audit trail will tell it.
    fn take_back(&self, turn: &mut Turn, state: &mut State, over: Revert) -> Result<()> {
        if state.pending.is_some() {
            state.add_untold(over.1);
            self.revert(turn, state, over)?;
            self.inner.untold.notify_one();
        }
        Ok(())
    }

    /// Does what is to be done now; how long it is until there is more.
    fn look(&self, turn: &mut Turn) -> Result<Duration> {
        let mut state = self.inner.store.read()?;
        if let Some(pending) = &state.pending {
            let over = match &pending.until {
                // Nobody else has the turn: whoever applied it is gone.
                None => Some(CUT_OFF),
                Some(until) => match until.left() {
                    None => Some(UNCONFIRMED),
                    Some(left) => {
                        self.inner.waits.store(true, Ordering::Release);
                        let settings = pending.network.settings.clone();
                        let next = self.renewed(turn, &settings);
                        return Ok(left.min(next).min(LOOK));
                    }
                },
            };
            if let Some(over) = over {
                self.take_back(turn, &mut state, over)?;
            }
        }
        self.bring(turn, &mut state)
    }

    /// Has the DHCP client back that is to renew the lease; how long it is until it is looked again.
    fn renewed(&self, turn: &mut Turn, settings: &NetworkSettings) -> Duration {
        if !self.inner.host.wants_client(settings) {
            (turn.next, turn.pause) = (None, Duration::ZERO);
            // One that ends is missed soon.
            return if settings.mode == Mode::Dhcp { LOOK } else { IDLE };
        }
        turn.tried(|| self.inner.host.bring(settings, &[Part::Addresses]))
            .unwrap_or_else(|left| left)
    }

    /// Brings what is set to the machine where it is not yet since its start, each part as far as that
    /// goes; how long it is until it is looked again.
    fn bring(&self, turn: &mut Turn, state: &mut State) -> Result<Duration> {
        let Some(set) = &state.network else { return Ok(IDLE) };
        if self.inner.host.driver() != HostDriver::Ip {
            return Ok(IDLE);
        }
        if state.boot.as_deref() == Some(&*boot()) {
            return Ok(self.renewed(turn, &set.settings));
        }
        if !turn.brought {
            let parts = match turn.missing.is_empty() {
                true => Part::ALL.to_vec(),
                false => turn.missing.clone(),
            };
            let tried = turn.tried(|| self.inner.host.bring(&set.settings, &parts));
            if let (Ok(left), false) | (Err(left), _) = (tried, turn.missing.is_empty()) {
                return Ok(left);
            }
            turn.brought = true;
        }
        state.boot = Some(boot());
        self.keep(state)?;
        turn.brought = false;
        Ok(IDLE)
    }

    /// Puts back what there was before a change, if one is not over.
    fn revert(&self, turn: &mut Turn, state: &mut State, (outcome, why): Revert) -> Result<()> {
        let Some(pending) = state.pending.take() else { return Ok(()) };
        let (job, asked_at) = (pending.job, pending.asked_at);
        let wrong = match turn.restored.take() {
            // The machine is as it was: only that could not be kept.
            Some((of, wrong)) if of == job => wrong,
            _ => {
                let old = state.network.as_ref().map(|set| &set.settings);
                let wrong = self.inner.host.restore(&pending.before, old, pending.boot == boot());
                tracing::warn!("a change of the network is taken back: {why}");
                for step in &wrong {
                    tracing::error!("what was there before is not back: {step}");
                }
                wrong
            }
        };
        turn.restored = Some((job, wrong.clone()));
        let steps = pending.steps.into_iter().chain(wrong).collect();
        let why = Some(why.to_owned());
        let at = Timestamp::now();
        state.last = Some(LastChange { job, asked_at, outcome, at, why, steps });
        self.keep(state)?;
        turn.restored = None;
        Ok(())
    }

    /// Makes a change, by a job that was asked for then: begins it, and leaves it to be confirmed.
    pub(crate) fn begin(&self, job: i64, asked_at: Timestamp, request: Request) -> Result<Begun> {
        let mut turn = self.turn();
        let mut state = self.inner.store.read()?;
        if state.pending.is_some() {
            return Err(waiting());
        }
        let (host, now) = (&self.inner.host, Timestamp::now());
        let settings = request.settings.clone();
        let network = SetNetwork { settings: request.settings, given: request.given, set_at: now };
        let asked_at = Some(asked_at);
        let over = |outcome, why: Option<String>, steps| LastChange {
            job,
            asked_at,
            outcome,
            at: now,
            why,
            steps,
        };
        if host.driver() == HostDriver::None {
            let last = over(ChangeOutcome::Stored, None, host.apply(&settings));
            state.network = Some(network);
            state.application = request.application.or(state.application);
            state.last = Some(last.clone());
            self.keep(&state)?;
            return Ok(Begun::Over(last));
        }
        let mut wrong = host.preflight(&settings);
        let before = match host.capture(&settings) {
            Ok(before) => Some(before).filter(|_| wrong.is_empty()),
            Err(step) => {
                // Mostly said already.
                if wrong.is_empty() {
                    wrong.push(step);
                }
                None
            }
        };
        let Some(before) = before else {
            let why = Some("it can't be applied: nothing was touched".to_owned());
            let last = over(ChangeOutcome::Failed, why, wrong);
            state.last = Some(last.clone());
            self.keep(&state)?;
            return Ok(Begun::Over(last));
        };
        let old = state.network.as_ref().map(|set| set.settings.clone());
        if old.as_ref() == Some(&settings) && host.is_as(&settings, &before) {
            let steps = Part::ALL.map(|part| Step::not_applied(part, "it is so already"));
            let last = over(ChangeOutcome::Applied, None, steps.to_vec());
            state.network = Some(network);
            state.application = request.application.or(state.application);
            state.last = Some(last.clone());
            self.keep(&state)?;
            return Ok(Begun::Over(last));
        }
        state.pending = Some(Pending {
            job,
            asked_at,
            by: request.by,
            by_dialect: request.by_dialect,
            network,
            application: request.application,
            moves: true,
            before,
            steps: Vec::new(),
            boot: boot(),
            until: None,
        });
        self.keep(&state)?;
        let steps = host.apply(&settings);
        let failed = steps.iter().any(Step::is_failed);
        if let Some(pending) = &mut state.pending {
            pending.steps.clone_from(&steps);
            if !failed {
                pending.moves = host.moves(&settings, &pending.before, old.as_ref());
            }
        }
        if failed {
            let why = "it could not be applied: what there was is back";
            self.revert(&mut turn, &mut state, (ChangeOutcome::Failed, why))?;
            let last = state.last.unwrap_or_else(|| over(ChangeOutcome::Failed, None, steps));
            return Ok(Begun::Over(last));
        }
        let until = Until::from_now(request.confirm.unwrap_or(self.inner.confirm));
        let at = until.at;
        if let Some(pending) = &mut state.pending {
            pending.until = Some(until);
        }
        if let Err(error) = self.keep(&state) {
            // Nobody would take it back after the next start.
            let why = "that it waits could not be kept";
            self.revert(&mut turn, &mut state, (ChangeOutcome::Failed, why))?;
            return Err(error);
        }
        Ok(Begun::Waits(at, steps))
    }

    /// Keeps the change that waits, for who has reached the appliance there; none: through the control
    /// socket, or nobody knows.
    fn confirm(&self, reached: Option<Reached>) -> Result<()> {
        let _turn = self.turn();
        let mut state = self.inner.store.read()?;
        let nothing = || Error::State("no change of the network waits to be confirmed".into());
        let Some(pending) = &state.pending else { return Err(nothing()) };
        let Some(until) = &pending.until else { return Err(nothing()) };
        if until.left().is_none() {
            return Err(Error::State("the time to confirm the change is over".into()));
        }
        if let Some(elsewhere) = self.elsewhere(pending, reached) {
            return Err(elsewhere);
        }
        let Some(pending) = state.pending.take() else { return Err(nothing()) };
        let (outcome, at) = (ChangeOutcome::Applied, Timestamp::now());
        let Pending { job, asked_at, steps, network, application, .. } = pending;
        state.network = Some(network);
        state.application = application.or(state.application);
        state.last = Some(LastChange { job, asked_at, outcome, at, why: None, steps });
        state.boot = Some(boot());
        self.keep(&state)
    }

    /// Why who came there can't confirm the change.
    fn elsewhere(&self, pending: &Pending, reached: Option<Reached>) -> Option<Error> {
        if !pending.moves {
            return None;
        }
        let settings = &pending.network.settings;
        let there = match settings.mode {
            Mode::Static => settings.addresses.iter().map(|one| one.address).collect(),
            Mode::Dhcp => self.inner.host.addresses(&settings.interface),
        };
        let came = match reached {
            None => "through the control socket".to_owned(),
            Some(Reached { at, .. }) if !there.contains(&at.to_canonical()) => format!("to {at}"),
            Some(Reached { from, .. }) if self.inner.host.is_own(from.to_canonical()) => {
                "from the machine itself".to_owned()
            }
            Some(_) => return None,
        };
        let there: Vec<_> = there.iter().map(ToString::to_string).collect();
        Some(Error::State(format!(
            "the change is confirmed over the network, at {}: this came {came}",
            there.join(" or ")
        )))
    }
}

/// How a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The address of this machine that it came to.
    pub at: IpAddr,
    /// Whose it is.
    pub from: IpAddr,
}

impl Turn {
    /// Tries to bring parts to the machine, unless it is too early for that; keeps in mind which of
    /// them are missing. Gives how long it is until the next time; that it was too early as an error.
    fn tried(
        &mut self,
        bring: impl FnOnce() -> Vec<Step>,
    ) -> std::result::Result<Duration, Duration> {
        let left = self.next.map(|next| next.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Err(left);
        }
        let steps = bring();
        for step in &steps {
            match step.is_failed() {
                true => tracing::error!("the network's settings are not applied: {step}"),
                false => tracing::info!("the network's settings are applied: {step}"),
            }
        }
        self.missing = steps.iter().filter(|step| step.is_failed()).map(|step| step.part).collect();
        if self.missing.contains(&Part::Addresses) {
            self.missing.push(Part::Gateways);
        }
        if self.missing.is_empty() {
            (self.next, self.pause) = (None, Duration::ZERO);
            return Ok(IDLE);
        }
        self.pause = (self.pause * 2).clamp(LOOK, IDLE);
        self.next = Some(Instant::now() + self.pause);
        Ok(self.pause)
    }
}

/// What comes of a change that is taken back, and why it is.
type Revert = (ChangeOutcome, &'static str);

const UNCONFIRMED: Revert = (ChangeOutcome::Reverted, "nobody confirmed it in time");
const CUT_OFF: Revert = (ChangeOutcome::Failed, "the process ended while it was being applied");
const GAVE_UP: Revert = (ChangeOutcome::Reverted, "the appliance could not start");

fn waiting() -> Error {
    let text =
        "a change of the network waits to be confirmed: confirm it, or wait until it is taken back";
    Error::State(text.into())
}

impl Until {
    fn from_now(seconds: u64) -> Self {
        let span = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        let at = Timestamp::now().checked_add(span).unwrap_or(Timestamp::MAX);
        Self { at, boot: boot(), ticks: ticks().saturating_add(seconds.saturating_mul(1000)) }
    }

    /// How long it is until then; none: it is over. After another start of the machine it is.
    fn left(&self) -> Option<Duration> {
        let left = self.ticks.checked_sub(ticks()).filter(|left| *left > 0)?;
        (self.boot == boot()).then_some(Duration::from_millis(left))
    }
}

/// Milliseconds since the machine was started, whatever is done to its clock.
fn ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

/// A name for the time since the machine was started.
fn boot() -> String {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use serde_json::json;

    use super::*;

    /// A change that nobody applies any more is taken back while the process runs, once, also when that
    /// can't be written down at first.
    #[test]
    fn what_can_not_be_kept_of_a_revert_is_all_that_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let setup = HostSetup { driver: HostDriver::Networkd, root: root.clone(), confirm: 60 };
        let network = Network::new(dir.path(), &setup);
        let settings = json!({
            "interface": "eth0", "hostname": "box", "mode": "dhcp", "addresses": [],
            "gateways": [], "mtu": null, "dns": [], "ntp": [],
        });
        let state = json!({
            "network": null, "application": null, "last": null, "boot": null,
            "pending": {
                "job": 7, "by": "admin", "by_dialect": false, "application": null, "moves": true,
                "network": { "settings": settings, "given": null, "set_at": Timestamp::now() },
                "steps": [], "boot": boot(), "until": null,
                "before": {
                    "driver": "none", "interface": "eth0", "name": null, "link": null,
                    "files": [{ "path": "name", "was": "absent" }],
                },
            },
        });
        let kept = dir.path().join("network/settings.json");
        fs::create_dir(dir.path().join("network")).unwrap();
        fs::write(&kept, state.to_string()).unwrap();
        let file = root.join("name");
        fs::write(&file, "new").unwrap();
        // Nothing can be written there.
        let way = kept.with_extension("new");
        fs::create_dir(&way).unwrap();
        network.look(&mut network.turn()).unwrap_err();
        assert!(!file.exists());
        // Somebody goes on with the machine as it is.
        fs::write(&file, "theirs").unwrap();
        network.look(&mut network.turn()).unwrap_err();
        fs::remove_dir(&way).unwrap();
        network.look(&mut network.turn()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        let status = network.status().unwrap();
        assert!(status.pending.is_none());
        assert_eq!(status.last.unwrap().outcome, ChangeOutcome::Failed);
    }
}
