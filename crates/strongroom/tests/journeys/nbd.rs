//! Volumes of an appliance for clients of NBD.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

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
    fn new(address: &str, authority: &Authority) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap();
        let credentials = authority.dir().display();
        let mut io = tool("qemu-io");
        io.arg("--object").arg(format!("tls-creds-x509,id=tls,endpoint=client,dir={credentials}"));
        io.arg("--image-opts").arg(format!(
            "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host={host},\
             file.server.port={port},file.export=main/vol,file.tls-creds=tls"
        ));
        let mut child = io.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// It reads a block.
    fn reads(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"read 0 4k\n").unwrap();
        let mut line = String::new();
        while !line.contains("read 4096/4096 bytes") {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "it has ended");
            assert!(!line.contains("failed"), "{line}");
        }
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
    let mut client = Reading::new(&second, &ours);
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
