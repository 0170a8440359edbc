//! Lists, logs and figures.

use crate::{World, text};
use serde_json::{Value, json};

#[tokio::test]
async fn lists_say_of_each_what_is_told_of_one() {
    let world = World::new().await;
    let mut groups = Vec::new();
    for (pool, name, port) in [("nvme1", "a", 33_260), ("ryo2", "b", 33_261)] {
        let lun = world.lun(pool, name).await;
        let iqn = format!("iqn.2016-04.com.open-iscsi:{name}");
        let group = json!({"name": name, "initiator": [iqn]});
        let group = text(&world.change("POST", "/auth_group", group).await["id"]);
        let chap = json!({"username": "u", "password": format!("secretsecret{name}")});
        world.change("PATCH", &format!("/auth_group/chap/{group}"), chap).await;
        let portal = json!({"name": name, "listen_ips": [format!("127.0.0.1:{port}")]});
        let portal = text(&world.change("POST", "/portal_group", portal).await["id"]);
        let new = json!({"name": name, "auth_group_id": group, "portal_group_id": portal});
        let target = text(&world.change("POST", "/target/iscsi", new).await["id"]);
        let map = format!("/target/iscsi/lun/{target}");
        world.change("PUT", &map, json!({"lun_ids": [lun]})).await;
        groups.push(group);
    }
    let pools = [world.pools[0]];
    let (_, one) = world.make("one", |key| key.pools = Some(pools.into())).await;
    for (key, seen) in [(&world.key, 2), (&one, 1)] {
        for (list, at, count) in [
            ("/auth_group/list", "/auth_group", 3),
            ("/portal_group/list", "/portal_group", 2),
            ("/iscsi_target/list", "/iscsi_target", seen),
            ("/target/iscsi/list", "/target/iscsi", seen),
            ("/lun/list", "/lun", seen),
            ("/pool/list", "/pool", seen),
        ] {
            let all = world.ask(key, "GET", list, None).await.json();
            let all = all.as_array().unwrap();
            assert_eq!(all.len(), count, "{list}");
            for told in all {
                let at = format!("{at}/{}", text(&told["id"]));
                assert_eq!(world.ask(key, "GET", &at, None).await.json(), *told, "{at}");
            }
        }
    }
    let shown = world.get("/target/iscsi/list").await;
    assert_eq!(shown[1]["initiators"][0]["iqn"], "iqn.2016-04.com.open-iscsi:b");
    let shown = world.ask(&one, "GET", "/auth_group/list", None).await.json();
    let secret = |n: usize| shown[n]["chap"][0]["chap_password"].clone();
    assert_eq!((secret(1), secret(2)), ("secretsecreta".into(), Value::Null));
    assert_eq!(shown[2]["initiator"][0]["group_id"], groups[1].as_str());
}

#[tokio::test]
async fn what_happened_and_who_there_is_are_told() {
    let world = World::new().await;
    world.lun("nvme1", "x").await;
    let sql = strongroom_catalog::Sql::new("UPDATE volumes SET used = size, measured_at = 1");
    world.appliance.app.catalog().execute(sql).await.unwrap();
    world.appliance.app.storage().check_volumes(90).await.unwrap();
    let of = |all: &Value, name: &str, word: &str| {
        all.as_array().unwrap().iter().find(|one| one[name] == word).cloned()
    };
    let (alerts, events) = (world.get("/log/alert").await, world.get("/log/system_event").await);
    let alert = of(&alerts, "event", "volume.overloaded").unwrap();
    assert_eq!((&alert["level"], &alert["object"]), (&"warning".into(), &"nvme1/x".into()));
    assert_eq!(of(&events, "event", "volume.overloaded"), Some(alert));
    assert_eq!(of(&events, "event", "volume.created").unwrap()["level"], "info");
    assert_eq!(of(&alerts, "event", "volume.created"), None);
    let line = of(&world.get("/log/audit").await, "operation", "ngx.lun.create").unwrap();
    assert_eq!((&line["user"], &line["result"]), (&"admin".into(), &"ok".into()));
    let user = world.get(&format!("/user/{}", world.user)).await;
    assert_eq!(of(&world.get("/user").await, "name", "admin"), Some(user));
    let overview = json!({"total": 2, "online": 2, "degraded": 0, "faulted": 0,
        "unavailable": 0, "disks": 2});
    assert_eq!(world.get("/pool/overview").await, overview);
}

#[tokio::test]
async fn what_disks_do_is_null_before_it_was_noted() {
    let world = World::new().await;
    let unknown = json!({"read": null, "write": null, "total": null, "disks": {}});
    for path in ["/status/iops", "/status/bandwidth"] {
        assert_eq!(world.get(path).await, unknown, "{path}");
    }
}
