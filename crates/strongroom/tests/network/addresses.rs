//! Fixed addresses, of both families, and what can't be done.

use serde_json::{Value, json};

use super::machine::{Machines, OLD, PEER, fixed, is_there, leased};

fn steps(change: &Value) -> Vec<(String, String)> {
    let word = |step: &Value, name: &str| step[name].as_str().unwrap().to_owned();
    let all = change["steps"].as_array().unwrap().iter();
    all.map(|step| (word(step, "part"), word(step, "state"))).collect()
}

fn said(change: &Value) -> String {
    change["steps"].to_string()
}

#[test]
fn an_ipv4_address_is_set_and_confirmed_by_the_command_line() {
    let machines = Machines::new("ip");
    let served = machines.start();
    machines.login(&served);
    let line = format!(
        "--json system network set --interface eth0 --hostname newname.example --address \
         192.0.2.7/25 --gateway {PEER} --dns 192.0.2.2 --ntp pool.example --mtu 1400"
    );
    let output = machines.cli(&line);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["last"]["outcome"], "applied");
    assert_eq!(status["pending"], Value::Null);
    assert_eq!(machines.addresses(), ["192.0.2.7/25"]);
    let routes = machines.here("ip -4 route show");
    assert!(routes.starts_with(&format!("default via {PEER} dev eth0")), "{routes}");
    assert!(!routes.contains("198.51.100"), "{routes}");
    assert_eq!(machines.here("hostname").trim(), "newname.example");
    assert_eq!(machines.here("cat /sys/class/net/eth0/mtu").trim(), "1400");
    assert_eq!(machines.file("etc/hostname"), "newname.example\n");
    assert!(machines.file("etc/resolv.conf").ends_with("\nnameserver 192.0.2.2\n"));
    let sources = machines.file("etc/chrony/sources.d/strongroom.sources");
    assert!(sources.ends_with("\nserver pool.example iburst\n"), "{sources}");
    // Who was logged in where it was, is where it is now.
    let output = machines.cli("--json system network show");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(again["settings"]["addresses"], json!(["192.0.2.7/25"]));
    // It is the same after a start, and nothing is taken back by then.
    let state = machines.state();
    served.kill();
    let _served = machines.start();
    assert_eq!(machines.state(), state);
    assert_eq!(machines.status()["last"]["outcome"], "applied");
}

