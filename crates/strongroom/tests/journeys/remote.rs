//! A pool behind an appliance: each command gives what it gives for a pool of one's own.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::images::{files, ids, mounted, spoil, two_images, unmounted};
use crate::support::served::{Served, ask, requests};
use crate::support::{Lab, Run, assert_same, make_tree, noise};
use crate::up::until;

/// A pool of one's own, which an appliance serves as its pool `own`.
pub(crate) struct Behind {
    lab: Lab,
    pub(crate) served: Served,
}

impl Behind {
    pub(crate) fn new(lab: Lab) -> Self {
        let data = lab.path("data");
        let served = Served::start(&data);
        // Only the first start tells it.
        fs::write(lab.path("admin"), served.told["passphrase"].as_str().unwrap()).unwrap();
        let body = json!({"name": "own", "path": lab.path("pool"), "passphrase": "correct horse"});
        let (code, told) = ask(&data, "POST", "/v1/pools/import", Some(body));
        assert_eq!(code, 202, "{told}");
        until("the pool is entered", || {
            let job = ask(&data, "GET", &format!("/v1/jobs/{}", told["id"]), None).1;
            assert_ne!(job["state"], "failed", "{job}");
            job["state"] == "succeeded"
        });
        Self { lab, served }
    }

    /// The appliance, ended and started again.
    fn restarted(self) -> Self {
        let Self { lab, served } = self;
        served.stop();
        let served = Served::start(&lab.path("data"));
        Self { lab, served }
    }

    pub(crate) fn url(&self) -> String {
        self.served.told["urls"][0].as_str().unwrap().to_owned()
    }

    /// Logs in there; all commands go there from then on.
    pub(crate) fn log_in(&self, url: &str) {
        let fingerprint = self.served.told["certificate_sha256"].as_str().unwrap();
        let line = format!("login {url} --password-file admin --fingerprint {fingerprint}");
        self.run(&line).code(0);
    }

    /// A command about the appliance's pool, of a user who knows of no other and not its password.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.lab.command(line.split_whitespace());
        for name in [
            "STRONGROOM_PASSWORD_FILE",
            "STRONGROOM_APPLIANCE",
            "XDG_CONFIG_HOME",
            "XDG_STATE_HOME",
        ] {
            command.env_remove(name);
        }
        command.env("HOME", self.lab.path("")).env("STRONGROOM_POOL", "own");
        command
    }

    fn run(&self, line: &str) -> Run {
        Run::of(self.command(line).output().unwrap())
    }

    /// Fails unless a command does the same here and there.
    fn same(&self, line: &str) -> Run {
        let (here, there) = (self.lab.run(line), self.run(line));
        assert_eq!(there.text(), here.text(), "{line}");
        assert_eq!((there.code, &there.err), (here.code, &here.err), "{line}");
        there
    }
}

fn look_the_same(behind: &Behind) {
    let (lab, ids) = (&behind.lab, ids(&behind.lab));
    let src = lab.path("src");
    let src = src.display();
    let second = {
        let list = lab.run("images list --json").code(0).json();
        list["images"][1]["created"].as_str().unwrap().to_owned()
    };
    for line in [
        "images show tree".to_owned(),
        "images show latest --json".to_owned(),
        format!("images show tree@{second} --json"),
        format!("images diff {} {}", ids[0], ids[1]),
        format!("images diff {}:{src} latest:{src} --json", ids[0]),
        "images find *e* --json".to_owned(),
        "images find same --image latest".to_owned(),
        format!("ls tree:{src}"),
        format!("ls {}:{src} --json --recursive", ids[0]),
        "ls tree --recursive --names-only".to_owned(),
        format!("cat tree:{src}/new/thing"),
        format!("cat tree:{src}/new/thing --offset 70K --length 1K"),
        format!("dump tree:{src}"),
    ] {
        behind.same(&line).code(0);
    }
    for line in
        ["ls nothing", "ls tree:/nothing", "cat tree:/", "images show tree@1999-01-01", "ls tree@x"]
    {
        assert_ne!(behind.same(line).code, 0, "{line}");
    }
    assert_eq!(behind.run("ls tree --pool elsewhere").code, 2);
}

#[test]
fn looking_into_images_is_the_same_through_the_socket_and_the_network() {
    let behind = Behind::new(two_images());
    look_the_same(&behind);
    behind.log_in(&behind.url());
    look_the_same(&behind);
    behind.served.stop();
}

