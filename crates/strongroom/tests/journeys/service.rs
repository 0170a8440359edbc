//! The appliance as a service: what it tells the manager that starts it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use strongroom_catalog::Engine;

use crate::support::served::{Served, ask, of_user};
use crate::support::{database, tool};
use crate::up::run;

/// The watchdog's patience.
const PATIENCE: Duration = Duration::from_millis(600);
const DEADLINE: Duration = Duration::from_secs(60);

/// systemd's end of the socket.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket }
    }

    /// The next message, if there is one soon.
    fn next(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    /// Waits for a message with this line, and gives it.
    fn await_line(&self, line: &str) -> String {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            match self.next() {
                Some(text) if text.lines().any(|l| l == line) => return text,
                _ => {}
            }
        }
        panic!("it never said {line}");
    }

    /// Whether it says that it lives within so long.
    fn hears_of_life(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        while Instant::now() < end {
            if self.next().is_some_and(|text| text.contains("WATCHDOG=1")) {
                return true;
            }
        }
        false
    }
}

/// Holds the locks that every reader of the catalogue needs: of the SQLite file's as a process would
/// that has recovered it half way and hangs, of PostgreSQL's the one of a table. Ends with this.
struct Locked(Child);

impl Locked {
    fn take(data: &Path) -> Self {
        let Some(url) = database::of(data) else { return Self::file(data) };
        let mut psql = tool("psql");
        psql.args(["-qAt", "-v", "ON_ERROR_STOP=1"]).arg(url);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Open until the input ends.
        let sql = "BEGIN; LOCK TABLE schema_steps; SELECT 'locked';\n";
        child.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
        Self::once_told(child)
    }

    fn file(data: &Path) -> Self {
        // The bytes 120 to 127 of the shared index are WAL_WRITE_LOCK to WAL_READ_LOCK(4).
        let script = "import fcntl, sys\n\
                      file = open(sys.argv[1], 'r+b')\n\
                      fcntl.lockf(file, fcntl.LOCK_EX, 8, 120)\n\
                      print('locked', flush=True)\n\
                      sys.stdin.read()\n";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(data.join("catalogue.db-shm"));
        Self::once_told(python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn once_told(mut child: Child) -> Self {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_service_manager_is_told_and_hears_of_life_only_while_the_catalogue_answers() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let manager = Manager::new(&dir.path().join("notify"));
    let mut command = of_user(&data);
    command.env("NOTIFY_SOCKET", dir.path().join("notify"));
    command.env("WATCHDOG_USEC", PATIENCE.as_micros().to_string()).env_remove("WATCHDOG_PID");
    let served = Served::start_as(&data, command);

    let ready = manager.await_line("READY=1");
    assert!(ready.contains(served.told["urls"][0].as_str().unwrap()), "{ready}");
    assert!(manager.hears_of_life(DEADLINE));
    served.signal(Signal::HUP);
    let reloading = manager.await_line("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.await_line("READY=1");

    let locked = Locked::take(&data);
    // What was on its way is heard; then nothing.
    let end = Instant::now() + DEADLINE;
    while manager.hears_of_life(PATIENCE) {
        assert!(Instant::now() < end, "it says it lives, but its catalogue is locked");
    }
    assert!(!manager.hears_of_life(2 * PATIENCE));
    drop(locked);
    assert!(manager.hears_of_life(DEADLINE));

    served.stop();
    manager.await_line("STOPPING=1");
}

#[test]
fn secrets_of_the_first_run_go_to_their_file_and_not_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let secrets = dir.path().join("secrets");
    let start = || {
        let mut command = of_user(&data);
        command.env("STRONGROOM_SECRETS_FILE", &secrets);
        Served::start_as(&data, command)
    };
    let served = start();
    assert_eq!(served.told["passphrase"], Value::Null);
    assert_eq!(served.told["pool_passphrase"], Value::Null);
    assert_eq!(served.told["setup_passphrase"], Value::Null);
    let text = std::fs::read_to_string(&secrets).unwrap();
    let kept: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let names: Vec<_> = kept.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["user", "passphrase", "setup-passphrase", "pool", "pool-passphrase"]);

    // The passphrase is the one that opens.
    std::fs::write(dir.path().join("pw"), kept[1].1).unwrap();
    let (code, _, err) = run(&data, &served.login());
    assert_eq!(code, 0, "{err}");
    served.stop();

    // Later starts have nothing to add, and leave no empty file.
    std::fs::remove_file(&secrets).unwrap();
    start().stop();
    assert!(!secrets.exists());
}

#[test]
fn a_first_run_that_can_not_listen_makes_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let up = of_user(&data).args(["up", "--listen", &address, "--data"]).arg(&data).output();
    let up = up.unwrap();
    assert_eq!(up.status.code(), Some(1), "{}", String::from_utf8_lossy(&up.stderr));
    drop(taken);
    let served = Served::start(&data);
    assert!(served.told["passphrase"].is_string());
    served.stop();
}

#[test]
fn what_is_shown_once_is_shown_to_who_wants_it_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut command = of_user(&data);
    command.arg("--quiet");
    let served = Served::start_as(&data, command);
    assert!(served.told["passphrase"].is_string() && served.told["pool_passphrase"].is_string());
    served.stop();
}

