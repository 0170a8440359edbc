//! One connection to an appliance, for one request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
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

/// Sends a request and gives the head of the answer; its body still comes.
pub(crate) async fn send(
    place: &Place,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>> {
    match place {
        Place::Socket(path) => {
            let stream = reach(place, UnixStream::connect(path)).await?;
            exchange(place, stream, request).await
        }
        Place::Remote { trust, .. } => {
            let (stream, _) = tls(place, trust, &[]).await?;
            exchange(place, stream, request).await
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
    match reach(place, connector.connect(name, stream)).await {
        Ok(stream) => Ok((stream, seen.get())),
        Err(error) => Err(match (trust, seen.get()) {
            (Trust::Pinned(pinned), Some(found)) if *pinned != found => {
                Error::OtherCertificate { place: place.to_string(), found }
            }
            _ => error,
        }),
    }
}

async fn exchange(
    place: &Place,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>> {
    let broken = |e: hyper::Error| Error::Broken { place: place.to_string(), why: e.to_string() };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    // It ends with the answer's body.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(broken)
}
