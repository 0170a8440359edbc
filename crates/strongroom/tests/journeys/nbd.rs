//! Volumes of an appliance for clients of NBD.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::devices::{disk, same};
use crate::support::authority::Authority;
use crate::support::fused::Fused;
use crate::support::served::{Served, ask};
use crate::support::{Lab, disk_usage, output, tool};
use crate::up::until;

const SIZE: u64 = crate::devices::SIZE;

/// Asks for something that is made, or there.
pub(crate) fn asked(data: &Path, method: &str, path: &str, body: Option<Value>) -> Value {
    let (code, told) = ask(data, method, path, body);
    assert!((200..300).contains(&code), "{method} {path}: {code} {told}");
    told
}

/// An appliance with an empty volume `main/vol`; the volume's number.
fn with_volume(data: &Path) -> i64 {
    let pools = asked(data, "GET", "/v1/pools", None);
    let path = format!("/v1/pools/{}/volumes", pools["items"][0]["id"]);
    asked(data, "POST", &path, Some(json!({"name": "vol", "size": SIZE})))["id"].as_i64().unwrap()
}

pub(crate) fn uri(data: &Path, name: &str) -> String {
    format!("nbd+unix:///{name}?socket={}", data.join("nbd.sock").display())
}

/// The names of the exports at an address.
fn names(uri: &str) -> Vec<String> {
    let listed = output(tool("nbdinfo").args(["--json", "--list"]).arg(uri));
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    let all = listed["exports"].as_array().unwrap().iter();
    all.map(|export| export["export-name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn volumes_and_snapshots_are_served_at_the_socket() {
    let lab = Lab::new();
    let data = lab.path("data");
    let served = Served::start(&data);
    let volume = with_volume(&data);
    let mode = fs::metadata(data.join("nbd.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "who may use the control socket");
    let services = asked(&data, "GET", "/v1/system/services", None).to_string();
    assert!(services.contains("nbd.sock"), "{services}");
    assert_eq!(names(&uri(&data, "")), ["main/vol"]);
    let disk = disk(&lab);
    let vol = uri(&data, "main/vol");
    output(tool("nbdcopy").arg(&disk).arg(&vol));
    same(&disk, &vol);
    let path = format!("/v1/volumes/{volume}/snapshots");
    asked(&data, "POST", &path, Some(json!({"name": "monday"})));
    assert_eq!(names(&uri(&data, "")), ["main/vol", "main/vol@monday"]);
    output(tool("qemu-io").args(["-f", "raw", "-c", "write -P 7 0 8M"]).arg(&vol));
    let monday = uri(&data, "main/vol@monday");
    same(&disk, &monday);
    let wrote = tool("qemu-io").args(["-f", "raw", "-c", "write 0 4k"]).arg(&monday).output();
    assert!(!wrote.unwrap().status.success());
    for unknown in ["", "main", "main/other", "main/vol@tuesday", "main/vol/x", "other/vol"] {
        let asked = tool("nbdinfo").arg(uri(&data, unknown)).output().unwrap();
        assert!(!asked.status.success(), "{unknown:?} is no export");
    }
    // As long as somebody is connected, it isn't removed.
    let path = format!("/v1/volumes/{volume}");
    let fused = Fused::new(&lab, &vol);
    let shown = asked(&data, "GET", &path, None);
    assert!(shown["served_by"][0].as_str().unwrap().starts_with("NBD client"), "{shown}");
    let (code, told) = ask(&data, "DELETE", &path, None);
    assert_eq!(code, 409, "{told}");
    fused.end();
    // Who comes after it was made larger finds it so.
    asked(&data, "POST", &format!("{path}/grow"), Some(json!({"size": 2 * SIZE})));
    let size = output(tool("nbdinfo").arg("--size").arg(&vol));
    assert_eq!(String::from_utf8_lossy(&size).trim(), (2 * SIZE).to_string());
    let larger = lab.path("larger.img");
    fs::copy(&disk, &larger).unwrap();
    fs::File::options().write(true).open(&larger).unwrap().set_len(2 * SIZE).unwrap();
    // What is served over it is there after a kill.
    output(tool("nbdcopy").arg("--flush").arg(&disk).arg(&vol));
    served.kill();
    let served = Served::start(&data);
    same(&larger, &vol);
    same(&disk, &monday);
    served.stop();
    assert!(!tool("nbdinfo").arg(&vol).output().unwrap().status.success());
}

/// Writes and flushes until it is ended.
fn writing(uri: &str) -> Child {
    let mut fio = tool("fio");
    fio.args(["--name=busy", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=8"]);
    fio.args(["--offset=80m", "--size=16m", "--loops=100000", "--fsync=64"]);
    fio.arg(format!("--uri={uri}")).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_snapshot_is_taken_while_somebody_writes_and_its_clone_is_whole() {
    let lab = Lab::new();
    let data = lab.path("data");
    let served = Served::start(&data);
    let volume = with_volume(&data);
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), crate::support::noise(4, 2_000_000)).unwrap();
    // A filesystem at the front; who writes does that behind it.
    let disk = lab.path("disk.img");
    fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    output(tool("mkfs.ext4").arg("-q").arg("-d").arg(&tree).arg(&disk));
    fs::File::options().write(true).open(&disk).unwrap().set_len(SIZE).unwrap();
    let vol = uri(&data, "main/vol");
    output(tool("nbdcopy").arg("--flush").arg(&disk).arg(&vol));
    let before = disk_usage(&data);
    let mut writer = writing(&vol);
    until("something is written", || disk_usage(&data) > before + (4 << 20));
    let path = format!("/v1/volumes/{volume}/snapshots");
    for number in 0..3 {
        assert!(writer.try_wait().unwrap().is_none(), "it still writes");
        let name = format!("snap{number}");
        let made = asked(&data, "POST", &path, Some(json!({ "name": name })));
        let path = format!("/v1/snapshots/{}/clone", made["id"]);
        asked(&data, "POST", &path, Some(json!({"name": format!("clone{number}")})));
        let (clone, snapshot) =
            (uri(&data, &format!("main/clone{number}")), uri(&data, &format!("main/vol@{name}")));
        let copy = lab.path("copy.img");
        output(tool("nbdcopy").arg(&clone).arg(&copy));
        same(&copy, &snapshot);
        output(tool("e2fsck").args(["-f", "-n"]).arg(&copy));
        // It is a disk of its own.
        let io = ["-f", "raw", "-c", "write -P 7 0 1M", "-c", "flush"];
        output(tool("qemu-io").args(io).arg(&clone));
        same(&copy, &snapshot);
    }
    assert!(writer.try_wait().unwrap().is_none(), "it wrote all the time");
    writer.kill().unwrap();
    writer.wait().unwrap();
    served.stop();
}

/// A configuration with these lines, for certificates that an authority signed.
fn configure(data: &Path, authority: &Authority, lines: &str) {
    fs::create_dir_all(data).unwrap();
    let file = |name: &str| authority.file(name).display().to_string();
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\ncertificate = \"{}\"\nkey = \"{}\"\n{lines}",
        file("server-cert.pem"),
        file("server-key.pem"),
    );
    fs::write(data.join("strongroom.toml"), text).unwrap();
}

fn clients(path: &Path) -> String {
    format!("nbd_clients = \"{}\"\n", path.display())
}

/// A client that stays connected.
struct Reading {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Reading {
    /// At an address, with the certificate that is in a directory.
    fn new(address: &str, credentials: &Path) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap();
        let credentials = credentials.display();
        let mut io = tool("qemu-io");
        io.arg("--object").arg(format!("tls-creds-x509,id=tls,endpoint=client,dir={credentials}"));
        io.arg("--image-opts").arg(format!(
            "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host={host},\
             file.server.port={port},file.export=main/vol,file.tls-creds=tls"
        ));
        Self::by(io)
    }

    /// At the socket.
    fn local(uri: &str) -> Self {
        let mut io = tool("qemu-io");
        io.args(["-f", "raw"]).arg(uri);
        Self::by(io)
    }

    fn by(mut io: Command) -> Self {
        let mut child = io.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// What it says to a command, as far as these words.
    fn does(&mut self, command: &str, until: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut line = String::new();
        while !line.contains(until) {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "it has ended");
            assert!(until.contains("failed") || !line.contains("failed"), "{line}");
        }
    }

    /// It reads a block.
    fn reads(&mut self) {
        self.does("read 0 4k", "read 4096/4096 bytes");
    }

    /// It can read no more.
    fn is_cut_off(&mut self) {
        self.does("read 0 4k", "read failed");
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn clients_on_the_network_show_a_certificate() {
    let lab = Lab::new();
    let data = lab.path("data");
    let (ours, others) = (Authority::new(lab.path("ours")), Authority::new(lab.path("others")));
    configure(&data, &ours, "nbd = [\"127.0.0.1:0\"]\n");
    let said = lab.run("up --data data").code(1).err;
    assert!(said.contains("nbd_clients"), "{said}");
    let trusted = lab.path("trusted.pem");
    fs::write(&trusted, "nobody").unwrap();
    configure(&data, &ours, &format!("nbd = [\"127.0.0.1:0\"]\n{}", clients(&trusted)));
    let said = lab.run("up --data data").code(1).err;
    assert!(said.contains("trusted.pem") && said.contains("no certificate"), "{said}");
    fs::copy(ours.file("ca-cert.pem"), &trusted).unwrap();
    let served = Served::start_as_configured(&data);
    with_volume(&data);
    let first = served.told["nbd"][0].as_str().unwrap().to_owned();
    let at = |address: &str, of: &Authority| {
        format!("nbds://{address}/main/vol?tls-certificates={}", of.dir().display())
    };
    let is_served = |uri: &str| tool("nbdinfo").arg(uri).output().unwrap().status.success();
    let disk = disk(&lab);
    output(tool("nbdcopy").arg(&disk).arg(at(&first, &ours)));
    same(&disk, &uri(&data, "main/vol"));
    assert!(!is_served(&format!("nbd://{first}/main/vol")), "it is encrypted, or nothing");
    // One who trusts ours and is a stranger.
    ours.take_client_of(&others);
    assert!(!is_served(&at(&first, &ours)));
    // The authority of those is trusted instead, at another address.
    let second = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fs::copy(others.file("ca-cert.pem"), &trusted).unwrap();
    configure(&data, &ours, &format!("nbd = [\"{second}\"]\n{}", clients(&trusted)));
    served.signal(Signal::HUP);
    served.logs("clients of NBD are served at");
    assert!(is_served(&at(&second, &ours)));
    assert!(!is_served(&at(&first, &ours)), "nobody listens there any more");
    let services = asked(&data, "GET", "/v1/system/services", None);
    assert!(services.to_string().contains(&second), "{services}");
    // What can't be is said, and all stays as it was.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let third = taken.local_addr().unwrap();
    configure(&data, &ours, &format!("nbd = [\"{third}\"]\n{}", clients(&trusted)));
    served.signal(Signal::HUP);
    served.logs("clients of NBD are served as they were");
    assert!(is_served(&at(&second, &ours)));
    // Another address, and a client that stays.
    let mut client = Reading::new(&second, ours.dir());
    client.reads();
    let fourth = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    configure(&data, &ours, &format!("nbd = [\"{fourth}\"]\n{}", clients(&trusted)));
    served.signal(Signal::HUP);
    served.logs(&format!("clients of NBD are served at [{fourth}]"));
    assert!(!is_served(&at(&second, &ours)) && is_served(&at(&fourth, &ours)));
    client.reads();
    drop(client);
    configure(&data, &ours, "");
    served.signal(Signal::HUP);
    served.logs("clients of NBD are served at []");
    assert!(!is_served(&at(&fourth, &ours)));
    same(&disk, &uri(&data, "main/vol"));
    served.stop();
}

/// Operations, objects, names and addresses in the audit trail, of clients of NBD.
fn trail(data: &Path) -> Vec<[String; 5]> {
    let lines = asked(data, "GET", "/v1/audit?limit=500", None);
    let all = lines["items"].as_array().unwrap().iter();
    let of_nbd = all.filter(|line| line["operation"].as_str().unwrap().starts_with("nbd."));
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let fields = ["operation", "object", "user_name", "address", "detail"];
    of_nbd.map(|line| fields.map(|field| text(line, field))).collect()
}

/// How many lines are of this operation, object and name.
fn told(data: &Path, operation: &str, object: &str, name: &str) -> usize {
    let lines = trail(data);
    lines.iter().filter(|line| line[..3] == [operation, object, name]).count()
}

#[test]
fn clients_are_shown_and_let_go_by_force() {
    let lab = Lab::new();
    let data = lab.path("data");
    let served = Served::start(&data);
    let volume = with_volume(&data);
    let vol = uri(&data, "main/vol");
    output(tool("qemu-io").args(["-f", "raw", "-c", "write -P 5 0 64k"]).arg(&vol));
    let mut client = Reading::local(&vol);
    client.reads();
    let user = format!("user {}", rustix::process::getuid().as_raw());
    let path = format!("/v1/volumes/{volume}");
    let shown = asked(&data, "GET", &path, None);
    let clients = shown["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 1, "{shown}");
    assert_eq!((&clients[0]["export"], &clients[0]["client"]), (&json!("main/vol"), &json!(user)));
    assert!(clients[0]["address"].is_null() && clients[0]["connected_at"].is_string());
    let text = lab.run("volume show vol --appliance data").code(0).text();
    assert!(text.contains(&user), "{text}");
    until("it is in the trail", || told(&data, "nbd.connected", "main/vol", &user) == 2);
    assert_eq!(told(&data, "nbd.disconnected", "main/vol", &user), 1, "the first is gone");
    // What isn't there is refused, which is written down.
    let nothing = tool("nbdinfo").arg(uri(&data, "main/none")).output().unwrap();
    assert!(!nothing.status.success());
    until("it is in the trail", || told(&data, "nbd.refused", "main/none", &user) == 1);

    let (code, told_why) = ask(&data, "DELETE", &path, None);
    assert_eq!((code, &told_why["code"]), (409, &json!("in_use")), "{told_why}");
    client.reads();
    let words = "volume delete vol --force --yes --appliance data";
    lab.run(words).code(0);
    client.is_cut_off();
    until("it is in the trail", || told(&data, "nbd.disconnected", "main/vol", &user) == 2);
    assert!(names(&uri(&data, "")).is_empty());

    // The pool, too.
    with_volume(&data);
    let mut client = Reading::local(&vol);
    client.reads();
    let pool = asked(&data, "GET", "/v1/pools", None)["items"][0]["id"].to_string();
    let (code, told_why) = ask(&data, "DELETE", &format!("/v1/pools/{pool}"), None);
    assert_eq!(code, 409, "{told_why}");
    client.reads();
    lab.run("pool remove main --force --yes --appliance data").code(0);
    client.is_cut_off();
    assert_eq!(asked(&data, "GET", "/v1/pools", None)["items"], json!([]));
    served.stop();
}

#[test]
fn a_pool_that_stopped_is_opened_anew_though_clients_were_connected() {
    let lab = Lab::new();
    let data = lab.path("data");
    let served = Served::start(&data);
    let volume = with_volume(&data);
    let vol = uri(&data, "main/vol");
    let mut client = Reading::local(&vol);
    client.does("write -P 6 0 1M", "wrote 1048576/1048576 bytes");
    client.does("flush", "");
    // Its disk takes no more packs: what is in the log can't be settled.
    let place = asked(&data, "GET", "/v1/pools", None)["items"][0]["path"].clone();
    let packs = Path::new(place.as_str().unwrap()).join("packs");
    let away = packs.with_extension("away");
    fs::rename(&packs, &away).unwrap();
    served.logs("a client of an export is let go");
    fs::rename(&away, &packs).unwrap();
    client.is_cut_off();
    // Who comes again finds it, with all that was flushed.
    until("it is served again", || tool("nbdinfo").arg(&vol).output().unwrap().status.success());
    let mut again = Reading::local(&vol);
    again.does("read -P 6 0 1M", "read 1048576/1048576 bytes");
    again.does("write -P 7 1M 1M", "wrote 1048576/1048576 bytes");
    let shown = asked(&data, "GET", &format!("/v1/volumes/{volume}"), None);
    assert!(shown["settle_error"].is_null(), "{shown}");
    served.stop();
}

#[test]
fn clients_have_the_volumes_that_are_said() {
    let lab = Lab::new();
    let data = lab.path("data");
    let ours = Authority::new(lab.path("ours"));
    let (vm7, backup) = (ours.client("vm7"), ours.client("backup"));
    let configured = |access: &str| {
        let clients = clients(&ours.file("ca-cert.pem"));
        configure(&data, &ours, &format!("nbd = [\"127.0.0.1:0\"]\n{clients}{access}"));
    };
    configured("nbd_access = { vm7 = [\"main\"] }\n");
    let said = lab.run("up --data data").code(1).err;
    assert!(said.contains("nbd_access") && said.contains("`main`"), "{said}");
    configured("nbd_access = { vm7 = [\"main/vol\"], backup = [\"main/*@mon*\"] }\n");
    let served = Served::start_as_configured(&data);
    let volume = with_volume(&data);
    let address = served.told["nbd"][0].as_str().unwrap().to_owned();
    let pool = asked(&data, "GET", "/v1/pools", None)["items"][0]["id"].to_string();
    let other = json!({"name": "other", "size": SIZE});
    asked(&data, "POST", &format!("/v1/pools/{pool}/volumes"), Some(other));
    for name in ["monday", "tuesday"] {
        let path = format!("/v1/volumes/{volume}/snapshots");
        asked(&data, "POST", &path, Some(json!({ "name": name })));
    }
    let at = |dir: &Path, name: &str| {
        format!("nbds://{address}/{name}?tls-certificates={}", dir.display())
    };
    let is_served = |dir: &Path, name: &str| {
        tool("nbdinfo").arg(at(dir, name)).output().unwrap().status.success()
    };
    assert_eq!(names(&at(&vm7, "")), ["main/vol", "main/vol@monday", "main/vol@tuesday"]);
    assert_eq!(names(&at(&backup, "")), ["main/vol@monday"]);
    assert!(names(&at(ours.dir(), "")).is_empty(), "it isn't named");
    assert_eq!(names(&uri(&data, "")).len(), 4, "the socket has all");
    assert!(is_served(&vm7, "main/vol") && is_served(&backup, "main/vol@monday"));
    assert!(!is_served(&vm7, "main/other") && !is_served(&backup, "main/vol"));
    assert!(!is_served(&backup, "main/vol@tuesday") && !is_served(ours.dir(), "main/vol"));
    // What it may not have is to it as if it weren't there.
    let said = |name: &str| {
        let asked = tool("nbdinfo").arg(at(&vm7, name)).output().unwrap();
        String::from_utf8_lossy(&asked.stderr).replace(name, "")
    };
    assert_eq!(said("main/other"), said("main/never"));
    until("they are in the trail", || {
        let lines = trail(&data);
        let is = |operation: &str, object: &str, name: &str| {
            lines
                .iter()
                .any(|line| line[..4] == [operation, object, &format!("CN={name}"), "127.0.0.1"])
        };
        is("nbd.connected", "main/vol", "vm7")
            && is("nbd.refused", "main/other", "vm7")
            && is("nbd.refused", "main/vol", "c")
    });
    // Who may no longer have what it has must go, others stay.
    let mut seven = Reading::new(&address, &vm7);
    seven.reads();
    let shown = asked(&data, "GET", &format!("/v1/volumes/{volume}"), None);
    let one = &shown["clients"][0];
    assert_eq!(one["client"], json!("CN=vm7"));
    assert!(one["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{one}");
    configured("nbd_access = { vm7 = [\"main/vol\"], c = [\"*/*\"] }\n");
    served.signal(Signal::HUP);
    until("it is read", || is_served(ours.dir(), "main/other"));
    seven.reads();
    configured("nbd_access = { c = [\"*/*\"] }\n");
    served.signal(Signal::HUP);
    until("it is read", || !is_served(&vm7, "main/vol"));
    seven.is_cut_off();
    assert!(is_served(ours.dir(), "main/vol"));
    served.stop();
}
