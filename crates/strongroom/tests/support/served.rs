//! An appliance that is up, for a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{BINARY, database, tool};

/// It ends with this.
pub(crate) struct Served {
    child: Child,
    out: BufReader<ChildStdout>,
    /// What it logs.
    log: Arc<Mutex<String>>,
    /// What it said of itself, which is one object.
    pub(crate) told: Value,
}

impl Served {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_as(data, of_user(data))
    }

    /// As a command that says more of how it runs.
    pub(crate) fn start_as(data: &Path, command: Command) -> Self {
        Self::start_with(data, command, &["--listen", "127.0.0.1:0"])
    }

    /// Where it listens is configured.
    pub(crate) fn start_as_configured(data: &Path) -> Self {
        let mut command = of_user(data);
        command.env_remove("RUST_LOG");
        Self::start_with(data, command, &[])
    }

    /// As a command that says more of how it runs, where it is configured to listen.
    pub(crate) fn start_by(data: &Path, command: Command) -> Self {
        Self::start_with(data, command, &[])
    }

    fn start_with(data: &Path, mut command: Command, options: &[&str]) -> Self {
        command.args(["--json", "up"]).args(options).arg("--data").arg(data);
        database::tell(&mut command, data);
        let mut child =
            bound(&command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("it did not start: {error}");
        }
        // It must not wait for somebody to read what it logs.
        let log = Arc::<Mutex<String>>::default();
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, out, log, told: serde_json::from_str(&line).unwrap() }
    }

    /// The words that log one in at its address with the password in the file `pw`.
    pub(crate) fn login(&self) -> String {
        let said = |value: &Value| value.as_str().unwrap().to_owned();
        let (url, print) = (said(&self.told["urls"][0]), said(&self.told["certificate_sha256"]));
        format!("login {url} --password-file pw --fingerprint {print}")
    }

    /// Waits until it has started anew, as the same process, and said so.
    pub(crate) fn started_anew(&mut self) {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it did not start anew: {}", self.log());
        self.told = serde_json::from_str(&line).unwrap();
    }

    /// Ends it without a word.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until somebody else has killed it.
    pub(crate) fn waits_for_its_end(mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "nobody kills it: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has logged this.
    pub(crate) fn logs(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.log.lock().unwrap().contains(text) {
            let log = self.log.lock().unwrap().clone();
            assert!(Instant::now() < end, "it does not log {text:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        self.ended();
    }

    /// Waits until it has ended well.
    pub(crate) fn ended(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that is killed with the test, should that be killed; and with it what it watches over.
fn bound(command: &Command) -> Command {
    under(&["--pdeathsig", "KILL"], command)
}

/// A command as `setpriv` runs it, with these words.
pub(crate) fn under(words: &[&str], command: &Command) -> Command {
    let mut all = tool("setpriv");
    all.args(words).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.env(name, value),
            None => all.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        all.current_dir(dir);
    }
    all
}

/// Asks through the control socket: the status and the content.
pub(crate) fn ask(data: &Path, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    try_ask(data, method, path, body).unwrap()
}

/// As [`ask`], of one that may just be starting anew.
pub(crate) fn try_ask(
    data: &Path,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> std::io::Result<(u16, Value)> {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut stream = UnixStream::connect(data.join("control.sock"))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::other("the answer broke off");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(broken)?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// What is at a path, with its head, as it comes.
pub(crate) fn text(data: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(data.join("control.sock")).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// How many requests there were of an operation.
pub(crate) fn requests(data: &Path, operation: &str) -> u64 {
    let answer = text(data, "/metrics");
    let name = format!("strongroom_http_requests_total{{operation=\"{operation}\"");
    let lines = answer.lines().filter(|line| line.starts_with(&name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// The program, run by a user whose home is beside the data directory.
pub(crate) fn of_user(data: &Path) -> Command {
    let home = data.parent().unwrap();
    let mut command = Command::new(BINARY);
    command.env("HOME", home).current_dir(home);
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "STRONGROOM_APPLIANCE", "STRONGROOM_POOL"] {
        command.env_remove(name);
    }
    command
}
