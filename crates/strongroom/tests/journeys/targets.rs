//! Volumes that an appliance serves over iSCSI, used by clients of others.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

#[path = "../../../iscsi/tests/support/conformance.rs"]
mod conformance;
#[path = "../../../iscsi/tests/support/initiator.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod initiator;

use self::conformance::Sum;
use self::initiator::{Done, Initiator};
use crate::support::served::{Served, ask, of_user};
use crate::support::{Run, noise, output, tool};
use crate::up::within;

const SECRET: &str = "secretsecret12";
const A: &str = "iqn.2026-11.org.example:a";
const B: &str = "iqn.2026-11.org.example:b";

/// An appliance with a pool, and a portal group `own` at a port of the test's own.
struct Appliance {
    dir: tempfile::TempDir,
    served: Option<Served>,
    address: SocketAddr,
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks until it is so.
fn until(what: &str, ask: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(120), ask), "{what}");
}

impl Appliance {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("strongroom-test-").tempdir().unwrap();
        let served = Some(Served::start(&dir.path().join("data")));
        let one = Self { dir, served, address: free() };
        let pool = json!({"name": "work", "path": one.dir.path().join("pool"), "encrypted": false});
        one.post("/v1/pools", pool);
        one.cli(&format!("target portal-group create own --portal {}", one.address)).code(0);
        one
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = ask(&self.data(), "POST", path, Some(body));
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = ask(&self.data(), "GET", path, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn cli(&self, line: &str) -> Run {
        let mut command = of_user(&self.data());
        command.args(line.split_whitespace()).arg("--appliance").arg(self.data());
        Run::of(command.output().unwrap())
    }

    /// A target with a volume of so many MiB; its name in iSCSI.
    fn target(&self, name: &str, options: &str, size: u32) -> String {
        self.cli(&format!("volume create of-{name} --size {size}M --pool work")).code(0);
        self.cli(&format!("target create {name} --portal-group own {options}")).code(0);
        self.cli(&format!("target map {name} of-{name}")).code(0);
        self.shown(name)["iqn"].as_str().unwrap().to_owned()
    }

    fn shown(&self, name: &str) -> Value {
        self.cli(&format!("target show {name} --json")).code(0).json()
    }

    fn url(&self, iqn: &str) -> String {
        format!("iscsi://user%{SECRET}@{}/{iqn}/0", self.address)
    }

    fn start(&mut self) {
        self.served = Some(Served::start(&self.data()));
    }

    fn stop(&mut self) {
        self.served.take().unwrap().stop();
    }

    /// Waits until all targets are served.
    fn is_served(&self, name: &str) {
        until("the target is served", || self.shown(name)["state"] == "served");
    }
}

fn run(name: &str, arguments: &[&str]) -> Output {
    tool(name).args(arguments).output().unwrap()
}

fn said(name: &str, arguments: &[&str]) -> String {
    String::from_utf8(output(tool(name).args(arguments))).unwrap()
}

fn refused(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!output.status.success(), "{name} {arguments:?}: {said}");
    said
}

fn put(from: &Path, url: &str) {
    output(tool("qemu-img").args(["convert", "-n", "-f", "raw", "-O", "raw"]).arg(from).arg(url));
}

fn fetch(url: &str, to: &Path) {
    output(tool("qemu-img").args(["convert", "-f", "raw", "-O", "raw", url]).arg(to));
}

