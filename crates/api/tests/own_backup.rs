//! The backup of the appliance itself, natively and as scripts for Jidoteki Admin ask for it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use axum::body::Body;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use strongroom_appliance::Values;
use strongroom_appliance::backup::Scheduled;
use strongroom_catalog::identity::{Grant, Role};
use strongroom_catalog::jobs::{self, NewJob};
use strongroom_identity::UserSpec;
use strongroom_storage::NewPool;
use support::{Answer, Appliance, TOKEN};

const PASSPHRASE: &str = "correct horse battery staple";
const EXTRACT: &str = r#"{"Status":"400 Bad Request","Error-Message":"Unable to extract backup archive","First-Run":false}"#;

async fn get(appliance: &Appliance, path: &str) -> Answer {
    let uri = format!("/api/v1/admin{path}?token={TOKEN}");
    appliance.ask(Request::get(uri).body(Body::empty()).unwrap()).await
}

/// A form with one field, in pieces.
fn form(path: &str, name: &str, file: bool, value: &[u8]) -> Request<Body> {
    let file = if file { "; filename=\"backup.tar\"" } else { "" };
    let head = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
    let body = [head.as_bytes(), value, b"\r\n--x--\r\n"].concat();
    let pieces: Vec<_> =
        body.chunks(50_001).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    Request::post(format!("/api/v1/admin{path}"))
        .header("content-type", "multipart/form-data; boundary=x")
        .body(Body::from_stream(futures_util::stream::iter(pieces)))
        .unwrap()
}

async fn action(appliance: &Appliance, action: &str) -> (u16, String) {
    let path = format!("/backup?token={TOKEN}");
    appliance.ask(form(&path, "action", false, action.as_bytes())).await.told()
}

async fn restore(appliance: &Appliance, archive: &[u8]) -> (u16, String) {
    let path = format!("/backup/restore?token={TOKEN}");
    appliance.ask(form(&path, "archive", true, archive)).await.told()
}

async fn ended(appliance: &Appliance) {
    let status = appliance.app.administration().backup_status().await.unwrap();
    appliance.app.protect().engine().wait(status.job.unwrap().id).await.unwrap();
}

const ACCEPTED: &str = r#"{"Status":"202 Accepted","Location":"/api/v1/admin/backup"}"#;
const NOTHING: &str = r#"{"Status":"404 Not Found"}"#;

