//! One connection to an appliance, for one request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{Error, Fingerprint, Place, Result, Trust};

/// How long an appliance may take to let one in.
const CONNECT: Duration = Duration::from_secs(20);

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
            let (stream, _) = tls(place, trust).await?;
            exchange(place, stream, request).await
        }
    }
}

/// The certificate that an appliance shows.
pub(crate) async fn look(place: &Place) -> Result<Option<Fingerprint>> {
    Ok(tls(place, &Trust::Look).await?.1)
}

async fn reach<T>(place: &Place, connect: impl Future<Output = io::Result<T>>) -> Result<T> {
    let connected = tokio::time::timeout(CONNECT, connect).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map_err(|source| Error::Unreachable { place: place.to_string(), source })
}

async fn tls(
    place: &Place,
    trust: &Trust,
) -> Result<(tokio_rustls::client::TlsStream<TcpStream>, Option<Fingerprint>)> {
    let broken = |why: String| Error::Broken { place: place.to_string(), why };
    let Place::Remote { address, .. } = place else {
        return Err(broken("a socket of this machine has no certificate".into()));
    };
    let (config, seen) = trust.config().map_err(broken)?;
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
