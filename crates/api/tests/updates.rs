//! Updates, as far as they go without a process that starts anew.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Cursor;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use strongroom_appliance::updates::{NewPackage, UpdateSigner};
use support::{Answer, Appliance};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// A package of a program that is never started.
fn package(signer: &UpdateSigner, version: &str) -> Vec<u8> {
    let package = NewPackage {
        version: version.parse().unwrap(),
        minimum: None,
        architecture: std::env::consts::ARCH.into(),
        built_at: "2026-11-28T01:00:00Z".parse().unwrap(),
        program: Cursor::new(b"#!/bin/sh\nexit 0\n".to_vec()),
        changelog: None,
    };
    let mut out = Vec::new();
    package.write(signer, None, &mut out).unwrap();
    out
}

struct Place {
    appliance: Appliance,
    admin: String,
    signer: UpdateSigner,
}

impl Place {
    async fn new() -> Self {
        let appliance = Appliance::new().await;
        let signer = UpdateSigner::generate().unwrap();
        std::fs::write(appliance.dir.path().join("vendor.pem"), signer.public_pem()).unwrap();
        let admin = appliance.admin().await;
        let by = appliance.system().await;
        appliance.app.identity().set_admin_token(&by, &"yourtoken".into()).await.unwrap();
        Self { appliance, admin, signer }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let path = format!("/v1/system/updates{path}");
        self.appliance.call(&self.admin, method, &path, body).await
    }

    async fn send(&self, offset: u64, piece: &[u8]) -> Answer {
        let request = Request::put(format!("/v1/system/updates/upload?offset={offset}"))
            .header("authorization", format!("Bearer {}", self.admin))
            .header("content-type", "application/octet-stream");
        self.appliance.ask(request.body(Body::from(piece.to_vec())).unwrap()).await
    }

    async fn install(&self, package: &[u8]) -> Answer {
        assert_eq!(self.send(0, package).await.json(), json!({ "bytes": package.len() }));
        // Which is asked for with PostgreSQL alone.
        self.call("POST", "", Some(json!({"without_catalogue_copy": true}))).await
    }

    /// The directories of releases, whole or half made.
    fn releases(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(self.appliance.dir.path().join("releases")) else {
            return 0;
        };
        entries.flatten().filter(|entry| entry.path().is_dir()).count()
    }

