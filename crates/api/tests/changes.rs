//! What is changed, and under which conditions: keys in full, versions that must be the ones that were
//! read, requests that are sent twice, and what needs a second administrator.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use strongroom_api::access::Need;
use strongroom_api::dialects::{jidoteki, ngx};
use strongroom_identity::CLASSES;
use support::{Answer, Appliance};

/// A second administrator with this password, logged in.
async fn second(appliance: &Appliance, token: &str) -> (i64, String) {
    let password = "correct horse battery";
    let body = json!({"name": "second", "password": password});
    let made = appliance.call(token, "POST", "/v1/users", Some(body.clone())).await.json();
    let roles = appliance.call(token, "GET", "/v1/roles?filter=name:==administrator", None).await;
    let role = &roles.json()["items"][0]["id"];
    let grant = json!({"role_id": role, "organisation_id": made["organisation_id"]});
    let path = format!("/v1/users/{}/grants", made["id"]);
    assert_eq!(appliance.call(token, "POST", &path, Some(grant)).await.status, 204);
    let opened = appliance.call("", "POST", "/v1/sessions", Some(body)).await.json();
    (made["id"].as_i64().unwrap(), opened["token"].as_str().unwrap().to_owned())
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn all_of_a_key_can_be_changed_with_the_checks_of_a_new_one() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let made = appliance.call(&token, "POST", "/v1/keys", Some(json!({"name": "k"}))).await.json();
    let (id, secret) = (&made["key"]["id"], made["secret"].as_str().unwrap());
    let path = format!("/v1/keys/{id}");
    let change = |body: Value| appliance.call(&token, "PATCH", &path, Some(body));
    let may = async |path: &str| appliance.call(secret, "GET", path, None).await.status;
    assert_eq!((may("/v1/users").await, may("/v1/jobs").await), (200, 200));

    let limits = json!({"rights": ["pool.view", "job.view"], "pools": [7], "operations":
        ["jobs.list", "pools.list"], "expires_at": "2099-01-01T00:00:00Z"});
    let changed = change(limits.clone()).await;
    assert_eq!(changed.status, 200, "{}", String::from_utf8_lossy(&changed.body));
    for (field, value) in limits.as_object().unwrap() {
        assert_eq!(&changed.json()[field], value);
    }
    assert_eq!(tag(&changed), "\"v2\"");
    // It counts at once, and what isn't named stays.
    assert_eq!((may("/v1/users").await, may("/v1/jobs").await), (403, 200));
    let named = change(json!({"name": "other"})).await.json();
    assert_eq!((&named["name"], &named["pools"]), (&json!("other"), &json!([7])));
    // Null is all again; what is for a pool has nothing to do with users.
    let opened = change(json!({"rights": null, "operations": null, "expires_at": null})).await;
    let none = &Value::Null;
    let opened = opened.json();
    let limits = (&opened["rights"], &opened["operations"], &opened["expires_at"]);
    assert_eq!(limits, (none, none, none));
    assert_eq!(opened["pools"], json!([7]));
    assert_eq!(may("/v1/users").await, 403);
    assert_eq!(change(json!({"pools": null})).await.json()["pools"], *none);
    assert_eq!(may("/v1/users").await, 200);
    change(json!({"pools": [7]})).await;

    for wrong in [
        json!({"expires_at": "2001-01-01T00:00:00Z"}),
        json!({"rights": ["no.such"]}),
        json!({"operations": ["two words"]}),
        json!({"operations": (0..1001).map(|n| format!("o{n}")).collect::<Vec<_>>()}),
        json!({"pools": ["seven"]}),
        json!({"name": ""}),
        json!({"name": null, "colour": "red"}),
    ] {
        let refused = change(wrong.clone()).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid".into()), "{wrong}");
    }
    let old = [("if-match", "\"v1\"")];
    let late =
        appliance.call_with(&token, "PATCH", &path, Some(json!({"pools": null})), &old).await;
    assert_eq!((late.status, late.code()), (412, "changed".into()));
    // A key that is narrowed makes itself no wider.
    let own = appliance.call(secret, "PATCH", &path, Some(json!({"pools": null}))).await;
    assert_eq!((own.status, own.code()), (403, "forbidden".into()));
}

