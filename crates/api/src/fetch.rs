//! Fetches what issuers of tokens publish, and speaks with certificate authorities. No redirection is followed, no
//! proxy is used, and of issuers no answer but 200 is taken.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use strongroom_appliance::acme::{AcmeError, BodyWrapper, BytesResponse, HttpClient};
use strongroom_identity::{Fetch, Fetching, Wanted, client_config};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What it says that it is.
const AGENT: &str = concat!("strongroom/", env!("CARGO_PKG_VERSION"));

/// Fetches over HTTPS, and over HTTP where that is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Https;

impl Fetch for Https {
    fn fetch(&self, wanted: Wanted) -> Fetching {
        Box::pin(async move {
            let late = || format!("no answer within {} seconds", wanted.within.as_secs());
            let work = tokio::time::timeout(wanted.within, get(&wanted));
            work.await.unwrap_or_else(|_| Err(late()))
        })
    }
}

async fn get(wanted: &Wanted) -> Result<Vec<u8>, String> {
    let uri: Uri = wanted.url.parse().map_err(|_| "it is no address".to_owned())?;
    if uri.scheme_str() == Some("https") {
        let stream = connect_tls(&uri, wanted.ca_certificate.as_deref()).await?;
        return ask(stream, &uri, wanted.most).await;
    }
    ask(connect(&uri, 80).await?, &uri, wanted.most).await
}

/// The host of an address, as one connects to it.
fn host(uri: &Uri) -> Result<&str, String> {
    let host = uri.host().ok_or("it has no host")?;
    Ok(host.trim_start_matches('[').trim_end_matches(']'))
}

async fn connect(uri: &Uri, usual_port: u16) -> Result<TcpStream, String> {
    let port = uri.port_u16().unwrap_or(usual_port);
    TcpStream::connect((host(uri)?, port)).await.map_err(|error| error.to_string())
}

/// With TLS, to whom these certificates vouch for, in PEM; none: those that the machine trusts.
async fn connect_tls(
    uri: &Uri,
    ca_certificate: Option<&str>,
) -> Result<TlsStream<TcpStream>, String> {
    let stream = connect(uri, 443).await?;
    let config = client_config(ca_certificate)?;
    let name = ServerName::try_from(host(uri)?.to_owned()).map_err(|_| "it has no host")?;
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
    stream.map_err(|error| error.to_string())
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
    most: usize,
) -> Result<Vec<u8>, String> {
    let broken = |error: hyper::Error| format!("it broke off: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let work = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|_| format!("it broke off, or has more than {most} bytes"))?;
        Ok(body.to_bytes().to_vec())
    };
    while_open(connection, work).await
}

/// Bytes of an answer of a certificate authority.
const MOST: usize = 1 << 20;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Speaks with a certificate authority (ACME), over HTTPS alone.
#[derive(Clone, Debug)]
pub struct AcmeHttps {
    ca_certificate: Option<String>,
}

impl AcmeHttps {
    /// For whom these certificates vouch, in PEM; none: those that the machine trusts.
    pub fn connect(ca_certificate: Option<&str>) -> Box<dyn HttpClient> {
        Box::new(Self { ca_certificate: ca_certificate.map(str::to_owned) })
    }
}

impl HttpClient for AcmeHttps {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>> {
        let ca_certificate = self.ca_certificate.clone();
        Box::pin(async move {
            let late = || format!("no answer within {} seconds", PATIENCE.as_secs());
            let asked = exchange(request, ca_certificate.as_deref());
            let answer = tokio::time::timeout(PATIENCE, asked).await;
            let answer = answer.unwrap_or_else(|_| Err(late()));
            answer.map(BytesResponse::from).map_err(|why| AcmeError::Other(why.into()))
        })
    }
}

async fn exchange(
    request: Request<BodyWrapper<Bytes>>,
    ca_certificate: Option<&str>,
) -> Result<Response<Full<Bytes>>, String> {
    let (mut parts, body) = request.into_parts();
    let uri = std::mem::take(&mut parts.uri);
    // An authority's answers name where to ask next, which may be another host of its own: one that TLS
    // vouches for, all the same.
    if uri.scheme_str() != Some("https") {
        return Err("it has no https:// address".into());
    }
    let authority = uri.authority().ok_or("it has no host")?;
    let stream = connect_tls(&uri, ca_certificate).await;
    let stream = stream.map_err(|why| format!("{authority}: {why}"))?;
    let wrong = |error: http::header::InvalidHeaderValue| error.to_string();
    parts.headers.insert(header::HOST, authority.as_str().parse().map_err(wrong)?);
    parts.headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(|_| "it is no address".to_owned())?;
    let broken = |error: hyper::Error| format!("it broke off: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let work = async {
        let response = sender.send_request(Request::from_parts(parts, body)).await;
        let (parts, body) = response.map_err(broken)?.into_parts();
        let body = Limited::new(body, MOST).collect().await;
        let body = body.map_err(|_| format!("it broke off, or has more than {MOST} bytes"))?;
        Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
    };
    while_open(connection, work).await
}

/// Waits for an answer while its connection lives.
async fn while_open<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    work: impl Future<Output = T>,
) -> T {
    let mut connection = std::pin::pin!(connection);
    let mut work = std::pin::pin!(work);
    let mut open = true;
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = &mut connection, if open => open = false,
        }
    }
}
