//! The server: TLS over HTTP/1.1 and HTTP/2, a port that only redirects, and the control socket.
//!
//! Nobody can keep others out: connections are limited, those without a request give way to new
//! ones ([`gate`]), and every wait for a client has an end ([`Limits`]).

mod addresses;
mod certificate;
mod connection;
mod control;
mod gate;
mod io;
mod redirect;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use strongroom_appliance::{Challenges, Listening, Services};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use self::certificate::Certificate;
pub use self::control::{bind as bind_control, connect as connect_control};
use self::gate::{Gate, Place};
use crate::{Error, Result};

/// What clients may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait until one without a request gives way.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of the headers of a request.
    pub headers: usize,
    /// How long the TLS handshake may take.
    pub handshake: Duration,
    /// How long the headers of a request may take to arrive.
    pub header: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long a client may take nothing of an answer, or send nothing of a body.
    pub write: Duration,
    /// How long an answer waits for the rest of a small body that its route did not want, so that
    /// an HTTP/1 client which still sends it can read the answer and ask again.
    pub leftover: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            streams: 128,
            headers: 64 << 10,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(120),
            write: Duration::from_secs(60),
            leftover: Duration::from_secs(2),
        }
    }
}

/// Who is at the other end of a connection; routes find it in the extensions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network.
    Network(SocketAddr),
    /// A process on this machine, through the control socket: the kernel says whose it is.
    Local {
        /// The user.
        uid: u32,
    },
}

/// The address of this machine that a request came to; found as [`Peer`] is. None of the control
/// socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached(pub IpAddr);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{}", address.ip()),
            Self::Local { .. } => f.write_str("local"),
        }
    }
}

/// Serves one router on any number of listeners, until it is stopped.
#[derive(Debug)]
pub struct Server {
    router: Router,
    limits: Limits,
    gate: Arc<Gate>,
    stop: watch::Sender<bool>,
    services: Services,
    challenges: Challenges,
    /// The addresses that are listened at on the network, each with what ends that.
    open: Vec<(SocketAddr, watch::Sender<bool>)>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Serves this; nobody listens yet. Who does is entered in these services.
    pub fn new(router: Router, limits: Limits, services: Services) -> Self {
        let gate = Arc::new(Gate::new(limits.connections));
        let stop = watch::Sender::new(false);
        let (open, tasks) = (Vec::new(), JoinSet::new());
        let challenges = Challenges::default();
        Self { router, limits, gate, stop, services, challenges, open, tasks }
    }

    fn listening(&self, name: &'static str, listener: &TcpListener) -> Listening {
        let address = listener.local_addr().ok().map(|address| address.to_string());
        self.services.enter(name, address)
    }

    /// What tells a listener that it is closed.
    fn closing(&mut self, listener: &TcpListener) -> watch::Receiver<bool> {
        let (close, closing) = watch::channel(false);
        if let Ok(address) = listener.local_addr() {
            self.open.push((address, close));
        }
        closing
    }

    /// Listens at this address no longer, which is free then. Connections that came there go on.
    pub async fn close(&mut self, address: SocketAddr) {
        let (closed, open) =
            std::mem::take(&mut self.open).into_iter().partition(|(at, _)| *at == address);
        self.open = open;
        let closed: Vec<(SocketAddr, watch::Sender<bool>)> = closed;
        for (_, close) in closed {
            close.send_replace(true);
            // When nobody hears of it any more the listener is gone.
            close.closed().await;
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.gate.len()
    }

    /// How many connections there may be, from now on.
    pub fn set_connections(&self, most: usize) {
        self.gate.set_max(most);
    }

    /// Serves TLS on this listener.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn https(&mut self, listener: TcpListener, certificate: Arc<Certificate>) -> Result<()> {
        let acceptor = TlsAcceptor::from(Arc::new(tls::config(certificate)?));
        let handler = connection::Handler::new(self.router.clone(), self.limits);
        let (gate, stop, limits) = (Arc::clone(&self.gate), self.stop.subscribe(), self.limits);
        let listening = self.listening("https", &listener);
        let serve = move |stream, from, place: Place, stop| {
            let stream: TcpStream = stream;
            let (acceptor, handler) = (acceptor.clone(), handler.at(stream.local_addr()));
            async move {
                let handshake = tokio::time::timeout(limits.handshake, acceptor.accept(stream));
                let stream = tokio::select! {
                    done = handshake => match done {
                        Ok(Ok(stream)) => stream,
                        Ok(Err(error)) => {
                            tracing::debug!(%error, %from, "a TLS handshake failed");
                            return;
                        }
                        Err(_) => return,
                    },
                    () = place.evicted() => return,
                };
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                handler.serve(stream, h2, Peer::Network(from), place, stop).await;
            }
        };
        let closing = self.closing(&listener);
        self.tasks.spawn(accept_tcp((listener, listening, closing), gate, stop, serve));
        Ok(())
    }

