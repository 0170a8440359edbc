//! The server as clients meet it: TLS in both versions of HTTP, the control socket, the redirect,
//! clients that mean harm.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/served.rs"]
mod served;

use std::time::Duration;

use http::{StatusCode, Version};
use served::{Running, ask, start, tls};
use strongroom_api::server::{Certificate, Limits, connect_control};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn both_versions_are_spoken_and_peers_are_known() {
    let running = start(Limits::default()).await;
    let (status, body) = ask(tls(&running, b"http/1.1").await, Version::HTTP_11, "/").await;
    assert!(status == StatusCode::OK && body.starts_with("Network(127.0.0.1:"), "{body}");
    let (status, body) = ask(tls(&running, b"h2").await, Version::HTTP_2, "/").await;
    assert!(status == StatusCode::OK && body.starts_with("Network(127.0.0.1:"), "{body}");
    let stream = connect_control(&running.dir.path().join("control.sock")).await.unwrap();
    let (_, body) = ask(stream, Version::HTTP_11, "/").await;
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(body, format!("Local {{ uid: {uid} }}"));
}

#[tokio::test]
async fn plain_http_only_redirects() {
    let running = start(Limits::default()).await;
    let mut stream = TcpStream::connect(running.http).await.unwrap();
    let request = "GET /v1?a=b HTTP/1.1\r\nhost: box\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let location = format!("location: https://box:{}/v1?a=b\r\n", running.https.port());
    assert!(answer.starts_with("HTTP/1.1 308 ") && answer.contains(&location), "{answer}");
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart() {
    let running = start(Limits::default()).await;
    let before = running.certificate.fingerprint();
    let at = |name: &str| running.dir.path().join(name);
    std::fs::remove_file(at("cert.pem")).unwrap();
    std::fs::remove_file(at("key.pem")).unwrap();
    Certificate::open_or_make(&at("cert.pem"), &at("key.pem"), &[]).unwrap();
    running.certificate.reload().unwrap();
    assert_ne!(running.certificate.fingerprint(), before);
    // The client trusts the file as it is now: with the old certificate this would fail.
    let (status, _) = ask(tls(&running, b"http/1.1").await, Version::HTTP_11, "/").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn silent_clients_keep_nobody_out() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let running = start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(running.https).await.unwrap());
    }
    let (status, _) = ask(tls(&running, b"http/1.1").await, Version::HTTP_11, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(running.server.connections() <= 8);
}

#[tokio::test]
async fn slow_heads_and_huge_heads_end() {
    let limits = Limits { header: Duration::from_millis(50), ..Limits::default() };
    let running = start(limits).await;
    let mut slow = tls(&running, b"http/1.1").await;
    slow.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let mut rest = Vec::new();
    // The server ends it; nobody else would.
    let _ = slow.read_to_end(&mut rest).await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");

    let mut huge = tls(&running, b"http/1.1").await;
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let _ = huge.write_all(head.as_bytes()).await;
    let mut answer = vec![0; 12];
    // Either it is told, or the connection was reset while it was still sending.
    if huge.read_exact(&mut answer).await.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    let (status, _) = ask(tls(&running, b"h2").await, Version::HTTP_2, "/").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn stopping_lets_requests_end_and_takes_no_new_ones() {
    let running = start(Limits::default()).await;
    let stream = tls(&running, b"http/1.1").await;
    let Running { server, services, https, go, begun, dir: _dir, .. } = running;
    assert!(services.list().iter().all(|service| service.listening));
    let request = tokio::spawn(async move { ask(stream, Version::HTTP_11, "/wait").await });
    begun.notified().await;
    let stopping = tokio::spawn(server.stop(Duration::from_secs(60)));
    // The listener is closed at once, while the request goes on.
    while TcpStream::connect(https).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished() && !request.is_finished());
    assert!(services.list().iter().any(|service| service.name == "https" && !service.listening));
    go.notify_one();
    assert_eq!(request.await.unwrap(), (StatusCode::OK, "done".to_owned()));
    stopping.await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let running = start(Limits::default()).await;
    let stream = tls(&running, b"h2").await;
    let Running { server, begun, dir: _dir, go: _go, .. } = running;
    let request = tokio::spawn(async move { ask(stream, Version::HTTP_2, "/wait").await });
    begun.notified().await;
    server.stop(Duration::from_millis(20)).await;
    assert!(request.await.is_err(), "it was cut off");
}
