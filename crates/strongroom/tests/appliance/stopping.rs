//! Stopping, starting twice, and a certificate that is replaced: through the real process.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::process::{Plan, Served, ask, make_pool, until};
use crate::support::noise;

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    let first = plan.start();
    let why = plan.try_start().err().unwrap();
    let holder = format!("process {} serves {}", first.id(), plan.data.display());
    assert!(why.contains(&holder), "{why}");
    // The first was not disturbed; when it is killed, another may follow at once.
    first.get("/v1/me");
    first.kill();
    plan.start().stop();
}

#[test]
fn jobs_that_run_when_it_stops_go_on_when_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for number in 0..4 {
        std::fs::write(source.join(format!("file{number}")), noise(number, 10_000_000)).unwrap();
    }
    let served = plan.start();
    let pool = make_pool(&served, &dir.path().join("pool"));
    let end = |served: &Served, job: &Value| {
        until("the job's end", || {
            let job = served.get(&format!("/v1/jobs/{job}"));
            (!["queued", "running"].contains(&job["state"].as_str().unwrap())).then_some(job)
        })
    };
    let body = json!({"paths": [source], "name": "kept"});
    let job = served.post(&format!("/v1/pools/{pool}/backups"), &body)["id"].clone();
    assert_eq!(end(&served, &job)["state"], "succeeded");
    // One that takes its time, and can stop anywhere.
    let scrub = format!("/v1/pools/{pool}/scrub");
    let job = served.post(&scrub, &json!({"rate": 8_000_000}))["id"].clone();
    until("the job's first bytes", || {
        let job = served.get(&format!("/v1/jobs/{job}"));
        (job["state"] == "running" && job["progress"]["bytes_done"] != 0).then_some(())
    });
    let took = served.stop();
    assert!(took < Duration::from_secs(30), "{took:?}");

    let served = plan.start();
    let over = end(&served, &job);
    assert_eq!(over["state"], "succeeded", "{over}");
    let begun = format!("/v1/events?filter=job_id:=={job}&filter=kind:==job.started&count=true");
    assert_eq!(served.get(&begun)["count"], 2, "it was cut off, and taken up again");
    served.stop();
}

#[test]
fn a_request_sent_again_after_a_kill_finds_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    let served = plan.start();
    let pool = make_pool(&served, &dir.path().join("pool"));
    let path = format!("/v1/pools/{pool}/backups");
    let body = json!({"paths": [plan.data.join("tls")], "name": "tls"});
    let send = || ask(&plan.data, "POST", &path, &[("idempotency-key", "once")], Some(&body));
    let first = send().unwrap();
    served.kill();
    let served = plan.start();
    let again = send().unwrap();
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.body["id"], again.body["id"]);
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    assert_eq!(served.get("/v1/jobs?count=true")["count"], 1);
}

/// What the server shows at a new connection.
async fn shown(served: &Served, client: &tokio_rustls::TlsConnector) -> Vec<u8> {
    let stream = connect(served, client).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn connect(
    served: &Served,
    client: &tokio_rustls::TlsConnector,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(served.address()).await.unwrap();
    client.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

#[test]
fn a_certificate_is_replaced_while_connections_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    let others: Vec<_> = (0..2)
        .map(|number| {
            let data = dir.path().join(format!("other{number}"));
            Plan::new(data.clone()).start().stop();
            data.join("tls")
        })
        .collect();
    let served = plan.start();
    let tls = plan.data.join("tls");
    let der = |dir: &std::path::Path| {
        CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap().to_vec()
    };
    let own = der(&tls);
    let mut roots = rustls::RootCertStore::empty();
    for der in [own.clone(), der(&others[0]), der(&others[1])] {
        roots.add(CertificateDer::from(der)).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = tokio_rustls::TlsConnector::from(Arc::new(config));
    let replace = |from: &std::path::Path| {
        for name in ["key.pem", "cert.pem"] {
            // As tools for certificates do: whole files, renamed.
            std::fs::copy(from.join(name), tls.join("new")).unwrap();
            std::fs::rename(tls.join("new"), tls.join(name)).unwrap();
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert_eq!(shown(&served, &client).await, own);
        let io = TokioIo::new(connect(&served, &client).await);
        let (mut old, driver) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(driver);
        // Asked for, by a signal.
        replace(&others[0]);
        served.signal(Signal::HUP);
        let began = std::time::Instant::now();
        while shown(&served, &client).await != der(&others[0]) {
            assert!(began.elapsed() < crate::process::PATIENCE, "the signal did nothing");
        }
        // By itself.
        replace(&others[1]);
        let began = std::time::Instant::now();
        while shown(&served, &client).await != der(&others[1]) {
            assert!(began.elapsed() < crate::process::PATIENCE, "it was not noticed");
        }
        // What cannot be used changes nothing.
        std::fs::write(tls.join("cert.pem"), "nothing").unwrap();
        served.signal(Signal::HUP);
        let began = std::time::Instant::now();
        while !served.log().contains("stays as it was") {
            assert!(began.elapsed() < crate::process::PATIENCE, "it is not said");
            tokio::task::yield_now().await;
        }
        assert_eq!(shown(&served, &client).await, der(&others[1]));
        let request = hyper::Request::get("/healthz").header("host", "localhost");
        let answer = old.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await;
        let answer = answer.expect("the first connection is still open");
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
    });
    served.stop();
}
