//! Every line of curl in the document of Jidoteki Admin, in its order, as it stands there: once with the
//! hash, once with the token.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::jidoteki::{curl, hash, make};
use crate::license::vendor;
use crate::support::served::Served;
use crate::support::{output, tool};

/// The lines, without `curl -X` and what comes before the path; files are those of [`files`].
const LINES: &[(&str, &str, &[&str])] = &[
    ("POST", "/setup", &["newtoken=yourtoken"]),
    ("POST", "/update", &["update=@software_package.enc"]),
    ("GET", "/update", &[]),
    ("GET", "/update/log", &[]),
    ("GET", "/logs", &[]),
    ("GET", "/debug", &[]),
    ("GET", "/services", &[]),
    ("GET", "/version", &[]),
    ("GET", "/changelog", &[]),
    ("GET", "/build", &[]),
    ("GET", "/health", &[]),
    ("GET", "/endpoints", &[]),
    ("POST", "/settings", &["settings=@settings.json"]),
    ("GET", "/settings", &[]),
    ("POST", "/certs", &["public=@host.pem", "private=@host.key", "ca=@authority.pem"]),
    ("GET", "/certs", &[]),
    ("POST", "/license", &["license=@license.txt"]),
    ("GET", "/license", &[]),
    ("POST", "/storage", &["settings=@storage.json"]),
    ("GET", "/storage", &[]),
    ("POST", "/backup", &["action=START"]),
    ("GET", "/backup", &[]),
    ("GET", "/backup/download", &[]),
    ("GET", "/backup/log", &[]),
    ("POST", "/backup/restore", &["archive=@backup.tar"]),
    ("GET", "/reboot", &[]),
];

/// What a job does, and is asked for until it is done.
const LATER: [&str; 5] = ["/update", "/settings", "/certs", "/storage", "/backup"];

fn files(dir: &Path, data: &Path) {
    vendor(data);
    make(dir, "authority", "ec", None);
    make(dir, "host", "rsa:2048", Some("authority"));
    let file = |name: &str| dir.join(name).display().to_string();
    let key = file("support.pem");
    output(tool("openssl").args(["genrsa", "-out", &key, "2048"]));
    let public = data.join("support.pub.pem").display().to_string();
    output(tool("openssl").args(["rsa", "-in", &key, "-pubout", "-out", &public]));
    let config = data.join("strongroom.toml");
    let text = fs::read_to_string(&config).unwrap();
    let more = "host_driver = \"none\"\nsupport_key = \"support.pub.pem\"\n";
    fs::write(config, text + more).unwrap();
    fs::write(dir.join("software_package.enc"), [7; 5000]).unwrap();
    let settings = include_str!("../../../api/tests/jidoteki-settings.json");
    fs::write(dir.join("settings.json"), settings).unwrap();
    let storage = r#"{"storage":{"type":"local"}}"#;
    fs::write(dir.join("storage.json"), storage).unwrap();
}

/// Sends one line as the document has it.
fn send(served: &Served, dir: &Path, by: &str, line: &(&str, &str, &[&str])) -> (u16, String) {
    let (method, path, fields) = line;
    let query = match by {
        "hash" => format!("hash={}", hash("yourtoken", &format!("{method}/api/v1/admin{path}"))),
        _ => "token=yourtoken".to_owned(),
    };
    let mut more = Vec::new();
    for field in *fields {
        let field = match field.split_once("=@") {
            Some((name, file)) => format!("{name}=@{}", dir.join(file).display()),
            None => (*field).to_owned(),
        };
        more.extend(["-F".to_owned(), field]);
    }
    let kept = dir.join("kept").display().to_string();
    if ["/logs", "/debug", "/backup/download"].contains(path) {
        more.extend(["-o".to_owned(), kept]);
    }
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    curl(served, method, &format!("{path}?{query}"), &more)
}

