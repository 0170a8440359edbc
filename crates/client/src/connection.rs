//! Connections to an appliance: one request after the other on each.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{Error, Fingerprint, Place, Result, Trust};

/// How long an appliance may take to let one in.
const CONNECT: Duration = Duration::from_secs(20);
/// How often an HTTP/2 appliance is asked whether it is there, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// Bytes of one request that wait for the connection.
const SEND_BUFFER: usize = 1 << 20;
/// Bytes that are encrypted before they are written.
const ENCRYPTED: usize = 256 << 10;

/// How many connections are kept for the next requests.
const KEPT: usize = 8;
/// How long they are: appliances keep theirs longer.
const KEEP: Duration = Duration::from_secs(30);

/// A connection on which one request was sent.
pub(crate) type Sender = http1::SendRequest<Full<Bytes>>;

/// Connections that wait for the next request.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Vec<(Sender, Instant)>>);

impl Connections {
    fn take(&self) -> Option<Sender> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(sender, since)| sender.is_ready() && since.elapsed() < KEEP);
        kept.pop().map(|(sender, _)| sender)
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) async fn keep(&self, mut sender: Sender) {
        // It is ready once the end of the answer was seen on the other side of a channel too.
        let ready = tokio::time::timeout(Duration::from_secs(1), sender.ready()).await;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(ready, Ok(Ok(()))) && kept.len() < KEPT {
            kept.push((sender, Instant::now()));
        }
    }

    /// Sends a request and gives the head of the answer; its body still comes.
    pub(crate) async fn send(
        &self,
        place: &Place,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender)> {
        let broken =
            |e: hyper::Error| Error::Broken { place: place.to_string(), why: e.to_string() };
        while let Some(mut sender) = self.take() {
            // What changes nothing (RFC 9110, 9.2.1) need not have been unsent.
            let again = request.method().is_safe().then(|| request.clone());
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, sender)),
                // It was closed meanwhile, before the request was sent or as it was.
                Err(mut error) => match (error.take_message(), again) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(again)) => {
                        request = again;
                        break;
                    }
                    (None, None) => return Err(broken(error.into_error())),
                },
            }
        }
        let mut sender = connect(place).await?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        Ok((answer, sender))
    }
}

async fn connect(place: &Place) -> Result<Sender> {
    match place {
        Place::Socket(path) => {
            let stream = reach(place, UnixStream::connect(path)).await?;
            begin(place, stream).await
        }
        Place::Remote { trust, .. } => {
            let (stream, _) = tls(place, trust, &[]).await?;
            begin(place, stream).await
        }
    }
}

/// The certificate that an appliance shows.
pub(crate) async fn look(place: &Place) -> Result<Option<Fingerprint>> {
    Ok(tls(place, &Trust::Look, &[]).await?.1)
}

async fn reach<T>(place: &Place, connect: impl Future<Output = io::Result<T>>) -> Result<T> {
    let connected = tokio::time::timeout(CONNECT, connect).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map_err(|source| Error::Unreachable { place: place.to_string(), source })
}

/// An HTTP/2 connection, on which many requests may be under way.
pub(crate) async fn http2(place: &Place) -> Result<http2::SendRequest<Full<Bytes>>> {
    match place {
        Place::Socket(path) => {
            let stream = reach(place, UnixStream::connect(path)).await?;
            begin_http2(place, stream).await
        }
        Place::Remote { trust, .. } => {
            let (stream, _) = tls(place, trust, &[b"h2"]).await?;
            begin_http2(place, stream).await
        }
    }
}

async fn begin_http2(
    place: &Place,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<http2::SendRequest<Full<Bytes>>> {
    let broken = |e: hyper::Error| Error::Broken { place: place.to_string(), why: e.to_string() };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
    builder.max_send_buf_size(SEND_BUFFER);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the last sender, or answer.
    tokio::spawn(connection);
    Ok(sender)
}

async fn tls(
    place: &Place,
    trust: &Trust,
    protocols: &[&[u8]],
) -> Result<(tokio_rustls::client::TlsStream<TcpStream>, Option<Fingerprint>)> {
    let broken = |why: String| Error::Broken { place: place.to_string(), why };
    let Place::Remote { address, .. } = place else {
        return Err(broken("a socket of this machine has no certificate".into()));
    };
    let (mut config, seen) = trust.config().map_err(broken)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(address.host.clone());
    let name = name.map_err(|_| Error::Address(address.to_string()))?;
    let host = (address.host.as_str(), address.port);
    let stream = reach(place, TcpStream::connect(host)).await?;
    // Requests are short and answers are waited for.
    let _ = stream.set_nodelay(true);
    let connector = TlsConnector::from(Arc::new(config));
    let buffered = |tls: &mut ClientConnection| tls.set_buffer_limit(Some(ENCRYPTED));
    match reach(place, connector.connect_with(name, stream, buffered)).await {
        Ok(stream) => Ok((stream, seen.get())),
        Err(error) => Err(match (trust, seen.get()) {
            (Trust::Pinned(pinned), Some(found)) if *pinned != found => {
                Error::OtherCertificate { place: place.to_string(), found }
            }
            _ => error,
        }),
    }
}

async fn begin(
    place: &Place,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Sender> {
    let broken = |e: hyper::Error| Error::Broken { place: place.to_string(), why: e.to_string() };
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the last sender, or answer.
    tokio::spawn(connection);
    Ok(sender)
}
