//! Listening, the handshake, and who is connected.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::buffers::{Buffers, KEPT_BY_ONE, LEAST, Memory, locked};
use crate::crew::{Crew, Watch};
use crate::exports::{Address, Exports, Peer, Refused};
use crate::negotiation::{self, Agreed, Negotiation, Next, Tls};
use crate::options::MAX_DATA;
use crate::protocol::option;
use crate::receiver::{self, Receiver};
use crate::service::{Holes, Service};
use crate::session::{Client, Parts, Session};
use crate::transport::{Socket, TLS, Transport};

/// Bytes of an option that are passed over; one with more ends its connection.
const SKIPPED: usize = 1 << 20;
/// Bytes that a connection keeps while nothing is asked, at most.
const IDLE: usize = receiver::IDLE + KEPT_BY_ONE + TLS;
/// How long accepting pauses when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What clients may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that are served at once; others are refused, in words.
    pub connections: usize,
    /// Connections that negotiate at once; the oldest of them gives way to a new one.
    pub handshakes: usize,
    /// How long a client may negotiate.
    pub handshake: Duration,
    /// How long a client may take for a request that it has begun to send, or to take its replies, and
    /// a second more for each MiB of them.
    pub stalled: Duration,
    /// How long a client may ask for nothing; for ever, if `None`: that the other side is still there
    /// is found out by TCP.
    pub idle: Option<Duration>,
    /// Threads that do requests of one connection at once, when these are slow.
    pub parallel: usize,
    /// Threads beyond one for each connection.
    pub helpers: usize,
    /// Bytes of requests and replies that are under way, of all connections; at least 80 MiB. When they are
    /// used, no connection is let in, no request is read, and those that were read wait for room, twice as
    /// long as `stalled`; then they are refused. Small replies to what was read already go beyond it, by no
    /// more than 2 MiB for each connection. What a connection keeps while nothing is asked comes on top:
    /// at most 1.3 MiB for each that there may be.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshakes: 64,
            handshake: Duration::from_secs(15),
            stalled: Duration::from_secs(30),
            idle: None,
            parallel: 16,
            helpers: 64,
            memory: 512 << 20,
        }
    }
}

/// Whether TLS is spoken. The configuration may ask for certificates of clients.
#[derive(Clone, Debug, Default)]
pub enum Encryption {
    /// It isn't.
    #[default]
    None,
    /// As the client likes; an export may demand it ([`Denied::NeedsTls`](crate::Denied)).
    Offered(Arc<ServerConfig>),
    /// Who doesn't speak it is told nothing.
    Demanded(Arc<ServerConfig>),
}

/// How it is served.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether TLS is spoken.
    pub encryption: Encryption,
    /// What clients may use up.
    pub limits: Limits,
    /// Memory that other servers use, too, instead of `memory` of the limits.
    pub memory: Option<SharedMemory>,
}

/// Memory that several servers have together.
#[derive(Clone, Debug)]
pub struct SharedMemory(Arc<Memory>);

impl SharedMemory {
    /// As much as one server with these limits has, and what connections of so many keep.
    pub fn new(limits: &Limits, servers: usize) -> Self {
        let connections = limits.connections.saturating_mul(servers);
        let bytes = limits.memory.max(LEAST).saturating_add(connections.saturating_mul(IDLE));
        Self(Memory::new(bytes, limits.stalled * 2))
    }

    /// Bytes that are used now, and kept for later.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Somebody who is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where the client is.
    pub address: Address,
    /// It speaks TLS.
    pub tls: bool,
    /// The export that it uses.
    pub export: String,
    /// How long it has been connected.
    pub connected: Duration,
}

/// Serves exports at any number of addresses, until it is stopped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<(Arc<Listener>, JoinHandle<()>)>>,
}

#[derive(Debug)]
struct Listener {
    place: Listens,
    closed: AtomicBool,
}

#[derive(Debug)]
enum Listens {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Ends its thread, which this is.
    fn close(&self, thread: JoinHandle<()>) {
        self.closed.store(true, Ordering::SeqCst);
        // It makes accepting fail, in Linux.
        let _ = match &self.place {
            Listens::Tcp(tcp) => rustix::net::shutdown(tcp, rustix::net::Shutdown::Both),
            Listens::Unix(unix) => rustix::net::shutdown(unix, rustix::net::Shutdown::Both),
        };
        if thread.join().is_err() {
            tracing::error!("the thread of a listener panicked");
        }
    }
}

