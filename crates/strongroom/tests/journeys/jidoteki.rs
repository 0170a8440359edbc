//! Scripts for Jidoteki Admin: the calls of its document, by curl.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::served::Served;
use crate::support::{output, tool};
use crate::up::run;

fn text(command: &mut Command) -> String {
    String::from_utf8(output(command)).unwrap()
}

/// What curl prints, of a call below the prefix.
fn curl(served: &Served, method: &str, path: &str, more: &[&str]) -> (u16, String) {
    let url = served.told["urls"][0].as_str().unwrap();
    let mut curl = tool("curl");
    curl.args(["-sk", "--max-time", "30", "-w", "\n%{http_code}", "-X", method]);
    let out = text(curl.args(more).arg(format!("{url}/api/v1/admin{path}")));
    let (body, status) = out.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// As the document says: `openssl dgst`.
fn hash(token: &str, text: &str) -> String {
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
