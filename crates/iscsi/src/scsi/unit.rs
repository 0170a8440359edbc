//! A logical unit: a block device as SCSI sees it, and what it keeps of those who use it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use strongroom_block::{BlockDevice, Geometry};

use super::inquiry::Identity;
use super::mode::Mode;
use super::nexus::Nexus;
use super::opcodes::Ability;
use super::operation::{Operation, Range};
use super::reservations::{Effects, Reservations};
use super::sense::Attention;
use super::steps::{Stepping, Steps};
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
    is_ejected: AtomicBool,
    nexuses: Mutex<Vec<Weak<Nexus>>>,
    size: AtomicU64,
    running: Mutex<Running>,
    idle: Condvar,
    steps: Steps,
    pace: AtomicU64,
}

/// Commands that use a device.
#[derive(Debug, Default)]
struct Running {
    count: usize,
    /// Those who wait until there are none; meanwhile no other begins, or there might always be one.
    waiting: usize,
}

/// What all who use a unit share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) reservations: Reservations,
    /// Who holds it by RESERVE (6).
    pub(super) reserved: Option<u64>,
    /// Who prevents that the medium is taken out.
    pub(super) prevented: BTreeSet<u64>,
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
            is_ejected: AtomicBool::new(false),
            shared: Mutex::new(Shared { reservations, ..Shared::default() }),
            nexuses: Mutex::default(),
            size: AtomicU64::new(size),
            running: Mutex::default(),
            idle: Condvar::new(),
            steps: Steps::default(),
            pace: AtomicU64::new(0),
        })
    }

    /// What it is made of.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// Whether its device can do that.
    pub(super) fn can(&self, what: Ability, geometry: &Geometry) -> bool {
        match what {
            Ability::Thin => geometry.thin,
            Ability::Atomic => self.device.most_atomic() > 0,
        }
    }

    /// Enters a command that works on blocks in several steps, if it does: so many bytes are one. No atomic
    /// write of any of them comes between, until what this returns is dropped. It may wait, so that it must
    /// not be called by one that has entered already, or uses the device.
    pub fn in_steps(
        &self,
        range: Range,
        step: u64,
        is_aborted: impl Fn() -> bool,
    ) -> Option<Stepping<'_>> {
        let is_needed = range.length > step && self.device.most_atomic() > 0;
        is_needed.then(|| self.steps.enter(range, false, is_aborted))
    }

    /// Enters what an operation does to the device, if that is an atomic write or takes several steps.
    pub(super) fn enter(
        &self,
        operation: &Operation,
        is_aborted: impl Fn() -> bool,
    ) -> Option<Stepping<'_>> {
        let most_atomic = self.device.most_atomic().into();
        match operation {
            Operation::WriteAtomic { range, .. } => {
                Some(self.steps.enter(*range, true, is_aborted))
            }
            Operation::Write { range, verify: None, .. } | Operation::WriteSame { range, .. } => {
                self.in_steps(*range, most_atomic, is_aborted)
            }
            Operation::Write { range, .. } | Operation::Verify { range, .. } => {
                self.in_steps(*range, 0, is_aborted)
            }
            // Which blocks is known once its list is read.
            Operation::Copy { .. } => {
                let length = self.device.geometry().size;
                self.in_steps(Range { offset: 0, length }, 0, is_aborted)
            }
            _ => None,
        }
    }

    /// Has those who wait to work on blocks look whether they were aborted.
    pub(super) fn wake(&self) {
        self.steps.wake();
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

    pub(super) fn is_ejected(&self) -> bool {
        self.is_ejected.load(Ordering::Acquire)
    }

    /// Takes the medium out, or puts it in again; whether that is another state than before.
    pub(super) fn eject(&self, is_ejected: bool) -> bool {
        self.is_ejected.swap(is_ejected, Ordering::AcqRel) != is_ejected
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
        shared.prevented.remove(&id);
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
        self.nexuses().iter().for_each(|nexus| nexus.abort_all());
        self.wait_until_idle();
        {
            let mut shared = locked(&self.shared);
            shared.reserved = None;
            shared.prevented.clear();
            shared.mode = Mode::default();
            self.note_reserved(&shared);
        }
        self.attend(Attention::BusDeviceReset, None);
    }

    /// Nobody who came by that target uses it from now on.
    pub(crate) fn withdraw(&self, target: &str) {
        for nexus in self.nexuses().iter().filter(|one| one.target() == target) {
            nexus.withdraw();
        }
        self.wait_until_idle();
    }

    /// Waits until no command uses the device.
    fn wait_until_idle(&self) {
        let mut running = locked(&self.running);
        running.waiting += 1;
        let waited = self.idle.wait_while(running, |running| running.count > 0);
        running = waited.unwrap_or_else(PoisonError::into_inner);
        running.waiting -= 1;
        drop(running);
        self.idle.notify_all();
    }

    pub(super) fn begin_use(&self) -> InUse<'_> {
        let mut running = locked(&self.running);
        if running.waiting > 0 {
            let waited = self.idle.wait_while(running, |running| running.waiting > 0);
            running = waited.unwrap_or_else(PoisonError::into_inner);
        }
        running.count += 1;
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
        running.count = running.count.saturating_sub(1);
        let is_awaited = running.count == 0 && running.waiting > 0;
        drop(running);
        if is_awaited {
            self.0.idle.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::scsi::{Denied, PortName, Sense};
    use strongroom_block::testing::MemoryDevice;

    fn unit() -> Arc<LogicalUnit> {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        Arc::new(LogicalUnit::new(device, Identity::default(), None).unwrap())
    }

    fn join(unit: &Arc<LogicalUnit>, target: &str) -> Arc<Nexus> {
        let names = PortName { target: target.to_owned(), port: String::new() };
        Nexus::join(unit, target.as_bytes().to_vec(), names)
    }

    #[test]
    fn a_reset_comes_through_while_others_keep_the_unit_busy() {
        let (unit, is_done) = (unit(), Arc::new(AtomicBool::new(false)));
        let others: Vec<_> = (0..4)
            .map(|_| {
                let (nexus, is_done) = (join(&unit, "t"), Arc::clone(&is_done));
                std::thread::spawn(move || {
                    while !is_done.load(Ordering::Acquire) {
                        nexus.read(0, &mut [0; 65536]).unwrap();
                    }
                })
            })
            .collect();
        let nexus = join(&unit, "t");
        for _ in 0..100 {
            let before = nexus.epoch();
            unit.reset();
            assert_ne!(nexus.epoch(), before);
        }
        is_done.store(true, Ordering::Release);
        others.into_iter().for_each(|other| other.join().unwrap());
    }

    #[test]
    fn who_came_by_a_target_that_lost_the_unit_uses_it_no_more() {
        let unit = unit();
        let (here, there) = (join(&unit, "here"), join(&unit, "there"));
        unit.withdraw("here");
        assert_eq!(here.read(0, &mut [0; 512]), Err(Sense::NO_UNIT));
        assert_eq!(there.read(0, &mut [0; 512]), Ok(()));
    }

    #[test]
    fn what_one_reserves_is_free_when_it_goes() {
        let unit = unit();
        let (first, second) = (join(&unit, "a"), join(&unit, "b"));
        let mut reserve = [0; 16];
        reserve[0] = 0x16;
        first.begin(&reserve, Vec::new).unwrap();
        assert_eq!(second.begin(&[0; 16], Vec::new).err(), Some(Denied::Conflict));
        drop(first);
        assert!(second.begin(&[0; 16], Vec::new).is_ok());
    }
}