struct Shared {
    exports: Arc<dyn Exports>,
    options: Options,
    memory: Arc<Memory>,
    crew: Arc<Crew>,
    watch: Arc<Watch>,
    stopping: AtomicBool,
    registry: Mutex<Registry>,
    left: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("exports", &self.exports).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Registry {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    socket: Arc<Socket>,
    address: Address,
    since: Instant,
    /// It gave way.
    evicted: bool,
    used: Option<Used>,
}

#[derive(Debug)]
struct Used {
    export: String,
    tls: bool,
    /// Its session, once there is one.
    session: Option<Arc<Session>>,
}

/// A place in the registry, for as long as it is held.
#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let entry = locked(&self.shared.registry).entries.remove(&self.id);
        drop(entry);
        self.shared.left.notify_all();
    }
}

impl Server {
    /// Serves these; nobody listens yet.
    pub fn new(exports: Arc<dyn Exports>, options: Options) -> Self {
        let limits = options.limits;
        let threads = limits.connections + limits.handshakes + limits.helpers;
        let shared = Shared {
            exports,
            memory: options.memory.clone().unwrap_or_else(|| SharedMemory::new(&limits, 1)).0,
            crew: Crew::new(threads),
            watch: Watch::start(),
            stopping: AtomicBool::new(false),
            registry: Mutex::default(),
            left: Condvar::new(),
            options,
        };
        Self { shared: Arc::new(shared), listeners: Mutex::default() }
    }

