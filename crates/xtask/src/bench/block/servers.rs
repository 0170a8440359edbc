//! The servers that are measured: how each is started, and where its disk is.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::initiator::Disk;
use crate::{run, workspace};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);
const TARGET: &str = "iqn.2026-11.org.example:volume";

/// A server, which ends with this.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let ends = Instant::now() + START;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > ends {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where a disk is to be had.
#[derive(Clone, Debug)]
pub(crate) enum At {
    Iscsi(Disk),
    /// A URI of NBD.
    Nbd(String),
}

/// Somebody else's server of a plain file.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) at: At,
    _running: Running,
}

/// Ours: the example `serve_volume`.
#[derive(Debug)]
pub(crate) struct Ours {
    // It ends when it is told no more.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub(crate) iscsi: At,
    pub(crate) tcp: At,
    pub(crate) unix: At,
    running: Running,
}

/// What ours says after a command.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// How long the command took, in seconds.
    pub(crate) seconds: f64,
    /// Bytes in the log.
    pub(crate) log: u64,
    /// The most bytes that it had.
    pub(crate) most_log: u64,
    /// How often it was settled, how long that took, and how many bytes of chunks were made.
    pub(crate) settled: u64,
    pub(crate) settle_seconds: f64,
    pub(crate) settle_bytes: u64,
}

/// Builds ours.
pub(crate) fn build() -> Result<PathBuf> {
    let example = ["--package", "strongroom-storage", "--example", "serve_volume"];
    run::run(workspace::cargo().args(["build", "--release"]).args(example))?;
    Ok(workspace::target_dir()?.join("release/examples/serve_volume"))
}

impl Ours {
    /// Serves a volume of so many bytes, of a pool in a directory that isn't there yet.
    pub(crate) fn start(program: &Path, dir: &Path, size: u64) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(dir).arg(size.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running(command.spawn().context("can't start serve_volume")?);
        let stdin = running.0.stdin.take();
        let stdout = running.0.stdout.take().context("its output is a pipe")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).context("serve_volume did not start")?;
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        let portal = text("iscsi").parse().context("it says no portal")?;
        let iscsi = At::Iscsi(Disk { portal, target: TARGET.to_owned(), lun: 0 });
        let tcp = At::Nbd(format!("nbd://{}/", text("nbd")));
        let unix = At::Nbd(format!("nbd+unix:///?socket={}", text("unix")));
        Ok(Self { stdin, stdout, iscsi, tcp, unix, running })
    }

    /// Has it do something.
    pub(crate) fn tell(&mut self, command: &str) -> Result<Told> {
        let stdin = self.stdin.as_mut().context("it was told to end")?;
        writeln!(stdin, "{command}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line)
            .with_context(|| format!("serve_volume did not survive `{command}`"))?;
        if let Some(error) = told["error"].as_str() {
            bail!("`{command}` failed: {error}");
        }
        let number = |name: &str| told[name].as_u64().unwrap_or_default();
        let seconds = |name: &str| told[name].as_f64().unwrap_or_default();
        Ok(Told {
            seconds: seconds("seconds"),
            log: number("log"),
            most_log: number("most_log"),
            settled: number("settled"),
            settle_seconds: seconds("settle_seconds"),
            settle_bytes: number("settle_bytes"),
        })
    }

    /// What it has resident, in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.running.0.id());
        let status = std::fs::read_to_string(path).context("serve_volume is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.context("the kernel doesn't say what it has resident")? / 1024.0)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.stdin = None;
    }
}

