//! The appliance: started, asked, and ended as its administrator would.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use strongroom_catalog::Engine;

use crate::support::served::{Served, ask, of_user};
use crate::support::{assert_same, database, make_tree};

fn status(data: &Path) -> std::process::Output {
    of_user(data).args(["--json", "status"]).output().unwrap()
}

/// Runs the program to its end: the exit code, and what it wrote.
pub(crate) fn run(data: &Path, line: &str) -> (i32, String, String) {
    let output = of_user(data).args(line.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn an_appliance_is_started_asked_stopped_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Served::start(&data);
    assert_eq!(first.told["user"], "admin");
    assert_eq!(first.told["passphrase"].as_str().unwrap().split('-').count(), 4);
    assert!(first.told["urls"][0].as_str().unwrap().starts_with("https://127.0.0.1:"));

    // The owner of the process needs no login.
    let (code, me) = ask(&data, "GET", "/v1/me", None);
    assert_eq!((code, &me["via"]), (200, &json!("local")));
    let asked = status(&data);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let told: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let engine = match database::engine() {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgresql",
    };
    assert_eq!(told["database"], engine);

    // A second process is refused and told who is first.
    let second = of_user(&data).args(["up", "--data"]).arg(&data).output().unwrap();
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains(&format!("process {} ", first.id())), "{why}");

    // A job of the first run is known to the second, and nothing is said twice.
    let body = json!({"paths": [data.join("tls")], "name": "tls"});
    let (code, job) = ask(&data, "POST", "/v1/pools/1/backups", Some(body));
    assert_eq!(code, 202, "{job}");
    first.stop();
    assert!(!status(&data).status.success(), "nobody serves it");

    let again = Served::start(&data);
    assert_eq!(again.told["passphrase"], Value::Null);
    assert_eq!(again.told["certificate_sha256"].as_str().unwrap().len(), 95);
    let path = format!("/v1/jobs/{}/events", job["id"]);
    // Ends when the job does.
    let mut stream = UnixStream::connect(data.join("control.sock")).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut events = String::new();
    stream.read_to_string(&mut events).unwrap();
    assert!(events.contains("\"state\":\"succeeded\""), "{events}");
    again.stop();
}

#[test]
fn what_is_set_takes_effect_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let set = |key: &str, value: u64| {
        let path = format!("/v1/settings/{key}");
        let (code, told) = ask(&data, "PATCH", &path, Some(json!({ "value": value })));
        assert_eq!((code, &told["value"]), (200, &json!(value)), "{told}");
    };
    let backup = || {
        let body = json!({"paths": ["/nothing/is/here"], "name": "x"});
        ask(&data, "POST", "/v1/pools/1/backups", Some(body)).1
    };
    assert_eq!(backup()["attempts"], 3);
    set("jobs.attempts", 2);
    until("jobs are tried twice", || backup()["attempts"] == 2);
    set("password.shortest", 20);
    let user = |name: &str| {
        let body = json!({"name": name, "password": "fifteen letters"});
        ask(&data, "POST", "/v1/users", Some(body)).0
    };
    until("short passwords are refused", || user("short") == 422);
    let (code, told) = ask(&data, "DELETE", "/v1/settings/password.shortest", None);
    assert_eq!((code, &told["value"]), (200, &json!(8)), "{told}");
    until("they are taken again", || user("fine") == 201);
    served.stop();

    // It is what it was after a restart.
    let again = Served::start(&data);
    assert_eq!(backup()["attempts"], 2);
    again.stop();
}

#[test]
fn the_configuration_is_read_again_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let write = |text: &str| std::fs::write(data.join("strongroom.toml"), text).unwrap();
    let check = || of_user(&data).args(["up", "--check-config", "--data"]).arg(&data).output();
    assert!(check().unwrap().status.success());

    write("connections = \"many\"\n");
    let checked = check().unwrap();
    let why = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success() && why.contains("line 1"), "{why}");
    served.signal(Signal::HUP);
    served.logs("the configuration stays as it was");
    served.logs("the certificate was read again");

    write("connections = 7\nlisten = [\"127.0.0.1:1\"]\n");
    served.signal(Signal::HUP);
    served.logs("7 clients may be connected at once");
    served.logs("`listen` was changed: --listen of the command still wins");
    assert_eq!(ask(&data, "GET", "/v1/me", None).0, 200);
    served.stop();
}

