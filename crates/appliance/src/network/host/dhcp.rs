//! Addresses from a server (RFC 2131): udhcpc, of its own or of BusyBox, or ISC's dhclient. Either is
//! given a script that does what is to be done with a lease, and nothing else.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::super::settings::{Mode, NetworkSettings};
use super::{Host, files};
use crate::command::{self, Programs, short};

/// How long a lease is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client has to end.
const END: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Udhcpc,
    Busybox,
    Dhclient,
}

impl Client {
    /// The first that is there.
    fn find() -> Result<Self, String> {
        if command::find("udhcpc").is_some() {
            return Ok(Self::Udhcpc);
        }
        if command::find("dhclient").is_some() {
            return Ok(Self::Dhclient);
        }
        let listed = command::run("busybox", &["--list"]).unwrap_or_default();
        if listed.lines().any(|applet| applet == "udhcpc") {
            return Ok(Self::Busybox);
        }
        Err(none())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Udhcpc => "udhcpc",
            Self::Busybox => "busybox",
            Self::Dhclient => "dhclient",
        }
    }
}

fn none() -> String {
    "there is no DHCP client: install udhcpc (or busybox with it), or isc-dhcp-client".to_owned()
}

/// For how long a client asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asks {
    /// As long as somebody waits for it.
    ForNow,
    /// Until somebody answers.
    On,
}

/// Whether there is a client.
pub(super) fn is_there() -> Result<(), String> {
    Client::find().map(drop)
}

/// For the shell, as one word.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

impl Host {
    fn script(&self, interface: &str) -> PathBuf {
        self.dir.join(format!("dhcp-{interface}.sh"))
    }

    fn pid_file(&self, interface: &str) -> PathBuf {
        self.dir.join(format!("dhcp-{interface}.pid"))
    }

    /// The address that the client has set.
    fn bound(&self, interface: &str) -> PathBuf {
        self.dir.join(format!("dhcp-{interface}.bound"))
    }

    /// Waits for a lease, and leaves the client running that renews it. One that asks on runs also
    /// where nobody has answered yet.
    pub(super) fn lease(&self, settings: &NetworkSettings, asks: Asks) -> Result<String, String> {
        let client = Client::find()?;
        let interface = settings.interface.as_str();
        self.end_client(interface);
        let script = self.script(interface);
        let text = self.script_text(interface, settings.dns.is_empty());
        let draft = script.with_extension("new");
        crate::files::replace_by(&draft, &script, text.as_bytes(), 0o700, None)
            .map_err(files::told(&script))?;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (script, pid) = (path(&script), path(&self.pid_file(interface)));
        let programs = Programs::here().patient(PATIENCE);
        let mut run = programs.program(client.name()).ok_or_else(none)?;
        match client {
            Client::Udhcpc | Client::Busybox => {
                if client == Client::Busybox {
                    run.args(["udhcpc"]);
                }
                // It asks up to so often; with a lease it goes to the background, without it ends, or
                // asks on there.
                let without = match asks {
                    Asks::ForNow => "-n",
                    Asks::On => "-b",
                };
                run.args([without, "-A", "10", "-t", "6", "-T", "2", "-p", &pid, "-s", &script]);
                run.args(["-x", &format!("hostname:{}", settings.kernel_name())]);
                run.args(["-i", interface]);
            }
            Client::Dhclient => {
                let conf = self.dir.join(format!("dhclient-{interface}.conf"));
                if matches!(asks, Asks::ForNow) {
                    run.args(["-1"]);
                }
                // It asks for the address of before first, then for any: together less long than it may
                // take, or it is ended with what asks on.
                let text = format!(
                    "reboot 2;\ntimeout 10;\nretry 10;\ninitial-interval 1;\nbackoff-cutoff 5;\n\
                     send host-name \"{}\";\nrequest subnet-mask, routers, domain-name-servers;\n",
                    settings.kernel_name()
                );
                crate::files::replace(&conf, text.as_bytes()).map_err(files::told(&conf))?;
                let leases = path(&self.dir.join(format!("dhclient-{interface}.leases")));
                run.args(["-4", "-q", "-cf", &path(&conf), "-sf", &script]);
                run.args(["-pf", &pid, "-lf", &leases, interface]);
            }
        }
        let ended = run.run();
        let said = ended.as_ref().map_or_else(ToString::to_string, |ended| short(&ended.err));
        let is_leased = ended.is_ok_and(|ended| ended.status.success());
        match fs::read_to_string(self.bound(interface)) {
            Ok(address) if is_leased => Ok(format!("{} of {}", address.trim(), client.name())),
            _ if matches!(asks, Asks::On) && !self.clients(interface).is_empty() => {
                Ok(format!("nobody has given one yet: {} asks on", client.name()))
            }
            _ => {
                self.end_client(interface);
                let name = client.name();
                let said = if said.is_empty() { said } else { format!(": {said}") };
                Err(format!("no DHCP server gave {interface} an address ({name}{said})"))
            }
        }
    }

    /// Whether the client that renews the lease is running, where there is to be one.
    pub(super) fn is_leased(&self, settings: &NetworkSettings) -> bool {
        settings.mode != Mode::Dhcp || !self.clients(&settings.interface).is_empty()
    }

