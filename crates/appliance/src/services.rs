//! What this process serves: each server enters itself while it listens, so that what is told is
//! what runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// A server of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it speaks.
    pub name: &'static str,
    /// Where it listens; None: the system doesn't say.
    pub address: Option<String>,
    /// Whether it still does.
    pub listening: bool,
    /// Since when it does, or doesn't.
    pub since: Timestamp,
}

/// The servers of this process. Cheap to clone; all clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Services {
    all: Arc<Mutex<Vec<Service>>>,
}

/// A server that listens, until this is dropped.
#[derive(Debug)]
pub struct Listening {
    services: Services,
    place: usize,
}

impl Services {
    /// Enters a server that listens.
    #[must_use]
    pub fn enter(&self, name: &'static str, address: Option<String>) -> Listening {
        let mut all = self.lock();
        let service = Service { name, address, listening: true, since: Timestamp::now() };
        // One that comes back is no other: the list grows no longer by it.
        let is_back = |old: &Service| {
            !old.listening && old.name == service.name && old.address == service.address
        };
        let place = all.iter().position(is_back).unwrap_or(all.len());
        match all.get_mut(place) {
            Some(old) => *old = service,
            None => all.push(service),
        }
        Listening { services: self.clone(), place }
    }

    /// All of them, in the order in which they began.
    pub fn list(&self) -> Vec<Service> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Service>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(service) = self.services.lock().get_mut(self.place) {
            service.listening = false;
            service.since = Timestamp::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_no_longer_listens_is_told_as_such() {
        let services = Services::default();
        let first = services.enter("https", Some("127.0.0.1:1".into()));
        let _second = services.clone().enter("control", None);
        drop(first);
        let told =
            || -> Vec<_> { services.list().iter().map(|one| (one.name, one.listening)).collect() };
        assert_eq!(told(), [("https", false), ("control", true)]);
        let _again = services.enter("https", Some("127.0.0.1:1".into()));
        assert_eq!(told(), [("https", true), ("control", true)]);
    }
}