#[test]
fn what_is_configured_takes_effect_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // Free a moment ago, but for the last one.
    let places: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at: Vec<_> = places.iter().map(|place| place.local_addr().unwrap()).collect();
    let taken = places.into_iter().next_back().unwrap();
    let write = |text: String| std::fs::write(data.join("strongroom.toml"), text).unwrap();
    write(format!("listen = [\"{}\"]\nredirect = \"{}\"\nlog = \"info\"\n", at[0], at[1]));
    let served = Served::start_as_configured(&data);
    assert_eq!(served.told["urls"], json!([format!("https://{}", at[0])]));
    let mut old = TcpStream::connect(at[0]).unwrap();

    write(format!("listen = [\"{}\"]\nredirect = \"{}\"\nlog = \"debug\"\n", at[2], at[1]));
    served.signal(Signal::HUP);
    served.logs("the log is that of `debug`");
    served.logs(&format!("it listens at https://{}", at[2]));
    assert!(TcpStream::connect(at[0]).is_err(), "it no longer listens there");
    let mut asked = TcpStream::connect(at[1]).unwrap();
    asked.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
    let mut told = String::new();
    asked.read_to_string(&mut told).unwrap();
    assert!(told.contains(&format!("https://127.0.0.1:{}", at[2].port())), "{told}");
    // What came before is answered, if only that it is no TLS.
    old.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    served.logs("a TLS handshake failed");

    // What is in the way changes nothing, and a log that is said otherwise does.
    write(format!("listen = [\"{}\"]\ntakeover = 5\nlog = \"warn\"\n", at[3]));
    served.signal(Signal::HUP);
    served.logs("`takeover` was changed: it takes effect at the next start");
    served.logs("it listens where it did");
    TcpStream::connect(at[2]).unwrap();
    let before = served.log();
    let signed = served.told["certificate_sha256"].as_str().unwrap();
    assert!(!before.contains("the log is that of `warn`"), "that is no warning");

    // Another certificate, in other files.
    let tls = data.join("other");
    std::fs::create_dir(&tls).unwrap();
    let other = dir.path().join("elsewhere/data");
    std::fs::create_dir_all(other.parent().unwrap()).unwrap();
    Served::start(&other).stop();
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(other.join("tls").join(name), tls.join(name)).unwrap();
    }
    drop(taken);
    write(format!(
        "listen = [\"{}\"]\nlog = \"info\"\ncertificate = \"other/cert.pem\"\nkey = \"other/key.pem\"\n",
        at[3]
    ));
    served.signal(Signal::HUP);
    served.logs(&format!("it listens at https://{}", at[3]));
    served.logs("other/cert.pem");
    std::fs::write(dir.path().join("pw"), served.told["passphrase"].as_str().unwrap()).unwrap();
    let login = format!("login https://{} --password-file pw --fingerprint {signed}", at[3]);
    let (code, _, err) = run(&data, &login);
    assert!(code == 1 && err.contains("not the one"), "{err}");
    served.stop();
}

/// Waits until it is so.
pub(crate) fn until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(30), is_so), "in time, {what}");
}

/// Waits until it is so, and no longer than that; whether it is.
pub(crate) fn within(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !is_so() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn the_command_line_uses_the_appliance_that_runs_here() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    make_tree(&source);
    let (code, _, err) = run(&data, "backup source");
    assert!(code == 2 && err.contains("None runs here"), "{err}");

    let served = Served::start(&data);
    let (code, out, err) = run(&data, "backup source --name tree --tag first --json");
    assert_eq!(code, 0, "{err}");
    let job: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&job["kind"], &job["state"]), (&json!("backup"), &json!("succeeded")));
    let (code, out, _) = run(&data, "images list --json");
    let image: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((code, &image["name"], &image["tags"]), (0, &json!("tree"), &json!(["first"])));
    assert_eq!(run(&data, "images list --pool main --json").1, out);
    let (code, _, err) = run(&data, "images list --pool elsewhere");
    assert!(code == 2 && err.contains("It has: main"), "{err}");
    let (code, _, err) = run(&data, "restore tree --to back --verify");
    assert_eq!(code, 0, "{err}");
    let back = dir.path().join("back").join(source.strip_prefix("/").unwrap());
    assert_same(&source, &back);

    let (code, out, _) = run(&data, "jobs list --json");
    assert_eq!((code, out.lines().count()), (0, 2));
    let (code, _, err) = run(&data, "jobs list --filter colour:==red");
    assert!(code == 2 && err.contains("no field `colour`"), "{err}");
    let (code, _, err) = run(&data, "backup /nothing/here --name x");
    assert!(code == 1 && err.contains("/nothing/here"), "{err}");
    let (code, _, err) = run(&data, "backup source --pool elsewhere");
    assert!(code == 2 && err.contains("It has: main"), "{err}");
    served.stop();
}