#[test]
fn ipv6_addresses_are_set_and_confirmed_by_the_next_call_of_a_script() {
    let machines = Machines::new("ip");
    let _served = machines.start();
    machines.token();
    assert_eq!(machines.curl("GET", OLD, "/settings", &[]).0, 404);
    let network = json!({
        "interface": "eth0", "hostname": "newname", "ip_address": "2001:db8::7", "netmask": "64",
        "gateway": "2001:db8::1", "dns1": "2001:db8::2", "dns2": "192.0.2.2",
        "ntpserver": "2001:db8::3", "more": "kept",
    });
    let (code, told) = machines.post(OLD, &json!({ "network": network, "app": { "a": [1] } }));
    assert_eq!(
        (code, told.as_str()),
        (202, r#"{"Status":"202 Accepted","Location":"/api/v1/admin/settings"}"#)
    );
    machines.reached("[2001:db8::7]");
    let status = machines.status();
    assert_eq!(status["last"]["outcome"], "applied", "{status}");
    assert_eq!(machines.addresses(), ["2001:db8::7/64"]);
    let routes = machines.here("ip -6 route show default");
    assert!(routes.starts_with("default via 2001:db8::1 dev eth0"), "{routes}");
    let resolv = machines.file("etc/resolv.conf");
    assert!(resolv.ends_with("\nnameserver 2001:db8::2\nnameserver 192.0.2.2\n"), "{resolv}");
    let (code, shown) = machines.curl("GET", "[2001:db8::7]", "/settings", &[]);
    assert_eq!(code, 200);
    assert!(shown.starts_with(r#"{"network":{"mode":"static","#), "{shown}");
    assert!(shown.contains(r#""more":"kept""#), "{shown}");
    assert!(shown.ends_with(r#","app":{"a":[1]}}"#), "{shown}");
    // One of each at once, back to IPv4.
    let both = fixed(&["192.0.2.8/24", "2001:db8::8/64"], &[PEER, "fe80::1"]);
    let job = machines.set(&both);
    let status = machines.waits(job);
    assert_eq!(status["pending"]["at_new_address"], true);
    assert_eq!(machines.addresses(), ["192.0.2.8/24", "2001:db8::8/64"]);
    // What a script asks confirms no change that others made.
    machines.reached("192.0.2.8");
    assert_eq!(machines.status()["pending"]["job_id"], job);
    let parts = ["interface", "addresses", "gateways", "dns", "hostname", "ntp"];
    let done = parts.map(|part| (part.to_owned(), "done".to_owned()));
    assert_eq!(steps(&status["pending"]), done);
}

#[test]
fn what_stands_in_the_way_is_told_before_anything_is_touched() {
    let machines = Machines::new("ip");
    let served = machines.start();
    let before = machines.state();
    let refused = |settings: &Value, part: &str, why: &str| {
        let last = machines.over(machines.set(settings))["last"].clone();
        assert_eq!(last["outcome"], "failed");
        assert!(steps(&last).contains(&(part.to_owned(), "failed".to_owned())), "{last}");
        assert!(said(&last).contains(why), "{last}");
        assert_eq!(machines.state(), before);
    };
    let good = fixed(&["192.0.2.7/24"], &[PEER]);
    let with = |name: &str, value: Value| {
        let mut settings = good.clone();
        settings[name] = value;
        settings
    };
    refused(&with("interface", "eth7".into()), "interface", "eth7");
    std::fs::remove_dir(machines.root().join("etc/chrony/sources.d")).unwrap();
    refused(&good, "ntp", "is chrony installed?");
    std::fs::create_dir(machines.root().join("etc/chrony/sources.d")).unwrap();
    for program in ["udhcpc", "dhclient", "busybox"] {
        machines.hide(program);
    }
    refused(&leased(), "addresses", "there is no DHCP client");
    // Without the rights.
    served.stop();
    let no_rights = ["setpriv", "--bounding-set=-net_admin,-sys_admin", "--"];
    let served = machines.start_by(&no_rights);
    refused(&good, "interface", "CAP_NET_ADMIN");
    refused(&with("hostname", "other".into()), "hostname", "CAP_SYS_ADMIN");
    served.stop();
    let _served = machines.start();
    machines.hide("ip");
    let last = machines.over(machines.set(&good))["last"].clone();
    assert!(said(&last).contains("`ip` is not installed"), "{last}");
    assert!(!is_there(&machines.root().join("etc/resolv.conf.strongroom")));
}

#[test]
fn without_a_driver_settings_are_kept_and_it_is_told_what_was_not_applied() {
    let machines = Machines::new("none");
    let _served = machines.start();
    let before = machines.state();
    let settings = fixed(&["192.0.2.7/24"], &[PEER]);
    let status = machines.over(machines.set(&settings));
    assert_eq!(status["last"]["outcome"], "stored");
    assert!(steps(&status["last"]).iter().all(|(_, state)| state == "not_applied"), "{status}");
    assert!(said(&status["last"]).contains("host_driver"), "{status}");
    assert_eq!(status["settings"]["addresses"], json!(["192.0.2.7/24"]));
    assert_eq!(machines.state(), before);
    let (code, problem) = machines.ask("POST", "/v1/system/network/confirm", None);
    assert_eq!((code, &problem["code"]), (409, &json!("conflict")));
}

#[test]
fn files_of_networkd_that_it_is_not_there_to_read_are_taken_back() {
    let machines = Machines::new("networkd");
    let _served = machines.start();
    let before = machines.state();
    for there in [false, true] {
        let path = machines.root().join("etc/systemd/network/05-strongroom.network");
        let mut before = before.clone();
        if there {
            std::fs::write(path, "[Match]\nName=old\n").unwrap();
            before = machines.state();
        }
        let last = machines.over(machines.set(&fixed(&["192.0.2.7/24"], &[PEER])))["last"].clone();
        assert_eq!(last["outcome"], "failed");
        assert!(said(&last).contains("networkctl reload"), "{last}");
        assert_eq!(machines.state(), before);
    }
}

#[test]
fn what_is_set_is_applied_when_the_machine_has_started_before_anybody_listens() {
    let machines = Machines::new("ip");
    let served = machines.start();
    let job = machines.set(&fixed(&["192.0.2.50/24"], &[PEER]));
    machines.waits(job);
    // The size of packets is another: who is at the machine can't say that it is well.
    let (code, _) = machines.ask("POST", "/v1/system/network/confirm", None);
    assert_eq!(code, 409);
    machines.confirm(&served, OLD);
    assert_eq!(machines.status()["last"]["outcome"], "applied");
    let state = machines.state();
    served.stop();
    machines.reboots();
    let config = machines.data().join("strongroom.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[::]:8443", "192.0.2.50:8443")).unwrap();
    let _served = machines.start();
    assert_eq!(machines.state(), state);
}

#[test]
fn what_can_not_be_applied_at_a_start_is_tried_again_and_holds_nothing_else_up() {
    let machines = Machines::new("ip");
    let served = machines.start();
    machines.set_for_good(&served, &fixed(&["192.0.2.50/24"], &[PEER]), OLD);
    let state = machines.state();
    served.stop();
    machines.reboots();
    let sources = machines.root().join("etc/chrony/sources.d");
    std::fs::remove_dir_all(&sources).unwrap();
    let _served = machines.start();
    assert_eq!(machines.addresses(), ["192.0.2.50/24"]);
    assert!(machines.here("ip route show default").contains(PEER));
    std::fs::create_dir_all(&sources).unwrap();
    machines.comes_to(|machines| machines.state() == state);
    // What is there already takes nobody who confirms it.
    let mut same = fixed(&["192.0.2.50/24"], &[PEER]);
    let last = machines.over(machines.set(&same))["last"].clone();
    assert_eq!(last["outcome"], "applied");
    assert!(steps(&last).iter().all(|(_, state)| state == "not_applied"), "{last}");
    // What only adds is confirmed from anywhere.
    same["ntp"] = json!(["other.example"]);
    let job = machines.set(&same);
    assert_eq!(machines.waits(job)["pending"]["at_new_address"], false);
    let (code, status) = machines.ask("POST", "/v1/system/network/confirm", None);
    assert_eq!((code, &status["last"]["outcome"]), (200, &json!("applied")));
    // Where the address stays and the gateway does not, somebody may be cut off.
    same["gateways"] = json!(["192.0.2.9"]);
    let job = machines.set(&same);
    assert_eq!(machines.waits(job)["pending"]["at_new_address"], true);
    // Nor has who is at the machine reached it.
    let url = format!("https://{OLD}:8443/v1/system/network/confirm");
    let login = machines
        .here(&format!("curl -sk --max-time 10 -X POST {url} -o /dev/null -w %{{http_code}}"));
    assert_eq!(login, "401");
    let (code, _) = machines.ask("POST", "/v1/system/network/confirm", None);
    assert_eq!(code, 409);
}

#[test]
fn other_devices_keep_their_default_route() {
    let machines = Machines::new("ip");
    machines.second_cable();
    machines.here(&format!("ip route del default; ip route add default via {PEER}"));
    let _served = machines.start();
    let before = machines.state();
    let mut settings = fixed(&["203.0.113.50/24"], &["203.0.113.1"]);
    settings["interface"] = "eth1".into();
    settings["hostname"] = "oldname".into();
    let last = machines.over(machines.set(&settings))["last"].clone();
    assert_eq!(last["outcome"], "failed");
    assert!(said(&last).contains("eth0 has the default route"), "{last}");
    assert_eq!(machines.state(), before);
    let mut by_dhcp = leased();
    by_dhcp["interface"] = "eth1".into();
    let last = machines.over(machines.set(&by_dhcp))["last"].clone();
    assert!(said(&last).contains("eth0 has the default route"), "{last}");
    // One that comes while the change waits is not taken by what is put back.
    machines.here("ip route del default; ip address add 203.0.113.40/24 dev eth1");
    machines.here("ip route add default via 203.0.113.1 dev eth1");
    settings["confirm_seconds"] = 5.into();
    let job = machines.set(&settings);
    machines.waits(job);
    machines.here(&format!("ip route del default; ip route add default via {PEER} dev eth0"));
    let last = machines.over(job)["last"].clone();
    assert_eq!(last["outcome"], "reverted");
    assert!(steps(&last).contains(&("gateways".to_owned(), "failed".to_owned())), "{last}");
    let routes = machines.here("ip -4 route show default");
    assert_eq!(routes.trim(), format!("default via {PEER} dev eth0"));
}

#[test]
fn who_put_networkd_s_file_back_and_ended_then_still_has_networkd_read_it() {
    let machines = Machines::new("networkd");
    let log = machines.root().join("networkctl.log");
    let script = machines.root().join("networkctl");
    let text = format!("#!/bin/sh\necho \"$1\" >>{}\n", log.display());
    std::fs::write(&script, text).unwrap();
    machines.here(&format!(
        "chmod 755 {0}; mount --bind {0} $(readlink -f $(command -v networkctl))",
        script.display()
    ));
    let served = machines.start();
    let before = machines.state();
    let job = machines.set(&fixed(&["192.0.2.7/24"], &[PEER]));
    machines.waits(job);
    assert_eq!(machines.file("networkctl.log"), "reload\nreconfigure\n");
    served.kill();
    std::fs::remove_file(machines.root().join("etc/systemd/network/05-strongroom.network"))
        .unwrap();
    machines.kept(|kept| kept["pending"]["until"] = Value::Null);
    let _served = machines.start();
    assert_eq!(machines.file("networkctl.log"), "reload\nreconfigure\n".repeat(2));
    assert_eq!(machines.state(), before);
}