#[tokio::test]
async fn a_script_backs_up_downloads_restores_and_deletes() {
    let appliance = Appliance::with_token().await;
    for path in ["/backup", "/backup/log", "/backup/download"] {
        assert_eq!(get(&appliance, path).await.told(), (404, NOTHING.into()), "{path}");
    }
    for wrong in ["", "BEGIN"] {
        let expected = r#"{"Status":"400 Bad Request","Error-Message":"Missing or invalid option: action. Expected value 'START' or 'STOP'","First-Run":false}"#;
        assert_eq!(action(&appliance, wrong).await, (400, expected.into()));
    }
    assert_eq!(action(&appliance, "START").await, (202, ACCEPTED.into()));
    ended(&appliance).await;
    let shown = get(&appliance, "/backup").await;
    let text = String::from_utf8(shown.body.clone()).unwrap();
    assert!(text.starts_with(r#"{"status":"success","filesize":""#), "{text}");
    let archive = get(&appliance, "/backup/download").await;
    assert_eq!(archive.status, 200);
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename=\"backup.tar\""),
        ("filename", "backup.tar"),
        ("x-frame-options", "deny"),
    ] {
        assert_eq!(archive.headers[name], value, "{name}");
    }
    let archive = archive.body;
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &archive);
    assert_eq!(shown.json()["sha256"], data_encoding::HEXLOWER.encode(sum.as_ref()));
    // No key, token or configuration lies open in it, nor does what the catalogue holds.
    let key = std::fs::read(appliance.dir.path().join("key.pem")).unwrap();
    for secret in [&key[40..60], &[7; 32], b"listen = []", b"SQLite format 3", b"admin"] {
        assert!(!archive.windows(secret.len()).any(|window| window == secret), "{secret:?}");
    }
    let log = get(&appliance, "/backup/log").await;
    assert_eq!(log.headers["content-type"], "text/plain");
    let log = String::from_utf8(log.body).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0].starts_with('['), "{log}");
    assert!(lines[0].ends_with("][LIVE IMAGE] Validating backup file size"), "{log}");
    assert!(lines[2].starts_with("Created file: ") && lines[2].contains(" - hash: "), "{log}");
    assert!(lines[3].ends_with("][LIVE IMAGE] Backup complete"), "{log}");

    // What can't be restored is refused, and nothing is changed.
    let decided = appliance.dir.path().join("restore/decided");
    assert_eq!(restore(&appliance, b"").await, (400, r#"{"Status":"400 Bad Request"}"#.into()));
    assert_eq!(restore(&appliance, b"no archive").await, (400, EXTRACT.into()));
    let cut = &archive[..archive.len() / 2];
    assert_eq!(restore(&appliance, cut).await, (400, EXTRACT.into()));
    let path = format!("/backup/restore?token={TOKEN}");
    let text = appliance.ask(form(&path, "archive", false, b"text")).await;
    assert_eq!(text.told(), (400, EXTRACT.into()));
    assert!(!decided.exists() && !appliance.dir.path().join("restore").exists());
    // Who has another token does not open it.
    let by = appliance.system().await;
    appliance.app.identity().set_admin_token(&by, &"othertoken".into()).await.unwrap();
    let path = "/backup/restore?token=othertoken";
    let other = appliance.ask(form(path, "archive", true, &archive)).await;
    assert_eq!(other.told(), (400, EXTRACT.into()));
    appliance.app.identity().set_admin_token(&by, &TOKEN.into()).await.unwrap();
    assert_eq!(restore(&appliance, &archive).await, (200, r#"{"Status":"200 OK"}"#.into()));
    assert!(decided.exists());
    // It is asked to start anew, and takes no other until then.
    appliance.app.administration().restarts().await;
    assert_eq!(restore(&appliance, &archive).await, (400, EXTRACT.into()));

    for _ in 0..2 {
        assert_eq!(action(&appliance, "stop").await, (202, ACCEPTED.into()));
        assert_eq!(get(&appliance, "/backup").await.told(), (404, NOTHING.into()));
        assert_eq!(get(&appliance, "/backup/download").await.told(), (404, NOTHING.into()));
    }
    let log = String::from_utf8(get(&appliance, "/backup/log").await.body).unwrap();
    assert_eq!(log.matches("][LIVE IMAGE] Deleting backup archive\n").count(), 1, "{log}");
}

#[tokio::test]
async fn nothing_large_is_read_of_who_is_not_known() {
    let appliance = Appliance::with_token().await;
    // A body of which nobody may ever take a piece.
    let body = || {
        Body::from_stream(futures_util::stream::poll_fn(
            |_| -> std::task::Poll<Option<std::io::Result<Vec<u8>>>> {
                panic!("it was read");
            },
        ))
    };
    let path = "/api/v1/admin/backup/restore?token=wrong";
    let request = Request::post(path).header("content-type", "multipart/form-data; boundary=x");
    let refused = appliance.ask(request.body(body()).unwrap()).await;
    assert_eq!(refused.status, 403);
    // Nor is what says of itself that it is too large.
    let path = format!("/api/v1/admin/backup/restore?token={TOKEN}");
    let request = Request::post(path)
        .header("content-type", "multipart/form-data; boundary=x")
        .header("content-length", (1u64 << 40).to_string());
    let refused = appliance.ask(request.body(body()).unwrap()).await;
    assert_eq!(refused.told(), (400, EXTRACT.into()));
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused_for_that() {
    let appliance = Appliance::with_token().await;
    for (file, content, why) in [
        ("appliance.key", vec![8; 32], "another appliance's key"),
        ("appliance.key", vec![7; 31], "the appliance's key in it is none"),
        ("strongroom.toml", b"nothing".to_vec(), "it does not say where to listen"),
        ("key.pem", b"no key".to_vec(), "the private key can't be used"),
        ("license.txt", b"no licence".to_vec(), "licence"),
        ("storage.sealed", b"not sealed".to_vec(), "the appliance's key"),
    ] {
        let path = appliance.dir.path().join(file);
        let right = std::fs::read(&path).ok();
        std::fs::write(&path, content).unwrap();
        assert_eq!(action(&appliance, "START").await.0, 202);
        ended(&appliance).await;
        let archive = get(&appliance, "/backup/download").await.body;
        match &right {
            Some(right) => std::fs::write(&path, right).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert_eq!(restore(&appliance, &archive).await, (400, EXTRACT.into()), "{why}");
        let log = String::from_utf8(get(&appliance, "/backup/log").await.body).unwrap();
        assert!(log.lines().last().unwrap().contains(why), "{why}: {log}");
        assert!(!appliance.dir.path().join("restore").exists());
        assert_eq!(std::fs::read(&path).ok(), right);
    }
}

/// A backup that has not begun.
async fn waiting(appliance: &Appliance) -> i64 {
    with_no_key(appliance, "2100-01-01T00:00:00Z").await
}

/// A backup that begins then, and fails.
async fn with_no_key(appliance: &Appliance, at: &str) -> i64 {
    let storage = appliance.app.storage();
    let new = NewJob {
        kind: "appliance_backup".into(),
        organisation_id: 1,
        node: storage.node().into(),
        parameters: json!({"staged": "0".repeat(32)}),
        run_at: Some(at.parse().unwrap()),
        ..NewJob::default()
    };
    jobs::submit(appliance.app.catalog(), new).await.unwrap().id
}

#[tokio::test]
async fn one_at_a_time_is_made() {
    let appliance = Appliance::with_token().await;
    let admin = appliance.admin().await;
    let job = waiting(&appliance).await;
    assert_eq!(action(&appliance, "START").await, (202, ACCEPTED.into()));
    let newest = appliance.app.administration().backup_status().await.unwrap().job.unwrap();
    assert_eq!(newest.id, job, "none was begun");
    assert_eq!(get(&appliance, "/backup").await.told().1, r#"{"status":"running"}"#);
    assert_eq!(restore(&appliance, b"an archive").await, (400, EXTRACT.into()));
    let body = Some(json!({ "passphrase": PASSPHRASE }));
    let busy = appliance.call(&admin, "POST", "/v1/system/backup", body.clone()).await;
    assert_eq!((busy.status, busy.code().as_str()), (409, "in_progress"));
    let busy = appliance.call(&admin, "POST", "/v1/system/restart", body).await;
    assert_eq!((busy.status, busy.code().as_str()), (409, "in_progress"));
    // No restart was begun, and it isn't said that one was.
    assert_eq!(get(&appliance, "/reboot").await.status, 400);
    // No update either.
    let update = form(&format!("/update?token={TOKEN}"), "update", true, b"a package");
    let (status, text) = appliance.ask(update).await.told();
    assert!(status == 400 && text.contains("Error-Message"), "{status} {text}");
    // It is stopped.
    assert_eq!(action(&appliance, "STOP").await, (202, ACCEPTED.into()));
    assert_eq!(get(&appliance, "/backup").await.told(), (404, NOTHING.into()));
    // So is one that failed.
    with_no_key(&appliance, "2000-01-01T00:00:00Z").await;
    ended(&appliance).await;
    assert_eq!(get(&appliance, "/backup").await.told().1, r#"{"status":"failed"}"#);
    assert_eq!(action(&appliance, "STOP").await, (202, ACCEPTED.into()));
    assert_eq!(get(&appliance, "/backup").await.told(), (404, NOTHING.into()));
}

#[tokio::test]
async fn natively_an_archive_is_sent_in_pieces_and_opens_with_its_passphrase() {
    let appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    let ask = async |method: &str, path: &str, body: Option<Value>| {
        appliance.call(&admin, method, &format!("/v1/system/{path}"), body).await
    };
    let short = ask("POST", "backup", Some(json!({"passphrase": "short"}))).await;
    assert_eq!(short.code(), "invalid");
    assert_eq!(ask("GET", "backup/download", None).await.code(), "not_found");
    assert_eq!(ask("POST", "backup/store", Some(json!({}))).await.code(), "not_found");
    let job = ask("POST", "backup", Some(json!({ "passphrase": PASSPHRASE }))).await;
    assert_eq!(job.status, 202);
    ended(&appliance).await;
    let shown = ask("GET", "backup", None).await.json();
    assert_eq!(shown["job_state"], "succeeded", "{shown}");
    let archive = ask("GET", "backup/download", None).await.body;
    assert_eq!(shown["file"]["bytes"], archive.len());

    let restore = async |passphrase: &str| {
        ask("POST", "backup/restore", Some(json!({ "passphrase": passphrase }))).await
    };
    assert_eq!(restore(PASSPHRASE).await.code(), "not_found");
    let send = async |offset: u64, piece: &[u8]| {
        let request = Request::put(format!("/v1/system/backup/upload?offset={offset}"))
            .header("authorization", format!("Bearer {admin}"))
            .header("content-type", "application/octet-stream");
        appliance.ask(request.body(Body::from(piece.to_vec())).unwrap()).await
    };
    let half = archive.len() / 2;
    assert_eq!(send(0, b"something else").await.json(), json!({"bytes": 14}));
    assert_eq!(send(0, &archive[..half]).await.json(), json!({ "bytes": half }));
    let gap = send(half as u64 + 1, b"x").await;
    assert_eq!((gap.status, gap.code().as_str()), (409, "conflict"));
    assert_eq!(restore(PASSPHRASE).await.code(), "invalid");
    assert_eq!(send(half as u64, &archive[half..]).await.status, 200);
    let wrong = restore("another passphrase").await;
    assert_eq!(wrong.code(), "invalid");
    assert!(wrong.json()["detail"].as_str().unwrap().contains("passphrase"));
    assert!(!appliance.dir.path().join("restore").exists());
    if let Some(node) = appliance.another_node().await {
        let refused = restore(PASSPHRASE).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "in_use"));
        assert!(refused.json()["detail"].as_str().unwrap().contains("stop the other nodes"));
        node.close().await;
    }
    let done = restore(PASSPHRASE).await;
    assert_eq!(done.status, 200, "{:?}", String::from_utf8_lossy(&done.body));
    let files = done.json()["files"].to_string();
    assert!(files.contains("catalogue.db"), "{files}");
    assert!(files.contains("appliance.key") && files.contains("strongroom.toml"), "{files}");
    // No passphrase stands in a row, a log or a line of the trail, and nothing staged is left.
    let jobs = appliance.call(&admin, "GET", "/v1/jobs", None).await;
    let trail = appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    let all = format!("{}{trail:?}", String::from_utf8_lossy(&jobs.body));
    assert!(all.contains("system.backup.restore") && !all.contains("horse"), "{all}");
    let staged = appliance.dir.path().join("staged");
    assert_eq!(std::fs::read_dir(staged).unwrap().count(), 0);
}

#[tokio::test]
async fn a_restart_comes_after_a_backup_and_once() {
    let appliance = Appliance::with_token().await;
    let answer = get(&appliance, "/reboot").await;
    let accepted = r#"{"Status":"202 Accepted","Location":"/api/v1/admin/reboot"}"#;
    assert_eq!(answer.told(), (202, accepted.into()));
    assert_eq!(answer.headers["location"], "/api/v1/admin/reboot");
    appliance.app.administration().restarts().await;
    let last = appliance.app.administration().last("appliance_restart", 9).await.unwrap().unwrap();
    appliance.app.protect().engine().wait(last.job.id).await.unwrap();
    assert!(appliance.app.administration().backup_status().await.unwrap().file.is_some());
    let trail = appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    assert!(format!("{trail:?}").contains("jidoteki.reboot"));
    // Without a backup, natively.
    let admin = appliance.admin().await;
    let job = appliance.call(&admin, "POST", "/v1/system/restart", Some(json!({}))).await;
    assert_eq!(job.status, 202);
    appliance.app.administration().restarts().await;
}

#[tokio::test]
async fn a_scheduled_one_is_stored_and_the_latest_stay() {
    let appliance = Appliance::new().await;
    let (administration, identity) = (appliance.app.administration(), appliance.app.identity());
    let storage = appliance.app.storage();
    let new = NewPool::new("main", 1, appliance.dir.path().join("pools/main"));
    storage.create_pool(new).await.unwrap();
    let mut values = (*appliance.app.settings().current()).clone();
    let at = |hours: i64| Timestamp::now() + SignedDuration::from_hours(hours);
    let look = async |values: &Values, hours| {
        administration.back_up_when_due(identity, values, at(hours)).await.unwrap()
    };
    assert_eq!(look(&values, 0).await, Scheduled::NotDue, "it is switched off");
    values.appliance_backup_every = Duration::from_secs(24 * 3600);
    values.appliance_backup_keep = 2;
    assert_eq!(look(&values, 0).await, Scheduled::NoToken);
    let by = appliance.system().await;
    identity.set_admin_token(&by, &TOKEN.into()).await.unwrap();
    assert_eq!(look(&values, 0).await, Scheduled::Done);
    assert_eq!(look(&values, 0).await, Scheduled::NotDue);
    assert_eq!(look(&values, 23).await, Scheduled::NotDue);
    // What scripts make for themselves puts none off.
    assert_eq!(action(&appliance, "START").await, (202, ACCEPTED.into()));
    let job = administration.backup_status().await.unwrap().job.unwrap();
    appliance.app.protect().engine().wait(job.id).await.unwrap();
    // What others store under the same name is theirs.
    let admin = appliance.admin().await;
    let job = appliance.call(&admin, "POST", "/v1/system/backup/store", Some(json!({}))).await;
    let others = job.json()["id"].as_i64().unwrap();
    appliance.app.protect().engine().wait(others).await.unwrap();
    for _ in 0..2 {
        assert_eq!(look(&values, 25).await, Scheduled::Done);
    }
    let images = appliance.call(&admin, "GET", "/v1/images", None).await.json();
    let images = images["items"].as_array().unwrap();
    assert_eq!(images.len(), 3, "{images:?}");
    assert!(images.iter().all(|image| image["name"] == "appliance"));
    assert!(images.iter().any(|image| image["job_id"] == others), "{images:?}");
    // It opens as any that a script made.
    let archive = get(&appliance, "/backup/download").await.body;
    assert_eq!(restore(&appliance, &archive).await.0, 200);
}

#[tokio::test]
async fn who_approves_of_a_restore_approves_of_that_archive() {
    let appliance = Appliance::with_token().await;
    let admin = appliance.admin().await;
    let by = appliance.system().await;
    let identity = appliance.app.identity();
    let spec = UserSpec {
        organisation_id: by.root(),
        name: "second".into(),
        password: Some("correct horse battery".into()),
        ..UserSpec::default()
    };
    let user = identity.create_user(&by, spec).await.unwrap();
    let body = json!({"name": "second", "password": "correct horse battery"});
    let role: Option<Role> =
        appliance.app.catalog().find_one(Role::by_name("administrator")).await.unwrap();
    let grant = Grant { user_id: user.id, role_id: role.unwrap().id, organisation_id: by.root() };
    identity.grant(&by, grant).await.unwrap();
    let other = appliance.call("", "POST", "/v1/sessions", Some(body)).await.json();
    let other = other["token"].as_str().unwrap().to_owned();

    let made = async || {
        assert_eq!(action(&appliance, "START").await.0, 202);
        ended(&appliance).await;
        get(&appliance, "/backup/download").await.body
    };
    let (one, two) = (made().await, made().await);
    let rules = json!({"operations": ["system.backup.restore"], "classes": [], "hours": 24});
    let set = appliance.call(&admin, "PUT", "/v1/settings/approvals", Some(rules)).await;
    assert_eq!(set.status, 200, "{}", String::from_utf8_lossy(&set.body));
    let send = async |archive: &[u8]| {
        let request = Request::put("/v1/system/backup/upload?offset=0")
            .header("authorization", format!("Bearer {admin}"))
            .header("content-type", "application/octet-stream");
        let sent = appliance.ask(request.body(Body::from(archive.to_vec())).unwrap()).await;
        assert_eq!(sent.status, 200);
    };
    let sum = |bytes: &[u8]| {
        let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        data_encoding::HEXLOWER.encode(sum.as_ref())
    };
    let passphrase = sum(TOKEN.as_bytes());
    let restore = async || {
        let body = json!({ "passphrase": passphrase });
        appliance.call(&admin, "POST", "/v1/system/backup/restore", Some(body)).await
    };
    assert_eq!(restore().await.code(), "not_found", "nothing is asked for");
    send(&one).await;
    assert_eq!(restore().await.code(), "approval_needed");
    let waiting = appliance.call(&other, "GET", "/v1/approvals", None).await.json();
    let object = waiting["items"][0]["object"].as_str().unwrap();
    assert!(object.contains(&sum(&one)), "{object}");
    let decide = format!("/v1/approvals/{}/decide", waiting["items"][0]["id"]);
    let approve = json!({"approve": true});
    assert_eq!(appliance.call(&other, "POST", &decide, Some(approve)).await.status, 200);
    // Another one in its place waits for an approval of its own.
    send(&two).await;
    assert_eq!(restore().await.code(), "approval_needed");
    assert!(!appliance.dir.path().join("restore").exists());
    send(&one).await;
    let done = restore().await;
    assert_eq!(done.status, 200, "{}", String::from_utf8_lossy(&done.body));
}
