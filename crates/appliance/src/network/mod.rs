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
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

pub use self::document::{Document, Json, MAX_DEPTH, MAX_DOCUMENT};
use self::host::Host;
pub use self::host::{HostDriver, Part, Step, StepState};
pub use self::operations::{NetworkChange, NetworkStatus, PendingChange, network_was_taken_back};
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
    turn: Mutex<()>,
    /// Whether a change waits: asked at each call of the dialect.
    waits: AtomicBool,
    /// A change waits, or no longer does.
    news: Notify,
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
        };
        Self { inner: Arc::new(inner) }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
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
    /// the machine. To be called before anything listens.
    ///
    /// Gives why a change was taken back, if one was.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn settle(&self) -> Result<Option<&'static str>> {
        let _turn = self.turn();
        let mut state = self.inner.store.read()?;
        if let Some(pending) = &state.pending {
            let (outcome, why) = match &pending.until {
                None => (ChangeOutcome::Failed, "the process ended while it was being applied"),
                Some(until) if until.left().is_none() => (ChangeOutcome::Reverted, UNCONFIRMED),
                // It waits still; the machine is as it says.
                Some(_) => {
                    self.inner.waits.store(true, Ordering::Release);
                    return Ok(None);
                }
            };
            self.revert(&mut state, outcome, why)?;
            return Ok(Some(why));
        }
        let Some(set) = &state.network else { return Ok(None) };
        let same_boot = state.boot.as_deref() == Some(&*boot());
        if let Some(steps) = self.inner.host.at_start(&set.settings, same_boot) {
            for step in &steps {
                match step.is_failed() {
                    true => tracing::error!("the network's settings are not applied: {step}"),
                    false => tracing::info!("the network's settings are applied: {step}"),
                }
            }
            if !steps.iter().any(Step::is_failed) {
                state.boot = Some(boot());
                self.keep(&state)?;
            }
        }
        Ok(None)
    }

    /// Puts back what there was before a change.
    fn revert(&self, state: &mut State, outcome: ChangeOutcome, why: &str) -> Result<()> {
        let Some(pending) = state.pending.take() else { return Ok(()) };
        let old = state.network.as_ref().map(|set| &set.settings);
        let wrong = self.inner.host.restore(&pending.before, old);
        tracing::warn!("a change of the network is taken back: {why}");
        for step in &wrong {
            tracing::error!("what was there before is not back: {step}");
        }
        let steps = pending.steps.into_iter().chain(wrong).collect();
        let why = Some(why.to_owned());
        state.last =
            Some(LastChange { job: pending.job, outcome, at: Timestamp::now(), why, steps });
        self.keep(state)
    }

    /// Makes a change: begins it, and leaves it to be confirmed.
    pub(crate) fn begin(&self, job: i64, request: Request) -> Result<Begun> {
        let _turn = self.turn();
        let mut state = self.inner.store.read()?;
        if state.pending.is_some() {
            return Err(waiting());
        }
        let (host, now) = (&self.inner.host, Timestamp::now());
        let settings = request.settings.clone();
        let network = SetNetwork { settings: request.settings, given: request.given, set_at: now };
        let over =
            |outcome, why: Option<String>, steps| LastChange { job, outcome, at: now, why, steps };
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
        let old = state.network.as_ref().map(|set| &set.settings);
        let moves = moves(&settings, &before.addresses(), old);
        state.pending = Some(Pending {
            job,
            by: request.by,
            by_dialect: request.by_dialect,
            network,
            application: request.application,
            moves,
            before,
            steps: Vec::new(),
            until: None,
        });
        self.keep(&state)?;
        let steps = host.apply(&settings);
        let failed = steps.iter().any(Step::is_failed);
        if let Some(pending) = &mut state.pending {
            pending.steps.clone_from(&steps);
        }
        if failed {
            let why = "it could not be applied: what there was is back";
            self.revert(&mut state, ChangeOutcome::Failed, why)?;
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
            self.revert(&mut state, ChangeOutcome::Failed, why)?;
            return Err(error);
        }
        Ok(Begun::Waits(at, steps))
    }

    /// Keeps the change that waits, for who has reached the appliance at that address; none: through
    /// the control socket, or nobody knows.
    fn confirm(&self, at: Option<IpAddr>) -> Result<()> {
        let _turn = self.turn();
        let mut state = self.inner.store.read()?;
        let nothing = || Error::State("no change of the network waits to be confirmed".into());
        let Some(pending) = &state.pending else { return Err(nothing()) };
        let Some(until) = &pending.until else { return Err(nothing()) };
        if until.left().is_none() {
            return Err(Error::State("the time to confirm the change is over".into()));
        }
        if let Some(elsewhere) = self.elsewhere(pending, at) {
            return Err(elsewhere);
        }
        let Some(pending) = state.pending.take() else { return Err(nothing()) };
        let (outcome, at) = (ChangeOutcome::Applied, Timestamp::now());
        let Pending { job, steps, network, application, .. } = pending;
        state.network = Some(network);
        state.application = application.or(state.application);
        state.last = Some(LastChange { job, outcome, at, why: None, steps });
        state.boot = Some(boot());
        self.keep(&state)
    }

    /// Why who came there can't confirm the change.
    fn elsewhere(&self, pending: &Pending, at: Option<IpAddr>) -> Option<Error> {
        if !pending.moves {
            return None;
        }
        let settings = &pending.network.settings;
        let there = match settings.mode {
            Mode::Static => settings.addresses.iter().map(|one| one.address).collect(),
            Mode::Dhcp => self.inner.host.addresses(&settings.interface),
        };
        let at = at.map(|at| at.to_canonical());
        if at.is_some_and(|at| there.contains(&at)) {
            return None;
        }
        let there: Vec<_> = there.iter().map(ToString::to_string).collect();
        let came = at.map_or("through the control socket".to_owned(), |at| format!("to {at}"));
        Some(Error::State(format!(
            "the change is confirmed at the new address, {}: this came {came}",
            there.join(" or ")
        )))
    }

    /// Waits until a change was taken back because nobody confirmed it in time.
    async fn taken_back(&self) {
        loop {
            let network = self.clone();
            let wait = match crate::administration::blocking(move || network.look()).await {
                Ok(Looked::Idle) => IDLE,
                Ok(Looked::Waits(left)) => left.min(LOOK),
                Ok(Looked::TakenBack) => return,
                Err(error) => {
                    tracing::error!("the network's settings can't be read: {error}");
                    IDLE
                }
            };
            let _ = tokio::time::timeout(wait, self.inner.news.notified()).await;
        }
    }

    /// Takes a change back whose time is over.
    fn look(&self) -> Result<Looked> {
        let _turn = self.turn();
        let mut state = self.inner.store.read()?;
        let Some(until) = state.pending.as_ref().and_then(|pending| pending.until.as_ref()) else {
            return Ok(Looked::Idle);
        };
        if let Some(left) = until.left() {
            return Ok(Looked::Waits(left));
        }
        self.revert(&mut state, ChangeOutcome::Reverted, UNCONFIRMED)?;
        Ok(Looked::TakenBack)
    }
}

/// What there was to be seen.
enum Looked {
    /// No change waits.
    Idle,
    /// One does, for so long.
    Waits(Duration),
    /// One did.
    TakenBack,
}

/// Why a change was taken back.
const UNCONFIRMED: &str = "nobody confirmed it in time";

fn waiting() -> Error {
    let text =
        "a change of the network waits to be confirmed: confirm it, or wait until it is taken back";
    Error::State(text.into())
}

/// Whether the appliance is elsewhere after a change.
fn moves(new: &NetworkSettings, had: &[IpAddr], old: Option<&NetworkSettings>) -> bool {
    match new.mode {
        Mode::Static => !new.addresses.iter().all(|one| had.contains(&one.address)),
        // The same server gives the same address.
        Mode::Dhcp => {
            let is_same = |old: &NetworkSettings| {
                old.mode == Mode::Dhcp && old.interface == new.interface && !had.is_empty()
            };
            !old.is_some_and(is_same)
        }
    }
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
