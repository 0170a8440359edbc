//! Who one is, as requests say it: tokens of an issuer that is run here, signed requests, and how
//! directories and issuers are set up.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/credentials.rs"]
mod credentials;
mod support;

use std::sync::Arc;

use axum::body::Body;
use credentials::{Signer, Tokens};
use http::Request;
use serde_json::{Value, json};
use strongroom_api::Https;
use support::{Answer, Appliance};
use tokio::net::TcpListener;

async fn role(appliance: &Appliance, token: &str, name: &str) -> i64 {
    let found = appliance.call(token, "GET", "/v1/roles", None).await.json();
    let roles = found["items"].as_array().unwrap();
    roles.iter().find(|role| role["name"] == name).unwrap()["id"].as_i64().unwrap()
}

#[tokio::test]
async fn a_token_of_an_issuer_is_a_login() {
    let (appliance, tokens) = (Appliance::new().await, Tokens::start().await);
    appliance.app.identity().fetch_with(Arc::new(Https));
    let admin = appliance.admin().await;
    let viewer = role(&appliance, &admin, "viewer").await;
    let root = appliance.app.identity().root().await.unwrap().id;
    let groups = json!([{"group": "staff", "role_id": viewer, "organisation_id": root}]);
    let post =
        async |path: &str, body: Value| appliance.call(&admin, "POST", path, Some(body)).await;
    let made = post("/v1/issuers", tokens.body(groups.clone())).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let path = made.headers["location"].to_str().unwrap().to_owned();

    let staff = tokens.token("jo", &["staff"]);
    let tried = post(&format!("{path}/test"), json!({"token": staff})).await.json();
    assert_eq!((&tried["ok"], &tried["roles"][0]["role_id"]), (&json!(true), &json!(viewer)));
    let me = appliance.call(&staff, "GET", "/v1/me", None).await;
    assert_eq!(me.status, 200, "{}", me.json());
    assert_eq!((&me.json()["name"], &me.json()["via"]), (&json!("jo"), &json!("oidc")));
    assert_eq!(appliance.call(&staff, "GET", "/v1/pools", None).await.status, 200);
    assert_eq!(appliance.call(&staff, "GET", "/v1/users", None).await.code(), "forbidden");
    assert_eq!(appliance.call(&staff, "GET", "/v1/issuers", None).await.code(), "forbidden");
    let other = tokens.token("mo", &["others"]);
    assert_eq!(appliance.call(&other, "GET", "/v1/me", None).await.code(), "unauthenticated");

    // It is changed by whoever read it, and refused to whoever did not.
    let put = async |tag: &str, body: Value| {
        appliance.call_with(&admin, "PUT", &path, Some(body), &[("if-match", tag)]).await
    };
    let shown = appliance.call(&admin, "GET", &path, None).await;
    let tag = shown.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(shown.json()["groups"], groups);
    let mut off = tokens.body(groups.clone());
    off["enabled"] = json!(false);
    assert_eq!(put("\"v99\"", off.clone()).await.code(), "changed");
    assert_eq!(put(&tag, off).await.status, 200);
    assert_eq!(appliance.call(&staff, "GET", "/v1/me", None).await.status, 401);
    assert_eq!(appliance.call(&admin, "DELETE", &path, None).await.code(), "in_use");

    // What can't be fetched is told, and no redirection is followed.
    for (realm, why) in [("moved", "307"), ("big", "more than"), ("nothing", "404")] {
        let mut body = tokens.body(json!([]));
        body["name"] = json!(realm);
        body["checks"]["issuer"] = json!(tokens.url.replace("/realm", &format!("/{realm}")));
        let made = post("/v1/issuers", body).await;
        let path = made.headers["location"].to_str().unwrap().to_owned();
        let tried = post(&format!("{path}/test"), json!({})).await.json();
        let told = tried["steps"][0]["detail"].as_str().unwrap();
        assert!(tried["ok"] == false && told.contains(why), "{tried}");
        assert_eq!(appliance.call(&admin, "DELETE", &path, None).await.status, 204);
    }
    let mut body = tokens.body(json!([]));
    body["name"] = json!("untrusted");
    body["checks"]["ca_certificate"] = Value::Null;
    let made = post("/v1/issuers", body).await;
    let untrusted = made.headers["location"].to_str().unwrap().to_owned();
    let tried = post(&format!("{untrusted}/test"), json!({})).await.json();
    assert!(tried["steps"][0]["detail"].as_str().unwrap().contains("certificate"), "{tried}");
    let found = appliance.call(&admin, "GET", "/v1/issuers?sort=name:asc", None).await.json();
    let names: Vec<_> = found["items"].as_array().unwrap().iter().map(|i| &i["name"]).collect();
    assert_eq!(names, ["realm", "untrusted"]);
}