#[test]
fn an_image_comes_back_here_with_all_that_it_has() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    let behind = Behind::new(lab);
    let lab = &behind.lab;
    let src = lab.path("src");
    // A job of the appliance; then this process.
    let soon = format!("restore tree@2100-01-01:{} --to soon --json", src.display());
    assert_eq!(behind.run(&soon).code(0).json()["kind"], "restore");
    assert_same(&src, &lab.path("soon"));
    let job = behind.run("restore tree --to job --verify --json").code(0).json();
    assert_eq!(job["kind"], "restore");
    assert_same(&src, &lab.inside("job", "src"));
    let here = behind.run("restore tree --to here --here --verify --json").code(0).json();
    assert!(here["verified"].as_u64().unwrap() > 300, "{here}");
    assert_same(&src, &lab.inside("here", "src"));

    behind.log_in(&behind.url());
    let there = behind.run("restore tree --to there --verify --json").code(0).json();
    let direct = lab.run("restore tree --to direct --verify --json").code(0).json();
    // About 130 directories and 700 chunks in so many round trips.
    let count = |operation| requests(&behind.lab.path("data"), operation);
    let (nodes, chunks) = (count("readers.nodes"), count("readers.chunks"));
    assert!((1..60).contains(&nodes) && (1..60).contains(&chunks), "{nodes} and {chunks}");
    for field in ["image", "files", "dirs", "others", "bytes", "sockets", "verified", "troubles"] {
        assert_eq!(there[field], direct[field], "{field}");
    }
    assert_same(&src, &lab.inside("there", "src"));

    // What is there already is left, changed or not; what is chosen comes and nothing else.
    let again = behind.run("restore tree --to there --json").code(0).json();
    let direct = lab.run("restore tree --to direct --json").code(0).json();
    assert_eq!((&again["bytes"], &again["skipped"]), (&json!(0), &direct["skipped"]));
    fs::write(lab.inside("there", "src").join("text"), "changed").unwrap();
    behind.run("restore tree --to there --overwrite never").code(0);
    assert_eq!(fs::read(lab.inside("there", "src").join("text")).unwrap(), b"changed");
    behind.run("restore tree --to there --overwrite always").code(0);
    assert_same(&src, &lab.inside("there", "src"));
    let line = format!("restore tree:{} --to part --include *.c --exclude *9.c", src.display());
    behind.run(&line).code(0);
    assert!(lab.path("part/src/file000.c").exists());
    assert!(!lab.path("part/src/file009.c").exists() && !lab.path("part/large").exists());
    behind.served.stop();
}

#[test]
fn a_mounted_image_of_an_appliance_is_the_tree() {
    let lab = Lab::new();
    make_tree(&lab.path("src"));
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    let mut behind = Behind::new(lab);
    fs::create_dir(behind.lab.path("mnt")).unwrap();
    // It outlives the appliance, if that is soon there again.
    let child = mounted(behind.command("mount tree mnt"));
    assert_eq!(fs::read(behind.lab.inside("mnt", "src").join("small")).unwrap(), b"small\n");
    behind = behind.restarted();
    let lab = &behind.lab;
    assert_same(&lab.path("src"), &lab.inside("mnt", "src"));
    unmounted(child);

    behind.log_in(&behind.url());
    let child = mounted(behind.command("mount tree mnt"));
    assert_same(&lab.path("src"), &lab.inside("mnt", "src"));
    let read = fs::read(lab.inside("mnt", "src").join("large")).unwrap();
    assert_eq!(read, noise(1, 3_000_000));
    unmounted(child);
    let child = mounted(behind.command("mount mnt"));
    let top = lab.path("mnt/by-name/tree/latest");
    assert_same(&lab.path("src"), &top.join(lab.path("src").strip_prefix("/").unwrap()));
    unmounted(child);
    behind.served.stop();
}

#[test]
fn damage_is_told_as_it_is_of_a_pool_of_ones_own() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    for number in 0..40 {
        let content = noise(number, 100_000);
        fs::write(lab.path("src").join(format!("file{number:02}")), content).unwrap();
    }
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    assert!(spoil(&lab.path("pool")) > 0);
    let behind = Behind::new(lab);
    behind.log_in(&behind.url());
    let here = behind.lab.run("restore tree --to here --json").code(3).json();
    let there = behind.run("restore tree --to there --json").code(3).json();
    let whole = |run: &Value| -> Vec<Value> {
        let first = run["first_troubles"].as_array().unwrap().iter();
        let mut paths: Vec<Value> = first.map(|trouble| trouble["path"].clone()).collect();
        paths.sort_by_key(ToString::to_string);
        paths
    };
    assert_eq!((&there["troubles"], whole(&there)), (&here["troubles"], whole(&here)));
    assert_eq!(there["bytes"], here["bytes"]);
    behind.served.stop();
}

/// Passes bytes on between whoever connects and an address, until so many have come from there.
struct Cut {
    address: std::net::SocketAddr,
    left: Arc<AtomicI64>,
}