#[test]
fn a_volume_is_a_disk_for_who_proves_itself() {
    let mut one = Appliance::new();
    let iqn = one.target("t1", &format!("--chap user:{SECRET}"), 48);
    let shown = one.shown("t1");
    assert_eq!((&shown["state"], &shown["auth_group"]), (&json!("served"), &json!("t1")));
    assert_eq!(shown["portals"], json!([one.address.to_string()]));
    let services = one.get("/v1/system/services");
    let services = services["items"].as_array().unwrap();
    let iscsi = services.iter().find(|service| service["name"] == "iscsi").unwrap();
    assert_eq!(iscsi["address"], json!(one.address.to_string()), "{iscsi}");

    // What others' clients find.
    let portal = format!("iscsi://user%{SECRET}@{}", one.address);
    let list = said("iscsi-ls", &["-s", &portal]);
    assert!(list.contains(&format!("Target:{iqn}")) && list.contains("Size:47M"), "{list}");
    let url = one.url(&iqn);
    let inquiry = said("iscsi-inq", &[&url]);
    assert!(inquiry.contains("Vendor:STRNGRM"), "{inquiry}");

    // There and back.
    let (disk, back) = (one.dir.path().join("disk.img"), one.dir.path().join("back.img"));
    let mut bytes = noise(7, 48 << 20);
    bytes[9 << 20..30 << 20].fill(0);
    fs::write(&disk, &bytes).unwrap();
    put(&disk, &url);
    fetch(&url, &back);
    assert!(fs::read(&back).unwrap() == bytes, "what came back is something else");
    // And after a restart, with nothing asked for.
    one.stop();
    assert!(TcpStream::connect(one.address).is_err());
    one.start();
    one.is_served("t1");
    one.cli("system restart").code(0);
    one.served.as_mut().unwrap().started_anew();
    one.is_served("t1");
    fetch(&url, &back);
    assert!(fs::read(&back).unwrap() == bytes, "what came back is something else");

    // Who proves nothing, or the wrong thing, is not let in; who guesses is heard no more, which is
    // written down, without what was guessed.
    let none = format!("iscsi://{}/{iqn}/0", one.address);
    refused("iscsi-inq", &[&none]);
    let wrong = format!("iscsi://user%wrongwrong1234@{}/{iqn}/0", one.address);
    for _ in 0..6 {
        let said = refused("iscsi-inq", &[&wrong]);
        assert!(said.to_lowercase().contains("authentication failure"), "{said}");
    }
    until("it is written down", || {
        let trail = one.cli("audit list --json").code(0).text();
        trail.contains("targets.login.blocked")
    });
    until("it is heard again", || run("iscsi-inq", &[&url]).status.success());
    let log = one.served.as_ref().unwrap().log();
    assert!(log.contains("an initiator's CHAP was wrong"), "{log}");
    for secret in [SECRET, "wrongwrong1234"] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    // Who may manage targets is told the secret, which is written down too.
    let told = one.cli("target auth-group secrets t1 --json").code(0).json();
    assert_eq!(told["chap"], json!({"user": "user", "secret": SECRET}));
    let trail = one.cli("audit list --json").code(0).text();
    assert!(trail.contains("auth_groups.secrets") && !trail.contains(SECRET));
}

#[test]
fn initiators_are_those_that_are_named_and_see_only_their_targets() {
    let one = Appliance::new();
    let first = one.target("t1", &format!("--initiator {A}"), 8);
    let second = one.target("t2", &format!("--initiator {B}"), 8);
    let portal = format!("iscsi://{}", one.address);
    let url = |iqn: &str| format!("{portal}/{iqn}/0");
    for (name, own, other) in [(A, &first, &second), (B, &second, &first)] {
        let list = said("iscsi-ls", &["-i", name, &portal]);
        assert!(list.contains(&format!("Target:{own}")), "{list}");
        assert!(!list.contains(&format!("Target:{other}")), "{list}");
        said("iscsi-inq", &["-i", name, &url(own)]);
        refused("iscsi-inq", &["-i", name, &url(other)]);
    }
    // All of it changes while it is in use.
    one.cli(&format!("target auth-group add-initiator t1 {B} --alias second")).code(0);
    said("iscsi-inq", &["-i", B, &url(&first)]);
    one.cli(&format!("target auth-group remove-initiator t1 {A}")).code(0);
    refused("iscsi-inq", &["-i", A, &url(&first)]);
    one.cli("target change t2 --auth-group t1").code(0);
    said("iscsi-inq", &["-i", B, &url(&second)]);
    one.cli("target auth-group delete t2 --yes").code(0);
    assert!(one.cli("target auth-group delete t1 --yes").code(1).err.contains("is that of t1, t2"));
    // A changed secret counts for who comes next.
    one.cli(&format!("target auth-group change t1 --chap user:{SECRET}")).code(0);
    refused("iscsi-inq", &["-i", B, &url(&first)]);
    said("iscsi-inq", &["-i", B, &one.url(&first)]);
    // Other machines don't reach what is not guarded.
    one.cli("target auth-group change t1 --no-chap").code(0);
    let run = one.cli("target portal-group add-portal own 0.0.0.0:1").code(2);
    assert!(run.err.contains("--open"), "{}", run.err);
}

