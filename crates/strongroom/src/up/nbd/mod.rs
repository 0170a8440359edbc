//! NBD: volumes and snapshots of the appliance, at a socket for who may use the control socket, and on the
//! network for clients with a certificate.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use strongroom_api::server::{Certificate, bind_control};
use strongroom_appliance::{Listening, Services};
use strongroom_block::{BlockDevice, Durability, Extent, Geometry, Zeroing};
use strongroom_nbd::{
    Authorities, Denied, Encryption, Export, Exports, Listed, Options, Peer, Server, tls_config,
};
use strongroom_storage::volumes::{Served, Server as ServedBy};
use strongroom_storage::{Error, Storage};
use tokio::runtime::Handle;

use super::config::Config;

/// The socket's name in the data directory.
pub(super) const SOCKET: &str = "nbd.sock";
/// What it is called among the services.
const SERVICE: &str = "nbd";
/// Bytes that the file of authorities has at most.
const MAX_PEM: u64 = 1 << 20;

/// Where it is to listen on the network, and who is let in there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    addresses: Vec<SocketAddr>,
    /// The certificates of those who sign the clients' ones (PEM).
    authorities: Vec<u8>,
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
#[derive(Debug)]
struct All {
    storage: Storage,
    /// Clients have threads of their own.
    runtime: Handle,
}

impl Exports for All {
    fn list(&self, _: &Peer) -> Result<Vec<Listed>, Denied> {
        let all = self.runtime.block_on(self.storage.exports()).map_err(denied)?;
        let listed = all.into_iter().map(|one| Listed {
            name: one.name,
            description: if one.is_snapshot { "snapshot" } else { "volume" }.to_owned(),
        });
        Ok(listed.collect())
    }

    fn open(&self, name: &str, peer: &Peer) -> Result<Export, Denied> {
        // As long as it is served, somebody is connected.
        let by =
            ServedBy { name: format!("NBD client {}", peer.address), in_use: Arc::new(|| true) };
        let served = self.runtime.block_on(self.storage.serve_export(name, by)).map_err(denied)?;
        let device = Kept { device: served.device(), _served: served };
        let read_only = device.geometry().read_only;
        Ok(Export {
            name: name.to_owned(),
            description: if name.contains('@') { "snapshot" } else { "volume" }.to_owned(),
            device: Arc::new(device),
            read_only,
        })
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
    _served: Served,
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
    exports: Arc<All>,
    certificate: Arc<Certificate>,
    services: Services,
    local: Server,
    _local: Listening,
    network: Option<Network>,
    /// What is in force.
    wanted: Wanted,
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
        certificate: &Arc<Certificate>,
        services: &Services,
    ) -> Result<Self> {
        let exports = Arc::new(All { storage: storage.clone(), runtime: Handle::current() });
        let local = Server::new(Arc::clone(&exports) as _, Options::default());
        let socket = data.join(SOCKET);
        let listener = bind_control(&socket)?.into_std()?;
        listener.set_nonblocking(false)?;
        local.listen_unix(listener)?;
        let listening = services.enter(SERVICE, Some(socket.display().to_string()));
        let mut nbd = Self {
            exports,
            certificate: Arc::clone(certificate),
            services: services.clone(),
            local,
            _local: listening,
            network: None,
            wanted: bound.wanted,
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
                let options = Options { encryption, ..Options::default() };
                let server = Arc::new(Server::new(Arc::clone(&self.exports) as _, options));
                none.insert(Network { server, open: Vec::new() })
            }
        };
        let bound = network.server.listen_tcp(listener)?;
        let listening = self.services.enter(SERVICE, Some(bound.to_string()));
        network.open.push(Portal { wanted, bound, _listening: listening });
        Ok(())
    }

    /// Listens where it is wanted now, and no longer elsewhere; whether that is anything new. Clients stay
    /// connected, but if they have to prove themselves to other authorities. When it can't, all is as it
    /// was.
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
        let network = self.network.map(|network| network.server);
        stopped(network.into_iter().chain([Arc::new(self.local)]).collect(), grace).await;
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
