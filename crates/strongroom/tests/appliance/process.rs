//! A process that serves, and a database for it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{BINARY, database};

/// Nothing here takes so long; what does hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until it is so.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        // So that what is waited for has the processor.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes a pool that needs no key derivation at each start.
pub(crate) fn make_pool(served: &Served, path: &Path) -> i64 {
    let body = json!({"name": "work", "path": path, "encrypted": false});
    served.post("/v1/pools", &body)["pool"]["id"].as_i64().unwrap()
}

/// How a process is started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) data: PathBuf,
    pub(crate) database: Option<String>,
    /// The name that the machine has for it.
    pub(crate) host: Option<&'static str>,
}

impl Plan {
    pub(crate) fn new(data: PathBuf) -> Self {
        let database = database::of(&data);
        Self { data, database, host: None }
    }

    pub(crate) fn command(&self) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(host) = self.host {
            // A name of its own; what is started keeps the process's number.
            let script = format!("hostname {host} && exec \"$@\"");
            words.extend(["unshare", "--uts", "sh", "-c", &script, "sh"].map(OsString::from));
        }
        words.push(BINARY.into());
        words.extend(["--json", "up", "--listen", "127.0.0.1:0", "--data"].map(OsString::from));
        words.push(self.data.clone().into());
        let mut command = Command::new(&words[0]);
        let home = self.data.parent().unwrap();
        command.args(&words[1..]).env("HOME", home).current_dir(home);
        for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "STRONGROOM_APPLIANCE", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
        match &self.database {
            Some(url) => command.env("STRONGROOM_DATABASE", url),
            None => command.env_remove("STRONGROOM_DATABASE"),
        };
        command
    }

    /// Starts it; what it said when it ended instead.
    pub(crate) fn try_start(&self) -> Result<Served, String> {
        let mut command = self.command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut err, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        let reader = std::thread::spawn(move || {
            let mut line = Vec::new();
            while err.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            child.wait().unwrap();
            reader.join().unwrap();
            return Err(log.lock().unwrap().clone());
        }
        let told = serde_json::from_str(&line).unwrap();
        Ok(Served { child, told, data: self.data.clone(), log })
    }

    pub(crate) fn start(&self) -> Served {
        self.try_start().unwrap_or_else(|log| panic!("it did not start: {log}"))
    }
}

/// A process that serves. It ends with this.
pub(crate) struct Served {
    child: Child,
    /// What it printed when it was up.
    pub(crate) told: Value,
    data: PathBuf,
    log: Arc<Mutex<String>>,
}

impl Served {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The address of its API.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.told["urls"][0].as_str().unwrap().strip_prefix("https://").unwrap().parse().unwrap()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a power cut of the process would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end; how long that took.
    pub(crate) fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = until("the end of the process", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
        began.elapsed()
    }

    /// The answer to a request of the process's owner, which must go well.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = ask(&self.data, "GET", path, &[], None).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let answer = ask(&self.data, "POST", path, &[], Some(body)).unwrap();
        assert!(answer.status < 300, "{path}: {}", answer.body);
        answer.body
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the process said:\n{}", self.log());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// Asks through the control socket of a data directory, as the process's owner.
pub(crate) fn ask(
    data: &Path,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Result<Answer, Error> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = UnixStream::connect(data.join("control.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    if !body.is_empty() {
        head.push_str("content-type: application/json\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let broken = || Error::other("the answer broke off");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let told = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    if told.is_some_and(|length| length.parse() != Ok(body.len())) {
        return Err(broken());
    }
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(broken)?;
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Ok(Answer { status, head: head.to_owned(), body })
}
