//! Targets: a name, logical units, who may log in, and the sessions that are there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use crate::auth::AuthGroup;
use crate::connection::link::Link;
use crate::connection::tell_of_attention;
use crate::login::Refusal;
use crate::pdu::Lun;
use crate::scsi::{Attention, LogicalUnit, PortName};
use crate::{Error, Result, name};

/// How long a login waits for the session that it takes the place of. It is refused then, and not let in
/// beside commands that still run.
const PATIENCE: Duration = Duration::from_secs(30);

/// A target. All of it may be changed while it is in use: sessions that are there stay.
#[derive(Debug)]
pub struct Target {
    name: String,
    alias: RwLock<Option<String>>,
    units: RwLock<BTreeMap<u16, Arc<LogicalUnit>>>,
    /// Counts changes of `units`.
    generation: AtomicU64,
    auth: RwLock<Arc<AuthGroup>>,
    sessions: Mutex<Sessions>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Sessions {
    present: BTreeMap<u16, Arc<Session>>,
    last: u16,
    is_closed: bool,
    is_suspended: bool,
}

/// A session that is there.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) handle: u16,
    pub(crate) initiator: String,
    pub(crate) isid: [u8; 6],
    pub(crate) link: Link,
    pub(crate) since: SystemTime,
}

impl Session {
    /// The TransportID of the initiator port (SPC-4 7.6.4.6): the initiator's name and its ISID.
    pub(crate) fn port(&self) -> Vec<u8> {
        let isid = data_encoding::HEXLOWER.encode(&self.isid);
        let mut name = format!("{},i,0x{isid}", self.initiator).into_bytes();
        // Ended by a zero, and filled up to a word.
        name.resize((name.len() / 4 + 1) * 4, 0);
        let mut port = vec![0x45, 0];
        port.extend_from_slice(&u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
        port.extend(name);
        port
    }
}

/// What is told of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The target's part of its identity (TSIH).
    pub handle: u16,
    /// The initiator's name.
    pub initiator: String,
    /// Where the initiator is.
    pub address: Option<std::net::SocketAddr>,
    /// When it logged in.
    pub since: SystemTime,
}

