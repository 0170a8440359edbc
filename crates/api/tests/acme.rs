//! Certificates of an authority: what is set, and when one is asked for. That one is given is proven with
//! an authority, by the journey of the binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use strongroom_catalog::jobs::{self, NewJob};
use support::Appliance;

const PATH: &str = "/v1/system/certificate/acme";

/// Nobody is there.
fn body() -> Value {
    json!({"directory": "https://127.0.0.1:1/dir", "contact": ["admin@box.example"],
        "domains": ["box.example"], "agree_to_terms": true})
}

#[tokio::test]
async fn what_can_not_be_is_refused_and_nothing_changes() {
    let appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    let ask = async |method: &str, path: &str, body: Option<Value>| {
        appliance.call(&admin, method, path, body).await
    };
    let nothing = ask("GET", PATH, None).await.json();
    assert_eq!((&nothing["directory"], &nothing["domains"]), (&Value::Null, &json!([])));
    for (field, value) in [
        ("agree_to_terms", json!(false)),
        ("directory", json!("http://ca.example/dir")),
        ("directory", json!("file:///etc/passwd")),
        ("domains", json!([])),
        ("domains", json!(["*.box.example"])),
        ("domains", json!(["127.0.0.1"])),
        ("domains", json!(["box.example\r\nx: y"])),
        ("contact", json!(["no address"])),
    ] {
        let mut body = body();
        body[field] = value.clone();
        let refused = ask("PUT", PATH, Some(body)).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "invalid"), "{field} {value}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(field), "{}", refused.json());
    }
    let issue = format!("{PATH}/issue");
    let refused = ask("POST", &issue, None).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"));
    assert_eq!(ask("GET", PATH, None).await.json(), nothing);

    let set = ask("PUT", PATH, Some(body())).await;
    assert_eq!((set.status, set.json()["domains"].clone()), (200, json!(["box.example"])));
    // While another certificate is on its way.
    let new = NewJob {
        kind: "certificate_acme".into(),
        organisation_id: 1,
        node: appliance.app.storage().node().into(),
        parameters: json!({}),
        run_at: Some("2100-01-01T00:00:00Z".parse().unwrap()),
        ..NewJob::default()
    };
    let job = jobs::submit(appliance.app.catalog(), new).await.unwrap().id;
    for (method, path, body) in
        [("POST", &*issue, None), ("PUT", PATH, Some(body())), ("DELETE", PATH, None)]
    {
        let busy = ask(method, path, body).await;
        assert_eq!((busy.status, busy.code().as_str()), (409, "in_progress"), "{method}");
    }
    appliance.app.protect().engine().cancel(job).await.unwrap();
    assert_eq!(ask("DELETE", PATH, None).await.status, 204);
    assert_eq!(ask("GET", PATH, None).await.json(), nothing);
}

#[tokio::test]
async fn one_is_asked_for_when_it_is_due_and_a_failure_is_told_and_waits() {
    let appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    let administration = appliance.app.administration();
    let identity = appliance.app.identity();
    let due = async |hours: i64| {
        let at = Timestamp::now() + SignedDuration::from_hours(hours);
        administration.renew_when_due(identity, at).await.unwrap()
    };
    assert!(due(0).await.is_none(), "nothing is set");
    let before = administration.certificate().await.unwrap().sha256;
    let set = appliance.call(&admin, "PUT", PATH, Some(body())).await;
    assert_eq!(set.status, 200);
    // The second failure in a row makes it two hours.
    for (hours, later) in [(0, 1), (2, 2)] {
        let job = due(hours).await.unwrap();
        let job = appliance.app.protect().engine().wait(job.id).await.unwrap();
        assert_eq!(job.state.word(), "failed");
        let shown = appliance.call(&admin, "GET", PATH, None).await.json();
        assert!(shown["error"].as_str().unwrap().contains("127.0.0.1:1"), "{shown}");
        assert!(shown["tried_at"].is_string() && shown["issued_at"].is_null());
        assert!(due(later - 1).await.is_none(), "it is tried {later} hours later");
    }
    assert_eq!(administration.certificate().await.unwrap().sha256, before);
}

#[tokio::test]
async fn none_is_asked_for_where_no_listener_answers_the_authority() {
    let mut appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    let set = appliance.call(&admin, "PUT", PATH, Some(body())).await;
    assert_eq!((set.status, &set.json()["error"]), (200, &Value::Null));
    appliance.serving = None;
    let issue = format!("{PATH}/issue");
    let refused = appliance.call(&admin, "POST", &issue, None).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("redirect"), "{}", refused.json());
    let shown = appliance.call(&admin, "GET", PATH, None).await.json();
    assert!(shown["error"].as_str().unwrap().contains("redirect"), "{shown}");
    assert!(shown["tried_at"].is_null());
    let administration = appliance.app.administration();
    let due = administration.renew_when_due(appliance.app.identity(), Timestamp::now()).await;
    assert!(due.unwrap_err().to_string().contains("redirect"));
    assert!(administration.last("certificate_acme", 0).await.unwrap().is_none());
}
