//! Ten thousand connections at once, silent in every way, and the API goes on answering others.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::process::{Plan, Served};
use crate::support::{output, tool};

/// How many there are of each kind: connected only; in the middle of the handshake; after it,
/// without a request.
const KINDS: [usize; 3] = [5000, 3800, 1200];
/// What each may cost the process, in bytes of memory, and what all that happens meanwhile may.
const EACH: u64 = 24 << 10;
const OTHERS: u64 = 96 << 20;

/// Asks over a new connection: status and body. None may take longer.
fn ask(served: &Served, path: &str, token: &str, body: Option<Value>) -> (u16, Value) {
    let mut curl = tool("curl");
    curl.args(["-sSk", "--max-time", "20", "-w", "\n%{http_code}"]);
    curl.arg("-H").arg(format!("authorization: Bearer {token}"));
    if let Some(body) = body {
        curl.args(["-H", "content-type: application/json", "-d"]).arg(body.to_string());
    }
    let out = output(curl.arg(format!("https://{}{path}", served.address())));
    let text = String::from_utf8(out).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A figure of the process in bytes, as the kernel tells it.
fn memory(served: &Served, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", served.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    let kilobytes: u64 =
        line.trim_matches([':', ' ', '\t']).split(' ').next().unwrap().parse().unwrap();
    kilobytes << 10
}

fn silent_client() -> tokio_rustls::TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// Believes everybody: these clients mean harm and don't care.
#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Connections of one kind, as many as were asked for and came through.
async fn connect(served: &Served, kind: usize, count: usize) -> Vec<Box<dyn Send>> {
    let client = silent_client();
    let mut open: Vec<Box<dyn Send>> = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    let address = served.address();
    for number in 0..count {
        let client = client.clone();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.ok()?;
            let kept: Box<dyn Send> = match kind {
                0 => Box::new(stream),
                1 => {
                    // The beginning of a record, and of a message in it.
                    let start = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
                    stream.write_all(&start[..5 + number % 6]).await.ok()?;
                    Box::new(stream)
                }
                _ => {
                    let name = rustls_pki_types::ServerName::try_from("localhost").ok()?;
                    Box::new(client.connect(name, stream).await.ok()?)
                }
            };
            Some(kept)
        });
        // So many at once that the server can keep up; what is measured is how many there are.
        while tasks.len() >= 100 {
            open.extend(tasks.join_next().await.and_then(|done| done.ok().flatten()));
        }
    }
    while let Some(done) = tasks.join_next().await {
        open.extend(done.ok().flatten());
    }
    open
}

fn flooded(limit: usize) {
    let wanted = KINDS.iter().sum::<usize>() as u64 + 500;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let may = files.current.unwrap_or(u64::MAX);
    assert!(
        may >= wanted,
        "this test needs {wanted} open files, and {may} are allowed: ulimit -Hn"
    );
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    fs::create_dir(&plan.data).unwrap();
    fs::write(plan.data.join("strongroom.toml"), format!("connections = {limit}\n")).unwrap();
    let served = plan.start();
    let login = json!({"name": "admin", "password": served.told["passphrase"]});
    let (status, session) = ask(&served, "/v1/sessions", "", Some(login));
    assert_eq!(status, 201, "{session}");
    let token = session["token"].as_str().unwrap();
    let before = memory(&served, "VmRSS");

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut open = Vec::new();
    for (kind, count) in KINDS.into_iter().enumerate().rev() {
        open.extend(runtime.block_on(connect(&served, kind, count)));
        let (status, _) = ask(&served, "/healthz", "", None);
        assert_eq!(status, 200);
        let (status, jobs) = ask(&served, "/v1/jobs?limit=20", token, None);
        assert_eq!(status, 200, "{jobs}");
    }
    assert!(open.len() * 10 >= KINDS.iter().sum::<usize>() * 9, "{} came through", open.len());
    for _ in 0..20 {
        assert_eq!(ask(&served, "/v1/jobs?limit=20", token, None).0, 200);
    }
    // The control socket has places of its own.
    served.get("/v1/me");
    let (now, most) = (memory(&served, "VmRSS"), memory(&served, "VmHWM"));
    let held = limit.min(open.len()) as u64;
    eprintln!(
        "{} clients, {limit} places: {before} bytes before, {now} now, {most} at most",
        open.len()
    );
    assert!(most < before + OTHERS + held * EACH, "{most} bytes for {held} connections");
    runtime.shutdown_timeout(Duration::ZERO);
    drop(open);
    served.stop();
}

#[test]
fn ten_thousand_silent_clients_share_few_places_with_those_that_ask() {
    flooded(1000);
}

#[test]
fn ten_thousand_silent_clients_at_once_cost_little() {
    flooded(11_000);
}