#[test]
fn each_line_of_the_document_is_answered_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, data) = (dir.path(), dir.path().join("data"));
    files(dir, &data);
    let mut served = Served::start(&data);
    let phrase = served.told["setup_passphrase"].as_str().unwrap();
    // The first line of all has no token, and is for a first run that is open; here it has a passphrase.
    let first = curl(&served, "POST", "/setup", &["-F", "newtoken=yourtoken"]);
    assert_eq!(first.0, 403, "{}", first.1);
    let path = format!("/setup?token={phrase}");
    assert_eq!(curl(&served, "POST", &path, &["-F", "newtoken=yourtoken"]).0, 200);

    for by in ["hash", "token"] {
        for line in LINES {
            let (method, path, _) = line;
            let why = format!("{method} {path} by {by}");
            let end = Instant::now() + Duration::from_secs(60);
            // What is done later is asked for until it is done, as the document says.
            let (status, body) = loop {
                let (status, body) = send(&served, dir, by, line);
                let is_awaited = *method == "GET" && LATER.contains(path);
                let shown: Value = serde_json::from_str(&body).unwrap_or_default();
                let is_under_way = status == 404 || shown["status"] == "running";
                if !is_awaited || !is_under_way {
                    break (status, body);
                }
                assert!(Instant::now() < end, "{why}: {body}");
                std::thread::sleep(Duration::from_millis(20));
            };
            let json = || serde_json::from_str::<Value>(&body).unwrap_or_else(|_| panic!("{body}"));
            match (*method, *path) {
                ("POST", "/setup" | "/backup/restore") => {
                    assert_eq!((status, &*body), (200, r#"{"Status":"200 OK"}"#), "{why}");
                }
                (_, "/reboot")
                | ("POST", "/update" | "/settings" | "/certs" | "/storage" | "/backup") => {
                    let told = json!({
                        "Status": "202 Accepted",
                        "Location": format!("/api/v1/admin{path}"),
                    });
                    assert_eq!((status, json()), (202, told), "{why}");
                }
                _ => assert_eq!(status, 200, "{why}: {body}"),
            }
            let has = |fields: &[&str]| {
                let json = json();
                for field in fields {
                    assert!(json.get(field).is_some(), "{why}: {field} in {json}");
                }
                json
            };
            match (*method, *path) {
                // It was no package.
                ("GET", "/update") => {
                    let shown =
                        has(&["status", "percentage", "log", "error-message", "error-code"]);
                    assert_eq!(shown["status"], "failed", "{shown}");
                }
                ("GET", "/logs" | "/debug" | "/backup/download") => {
                    let kept = dir.join("kept");
                    let listed = output(tool("tar").arg("-tf").arg(&kept));
                    assert!(!listed.is_empty(), "{why}");
                    if *path == "/backup/download" {
                        fs::rename(kept, dir.join("backup.tar")).unwrap();
                    }
                }
                ("GET", "/services") => assert!(has(&["services"])["services"].is_array()),
                ("GET", "/version") => drop(has(&["version"])),
                ("GET", "/build") => drop(has(&["builddate"])),
                ("GET", "/endpoints") => drop(has(&["endpoints"])),
                ("GET", "/settings") => {
                    assert_eq!(has(&["network", "app"])["network"]["mode"], "static");
                }
                ("GET", "/certs") => assert_eq!(has(&["status", "log"])["status"], "success"),
                (_, "/license") => drop(has(&["app", "users", "expires", "name", "contact"])),
                ("GET", "/storage") => {
                    assert_eq!(has(&["storage", "options"])["storage"], json!({"type": "local"}));
                }
                ("GET", "/backup") => {
                    let shown = has(&["status", "filesize", "sha256"]);
                    assert_eq!(shown["status"], "success", "{shown}");
                }
                ("POST", "/backup/restore") | (_, "/reboot") => served.started_anew(),
                _ => {}
            }
        }
    }
    assert!(!served.log().contains("yourtoken"), "{}", served.log());
    served.stop();
}
