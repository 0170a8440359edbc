//! Keys for the dialect, and secrets.

use crate::{World, refusal, text};
use serde_json::json;

#[tokio::test]
async fn secrets_are_shown_to_who_may_see_them_and_told_in_the_trail() {
    let world = World::new().await;
    let group = text(&world.change("POST", "/auth_group", json!({"name": "g"})).await["id"]);
    let chap = json!({"username": "u", "password": "hunter2hunter2"});
    world.change("PATCH", &format!("/auth_group/chap/{group}"), chap).await;
    let allow = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let (_, reads) =
        world.make("reads", |key| key.operations = allow(&["ngx.auth_group.read"])).await;
    let both = &["ngx.auth_group.read", "ngx.auth_group.secrets"];
    let (_, sees) = world.make("sees", |key| key.operations = allow(both)).await;
    for path in [format!("/auth_group/{group}"), "/auth_group/list".into()] {
        let hidden = world.ask(&reads, "GET", &path, None).await;
        assert!(hidden.status == 200 && !hidden.json().to_string().contains("hunter2"), "{path}");
        let shown = world.ask(&sees, "GET", &path, None).await;
        assert!(shown.json().to_string().contains("hunter2"), "{path}");
    }
    let lines = world.appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    let told = lines.iter().filter(|line| line.operation == "ngx.auth_group.secrets").count();
    assert_eq!(told, 2);
    assert!(lines.iter().any(|line| line.operation == "ngx.auth_group.set_chap"));
    assert!(!format!("{lines:?}").contains("hunter2"));
}

#[tokio::test]
async fn keys_are_made_for_the_dialect_and_shown_again() {
    let world = World::new().await;
    let admin = world.appliance.admin().await;
    let call = |method, path, body| world.appliance.call(&admin, method, path, body);
    let new = json!({"name": "csi", "dialect": "ngx", "pools": [world.pools[0]],
        "operations": ["lun.read", "ngx.pool.list"]});
    let made = call("POST", "/v1/keys", Some(new)).await.json();
    let key = &made["key"];
    assert_eq!((&key["dialect"], &key["revealable"]), (&"ngx".into(), &true.into()));
    assert_eq!(
        (&key["signing"], &key["operations"]),
        (&false.into(), &json!(["ngx.lun.read", "ngx.pool.list"]))
    );
    let secret = text(&made["secret"]);
    for (path, status) in [("/lun", 200), ("/lun/list", 200), ("/pool", 200), ("/pool/list", 403)] {
        assert_eq!(world.ask(&secret, "GET", path, None).await.status, status, "{path}");
    }
    let reveal = format!("/v1/keys/{}/reveal", key["id"]);
    assert_eq!(call("POST", &reveal, None).await.json()["secret"], secret.as_str());
    let lines = world.appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    assert!(lines.iter().any(|line| line.operation == "key.reveal"));

    for (wrong, told) in [
        (json!({"name": "x", "dialect": "ngx", "operations": ["lun.raed"]}), "lun.read"),
        (json!({"name": "x", "dialect": "other"}), "ngx"),
        (json!({"name": "x", "dialect": "ngx", "signing": true}), "signing"),
    ] {
        let refused = call("POST", "/v1/keys", Some(wrong.clone())).await;
        assert_eq!(refused.status, 422, "{wrong}");
        assert!(text(&refused.json()["detail"]).contains(told), "{}", refused.json());
    }
    let at = format!("/v1/keys/{}", key["id"]);
    let wrong = json!({"operations": ["pools.list"]});
    assert_eq!(call("PATCH", &at, Some(wrong)).await.status, 422);
    let changed = call("PATCH", &at, Some(json!({"operations": ["snapshot.read"]}))).await.json();
    assert_eq!(changed["operations"], json!(["ngx.snapshot.read"]));
    let native = call("POST", "/v1/keys", Some(json!({"name": "native"}))).await.json();
    assert_eq!(native["key"]["revealable"], false);
    let reveal = format!("/v1/keys/{}/reveal", native["key"]["id"]);
    assert_eq!(call("POST", &reveal, None).await.code(), "conflict");
    // Neither opens the other's.
    let secret = text(&native["secret"]);
    assert_eq!(refusal(&world.ask(&secret, "GET", "/lun", None).await), (401, 5000));
    let answer = world.appliance.call(&world.key, "GET", "/v1/me", None).await;
    assert_eq!((answer.status, answer.code()), (401, "unauthenticated".into()));
}