    /// As a script for Jidoteki Admin, with a text where there should be a file.
    async fn as_script(&self, method: &str, path: &str, text: &str) -> Answer {
        let uri = format!("/api/v1/admin/update{path}?token=yourtoken");
        let body = match text {
            "" => Body::empty(),
            text => Body::from(format!(
                "--x\r\nContent-Disposition: form-data; name=\"update\"\r\n\r\n{text}\r\n--x--\r\n"
            )),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if !text.is_empty() {
            request = request.header("content-type", "multipart/form-data; boundary=x");
        }
        self.appliance.ask(request.body(body).unwrap()).await
    }

    /// What the job failed with.
    async fn error(&self, job: &Answer) -> String {
        assert_eq!(job.status, 202, "{}", String::from_utf8_lossy(&job.body));
        let id = job.json()["id"].as_i64().unwrap();
        self.appliance.app.protect().engine().wait(id).await.unwrap();
        let shown = self.call("GET", "", None).await.json();
        assert_eq!((&shown["job_id"], &shown["job_state"]), (&json!(id), &json!("failed")));
        shown["error"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn what_is_bad_changes_nothing() {
    let place = Place::new().await;
    assert_eq!(place.call("POST", "", Some(json!({}))).await.code(), "not_found");
    assert_eq!(place.call("POST", "", Some(json!({"force": true}))).await.code(), "invalid");
    let shown = place.call("GET", "", None).await.json();
    assert_eq!((&shown["version"], &shown["job_id"]), (&json!(OWN), &Value::Null));
    assert_eq!(place.call("POST", "/rollback", Some(json!({}))).await.code(), "conflict");
    // Pieces follow each other, and there is an end to them.
    let good = package(&place.signer, "9.0.0");
    assert_eq!(place.send(0, b"something else").await.json(), json!({"bytes": 14}));
    assert_eq!(place.send(15, b"x").await.code(), "conflict");
    let end = strongroom_appliance::backup::MAX_ARCHIVE;
    assert!(matches!(place.send(end, b"x").await.status, 400 | 409));
    let other = package(&UpdateSigner::generate().unwrap(), "9.0.0");
    // It is found only as it is unpacked.
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (bytes, expected) in [
        (&b"garbage"[..], "no package"),
        (&good[..100], "signature is missing"),
        (&good[..good.len() - 1], "cut off"),
        (&[&good[..], b"x"].concat()[..], "follows"),
        (&other[..], "not signed"),
        (&changed[..], "strongroom"),
        (&package(&place.signer, OWN)[..], "up-to-date"),
        (&package(&place.signer, "0.0.1")[..], "too old"),
        (&[b"Salted__".to_vec(), vec![7; 100]].concat()[..], "update_passphrase"),
    ] {
        let error = place.error(&place.install(bytes).await).await;
        assert!(error.contains(expected), "{error}");
        // What was sent is gone.
        assert_eq!(place.call("POST", "", Some(json!({}))).await.code(), "not_found");
        assert_eq!(place.releases(), 0);
    }
    assert_eq!(place.call("GET", "/history", None).await.json()["items"], json!([]));
    let dir = place.appliance.dir.path();
    assert!(!dir.join("releases/state.json").exists());
    let is_empty = |name: &str| std::fs::read_dir(dir.join(name)).unwrap().next().is_none();
    assert!(is_empty("staged") && is_empty("updates"));
}

#[tokio::test]
async fn a_good_one_is_put_on_trial_and_taken_back() {
    let place = Place::new().await;
    let administration = place.appliance.app.administration().clone();
    let job = place.install(&package(&place.signer, "9.0.0-rc.1")).await;
    assert_eq!(job.status, 202);
    // The process is asked to start anew.
    tokio::time::timeout(Duration::from_secs(60), administration.restarts()).await.unwrap();
    let shown = place.call("GET", "", None).await.json();
    let expected = json!([OWN, OWN, true, "running", 80]);
    let told = ["version", "previous_version", "on_trial", "job_state", "percent"];
    assert_eq!(json!(told.map(|key| shown[key].clone())), expected);
    let record = place.call("GET", "/history", None).await.json()["items"][0].clone();
    assert_eq!((&record["result"], &record["by"]), (&json!("trial"), &json!("admin")));
    let shown = place.as_script("GET", "", "").await;
    assert!(shown.json().get("error-code").is_none(), "{}", shown.json());
    // Nothing else is begun meanwhile.
    let second = place.install(&package(&place.signer, "9.0.1")).await;
    assert_eq!((second.status, second.code().as_str()), (409, "in_progress"));
    // A script is told of it as long as the first one runs.
    assert_eq!(place.as_script("POST", "", "something").await.status, 202);
    let shown = place.as_script("GET", "", "").await.json();
    let told = ["status", "percentage", "error-message", "error-code"];
    let expected = json!(["running", 80, "Update is already running", "E1004"]);
    assert_eq!(json!(told.map(|key| shown[key].clone())), expected);
    let back = place.call("POST", "/rollback", Some(json!({}))).await;
    assert_eq!(back.json(), json!({ "version": OWN }));
    assert!(place.error(&job).await.contains("admin went back"));
    let shown = place.as_script("GET", "", "").await.json();
    let expected = json!(["failed", 80, "Error running update", "E1002"]);
    assert_eq!(json!(told.map(|key| shown[key].clone())), expected);
    // What is too large is refused before it comes.
    let large = Request::post("/api/v1/admin/update?token=yourtoken")
        .header("content-type", "multipart/form-data; boundary=x")
        .header("content-length", (17u64 << 30).to_string());
    let refused = place.appliance.ask(large.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.status, 400, "{}", String::from_utf8_lossy(&refused.body));
    assert_eq!(place.call("GET", "", None).await.json()["on_trial"], false);
    // Which takes a new start, too.
    tokio::time::timeout(Duration::from_secs(60), administration.restarts()).await.unwrap();
    // One that is older comes if that is said.
    place.send(0, &package(&place.signer, "0.0.1")).await;
    let how = json!({"allow_older": true, "without_catalogue_copy": true});
    let job = place.call("POST", "", Some(how)).await;
    assert_eq!(job.status, 202);
    tokio::time::timeout(Duration::from_secs(60), administration.restarts()).await.unwrap();
    let history = place.call("GET", "/history", None).await.json()["items"].clone();
    assert_eq!(history[0]["version"], "0.0.1");
    place.call("POST", "/rollback", Some(json!({}))).await;
    place.error(&job).await;
}

#[tokio::test]
async fn a_catalogue_that_is_not_copied_has_to_be_said() {
    let place = Place::new().await;
    place.send(0, &package(&place.signer, "9.0.0")).await;
    let job = place.call("POST", "", Some(json!({}))).await;
    if support::engine() == strongroom_catalog::Engine::Postgres {
        let error = place.error(&job).await;
        assert!(error.contains("without_catalogue_copy"), "{error}");
        assert_eq!(place.call("GET", "/history", None).await.json()["items"], json!([]));
        assert_eq!(place.releases(), 0);
    } else {
        let administration = place.appliance.app.administration();
        tokio::time::timeout(Duration::from_secs(60), administration.restarts()).await.unwrap();
        place.call("POST", "/rollback", Some(json!({}))).await;
        place.error(&job).await;
    }
}
