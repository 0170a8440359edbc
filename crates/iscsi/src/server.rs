//! A server of targets: portals that listen, and the connections that came in by them.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use crate::auth::AuthGroup;
use crate::connection::{self, Place};
use crate::doorkeeper::Doorkeeper;
use crate::login::Directory;
use crate::memory::{Held, Memory, OF_THREAD, Share};
use crate::target::Target;
use crate::workers::Workers;
use crate::{Error, Result};

/// What a server takes on at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; each has a thread.
    pub connections: usize,
    /// Threads for commands that would keep a connection waiting.
    pub workers: usize,
    /// Bytes of memory that all connections have together, however many initiators there are and whatever
    /// they send: 1.6 MB for each worker and each connection, and the data of commands that are not done yet.
    ///
    /// Nobody holds more data than is left for all others. A command whose data find no room is answered TASK
    /// SET FULL, or BUSY when its session has no other (SAM-5 5.3.1), upon which initiators send it again; what
    /// has come already and finds none to wait in for a worker keeps its connection waiting; and a connection
    /// is ended at once when not even the 1.6 MB are left. Beside it come what the devices use, and the names of
    /// targets while they are told (4 MiB at most for each that asks).
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, workers: 32, memory: 512 << 20 }
    }
}

/// Serves targets at any number of addresses until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    hall: Arc<Hall>,
    portals: Mutex<Vec<Portal>>,
}

#[derive(Debug)]
struct Portal {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    thread: JoinHandle<()>,
}

/// What all connections share.
pub(crate) struct Hall {
    targets: RwLock<BTreeMap<String, Arc<Target>>>,
    discovery: RwLock<Arc<AuthGroup>>,
    doorkeeper: RwLock<Option<Arc<dyn Doorkeeper>>>,
    pub(crate) workers: Workers,
    pub(crate) memory: Arc<Memory>,
    limits: Limits,
    present: Mutex<Present>,
    left: Condvar,
}

impl std::fmt::Debug for Hall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hall").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Present {
    streams: BTreeMap<u64, TcpStream>,
    last: u64,
    is_stopped: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// One that listens nowhere yet.
    pub fn new(limits: Limits) -> Self {
        let hall = Arc::new(Hall {
            targets: RwLock::default(),
            discovery: RwLock::default(),
            doorkeeper: RwLock::default(),
            workers: Workers::new(limits.workers),
            memory: Memory::new(
                limits.memory.saturating_sub(limits.workers.saturating_mul(OF_THREAD)),
            ),
            limits,
            present: Mutex::default(),
            left: Condvar::new(),
        });
        Self { hall, portals: Mutex::default() }
    }

    /// Serves a target.
    ///
    /// # Errors
    /// [`Error::TargetInUse`].
    pub fn add(&self, target: Arc<Target>) -> Result<()> {
        let mut targets = self.hall.targets.write().unwrap_or_else(PoisonError::into_inner);
        if targets.contains_key(target.name()) {
            return Err(Error::TargetInUse(target.name().to_owned()));
        }
        target.reopen();
        targets.insert(target.name().to_owned(), target);
        Ok(())
    }

    /// Serves it no more, and ends its sessions; whether there was one of that name.
    pub fn remove(&self, name: &str) -> bool {
        let removed = {
            let mut targets = self.hall.targets.write().unwrap_or_else(PoisonError::into_inner);
            targets.remove(name)
        };
        if let Some(target) = &removed {
            target.disconnect(true);
            target.close_sessions();
        }
        removed.is_some()
    }

    /// The target of that name.
    pub fn target(&self, name: &str) -> Option<Arc<Target>> {
        self.hall.targets.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All targets, by name.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.hall.targets()
    }

    /// Who may ask for the names of targets, from now on. Each is told only of those that it may log in to.
    pub fn set_discovery(&self, auth: AuthGroup) {
        *self.hall.discovery.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(auth);
    }

    /// Who hears of proofs, from now on.
    pub fn set_doorkeeper(&self, doorkeeper: Arc<dyn Doorkeeper>) {
        let mut kept = self.hall.doorkeeper.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(doorkeeper);
    }

    /// Listens at an address as well; where, when the port was left to the system.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn listen(&self, address: SocketAddr) -> Result<SocketAddr> {
        let failed = |source| Error::Listen { address, source };
        let listener = Arc::new(TcpListener::bind(address).map_err(failed)?);
        let bound = listener.local_addr().map_err(failed)?;
        let (hall, accepting) = (Arc::clone(&self.hall), Arc::clone(&listener));
        let thread = std::thread::Builder::new()
            .name("iscsi portal".to_owned())
            .spawn(move || accept(&hall, &accepting))
            .map_err(failed)?;
        locked(&self.portals).push(Portal { address: bound, listener, thread });
        Ok(bound)
    }

    /// Listens at that address no more; connections that came in by it stay. Whether it did.
    pub fn close(&self, address: SocketAddr) -> bool {
        let mut portals = locked(&self.portals);
        let found = portals.iter().position(|portal| portal.address == address);
        let portal = found.map(|found| portals.swap_remove(found));
        drop(portals);
        portal.map(Portal::close).is_some()
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        locked(&self.portals).iter().map(|portal| portal.address).collect()
    }

    /// Listens nowhere any more, ends all connections, and returns when nothing uses a device. Commands
    /// that run are done before; what was written is not made durable by it.
    pub fn stop(&self) {
        let portals = std::mem::take(&mut *locked(&self.portals));
        portals.into_iter().for_each(Portal::close);
        let mut present = locked(&self.hall.present);
        present.is_stopped = true;
        for stream in present.streams.values() {
            // An error means that it has ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let gone = self.hall.left.wait_while(present, |present| !present.streams.is_empty());
        locked_again(gone).is_stopped = false;
    }
}

