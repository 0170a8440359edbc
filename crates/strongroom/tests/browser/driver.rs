//! A browser without a screen, told what to do by WebDriver (W3C), as a person would use it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(90);
/// The key under which WebDriver gives an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Debian's Chromium and its driver. Both end with this.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

/// Something on the page.
pub(crate) struct Element<'b> {
    browser: &'b Browser,
    id: String,
}

impl Browser {
    /// Starts one that trusts the certificate with this hash of its public key, reaches no other
    /// machine than this, and keeps all that it keeps in `home`.
    pub(crate) fn start(home: &Path, spki: &str) -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", home).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().expect("chromedriver: `cargo xtask test` installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        let port = port.expect("chromedriver says on which port it listens");
        // Else it would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, port, session: String::new() };
        let profile = format!("--user-data-dir={}", home.join("profile").display());
        let pin = format!("--ignore-certificate-errors-spki-list={spki}");
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--window-size=1280,1600",
            &profile,
            &pin,
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let made =
            browser.ask("POST", "/session", json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// One command: its value, or why not.
    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let (status, mut answer) =
            self.exchange(method, path, body).map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        if status == "200" { Ok(value) } else { Err(value.to_string()) }
    }

    /// A request, and the status and content of its answer. The driver keeps connections open
    /// whatever it is asked, so the answer ends where its head says.
    fn exchange(&self, method: &str, path: &str, body: &Value) -> io::Result<(String, Value)> {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        let mut answer = BufReader::new(stream);
        let mut status = String::new();
        answer.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            match line.trim().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut content = vec![0; length];
        answer.read_exact(&mut content)?;
        let status = status.split(' ').nth(1).unwrap_or_default().to_owned();
        Ok((status, serde_json::from_slice(&content)?))
    }

    fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        self.try_ask(method, path, &body)
            .unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    fn of_session(&self, method: &str, path: &str, body: Value) -> Value {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.of_session("POST", "/url", json!({"url": url}));
    }

    pub(crate) fn title(&self) -> String {
        self.of_session("GET", "/title", Value::Null).as_str().unwrap().to_owned()
    }

    /// What the script returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.of_session("POST", "/execute/sync", json!({"script": script, "args": []}))
    }

    /// What the page wrote to its console, and what it was not let do.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.of_session("POST", "/se/log", json!({"type": "browser"}));
        let lines = log.as_array().unwrap().iter();
        let severe = lines.filter(|line| line["level"] == "SEVERE");
        severe.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The first element that fits, as soon as it is there.
    pub(crate) fn find(&self, css: &str) -> Element<'_> {
        let end = Instant::now() + DEADLINE;
        let path = format!("/session/{}/element", self.session);
        loop {
            match self.try_ask("POST", &path, &json!({"using": "css selector", "value": css})) {
                Ok(value) => {
                    let id = value[ELEMENT].as_str().unwrap().to_owned();
                    return Element { browser: self, id };
                }
                Err(error) => assert!(Instant::now() < end, "{css}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes what the page looks like to a file.
    pub(crate) fn screenshot(&self, path: &Path) {
        let picture = self.of_session("GET", "/screenshot", Value::Null);
        let mut base64 = Command::new("base64");
        base64.arg("-d").stdin(Stdio::piped()).stdout(std::fs::File::create(path).unwrap());
        let mut child = base64.spawn().unwrap();
        child.stdin.take().unwrap().write_all(picture.as_str().unwrap().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, the driver with its process.
        let _ = self.try_ask("DELETE", &format!("/session/{}", self.session), &json!({}));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Element<'_> {
    fn of_element(&self, method: &str, path: &str, body: Value) -> Value {
        self.browser.of_session(method, &format!("/element/{}{path}", self.id), body)
    }

    pub(crate) fn click(&self) {
        self.of_element("POST", "/click", json!({}));
    }

    pub(crate) fn write(&self, text: &str) {
        self.of_element("POST", "/value", json!({"text": text}));
    }

    pub(crate) fn text(&self) -> String {
        self.of_element("GET", "/text", Value::Null).as_str().unwrap().to_owned()
    }
}