/// What is there once a first start has come so far, in order.
const STEPS: [&str; 6] =
    ["serve.lock", "catalogue.db", "appliance.key", "first-start", "pools/main", "tls/key.pem"];

/// Those of them that can be seen where the catalogue isn't a file.
fn steps() -> impl Iterator<Item = &'static str> {
    let file = database::engine() == Engine::Sqlite;
    STEPS.into_iter().filter(move |step| file || *step != "catalogue.db")
}

#[test]
fn a_first_start_that_is_killed_is_made_good_by_the_next() {
    for step in steps() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut command = of_user(&data);
        command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        database::tell(&mut command, &data);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut up = command.spawn().unwrap();
        let end = Instant::now() + DEADLINE;
        while !data.join(step).exists() {
            assert!(Instant::now() < end && up.try_wait().unwrap().is_none(), "{step}");
            std::thread::yield_now();
        }
        up.kill().unwrap();
        up.wait().unwrap();

        // Both are told, unless the first one came to its end after all; and they open.
        let all_told = !data.join("first-start").exists() && data.join("pools/main").exists();
        let served = Served::start(&data);
        let shown = |name: &str| served.told[name].as_str().map(str::to_owned);
        let (passphrase, pool) = (shown("passphrase"), shown("pool_passphrase"));
        assert_eq!((passphrase.is_some(), pool.is_some()), (!all_told, !all_told), "{step}");
        let (code, pools) = ask(&data, "GET", "/v1/pools", None);
        assert_eq!((code, &pools["items"][0]["name"]), (200, &"main".into()), "{step}: {pools}");
        std::fs::write(dir.path().join("file"), step).unwrap();
        let (code, _, err) = run(&data, "backup file");
        assert_eq!(code, 0, "{step}: {err}");
        assert!(!data.join("first-start").exists(), "{step}");
        if let (Some(passphrase), Some(pool)) = (passphrase, pool) {
            std::fs::write(dir.path().join("pw"), passphrase).unwrap();
            let (code, _, err) = run(&data, &served.login());
            assert_eq!(code, 0, "{step}: {err}");
            served.stop();
            std::fs::write(dir.path().join("pool-pw"), pool).unwrap();
            let images = "images list --password-file pool-pw --pool data/pools/main";
            let (code, _, err) = run(&data, images);
            assert_eq!(code, 0, "{step}: {err}");
        } else {
            served.stop();
        }
    }
}

#[test]
fn a_pool_that_a_new_catalogue_does_not_know_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Served::start(&data);
    let passphrase = first.told["pool_passphrase"].as_str().unwrap().to_owned();
    std::fs::write(dir.path().join("file"), "the only copy").unwrap();
    let (code, _, err) = run(&data, "backup file");
    assert_eq!(code, 0, "{err}");
    first.stop();
    database::lose(&data);
    for _ in 0..3 {
        let mut up = of_user(&data);
        up.args(["up", "--listen", "127.0.0.1:0", "--data", "data"]);
        database::tell(&mut up, &data);
        let up = up.output().unwrap();
        let err = String::from_utf8_lossy(&up.stderr);
        assert!(up.status.code() == Some(1) && err.contains("import it"), "{err}");
    }
    std::fs::write(dir.path().join("pool-pw"), passphrase).unwrap();
    let file = dir.path().join("file");
    let pool = "--password-file pool-pw --pool data/pools/main";
    let (_, found, err) = run(&data, &format!("cat latest:{} {pool}", file.display()));
    assert_eq!(found, "the only copy", "{err}");
}