fn locked_again<T>(result: std::sync::LockResult<MutexGuard<'_, T>>) -> MutexGuard<'_, T> {
    result.unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Portal {
    fn close(self) {
        // It wakes the thread that waits for connections. An error means that it waits no more.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.thread.join();
    }
}

fn accept(hall: &Arc<Hall>, listener: &TcpListener) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                // It was closed.
                Some(rustix::io::Errno::INVAL) => return,
                Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    tracing::warn!("no connection can be taken: too many files are open");
                    hall.wait_for_leave();
                    continue;
                }
                _ => continue,
            },
        };
        let Some((number, held)) = hall.enter(&stream) else {
            tracing::warn!(
                "a connection was refused: there are as many as may be, or as memory allows"
            );
            continue;
        };
        let inside = Arc::clone(hall);
        let thread = std::thread::Builder::new().name("iscsi".to_owned());
        let spawned = thread.spawn(move || {
            let _place = Leave { hall: &inside, number, _held: held };
            connection::serve(&inside, stream);
        });
        if spawned.is_err() {
            tracing::warn!("a connection was refused: there is no thread for it");
            hall.leave(number);
        }
    }
}

/// Tells that a connection is gone, however it ended, and gives its memory back.
struct Leave<'a> {
    hall: &'a Hall,
    number: u64,
    _held: Held,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.hall.leave(self.number);
    }
}

impl Hall {
    fn enter(&self, stream: &TcpStream) -> Option<(u64, Held)> {
        let mut present = locked(&self.present);
        if present.is_stopped || present.streams.len() >= self.limits.connections {
            return None;
        }
        let held = Share::of(&self.memory).take(OF_THREAD)?;
        let stream = stream.try_clone().ok()?;
        present.last += 1;
        let number = present.last;
        present.streams.insert(number, stream);
        Some((number, held))
    }

    fn leave(&self, number: u64) {
        locked(&self.present).streams.remove(&number);
        self.left.notify_all();
    }

    /// Waits until a connection ends, or a second: others may have opened the files.
    fn wait_for_leave(&self) {
        let present = locked(&self.present);
        let _ = self.left.wait_timeout(present, std::time::Duration::from_secs(1));
    }

    pub(crate) fn doorkeeper(&self) -> Option<Arc<dyn Doorkeeper>> {
        self.doorkeeper.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn targets(&self) -> Vec<Arc<Target>> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What SendTargets answers (RFC 7143 appendix C): targets that the initiator may log in to, each with
    /// the address by which it asked.
    pub(crate) fn list(&self, initiator: &str, only: Option<&str>, place: Place) -> Vec<u8> {
        let mut text = Vec::new();
        for target in self.targets() {
            if only.is_none_or(|only| only == target.name()) && target.auth().admits(initiator) {
                crate::pdu::text::write(&mut text, "TargetName", target.name());
                crate::pdu::text::write(&mut text, "TargetAddress", &format!("{},1", place.0));
            }
        }
        text
    }
}

impl Directory for Hall {
    type Target = Arc<Target>;

    fn target(&self, name: &str) -> Option<(Arc<Target>, Arc<AuthGroup>)> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        targets.get(name).map(|target| (Arc::clone(target), target.auth()))
    }

    fn discovery(&self) -> Arc<AuthGroup> {
        Arc::clone(&self.discovery.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn alias(&self, target: &Arc<Target>) -> Option<String> {
        target.alias()
    }
}