    /// Answers the proofs that certificate authorities ask for, at listeners that are opened later.
    pub fn answer(&mut self, challenges: Challenges) {
        self.challenges = challenges;
    }

    /// Redirects whoever comes to this listener to the HTTPS port.
    pub fn redirect(&mut self, listener: TcpListener, https_port: u16) {
        let handler = connection::Handler::new(
            redirect::router(https_port, self.challenges.clone()),
            self.limits,
        );
        let (gate, stop) = (Arc::clone(&self.gate), self.stop.subscribe());
        let listening = (self.listening("http-redirect", &listener), self.challenges.serve());
        let serve = move |stream, from, place, stop| {
            let handler = handler.clone();
            async move { handler.serve(stream, false, Peer::Network(from), place, stop).await }
        };
        let closing = self.closing(&listener);
        self.tasks.spawn(accept_tcp((listener, listening, closing), gate, stop, serve));
    }

    /// Serves processes on this machine; the listener is at this path.
    pub fn control(&mut self, listener: UnixListener, path: &Path) {
        let handler = connection::Handler::new(self.router.clone(), self.limits);
        // Whoever floods the network must not lock out the administrator who would stop that.
        let gate = Arc::new(Gate::new(self.limits.connections));
        let (stop, patience) = (self.stop.subscribe(), self.limits.idle);
        let listening = self.services.enter("control", Some(path.display().to_string()));
        self.tasks.spawn(control::accept(listener, listening, gate, handler, stop, patience));
    }

    /// Accepts nothing more, lets requests that are being answered end, for so long at most.
    pub async fn stop(mut self, grace: Duration) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
            self.tasks.shutdown().await;
        }
    }
}

/// Listens on this address.
///
/// # Errors
/// [`Error::Listen`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let failed = |source| Error::Listen { address: address.to_string(), source };
    TcpListener::bind(address).await.map_err(failed)
}

/// Takes connections until it is told to stop, or this listener is closed, then waits until they
/// have ended.
async fn accept_tcp<F, S, L>(
    (listener, listening, mut closing): (TcpListener, L, watch::Receiver<bool>),
    gate: Arc<Gate>,
    mut stop: watch::Receiver<bool>,
    serve: S,
) where
    S: Fn(TcpStream, SocketAddr, Place, watch::Receiver<bool>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            // Also when the server is gone.
            _ = closing.wait_for(|closing| *closing) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                // Answers are written whole; waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                let place = tokio::select! {
                    place = gate.enter() => place,
                    _ = stop.wait_for(|stop| *stop) => break,
                    _ = closing.wait_for(|closing| *closing) => break,
                };
                connections.spawn(serve(stream, from, place, stop.clone()));
            }
            Err(error) => breathe(&error).await,
        }
    }
    drop((listener, listening, closing));
    while connections.join_next().await.is_some() {}
}

/// After an error of accept: one of the client's is nothing, one of ours (no file descriptors left)
/// would come again at once.
async fn breathe(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "can't accept a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
