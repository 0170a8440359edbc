//! Volumes and snapshots of a pool of one's own, served over NBD, TLS and iSCSI, and judged by clients.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::devices::{SIZE, backed_up, disk, same};
use crate::support::authority::Authority;
use crate::support::exported::Exported;
use crate::support::volumes::{clone, make_volume, snap};
use crate::support::{Lab, noise, output, tool};

const SECRET: &str = "secretsecret12";

/// A pool with a volume `vol`, and a disk to put onto it.
fn with_volume() -> (Lab, std::path::PathBuf) {
    let lab = Lab::new();
    lab.make_pool();
    let disk = disk(&lab);
    make_volume(&lab, "vol", SIZE);
    fs::write(lab.path("chap"), format!("anna:{SECRET}\n")).unwrap();
    (lab, disk)
}

/// Writes a file onto a disk that is served.
fn put(from: &Path, uri: &str) {
    output(tool("qemu-img").args(["convert", "-n", "-f", "raw", "-O", "raw"]).arg(from).arg(uri));
}

/// A command of somebody whom CHAP knows.
fn as_anna(name: &str) -> Command {
    let mut command = tool(name);
    command.env("LIBISCSI_CHAP_USERNAME", "anna").env("LIBISCSI_CHAP_PASSWORD", SECRET);
    command
}

/// The address with who logs in, in the form of libiscsi.
fn by_anna(uri: &str) -> String {
    uri.replacen("iscsi://", &format!("iscsi://anna%{SECRET}@"), 1)
}

#[test]
fn a_volume_is_one_disk_to_clients_of_both_protocols_and_keeps_what_they_write() {
    let (lab, disk) = with_volume();
    let line =
        "vol --in-place --iscsi 127.0.0.1:0 --chap-file chap --iqn iqn.2026-11.org.example:Vol";
    let served = Exported::of(&lab, line);
    let told = served.told.clone();
    assert!(!told.to_string().contains(SECRET), "{told}");
    assert_eq!((&told["in_place"], &told["writable"]), (&true.into(), &true.into()));
    assert_eq!(told["iscsi"]["target"], "iqn.2026-11.org.example:vol");
    assert_eq!(told["iscsi"]["chap_user"], "anna");
    assert_eq!(told["export"], "vol");
    // Written through one, read through the other, and back.
    put(&disk, served.uri());
    same(&disk, &by_anna(served.iscsi()));
    let other = lab.path("other.img");
    fs::write(&other, noise(8, 5 << 20)).unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_len(SIZE).unwrap();
    put(&other, &by_anna(served.iscsi()));
    same(&other, served.uri());
    let listed = output(as_anna("iscsi-ls").arg("-s").arg(portal(served.iscsi())));
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(listed.contains("iqn.2026-11.org.example:vol") && listed.contains("Lun:0"), "{listed}");
    let nobody = tool("iscsi-ls").arg("-s").arg(portal(served.iscsi())).output().unwrap();
    let found = String::from_utf8_lossy(&nobody.stdout).into_owned();
    assert!(!found.contains("iqn."), "who proves nothing is told nothing: {found}");
    put(&disk, &by_anna(served.iscsi()));
    let (code, said) = served.end();
    assert_eq!(code, Some(0), "{said}");
    // What was written is there, for whoever comes next; who only reads changes nothing.
    let served = Exported::of(&lab, "vol --iscsi 127.0.0.1:0");
    assert_eq!(served.told["writable"], false);
    assert_eq!(served.told["iscsi"]["target"], "iqn.2026-11.io.strongroom:vol");
    same(&disk, served.uri());
    same(&disk, served.iscsi());
    refuses_writes(served.uri());
    refuses_writes(served.iscsi());
    assert_eq!(served.end().0, Some(0));
    lab.run("pool check").code(0);
}

fn portal(uri: &str) -> String {
    uri.rsplitn(3, '/').last().unwrap().to_owned()
}

fn refuses_writes(uri: &str) {
    let wrote = tool("qemu-io").args(["-f", "raw", "-c", "write -P 1 0 4k"]).arg(uri).output();
    let wrote = wrote.unwrap();
    let said = String::from_utf8_lossy(&wrote.stdout).into_owned();
    assert!(!wrote.status.success() || !said.contains("wrote"), "{said}");
}

