//! A change that nobody confirms is taken back, whatever becomes of the process.

use serde_json::{Value, json};

use super::machine::{Machines, OLD, PEER, fixed, leased};

/// Settings that move the appliance, to be confirmed in so many seconds.
fn moving(seconds: u64) -> Value {
    let mut settings = fixed(&["192.0.2.7/24"], &[PEER]);
    settings["confirm_seconds"] = seconds.into();
    settings
}

#[test]
fn what_nobody_confirms_is_taken_back() {
    let machines = Machines::new("ip");
    let _served = machines.start();
    machines.token();
    let before = machines.state();
    let job = machines.set(&moving(5));
    machines.waits(job);
    assert_ne!(machines.state(), before);
    // Not from where it was: on the machine itself, everything is near.
    let (code, problem) = machines.ask("POST", "/v1/system/network/confirm", None);
    assert_eq!(code, 409);
    assert!(problem["detail"].as_str().unwrap().contains("192.0.2.7"), "{problem}");
    // One at a time.
    let (code, _) = machines.ask("PUT", "/v1/system/network", Some(moving(5)));
    assert_eq!(code, 409);
    let status = machines.over(job);
    assert_eq!(status["last"]["outcome"], "reverted");
    assert_eq!(status["settings"], Value::Null);
    assert_eq!(machines.state(), before);
    assert_eq!(machines.curl("GET", OLD, "/settings", &[]).0, 404);
    // It is written down by whom.
    machines.comes_to(|machines| machines.audit().contains("system.network.taken_back"));
    // The next one is kept.
    let job = machines.set(&moving(60));
    machines.waits(job);
    let output = machines.cli("system network confirm");
    assert!(!output.status.success(), "nobody is logged in");
    assert_eq!(machines.status()["pending"]["job_id"], job);
}

