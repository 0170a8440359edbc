//! Two machines and a cable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::BINARY;
use super::support::served::{Served, ask};

/// How long something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the appliance is before a change, and where who asks it is.
pub(crate) const OLD: &str = "192.0.2.50";
pub(crate) const PEER: &str = "192.0.2.1";

/// Namespaces, for as long as this is there.
struct Space {
    holder: Child,
}

impl Space {
    /// Its own network, name of the host and mounts; nobody who manages the real machine is found.
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "namespaces of the network need root: run this test as root"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--uts", "--mount", "sh", "-euc"]);
        unshare
            .arg("mount -t tmpfs tmpfs /run; ip link set lo up; echo ready; exec sleep infinity");
        let mut holder = unshare.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let out = holder.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "ready\n", "namespaces can't be made");
        Self { holder }
    }

    fn id(&self) -> String {
        self.holder.id().to_string()
    }

    /// Words that run a command there.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.id(), "--net", "--uts", "--mount"]);
        command
    }

    fn run(&self, line: &str) -> String {
        let output = self.enter().args(["sh", "-euc", line]).output().unwrap();
        done(&output, line)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn done(output: &Output, what: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {err}{text}");
    text
}

/// The machine of the appliance, and another beside it.
pub(crate) struct Machines {
    here: Space,
    peer: Space,
    dir: TempDir,
}

impl Machines {
    /// The appliance's machine has an address, a gateway and a name that somebody else gave it. How it
    /// is driven is said.
    pub(crate) fn new(driver: &str) -> Self {
        let (here, peer) = (Space::new(), Space::new());
        let dir = tempfile::tempdir().unwrap();
        let machines = Self { here, peer, dir };
        let id = machines.here.id();
        machines.peer.run(&format!("ip link add eth0 type veth peer name eth0 netns {id}"));
        machines.peer.run(&format!(
            "ip link set eth0 up; ip address add {PEER}/24 dev eth0; \
             ip address add 2001:db8::1/64 dev eth0 nodad"
        ));
        machines.here.run(&format!(
            "ip link set eth0 up; ip address add {OLD}/24 broadcast + dev eth0; \
             ip address add 2001:db8::50/64 dev eth0 nodad; \
             ip route add default via {PEER} metric 7; \
             ip route add 198.51.100.0/24 via {PEER}; hostname oldname"
        ));
        for place in ["etc/chrony/sources.d", "etc/systemd/network"] {
            fs::create_dir_all(machines.root().join(place)).unwrap();
        }
        fs::write(machines.root().join("etc/resolv.conf"), "nameserver 192.0.2.99\n").unwrap();
        fs::write(machines.root().join("etc/hostname"), "oldname\n").unwrap();
        fs::create_dir(machines.data()).unwrap();
        let text = format!(
            "listen = [\"[::]:8443\"]\nhost_driver = \"{driver}\"\nhost_root = \"{}\"\n",
            machines.root().display()
        );
        fs::write(machines.data().join("strongroom.toml"), text).unwrap();
        machines
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Below which the machine's files are.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub(crate) fn file(&self, name: &str) -> String {
        fs::read_to_string(self.root().join(name)).unwrap_or_default()
    }

    /// The appliance, at home.
    pub(crate) fn start(&self) -> Served {
        self.start_by(&[])
    }

    /// As a command that these words begin.
    pub(crate) fn start_by(&self, words: &[&str]) -> Served {
        let mut command = self.here.enter();
        command.args(words).arg(BINARY).env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.env_remove("STRONGROOM_APPLIANCE");
        Served::start_by(&self.data(), command)
    }

    /// What a line of the shell says on the appliance's machine.
    pub(crate) fn here(&self, line: &str) -> String {
        self.here.run(line)
    }

    /// The same on the other.
    pub(crate) fn peer(&self, line: &str) -> String {
        self.peer.run(line)
    }

    /// A program on the other machine, which ends with what is given.
    pub(crate) fn peer_runs(&self, line: &str) -> Running {
        let child = self.peer.enter().args(["sh", "-euc", line]).spawn().unwrap();
        Running(child)
    }

    /// Another cable, between interfaces that are `eth1`.
    pub(crate) fn second_cable(&self) {
        let id = self.here.id();
        self.peer(&format!("ip link add eth1 type veth peer name eth1 netns {id}"));
        self.peer("ip link set eth1 up; ip address add 203.0.113.1/24 dev eth1");
        self.here("ip link set eth1 up");
    }

    /// Changes what is kept, as if something else had gone before.
    pub(crate) fn kept(&self, change: impl FnOnce(&mut Value)) {
        let path = self.data().join("network/settings.json");
        let text = fs::read_to_string(&path).unwrap();
        let mut kept: Value = serde_json::from_str(&text).unwrap();
        change(&mut kept);
        fs::write(&path, kept.to_string()).unwrap();
    }

    /// The machine starts anew: nothing is there of what was done with `ip`, and nobody does it again.
    pub(crate) fn reboots(&self) {
        self.end_clients();
        self.here("ip address flush dev eth0; ip link set eth0 down mtu 1500; hostname early");
        self.kept(|kept| {
            for name in ["/boot", "/pending/boot", "/pending/until/boot"] {
                if let Some(boot) = kept.pointer_mut(name).filter(|boot| boot.is_string()) {
                    *boot = "another".into();
                }
            }
        });
    }

    /// A start that fails, and what it says.
    pub(crate) fn fails_to_start(&self, words: &[&str]) -> String {
        let mut command = self.here.enter();
        command.args(words).arg(BINARY).env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.arg("up").arg("--data").arg(self.data());
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Keeps the change that waits, as a user who has come over the network to that address.
    pub(crate) fn confirm(&self, served: &Served, host: &str) {
        self.login_at(served, host);
        done(&self.cli("system network confirm"), "confirm");
    }

    /// Waits until the machine is so.
    pub(crate) fn comes_to(&self, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < end, "{}", self.state());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A program is not there on the appliance's machine.
    pub(crate) fn hide(&self, program: &str) {
        // Some are links to one that stays: the link itself is to go.
        self.here(&format!(
            "for dir in /usr/sbin /usr/bin; do path=$dir/{program}; \
             if [ -L $path ]; then copy=/run/without-{program}; mkdir $copy; cp -a $dir/. $copy; \
             rm $copy/{program}; mount --bind $copy $dir; \
             elif [ -f $path ]; then mount --bind /dev/null $path; fi; done"
        ));
    }

    /// Programs that come first where the appliance looks for them: they do what those of the machine
    /// do, and count what changes something. At the call that is said, whoever calls them is killed
    /// before that is done.
    pub(crate) fn counted(&self) -> Counted {
        let dir = self.path("counted");
        fs::create_dir_all(&dir).unwrap();
        for (name, then) in [("ip", "exec /sbin/ip \"$@\""), ("chronyc", "exit 0")] {
            let text = format!(
                "#!/bin/sh\ncase \" $* \" in *' show '*) {then};; esac\n\
                 count=$(cat {dir}/count); count=$((count + 1)); echo $count >{dir}/count\n\
                 [ $count != \"$(cat {dir}/kill)\" ] || {{ kill -KILL $PPID; exit 1; }}\n{then}\n",
                dir = dir.display()
            );
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let counted = Counted { dir };
        counted.kills_at(0);
        counted
    }

    /// The processes of the DHCP client.
    pub(crate) fn clients(&self) -> Vec<Pid> {
        let script = self.data().join("network/dhcp-eth0.sh").display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_ours = |number: &i32| {
            let words = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == script.as_bytes())
        };
        numbers.filter(is_ours).filter_map(Pid::from_raw).collect()
    }

    /// Ends them.
    pub(crate) fn end_clients(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let clients = self.clients();
            if clients.is_empty() {
                return;
            }
            if Instant::now() >= end {
                assert!(std::thread::panicking(), "clients don't end: {clients:?}");
                return;
            }
            for client in clients {
                let _ = kill_process(client, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The addresses that the interface has, in order.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let text = self.here("ip -json address show dev eth0");
        let told: Value = serde_json::from_str(&text).unwrap();
        let all = told[0]["addr_info"].as_array().unwrap().iter();
        let all = all
            .filter(|one| one["scope"] == "global")
            .map(|one| format!("{}/{}", one["local"].as_str().unwrap(), one["prefixlen"]));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    }

    /// All that a change may touch, to be compared.
    pub(crate) fn state(&self) -> String {
        let mut text = self.addresses().join(" ");
        for line in [
            "hostname",
            "ip -4 route show",
            "ip -6 route show default",
            "ip -6 route show proto boot",
            "cat /sys/class/net/eth0/mtu",
        ] {
            text.push('\n');
            text.push_str(self.here(line).trim_end());
        }
        for name in [
            "etc/resolv.conf",
            "etc/hostname",
            "etc/chrony/sources.d/strongroom.sources",
            "etc/systemd/network/05-strongroom.network",
        ] {
            text.push_str(&format!(
                "\n{name}: {:?}",
                fs::read_to_string(self.root().join(name)).ok()
            ));
        }
        text
    }

    /// Asks through the control socket.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        ask(&self.data(), method, path, body)
    }

    pub(crate) fn status(&self) -> Value {
        let (code, status) = self.ask("GET", "/v1/system/network", None);
        assert_eq!(code, 200, "{status}");
        status
    }

    /// The newest of the audit trail.
    pub(crate) fn audit(&self) -> String {
        let (code, audit) = self.ask("GET", "/v1/audit?limit=100&sort=id:desc", None);
        assert_eq!(code, 200, "{audit}");
        audit.to_string()
    }

    /// Whether something is kept that the audit trail is to tell yet.
    pub(crate) fn has_untold(&self) -> bool {
        let text = fs::read_to_string(self.data().join("network/settings.json")).unwrap();
        text.contains("\"untold\"")
    }

    /// Asks for a change; the job's number.
    pub(crate) fn set(&self, settings: &Value) -> i64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let (code, job) = self.ask("PUT", "/v1/system/network", Some(settings.clone()));
            if code == 202 {
                return job["id"].as_i64().unwrap();
            }
            // What came of a change is told before its job is over.
            assert_eq!((code, &job["code"]), (409, &json!("in_progress")), "{job}");
            assert!(Instant::now() < end, "{job}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sets it so, and keeps that as a user who has come to that address; the job's number.
    pub(crate) fn set_for_good(&self, served: &Served, settings: &Value, host: &str) -> i64 {
        let job = self.set(settings);
        self.waits(job);
        self.confirm(served, host);
        job
    }

    /// Waits until it is told so.
    pub(crate) fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a job is over; what is told of it.
    pub(crate) fn job_is_over(&self, job: i64) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, told) = self.ask("GET", &format!("/v1/jobs/{job}"), None);
            if !["queued", "running"].contains(&told["state"].as_str().unwrap()) {
                return told;
            }
            assert!(Instant::now() < end, "{told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a change waits to be confirmed.
    pub(crate) fn waits(&self, job: i64) -> Value {
        self.until(|status| {
            assert_ne!(status["last"]["job_id"], job, "{status}");
            status["pending"]["job_id"] == job && status["pending"]["confirm_until"].is_string()
        })
    }

    /// Waits until a change is over.
    pub(crate) fn over(&self, job: i64) -> Value {
        self.until(|status| status["last"]["job_id"] == job && status["pending"].is_null())
    }

    /// The command line on the other machine, whose user is logged in.
    pub(crate) fn cli(&self, line: &str) -> Output {
        let mut command = self.peer.enter();
        let home = self.path("home");
        fs::create_dir_all(&home).unwrap();
        command.arg(BINARY).env("HOME", &home).current_dir(&home);
        command.env_remove("STRONGROOM_APPLIANCE").args(line.split_whitespace());
        command.output().unwrap()
    }

    /// Logs the user in.
    pub(crate) fn login(&self, served: &Served) {
        self.login_at(served, OLD);
    }

    fn login_at(&self, served: &Served, host: &str) {
        let home = self.path("home");
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("pw"), served.told["passphrase"].as_str().unwrap()).unwrap();
        let print = served.told["certificate_sha256"].as_str().unwrap();
        let pw = home.join("pw");
        let pw = pw.display();
        let line = format!(
            "login https://{host}:8443 --user admin --password-file {pw} --fingerprint {print}"
        );
        done(&self.cli(&line), "login");
    }

    /// The token of scripts.
    pub(crate) fn token(&self) {
        let body = json!({ "token": "yourtoken" });
        let (code, told) = self.ask("PUT", "/v1/system/token", Some(body));
        assert!(code < 300, "{told}");
    }

    /// A call of the dialect, from the other machine to that address: its status and content.
    pub(crate) fn curl(
        &self,
        method: &str,
        host: &str,
        path: &str,
        more: &[&str],
    ) -> (u16, String) {
        let mut curl = self.peer.enter();
        curl.args(["curl", "-sk", "--max-time", "10", "-w", "\n%{http_code}", "-X", method]);
        let url = format!("https://{host}:8443/api/v1/admin{path}?token=yourtoken");
        let output = curl.args(more).arg(url).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Keeps the change that waits, as a script: by a call that comes to that address.
    pub(crate) fn reached(&self, host: &str) {
        let end = Instant::now() + PATIENCE;
        while self.curl("GET", host, "/version", &[]).0 != 200 {
            assert!(Instant::now() < end, "nobody is at {host}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a file of settings as a script does.
    pub(crate) fn post(&self, host: &str, settings: &Value) -> (u16, String) {
        let file = self.path("settings.json");
        fs::write(&file, settings.to_string()).unwrap();
        let field = format!("settings=@{}", file.display());
        self.curl("POST", host, "/settings", &["-F", &field])
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.end_clients();
    }
}

/// Programs that count what changes something.
pub(crate) struct Counted {
    dir: PathBuf,
}

impl Counted {
    /// Words that begin a command which finds them first.
    pub(crate) fn words(&self) -> [String; 2] {
        let path = std::env::var("PATH").unwrap();
        ["env".to_owned(), format!("PATH={}:{path}", self.dir.display())]
    }

    /// From now on it is counted anew; at which call whoever calls is killed, 0 at none.
    pub(crate) fn kills_at(&self, call: usize) {
        fs::write(self.dir.join("count"), "0\n").unwrap();
        fs::write(self.dir.join("kill"), call.to_string()).unwrap();
    }

    pub(crate) fn count(&self) -> usize {
        fs::read_to_string(self.dir.join("count")).unwrap().trim().parse().unwrap()
    }
}

/// A program that ends with this.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Settings with fixed addresses, and all else that there is.
pub(crate) fn fixed(addresses: &[&str], gateways: &[&str]) -> Value {
    json!({
        "interface": "eth0",
        "hostname": "newname.example",
        "mode": "static",
        "addresses": addresses,
        "gateways": gateways,
        "mtu": 1400,
        "dns": ["192.0.2.2", "2001:db8::2"],
        "ntp": ["pool.example"],
        "confirm_seconds": 60,
    })
}

/// The same, by DHCP, with what it says of servers.
pub(crate) fn leased() -> Value {
    json!({ "interface": "eth0", "hostname": "newname", "mode": "dhcp", "confirm_seconds": 60 })
}

/// Whether a path is there.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
