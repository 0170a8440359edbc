//! The stream of all jobs: who is told of which, and what one who was away gets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use axum::body::Body;
use http::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use strongroom_catalog::identity::Grant;
use strongroom_catalog::jobs::{self, NewJob};
use strongroom_identity::{KeySpec, UserSpec};
use support::{Appliance, request};

/// The next event: its name, its id, and what it says.
async fn next(stream: &mut Response<Body>) -> (String, String, Value) {
    let read = async {
        loop {
            let frame = stream.body_mut().frame().await.expect("it goes on").unwrap();
            let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.map(|line| line.trim().to_owned()).unwrap_or_default()
            };
            // A comment keeps the connection alive.
            if !text.starts_with(':') {
                let data = serde_json::from_str(&field("data:")).unwrap();
                return (field("event:"), field("id:"), data);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.expect("in time")
}

async fn watch(appliance: &Appliance, token: &str, last: &str) -> Response<Body> {
    let headers = [("last-event-id", last)];
    let headers = if last.is_empty() { &[][..] } else { &headers[..] };
    let stream = appliance.begin(request(token, "GET", "/v1/jobs/events", None, headers)).await;
    assert_eq!(stream.status(), 200);
    stream
}

/// A job that nothing here knows how to do: it stays as it is.
async fn job(appliance: &Appliance, organisation_id: i64, object: &str) -> i64 {
    let (kind, object) = ("nothing".into(), object.into());
    let new = NewJob { kind, organisation_id, object, ..NewJob::default() };
    jobs::submit(appliance.app.catalog(), new).await.unwrap().id
}

#[tokio::test]
async fn one_is_told_of_the_jobs_that_one_may_see() {
    let appliance = Appliance::new().await;
    let identity = appliance.app.identity();
    let body = json!({"name": "A"});
    let token = appliance.admin().await;
    let made = appliance.call(&token, "POST", "/v1/organisations", Some(body)).await.json();
    let organisation_id = made["id"].as_i64().unwrap();
    let by = appliance.system().await;
    let spec = UserSpec {
        organisation_id,
        name: "tenant".into(),
        full_name: String::new(),
        email: String::new(),
        password: None,
        must_change: false,
        delegate_of: None,
    };
    let user_id = identity.create_user(&by, spec).await.unwrap().id;
    let roles = appliance.call(&token, "GET", "/v1/roles?filter=name:==viewer", None).await.json();
    let role_id = roles["items"][0]["id"].as_i64().unwrap();
    identity.grant(&by, Grant { user_id, role_id, organisation_id }).await.unwrap();
    let spec = KeySpec {
        user_id,
        name: "k".into(),
        expires_at: None,
        rights: None,
        pools: None,
        operations: None,
        shown_again: false,
        dialect: None,
    };
    let (_, key) = identity.create_key(&by, spec).await.unwrap();

    let mut all = watch(&appliance, &token, "").await;
    let mut theirs = watch(&appliance, key.expose(), "").await;
    let ours = job(&appliance, by.root(), "ours").await;
    let (name, first, told) = next(&mut all).await;
    assert_eq!((name.as_str(), &told["id"]), ("job", &json!(ours)), "{told}");
    let tenants = job(&appliance, organisation_id, "theirs").await;
    assert_eq!(next(&mut all).await.2["id"], tenants);
    assert_eq!(next(&mut theirs).await.2["id"], tenants, "not ours, which came before");

    // One who was away is told of what came since, at least.
    drop(all);
    let missed = job(&appliance, by.root(), "missed").await;
    let mut again = watch(&appliance, &token, &first).await;
    let mut seen = Vec::new();
    while !seen.contains(&missed) {
        seen.push(next(&mut again).await.2["id"].as_i64().unwrap());
    }
    assert!(seen.contains(&tenants), "{seen:?}");
    let wrong = [("last-event-id", "yesterday")];
    let wrong = appliance.call_with(&token, "GET", "/v1/jobs/events", None, &wrong).await;
    assert_eq!((wrong.status, wrong.code()), (400, "bad_request".into()));

    // When that is too much, one is told to read all anew.
    let mut tx = appliance.app.catalog().begin().await.unwrap();
    for _ in 0..1000 {
        let kind = "nothing".into();
        let new = NewJob { kind, organisation_id, ..NewJob::default() };
        jobs::submit_in(&mut tx, new).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut again = watch(&appliance, &token, &first).await;
    let (name, _, told) = next(&mut again).await;
    assert_eq!(name, "resync", "{told}");
    assert!(told["resync"].is_string());
}
