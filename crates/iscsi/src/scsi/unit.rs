//! A logical unit: a block device as SCSI sees it, and what it keeps of those who use it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use strongroom_block::{BlockDevice, Geometry};

use super::inquiry::Identity;
use super::mode::Mode;
use super::nexus::Nexus;
use super::reservations::{Effects, Reservations};
use super::sense::Attention;
use crate::{Error, Result};

/// Where a unit's persistent reservations outlast a restart.
///
/// Without one a unit says that it can't keep any (PTPL_C of REPORT CAPABILITIES).
pub trait ReservationStore: std::fmt::Debug + Send + Sync {
    /// What [`ReservationStore::keep`] was last given.
    ///
    /// # Errors
    /// When it can't be read; then the unit isn't served, for nobody knows who may write to it.
    fn load(&self) -> std::io::Result<Option<Vec<u8>>>;

    /// Keeps this in place of what was kept, or nothing; durable when the call returns.
    ///
    /// # Errors
    /// When it isn't; the initiator is told, and what it asked for isn't done.
    fn keep(&self, reservations: Option<&[u8]>) -> std::io::Result<()>;
}

/// A device that initiators use.
#[derive(Debug)]
pub struct LogicalUnit {
    device: Arc<dyn BlockDevice>,
    identity: Identity,
    store: Option<Arc<dyn ReservationStore>>,
    pub(super) shared: Mutex<Shared>,
    /// Something is reserved: a quick look, before `shared` is asked.
    is_reserved: AtomicBool,
    is_stopped: AtomicBool,
    nexuses: Mutex<Vec<Weak<Nexus>>>,
    size: AtomicU64,
    running: Mutex<usize>,
    idle: Condvar,
    pace: AtomicU64,
}

/// What all who use a unit share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) reservations: Reservations,
    /// Who holds it by RESERVE (6).
    pub(super) reserved: Option<u64>,
    pub(super) mode: Mode,
    last_nexus: u64,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogicalUnit {
    /// Of a device; with a store its persistent reservations outlast it.
    ///
    /// # Errors
    /// [`Error::Reservations`], when those that were kept can't be read.
    pub fn new(
        device: Arc<dyn BlockDevice>,
        identity: Identity,
        store: Option<Arc<dyn ReservationStore>>,
    ) -> Result<Self> {
        let kept = match &store {
            Some(store) => store.load().map_err(|error| Error::Reservations(error.to_string()))?,
            None => None,
        };
        let reservations = match kept {
            Some(kept) => Reservations::take_up(&kept)
                .ok_or_else(|| Error::Reservations("they are damaged".to_owned()))?,
            None => Reservations::default(),
        };
        let size = device.geometry().size;
        Ok(Self {
            device,
            identity,
            store,
            is_reserved: AtomicBool::new(reservations.is_reserved()),
            is_stopped: AtomicBool::new(false),
            shared: Mutex::new(Shared { reservations, ..Shared::default() }),
            nexuses: Mutex::default(),
            size: AtomicU64::new(size),
            running: Mutex::new(0),
            idle: Condvar::new(),
            pace: AtomicU64::new(0),
        })
    }

    /// What it is made of.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn store(&self) -> Option<&Arc<dyn ReservationStore>> {
        self.store.as_ref()
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.is_reserved.load(Ordering::Acquire)
    }

    /// Has the quick look follow what is reserved; called with `shared` held.
    pub(super) fn note_reserved(&self, shared: &Shared) {
        let is_reserved = shared.reserved.is_some() || shared.reservations.is_reserved();
        self.is_reserved.store(is_reserved, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self, is_stopped: bool) {
        self.is_stopped.store(is_stopped, Ordering::Release);
    }

    /// Its geometry now; all hear of it when its size is another than before.
    pub(super) fn geometry(&self) -> Geometry {
        let geometry = self.device.geometry();
        if self.size.swap(geometry.size, Ordering::AcqRel) != geometry.size {
            self.attend(Attention::CapacityChanged, None);
        }
        geometry
    }

    /// Looks whether the device's size changed, and if so has all initiators hear of it with their next
    /// command; whether it did.
    pub fn look_at_size(&self) -> bool {
        let before = self.size.load(Ordering::Acquire);
        self.geometry().size != before
    }

    pub(super) fn join(&self, nexus: impl FnOnce(u64) -> Nexus) -> Arc<Nexus> {
        let id = {
            let mut shared = locked(&self.shared);
            shared.last_nexus += 1;
            shared.last_nexus
        };
        let nexus = Arc::new(nexus(id));
        let mut nexuses = locked(&self.nexuses);
        nexuses.retain(|one| one.strong_count() > 0);
        nexuses.push(Arc::downgrade(&nexus));
        nexus
    }

    /// Nobody is there any more by that number.
    pub(super) fn leave(&self, id: u64) {
        let mut shared = locked(&self.shared);
        if shared.reserved == Some(id) {
            shared.reserved = None;
            self.note_reserved(&shared);
        }
    }

    pub(super) fn nexuses(&self) -> Vec<Arc<Nexus>> {
        locked(&self.nexuses).iter().filter_map(Weak::upgrade).collect()
    }

    /// Has all hear of it, but perhaps one.
    pub fn attend(&self, what: Attention, but: Option<u64>) {
        for nexus in self.nexuses().iter().filter(|one| Some(one.id()) != but) {
            nexus.attend(what);
        }
    }

    pub(super) fn take_effect(&self, effects: &Effects, but: u64) {
        for nexus in self.nexuses().iter().filter(|one| one.id() != but) {
            for (_, what) in effects.told.iter().filter(|(port, _)| port == nexus.port()) {
                nexus.attend(*what);
            }
            if effects.aborted.iter().any(|port| port == nexus.port()) {
                nexus.abort_all();
            }
        }
        if !effects.aborted.is_empty() {
            self.wait_until_idle();
        }
    }

    /// LOGICAL UNIT RESET (SAM-5 6.3.3): all tasks end, RESERVE (6) and changed modes too; persistent
    /// reservations stay. It returns when nothing is running any more.
    pub fn reset(&self) {
        for nexus in self.nexuses() {
            nexus.abort_all();
        }
        self.wait_until_idle();
        {
            let mut shared = locked(&self.shared);
            shared.reserved = None;
            shared.mode = Mode::default();
            self.note_reserved(&shared);
        }
        self.stop(false);
        self.attend(Attention::BusDeviceReset, None);
    }

    /// Waits until no command uses the device.
    fn wait_until_idle(&self) {
        let running = locked(&self.running);
        let waited = self.idle.wait_while(running, |running| *running > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn begin_use(&self) -> InUse<'_> {
        *locked(&self.running) += 1;
        InUse(self)
    }

    /// How long its device takes for a command, beyond copying its bytes: nanoseconds, on the average of
    /// the last.
    pub(crate) fn pace(&self) -> u64 {
        self.pace.load(Ordering::Relaxed)
    }

    pub(crate) fn note_pace(&self, took: std::time::Duration, bytes: usize) {
        // Two bytes a nanosecond are what copying takes.
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let took = took.saturating_sub(bytes as u64 / 2);
        let before = self.pace.load(Ordering::Relaxed);
        self.pace.store(before - before / 8 + took / 8, Ordering::Relaxed);
    }
}

/// A command uses the device for as long as this is there.
#[derive(Debug)]
pub(super) struct InUse<'a>(&'a LogicalUnit);

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut running = locked(&self.0.running);
        *running = running.saturating_sub(1);
        drop(running);
        self.0.idle.notify_all();
    }
}