#[test]
fn one_logs_in_from_elsewhere_with_a_certificate_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let url = served.told["urls"][0].as_str().unwrap();
    let fingerprint = served.told["certificate_sha256"].as_str().unwrap();
    std::fs::write(dir.path().join("pw"), served.told["passphrase"].as_str().unwrap()).unwrap();
    std::fs::write(dir.path().join("wrong"), "four words of mine").unwrap();

    let login = format!("login {url} --password-file");
    let (code, _, err) = run(&data, &format!("{login} pw"));
    assert!(code == 2 && err.contains(fingerprint), "nobody is there to be asked: {err}");
    let other = fingerprint.replace(':', "").chars().rev().collect::<String>();
    let (code, _, err) = run(&data, &format!("{login} pw --fingerprint {other}"));
    assert!(code == 1 && err.contains("not the one"), "{err}");
    let (code, _, _) = run(&data, &format!("{login} wrong --fingerprint {fingerprint}"));
    assert_eq!(code, 6);
    assert!(!dir.path().join(".config/strongroom/logins.json").exists());
    let (code, out, err) = run(&data, &format!("{login} pw --fingerprint {fingerprint}"));
    assert!(code == 0 && out.contains("as admin"), "{err}");

    let (code, out, err) = run(&data, "jobs list --json");
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let (code, _, err) = run(&data, "restore nothing --to back");
    assert_ne!(code, 0, "{err}");
    assert_eq!(run(&data, &format!("logout {url}")).0, 0);
    // The appliance that runs here is the usual one again.
    assert_eq!(run(&data, "jobs list").0, 0);
    served.stop();
}

#[test]
fn directories_and_issuers_are_set_up_from_files_and_lines_are_sent_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let file = |name: &str, content: Value| {
        let path = dir.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.display().to_string()
    };
    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = closed.local_addr().unwrap();
    drop(closed);
    let connection = json!({"url": format!("ldap://{place}"), "base_dn": "dc=corp",
        "bind_dn": "cn=reader"});
    let corp = file("corp.json", json!({"name": "corp", "connection": connection}));
    std::fs::write(dir.path().join("secret"), "hunter2\n").unwrap();
    let secret = dir.path().join("secret").display().to_string();
    let (code, text, why) =
        run(&data, &format!("directories create {corp} --secret-file {secret}"));
    assert_eq!((code, text.contains("made the directory corp")), (0, true), "{why}");
    let (code, text, _) = run(&data, "directories show corp --json");
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &shown["has_secret"]), (0, &json!(true)));
    assert!(!text.contains("hunter2"));
    let (code, text, why) = run(&data, "directories test corp --user jo --no-password");
    assert_eq!((code, text.contains("connect")), (3, true), "{text}{why}");
    assert_eq!(run(&data, &format!("directories change corp {corp}")).0, 0);
    assert_eq!(run(&data, "directories list").0, 0);
    assert_eq!(run(&data, "directories delete corp --yes").0, 0);

    let checks = json!({"issuer": format!("http://{place}"), "audiences": ["strongroom"]});
    let login = file("login.json", json!({"name": "login", "checks": checks}));
    assert_eq!(run(&data, &format!("issuers create {login}")).0, 0);
    let (code, text, why) = run(&data, "issuers test login");
    assert_eq!((code, text.contains("keys")), (3, true), "{text}{why}");
    assert_eq!(run(&data, "issuers delete login --yes").0, 0);

    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = collector.local_addr().unwrap();
    let (code, _, why) = run(&data, &format!("audit send tcp://{to} --after 0"));
    assert_eq!(code, 0, "{why}");
    let (mut stream, _) = collector.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut first = [0; 64];
    stream.read_exact(&mut first).unwrap();
    let first = String::from_utf8_lossy(&first).into_owned();
    assert!(first.contains(" <109>1 "), "{first}");
    let (_, text, _) = run(&data, "audit sending --json");
    let sending: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sending["collector"]["port"], to.port());
    assert_eq!(run(&data, "audit stop-sending --yes").0, 0);
    served.stop();
}
