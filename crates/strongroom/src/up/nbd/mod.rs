//! NBD: volumes and snapshots of the appliance, at a socket for who may use the control socket, and on the
//! network for clients with a certificate.

mod access;
mod trail;

use std::any::Any;
use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use strongroom_api::server::{Certificate, bind_control};
use strongroom_appliance::{Listening, Services};
use strongroom_block::{BlockDevice, Durability, Extent, Geometry, Zeroing};
use strongroom_identity::Identity;
use strongroom_nbd::{
    Authorities, Client, Denied, Encryption, Export, Exports, Limits, Listed, Options, Peer,
    Refused, Server, SharedMemory, Watch, tls_config,
};
use strongroom_storage::volumes::{Entered, NewClient, Served, Server as ServedBy};
use strongroom_storage::{Error, Storage};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

pub(super) use self::access::Access;
use self::access::Who;
use self::trail::Trail;
use super::config::Config;

/// The socket's name in the data directory.
pub(super) const SOCKET: &str = "nbd.sock";
/// What it is called among the services.
const SERVICE: &str = "nbd";
/// Bytes that the file of authorities has at most.
const MAX_PEM: u64 = 1 << 20;
/// How often it is looked whether what clients have is still to be served.
const LOOK: Duration = Duration::from_secs(2);

/// Where it is to listen on the network, and who is let in there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    addresses: Vec<SocketAddr>,
    /// The certificates of those who sign the clients' ones (PEM).
    authorities: Vec<u8>,
    /// Which volumes these may have.
    access: Access,
}

impl Wanted {
    /// As is configured now.
    pub(super) fn of(config: &Config, data: &Path) -> Result<Self> {
        let Some(path) = config.nbd_clients(data).filter(|_| !config.nbd.is_empty()) else {
            return Ok(Self::default());
        };
        let reading = || format!("nbd_clients: reading {}", path.display());
        let length = fs::metadata(&path).with_context(reading)?.len();
        anyhow::ensure!(length <= MAX_PEM, "nbd_clients: {} is too long", path.display());
        let wanted = Self {
            addresses: config.nbd.clone(),
            authorities: fs::read(&path).with_context(reading)?,
            access: config.nbd_access()?,
        };
        wanted.authorities().with_context(|| format!("nbd_clients: {}", path.display()))?;
        Ok(wanted)
    }

    fn authorities(&self) -> Result<Authorities> {
        Ok(Authorities::of_pem(&self.authorities)?)
    }
}

/// Listeners that nobody serves yet.
#[derive(Debug)]
pub(super) struct Bound {
    wanted: Wanted,
    listeners: Vec<TcpListener>,
}

impl Bound {
    /// Listens.
    pub(super) fn new(wanted: Wanted) -> Result<Self> {
        let listeners = wanted.addresses.iter().map(bind).collect::<Result<_>>()?;
        Ok(Self { wanted, listeners })
    }
}

fn bind(address: &SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("nbd: can't listen at {address}"))
}

/// All that the appliance serves.
#[derive(Clone, Debug)]
struct All(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    storage: Storage,
    /// Clients have threads of their own.
    runtime: Handle,
    trail: Trail,
    clients: Mutex<Clients>,
}

/// Who is connected, and who may have what.
#[derive(Debug, Default)]
struct Clients {
    access: Access,
    /// By their numbers in the storage.
    using: HashMap<u64, (Who, String, Client)>,
}

impl All {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on clients may have this. Those that may no longer have what they have, have to go.
    fn allow(&self, access: &Access) {
        let gone: Vec<Client> = {
            let mut clients = self.clients();
            clients.access = access.clone();
            let using = clients.using.values();
            let gone = using.filter(|(who, export, _)| !access.allows(who, export));
            gone.map(|(_, _, client)| client.clone()).collect()
        };
        gone.into_iter().for_each(|client| self.end(client));
    }

