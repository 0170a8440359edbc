//! The appliance: started, asked, and ended as its administrator would.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::BINARY;

struct Served {
    child: Child,
    told: Value,
}

impl Served {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["--json", "serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("it did not start: {error}");
        }
        Self { child, told: serde_json::from_str(&line).unwrap() }
    }

    fn stop(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks through the control socket: the status and the content.
fn ask(data: &Path, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut stream = UnixStream::connect(data.join("control.sock")).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn status(data: &Path) -> std::process::Output {
    Command::new(BINARY).args(["--json", "status", "--data"]).arg(data).output().unwrap()
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
    assert_eq!(told["database"], "sqlite");

    // A second process is refused and told who is first.
    let second = Command::new(BINARY).args(["serve", "--data"]).arg(&data).output().unwrap();
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains(&format!("process {} ", first.child.id())), "{why}");

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