#[test]
fn volumes_come_go_and_grow_while_initiators_are_logged_in() {
    let one = Appliance::new();
    let iqn = one.target("t1", &format!("--initiator {A}"), 8);
    one.cli("volume create more --size 8M --pool work").code(0);
    let mut there = Initiator::log_in_to(&iqn, one.address, A, 1, true);
    let mut inquiry = [0; 6];
    (inquiry[0], inquiry[4]) = (0x12, 36);
    assert_eq!(there.perform(&inquiry, &[], 36).status, 0);
    let sessions = one.cli("target sessions t1 --json").code(0).json();
    assert_eq!(sessions["initiator"], A);
    assert!(sessions["logged_in_at"].as_str().is_some() && sessions["address"].is_string());

    // LUN 1 appears.
    one.cli("target map t1 more").code(0);
    let mut heard = Vec::new();
    until("it is ready", || {
        let done = there.perform(&[0; 6], &[], 0);
        heard.extend(done.sense);
        done.status == 0
    });
    assert!(heard.contains(&(6, 0x3f, 0x0e)), "{heard:x?}");
    let luns = said("iscsi-ls", &["-i", A, "-s", &format!("iscsi://{}", one.address)]);
    assert!(luns.contains("Lun:0") && luns.contains("Lun:1"), "{luns}");

    // LUN 0 grows.
    one.cli("volume grow of-t1 --size 16M").code(0);
    let (told, sense) = there.receive();
    assert_eq!((told.opcode(), sense[4] & 0xf, &sense[14..16]), (0x32, 6, &[0x2a, 0x09][..]));
    let mut capacity = [0; 16];
    (capacity[0], capacity[1], capacity[13]) = (0x9e, 0x10, 32);
    assert_eq!(there.perform(&capacity, &[], 32).sense, Some((6, 0x2a, 0x09)));
    let answer = there.perform(&capacity, &[], 32);
    assert_eq!(answer.data[..8], ((16_u64 << 20) / 512 - 1).to_be_bytes(), "{answer:?}");

    // Reading the configuration again is nothing to them.
    let served = one.served.as_ref().unwrap();
    served.signal(Signal::HUP);
    served.logs("the configuration was read again");
    assert_eq!(there.perform(&capacity, &[], 32).status, 0);

    // What is in use is not made another or taken away, unless that is meant.
    one.cli("volume snapshot create of-t1 s1").code(0);
    let run = one.cli("volume snapshot restore of-t1@s1 --yes").code(1);
    assert!(run.err.contains("target t1"), "{}", run.err);
    for line in ["target unmap t1 of-t1", "target delete t1 --yes", "target change t1 --disable"] {
        let run = one.cli(line).code(1);
        assert!(run.err.contains("--force"), "{line}: {}", run.err);
    }
    one.cli("target unmap t1 of-t1 --force").code(0);
    let gone = there.perform(&capacity, &[], 32);
    assert!(gone.status == 2, "{gone:?}");
    assert!(one.cli("volume delete more --yes").code(1).err.contains("t1"));
    one.cli("volume delete of-t1 --yes").code(0);
    one.cli("target rename t1 other").code(0);
    assert_eq!(one.shown("other")["iqn"], iqn.as_str());
    one.cli("target delete other --force --yes").code(0);
    while there.try_receive().is_some() {}
    until("the port is closed", || TcpStream::connect(one.address).is_err());
    one.cli("volume delete more --yes").code(0);
}

/// A PERSISTENT RESERVE OUT: the command, and its parameters with these keys.
fn reserve(action: u8, kind: u8, own: u64, new: u64, kept: bool) -> ([u8; 10], [u8; 24]) {
    let mut command = [0; 10];
    (command[0], command[1], command[2], command[8]) = (0x5f, action, kind, 24);
    let mut parameters = [0; 24];
    parameters[..8].copy_from_slice(&own.to_be_bytes());
    parameters[8..16].copy_from_slice(&new.to_be_bytes());
    parameters[20] = u8::from(kept);
    (command, parameters)
}

#[test]
fn reservations_of_two_initiators_outlast_a_restart() {
    let mut one = Appliance::new();
    let iqn = one.target("t1", "", 8);
    let address = one.address;
    let log_in = |name: &str| {
        let mut one = Initiator::log_in_to(&iqn, address, name, 1, false);
        // What it has to hear first.
        until("it is ready", || one.perform(&[0; 6], &[], 0).status != 2);
        one
    };
    let (mut a, mut b) = (log_in(A), log_in(B));
    let ask = |one: &mut Initiator, (command, parameters): ([u8; 10], [u8; 24])| {
        one.perform(&command, &parameters, 0)
    };
    assert_eq!(ask(&mut a, reserve(0, 0, 0, 0xa, true)), Done::good(&[]));
    assert_eq!(ask(&mut b, reserve(0, 0, 0, 0xb, true)), Done::good(&[]));
    // Write exclusive, for who registered this key.
    assert_eq!(ask(&mut a, reserve(1, 1, 0xa, 0, false)), Done::good(&[]));
    let mut write = [0; 10];
    (write[0], write[8]) = (0x2a, 1);
    assert_eq!(b.perform(&write, &[7; 512], 0), Done::conflict());
    assert_eq!(a.perform(&write, &[7; 512], 0), Done::good(&[]));
    drop((a, b));

    one.stop();
    one.start();
    one.is_served("t1");
    let (mut a, mut b) = (log_in(A), log_in(B));
    assert_eq!(b.perform(&write, &[8; 512], 0), Done::conflict());
    assert_eq!(a.perform(&write, &[9; 512], 0), Done::good(&[]));
    // The other one takes it over, as a cluster does when its node is gone.
    let (command, mut parameters) = reserve(4, 1, 0xb, 0, false);
    parameters[8..16].copy_from_slice(&0xa_u64.to_be_bytes());
    assert_eq!(b.perform(&command, &parameters, 0), Done::good(&[]));
    assert_eq!(b.perform(&write, &[8; 512], 0), Done::good(&[]));
    until("it heard of it", || a.perform(&[0; 6], &[], 0).status != 2);
    assert_eq!(a.perform(&write, &[9; 512], 0), Done::conflict());
}