    /// Has a client go, by a thread that may wait: the last who knows of a client closes what it had.
    fn end(&self, client: Client) {
        self.0.runtime.spawn_blocking(move || client.end());
    }

    fn open_for(&self, name: &str, who: &Who, peer: &Peer) -> Result<Export, Denied> {
        if !self.clients().access.allows(who, name) {
            return Err(Denied::Unknown);
        }
        // As long as it is served, somebody is connected.
        let by =
            ServedBy { name: format!("NBD client {}", peer.address), in_use: Arc::new(|| true) };
        let served = self.0.runtime.block_on(self.0.storage.serve_export(name, by));
        let served = served.map_err(denied)?;
        let device = served.device();
        let read_only = device.geometry().read_only;
        let (all, who, export) = (self.clone(), who.clone(), name.to_owned());
        let kept = Arc::new(Kept { device, served, all, who, export });
        Ok(Export {
            name: name.to_owned(),
            description: if name.contains('@') { "snapshot" } else { "volume" }.to_owned(),
            device: Arc::clone(&kept) as _,
            read_only,
            watch: Some(kept),
        })
    }
}

impl Exports for All {
    fn list(&self, peer: &Peer) -> Result<Vec<Listed>, Denied> {
        let all = self.0.runtime.block_on(self.0.storage.exports()).map_err(denied)?;
        let (who, access) = (Who::of(peer), self.clients().access.clone());
        let allowed = all.into_iter().filter(|one| access.allows(&who, &one.name));
        let listed = allowed.map(|one| Listed {
            name: one.name,
            description: if one.is_snapshot { "snapshot" } else { "volume" }.to_owned(),
        });
        Ok(listed.collect())
    }

    fn open(&self, name: &str, peer: &Peer) -> Result<Export, Denied> {
        let who = Who::of(peer);
        let opened = self.open_for(name, &who, peer);
        if let Err(why) = &opened {
            self.0.trail.refused(&who, name, &why.to_string());
        }
        opened
    }

    fn refused(&self, peer: &Peer, why: &Refused) {
        self.0.trail.refused(&Who::of(peer), "", &why.to_string());
    }
}

/// What a client is told.
fn denied(error: Error) -> Denied {
    match error {
        Error::Catalog(strongroom_catalog::Error::NotFound { .. })
        | Error::Block(strongroom_block::Error::NotFound(_)) => Denied::Unknown,
        error => {
            tracing::warn!("a client of NBD can't have what it asks for: {error}");
            Denied::Unavailable(error.to_string())
        }
    }
}

/// A device that is open for as long as a client has it.
#[derive(Debug)]
struct Kept {
    device: Arc<dyn BlockDevice>,
    served: Served,
    all: All,
    who: Who,
    /// The name that it was asked for by.
    export: String,
}

impl Watch for Kept {
    fn begins(&self, client: Client) -> Box<dyn Any + Send> {
        let (all, who, export) = (self.all.clone(), self.who.clone(), self.export.clone());
        let (on, ended) = (all.clone(), client.clone());
        let entered = all.0.storage.connected(
            &self.served,
            NewClient {
                export: export.clone(),
                client: who.shown.clone(),
                address: who.address,
                end: Arc::new(move || on.end(ended.clone())),
            },
        );
        let organisation = self.served.volume().organisation_id;
        all.0.trail.connected(&who, &export, organisation);
        let is_allowed = {
            let mut clients = all.clients();
            let one = (who.clone(), export.clone(), client.clone());
            clients.using.insert(entered.client().number, one);
            clients.access.allows(&who, &export)
        };
        if !is_allowed {
            client.end();
        }
        Box::new(Using { entered, all, who, export, organisation, since: Instant::now() })
    }
}

/// A client that uses an export, until this is dropped.
#[derive(Debug)]
struct Using {
    entered: Entered,
    all: All,
    who: Who,
    export: String,
    organisation: i64,
    since: Instant,
}