    /// Listens here, too; tells the address.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen_tcp(&self, listener: TcpListener) -> io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        self.listen(Listens::Tcp(listener))?;
        Ok(address)
    }

    /// Listens here, too. Who may connect, the socket's file says; it stays when this is stopped.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen_unix(&self, listener: UnixListener) -> io::Result<()> {
        self.listen(Listens::Unix(listener))
    }

    fn listen(&self, place: Listens) -> io::Result<()> {
        let mut listeners = locked(&self.listeners);
        if self.shared.stopping.load(Ordering::SeqCst) {
            return Err(io::Error::other("the server was stopped"));
        }
        let listener = Arc::new(Listener { place, closed: AtomicBool::new(false) });
        let (shared, of_thread) = (Arc::clone(&self.shared), Arc::clone(&listener));
        let body = move || shared.accept(&of_thread);
        let thread = thread::Builder::new().name("nbd-listen".to_owned()).spawn(body)?;
        listeners.push((listener, thread));
        Ok(())
    }

    /// Listens at that address no more; clients that came in by it stay. Whether it did.
    pub fn close(&self, address: SocketAddr) -> bool {
        let is_there = |listener: &Listener| match &listener.place {
            Listens::Tcp(tcp) => tcp.local_addr().is_ok_and(|bound| bound == address),
            Listens::Unix(_) => false,
        };
        let mut listeners = locked(&self.listeners);
        let found = listeners.iter().position(|(listener, _)| is_there(listener));
        let closed = found.map(|found| listeners.swap_remove(found));
        drop(listeners);
        closed.map(|(listener, thread)| listener.close(thread)).is_some()
    }

    /// Those who are served now.
    pub fn connections(&self) -> Vec<Connection> {
        let registry = locked(&self.shared.registry);
        let used = registry.entries.values().filter_map(|entry| {
            let used = entry.used.as_ref()?;
            Some(Connection {
                address: entry.address,
                tls: used.tls,
                export: used.export.clone(),
                connected: entry.since.elapsed(),
            })
        });
        used.collect()
    }

    /// Ends the connections that use an export: what came is answered first.
    pub fn disconnect(&self, export: &str) {
        let registry = locked(&self.shared.registry);
        for used in registry.entries.values().filter_map(|entry| entry.used.as_ref()) {
            if used.export == export {
                used.session.iter().for_each(|session| session.stop());
            }
        }
    }

    /// Listens no more, answers what came, and ends. Clients that take longer than this are cut off; a
    /// request that a device is still at then is left to it. `true` when nothing is left.
    pub fn stop(&self, grace: Duration) -> bool {
        let until = Instant::now() + grace;
        let shared = &self.shared;
        shared.stopping.store(true, Ordering::SeqCst);
        let listeners = std::mem::take(&mut *locked(&self.listeners));
        listeners.into_iter().for_each(|(listener, thread)| listener.close(thread));
        let mut registry = locked(&shared.registry);
        for entry in registry.entries.values() {
            match entry.used.as_ref().and_then(|used| used.session.as_ref()) {
                Some(session) => session.stop(),
                None => entry.socket.shutdown(Shutdown::Both),
            }
        }
        while !registry.entries.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = shared.left.wait_timeout(registry, left);
            registry = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        registry.entries.values().for_each(|entry| entry.socket.shutdown(Shutdown::Both));
        drop(registry);
        shared.watch.stop();
        // Threads whose connections were just cut off end soon, if nothing holds them.
        shared.crew.stop(until.max(Instant::now() + PAUSE))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &Listener) {
        while !listener.closed.load(Ordering::SeqCst) {
            let accepted = match &listener.place {
                Listens::Tcp(tcp) => tcp.accept().map(|(socket, _)| Socket::Tcp(socket)),
                Listens::Unix(unix) => unix.accept().map(|(socket, _)| Socket::Unix(socket)),
            };
            match accepted {
                Ok(socket) => self.begin(socket),
                Err(_) if listener.closed.load(Ordering::SeqCst) => {}
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    thread::park_timeout(PAUSE);
                }
            }
        }
    }

    fn begin(self: &Arc<Self>, socket: Socket) {
        let address = match socket.prepare().and_then(|()| socket.peer()) {
            Ok(address) => address,
            Err(error) => return tracing::debug!(%error, "a connection is gone already"),
        };
        let socket = Arc::new(socket);
        let held = self.admit(Arc::clone(&socket), address);
        let begun = self.crew.run(move || {
            let shared = Arc::clone(&held.shared);
            shared.serve(socket, address, held);
        });
        if !begun {
            tracing::warn!(%address, "too many connections, or they use all memory: one was turned away");
        }
    }

    /// A place for a connection; the oldest of those that still negotiate gives way if there are many.
    fn admit(self: &Arc<Self>, socket: Arc<Socket>, address: Address) -> Held {
        let mut registry = locked(&self.registry);
        let negotiating = |entry: &&mut Entry| entry.used.is_none() && !entry.evicted;
        let count = registry.entries.values_mut().filter(negotiating).count();
        if count >= self.options.limits.handshakes {
            let all = registry.entries.values_mut().filter(negotiating);
            if let Some(oldest) = all.min_by_key(|entry| entry.since) {
                oldest.evicted = true;
                oldest.socket.shutdown(Shutdown::Both);
            }
        }
        let id = registry.next;
        registry.next += 1;
        let since = Instant::now();
        registry.entries.insert(id, Entry { socket, address, since, evicted: false, used: None });
        Held { shared: Arc::clone(self), id }
    }

    /// Takes the place among those that are served; `false` when there are too many, or they use all memory.
    fn enter(&self, held: &Held, agreed: &Agreed, tls: bool) -> bool {
        let mut registry = locked(&self.registry);
        let count = registry.entries.values().filter(|entry| entry.used.is_some()).count();
        if count >= self.options.limits.connections || self.memory.is_full() {
            return false;
        }
        let used = Used { export: agreed.export.name.clone(), tls, session: None };
        registry.entries.get_mut(&held.id).is_some_and(|entry| {
            entry.used = Some(used);
            !entry.evicted
        })
    }

    fn serve(self: &Arc<Self>, socket: Arc<Socket>, address: Address, held: Held) {
        let limits = &self.options.limits;
        let until = Instant::now() + limits.handshake;
        let mut transport = Transport::new(socket, limits.stalled);
        let negotiated = self.negotiate(&mut transport, address, &held, until);
        let negotiated = negotiated.and_then(|agreed| {
            transport.settle()?;
            Ok(agreed)
        });
        let (agreed, peer) = match negotiated {
            Ok(Some(agreed)) => agreed,
            Ok(None) => return transport.close(),
            Err(error) => {
                tracing::debug!(%address, %error, "a connection came to nothing");
                return transport.close();
            }
        };
        tracing::info!(%address, export = agreed.export.name, "a client of NBD is connected");
        let buffers = Buffers::new(Arc::clone(&self.memory));
        let set_aside = peer.tls.then(|| buffers.set_aside(TLS));
        let id = held.id;
        let session = Session::new(Parts {
            receiver: Receiver::new(Arc::clone(&buffers), limits.stalled, limits.idle),
            service: Service {
                device: agreed.export.device,
                terms: agreed.terms,
                buffers,
                holes: Holes::default(),
            },
            transport,
            crew: Arc::clone(&self.crew),
            watch: Arc::clone(&self.watch),
            most: limits.parallel,
        });
        session.keep(Box::new(set_aside));
        if let Some(watch) = agreed.export.watch {
            session.keep(watch.begins(Client::new(peer, &session)));
        }
        session.keep(Box::new(held));
        if let Some(used) =
            locked(&self.registry).entries.get_mut(&id).and_then(|entry| entry.used.as_mut())
        {
            used.session = Some(Arc::clone(&session));
        }
        if self.stopping.load(Ordering::SeqCst) {
            session.stop();
        }
        session.work();
    }

    fn negotiate(
        &self,
        transport: &mut Transport,
        address: Address,
        held: &Held,
        until: Instant,
    ) -> io::Result<Option<(Agreed, Peer)>> {
        let (tls, config) = match &self.options.encryption {
            Encryption::None => (Tls::None, None),
            Encryption::Offered(config) => (Tls::Offered, Some(config)),
            Encryption::Demanded(config) => (Tls::Demanded, Some(config)),
        };
        let peer = Peer { address, tls: false, certificate: None };
        let mut negotiation = Negotiation::new(Arc::clone(&self.exports), tls, peer);
        transport.write_all(&negotiation::greeting(), until)?;
        let mut flags = [0; 4];
        transport.read_exact(&mut flags, until)?;
        negotiation.client_flags(u32::from_be_bytes(flags)).map_err(io::Error::other)?;
        let (mut data, mut out) = (Vec::new(), Vec::new());
        let mut told = false;
        loop {
            let mut header = [0; negotiation::HEADER];
            transport.read_exact(&mut header, until)?;
            let (number, length) = negotiation::header(&header).map_err(io::Error::other)?;
            let length = length as usize;
            out.clear();
            let next = if length > MAX_DATA {
                if length > SKIPPED {
                    return Err(io::Error::other("an option is too long"));
                }
                skip(transport, length, until)?;
                negotiation.too_long(number, &mut out)
            } else {
                data.resize(length, 0);
                transport.read_exact(&mut data, until)?;
                if self.stopping.load(Ordering::SeqCst) && number != option::ABORT {
                    negotiation::shutdown(number, &mut out);
                    Next::End
                } else {
                    negotiation.answer(number, &data, &mut out)
                }
            };
            let is_open = tls == Tls::Demanded && !negotiation.peer().tls;
            if is_open && !told && ![option::STARTTLS, option::ABORT].contains(&number) {
                told = true;
                self.exports.refused(negotiation.peer(), &Refused::NoTls);
            }
            match next {
                Next::Option => transport.write_all(&out, until)?,
                Next::End => {
                    transport.write_all(&out, until)?;
                    return Ok(None);
                }
                Next::StartTls => {
                    transport.write_all(&out, until)?;
                    let config = config.ok_or_else(|| io::Error::other("TLS is not set up"))?;
                    let spoken = transport.start_tls(config, until).inspect_err(|error| {
                        let refused = Refused::Tls(error.to_string());
                        self.exports.refused(negotiation.peer(), &refused);
                    });
                    negotiation.tls_is_spoken(spoken?);
                }
                Next::Transmission(agreed) => {
                    if self.enter(held, &agreed, negotiation.peer().tls) {
                        transport.write_all(&out, until)?;
                        return Ok(Some((*agreed, negotiation.peer().clone())));
                    }
                    tracing::warn!(%address, "too many connections, or they use all memory: one was refused");
                    self.exports.refused(negotiation.peer(), &Refused::Crowded);
                    if number == option::EXPORT_NAME {
                        return Ok(None);
                    }
                    out.clear();
                    negotiation::crowded(number, &mut out);
                    transport.write_all(&out, until)?;
                }
            }
        }
    }
}

/// Reads bytes that nobody wants.
fn skip(transport: &Transport, mut length: usize, until: Instant) -> io::Result<()> {
    let mut nothing = [0; 4096];
    while length > 0 {
        let now = length.min(nothing.len());
        let piece = nothing.get_mut(..now).unwrap_or_default();
        transport.read_exact(piece, until)?;
        length -= now;
    }
    Ok(())
}
