//! Volumes through the interface: what is made once, versions that must be the ones that were read, keys
//! that are for one pool, and what needs a second administrator.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::{Answer, Appliance};

async fn pool(appliance: &Appliance, token: &str, name: &str) -> i64 {
    let path = appliance.dir.path().join(name);
    let body = json!({"name": name, "path": path, "encrypted": false});
    let made = appliance.call(token, "POST", "/v1/pools", Some(body)).await.json();
    made["pool"]["id"].as_i64().unwrap()
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_volume_is_made_once_changed_as_it_was_read_and_kept_from_other_keys() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let (one, two) = (pool(&appliance, &token, "one").await, pool(&appliance, &token, "two").await);
    let body = json!({"name": "v", "size": 1 << 20});
    let place = format!("/v1/pools/{one}/volumes");
    let key = [("idempotency-key", "made-once")];
    let call = async |method: &str, path: &str, body: Option<Value>| {
        appliance.call(&token, method, path, body).await
    };
    let first = appliance.call_with(&token, "POST", &place, Some(body.clone()), &key).await;
    assert_eq!(first.status, 201, "{}", String::from_utf8_lossy(&first.body));
    let again = appliance.call_with(&token, "POST", &place, Some(body.clone()), &key).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    let taken = call("POST", &place, Some(body.clone())).await;
    assert_eq!((taken.status, taken.code()), (409, "exists".into()));
    for wrong in [
        json!({"name": "w", "size": 1000}),
        json!({"name": "w/w", "size": 4096}),
        json!({"name": "w", "size": 4096, "block_size": 5000}),
        json!({"name": "w", "size": 4096, "priority": 5}),
        json!({"name": "w", "size": 4096, "colour": "red"}),
    ] {
        let refused = call("POST", &place, Some(wrong.clone())).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid".into()), "{wrong}");
    }

    let volume = first.json();
    let path = format!("/v1/volumes/{}", volume["id"]);
    assert_eq!(first.headers["location"], path);
    let read = call("GET", &path, None).await;
    assert_eq!(read.json()["volume"]["name"], "v");
    let change = async |body: Value, tag: &str| {
        appliance.call_with(&token, "PATCH", &path, Some(body), &[("if-match", tag)]).await
    };
    let changed = change(json!({"priority": 128, "cached": false}), &tag(&read)).await;
    assert_eq!(changed.status, 200, "{}", String::from_utf8_lossy(&changed.body));
    assert_eq!(
        (&changed.json()["priority"], &changed.json()["cached"]),
        (&json!(128), &json!(false))
    );
    let late = change(json!({"priority": 4}), &tag(&read)).await;
    assert_eq!((late.status, late.code()), (412, "changed".into()));
    let grow = format!("{path}/grow");
    let less = call("POST", &grow, Some(json!({"size": 4096}))).await;
    assert_eq!((less.status, less.code()), (422, "invalid".into()));
    assert_eq!(call("POST", &grow, Some(json!({"size": 2 << 20}))).await.json()["size"], 2 << 20);

    // A key for the other pool does not know of it, in lists neither.
    let other = call("POST", &format!("/v1/pools/{two}/volumes"), Some(body)).await;
    assert_eq!(other.status, 201, "names are a pool's own");
    let key = call("POST", "/v1/keys", Some(json!({"name": "k", "pools": [two]}))).await.json();
    let secret = key["secret"].as_str().unwrap();
    assert_eq!(appliance.call(secret, "GET", &path, None).await.status, 404);
    let list = appliance.call(secret, "GET", "/v1/volumes?count=true", None).await.json();
    assert_eq!((&list["count"], &list["items"][0]["pool_id"]), (&json!(1), &json!(two)));

    let schedule = format!("{path}/schedule");
    assert_eq!(call("GET", &schedule, None).await.status, 404);
    let body = json!({"every_seconds": 3600, "keep": 2});
    let set = call("PUT", &schedule, Some(body.clone())).await;
    assert_eq!((set.status, set.json()["enabled"].clone()), (200, json!(true)));
    let stale = [("if-match", "\"v7\"")];
    let late = appliance.call_with(&token, "PUT", &schedule, Some(body), &stale).await;
    assert_eq!((late.status, late.code()), (412, "changed".into()));
    assert_eq!(call("DELETE", &schedule, None).await.status, 204);
    assert_eq!(call("DELETE", &schedule, None).await.status, 404);
}

#[tokio::test]
async fn what_is_lost_for_good_needs_a_second_administrator_where_that_is_set() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let place = format!("/v1/pools/{}/volumes", pool(&appliance, &token, "one").await);
    let body = json!({"name": "v", "size": 1 << 20});
    let volume = appliance.call(&token, "POST", &place, Some(body)).await.json()["id"].clone();
    let place = format!("/v1/volumes/{volume}/snapshots");
    let body = json!({"name": "s"});
    let snapshot = appliance.call(&token, "POST", &place, Some(body)).await.json()["id"].clone();

    let password = "correct horse battery";
    let body = json!({"name": "second", "password": password});
    let user = appliance.call(&token, "POST", "/v1/users", Some(body)).await.json();
    let roles = appliance.call(&token, "GET", "/v1/roles?filter=name:==administrator", None).await;
    let grant = json!({
        "role_id": roles.json()["items"][0]["id"],
        "organisation_id": user["organisation_id"],
    });
    let path = format!("/v1/users/{}/grants", user["id"]);
    assert_eq!(appliance.call(&token, "POST", &path, Some(grant)).await.status, 204);
    let rules = json!({"operations": [], "classes": ["deletion", "retention"], "hours": 1});
    let set = appliance.call(&token, "PUT", "/v1/settings/approvals", Some(rules)).await;
    assert_eq!(set.status, 200, "{}", String::from_utf8_lossy(&set.body));

    let schedule = json!({"every_seconds": 3600, "keep": 2});
    for (method, path, body) in [
        ("POST", format!("/v1/snapshots/{snapshot}/restore"), Some(json!({}))),
        ("DELETE", format!("/v1/snapshots/{snapshot}"), None),
        ("PUT", format!("/v1/volumes/{volume}/schedule"), Some(schedule)),
        ("DELETE", format!("/v1/volumes/{volume}"), None),
    ] {
        let asked = appliance.call(&token, method, &path, body).await;
        assert_eq!((asked.status, asked.code()), (403, "approval_needed".into()), "{path}");
    }
    let there = appliance.call(&token, "GET", &format!("/v1/snapshots/{snapshot}"), None).await;
    assert_eq!(there.json()["volume_id"], volume);
}