impl Drop for Using {
    fn drop(&mut self) {
        let gone = self.all.clients().using.remove(&self.entered.client().number);
        drop(gone);
        let Self { who, export, organisation, since, .. } = self;
        self.all.0.trail.left(who, export, *organisation, since.elapsed());
    }
}

impl BlockDevice for Kept {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> strongroom_block::Result<()> {
        self.device.read_at(offset, buffer)
    }

    fn write_at(
        &self,
        offset: u64,
        bytes: &[u8],
        durability: Durability,
    ) -> strongroom_block::Result<()> {
        self.device.write_at(offset, bytes, durability)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        zeroing: Zeroing,
        durability: Durability,
    ) -> strongroom_block::Result<()> {
        self.device.write_zeroes(offset, length, zeroing, durability)
    }

    fn discard(&self, offset: u64, length: u64) -> strongroom_block::Result<()> {
        self.device.discard(offset, length)
    }

    fn flush(&self) -> strongroom_block::Result<()> {
        self.device.flush()
    }

    fn compare_and_write(
        &self,
        offset: u64,
        expected: &[u8],
        bytes: &[u8],
        durability: Durability,
    ) -> strongroom_block::Result<Option<u64>> {
        self.device.compare_and_write(offset, expected, bytes, durability)
    }

    fn extents(
        &self,
        offset: u64,
        length: u64,
        most: usize,
    ) -> strongroom_block::Result<Vec<Extent>> {
        self.device.extents(offset, length, most)
    }

    fn id(&self) -> [u8; 16] {
        self.device.id()
    }
}

/// The servers of NBD.
#[derive(Debug)]
pub(super) struct Nbd {
    exports: All,
    certificate: Arc<Certificate>,
    services: Services,
    /// What both servers may use up.
    memory: SharedMemory,
    local: Server,
    _local: Listening,
    network: Option<Network>,
    /// What is in force.
    wanted: Wanted,
    /// Has clients go whose volumes are served no more.
    looking: JoinHandle<()>,
    /// Writes the audit trail.
    writing: JoinHandle<()>,
}

/// The server of clients on the network, all of whom prove themselves to the same authorities.
#[derive(Debug)]
struct Network {
    server: Arc<Server>,
    open: Vec<Portal>,
}

#[derive(Debug)]
struct Portal {
    wanted: SocketAddr,
    /// What came of it.
    bound: SocketAddr,
    _listening: Listening,
}

impl Nbd {
    /// Serves what the storage has.
    pub(super) fn start(
        bound: Bound,
        data: &Path,
        storage: &Storage,
        identity: Identity,
        certificate: &Arc<Certificate>,
        services: &Services,
    ) -> Result<Self> {
        let (trail, writing) = Trail::begin(identity);
        let exports = All(Arc::new(Shared {
            storage: storage.clone(),
            runtime: Handle::current(),
            trail,
            clients: Mutex::default(),
        }));
        exports.allow(&bound.wanted.access);
        let looking = tokio::spawn(look_after(storage.clone()));
        let memory = SharedMemory::new(&Limits::default(), 2);
        let options = Options { memory: Some(memory.clone()), ..Options::default() };
        let local = Server::new(Arc::new(exports.clone()), options);
        let socket = data.join(SOCKET);
        let listener = bind_control(&socket)?.into_std()?;
        listener.set_nonblocking(false)?;
        local.listen_unix(listener)?;
        let listening = services.enter(SERVICE, Some(socket.display().to_string()));
        let mut nbd = Self {
            exports,
            certificate: Arc::clone(certificate),
            services: services.clone(),
            memory,
            local,
            _local: listening,
            network: None,
            wanted: bound.wanted,
            looking,
            writing,
        };
        for (wanted, listener) in nbd.wanted.addresses.clone().iter().zip(bound.listeners) {
            nbd.listen(*wanted, listener)?;
        }
        Ok(nbd)
    }

