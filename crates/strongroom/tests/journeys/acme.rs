//! A certificate of an authority, by ACME: asked for, proven, shown and kept. The authority is Pebble,
//! which Let's Encrypt tests clients with.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::jidoteki::make;
use crate::support::served::Served;
use crate::support::{output, tool};
use crate::up::run;

/// It ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> u16 {
    let some = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // The server of names takes both.
    let both = |port: &u16| UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(some).take(100).find(both).expect("a free port")
}

fn listens(port: u16) {
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "nobody listens at {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The authority, which keeps all that it knows in memory.
struct Authority {
    port: u16,
    pebble: Command,
    running: Option<Ended>,
    _names: Ended,
}

impl Authority {
    /// Starts it, with nothing that it knew.
    fn start(&mut self) {
        drop(self.running.take());
        self.running = Some(Ended(self.pebble.spawn().unwrap()));
        listens(self.port);
    }
}

/// Asks for proofs at this port, at this machine whatever the name is.
fn authority(dir: &Path, proofs: u16) -> Authority {
    make(dir, "authority", "ec", None);
    let file = |name: &str| dir.join(name).display().to_string();
    let (key, pem, ca, ca_key) =
        (file("ca.key"), file("ca.pem"), file("authority.pem"), file("authority.key"));
    output(tool("openssl").args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-keyout",
        &key,
        "-out",
        &pem,
    ]));
    let (names, manage, port, other) = (free(), free(), free(), free());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let mut dns = tool("pebble-challtestsrv");
    dns.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", ""]);
    dns.args(["-tlsalpn01", "", "-dns01", &at(names), "-management", &at(manage)]);
    let dns = dns.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let config = json!({"pebble": {
        "listenAddress": at(port),
        "managementListenAddress": at(other),
        "certificate": pem,
        "privateKey": key,
        "httpPort": proofs,
        "tlsPort": 1,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": false,
    }});
    fs::write(dir.join("pebble.json"), config.to_string()).unwrap();
    let mut pebble = tool("pebble");
    pebble.args(["-config", &file("pebble.json"), "-dnsserver", &at(names)]);
    // Some nonces are refused, as it happens; each order asks for its own proofs.
    pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "10");
    pebble.env("PEBBLE_AUTHZREUSE", "0");
    pebble.stdout(Stdio::null()).stderr(Stdio::null());
    let mut authority = Authority { port, pebble, running: None, _names: Ended(dns) };
    listens(manage);
    authority.start();
    authority
}

/// Has this configuration read.
fn configure(served: &Served, data: &Path, text: &str) {
    fs::write(data.join("strongroom.toml"), text).unwrap();
    let read = || served.log().matches("the configuration was read again").count();
    let before = read();
    served.signal(rustix::process::Signal::HUP);
    let end = Instant::now() + Duration::from_secs(30);
    while read() == before {
        assert!(Instant::now() < end, "it was not read again: {}", served.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn told(data: &Path, line: &str) -> Value {
    let (code, out, err) = run(data, &format!("--json {line}"));
    assert_eq!(code, 0, "{line}: {out} {err}");
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn an_authority_gives_a_certificate_that_is_shown_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let proofs = free();
    let mut authority = authority(dir.path(), proofs);
    let at = authority.port;

    let nothing = told(&data, "system certificate acme show");
    assert_eq!(nothing["directory"], Value::Null);
    let (code, _, err) = run(&data, "system certificate acme issue");
    assert!(code != 0 && err.contains("nothing is set"), "{err}");
    let set = format!(
        "system certificate acme set --domain box.example --domain other.example \
         --directory https://localhost:{at}/dir --ca-certificate authority.pem \
         --contact admin@box.example"
    );
    let (code, _, err) = run(&data, &set);
    assert!(code != 0 && err.contains("agree_to_terms"), "{err}");
    assert_eq!(told(&data, "system certificate acme show"), nothing);
    let now = told(&data, &format!("{set} --agree"));
    assert_eq!((&now["has_account"], &now["issued_at"]), (&json!(false), &Value::Null));

    // Where no listener answers, none is asked for.
    let (code, _, err) = run(&data, "system certificate acme issue");
    assert!(code != 0 && err.contains("redirect"), "{err}");
    let redirect = format!("redirect = \"127.0.0.1:{proofs}\"\n");
    configure(&served, &data, &redirect);

    let started = told(&data, "status")["started_at"].clone();
    let (code, out, err) = run(&data, "system certificate acme issue");
    assert_eq!(code, 0, "{out} {err} {}", served.log());
    let shown = told(&data, "system certificate show");
    // In the order of the authority.
    let mut names = shown["names"].as_array().unwrap().clone();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["box.example", "other.example"]);
    assert!(shown["issuer"].as_str().unwrap().contains("Pebble"), "{shown}");
    let url = served.told["urls"][0].as_str().unwrap().strip_prefix("https://").unwrap();
    let script = r#"openssl s_client -connect "$1" </dev/null 2>/dev/null |
        openssl x509 -noout -ext subjectAltName"#;
    let names = output(tool("sh").args(["-c", script, "sh", url]));
    assert!(String::from_utf8(names).unwrap().contains("DNS:box.example"));
    assert_eq!(told(&data, "status")["started_at"], started, "it was not started anew");
    let now = told(&data, "system certificate acme show");
    assert_eq!((&now["has_account"], &now["error"]), (&json!(true), &Value::Null));
    let day = |field: &str| now[field].as_str().unwrap().to_owned();
    assert!(day("issued_at") < day("renew_at") && day("renew_at") < day("expires_at"), "{now}");

    // With the account of before; and with another, when the authority no longer knows that.
    assert_eq!(run(&data, "system certificate acme issue").0, 0);
    let before = told(&data, "system certificate show")["sha256"].clone();
    assert_ne!(before, shown["sha256"]);
    authority.start();
    let (code, out, err) = run(&data, "system certificate acme issue");
    assert_eq!(code, 0, "{out} {err} {}", served.log());
    let other = told(&data, "system certificate show")["sha256"].clone();
    assert_ne!(before, other);
    let before = other;

    // When nobody can prove anything, what there is stays: it is asked elsewhere, and nowhere.
    configure(&served, &data, &format!("redirect = \"127.0.0.1:{}\"\n", free()));
    let (code, out, err) = run(&data, "system certificate acme issue");
    assert!(code != 0, "{out}");
    let now = told(&data, "system certificate acme show");
    let error = now["error"].as_str().unwrap_or_default();
    assert!(error.contains("box.example") || error.contains("other.example"), "{now} {err}");
    configure(&served, &data, "");
    let (code, _, err) = run(&data, "system certificate acme issue");
    assert!(code != 0 && err.contains("redirect"), "{err}");
    assert_eq!(told(&data, "system certificate show")["sha256"], before);

    // The account's key is sealed, and in no log.
    let sealed = fs::read(data.join("acme.sealed")).unwrap();
    for word in [&b"pkcs8"[..], b"box.example"] {
        assert!(!sealed.windows(word.len()).any(|window| window == word));
    }
    assert!(!served.log().contains("pkcs8") && !served.log().contains("PRIVATE"));
    assert_eq!(run(&data, "system certificate acme clear").0, 0);
    assert_eq!(told(&data, "system certificate acme show"), nothing);
    served.stop();
}
