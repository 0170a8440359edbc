//! Addresses from a DHCP server, which is a real one.

use super::machine::{Machines, OLD, PEER, Running, fixed, leased};

impl Machines {
    /// dnsmasq at the other end of the cable; gives addresses from 192.0.2.100 on.
    fn server(&self) -> Running {
        let leases = self.data().join("leases");
        self.peer_runs(&format!(
            "exec dnsmasq --keep-in-foreground --user=root --conf-file=/dev/null --no-resolv --port=0 \
             --interface=eth0 --bind-interfaces --dhcp-authoritative --dhcp-leasefile={} --no-ping \
             --dhcp-range=192.0.2.100,192.0.2.110,255.255.255.0,10m \
             --dhcp-option=option:router,{PEER} --dhcp-option=option:dns-server,192.0.2.5,192.0.2.6",
            leases.display()
        ))
    }

    fn leased_address(&self) -> String {
        let all = self.addresses();
        let found = all.iter().find(|one| one.starts_with("192.0.2.1"));
        found.unwrap_or_else(|| panic!("{all:?}")).trim_end_matches("/24").to_owned()
    }
}

fn a_lease(client: &str, others: &[&str]) {
    let machines = Machines::new("ip");
    for other in others {
        machines.hide(other);
    }
    let _server = machines.server();
    let served = machines.start();
    machines.token();
    machines.here("ip -6 route add 2001:db8:7::/48 via 2001:db8::1 dev eth0");
    let before = machines.state();
    let job = machines.set(&leased());
    let status = machines.waits(job);
    assert!(!machines.here("ip -6 route show").contains("2001:db8:7::"));
    assert!(status["pending"]["steps"].to_string().contains(client), "{status}");
    let address = machines.leased_address();
    assert_eq!(machines.addresses(), [format!("{address}/24")]);
    assert!(!machines.here("ip -4 route show default").is_empty());
    let routes = machines.here("ip -4 route show default dev eth0");
    assert!(routes.contains(&format!("via {PEER}")), "{routes}");
    let resolv = machines.file("etc/resolv.conf");
    assert!(resolv.ends_with("nameserver 192.0.2.5\nnameserver 192.0.2.6\n"), "{resolv}");
    assert_eq!(machines.clients().len(), 1);
    // It is there again where it ends while the change waits, with the process or without.
    machines.end_clients();
    machines.comes_to(|machines| machines.clients().len() == 1);
    served.kill();
    machines.end_clients();
    let served = machines.start();
    assert_eq!(machines.clients().len(), 1);
    // Taken back, it is gone too.
    served.kill();
    let file = machines.data().join("network/settings.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    kept["pending"]["until"]["ticks"] = 1.into();
    std::fs::write(&file, kept.to_string()).unwrap();
    let served = machines.start();
    assert_eq!(machines.state(), before);
    assert_eq!(machines.clients().len(), 0);
    // As a script asks for it, and keeps it; what is said of name servers wins.
    let network = serde_json::json!({
        "interface": "eth0", "hostname": "newname", "dns1": "192.0.2.9", "ip_address": "192.0.2.77",
    });
    assert_eq!(machines.post(OLD, &serde_json::json!({ "network": network })).0, 202);
    machines.until(|status| !status["pending"]["confirm_until"].is_null());
    let address = machines.leased_address();
    machines.reached(&address);
    let status = machines.status();
    assert_eq!(status["last"]["outcome"], "applied", "{status}");
    assert_eq!(status["settings"]["mode"], "dhcp");
    assert!(machines.file("etc/resolv.conf").ends_with("\nnameserver 192.0.2.9\n"));
    let (_, shown) = machines.curl("GET", &address, "/settings", &[]);
    let expected = r#"{"network":{"mode":"dhcp","#;
    assert!(shown.starts_with(expected) && shown.ends_with(r#""app":{}}"#), "{shown}");
    // A client that is gone is there again with the next start of the process.
    served.stop();
    assert_eq!(machines.clients().len(), 1);
    machines.end_clients();
    let _served = machines.start();
    assert_eq!(machines.clients().len(), 1);
    // From there to a fixed one: the client ends, and comes back if that is taken back.
    let mut settings = fixed(&["192.0.2.7/24"], &[PEER]);
    settings["confirm_seconds"] = 5.into();
    let state = machines.state();
    let job = machines.set(&settings);
    machines.waits(job);
    assert_eq!(machines.clients().len(), 0);
    assert_eq!(machines.addresses(), ["192.0.2.7/24"]);
    assert_eq!(machines.over(job)["last"]["outcome"], "reverted");
    assert_eq!(machines.state(), state);
    assert_eq!(machines.clients().len(), 1);
}

#[test]
fn a_lease_by_udhcpc() {
    a_lease("udhcpc", &["dhclient"]);
}

#[test]
fn a_lease_by_dhclient() {
    a_lease("dhclient", &["udhcpc"]);
}

#[test]
fn a_lease_by_busybox() {
    a_lease("busybox", &["udhcpc", "dhclient"]);
}

/// A machine that starts before the server does.
fn a_lease_that_comes_late(others: &[&str]) {
    let machines = Machines::new("ip");
    for other in others {
        machines.hide(other);
    }
    let server = machines.server();
    let served = machines.start();
    machines.token();
    let network = serde_json::json!({ "interface": "eth0", "hostname": "newname" });
    assert_eq!(machines.post(OLD, &serde_json::json!({ "network": network })).0, 202);
    machines.until(|status| !status["pending"]["confirm_until"].is_null());
    machines.reached(&machines.leased_address());
    assert_eq!(machines.status()["last"]["outcome"], "applied");
    served.stop();
    machines.end_clients();
    drop(server);
    machines.here("ip address flush dev eth0");
    let _served = machines.start();
    assert_eq!(machines.clients().len(), 1);
    assert!(machines.addresses().iter().all(|one| !one.starts_with("192.")));
    let _server = machines.server();
    machines
        .comes_to(|machines| machines.addresses().iter().any(|one| one.starts_with("192.0.2.1")));
}

#[test]
fn a_lease_that_comes_late_to_udhcpc() {
    a_lease_that_comes_late(&["dhclient"]);
}

#[test]
fn a_lease_that_comes_late_to_dhclient() {
    a_lease_that_comes_late(&["udhcpc"]);
}

#[test]
fn where_nobody_gives_addresses_what_there_was_is_back() {
    let machines = Machines::new("ip");
    let _served = machines.start();
    let before = machines.state();
    let mut settings = leased();
    settings["mtu"] = 1400.into();
    let last = machines.over(machines.set(&settings))["last"].clone();
    assert_eq!(last["outcome"], "failed");
    assert!(last["steps"].to_string().contains("no DHCP server"), "{last}");
    // As the client says it.
    assert!(last["steps"].to_string().contains("no lease"), "{last}");
    assert_eq!(machines.state(), before);
    assert_eq!(machines.clients().len(), 0);
}
