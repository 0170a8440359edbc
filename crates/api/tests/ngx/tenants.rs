//! What a tenant has is its own.

use crate::{World, refusal, text};
use serde_json::{Value, json};

#[tokio::test]
async fn a_tenant_sees_and_changes_its_own_alone() {
    let world = World::new().await;
    let x = world.lun("nvme1", "x").await;
    let snapshot = json!({"name": "s", "volume_id": x});
    let snapshot = text(&world.change("POST", "/snapshot", snapshot).await["id"]);
    let group = text(&world.change("POST", "/auth_group", json!({"name": "g"})).await["id"]);
    let new = json!({"name": "t", "auth_group_id": group});
    let target = text(&world.change("POST", "/target/iscsi", new).await["id"]);
    let map = format!("/target/iscsi/lun/{target}");
    world.change("PUT", &map, json!({"lun_ids": [x]})).await;
    let pool = text(&world.get("/pool").await[0]["pool_id"]);

    let tenant = world.tenant().await;
    let ask = |method: &'static str, path: &str, body: Option<Value>| {
        let path = path.to_owned();
        let (world, tenant) = (&world, &tenant);
        async move { world.ask(tenant, method, &path, body).await }
    };
    let change = |method: &'static str, path: &str, body: Value| {
        let (asked, path) = (ask(method, path, Some(body)), path.to_owned());
        async move {
            let answer = asked.await;
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.json());
            answer.json()
        }
    };
    let new = json!({"pool_name": "theirs", "name": "y", "size": 1});
    let y = text(&change("POST", "/lun", new).await["luns"][0]["id"]);
    change("POST", "/snapshot", json!({"name": "own", "volume_id": y})).await;
    let own = text(&change("POST", "/auth_group", json!({"name": "h"})).await["id"]);
    let new = json!({"name": "u", "auth_group_id": own});
    let own = text(&change("POST", "/target/iscsi", new).await["id"]);
    let own_map = format!("/target/iscsi/lun/{own}");
    change("PUT", &own_map, json!({"lun_ids": [y]})).await;

    for (path, names) in [
        ("/pool", &["theirs"][..]),
        ("/pool/list", &["theirs"]),
        ("/status/pools", &["theirs"]),
        ("/lun", &["y"]),
        ("/lun/list", &["y"]),
        ("/iscsi_target", &["u"]),
        ("/target/iscsi/list", &["u"]),
        ("/auth_group", &["DefaultAuthGroup", "h"]),
        ("/auth_group/list", &["DefaultAuthGroup", "h"]),
    ] {
        let all = ask("GET", path, None).await.json();
        let told: Vec<_> = all.as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
        assert_eq!(told, names, "{path}");
    }
    for path in ["/snapshot", "/snapshot/list"] {
        let all = ask("GET", path, None).await.json();
        assert_eq!((&all["luns"][0]["name"], &all["luns"][1]), (&"own".into(), &Value::Null));
    }
    let capacity = ask("GET", "/status/capacity", None).await.json();
    assert_eq!(capacity.as_object().unwrap().keys().collect::<Vec<_>>(), ["theirs"]);
    // Plugins begin with that; the machine's serial number is its administrators'.
    let cluster = ask("GET", "/status/cluster", None).await.json();
    let node = world.appliance.app.storage().node();
    assert_eq!((&cluster["status"], &cluster["connected"]), (&"Master".into(), &1.into()));
    assert_eq!(cluster["peers"], json!([{"id": node, "status": "Master"}]));

    // What is others' isn't there.
    for path in [
        format!("/lun/{x}"),
        format!("/snapshot/{snapshot}"),
        format!("/snapshot?volume_id={x}"),
        format!("/snapshot/schedule/{x}"),
        format!("/pool/{pool}"),
        format!("/auth_group/{group}"),
        format!("/iscsi_target/{target}"),
        format!("/initiators/iscsi/{target}"),
    ] {
        assert_eq!(refusal(&ask("GET", &path, None).await), (404, 5011), "{path}");
    }
    let chap = json!({"username": "u", "password": "secretsecret"});
    for (method, path, body) in [
        ("PATCH", format!("/lun/{x}"), json!({"name": "z"})),
        ("DELETE", format!("/lun/{x}"), json!({})),
        ("POST", "/lun".into(), json!({"pool_name": "nvme1", "name": "z", "size": 1})),
        ("POST", "/snapshot".into(), json!({"name": "z", "volume_id": x})),
        ("DELETE", format!("/snapshot/{snapshot}"), json!({})),
        ("DELETE", format!("/snapshot/all/{x}"), json!({})),
        ("POST", format!("/snapshot/clone/{snapshot}"), json!({"name": "z"})),
        ("POST", format!("/snapshot/restore/{snapshot}"), json!({"confirm": "true"})),
        ("PATCH", format!("/auth_group/chap/{group}"), chap),
        ("DELETE", format!("/auth_group/{group}"), json!({})),
        ("PATCH", format!("/target/iscsi/{target}"), json!({"name": "z"})),
        ("PATCH", format!("/target/iscsi/{own}"), json!({"auth_group_id": group})),
        ("PUT", map.clone(), json!({"lun_ids": [y]})),
        ("PATCH", map.clone(), json!({"lun_ids": [x]})),
        ("PUT", own_map.clone(), json!({"lun_ids": [x]})),
    ] {
        let answer = ask(method, &path, Some(body)).await;
        assert_eq!(refusal(&answer), (404, 5011), "{method} {path}");
    }
    let answer = ask("DELETE", &format!("/target/iscsi/{target}"), Some(json!({}))).await;
    assert_eq!(refusal(&answer), (404, 611));
    for path in ["/status/system_info", "/portal_group", "/hardware/disk/list"] {
        assert_eq!(refusal(&ask("GET", path, None).await), (403, 9403), "{path}");
    }
    assert_eq!(world.get(&format!("/lun/{x}")).await["name"], "x");
}
