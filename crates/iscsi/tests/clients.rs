//! The tools of libiscsi and qemu as clients.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use strongroom_block::testing::MemoryDevice;
use strongroom_iscsi::{AuthGroup, Credential, Doorkeeper};
use support::Served;

fn served() -> Served {
    Served::device(Arc::new(MemoryDevice::new(32 << 20)))
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} can't be started: {error}"))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}

#[test]
fn libiscsi_finds_the_unit_and_what_it_is() {
    let served = served();
    let list = said("iscsi-ls", &["-s", &format!("iscsi://{}", served.address)]);
    assert!(list.contains("Target:iqn.2026-11.org.example:disk"), "{list}");
    assert!(list.contains("Lun:0"), "{list}");
    assert!(list.contains("(Size:31M)"), "{list}");
    let inquiry = said("iscsi-inq", &[&served.url()]);
    assert!(inquiry.contains("Vendor:STRNGRM"), "{inquiry}");
    let page = said("iscsi-inq", &["-e", "1", "-c", "176", &served.url()]);
    assert!(page.contains("maximum compare and write length:128"), "{page}");
    let capacity = said("iscsi-readcapacity16", &[&served.url()]);
    assert!(capacity.contains("RETURNED LOGICAL BLOCK ADDRESS:65535"), "{capacity}");
}

#[test]
fn discovery_shows_only_what_one_may_log_in_to() {
    let served = served();
    served.target.set_auth(AuthGroup::open().initiators(["iqn.2026-11.org.example:a"]).unwrap());
    let url = format!("iscsi://{}", served.address);
    let list = |name: &str| said("iscsi-ls", &["-i", name, &url]);
    assert!(list("iqn.2026-11.org.example:a").contains("Target:"));
    assert!(!list("iqn.2026-11.org.example:b").contains("Target:"));
    let other = run("iscsi-inq", &["-i", "iqn.2026-11.org.example:b", &served.url()]);
    assert!(!other.status.success());
}

fn convert_there_and_back(url: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (from, back) = (path("from.raw"), path("back.raw"));
    let mut state = 1_u64;
    let bytes: Vec<u8> = (0..32 << 20)
        .map(|n: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Holes among data.
            if n >> 20 & 3 == 1 { 0 } else { (state >> 33) as u8 }
        })
        .collect();
    std::fs::write(&from, &bytes).unwrap();
    said("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &from, url]);
    said("qemu-img", &["convert", "-f", "raw", "-O", "raw", url, &back]);
    assert!(std::fs::read(&back).unwrap() == bytes, "what came back is something else");
    said("qemu-img", &["compare", "-f", "raw", "-F", "raw", &from, url]);
}

#[test]
fn qemu_converts_to_and_from_a_unit() {
    convert_there_and_back(&served().url());
}

#[test]
fn a_file_system_is_made_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fs.raw").to_str().unwrap().to_owned();
    let back = dir.path().join("back.raw").to_str().unwrap().to_owned();
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    said("mkfs.ext4", &["-q", "-F", &image]);
    let served = served();
    said("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &image, &served.url()]);
    said("qemu-img", &["convert", "-f", "raw", "-O", "raw", &served.url(), &back]);
    said("e2fsck", &["-f", "-n", &back]);
}

#[test]
fn qemu_proves_who_it_is() {
    let served = served();
    let user = Credential::new("user", b"secretsecret12").unwrap();
    served.target.set_auth(AuthGroup::open().users(vec![user.clone()]).unwrap());
    let url =
        |user: &str| format!("iscsi://{user}{}/{}/0", served.address, support::initiator::TARGET);
    convert_there_and_back(&url("user%secretsecret12@"));
    for wrong in ["user%secretsecret13@", "other%secretsecret12@", ""] {
        assert!(!run("qemu-img", &["info", &url(wrong)]).status.success(), "{wrong}");
    }
    // And the target to it.
    let own = Credential::new("target", b"anothersecret1").unwrap();
    served.target.set_auth(AuthGroup::open().users(vec![user]).unwrap().mutual(own).unwrap());
    let mutual = |secret: &str| {
        let url =
            format!("{}?target_user=target&target_password={secret}", url("user%secretsecret12@"));
        run("iscsi-inq", &[&url]).status.success()
    };
    assert!(mutual("anothersecret1"));
    assert!(!mutual("anothersecret2"));
}

/// Writes down what it hears; lets nobody try more often than this.
#[derive(Debug, Default)]
struct Door {
    heard: Mutex<Vec<String>>,
    tries: Mutex<u32>,
}

impl Doorkeeper for Door {
    fn admits(&self, address: IpAddr, target: Option<&str>) -> bool {
        assert!(address.is_loopback());
        assert_eq!(target, Some(support::initiator::TARGET));
        let mut tries = self.tries.lock().unwrap();
        *tries += 1;
        *tries <= 3
    }

    fn failed(&self, _: IpAddr, _: Option<&str>, initiator: &str) {
        self.heard.lock().unwrap().push(format!("no {initiator}"));
    }

    fn succeeded(&self, _: IpAddr, _: Option<&str>) {
        self.heard.lock().unwrap().push("yes".to_owned());
    }
}

#[test]
fn a_doorkeeper_hears_of_proofs_and_of_nothing_else() {
    let (served, door) = (served(), Arc::new(Door::default()));
    served.server.set_doorkeeper(Arc::<Door>::clone(&door));
    let inquire = |secret: &str| {
        let place = format!("{}/{}/0", served.address, support::initiator::TARGET);
        let name = "iqn.2026-11.org.example:a";
        run("iscsi-inq", &["-i", name, &format!("iscsi://user%{secret}@{place}")]).status.success()
    };
    // Nothing is to be proven.
    assert!(inquire("secretsecret12"));
    let user = Credential::new("user", b"secretsecret12").unwrap();
    served.target.set_auth(AuthGroup::open().users(vec![user]).unwrap());
    assert!(inquire("secretsecret12"));
    assert!(!inquire("secretsecret13") && !inquire("secretsecret14"));
    // Who is not admitted isn't even judged.
    assert!(!inquire("secretsecret12"));
    let no = "no iqn.2026-11.org.example:a";
    assert_eq!(*door.heard.lock().unwrap(), ["yes", no, no]);
}

#[test]
fn a_target_that_is_suspended_has_initiators_come_later() {
    let served = served();
    served.target.suspend(true);
    let output = run("iscsi-inq", &[&served.url()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("unavailable"), "{said}");
    served.target.suspend(false);
    assert!(run("iscsi-inq", &[&served.url()]).status.success());
}