    /// Where it listens on the network.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let open = self.network.iter().flat_map(|network| &network.open);
        open.map(|portal| portal.bound).collect()
    }

    /// Serves also those who come by this listener.
    fn listen(&mut self, wanted: SocketAddr, listener: TcpListener) -> Result<()> {
        let network = match &mut self.network {
            Some(network) => network,
            none => {
                let authorities = Some(self.wanted.authorities()?);
                let config = tls_config(Arc::clone(&self.certificate) as _, authorities)?;
                let encryption = Encryption::Demanded(config);
                let memory = Some(self.memory.clone());
                let options = Options { encryption, memory, ..Options::default() };
                let server = Arc::new(Server::new(Arc::new(self.exports.clone()), options));
                none.insert(Network { server, open: Vec::new() })
            }
        };
        let bound = network.server.listen_tcp(listener)?;
        let listening = self.services.enter(SERVICE, Some(bound.to_string()));
        network.open.push(Portal { wanted, bound, _listening: listening });
        Ok(())
    }

    /// Listens where it is wanted now, and no longer elsewhere; whether that is anything new. Clients stay
    /// connected, but if they have to prove themselves to other authorities, or may no longer have what they
    /// have. When it can't, all is as it was.
    pub(super) async fn change(&mut self, wanted: Wanted, grace: Duration) -> Result<bool> {
        let open = self.network.iter().map(|network| network.open.len()).sum::<usize>();
        if self.wanted == wanted && open == wanted.addresses.len() {
            return Ok(false);
        }
        let before = self.wanted.clone();
        if let Err(error) = self.become_such(wanted, grace).await {
            self.become_such(before, grace).await?;
            return Err(error);
        }
        Ok(true)
    }

    async fn become_such(&mut self, wanted: Wanted, grace: Duration) -> Result<()> {
        let others = self.wanted.authorities != wanted.authorities || wanted.addresses.is_empty();
        if let Some(network) = self.network.take_if(|_| others) {
            stopped(vec![network.server], grace).await;
        }
        self.wanted = wanted;
        self.exports.allow(&self.wanted.access);
        if let Some(network) = &mut self.network {
            // First what is to go: it may be in the way of what is to come.
            let gone = network
                .open
                .extract_if(.., |portal| !self.wanted.addresses.contains(&portal.wanted));
            for portal in gone {
                network.server.close(portal.bound);
            }
        }
        for address in self.wanted.addresses.clone() {
            let mut open = self.network.iter().flat_map(|network| &network.open);
            if open.all(|portal| portal.wanted != address) {
                self.listen(address, bind(&address)?)?;
            }
        }
        Ok(())
    }

    /// Answers what came, and ends.
    pub(super) async fn stop(self, grace: Duration) {
        self.looking.abort();
        let network = self.network.map(|network| network.server);
        stopped(network.into_iter().chain([Arc::new(self.local)]).collect(), grace).await;
        self.exports.0.trail.end(self.writing).await;
    }
}

/// Has clients go whose pool or volume is served no more, for as long as it is not ended.
async fn look_after(storage: Storage) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if let Err(error) = storage.look_after_exports().await {
            tracing::warn!("clients of NBD are not looked after: {error}");
        }
    }
}

/// Waits for clients where that holds nobody up.
async fn stopped(servers: Vec<Arc<Server>>, grace: Duration) {
    let waiting = tokio::task::spawn_blocking(move || {
        let late = std::thread::scope(|scope| {
            let stops: Vec<_> =
                servers.iter().map(|server| scope.spawn(|| server.stop(grace))).collect();
            stops.into_iter().filter_map(|stop| stop.join().ok()).any(|in_time| !in_time)
        });
        if late {
            tracing::warn!("a client of NBD took too long, and was cut off");
        }
    });
    if waiting.await.is_err() {
        tracing::error!("stopping the servers of NBD failed");
    }
}
