//! Licences: made by a vendor, checked by OpenSSL, set and shown by an appliance, and kept when it is
//! killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::served::{Served, ask};
use crate::support::{output, tool};
use crate::up::{run, until};

/// A vendor's keys and licences beside the data directory, and an appliance's configuration that
/// believes them.
pub(crate) fn vendor(data: &Path) -> String {
    fs::create_dir_all(data).unwrap();
    let well = |line: &str| {
        let (code, out, err) = run(data, line);
        assert_eq!(code, 0, "{line}: {err}");
        out
    };
    well("license keygen --private vendor.pem --public data/vendor.pub.pem");
    issue(data, "license.txt", "--users 20 --expires 2038-01-19");
    fs::write(data.join("strongroom.toml"), "license_keys = [\"vendor.pub.pem\"]\n").unwrap();
    fs::read_to_string(data.parent().unwrap().join("license.txt")).unwrap()
}

fn issue(data: &Path, file: &str, more: &str) {
    let line = format!(
        "license issue --key vendor.pem --serial 1 --app enterprise --name Enterprise@Company \
         --contact cto@enterprise --output {file} {more}"
    );
    let (code, _, err) = run(data, &line);
    assert_eq!(code, 0, "{line}: {err}");
}

#[test]
fn a_vendor_signs_and_an_appliance_believes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = |name: &str| dir.path().join(name);
    let text = vendor(&data);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&at("vendor.pem")), 0o600);
    // Keys are never written over.
    let line = "license keygen --private vendor.pem --public other.pem";
    let (code, _, err) = run(&data, line);
    assert!(code == 1 && err.contains("there already") && !at("other.pem").exists(), "{err}");

    // OpenSSL says the same of the signature.
    let (signed, signature) = text.split_once("Signature: ").unwrap();
    fs::write(at("signed"), signed).unwrap();
    let signature = data_encoding::BASE64.decode(signature.trim().as_bytes()).unwrap();
    fs::write(at("signature"), signature).unwrap();
    let mut openssl = tool("openssl");
    openssl.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "data/vendor.pub.pem"]);
    output(openssl.args(["-in", "signed", "-sigfile", "signature"]).current_dir(dir.path()));
    // And its keys are good for it.
    output(tool("openssl").args(["genpkey", "-algorithm", "ED25519", "-out"]).arg(at("own.pem")));
    let mut openssl = tool("openssl");
    output(
        openssl
            .arg("pkey")
            .arg("-in")
            .arg(at("own.pem"))
            .args(["-pubout", "-out"])
            .arg(at("own.pub")),
    );
    let line = "license issue --key own.pem --serial 1 --app a --users 1 --name n --contact c \
                --output own.txt";
    assert_eq!(run(&data, line).0, 0);
    assert_eq!(run(&data, "license verify own.txt --key own.pub").0, 0);

    let (code, out, _) = run(&data, "--json license verify license.txt --key data/vendor.pub.pem");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["users"], &told["state"]), (0, &json!(20), &json!("valid")));
    fs::write(at("forged.txt"), text.replace("Users: 20", "Users: 21")).unwrap();
    for file in ["forged.txt", "own.txt", "vendor.pem", "/dev/zero"] {
        let (code, _, err) =
            run(&data, &format!("license verify {file} --key data/vendor.pub.pem"));
        let said = err.contains("can't be taken") || err.contains("has more than 8192 bytes");
        assert!(code == 1 && said, "{file}: {err}");
    }

    let served = Served::start(&data);
    let (code, _, err) = run(&data, "license show");
    assert!(code != 0 && err.contains("there is no such licence"), "{err}");
    let (code, out, err) = run(&data, "license set license.txt");
    assert!(code == 0 && out.contains("valid") && out.contains("2038-01-19"), "{out}{err}");
    for file in ["forged.txt", "own.txt", "vendor.pem"] {
        let (code, _, err) = run(&data, &format!("license set {file}"));
        assert!(code != 0 && err.contains("can't be taken"), "{file}: {err}");
    }
    issue(&data, "over.txt", "--users 5 --issued 2019-01-01 --expires 2020-01-01");
    // It informs; nothing is switched off.
    let (code, out, _) = run(&data, "license set over.txt");
    assert!(code == 0 && out.contains("expired"), "{out}");
    let (_, out, _) = run(&data, "system health");
    assert!(out.contains("licence expired, its last day is 2020-01-01"), "{out}");
    served.stop();
    let served = Served::start(&data);
    let shown = ask(&data, "GET", "/v1/system/license", None).1;
    assert_eq!((&shown["users"], &shown["state"]), (&json!(5), &json!("expired")));
    served.stop();
}

#[test]
fn one_that_is_killed_has_the_old_one_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let old = vendor(&data);
    issue(&data, "new.txt", "--users 50 --expires 2038-01-19");
    let new = fs::read_to_string(dir.path().join("new.txt")).unwrap();
    for turn in 0..4 {
        let served = Served::start(&data);
        let set = |text: &str| ask(&data, "PUT", "/v1/system/license", Some(json!({"text": text})));
        assert_eq!(set(&old).0, 200);
        let counted = Arc::new(AtomicUsize::new(0));
        let set_so_far = Arc::clone(&counted);
        let (socket, texts) = (data.join("control.sock"), [new.clone(), old.clone()]);
        // It is set again and again until nobody answers any more.
        let setter = std::thread::spawn(move || {
            use std::io::{Read, Write};
            loop {
                let text = &texts[counted.load(Ordering::Relaxed) % 2];
                let body = json!({ "text": text }).to_string();
                let head = format!(
                    "PUT /v1/system/license HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                     content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let asked =
                    std::os::unix::net::UnixStream::connect(&socket).and_then(|mut stream| {
                        stream.write_all(head.as_bytes())?;
                        let mut answer = String::new();
                        stream.read_to_string(&mut answer)
                    });
                match asked {
                    Ok(length) if length > 0 => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    _ => return,
                }
            }
        });
        until("it is set", || set_so_far.load(Ordering::Relaxed) > 3 * turn);
        served.signal(Signal::KILL);
        setter.join().unwrap();
        drop(served);
        let kept = fs::read_to_string(dir.path().join("data/license.txt")).unwrap();
        assert!([&old, &new].contains(&&kept), "{kept}");
    }
    let served = Served::start(&data);
    assert_eq!(ask(&data, "GET", "/v1/system/license", None).0, 200);
    served.stop();
}