#[test]
fn a_disk_of_a_backup_is_served_to_initiators() {
    let (lab, disk) = backed_up();
    let line = "volume export vm --iscsi 127.0.0.1:0 --json";
    let served = Exported::begin(lab.command(line.split_whitespace()));
    assert_eq!((&served.told["nbd"], &served.told["writable"]), (&Value::Null, &false.into()));
    same(&disk, served.iscsi());
    let inquiry = output(tool("iscsi-inq").arg(served.iscsi()));
    assert!(String::from_utf8_lossy(&inquiry).contains("STRNGRM"));
    refuses_writes(served.iscsi());
    assert_eq!(served.end().0, Some(0));
    let line = "volume export vm --writable --iscsi 127.0.0.1:0 --json";
    let served = Exported::begin(lab.command(line.split_whitespace()));
    let other = lab.path("other.img");
    fs::write(&other, noise(9, 3 << 20)).unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_len(SIZE).unwrap();
    put(&other, served.iscsi());
    same(&other, served.iscsi());
    assert_eq!(served.end().0, Some(0));
    let served = Exported::of(&lab, "vm");
    same(&disk, served.uri());
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn a_snapshot_is_what_the_volume_was() {
    let (lab, disk) = with_volume();
    let served = Exported::in_place(&lab, "vol");
    put(&disk, served.uri());
    assert_eq!(served.end().0, Some(0));
    let id = snap(&lab, "vol", "monday");
    let served = Exported::in_place(&lab, "vol");
    output(tool("qemu-io").args(["-f", "raw", "-c", "write -P 7 0 8M"]).arg(served.uri()));
    assert_eq!(served.end().0, Some(0));
    let served = Exported::of(&lab, "vol@monday");
    assert_eq!(served.told["snapshot"], id.to_string());
    same(&disk, served.uri());
    refuses_writes(served.uri());
    assert_eq!(served.end().0, Some(0));
    let served = Exported::of(&lab, "vol@monday --writable");
    output(tool("qemu-io").args(["-f", "raw", "-c", "write -P 7 0 8M"]).arg(served.uri()));
    assert_eq!(served.end().0, Some(0));
    clone(&lab, "vol", id, "twin");
    let served = Exported::in_place(&lab, "twin");
    same(&disk, served.uri());
    let copy = lab.path("copy.img");
    output(tool("nbdcopy").arg(served.uri()).arg(&copy));
    output(tool("e2fsck").args(["-f", "-n"]).arg(&copy));
    assert_eq!(served.end().0, Some(0));
    let said = lab.run("volume export vol@tuesday --nbd unix:socket").code(1).err;
    assert!(said.contains("it has monday"), "{said}");
    let said = lab.run("volume export vol@monday --in-place --nbd unix:socket").code(2).err;
    assert!(said.contains("--writable"), "{said}");
}

#[test]
fn names_of_images_and_volumes_are_told_apart() {
    let (lab, disk) = backed_up();
    make_volume(&lab, "vm", 1 << 20);
    make_volume(&lab, "vol", 1 << 20);
    let said = lab.run("volume export vm --nbd unix:socket").code(2).err;
    assert!(said.contains("--volume") && said.contains("--image"), "{said}");
    let served = Exported::of(&lab, "vm --image");
    same(&disk, served.uri());
    assert_eq!(served.end().0, Some(0));
    let served = Exported::of(&lab, "vm --volume");
    assert_eq!(served.told["size"], 1 << 20);
    assert_eq!(served.end().0, Some(0));
    let said = lab.run("volume export nothing --volume --nbd unix:socket").code(1).err;
    assert!(said.contains("vm, vol"), "{said}");
    let said = lab.run("volume export vm --image --in-place --nbd unix:socket").code(2).err;
    assert!(said.contains("--writable"), "{said}");
    lab.run("volume export nothing --nbd unix:socket").code(1);
    lab.run("volume export vol").code(2);
    lab.run("volume export vol --in-place --writable --nbd unix:socket").code(2);
    lab.run("volume export vol --nbd unix:socket --chap-file pw").code(2);
    for place in ["--nbd 0.0.0.0:0", "--iscsi 0.0.0.0:0"] {
        let said = lab.run(&format!("volume export vol {place}")).code(1).err;
        assert!(said.contains("--in-clear"), "{said}");
    }
    fs::write(lab.path("chap"), "hunter2hunter2").unwrap();
    let said = lab.run("volume export vol --iscsi 127.0.0.1:0 --chap-file chap").code(2).err;
    assert!(said.contains("USER:SECRET") && !said.contains("hunter2"), "{said}");
    // A pool is written by one process only.
    let served = Exported::in_place(&lab, "vol");
    lab.run("volume export vm --volume --nbd unix:other").code(4);
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn clients_prove_themselves_by_certificates() {
    let (lab, disk) = backed_up();
    let (ours, others) = (Authority::new(lab.path("ours")), Authority::new(lab.path("others")));
    let server = "--tls-cert ours/server-cert.pem --tls-key ours/server-key.pem";
    let export = |place: &str, more: &str| {
        let line = format!("volume export vm --nbd {place} {server} {more} --json");
        lab.command(line.split_whitespace())
    };
    // Without certificates of clients: encrypted, but for anybody.
    let served = Exported::begin(export("127.0.0.1:0", ""));
    let uri = |served: &Exported, of: &Authority| {
        format!("{}?tls-certificates={}", served.uri(), of.dir().display())
    };
    assert!(served.uri().starts_with("nbds://127.0.0.1:"), "{}", served.uri());
    let info = output(tool("nbdinfo").arg("--json").arg(uri(&served, &ours)));
    let info: Value = serde_json::from_slice(&info).unwrap();
    assert_eq!((&info["TLS"], &info["exports"][0]["export-size"]), (&true.into(), &SIZE.into()));
    // A client that trusts others doesn't speak to it.
    assert!(!tool("nbdinfo").arg(uri(&served, &others)).output().unwrap().status.success());
    assert_eq!(served.end().0, Some(0));
    let said = Command::output(&mut export("0.0.0.0:0", "")).unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("--tls-clients"));
    // With them, nobody else is let in, and other machines may come.
    let served = Exported::begin(export("0.0.0.0:0", "--tls-clients ours/ca-cert.pem"));
    let port = served.uri().rsplit(['/', ':']).nth(1).unwrap().to_owned();
    let copy = lab.path("copy.img");
    let address = format!("nbds://127.0.0.1:{port}/vm?tls-certificates={}", ours.dir().display());
    output(tool("nbdcopy").arg(&address).arg(&copy));
    output(tool("cmp").arg(&disk).arg(&copy));
    let compare = |of: &Authority| -> Output {
        let mut qemu = tool("qemu-img");
        qemu.args(["compare", "--image-opts", "--object"]);
        qemu.arg(format!("tls-creds-x509,id=tls,endpoint=client,dir={}", of.dir().display()));
        qemu.arg(format!("driver=raw,file.driver=file,file.filename={}", disk.display()));
        qemu.arg(format!(
            "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=127.0.0.1,\
             file.server.port={port},file.export=vm,file.tls-creds=tls"
        ));
        qemu.output().unwrap()
    };
    let came = compare(&ours);
    assert!(came.status.success(), "{}", String::from_utf8_lossy(&came.stderr));
    // Who trusts ours, and shows a certificate of others, is a stranger.
    ours.take_client_of(&others);
    assert!(!compare(&ours).status.success());
    assert!(!tool("nbdinfo").arg(&address).output().unwrap().status.success());
    let plain = format!("nbd://127.0.0.1:{port}/vm");
    assert!(!tool("nbdinfo").arg(plain).output().unwrap().status.success());
    assert_eq!(served.end().0, Some(0));
    let socket = Command::output(&mut export("unix:socket", "")).unwrap();
    assert_eq!(socket.status.code(), Some(2));
    lab.run("volume export vm --nbd 127.0.0.1:0 --tls-cert ours/server-cert.pem").code(2);
}
