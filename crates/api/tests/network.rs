//! The settings of the network and of the application, natively and for Jidoteki's scripts, where
//! nobody brings them to the machine; what is done to machines is tested in namespaces, with the binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use strongroom_catalog::jobs::{self, NewJob};
use support::{Answer, Appliance};

const NETWORK: &str = "/v1/system/network";
const APPLICATION: &str = "/v1/system/application";
const TOKEN: &str = "yourtoken";

async fn set_up() -> Appliance {
    let appliance = Appliance::new().await;
    let by = appliance.system().await;
    appliance.app.identity().set_admin_token(&by, &TOKEN.into()).await.unwrap();
    appliance
}

/// The document's example of fixed addresses.
fn example() -> Value {
    serde_json::from_str(include_str!("jidoteki-settings.json")).unwrap()
}

fn native() -> Value {
    json!({
        "interface": "eth0",
        "hostname": "box.example",
        "mode": "static",
        "addresses": ["192.0.2.7/24", "2001:db8::7/64"],
        "gateways": ["192.0.2.1"],
        "mtu": 1500,
        "dns": ["192.0.2.2"],
        "ntp": ["pool.example"],
    })
}

/// Fields of a form; those with a file's name are files.
async fn post(appliance: &Appliance, query: &str, fields: &[(&str, &str, &[u8])]) -> Answer {
    let mut body = Vec::new();
    for (name, file, content) in fields {
        let file = match *file {
            "" => String::new(),
            file => format!("; filename=\"{file}\""),
        };
        let head = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x--\r\n");
    let request = Request::post(format!("/api/v1/admin/settings{query}"));
    let request = request.header("content-type", "multipart/form-data; boundary=x");
    appliance.ask(request.body(Body::from(body)).unwrap()).await
}

async fn send(appliance: &Appliance, text: &str) -> Answer {
    let file = ("settings", "settings.json", text.as_bytes());
    post(appliance, &format!("?token={TOKEN}"), &[file]).await
}

async fn shown(appliance: &Appliance) -> (u16, String) {
    let path = format!("/api/v1/admin/settings?token={TOKEN}");
    let answer = appliance.ask(Request::get(path).body(Body::empty()).unwrap()).await;
    (answer.status, String::from_utf8(answer.body).unwrap())
}

/// Waits until the newest job of the network is over; how it ended.
async fn over(appliance: &Appliance) -> jobs::Job {
    let (catalog, node) = (appliance.app.catalog(), appliance.app.storage().node());
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let job = jobs::newest(catalog, "network", node).await.unwrap().unwrap();
        if job.state.is_over() {
            return job;
        }
        assert!(Instant::now() < end, "{job:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn settings_are_kept_and_told_in_both_words() {
    let appliance = set_up().await;
    let token = appliance.admin().await;
    let show = async || appliance.call(&token, "GET", NETWORK, None).await.json();
    assert_eq!(shown(&appliance).await, (404, r#"{"Status":"404 Not Found"}"#.into()));
    let told = show().await;
    assert_eq!((&told["driver"], &told["settings"]), (&json!("none"), &Value::Null));

    let text = r#" {"other": 1, "app": {"z": [1.5, {"b": 2, "a": null}], "a": ""},
        "network": {"ntpserver": "pool.ntp.org", "zone": "x", "interface": "eth0", "dns1": "",
        "hostname": "test.host", "ip_address": "192.168.1.100", "mode": "dhcp", "netmask": 24,
        "gateway": "192.168.1.1", "about": {"y": 1, "x": 2}}} "#;
    let answer = send(&appliance, text).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.headers["location"], "/api/v1/admin/settings");
    let accepted = json!({"Status": "202 Accepted", "Location": "/api/v1/admin/settings"});
    assert_eq!(answer.json(), accepted);
    over(&appliance).await;
    let expected = concat!(
        r#"{"network":{"mode":"static","ntpserver":"pool.ntp.org","zone":"x","interface":"eth0","#,
        r#""dns1":"","hostname":"test.host","ip_address":"192.168.1.100","netmask":24,"#,
        r#""gateway":"192.168.1.1","about":{"y":1,"x":2}},"#,
        r#""app":{"z":[1.5,{"b":2,"a":null}],"a":""}}"#
    );
    assert_eq!(shown(&appliance).await, (200, expected.into()));
    let told = show().await;
    assert_eq!(told["settings"]["addresses"], json!(["192.168.1.100/24"]));
    assert_eq!(told["last"]["outcome"], "stored");
    let steps = told["last"]["steps"].as_array().unwrap();
    assert!(steps.len() == 6 && steps.iter().all(|step| step["state"] == "not_applied"), "{told}");

    // Natively: the application's stay, and the network is told in the dialect's words.
    let answer = appliance.call(&token, "PUT", NETWORK, Some(native())).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["kind"], "network");
    over(&appliance).await;
    let mut settings = show().await["settings"].clone();
    assert_eq!(settings, native());
    settings["mode"] = "static".into();
    let expected = concat!(
        r#"{"network":{"mode":"static","interface":"eth0","hostname":"box.example","#,
        r#""ip_address":"192.0.2.7","netmask":"255.255.255.0","gateway":"192.0.2.1","#,
        r#""dns1":"192.0.2.2","ntpserver":"pool.example"},"app":{"z""#
    );
    assert!(shown(&appliance).await.1.starts_with(expected), "{:?}", shown(&appliance).await);

    // Each is written down, also what was refused.
    let refused = appliance.call(&token, "PUT", NETWORK, Some(json!({"interface": "eth0"}))).await;
    assert_eq!(refused.code(), "invalid");
    assert_eq!(send(&appliance, "{").await.status, 400);
    let lines = appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    let told = |operation: &str| {
        let of = lines.iter().filter(|line| line.operation == operation);
        of.map(|line| line.result.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told("jidoteki.settings.set"), ["ok", "Bad Request"]);
    assert_eq!(told("system.network.set").len(), 2, "{lines:?}");
}

#[tokio::test]
async fn the_examples_of_the_document_are_static_and_dhcp() {
    let appliance = set_up().await;
    assert_eq!(send(&appliance, &example().to_string()).await.status, 202);
    over(&appliance).await;
    let told: Value = serde_json::from_str(&shown(&appliance).await.1).unwrap();
    assert_eq!(told["network"]["mode"], "static");
    let dhcp = json!({
        "network": { "interface": "eth0", "hostname": "test.host" }, "app": { "name": "testapp" },
    });
    assert_eq!(send(&appliance, &dhcp.to_string()).await.status, 202);
    over(&appliance).await;
    let expected = concat!(
        r#"{"network":{"mode":"dhcp","hostname":"test.host","interface":"eth0"},"#,
        r#""app":{"name":"testapp"}}"#
    );
    assert_eq!(shown(&appliance).await, (200, expected.into()));
}

#[tokio::test]
async fn what_a_script_sends_wrongly_changes_nothing() {
    let appliance = set_up().await;
    assert_eq!(send(&appliance, &example().to_string()).await.status, 202);
    over(&appliance).await;
    let before = shown(&appliance).await;
    let bare = json!({"Status": "400 Bad Request"});
    let query = format!("?token={TOKEN}");
    // Missing, empty, another name.
    for fields in [
        &[][..],
        &[("settings", "settings.json", &b""[..])],
        &[("setting", "settings.json", b"{}")],
        &[("settings", "settings.json", b"{}")],
        &[("settings", "settings.json", b"\xff\xfe")],
        &[("settings", "settings.json", b"\0")],
    ] {
        let answer = post(&appliance, &query, fields).await;
        assert_eq!((answer.status, answer.json()), (400, bare.clone()), "{fields:?}");
        assert!(answer.headers.get("error-message").is_none());
    }
    // What is told stands in the header too.
    let answer = send(&appliance, r#"{"network":{"interface":"e t"}}"#).await;
    let message = "Missing or invalid string for option: interface. Allowed: \
                   0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["Error-Message"], message);
    assert_eq!(answer.headers["error-message"], message);
    // Hostile: names and commands, depth, size, an application that is none.
    let mut hostile = Vec::new();
    for (name, value) in [
        ("interface", "eth0;reboot"),
        ("interface", "../../etc"),
        ("interface", "-rf"),
        ("hostname", "$(reboot)"),
        ("hostname", "a\u{0}b"),
        ("hostname", "x".repeat(256).as_str()),
        ("ip_address", "999.999.999.999"),
        ("gateway", "192.168.2.1"),
        ("dns1", "192.168.1.2\nsearch evil"),
        ("ntpserver", "pool.ntp.org\nallow all"),
        ("ntpserver", "x".repeat(100_000).as_str()),
    ] {
        let mut settings = example();
        settings["network"][name] = value.into();
        hostile.push(settings.to_string());
    }
    for app in ["[1]", "1", "\"x\"", "true"] {
        hostile.push(example().to_string().replace(r#"{"name":"testapp"}"#, app));
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    for app in [&deep, &large, &"[".repeat(100_000)] {
        hostile.push(example().to_string().replace(r#"{"name":"testapp"}"#, app));
    }
    for text in &hostile {
        let answer = send(&appliance, text).await;
        assert_eq!(answer.status, 400, "{text:.200}");
    }
    let huge = "x".repeat(2 << 20);
    assert_eq!(send(&appliance, &huge).await.status, 413);
    let other = Request::get(format!("/api/v1/admin/settings{query}"))
        .method("DELETE")
        .body(Body::empty())
        .unwrap();
    assert_eq!(appliance.ask(other).await.status, 501);
    // Nobody is let in without the token, whatever they send.
    for query in ["", "?token=wrong", "?hash=00"] {
        let text = example().to_string();
        let answer = post(&appliance, query, &[("settings", "s", text.as_bytes())]).await;
        assert_eq!(answer.status, 403);
    }
    assert_eq!(shown(&appliance).await, before);
    let (_, count) = count(&appliance).await;
    assert_eq!(count, 1, "a job was begun for what was refused");
}

async fn count(appliance: &Appliance) -> (u16, u64) {
    let token = appliance.admin().await;
    let answer = appliance.call(&token, "GET", "/v1/jobs?filter=kind:==network", None).await;
    (answer.status, answer.json()["items"].as_array().unwrap().len() as u64)
}

#[tokio::test]
async fn a_text_will_do_and_of_two_the_last_counts() {
    let appliance = set_up().await;
    let query = format!("?token={TOKEN}");
    let good = example().to_string();
    let bad = r#"{"network":{}}"#;
    let fields = [("settings", "a", bad.as_bytes()), ("settings", "", good.as_bytes())];
    assert_eq!(post(&appliance, &query, &fields).await.status, 202);
    over(&appliance).await;
    let fields = [("settings", "a", good.as_bytes()), ("settings", "a", bad.as_bytes())];
    assert_eq!(post(&appliance, &query, &fields).await.status, 400);
    assert_eq!(count(&appliance).await, (200, 1));
}

#[tokio::test]
async fn what_is_sent_natively_is_looked_at_before_a_job_is_begun() {
    let appliance = set_up().await;
    let token = appliance.admin().await;
    let put = async |body: Value| {
        let answer = appliance.call(&token, "PUT", NETWORK, Some(body)).await;
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (field, value) in [
        ("interface", json!("eth 0")),
        ("interface", json!("")),
        ("hostname", json!("-x")),
        ("addresses", json!([])),
        ("addresses", json!(["192.0.2.7"])),
        ("addresses", json!(["192.0.2.7/24", "192.0.2.7/25"])),
        ("gateways", json!(["198.51.100.1"])),
        ("mtu", json!(1)),
        ("dns", json!(["dns.example"])),
        ("ntp", json!(["a b"])),
        ("confirm_seconds", json!(4)),
        ("confirm_seconds", json!(3601)),
    ] {
        let mut body = native();
        body[field] = value;
        let (status, detail) = put(body.clone()).await;
        assert!(status == 422 && detail.starts_with(field), "{body}: {status} {detail}");
    }
    for (field, value, status) in [
        ("mode", json!("auto"), 422),
        ("mode", Value::Null, 400),
        ("mtu", json!(-1), 422),
        ("more", json!(1), 422),
    ] {
        let mut body = native();
        body[field] = value;
        assert_eq!(put(body).await.0, status, "{field}");
    }
    let mut dhcp = native();
    dhcp["mode"] = "dhcp".into();
    assert!(put(dhcp).await.1.starts_with("addresses"));
    assert_eq!(count(&appliance).await, (200, 0));
    let answer = appliance.call(&token, "POST", "/v1/system/network/confirm", None).await;
    assert_eq!((answer.status, answer.code()), (409, "conflict".into()));
}

#[tokio::test]
async fn one_change_at_a_time_is_made() {
    let appliance = set_up().await;
    let token = appliance.admin().await;
    let storage = appliance.app.storage();
    let new = NewJob {
        kind: "network".into(),
        organisation_id: 1,
        node: storage.node().into(),
        parameters: json!({"staged": "0".repeat(32)}),
        run_at: Some("2100-01-01T00:00:00Z".parse().unwrap()),
        ..NewJob::default()
    };
    let waiting = jobs::submit(appliance.app.catalog(), new).await.unwrap().id;
    let answer = appliance.call(&token, "PUT", NETWORK, Some(native())).await;
    assert_eq!((answer.status, answer.code()), (409, "in_progress".into()));
    // As with the original it is accepted, and the one that waits goes on.
    assert_eq!(send(&appliance, &example().to_string()).await.status, 202);
    assert_eq!(count(&appliance).await, (200, 1));
    appliance.app.protect().engine().cancel(waiting).await.unwrap();
    assert_eq!(send(&appliance, &example().to_string()).await.status, 202);
    over(&appliance).await;
    assert_eq!(shown(&appliance).await.0, 200);
}

#[tokio::test]
async fn an_application_has_any_object_of_a_size() {
    let appliance = set_up().await;
    let token = appliance.admin().await;
    let show = async || {
        let answer = appliance.call(&token, "GET", APPLICATION, None).await;
        String::from_utf8(answer.body).unwrap()
    };
    assert_eq!(show().await, r#"{"settings":{}}"#);
    // Its order is kept, which `Value` would not do.
    let put = async |text: String| {
        let request = Request::put(APPLICATION)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        appliance.ask(request.body(Body::from(text)).unwrap()).await
    };
    let text = r#"{"settings":{"z":{"b":1,"a":[true,null]},"a":"é"}}"#;
    assert_eq!(put(text.into()).await.status, 200);
    assert_eq!(show().await, text);
    for (app, status) in [
        ("[]".to_owned(), 422),
        ("1".to_owned(), 422),
        (r#"{"a":1,"a":2}"#.to_owned(), 422),
        (format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32)), 422),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(64 << 10)), 422),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(512 << 10)), 413),
    ] {
        let answer = put(format!("{{\"settings\":{app}}}")).await;
        assert_eq!(answer.status, status, "{app:.80}");
    }
    assert_eq!(show().await, text);
    // It is the one that scripts see, once the network is set.
    assert_eq!(shown(&appliance).await.0, 404);
    appliance.call(&token, "PUT", NETWORK, Some(native())).await;
    over(&appliance).await;
    let told = shown(&appliance).await.1;
    assert!(told.ends_with(r#""app":{"z":{"b":1,"a":[true,null]},"a":"é"}}"#), "{told}");
    let settings = std::fs::metadata(appliance.dir.path().join("network/settings.json")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(settings.permissions().mode() & 0o777, 0o600);
}