impl Cut {
    fn new(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, to) = (listener.local_addr().unwrap(), to.to_owned());
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let budget = Arc::clone(&left);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if budget.load(Ordering::Relaxed) <= 0 {
                    continue;
                }
                let server = TcpStream::connect(&to).unwrap();
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let budget = Arc::clone(&budget);
                std::thread::spawn(move || pass_on(up, server, None));
                std::thread::spawn(move || pass_on(down, client, Some(&budget)));
            }
        });
        Self { address, left }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, budget: Option<&AtomicI64>) {
    let mut bytes = [0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let gone = budget.is_some_and(|b| b.fetch_sub(len as i64, Ordering::Relaxed) <= 0);
        if gone || to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_restore_whose_connection_is_cut_says_so_and_goes_on_when_it_is_run_again() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    for number in 0..30 {
        let content = noise(number, 1_000_000);
        fs::write(lab.path("src").join(format!("file{number:02}")), content).unwrap();
    }
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    let behind = Behind::new(lab);
    let cut = Cut::new(behind.url().strip_prefix("https://").unwrap());
    behind.log_in(&format!("https://{}", cut.address));
    cut.left.store(12_000_000, Ordering::Relaxed);
    let broken = behind.run("restore tree --to back").code(7);
    assert!(broken.err.contains("can't be reached"), "{}", broken.err);
    assert!(!broken.err.contains("warning"), "one cause is told once: {}", broken.err);
    let came: PathBuf = behind.lab.inside("back", "src");
    assert!(fs::read_dir(&came).unwrap().count() > 0);
    cut.left.store(i64::MAX, Ordering::Relaxed);
    let again = behind.run("restore tree --to back --verify --json").code(0).json();
    assert!(again["skipped"].as_u64().unwrap() > 0, "{again}");
    assert_same(&behind.lab.path("src"), &came);
    behind.served.stop();
}

/// What a lying appliance puts in the place of what, in whatever it sends.
const LIES: [(&[u8], &[u8]); 2] =
    [(b"what was backed up", b"what was never so!"), (b"its-true-name", b"another's-one")];

/// The control socket of an appliance, in a directory of its own, that tells the lie of this number;
/// none while there is no such one.
fn lying(to: &Path, dir: &Path) -> Arc<AtomicUsize> {
    fs::create_dir(dir).unwrap();
    let listener = UnixListener::bind(dir.join("control.sock")).unwrap();
    let (lies, to) = (Arc::new(AtomicUsize::new(LIES.len())), to.join("control.sock"));
    let told = Arc::clone(&lies);
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = UnixStream::connect(&to).unwrap();
            let (mut asked, mut up) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut asked, &mut up));
            let lies = Arc::clone(&lies);
            std::thread::spawn(move || tell(server, client, &lies));
        }
    });
    told
}

fn tell(mut from: UnixStream, mut into: UnixStream, lies: &AtomicUsize) {
    let mut bytes = vec![0; 256 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if let Some((truth, lie)) = LIES.get(lies.load(Ordering::Relaxed)) {
            while let Some(at) = bytes[..len].windows(truth.len()).position(|w| w == *truth) {
                bytes[at..at + truth.len()].copy_from_slice(lie);
            }
        }
        if into.write_all(&bytes[..len]).is_err() {
            return;
        }
    }
    let _ = into.shutdown(std::net::Shutdown::Both);
}

#[test]
fn what_an_appliance_puts_in_anothers_place_is_noticed() {
    let lab = Lab::new();
    fs::create_dir(lab.path("src")).unwrap();
    fs::write(lab.path("src/its-true-name"), b"this is what was backed up").unwrap();
    lab.make_pool();
    lab.run("backup src --name tree").code(0);
    let behind = Behind::new(lab);
    let lies = lying(&behind.lab.path("data"), &behind.lab.path("liar"));
    let file = behind.lab.path("src/its-true-name");
    let cat = format!("cat tree:{} --appliance liar", file.display());
    assert_eq!(behind.run(&cat).code(0).out, b"this is what was backed up");
    let list = "ls tree --recursive --names-only --appliance liar";
    assert!(behind.run(list).code(0).text().contains("its-true-name"));

    let restore = format!("restore tree:{} --to back --here --appliance liar", file.display());
    // About content: names are as they were. About a name: nothing below it is believed.
    let all = [list, cat.as_str(), restore.as_str()];
    for (lie, lines) in [&all[1..], &all].into_iter().enumerate() {
        lies.store(lie, Ordering::Relaxed);
        for line in lines {
            let refused = behind.run(line);
            let noticed = refused.err.contains("than its id says");
            assert!(refused.code != 0 && noticed, "{line}: {}", refused.err);
            let told = String::from_utf8_lossy(&refused.out);
            assert!(
                !told.contains("another's-one") && !told.contains("never so"),
                "{line}: {told}"
            );
        }
        let listed = behind.run(list);
        assert_eq!(listed.code == 0, lie == 0, "{}", listed.err);
    }
    // What could not be completed was told of, and holds nothing of the lie.
    for file in files(&behind.lab.path("back")) {
        let left = fs::read(&file).unwrap();
        assert!(!left.windows(8).any(|window| window == b"never so"), "{}", file.display());
    }
    behind.served.stop();
}