    /// The processes of our client at an interface, with those that have just begun: all of this
    /// process's user, or root's, that have our script among their words. One that has ended has none.
    pub(super) fn clients(&self, interface: &str) -> Vec<Pid> {
        let script = self.script(interface);
        let script = script.as_os_str().as_encoded_bytes();
        let ours = rustix::process::geteuid().as_raw();
        let is_ours = |number: &i32| {
            let dir = format!("/proc/{number}");
            let user = fs::metadata(&dir).map(|meta| meta.uid());
            if !user.is_ok_and(|user| user == 0 || user == ours) {
                return false;
            }
            let words = fs::read(format!("{dir}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == script)
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(is_ours).filter_map(Pid::from_raw).collect()
    }

    /// Ends the client. What it has set stays.
    pub(super) fn end_client(&self, interface: &str) {
        // Without that, the script takes nothing away.
        let _ = fs::remove_file(self.bound(interface));
        for signal in [Signal::TERM, Signal::KILL] {
            let end = Instant::now() + END;
            let clients = self.clients(interface);
            if clients.is_empty() {
                break;
            }
            for client in clients {
                let _ = kill_process(client, signal);
            }
            while !self.clients(interface).is_empty() && Instant::now() < end {
                std::thread::sleep(LOOK);
            }
        }
        let _ = fs::remove_file(self.pid_file(interface));
    }

    /// What the client has done with a lease. Clients say it in different words; what they say are
    /// addresses, which they have read as such.
    fn script_text(&self, interface: &str, names: bool) -> String {
        let resolv = match names {
            true => quoted(&self.file(files::RESOLV)),
            false => "''".to_owned(),
        };
        let made = files::MADE.trim_end();
        format!(
            r#"#!/bin/sh
{made}
PATH="$PATH:/usr/sbin:/sbin"
bound={bound}
resolv={resolv}
what=${{reason:-$1}}
[ -n "$reason" ] || {{
    new_ip_address=$ip
    new_subnet_mask=${{mask:-${{subnet:-24}}}}
    new_routers=$router
    new_domain_name_servers=$dns
}}
address=$new_ip_address/$new_subnet_mask

take_away() {{
    ip -4 addr flush dev "$interface" scope global
}}

case $what in
bound|renew|BOUND|RENEW|REBIND|REBOOT)
    if [ "$(cat "$bound" 2>/dev/null)" != "$address" ]; then
        take_away
        ip -4 addr add "$address" broadcast + dev "$interface" || exit 1
    fi
    for router in $new_routers; do
        # Another device's is not ours to replace.
        if ! ip -4 route show default dev "$interface" | grep -q "via $router "; then
            ip -4 route del default dev "$interface" 2>/dev/null || :
            ip -4 route add default via "$router" dev "$interface" || :
        fi
        break
    done
    if [ -n "$resolv" ] && [ -n "$new_domain_name_servers" ]; then
        {{
            echo '{made}'
            for server in $new_domain_name_servers; do echo "nameserver $server"; done
        }} >"$resolv.dhcp" && chmod 644 "$resolv.dhcp" && mv -f "$resolv.dhcp" "$resolv"
    fi
    echo "$address" >"$bound"
    ;;
PREINIT)
    ip link set dev "$interface" up
    ;;
deconfig|EXPIRE|FAIL|RELEASE|STOP)
    [ ! -e "$bound" ] || take_away
    rm -f "$bound"
    ;;
TIMEOUT)
    # Nobody has answered: that it had a lease before does not make the address its own.
    exit 1
    ;;
esac
exit 0
"#,
            bound = quoted(&self.bound(interface)),
        )
    }
}

/// Whether such an address is one that a server gives.
pub(super) fn is_given(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::super::HostDriver;
    use super::*;

    #[test]
    fn the_script_is_one_whatever_the_paths_are() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("it's $(touch odd) \"here\"");
        fs::create_dir(&odd).unwrap();
        let host = Host::new(HostDriver::Ip, &odd, &odd);
        for names in [true, false] {
            fs::write(host.script("eth0"), host.script_text("eth0", names)).unwrap();
            fs::write(host.bound("eth0"), "x").unwrap();
            // A client that has nothing to say but that it is there.
            let mut sh = command::program("sh").unwrap();
            sh.in_dir(&odd).args(["-eu", "-n"]).args([host.script("eth0")]);
            assert!(sh.run().unwrap().status.success());
        }
        assert!(!odd.join("odd").exists());
        assert_eq!(quoted(Path::new("a'b")), r"'a'\''b'");
    }

    #[test]
    fn only_who_has_the_script_is_the_client() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(HostDriver::Ip, dir.path(), dir.path());
        assert!(host.clients("eth0").is_empty());
        fs::write(host.script("eth0"), "read line\n").unwrap();
        let mut sh = Command::new("sh");
        sh.arg(host.script("eth0")).stdin(Stdio::piped());
        let mut child = sh.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while host.clients("eth0").is_empty() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < end);
            std::thread::sleep(LOOK);
        }
        assert_eq!(host.clients("eth0"), [Pid::from_child(&child)]);
        // Anybody can have such a word.
        if rustix::process::geteuid().is_root() {
            let mut other = Command::new("sh");
            other.args(["-c", "echo; read line"]).arg(host.script("eth0")).uid(65534);
            let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            assert_eq!(host.clients("eth0"), [Pid::from_child(&child)]);
            drop(other.stdin.take());
            other.wait().unwrap();
        }
        // That of another interface is another.
        host.end_client("eth1");
        assert_eq!(host.clients("eth0"), [Pid::from_child(&child)]);
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        host.end_client("eth0");
        assert!(host.clients("eth0").is_empty());
        assert!(!reaper.join().unwrap().success());
    }
}