#[tokio::test]
async fn a_directory_that_is_down_keeps_only_its_own_users_out() {
    let appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ldap://{}", listener.local_addr().unwrap());
    drop(listener);
    let connection = json!({"url": url, "base_dn": "dc=corp", "bind_dn": "cn=reader"});
    let body = json!({"name": "corp", "connection": connection, "secret": "hunter2"});
    let made = appliance.call(&admin, "POST", "/v1/directories", Some(body.clone())).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let shown = made.json();
    assert_eq!(
        (&shown["has_secret"], &shown["connection"]["user_filter"]),
        (&json!(true), &json!("(uid={name})"))
    );
    assert!(!shown.to_string().contains("hunter2"));
    let again = appliance.call(&admin, "POST", "/v1/directories", Some(body)).await;
    assert_eq!(again.code(), "exists");
    let path = made.headers["location"].to_str().unwrap().to_owned();
    let test = format!("{path}/test");
    let tried = appliance.call(&admin, "POST", &test, Some(json!({"name": "jo"}))).await.json();
    assert_eq!((&tried["ok"], &tried["steps"][0]["name"]), (&json!(false), &json!("connect")));
    let log_in = |body: Value| appliance.call("", "POST", "/v1/sessions", Some(body));
    let jo = log_in(json!({"name": "jo", "password": "x", "directory": "corp"})).await;
    assert_eq!((jo.status, jo.code().as_str()), (503, "unavailable"));
    assert!(jo.headers.contains_key("retry-after"));
    appliance.admin().await;
    let plain = json!({"name": "plain", "connection": {"url": "ldap://dc1.corp.example",
        "base_dn": "dc=corp"}});
    let refused = appliance.call(&admin, "POST", "/v1/directories", Some(plain)).await;
    assert_eq!(refused.code(), "invalid");
    assert_eq!(appliance.call(&admin, "DELETE", &path, None).await.status, 204);
}

#[tokio::test]
async fn a_signed_request_passes_once_and_only_as_it_was_signed() {
    let appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    let me = appliance.call(&admin, "GET", "/v1/me", None).await.json();
    let body = json!({"user_id": me["user_id"], "name": "signing", "signing": true});
    let made = appliance.call(&admin, "POST", "/v1/keys", Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let signer = Signer::new(made.json()["secret"].as_str().unwrap());
    let ask = async |request: Request<Body>| -> Answer { appliance.ask(request).await };

    let nonces: Vec<_> = (0..8).map(|i| format!("nonce-number-{i:08}")).collect();
    let list = "/v1/users?limit=1&sort=name:asc";
    let answer = ask(signer.request("GET", list, "", &nonces[0])).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let again = ask(signer.request("GET", list, "", &nonces[0])).await;
    assert_eq!(again.code(), "unauthenticated");
    assert!(again.json()["detail"].as_str().unwrap().contains("sent before"));

    let create = r#"{"name":"A","parent_id":1}"#;
    let made = ask(signer.request("POST", "/v1/organisations", create, &nonces[1])).await;
    assert_eq!(made.status, 201, "{}", made.json());
    // Another body, another query, another path, another method.
    let (mut parts, _) =
        signer.request("POST", "/v1/organisations", create, &nonces[2]).into_parts();
    let other = create.replace('A', "B");
    let other = ask(Request::from_parts(parts.clone(), Body::from(other))).await;
    assert_eq!(other.code(), "unauthenticated");
    assert!(other.json()["detail"].as_str().unwrap().contains("Content-Digest"));
    parts = signer.request("GET", list, "", &nonces[3]).into_parts().0;
    parts.uri = "/v1/users?limit=2&sort=name:asc".parse().unwrap();
    assert_eq!(ask(Request::from_parts(parts, Body::empty())).await.code(), "unauthenticated");
    parts = signer.request("GET", "/v1/me", "", &nonces[4]).into_parts().0;
    parts.uri = "/v1/keys".parse().unwrap();
    assert_eq!(ask(Request::from_parts(parts, Body::empty())).await.code(), "unauthenticated");
    // A body whose digest isn't signed; a token beside the signature.
    let mut unsigned = signer.request("POST", "/v1/organisations", "", &nonces[5]);
    *unsigned.body_mut() = Body::from(create);
    let unsigned = ask(unsigned).await;
    assert!(unsigned.json()["detail"].as_str().unwrap().contains("content-digest"));
    let mut both = signer.request("GET", "/v1/me", "", &nonces[6]);
    both.headers_mut().insert("authorization", format!("Bearer {admin}").parse().unwrap());
    assert_eq!(ask(both).await.code(), "unauthenticated");
    let me = ask(signer.request("GET", "/v1/me", "", &nonces[7])).await.json();
    assert_eq!(me["via"], "signed");
}