#[test]
fn a_script_that_finds_it_where_it_is_now_keeps_the_change() {
    let machines = Machines::new("ip");
    let served = machines.start();
    machines.token();
    let network = json!({
        "interface": "eth0", "hostname": "newname", "ip_address": "192.0.2.7",
        "netmask": "255.255.255.0", "gateway": PEER,
    });
    let file = json!({ "network": &network, "app": { "name": "testapp" } });
    assert_eq!(machines.post(OLD, &file).0, 202);
    let job = machines.until(|status| !status["pending"]["confirm_until"].is_null());
    let job = job["pending"]["job_id"].as_i64().unwrap();
    // Who shows no token has reached nothing.
    machines.peer("curl -sk --max-time 10 'https://192.0.2.7:8443/api/v1/admin/version?token=x'");
    assert_eq!(machines.status()["pending"]["job_id"], job);
    // A process that starts anew waits on.
    served.kill();
    let served = machines.start();
    assert_eq!(machines.status()["pending"]["job_id"], job);
    machines.reached("192.0.2.7");
    assert_eq!(machines.over(job)["last"]["outcome"], "applied");
    let (code, shown) = machines.curl("GET", "192.0.2.7", "/settings", &[]);
    assert_eq!(code, 200);
    assert!(shown.ends_with(r#""app":{"name":"testapp"}}"#), "{shown}");
    // Where only the application's settings are others, nothing waits.
    machines.job_is_over(job);
    let file = json!({ "network": network, "app": { "name": "other" } });
    assert_eq!(machines.post("192.0.2.7", &file).0, 202);
    let status = machines.until(|status| {
        assert!(status["pending"]["confirm_until"].is_null(), "{status}");
        status["last"]["job_id"] != job
    });
    assert_eq!(status["last"]["outcome"], "applied");
    let (_, shown) = machines.curl("GET", "192.0.2.7", "/settings", &[]);
    assert!(shown.ends_with(r#""app":{"name":"other"}}"#), "{shown}");
    served.stop();
}

#[test]
fn killed_while_it_waits_it_is_taken_back_by_the_start_after_its_time() {
    let machines = Machines::new("ip");
    let served = machines.start();
    let before = machines.state();
    let job = machines.set(&moving(5));
    machines.waits(job);
    let file = machines.data().join("network/settings.json");
    let text = std::fs::read_to_string(&file).unwrap();
    served.kill();
    assert_ne!(machines.state(), before);
    // The clock that nobody sets has come so far: as if that time had gone by.
    let mut kept: Value = serde_json::from_str(&text).unwrap();
    kept["pending"]["until"]["ticks"] = 1.into();
    std::fs::write(&file, kept.to_string()).unwrap();
    let served = machines.start();
    assert_eq!(machines.state(), before);
    assert_eq!(machines.status()["last"]["outcome"], "reverted");
    // Another start of the machine ends it too.
    let job = machines.set(&moving(3600));
    machines.waits(job);
    served.kill();
    machines.reboots();
    // Nothing was set: what this start of the machine has by others stays.
    machines.here("ip link set eth0 up; ip address add 192.0.2.60/24 dev eth0");
    let _served = machines.start();
    assert_eq!(machines.addresses(), ["192.0.2.60/24"]);
    assert_eq!(machines.here("hostname").trim(), "oldname");
    assert_eq!(machines.file("etc/hostname"), "oldname\n");
    assert_eq!(machines.file("etc/resolv.conf"), "nameserver 192.0.2.99\n");
    assert_eq!(machines.status()["last"]["job_id"], job);
}

#[test]
fn killed_while_it_is_applied_what_there_was_is_back() {
    let machines = Machines::new("ip");
    let mut served = machines.start();
    let before = machines.state();
    let mut settings = leased();
    settings["mtu"] = 1400.into();
    // Nobody gives addresses there: the client asks on, and the change is being applied.
    let job = machines.set(&settings);
    machines.until(|status| status["pending"]["job_id"] == job);
    machines.comes_to(|machines| {
        assert_eq!(machines.status()["pending"]["job_id"], job);
        machines.here("cat /sys/class/net/eth0/mtu").trim() == "1400"
    });
    served.kill();
    served = machines.start();
    assert_eq!(machines.state(), before);
    let last = machines.status()["last"].clone();
    assert_eq!(last["outcome"], "failed");
    assert!(last["why"].as_str().unwrap().contains("ended"), "{last}");
    assert!(machines.clients().is_empty(), "a client is left");
    // The job is not tried again.
    let told = machines.job_is_over(job);
    assert_eq!(told["state"], "failed", "{told}");
    // What a catalogue before this one had under the same number says nothing of a job.
    let job = machines.set(&settings);
    machines.until(|status| status["pending"]["job_id"] == job);
    served.kill();
    machines.kept(|kept| {
        kept["pending"] = Value::Null;
        kept["last"] = json!({
            "job": job, "asked_at": "2020-01-01T00:00:00Z", "outcome": "applied",
            "at": "2020-01-01T00:00:00Z", "why": null, "steps": [],
        });
    });
    let _served = machines.start();
    let told = machines.job_is_over(job);
    assert_eq!(told["state"], "failed", "{told}");
}

/// At each step of a change, and of taking it back, there is the old state, or the new one that waits.
#[test]
fn killed_at_any_step_it_is_the_old_state_or_the_new() {
    let machines = Machines::new("ip");
    let counted = machines.counted();
    let words = counted.words();
    let words = words.each_ref().map(String::as_str);
    let mut served = machines.start_by(&words);
    let before = machines.state();
    let over = |machines: &Machines| {
        machines.kept(|kept| kept["pending"]["until"]["ticks"] = 1.into());
    };
    // How many steps there are.
    let job = machines.set(&moving(3600));
    machines.waits(job);
    let applied = counted.count();
    served.kill();
    over(&machines);
    counted.kills_at(0);
    served = machines.start_by(&words);
    let restored = counted.count();
    assert!(applied > 5 && restored > 5, "{applied} {restored}");
    assert_eq!(machines.state(), before);
    for step in 1..=applied {
        counted.kills_at(step);
        let job = machines.set(&moving(3600));
        served.waits_for_its_end();
        assert_eq!(counted.count(), step);
        counted.kills_at(0);
        served = machines.start_by(&words);
        assert_eq!(machines.state(), before, "{step}");
        let last = machines.status()["last"].clone();
        assert_eq!((&last["job_id"], &last["outcome"]), (&job.into(), &"failed".into()), "{step}");
        machines.job_is_over(job);
    }
    counted.kills_at(0);
    let job = machines.set(&moving(3600));
    machines.waits(job);
    served.kill();
    served = machines.start_by(&words);
    assert_eq!(machines.status()["pending"]["job_id"], job);
    assert_eq!(machines.addresses(), ["192.0.2.7/24"]);
    assert!(machines.file("etc/resolv.conf").contains("2001:db8::2"));
    assert_eq!(machines.here("hostname").trim(), "newname.example");
    for step in 1..=restored {
        served.kill();
        over(&machines);
        counted.kills_at(step);
        machines.fails_to_start(&words);
        assert_eq!(counted.count(), step);
        counted.kills_at(0);
        served = machines.start_by(&words);
        assert_eq!(machines.state(), before, "{step}");
        assert_eq!(machines.status()["last"]["outcome"], "reverted", "{step}");
        let job = machines.set(&moving(3600));
        machines.waits(job);
    }
}

#[test]
fn after_another_start_of_the_machine_what_was_set_before_is_applied() {
    let machines = Machines::new("ip");
    let served = machines.start();
    machines.set_for_good(&served, &fixed(&["192.0.2.50/24"], &[PEER]), OLD);
    let state = machines.state();
    let job = machines.set(&moving(3600));
    machines.waits(job);
    served.kill();
    machines.reboots();
    let served = machines.start();
    assert_eq!(machines.state(), state);
    let last = machines.status()["last"].clone();
    assert_eq!((&last["job_id"], &last["outcome"]), (&job.into(), &"reverted".into()));
    // Also when it was being applied.
    let job = machines.set(&moving(3600));
    machines.waits(job);
    served.kill();
    machines.reboots();
    machines.kept(|kept| kept["pending"]["until"] = Value::Null);
    let _served = machines.start();
    assert_eq!(machines.state(), state);
    assert_eq!(machines.status()["last"]["outcome"], "failed");
}

#[test]
fn routes_that_need_each_other_and_those_that_say_more_come_back() {
    let machines = Machines::new("ip");
    machines.here(&format!(
        "ip address flush dev eth0 scope global; ip address add {OLD}/32 dev eth0; \
         ip address add 2001:db8::50/64 dev eth0 nodad; ip route add {PEER} dev eth0; \
         ip route add default via {PEER} src {OLD}; \
         ip route add 198.51.100.0/24 via 203.0.113.9 dev eth0 onlink; \
         ip -6 route add 2001:db8:7::/48 via 2001:db8::1 src 2001:db8::50"
    ));
    let served = machines.start();
    let before = machines.state();
    let job = machines.set(&moving(5));
    machines.waits(job);
    let status = machines.over(job);
    assert!(!status.to_string().contains(r#""state":"failed""#), "{status}");
    assert_eq!(machines.state(), before);
    // Killed while it is put back, it is put back by the next start.
    let job = machines.set(&moving(3600));
    machines.waits(job);
    served.kill();
    machines.kept(|kept| kept["pending"]["until"]["ticks"] = 1.into());
    machines.here(&format!("ip address flush dev eth0; ip address add {OLD}/32 dev eth0"));
    let _served = machines.start();
    assert_eq!(machines.state(), before);
    // What can't be put back is not taken away.
    for (line, undo, why) in [
        (
            "ip address add 10.7.0.1 peer 10.7.0.2 dev eth0",
            "ip address del 10.7.0.1 peer 10.7.0.2 dev eth0",
            "peer",
        ),
        (
            "ip route add 10.8.0.0/16 dev eth0 table 77",
            "ip route del 10.8.0.0/16 table 77",
            "table",
        ),
        ("ip route add 10.8.0.0/16 dev eth0 mtu 1300", "ip route del 10.8.0.0/16", "metrics"),
    ] {
        machines.here(line);
        let state = machines.state();
        let last = machines.over(machines.set(&moving(5)))["last"].clone();
        assert_eq!(last["outcome"], "failed");
        assert!(last["steps"].to_string().contains(why), "{last}");
        assert_eq!(machines.state(), state);
        machines.here(undo);
    }
}

#[test]
fn a_start_that_fails_takes_the_change_that_waits_back() {
    let machines = Machines::new("ip");
    let served = machines.start();
    let before = machines.state();
    let job = machines.set(&moving(3600));
    machines.waits(job);
    served.kill();
    assert_ne!(machines.state(), before);
    let config = machines.data().join("strongroom.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[::]:8443", "198.51.100.77:8443")).unwrap();
    machines.fails_to_start(&[]);
    assert_eq!(machines.state(), before);
    std::fs::write(&config, text).unwrap();
    let _served = machines.start();
    assert_eq!(machines.status()["last"]["outcome"], "reverted");
    // It is written down by the start that can.
    machines.comes_to(|machines| machines.audit().contains("the appliance could not start"));
    machines.comes_to(|machines| !machines.has_untold());
}
