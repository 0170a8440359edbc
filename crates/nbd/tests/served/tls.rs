//! TLS, as libnbd and QEMU speak it (GnuTLS), and the lack of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::support::{Client, Named, limits, name, outcome, run, tcp};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::PrivateKeyDer;
use strongroom_block::BlockDevice;
use strongroom_block::testing::MemoryDevice;
use strongroom_nbd::{Encryption, Options, Refused};

const ERR_TLS_REQD: u32 = (1 << 31) + 5;

/// An authority, and a directory of certificates as GnuTLS's users keep them.
struct Authority {
    dir: tempfile::TempDir,
    roots: RootCertStore,
    server: (Vec<rustls_pki_types::CertificateDer<'static>>, Vec<u8>),
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca-cert.pem"), authority.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let issue = |name: &str, key_usage| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![key_usage];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            (certificate, key)
        };
        let (server, server_key) = issue("127.0.0.1", rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = issue("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        fs::write(dir.path().join("client-cert.pem"), client.pem()).unwrap();
        fs::write(dir.path().join("client-key.pem"), client_key.serialize_pem()).unwrap();
        let server = (vec![server.der().clone()], server_key.serialize_der());
        Self { dir, roots, server }
    }

    fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        ask_clients: bool,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match ask_clients {
            true => {
                let roots = Arc::new(self.roots.clone());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            false => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(self.server.1.clone().into());
        Arc::new(builder.with_single_cert(self.server.0.clone(), key).unwrap())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn options(encryption: Encryption) -> Options {
    Options { encryption, limits: limits(), memory: None }
}

#[test]
fn nbdinfo_and_nbdcopy_speak_it() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let sent: Vec<u8> =
        (0..8_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    fs::write(&from, &sent).unwrap();
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let device = Arc::new(MemoryDevice::new(8 << 20));
        let demanded = options(Encryption::Demanded(authority.config(versions, false)));
        let (server, address) = tcp(Named::one(device.clone()), demanded);
        let url = format!("nbds://{address}/disk?tls-certificates={}", authority.path().display());
        run("nbdcopy", &[from.to_str().unwrap(), &url]);
        let mut held = vec![0; 8 << 20];
        device.read_at(0, &mut held).unwrap();
        assert!(held == sent);
        run("nbdcopy", &[&url, to.to_str().unwrap()]);
        assert!(fs::read(&to).unwrap() == sent);
        let told = run("nbdinfo", &["--json", &url]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["TLS"], &told["structured"]), (&true.into(), &true.into()));
        // Nothing is told to those who don't speak it.
        let plain = outcome("nbdinfo", &["--list", &format!("nbd://{address}")]);
        assert!(!plain.status.success());
        assert!(server.stop(crate::support::LONG));
    }
}

#[test]
fn qemu_speaks_it_with_a_certificate_of_its_own() {
    let authority = Authority::new();
    let device = Arc::new(MemoryDevice::new(8 << 20));
    let demanded = options(Encryption::Demanded(authority.config(&[&TLS13], true)));
    let named = Named::one(device);
    let turned = Arc::clone(&named.1);
    let (_server, address) = tcp(named, demanded);
    let io = |credentials: &str| {
        let driver = format!(
            "driver=nbd,host={},port={},export=disk,tls-creds=tls",
            address.ip(),
            address.port()
        );
        let commands = ["-c", "write -P 3 1M 2M", "-c", "read -P 3 1M 2M", "-c", "flush"];
        let arguments = [&["--object", credentials, "--image-opts"][..], &commands, &[&driver]];
        outcome("qemu-io", &arguments.concat())
    };
    let object =
        |dir: &Path| format!("tls-creds-x509,id=tls,endpoint=client,dir={}", dir.display());
    let good = io(&object(authority.path()));
    assert!(good.status.success(), "{good:?}");
    assert_eq!(*turned.lock().unwrap(), []);
    // Without one, and with another authority's, nobody gets in.
    let nothing = tempfile::tempdir().unwrap();
    fs::copy(authority.path().join("ca-cert.pem"), nothing.path().join("ca-cert.pem")).unwrap();
    assert!(!io(&object(nothing.path())).status.success());
    assert!(!io(&object(Authority::new().path())).status.success());
    // Both are told of, the one of them by what its side said.
    assert!(!outcome("nbdinfo", &["--list", &format!("nbd://{address}")]).status.success());
    let turned = turned.lock().unwrap();
    assert!(turned.len() >= 2, "{turned:?}");
    assert!(matches!(&turned[0], Refused::Tls(why) if why.contains("certificate")), "{turned:?}");
    assert_eq!(turned.last(), Some(&Refused::NoTls));
}

#[test]
fn what_was_said_before_tls_counts_for_nothing() {
    let authority = Authority::new();
    let config = authority.config(&[&TLS13, &TLS12], false);
    let disk = || Arc::new(MemoryDevice::new(1 << 20));
    let named = || Named::default().and("disk", disk()).and("secret", disk());
    let ask = |export: &str| [&name(export)[..], &[0, 0]].concat();

    let (_server, address) = tcp(named(), options(Encryption::Demanded(Arc::clone(&config))));
    let mut client = Client::greeted(address);
    for (option, data) in
        [(3, vec![]), (6, ask("disk")), (7, ask("disk")), (8, vec![]), (77, vec![])]
    {
        assert_eq!(client.option(option, &data)[0].0, ERR_TLS_REQD, "{option}");
    }
    assert_eq!(client.option(5, b"data")[0].0, (1 << 31) + 3);
    // What is no handshake ends it, even when it comes with the option.
    client.send_option(5, b"");
    client.send(&b"IHAVEOPT\0\0\0\x03\0\0\0\0".repeat(4));
    assert!(client.rest().len() < 64, "an acknowledgement and an alert");
    let mut client = Client::greeted(address);
    client.send_option(1, b"disk");
    assert_eq!(client.rest(), b"");
    // An old client can't speak it.
    let mut client = Client::connect(address);
    client.take(18);
    client.send(&[0; 4]);
    assert_eq!(client.option(5, b"")[0].0, (1 << 31) + 3);

    // Where it is offered, an export may demand it.
    let (_server, address) = tcp(named(), options(Encryption::Offered(config)));
    let mut client = Client::greeted(address);
    assert_eq!(client.option(6, &ask("secret"))[0].0, ERR_TLS_REQD);
    assert_eq!(client.option(6, &ask("disk")).last().unwrap().0, 1);
    let url = format!("nbds://{address}/secret?tls-certificates={}", authority.path().display());
    assert_eq!(run("nbdinfo", &["--size", &url]).trim(), "1048576");
    // And where it can't be had, nobody is told to speak it.
    let (_server, address) = tcp(named(), options(Encryption::None));
    assert_eq!(Client::greeted(address).option(6, &ask("secret"))[0].0, (1 << 31) + 2);
}