#[test]
fn what_was_flushed_is_there_after_a_kill_and_a_file_system_is_whole() {
    let mut one = Appliance::new();
    let iqn = one.target("t1", &format!("--chap user:{SECRET}"), 64);
    let url = one.url(&iqn);
    let image = one.dir.path().join("fs.img");
    let tree = one.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(3, 5_000_000)).unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    output(tool("mkfs.ext4").arg("-q").arg("-d").arg(&tree).arg(&image));
    put(&image, &url);
    for round in 0..3 {
        let write = format!("write -P {} {}M 512k", 20 + round, 40 + round);
        output(tool("qemu-io").args(["-f", "raw", "-c", &write, "-c", "flush", &url]));
        one.served.take().unwrap().kill();
        one.start();
        one.is_served("t1");
        for earlier in 0..=round {
            let read = format!("read -P {} {}M 512k", 20 + earlier, 40 + earlier);
            let said = said("qemu-io", &["-f", "raw", "-c", &read, &url]);
            assert!(!said.contains("failed"), "{said}");
        }
    }
    let back = one.dir.path().join("back.img");
    put(&image, &url);
    one.served.take().unwrap().kill();
    one.start();
    one.is_served("t1");
    fetch(&url, &back);
    assert!(fs::read(&back).unwrap() == fs::read(&image).unwrap());
    output(tool("fsck.ext4").args(["-f", "-n"]).arg(&back));
}

#[test]
fn an_atomic_write_is_there_or_not_after_a_kill() {
    const SIZE: u32 = 128 << 10;
    let mut one = Appliance::new();
    let iqn = one.target("t1", "", 16);
    let cdb = |code, flags| [code, flags, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 1, 0, 0, 0];
    let log_in = |one: &Appliance| Initiator::log_in_to(&iqn, one.address, A, 1, false);
    for round in [1, 3, 5_u8] {
        let mut initiator = log_in(&one);
        let durable = cdb(0x9c, 0x08);
        assert_eq!(initiator.perform(&durable, &[round; SIZE as usize], 0), Done::good(&[]));
        // The next has come, but for its answer.
        let header = initiator.command(&cdb(0x9c, 0), 0, SIZE);
        initiator.send(header, &[]);
        let mut sent = 0;
        while sent < SIZE {
            let (asked, _) = initiator.receive();
            initiator.answer(&asked, &[round + 1; SIZE as usize]);
            sent += asked.word(44);
        }
        one.served.take().unwrap().kill();
        one.start();
        one.is_served("t1");
        let there = log_in(&one).perform(&cdb(0x88, 0), &[], SIZE).data;
        assert!([round, round + 1].contains(&there[0]), "{}", there[0]);
        assert!(there.iter().all(|byte| *byte == there[0]), "half of a write is there");
    }
}

/// Two paths to one volume. What skips is told in `docs/targets.md`.
#[test]
fn the_tests_of_libiscsi_find_nothing_wrong() {
    let one = Appliance::new();
    let iqn = one.target("t1", &format!("--chap user:{SECRET}"), 256);
    let url = one.url(&iqn);
    let arguments = ["--dataloss", "--Verbose-scsi", "--test", "ALL", &url, &url];
    let sum = Sum::of(&String::from_utf8_lossy(&run("iscsi-test-cu", &arguments).stdout));
    // Which skip and why is told in docs/targets.md.
    assert_eq!(sum, Sum { tests: 230, failed: 0, skipped: 32 });
    assert_eq!(one.shown("t1")["state"], "served");
}
