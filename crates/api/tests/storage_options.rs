//! Storage options, as scripts for Jidoteki Admin set them and natively.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use strongroom_catalog::jobs::{self, NewJob};
use support::{Answer, Appliance, TOKEN};

const ACCEPTED: &str = r#"{"Status":"202 Accepted","Location":"/api/v1/admin/storage"}"#;
const NOTHING: &str = r#"{"Status":"404 Not Found"}"#;
const BARE: &str = r#"{"Status":"400 Bad Request"}"#;

/// A form as curl makes it of `-F settings=@settings.json`, or of some other fields.
async fn post(appliance: &Appliance, fields: &[(&str, &[u8])]) -> Answer {
    let mut body = Vec::new();
    for (name, bytes) in fields {
        let head = format!(
            "--x\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"settings.json\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--x--\r\n");
    let request = Request::post(format!("/api/v1/admin/storage?token={TOKEN}"))
        .header("content-type", "multipart/form-data; boundary=x");
    appliance.ask(request.body(Body::from(body)).unwrap()).await
}

async fn shown(appliance: &Appliance) -> Answer {
    let uri = format!("/api/v1/admin/storage?token={TOKEN}");
    appliance.ask(Request::get(uri).body(Body::empty()).unwrap()).await
}

/// Waits for the job that was begun last; its state.
async fn ended(appliance: &Appliance) -> &'static str {
    let last = appliance.app.administration().last("storage_options", 0).await.unwrap().unwrap();
    appliance.app.protect().engine().wait(last.job.id).await.unwrap().state.word()
}

const EXAMPLES: [&str; 5] = [
    r#"{"type":"local"}"#,
    r#"{"type":"nfs","mount_options":"noacl,sync","ip":"192.168.1.100","share":"/nfs/storage"}"#,
    r#"{"type":"aoe","device":"e0.1"}"#,
    r#"{"type":"iscsi","target":"iqn.2016-01.com.example:storage.lun1","ip":"192.168.1.100","username":"user","password":"hunter2"}"#,
    r#"{"type":"nbd","export_name":"otherexport","ip":"192.168.1.100","port":"1043"}"#,
];

#[tokio::test]
async fn a_script_sets_what_the_document_shows_and_is_told_it_again() {
    let appliance = Appliance::with_token().await;
    assert_eq!(shown(&appliance).await.told(), (404, NOTHING.into()));
    for example in EXAMPLES {
        let file = format!("{{\n  \"storage\": {example}\n}}\n");
        let answer = post(&appliance, &[("settings", file.as_bytes())]).await;
        assert_eq!(answer.told(), (202, ACCEPTED.into()));
        assert_eq!(answer.headers["location"], "/api/v1/admin/storage");
        let state = ended(&appliance).await;
        assert!(["succeeded", "warnings"].contains(&state), "{example}: {state}");
        let answer = shown(&appliance).await;
        let (status, text) = answer.told();
        let begin = format!(r#"{{"storage":{example},"options":["local""#);
        assert!(status == 200 && text.starts_with(&begin), "{text}");
        assert_eq!(answer.headers["cache-control"], "no-cache");
    }
    // What means nothing is kept as it is said, and the job says so.
    let odd =
        r#"{"storage":{"type":"nbd","export_name":"abc","ip":"999.999.999.999","port":1043}}"#;
    assert_eq!(post(&appliance, &[("settings", odd.as_bytes())]).await.status, 202);
    assert_eq!(ended(&appliance).await, "warnings");
    let last = appliance.app.administration().last("storage_options", 9).await.unwrap().unwrap();
    assert!(format!("{:?}", last.lines).contains("ip: "), "{:?}", last.lines);
    assert!(shown(&appliance).await.told().1.contains(r#""port":1043}"#));
    // The password is in the answer to who manages the box, and nowhere else.
    post(&appliance, &[("settings", format!(r#"{{"storage":{}}}"#, EXAMPLES[3]).as_bytes())]).await;
    ended(&appliance).await;
    let admin = appliance.admin().await;
    let jobs = appliance.call(&admin, "GET", "/v1/jobs", None).await;
    let native = appliance.call(&admin, "GET", "/v1/system/storage", None).await;
    let trail = appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    let last = appliance.app.administration().last("storage_options", 9).await.unwrap().unwrap();
    let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
    let all = format!("{}{}{trail:?}{:?}", text(&jobs), text(&native), last.lines);
    assert!(all.contains("jidoteki.storage.set") && all.contains("iqn.2016"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
    let kept = std::fs::read(appliance.dir.path().join("storage.sealed")).unwrap();
    assert!(!kept.windows(7).any(|window| window == b"hunter2" || window == b"storage"));
    let staged = appliance.dir.path().join("staged");
    assert_eq!(std::fs::read_dir(staged).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_malformed_missing_or_too_much_changes_nothing() {
    let appliance = Appliance::with_token().await;
    post(&appliance, &[("settings", br#"{"storage":{"type":"local"}}"#)]).await;
    ended(&appliance).await;
    let before = shown(&appliance).await.told();
    let message = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        format!(r#"{{"Status":"400 Bad Request","Error-Message":"{text}","First-Run":false}}"#)
    };
    let types = message("Invalid option: type. Allowed: local, nfs, aoe, iscsi, nbd");
    let ip = message("Missing or invalid string for option: ip. Allowed: abcdef0123456789ABCDEF.:");
    let nfs = |ip: &str| {
        format!(
            r#"{{"storage":{{"type":"nfs","mount_options":"sync","ip":"{ip}","share":"/a/b"}}}}"#
        )
    };
    let deep = "{\"storage\":".repeat(50_000);
    for (file, expected) in [
        (&b""[..], BARE),
        (b"{}", BARE),
        (b"{\"storage\"", BARE),
        (b"\xff\xfe", BARE),
        (b"{} {}", BARE),
        (deep.as_bytes(), BARE),
        (b"[]", &types),
        (br#"{"storage":{"type":"tape"}}"#, &types),
        (nfs("$(reboot)").as_bytes(), &ip),
        (nfs("../../etc").as_bytes(), &ip),
        (nfs(" ").as_bytes(), &ip),
    ] {
        let answer = post(&appliance, &[("settings", file)]).await;
        assert_eq!(answer.told(), (400, expected.into()), "{:.60}", String::from_utf8_lossy(file));
    }
    // No field, another one, and of two the last.
    assert_eq!(post(&appliance, &[]).await.told(), (400, BARE.into()));
    assert_eq!(post(&appliance, &[("setting", b"{}")]).await.told(), (400, BARE.into()));
    let good = br#"{"storage":{"type":"aoe","device":"e0.1"}}"#;
    let answer = post(&appliance, &[("settings", good), ("settings", b"{}")]).await;
    assert_eq!(answer.told(), (400, BARE.into()));
    // More than a form may have.
    let much = vec![b' '; 2 << 20];
    assert_eq!(post(&appliance, &[("settings", &much)]).await.status, 413);
    assert_eq!(shown(&appliance).await.told(), before);
}

#[tokio::test]
async fn natively_what_means_nothing_is_refused_and_no_password_is_shown() {
    let appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    let path = "/v1/system/storage";
    let ask =
        async |method: &str, body: Option<Value>| appliance.call(&admin, method, path, body).await;
    let nothing = ask("GET", None).await.json();
    assert_eq!((&nothing["state"], &nothing["settings"]), (&json!("nothing"), &Value::Null));
    let types = nothing["types"].as_array().unwrap();
    assert_eq!(types.len(), 5);
    assert_eq!(types[0], json!({"type": "local", "offered": true, "possible": true, "lacks": []}));
    for (body, why) in [
        (json!({"type": "nfs", "mount_options": "sync", "ip": "999.1.1.1", "share": "/a"}), "ip"),
        (json!({"type": "nfs", "mount_options": "suid", "ip": "::1", "share": "/a"}), "mount_opt"),
        (json!({"type": "nfs", "mount_options": "sync", "ip": "::1"}), "share: nfs needs it"),
        (json!({"type": "aoe", "device": "sda"}), "device"),
        (json!({"type": "aoe", "device": "e0.1", "ip": "::1"}), "and not `ip`"),
        (json!({"type": "nbd", "export_name": "abc", "ip": "::1", "port": 0}), "port"),
        (
            json!({"type": "iscsi", "target": "iqn.2016-01.com.example:a", "ip": "::1",
            "username": "user", "password": "a b"}),
            "password",
        ),
    ] {
        let refused = ask("PUT", Some(body.clone())).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "invalid"), "{body}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(why), "{body}: {detail}");
    }
    assert_eq!(ask("GET", None).await.json(), nothing);
    let iscsi = json!({"type": "iscsi", "target": "iqn.2016-01.com.example:a",
        "ip": "192.168.1.100", "username": "user", "password": "hunter2"});
    let set = ask("PUT", Some(iscsi)).await;
    assert_eq!(set.status, 200, "{}", set.json());
    assert_eq!(set.json()["state"], "waits");
    assert_eq!(set.json()["settings"]["username"], "user");
    assert!(!set.json().to_string().contains("hunter2"));
    assert_eq!(ask("GET", None).await.json(), set.json());
    // A job of a script that is not over.
    let new = NewJob {
        kind: "storage_options".into(),
        organisation_id: 1,
        node: appliance.app.storage().node().into(),
        parameters: json!({"staged": "0".repeat(32)}),
        run_at: Some("2100-01-01T00:00:00Z".parse().unwrap()),
        ..NewJob::default()
    };
    let job = jobs::submit(appliance.app.catalog(), new).await.unwrap().id;
    for (method, body) in [("PUT", Some(json!({"type": "local"}))), ("DELETE", None)] {
        let busy = ask(method, body).await;
        assert_eq!((busy.status, busy.code().as_str()), (409, "in_progress"));
    }
    let by = appliance.system().await;
    appliance.app.identity().set_admin_token(&by, &TOKEN.into()).await.unwrap();
    let answer = post(&appliance, &[("settings", br#"{"storage":{"type":"local"}}"#)]).await;
    assert_eq!(answer.told(), (202, ACCEPTED.into()));
    let last = appliance.app.administration().last("storage_options", 0).await.unwrap().unwrap();
    assert_eq!(last.job.id, job, "none was begun");
    appliance.app.protect().engine().cancel(job).await.unwrap();
    assert_eq!(ask("DELETE", None).await.status, 204);
    assert_eq!(ask("GET", None).await.json(), nothing);
    assert_eq!(ask("DELETE", None).await.status, 204);
}
