//! A server over a small router, and clients of it.
#![allow(clippy::unwrap_used, dead_code, reason = "shared by tests, each of which uses a part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::{get, post};
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use strongroom_api::server::{Certificate, Limits, Peer, Server, bind_control, listen};
use strongroom_appliance::Services;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;

pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) services: Services,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) dir: tempfile::TempDir,
    /// Ends the request to `/wait`, and to `/hold`, which keeps a body and takes nothing of it.
    pub(crate) go: Arc<Notify>,
    /// Told when a request to `/wait`, `/hold`, `/take` or `/much` has begun.
    pub(crate) begun: Arc<Notify>,
}

pub(crate) async fn start(limits: Limits) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let certificate = Arc::new(Certificate::open_or_make(&cert, &key, &[]).unwrap());
    let (go, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let waiting = (Arc::clone(&go), Arc::clone(&begun));
    let wait = move || {
        let (go, begun) = waiting.clone();
        async move {
            begun.notify_one();
            go.notified().await;
            "done"
        }
    };
    let waiting = (Arc::clone(&go), Arc::clone(&begun));
    let hold = move |body: Body| {
        let (go, begun) = waiting.clone();
        async move {
            begun.notify_one();
            go.notified().await;
            drop(body);
        }
    };
    let told = Arc::clone(&begun);
    let take = move |body: Body| {
        let told = Arc::clone(&told);
        async move {
            told.notify_one();
            let _ = body.collect().await;
        }
    };
    let told = Arc::clone(&begun);
    let much = move || {
        told.notify_one();
        async { vec![b'y'; 32 << 20] }
    };
    let router = Router::new()
        .route("/", get(|Extension(peer): Extension<Peer>| async move { format!("{peer:?}") }))
        .route("/wait", get(wait))
        .route("/hold", post(hold))
        .route("/take", post(take))
        .route("/much", get(much));
    let services = Services::default();
    let mut server = Server::new(router, limits, services.clone());
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (https, http) = (listen(any).await.unwrap(), listen(any).await.unwrap());
    let (https_at, http_at) = (https.local_addr().unwrap(), http.local_addr().unwrap());
    server.https(https, Arc::clone(&certificate)).unwrap();
    server.redirect(http, https_at.port());
    let socket = dir.path().join("control.sock");
    server.control(bind_control(&socket).unwrap(), &socket);
    Running { server, services, https: https_at, http: http_at, certificate, dir, go, begun }
}

/// A connection with TLS that trusts this server's certificate alone.
pub(crate) async fn tls(
    running: &Running,
    alpn: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(running.dir.path().join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(running.https).await.unwrap();
    let name = ServerName::from(running.https.ip());
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

pub(crate) async fn ask<S>(stream: S, version: Version, path: &str) -> (StatusCode, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::builder().uri(path).version(version);
    let io = TokioIo::new(stream);
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = request.uri(format!("https://localhost{path}"));
        sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = request.header("host", "localhost");
        sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