#[tokio::test]
async fn settings_of_their_own_shape_are_written_only_as_they_were_read() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let put = async |path: &str, body: &Value, tag: &str| {
        let header = [("if-match", tag)];
        appliance.call_with(&token, "PUT", path, Some(body.clone()), &header).await
    };
    let rules = "/v1/settings/approvals";
    let first = appliance.call(&token, "GET", rules, None).await;
    assert_eq!((tag(&first).as_str(), &first.json()["version"]), ("\"v0\"", &json!(0)));
    let body = json!({"operations": [], "hours": 2});
    let second = put(rules, &body, "\"v0\"").await;
    assert_eq!((second.status, tag(&second).as_str()), (200, "\"v1\""));
    for late in ["\"v0\"", "\"v2\"", "\"other\""] {
        assert_eq!(put(rules, &body, late).await.code(), "changed", "{late}");
    }
    assert_eq!(put(rules, &body, "\"v1\"").await.status, 200);
    assert_eq!(tag(&put(rules, &body, "*").await), "\"v3\"");

    let sender = "/v1/audit/sender";
    let to = |port: u16| {
        json!({"collector": {"protocol": "udp", "host": "127.0.0.1",
        "port": port, "ca_certificate": null}})
    };
    assert_eq!(put(sender, &to(9), "\"v1\"").await.code(), "changed", "there is none yet");
    let set = put(sender, &to(9), "\"v0\"").await;
    assert_eq!(set.status, 200, "{}", String::from_utf8_lossy(&set.body));
    let read = appliance.call(&token, "GET", sender, None).await;
    assert_eq!(tag(&read), tag(&set));
    let again = put(sender, &to(10), &tag(&read)).await;
    assert_eq!((again.status, tag(&again) == tag(&read)), (200, false));
    assert_eq!(put(sender, &to(11), &tag(&read)).await.code(), "changed");
    let remove = async |tag: String| {
        appliance.call_with(&token, "DELETE", sender, None, &[("if-match", &tag)]).await.status
    };
    assert_eq!(remove(tag(&read)).await, 412);
    assert_eq!(remove(tag(&again)).await, 204);
    assert_eq!(remove(tag(&again)).await, 404);
}

#[tokio::test]
async fn what_is_made_twice_under_one_key_is_made_once() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let body = json!({"name": "main", "path": appliance.dir.path().join("pool")});
    let pool = appliance.call(&token, "POST", "/v1/pools", Some(body)).await.json();
    let pool = pool["pool"]["id"].as_i64().unwrap();
    let (id, _) = second(&appliance, &token).await;
    let viewer = appliance.call(&token, "GET", "/v1/roles?filter=name:==viewer", None).await;
    let grant = json!({"role_id": viewer.json()["items"][0]["id"], "organisation_id": 1});
    for (path, body) in [
        (format!("/v1/pools/{pool}/ingests"), Some(json!({"object": "x"}))),
        (format!("/v1/pools/{pool}/readers"), None),
        (format!("/v1/users/{id}/grants"), Some(grant)),
    ] {
        let send = |key: &'static str| {
            let (appliance, token, path, body) = (&appliance, &token, &path, body.clone());
            let key = format!("{key}{path}");
            async move {
                let header = [("idempotency-key", key.as_str())];
                appliance.call_with(token, "POST", path, body, &header).await
            }
        };
        let (first, again) = (send("one").await, send("one").await);
        assert!(first.status < 300, "{path}: {}", String::from_utf8_lossy(&first.body));
        assert_eq!((first.status, &first.body), (again.status, &again.body), "{path}");
        assert_eq!(again.headers["idempotency-replayed"], "true", "{path}");
        let other = send("two").await;
        assert!(!other.headers.contains_key("idempotency-replayed"), "{path}");
        assert_eq!(other.body == first.body, first.body.is_empty(), "{path}");
    }
    let jobs =
        appliance.call(&token, "GET", "/v1/jobs?filter=kind:==ingest&count=true", None).await;
    assert_eq!(jobs.json()["count"], 2);
    // What is kept of an answer is sealed: no token or key of a pool lies open in the catalogue.
    let kept = appliance
        .app
        .catalog()
        .rows(strongroom_catalog::Sql::new("SELECT answer FROM idempotency"));
    for mut row in kept.await.unwrap() {
        let answer = row.take::<String>().unwrap();
        assert!(!answer.contains("data_key") && !answer.contains('{'), "{answer}");
    }
}

