//! The settings of the network and of the application where nobody brings them to the machine: the
//! document's calls by curl, and the commands.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::jidoteki::{curl, hash};
use crate::support::served::{Served, ask};
use crate::up::run;

fn json_of(data: &Path, line: &str) -> Value {
    let (code, out, err) = run(data, &format!("--json {line}"));
    assert_eq!(code, 0, "{line}: {err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn the_calls_of_the_document_and_the_commands_set_and_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    std::fs::write(dir.path().join("token"), "yourtoken\n").unwrap();
    assert_eq!(run(&data, "system token set --token-file token").0, 0);
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        format!("settings=@{}", dir.path().join(name).display())
    };
    let signed = |method: &str| hash("yourtoken", &format!("{method}/api/v1/admin/settings"));
    let shown = |query: &str| curl(&served, "GET", &format!("/settings?{query}"), &[]);
    let none = (404, r#"{"Status":"404 Not Found"}"#.to_owned());
    assert_eq!(shown("token=yourtoken"), none);

    // The examples of the document, spaced as they stand there.
    let fixed = file("static.json", include_str!("../../../api/tests/jidoteki-settings.json"));
    let dhcp = file(
        "dhcp.json",
        r#"{
    "network": {
        "interface": "eth0",
        "hostname": "test.host"
    },
    "app": {
        "name": "testapp"
    }
}
"#,
    );
    let accepted = r#"{"Status":"202 Accepted","Location":"/api/v1/admin/settings"}"#;
    for (query, sent, expected) in [
        (
            format!("hash={}", signed("POST")),
            &fixed,
            concat!(
                r#"{"network":{"mode":"static","interface":"eth0","hostname":"test.host","#,
                r#""ip_address":"192.168.1.100","netmask":"255.255.255.0","#,
                r#""gateway":"192.168.1.1","dns1":"192.168.1.2","dns2":"192.168.1.3","#,
                r#""ntpserver":"pool.ntp.org"},"app":{"name":"testapp"}}"#
            ),
        ),
        (
            "token=yourtoken".to_owned(),
            &dhcp,
            concat!(
                r#"{"network":{"mode":"dhcp","interface":"eth0","hostname":"test.host"},"#,
                r#""app":{"name":"testapp"}}"#
            ),
        ),
    ] {
        let head = dir.path().join("head");
        let more = ["-D", head.to_str().unwrap(), "-F", sent];
        let answer = curl(&served, "POST", &format!("/settings?{query}"), &more);
        assert_eq!(answer, (202, accepted.to_owned()));
        let head = std::fs::read_to_string(head).unwrap().to_ascii_lowercase();
        assert!(head.contains("\r\nlocation: /api/v1/admin/settings\r\n"), "{head}");
        // It can be polled, as the document says.
        let end = Instant::now() + Duration::from_secs(30);
        while shown(&format!("hash={}", signed("GET"))) != (200, expected.to_owned()) {
            assert!(Instant::now() < end, "{:?}", shown("token=yourtoken"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let bare = (400, r#"{"Status":"400 Bad Request"}"#.to_owned());
    for wrong in [file("bad.json", "{\"network\""), file("empty.json", ""), "x=1".to_owned()] {
        assert_eq!(curl(&served, "POST", "/settings?token=yourtoken", &["-F", &wrong]), bare);
    }
    let endpoints = curl(&served, "GET", "/endpoints?token=yourtoken", &[]).1;
    assert!(endpoints.contains("\"/api/v1/admin/settings\""), "{endpoints}");

    // By the commands.
    let set = "system network set --interface eth0 --hostname box.example --address 192.0.2.7/24 \
               --address 2001:db8::7/64 --gateway 192.0.2.1 --dns 192.0.2.2 --ntp pool.example";
    let status = json_of(&data, set);
    assert_eq!(status["last"]["outcome"], "stored");
    assert_eq!(json_of(&data, "system network show")["settings"], status["settings"]);
    let (code, text, _) = run(&data, "system network show");
    assert_eq!(code, 0);
    for told in ["192.0.2.7/24, 2001:db8::7/64", "not_applied", "host_driver is `none`"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let (code, _, err) = run(&data, "system network confirm");
    assert!(code != 0 && err.contains("no change of the network waits"), "{err}");
    for (line, told) in [
        ("--interface eth0 --hostname box", "--dhcp"),
        ("--interface eth0 --hostname box --dhcp --address 192.0.2.7/24", "--address"),
        ("--interface eth0 --hostname box --address 192.0.2.7", "addresses"),
        ("--interface lo --hostname box --dhcp", "interface"),
    ] {
        let (code, _, err) = run(&data, &format!("system network set {line}"));
        assert!(code != 0 && err.contains(told), "{line}: {err}");
    }
    std::fs::write(dir.path().join("app.json"), r#"{"z": 1, "a": {"b": []}}"#).unwrap();
    let set = json_of(&data, "system application set app.json");
    assert_eq!(set["settings"], json!({"z": 1, "a": {"b": []}}));
    assert_eq!(json_of(&data, "system application show")["settings"], set["settings"]);
    let (_, text, _) = run(&data, "system application show");
    assert!(text.starts_with("{\n  \"z\": 1,\n  \"a\""), "{text}");
    std::fs::write(dir.path().join("app.json"), "[1]").unwrap();
    let (code, _, err) = run(&data, "system application set app.json");
    assert!(code != 0 && err.contains("object"), "{err}");

    // It is there after a start, and neither in logs nor in jobs.
    served.stop();
    let served = Served::start(&data);
    assert_eq!(json_of(&data, "system network show")["settings"], status["settings"]);
    let (code, shown) = curl(&served, "GET", "/settings?token=yourtoken", &[]);
    assert!(code == 200 && shown.ends_with(r#""app":{"z":1,"a":{"b":[]}}}"#), "{shown}");
    let (code, jobs) = ask(&data, "GET", "/v1/jobs?limit=100", None);
    assert_eq!((code, jobs["items"].as_array().unwrap().len()), (200, 3));
    assert!(!jobs.to_string().contains("testapp"), "{jobs}");
    assert!(!served.log().contains("testapp"), "{}", served.log());
}

#[test]
fn a_driver_that_is_not_there_is_told_before_the_appliance_starts() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("strongroom.toml"), "host_driver = \"netplan\"\n").unwrap();
    let (code, _, err) = run(&data, &format!("up --listen 127.0.0.1:0 --data {}", data.display()));
    assert!(code != 0 && err.contains("none, ip or networkd"), "{err}");
}
