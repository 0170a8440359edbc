//! Scripts for Jidoteki Admin: the calls of its document, by curl.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::license::vendor;
use crate::support::served::Served;
use crate::support::{output, tool};
use crate::up::run;

fn text(command: &mut Command) -> String {
    String::from_utf8(output(command)).unwrap()
}

/// What curl prints, of a call below the prefix.
pub(crate) fn curl(served: &Served, method: &str, path: &str, more: &[&str]) -> (u16, String) {
    let url = served.told["urls"][0].as_str().unwrap();
    let mut curl = tool("curl");
    curl.args(["-sk", "--max-time", "30", "-w", "\n%{http_code}", "-X", method]);
    let out = text(curl.args(more).arg(format!("{url}/api/v1/admin{path}")));
    let (body, status) = out.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// As the document says: `openssl dgst`.
pub(crate) fn hash(token: &str, text: &str) -> String {
    let digest = |text: &str, key: &[&str]| {
        let script = r#"printf %s "$1" | openssl dgst -sha256 ${2:+-hmac "$2"}"#;
        let mut sh = Command::new("sh");
        let out = self::text(sh.args(["-c", script, "sh", text]).args(key));
        out.trim().rsplit(' ').next().unwrap().to_owned()
    };
    digest(text, &[&digest(token, &[])])
}

#[test]
fn the_calls_of_the_document_are_answered_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    vendor(&data);
    let served = Served::start(&data);
    let phrase = served.told["setup_passphrase"].as_str().unwrap();
    assert_eq!(phrase.split('-').count(), 4);

    // 1. Setup.
    let (status, body) = curl(&served, "GET", "/version?token=yourtoken", &[]);
    assert_eq!(status, 403);
    assert!(body.ends_with(r#""First-Run":true}"#), "{body}");
    let setup = |token: &str, new: &str| {
        let new = format!("newtoken={new}");
        curl(&served, "POST", &format!("/setup?token={token}"), &["-F", &new])
    };
    let done = (200, r#"{"Status":"200 OK"}"#.to_owned());
    assert_eq!(setup(phrase, "firsttoken"), done);
    // 2. Authentication: the token is changed by itself, or by its hash.
    assert_eq!(setup("firsttoken", "secondtoken"), done);
    let signed = hash("secondtoken", "POST/api/v1/admin/setup");
    let path = format!("/setup?hash={signed}");
    assert_eq!(curl(&served, "POST", &path, &["-F", "newtoken=yourtoken"]), done);
    let hash = hash("yourtoken", "GET/api/v1/admin/version");
    assert_eq!(hash, "b714a60732e096ccef06e360eefe0f1ba4fa5d16ef7da726612e2026e5523241");
    let (status, body) = curl(&served, "GET", &format!("/version?hash={hash}"), &[]);
    let version = format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert_eq!((status, body), (200, version));

    // 6 and 7. What there is to be told.
    let get = |path: &str| curl(&served, "GET", &format!("{path}?token=yourtoken"), &[]);
    let (status, services) = get("/services");
    assert_eq!(status, 200);
    let services: Value = serde_json::from_str(&services).unwrap();
    let running: Vec<_> = services["services"].as_array().unwrap().iter().collect();
    for name in ["jidoteki-admin-api", "https", "control"] {
        assert!(running.contains(&&json!({ name: "running" })), "{running:?}");
    }
    for path in ["/changelog", "/build", "/health", "/endpoints"] {
        assert_eq!(get(path).0, 200, "{path}");
    }
    // 4. Support; what is in it is looked at elsewhere.
    let archive = dir.path().join("logs.tar.gz");
    let (head, file) = (dir.path().join("head"), archive.to_str().unwrap());
    let kept = ["-D", head.to_str().unwrap(), "-o", file];
    assert_eq!(curl(&served, "GET", "/logs?token=yourtoken", &kept).0, 200);
    let head = std::fs::read_to_string(head).unwrap().to_ascii_lowercase();
    for line in ["content-type: application/octet-stream", "filename: logs.tar.gz"] {
        assert!(head.lines().any(|told| told == line), "{line}: {head}");
    }
    output(tool("tar").args(["-tzf", file]));
    let (status, body) = get("/debug");
    assert!(status == 400 && body.contains("support_key"), "{body}");
    // 10. The licence.
    let license = |file: &str| {
        let field = format!("license=@{}", dir.path().join(file).display());
        curl(&served, "POST", "/license?token=yourtoken", &["-F", &field])
    };
    assert_eq!(get("/license"), (404, r#"{"Status":"404 Not Found"}"#.into()));
    let shown = concat!(
        r#"{"app":"enterprise","users":20,"expires":"19 January 2038","#,
        r#""name":"Enterprise@Company","contact":"cto@enterprise"}"#
    );
    assert_eq!(license("license.txt"), (200, shown.into()));
    std::fs::write(dir.path().join("bad.asc"), "-----BEGIN PGP MESSAGE-----\n").unwrap();
    assert_eq!(license("bad.asc").0, 400);
    assert_eq!(get("/license"), (200, shown.into()));
    let none = curl(&served, "POST", "/license?token=yourtoken", &["-F", "x=1"]);
    assert_eq!(none, (400, r#"{"Status":"400 Bad Request"}"#.into()));
    assert_eq!(get("/nothing"), (404, r#"{"Status":"404 Not Found"}"#.into()));

    // What is not shown again is not shown again; the token holds over a start.
    served.stop();
    let served = Served::start(&data);
    assert_eq!(served.told["setup_passphrase"], Value::Null);
    assert_eq!(curl(&served, "GET", "/version?token=yourtoken", &[]).0, 200);
    native(&data, &served);
    assert!(!served.log().contains("yourtoken"), "{}", served.log());
    served.stop();
}

/// What the server shows to who connects now.
pub(crate) fn subject(served: &Served) -> String {
    let url = served.told["urls"][0].as_str().unwrap();
    let address = url.strip_prefix("https://").unwrap();
    let script = r#"openssl s_client -connect "$1" </dev/null 2>/dev/null |
        openssl x509 -noout -subject -nameopt multiline | sed -n 's/ *commonName *= //p'"#;
    text(tool("sh").args(["-c", script, "sh", address])).trim().to_owned()
}

/// A certificate that openssl makes, signed by another if one is named, and its key.
pub(crate) fn make(dir: &Path, name: &str, kind: &str, by: Option<&str>) {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut args = vec!["req", "-x509", "-newkey", kind, "-nodes", "-days", "9", "-subj"];
    let (subject, key, out) =
        (format!("/CN={name}"), file(&format!("{name}.key")), file(&format!("{name}.pem")));
    args.extend([&*subject, "-keyout", &key, "-out", &out]);
    if kind == "ec" {
        args.extend(["-pkeyopt", "ec_paramgen_curve:P-256"]);
    }
    let by = by.map(|by| (file(&format!("{by}.pem")), file(&format!("{by}.key"))));
    if let Some((pem, key)) = &by {
        args.extend(["-CA", pem, "-CAkey", key, "-addext", "basicConstraints=CA:FALSE"]);
    }
    output(tool("openssl").args(args));
}

#[test]
fn certificates_are_replaced_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    std::fs::write(dir.path().join("token"), "yourtoken\n").unwrap();
    assert_eq!(run(&data, "system token set --token-file token").0, 0);
    make(dir.path(), "authority", "ec", None);
    make(dir.path(), "one.example", "rsa:2048", Some("authority"));
    make(dir.path(), "two.example", "ec", Some("authority"));
    let log = || {
        let path = "/certs?token=yourtoken";
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let shown: Value = serde_json::from_str(&curl(&served, "GET", path, &[]).1).unwrap();
            if shown["status"] != "running" {
                return shown;
            }
            assert!(std::time::Instant::now() < end, "{shown}");
        }
    };
    let post = |public: &str, private: &str, ca: &str| {
        let part = |name: &str, file: &str| format!("{name}=@{}", dir.path().join(file).display());
        let parts = [part("public", public), part("private", private), part("ca", ca)];
        let parts: Vec<_> = parts.iter().flat_map(|part| ["-F", part]).collect();
        curl(&served, "POST", "/certs?token=yourtoken", &parts).0
    };
    for name in ["one.example", "two.example"] {
        assert_eq!(post(&format!("{name}.pem"), &format!("{name}.key"), "authority.pem"), 202);
        assert_eq!(log()["status"], "success", "{}", log());
        assert_eq!(subject(&served), name);
    }
    // What can't be shown leaves what is shown.
    assert_eq!(post("one.example.pem", "two.example.key", "authority.pem"), 202);
    assert_eq!(log()["status"], "failed");
    assert_eq!(subject(&served), "two.example");
    let replace = "--json system certificate replace --certificate one.example.pem \
                   --key one.example.key --chain authority.pem";
    let (code, out, err) = run(&data, replace);
    assert_eq!(code, 0, "{err}");
    let done: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(done["certificate"]["key"], "RSA 2048");
    assert_eq!(subject(&served), "one.example");
    let log = served.log();
    served.stop();
    let served = Served::start(&data);
    assert_eq!(subject(&served), "one.example");
    let secret = std::fs::read_to_string(dir.path().join("two.example.key")).unwrap();
    assert!(!log.contains(secret.lines().nth(1).unwrap()));
}

/// What an administrator does with it.
fn native(data: &Path, served: &Served) {
    let system = |words: &str| {
        let (code, out, err) = run(data, &format!("--json system token {words}"));
        assert_eq!(code, 0, "{words}: {err}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let shown = system("show");
    assert_eq!(shown["state"], "set");
    // The key that it is can be switched off.
    let key = shown["key_id"].to_string();
    let (code, _, err) = run(data, &format!("keys disable {key}"));
    assert_eq!(code, 0, "{err}");
    assert_eq!(curl(served, "GET", "/version?token=yourtoken", &[]).0, 403);
    let phrase = system("reset --yes")["passphrase"].as_str().unwrap().to_owned();
    assert_eq!(system("show")["state"], "first_run");
    assert_eq!(curl(served, "GET", &format!("/version?token={phrase}"), &[]).0, 403);
    std::fs::write(data.parent().unwrap().join("token"), "othertoken\n").unwrap();
    system("set --token-file token");
    assert_eq!(system("show")["enabled"], true);
    assert_eq!(curl(served, "GET", "/version?token=othertoken", &[]).0, 200);
}
