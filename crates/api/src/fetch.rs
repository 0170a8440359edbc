//! Fetches what issuers of tokens publish. No redirection is followed, no proxy is used, and no
//! answer but 200 is taken.

use std::sync::Arc;

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use strongroom_identity::{Fetch, Fetching, Wanted, client_config};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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
    let https = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or("it has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    if !https {
        return ask(stream, &uri, wanted.most).await;
    }
    let config = client_config(wanted.ca_certificate.as_deref())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "it has no host")?;
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
    ask(stream.map_err(|error| error.to_string())?, &uri, wanted.most).await
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
        .header(header::USER_AGENT, concat!("strongroom/", env!("CARGO_PKG_VERSION")))
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
    let mut connection = std::pin::pin!(connection);
    let mut work = std::pin::pin!(work);
    let mut open = true;
    // The connection lives as long as the answer is waited for.
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = &mut connection, if open => open = false,
        }
    }
}
