//! How many connections there may be, and which gives way when there are more.
//!
//! When all places are taken, the connection that has no request and was without one the longest is
//! closed; one that never had a request goes before one that had. When all have requests, one whose
//! requests all wait for their client gives way: it sends no more of a body, or takes no more of an
//! answer, for the longest time. So thousands of silent or slow clients can't keep others out, and
//! nobody who is being served is cut off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a newcomer waits before it looks again for one that gives way.
const AGAIN: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Gate {
    max: AtomicUsize,
    began: Instant,
    next: AtomicU64,
    places: Mutex<BTreeMap<u64, Arc<Entry>>>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Entry {
    /// Requests that are being answered.
    busy: AtomicUsize,
    /// Those of them that wait for the client.
    awaited: AtomicUsize,
    served: AtomicBool,
    /// Milliseconds after the gate's beginning when it last had a request, or anything of one went
    /// on.
    last: AtomicU64,
    told: AtomicBool,
    go: Notify,
}

/// A connection's place; dropped, another may have it.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    id: u64,
    entry: Arc<Entry>,
}

/// Lives as long as a request is being answered.
#[derive(Debug)]
pub(super) struct Busy {
    gate: Arc<Gate>,
    entry: Arc<Entry>,
    awaited: AtomicBool,
}

impl Entry {
    /// Whether there is nothing to do but to wait for the client.
    fn waits(&self) -> bool {
        self.busy.load(Ordering::Acquire) == self.awaited.load(Ordering::Acquire)
    }
}

impl Gate {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: AtomicUsize::new(max.max(1)),
            began: Instant::now(),
            next: AtomicU64::new(0),
            places: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// How many places there are, from now on. Who has one keeps it.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max.max(1), Ordering::Relaxed);
    }

    pub(super) fn len(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_enter() {
                return place;
            }
            // A place that is freed between the two is seen after AGAIN at the latest.
            let _ = tokio::time::timeout(AGAIN, self.freed.notified()).await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() < self.max.load(Ordering::Relaxed) {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let entry = Arc::new(Entry::default());
            entry.last.store(self.now(), Ordering::Relaxed);
            places.insert(id, Arc::clone(&entry));
            return Some(Place { gate: Arc::clone(self), id, entry });
        }
        let idle = |entry: &&Arc<Entry>| entry.waits() && !entry.told.load(Ordering::Relaxed);
        let rank = |entry: &&Arc<Entry>| {
            let busy = entry.busy.load(Ordering::Acquire) > 0;
            (busy, entry.served.load(Ordering::Relaxed), entry.last.load(Ordering::Relaxed))
        };
        if let Some(entry) = places.values().filter(idle).min_by_key(rank) {
            entry.told.store(true, Ordering::Relaxed);
            entry.go.notify_one();
        }
        None
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Place {
    /// A request begins.
    pub(super) fn begin(&self) -> Busy {
        self.entry.busy.fetch_add(1, Ordering::AcqRel);
        self.entry.served.store(true, Ordering::Relaxed);
        let (gate, entry) = (Arc::clone(&self.gate), Arc::clone(&self.entry));
        Busy { gate, entry, awaited: AtomicBool::new(false) }
    }

    /// How long there was no request; none while there is one.
    pub(super) fn idle(&self) -> Option<Duration> {
        let last = self.entry.last.load(Ordering::Relaxed);
        let idle = self.entry.busy.load(Ordering::Acquire) == 0;
        idle.then(|| Duration::from_millis(self.gate.now().saturating_sub(last)))
    }

    /// How long all requests wait for the client; none while there is none, or one doesn't.
    pub(super) fn awaited(&self) -> Option<Duration> {
        let last = self.entry.last.load(Ordering::Relaxed);
        let waits = self.entry.waits() && self.entry.busy.load(Ordering::Acquire) > 0;
        waits.then(|| Duration::from_millis(self.gate.now().saturating_sub(last)))
    }

    /// Ends when the connection should give way.
    pub(super) async fn evicted(&self) {
        self.entry.go.notified().await;
    }

    /// Says that it does not give way, for it has something to do again.
    pub(super) fn stays(&self) {
        self.entry.told.store(false, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.gate.freed.notify_one();
    }
}

impl Busy {
    /// Whether the request waits for the client from now on: for more of its body, or until it has
    /// taken what there is of the answer.
    pub(super) fn awaits(&self, awaits: bool) {
        if self.awaited.swap(awaits, Ordering::AcqRel) == awaits {
            return;
        }
        self.entry.last.store(self.gate.now(), Ordering::Relaxed);
        match awaits {
            true => self.entry.awaited.fetch_add(1, Ordering::AcqRel),
            false => self.entry.awaited.fetch_sub(1, Ordering::AcqRel),
        };
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.awaits(false);
        self.entry.last.store(self.gate.now(), Ordering::Relaxed);
        self.entry.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_silent_give_way_and_the_served_do_not() {
        let gate = Arc::new(Gate::new(3));
        let (busy, served, silent) = (gate.enter().await, gate.enter().await, gate.enter().await);
        let _request = busy.begin();
        drop(served.begin());
        let newcomer = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter().await }
        });
        silent.evicted().await;
        drop(silent);
        let newcomer = newcomer.await.expect("it got a place");
        let _request = newcomer.begin();
        assert_eq!(gate.len(), 3);
        assert!(gate.try_enter().is_none());
        served.evicted().await;
        drop(served);
        let _third = gate.try_enter().expect("there is a place");
        assert!(gate.try_enter().is_none());
        assert!(!busy.entry.told.load(Ordering::Relaxed));
        gate.set_max(4);
        let _fourth = gate.try_enter().expect("there is one more place");
    }

    #[tokio::test]
    async fn those_who_let_the_server_wait_give_way_last() {
        let gate = Arc::new(Gate::new(2));
        let (working, slow) = (gate.enter().await, gate.enter().await);
        let (_first, second) = (working.begin(), slow.begin());
        assert!(gate.try_enter().is_none() && !slow.entry.told.load(Ordering::Relaxed));
        second.awaits(true);
        assert!(slow.awaited().is_some() && slow.idle().is_none());
        assert!(gate.try_enter().is_none());
        slow.evicted().await;
        // It went on at that moment.
        second.awaits(false);
        assert!(slow.awaited().is_none());
        slow.stays();
        second.awaits(true);
        assert!(gate.try_enter().is_none());
        slow.evicted().await;
        assert!(!working.entry.told.load(Ordering::Relaxed));
    }
}