#[tokio::test]
async fn classes_put_what_they_say_under_four_eyes() {
    let routes = strongroom_api::native::routes();
    for class in CLASSES {
        for id in class.operations {
            if id.starts_with("jidoteki.") {
                assert!(jidoteki::operations().iter().any(|(_, _, known, _)| known == id), "{id}");
                continue;
            }
            if id.starts_with("ngx.") {
                assert!(ngx::operations().iter().any(|known| known.id == *id), "{id}");
                continue;
            }
            let route = routes.iter().find(|route| route.id() == *id);
            let route = route.unwrap_or_else(|| panic!("{}: no operation {id}", class.name));
            assert!(!matches!(route.need(), Need::Open(_)), "{id} is let through unasked");
        }
    }

    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let rules = "/v1/settings/approvals";
    let set = async |body: Value| appliance.call(&token, "PUT", rules, Some(body)).await;
    let all: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
    let on = json!({"operations": [], "classes": all, "hours": 1});
    let alone = set(on.clone()).await;
    assert_eq!(alone.status, 409, "one alone could never undo it");
    let (id, other) = second(&appliance, &token).await;
    for wrong in [
        json!({"operations": [], "classes": ["colour"], "hours": 1}),
        json!({"operations": ["images.forgot"], "hours": 1}),
    ] {
        assert_eq!(set(wrong.clone()).await.code(), "invalid", "{wrong}");
    }
    let told = set(on).await;
    assert_eq!(told.status, 200, "{}", String::from_utf8_lossy(&told.body));
    let told = told.json();
    let told: BTreeSet<_> =
        told["classes"].as_array().unwrap().iter().map(|c| c["on"] == true).collect();
    assert_eq!(told, [true].into());

    let asked = async |method: &str, path: &str, body: Option<Value>| {
        let answer = appliance.call(&token, method, path, body).await;
        answer.status == 403 && answer.code() == "approval_needed"
    };
    let body = json!({"name": "main", "path": appliance.dir.path().join("pool")});
    let pool = appliance.call(&token, "POST", "/v1/pools", Some(body)).await.json();
    let pool = format!("/v1/pools/{}", pool["pool"]["id"]);
    assert!(asked("DELETE", &pool, None).await);
    assert!(asked("POST", &format!("{pool}/forget"), Some(json!({"keep_last": 1}))).await);
    let kept = "/v1/settings/jobs.attempts";
    assert!(asked("PATCH", kept, Some(json!({"value": 2}))).await);
    assert!(asked("DELETE", kept, None).await);
    assert!(asked("DELETE", "/v1/audit/sender", None).await);
    let network = json!({"interface": "eth0", "hostname": "box", "mode": "dhcp"});
    assert!(asked("PUT", "/v1/system/network", Some(network)).await);
    assert!(asked("POST", "/v1/users", Some(json!({"name": "third"}))).await);
    let word = json!({"password": "battery horse correct"});
    assert!(asked("PUT", &format!("/v1/users/{id}/password"), Some(word)).await);
    assert!(asked("PUT", rules, Some(json!({"operations": [], "hours": 1}))).await);

    // Nor is a key that one makes for the other a second pair of eyes.
    let body = json!({"name": "hers", "user_id": id});
    let key = appliance.call(&token, "POST", "/v1/keys", Some(body)).await.json();
    let key = key["secret"].as_str().unwrap();
    let waiting =
        appliance.call(&other, "GET", "/v1/approvals?filter=operation:==pools.remove", None);
    let path = format!("/v1/approvals/{}/decide", waiting.await.json()["items"][0]["id"]);
    let approve = async |token: &str| {
        appliance.call(token, "POST", &path, Some(json!({"approve": true}))).await
    };
    let by_key = approve(key).await;
    assert_eq!((by_key.status, by_key.code()), (403, "forbidden".into()));
    assert_eq!(approve(&other).await.status, 200);
    assert_eq!(appliance.call(&token, "DELETE", &pool, None).await.status, 204);
}

#[tokio::test]
async fn what_needs_a_login_alone_can_need_a_second_administrator_too() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let body = json!({"operations": ["keys.create", "me.password"], "hours": 1});
    let set = appliance.call(&token, "PUT", "/v1/settings/approvals", Some(body)).await;
    assert_eq!(set.status, 200, "{}", String::from_utf8_lossy(&set.body));
    let made = appliance.call(&token, "POST", "/v1/keys", Some(json!({"name": "k"}))).await;
    assert_eq!((made.status, made.code()), (403, "approval_needed".into()));
    // One's own password is one's own business.
    let body = json!({"old": appliance.passphrase, "new": "battery horse correct"});
    let word = appliance.call(&token, "PUT", "/v1/me/password", Some(body)).await;
    assert_eq!(word.status, 204, "{}", String::from_utf8_lossy(&word.body));
}

#[tokio::test]
async fn a_jwt_has_an_end_that_moves_or_one_that_stays() {
    let appliance = Appliance::new().await;
    for (kind, moves) in [("jwt", true), ("jwt_fixed", false)] {
        let body = json!({"name": "admin", "password": appliance.passphrase, "kind": kind});
        let opened = appliance.call("", "POST", "/v1/sessions", Some(body)).await;
        assert_eq!(opened.status, 201, "{}", String::from_utf8_lossy(&opened.body));
        let opened = opened.json();
        let token = opened["token"].as_str().unwrap();
        assert_eq!(token.split('.').count(), 3, "it is a JWT");
        let me = appliance.call(token, "GET", "/v1/me", None).await.json();
        assert_eq!(me["via"], "jwt");
        let sql =
            strongroom_catalog::Sql::new("SELECT idle FROM sessions ORDER BY id DESC LIMIT 1");
        let mut row = appliance.app.catalog().rows(sql).await.unwrap().remove(0);
        assert_eq!(row.take::<Option<i64>>().unwrap().is_some(), moves, "{kind}");
        // One that stays is as short as one that moves is without being used.
        let end: jiff::Timestamp = opened["expires_at"].as_str().unwrap().parse().unwrap();
        let life = end.duration_since(jiff::Timestamp::now());
        assert_eq!(life > jiff::SignedDuration::from_mins(15), moves, "{kind}: {life}");
    }
}
