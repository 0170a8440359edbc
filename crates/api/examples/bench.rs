//! How many requests a second the API answers, beside a bare handler that gives the same bytes.
//!
//! Both are served by the same server with the same limits and certificate, in this process; each
//! connection of the load is kept and asks as soon as it has its answer. The two take turns. Run by
//! `cargo xtask bench api`, with the databases (`sqlite`, `postgres`), how many seconds a turn takes and how
//! many turns each has.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "its output is the table")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use strongroom_api::server::{Certificate, Limits, Server, listen};
use strongroom_api::{App, KeySealer, Machine};
use strongroom_appliance::tls::TlsFiles;
use strongroom_appliance::{Administration, Parts, Services, Settings};
use strongroom_catalog::jobs::{self, NewJob};
use strongroom_catalog::testing::Fresh;
use strongroom_catalog::{Catalog, Engine};
use strongroom_identity::{ApplianceKey, Identity};
use strongroom_protect::{Options, Protect};
use strongroom_storage::Storage;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connections of the load.
const CLIENTS: usize = 8;
/// Jobs in the catalogue.
const JOBS: usize = 1000;
const PATH: &str = "/v1/jobs?limit=20";

type Asking = Request<Full<Bytes>>;
type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

fn job(organisation_id: i64, number: usize) -> NewJob {
    NewJob {
        kind: "backup".into(),
        organisation_id,
        user_name: "anna".into(),
        // It is never begun: nothing else happens while requests are counted.
        node: "no machine".into(),
        object: format!("series {number}"),
        parameters: serde_json::json!({"paths": [format!("/srv/data/{number}")], "tags": []}),
        ..NewJob::default()
    }
}

async fn appliance(dir: &std::path::Path, catalog: Catalog) -> (App, String) {
    let identity = Identity::open(catalog.clone(), ApplianceKey::from_bytes(&[7; 32])).await;
    let identity = identity.unwrap();
    let first = identity.first_run(None).await.unwrap().unwrap();
    let sealer = Arc::new(KeySealer(identity.clone()));
    let storage = Storage::new(catalog.clone(), sealer, "the benchmark").unwrap();
    let options = Options { sole: catalog.engine() == Engine::Sqlite, ..Options::default() };
    let tls = TlsFiles::open(&dir.join("box.pem"), &dir.join("box.key"));
    let parts = Parts::new(dir, tls);
    let protect = Protect::start_with(storage, parts.works(), options).await.unwrap();
    let organisation = identity.root().await.unwrap().id;
    for number in 0..JOBS {
        jobs::submit(&catalog, job(organisation, number)).await.unwrap();
    }
    let settings = Settings::open(identity.clone()).await.unwrap();
    let administration = Administration::new(parts, protect.clone());
    let setup = Default::default();
    let machine = Machine::of(dir, Vec::new(), setup, &identity, &settings, administration);
    let app = App::new(catalog, identity, protect, settings, machine);
    (app, first.passphrase.expose().to_owned())
}

async fn serve(router: Router, certificate: &Arc<Certificate>) -> (Server, SocketAddr) {
    let mut server = Server::new(router, Limits::default(), Services::default());
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    server.https(listener, Arc::clone(certificate)).unwrap();
    (server, address)
}

fn client(certificate: &std::path::Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn connect(client: &TlsConnector, address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = client.connect(name, stream).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut Sender, request: Asking) -> (u16, Bytes) {
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

fn request(token: &HeaderValue) -> Asking {
    let request = Request::get(PATH).header(header::HOST, "localhost");
    request.header(header::AUTHORIZATION, token.clone()).body(Full::default()).unwrap()
}

/// Logs in; the token, and what the list is.
async fn log_in(
    client: &TlsConnector,
    address: SocketAddr,
    password: &str,
) -> (HeaderValue, Bytes) {
    let mut sender = connect(client, address).await;
    let login = serde_json::json!({"name": "admin", "password": password}).to_string();
    let login = Request::post("/v1/sessions")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(login.into());
    let (status, session) = ask(&mut sender, login.unwrap()).await;
    assert_eq!(status, 201);
    let session: serde_json::Value = serde_json::from_slice(&session).unwrap();
    let token = format!("Bearer {}", session["token"].as_str().unwrap());
    let token = HeaderValue::from_str(&token).unwrap();
    let (status, body) = ask(&mut sender, request(&token)).await;
    assert_eq!(status, 200);
    (token, body)
}

/// Requests a second, of all clients together.
async fn load(
    client: &TlsConnector,
    address: SocketAddr,
    token: &HeaderValue,
    bytes: usize,
    turn: Duration,
) -> f64 {
    let mut senders = Vec::new();
    for _ in 0..CLIENTS {
        senders.push(connect(client, address).await);
    }
    let began = Instant::now();
    let tasks: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let token = token.clone();
            tokio::spawn(async move {
                let mut count = 0u64;
                while began.elapsed() < turn {
                    let (status, body) = ask(&mut sender, request(&token)).await;
                    assert!(status == 200 && body.len() == bytes, "{status}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / began.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let argument = |at: usize| std::env::args().nth(at);
    let number = |at: usize, usual: f64| argument(at).map_or(usual, |text| text.parse().unwrap());
    let (turn, turns) = (Duration::from_secs_f64(number(2, 2.0)), number(3, 7.0) as usize);
    let engines = match argument(1).as_deref() {
        Some("sqlite") => &[Engine::Sqlite][..],
        Some("postgres") => &[Engine::Postgres],
        _ => &[Engine::Sqlite, Engine::Postgres],
    };
    println!("GET {PATH}: {CLIENTS} connections, {turns} turns of {turn:?}\n");
    println!(
        "| database | bytes | bare handler, requests/s | Strongroom, requests/s | ratio (median of turns) |"
    );
    println!("|---|---|---|---|---|");
    for engine in engines {
        measure(*engine, turn, turns);
    }
}

/// Measures on one database, and prints its row.
fn measure(engine: Engine, turn: Duration, turns: usize) {
    let runtime = |threads| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all().build().unwrap()
    };
    let (serving, asking) = (runtime(2), runtime(1));
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let certificate = Arc::new(Certificate::open_or_make(&cert, &key, &[]).unwrap());
    let client = client(&cert);

    let fresh = serving.block_on(Fresh::new(engine));
    let catalog = serving.block_on(fresh.open());
    let (app, password) = serving.block_on(appliance(dir.path(), catalog));
    let (_ours, ours) =
        serving.block_on(serve(strongroom_api::router(&app, &Default::default()), &certificate));
    let (token, body) = asking.block_on(log_in(&client, ours, &password));
    let bytes = body.len();
    let bare = move || {
        let body = body.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], body) }
    };
    let bare = Router::new().route("/v1/jobs", get(bare));
    let (_bare, bare) = serving.block_on(serve(bare, &certificate));

    let (mut of_bare, mut of_ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let a = asking.block_on(load(&client, bare, &token, bytes, turn));
        let b = asking.block_on(load(&client, ours, &token, bytes, turn));
        of_bare.push(a);
        of_ours.push(b);
        ratios.push(b / a);
    }
    let (a, b, ratio) = (median(of_bare), median(of_ours), median(ratios));
    println!("| {engine:?} | {bytes} | {a:.0} | {b:.0} | {ratio:.2} |");
    serving.block_on(fresh.remove());
}