fn locked(sessions: &Mutex<Sessions>) -> MutexGuard<'_, Sessions> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// Without units; everybody may log in.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn new(name: &str) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            name: name::normal(name)?,
            alias: RwLock::default(),
            units: RwLock::default(),
            generation: AtomicU64::new(1),
            auth: RwLock::default(),
            sessions: Mutex::default(),
            ended: Condvar::new(),
        }))
    }

    /// Its name, in the normal form.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that users give it; initiators are told.
    pub fn set_alias(&self, alias: Option<&str>) {
        let alias = alias.map(|alias| alias.chars().filter(|c| *c != '\0').take(255).collect());
        *self.alias.write().unwrap_or_else(PoisonError::into_inner) = alias;
    }

    pub(crate) fn alias(&self) -> Option<String> {
        self.alias.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who may log in, from now on.
    pub fn set_auth(&self, auth: AuthGroup) {
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(auth);
    }

    pub(crate) fn auth(&self) -> Arc<AuthGroup> {
        Arc::clone(&self.auth.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Maps a unit. Initiators are told that the map changed.
    ///
    /// # Errors
    /// [`Error::Lun`], [`Error::LunInUse`].
    pub fn map(&self, number: u16, unit: Arc<LogicalUnit>) -> Result<()> {
        let lun = Lun::new(number).ok_or(Error::Lun)?;
        let mut units = self.units.write().unwrap_or_else(PoisonError::into_inner);
        if units.contains_key(&lun.number()) {
            return Err(Error::LunInUse(number, self.name.clone()));
        }
        units.insert(lun.number(), unit);
        self.changed(units.values());
        Ok(())
    }

    /// Takes a unit out of the map; whether there was one. When it returns, nothing of this target's
    /// initiators uses the device any more, and tasks that were on the way have ended without an answer.
    pub fn unmap(&self, number: u16) -> bool {
        let removed = {
            let mut units = self.units.write().unwrap_or_else(PoisonError::into_inner);
            let removed = units.remove(&number);
            self.changed(units.values());
            removed
        };
        if let Some(unit) = &removed {
            unit.withdraw(&self.name);
        }
        removed.is_some()
    }

    fn changed<'a>(&self, units: impl Iterator<Item = &'a Arc<LogicalUnit>>) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        units.for_each(|unit| unit.attend(Attention::ReportedLunsChanged, None));
    }

    /// The numbers of its units.
    pub fn luns(&self) -> Vec<u16> {
        self.units.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The unit of that number.
    pub fn unit(&self, number: u16) -> Option<Arc<LogicalUnit>> {
        self.units.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The names by which units are known on this target: that of its one portal group is the port's.
    pub(crate) fn port_name(&self) -> PortName {
        PortName { target: self.name.clone(), port: format!("{},t,0x0001", self.name) }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn all_units(&self) -> Vec<(u16, Arc<LogicalUnit>)> {
        let units = self.units.read().unwrap_or_else(PoisonError::into_inner);
        units.iter().map(|(number, unit)| (*number, Arc::clone(unit))).collect()
    }

    /// Looks at the sizes of its devices; initiators hear at once of those that changed, by an asynchronous
    /// message (RFC 7143 section 11.9), and else with their next command.
    pub fn look_at_sizes(&self) {
        for (number, unit) in self.all_units() {
            if unit.look_at_size() {
                let lun = Lun::new(number);
                for session in self.present() {
                    tell_of_attention(&session.link, lun, Attention::CapacityChanged);
                }
            }
        }
    }

    /// The sessions that are there.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let tell = |session: &Arc<Session>| SessionInfo {
            handle: session.handle,
            initiator: session.initiator.clone(),
            address: session.link.stream.peer_addr().ok(),
            since: session.since,
        };
        self.present().iter().map(tell).collect()
    }

    fn present(&self) -> Vec<Arc<Session>> {
        locked(&self.sessions).present.values().cloned().collect()
    }

    /// Ends all sessions, and waits until they have ended.
    pub fn close_sessions(&self) {
        let mut sessions = locked(&self.sessions);
        sessions.present.values().for_each(|session| session.link.close());
        let waited = self.ended.wait_while(sessions, |sessions| !sessions.present.is_empty());
        sessions = waited.unwrap_or_else(PoisonError::into_inner);
        drop(sessions);
    }

    /// Ends them, without waiting; and lets no more in when it is closed.
    pub(crate) fn disconnect(&self, is_closed: bool) {
        let mut sessions = locked(&self.sessions);
        sessions.is_closed |= is_closed;
        sessions.present.values().for_each(|session| session.link.close());
    }

    /// Lets nobody in while it is suspended: initiators are told to come later, which they do, and
    /// not that there is no such target, at which they give up. Sessions that are there stay.
    pub fn suspend(&self, is_suspended: bool) {
        locked(&self.sessions).is_suspended = is_suspended;
    }

    pub(crate) fn reopen(&self) {
        locked(&self.sessions).is_closed = false;
    }

    /// TARGET WARM RESET: each unit is reset.
    pub(crate) fn reset(&self) {
        self.all_units().iter().for_each(|(_, unit)| unit.reset());
    }

    /// Lets a session in. One of the same initiator port that is still there ends before (RFC 7143 section
    /// 6.3.5).
    pub(crate) fn enter(
        &self,
        initiator: String,
        isid: [u8; 6],
        link: Link,
    ) -> Result<Arc<Session>, Refusal> {
        let is_same = |one: &Session| one.initiator == initiator && one.isid == isid;
        let mut sessions = locked(&self.sessions);
        let old: Vec<_> = sessions.present.values().filter(|one| is_same(one)).cloned().collect();
        old.iter().for_each(|old| old.link.close());
        let waited = self.ended.wait_timeout_while(sessions, PATIENCE, |sessions| {
            sessions.present.values().any(|one| is_same(one))
        });
        let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        sessions = guard;
        if timeout.timed_out() || sessions.is_closed || sessions.is_suspended {
            return Err(Refusal::ServiceUnavailable);
        }
        let handles = (1..=u16::MAX).map(|add| sessions.last.wrapping_add(add));
        let mut free = handles.filter(|one| *one != 0 && !sessions.present.contains_key(one));
        let handle = free.next().ok_or(Refusal::OutOfResources)?;
        sessions.last = handle;
        let since = SystemTime::now();
        let session = Arc::new(Session { handle, initiator, isid, link, since });
        sessions.present.insert(handle, Arc::clone(&session));
        Ok(session)
    }

    /// A session has ended.
    pub(crate) fn leave(&self, handle: u16) {
        locked(&self.sessions).present.remove(&handle);
        self.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::scsi::Identity;
    use strongroom_block::testing::MemoryDevice;

    #[test]
    fn units_are_mapped_once() {
        let target = Target::new("iqn.2026-11.org.example:T").unwrap();
        assert_eq!(target.name(), "iqn.2026-11.org.example:t");
        let device = Arc::new(MemoryDevice::new(1 << 20));
        let unit = Arc::new(LogicalUnit::new(device, Identity::default(), None).unwrap());
        target.map(3, Arc::clone(&unit)).unwrap();
        assert!(matches!(target.map(3, Arc::clone(&unit)), Err(Error::LunInUse(3, _))));
        assert!(matches!(target.map(20_000, unit), Err(Error::Lun)));
        assert_eq!(target.luns(), [3]);
        assert!(target.unmap(3) && !target.unmap(3));
    }
}
