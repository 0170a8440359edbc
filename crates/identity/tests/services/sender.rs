//! The audit trail, sent to a collector as it grows.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use strongroom_catalog::testing;
use strongroom_identity::{Deed, Error, Identity, Protocol, SenderSettings};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::world::World;

/// How long a line may take.
const LONG: Duration = Duration::from_secs(30);

/// Ends with the test.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn sending(identity: &Identity) -> Task {
    let identity = identity.clone();
    Task(tokio::spawn(async move { identity.send_audit("box").await }))
}

/// Counted messages (RFC 6587), until the stream ends.
async fn collect(mut stream: impl AsyncRead + Unpin, to: mpsc::UnboundedSender<String>) {
    loop {
        let mut length = 0;
        loop {
            match stream.read_u8().await {
                Ok(b' ') => break,
                Ok(digit) => length = length * 10 + usize::from(digit - b'0'),
                Err(_) => return,
            }
        }
        let mut message = vec![0; length];
        if stream.read_exact(&mut message).await.is_err() {
            return;
        }
        if to.send(String::from_utf8(message).unwrap()).is_err() {
            return;
        }
    }
}

/// The number of the line of a message.
fn number(message: &str) -> i64 {
    assert!(message.starts_with("<109>1 ") && message.contains(" box strongroom - "), "{message}");
    let (_, rest) = message.split_once("[audit@32473 line=\"").unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

async fn next(from: &mut mpsc::UnboundedReceiver<String>) -> i64 {
    number(&tokio::time::timeout(LONG, from.recv()).await.expect("a line comes").unwrap())
}

async fn write(world: &World, object: &str) {
    world.identity.record(&world.admin, Deed::new("images.delete", object)).await.unwrap();
}

fn to(protocol: Protocol, port: u16, ca_certificate: Option<String>) -> SenderSettings {
    SenderSettings { protocol, host: "127.0.0.1".into(), port, ca_certificate }
}

#[tokio::test]
async fn lines_come_in_order_and_what_was_missed_comes_later() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let identity = &world.identity;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, mut lines) = mpsc::unbounded_channel();
        identity
            .set_audit_sender(&world.admin, to(Protocol::Tcp, port, None), Some(0), None)
            .await
            .unwrap();
        // Two nodes; one of them sends.
        let other = world.another_node().await;
        let _nodes = [sending(identity), sending(&other)];
        let (stream, _) = listener.accept().await.unwrap();
        let reading = tokio::spawn(collect(stream, sender.clone()));
        // The first run, the login, and that it is sent.
        for expected in 1..=3 {
            assert_eq!(next(&mut lines).await, expected);
        }
        write(&world, "image 4").await;
        assert_eq!(next(&mut lines).await, 4);
        let state = async || identity.audit_sender().await.unwrap().unwrap();
        let end = tokio::time::Instant::now() + LONG;
        while state().await.behind > 0 {
            assert!(tokio::time::Instant::now() < end, "{:?}", state().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The collector is down.
        reading.abort();
        let _ = reading.await;
        drop(listener);
        write(&world, "image 5").await;
        let end = tokio::time::Instant::now() + LONG;
        while state().await.row.trouble.is_none() {
            assert!(tokio::time::Instant::now() < end, "{:?}", state().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        write(&world, "image 6").await;
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let _reading = Task(tokio::spawn(collect(stream, sender)));
        assert_eq!(next(&mut lines).await, 5);
        assert_eq!(next(&mut lines).await, 6);
    })
    .await;
}

#[tokio::test]
async fn in_tls_and_in_datagrams_and_to_nobody_else() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let identity = &world.identity;
        let _node = sending(identity);

        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = KeyPair::generate().unwrap();
        let ca = params.self_signed(&authority).unwrap().pem();
        let issuer = Issuer::new(params, authority);
        let own = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&own, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls_pki_types::PrivateKeyDer::try_from(own.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, mut lines) = mpsc::unbounded_channel();
        let _collector = Task(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    collect(stream, sender.clone()).await;
                }
            }
        }));
        // Nobody this machine trusts vouches for it: it gets nothing.
        let admin = &world.admin;
        identity.set_audit_sender(admin, to(Protocol::Tls, port, None), None, None).await.unwrap();
        let end = tokio::time::Instant::now() + LONG;
        loop {
            let state = identity.audit_sender().await.unwrap().unwrap();
            if state.row.trouble.is_some_and(|why| why.contains("certificate")) {
                break;
            }
            assert!(tokio::time::Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(lines.try_recv().is_err());
        // Then what it missed: from the line that set it up.
        identity
            .set_audit_sender(admin, to(Protocol::Tls, port, Some(ca)), None, None)
            .await
            .unwrap();
        assert_eq!(next(&mut lines).await, 3);
        assert_eq!(next(&mut lines).await, 4);

        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        identity.set_audit_sender(admin, to(Protocol::Udp, port, None), None, None).await.unwrap();
        let mut datagram = vec![0; 65_536];
        let received = tokio::time::timeout(LONG, socket.recv(&mut datagram)).await;
        let length = received.expect("a line comes").unwrap();
        let message = String::from_utf8(datagram[..length].to_vec()).unwrap();
        // One or two that the other had may come again.
        assert!(number(&message) >= 3 && message.contains("audit_sender.set"), "{message}");

        identity.remove_audit_sender(admin, None).await.unwrap();
        assert_eq!(identity.audit_sender().await.unwrap(), None);
        assert!(matches!(
            identity.remove_audit_sender(admin, None).await,
            Err(Error::NotFound { .. })
        ));
        world.user("op", "operator", world.root).await;
        let op = world.log_in("op", crate::world::PASSWORD).await.unwrap();
        let refused =
            identity.set_audit_sender(&op, to(Protocol::Udp, port, None), None, None).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })));
        let odd = SenderSettings { host: "a b".into(), ..to(Protocol::Udp, port, None) };
        let odd = identity.set_audit_sender(admin, odd, None, None).await;
        assert!(matches!(odd, Err(Error::Invalid { field: "host", .. })));
    })
    .await;
}