/// A port that nobody listens at.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) -> Result<()> {
    let ends = Instant::now() + START;
    while !is_there() {
        ensure!(Instant::now() < ends, "{what} did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn spawn(command: &mut Command, log: &Path) -> Result<Running> {
    let output = File::create(log).with_context(|| format!("can't create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(Running(command.spawn().with_context(|| format!("can't start `{}`", run::show(command)))?))
}

/// The root's path: Debian puts some servers there.
fn program(name: &str) -> PathBuf {
    let beside = Path::new("/usr/sbin").join(name);
    if beside.is_file() { beside } else { name.into() }
}

/// tgt, with its default settings.
pub(crate) fn tgt(file: &Path, dir: &Path) -> Result<Peer> {
    let port = free_port()?;
    // Its control socket has a number, by which several can run at once.
    let control = port.to_string();
    let mut tgtd = Command::new(program("tgtd"));
    tgtd.args(["-f", "-C", &control, "--iscsi", &format!("portal=127.0.0.1:{port}")]);
    let running = spawn(&mut tgtd, &dir.join("tgtd.log"))?;
    let admin = |more: &[&str]| {
        let mut tgtadm = Command::new(program("tgtadm"));
        tgtadm.args(["-C", &control, "--lld", "iscsi", "--mode"]).args(more);
        run::capture(&mut tgtadm)
    };
    let mut made = admin(&["target", "--op", "new", "--tid", "1", "-T", TARGET]);
    let ends = Instant::now() + START;
    while made.is_err() && Instant::now() < ends {
        std::thread::sleep(Duration::from_millis(50));
        made = admin(&["target", "--op", "new", "--tid", "1", "-T", TARGET]);
    }
    made?;
    let path = file.to_str().context("a path that is no text")?;
    admin(&["logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", path])?;
    admin(&["target", "--op", "bind", "--tid", "1", "-I", "ALL"])?;
    let portal = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_for("tgtd", || TcpStream::connect(portal).is_ok())?;
    let disk = Disk { portal, target: TARGET.to_owned(), lun: 1 };
    Ok(Peer { name: "tgt", at: At::Iscsi(disk), _running: running })
}

/// `qemu-nbd`, with its default settings; at a Unix socket, or a port.
pub(crate) fn qemu_nbd(file: &Path, dir: &Path, unix: bool) -> Result<Peer> {
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--format=raw", "--shared=8"]);
    let socket = dir.join("qemu-nbd.sock");
    nbd("qemu-nbd", command, &[], file, dir, unix.then_some(socket), |command, at| match at {
        Ok(port) => drop(command.args(["--bind=127.0.0.1", &format!("--port={port}")])),
        Err(socket) => drop(command.arg("--socket").arg(socket)),
    })
}

/// nbdkit's plugin for files, with its default settings.
pub(crate) fn nbdkit(file: &Path, dir: &Path, unix: bool) -> Result<Peer> {
    let mut command = Command::new("nbdkit");
    command.arg("--foreground");
    let socket = dir.join("nbdkit.sock");
    nbd("nbdkit", command, &["file"], file, dir, unix.then_some(socket), |command, at| match at {
        Ok(port) => drop(command.args(["--ipaddr=127.0.0.1", &format!("--port={port}")])),
        Err(socket) => drop(command.arg("--unix").arg(socket)),
    })
}

fn nbd(
    name: &'static str,
    mut command: Command,
    last: &[&str],
    file: &Path,
    dir: &Path,
    socket: Option<PathBuf>,
    place: impl FnOnce(&mut Command, std::result::Result<u16, &Path>),
) -> Result<Peer> {
    let way = if socket.is_some() { "unix" } else { "tcp" };
    let (uri, running) = match &socket {
        Some(socket) => {
            place(&mut command, Err(socket));
            let running =
                spawn(command.args(last).arg(file), &dir.join(format!("{name}-{way}.log")))?;
            wait_for(name, || UnixStream::connect(socket).is_ok())?;
            (format!("nbd+unix:///?socket={}", socket.display()), running)
        }
        None => {
            let port = free_port()?;
            place(&mut command, Ok(port));
            let running =
                spawn(command.args(last).arg(file), &dir.join(format!("{name}-{way}.log")))?;
            let address = (Ipv4Addr::LOCALHOST, port);
            wait_for(name, || TcpStream::connect(address).is_ok())?;
            (format!("nbd://127.0.0.1:{port}/"), running)
        }
    };
    Ok(Peer { name, at: At::Nbd(uri), _running: running })
}
